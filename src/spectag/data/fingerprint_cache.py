"""The fingerprint cache: the spectral peaks of each clip in a database beside the spectrogram cache.

    CACHE/fingerprints-<version>.sqlite
    CACHE/fingerprints-<version>-<channel>.sqlite    of the loudest channel, or of the channel with a number

Fingerprints have the key of the clip's content, as spectrograms have. The database also contains the key of each file
with its size and times, so that an unchanged file is not read again, and the pairs that were found in sets of clips.
"""

import hashlib
import logging
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path

import numpy as np

from spectag.audio.files import read_audio
from spectag.audio.fingerprints import FINGERPRINT_VERSION, FRAME_SECONDS, Fingerprint, compute_fingerprint
from spectag.config.base import Channel
from spectag.data.clips import Clip
from spectag.data.readers.file_finder import IMAGE_SUFFIXES
from spectag.data.shared_audio import COMPARISON_VERSION, SharedAudio, find_shared_audio, find_shared_between
from spectag.data.spectrograms.cache import content_key, state_of_file
from spectag.errors import EndOfSoundError, SpectrogramCacheError
from spectag.system.cache import writable_cache_folder
from spectag.system.file_errors import skip_reason
from spectag.system.progress import Log, Progress, no_log, silent
from spectag.system.worker_pool import map_unordered, n_usable_cores

_TABLES = """
create table if not exists fingerprints (key text primary key, frames blob not null, bins blob not null);
create table if not exists clips (
    path text, start_seconds real, end_seconds real, state text not null, key text not null,
    primary key (path, start_seconds, end_seconds)
);
create table if not exists shared (
    key text primary key, pairs blob not null, n_matches blob not null, offsets_seconds blob not null
);
"""
_SHARED_KINDS = ("<i8", "<i8", "<f8")
_MAX_PAIRS = 10_000_000  # that are kept, 320 MB; a value in SQLite has up to 1 GB
_BLOCK_SECONDS = 60.0  # a whole number of frames; long recordings are read in blocks, which bounds the memory
_BYTES_PER_WORKER = 10_000_000  # of files: their fingerprints take about as long as the start of a worker process
_COMMIT_SECONDS = 5.0  # a killed run loses the work of this time
_LOCK_SECONDS = 60.0  # waiting for other runs that write
_logger = logging.getLogger("spectag")


def clip_fingerprints(
    clips: Sequence[Clip],
    root: str | Path | None = None,
    *,
    channel: Channel = "mix",
    workers: int | None = None,
    progress: Progress = silent,
    log: Log = no_log,
) -> list[Fingerprint | None]:
    """The fingerprint of each clip, from the cache or computed; None for images and for clips that can't be read.

    The process can be killed at any time and started again.

    Parameters
    ----------
    clips
        Whole recordings or parts of them.
    root : path, optional
        Folder of the spectrogram cache. By default in the user's cache folder.
    channel : Channel
        How several channels of a sound become one.
    workers : int, optional
        Number of processes. By default one per core, or fewer if the files are few or small.
    progress : Progress
        Called with the number of clips that are done.
    log : Log
        Called with the number of clips that can't be read.

    Raises
    ------
    WorkerDiedError
        If a worker process was killed.
    """
    sounds = dict.fromkeys(clip for clip in clips if clip.path.suffix.lower() not in IMAGE_SUFFIXES)
    try:
        with _open_database(root, channel) as database:
            keys, rows = _keys_and_rows(database, sounds, channel, workers, progress)
    except SpectrogramCacheError as error:
        _logger.warning("WARNING: %s; this run goes on without it", error)
        with closing(sqlite3.connect(":memory:")) as database:
            database.executescript(_TABLES)
            keys, rows = _keys_and_rows(database, sounds, channel, workers, progress)
    prints = {
        key: Fingerprint(np.frombuffer(row[0], "<i4"), np.frombuffer(row[1], "<i2")) for key, row in rows.items() if row
    }
    if n_unreadable := sum(keys.get(clip) not in prints for clip in sounds):
        log(f"{n_unreadable} clips can't be read and have no fingerprint")
    return [prints.get(keys[clip]) if clip in keys else None for clip in clips]


