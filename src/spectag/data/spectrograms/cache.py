"""The bank: each clip's log_mel once on disk, named by the audio's bytes and by how they become a log_mel.

    BANK/<front end>/mel.toml            the front end's settings, for people to read
    BANK/<front end>/<2 hex>/<key>.npy   a log_mel: float32, (n_mels, n_frames), memory-mapped by its readers
    BANK/<front end>/index.jsonl         the key that each file had when it was last read
    BANK/<front end>/.work-<id>/         a run at work: its lock, its unfinished files, and its own index so far

A log_mel takes its place when it is whole. The index only saves time: a run without it reads the audio's bytes again,
and finds the log_mels by them. A run adds to the index what it did when it ends, and what killed runs did before it.
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
from spectag.audio.files import audio_info, read_audio
from spectag.audio.mel import FRONT_END_VERSION, compute_log_mel, mel_filter_bank, n_frames
from spectag.config.base import MelConfig, to_toml
from spectag.data.clips import Clip
from spectag.errors import SpectagError, SpectrogramCacheError
from spectag.system.progress import Progress, silent
from spectag.system.work_folder import ended_work, work_folder
from spectag.system.worker_pool import WorkerDiedError, map_unordered, n_usable_cores

_NPY_HEADER_BYTES = 128
_DISK_BLOCK_BYTES = 4096
_N_FORECAST = 200  # clips whose headers are read to foretell the bytes of all
_BYTES_WORTH_WORKERS = 32_000_000  # of log_mels: made in about the time that worker processes take to start


@dataclass(frozen=True)
class Forecast:
    """What preparing would take."""

    n_clips: int  # that are not in the bank
    n_bytes: int  # that they will need, about
    free_bytes: int  # on the bank's disk


@dataclass(frozen=True)
class PrepareReport:
    """What preparing did: each clip is new, kept or skipped."""

    n_new: int
    n_kept: int  # in the bank before
    skipped: tuple[tuple[Clip, str], ...]  # each with the reason
    keys: tuple[str | None, ...]  # clip by clip; None: skipped
    n_bytes: int  # written
    seconds: float

    def __str__(self) -> str:
        """One line for people."""
        skipped = f"; {len(self.skipped)} clips skipped" if self.skipped else ""
        if self.n_new == 0:
            return f"nothing to do: {self.n_kept} log_mels are in the bank{skipped}"
        kept = f", {self.n_kept} were there" if self.n_kept else ""
        return f"{self.n_new} log_mels made ({readable_size(self.n_bytes)}) in {self.seconds:.1f} s{kept}{skipped}"


class SpectrogramCache:
    """The log_mels of one front end, in a folder that other front ends may share.

    Parameters
    ----------
    root : str or Path
        The bank's folder; made when it is needed.
    config : MelConfig
        The front end.
    """

    def __init__(self, root: str | Path, config: MelConfig) -> None:
        self.root = Path(root)
        self.config = config
        self.folder = self.root / _front_end_key(config)

    def log_mel(self, key: str) -> Float32Array:
        """The log_mel of a key that `prepare` gave, of shape (n_mels, n_frames): a read-only memory map.

        Raises
        ------
        SpectrogramCacheError
            If there is none, or it is damaged.
        """
        path = _log_mel_path(self.folder, key)
        try:
            return _open_log_mel(path, self.config.n_mels)
        except FileNotFoundError as error:
            raise SpectrogramCacheError(
                f"{path}: no such log_mel; prepare the clips with this front end first"
            ) from error
        except (OSError, ValueError) as error:
            raise SpectrogramCacheError(
                f"{path}: the log_mel can't be read: {error}; delete it and prepare again"
            ) from error

    def forecast(self, clips: Iterable[Clip]) -> Forecast:
        """What preparing these clips would take, told from the headers of at most 200 of the files."""
        stretches = [_Stretch.of(clip) for clip in clips]
        known = self._known_keys(stretches)
        return self._forecast([stretch for stretch in dict.fromkeys(stretches) if stretch not in known])

    def prepare(
        self, clips: Iterable[Clip], *, workers: int | None = None, progress: Progress = silent
    ) -> PrepareReport:
        """Make the log_mels that are missing.

        It may be killed at any moment and started again, and several processes may do it at once: the bank ends with
        the same bytes as after one undisturbed run.

        Parameters
        ----------
        clips
            The clips to have in the bank; one with a start or an end is that stretch of its file.
        workers
            Number of processes; 1 is this one alone. None: one per core, or 1 when little is to be done.
        progress
            Told how many of the missing clips are done.

        Raises
        ------
        SpectrogramCacheError
            If the log_mels won't fit on the disk, the bank can't be written, or a worker process was killed. What
            was done by then is kept.
        """
        started = time.perf_counter()
        clips = list(clips)
        stretches = [_Stretch.of(clip) for clip in clips]
        with _disk_errors_named(self.folder):
            self._take_over_ended_runs()
            known = self._known_keys(stretches)
            missing = [stretch for stretch in dict.fromkeys(stretches) if stretch not in known]
            answers = self._make(missing, workers, progress) if missing else {}
        new = {stretch for stretch, answer in answers.items() if answer.n_bytes}
        keys = known | {stretch: answer.entry.key for stretch, answer in answers.items() if answer.entry}
        return PrepareReport(
            n_new=sum(stretch in new for stretch in stretches),
            n_kept=sum(stretch in keys and stretch not in new for stretch in stretches),
            skipped=tuple(
                (clip, answers[stretch].reason)
                for clip, stretch in zip(clips, stretches, strict=True)
                if stretch not in keys
            ),
            keys=tuple(keys.get(stretch) for stretch in stretches),
            n_bytes=sum(answer.n_bytes for answer in answers.values()),
            seconds=time.perf_counter() - started,
        )

    def _known_keys(self, stretches: Iterable["_Stretch"]) -> dict["_Stretch", str]:
        """Keys of the stretches whose files are as the index knows them, and whose log_mels are there."""
        index = _read_index(self.folder / "index.jsonl")
        return {
            stretch: index[stretch].key
            for stretch in stretches
            if stretch in index and self._is_current(stretch, index[stretch])
        }

    def _is_current(self, stretch: "_Stretch", entry: "_Entry") -> bool:
        try:
            n_bytes = _log_mel_path(self.folder, entry.key).stat().st_size
            return _file_state(stretch.path) == entry.file_state and n_bytes == self._npy_bytes(entry.n_frames)
        except OSError:
            return False

    def _npy_bytes(self, n_frames: int) -> int:
        return _NPY_HEADER_BYTES + 4 * self.config.n_mels * n_frames

    def _forecast(self, missing: Sequence["_Stretch"]) -> Forecast:
        sample = missing[:: max(1, len(missing) // _N_FORECAST)]
        mean_bytes = sum(map(self._expected_bytes, sample)) / max(1, len(sample))
        place = next(folder for folder in (self.root, *self.root.absolute().parents) if folder.exists())
        return Forecast(len(missing), round(mean_bytes * len(missing)), disk_usage(place).free)

    def _expected_bytes(self, stretch: "_Stretch") -> int:
        """Disk space for a stretch's log_mel, by the header of its file; none for a file that will be skipped."""
        try:
            duration = audio_info(stretch.path).duration_seconds
        except SpectagError:
            return 0
        end = duration if stretch.end_seconds is None else min(stretch.end_seconds, duration)
        n_samples = round((end - stretch.start_seconds) * self.config.sample_rate)
        n_bytes = self._npy_bytes(n_frames(max(1, n_samples), self.config))
        return -(-n_bytes // _DISK_BLOCK_BYTES) * _DISK_BLOCK_BYTES

    def _make(
        self, missing: Sequence["_Stretch"], workers: int | None, progress: Progress
    ) -> dict["_Stretch", "_Answer"]:
        forecast = self._forecast(missing)
        if forecast.n_bytes > forecast.free_bytes:
            raise SpectrogramCacheError(
                f"{self.root}: the log_mels of {forecast.n_clips} clips need about {readable_size(forecast.n_bytes)}, "
                f"and {readable_size(forecast.free_bytes)} is free on its disk; make space, or put the bank on another"
            )
        if workers is None:
            workers = min(n_usable_cores(), 1 + forecast.n_bytes // _BYTES_WORTH_WORKERS)
        mel_filter_bank(self.config)  # warns of empty bands: here, once, and not in every worker
        in_order = sorted(missing, key=lambda stretch: stretch.path)  # the stretches of a file one after the other
        answers = {}
        try:
            with work_folder(self.folder) as work:
                _write_whole(self.folder / "mel.toml", [to_toml(self.config).encode()], work)
                store = partial(_store_log_mel, self.folder, work, self.config)
                with (
                    (work / "index.jsonl").open("w", encoding="ascii", buffering=1) as index,
                    closing(map_unordered(store, in_order, n_workers=workers)) as stored,
                ):
                    for stretch, answer in stored:
                        answers[stretch] = answer
                        if answer.entry:
                            index.write(_index_line(stretch, answer.entry))
                        progress("log-mels", len(answers), len(missing))
        except WorkerDiedError as error:
            raise SpectrogramCacheError(f"{self.root}: {error}; what is done is kept") from error
        finally:
            self._take_over_ended_runs()
        return answers

    def _take_over_ended_runs(self) -> None:
        """Add to the index what ended runs did, also killed ones, and remove what they left unfinished."""
        with ended_work(self.folder) as ended:
            if ended:
                path = self.folder / "index.jsonl"
                index = _read_index(path)
                for folder in ended:
                    index.update(_read_index(folder / "index.jsonl"))
                lines = sorted(_index_line(stretch, entry) for stretch, entry in index.items())
                _write_whole(path, map(str.encode, lines), ended[0])


class _Stretch(NamedTuple):
    """A stretch of an audio file."""

    path: str  # absolute
    start_seconds: float
    end_seconds: float | None

    @classmethod
    def of(cls, clip: Clip) -> "_Stretch":
        end = None if clip.end_seconds is None else float(clip.end_seconds)
        return cls(os.path.abspath(clip.path), float(clip.start_seconds), end)  # noqa: PTH100 a Path is slow to make

    def __str__(self) -> str:
        return self.path


class _Entry(NamedTuple):
    """What the index knows of a stretch."""

    file_state: str
    key: str
    n_frames: int


class _Answer(NamedTuple):
    """What became of a stretch."""

    entry: _Entry | None  # None: skipped
    n_bytes: int = 0  # written; 0: the log_mel was there
    reason: str = ""


def _store_log_mel(folder: Path, work: Path, config: MelConfig, stretch: _Stretch) -> _Answer:
    """Find or make a stretch's log_mel: the work of a worker."""
    try:
        file_state = _file_state(stretch.path)
        key = _key(_digest(stretch.path, file_state), stretch)
        path = _log_mel_path(folder, key)
        n_frames = _n_stored_frames(path, config.n_mels)
        if n_frames:
            return _Answer(_Entry(file_state, key, n_frames))
        log_mel = _compute(stretch, config)
        if _file_state(stretch.path) != file_state:
            return _Answer(None, reason=f"{stretch.path}: the file changed while it was read; prepare it again")
    except SpectagError as error:
        return _Answer(None, reason=str(error))
    except OSError as error:
        return _Answer(None, reason=f"{stretch.path}: can't read the file: {error.strerror}")
    except MemoryError:
        return _Answer(None, reason=f"{stretch.path}: too long for the memory there is; give it in stretches")
    n_bytes = _write_whole(path, [_npy_header(log_mel.shape), log_mel.data], work)
    return _Answer(_Entry(file_state, key, log_mel.shape[1]), n_bytes)


def _compute(stretch: _Stretch, config: MelConfig) -> Float32Array:
    waveform, _ = read_audio(
        stretch.path,
        sample_rate=config.sample_rate,
        start_seconds=stretch.start_seconds,
        end_seconds=stretch.end_seconds,
    )
    with warnings.catch_warnings(action="ignore"):  # the parent has warned
        return compute_log_mel(waveform, config)


def _file_state(path: str) -> str:
    """What changes when a file does: its size and times (of content, and of content or owner or name)."""
    status = os.stat(path)  # noqa: PTH116
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"


@lru_cache(maxsize=1)
def _digest(path: str, file_state: str) -> str:
    """Fingerprint of a file's bytes, taken once for all stretches of the file."""
    with open(path, "rb") as file:  # noqa: PTH123
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]  # processors have instructions for this one


def _key(digest: str, stretch: _Stretch) -> str:
    if (stretch.start_seconds, stretch.end_seconds) == (0.0, None):
        return digest
    text = f"{digest} {stretch.start_seconds} {stretch.end_seconds}"
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def content_key(clip: Clip) -> str:
    """What tells the content of a clip's sound, and is its key in every bank.

    Raises
    ------
    OSError
        If the file can't be read.
    """
    stretch = _Stretch.of(clip)
    return _key(_digest(stretch.path, _file_state(stretch.path)), stretch)


def _front_end_key(config: MelConfig) -> str:
    text = f"{FRONT_END_VERSION} {config.model_dump_json()}"
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _log_mel_path(folder: Path, key: str) -> Path:
    return folder / key[:2] / f"{key}.npy"


@lru_cache
def _npy_header(shape: tuple[int, int]) -> bytes:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return header.getvalue()


def _open_log_mel(path: Path, n_mels: int) -> Float32Array:
    """Memory-map a log_mel; ValueError if the file is not exactly one."""
    with path.open("rb") as file:
        n_bytes = os.fstat(file.fileno()).st_size
        shape = (n_mels, (n_bytes - _NPY_HEADER_BYTES) // (4 * n_mels))
        whole = n_bytes == _NPY_HEADER_BYTES + 4 * shape[0] * shape[1] and shape[1] > 0
        if not whole or file.read(_NPY_HEADER_BYTES) != _npy_header(shape):
            raise ValueError(f"its {n_bytes} bytes are not {n_mels} mel bands in float32")
        return np.memmap(file, np.float32, "r", offset=_NPY_HEADER_BYTES, shape=shape)


def _n_stored_frames(path: Path, n_mels: int) -> int:
    """Number of frames of a log_mel on disk; 0 when there is none, or a damaged one."""
    try:
        _, n_frames = _open_log_mel(path, n_mels).shape
    except (FileNotFoundError, ValueError):
        return 0
    return int(n_frames)


def _write_whole(path: Path, parts: Iterable[bytes | memoryview], work: Path) -> int:
    """Write a file into the work folder, then move it to its place; gives its number of bytes."""
    unfinished = work / f"{os.getpid()}{path.suffix}"
    with _disk_errors_named(path):
        try:
            with unfinished.open("wb") as file:
                n_bytes = sum(file.write(part) for part in parts)
            path.parent.mkdir(exist_ok=True)
            unfinished.replace(path)
        except OSError:
            unfinished.unlink(missing_ok=True)  # a full disk needs the space
            raise
    return n_bytes


def _read_index(path: Path) -> dict[_Stretch, _Entry]:
    index = {}
    with suppress(FileNotFoundError), path.open(encoding="ascii", errors="replace") as lines:
        for line in lines:
            with suppress(ValueError, TypeError):  # a line cut off by a kill
                audio_path, start, end, *entry = json.loads(line)
                index[_Stretch(audio_path, start, end)] = _Entry(*entry)
    return index


def _index_line(stretch: _Stretch, entry: _Entry) -> str:
    return json.dumps([*stretch, *entry]) + "\n"


@contextmanager
def _disk_errors_named(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SpectrogramCacheError(
            f"{path}: can't write the bank: {error.strerror or error}; what is done is kept: "
            f"prepare again when there is space and permission"
        ) from error


def readable_size(n_bytes: int) -> str:
    """A number of bytes for people, such as 1.5 GB."""
    unit, name = next(((unit, name) for unit, name in ((1e9, "GB"), (1e6, "MB")) if n_bytes >= unit), (1e3, "kB"))
    return f"{n_bytes / unit:.1f} {name}"
