"""The spectrogram cache: the log_mel of each clip on disk, under a key made of the audio's bytes and the settings.

    CACHE/<settings>/mel.toml            the settings of the feature extraction, for people to read
    CACHE/<settings>/<2 hex>/<key>.npy   a log_mel: float32, (n_mels, n_frames), memory-mapped by its readers
    CACHE/<settings>/index.jsonl         the key of each audio file, with the file's size and times
    CACHE/<settings>/.work-<id>/         a running process: its lock, its unfinished files and its own index

A log_mel appears under its name when it is complete. The index only saves time: without it, the audio is read again to
compute the keys. When a run ends, its index is added to the main one; the indexes of killed runs are added by the next.
"""

import hashlib
import io
import json
import os
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from shutil import disk_usage
from typing import NamedTuple

import numpy as np

from spectag.array_types import Float32Array
from spectag.audio.files import audio_info, read_sound
from spectag.audio.mel import FRONT_END_VERSION, compute_log_mel, mel_filter_bank, n_frames
from spectag.config.base import Channel, MelConfig, to_toml
from spectag.data.clips import Clip
from spectag.errors import SpectrogramCacheError
from spectag.system.cache_content import readable_size
from spectag.system.file_errors import skip_reason
from spectag.system.progress import Log, Progress, no_log, silent
from spectag.system.work_folder import abandoned_work, work_folder
from spectag.system.worker_pool import WorkerDiedError, map_unordered, n_usable_cores

_NPY_HEADER_BYTES = 128
_DISK_BLOCK_BYTES = 4096
_N_SAMPLED_FILES = 200  # files whose headers are read to estimate the size of all log_mels
_BYTES_PER_WORKER = 32_000_000  # of log_mels: computed in about the time that a worker process takes to start


@dataclass(frozen=True)
class PrepareReport:
    """The result of `SpectrogramCache.prepare`. Each clip is new, cached or skipped."""

    n_new: int
    n_cached: int
    """Clips that were in the cache before."""
    skipped: tuple[tuple[Clip, str], ...]
    """Clips that can't be read, each with the reason."""
    truncated: tuple[Clip, ...]
    """Clips of which only a part can be read, as far as this is known."""
    keys: tuple[str | None, ...]
    """The key of each clip; None for skipped clips."""
    n_bytes: int
    """Bytes written."""
    seconds: float

    def __str__(self) -> str:
        """A summary in one line."""
        skipped = f"; {len(self.skipped)} clips skipped" if self.skipped else ""
        if self.n_new == 0:
            return f"nothing to do: {self.n_cached} spectrograms are cached{skipped}"
        cached = f", {self.n_cached} were cached" if self.n_cached else ""
        size = readable_size(self.n_bytes)
        return f"{self.n_new} spectrograms computed ({size}) in {self.seconds:.1f} s{cached}{skipped}"


