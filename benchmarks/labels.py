"""Labels that nobody checked, and annotations that overlap, scored on new recordings.

    python benchmarks/labels.py CLIPS.csv [--recordings 6] [--seeds 1 2 3 4 5] [--work FOLDER]

CLIPS.csv is the table of benchmarks/competition.py: fname, labels (one per clip) and source. Mixed clips are cut from
the given number of recordings per label, and tested on mixed clips of other recordings, with the default head. Scores
are lwlrap, and the log loss per decision of the probabilities that are calibrated on held-out training clips.

Unchecked labels: of each training clip, only a fraction of the labels was checked. The others are unknown, or taken as
absent. Annotations: each sound in a training clip is annotated with its times. The segments have only the label of
their annotation, or the joined labels of all that overlap them. The last column is the mean difference of the last two
over the seeds, with its 95 % interval (Student's t).
"""

import argparse
import csv
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from competition import split_sources, write_set, write_table
from heads import gain
from spectag.audio.front_end import FrontEnd
from spectag.config.backbones import resolve_mel
from spectag.config.recipe import Recipe
from spectag.data.audio_groups import SharingClips
from spectag.data.clips import Manifest
from spectag.data.fingerprint_cache import clip_fingerprints
from spectag.data.manifest import read_manifest
from spectag.data.shared_audio import find_shared_audio
from spectag.scoring.calibration import fit_calibration, probabilities_of
from spectag.scoring.metrics import lwlrap
from spectag.scoring.reliability_diagram import log_loss
from spectag.system.progress import silent
from spectag.training.heads.per_fold import FrozenFeatures, fit_linear_heads
from spectag.training.members.member import open_inputs
from spectag.training.setup.callbacks import Callbacks
from spectag.training.setup.cross_validation import CrossValidation
from spectag.training.setup.held_out import hold_out

N_TRAIN, N_TEST = 300, 400
CHECKED = (0.75, 0.5, 0.25)
RECIPE = Recipe()
METRICS = ("lwlrap", "log loss")
Scores = tuple[float, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path)
    parser.add_argument("--recordings", type=int, default=6)
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3, 4, 5])
    parser.add_argument("--work", type=Path, help="by default a temporary folder")
    options = parser.parse_args()
    tables: dict[tuple[str, str], list[list[float]]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        for seed in options.seeds:
            for name, scores in measure(options.clips, work / str(seed), work / "cache", options.recordings, seed):
                for metric, of_metric in zip(METRICS, np.transpose(scores).tolist(), strict=True):
                    tables.setdefault((name, metric), []).append(of_metric)
    print(
        "| labels | score | all known | taken as absent | unknown or joined | difference |\n|---|---|---|---|---|---|"
    )
    for (name, metric), rows in tables.items():
        table = np.array(rows)
        means = [f"{mean:.4f}" if np.isfinite(mean) else "" for mean in table.mean(axis=0)]
        print(f"| {name} | {metric} | {' | '.join(means)} | {gain(table[:, 2] - table[:, 1])} |")


def measure(clips: Path, folder: Path, cache: Path, n_recordings: int, seed: int) -> list[tuple[str, list[Scores]]]:
    """The scores on new recordings: with all labels, with wrong negatives, and with what this project does."""
    labels = read_manifest(clips, group_column="source").labels.names
    write_competition(clips, folder, n_recordings, seed)
    test = read_manifest(folder / "test.csv", audio_dir=folder / "test")
    test = replace(test, labels=replace(test.labels, names=labels))
    test_features = features_of(test, cache)

    def score(train: Manifest, targets: np.ndarray, features: FrozenFeatures, sharing: SharingClips) -> Scores:
        cross_validation = CrossValidation.of(targets, hold_out(train, RECIPE, sharing))
        fit, parts = fit_linear_heads(features, cross_validation, RECIPE, Callbacks()), cross_validation.parts
        logits, y_true = fit.heads[-1].logits(test_features.clips), test.multi_hot()
        calibration = fit_calibration(cross_validation.cross_fitted(fit.logits), targets, folds=parts)
        return lwlrap(y_true, logits), log_loss(y_true, probabilities_of(logits, calibration))

    train = read_manifest(folder / "train.csv", audio_dir=folder / "train")
    train = replace(train, labels=test.labels)
    data = features_of(train, cache), sharing_of(train, cache)
    y_true, all_known = train.multi_hot(), score(train, train.multi_hot(), *data)
    results: list[tuple[str, list[Scores]]] = []
    for checked in CHECKED:
        is_checked = np.random.default_rng(seed).random(y_true.shape) < checked
        as_absent = score(train, y_true & is_checked, *data)
        as_unknown = score(train, np.where(is_checked, y_true, np.nan), *data)
        results.append((f"{checked:.0%} of the labels checked", [all_known, as_absent, as_unknown]))
    segments = read_manifest(folder / "annotations.csv", audio_dir=folder / "train")
    segments = replace(segments, labels=test.labels)
    data = features_of(segments, cache), sharing_of(segments, cache)
    own = replace(segments, clips=tuple(replace(clip, labels=clip.labels[:1], unknown=()) for clip in segments.clips))
    joined = score(segments, segments.targets(), *data)
    results.append(("annotated segments", [(np.nan, np.nan), score(own, own.multi_hot(), *data), joined]))
    return results


def write_competition(clips: Path, folder: Path, n_recordings: int, seed: int) -> None:
    """Training and test clips, and the annotations of the sounds in the training clips."""
    if (folder / "annotations.csv").exists():
        return
    rng = np.random.default_rng(seed)
    contents: list[list[Any]] = []
    train_pool, test_pool = split_sources(clips, n_recordings, rng)
    write_set(folder, "train", train_pool, N_TRAIN, rng, contents)
    write_set(folder, "test", test_pool, N_TEST, rng, [])
    with clips.open(encoding="utf-8", newline="") as file:
        label_of = {Path(row["fname"]).name: row["labels"] for row in csv.DictReader(file)}
    rows = [
        [fname, position, f"{float(position) + float(end) - float(start):.4f}", label_of[recording]]
        for fname, recording, _, start, end, position in contents
    ]
    write_table(folder / "annotations.csv", ["fname", "onset", "offset", "event_label"], rows)


def features_of(manifest: Manifest, cache: Path) -> FrozenFeatures:
    front_end = FrontEnd(mel=resolve_mel(RECIPE.backbone, None))
    inputs = open_inputs(manifest, None, RECIPE, front_end, cache, Callbacks(), workers=None)
    return inputs.frozen_features(manifest.multi_hot(), progress=silent)


def sharing_of(manifest: Manifest, cache: Path) -> SharingClips:
    fingerprints = clip_fingerprints(manifest.clips, cache, workers=None, progress=silent)
    return SharingClips.of(manifest, find_shared_audio(fingerprints))


if __name__ == "__main__":
    main()
