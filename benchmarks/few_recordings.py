"""Accuracy with one, two and four recordings per label, with frozen features of all stages or the last stage.

    python benchmarks/few_recordings.py esc10.csv --group-column source

Each clip of the manifest has one label. A draw takes this number of recordings (groups) per label, and one clip of each
recording. It is tested on all clips of the other recordings. Printed: the mean and the minimum over the draws.
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spectag.audio.front_end import FrontEnd
from spectag.config.backbones import resolve_mel
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
        + "".join(f"{n:>4} per label" for n in (1, 2, 4))
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
    front_end, cache = FrontEnd(mel=resolve_mel(recipe.backbone, None)), cache_folder() / "spectrograms"
    clips = open_clips(manifest, front_end, cache, workers=None, progress=silent, log=no_log)
    store = FeatureStore(cache, recipe, front_end)
    return store.compute(clips.keys, clips.inputs, progress=silent), store.group_sizes(clips.inputs(0))


def _accuracies(
    manifest: Manifest, features: NDArray[np.float32], group_sizes: list[int], n_recordings: int, n_draws: int
) -> list[float]:
    y_true, groups = manifest.multi_hot(), np.array(manifest.groups)
    accuracies = []
    for draw in range(n_draws):
        chosen = draw_one_clip_each(y_true, groups, n_recordings, np.random.default_rng(draw))
        is_test = ~np.isin(groups, groups[chosen])
        head = fit_heads(features[chosen], y_true[chosen], group_sizes, (DEFAULT_WEIGHT_DECAY,))[0]
        accuracies.append(top1_accuracy(y_true[is_test], head.logits(features[is_test])))
    return accuracies


def draw_one_clip_each(
    y_true: NDArray[np.bool_], groups: NDArray[np.str_], n_recordings: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Rows of one clip of each of n recordings of each label."""
    chosen = []
    for has_label in y_true.T:
        recordings = rng.permutation(np.unique(groups[has_label]))[:n_recordings]
        chosen += [int(rng.choice(np.flatnonzero(has_label & (groups == recording)))) for recording in recordings]
    return np.array(chosen)


if __name__ == "__main__":
    main()
