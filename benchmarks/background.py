"""Background recordings in training: false tags on other sounds, and scores, with and without --background.

    python benchmarks/background.py esc10.csv --group-column source [--foreign 2] [--rotations 3]

The manifest has one label per clip, and folds. In each rotation, other labels are foreign: half of their recordings are
the background, and the clips of the other half are tagged. All other clips are trained on. The scores are out-of-fold.
"""

import argparse
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

import spectag
from spectag.config.data_options import DataOptions
from spectag.data.clips import Clip, Manifest
from spectag.data.labels import LabelSet
from spectag.data.manifest import read_manifest
from spectag.models.out_of_fold import read_out_of_fold
from spectag.scoring.metrics import lwlrap


def split_recordings(clips: list[Clip], rng: np.random.Generator) -> tuple[list[Clip], list[Clip]]:
    """Half of the recordings of each label, and the other half."""
    halves: tuple[list[Clip], list[Clip]] = ([], [])
    for label in sorted({clip.labels for clip in clips}):
        groups = rng.permutation(sorted({str(clip.group) for clip in clips if clip.labels == label}))
        first = set(groups[: len(groups) // 2].tolist())
        for clip in clips:
            if clip.labels == label:
                halves[str(clip.group) not in first].append(clip)
    return halves


def measure(manifest: Manifest, background: list[Clip], foreign: list[Clip], work: Path) -> str:
    """The scores of a model, and its false tags on the foreign clips."""
    folder = None
    if background:
        folder = work / "background"
        folder.mkdir()
        for clip in background:
            shutil.copy(clip.path, folder)
    model = spectag.train(manifest, work / "model", data=DataOptions(background=folder)).bundle
    tagger = spectag.load(model)
    false = [len(tagger.tag(clip.path)) for clip in foreign]
    clips = read_out_of_fold(model)
    assert clips is not None
    fitted, rows = clips.cross_fitted(), clips.y_true.any(axis=1)
    y_true, probabilities = clips.y_true[rows], fitted.probabilities[rows]
    detected = probabilities >= fitted.thresholds[rows]
    f1 = 2 * (detected & y_true).sum() / (detected.sum() + y_true.sum())
    return (
        f"{np.mean([n > 0 for n in false]):6.1%} of {len(false)} foreign clips have a tag, "
        f"lwlrap {lwlrap(y_true, probabilities):.4f}, F1 {f1:.4f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--group-column")
    parser.add_argument("--foreign", type=int, default=2)
    parser.add_argument("--rotations", type=int, default=3)
    options = parser.parse_args()
    manifest = read_manifest(options.manifest, group_column=options.group_column)
    order = np.random.default_rng(0).permutation(manifest.labels.names).tolist()
    for rotation in range(options.rotations):
        others = {order[(options.foreign * rotation + n) % len(order)] for n in range(options.foreign)}
        is_other = [bool(others & set(clip.labels)) for clip in manifest.clips]
        others_clips = [clip for clip, other in zip(manifest.clips, is_other, strict=True) if other]
        known = tuple(clip for clip, other in zip(manifest.clips, is_other, strict=True) if not other)
        labels = LabelSet(tuple(name for name in manifest.labels.names if name not in others))
        background, foreign = split_recordings(others_clips, np.random.default_rng(rotation))
        print(f"foreign: {', '.join(sorted(others))}")
        for name, clips in (("without", []), ("with", background)):
            with tempfile.TemporaryDirectory() as work:
                result = measure(replace(manifest, clips=known, labels=labels), clips, foreign, Path(work))
            print(f"  {name:7} background: {result}", flush=True)


if __name__ == "__main__":
    main()
