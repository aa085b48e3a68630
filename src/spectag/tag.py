"""Tagging files: in order, on all cores, with every file that can't be read named."""

import heapq
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from spectag.audio import AUDIO_SUFFIXES, find_audio
from spectag.config import WindowConfig
from spectag.errors import AudioError, DataError, MissingExtraError
from spectag.manifest.finding import IMAGE_SUFFIXES
from spectag.progress import Progress, silent
from spectag.runtime import Tagger, Tags
from spectag.workers import spread, usable_cores

_BYTES_WORTH_A_WORKER = 50_000_000  # of sound files: tagged in about the time that a worker process takes to start


@dataclass(frozen=True)
class TaggedFile:
    """The tags of a file's stretches, in order of time; a file that can't be read has a reason and no tags."""

    path: Path
    tags: tuple[Tags, ...]
    reason: str | None = None


def find_files(tagger: Tagger, paths: Iterable[str | Path]) -> list[Path]:
    """The sounds among files and folders, as `find_audio` finds them, or what else the tagger takes: images.

    Raises
    ------
    AudioError
        If a path does not exist, or nothing is in the folders.
    """
    sounds = AUDIO_SUFFIXES if all(front_end.mel for front_end in tagger.front_ends) else frozenset()
    images = IMAGE_SUFFIXES if all(front_end.image for front_end in tagger.front_ends) else frozenset()
    return find_audio(paths, suffixes=sounds | images)


def tag(
    tagger: Tagger,
    paths: Sequence[str | Path],
    *,
    window: WindowConfig | None = None,
    workers: int | None = None,
    progress: Progress = silent,
) -> Iterator[TaggedFile]:
    """Tag files, and give them back in their order.

    Parameters
    ----------
    tagger : Tagger
    paths : sequence of str or Path
        Sound files (or images, for a tagger of images).
    window : WindowConfig, optional
        Tag each window of a recording; by default each recording as a whole.
    workers : int, optional
        Number of processes; by default one for each core, or none but this for a few files.
    progress : Progress
        Told how many of the files are done.

    Raises
    ------
    BundleError
        If the tagger is damaged.
    """
    if workers is None:
        n_bytes = sum(path.stat().st_size for path in map(Path, paths) if path.is_file())
        workers = max(1, min(usable_cores(), len(paths), n_bytes // _BYTES_WORTH_A_WORKER))
    if workers > 1:
        tagger = Tagger(tagger.folder)  # one that is at work already can't go to another process
    function = partial(_tag_numbered, tagger, window)
    progress("tagging", 0, len(paths))
    with closing(spread(function, enumerate(map(Path, paths)), n_workers=workers)) as answers:
        waiting: list[tuple[int, TaggedFile]] = []
        n_given = 0
        for n_done, ((position, _), tagged) in enumerate(answers, start=1):
            progress("tagging", n_done, len(paths))
            heapq.heappush(waiting, (position, tagged))
            while waiting and waiting[0][0] == n_given:
                yield heapq.heappop(waiting)[1]
                n_given += 1


def _tag_numbered(tagger: Tagger, window: WindowConfig | None, numbered: tuple[int, Path]) -> TaggedFile:
    path = numbered[1]
    try:
        whole = window is None or window.window_seconds is None
        tags = (tagger.tag(path),) if whole or window is None else tuple(tagger.tag_windows(path, window))
    except (AudioError, DataError, MissingExtraError) as error:
        return TaggedFile(path, (), str(error))
    return TaggedFile(path, tags)