class SpectrogramCache:
    """The log_mels of one feature extraction, in a folder that other settings can share.

    Parameters
    ----------
    root : str or Path
        Folder of the cache. It is created when it is needed.
    config : MelConfig
        Settings of the feature extraction.
    channel : Channel
        How several channels of a sound become one.
    """

    def __init__(self, root: str | Path, config: MelConfig, *, channel: Channel = "mix") -> None:
        self.root = Path(root)
        self.config = config
        self.channel: Channel = channel
        settings = f"{FRONT_END_VERSION} {config.model_dump_json()}"
        if channel != "mix":
            settings += f" channel {channel}"
        self.folder = self.root / hashlib.blake2b(settings.encode(), digest_size=8).hexdigest()

    def log_mel(self, key: str) -> Float32Array:
        """The log_mel of a key from `prepare`, of shape (n_mels, n_frames), as a read-only memory map.

        Raises
        ------
        SpectrogramCacheError
            If it is not in the cache, or damaged.
        """
        path = _log_mel_path(self.folder, key)
        try:
            return _open_log_mel(path, self.config.n_mels)
        except FileNotFoundError as error:
            raise SpectrogramCacheError(
                f"{path}: no such spectrogram; run spectag prepare with these settings first"
            ) from error
        except (OSError, ValueError) as error:
            raise SpectrogramCacheError(
                f"{path}: the spectrogram can't be read: {error}; delete it and run spectag prepare again"
            ) from error

    def prepare(
        self, clips: Sequence[Clip], *, workers: int | None = None, progress: Progress = silent, log: Log = no_log
    ) -> PrepareReport:
        """Compute the log_mels that are not in the cache.

        The process can be killed at any time and started again, and several processes can run at once: the content of
        the cache will be the same as after one undisturbed run.

        Parameters
        ----------
        clips
            Clips to cache. Of a clip with a start or an end, only that part of the file is cached.
        workers
            Number of processes; 1 uses the calling process alone. By default one per core, or 1 for little work.
        progress
            Called with the number of clips that are done.
        log
            Called with the number of missing log_mels and the disk space that they need, before they are computed.

        Raises
        ------
        SpectrogramCacheError
            If the log_mels won't fit on the disk, the cache can't be written, or a worker process was killed. Completed
            log_mels are kept.
        """
        started = time.perf_counter()
        excerpts = [_Excerpt.of(clip) for clip in clips]
        with _disk_errors_named(self.folder):
            self._merge_indexes()
            cached = self._cached_entries(excerpts)
            missing = [excerpt for excerpt in dict.fromkeys(excerpts) if excerpt not in cached]
            results = self._compute_missing(missing, workers, progress, log) if missing else {}
        new = {excerpt for excerpt, result in results.items() if result.n_bytes}
        entries = cached | {excerpt: result.entry for excerpt, result in results.items() if result.entry}
        keys = {excerpt: entry.key for excerpt, entry in entries.items()}
        return PrepareReport(
            n_new=sum(excerpt in new for excerpt in excerpts),
            n_cached=sum(excerpt in keys and excerpt not in new for excerpt in excerpts),
            skipped=tuple(
                (clip, results[excerpt].reason)
                for clip, excerpt in zip(clips, excerpts, strict=True)
                if excerpt not in keys
            ),
            truncated=tuple(
                clip
                for clip, excerpt in zip(clips, excerpts, strict=True)
                if excerpt in entries and entries[excerpt].is_truncated
            ),
            keys=tuple(keys.get(excerpt) for excerpt in excerpts),
            n_bytes=sum(result.n_bytes for result in results.values()),
            seconds=time.perf_counter() - started,
        )

    def _cached_entries(self, excerpts: Iterable["_Excerpt"]) -> dict["_Excerpt", "_IndexEntry"]:
        """The entries of the excerpts whose files did not change since they were indexed, and whose log_mels exist."""
        index = _read_index(self.folder / "index.jsonl")
        entries = {excerpt: index[excerpt] for excerpt in excerpts if excerpt in index}
        return {excerpt: entry for excerpt, entry in entries.items() if self._is_current(excerpt, entry)}

    def _is_current(self, excerpt: "_Excerpt", entry: "_IndexEntry") -> bool:
        try:
            n_bytes = _log_mel_path(self.folder, entry.key).stat().st_size
            return state_of_file(excerpt.path) == entry.file_state and n_bytes == self._npy_bytes(entry.n_frames)
        except OSError:
            return False

    def _npy_bytes(self, n_frames: int) -> int:
        return _NPY_HEADER_BYTES + 4 * self.config.n_mels * n_frames

    def _expected_bytes(self, excerpt: "_Excerpt") -> int:
        """Disk space of an excerpt's log_mel, from the header of its file; 0 if the file can't be read."""
        try:
            duration = audio_info(excerpt.path).duration_seconds
        except Exception as error:
            skip_reason(excerpt.path, error)  # raises it again if it concerns the whole run
            return 0
        end = duration if excerpt.end_seconds is None else min(excerpt.end_seconds, duration)
        n_samples = round((end - excerpt.start_seconds) * self.config.sample_rate)
        n_bytes = self._npy_bytes(n_frames(max(1, n_samples), self.config))
        return -(-n_bytes // _DISK_BLOCK_BYTES) * _DISK_BLOCK_BYTES

    def _compute_missing(
        self, missing: Sequence["_Excerpt"], workers: int | None, progress: Progress, log: Log
    ) -> dict["_Excerpt", "_Result"]:
        sample = missing[:: max(1, len(missing) // _N_SAMPLED_FILES)]
        n_bytes = sum(map(self._expected_bytes, sample)) * len(missing) // len(sample)
        n_workers = workers or min(n_usable_cores(), 1 + n_bytes // _BYTES_PER_WORKER)
        self._check_free_space(len(missing), n_bytes, log)
        mel_filter_bank(self.config)  # warns of empty bands once, instead of in every worker
        by_path = sorted(missing, key=lambda excerpt: excerpt.path)  # all excerpts of a file in succession
        results = {}
        try:
            with work_folder(self.folder) as work:
                _write_atomically(self.folder / "mel.toml", [to_toml(self.config).encode()], work)
                store = partial(_store_log_mel, self.folder, work, self.config, self.channel)
                with (
                    (work / "index.jsonl").open("w", encoding="ascii", buffering=1) as index,
                    closing(map_unordered(store, by_path, n_workers=n_workers)) as stored,
                ):
                    for excerpt, result in stored:
                        results[excerpt] = result
                        if result.entry:
                            index.write(_index_line(excerpt, result.entry))
                        progress("log-mels", len(results), len(missing))
        except WorkerDiedError as error:
            raise SpectrogramCacheError(f"{self.root}: {error}; completed spectrograms are kept") from error
        finally:
            self._merge_indexes()
        return results

    def _check_free_space(self, n_missing: int, n_bytes: int, log: Log) -> None:
        """Log the disk space that the missing log_mels need; a SpectrogramCacheError if there is too little."""
        existing = next(folder for folder in (self.root, *self.root.absolute().parents) if folder.exists())
        free_bytes = disk_usage(existing).free
        needed, free = readable_size(n_bytes), readable_size(free_bytes)
        if n_bytes > free_bytes:
            raise SpectrogramCacheError(
                f"{self.root}: the spectrograms of {n_missing} clips need about {needed}, but the disk has only {free} "
                "of free space; delete files, or use a folder on another disk with --cache"
            )
        log(f"{n_missing} spectrograms to compute: about {needed}; {free} of disk space is free")

    def _merge_indexes(self) -> None:
        """Add the indexes of ended runs, including killed ones, to the main index, and remove their work folders."""
        with abandoned_work(self.folder) as ended:
            if ended:
                path = self.folder / "index.jsonl"
                index = _read_index(path)
                for folder in ended:
                    index.update(_read_index(folder / "index.jsonl"))
                lines = sorted(_index_line(excerpt, entry) for excerpt, entry in index.items())
                _write_atomically(path, map(str.encode, lines), ended[0])


class _Excerpt(NamedTuple):
    """An audio file, or a part of it."""

    path: str
    """Absolute."""
    start_seconds: float
    end_seconds: float | None

    @classmethod
    def of(cls, clip: Clip) -> "_Excerpt":
        end = None if clip.end_seconds is None else float(clip.end_seconds)
        return cls(os.path.abspath(clip.path), float(clip.start_seconds), end)  # noqa: PTH100 a Path is slow to make

    def __str__(self) -> str:
        return self.path


class _IndexEntry(NamedTuple):
    """What the index contains about an excerpt."""

    file_state: str
    key: str
    n_frames: int
    is_truncated: bool = False


class _Result(NamedTuple):
    """What a worker returns for an excerpt."""

    entry: _IndexEntry | None
    """None: skipped."""
    n_bytes: int = 0
    """Bytes written; 0: the log_mel existed already."""
    reason: str = ""


def _store_log_mel(folder: Path, work: Path, config: MelConfig, channel: Channel, excerpt: _Excerpt) -> _Result:
    """Find or compute the log_mel of an excerpt, in a worker process."""
    audio_path, start, end = excerpt
    try:
        file_state = state_of_file(audio_path)
        key = _key(_digest(audio_path, file_state), excerpt)
        path = _log_mel_path(folder, key)
        if n_stored := _n_stored_frames(path, config.n_mels):
            return _Result(_IndexEntry(file_state, key, n_stored))
        sound = read_sound(
            audio_path, sample_rate=config.sample_rate, start_seconds=start, end_seconds=end, channel=channel
        )
        with warnings.catch_warnings(action="ignore"):  # the parent process has warned
            log_mel = compute_log_mel(sound.waveform, config)
        if state_of_file(audio_path) != file_state:
            return _Result(None, reason=f"{audio_path}: the file changed while it was read; prepare it again")
    except MemoryError:
        return _Result(None, reason=f"{audio_path}: too long for the memory; split it into clips with start and end")
    except Exception as error:
        return _Result(None, reason=skip_reason(audio_path, error))
    n_bytes = _write_atomically(path, [_npy_header(log_mel.shape), log_mel.data], work)
    return _Result(_IndexEntry(file_state, key, log_mel.shape[1], sound.is_truncated), n_bytes)


def state_of_file(path: str) -> str:
    """Size, modification time and change time of a file: a text that changes with the content of the file."""
    status = os.stat(path)  # noqa: PTH116
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"


@lru_cache(maxsize=1)
def _digest(path: str, file_state: str) -> str:
    """Hash of a file's bytes, computed once for all excerpts of the file."""
    with open(path, "rb") as file:  # noqa: PTH123
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]  # processors have instructions for SHA-256


def _key(digest: str, excerpt: _Excerpt) -> str:
    if (excerpt.start_seconds, excerpt.end_seconds) == (0.0, None):
        return digest
    text = f"{digest} {excerpt.start_seconds} {excerpt.end_seconds}"
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def content_key(clip: Clip) -> str:
    """A hash of the content of a clip's sound: its key in every spectrogram cache.

    Raises
    ------
    OSError
        If the file can't be read.
    """
    excerpt = _Excerpt.of(clip)
    return _key(_digest(excerpt.path, state_of_file(excerpt.path)), excerpt)


def _log_mel_path(folder: Path, key: str) -> Path:
    return folder / key[:2] / f"{key}.npy"


@lru_cache
def _npy_header(shape: tuple[int, int]) -> bytes:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return header.getvalue()


def _open_log_mel(path: Path, n_mels: int) -> Float32Array:
    """Memory-map a log_mel; a ValueError if the file has another size or header."""
    with path.open("rb") as file:
        n_bytes = os.fstat(file.fileno()).st_size
        shape = (n_mels, (n_bytes - _NPY_HEADER_BYTES) // (4 * n_mels))
        is_complete = n_bytes == _NPY_HEADER_BYTES + 4 * shape[0] * shape[1] and shape[1] > 0
        if not is_complete or file.read(_NPY_HEADER_BYTES) != _npy_header(shape):
            raise ValueError(f"its {n_bytes} bytes are not {n_mels} mel bands in float32")
        return np.memmap(file, np.float32, "r", offset=_NPY_HEADER_BYTES, shape=shape)


def _n_stored_frames(path: Path, n_mels: int) -> int:
    """Number of frames of a log_mel on disk; 0 if it is missing or damaged."""
    try:
        return int(_open_log_mel(path, n_mels).shape[1])
    except (FileNotFoundError, ValueError):
        return 0


def _write_atomically(path: Path, blocks: Iterable[bytes | memoryview], work: Path) -> int:
    """Write a file into the work folder, then move it to its path; return the number of bytes."""
    unfinished = work / f"{os.getpid()}{path.suffix}"
    with _disk_errors_named(path):
        try:
            with unfinished.open("wb") as file:
                n_bytes = sum(file.write(block) for block in blocks)
            path.parent.mkdir(exist_ok=True)
            unfinished.replace(path)
        except OSError:
            unfinished.unlink(missing_ok=True)  # frees the space on a full disk
            raise
    return n_bytes


def _read_index(path: Path) -> dict[_Excerpt, _IndexEntry]:
    index = {}
    with suppress(FileNotFoundError), path.open(encoding="ascii", errors="replace") as lines:
        for line in lines:
            with suppress(ValueError, TypeError):  # an incomplete line of a killed run
                audio_path, start, end, *entry = json.loads(line)
                index[_Excerpt(audio_path, start, end)] = _IndexEntry(*entry)
    return index


def _index_line(excerpt: _Excerpt, entry: _IndexEntry) -> str:
    return json.dumps([*excerpt, *entry]) + "\n"


@contextmanager
def _disk_errors_named(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SpectrogramCacheError(
            f"{path}: the spectrogram cache can't be written: {error.strerror or error}; completed spectrograms "
            "are kept. Run the command again when there is enough space and write permission"
        ) from error
