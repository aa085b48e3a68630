"""The number of labels that an accuracy needs, with clips from `spectag suggest` and with random clips.

    python benchmarks/suggest.py esc10.csv
    python benchmarks/suggest.py esc10.csv --rare 4
    python benchmarks/suggest.py comp/train_curated.csv --test answers.csv --test-audio comp/test --pool 500

The clips of a pool are labelled in batches. After each batch, a head is fitted to the labelled clips as in `spectag
train`, and evaluated on the test clips: by accuracy, or by lwlrap if clips have several labels. If the manifest has
folds, each seed uses another fold for the test and the other folds for the pool. --pool draws a number of clips for
each seed. --rare removes all but three clips of some labels, drawn for each seed. --start labels some random clips
before the first suggestion.

Printed: mean and range over the seeds, by number of labels (for random clips, each seed is the mean of four draws);
and the number of labels from which the mean stays at or above a level, interpolated linearly between batches.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from spectag.audio.front_end import FrontEnd
from spectag.config.backbones import resolve_mel
from spectag.config.recipe import Recipe
from spectag.curation.embedding import Embedding
from spectag.curation.facility_location import margin_uncertainty, select
from spectag.data.clips import Manifest
from spectag.data.manifest import read_manifest
from spectag.data.spectrograms.clip_inputs import open_clips
from spectag.scoring.metrics import lwlrap, top1_accuracy
from spectag.system.cache import cache_folder
from spectag.system.progress import no_log, silent
from spectag.training.heads.logistic import DEFAULT_WEIGHT_DECAY, LinearHead, fit_heads
from spectag.training.inputs.feature_store import FeatureStore

METHODS = ("suggested", "random")
CLIPS_OF_RARE = 3
N_RANDOM = 4  # draws for each seed, because they vary

BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Clips:
    """The features, labels and folds of all clips."""

    features: NDArray[np.float32]
    y_true: BoolArray
    folds: NDArray[np.str_]
    group_sizes: list[int]

    def of(self, rows: IntArray) -> "Clips":
        """A subset of the clips."""
        return replace(self, features=self.features[rows], y_true=self.y_true[rows], folds=self.folds[rows])

    def head(self, rows: IntArray) -> tuple[LinearHead, BoolArray]:
        """The head that is fitted to these clips, and the labels that occur in them."""
        known = self.y_true[rows].any(axis=0)
        head = fit_heads(self.features[rows], self.y_true[rows][:, known], self.group_sizes, (DEFAULT_WEIGHT_DECAY,))
        return head[0], known


def main() -> None:
    arguments = _parser().parse_args()
    clips, test = _clips(arguments)
    numbers = list(range(arguments.start or arguments.batch, arguments.labels + 1, arguments.batch))
    curves: dict[str, list[NDArray[np.float64]]] = {method: [] for method in METHODS}
    for seed in range(arguments.seeds):
        rng = np.random.default_rng(seed)
        pool, test_clips = _draw(clips, test, seed, arguments, rng)
        start = rng.permutation(len(pool.y_true))[: arguments.start]
        drawn = [_scores(pool, test_clips, numbers, start, _at_random, rng) for _ in range(N_RANDOM)]
        curves["suggested"].append(_scores(pool, test_clips, numbers, start, _suggested, rng))
        curves["random"].append(np.mean(drawn, axis=0))
    print("| labels | " + " | ".join(f"{method}, mean (range)" for method in METHODS) + " |\n|---|---|---|")
    for column, number in enumerate(numbers):
        values = [np.array(curves[method])[:, column] for method in METHODS]
        cells = [f"{value.mean():.3f} ({value.min():.3f} to {value.max():.3f})" for value in values]
        print(f"| {number} | {' | '.join(cells)} |")
    print(f"\n| level | {' | '.join(METHODS)} | fewer |\n|---|---|---|---|")
    for level in arguments.levels:
        needed = [_needed(numbers, np.mean(curves[method], axis=0), level) for method in METHODS]
        cells = [f"over {numbers[-1]}" if np.isnan(number) else f"{number:.0f}" for number in needed]
        fewer = 1 - needed[0] / (numbers[-1] if np.isnan(needed[1]) else needed[1])
        at_least = "at least " if np.isnan(needed[1]) else ""
        print(f"| {level:g} | {' | '.join(cells)} | {'' if np.isnan(needed[0]) else f'{at_least}{fewer:.0%}'} |")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path, help="with folds, unless --test is given")
    parser.add_argument("--test", type=Path, help="manifest of the test clips")
    parser.add_argument("--test-audio", type=Path, help="folder of its sounds")
    parser.add_argument("--backbone", default="mn04_audioset")
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--labels", type=int, default=120, help="maximum number of labels")
    parser.add_argument("--pool", type=int, help="number of clips in the pool; all by default")
    parser.add_argument("--start", type=int, default=0, help="random clips that are labelled first")
    parser.add_argument("--rare", type=int, default=0, help="number of labels with only three clips in the pool")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--levels", type=float, nargs="+", default=[0.9, 0.95, 0.97, 0.98])
    return parser


def _clips(arguments: argparse.Namespace) -> tuple[Clips, Clips | None]:
    train = read_manifest(arguments.manifest)
    clips = _embed(train, arguments.backbone)
    if arguments.test is None:
        return clips, None
    test = read_manifest(arguments.test, audio_dir=arguments.test_audio, labels=train.labels)
    return clips, _embed(replace(test, labels=train.labels), arguments.backbone)


def _embed(manifest: Manifest, backbone: str) -> Clips:
    recipe, cache = Recipe(backbone=backbone), cache_folder() / "spectrograms"
    front_end = FrontEnd(mel=resolve_mel(backbone, None))
    inputs = open_clips(manifest, front_end, cache, workers=None, progress=silent, log=no_log)
    store = FeatureStore(cache, recipe, front_end)
    features = store.compute(inputs.keys, inputs.inputs, progress=silent)
    folds = np.array([fold or "" for fold in inputs.manifest.folds])
    return Clips(features, inputs.manifest.multi_hot(), folds, store.group_sizes(inputs.inputs(0)))


def _draw(
    clips: Clips, test: Clips | None, seed: int, arguments: argparse.Namespace, rng: np.random.Generator
) -> tuple[Clips, Clips]:
    """The pool and the test clips of a seed."""
    if test is None:
        folds = np.unique(clips.folds)
        is_test = clips.folds == folds[seed % len(folds)]
        clips, test = clips.of(np.flatnonzero(~is_test)), clips.of(np.flatnonzero(is_test))
    pool = clips.of(_thinned(clips.y_true, arguments.rare, rng))
    return pool.of(np.sort(rng.permutation(len(pool.y_true))[: arguments.pool])), test


def _scores(
    pool: Clips,
    test: Clips,
    numbers: Sequence[int],
    labelled: IntArray,
    choose: Callable[[Clips, IntArray, int, np.random.Generator], IntArray],
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """The scores after each number of labels."""
    scores = []
    for number in numbers:
        labelled = np.append(labelled, choose(pool, labelled, number - len(labelled), rng))
        scores.append(_score(pool, labelled, test))
    return np.array(scores)


def _at_random(pool: Clips, labelled: IntArray, n: int, rng: np.random.Generator) -> IntArray:
    return rng.permutation(np.setdiff1d(np.arange(len(pool.y_true)), labelled))[:n]


def _suggested(pool: Clips, labelled: IntArray, n: int, rng: np.random.Generator) -> IntArray:
    vectors = Embedding.fit(pool.features)(pool.features)
    rest = np.setdiff1d(np.arange(len(vectors)), labelled)
    uncertainty = None
    if len(labelled):
        has_empty = not pool.y_true[labelled].any(axis=1).all()
        head, _ = pool.head(labelled)
        uncertainty = margin_uncertainty(expit(head.logits(pool.features[rest])), allow_no_label=has_empty)
    selections = islice(select(vectors[rest], uncertainty=uncertainty, labelled=vectors[labelled], rng=rng), n)
    return rest[np.array([selection.index for selection in selections], int)]


def _thinned(y_true: BoolArray, n_rare: int, rng: np.random.Generator) -> IntArray:
    """All clips, except most clips of some labels."""
    kept = np.ones(len(y_true), bool)
    for label in rng.permutation(y_true.shape[1])[:n_rare]:
        kept[rng.permutation(np.flatnonzero(y_true[:, label]))[CLIPS_OF_RARE:]] = False
    return np.flatnonzero(kept)


def _score(pool: Clips, labelled: IntArray, test: Clips) -> float:
    head, known = pool.head(labelled)
    logits = np.full(test.y_true.shape, -1e3)  # for labels without labelled clips
    logits[:, known] = head.logits(test.features)
    is_single = (test.y_true.sum(axis=1) == 1).all()
    return top1_accuracy(test.y_true, logits) if is_single else lwlrap(test.y_true, logits)


def _needed(numbers: Sequence[int], scores: NDArray[np.float64], level: float) -> float:
    """The number of labels from which the score stays at the level; NaN if it ends below."""
    below = np.flatnonzero(scores < level)
    if not len(below):
        return numbers[0]
    last = below[-1]
    if last + 1 == len(numbers):
        return np.nan
    fraction = (level - scores[last]) / (scores[last + 1] - scores[last])
    return numbers[last] + fraction * (numbers[last + 1] - numbers[last])


if __name__ == "__main__":
    main()
