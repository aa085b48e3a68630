"""The public functions of the sound index: `index` builds one, `search` finds similar sounds in it."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from spectag.config.base import Channel, WindowConfig
from spectag.config.devices import Device
from spectag.curation.sound_index.building import build_index
from spectag.curation.sound_index.metadata import SearchEngine
from spectag.curation.sound_index.searching import SearchResult, SoundIndex
from spectag.system.progress import Log, Progress, no_log, shows_progress, silent


@shows_progress
def index(
    recordings: str | Path | Sequence[str | Path],
    output: str | Path,
    *,
    model: str | Path | None = None,
    window: WindowConfig | None = None,
    channel: Channel | None = None,
    engine: SearchEngine | None = None,
    workers: int | None = None,
    device: Device = "auto",
    progress: Progress = silent,
    log: Log = no_log,
) -> SoundIndex:
    """Index recordings for similarity search, or update their index, and open it.

    `recordings` is a folder, a file, a pattern or a URL, or several of them. The attribute `skipped` of the result
    lists the files that can't be read. The other parameters are those of `build_index`.

    Examples
    --------
    >>> index = spectag.index("recordings", "my-index")  # doctest: +SKIP
    >>> index.search("owl.wav", n=5)  # doctest: +SKIP
    """
    paths = [recordings] if isinstance(recordings, str | Path) else recordings
    report = build_index(
        paths,
        output,
        model=model,
        window=window,
        channel=channel,
        engine=engine,
        workers=workers,
        device=device,
        progress=progress,
        log=log,
    )
    sound_index = SoundIndex(output)
    sound_index.skipped = tuple(report.reasons)
    return sound_index


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
    one_per_file: bool = False,
    model: str | Path | None = None,
) -> list[SearchResult]:
    """Find sounds in an index that are similar to an example: `SoundIndex.search` for a single query.

    Examples
    --------
    >>> spectag.search("my-index", "owl.wav", label="Owl", one_per_file=True)  # doctest: +SKIP
    """
    with SoundIndex(index, model=model) as sound_index:
        return sound_index.search(
            query,
            n=n,
            start=start,
            after=after,
            before=before,
            label=label,
            not_label=not_label,
            within=within,
            same_file=same_file,
            one_per_file=one_per_file,
        )
