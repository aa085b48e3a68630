"""Fingerprint search: which recordings contain an excerpt, and where. No model is needed."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from spectag.audio.files import AUDIO_SUFFIXES, audio_info
from spectag.audio.fingerprints import Fingerprint
from spectag.config.base import Channel
from spectag.curation.sound_index.building import full_location
from spectag.curation.sound_index.database import IndexDatabase
from spectag.curation.sound_index.metadata import is_index, read_index_info
from spectag.data.clips import Clip
from spectag.data.fingerprint_cache import clip_fingerprint, clip_fingerprints
from spectag.data.shared_audio import FingerprintIndex, Match
from spectag.system.file_errors import skip_reason
from spectag.system.progress import Log, Progress, no_log, shows_progress, silent
from spectag.system.short_texts import short_repr
from spectag.system.storage import is_url
from spectag.system.worker_pool import map_unordered, n_usable_cores
from spectag.tagging.input_files import find_files

_MAX_PEAKS = 500_000  # compared at once: about an hour, 50 MB
_PARTS_PER_WORKER = 2  # compared in about the time that a worker process takes to start


@dataclass(frozen=True)
class ExcerptMatch:
    """A recording that contains an excerpt, or a part of it."""

    excerpt: str
    file: str
    start_seconds: float
    """Where the excerpt starts in the recording; negative if the recording starts later than the excerpt."""
    n_matches: int
    """Number of equal landmarks."""


@short_repr
@dataclass(frozen=True)
class FingerprintSearch:
    """The result of `search_fingerprints`."""

    matches: tuple[ExcerptMatch, ...]
    """By excerpt, those with the most equal landmarks first."""
    skipped: tuple[str, ...]
    """Recordings that can't be read, each with the reason."""


@shows_progress
def search_fingerprints(
    recordings: str | Path | Sequence[str | Path],
    excerpts: str | Path | Sequence[str | Path],
    *,
    n: int = 10,
    channel: Channel | None = None,
    cache: str | Path | None = None,
    workers: int | None = None,
    progress: Progress = silent,
    log: Log = no_log,
) -> FingerprintSearch:
    """Find the recordings that excerpts are from, also re-encoded, at another level, or mixed with other sounds.

    Fingerprints of recordings are cached: the first search reads all recordings, later ones only new and changed files.

    Parameters
    ----------
    recordings : path or sequence of paths
        Folder of an index from `spectag.index`, or files, folders and patterns.
    excerpts : path or sequence of paths
        Sound files. The recordings of each one are searched. An excerpt's own file is not a result.
    n : int
        Number of recordings for each excerpt.
    channel : "mix", "loudest" or int, optional
        How several channels become one. By default that of the index, or their mean. An excerpt without the channel of
        this number is read as a mean.
    cache : path, optional
        Folder for the fingerprints. By default in the user's cache folder.
    workers : int, optional
        Number of processes. By default one per core, or fewer if there is little to do.
    progress, log
        Called with the progress of the work, and with messages.

    Raises
    ------
    AudioError
        If an excerpt can't be read, or there is no recording.
    DataError
        If the index is damaged.
    ValueError
        If n is below 1.

    Examples
    --------
    >>> found = spectag.search_fingerprints("recordings", "excerpt.ogg")  # doctest: +SKIP
    >>> found.matches[0].file, found.matches[0].start_seconds  # doctest: +SKIP
    """
    if n < 1:
        raise ValueError(f"need n >= 1, got {n}")
    names = [str(excerpts)] if isinstance(excerpts, str | Path) else [str(excerpt) for excerpt in excerpts]
    locations = [recordings] if isinstance(recordings, str | Path) else recordings
    channel = channel or _channel_of_index(locations)
    queries = [clip_fingerprint(_clip(name), channel=_channel_of_excerpt(name, channel)) for name in names]
    for name, query in zip(names, queries, strict=True):
        if not query:
            log(f"{name}: the sound has no fingerprint, because it is silent or too short")
    files = _files(locations)
    local = [file for file in files if not is_url(file)]
    skipped = [f"{file}: fingerprints are computed from local files only" for file in files if is_url(file)]
    prints = clip_fingerprints(
        [_clip(file) for file in local], cache, channel=channel, workers=workers, progress=progress
    )
    skipped += [
        _why_unreadable(file, channel) for file, fingerprint in zip(local, prints, strict=True) if fingerprint is None
    ]
    found = _find(queries, prints, workers, progress)
    matches: list[ExcerptMatch] = []
    for name, rows in zip(names, found, strict=True):
        by_file = [(local[row], match) for row, match in rows if local[row] != full_location(name)]
        by_file.sort(key=lambda result: -result[1].n_matches)
        matches += [
            ExcerptMatch(name, file, round(match.offset_seconds, 3), match.n_matches) for file, match in by_file[:n]
        ]
    return FingerprintSearch(tuple(matches), tuple(skipped))


