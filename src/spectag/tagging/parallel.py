"""Tagging many files on all cores: results come in order, and a file that cannot be read is skipped with a reason."""

import math
import os
from array import array
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from spectag.array_types import Float32Array
from spectag.audio.files import AUDIO_SUFFIXES, audio_info
from spectag.audio.sound_faults import VERY_SHORT_SECONDS, SoundFaults
from spectag.audio.sound_statistics import SoundStatistics, of_recording
from spectag.audio.windows import Window
from spectag.config.base import WindowConfig, window_config
from spectag.data.readers.file_finder import IMAGE_SUFFIXES
from spectag.models.frames import FrameBlock, FrameCollector, FrameOutputs
from spectag.models.pretrained import open_tagger
from spectag.models.tagger import Tagger, not_finite
from spectag.models.tagger_networks import TaggerOutputs
from spectag.models.timeline import Timeline
from spectag.system.file_errors import skip_reason
from spectag.system.progress import Progress, shows_progress, silent
from spectag.system.short_texts import short_repr
from spectag.system.storage import is_url, local_copy
from spectag.system.worker_pool import WorkerDiedError, check_n_workers, map_surviving_crashes, n_usable_cores
from spectag.tagging.input_files import expand_folders

_BYTES_PER_WORKER = 50_000_000  # sound files of this size take about as long to tag as a worker process to start
_REMOTE_FILE_BYTES = 2_000_000  # assumed size of a file at a URL
_MAX_CHUNK_FILES, _MAX_CHUNK_BYTES = 32, 64_000_000
_CHUNKS_PER_WORKER = 4  # at least, if there are enough files, so that all workers finish at about the same time
_MIN_MINUTES_SHOWN = 3  # shorter recordings take seconds, also in overlapping windows: no progress in minutes
_WINDOWS_AHEAD = 3  # decoded windows that wait, per thread

Span = tuple[float, float | None]
"""Start and end of an excerpt in seconds; None: the end of the recording."""
_WHOLE: Span = (0.0, None)


@dataclass(frozen=True)
class Chunk:
    """Consecutive files of a run, or excerpts of them: the work that a worker gets at once."""

    number: int
    files: tuple[str, ...]
    spans: tuple[Span, ...] | None = None
    """The excerpt of each file; None: whole recordings."""

    @property
    def excerpts(self) -> Iterator[tuple[str, Span]]:
        """Each file with the span to tag."""
        return zip(self.files, self.spans or (_WHOLE,) * len(self.files), strict=True)


@short_repr
@dataclass(frozen=True, eq=False)
class NetworkOutputs:
    """Logits (n_windows, n_labels), not calibrated, and features (n_windows, n_features) of a file's windows."""

    logits: Float32Array
    features: Float32Array


@short_repr
@dataclass(frozen=True)
class TaggedFile:
    """The probabilities of a file, or the reason why it was skipped."""

    file: str
    """A path, or a URL such as s3://bucket/a.wav."""
    timeline: Timeline | None
    """None: the file cannot be read."""
    reason: str | None = None
    """Why there is no timeline."""
    network_outputs: NetworkOutputs | None = None
    """Only if requested with `features=True`."""
    sound: SoundStatistics | None = None
    """None for an image, a skipped file, or a tagger that does not know its training sounds."""
    faults: SoundFaults = field(default_factory=SoundFaults)
    """Silence, clipping, a missing end, a short length; of whole recordings only."""
    sound_seconds: float | None = None
    """Length of the sound, if it may be longer than the timeline, whose last window is left out if little is new."""

    @property
    def duration_seconds(self) -> float | None:
        """Length of the recording; None for an image or a skipped file."""
        if self.timeline is None or np.isnan(self.timeline.ends[-1]):
            return None
        return float(self.timeline.ends[-1]) if self.sound_seconds is None else self.sound_seconds