def _keys_and_rows(
    database: sqlite3.Connection, sounds: Iterable[Clip], channel: Channel, workers: int | None, progress: Progress
) -> tuple[dict[Clip, str], dict[str, tuple[bytes, bytes] | None]]:
    """The key of each clip that can be read, and the columns of its fingerprint, computed where they are missing."""
    keys = _keys(database, sounds)
    known = {key for (key,) in database.execute("select key from fingerprints")}
    clip_of_key = {key: clip for clip, key in keys.items() if key not in known}
    _compute(database, {clip: key for key, clip in clip_of_key.items()}, channel, workers, progress)
    select = "select frames, bins from fingerprints where key = ?"
    return keys, {key: database.execute(select, (key,)).fetchone() for key in set(keys.values())}


def cached_shared_audio(
    fingerprints: Sequence[Fingerprint | None],
    others: Sequence[Fingerprint | None] | None = None,
    *,
    root: str | Path | None = None,
    workers: int | None = None,
    progress: Progress = silent,
) -> SharedAudio:
    """The pairs of clips that share audio, from the cache if the same fingerprints were compared before.

    Parameters
    ----------
    fingerprints
        Of each clip. None, for a clip that can't be read, shares nothing.
    others, optional
        Fingerprints of other clips. With them, the pairs are of a clip of the first set and a clip of this set.
    root : path, optional
        Folder of the spectrogram cache, as for `clip_fingerprints`.
    workers, progress
        As for `find_shared_audio`. Without a comparison, there is no progress.

    Raises
    ------
    SpectrogramCacheError
        If the cache can't be read or written.
    WorkerDiedError
        If a worker process was killed.
    """
    key = _key_of_sets([fingerprints] if others is None else [fingerprints, others])
    row = None
    with suppress(SpectrogramCacheError), _open_database(root) as database:  # `clip_fingerprints` has warned
        select = "select pairs, n_matches, offsets_seconds from shared where key = ?"
        row = database.execute(select, (key,)).fetchone()
    if row:
        pairs, n_matches, offsets = (np.frombuffer(blob, kind) for blob, kind in zip(row, _SHARED_KINDS, strict=True))
        return SharedAudio(pairs.reshape(-1, 2), n_matches, offsets)
    if others is None:
        found = find_shared_audio(fingerprints, workers=workers, progress=progress)
    else:
        found = find_shared_between(fingerprints, others, workers=workers, progress=progress)
    columns = (found.pairs, found.n_matches, found.offsets_seconds)
    blobs = [column.astype(kind).tobytes() for column, kind in zip(columns, _SHARED_KINDS, strict=True)]
    if len(found.pairs) > _MAX_PAIRS:
        return found
    with suppress(SpectrogramCacheError), _open_database(root) as database:
        database.execute("insert or ignore into shared values (?, ?, ?, ?)", (key, *blobs))
    return found


def _key_of_sets(sets: Sequence[Sequence[Fingerprint | None]]) -> str:
    """A hash of the fingerprints and of their order."""
    digest = hashlib.sha256(f"{COMPARISON_VERSION}".encode())
    for fingerprints in sets:
        digest.update(f"clips {len(fingerprints)}\n".encode())
        for fingerprint in fingerprints:
            digest.update(f"peaks {None if fingerprint is None else len(fingerprint.frames)}\n".encode())
            if fingerprint is not None:
                digest.update(fingerprint.frames.astype("<i4").tobytes() + fingerprint.bins.astype("<i2").tobytes())
    return digest.hexdigest()


