"""Where a sound lies among others: a network's features as unit vectors, and the vectors nearest to one."""

import io
import zipfile
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import scipy.linalg
from numpy.typing import ArrayLike, NDArray

from spectag.array_types import Float32Array, FloatArray

IntArray = NDArray[np.intp]

N_DIMENSIONS = 128  # on ESC-10 as good as all 2,304 features (benchmarks/search.py)
_FEWEST_ROWS = 10  # with fewer, their own centre takes away what they share with each other, and not what all sounds do
_ROWS_FOR_AXES = 2  # times n_dimensions; with fewer, what is new in a sound would lie beside all axes
_MOST_ROWS_FOR_AXES = 2_000  # the axes take time by the cube of it
_FEATURES = 10_000_000  # that become vectors at once
_QUERIES = 256  # answered at once
_BLOCK = 65_536  # vectors looked at at once
_SIMILARITIES = 4_000_000  # in memory at once


@dataclass(frozen=True, eq=False)
class Embedding:
    """Turns features into unit vectors, whose dot product tells how alike two sounds are: from -1 to 1.

    Features of different stages have scales of their own. Each is centred, and divided by the square root of its
    standard deviation, so that those of great scale count for more, but not for all; then come the axes along which
    sounds differ most. Neither full standardisation nor whitened axes find sounds of the same kind better
    (docs/benchmarks.md).
    """

    center: Float32Array
    """(n_features,)"""
    scale: Float32Array
    """(n_features,), what centred features are multiplied by."""
    axes: Float32Array | None
    """(n_features, n_dimensions); None: the features themselves."""

    @classmethod
    def fit(cls, features: ArrayLike, *, n_dimensions: int = N_DIMENSIONS) -> Self:
        """The embedding that tells these sounds apart best.

        Parameters
        ----------
        features : float array of shape (n_sounds, n_features)
            Of fewer than 10 sounds, features are left as they are; of fewer than `2 * n_dimensions`, they are centred
            and scaled, and all of them are kept.
        n_dimensions : int
            Length of the vectors; no longer than features are many.

        Raises
        ------
        ValueError
            If features have another shape, are not finite, or there is no sound.
        """
        rows = _checked(features).astype(np.float64)
        n_rows, n_features = rows.shape
        if n_rows == 0 or n_dimensions < 1:
            raise ValueError(f"need a sound and a dimension at least, got {n_rows} sounds, n_dimensions={n_dimensions}")
        center, deviation = rows.mean(axis=0), rows.std(axis=0)
        is_constant = deviation <= 1e-7 * np.abs(center)
        if n_rows < _FEWEST_ROWS or is_constant.all():
            return cls(np.zeros(n_features, np.float32), np.ones(n_features, np.float32), None)
        scale = np.where(is_constant, 0.0, 1 / np.sqrt(np.where(is_constant, 1.0, deviation)))
        axes = None
        if n_dimensions < n_features and n_rows >= _ROWS_FOR_AXES * n_dimensions:
            axes = _principal_axes((rows - center) * scale, n_dimensions).astype(np.float32)
        return cls(center.astype(np.float32), scale.astype(np.float32), axes)

    def __call__(self, features: ArrayLike) -> Float32Array:
        """Unit vectors (n_sounds, n_dimensions) of features (n_sounds, n_features); zeros of what lies at the centre.

        Raises
        ------
        ValueError
            If there are more or fewer features than the embedding was fitted to, or some are not finite.
        """
        rows = _checked(features)
        if rows.shape[1] != self.n_features:
            raise ValueError(f"need {self.n_features} features of each sound, got an array of shape {rows.shape}")
        vectors = np.empty((len(rows), self.n_dimensions), np.float32)
        n_block = max(1, _FEATURES // self.n_features)
        for start in range(0, len(rows), n_block):
            block: NDArray[Any] = (rows[start : start + n_block] - self.center) * self.scale
            vectors[start : start + n_block] = unit_vectors(block if self.axes is None else block @ self.axes)
        return vectors

    @property
    def n_features(self) -> int:
        """How many features a sound has."""
        return len(self.center)

    @property
    def n_dimensions(self) -> int:
        """Length of the vectors."""
        return self.n_features if self.axes is None else self.axes.shape[1]

    def to_bytes(self) -> bytes:
        """The embedding as the bytes of an .npz file."""
        arrays = {"center": self.center, "scale": self.scale}
        out = io.BytesIO()
        np.savez(out, **arrays if self.axes is None else arrays | {"axes": self.axes})  # type: ignore[arg-type]
        return out.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """What `to_bytes` wrote.

        Raises
        ------
        ValueError
            If the bytes are not those of an embedding.
        """
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                return cls(arrays["center"], arrays["scale"], arrays.get("axes"))
        except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"not an embedding: {error}") from error


