"""Which clips are held out, and the note about it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from spectag.config.recipe import Recipe
from spectag.data.clips import Clip, Manifest
from spectag.data.labels import LabelSet
from spectag.errors import DataError
from spectag.training.setup.held_out import hold_out, recordings_per_label


def as_manifest(*clips):
    """A manifest of clips without files."""
    return Manifest(Path("clips.csv"), clips, LabelSet.collect(clip.labels for clip in clips))


def clip(number, *labels, fold=None, group=None):
    return Clip(Path(f"/sounds/{number}.wav"), f"{number}.wav", labels, fold, group)


def manifest_with(n_per_label, *, n_labels=3, n_folds=None, clips_per_group=None):
    return as_manifest(
        *(
            clip(
                number,
                "abcdefgh"[number % n_labels],
                fold=None if n_folds is None else str(1 + number % n_folds),
                group=None if clips_per_group is None else f"site {number // clips_per_group}",
            )
            for number in range(n_per_label * n_labels)
        )
    )


def assert_each_clip_once(held_out, manifest):
    assert len(held_out.names) == len(held_out.rows)
    assert (np.sum(held_out.rows, axis=0) == 1).all()
    assert all(rows.any() for rows in held_out.rows)
    assert held_out.rows[0].shape == (len(manifest.clips),)


# ------------------------------------------------------------------------------------------------ auto


@pytest.mark.parametrize(("n_per_label", "n_folds"), [(3, 3), (4, 4), (5, 5), (40, 5)])
def test_number_of_folds_is_the_recordings_of_the_median_label_at_most_five(n_per_label, n_folds):
    manifest = manifest_with(n_per_label)
    held_out = hold_out(manifest, Recipe())
    assert_each_clip_once(held_out, manifest)
    assert held_out.names == tuple("12345"[:n_folds])
    assert not held_out.is_single_split
    assert held_out.note == f"{n_folds} folds, balanced by label, each recording in one fold"


@pytest.mark.parametrize("n_per_label", [1, 2])
def test_one_or_two_clips_a_label_are_too_few_for_folds(n_per_label):
    held_out = hold_out(manifest_with(n_per_label), Recipe())
    assert (held_out.names, held_out.rows, held_out.is_single_split) == ((), (), False)
    assert held_out.note == (
        f"no clips: too few recordings for folds (the median label has {n_per_label}, folds need 3); default weight "
        "decay, no scores, and thresholds are not fitted"
    )


def test_clips_of_one_recording_count_once():
    whole = manifest_with(8, n_labels=1)
    parts = manifest_with(8, n_labels=1, clips_per_group=4)
    assert len(hold_out(whole, Recipe()).names) == 5
    assert "the median label has 2" in hold_out(parts, Recipe()).note


def test_clips_of_one_file_without_a_group_count_once():
    path = Path("/sounds/long.wav")
    parts = [Clip(path, "long.wav", ("a",), start_seconds=float(start)) for start in range(9)]
    assert recordings_per_label(parts, np.ones((9, 1), bool)).tolist() == [1]


def test_rare_label_does_not_keep_the_others_from_folds():
    manifest = as_manifest(*manifest_with(6).clips, clip("rare", "z"))
    assert len(hold_out(manifest, Recipe()).names) == 5


def test_label_that_no_clip_has_does_not_count():
    clips = manifest_with(4).clips
    manifest = Manifest(Path("clips.csv"), clips, LabelSet(("a", "b", "c", "x", "y", "z", "w")))
    assert len(hold_out(manifest, Recipe()).names) == 4


def test_clips_without_any_label_hold_out_nothing():
    assert hold_out(as_manifest(clip(1), clip(2), clip(3)), Recipe()).names == ()


def test_three_or_more_manifest_folds_are_used():
    manifest = manifest_with(2, n_folds=3)
    held_out = hold_out(manifest, Recipe())
    assert_each_clip_once(held_out, manifest)
    assert held_out.note == "the 3 folds of the manifest"


def test_new_folds_are_made_if_the_manifest_has_only_two_or_clips_without_fold():
    assert "balanced by label" in hold_out(manifest_with(6, n_folds=2), Recipe()).note
    partly = as_manifest(*manifest_with(6, n_folds=3).clips, clip("more", "a"))
    assert "balanced by label" in hold_out(partly, Recipe()).note


# ------------------------------------------------------------------------------------------------ fine-tuning

FINETUNE = Recipe(mode="finetune")


def test_fine_tuning_holds_out_a_fifth_of_each_label():
    manifest = manifest_with(10)
    held_out = hold_out(manifest, FINETUNE)
    assert held_out.is_single_split
    assert held_out.names == ("valid",)
    assert manifest.multi_hot()[held_out.rows[0]].sum(axis=0).tolist() == [2, 2, 2]
    assert held_out.note == "6 of 30 clips: balanced by label, each recording either held out or not"


@pytest.mark.parametrize("n_labels", [1, 3])
def test_fine_tuning_on_few_recordings_holds_out_one_at_least_and_trains_on_the_others(n_labels):
    held_out = hold_out(manifest_with(3, n_labels=n_labels), FINETUNE)
    assert 1 <= held_out.rows[0].sum() < 3 * n_labels / 2


def test_fine_tuning_on_too_few_recordings_holds_out_none():
    assert hold_out(manifest_with(2), FINETUNE).names == ()


def test_fine_tuning_uses_requested_or_manifest_folds():
    assert len(hold_out(manifest_with(10), FINETUNE.model_copy(update={"folds": 4})).names) == 4
    assert len(hold_out(manifest_with(4, n_folds=3), FINETUNE).names) == 3


# ------------------------------------------------------------------------------------------------ requested


def test_given_folds_keep_their_names_and_clips_in_the_order_of_numbers():
    folds = ["10", "2", "1", "2", "10"]
    manifest = as_manifest(*(clip(i, "a", fold=fold) for i, fold in enumerate(folds)))
    held_out = hold_out(manifest, Recipe(folds="given"))
    assert held_out.names == ("1", "2", "10")
    assert [np.flatnonzero(rows).tolist() for rows in held_out.rows] == [[2], [1, 3], [0, 4]]


def test_missing_folds_are_an_error_with_an_example():
    manifest = as_manifest(clip(1, "a", fold="1"), clip(2, "a"), clip(3, "b", fold="2"), clip(4, "b"))
    with pytest.raises(DataError, match=r"clips\.csv: 2 of 4 clips have no fold, such as 2\.wav; .*--folds 5"):
        hold_out(manifest, Recipe(folds="given"))


def test_single_manifest_fold_is_refused():
    with pytest.raises(
        DataError,
        match=r"clips\.csv: all clips are in fold 1; two or more folds are needed; let spectag make them with",
    ):
        hold_out(manifest_with(3, n_folds=1), Recipe(folds="given"))


def test_requested_folds_replace_those_of_the_manifest():
    manifest = manifest_with(8, n_folds=5)
    held_out = hold_out(manifest, Recipe(folds=4))
    assert_each_clip_once(held_out, manifest)
    assert held_out.names == ("1", "2", "3", "4")


def test_more_folds_than_recordings_are_refused():
    with pytest.raises(DataError, match="can't split 2 groups of clips into 5 folds"):
        hold_out(manifest_with(4, n_labels=2, clips_per_group=4), Recipe(folds=5))


def test_folds_none_holds_out_no_clips():
    held_out = hold_out(manifest_with(8), Recipe(folds="none"))
    assert (held_out.names, held_out.rows) == ((), ())
    assert held_out.note == "no clips: no scores, and thresholds are not fitted"


@pytest.mark.parametrize(
    "recipe",
    [Recipe(), Recipe(folds=3), Recipe(validation_fraction=0.3), Recipe(mode="finetune")],
    ids=["auto", "new folds", "fraction", "finetune"],
)
@pytest.mark.parametrize("seed", range(3))
def test_groups_are_never_split(recipe, seed, rng):
    manifest = as_manifest(
        *(clip(i, "abc"[rng.integers(3)], group=f"site {rng.integers(12)}") for i in range(60)),
    )
    held_out = hold_out(manifest, recipe.model_copy(update={"seed": seed}))
    assert held_out.rows
    groups = np.array(manifest.groups)
    for rows in held_out.rows:
        assert not set(groups[rows]) & set(groups[~rows])


# ------------------------------------------------------------------------------------------------ a fraction


@pytest.mark.parametrize(("n_per_label", "fraction", "seed"), [(10, 0.25, 42), (11, 0.25, 0), (7, 0.1, 3)])
def test_random_fraction_holds_out_the_rows_of_train_test_split(n_per_label, fraction, seed):
    manifest = manifest_with(n_per_label)
    n_clips = len(manifest.clips)
    held_out = hold_out(manifest, Recipe(validation_fraction=fraction, validation_split="random", seed=seed))
    _, expected = train_test_split(range(n_clips), test_size=fraction, random_state=seed)
    assert held_out.is_single_split
    assert held_out.names == ("valid",)
    assert np.flatnonzero(held_out.rows[0]).tolist() == sorted(expected)
    assert held_out.note == (
        f"{len(expected)} of {n_clips} clips: the rows of train_test_split(test_size={fraction:g}, random_state={seed})"
    )


def test_balanced_fraction_holds_out_that_much_of_each_label():
    manifest = manifest_with(8)
    held_out = hold_out(manifest, Recipe(validation_fraction=0.25))
    assert held_out.is_single_split
    assert manifest.multi_hot()[held_out.rows[0]].sum(axis=0).tolist() == [2, 2, 2]
    assert held_out.note == "6 of 24 clips: balanced by label, each recording either held out or not"


def test_one_seed_gives_one_choice_and_another_seed_another():
    manifest = manifest_with(20)
    rows = [hold_out(manifest, Recipe(folds=5, seed=seed)).rows for seed in (1, 1, 2)]
    assert np.array_equal(rows[0], rows[1])
    assert not np.array_equal(rows[0], rows[2])


@pytest.mark.parametrize("name", ["valid", "val", "validation"])
@pytest.mark.parametrize("folds", ["auto", "given"])
def test_train_and_valid_folds_of_the_manifest_are_a_single_split(name, folds):
    manifest = manifest_with(6)
    clips = tuple(
        replace(clip, fold=name if number % 3 == 0 else "train") for number, clip in enumerate(manifest.clips)
    )
    held_out = hold_out(replace(manifest, clips=clips), Recipe(folds=folds))
    assert held_out.names == (name,)
    assert held_out.is_single_split
    np.testing.assert_array_equal(held_out.rows[0], [clip.fold == name for clip in clips])
