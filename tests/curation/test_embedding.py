"""Unit vectors of features, and the nearest of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from spectag.curation import embedding
from spectag.curation.embedding import Embedding, nearest, unit_vectors


def sounds(rng, n_sounds=60, n_features=12):
    """Features whose scales differ a thousandfold, around a centre far from zero."""
    scales = np.logspace(-1.5, 1.5, n_features)
    return (rng.standard_normal((n_sounds, n_features)) * scales + 5 * scales).astype(np.float32)


def by_definition(queries, vectors, k):
    """The nearest as one would write them down."""
    products = queries.astype(np.float64) @ vectors.astype(np.float64).T
    indices = np.argsort(-products, axis=1, kind="stable")[:, :k]
    return indices, np.take_along_axis(products, indices, axis=1)


def test_vectors_have_length_one(rng):
    vectors = Embedding.fit(sounds(rng), n_dimensions=4)(sounds(rng))
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(60), abs=1e-6)


def test_vectors_are_what_scikit_learn_makes_of_features_divided_by_the_root_of_their_deviation(rng):
    features = sounds(rng)
    scaled = features / np.sqrt(features.std(axis=0))
    expected = unit_vectors(PCA(4).fit_transform(scaled))
    got = Embedding.fit(features, n_dimensions=4)(features)
    signs = np.sign((expected * got).sum(axis=0))
    assert got == pytest.approx(expected * signs, abs=1e-4)


def test_more_features_than_sounds_give_the_same_axes(rng):
    wide = sounds(rng, n_sounds=40, n_features=100)
    expected = unit_vectors(PCA(5, svd_solver="full").fit_transform(wide / np.sqrt(wide.std(axis=0))))
    got = Embedding.fit(wide, n_dimensions=5)(wide)
    assert got @ got.T == pytest.approx(expected @ expected.T, abs=1e-3)


def test_axes_of_many_sounds_are_fitted_to_a_part_of_them(rng, monkeypatch):
    monkeypatch.setattr(embedding, "_MOST_ROWS_FOR_AXES", 500)
    strong = rng.standard_normal((4000, 3)) @ rng.standard_normal((3, 12)) * 30
    features = strong + rng.standard_normal((4000, 12))
    by_part = Embedding.fit(features, n_dimensions=3)(features[:50])
    monkeypatch.setattr(embedding, "_MOST_ROWS_FOR_AXES", 4000)
    by_all = Embedding.fit(features, n_dimensions=3)(features[:50])
    assert by_part @ by_part.T == pytest.approx(by_all @ by_all.T, abs=0.05)


def test_features_of_a_few_sounds_are_left_as_they_are(rng):
    features = sounds(rng, n_sounds=9)
    made = Embedding.fit(features, n_dimensions=2)
    assert made.n_dimensions == 12
    assert made(features) == pytest.approx(unit_vectors(features), abs=1e-6)


def test_too_few_sounds_for_axes_keep_all_dimensions(rng):
    features = sounds(rng, n_sounds=15)
    made = Embedding.fit(features, n_dimensions=8)
    centred = (features - features.mean(axis=0)) / np.sqrt(features.std(axis=0))
    assert made(features) == pytest.approx(unit_vectors(centred), abs=1e-4)


def test_feature_that_is_always_the_same_counts_for_nothing(rng):
    features = sounds(rng)
    features[:, 3] = 7
    made = Embedding.fit(features, n_dimensions=4)
    other = features.copy()
    other[:, 3] = 1000
    assert made(other) == pytest.approx(made(features), abs=1e-5)


def test_sounds_that_are_all_the_same_are_alike_and_do_not_divide_by_zero():
    made = Embedding.fit(np.full((20, 3), 2.0))
    assert made(np.full((2, 3), 2.0)) == pytest.approx(np.full((2, 3), 3**-0.5))


def test_what_has_no_length_stays_zero():
    assert (unit_vectors(np.zeros((2, 3))) == 0).all()


@pytest.mark.parametrize("n_sounds", [5, 60])
def test_embedding_survives_its_bytes(rng, n_sounds):
    features = sounds(rng, n_sounds)
    made = Embedding.fit(features, n_dimensions=4)
    assert np.array_equal(Embedding.from_bytes(made.to_bytes())(features), made(features))


@pytest.mark.parametrize("data", [b"", b"no zip", b"PK\x03\x04 nor this"])
def test_bytes_of_something_else_are_no_embedding(data):
    with pytest.raises(ValueError, match=r"^not an embedding"):
        Embedding.from_bytes(data)


def test_a_batch_of_three_equals_three_singles(rng, monkeypatch):
    monkeypatch.setattr(embedding, "_FEATURES", 24)  # two sounds at once
    made, features = Embedding.fit(sounds(rng), n_dimensions=4), sounds(rng, 3)
    assert made(features) == pytest.approx(np.concatenate([made(one[None]) for one in features]), abs=1e-6)


def test_wrong_features_are_told_by_their_shape(rng):
    made = Embedding.fit(sounds(rng))
    with pytest.raises(ValueError, match=r"need 12 features.*\(2, 3\)"):
        made(np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"n_sounds, n_features.*\(12,\)"):
        made(np.zeros(12))
    with pytest.raises(ValueError, match="0 sounds"):
        Embedding.fit(np.zeros((0, 4)))
    with pytest.raises(ValueError, match="sound 1 are not finite"):
        Embedding.fit([[0.0, 1.0], [np.nan, 1.0]])


@given(
    n_queries=st.integers(1, 5),
    n_vectors=st.integers(0, 40),
    k=st.integers(1, 12),
    block=st.integers(1, 50),
    half=st.booleans(),
    seed=st.integers(0, 99),
)
def test_nearest_are_those_by_definition_in_whatever_pieces(n_queries, n_vectors, k, block, half, seed):
    rng = np.random.default_rng(seed)
    queries = rng.integers(-2, 3, (n_queries, 3)).astype(np.float32)  # small numbers: exact products, and many ties
    vectors = rng.integers(-2, 3, (n_vectors, 3)).astype(np.float16 if half else np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedding, "_BLOCK", block)
        patch.setattr(embedding, "_QUERIES", 2)
        indices, similarities = nearest(queries, vectors, k)
    expected, products = by_definition(queries, vectors, k)
    assert np.array_equal(indices, expected)
    assert np.array_equal(similarities, products)


@given(k=st.integers(1, 9), chosen=st.lists(st.integers(0, 29), unique=True), block=st.integers(1, 9))
def test_nearest_among_some_rows_are_those_by_definition(k, chosen, block):
    rng = np.random.default_rng(k)
    queries, vectors = rng.integers(-2, 3, (2, 3)).astype(np.float32), rng.integers(-2, 3, (30, 3)).astype(np.float32)
    rows = np.array(chosen, np.int64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedding, "_BLOCK", block)
        indices, similarities = nearest(queries, vectors, k, rows=rows)
    expected, products = by_definition(queries, vectors[rows], k)
    assert np.array_equal(indices, rows[expected])
    assert np.array_equal(similarities, products)


def test_vectors_may_lie_on_the_disk(rng, tmp_path):
    vectors = unit_vectors(rng.standard_normal((50, 8)))
    np.save(tmp_path / "v.npy", vectors)
    on_disk = np.load(tmp_path / "v.npy", mmap_mode="r")
    assert np.array_equal(nearest(vectors[:3], on_disk, 4)[0], nearest(vectors[:3], vectors, 4)[0])
    assert nearest(vectors[:3], on_disk, 1)[0].ravel().tolist() == [0, 1, 2]


def test_wrong_questions_are_told():
    with pytest.raises(ValueError, match=r"\(1, 3\), \(4, 2\) and k=1"):
        nearest(np.zeros((1, 3)), np.zeros((4, 2)), 1)
    with pytest.raises(ValueError, match="k=0"):
        nearest(np.zeros((1, 2)), np.zeros((4, 2)), 0)
