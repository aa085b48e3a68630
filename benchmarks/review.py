"""How well a review finds wrong labels, and how much correcting them improves a model.

    python benchmarks/review.py esc10.csv [--fractions 0.1 0.2] [--seeds 5] [--methods self-confidence cleanlab]

Labels are corrupted: if each clip has one label, it is replaced by a random one; otherwise a label is removed, added or
both. A model is trained on them with `spectag train`, and they are reviewed with it. Then the first 15 % of the ranked
clips get their true labels back, and the model is trained again. lwlrap compares out-of-fold predictions with the true
labels.

Printed as mean and range over the seeds: the fraction of the wrong clips among the first clips of the ranking, the
lwlrap that is lost by wrong labels and regained, the suggestions that `--accept-above 0.95` accepts, and the fraction
of them that is right. A manifest without folds is split into five.
"""

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np

from spectag.config.recipe import Recipe
from spectag.curation.label_review import RankingMethod, Review, accept_suggestions, review
from spectag.data.clips import Manifest
from spectag.data.manifest import read_manifest
from spectag.data.split_manifest import split
from spectag.models.tagger import Tagger
from spectag.scoring.metrics import lwlrap
from spectag.training.pipeline import train

REVIEWED_FRACTIONS = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3)
REVIEWED = 0.15
MIN_CERTAINTY = 0.95


def main() -> None:
    arguments = _parser().parse_args()
    truth = _with_folds(read_manifest(arguments.manifest, audio_dir=arguments.audio_dir))
    for fraction in arguments.fractions:
        numbers: dict[str, list[float]] = defaultdict(list)
        with tempfile.TemporaryDirectory() as folder:
            clean = _train_lwlrap(truth, Path(folder) / "clean", truth, arguments.backbone)
            for seed in range(arguments.seeds):
                given = _corrupt(truth, fraction, np.random.default_rng(seed))
                _measure(truth, given, Path(folder), clean, arguments, numbers)
        print(f"\n{arguments.manifest.name}, {fraction:.0%} wrong, {arguments.seeds} seeds, {arguments.backbone}")
        print(f"{'clean labels, lwlrap':52}{clean:.4f}")
        for name, values in numbers.items():
            print(f"{name:52}{np.mean(values):.4f}  ({min(values):.4f} to {max(values):.4f})", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--audio-dir", type=Path)
    parser.add_argument("--backbone", default="mn04_audioset")
    parser.add_argument("--fractions", type=float, nargs="+", default=[0.1, 0.2])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--methods", nargs="+", default=["self-confidence"])
    return parser


def _with_folds(manifest: Manifest) -> Manifest:
    if all(manifest.folds):
        return manifest
    folds = split(manifest, folds=5).folds
    clips = tuple(replace(clip, fold=fold) for clip, fold in zip(manifest.clips, folds, strict=True))
    return replace(manifest, clips=clips)


def _corrupt(truth: Manifest, fraction: float, rng: np.random.Generator) -> Manifest:
    """The manifest with wrong labels for this fraction of the clips."""
    clips = list(truth.clips)
    single_label = all(len(clip.labels) == 1 for clip in clips)
    for row in rng.choice(len(clips), round(fraction * len(clips)), replace=False):
        clip = clips[row]
        kind = "swap" if single_label else rng.choice(["swap", "remove", "add"])
        others = [label for label in truth.labels.names if label not in clip.labels]
        removed = {str(rng.choice(clip.labels))} if kind != "add" and clip.labels else set()
        added = {str(rng.choice(others))} if kind != "remove" or not clip.labels else set()
        clips[row] = replace(clip, labels=tuple(sorted(set(clip.labels) - removed | added)))
    return replace(truth, clips=tuple(clips))


def _train_lwlrap(manifest: Manifest, folder: Path, truth: Manifest, backbone: str) -> float:
    """lwlrap of the out-of-fold predictions of a model trained on a manifest, against the true labels."""
    result = train(manifest, folder, Recipe(folds="given", backbone=backbone))
    assert not result.skipped, "every clip must be readable"
    return lwlrap(truth.multi_hot(), result.predictions)


def _measure(
    truth: Manifest,
    given: Manifest,
    folder: Path,
    clean: float,
    arguments: argparse.Namespace,
    numbers: dict[str, list[float]],
) -> None:
    true_labels = {clip.fname: set(clip.labels) for clip in truth.clips}
    wrong = {clip.fname for clip in given.clips if set(clip.labels) != true_labels[clip.fname]}
    lost = _train_lwlrap(given, folder / "wrong", truth, arguments.backbone)
    numbers["lwlrap with wrong labels"].append(lost)
    for method in arguments.methods:
        found = review(Tagger(folder / "wrong"), given, method=method, labels_only=True)
        ranking = _ranking(found, method)
        for reviewed in REVIEWED_FRACTIONS:
            first = ranking[: round(reviewed * len(ranking))]
            numbers[f"{method}: found in the first {reviewed:.0%}"].append(len(wrong & set(first)) / len(wrong))
        corrected = _corrected(given, truth, ranking[: round(REVIEWED * len(ranking))])
        corrected_score = _train_lwlrap(corrected, folder / "corrected", truth, arguments.backbone)
        numbers[f"{method}: lwlrap after correcting the first {REVIEWED:.0%}"].append(corrected_score)
        numbers[f"{method}: lost"].append(clean - lost)
        numbers[f"{method}: regained"].append(corrected_score - lost)
    numbers["in doubt"].append(sum(finding.kind != "no doubt" for finding in found.findings))
    rows = accept_suggestions(found, MIN_CERTAINTY, reviewer="nobody", time=datetime.now().astimezone())
    right = [set(row.new_labels) == true_labels[row.fname] for row in rows]
    numbers[f"accepted at {MIN_CERTAINTY}, of the wrong clips"].append(len(rows) / len(wrong))
    numbers[f"accepted at {MIN_CERTAINTY}, right"].append(float(np.mean(right)) if right else 1.0)


def _ranking(found: Review, method: RankingMethod) -> list[str]:
    """All clips, the most doubtful first; for cleanlab in the order of its scores."""
    findings = list(found.findings)
    if method == "cleanlab":
        findings.sort(key=lambda finding: -(finding.score or 0.0))
    return [finding.clip.fname for finding in findings]


def _corrected(given: Manifest, truth: Manifest, reviewed: Sequence[str]) -> Manifest:
    """The manifest with the true labels of the reviewed clips."""
    clips = [
        right if right.fname in set(reviewed) else clip for clip, right in zip(given.clips, truth.clips, strict=True)
    ]
    return replace(given, clips=tuple(clips))


if __name__ == "__main__":
    main()
