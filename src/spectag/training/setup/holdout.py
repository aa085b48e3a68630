"""Which clips are held out to see how good a tagger is: given folds, folds of our own, a share, or none."""

from collections.abc import Sequence, Set
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spectag.array_types import BoolArray
from spectag.config.recipe import Recipe
from spectag.data.clips import Clip, Manifest
from spectag.data.folds import holdout, random_holdout, stratified_folds
from spectag.errors import DataError

VALID_NAMES = ("valid", "val", "validation")
MIN_GROUPS = 3
"""Recordings of the typical label from which folds of our own tell anything."""

FINETUNE_SHARE = 0.2
"""Held out in fine-tuning where nothing else is asked for: folds would take as many times as long."""


@dataclass(frozen=True)
class HeldOut:
    """Clips held out, part by part.

    `names` and `rows` (bool arrays of shape (n_clips,)) are empty where none are held out. With `is_share` the rest is
    what the tagger is trained on; otherwise the tagger is trained on all clips in the end.
    """

    names: tuple[str, ...]
    rows: tuple[BoolArray, ...]
    is_share: bool
    note: str


def hold_out(manifest: Manifest, recipe: Recipe) -> HeldOut:
    """Choose the clips that a recipe holds out.

    Raises
    ------
    DataError
        If the folds asked for can't be had from this manifest.
    """
    if recipe.validation_fraction is not None:
        return _share(manifest, recipe, recipe.validation_fraction)
    if recipe.folds == "none":
        return HeldOut((), (), False, "none: no scores, and thresholds are not fitted")
    if recipe.folds == "given":
        return _given(manifest)
    if isinstance(recipe.folds, int):
        return _own(manifest, recipe.folds, recipe.seed)
    return _automatic(manifest, recipe)


def _automatic(manifest: Manifest, recipe: Recipe) -> HeldOut:
    names = set(manifest.folds)
    if None not in names and (len(names) >= 3 or _valid_name(names)):
        return _given(manifest)
    n_groups = recordings_per_label(manifest.clips, manifest.multi_hot())
    typical = int(np.median(n_groups[n_groups > 0])) if n_groups.any() else 0
    if typical < MIN_GROUPS:
        note = (
            f"too few recordings for folds (the typical label has {typical}, folds need {MIN_GROUPS}): default "
            "regularisation, no scores, and thresholds are not fitted"
        )
        return HeldOut((), (), False, note)
    if recipe.mode == "finetune":
        return _share(manifest, recipe, FINETUNE_SHARE)
    return _own(manifest, min(5, typical), recipe.seed)


def recordings_per_label(clips: Sequence[Clip], y_true: BoolArray) -> NDArray[np.int_]:
    """Number of groups (or files, for clips without a group) in which each label occurs, of shape (n_labels,)."""
    groups = np.array([clip.group or str(clip.path) for clip in clips])
    return np.array([len(set(groups[rows])) for rows in y_true.T], int)


def _own(manifest: Manifest, n_folds: int, seed: int) -> HeldOut:
    folds = stratified_folds(manifest.multi_hot(), n_folds, groups=manifest.groups, seed=seed)
    return _by_name([str(fold) for fold in folds], f"{n_folds} folds, balanced by label, each recording in one of them")


def _given(manifest: Manifest) -> HeldOut:
    without = [clip.name for clip in manifest.clips if clip.fold is None]
    if without:
        raise DataError(
            f"{manifest.source}: {len(without)} of {len(manifest.clips)} clips have no fold, such as {without[0]}; "
            "fill the column fold, or let spectag make folds: --folds 5"
        )
    folds = [str(clip.fold) for clip in manifest.clips]
    if len(set(folds)) < 2:
        raise DataError(f"{manifest.source}: all clips are in fold {folds[0]}; need two or more, or --folds 5")
    valid_name = _valid_name(set(folds))
    if valid_name:
        rows = np.array([fold == valid_name for fold in folds])
        note = f"{rows.sum()} of {len(rows)} clips, as the manifest says"
        return HeldOut((valid_name,), (rows,), True, note)
    return _by_name(folds, f"the {len(set(folds))} folds of the manifest")


def _valid_name(names: Set[str | None]) -> str | None:
    """The part to hold out where a manifest has one to train on and one to validate on, as FSD50K has."""
    return next((name for name in VALID_NAMES if names == {"train", name}), None)


def _by_name(folds: Sequence[str], note: str) -> HeldOut:
    names = sorted(set(folds), key=lambda name: (len(name), name))
    return HeldOut(tuple(names), tuple(np.array([fold == name for fold in folds]) for name in names), False, note)


def _share(manifest: Manifest, recipe: Recipe, share: float) -> HeldOut:
    if recipe.validation_split == "random":
        rows = np.zeros(len(manifest.clips), bool)
        rows[random_holdout(len(rows), share, seed=recipe.seed)[1]] = True
        how = f"the rows of train_test_split(test_size={share:g}, random_state={recipe.seed})"
    else:
        rows = holdout(manifest.multi_hot(), share, groups=manifest.groups, seed=recipe.seed)
        how = "balanced by label, each recording on one side"
    return HeldOut(("valid",), (rows,), True, f"{rows.sum()} of {len(rows)} clips: {how}")
