"""Embedding of a network's features as unit vectors, and exact search for the closest vectors."""

import io
import zipfile
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import scipy.linalg
from numpy.typing import ArrayLike, NDArray

from spectag.array_types import Float32Array, FloatArray, IntArray

N_DIMENSIONS = 128  # on ESC-10 as good as all 2,304 features (benchmarks/search.py)
_MIN_ROWS_TO_CENTER = 10  # with fewer rows, the mean contains what these sounds have in common
_ROWS_PER_AXIS = 2  # with fewer rows, the axes don't represent new sounds
_MAX_ROWS_FOR_AXES = 2_000  # computing the axes takes time proportional to its cube
_FEATURES_AT_ONCE = 10_000_000
_QUERIES_AT_ONCE = 256
_VECTORS_AT_ONCE = 65_536
_SIMILARITIES_AT_ONCE = 4_000_000


@dataclass(frozen=True, eq=False)
class Embedding:
    """Turns features into unit vectors. The dot product of two vectors is the similarity of the sounds, from -1 to 1.

    Features of different layers have different scales. Each feature is centred and divided by the square root of its
    standard deviation, so that features with a large scale count more, but do not dominate. Then the features are
    projected onto their principal axes. Full standardisation or whitening do not find similar sounds better
    (docs/benchmarks.md).
    """

    center: Float32Array
    """(n_features,)"""
    scale: Float32Array
    """(n_features,), the factors of the centred features."""
    axes: Float32Array | None
    """(n_features, n_dimensions); None: no projection."""

    @classmethod
    def fit(cls, features: ArrayLike, *, n_dimensions: int = N_DIMENSIONS) -> Self:
        """Fit an embedding to the features of sounds.

        Parameters
        ----------
        features : float array of shape (n_sounds, n_features)
            With fewer than 10 sounds, features are not changed. With fewer than `2 * n_dimensions` sounds, they are
            centred and scaled, but not projected.
        n_dimensions : int
            Length of the vectors; at most the number of features.

        Raises
        ------
        ValueError
            If the features have another shape, are not finite, or there is no sound.
        """
        rows = _checked(features).astype(np.float64)
        n_rows, n_features = rows.shape
        if n_rows == 0 or n_dimensions < 1:
            raise ValueError(f"need at least 1 sound and 1 dimension, got {n_rows} sounds, n_dimensions={n_dimensions}")
        center, deviation = rows.mean(axis=0), rows.std(axis=0)
        is_constant = deviation <= 1e-7 * np.abs(center)
        if n_rows < _MIN_ROWS_TO_CENTER or is_constant.all():
            return cls.unchanged(n_features)
        scale = np.where(is_constant, 0.0, 1 / np.sqrt(np.where(is_constant, 1.0, deviation)))
        axes = None
        if n_dimensions < n_features and n_rows >= _ROWS_PER_AXIS * n_dimensions:
            axes = _principal_axes((rows - center) * scale, n_dimensions).astype(np.float32)
        return cls(center.astype(np.float32), scale.astype(np.float32), axes)

    @classmethod
    def unchanged(cls, n_features: int) -> Self:
        """The embedding that only divides features by their length."""
        return cls(np.zeros(n_features, np.float32), np.ones(n_features, np.float32), None)

    def __call__(self, features: ArrayLike) -> Float32Array:
        """Unit vectors (n_sounds, n_dimensions) of features (n_sounds, n_features); zeros for features at the centre.

        Raises
        ------
        ValueError
            If the number of features is not the fitted one, or some are not finite.
        """
        rows = _checked(features)
        if rows.shape[1] != self.n_features:
            raise ValueError(f"need {self.n_features} features per sound, got an array of shape {rows.shape}")
        vectors = np.empty((len(rows), self.n_dimensions), np.float32)
        n_block = max(1, _FEATURES_AT_ONCE // self.n_features)
        for start in range(0, len(rows), n_block):
            block: NDArray[Any] = (rows[start : start + n_block] - self.center) * self.scale
            vectors[start : start + n_block] = unit_vectors(block if self.axes is None else block @ self.axes)
        return vectors

    @property
    def n_features(self) -> int:
        """Number of features of a sound."""
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
        """The embedding in the bytes of `to_bytes`.

        Raises
        ------
        ValueError
            If the bytes are not an embedding.
        """
        try:
            _check_uncompressed(data)
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                embedding = cls(arrays["center"], arrays["scale"], arrays.get("axes"))
        except Exception as error:  # zip archives raise many kinds of errors
            raise ValueError(f"not an embedding: {error}") from error
        embedding._check()
        return embedding

    def _check(self) -> None:
        """Raise a ValueError if the arrays do not fit together, or contain other numbers than finite float32."""
        shapes = [self.center.shape, self.scale.shape, *([] if self.axes is None else [self.axes.shape[:1]])]
        arrays = [array for array in (self.center, self.scale, self.axes) if array is not None]
        if len(set(shapes)) > 1 or len(shapes[0]) != 1 or (self.axes is not None and self.axes.ndim != 2):
            raise ValueError(f"not an embedding: the arrays have the shapes {shapes}")
        if not all(array.dtype == np.float32 and np.isfinite(array).all() for array in arrays):
            raise ValueError("not an embedding: the numbers are not finite, or not float32")


def _check_uncompressed(data: bytes) -> None:
    """Raise a ValueError if an .npz file would become larger than it is."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if any(member.file_size > len(data) for member in archive.infolist()):
            raise ValueError("the file is compressed")


def unit_vectors(vectors: ArrayLike) -> Float32Array:
    """Vectors (n, n_dimensions) divided by their lengths, as float32. Vectors of length 0 stay 0."""
    rows = np.asarray(vectors, np.float32)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    result = rows / np.where(lengths > 0, lengths, np.float32(1))
    return result.astype(np.float32, copy=False)


def nearest_neighbors(
    queries: ArrayLike, vectors: NDArray[Any], k: int, *, rows: NDArray[np.integer] | None = None
) -> tuple[IntArray, Float32Array]:
    """The k vectors with the largest dot product with each query, in descending order. The search is exact.

    Parameters
    ----------
    queries : float array of shape (n_queries, n_dimensions)
    vectors : float array of shape (n_vectors, n_dimensions)
        May be float16 and memory-mapped; it is read block by block.
    k : int
        If there are fewer vectors, all of them are returned.
    rows : int array of shape (n_rows,), optional
        Search these vectors only.

    Returns
    -------
    indices : int array of shape (n_queries, k)
        Indices of the vectors. Of equal dot products the earlier vector comes first (the earlier one in `rows`).
    similarities : float32 array of shape (n_queries, k)
        The dot products.

    Raises
    ------
    ValueError
        If the dimensions differ, or k is below 1.
    """
    all_queries = np.asarray(queries, np.float32)
    if all_queries.ndim != 2 or vectors.ndim != 2 or all_queries.shape[1] != vectors.shape[1] or k < 1:
        raise ValueError(
            "need queries (n_queries, n_dimensions), vectors (n_vectors, n_dimensions) and k >= 1, got "
            f"{all_queries.shape}, {vectors.shape} and k={k}"
        )
    candidates = np.arange(len(vectors)) if rows is None else rows
    k = min(k, len(candidates))
    indices = np.empty((len(all_queries), k), np.int64)
    similarities = np.empty((len(all_queries), k), np.float32)
    for start in range(0, len(all_queries), _QUERIES_AT_ONCE):
        batch = slice(start, start + _QUERIES_AT_ONCE)
        indices[batch], similarities[batch] = _nearest_of_batch(
            all_queries[batch], vectors, k, candidates, is_all=rows is None
        )
    return indices, similarities


def _nearest_of_batch(
    queries: Float32Array, vectors: NDArray[Any], k: int, candidates: NDArray[np.integer], *, is_all: bool
) -> tuple[IntArray, Float32Array]:
    """The closest vectors of a batch of queries: the best ones so far are merged with those of each block."""
    indices = np.zeros((len(queries), 0), np.int64)
    similarities = np.zeros((len(queries), 0), np.float32)
    n_block = min(_VECTORS_AT_ONCE, _SIMILARITIES_AT_ONCE // len(queries))
    for start in range(0, len(candidates), n_block):
        rows = candidates[start : start + n_block]
        block = vectors[start : start + n_block] if is_all else vectors[rows]
        with np.errstate(all="ignore"):  # of a damaged file
            products = queries @ np.asarray(block, np.float32).T
        np.nan_to_num(products, copy=False, nan=-np.inf, posinf=-np.inf)  # the least similar ones
        indices, similarities = _largest(
            np.concatenate([indices, np.broadcast_to(rows, products.shape)], axis=1),
            np.concatenate([similarities, products], axis=1),
            k,
        )
    return indices, similarities


def _largest(indices: IntArray, similarities: Float32Array, k: int) -> tuple[IntArray, Float32Array]:
    """The k largest similarities of each row in descending order, and their indices. Of equal ones the first come."""
    columns = np.empty((len(indices), min(k, indices.shape[1])), np.int64)
    for row, values in enumerate(similarities):
        kth_largest = np.partition(values, -k)[-k] if k < len(values) else -np.inf
        candidates = np.flatnonzero(values >= kth_largest)  # includes all ties for the last position
        columns[row] = candidates[np.argsort(-values[candidates], kind="stable")[:k]]
    return np.take_along_axis(indices, columns, axis=1), np.take_along_axis(similarities, columns, axis=1)


def _principal_axes(rows: FloatArray, n_axes: int) -> FloatArray:
    """The first principal axes (n_features, n_axes) of centred rows, orthonormal, in descending order of variance."""
    sample = rows[np.linspace(0, len(rows) - 1, min(len(rows), _MAX_ROWS_FOR_AXES)).round().astype(int)]
    is_wide = sample.shape[1] > sample.shape[0]
    products = sample @ sample.T if is_wide else sample.T @ sample
    last = len(products) - 1
    variances, vectors = scipy.linalg.eigh(products, subset_by_index=(last - n_axes + 1, last))
    axes = (sample.T @ vectors) / np.sqrt(np.maximum(variances, 1e-12 * variances[-1])) if is_wide else vectors
    return np.asarray(axes[:, ::-1])


def _checked(features: ArrayLike) -> Float32Array:
    rows = np.asarray(features, np.float32)
    if rows.ndim != 2:
        raise ValueError(f"need features of shape (n_sounds, n_features), got {rows.shape}")
    if not np.isfinite(rows).all():
        sound = int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
        raise ValueError(f"the features of sound {sound} are not finite")
    return rows
