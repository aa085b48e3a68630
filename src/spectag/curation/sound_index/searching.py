"""Searching a sound index for windows that are similar to examples."""

import re
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from fnmatch import translate
from functools import cached_property
from pathlib import Path, PurePath
from typing import Self

import numpy as np

from spectag.array_types import Float32Array
from spectag.curation.embedding import nearest_neighbors, unit_vectors
from spectag.curation.sound_index.ann_graph import CANDIDATES_PER_RESULT, MAX_CANDIDATES, Graph, is_installed
from spectag.curation.sound_index.building import full_location
from spectag.curation.sound_index.database import IndexDatabase, IndexRow, IndexState, Rows
from spectag.curation.sound_index.filters import SearchFilter
from spectag.curation.sound_index.metadata import check_tagger, read_index_info
from spectag.curation.sound_index.query import QueryExample, embed_query, find_entry, is_text, window_numbers
from spectag.curation.sound_index.recording_dates import RecordingDate
from spectag.curation.sound_index.vectors import read_vectors
from spectag.data.labels import LabelSet
from spectag.errors import DataError
from spectag.models.clap_words import text_vector
from spectag.models.pretrained import tagger_folder
from spectag.models.tagger import Tagger
from spectag.models.tags import Tag

_MIN_NEIGHBOURS = 32  # searched at first; some may be windows of the query's own recording
_MAX_EXACT_ROWS = 10_000  # if fewer rows pass a filter, all of them are compared


@dataclass(frozen=True)
class SearchResult:
    """A window of a recording that is similar to the query."""

    file: str
    """Path or URL."""
    start_seconds: float
    end_seconds: float | None
    """None for an image."""
    similarity: float
    """From -1 to 1 (identical)."""
    labels: tuple[Tag, ...]
    """The labels above their thresholds when the file was indexed, the most probable first."""
    recorded: RecordingDate | None
    """When the window began, if it is known."""


