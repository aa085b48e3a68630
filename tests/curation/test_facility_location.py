"""Hand-made places of clips, where the right choice is known; and what must hold of any choice."""

from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from spectag.curation import facility_location as choice
from spectag.curation.embedding import unit_vectors
from spectag.curation.facility_location import NEAR_DUPLICATE, margin_uncertainty, select


def chosen(vectors, n=None, **options):
    found = select(np.asarray(vectors, np.float32), rng=np.random.default_rng(0), **options)
    return [clip.index for clip in islice(found, n)]


def on_circle(*degrees):
    """Unit vectors at these angles: two are as alike as the cosine of what lies between them."""
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def around(centre, n_clips, rng, n_dimensions=8, spread=0.15):
    """A cluster of clips about one of the axes; the first lies in the middle."""
    noise = rng.normal(scale=spread, size=(n_clips, n_dimensions))
    noise[0] = 0
    return unit_vectors(np.eye(n_dimensions)[centre] + noise)


def test_clusters_are_chosen_large_ones_first_each_by_a_clip_in_its_middle(rng):
    sizes = {2: 12, 0: 30, 1: 20}
    vectors = np.concatenate([around(centre, size, rng) for centre, size in sizes.items()])
    of = np.repeat(list(sizes), list(sizes.values()))
    first = chosen(vectors, 3)
    assert of[first].tolist() == [0, 1, 2]
    for clip in first:
        likeness = vectors[of == of[clip]] @ vectors[clip]
        assert likeness.mean() >= 0.9 * max(np.mean(vectors[of == of[clip]] @ other) for other in vectors)


def test_of_three_clips_on_a_circle_the_middle_one_speaks_for_all_and_then_the_farther_one_adds_most():
    assert chosen(on_circle(0, 40, 90)) == [1, 2, 0]  # 40 degrees is 40 and 50 away; then 90 adds 1 - cos 50


def test_what_is_labelled_covers_its_surroundings(rng):
    large, small = around(0, 30, rng), around(1, 5, rng)
    vectors = np.concatenate([large, small])
    assert chosen(vectors, 1)[0] < 30
    assert chosen(vectors, 1, labelled=large[:3])[0] >= 30


def test_of_clusters_of_one_size_the_one_in_doubt_comes_first(rng):
    vectors = np.concatenate([around(0, 11, rng), around(1, 10, rng)])
    assert chosen(vectors, 1)[0] < 11
    assert chosen(vectors, 1, doubt=np.repeat([0.1, 0.9], [11, 10]))[0] >= 11


def test_a_clip_without_doubt_still_counts():
    """The tagger may be wrong where it is sure: of clips far from each other all are chosen in the end."""
    assert sorted(chosen(np.eye(4), doubt=[0, 0, 0, 1.0])) == [0, 1, 2, 3]


def test_near_duplicates_of_labelled_and_of_chosen_clips_never_come():
    copies = on_circle(0, 0, 3, 90, 91, 180)
    assert [round(float(np.cos(np.radians(angle))), 3) for angle in (3, 10)] == [0.999, 0.985]  # on both sides of 0.99
    assert len(chosen(copies)) == 3
    assert chosen(copies, labelled=on_circle(92, 181)) in ([0], [1], [2])
    assert len(chosen(on_circle(0, 10, 20))) == 3
    assert NEAR_DUPLICATE == 0.99


def test_clips_that_are_all_the_same_are_one():
    assert chosen(np.ones((50, 4)) / 2) == [0]


def test_one_clip_and_none():
    assert chosen(on_circle(10)) == [0]
    assert chosen(np.empty((0, 3))) == []
    assert chosen(on_circle(10), labelled=on_circle(10)) == []


def test_clips_at_the_centre_of_all_are_chosen_last():
    """Zeros are what the embedding makes of a clip that is the mean of all."""
    assert chosen([[0, 0], [1, 0], [0, 1]]) == [1, 2, 0]


def test_a_choice_tells_what_it_stands_for_and_how_near_the_labelled_clips_are():
    vectors = on_circle(0, 20, 40, 180)
    first, second, *_ = select(vectors, rng=np.random.default_rng(0))
    assert (first.index, first.stands_for, second.index, second.stands_for) == (1, 3, 3, 1)
    assert np.isnan(first.likeness)
    first = next(select(vectors, labelled=on_circle(50), rng=np.random.default_rng(0)))
    assert first.index == 3
    assert first.likeness == pytest.approx(np.cos(np.radians(130)), abs=1e-6)


