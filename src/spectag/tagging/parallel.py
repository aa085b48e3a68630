"""Tagging files: in order, on all cores, with every file that can't be read named."""

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

import numpy as np

from spectag.array_types import Float32Array
from spectag.audio.files import AUDIO_SUFFIXES, audio_info
from spectag.audio.windows import Window
from spectag.config.base import WindowConfig
from spectag.data.readers.file_finder import IMAGE_SUFFIXES
from spectag.errors import AudioError, DataError, MissingExtraError, SpectagError
from spectag.models.tagger import Tagger
from spectag.models.timeline import Timeline, pool_windows
from spectag.system.progress import Progress, silent
from spectag.system.storage import is_address, local_copy
from spectag.system.worker_pool import WorkerDiedError, map_surviving_crashes, n_usable_cores

_BYTES_WORTH_A_WORKER = 50_000_000  # of sound files: tagged in about the time that a worker process takes to start
_BYTES_ELSEWHERE = 2_000_000  # of a file at an address
_LARGEST_CHUNK = 32, 64_000_000  # files and bytes
_CHUNKS_PER_WORKER = 4  # for each worker at least, where there are files enough, so that all end at about the same time
_MINUTES_WORTH_TELLING = 10  # of a recording: less is done in a second
_WINDOWS_AHEAD = 3  # for each thread, decoded and waiting


Span = tuple[float, float | None]
"""Of a recording, from a second to another, or to its end."""
_WHOLE: Span = (0.0, None)


@dataclass(frozen=True)
class Chunk:
    """Some files of a run, in their order, or stretches of them: what a worker gets at once."""

    number: int
    files: tuple[str, ...]
    spans: tuple[Span, ...] | None = None  # one for each file; None: all of them whole


@dataclass(frozen=True, eq=False)
class NetworkOutputs:
    """What a tagger has in mind of each window: logits (n_windows, n_labels), not calibrated, and features
    (n_windows, n_features)."""

    logits: Float32Array
    features: Float32Array


@dataclass(frozen=True)
class TaggedFile:
    """What a tagger makes of a file; one that can't be read has a reason and no timeline."""

    file: str
    """A path, or an address such as s3://bucket/a.wav."""
    timeline: Timeline | None
    reason: str | None = None
    network_outputs: NetworkOutputs | None = None
    """Where it was asked for."""

    @property
    def duration_seconds(self) -> float | None:
        """Length of the recording; None of an image, or where there is no timeline."""
        if self.timeline is None or np.isnan(self.timeline.ends[-1]):
            return None
        return float(self.timeline.ends[-1])


@dataclass(frozen=True)
class TaggedChunk:
    """Some files, tagged, and the seconds that each stage of the work took."""

    files: tuple[TaggedFile, ...]
    seconds: dict[str, float] = field(default_factory=dict)


def accepted_suffixes(tagger: Tagger) -> frozenset[str]:
    """The suffixes of the files that a tagger takes: of sounds, of images, or of both."""
    sounds = AUDIO_SUFFIXES if all(front_end.mel for front_end in tagger.front_ends) else frozenset()
    images = IMAGE_SUFFIXES if all(front_end.image for front_end in tagger.front_ends) else frozenset()
    return sounds | images


def tag(
    tagger: Tagger,
    files: str | Path | Sequence[str | Path],
    *,
    window: WindowConfig | None = None,
    features: bool = False,
    workers: int | None = None,
    progress: Progress = silent,
) -> Iterator[TaggedFile]:
    """Tag files, and give them back in their order.

    Parameters
    ----------
    tagger : Tagger
    files : sequence of str or Path, or one
        Sound files (or images, for a tagger of images), or addresses of such, as fsspec reads them.
    window : WindowConfig, optional
        Tag each window of a recording; by default each recording as a whole.
    features : bool
        Give each file's `network_outputs`, the logits and features behind the probabilities, too.
    workers : int, optional
        Number of cores to use; by default all, or one for a few files.
    progress : Progress
        Told how many of the files are done; of one long recording, how many minutes.

    Raises
    ------
    BundleError
        If the tagger is damaged.
    """
    if isinstance(files, str | Path):
        files = [files]
    names = [str(file) for file in files]
    progress("tagging", 0, len(names))
    n_done = 0
    with closing(
        tag_chunks(tagger, chunked(names, workers), window, features=features, workers=workers, progress=progress)
    ) as answers:
        for answer in in_order(answers):
            for file in answer.files:
                n_done += 1
                progress("tagging", n_done, len(names))
                yield file


