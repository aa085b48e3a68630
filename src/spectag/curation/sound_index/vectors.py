"""How the vectors of an index grow: features come, and unit vectors lie on the disk."""

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from spectag.array_types import Float32Array
from spectag.curation.embedding import Embedding
from spectag.curation.sound_index.database import VECTOR, State, Store
from spectag.errors import DataError
from spectag.system.atomic_files import unfinished_file

ROWS_TO_FIT = 5_000
"""Rows whose features are kept to fit the embedding to; with more it stays as it is."""
_SECONDS_BETWEEN_COMMITS = 0.3
_MOST_DEAD = 0.2  # share of the vectors that may be of files that left


def read_vectors(folder: Path, state: State) -> Float32Array:
    """The vectors (n_vectors, n_dimensions), memory-mapped; a DataError if they are not there."""
    shape = state.n_vectors, state.n_dimensions
    if not state.n_vectors:
        return np.zeros(shape, np.float32)
    path = folder / state.vectors_file
    try:
        return np.memmap(path, VECTOR, mode="r", shape=shape)
    except (OSError, ValueError) as error:  # ValueError: it is too short
        raise DataError(f"{path}: the vectors are gone or damaged; delete {folder}, and index once more") from error


class VectorWriter:
    """Makes vectors of the features of files that are added to an index.

    The embedding is fitted to all features as long as these are few, so that all vectors are made anew when sounds are
    added; of many it is fitted once, and then the features are no longer needed.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._state = store.state
        self._embedding = store.embedding
        self._n_waiting = store.n_with_features()
        self._file: BinaryIO | None = None
        self._committed_at = time.monotonic()

    def add(self, number: int, features: Float32Array) -> None:
        """Take the features (n_windows, n_features) of a file that was noted in the store."""
        if not self._state.is_settled and self._n_waiting + len(features) <= ROWS_TO_FIT:
            self._store.keep_features(number, features)
            self._n_waiting += len(features)
            return
        if not self._state.is_settled:
            self._settle(features)
        assert self._embedding is not None
        first_row = self._state.n_vectors
        self._append(self._embedding(features))
        self._store.place(number, first_row)

    def commit_now_and_then(self) -> None:
        """Make what was added lasting, if it is a while since that was done."""
        if time.monotonic() - self._committed_at > _SECONDS_BETWEEN_COMMITS:
            self.commit()

    def commit(self) -> None:
        """Make all that was added lasting."""
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
        self._store.state = self._state
        self._store.commit()
        self._committed_at = time.monotonic()

    def finish(self) -> None:
        """Make vectors of what waits for them, and take out those of files that left."""
        _, n_alive = self._store.counts()
        if not self._state.is_settled:
            if not self._state.n_vectors == n_alive == self._n_waiting:
                self._write_anew_from_features()
        elif self._state.n_vectors - n_alive > _MOST_DEAD * self._state.n_vectors:
            self._write_anew(self._alive())
        self.commit()

    def close(self) -> None:
        """Close the file of vectors."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _settle(self, features: Float32Array) -> None:
        """Fit the embedding for good: to what is kept, and to as many new features as make the number full."""
        n_missing = ROWS_TO_FIT - self._n_waiting
        some = features[np.linspace(0, len(features) - 1, min(len(features), n_missing)).round().astype(int)]
        self._write_anew_from_features(some)
        self._store.drop_features()
        self._state = self._state._replace(is_settled=True)
        self.commit()

    def _write_anew_from_features(self, more: Float32Array | None = None) -> None:
        """Fit the embedding to all features that are kept, and to more; and make the vectors of those kept."""
        kept = self._store.features()
        rows = [features for _, features in kept] + ([] if more is None else [more])
        if not rows:  # all files left
            self._embedding = None
            self._store.keep_blob("embedding", None)
            self._write_anew(iter(()))
            return
        self._embedding = embedding = Embedding.fit(np.concatenate(rows))
        self._store.keep_blob("embedding", embedding.to_bytes())
        self._write_anew((number, embedding(features)) for number, features in kept)

    def _alive(self) -> Iterator[tuple[int, Float32Array]]:
        vectors = read_vectors(self._store.folder, self._state)
        for entry in self._store.entries():
            if entry.first_row is not None:
                yield entry.number, vectors[entry.first_row : entry.first_row + entry.n_rows]

    def _write_anew(self, vectors: Iterator[tuple[int, NDArray[np.floating]]]) -> None:
        """Write the file of vectors from the beginning, under another name: who reads the old one is not disturbed."""
        self.close()
        n_dimensions = 0 if self._embedding is None else self._embedding.n_dimensions
        state = State(self._state.generation + 1, 0, n_dimensions, 0, 0, self._state.is_settled)
        n_vectors = 0
        with unfinished_file(self._store.folder / state.vectors_file) as unfinished, unfinished.open("wb") as file:
            for number, of_file in vectors:
                self._store.place(number, n_vectors)
                file.write(of_file.astype(VECTOR).tobytes())
                n_vectors += len(of_file)
            file.flush()
            os.fsync(file.fileno())
        self._state = state._replace(n_vectors=n_vectors)

    def _append(self, vectors: Float32Array) -> None:
        if self._file is None:
            path = self._store.folder / self._state.vectors_file
            self._file = path.open("r+b" if path.exists() else "wb")
            self._file.truncate(self._state.n_vectors * self._state.n_dimensions * VECTOR.itemsize)
            self._file.seek(0, os.SEEK_END)
        self._file.write(vectors.astype(VECTOR).tobytes())
        self._state = self._state._replace(n_vectors=self._state.n_vectors + len(vectors))


def remove_old(folder: Path, state: State) -> None:
    """Remove vectors and graphs that are no longer those of the index."""
    for file in [*folder.glob("vectors-*.f32"), *folder.glob("graph-*.usearch")]:
        if file.name not in (state.vectors_file, state.graph_file):
            with suppress(OSError):  # on Windows, one that is being read
                file.unlink()
