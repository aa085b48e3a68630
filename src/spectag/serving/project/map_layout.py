"""Places on a map for sounds: similar ones are near each other."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from spectag.array_types import Float32Array, FloatArray
from spectag.curation.embedding import nearest_neighbors
from spectag.system.worker_pool import n_usable_cores

LayoutMethod = Literal["t-SNE", "PCA"]

MAX_FITTED = 20_000
"""Sounds whose places t-SNE computes; others come to the places of the most similar of these."""
_MIN_FOR_TSNE = 10
_PERPLEXITY = 30.0  # how many neighbours count
_ITERATIONS = 500
_N_SIMILAR = 3
_INITIAL_DEVIATION = 1e-4  # as in scikit-learn


def map_places(
    vectors: Float32Array, *, rng: np.random.Generator, max_fitted: int = MAX_FITTED
) -> tuple[Float32Array, LayoutMethod]:
    """Places of sounds, and the method: t-SNE of scikit-learn if it is installed, otherwise principal components.

    Parameters
    ----------
    vectors : float32 array of shape (n_sounds, n_dimensions)
        Unit vectors of `spectag.curation.embedding.Embedding`.
    rng : numpy.random.Generator
        Chooses the sounds that t-SNE sees if there are more than `max_fitted`.
    max_fitted : int

    Returns
    -------
    places : float32 array of shape (n_sounds, 2)
        From 0 to 1, in the same scale on both axes, with the map in the middle.
    method : "t-SNE" or "PCA"
    """
    components = principal_components(vectors)
    try:
        from sklearn.manifold import TSNE
    except ImportError:
        return _scaled(components), "PCA"
    if len(vectors) < _MIN_FOR_TSNE or not components.any():
        return _scaled(components), "PCA"
    n_fitted = min(len(vectors), max_fitted)
    rows = np.sort(rng.permutation(len(vectors))[:n_fitted])
    fitted = TSNE(
        perplexity=min(_PERPLEXITY, (n_fitted - 1) / 3),
        max_iter=_ITERATIONS,
        init=_initial(components[rows]),
        random_state=0,
        n_jobs=n_usable_cores(),
    ).fit_transform(vectors[rows])
    places = np.empty((len(vectors), 2), np.float64)
    places[rows] = fitted
    others = np.setdiff1d(np.arange(len(vectors)), rows)
    if len(others):
        places[others] = _places_of_similar(vectors[others], vectors[rows], fitted)
    return _scaled(places), "t-SNE"


def principal_components(vectors: Float32Array) -> FloatArray:
    """The first two principal components (n_sounds, 2) of vectors; zeros where the vectors do not differ."""
    rows = np.asarray(vectors, np.float64) - np.mean(vectors, axis=0, dtype=np.float64)
    components = np.zeros((len(rows), 2))
    if len(rows) > 1:
        _, directions = np.linalg.eigh(rows.T @ rows)
        axes = directions[:, :-3:-1]
        axes *= np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])  # the same on every machine
        components[:, : axes.shape[1]] = rows @ axes
    return components


def _initial(components: FloatArray) -> NDArray[np.float32]:
    deviation = components[:, 0].std() or 1.0
    return np.asarray(components / deviation * _INITIAL_DEVIATION, np.float32)


def _places_of_similar(vectors: Float32Array, fitted: Float32Array, places: FloatArray) -> FloatArray:
    """The mean place of the most similar fitted sounds, weighted by similarity, (n_sounds, 2)."""
    indices, similarities = nearest_neighbors(vectors, fitted, _N_SIMILAR)
    weights = np.maximum(similarities, 1e-3)[..., None]
    return np.asarray((places[indices] * weights).sum(axis=1) / weights.sum(axis=1))


def _scaled(places: FloatArray) -> Float32Array:
    """Places from 0 to 1 with the same scale on both axes; all in the middle if they do not differ."""
    lowest, highest = places.min(axis=0), places.max(axis=0)
    size = float((highest - lowest).max()) or 1.0
    return np.asarray(0.5 + (places - (lowest + highest) / 2) / size, np.float32)
