"""Embedding of features, and search for the closest vectors."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from spectag.curation import embedding
from spectag.curation.embedding import Embedding, nearest_neighbors, unit_vectors


def sounds(rng, n_sounds=60, n_features=12):
    """Features with scales that differ by a factor of 1,000, and a mean far from zero."""
    scales = np.logspace(-1.5, 1.5, n_features)
    return (rng.standard_normal((n_sounds, n_features)) * scales + 5 * scales).astype(np.float32)


def brute_force(queries, vectors, k):
    """The closest vectors by definition."""
    products = queries.astype(np.float64) @ vectors.astype(np.float64).T
    indices = np.argsort(-products, axis=1, kind="stable")[:, :k]
    return indices, np.take_along_axis(products, indices, axis=1)


def test_vectors_have_length_one(rng):
    vectors = Embedding.fit(sounds(rng), n_dimensions=4)(sounds(rng))
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(60), abs=1e-6)


def test_vectors_equal_pca_of_scikit_learn_on_scaled_features(rng):
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


def test_axes_of_many_sounds_are_fitted_to_a_sample(rng, monkeypatch):
    monkeypatch.setattr(embedding, "_MAX_ROWS_FOR_AXES", 500)
    strong = rng.standard_normal((4000, 3)) @ rng.standard_normal((3, 12)) * 30
    features = strong + rng.standard_normal((4000, 12))
    by_sample = Embedding.fit(features, n_dimensions=3)(features[:50])
    monkeypatch.setattr(embedding, "_MAX_ROWS_FOR_AXES", 4000)
    by_all = Embedding.fit(features, n_dimensions=3)(features[:50])
    assert by_sample @ by_sample.T == pytest.approx(by_all @ by_all.T, abs=0.05)


def test_features_of_few_sounds_are_not_changed(rng):
    features = sounds(rng, n_sounds=9)
    fitted = Embedding.fit(features, n_dimensions=2)
    assert fitted.n_dimensions == 12
    assert fitted(features) == pytest.approx(unit_vectors(features), abs=1e-6)


def test_few_sounds_are_not_projected(rng):
    features = sounds(rng, n_sounds=15)
    fitted = Embedding.fit(features, n_dimensions=8)
    centred = (features - features.mean(axis=0)) / np.sqrt(features.std(axis=0))
    assert fitted(features) == pytest.approx(unit_vectors(centred), abs=1e-4)


def test_constant_feature_is_ignored(rng):
    features = sounds(rng)
    features[:, 3] = 7
    fitted = Embedding.fit(features, n_dimensions=4)
    other = features.copy()
    other[:, 3] = 1000
    assert fitted(other) == pytest.approx(fitted(features), abs=1e-5)


def test_identical_sounds_have_similarity_one():
    fitted = Embedding.fit(np.full((20, 3), 2.0))
    assert fitted(np.full((2, 3), 2.0)) == pytest.approx(np.full((2, 3), 3**-0.5))


def test_vectors_of_length_zero_stay_zero():
    assert (unit_vectors(np.zeros((2, 3))) == 0).all()


@pytest.mark.parametrize("n_sounds", [5, 60])
def test_embedding_survives_a_round_trip(rng, n_sounds):
    features = sounds(rng, n_sounds)
    fitted = Embedding.fit(features, n_dimensions=4)
    assert np.array_equal(Embedding.from_bytes(fitted.to_bytes())(features), fitted(features))


@pytest.mark.parametrize("data", [b"", b"no zip", b"PK\x03\x04 nor this"])
def test_invalid_bytes_are_an_error(data):
    with pytest.raises(ValueError, match=r"^not an embedding"):
        Embedding.from_bytes(data)


def test_a_batch_of_three_equals_three_singles(rng, monkeypatch):
    monkeypatch.setattr(embedding, "_FEATURES_AT_ONCE", 24)  # two sounds at once
    fitted, features = Embedding.fit(sounds(rng), n_dimensions=4), sounds(rng, 3)
    assert fitted(features) == pytest.approx(np.concatenate([fitted(row[None]) for row in features]), abs=1e-6)


def test_invalid_features_are_errors_with_their_shape(rng):
    fitted = Embedding.fit(sounds(rng))
    with pytest.raises(ValueError, match=r"need 12 features.*\(2, 3\)"):
        fitted(np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"n_sounds, n_features.*\(12,\)"):
        fitted(np.zeros(12))
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
def test_nearest_neighbors_equal_brute_force_for_any_block_size(n_queries, n_vectors, k, block, half, seed):
    rng = np.random.default_rng(seed)
    queries = rng.integers(-2, 3, (n_queries, 3)).astype(np.float32)  # small numbers: exact products, and many ties
    vectors = rng.integers(-2, 3, (n_vectors, 3)).astype(np.float16 if half else np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedding, "_VECTORS_AT_ONCE", block)
        patch.setattr(embedding, "_QUERIES_AT_ONCE", 2)
        indices, similarities = nearest_neighbors(queries, vectors, k)
    expected, products = brute_force(queries, vectors, k)
    assert np.array_equal(indices, expected)
    assert np.array_equal(similarities, products)


@given(k=st.integers(1, 9), chosen=st.lists(st.integers(0, 29), unique=True), block=st.integers(1, 9))
def test_nearest_neighbors_among_rows_equal_brute_force(k, chosen, block):
    rng = np.random.default_rng(k)
    queries, vectors = rng.integers(-2, 3, (2, 3)).astype(np.float32), rng.integers(-2, 3, (30, 3)).astype(np.float32)
    rows = np.array(chosen, np.int64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedding, "_VECTORS_AT_ONCE", block)
        indices, similarities = nearest_neighbors(queries, vectors, k, rows=rows)
    expected, products = brute_force(queries, vectors[rows], k)
    assert np.array_equal(indices, rows[expected])
    assert np.array_equal(similarities, products)


def test_vectors_can_be_memory_mapped(rng, tmp_path):
    vectors = unit_vectors(rng.standard_normal((50, 8)))
    np.save(tmp_path / "v.npy", vectors)
    on_disk = np.load(tmp_path / "v.npy", mmap_mode="r")
    assert np.array_equal(nearest_neighbors(vectors[:3], on_disk, 4)[0], nearest_neighbors(vectors[:3], vectors, 4)[0])
    assert nearest_neighbors(vectors[:3], on_disk, 1)[0].ravel().tolist() == [0, 1, 2]


def test_invalid_queries_are_errors():
    with pytest.raises(ValueError, match=r"\(1, 3\), \(4, 2\) and k=1"):
        nearest_neighbors(np.zeros((1, 3)), np.zeros((4, 2)), 1)
    with pytest.raises(ValueError, match="k=0"):
        nearest_neighbors(np.zeros((1, 2)), np.zeros((4, 2)), 0)
