"""The vectors file of a sound index: embedding features, and appending the vectors on disk."""

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
from spectag.curation.sound_index.database import VECTOR_DTYPE, IndexDatabase, IndexState
from spectag.errors import DataError
from spectag.system.atomic_files import unfinished_file
from spectag.system.regular_files import check_regular_file

_MAX_BYTES = 2**44
ROWS_TO_FIT = 5_000
"""Windows whose features are kept to fit the embedding. With more windows, the embedding is final."""
_SECONDS_BETWEEN_COMMITS = 0.3
_MAX_OBSOLETE_FRACTION = 0.2  # of the vectors, of removed files, before the vectors file is rewritten


def read_vectors(folder: Path, state: IndexState) -> Float32Array:
    """The vectors (n_vectors, n_dimensions), memory-mapped; a DataError if the file is missing or too short."""
    shape = state.n_vectors, state.n_dimensions
    if not state.n_vectors:
        return np.zeros(shape, np.float32)
    path = folder / state.vectors_file
    try:
        check_regular_file(path, max_bytes=_MAX_BYTES)
        return np.memmap(path, VECTOR_DTYPE, mode="r", shape=shape)
    except (OSError, ValueError, OverflowError) as error:  # ValueError: the file is too short
        raise DataError(
            f"{path}: the vectors are missing or damaged; delete {folder} and index the recordings again"
        ) from error


class VectorWriter:
    """Embeds the features of files that are added to an index.

    As long as there are few windows, their features are kept, and the embedding is fitted to all of them again whenever
    sounds are added. When there are many, the embedding is fitted once and for all, and features are no longer kept.
    An embedding that is not `is_fitted` leaves the features as they are, except for their length.
    """

    def __init__(self, database: IndexDatabase, *, is_fitted: bool = True) -> None:
        self._database = database
        self._is_fitted = is_fitted
        self._state = database.state
        self._embedding = database.embedding
        self._n_waiting = database.n_stored_features()
        self._file: BinaryIO | None = None
        self._committed_at = time.monotonic()

    def add(self, number: int, features: Float32Array) -> None:
        """Add the features (n_windows, n_features) of a file of the database."""
        if not self._state.is_settled and self._n_waiting + len(features) <= ROWS_TO_FIT:
            self._database.store_features(number, features)
            self._n_waiting += len(features)
            return
        if not self._state.is_settled:
            self._settle(features)
        assert self._embedding is not None
        first_row = self._state.n_vectors
        self._append(self._embedding(features))
        self._database.set_first_row(number, first_row)

    def commit_sometimes(self) -> None:
        """Commit, if the last commit is a while ago."""
        if time.monotonic() - self._committed_at > _SECONDS_BETWEEN_COMMITS:
            self.commit()

    def commit(self) -> None:
        """Commit all added vectors."""
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
        self._database.state = self._state
        self._database.commit()
        self._committed_at = time.monotonic()

    def finish(self) -> None:
        """Embed the stored features, and rewrite the vectors file if it contains too many vectors of removed files."""
        _, n_valid = self._database.counts()
        if not self._state.is_settled:
            if not self._state.n_vectors == n_valid == self._n_waiting:
                self._refit()
        elif self._state.n_vectors - n_valid > _MAX_OBSOLETE_FRACTION * self._state.n_vectors:
            self._rewrite(self._valid_vectors())
        self.commit()

    def close(self) -> None:
        """Close the vectors file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _settle(self, features: Float32Array) -> None:
        """Fit the final embedding, to the stored features and a sample of the new ones."""
        n_missing = ROWS_TO_FIT - self._n_waiting
        sample = features[np.linspace(0, len(features) - 1, min(len(features), n_missing)).round().astype(int)]
        self._refit(sample)
        self._database.delete_features()
        self._state = self._state._replace(is_settled=True)
        self.commit()

    def _refit(self, new: Float32Array | None = None) -> None:
        """Fit the embedding to the stored and the new features, and write the vectors of the stored ones."""
        stored = self._database.features()
        rows = [features for _, features in stored] + ([] if new is None else [new])
        embedding = self._embedding_of(np.concatenate(rows)) if rows else None  # None: all files were removed
        self._embedding = embedding
        self._database.store_blob("embedding", None if embedding is None else embedding.to_bytes())
        self._rewrite((number, embedding(features)) for number, features in stored if embedding is not None)

    def _embedding_of(self, features: Float32Array) -> Embedding:
        return Embedding.fit(features) if self._is_fitted else Embedding.unchanged(features.shape[1])

    def _valid_vectors(self) -> Iterator[tuple[int, Float32Array]]:
        vectors = read_vectors(self._database.folder, self._state)
        for entry in self._database.entries():
            if entry.first_row is not None:
                yield entry.number, vectors[entry.first_row : entry.first_row + entry.n_windows]

    def _rewrite(self, vectors: Iterator[tuple[int, NDArray[np.floating]]]) -> None:
        """Write a new vectors file under another name, which does not disturb readers of the old one."""
        self.close()
        n_dimensions = 0 if self._embedding is None else self._embedding.n_dimensions
        state = IndexState(self._state.generation + 1, 0, n_dimensions, 0, 0, self._state.is_settled)
        n_vectors = 0
        with unfinished_file(self._database.folder / state.vectors_file) as unfinished, unfinished.open("wb") as file:
            for number, file_vectors in vectors:
                self._database.set_first_row(number, n_vectors)
                file.write(file_vectors.astype(VECTOR_DTYPE).tobytes())
                n_vectors += len(file_vectors)
            file.flush()
            os.fsync(file.fileno())
        self._state = state._replace(n_vectors=n_vectors)

    def _append(self, vectors: Float32Array) -> None:
        if self._file is None:
            path = self._database.folder / self._state.vectors_file
            self._file = path.open("r+b" if path.exists() else "wb")
            self._file.truncate(self._state.n_vectors * self._state.n_dimensions * VECTOR_DTYPE.itemsize)
            self._file.seek(0, os.SEEK_END)
        self._file.write(vectors.astype(VECTOR_DTYPE).tobytes())
        self._state = self._state._replace(n_vectors=self._state.n_vectors + len(vectors))


def remove_old_files(folder: Path, state: IndexState) -> None:
    """Remove vectors and graph files that the index no longer uses."""
    for file in [*folder.glob("vectors-*.f32"), *folder.glob("graph-*.usearch")]:
        if file.name not in (state.vectors_file, state.graph_file):
            with suppress(OSError):  # on Windows, a file that is being read
                file.unlink()