class SoundIndex:
    """A searchable index of recordings. It can be used by several threads, and while another process updates it.

    Parameters
    ----------
    folder : str or Path
        A folder that `spectag.index` wrote.
    model : str or Path, optional
        The model that the index was made with, if it has been moved.

    Raises
    ------
    DataError
        If there is no index, or it is damaged.

    Examples
    --------
    >>> index = spectag.SoundIndex("my-index")  # doctest: +SKIP
    >>> for result in index.search("owl.wav", label="Owl", after=datetime(2024, 5, 1)):  # doctest: +SKIP
    ...     print(result.similarity, result.file, result.start_seconds)
    """

    def __init__(self, folder: str | Path, *, model: str | Path | None = None) -> None:
        self.folder = Path(folder)
        self.info = read_index_info(self.folder)
        self.skipped: tuple[str, ...] = ()
        """Why files were skipped, if the index was just built."""
        self._model = str(model or self.info.model)
        self._database = IndexDatabase(self.folder)
        self._snapshot: _Snapshot | None = None
        self._lock = threading.Lock()
        self._closing = weakref.finalize(self, self._database.close)

    def __repr__(self) -> str:
        """Folder and size."""
        return f"SoundIndex({str(self.folder)!r}: {self.n_files:,} files, {len(self):,} windows)"

    def __len__(self) -> int:
        """Number of windows."""
        with self._reading():
            return self._database.counts()[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files of the index."""
        self._closing()

    @property
    def n_files(self) -> int:
        """Number of recordings."""
        with self._reading():
            return self._database.counts()[0]

    @cached_property
    def tagger(self) -> Tagger:
        """The model of the index, for queries that are not in it; a DataError if it is not the original one."""
        folder = tagger_folder(self._model, needs_labels=False)
        tagger = Tagger(folder, channel=self.info.channel, device="cpu")  # for a query, others take longer to open
        check_tagger(self.folder, self.info, tagger)
        return tagger

    def search(
        self,
        query: str | Path | Sequence[str | Path],
        *,
        n: int = 10,
        start: float | None = None,
        after: datetime | None = None,
        before: datetime | None = None,
        label: str | Sequence[str] = (),
        not_label: str | Sequence[str] = (),
        within: str | Sequence[str] = (),
        same_file: bool = False,
        one_per_file: bool = False,
    ) -> list[SearchResult]:
        """Find the windows that are most similar to an example, in descending order of similarity.

        Parameters
        ----------
        query : str or Path, or several
            Sound files; or recordings in the index, by their paths or the ends of their paths, which need no model; or
            for an index of CLAP, descriptions such as "glass breaking on tiles". Of several queries, and of the windows
            of a long one, the mean of the unit vectors is used.
        n : int
            Number of windows to return.
        start : float, optional
            Use only the window at this time of the query, in seconds.
        after, before : datetime, optional
            Windows that began at or after the first, and before the second date.
        label, not_label : str or sequence of str
            Windows with at least one, or with none, of these labels above the threshold.
        within : str or sequence of str
            Files in a folder or matching a pattern, anywhere in their paths: north, 'north/*.flac'.
        same_file : bool
            Include other windows of the query's own recordings.
        one_per_file : bool
            Return only the most similar window of each recording.

        Raises
        ------
        DataError
            If the query is neither a file nor in the index, the model is not the one of the index, or a label or a
            file name is unknown.
        AudioError
            If a sound can't be read.
        ValueError
            If n is below 1, or there is no query.
        """
        queries = [str(query)] if isinstance(query, str | Path) else [str(example) for example in query]
        if n < 1 or not queries:
            raise ValueError(f"need a query and n >= 1, got {len(queries)} queries and n={n}")
        examples = [self._example(query, start) for query in queries]
        vector = _mean_direction(np.stack([_mean_direction(example.vectors) for example in examples]))

        def is_wanted(row: IndexRow) -> bool:
            same = [example for example in examples if example.file == row.file]
            return not same or (same_file and all(row.start_seconds not in example.starts for example in same))

        with self._reading() as snapshot:
            search_filter = SearchFilter(
                after, before, self._label_numbers(label), self._label_numbers(not_label), self._file_numbers(within)
            )
            results: list[SearchResult] = []
            for rows in self._candidate_rows(snapshot, vector, search_filter):
                results = self._search_rows(snapshot, vector, n, rows, is_wanted, one_per_file=one_per_file)
                if len(results) == n:
                    break
            return results

    def _candidate_rows(
        self, snapshot: "_Snapshot", vector: Float32Array, search_filter: SearchFilter
    ) -> Iterator[Rows | None]:
        """The rows that pass a filter, None for all rows. If there are many, first only those close to the vector."""
        if search_filter == SearchFilter():
            yield None
            return
        rows = self._database.filter_rows(search_filter, limit=_MAX_EXACT_ROWS)
        if len(rows) <= _MAX_EXACT_ROWS:
            yield rows
            return
        if snapshot.graph is not None:
            yield self._database.filter_rows(search_filter, among=snapshot.candidates(vector, MAX_CANDIDATES))
        yield self._database.filter_rows(search_filter)

    def _search_rows(
        self,
        snapshot: "_Snapshot",
        vector: Float32Array,
        n: int,
        rows: Rows | None,
        is_wanted: Callable[[IndexRow], bool],
        *,
        one_per_file: bool,
    ) -> list[SearchResult]:
        """The n closest wanted windows. The number of neighbours is increased until there are n, or none is left."""
        n_rows = snapshot.state.n_vectors if rows is None else len(rows)
        n_neighbours = max(_MIN_NEIGHBOURS, 2 * n)
        while True:
            results: list[SearchResult] = []
            files: set[str] = set()
            for number, similarity in snapshot.nearest(vector, n_neighbours, rows):
                row = self._database.row(number)
                if row is None or not is_wanted(row) or (one_per_file and row.file in files):
                    continue
                files.add(row.file)
                labels = tuple(Tag(self.info.labels[label], probability) for label, probability in row.detections)
                times = row.start_seconds, row.end_seconds
                results.append(SearchResult(row.file, *times, similarity, labels, row.recorded))
                if len(results) == n:
                    return results
            if n_neighbours >= n_rows:
                return results
            n_neighbours *= 4

    def _example(self, query: str, start: float | None) -> QueryExample:
        with self._reading() as snapshot:
            if not snapshot.state.n_vectors:
                raise DataError(f"{self.folder}: the index contains no sounds yet; run spectag index again")
            is_words = self.info.has_words and is_text(query, self._database)
            entry = None if is_words else find_entry(query, self._database)
            if entry is not None and entry.first_row is not None:
                windows = self._database.windows(entry.number)
                numbers = window_numbers(entry, windows, start)
                vectors = snapshot.vectors[entry.first_row + numbers[0] : entry.first_row + numbers[-1] + 1]
                return QueryExample(np.array(vectors), entry.name, tuple(windows[number][0] for number in numbers))
            embedding = self._database.embedding
        if is_words:
            if start is not None:
                raise DataError(f"{query!r} is a description, which has no excerpt at {start:g} s; leave out the start")
            return QueryExample(text_vector(query, self.tagger.info)[None], None)
        assert embedding is not None, "an index with vectors has an embedding"
        vectors = embed_query(self.tagger, embedding, self.info.window, query, start)
        return QueryExample(vectors, full_location(query))

    def _label_numbers(self, labels: str | Sequence[str]) -> tuple[int, ...]:
        names = [labels] if isinstance(labels, str) else labels
        label_set = LabelSet(self.info.labels)
        return tuple(label_set.index(name, where=str(self.folder)) for name in names)

    def _file_numbers(self, patterns: str | Sequence[str]) -> tuple[int, ...] | None:
        """The numbers of the files in folders or matching patterns; None without a pattern."""
        patterns = [patterns] if isinstance(patterns, str) else patterns
        if not patterns:
            return None
        files: set[int] = set()
        entries = [(entry.number, PurePath(entry.name).as_posix()) for entry in self._database.entries()]
        for pattern in patterns:
            end = PurePath(pattern).as_posix().strip("/")
            expression = re.compile("|".join(map(translate, (end, f"{end}/*", f"*/{end}", f"*/{end}/*"))))
            matches = {number for number, name in entries if expression.match(name)}
            if not matches:
                raise DataError(f"{pattern}: no file of the index matches; one of its files is {entries[0][1]}")
            files |= matches
        return tuple(sorted(files))

    @contextmanager
    def _reading(self) -> Iterator["_Snapshot"]:
        """A snapshot of the index that does not change in the `with` block."""
        with self._lock, self._database.reading() as state:
            if self._snapshot is None or self._snapshot.state != state:
                self._snapshot = _Snapshot(self.folder, state, self._database.graph_sha256)
            yield self._snapshot


class _Snapshot:
    """The vectors and the graph of an index in one state."""

    def __init__(self, folder: Path, state: IndexState, graph_sha256: str) -> None:
        self.state = state
        self.vectors = read_vectors(folder, state)
        self._folder, self._graph_sha256 = folder, graph_sha256

    @cached_property
    def graph(self) -> Graph | None:
        """usearch's graph, if it is faster than comparing all vectors."""
        path = self._folder / self.state.graph_file
        is_usable = self.state.expansion and is_installed() and path.exists()
        # comparing all vectors is slower, but finds as much
        return Graph(path, self._graph_sha256) if is_usable else None

    def candidates(self, vector: Float32Array, n: int) -> Rows:
        """About n rows close to a vector from the graph, and all rows that are not in the graph."""
        assert self.graph is not None
        new = np.arange(self.state.n_in_graph, self.state.n_vectors)
        return np.concatenate([self.graph.candidates(vector, n, expansion=self.state.expansion), new])

    def nearest(self, vector: Float32Array, n: int, rows: Rows | None) -> list[tuple[int, float]]:
        """The n vectors closest to a unit vector, among these rows or all rows: number and similarity."""
        if rows is None and self.graph is not None and n * CANDIDATES_PER_RESULT <= MAX_CANDIDATES:
            rows = self.candidates(vector, n * CANDIDATES_PER_RESULT)
        (numbers,), (similarities,) = nearest_neighbors(vector[None], self.vectors, n, rows=rows)
        return list(zip(numbers.tolist(), similarities.tolist(), strict=True))


def _mean_direction(vectors: Float32Array) -> Float32Array:
    """The unit vector (n_dimensions,) in the direction of the mean of vectors (n, n_dimensions)."""
    return np.asarray(unit_vectors(vectors.mean(axis=0, keepdims=True))[0])
