"""Facility location: selections that are known by hand, and properties of any selection."""

from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from spectag.curation import facility_location
from spectag.curation.embedding import unit_vectors
from spectag.curation.facility_location import NEAR_DUPLICATE, margin_uncertainty, select


def select_indices(vectors, n=None, **options):
    found = select(np.asarray(vectors, np.float32), rng=np.random.default_rng(0), **options)
    return [clip.index for clip in islice(found, n)]


def on_circle(*degrees):
    """Unit vectors at these angles; the similarity of two vectors is the cosine of the angle between them."""
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def around(centre, n_clips, rng, n_dimensions=8, spread=0.15):
    """A cluster of clips around one of the axes; the first clip is at its centre."""
    noise = rng.normal(scale=spread, size=(n_clips, n_dimensions))
    noise[0] = 0
    return unit_vectors(np.eye(n_dimensions)[centre] + noise)


def test_central_clips_of_large_clusters_are_selected_first(rng):
    sizes = {2: 12, 0: 30, 1: 20}
    vectors = np.concatenate([around(centre, size, rng) for centre, size in sizes.items()])
    cluster_of_clip = np.repeat(list(sizes), list(sizes.values()))
    first = select_indices(vectors, 3)
    assert cluster_of_clip[first].tolist() == [0, 1, 2]
    for clip in first:
        similarity = vectors[cluster_of_clip == cluster_of_clip[clip]] @ vectors[clip]
        assert similarity.mean() >= 0.9 * max(
            np.mean(vectors[cluster_of_clip == cluster_of_clip[clip]] @ other) for other in vectors
        )


def test_selection_on_a_circle_is_as_computed_by_hand():
    assert select_indices(on_circle(0, 40, 90)) == [1, 2, 0]  # 40 degrees is 40 and 50 away; then 90 adds 1 - cos 50


def test_labelled_clips_cover_similar_clips(rng):
    large, small = around(0, 30, rng), around(1, 5, rng)
    vectors = np.concatenate([large, small])
    assert select_indices(vectors, 1)[0] < 30
    assert select_indices(vectors, 1, labelled=large[:3])[0] >= 30


def test_uncertain_cluster_is_selected_first(rng):
    vectors = np.concatenate([around(0, 11, rng), around(1, 10, rng)])
    assert select_indices(vectors, 1)[0] < 11
    assert select_indices(vectors, 1, uncertainty=np.repeat([0.1, 0.9], [11, 10]))[0] >= 11


def test_certain_clips_are_selected_too():
    """The model may be wrong where it is certain, so dissimilar clips are all selected in the end."""
    assert sorted(select_indices(np.eye(4), uncertainty=[0, 0, 0, 1.0])) == [0, 1, 2, 3]


def test_near_duplicates_of_labelled_and_selected_clips_are_not_selected():
    copies = on_circle(0, 0, 3, 90, 91, 180)
    assert [round(float(np.cos(np.radians(angle))), 3) for angle in (3, 10)] == [0.999, 0.985]  # on both sides of 0.99
    assert len(select_indices(copies)) == 3
    assert select_indices(copies, labelled=on_circle(92, 181)) in ([0], [1], [2])
    assert len(select_indices(on_circle(0, 10, 20))) == 3
    assert NEAR_DUPLICATE == 0.99


def test_identical_clips_are_selected_once():
    assert select_indices(np.ones((50, 4)) / 2) == [0]


def test_one_clip_and_no_clips():
    assert select_indices(on_circle(10)) == [0]
    assert select_indices(np.empty((0, 3))) == []
    assert select_indices(on_circle(10), labelled=on_circle(10)) == []


def test_clips_at_the_centre_are_selected_last():
    """The embedding of a clip that is the mean of all clips is zero."""
    assert select_indices([[0, 0], [1, 0], [0, 1]]) == [1, 2, 0]


def test_selection_has_the_number_of_represented_clips_and_the_similarity():
    vectors = on_circle(0, 20, 40, 180)
    first, second, *_ = select(vectors, rng=np.random.default_rng(0))
    assert (first.index, first.n_represented, second.index, second.n_represented) == (1, 3, 3, 1)
    assert np.isnan(first.similarity)
    first = next(select(vectors, labelled=on_circle(50), rng=np.random.default_rng(0)))
    assert first.index == 3
    assert first.similarity == pytest.approx(np.cos(np.radians(130)), abs=1e-6)


def naive(vectors, n, uncertainty, labelled):
    """Greedy selection by definition: all gains are computed after each selection."""
    weights = 0.25 + 0.75 * uncertainty
    similarities = np.maximum(vectors @ vectors.T, 0)
    closest = (vectors @ labelled.T).max(axis=1, initial=-1.0)
    covered, free = np.maximum(closest, 0), closest < NEAR_DUPLICATE
    found = []
    for _ in range(n):
        gains = np.where(free, weights * (weights @ np.maximum(similarities - covered[:, None], 0)), -1)
        found.append(int(gains.argmax()))
        covered = np.maximum(covered, similarities[found[-1]])
        free &= vectors @ vectors[found[-1]] < NEAR_DUPLICATE
        free[found[-1]] = False
    return found


