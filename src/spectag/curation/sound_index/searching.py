"""Asking an index for sounds like one, or like several."""

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
from types import TracebackType
from typing import Self

import numpy as np

from spectag.array_types import Float32Array
from spectag.curation.embedding import nearest, unit_vectors
from spectag.curation.sound_index.ann_graph import CANDIDATES_EACH, MOST_CANDIDATES, Graph
from spectag.curation.sound_index.building import whole_name
from spectag.curation.sound_index.database import Row, Rows, State, Store
from spectag.curation.sound_index.filters import Condition
from spectag.curation.sound_index.metadata import check_tagger, read_info
from spectag.curation.sound_index.query import Example, entry_of, hear, places_from
from spectag.curation.sound_index.recording_dates import Recorded
from spectag.curation.sound_index.vectors import read_vectors
from spectag.data.labels import LabelSet
from spectag.errors import DataError, MissingExtraError
from spectag.models.pretrained import tagger_folder
from spectag.models.tagger import Tag, Tagger

_FEWEST_SOUGHT = 32  # rows at first, of which some may be of the query's own recording
_FEW_ROWS = 10_000  # that fulfil a condition are compared one by one


@dataclass(frozen=True)
class Found:
    """A window of a recording that sounds like what was sought."""

    file: str
    """Path or address."""
    start_seconds: float
    end_seconds: float | None  # None: an image
    similarity: float
    """From -1 to 1, which is the same."""
    labels: tuple[Tag, ...]
    """Those that reached the tagger's thresholds when it was indexed, the most probable first."""
    recorded: Recorded | None
    """When the window began, where it is known."""