def _is_local_index(location: str | Path) -> bool:
    return not is_url(str(location)) and is_index(Path(location))


def _channel_of_index(locations: Sequence[str | Path]) -> Channel:
    """The channel of the first index among the recordings."""
    index = next((Path(location) for location in locations if _is_local_index(location)), None)
    return (index and read_index_info(index).channel) or "mix"


def _channel_of_excerpt(name: str, channel: Channel) -> Channel:
    return channel if isinstance(channel, str) or channel <= audio_info(name).n_channels else "mix"


def _files(recordings: Sequence[str | Path]) -> list[str]:
    """The names of all recordings, those of indexes included."""
    files: list[str] = []
    for location in recordings:
        folder = Path(location)
        if _is_local_index(location):
            read_index_info(folder)  # raises a DataError for other versions
            with closing(IndexDatabase(folder)) as database, database.reading():
                files += [entry.name for entry in database.entries()]
        else:
            files += map(full_location, find_files([location], AUDIO_SUFFIXES))
    return list(dict.fromkeys(files))


def _clip(file: str) -> Clip:
    return Clip(Path(file), file, ())


def _why_unreadable(file: str, channel: Channel) -> str:
    try:
        clip_fingerprint(_clip(file), channel=channel)
    except Exception as error:
        return skip_reason(file, error)
    return f"{file}: the file changed while it was read"


def _find(
    queries: Sequence[Fingerprint], fingerprints: Sequence[Fingerprint | None], workers: int | None, progress: Progress
) -> list[list[tuple[int, Match]]]:
    """The recordings that share audio with each query, by number, in ascending order."""
    parts = list(_parts(fingerprints))
    found: list[list[tuple[int, Match]]] = [[] for _ in queries]
    n_workers = workers or min(n_usable_cores(), 1 + len(parts) // _PARTS_PER_WORKER)
    with closing(map_unordered(partial(_find_in_part, queries), parts, n_workers=n_workers)) as results:
        for n_done, ((first, _), matches) in enumerate(results, start=1):
            for rows, new in zip(found, matches, strict=True):
                rows += [(first + match.clip, match) for match in new]
            progress("searching", n_done, len(parts))
    return [sorted(rows, key=lambda row: row[0]) for rows in found]


def _parts(fingerprints: Sequence[Fingerprint | None]) -> Iterator[tuple[int, list[Fingerprint | None]]]:
    """Consecutive fingerprints with a bounded number of peaks, each part with the number of the first one."""
    first, n_peaks = 0, 0
    for number, fingerprint in enumerate(fingerprints):
        n_peaks += len(fingerprint or ())
        if n_peaks > _MAX_PEAKS and number > first:
            yield first, list(fingerprints[first:number])
            first, n_peaks = number, len(fingerprint or ())
    if first < len(fingerprints):
        yield first, list(fingerprints[first:])


def _find_in_part(queries: Sequence[Fingerprint], part: tuple[int, list[Fingerprint | None]]) -> list[list[Match]]:
    index = FingerprintIndex(part[1])
    return [index.matches(query) for query in queries]
