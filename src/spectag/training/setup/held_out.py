"""Which clips are held out to evaluate a model: the manifest's folds, new folds, a fraction, or none.

New folds keep clips together that share audio. Where so many share audio that they cannot all be kept together, the
folds are communities of clips that share much audio, and a fold is not trained on clips that share audio with its
held-out clips.
"""

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from spectag.array_types import BoolArray
from spectag.config.recipe import Recipe
from spectag.data.audio_groups import SharingClips
from spectag.data.clips import Clip, Manifest
from spectag.data.folds import random_holdout, stratified_folds, stratified_holdout
from spectag.data.readers.delimited_text import abbreviate
from spectag.errors import DataError
from spectag.models.out_of_fold import portable_group_names

VALIDATION_NAMES = ("valid", "val", "validation")
MIN_GROUPS = 3
"""Fewest recordings of the median label for which new folds are made."""

FINETUNE_FRACTION = 0.2
"""Held out by default in fine-tuning, because k folds would take k times as long."""

N_FOLDS = 5
N_COMMUNITY_FOLDS = (10, 20, 40)
"""With communities, the fewest of these folds that leave most clips to train on."""
_MAX_LEFT_OUT = 0.05
"""Largest fraction of the clips that may be left out where the final model consists of the networks of the folds."""
_MOST = 0.5
"""Fraction of the clips to train a fold on that gives a score close to that of new recordings."""
_MIN_TRAINED = 0.25
"""Smallest fraction of the clips to train a fold on. If fewer remain, none are left out: the score is optimistic."""


@dataclass(frozen=True)
class HeldOut:
    """Clips held out, fold by fold.

    `names` and `rows` (bool arrays of shape (n_clips,)) have one item per fold and are empty if no clips are held out.
    With `is_single_split`, the final model is trained on the other clips only; otherwise it is trained on all clips.

    `left_out` has, for each fold, the clips that are neither held out nor trained on, because they share audio with the
    held-out clips; it is empty if there are none. `optimistic` (n_clips,) are held-out clips that share audio with
    clips that their fold is trained on. `groups` are the recordings for intervals and calibration, one for each clip.
    `warnings` are messages about these folds.
    """

    names: tuple[str, ...]
    rows: tuple[BoolArray, ...]
    is_single_split: bool
    note: str
    left_out: tuple[BoolArray, ...] = ()
    optimistic: BoolArray | None = None
    groups: tuple[str, ...] | None = None
    warnings: tuple[str, ...] = ()

    @property
    def train_rows(self) -> tuple[BoolArray, ...]:
        """The clips that each fold is trained on, bool arrays of shape (n_clips,)."""
        if not self.left_out:
            return tuple(~rows for rows in self.rows)
        return tuple(~(rows | left_out) for rows, left_out in zip(self.rows, self.left_out, strict=True))


def hold_out(manifest: Manifest, recipe: Recipe, sharing: SharingClips | None = None) -> HeldOut:
    """Choose the clips that a recipe holds out.

    Folds and groups of the manifest, and random splits, stay as they are. Otherwise, clips that share audio are kept
    together, or are not trained on where the others are held out.

    Parameters
    ----------
    manifest : Manifest
    recipe : Recipe
    sharing : SharingClips, optional
        The clips of the manifest that share audio.

    Raises
    ------
    DataError
        If this manifest does not allow the requested folds.
    """
    if sharing is None or not len(sharing.pairs):
        return _by_groups(manifest, recipe)
    if is_given(manifest, recipe):
        return _with_optimistic(_by_groups(manifest, recipe), sharing)
    joined = sharing.joined()
    if joined is None:
        return _by_communities(sharing, recipe)
    held_out = _by_groups(joined, recipe)
    how = "are together" if held_out.names else "count as one recording"
    return replace(held_out, note=f"{held_out.note}; clips that share audio {how}")


def _by_groups(manifest: Manifest, recipe: Recipe) -> HeldOut:
    """The clips to hold out if nothing is shared between groups."""
    return replace(_choose(manifest, recipe), groups=portable_group_names(manifest))


def _choose(manifest: Manifest, recipe: Recipe) -> HeldOut:
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
    if _has_folds(manifest):
        return _manifest_folds(manifest)
    n_groups = recordings_per_label(manifest.clips, manifest.multi_hot())
    median = int(np.median(n_groups[n_groups > 0])) if n_groups.any() else 0
    if median < MIN_GROUPS:
        note = (
            f"no clips: too few recordings for folds (the median label has {median}, folds need {MIN_GROUPS}); no "
            "scores, default settings of the head, and thresholds are not fitted"
        )
        return HeldOut((), (), False, note)
    if recipe.mode == "finetune":
        return _fraction(manifest, recipe, FINETUNE_FRACTION)
    return _new_folds(manifest, min(N_FOLDS, median), recipe.seed)


