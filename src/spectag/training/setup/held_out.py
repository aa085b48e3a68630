"""Which clips are held out to evaluate a model: the manifest's folds, new folds, a fraction, or none."""

from collections.abc import Sequence, Set
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spectag.array_types import BoolArray
from spectag.config.recipe import Recipe
from spectag.data.clips import Clip, Manifest
from spectag.data.folds import random_holdout, stratified_folds, stratified_holdout
from spectag.errors import DataError

VALIDATION_NAMES = ("valid", "val", "validation")
MIN_GROUPS = 3
"""Fewest recordings of the median label for which new folds are made."""

FINETUNE_FRACTION = 0.2
"""Held out by default in fine-tuning, because k folds would take k times as long."""


@dataclass(frozen=True)
class HeldOut:
    """Clips held out, fold by fold.

    `names` and `rows` (bool arrays of shape (n_clips,)) have one item per fold and are empty if no clips are held out.
    With `is_single_split`, the final model is trained on the other clips only; otherwise it is trained on all clips.
    """

    names: tuple[str, ...]
    rows: tuple[BoolArray, ...]
    is_single_split: bool
    note: str


def hold_out(manifest: Manifest, recipe: Recipe) -> HeldOut:
    """Choose the clips that a recipe holds out.

    Raises
    ------
    DataError
        If this manifest does not allow the requested folds.
    """
    if recipe.validation_fraction is not None:
        return _fraction(manifest, recipe, recipe.validation_fraction)
    if recipe.folds == "none":
        return HeldOut((), (), False, "no clips: no scores, and thresholds are not fitted")
    if recipe.folds == "given":
        return _manifest_folds(manifest)
    if isinstance(recipe.folds, int):
        return _new_folds(manifest, recipe.folds, recipe.seed)
    return _automatic(manifest, recipe)


def _automatic(manifest: Manifest, recipe: Recipe) -> HeldOut:
    names = set(manifest.folds)
    if None not in names and (len(names) >= 3 or _validation_name(names)):
        return _manifest_folds(manifest)
    n_groups = recordings_per_label(manifest.clips, manifest.multi_hot())
    median = int(np.median(n_groups[n_groups > 0])) if n_groups.any() else 0
    if median < MIN_GROUPS:
        note = (
            f"no clips: too few recordings for folds (the median label has {median}, folds need {MIN_GROUPS}); default "
            "weight decay, no scores, and thresholds are not fitted"
        )
        return HeldOut((), (), False, note)
    if recipe.mode == "finetune":
        return _fraction(manifest, recipe, FINETUNE_FRACTION)
    return _new_folds(manifest, min(5, median), recipe.seed)


def recordings_per_label(clips: Sequence[Clip], y_true: BoolArray) -> NDArray[np.int_]:
    """Number of groups (or files, for clips without a group) in which each label occurs, of shape (n_labels,)."""
    groups = np.array([clip.group or str(clip.path) for clip in clips])
    return np.array([len(set(groups[rows])) for rows in y_true.T], int)


def _new_folds(manifest: Manifest, n_folds: int, seed: int) -> HeldOut:
    folds = stratified_folds(manifest.multi_hot(), n_folds, groups=manifest.groups, seed=seed)
    return _by_name([str(fold) for fold in folds], f"{n_folds} folds, balanced by label, each recording in one fold")


def _manifest_folds(manifest: Manifest) -> HeldOut:
    missing = [clip.name for clip in manifest.clips if clip.fold is None]
    if missing:
        raise DataError(
            f"{manifest.source}: {len(missing)} of {len(manifest.clips)} clips have no fold, such as {missing[0]}; "
            "fill in the column fold, or let spectag make folds with --folds 5"
        )
    folds = [str(clip.fold) for clip in manifest.clips]
    if len(set(folds)) < 2:
        raise DataError(
            f"{manifest.source}: all clips are in fold {folds[0]}; two or more folds are needed; let spectag make them "
            "with --folds 5"
        )
    validation_name = _validation_name(set(folds))
    if validation_name:
        rows = np.array([fold == validation_name for fold in folds])
        note = f"{rows.sum()} of {len(rows)} clips: the fold {validation_name} of the manifest"
        return HeldOut((validation_name,), (rows,), True, note)
    return _by_name(folds, f"the {len(set(folds))} folds of the manifest")


def _validation_name(names: Set[str | None]) -> str | None:
    """The fold to hold out if a manifest has one to train on and one to validate on, as FSD50K has."""
    return next((name for name in VALIDATION_NAMES if names == {"train", name}), None)


def _by_name(folds: Sequence[str], note: str) -> HeldOut:
    names = sorted(set(folds), key=lambda name: (len(name), name))
    return HeldOut(tuple(names), tuple(np.array([fold == name for fold in folds]) for name in names), False, note)


def _fraction(manifest: Manifest, recipe: Recipe, fraction: float) -> HeldOut:
    if recipe.validation_split == "random":
        rows = np.zeros(len(manifest.clips), bool)
        rows[random_holdout(len(rows), fraction, seed=recipe.seed)[1]] = True
        how = f"the rows of train_test_split(test_size={fraction:g}, random_state={recipe.seed})"
    else:
        rows = stratified_holdout(manifest.multi_hot(), fraction, groups=manifest.groups, seed=recipe.seed)
        how = "balanced by label, each recording either held out or not"
    return HeldOut(("valid",), (rows,), True, f"{rows.sum()} of {len(rows)} clips: {how}")