def unit_vectors(vectors: ArrayLike) -> Float32Array:
    """Vectors (n, n_dimensions) divided by their lengths, as float32; those of no length stay as they are."""
    rows = np.asarray(vectors, np.float32)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    result = rows / np.where(lengths > 0, lengths, np.float32(1))
    return result.astype(np.float32, copy=False)


def nearest(
    queries: ArrayLike, vectors: NDArray[Any], k: int, *, rows: NDArray[np.integer] | None = None
) -> tuple[IntArray, Float32Array]:
    """The k vectors of the greatest dot product with each query, greatest first: exact, in pieces.

    Parameters
    ----------
    queries : float array of shape (n_queries, n_dimensions)
    vectors : float array of shape (n_vectors, n_dimensions)
        May be float16 and memory-mapped: a piece at a time is read.
    k : int
        Where there are fewer vectors, all are given.
    rows : int array of shape (n_rows,), optional
        Seek among these vectors alone.

    Returns
    -------
    indices : int array of shape (n_queries, k)
        Of the vectors. Where products are equal the earlier one comes first; the one earlier in `rows`, if these are
        given.
    similarities : float32 array of shape (n_queries, k)
        The dot products.

    Raises
    ------
    ValueError
        If the dimensions differ, or k is below 1.
    """
    sought = np.asarray(queries, np.float32)
    if sought.ndim != 2 or vectors.ndim != 2 or sought.shape[1] != vectors.shape[1] or k < 1:
        raise ValueError(
            "need queries (n_queries, n_dimensions), vectors (n_vectors, n_dimensions) and k >= 1, got "
            f"{sought.shape}, {vectors.shape} and k={k}"
        )
    k = min(k, len(vectors) if rows is None else len(rows))
    indices = np.empty((len(sought), k), np.intp)
    similarities = np.empty((len(sought), k), np.float32)
    for start in range(0, len(sought), _QUERIES):
        some = slice(start, start + _QUERIES)
        indices[some], similarities[some] = _nearest(sought[some], vectors, k, rows)
    return indices, similarities


def _nearest(
    queries: Float32Array, vectors: NDArray[Any], k: int, rows: NDArray[np.integer] | None
) -> tuple[IntArray, Float32Array]:
    """The nearest of all vectors to a few queries: of each piece of the vectors, those that surpass the ones before."""
    indices = np.zeros((len(queries), 0), np.intp)
    similarities = np.zeros((len(queries), 0), np.float32)
    n_block = min(_BLOCK, _SIMILARITIES // len(queries))
    among = np.arange(len(vectors)) if rows is None else rows
    for start in range(0, len(among), n_block):
        some = among[start : start + n_block]
        products = (
            queries @ np.asarray(vectors[start : start + n_block] if rows is None else vectors[some], np.float32).T
        )
        indices, similarities = _greatest(
            np.concatenate([indices, np.broadcast_to(some, products.shape)], axis=1),
            np.concatenate([similarities, products], axis=1),
            k,
        )
    return indices, similarities


def _greatest(indices: IntArray, similarities: Float32Array, k: int) -> tuple[IntArray, Float32Array]:
    """The k greatest similarities of each row, greatest first, and their indices; of equal ones the first."""
    chosen = np.empty((len(indices), min(k, indices.shape[1])), np.intp)
    for row, values in enumerate(similarities):
        least = np.partition(values, -k)[-k] if k < len(values) else -np.inf
        places = np.flatnonzero(values >= least)  # with all that tie for the last place
        chosen[row] = places[np.argsort(-values[places], kind="stable")[:k]]
    return np.take_along_axis(indices, chosen, axis=1), np.take_along_axis(similarities, chosen, axis=1)


def _principal_axes(rows: FloatArray, n_axes: int) -> FloatArray:
    """The orthonormal axes (n_features, n_axes) along which centred rows vary most, most first."""
    some = rows[np.linspace(0, len(rows) - 1, min(len(rows), _MOST_ROWS_FOR_AXES)).round().astype(int)]
    is_wide = some.shape[1] > some.shape[0]
    products = some @ some.T if is_wide else some.T @ some
    last = len(products) - 1
    variances, vectors = scipy.linalg.eigh(products, subset_by_index=(last - n_axes + 1, last))
    axes = (some.T @ vectors) / np.sqrt(np.maximum(variances, 1e-12 * variances[-1])) if is_wide else vectors
    result: FloatArray = axes[:, ::-1]
    return result


def _checked(features: ArrayLike) -> Float32Array:
    rows = np.asarray(features, np.float32)
    if rows.ndim != 2:
        raise ValueError(f"need features of shape (n_sounds, n_features), got {rows.shape}")
    if not np.isfinite(rows).all():
        sound = int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
        raise ValueError(f"features of sound {sound} are not finite")
    return rows
