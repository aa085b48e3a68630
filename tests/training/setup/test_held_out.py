"""Which clips are held out, and the note about it."""

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from helpers.configs import read_config
from spectag.config.recipe import Recipe, recipe_file
from spectag.data.audio_groups import SharingClips
from spectag.data.clips import Clip, Manifest
from spectag.data.folds import balance
from spectag.data.labels import LabelSet
from spectag.data.shared_audio import SharedAudio
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
        f"no clips: too few recordings for folds (the median label has {n_per_label}, folds need 3); no scores, "
        "default settings of the head, and thresholds are not fitted"
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


# ------------------------------------------------------------------------------------------------ shared audio


def sharing_of(manifest, pairs):
    pairs = np.array(sorted(pairs), np.int64).reshape(-1, 2)
    return SharingClips.of(manifest, SharedAudio(pairs, np.full(len(pairs), 20), np.zeros(len(pairs))))


def cut_from_recordings(rng, n_recordings, n_clips, *, n_labels=4, n_sounds=(1,), **clip_options):
    """Clips that are excerpts or mixtures of a few recordings with one label each, and who shares with whom."""
    contents = [
        frozenset(rng.choice(n_recordings, size=rng.choice(n_sounds), replace=False).tolist()) for _ in range(n_clips)
    ]
    clips = (
        clip(n, *sorted({"abcdefgh"[recording % n_labels] for recording in content}), **clip_options)
        for n, content in enumerate(contents)
    )
    manifest = as_manifest(*clips)
    pairs = [pair for pair in combinations(range(n_clips), 2) if contents[pair[0]] & contents[pair[1]]]
    return manifest, sharing_of(manifest, pairs)


def n_leaking(sharing, held_out):
    """Number of pairs of a held-out clip and a clip that its fold is trained on."""
    first, second = sharing.pairs.T
    return sum(
        int((rows[first] & train[second]).sum() + (rows[second] & train[first]).sum())
        for rows, train in zip(held_out.rows, held_out.train_rows, strict=True)
    )


@pytest.mark.parametrize("recipe", [Recipe(), Recipe(folds=3), Recipe(validation_fraction=0.3), FINETUNE])
def test_without_shared_audio_the_same_clips_are_held_out_as_without_looking_for_it(recipe):
    manifest = manifest_with(12, clips_per_group=2)
    expected, found = hold_out(manifest, recipe), hold_out(manifest, recipe, sharing_of(manifest, [(0, 1)]))
    np.testing.assert_array_equal(found.rows, expected.rows)
    assert (found.names, found.note, found.groups, found.left_out) == (
        *(expected.names, expected.note, expected.groups),
        (),
    )


def test_excerpts_of_one_recording_are_in_one_fold_and_all_other_clips_are_trained_on(rng):
    manifest, sharing = cut_from_recordings(rng, 60, 150)
    held_out = hold_out(manifest, Recipe(), sharing)
    assert_each_clip_once(held_out, manifest)
    assert n_leaking(sharing, held_out) == 0
    assert held_out.left_out == ()
    assert held_out.note.endswith("each recording in one fold; clips that share audio are together")
    assert len(set(held_out.groups)) == len({frozenset(np.flatnonzero(row)) for row in _same(sharing, 150)})