def _has_folds(manifest: Manifest) -> bool:
    """Whether the manifest's folds are used if the recipe does not say which folds to use."""
    names = set(manifest.folds)
    return None not in names and (len(names) >= 3 or bool(_validation_name(names)))


def is_given(manifest: Manifest, recipe: Recipe) -> bool:
    """Whether the user decided which clips belong together: by folds, by groups, or by a random split."""
    if recipe.validation_fraction is not None:
        decides = recipe.validation_split == "random"
    else:
        decides = recipe.folds in ("given", "none") or (recipe.folds == "auto" and _has_folds(manifest))
    files = {str(clip.path) for clip in manifest.clips}  # exact copies are in a group with the name of a file
    return decides or any(clip.group is not None and clip.group not in files for clip in manifest.clips)


def _by_communities(sharing: SharingClips, recipe: Recipe) -> HeldOut:
    """Folds of clips that share much audio; training clips that share audio with held-out clips are left out."""
    members, n_clips = recipe.member_recipes(), len(sharing.manifest.clips)
    for n_folds in (
        N_COMMUNITY_FOLDS
        if _can_have_many_folds(recipe)
        else (recipe.folds if isinstance(recipe.folds, int) else N_FOLDS,)
    ):
        held_out = _fold_communities(sharing, recipe, n_folds)
        if not held_out.names:
            return held_out
        n_trained, n_left_out = (
            float(np.mean([rows.sum() for rows in fold_rows])) for fold_rows in (held_out.train_rows, held_out.left_out)
        )
        if held_out.is_single_split or n_trained >= _MOST * n_clips:
            break
    is_final = held_out.is_single_split or any(member.final_model != "refit" for member in members)
    if n_trained < _MIN_TRAINED * n_clips or (is_final and n_left_out > _MAX_LEFT_OUT * n_clips):
        return _with_optimistic(replace(held_out, left_out=()), sharing)
    note = (
        f"{held_out.note}; a fold is trained on {n_trained:.0f} of {n_clips} clips on average, without "
        f"{n_left_out:.0f} that share audio with its held-out clips"
    )
    warnings = [*_lost_labels(held_out, sharing.manifest)]
    if n_trained < _MOST * n_clips:
        warnings.append(
            f"the score may be too low: a fold is trained on {n_trained:.0f} clips, the final model on all {n_clips}; "
            "clips of more different recordings give a better estimate"
        )
    return replace(held_out, note=note, warnings=tuple(warnings))


def _can_have_many_folds(recipe: Recipe) -> bool:
    """Whether many folds take little time: frozen members are fast, and others beside them use only a few folds."""
    members = recipe.member_recipes()
    n_slow = sum(member.mode == "finetune" for member in members)
    has_few = n_slow < len(members) and all(member.final_model == "refit" for member in members)
    return recipe.folds == "auto" and (n_slow == 0 or has_few)


def _fold_communities(sharing: SharingClips, recipe: Recipe, n_folds: int) -> HeldOut:
    """Folds or a split of communities; `left_out` are all clips that share audio with the held-out clips."""
    manifest = sharing.in_communities(n_folds, seed=recipe.seed)
    held_out = _choose(manifest, recipe)
    if recipe.folds == "auto" and len(held_out.names) > 1:
        held_out = _new_folds(manifest, min(n_folds, len(set(manifest.groups))), recipe.seed)
    return replace(
        held_out,
        note=f"{held_out.note}; clips that share much audio {'are together' if held_out.names else 'count as one'}",
        left_out=tuple(sharing.sharing_with(rows) & ~rows for rows in held_out.rows),
        groups=portable_group_names(manifest),
    )


def _lost_labels(held_out: HeldOut, manifest: Manifest) -> Iterable[str]:
    """A warning about labels that a fold cannot learn, because all other clips with this label share audio with it."""
    y_true = manifest.multi_hot()
    lost = np.zeros(y_true.shape[1], bool)
    for rows, train in zip(held_out.rows, held_out.train_rows, strict=True):
        lost |= y_true[rows].any(axis=0) & ~y_true[train].any(axis=0) & y_true[~rows].any(axis=0)
    if lost.any():
        names = np.array(manifest.labels.names)[lost].tolist()
        yield (
            f"in some folds, all other clips with the label share audio with held-out clips: {abbreviate(names)}; "
            "the scores of these labels are too low"
        )


def _with_optimistic(held_out: HeldOut, sharing: SharingClips) -> HeldOut:
    """With the held-out clips that share audio with clips that their fold is trained on."""
    optimistic = np.zeros(len(sharing.manifest.clips), bool)
    for rows in held_out.rows:
        optimistic |= rows & sharing.sharing_with(~rows)
    return replace(held_out, optimistic=optimistic) if optimistic.any() else held_out


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