def naive(vectors, n, doubt, labelled):
    """The same by its definition: after each clip, what all others would add."""
    weights = 0.25 + 0.75 * doubt
    alike = np.maximum(vectors @ vectors.T, 0)
    nearest = (vectors @ labelled.T).max(axis=1, initial=-1.0)
    covered, free = np.maximum(nearest, 0), nearest < NEAR_DUPLICATE
    found = []
    for _ in range(n):
        gains = np.where(free, weights * (weights @ np.maximum(alike - covered[:, None], 0)), -1)
        found.append(int(gains.argmax()))
        covered = np.maximum(covered, alike[found[-1]])
        free &= vectors @ vectors[found[-1]] < NEAR_DUPLICATE
        free[found[-1]] = False
    return found


def test_the_choice_is_that_of_computing_every_gain_anew(rng):
    vectors = unit_vectors(rng.normal(size=(600, 5)))
    doubt, labelled = rng.random(600), unit_vectors(rng.normal(size=(7, 5)))
    expected = naive(vectors.astype(float), 60, doubt, labelled.astype(float))
    assert chosen(vectors, 60, doubt=doubt, labelled=labelled) == expected


vectors_of_any_kind = npst.arrays(
    np.float32, st.tuples(st.integers(1, 30), st.integers(1, 4)), elements=st.floats(-1, 1, width=32)
).map(unit_vectors)


@given(vectors_of_any_kind, st.integers(1, 30))
def test_each_clip_comes_once_at_most_and_no_two_are_nearly_the_same(vectors, n):
    found = chosen(vectors, n)
    assert len(set(found)) == len(found) >= 1
    alike = vectors[found] @ vectors[found].T - 2 * np.eye(len(found))
    assert alike.max(initial=-1) < NEAR_DUPLICATE + 1e-6


@given(vectors_of_any_kind)
def test_what_is_left_out_is_nearly_the_same_as_what_is_chosen(vectors):
    found = chosen(vectors)
    left = np.setdiff1d(np.arange(len(vectors)), found)
    if len(left):
        assert (vectors[left] @ vectors[found].T).max(axis=1).min() >= NEAR_DUPLICATE - 1e-6


def test_of_many_clips_some_speak_for_all_and_the_seed_says_which(rng, monkeypatch):
    vectors = np.concatenate([around(centre, 100, rng) for centre in range(3)])
    all_of_them = chosen(vectors, 3)
    monkeypatch.setattr(choice, "_MOST_TO_COVER", 60)
    sampled, again, other = (list(islice(select(vectors, rng=np.random.default_rng(seed)), 3)) for seed in (1, 1, 2))
    assert sorted(clip.index // 100 for clip in sampled) == sorted(clip // 100 for clip in all_of_them) == [0, 1, 2]
    assert 200 < sum(clip.stands_for for clip in sampled) < 400  # of 300 clips, though 60 were drawn
    assert [clip.index for clip in sampled] == [clip.index for clip in again] != [clip.index for clip in other]


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"\(3, 2\) and \(2,\)"):
        chosen(np.ones((3, 2)), doubt=[0.1, 0.2])
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        margin_uncertainty([0.1, 0.2, 0.3])
    with pytest.raises(ValueError, match="one label at least"):
        margin_uncertainty(np.ones((3, 0)))


@pytest.mark.parametrize(
    ("probabilities", "expected"),
    [
        ([1.0, 0.0, 0.0], 0.0),  # one label, surely
        ([0.9, 0.9, 0.0], 0.1),  # two, nearly surely
        ([1.0, 1.0, 1.0], 0.0),  # all
        ([0.5, 0.5, 0.0], 0.5),
        ([0.8, 0.6, 0.4], 0.6),  # may be one, two or three: gaps of 0.2, 0.2 and 0.4
        ([0.0, 0.0, 0.0], 1.0),  # nothing is heard
    ],
)
def test_doubt_is_what_lacks_of_the_widest_gap(probabilities, expected):
    assert margin_uncertainty([probabilities])[0] == pytest.approx(expected)
    assert margin_uncertainty([probabilities[::-1]])[0] == pytest.approx(expected)


def test_where_clips_may_have_no_label_nothing_heard_is_clear():
    probabilities = [[0.0, 0.0], [0.1, 0.1], [0.5, 0.0], [1.0, 0.0]]
    assert margin_uncertainty(probabilities, none_is_an_answer=True) == pytest.approx([0, 0.1, 0.5, 0])
    assert margin_uncertainty([[0.0], [0.4], [1.0]], none_is_an_answer=True) == pytest.approx([0, 0.4, 0])


@given(npst.arrays(np.float64, (6, 4), elements=st.floats(0, 1)), st.booleans())
def test_doubt_is_between_0_and_1_and_does_not_depend_on_the_order_of_the_labels(probabilities, none_is_an_answer):
    doubt = margin_uncertainty(probabilities, none_is_an_answer=none_is_an_answer)
    assert ((doubt >= 0) & (doubt <= 1)).all()
    np.testing.assert_array_equal(
        doubt, margin_uncertainty(probabilities[:, ::-1], none_is_an_answer=none_is_an_answer)
    )
