"""Features of clips that were made by mixing two training clips, for heads on frozen networks."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from spectag.array_types import BoolArray, Float32Array, IntArray
from spectag.config.recipe import Recipe
from spectag.system.progress import Progress
from spectag.training.inputs.augmenter import Augmenter, draw
from spectag.training.inputs.batches import silence_of, stretch
from spectag.training.inputs.feature_store import FeatureStore

MIXES_VERSION = 1
"""Raised when the same clips are mixed otherwise than before."""


@dataclass(frozen=True)
class Mixes:
    """Mixed clips: `features` (n_mixes, n_features), `targets` (n_mixes, n_labels) and the positions of the two clips
    that each is made of, `parents` (n_mixes, 2)."""

    features: Float32Array
    targets: Float32Array
    parents: IntArray

    def within(self, rows: BoolArray) -> BoolArray:
        """The mixes both of whose parents are among some rows of the clips."""
        return np.asarray(rows[self.parents].all(axis=1), bool)


def make_mixes(
    store: FeatureStore,
    keys: Sequence[str],
    inputs: Callable[[int], Float32Array],
    y_true: BoolArray,
    recipe: Recipe,
    *,
    progress: Progress,
) -> Mixes:
    """Mix `recipe.n_mixed_clips` pairs of clips as `recipe.augment` says, but for backgrounds, and get their features.

    A pair is of two clips where there are two. The first mixes are the same however many follow. `keys` and `inputs`
    are as in `FeatureStore.compute`, whose errors these are.
    """
    augment = recipe.augment.model_copy(update={"mix": 1.0, "background": None})
    augmenter = Augmenter(augment, store.front_end)
    parents = _pairs(len(keys), recipe.n_mixed_clips, np.random.default_rng(recipe.seed))
    no_targets = torch.zeros(1, 0)  # joined below

    def mixed(number: int) -> Float32Array:
        rng = np.random.default_rng((recipe.seed, 1 + number))
        pair = [inputs(int(i)) for i in parents[number]]
        width = max(part.shape[-1] for part in pair)
        first, second = (_batch(stretch(part, width, silence_of(part, store.front_end), rng)) for part in pair)
        made, _ = augmenter(first, second, None, no_targets, no_targets, [draw(augment, rng)])
        array: Float32Array = made[0].numpy()
        return array

    how = f"{MIXES_VERSION} {recipe.seed} {augment.model_dump_json()}"
    names = [_key(f"mix {number} of {keys[i]} {keys[j]}: {how}") for number, (i, j) in enumerate(parents)]
    features = store.compute(names, mixed, progress=progress)
    targets = y_true[parents[:, 0]] | y_true[parents[:, 1]]
    return Mixes(features, targets.astype(np.float32), parents)


def _pairs(n_clips: int, n_pairs: int, rng: np.random.Generator) -> IntArray:
    """Positions (n_pairs, 2) of two clips each."""
    first, distance = rng.integers([n_clips, max(n_clips - 1, 1)], size=(n_pairs, 2)).T
    return np.stack([first, (first + 1 + distance) % n_clips], axis=1)


def _batch(inputs: Float32Array) -> torch.Tensor:
    return torch.from_numpy(np.array(inputs[None], np.float32))


def _key(what: str) -> str:
    return hashlib.blake2b(what.encode(), digest_size=16).hexdigest()