@dataclass(frozen=True)
class TaggedChunk:
    """The tagged files of a chunk, and the seconds that each stage of the work took."""

    files: tuple[TaggedFile, ...]
    seconds: dict[str, float] = field(default_factory=dict)


def accepted_suffixes(tagger: Tagger) -> frozenset[str]:
    """The suffixes of the files that a tagger accepts: sounds, images or both."""
    sounds = AUDIO_SUFFIXES if all(front_end.mel for front_end in tagger.front_ends) else frozenset()
    images = IMAGE_SUFFIXES if all(front_end.image for front_end in tagger.front_ends) else frozenset()
    return sounds | images


@shows_progress
def tag(
    model: str | Path | Tagger,
    files: str | Path | Sequence[str | Path],
    *,
    window: WindowConfig | float | None = None,
    spans: Sequence[Span] | None = None,
    features: bool = False,
    workers: int | None = None,
    progress: Progress = silent,
    on_chunk: Callable[[TaggedChunk], None] | None = None,
) -> Iterator[TaggedFile]:
    """Tag files on all cores and yield the results in the order of the files.

    Parameters
    ----------
    model : str, Path or Tagger
        Folder of a model, the name of a published one, or an open one.
    files : str, Path, or a sequence of them
        Sound files (or images, for a tagger trained on images), or URLs that fsspec can read. Folders and patterns such
        as rec/**/*.wav stand for the files in them, unless there are `spans`.
    window : WindowConfig or float, optional
        Tag each window of a recording: the length of windows in seconds, or length and overlap. By default each
        recording gets one set of tags. With `LongRecordingWindows`, only recordings longer than a clip have windows.
        With `SegmentFrames`, recordings have the frames of the model instead.
    spans : sequence of (float, float or None), optional
        Start and end in seconds of the excerpt to tag, one for each file. By default whole recordings.
    features : bool
        Also return the logits and features of each window, as `network_outputs`.
    workers : int, optional
        Number of cores to use. By default all of them, or one for a few files.
    progress : bool or Progress
        True shows a progress bar. A function is called with the number of tagged files; for a single long recording,
        also with minutes.
    on_chunk : callable, optional
        Called with each `TaggedChunk` before its files are yielded: it contains the seconds that each stage took.

    Raises
    ------
    BundleError
        If the model is damaged.
    ConfigError
        If `window` or `workers` is not above 0.
    AudioError
        If a folder or a pattern has no matching file. A file that cannot be read is skipped: it has a reason instead.
    """
    windows = None if window is None else window_config(window)
    check_n_workers(workers)
    tagger = open_tagger(model, progress=progress)
    names = [str(files)] if isinstance(files, str | Path) else list(map(str, files))
    if spans is None:
        names = expand_folders(names, accepted_suffixes(tagger))
    chunks = chunked(names, workers, spans)
    progress("tagging", 0, len(names))
    n_done = 0
    tagged_chunks = tag_chunks(tagger, chunks, windows, features=features, workers=workers, progress=progress)
    with closing(tagged_chunks):
        for tagged_chunk in in_order(tagged_chunks):
            if on_chunk is not None:
                on_chunk(tagged_chunk)
            for tagged in tagged_chunk.files:
                n_done += 1
                progress("tagging", n_done, len(names))
                yield tagged


