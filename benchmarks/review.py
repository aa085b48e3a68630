"""How soon a review finds wrong labels, and what mending them is worth.

    python benchmarks/review.py esc10.csv [--shares 0.1 0.2] [--seeds 5] [--methods self-confidence cleanlab]

Labels are made wrong: where each clip has one, it becomes another by chance; elsewhere one of the clip's is taken away,
or another is added, or both. A tagger is trained on them by `spectag train` and reviews them. Then the clips among the
first 15 % of its ranking get their true labels back, as a person who listens would give them, and it is trained again.
lwlrap is that of held-out clips against the true labels.

Printed, each as mean and range over the seeds: which share of the wrong clips is found in the first per cents of the
ranking, what is lost by wrong labels and won back, and how many suggestions `--accept 0.95` takes and how many of these
are right. A manifest without folds is dealt into five.
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
from spectag.curation.label_review import Method, Review, accepted, review
from spectag.data.clips import Manifest
from spectag.data.manifest import read_manifest
from spectag.data.split_manifest import split
from spectag.models.tagger import Tagger
from spectag.scoring.metrics import lwlrap
from spectag.training.pipeline import train

SHARES_LOOKED_AT = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3)
LOOKED_AT = 0.15
CERTAIN = 0.95


def main() -> None:
    arguments = _parser().parse_args()
    truth = _with_folds(read_manifest(arguments.manifest, audio_dir=arguments.audio_dir))
    for share in arguments.shares:
        numbers: dict[str, list[float]] = defaultdict(list)
        with tempfile.TemporaryDirectory() as folder:
            clean = _trained(truth, Path(folder) / "clean", truth, arguments.backbone)
            for seed in range(arguments.seeds):
                given = _made_wrong(truth, share, np.random.default_rng(seed))
                _measure(truth, given, Path(folder), clean, arguments, numbers)
        print(f"\n{arguments.manifest.name}, {share:.0%} wrong, {arguments.seeds} seeds, {arguments.backbone}")
        print(f"{'clean labels, lwlrap':52}{clean:.4f}")
        for name, values in numbers.items():
            print(f"{name:52}{np.mean(values):.4f}  ({min(values):.4f} to {max(values):.4f})", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--audio-dir", type=Path)
    parser.add_argument("--backbone", default="mn04_audioset")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.1, 0.2])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--methods", nargs="+", default=["self-confidence"])
    return parser


def _with_folds(manifest: Manifest) -> Manifest:
    if all(manifest.folds):
        return manifest
    parts = split(manifest, folds=5).parts
    clips = tuple(replace(clip, fold=part) for clip, part in zip(manifest.clips, parts, strict=True))
    return replace(manifest, clips=clips)


def _made_wrong(truth: Manifest, share: float, rng: np.random.Generator) -> Manifest:
    """The manifest with wrong labels on this share of the clips."""
    clips = list(truth.clips)
    one_each = all(len(clip.labels) == 1 for clip in clips)
    for row in rng.choice(len(clips), round(share * len(clips)), replace=False):
        clip = clips[row]
        kind = "swap" if one_each else rng.choice(["swap", "take away", "add"])
        others = [label for label in truth.labels.names if label not in clip.labels]
        taken = {str(rng.choice(clip.labels))} if kind != "add" and clip.labels else set()
        added = {str(rng.choice(others))} if kind != "take away" or not clip.labels else set()
        clips[row] = replace(clip, labels=tuple(sorted(set(clip.labels) - taken | added)))
    return replace(truth, clips=tuple(clips))


def _trained(manifest: Manifest, folder: Path, truth: Manifest, backbone: str) -> float:
    """lwlrap, against the truth, of a tagger trained on a manifest."""
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
    lost = _trained(given, folder / "wrong", truth, arguments.backbone)
    numbers["lwlrap with wrong labels"].append(lost)
    for method in arguments.methods:
        found = review(Tagger(folder / "wrong"), given, method=method, labels_only=True)
        ranking = _ranking(found, method)
        for looked_at in SHARES_LOOKED_AT:
            first = ranking[: round(looked_at * len(ranking))]
            numbers[f"{method}: found in the first {looked_at:.0%}"].append(len(wrong & set(first)) / len(wrong))
        mended = _mended(given, truth, ranking[: round(LOOKED_AT * len(ranking))])
        again = _trained(mended, folder / "mended", truth, arguments.backbone)
        numbers[f"{method}: lwlrap after mending the first {LOOKED_AT:.0%}"].append(again)
        numbers[f"{method}: lost"].append(clean - lost)
        numbers[f"{method}: won back"].append(again - lost)
    numbers["in doubt"].append(sum(finding.kind != "no doubt" for finding in found.findings))
    rows = accepted(found, CERTAIN, who="nobody", when=datetime.now().astimezone())
    right = [set(row.after) == true_labels[row.fname] for row in rows]
    numbers[f"accepted at {CERTAIN}, of the wrong clips"].append(len(rows) / len(wrong))
    numbers[f"accepted at {CERTAIN}, right"].append(float(np.mean(right)) if right else 1.0)


def _ranking(found: Review, method: Method) -> list[str]:
    """All clips, the most doubtful first; by cleanlab's scores alone, whatever is suggested."""
    findings = list(found.findings)
    if method == "cleanlab":
        findings.sort(key=lambda finding: -(finding.score or 0.0))
    return [finding.clip.fname for finding in findings]


def _mended(given: Manifest, truth: Manifest, looked_at: Sequence[str]) -> Manifest:
    """The manifest after somebody who is never wrong has looked at these clips."""
    clips = [
        right if right.fname in set(looked_at) else clip for clip, right in zip(given.clips, truth.clips, strict=True)
    ]
    return replace(given, clips=tuple(clips))


if __name__ == "__main__":
    main()
