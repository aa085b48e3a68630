"""usearch's graph of the vectors: it finds nearly all that are nearest to one, without looking at the others."""

from pathlib import Path
from typing import Any

import numpy as np

from spectag.array_types import Float32Array
from spectag.curation.embedding import nearest
from spectag.curation.sound_index.database import Rows
from spectag.errors import DataError, MissingExtraError
from spectag.system.atomic_files import unfinished_file
from spectag.system.progress import Progress

MOST_CANDIDATES = 4_096  # above, to look at all vectors takes little longer

# Measured with benchmarks/search.py: a byte for each dimension is enough where the vectors themselves tell in the end.
_KIND = "i8"
_CONNECTIVITY = 16
_EXPANSION_ADD = 128
_BLOCK = 16_384  # vectors added at once

CANDIDATES_EACH = 5  # of the graph, for each row that is sought: their own vectors then tell which are nearest
_EXPANSIONS = (512, 1_024, 2_048, 4_096, 8_192)
_RECALL = 0.98  # that an expansion must have
_N_NEAREST = 10  # that are to be found again
_N_PROBES = 100


def is_installed() -> bool:
    """Whether usearch is there."""
    try:
        load_usearch()
    except MissingExtraError:
        return False
    return True


class Graph:
    """A graph on disk, of which only what a question touches is read."""

    def __init__(self, path: Path) -> None:
        self._index = _opened(path, view=True)

    def candidates(self, vector: Float32Array, n: int, *, expansion: int) -> Rows:
        """About the n vectors nearest to one (n_dimensions,), by their numbers, in the order of these.

        The more vectors the graph is followed to, `expansion`, the more of the nearest are among them.
        """
        return _candidates(self._index, vector, n, expansion)


def write_graph(
    path: Path,
    vectors: Float32Array,
    *,
    known: Path | None = None,
    n_known: int = 0,
    expansion: int = 0,
    workers: int,
    progress: Progress,
) -> int:
    """Write the graph of vectors (n_vectors, n_dimensions), beginning with one of the first of them, if there is one.

    Gives the expansion with which it finds 98 of 100 of the nearest; 0: to compare all vectors is sooner done. That is
    measured with new vectors before the graph knows them, for it depends on how the vectors lie; where too few are new,
    `expansion` stays.

    Raises
    ------
    MissingExtraError
        If usearch is not installed.
    """
    if known is None:
        index = load_usearch()(
            ndim=vectors.shape[1], metric="ip", dtype=_KIND, connectivity=_CONNECTIVITY, expansion_add=_EXPANSION_ADD
        )
    else:
        index = _opened(known, view=False)
        index.expansion_add = _EXPANSION_ADD
    new = np.arange(n_known, len(vectors))
    probes = new[:: max(10, len(new) // _N_PROBES)]
    others = np.setdiff1d(new, probes, assume_unique=True)
    for start in range(0, len(others), _BLOCK):
        progress("graph", n_known + start, len(vectors))
        _add(index, vectors, others[start : start + _BLOCK], workers)
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
    """The least expansion that finds enough of the nearest to vectors that the graph does not know; 0: none does."""
    known = np.setdiff1d(np.arange(len(vectors)), probes, assume_unique=True)
    exact, _ = nearest(vectors[probes], vectors, _N_NEAREST, rows=known)
    for expansion in _EXPANSIONS:
        found = [_candidates(index, vectors[row], CANDIDATES_EACH * _N_NEAREST, expansion) for row in probes]
        if np.mean([np.isin(*pair).mean() for pair in zip(exact, found, strict=True)]) >= _RECALL:
            return expansion
    return 0


def _candidates(index: Any, vector: Float32Array, n: int, expansion: int) -> Rows:
    index.expansion_search = max(expansion, n)
    rows: Rows = np.sort(index.search(vector, n, threads=1).keys.astype(np.int64))
    return rows


def _opened(path: Path, *, view: bool) -> Any:
    reason = "there is no such file, or it is another's"
    try:
        index = load_usearch().restore(str(path), view=view)
    except (RuntimeError, ValueError) as error:
        index, reason = None, str(error)
    if index is None:
        raise DataError(f"{path}: usearch can't read its graph: {reason}; delete this file, and index once more")
    return index


def load_usearch() -> Any:
    """usearch's Index; a MissingExtraError where it is not installed."""
    try:
        from usearch.index import Index
    except ImportError as error:
        raise MissingExtraError("usearch", "search", "finding sounds among millions by a graph") from error
    return Index