def test_excerpts_of_two_recordings_a_label_are_too_few_recordings_for_folds():
    manifest = manifest_with(10, n_labels=6)
    recording = [(n % 6, n // 6 % 2) for n in range(60)]
    pairs = [pair for pair in combinations(range(60), 2) if recording[pair[0]] == recording[pair[1]]]
    held_out = hold_out(manifest, Recipe(), sharing_of(manifest, pairs))
    assert held_out.names == ()
    assert "the median label has 2, folds need 3" in held_out.note
    assert held_out.note.endswith("; clips that share audio count as one recording")


def _same(sharing, n_clips):
    """Which clips have the same recording, if each clip has one, (n_clips, n_clips)."""
    same = np.eye(n_clips, dtype=bool)
    same[tuple(sharing.pairs.T)] = same[tuple(sharing.pairs.T[::-1])] = True
    return same


@pytest.mark.parametrize("recipe", [Recipe(), Recipe(folds=10)], ids=["auto", "10 folds"])
def test_no_fold_is_trained_on_a_clip_that_shares_audio_with_a_held_out_clip(rng, recipe):
    manifest, sharing = cut_from_recordings(rng, 40, 300, n_sounds=(1, 1, 2))
    held_out = hold_out(manifest, recipe, sharing)
    assert_each_clip_once(held_out, manifest)
    assert n_leaking(sharing, held_out) == 0
    assert n_leaking(sharing, replace(held_out, left_out=())) > 0
    assert n_leaking(sharing, hold_out(manifest, recipe)) > n_leaking(sharing, replace(held_out, left_out=()))
    folds = np.argmax(held_out.rows, axis=0)
    balanced = balance(manifest.multi_hot(), folds, groups=held_out.groups)
    assert (balanced.worst, balanced.mean) < (balanced.random_worst, balanced.random_mean)
    assert balanced.sizes.min() > 20


def test_there_are_as_many_folds_as_leave_most_clips_to_train_on(rng):
    manifest, sharing = cut_from_recordings(rng, 60, 300, n_sounds=(1, 2, 2, 3))
    few, many = hold_out(manifest, Recipe(folds=10), sharing), hold_out(manifest, Recipe(), sharing)
    assert np.mean([rows.sum() for rows in few.train_rows]) < 150
    assert np.mean([rows.sum() for rows in many.train_rows]) > 150
    assert len(many.names) == 20
    assert many.warnings == ()
    n_trained = np.mean([rows.sum() for rows in many.train_rows])
    n_left_out = np.mean([rows.sum() for rows in many.left_out])
    assert many.note.endswith(
        f"clips that share much audio are together; a fold is trained on {n_trained:.0f} of 300 clips on average, "
        f"without {n_left_out:.0f} that share audio with its held-out clips"
    )


def test_score_is_called_too_low_if_many_folds_still_leave_few_clips(rng):
    manifest, sharing = cut_from_recordings(rng, 12, 200, n_sounds=(2, 2, 2))
    held_out = hold_out(manifest, Recipe(), sharing)
    n_trained = np.mean([rows.sum() for rows in held_out.train_rows])
    assert n_leaking(sharing, held_out) == 0
    assert any(
        line.startswith(
            f"the score may be too low: a fold is trained on {n_trained:.0f} clips, the final model on all 200;"
        )
        for line in held_out.warnings
    )


def test_no_clips_are_left_out_if_nearly_none_would_remain():
    manifest = manifest_with(20)
    held_out = hold_out(manifest, Recipe(), sharing_of(manifest, combinations(range(60), 2)))
    assert held_out.left_out == ()
    assert held_out.optimistic.all()


def test_labels_that_a_fold_cannot_learn_are_named(rng):
    manifest, sharing = cut_from_recordings(rng, 40, 300, n_sounds=(1, 1, 2))
    rare = [number for number, clip in enumerate(manifest.clips) if clip.labels == ("a",)][:3]
    clips = [replace(clip, labels=("rare",)) if n in rare else clip for n, clip in enumerate(manifest.clips)]
    manifest = as_manifest(*clips)
    sharing = sharing_of(manifest, {*map(tuple, sharing.pairs.tolist()), *combinations(rare, 2)})
    held_out = hold_out(manifest, Recipe(folds=10, seed=1), sharing)
    [warning] = [line for line in held_out.warnings if "all other clips with the label" in line]
    assert "rare" in warning


def test_single_split_keeps_sharing_clips_together_and_trains_on_all_others(rng):
    manifest, sharing = cut_from_recordings(rng, 40, 300, n_sounds=(1, 1, 2))
    held_out = hold_out(manifest, FINETUNE, sharing)
    assert held_out.is_single_split
    assert held_out.left_out == ()  # the final model would be trained without them
    assert n_leaking(sharing, held_out) < n_leaking(sharing, hold_out(manifest, FINETUNE)) / 2
    first, second = sharing.pairs.T
    rows, expected = held_out.rows[0], np.zeros(300, bool)
    expected[first[rows[first] & ~rows[second]]] = expected[second[rows[second] & ~rows[first]]] = True
    np.testing.assert_array_equal(held_out.optimistic, expected)


def test_networks_of_folds_that_become_the_final_model_are_trained_on_all_other_clips(rng):
    manifest, sharing = cut_from_recordings(rng, 40, 300, n_sounds=(1, 1, 2))
    held_out = hold_out(manifest, Recipe(final_model="ensemble"), sharing)
    assert held_out.left_out == ()
    assert held_out.optimistic.any()


def test_fine_tuned_member_beside_a_frozen_one_has_as_many_folds_as_the_frozen_one_alone(rng):
    """Its network of all clips is kept, so no fold has to be trained on clips that share audio with held-out ones."""
    manifest, sharing = cut_from_recordings(rng, 60, 300, n_sounds=(1, 2, 2, 3))
    alone = hold_out(manifest, Recipe(), sharing)
    held_out = hold_out(manifest, Recipe(members=[{}, {"mode": "finetune", "final_model": "refit"}]), sharing)
    assert len(held_out.names) == 20
    np.testing.assert_array_equal(held_out.rows, alone.rows)
    np.testing.assert_array_equal(held_out.left_out, alone.left_out)
    kept = hold_out(manifest, Recipe(members=[{}, {"mode": "finetune", "final_model": "ensemble"}]), sharing)
    assert len(kept.names) == 5
    assert kept.optimistic.any()


def test_included_recipes_train_no_fold_on_clips_that_share_audio_with_held_out_clips(rng):
    manifest, sharing = cut_from_recordings(rng, 60, 300, n_sounds=(1, 2, 2, 3))
    for name in ("quick", "best"):
        held_out = hold_out(manifest, read_config(recipe_file(name), Recipe), sharing)
        assert held_out.optimistic is None
        assert n_leaking(sharing, held_out) == 0


@pytest.mark.parametrize(
    ("recipe", "has_groups"),
    [
        (Recipe(folds="given"), False),
        (Recipe(validation_fraction=0.25, validation_split="random"), False),
        (Recipe(), True),
    ],
    ids=["folds", "random split", "groups"],
)
def test_choice_of_the_user_is_kept_and_sharing_clips_are_reported(rng, recipe, has_groups):
    manifest, sharing = cut_from_recordings(rng, 10, 60, n_sounds=(1, 2))
    clips = tuple(
        replace(
            clip, fold=str(n % 4) if recipe.folds == "given" else None, group=f"site {n // 2}" if has_groups else None
        )
        for n, clip in enumerate(manifest.clips)
    )
    manifest = replace(manifest, clips=clips)
    sharing = sharing_of(manifest, map(tuple, sharing.pairs.tolist()))
    held_out = hold_out(manifest, recipe, sharing)
    np.testing.assert_array_equal(held_out.rows, hold_out(manifest, recipe).rows)
    assert held_out.optimistic.any()
    assert not (held_out.optimistic & ~np.any(held_out.rows, axis=0)).any()


def test_exact_copies_are_not_groups_of_the_user(rng):
    manifest, sharing = cut_from_recordings(rng, 40, 300, n_sounds=(1, 1, 2))
    first = str(manifest.clips[0].path)
    clips = tuple(replace(clip, group=first) if n < 2 else clip for n, clip in enumerate(manifest.clips))
    manifest = replace(manifest, clips=clips)
    held_out = hold_out(manifest, Recipe(), sharing_of(manifest, map(tuple, sharing.pairs.tolist())))
    assert held_out.left_out