def chunked(files: Sequence[str], workers: int | None = None, spans: Sequence[Span] | None = None) -> list[Chunk]:
    """Split files, or excerpts of them, into chunks small enough that all workers finish at about the same time."""
    n_chunks = _CHUNKS_PER_WORKER * (workers or n_usable_cores())
    max_files = max(1, min(_MAX_CHUNK_FILES, len(files) // n_chunks))
    starts: list[int] = []
    n_bytes = 0
    for index, file in enumerate(files):
        size = file_size(file)
        n_bytes += size
        if not starts or index - starts[-1] == max_files or n_bytes > _MAX_CHUNK_BYTES:
            starts.append(index)
            n_bytes = size
    return [
        Chunk(number, tuple(files[start:end]), None if spans is None else tuple(spans[start:end]))
        for number, (start, end) in enumerate(zip(starts, [*starts[1:], len(files)], strict=False))
    ]


def tag_chunks(
    tagger: Tagger,
    chunks: Sequence[Chunk],
    window: WindowConfig | None,
    *,
    features: bool = False,
    workers: int | None = None,
    isolate_crashes: bool = False,
    progress: Progress = silent,
) -> Generator[tuple[Chunk, TaggedChunk], None, None]:
    """Tag chunks on the cores of this machine; yield each with its result, in the order in which they finish.

    A few files are tagged in this process, unless `isolate_crashes` requests worker processes, which protect this one
    from a file that crashes its reader. So are all files if the networks run on an accelerator: its memory holds few
    copies of them. Threads then compute the features.
    """
    n_cores = workers or n_usable_cores()
    n_processes = min(n_cores, len(chunks))
    if workers is None:
        n_bytes = sum(file_size(file) for chunk in chunks for file in chunk.files)
        n_processes = max(1, min(n_processes, n_bytes // _BYTES_PER_WORKER))
    if n_processes > 1 and tagger.runs_on != "cpu":
        n_processes = 1
    if isolate_crashes:
        n_processes = max(2, n_processes)
    n_threads = max(1, n_cores // max(n_processes, 1))
    if n_processes > 1:
        # an open session cannot be sent to another process; with auto, only this one tries accelerators
        device = "cpu" if tagger.runs_on == "cpu" else tagger.device
        unopened = Tagger(tagger.folder, channel=tagger.channel, device=device)
        function = partial(tag_chunk, unopened, window, n_threads, features=features)
        with closing(map_surviving_crashes(function, chunks, n_workers=n_processes)) as results:
            for chunk, result in results:
                yield chunk, _tag_one_by_one(function, chunk) if isinstance(result, WorkerDiedError) else result
        return
    on_window = _minute_progress(chunks, progress)
    for chunk in chunks:
        yield chunk, tag_chunk(tagger, window, n_threads, chunk, on_window, features=features)


def _tag_one_by_one(function: Callable[[Chunk], TaggedChunk], chunk: Chunk) -> TaggedChunk:
    """The result for a chunk that crashed its worker: only a file that crashes its worker alone is skipped."""
    singles = [Chunk(number, (file,), (span,)) for number, (file, span) in enumerate(chunk.excerpts)]
    files: list[TaggedFile] = []
    results = map_surviving_crashes(function, singles, n_workers=2)
    for single, result in sorted(results, key=lambda finished: finished[0].number):
        if isinstance(result, WorkerDiedError):
            reason = f"{single.files[0]}: the process that read it died ({result.cause})"
            files.append(TaggedFile(single.files[0], None, reason))
        else:
            files += result.files
    return TaggedChunk(tuple(files))


def tag_chunk(
    tagger: Tagger,
    window: WindowConfig | None,
    n_threads: int,
    chunk: Chunk,
    on_window: Callable[[Window], None] | None = None,
    *,
    features: bool = False,
) -> TaggedChunk:
    """Tag the files of a chunk one after another: this thread reads ahead while `n_threads` others compute."""
    jobs = [_FileJob(tagger, file, span, features) for file, span in chunk.excerpts]
    with ThreadPoolExecutor(n_threads) as pool:
        waiting: deque[tuple[_FileJob, Future[_Row | _FrameRows]]] = deque()
        for job in jobs:
            for audio_window in job.windows(window):
                row = pool.submit(job.compute, audio_window)
                waiting.append((job, row))
                if len(waiting) > _WINDOWS_AHEAD * n_threads:
                    earliest, earliest_row = waiting.popleft()
                    earliest.add_result(earliest_row)
                if on_window is not None:
                    on_window(audio_window)
        for job, row in waiting:
            job.add_result(row)
    files = tuple(job.result() for job in jobs)
    return TaggedChunk(files, tagger.clock.read_and_reset())


class _Row(NamedTuple):
    """The outputs for a window or an image, in one array, and the statistics of the sound."""

    values: Float32Array
    sound: SoundStatistics | None


class _FrameRows(NamedTuple):
    """The outputs for the frames of a block, and the statistics of the sound."""

    outputs: FrameOutputs
    sound: SoundStatistics | None


def _row(tagger: Tagger, source: Window | Path, *, all_outputs: bool, features: bool) -> _Row:
    """Probabilities and novelty of a window or an image; with `all_outputs` also logits and maybe features."""
    if isinstance(source, Path):
        outputs, sound = tagger.outputs_of_image(source, features=features), None
    else:
        outputs, sound = tagger.outputs_of_window(source, features=features), tagger.measure_window(source)
    values = [outputs.probabilities]
    if outputs.novelty is not None:
        values.append(np.array([outputs.novelty], np.float32))
    if all_outputs:
        values += [outputs.logits, outputs.network_logits.ravel(), outputs.features]
    return _Row(np.concatenate(values), sound)


class _FileJob:
    """A file that is being tagged. Each window adds a row: its probabilities, or several outputs of the network."""

    def __init__(self, tagger: Tagger, file: str, span: Span, features: bool) -> None:
        self.is_whole = True
        """Whether the windows are the parts of a clip, which gets one set of tags; known at the first window."""
        self._tagger = tagger
        self._file = file
        self._span = span
        self._features = features
        self._reason: str | None = None
        self._times = array("d")  # start, end, start, end, ... in seconds
        self._rows = bytearray()  # grows in place: half a gigabyte for a recording of a day
        self._frames: FrameCollector | None = None
        """Instead of rows, if the model finds segments from frames."""
        self._sound: SoundStatistics | None = None
        self._faults = SoundFaults()
        self._seconds: float | None = None

    def windows(self, window: WindowConfig | None) -> Iterator[Window]:
        """The windows of a sound; an image is tagged at once and has none."""
        start, end = self._span
        try:
            with local_copy(self._file) as path:
                if path.suffix.lower() in IMAGE_SUFFIXES:
                    self._times.extend((0.0, np.nan))
                    self.add(_row(self._tagger, path, all_outputs=True, features=self._features))
                    return
                with self._tagger.open_windows(path, window, start_seconds=start, end_seconds=end) as windows:
                    self.is_whole = windows.is_whole
                    for audio_window in windows:
                        self._times.extend((audio_window.start_seconds, audio_window.end_seconds))
                        yield audio_window
                    self._faults, self._seconds = windows.faults, windows.duration_seconds
                is_whole = start == 0 and end is None
                if is_whole and self._times and self._times[-1] < VERY_SHORT_SECONDS:
                    self._faults.short_seconds = self._times[-1]
        except Exception as error:
            self._reason = skip_reason(self._file, error)

    def compute(self, window: Window) -> _Row | _FrameRows:
        """The outputs for a window, or for the frames of a block."""
        if isinstance(window, FrameBlock):
            return _FrameRows(self._tagger.outputs_of_block(window), self._tagger.measure_window(window))
        all_outputs = self.is_whole or self._features
        return _row(self._tagger, window, all_outputs=all_outputs, features=self._features)

    def add_result(self, row: Future[_Row | _FrameRows]) -> None:
        """Add the row of the next window, or the frames of the next block, when they are computed."""
        try:
            self.add(row.result())
        except Exception as error:
            reason = skip_reason(self._file, error)
            self._reason = self._reason or reason

    def add(self, row: _Row | _FrameRows) -> None:
        """Add the row of the next window, or the frames of the next block."""
        if isinstance(row, _FrameRows):
            self._add_frames(row.outputs)
        else:
            self._add_values(row.values)
        if row.sound is not None:
            self._sound = row.sound if self._sound is None else of_recording([self._sound, row.sound])

    def _add_values(self, values: Float32Array) -> None:
        if self._reason is None and not np.isfinite(values).all():
            n_added = len(self._rows) // values.nbytes
            self._reason = not_finite(self._file, self._times[2 * n_added])
        self._rows += values.tobytes()

    def _add_frames(self, outputs: FrameOutputs) -> None:
        if self._frames is None:
            assert self._tagger.info.frames is not None
            self._frames = FrameCollector(self._tagger.info.frames)
        start = self._frames.add(outputs)
        if start is not None and self._reason is None:
            self._reason = not_finite(self._file, start)

    def result(self) -> TaggedFile:
        """The tagged file; if it is tagged as a whole, with one window for all its parts."""
        if self._reason is not None:
            return TaggedFile(self._file, None, self._reason)
        if self._frames is not None:
            timeline = self._frames.timeline()
            return TaggedFile(self._file, timeline, sound=self._sound, faults=self._faults, sound_seconds=self._seconds)
        starts, ends = np.array(self._times).reshape(-1, 2).T
        rows = np.frombuffer(self._rows, np.float32).reshape(len(starts), -1)
        n_labels = len(self._tagger.labels)
        has_novelty = self._tagger.has_novelty
        ends_of_columns = np.cumsum([n_labels, has_novelty, n_labels, n_labels * self._tagger.n_networks])
        probabilities, novelties, logits, network_logits, features = np.split(rows, ends_of_columns, axis=1)
        novelty = novelties[:, 0] if has_novelty else None
        if self.is_whole and len(starts) > 1:
            network_logits = network_logits.reshape(len(rows), -1, n_labels)
            parts = list(map(TaggerOutputs, probabilities, logits, features, network_logits))
            clip = self._tagger.outputs_of_clip(parts, starts, ends)
            probabilities, logits, features = clip.probabilities[None], clip.logits[None], clip.features[None]
            novelty = None if novelty is None else novelty.min(keepdims=True)
            starts, ends = starts[:1], ends[-1:]
        return TaggedFile(
            self._file,
            Timeline(starts, ends, probabilities, novelty),
            network_outputs=NetworkOutputs(logits, features) if self._features else None,
            sound=self._sound,
            faults=self._faults,
            sound_seconds=self._seconds,
        )


def file_size(file: str) -> int:
    """Size of a file in bytes; 0 if it is missing, and an estimate for a URL, where asking takes too long."""
    if is_url(file):
        return _REMOTE_FILE_BYTES
    try:
        return os.stat(file).st_size  # noqa: PTH116 - a million files would need a million Path objects
    except (OSError, ValueError):
        return 0


def _minute_progress(chunks: Sequence[Chunk], progress: Progress) -> Callable[[Window], None] | None:
    """A function that reports the progress within a single long recording in minutes, window by window."""
    if len(chunks) != 1 or len(chunks[0].files) != 1:
        return None
    try:
        n_minutes = math.ceil(audio_info(chunks[0].files[0]).duration_seconds / 60)
    except Exception as error:
        skip_reason(chunks[0].files[0], error)  # raises it again if it concerns the whole run
        return None
    if n_minutes < _MIN_MINUTES_SHOWN:
        return None
    last_minute = -1

    def on_window(window: Window) -> None:
        nonlocal last_minute
        minute = min(int(window.end_seconds / 60), n_minutes)
        if minute > last_minute:
            last_minute = minute
            progress("minutes", minute, n_minutes)

    return on_window


def in_order(tagged_chunks: Iterable[tuple[Chunk, TaggedChunk]]) -> Iterator[TaggedChunk]:
    """The results of chunks numbered from 0, each as soon as those before it are there."""
    waiting: dict[int, TaggedChunk] = {}
    number = 0
    for chunk, tagged in tagged_chunks:
        waiting[chunk.number] = tagged
        while number in waiting:
            yield waiting.pop(number)
            number += 1
