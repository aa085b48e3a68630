"""Weights, unknown labels and annotations from the table to the model."""

import numpy as np
import pytest

from helpers.bundles import LABELS, tone
from helpers.command import write_tones
from spectag.audio.files import write_audio
from spectag.config.base import MelConfig
from spectag.config.recipe import Recipe
from spectag.models.bundle import read_info
from spectag.models.out_of_fold import read_out_of_fold
from spectag.scoring.metrics import average_precision
from spectag.training.pipeline import train

MEL = MelConfig(sample_rate=16_000, n_fft=512, hop_length=320, n_mels=32, f_max=8000)
N_CLIPS = 18
FROZEN = {"backbone": "scratch", "mel": MEL, "folds": 3, "find_shared_audio": False}
FINETUNED = {"backbone": "scratch", "mel": MEL, "mode": "finetune", "epochs": 2, "batch_size": 8, "folds": 2}


@pytest.fixture
def table(tmp_path):
    """A function that writes a multi-hot table of tones: cells and weights by the row of the clip."""
    names = write_tones(tmp_path / "clips", N_CLIPS)

    def write(changes=(), weights=None):
        cells = np.eye(3, dtype=int)[np.arange(N_CLIPS) % 3].astype(str)
        for row, label, cell in changes:
            cells[row, label] = cell
        lines = ["fname,weight," + ",".join(LABELS)]
        for row, name in enumerate(names):
            lines.append(",".join([name, "" if weights is None else str(weights[row]), *cells[row]]))
        path = tmp_path / "clips.csv"
        path.write_text("\n".join(lines), encoding="utf-8")
        return path

    return write


UNKNOWN = [(0, 1, ""), (1, 1, "?"), (5, 0, "nan"), (7, 2, "-1")]


@pytest.mark.parametrize("settings", [FROZEN, FROZEN | {"n_mixed_clips": 10}, FINETUNED])
def test_a_model_is_trained_and_scored_on_what_is_known(table, tmp_path, settings):
    lines = []
    weights = [2 if row < 3 else 0 if row == 4 else 1 for row in range(N_CLIPS)]
    result = train(table(UNKNOWN, weights), tmp_path / "model", Recipe(**settings), log=lines.append)
    assert "unknown labels: 4 in 4 clips; they are neither trained on nor scored" in lines
    assert "weights of clips: 0 to 2; 1 clips of weight 0 are not trained on; scores are not weighted" in lines
    stored = read_out_of_fold(tmp_path / "model")
    assert [(row, label) for row, label in np.argwhere(np.isnan(stored.targets)).tolist()] == [
        (row, label) for row, label, _ in UNKNOWN
    ]
    rows = ~np.isnan(result.predictions).any(axis=1)
    assert result.scores.n_clips == rows.sum()
    expected = average_precision(stored.targets[rows], result.predictions[rows])
    found = [estimate.value for estimate in result.scores.per_label["average_precision"]]
    np.testing.assert_allclose(found, expected)
    assert result.scores.n_clips_per_label.tolist() == (stored.targets[rows] == 1).sum(axis=0).tolist()


def test_the_fingerprint_of_the_data_depends_on_weights_and_unknown_labels(table, tmp_path):
    settings = Recipe(**FROZEN | {"folds": "none"})
    fingerprints = set()
    for number, (changes, weights) in enumerate([((), None), (UNKNOWN[:1], None), ((), [1] * 17 + [2])]):
        train(table(changes, weights), tmp_path / f"{number}", settings)
        fingerprints.add(read_info(tmp_path / f"{number}").data.fingerprint)
    assert len(fingerprints) == 3


def test_labels_that_are_only_unknown_are_named(table, tmp_path):
    path = table()
    names = [line.split(",")[0] for line in path.read_text().splitlines()[1:]]
    rows = [f"{name},{LABELS[row % 3]},{'midle' if row == 0 else ''}" for row, name in enumerate(names)]
    path.write_text("\n".join(["fname,labels,unknown", *rows]), encoding="utf-8")
    lines = []
    train(path, tmp_path / "model", Recipe(**FROZEN), log=lines.append)
    [warning] = [line for line in lines if "no clip has these unknown labels" in line]
    assert "midle" in warning
    assert "did you mean 'middle'" in warning


def test_complete_annotations_are_trained_on_with_the_time_between_them(run, tmp_path):
    """The labels of two sounds at once are joined, and silence is a negative."""
    rng = np.random.default_rng(0)
    low, high = tone("low", 1.0), tone("high", 1.0)
    for number in range(4):
        noise = rng.normal(0, 0.01, 16_000 * 8).astype(np.float32)
        for start, sound in ((1, low), (2, low), (5, high), (2, high)):
            noise[16_000 * start : 16_000 * (start + 1)] += sound
        write_audio(tmp_path / f"day {number}.wav", noise, 16_000)
        tracks = [(1, 2, "low"), (2, 3, "low"), (2, 3, "high"), (5, 6, "high")]
        text = "\n".join(f"{start}\t{end}\t{label}" for start, end, label in tracks)
        (tmp_path / f"day {number}.txt").write_text(text, encoding="utf-8")
    options = ["--backbone", "scratch", "--mel.sample-rate", "16000", "--mel.n-fft", "512", "--mel.hop-length", "320"]
    options += ["--mel.n-mels", "32", "--mel.f-max", "8000", "--folds", "2", "-o", tmp_path / "model"]
    done = run("train", tmp_path, *options, "--complete-annotations")
    assert done.status == 0, done.err
    assert "WARNING: the head is trained on the random weights of scratch" in done.err
    assert "Add --mode finetune" in done.err
    assert "pretrained on nothing" not in (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    assert "clips without labels: 12; they are negative examples of every label" in done.err
    stored = read_out_of_fold(tmp_path / "model")
    counts = {labels: (stored.y_true == labels).all(axis=1).sum() for labels in ((0, 0), (0, 1), (1, 0), (1, 1))}
    assert counts == {(0, 0): 12, (0, 1): 4, (1, 0): 4, (1, 1): 4}  # labels: high, low
