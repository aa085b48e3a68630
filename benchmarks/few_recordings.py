"""Accuracy from one, two and four recordings a label, with frozen features of all stages and of the last alone.

    python benchmarks/few_recordings.py esc10.csv --group-column source

The manifest has one label a clip. A draw takes that many recordings (groups) of each label and one clip of each; it is
tested on all clips of the other recordings. Printed: the mean over the draws, and the least.
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spectag.audio.front_end import FrontEnd
from spectag.config.backbones import front_end_of
from spectag.config.recipe import Recipe
from spectag.data.clips import Manifest
from spectag.data.manifest import read_manifest
from spectag.data.spectrograms.clip_inputs import open_clips
from spectag.scoring.metrics import top1_accuracy
from spectag.system.cache import cache_folder
from spectag.system.progress import no_log, silent
from spectag.training.heads.logistic import DEFAULT_WEIGHT_DECAY, fit_heads
from spectag.training.inputs.feature_store import FeatureStore


def main() -> None:
    arguments = _parser().parse_args()
    manifest = read_manifest(arguments.manifest, group_column=arguments.group_column)
    print(
        f"{'backbone':20}{'features':>10}"
        + "".join(f"{n:>6} a label" for n in (1, 2, 4))
        + f"   {arguments.draws} draws"
    )
    for backbone in arguments.backbones:
        for kind in ("all", "last"):
            features, group_sizes = _features(manifest, Recipe(backbone=backbone, features=kind))
            cells = [_accuracies(manifest, features, group_sizes, n, arguments.draws) for n in (1, 2, 4)]
            columns = "".join(f"{np.mean(cell):8.3f} ({np.min(cell):.2f})" for cell in cells)
            print(f"{backbone:20}{kind:>10}{columns}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--group-column", default=None)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--backbones", nargs="+", default=["mn04_audioset", "efficientnet_lite0"])
    return parser


def _features(manifest: Manifest, recipe: Recipe) -> tuple[NDArray[np.float32], list[int]]:
    front_end, cache = FrontEnd(mel=front_end_of(recipe.backbone, None)), cache_folder() / "bank"
    clips = open_clips(manifest, front_end, cache, workers=None, progress=silent, log=no_log)
    store = FeatureStore(cache, recipe, front_end)
    return store.compute(clips.keys, clips.inputs, progress=silent), store.group_sizes(clips.inputs(0))


def _accuracies(
    manifest: Manifest, features: NDArray[np.float32], group_sizes: list[int], n_recordings: int, n_draws: int
) -> list[float]:
    y_true, groups = manifest.multi_hot(), np.array(manifest.groups)
    accuracies = []
    for draw in range(n_draws):
        chosen = _draw(y_true, groups, n_recordings, np.random.default_rng(draw))
        strange = ~np.isin(groups, groups[chosen])
        head = fit_heads(features[chosen], y_true[chosen], group_sizes, (DEFAULT_WEIGHT_DECAY,))[0]
        accuracies.append(top1_accuracy(y_true[strange], head.logits(features[strange])))
    return accuracies


def _draw(
    y_true: NDArray[np.bool_], groups: NDArray[np.str_], n_recordings: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Positions of one clip of each of so many recordings of each label."""
    chosen = []
    for has_label in y_true.T:
        recordings = rng.permutation(np.unique(groups[has_label]))[:n_recordings]
        chosen += [int(rng.choice(np.flatnonzero(has_label & (groups == recording)))) for recording in recordings]
    return np.array(chosen)


if __name__ == "__main__":
    main()