class SoundIndex:
    """Recordings by how they sound. May be used by several threads, and while another process adds to it.

    Parameters
    ----------
    folder : str or Path
        What `spectag.index` made.
    model : str or Path, optional
        The tagger that made it, if it lies elsewhere by now.

    Raises
    ------
    DataError
        If there is no index, or a damaged one.

    Examples
    --------
    >>> index = spectag.SoundIndex("my-index")  # doctest: +SKIP
    >>> for found in index.search("owl.wav", label="Owl", after=datetime(2024, 5, 1)):  # doctest: +SKIP
    ...     print(found.similarity, found.file, found.start_seconds)
    """

    def __init__(self, folder: str | Path, *, model: str | Path | None = None) -> None:
        self.folder = Path(folder)
        self.info = read_info(self.folder)
        self.skipped: tuple[str, ...] = ()
        """Why files were skipped, where it was just made."""
        self._model = str(model or self.info.model)
        self._store = Store.open(self.folder)
        self._view: _View | None = None
        self._lock = threading.Lock()
        self._closing = weakref.finalize(self, self._store.close)

    def __repr__(self) -> str:
        """Tell what is in it."""
        return f"SoundIndex({str(self.folder)!r}: {self.n_files:,} files, {len(self):,} windows)"

    def __len__(self) -> int:
        """Number of windows."""
        with self._reading():
            return self._store.counts()[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the files of the index."""
        self._closing()

    @property
    def n_files(self) -> int:
        """Number of recordings."""
        with self._reading():
            return self._store.counts()[0]

    @cached_property
    def tagger(self) -> Tagger:
        """The tagger that hears what is sought; a DataError if it is not the one that made the index."""
        tagger = Tagger(tagger_folder(self._model))
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
        once: bool = False,
    ) -> list[Found]:
        """The windows that sound most like an example, most alike first.

        Parameters
        ----------
        query : str or Path, or several
            Sound files; or recordings in the index, by their paths or the ends of these, for which no tagger is needed.
            Of several, and of the windows of a long one, the mean of their unit vectors is sought.
        n : int
            How many windows to give.
        start : float, optional
            Seek what sounds like the window at this second of the query, and not like all of it.
        after, before : datetime, optional
            Windows that began at or after the one, and before the other.
        label, not_label : str or sequence of str
            Windows in which one of these labels was heard, and none of those.
        within : str or sequence of str
            Files in such a folder or matching such a pattern, anywhere in their paths: north, 'north/*.flac'.
        same_file : bool
            Give other windows of the query's own recordings, too.
        once : bool
            Give each recording once, by its nearest window.

        Raises
        ------
        DataError
            If the query is neither a file nor in the index, the tagger is not the one that made the index, or no file
            or label is called as one that is given.
        AudioError
            If a sound can't be read.
        ValueError
            If n is below 1, or there is no query.
        """
        queries = [str(query)] if isinstance(query, str | Path) else [str(one) for one in query]
        if n < 1 or not queries:
            raise ValueError(f"need a query and n >= 1, got {len(queries)} queries and n={n}")
        examples = [self._example(one, start) for one in queries]

        def is_wanted(row: Row) -> bool:
            own = [example for example in examples if example.file == row.file]
            return not own or (same_file and all(row.start_seconds not in example.starts for example in own))

        vector = _direction(np.stack([_direction(example.vectors) for example in examples]))
        with self._reading() as view:
            condition = Condition(
                after, before, self._numbers(label), self._numbers(not_label), self._files_within(within)
            )
            return self._nearest(view, vector, n, condition, is_wanted, once=once)

    def search_vector(self, vector: Float32Array, *, n: int = 10) -> list[Found]:
        """The n windows nearest to a vector (n_dimensions,) of the index's own embedding."""
        with self._reading() as view:
            return self._nearest(view, _direction(vector[None]), n, Condition(), lambda row: True, once=False)

    def _nearest(
        self,
        view: "_View",
        vector: Float32Array,
        n: int,
        condition: Condition,
        is_wanted: Callable[[Row], bool],
        *,
        once: bool,
    ) -> list[Found]:
        """As many rows are sought as give n that are wanted."""
        found: list[Found] = []
        for rows in self._where_to_seek(view, vector, condition):
            found = self._nearest_among(view, vector, n, rows, is_wanted, once=once)
            if len(found) == n:
                break
        return found

    def _where_to_seek(self, view: "_View", vector: Float32Array, condition: Condition) -> Iterator[Rows | None]:
        """The rows that fulfil a condition; of very many, first those near to a vector. None: all."""
        if condition == Condition():
            yield None
            return
        rows = self._store.rows_where(condition, at_most=_FEW_ROWS)
        if len(rows) <= _FEW_ROWS:
            yield rows
            return
        if view.graph is not None:
            yield self._store.rows_where(condition, among=view.candidates(vector, MOST_CANDIDATES))
        yield self._store.rows_where(condition)

    def _nearest_among(
        self,
        view: "_View",
        vector: Float32Array,
        n: int,
        rows: Rows | None,
        is_wanted: Callable[[Row], bool],
        *,
        once: bool,
    ) -> list[Found]:
        n_rows = view.state.n_vectors if rows is None else len(rows)
        n_sought = max(_FEWEST_SOUGHT, 2 * n)
        while True:
            found: list[Found] = []
            files: set[str] = set()
            for number, similarity in view.nearest(vector, n_sought, rows):
                row = self._store.row(number)
                if row is None or not is_wanted(row) or (once and row.file in files):
                    continue
                files.add(row.file)
                found.append(self._found(row, similarity))
                if len(found) == n:
                    return found
            if n_sought >= n_rows:
                return found
            n_sought *= 4

    def _found(self, row: Row, similarity: float) -> Found:
        labels = tuple(Tag(self.info.labels[label], probability) for label, probability in row.heard)
        return Found(row.file, row.start_seconds, row.end_seconds, similarity, labels, row.recorded)

    def _example(self, query: str, start: float | None) -> Example:
        with self._reading() as view:
            if not view.state.n_vectors:
                raise DataError(f"{self.folder}: holds no sounds yet; give spectag index again, and let it end")
            entry = entry_of(query, self._store)
            if entry is not None and entry.first_row is not None:
                windows = self._store.windows_of(entry.number)
                places = places_from(entry, windows, start)
                vectors = view.vectors[entry.first_row + places[0] : entry.first_row + places[-1] + 1]
                return Example(np.array(vectors), entry.name, tuple(windows[place][0] for place in places))
            embedding = self._store.embedding
        assert embedding is not None, "an index with vectors has an embedding"
        return Example(hear(self.tagger, embedding, self.info.window, query, start), whole_name(query))

    def _numbers(self, labels: str | Sequence[str]) -> tuple[int, ...]:
        given = [labels] if isinstance(labels, str) else labels
        known = LabelSet(self.info.labels)
        return tuple(known.index(label, where=str(self.folder)) for label in given)

    def _files_within(self, patterns: str | Sequence[str]) -> tuple[int, ...] | None:
        given = [patterns] if isinstance(patterns, str) else patterns
        if not given:
            return None
        files: set[int] = set()
        entries = [(entry.number, PurePath(entry.name).as_posix()) for entry in self._store.entries()]
        for pattern in given:
            end = PurePath(pattern).as_posix().strip("/")
            forms = re.compile("|".join(map(translate, (end, f"{end}/*", f"*/{end}", f"*/{end}/*"))))
            inside = {number for number, name in entries if forms.match(name)}
            if not inside:
                raise DataError(f"{pattern}: no file of the index lies there, such as {entries[0][1]} does elsewhere")
            files |= inside
        return tuple(sorted(files))

    @contextmanager
    def _reading(self) -> Iterator["_View"]:
        """The index as it is for the time of the `with` block."""
        with self._lock, self._store.reading() as state:
            if self._view is None or self._view.state != state:
                self._view = _View(self.folder, state)
            yield self._view


class _View:
    """The vectors of an index, in a state that it had."""

    def __init__(self, folder: Path, state: State) -> None:
        self.state = state
        self.vectors = read_vectors(folder, state)
        self._folder = folder

    @cached_property
    def graph(self) -> Graph | None:
        """usearch's graph, where there is one worth following."""
        if not self.state.expansion:
            return None
        try:
            return Graph(self._folder / self.state.graph_file)
        except MissingExtraError:  # to look at all vectors takes longer, and finds no less
            return None

    def candidates(self, vector: Float32Array, n: int) -> Rows:
        """About the n rows nearest to a vector by the graph, and those that it does not know."""
        assert self.graph is not None
        new = np.arange(self.state.n_in_graph, self.state.n_vectors)
        return np.concatenate([self.graph.candidates(vector, n, expansion=self.state.expansion), new])

    def nearest(self, vector: Float32Array, n: int, rows: Rows | None) -> list[tuple[int, float]]:
        """The n vectors nearest to a unit vector, of these rows or of all: number and similarity."""
        if rows is None and self.graph is not None and n * CANDIDATES_EACH <= MOST_CANDIDATES:
            rows = self.candidates(vector, n * CANDIDATES_EACH)
        (found,), (similarities,) = nearest(vector[None], self.vectors, n, rows=rows)
        return list(zip(found.tolist(), similarities.tolist(), strict=True))


def _direction(vectors: Float32Array) -> Float32Array:
    """The unit vector (n_dimensions,) in the middle of several, (n, n_dimensions)."""
    direction: Float32Array = unit_vectors(vectors.mean(axis=0, keepdims=True))[0]
    return direction
