"""Sounds like this one: an index of recordings by how they sound, and questions to it."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from spectag.config.base import WindowConfig
from spectag.curation.sound_index.building import build_index
from spectag.curation.sound_index.metadata import Engine
from spectag.curation.sound_index.searching import Found, SoundIndex
from spectag.system.progress import Log, Progress, no_log, silent


def index(
    recordings: str | Path | Sequence[str | Path],
    output: str | Path,
    *,
    model: str | Path | None = None,
    window: WindowConfig | None = None,
    engine: Engine | None = None,
    workers: int | None = None,
    progress: Progress = silent,
    log: Log = no_log,
) -> SoundIndex:
    """Index a folder of recordings by how they sound, or bring its index up to date, and open it.

    `recordings` is a folder, a file, a pattern or an address, or several of these; its `skipped` tells of the files
    that could not be read. For the rest see `build_index`.

    Examples
    --------
    >>> index = spectag.index("recordings", "my-index")  # doctest: +SKIP
    >>> index.search("owl.wav", n=5)  # doctest: +SKIP
    """
    paths = [recordings] if isinstance(recordings, str | Path) else recordings
    report = build_index(
        paths, output, model=model, window=window, engine=engine, workers=workers, progress=progress, log=log
    )
    made = SoundIndex(output)
    made.skipped = tuple(report.reasons)
    return made


def search(
    index: str | Path,
    query: str | Path | Sequence[str | Path],
    *,
    n: int = 10,
    start: float | None = None,
    after: datetime | None = None,
    before: datetime | None = None,
    label: str | Sequence[str] = (),
    not_label: str | Sequence[str] = (),
    within: str | Sequence[str] = (),
    same_file: bool = False,
    once: bool = False,
    model: str | Path | None = None,
) -> list[Found]:
    """What in an index sounds like an example: `SoundIndex.search` for a single question.

    Examples
    --------
    >>> spectag.search("my-index", "owl.wav", label="Owl", once=True)  # doctest: +SKIP
    """
    with SoundIndex(index, model=model) as opened:
        return opened.search(
            query,
            n=n,
            start=start,
            after=after,
            before=before,
            label=label,
            not_label=not_label,
            within=within,
            same_file=same_file,
            once=once,
        )
