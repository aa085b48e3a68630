"""What is sought: the vectors of the examples, from the index where they are in it, else by the index's tagger."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePath

from spectag.array_types import Float32Array
from spectag.config.base import WindowConfig
from spectag.curation.embedding import Embedding
from spectag.curation.sound_index.building import content_mark, full_location
from spectag.curation.sound_index.database import FileEntry, IndexDatabase
from spectag.errors import AudioError, DataError, did_you_mean
from spectag.models.tagger import Tagger
from spectag.system.storage import is_address
from spectag.tagging.parallel import Chunk, tag_chunks

_N_NAMED = 5  # files of a name that several have


@dataclass(frozen=True, eq=False)
class QueryExample:
    """A sound to seek others like."""

    vectors: Float32Array
    """Of its windows, (n_windows, n_dimensions)."""
    file: str | None
    """Its name in the index, where it is in it."""
    starts: tuple[float, ...] = ()
    """Where its windows begin that are in the index, in seconds."""


def find_entry(query: str, store: IndexDatabase) -> FileEntry | None:
    """The file of the index that a query names: by its path, or by the end of it where nothing lies there.

    None: a file that is not in the index, or has changed since.

    Raises
    ------
    DataError
        If it is neither a file nor in the index, or several files of the index are named so.
    """
    name = full_location(query)
    entry = store.entry(name)
    is_there = is_address(query) or Path(query).exists()
    if entry is not None:
        return entry if not is_there or content_mark(name) == entry.mark else None
    if is_there:
        return None
    end = PurePath(query).parts
    entries = store.entries()
    named = [entry for entry in entries if PurePath(entry.name).parts[-len(end) :] == end]
    if len(named) == 1:
        return named[0]
    if not named:
        nearest = did_you_mean(PurePath(query).name, {PurePath(entry.name).name for entry in entries})
        raise DataError(f"{query}: no such file, and none of this name in the index{nearest}")
    some = ", ".join(entry.name for entry in named[:_N_NAMED]) + (", ..." if len(named) > _N_NAMED else "")
    raise DataError(f"{query}: {len(named):,} files in the index are named so: {some}; tell which by more of its path")


def window_numbers(entry: FileEntry, windows: Sequence[tuple[float, float | None]], start: float | None) -> list[int]:
    """The places of all windows of a file; or of the last one that has begun at a time in seconds.

    Raises
    ------
    DataError
        If the recording has ended by then.
    """
    if start is None:
        return list(range(len(windows)))
    end = windows[-1][1]
    if end is not None and start >= end:
        raise DataError(f"{entry.name}: nothing begins at {start:g} s, for it ends at {end:g} s")
    return [max(place for place, (begin, _) in enumerate(windows) if begin <= start + 1e-6)]


def hear(tagger: Tagger, embedding: Embedding, window: WindowConfig, file: str, start: float | None) -> Float32Array:
    """The vectors (n_windows, n_dimensions) of a sound that is not in the index, or of the window from a time on.

    Raises
    ------
    AudioError
        If it can't be read, or has ended by then.
    """
    assert window.window_seconds is not None
    stretch = (0.0, None) if start is None else (start, start + window.window_seconds)
    with closing(tag_chunks(tagger, [Chunk(0, (file,), (stretch,))], window, features=True, workers=1)) as answers:
        ((_, answer),) = answers
    (tagged,) = answer.files
    if tagged.network_outputs is None:
        raise AudioError(str(tagged.reason))
    return embedding(tagged.network_outputs.features)
