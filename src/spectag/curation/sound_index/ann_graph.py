"""Approximate search for the closest vectors with a usearch graph (HNSW), which visits few of them."""

from pathlib import Path
from typing import Any

import numpy as np

from spectag.array_types import Float32Array
from spectag.curation.embedding import nearest_neighbors
from spectag.curation.sound_index.database import Rows
from spectag.errors import DataError, MissingExtraError
from spectag.system.atomic_files import sha256_of, unfinished_file
from spectag.system.progress import Progress

MAX_CANDIDATES = 4_096  # for more candidates, comparing all vectors takes little longer

# Measured with benchmarks/search.py: 8 bits per dimension are enough, because candidates are compared exactly.
_DTYPE = "i8"
_CONNECTIVITY = 16
_EXPANSION_ADD = 128
_VECTORS_AT_ONCE = 16_384

CANDIDATES_PER_RESULT = 5  # of the graph; their vectors are compared exactly
_EXPANSIONS = (512, 1_024, 2_048, 4_096, 8_192)
_MIN_RECALL = 0.98
_N_NEAREST = 10  # closest vectors per probe, to measure the recall
_N_PROBES = 100


def is_installed() -> bool:
    """Whether usearch is installed."""
    try:
        load_usearch()
    except MissingExtraError:
        return False
    return True


class Graph:
    """A graph on disk. A search reads only the parts that it visits.

    Raises
    ------
    DataError
        If the SHA-256 of the file is another one: usearch would crash or find wrong vectors.
    """

    def __init__(self, path: Path, sha256: str) -> None:
        if sha256_of(path) != sha256:
            raise DataError(
                f"{path}: the graph is damaged; delete this file, and searches compare all vectors, or run "
                "spectag index again, which makes a new graph"
            )
        self._index = _open(path, view=True)

    def candidates(self, vector: Float32Array, n: int, *, expansion: int) -> Rows:
        """Sorted numbers of about the n vectors closest to one (n_dimensions,).

        A larger search expansion finds more of the closest vectors.
        """
        return _candidates(self._index, vector, n, expansion)


def write_graph(
    path: Path,
    vectors: Float32Array,
    *,
    known: Path | None = None,
    expansion: int = 0,
    workers: int,
    progress: Progress,
) -> int:
    """Write the graph of vectors (n_vectors, n_dimensions); if a graph of the first vectors is given, extend it.

    Returns the search expansion with which the graph finds 98 % of the closest vectors; 0 if comparing all vectors is
    faster. The recall depends on the vectors, so it is measured with new vectors before they are added to the graph.
    With too few new vectors, `expansion` is returned.

    Raises
    ------
    MissingExtraError
        If usearch is not installed.
    """
    if known is None:
        index = load_usearch()(ndim=vectors.shape[1], metric="ip", dtype=_DTYPE, connectivity=_CONNECTIVITY)
    else:
        index = _open(known, view=False)
    index.expansion_add = _EXPANSION_ADD
    n_known = len(index)
    new = np.arange(n_known, len(vectors))
    probes = new[:: max(10, len(new) // _N_PROBES)]
    others = np.setdiff1d(new, probes, assume_unique=True)
    for start in range(0, len(others), _VECTORS_AT_ONCE):
        progress("graph", n_known + start, len(vectors))
        _add(index, vectors, others[start : start + _VECTORS_AT_ONCE], workers)
    if len(probes) >= _N_PROBES or known is None:
        expansion = _sufficient_expansion(index, vectors, probes)
    _add(index, vectors, probes, workers)
    progress("graph", len(vectors), len(vectors))
    with unfinished_file(path) as unfinished:
        index.save(str(unfinished))
    return expansion


def _add(index: Any, vectors: Float32Array, rows: Rows, workers: int) -> None:
    if len(rows):
        index.add(rows.astype(np.uint64), np.asarray(vectors[rows]), threads=workers)


def _sufficient_expansion(index: Any, vectors: Float32Array, probes: Rows) -> int:
    """The smallest expansion with enough recall for vectors that are not in the graph; 0 if there is none."""
    known = np.setdiff1d(np.arange(len(vectors)), probes, assume_unique=True)
    exact, _ = nearest_neighbors(vectors[probes], vectors, _N_NEAREST, rows=known)
    n_candidates = CANDIDATES_PER_RESULT * _N_NEAREST
    for expansion in _EXPANSIONS:
        approximate = [_candidates(index, vectors[row], n_candidates, expansion) for row in probes]
        if np.mean([np.isin(*pair).mean() for pair in zip(exact, approximate, strict=True)]) >= _MIN_RECALL:
            return expansion
    return 0


def _candidates(index: Any, vector: Float32Array, n: int, expansion: int) -> Rows:
    index.expansion_search = max(expansion, n)
    return np.asarray(np.sort(index.search(vector, n, threads=1).keys.astype(np.int64)))


def _open(path: Path, *, view: bool) -> Any:
    reason = "there is no such file, or it is not a graph"
    try:
        index = load_usearch().restore(str(path), view=view)
    except (RuntimeError, ValueError) as error:
        index, reason = None, str(error)
    if index is None:
        raise DataError(f"{path}: usearch can't read the graph: {reason}; delete this file and run spectag index again")
    return index


def load_usearch() -> Any:
    """The class Index of usearch; a MissingExtraError if it is not installed."""
    try:
        from usearch.index import Index
    except ImportError as error:
        raise MissingExtraError("usearch", "search", "searching millions of sounds with a graph") from error
    return Index
