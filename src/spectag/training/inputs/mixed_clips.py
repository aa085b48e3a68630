"""Features of clips made by mixing two training clips, for heads on frozen networks."""

import hashlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from spectag.array_types import BoolArray, Float32Array, FloatArray, IntArray
from spectag.config.recipe import Recipe
from spectag.data.spectrograms.clip_inputs import MAX_CLIP_SECONDS
from spectag.system.progress import Progress
from spectag.training.inputs.augmenter import Augmenter, draw, joined_targets
from spectag.training.inputs.batches import crop_or_pad, silence_of
from spectag.training.inputs.feature_store import FeatureStore

MIXES_VERSION = 1
"""Increased when the same settings mix clips in another way."""


@dataclass(frozen=True)
class MixedClips:
    """Mixed clips: `features` (n_mixed, n_features), `targets` (n_mixed, n_labels) and `parents` (n_mixed, 2).

    Parents are the indices of the two clips that a mixed clip is made of.
    """

    features: Float32Array
    targets: Float32Array
    parents: IntArray

    def within(self, rows: BoolArray) -> BoolArray:
        """The mixed clips (a bool array of shape (n_mixed,)) whose two parents are both among `rows`."""
        return np.asarray(rows[self.parents].all(axis=1), bool)

    def joined(self, others: "MixedClips") -> "MixedClips":
        """These mixed clips, then the others."""
        return MixedClips(
            np.concatenate([self.features, others.features]),
            np.concatenate([self.targets, others.targets]),
            np.concatenate([self.parents, others.parents]),
        )


def mix_clips(
    store: FeatureStore,
    keys: Sequence[str],
    inputs: Callable[[int], Float32Array],
    y_true: BoolArray | FloatArray,
    recipe: Recipe,
    numbers: range,
    *,
    progress: Progress,
) -> MixedClips:
    """Features of the pairs of clips with these numbers, mixed as in `recipe.augment` but without backgrounds.

    The two clips of a pair differ if there are two. A mixed clip does not depend on the others.
    `y_true` has shape (n_clips, n_labels); a label is unknown (NaN) in a mixed clip if it is unknown in one of the two
    and the other does not have it. `keys`, `inputs` and the errors are those of `FeatureStore.compute`.
    """
    augment = recipe.augment.model_copy(update={"mix": 1.0, "background": None})
    augmenter = Augmenter(augment, store.front_end)
    longest = store.front_end.width_of(MAX_CLIP_SECONDS)  # a mixed clip is a single part
    parents = _pairs(len(keys), numbers.stop, np.random.default_rng(recipe.seed))[numbers.start :]
    no_targets = torch.zeros(1, 0)  # joined below

    def mixed(position: int) -> Float32Array:
        rng = np.random.default_rng((recipe.seed, 1 + numbers[position]))
        pair = [inputs(int(index)) for index in parents[position]]
        width = min(max(clip.shape[-1] for clip in pair), longest or sys.maxsize)
        excerpts = [crop_or_pad(clip, width, silence_of(clip, store.front_end), rng) for clip in pair]
        first, second = torch.from_numpy(np.array(excerpts, np.float32))[:, None]
        result, _ = augmenter(first, second, None, no_targets, no_targets, [draw(augment, rng)])
        return np.asarray(result[0])

    settings = f"{MIXES_VERSION} {recipe.seed} {augment.model_dump_json()}"
    descriptions = [
        f"mix {number} of {keys[i]} {keys[j]}: {settings}" for number, (i, j) in zip(numbers, parents, strict=True)
    ]
    mixed_keys = [hashlib.blake2b(text.encode(), digest_size=16).hexdigest() for text in descriptions]
    features = store.compute(mixed_keys, mixed, progress=progress)
    first, second = (torch.from_numpy(y_true[rows].astype(np.float32)) for rows in parents.T)
    return MixedClips(features, joined_targets(first, second).numpy(), parents)


def _pairs(n_clips: int, n_pairs: int, rng: np.random.Generator) -> IntArray:
    """Indices (n_pairs, 2) of two clips each."""
    first, distance = rng.integers([n_clips, max(n_clips - 1, 1)], size=(n_pairs, 2)).T
    return np.stack([first, (first + 1 + distance) % n_clips], axis=1)
