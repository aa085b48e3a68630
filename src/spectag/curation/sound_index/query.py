"""Search queries: the vectors of example sounds, from the index or computed with its model."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from spectag.array_types import Float32Array
from spectag.audio.files import AUDIO_SUFFIXES
from spectag.config.base import WindowConfig
from spectag.curation.embedding import Embedding
from spectag.curation.sound_index.building import full_location
from spectag.curation.sound_index.database import FileEntry, IndexDatabase
from spectag.data.readers.delimited_text import abbreviate
from spectag.errors import AudioError, DataError, did_you_mean
from spectag.models.tagger import Tagger
from spectag.system.storage import file_fingerprint, is_url
from spectag.tagging.parallel import tag

_MAX_NAME = 80  # characters of a file name, in any encoding; systems refuse longer ones than 255 bytes


@dataclass(frozen=True, eq=False)
class QueryExample:
    """A sound to search for."""

    vectors: Float32Array
    """The vectors of its windows, (n_windows, n_dimensions)."""
    file: str | None
    """Its name in the index, or None."""
    starts: tuple[float, ...] = ()
    """Start of each window that is in the index, in seconds."""


def is_text(query: str, database: IndexDatabase) -> bool:
    """Whether a query is a description in words: no file, no path or name of one, and no file of the index."""
    if is_url(query) or PurePath(query).suffix.lower() in AUDIO_SUFFIXES or len(PurePath(query).parts) != 1:
        return False
    if len(query) <= _MAX_NAME and Path(query).exists():
        return False
    return not any(PurePath(entry.name).name == query for entry in database.entries())


def find_entry(query: str, database: IndexDatabase) -> FileEntry | None:
    """The file of the index that a query names, by its path, or by the end of its path if no such file exists.

    None: the file exists, but is not in the index, or has changed since it was indexed.

    Raises
    ------
    DataError
        If the query is neither a file nor in the index, or it matches several files of the index.
    """
    name = full_location(query)
    entry = database.entry(name)
    exists = is_url(query) or Path(query).exists()
    if entry is not None:
        return entry if not exists or file_fingerprint(name) == entry.fingerprint else None
    if exists:
        return None
    end = PurePath(query).parts
    entries = database.entries()
    matches = [entry for entry in entries if PurePath(entry.name).parts[-len(end) :] == end]
    if len(matches) == 1:
        return matches[0]
    if not matches:
        hint = did_you_mean(PurePath(query).name, {PurePath(entry.name).name for entry in entries})
        words = "" if len(query.split()) < 2 or hint else "; to search in words, index with --model clap"
        raise DataError(f"{query}: no such file, and no file with this name in the index{hint}{words}")
    listed = abbreviate([entry.name for entry in matches])
    raise DataError(f"{query}: {len(matches):,} files of the index match: {listed}; use a longer part of the path")


def window_numbers(entry: FileEntry, windows: Sequence[tuple[float, float | None]], start: float | None) -> list[int]:
    """Indices of all windows of a file, or of the last window that begins at or before a time in seconds.

    Raises
    ------
    DataError
        If the recording ends before this time.
    """
    if start is None:
        return list(range(len(windows)))
    end = windows[-1][1]
    if end is not None and start >= end:
        raise DataError(f"{entry.name}: there is no window at {start:g} s, because the recording ends at {end:g} s")
    return [max(index for index, (begin, _) in enumerate(windows) if begin <= start + 1e-6)]


def embed_query(
    tagger: Tagger, embedding: Embedding, window: WindowConfig, file: str, start: float | None
) -> Float32Array:
    """The vectors (n_windows, n_dimensions) of a sound that is not in the index, or of the window at a start time.

    Raises
    ------
    AudioError
        If the file can't be read, or ends before the start time.
    """
    assert window.window_seconds is not None
    span = (0.0, None) if start is None else (start, start + window.window_seconds)
    (tagged,) = tag(tagger, file, window=window, spans=[span], features=True, workers=1)
    if tagged.network_outputs is None:
        raise AudioError(str(tagged.reason))
    return embedding(tagged.network_outputs.features)
