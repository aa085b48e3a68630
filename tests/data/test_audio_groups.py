"""Groups of clips that share audio."""

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectag.data.audio_groups import SharingClips, regrouped
from spectag.data.clips import Clip, Manifest
from spectag.data.labels import LabelSet
from spectag.data.shared_audio import SharedAudio


def manifest_of(groups):
    clips = [Clip(Path(f"/sounds/{n}.wav"), f"{n}.wav", ("a",), group=group) for n, group in enumerate(groups)]
    return Manifest(Path("clips.csv"), tuple(clips), LabelSet(("a",)))


def shared(*pairs):
    pairs = np.array(pairs, np.int64).reshape(-1, 2)
    return SharedAudio(pairs, np.full(len(pairs), 20), np.zeros(len(pairs)))


def sets_of(manifest):
    """The clips of each group."""
    names = manifest.groups
    return {frozenset(np.flatnonzero(np.array(names) == name).tolist()) for name in names}


def test_pairs_within_a_group_or_a_file_do_not_count():
    manifest = manifest_of(["x", "x", None, None])
    manifest = replace(manifest, clips=(*manifest.clips, replace(manifest.clips[3], start_seconds=5.0)))
    assert SharingClips.of(manifest, shared((0, 1), (1, 2), (3, 4))).pairs.tolist() == [[1, 2]]


def test_clips_that_share_audio_are_joined_with_their_groups():
    manifest = manifest_of(["x", "x", *[None] * 38])
    joined = SharingClips.of(manifest, shared((1, 3), (3, 4))).joined()
    assert frozenset({0, 1, 3, 4}) in sets_of(joined)
    assert len(sets_of(joined)) == 37


def test_clips_are_not_joined_if_more_than_a_tenth_would_be_in_one_group():
    assert SharingClips.of(manifest_of([None] * 30), shared((0, 1), (1, 2))).joined() is not None
    assert SharingClips.of(manifest_of([None] * 30), shared((0, 1), (1, 2), (2, 3))).joined() is None
    large_group = ["x"] * 5 + [None] * 25
    assert SharingClips.of(manifest_of(large_group), shared((10, 11), (11, 12), (12, 13))).joined() is not None


def test_a_pair_is_joined_however_few_clips_there_are():
    for n_clips in range(10, 40):
        joined = SharingClips.of(manifest_of([None] * n_clips), shared((2, 7))).joined()
        assert len(sets_of(joined)) == n_clips - 1
        assert {2, 7} in sets_of(joined)


@pytest.mark.parametrize(("n_clips", "n_wanted"), [(7, 5), (7, 40), (19, 10), (19, 40)])
@pytest.mark.parametrize("n_excerpts", [2, 3, 5])
def test_excerpts_of_a_recording_stay_together_if_there_are_enough_communities(n_clips, n_wanted, n_excerpts):
    """The other clips share nothing, but for a pair."""
    pairs = [*combinations(range(n_excerpts), 2), (n_clips - 2, n_clips - 1)]
    expected = n_clips - n_excerpts  # the excerpts are one community, and so is the pair
    communities = SharingClips.of(manifest_of([None] * n_clips), shared(*pairs)).in_communities(n_wanted, seed=0)
    if n_wanted <= expected or n_wanted > n_clips:
        assert set(range(n_excerpts)) in sets_of(communities)
        assert {n_clips - 2, n_clips - 1} in sets_of(communities)
    else:
        assert len(sets_of(communities)) >= n_wanted


def test_sharing_with_clips_is_mutual_and_direct():
    sharing = SharingClips.of(manifest_of([None] * 5), shared((0, 1), (1, 2), (3, 4)))
    assert sharing.sharing_with(np.arange(5) == 1).tolist() == [True, False, True, False, False]
    assert sharing.sharing_with(np.arange(5) == 4).tolist() == [False, False, False, True, False]


def test_message_counts_the_clips_and_how_many_others_each_shares_audio_with():
    sharing = SharingClips.of(manifest_of([None] * 5), shared((0, 1), (1, 2), (0, 2)))
    assert str(sharing) == "3 of 5 clips share audio, each with 2.0 other clips on average"
    pair = SharingClips.of(manifest_of([None] * 5), shared((0, 1)))
    assert str(pair) == "2 of 5 clips share audio, each with one other clip"


def test_communities_are_the_recordings_where_few_clips_are_mixtures(rng):
    """20 recordings with 6 clips each, and 10 mixtures of two recordings that connect all of them."""
    contents = [{n // 6} for n in range(120)] + [{2 * n, (2 * n + 3) % 20} for n in range(10)]
    pairs = [pair for pair in combinations(range(130), 2) if contents[pair[0]] & contents[pair[1]]]
    communities = SharingClips.of(manifest_of([None] * 130), shared(*pairs)).in_communities(10, seed=0)
    assert {frozenset(n for n in part if n < 120) for part in sets_of(communities)} == {
        frozenset(range(start, start + 6)) for start in range(0, 120, 6)
    }


def test_there_are_as_many_communities_as_wanted_even_if_all_clips_share_audio():
    sharing = SharingClips.of(manifest_of([None] * 12), shared(*combinations(range(12), 2)))
    assert len(sets_of(sharing.in_communities(10, seed=0))) >= 10


@pytest.mark.parametrize("n_wanted", [2, 100])
def test_communities_do_not_cut_groups(n_wanted, rng):
    groups = [f"site {n // 3}" for n in range(30)]
    sharing = SharingClips.of(manifest_of(groups), shared(*rng.integers(30, size=(60, 2))))
    communities = np.array(sharing.in_communities(n_wanted, seed=0).groups)
    assert all(len(set(communities[start : start + 3])) == 1 for start in range(0, 30, 3))


@given(st.lists(st.integers(0, 5), min_size=1, max_size=20))
def test_new_groups_are_those_that_were_asked_for(numbers):
    result = regrouped(manifest_of([None] * len(numbers)), np.array(numbers))
    assert sets_of(result) == {frozenset(np.flatnonzero(np.array(numbers) == n).tolist()) for n in numbers}
