"""Tagging files: in order, on all cores, with every file that can't be read named."""

import heapq
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

from spectag.config import WindowConfig
from spectag.errors import SpectagError
from spectag.progress import Progress, silent
from spectag.runtime import Tagger, Tags
from spectag.workers import spread, usable_cores

_FILES_WORTH_A_WORKER = 100  # tagged in about the time that a worker process takes to start


@dataclass(frozen=True)
class TaggedFile:
    """The tags of a file's stretches, in order of time; a file that can't be read has a reason and no tags."""

    path: Path
    tags: tuple[Tags, ...]
    reason: str | None = None


def tag(
    tagger: Tagger,
    paths: Sequence[Path],
    *,
    window: WindowConfig | None = None,
    workers: int | None = None,
    progress: Progress = silent,
) -> Iterator[TaggedFile]:
    """Tag files, and give them back in their order.

    Parameters
    ----------
    tagger : Tagger
    paths : sequence of Path
        Sound files (or images, for a tagger of images).
    window : WindowConfig, optional
        Tag each window of a recording; by default each recording as a whole.
    workers : int, optional
        Number of processes; by default one for each core, or none but this for a few files.
    progress : Progress
        Told how many of the files are done.
    """
    if workers is None:
        workers = max(1, min(usable_cores(), len(paths) // _FILES_WORTH_A_WORKER))
    function = partial(_tag_numbered, tagger.folder, window)
    progress("tagging", 0, len(paths))
    with closing(spread(function, enumerate(paths), n_workers=workers)) as answers:
        waiting: list[tuple[int, TaggedFile]] = []
        n_given = 0
        for n_done, ((position, _), tagged) in enumerate(answers, start=1):
            progress("tagging", n_done, len(paths))
            heapq.heappush(waiting, (position, tagged))
            while waiting and waiting[0][0] == n_given:
                yield heapq.heappop(waiting)[1]
                n_given += 1


def _tag_numbered(bundle: Path, window: WindowConfig | None, numbered: tuple[int, Path]) -> TaggedFile:
    tagger, path = _tagger_of_process(bundle), numbered[1]
    try:
        whole = window is None or window.window_seconds is None
        tags = (tagger.tag(path),) if whole or window is None else tuple(tagger.tag_windows(path, window))
    except SpectagError as error:
        return TaggedFile(path, (), str(error))
    return TaggedFile(path, tags)


@lru_cache(maxsize=1)
def _tagger_of_process(bundle: Path) -> Tagger:
    return Tagger(bundle)