def chunked(files: Sequence[str], workers: int | None = None, spans: Sequence[Span] | None = None) -> list[Chunk]:
    """Deal files, or stretches of them, into portions: small enough that the workers end at about the same time."""
    n_files, n_bytes = _LARGEST_CHUNK
    n_files = max(1, min(n_files, len(files) // (_CHUNKS_PER_WORKER * (workers or n_usable_cores()))))
    chunks: list[list[str]] = []
    room = 0
    for file in files:
        size = file_size(file)
        if not chunks or len(chunks[-1]) == n_files or size > room:
            chunks.append([])
            room = n_bytes
        chunks[-1].append(file)
        room -= size
    places = np.cumsum([0, *map(len, chunks)])
    return [
        Chunk(number, tuple(chunk), None if spans is None else tuple(spans[place : place + len(chunk)]))
        for number, (place, chunk) in enumerate(zip(places, chunks, strict=False))
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
    """Tag portions on the cores of this machine, and give each with its answer, in the order in which they are done.

    A few files are tagged by this process itself, unless `isolate_crashes` wants others for it, which may die of a file.
    """
    n_cores = workers or n_usable_cores()
    n_processes = min(n_cores, len(chunks))
    if workers is None:
        n_bytes = sum(file_size(file) for chunk in chunks for file in chunk.files)
        n_processes = max(1, min(n_processes, n_bytes // _BYTES_WORTH_A_WORKER))
    if isolate_crashes:
        n_processes = max(2, n_processes)
    n_threads = max(1, n_cores // max(n_processes, 1))
    if n_processes > 1:
        tagger = Tagger(tagger.folder)  # one that is at work already can't go to another process
        function = partial(tag_chunk, tagger, window, n_threads, features=features)
        yield from _tag_by_processes(function, chunks, n_processes)
        return
    on_window = _minutes_told(chunks, progress)
    for chunk in chunks:
        yield chunk, tag_chunk(tagger, window, n_threads, chunk, on_window, features=features)


def _tag_by_processes(
    function: Callable[[Chunk], TaggedChunk], chunks: Iterable[Chunk], n_processes: int
) -> Generator[tuple[Chunk, TaggedChunk], None, None]:
    """The answers of worker processes. A file that kills the process that reads it is skipped, and no other."""
    with closing(map_surviving_crashes(function, chunks, n_workers=n_processes)) as answers:
        for chunk, answer in answers:
            yield chunk, _one_by_one(function, chunk) if isinstance(answer, WorkerDiedError) else answer


def _one_by_one(function: Callable[[Chunk], TaggedChunk], chunk: Chunk) -> TaggedChunk:
    """The answer for a portion that killed its worker, file by file."""
    spans = chunk.spans or (_WHOLE,) * len(chunk.files)
    singles = [
        Chunk(number, (file,), (span,)) for number, (file, span) in enumerate(zip(chunk.files, spans, strict=True))
    ]
    files: dict[int, TaggedFile] = {}
    for single, answer in map_surviving_crashes(function, singles, n_workers=2):
        if isinstance(answer, WorkerDiedError):
            file = single.files[0]
            files[single.number] = TaggedFile(file, None, f"{file}: the process that read it died ({answer.how})")
        else:
            (files[single.number],) = answer.files
    return TaggedChunk(tuple(files[number] for number in range(len(singles))))


def tag_chunk(
    tagger: Tagger,
    window: WindowConfig | None,
    n_threads: int,
    chunk: Chunk,
    on_window: Callable[[Window], None] | None = None,
    *,
    features: bool = False,
) -> TaggedChunk:
    """Tag some files, one after another: this thread reads ahead while others compute."""
    hear = partial(_answer_in_a_row, tagger) if features else tagger.probabilities_of_window
    spans = chunk.spans or (_WHOLE,) * len(chunk.files)
    works = [_Work(tagger, file, span, features) for file, span in zip(chunk.files, spans, strict=True)]
    with ThreadPoolExecutor(n_threads) as pool:
        waiting: deque[tuple[_Work, Future[Float32Array]]] = deque()
        for work in works:
            for found in work.windows(window):
                waiting.append((work, pool.submit(hear, found)))
                if len(waiting) > _WINDOWS_AHEAD * n_threads:
                    earliest, answer = waiting.popleft()
                    earliest.add(answer.result())
                if on_window is not None:
                    on_window(found)
        for work, answer in waiting:
            work.add(answer.result())
    files = tuple(work.answer(whole=window is None or window.window_seconds is None) for work in works)
    return TaggedChunk(files, tagger.clock.taken())


def _answer_in_a_row(tagger: Tagger, found: Window | Path) -> Float32Array:
    """Probabilities, logits and features of a window or an image, one after another in one row."""
    answer = tagger.outputs_of_image(found) if isinstance(found, Path) else tagger.outputs_of_window(found)
    return np.concatenate([answer.probabilities, answer.logits, answer.features])


class _Work:
    """A file that is being tagged. Each window gives a row: its probabilities, or all of its answer."""

    def __init__(self, tagger: Tagger, file: str, span: Span, features: bool) -> None:
        self._tagger = tagger
        self._file = file
        self._stretch = span
        self._features = features
        self._reason: str | None = None
        self._times = array("d")  # start, end, start, end, ... in seconds
        self._rows = bytearray()  # grows in place: of a day they are half a gigabyte

    def windows(self, window: WindowConfig | None) -> Iterator[Window]:
        """The windows of a sound; an image is done at once and has none."""
        start, end = self._stretch
        try:
            with local_copy(self._file) as path:
                if path.suffix.lower() in IMAGE_SUFFIXES:
                    self._times.extend((0.0, np.nan))
                    self.add(self._row_of_image(path))
                    return
                with self._tagger.open_windows(path, window, start_seconds=start, end_seconds=end) as windows:
                    for found in windows:
                        self._times.extend((found.start_seconds, found.end_seconds))
                        yield found
        except (AudioError, DataError, MissingExtraError) as error:
            self._reason = str(error)

    def _row_of_image(self, path: Path) -> Float32Array:
        return _answer_in_a_row(self._tagger, path) if self._features else self._tagger.probabilities_of_image(path)

    def add(self, row: Float32Array) -> None:
        """Take the row of the next window."""
        self._rows += row.tobytes()

    def answer(self, *, whole: bool) -> TaggedFile:
        """All windows together; with `whole`, their mean."""
        if self._reason is not None:
            return TaggedFile(self._file, None, self._reason)
        starts, ends = np.array(self._times).reshape(-1, 2).T
        rows = Timeline(starts, ends, np.frombuffer(self._rows, np.float32).reshape(len(starts), -1))
        rows = pool_windows(rows, "mean") if whole else rows
        if not self._features:
            return TaggedFile(self._file, rows)
        n_labels = len(self._tagger.labels)
        probabilities, logits, features = np.split(rows.probabilities, [n_labels, 2 * n_labels], axis=1)
        timeline = Timeline(rows.starts, rows.ends, probabilities)
        return TaggedFile(self._file, timeline, network_outputs=NetworkOutputs(logits, features))


def file_size(file: str) -> int:
    """Size of a file in bytes; 0 of one that is not there, and a guess of one elsewhere: asking takes longer."""
    if is_address(file):
        return _BYTES_ELSEWHERE
    try:
        return os.stat(file).st_size  # noqa: PTH116 - of a million files, without a million paths
    except (OSError, ValueError):
        return 0


def _minutes_told(chunks: Sequence[Chunk], progress: Progress) -> Callable[[Window], None] | None:
    """What tells the progress within a single recording, window by window, in minutes."""
    if len(chunks) != 1 or len(chunks[0].files) != 1:
        return None
    file = chunks[0].files[0]
    try:
        n_minutes = math.ceil(audio_info(file).duration_seconds / 60)
    except SpectagError:
        return None
    if n_minutes < _MINUTES_WORTH_TELLING:
        return None
    told = -1

    def tell(window: Window) -> None:
        nonlocal told
        minute = min(int(window.end_seconds / 60), n_minutes)
        if minute > told:
            told = minute
            progress("minutes", minute, n_minutes)

    return tell


def in_order(answers: Iterable[tuple[Chunk, TaggedChunk]]) -> Iterator[TaggedChunk]:
    """The answers of portions numbered from 0, each when all those before it have come."""
    waiting: dict[int, TaggedChunk] = {}
    number = 0
    for chunk, answer in answers:
        waiting[chunk.number] = answer
        while number in waiting:
            yield waiting.pop(number)
            number += 1