def clip_fingerprint(clip: Clip, *, channel: Channel = "mix") -> Fingerprint:
    """The fingerprint of a clip, without the cache. Long recordings are read in blocks.

    Raises
    ------
    AudioError
        As `read_audio`.
    """
    frames, bins = [np.empty(0, np.int32)], [np.empty(0, np.int16)]
    start, end = clip.start_seconds, np.inf if clip.end_seconds is None else clip.end_seconds
    n_seconds = _BLOCK_SECONDS
    while start < end and n_seconds >= _BLOCK_SECONDS:
        try:
            waveform, rate = read_audio(
                clip.path,
                start_seconds=start,
                end_seconds=float(min(start + _BLOCK_SECONDS, end)),
                channel=channel,
            )
        except EndOfSoundError:
            if start == clip.start_seconds:
                raise
            break
        block = compute_fingerprint(waveform, rate)
        frames.append(block.frames + np.int32(round((start - clip.start_seconds) / FRAME_SECONDS)))
        bins.append(block.bins)
        n_seconds = len(waveform) / rate
        start += _BLOCK_SECONDS
    return Fingerprint(np.concatenate(frames), np.concatenate(bins))


@contextmanager
def _open_database(root: str | Path | None, channel: Channel = "mix") -> Iterator[sqlite3.Connection]:
    version = FINGERPRINT_VERSION if channel == "mix" else f"{FINGERPRINT_VERSION}-{channel}"
    path = (Path(root) if root else writable_cache_folder() / "spectrograms") / f"fingerprints-{version}.sqlite"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path, timeout=_LOCK_SECONDS)) as database:
            database.executescript(_TABLES)
            yield database
            database.commit()
    except (OSError, sqlite3.Error) as error:
        raise SpectrogramCacheError(
            f"{path}: the fingerprint cache can't be used: {error}; free disk space, or delete the file"
        ) from error


def _keys(database: sqlite3.Connection, clips: Iterable[Clip]) -> dict[Clip, str]:
    """The key of the content of each clip whose file can be read. Unchanged files are not read again."""
    keys = {}
    select = "select key from clips where path = ? and start_seconds = ? and end_seconds = ? and state = ?"
    for clip in clips:
        end = -1.0 if clip.end_seconds is None else clip.end_seconds
        with suppress(OSError):
            place = (str(clip.path.absolute()), clip.start_seconds, end, state_of_file(str(clip.path)))
            if row := database.execute(select, place).fetchone():
                keys[clip] = row[0]
            else:
                keys[clip] = content_key(clip)
                database.execute("insert or replace into clips values (?, ?, ?, ?, ?)", (*place, keys[clip]))
    database.commit()
    return keys


def _compute(
    database: sqlite3.Connection,
    missing: Mapping[Clip, str],
    channel: Channel,
    workers: int | None,
    progress: Progress,
) -> None:
    """Compute and store the fingerprints of clips, each under its key."""
    if not missing:
        return
    n_workers = workers or min(n_usable_cores(), len(missing), 1 + _n_bytes(missing) // _BYTES_PER_WORKER)
    progress("fingerprints", 0, len(missing))
    last_commit = time.monotonic()
    results = map_unordered(partial(_try_fingerprint, channel), missing, n_workers=n_workers)
    with closing(results):
        for n_done, (clip, result) in enumerate(results, start=1):
            if result is not None:
                row = missing[clip], result.frames.astype("<i4").tobytes(), result.bins.astype("<i2").tobytes()
                database.execute("insert or ignore into fingerprints values (?, ?, ?)", row)
            if time.monotonic() - last_commit > _COMMIT_SECONDS:
                database.commit()
                last_commit = time.monotonic()
            progress("fingerprints", n_done, len(missing))


def _n_bytes(clips: Iterable[Clip]) -> int:
    """The size of the clips' files that can be read."""
    n_bytes = 0
    for path in {clip.path for clip in clips}:
        with suppress(OSError):
            n_bytes += path.stat().st_size
    return n_bytes


def _try_fingerprint(channel: Channel, clip: Clip) -> Fingerprint | None:
    try:
        return clip_fingerprint(clip, channel=channel)
    except Exception as error:
        skip_reason(clip.path, error)  # raises it again if it concerns the whole run
        return None