def test_lazy_greedy_equals_naive_greedy(rng):
    vectors = unit_vectors(rng.normal(size=(600, 5)))
    uncertainty, labelled = rng.random(600), unit_vectors(rng.normal(size=(7, 5)))
    expected = naive(vectors.astype(float), 60, uncertainty, labelled.astype(float))
    assert select_indices(vectors, 60, uncertainty=uncertainty, labelled=labelled) == expected


vectors_of_any_kind = npst.arrays(
    np.float32, st.tuples(st.integers(1, 30), st.integers(1, 4)), elements=st.floats(-1, 1, width=32)
).map(unit_vectors)


@given(vectors_of_any_kind, st.integers(1, 30))
def test_selected_clips_are_different_and_no_near_duplicates(vectors, n):
    found = select_indices(vectors, n)
    assert len(set(found)) == len(found) >= 1
    similarities = vectors[found] @ vectors[found].T - 2 * np.eye(len(found))
    assert similarities.max(initial=-1) < NEAR_DUPLICATE + 1e-6


@given(vectors_of_any_kind)
def test_clips_that_are_not_selected_are_near_duplicates(vectors):
    found = select_indices(vectors)
    excluded = np.setdiff1d(np.arange(len(vectors)), found)
    if len(excluded):
        assert (vectors[excluded] @ vectors[found].T).max(axis=1).min() >= NEAR_DUPLICATE - 1e-6


def test_sample_of_many_clips_is_covered_and_depends_on_the_seed(rng, monkeypatch):
    vectors = np.concatenate([around(centre, 100, rng) for centre in range(3)])
    all_targets = select_indices(vectors, 3)
    monkeypatch.setattr(facility_location, "_MAX_TARGETS", 60)
    sampled, again, other = (list(islice(select(vectors, rng=np.random.default_rng(seed)), 3)) for seed in (1, 1, 2))
    assert sorted(clip.index // 100 for clip in sampled) == sorted(clip // 100 for clip in all_targets) == [0, 1, 2]
    assert 200 < sum(clip.n_represented for clip in sampled) < 400  # of 300 clips, though 60 were drawn
    assert [clip.index for clip in sampled] == [clip.index for clip in again] != [clip.index for clip in other]


def test_invalid_shapes_are_errors():
    with pytest.raises(ValueError, match=r"\(3, 2\) and \(2,\)"):
        select_indices(np.ones((3, 2)), uncertainty=[0.1, 0.2])
    with pytest.raises(ValueError, match=r"got \(3,\)"):
        margin_uncertainty([0.1, 0.2, 0.3])
    with pytest.raises(ValueError, match="n_labels >= 1"):
        margin_uncertainty(np.ones((3, 0)))


@pytest.mark.parametrize(
    ("probabilities", "expected"),
    [
        ([1.0, 0.0, 0.0], 0.0),  # one label, certain
        ([0.9, 0.9, 0.0], 0.1),  # two labels, nearly certain
        ([1.0, 1.0, 1.0], 0.0),  # all
        ([0.5, 0.5, 0.0], 0.5),
        ([0.8, 0.6, 0.4], 0.6),  # one, two or three labels: gaps of 0.2, 0.2 and 0.4
        ([0.0, 0.0, 0.0], 1.0),  # no label is probable
    ],
)
def test_uncertainty_is_one_minus_the_largest_gap(probabilities, expected):
    assert margin_uncertainty([probabilities])[0] == pytest.approx(expected)
    assert margin_uncertainty([probabilities[::-1]])[0] == pytest.approx(expected)


def test_clip_without_probable_label_is_certain_if_no_label_is_allowed():
    probabilities = [[0.0, 0.0], [0.1, 0.1], [0.5, 0.0], [1.0, 0.0]]
    assert margin_uncertainty(probabilities, allow_no_label=True) == pytest.approx([0, 0.1, 0.5, 0])
    assert margin_uncertainty([[0.0], [0.4], [1.0]], allow_no_label=True) == pytest.approx([0, 0.4, 0])


@given(npst.arrays(np.float64, (6, 4), elements=st.floats(0, 1)), st.booleans())
def test_uncertainty_is_between_0_and_1_and_independent_of_label_order(probabilities, allow_no_label):
    uncertainty = margin_uncertainty(probabilities, allow_no_label=allow_no_label)
    assert ((uncertainty >= 0) & (uncertainty <= 1)).all()
    np.testing.assert_array_equal(
        uncertainty, margin_uncertainty(probabilities[:, ::-1], allow_no_label=allow_no_label)
    )
