"""What networks said of clips that they did not see: kept, read again, and judged part by part."""

import csv
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit

from helpers.bundles import LABELS, make_bundle, make_info, tone
from spectag.audio.files import write_audio
from spectag.data.labels import LabelSet
from spectag.data.manifest import read_manifest
from spectag.errors import BundleError
from spectag.models.out_of_fold import (
    COLUMNS,
    PREDICTIONS_FILE,
    OutOfFoldPredictions,
    group_names,
    names_of_clips,
    read_out_of_fold,
    write_out_of_fold,
)


def make_clips(n_clips=60, *, folds=("1", "2", "3"), labels=LABELS, seed=0):
    """Clips with one of three labels, which the logits tell in most cases; every fifth was never held out."""
    rng = np.random.default_rng(seed)
    y_true = np.eye(3, dtype=bool)[np.arange(n_clips) % 3]
    logits = rng.normal(size=(n_clips, 3)) + 3 * y_true - 1.5
    logits[::5] = np.nan
    return OutOfFoldPredictions(
        labels=LabelSet(labels),
        fnames=tuple(f"klang ü {i}.wav" for i in range(n_clips)),
        stretches=tuple((i / 3, i / 3 + 1) if i % 2 else (0.0, None) for i in range(n_clips)),
        folds=tuple("" if i % 5 == 0 else folds[i // 5 % len(folds)] for i in range(n_clips)),
        groups=tuple(f"recording {i // 2}" for i in range(n_clips)),
        keys=tuple(f"{i:032x}" for i in range(n_clips)),
        y_true=y_true,
        logits=logits,
    )


def write(folder, clips, labels=LABELS):
    bundle = make_bundle(folder, make_info(labels=labels))
    write_out_of_fold(bundle / PREDICTIONS_FILE, clips)
    return bundle


def test_clips_are_read_as_they_were_written(tmp_path):
    labels = ("Rain, heavy", 'Bell "big"', "Größe | weiß")
    clips = make_clips(labels=labels)
    found = read_out_of_fold(write(tmp_path / "model", clips, labels))
    assert found.labels == clips.labels
    for name in ("fnames", "stretches", "folds", "groups", "keys"):
        assert getattr(found, name) == getattr(clips, name)
    np.testing.assert_array_equal(found.y_true, clips.y_true)
    np.testing.assert_allclose(found.logits, clips.logits, rtol=1e-6, atol=1e-8)


def test_table_holds_probabilities_before_calibration_and_nothing_for_clips_never_held_out(tmp_path):
    clips = make_clips()
    with (write(tmp_path / "model", clips) / PREDICTIONS_FILE).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [*COLUMNS, *LABELS]
    assert [rows[0][label] for label in LABELS] == ["", "", ""]
    assert [float(rows[1][label]) for label in LABELS] == pytest.approx(expit(clips.logits[1]), abs=1e-9)
    assert rows[1]["labels"] == '["middle"]'


def test_the_surest_logits_stay_finite(tmp_path):
    clips = make_clips(6)
    clips = replace(clips, logits=np.array([[-800.0, 800.0, 0.0]] * 6))
    found = read_out_of_fold(write(tmp_path / "model", clips))
    assert np.isfinite(found.logits).all()
    assert (found.logits[:, 1] > 20).all()
    assert (found.logits[:, 0] < -20).all()


def test_tagger_without_held_out_clips_has_none(tmp_path):
    assert read_out_of_fold(make_bundle(tmp_path / "model")) is None


def test_table_of_another_tagger_is_refused(tmp_path):
    bundle = write(tmp_path / "model", make_clips(labels=("a", "b", "c")))
    with pytest.raises(BundleError, match=r"predictions.csv: its columns are not those of this tagger's 3 labels"):
        read_out_of_fold(bundle)


@pytest.mark.parametrize(("found", "instead"), [("1.3333333333333333", "soon"), ("low", "lwo")])
def test_damaged_table_is_told(tmp_path, found, instead):
    path = write(tmp_path / "model", make_clips()) / PREDICTIONS_FILE
    header, rows = path.read_text(encoding="utf-8").split("\n", 1)
    path.write_text(header + "\n" + rows.replace(found, instead, 1), encoding="utf-8")
    with pytest.raises(BundleError, match=r"predictions.csv: damaged"):
        read_out_of_fold(tmp_path / "model")


def test_labels_named_as_columns_and_names_of_no_encoding_are_kept(tmp_path):
    labels = ("Fold", "key", "start")
    clips = replace(make_clips(6, labels=labels), fnames=tuple(f"k\udcff{i}.wav" for i in range(6)))
    found = read_out_of_fold(write(tmp_path / "model", clips, labels))
    assert found.fnames[0] == "k\\udcff0.wav"
    np.testing.assert_array_equal(found.y_true, clips.y_true)
    np.testing.assert_allclose(found.logits, clips.logits, rtol=1e-6, atol=1e-8)


def test_what_else_was_learnt_from_is_kept_as_never_held_out_but_no_copies():
    clips, others = make_clips(6), replace(make_clips(9, seed=1), groups=("other",) * 9)
    both = clips.with_training_clips(others)
    assert both.keys == others.keys
    assert both.groups == (*clips.groups, "other", "other", "other")
    assert both.folds == (*clips.folds, "", "", "")
    np.testing.assert_array_equal(both.logits[:6], clips.logits)
    assert not both.seen[6:].any()
    np.testing.assert_array_equal(both.y_true, others.y_true)


def test_a_table_without_clips_is_damaged(tmp_path):
    path = write(tmp_path / "model", make_clips()) / PREDICTIONS_FILE
    path.write_text(path.read_text(encoding="utf-8").split("\n", 1)[0] + "\n", encoding="utf-8")
    with pytest.raises(BundleError, match=r"predictions.csv: damaged: it has no clips"):
        read_out_of_fold(tmp_path / "model")


def test_names_tell_nothing_of_the_machine(tmp_path):
    rows = ["fname,labels,group", f"{tmp_path}/x/a.wav,low,", f"{tmp_path}/y/a.wav,low,", "b.wav,high,site"]
    for name in ("x/a.wav", "y/a.wav", "b.wav"):
        write_audio(tmp_path / name, tone("low", 0.1), 16_000)
    (tmp_path / "clips.csv").write_text("\n".join(rows), encoding="utf-8")
    manifest = read_manifest(tmp_path / "clips.csv")
    assert names_of_clips(manifest) == ("x/a.wav", "y/a.wav", "b.wav")
    assert group_names(manifest) == ("x/a.wav", "y/a.wav", "site")


def test_folds_are_the_parts_where_there_are_three():
    clips = make_clips(folds=("a", "b", "c"))
    assert (clips.parts[~clips.seen] == -1).all()
    assert [("a", "b", "c")[part] for part in clips.parts[clips.seen]] == [fold for fold in clips.folds if fold]


def test_one_held_out_share_is_dealt_into_parts_and_no_recording_into_two():
    clips = make_clips(folds=("valid",))
    assert set(clips.parts) == {-1, 0, 1, 2, 3, 4}
    parts = {}
    for group, part in zip(clips.groups, clips.parts, strict=True):
        if part >= 0:
            assert parts.setdefault(group, part) == part


def test_a_single_recording_is_one_part_and_judged_by_plain_probabilities():
    clips = make_clips(10, folds=("valid",))
    clips = replace(clips, groups=("one",) * 10)
    assert set(clips.parts) == {-1, 0}
    judged = clips.judged()
    np.testing.assert_array_equal(judged.probabilities, expit(clips.logits))
    assert set(judged.thresholds[clips.seen].ravel()) == {0.5}


def test_a_part_is_judged_without_its_own_truth():
    clips = make_clips(90)
    part = clips.parts == 1
    liar = replace(clips, y_true=np.where(part[:, None], ~clips.y_true, clips.y_true))
    for name in ("probabilities", "thresholds"):
        honest, lied = (getattr(each.judged(method="platt"), name) for each in (clips, liar))
        np.testing.assert_array_equal(honest[part], lied[part])
        assert not np.array_equal(honest[clips.parts == 0], lied[clips.parts == 0])
