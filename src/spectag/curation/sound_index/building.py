"""Indexing recordings: what is new or has changed is heard, and nothing else; a run that was killed goes on."""

import glob
import os
import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path

from filelock import FileLock, Timeout

from spectag.config.backbones import PUBLISHED
from spectag.config.base import WindowConfig
from spectag.curation.sound_index.ann_graph import is_installed, load_usearch, write_graph
from spectag.curation.sound_index.database import IndexDatabase, database_errors
from spectag.curation.sound_index.metadata import (
    SearchEngine,
    IndexInfo,
    check_tagger,
    is_index,
    probe,
    read_info,
    write_info,
)
from spectag.curation.sound_index.recording_dates import recording_date
from spectag.curation.sound_index.vectors import VectorWriter, read_vectors, remove_old
from spectag.errors import AudioError, ConfigError, DataError
from spectag.models.pretrained import tagger_folder
from spectag.models.tagger import Tagger
from spectag.system.atomic_files import remove_unfinished
from spectag.system.progress import Log, Progress, no_log, silent
from spectag.system.storage import is_address, size_and_time
from spectag.system.worker_pool import n_usable_cores
from spectag.tagging.input_files import find_files
from spectag.tagging.parallel import Chunk, TaggedChunk, TaggedFile, accepted_suffixes, chunked, in_order, tag_chunks

DEFAULT_MODEL = "audioset-mn04"
DEFAULT_WINDOW = WindowConfig(window_seconds=10.0)
ROWS_FOR_GRAPH = 200_000
"""From so many on, the engine auto draws a graph, where usearch is installed."""

_SECONDS_TO_WAIT = 0.5  # for another process that indexes


@dataclass
class IndexReport:
    """How indexing went."""

    n_files: int
    """Files that were found."""
    n_known: int = 0
    """Of them, those that were in the index already."""
    n_removed: int = 0
    """Files that were in the index and are there no more."""
    reasons: list[str] = field(default_factory=list)
    """Why files were skipped, one for each of those."""
    sound_seconds: float = 0.0
    """Length of the recordings that were heard now."""
    n_rows: int = 0
    """Windows in the index when all was done."""


def build_index(
    paths: Iterable[str | Path],
    output: str | Path,
    *,
    listed: Iterable[str] = (),
    model: str | Path | None = None,
    window: WindowConfig | None = None,
    engine: SearchEngine | None = None,
    workers: int | None = None,
    progress: Progress = silent,
    log: Log = no_log,
) -> IndexReport:
    """Index recordings, or bring their index up to date.

    Files below the given folders that are there no more leave the index; what is elsewhere stays in it.

    Parameters
    ----------
    paths : iterable of str or Path
        Files, folders, patterns and addresses: see `spectag.tagging.input_files.find_files`.
    output : str or Path
        Folder of the index.
    listed : iterable of str
        Further files, one a line.
    model : str or Path, optional
        A tagger's folder, or the name of a published one; by default audioset-mn04, and of an index that is there,
        the tagger that made it.
    window : WindowConfig, optional
        The stretches that are compared; by default 10 s without overlap.
    engine : "auto", "exact" or "usearch", optional
        exact compares a sound with all others; usearch follows a graph and finds nearly all of the nearest among
        millions; auto takes usearch from 200,000 windows on, where it is installed.
    workers : int, optional
        Cores to use.
    progress, say
        Told of the work.

    Raises
    ------
    ConfigError
        If the index that is there has other windows.
    DataError
        If it was made by another tagger, is damaged, or can't be written. What is done stays done.
    BundleError, AudioError
        If the tagger can't be read, or there is no sound.
    MissingExtraError
        If usearch is asked for and not installed.
    """
    folder = Path(output)
    known = read_info(folder) if is_index(folder) else None
    if known is None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"-o {folder}: holds other things, and no index; give a folder of its own to the index")
    tagger, info = _tagger_and_info(folder, known, model, window, engine, progress, log)
    if info.engine == "usearch":
        load_usearch()
    places = [str(path) for path in paths]
    files = list(dict.fromkeys(map(full_location, find_files(places, accepted_suffixes(tagger), listed=listed))))
    with _writing(folder) as store:
        write_info(folder, info)
        report = _bring_up_to_date(store, tagger, info, files, places, workers, progress)
        _draw_graph(store, info, workers, progress)
    return report


def full_location(file: str) -> str:
    """The name that a file has in an index: its whole path, or its address."""
    return file if is_address(file) else os.path.abspath(file)  # noqa: PTH100 - as it is given, links and all


def content_mark(file: str) -> str:
    """A text that changes when a file does. Of addresses it is empty: asking for each takes longer than hearing it."""
    if is_address(file):
        return ""
    try:
        return " ".join(map(str, size_and_time(file)))
    except AudioError:
        return ""


def _tagger_and_info(
    folder: Path,
    known: IndexInfo | None,
    model: str | Path | None,
    window: WindowConfig | None,
    engine: SearchEngine | None,
    progress: Progress,
    log: Log,
) -> tuple[Tagger, IndexInfo]:
    """The tagger, and what the index is to be; a DataError or ConfigError if it is already something else."""
    name = str(model) if model is not None else known.model if known else DEFAULT_MODEL
    tagger = Tagger(tagger_folder(name, progress=progress, log=log))
    name = name if name in PUBLISHED and not Path(name).exists() else full_location(name)
    if known is None:
        made = probe(tagger)
        return tagger, IndexInfo(
            model=name, labels=tagger.labels.names, window=window or DEFAULT_WINDOW, engine=engine or "auto", probe=made
        )
    check_tagger(folder, known, tagger)
    if tagger.labels.names != known.labels:
        raise DataError(
            f"{folder}: was made by a tagger of other labels, {known.model}; take that one, or index the recordings "
            "again, into another folder"
        )
    if window is not None and window != known.window:
        raise ConfigError(
            f"{folder}: has windows of {_told(known.window)}, not of {_told(window)}; leave --window and --overlap "
            "out, or index the recordings again, into another folder"
        )
    return tagger, known.model_copy(update={"model": name, "engine": engine or known.engine})


def _told(window: WindowConfig) -> str:
    overlap = f" that overlap by {window.overlap_seconds:g} s" if window.overlap_seconds else ""
    return f"{window.window_seconds:g} s{overlap}"


@contextmanager
def _writing(folder: Path) -> Iterator[IndexDatabase]:
    """The store of an index, which no other process changes meanwhile."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (
            FileLock(folder / "lock", timeout=_SECONDS_TO_WAIT),
            closing(IndexDatabase.open(folder)) as store,
            database_errors(folder),
        ):
            remove_unfinished(folder)
            yield store
            remove_old(folder, store.state)
    except Timeout as error:
        raise DataError(f"{folder}: another process is indexing into it; wait for it, or give another -o") from error
    except OSError as error:
        raise DataError(f"{folder}: can't be written: {error.strerror or error}; what is done is kept") from error


def _bring_up_to_date(
    store: IndexDatabase,
    tagger: Tagger,
    info: IndexInfo,
    files: Sequence[str],
    places: Sequence[str],
    workers: int | None,
    progress: Progress,
) -> IndexReport:
    marks = {file: content_mark(file) for file in files}
    known = store.marks()
    missing = [file for file in files if known.get(file) != marks[file]]
    gone = [name for name in known if name not in marks and _has_left(name, places)]
    report = IndexReport(len(files), len(files) - len(missing), len(gone))
    may_have_died_of_a_file = store.is_at_work and len(missing) > 1
    store.remove([*gone, *known.keys() & set(missing)])
    store.is_at_work = True
    store.commit()
    if not store.state.is_settled:  # by chance, for the embedding is fitted to those that come first
        random.Random(0).shuffle(missing)
    run = tag_chunks(
        tagger,
        chunked(missing, workers),
        info.window,
        features=True,
        workers=workers,
        isolate_crashes=may_have_died_of_a_file,
        progress=progress,
    )
    with closing(VectorWriter(store)) as writer:
        with closing(run) as answers:
            for tagged in _told_of(answers, report, progress):
                _add(tagged, marks[tagged.file], tagger, store, writer)
                writer.commit_now_and_then()
        store.is_at_work = False
        writer.finish()
    report.n_rows = store.counts()[1]
    return report


def _told_of(answers: Iterator[tuple[Chunk, TaggedChunk]], report: IndexReport, progress: Progress) -> Iterator[TaggedFile]:
    """The files that could be read; the others are noted."""
    n_done = report.n_known
    progress("indexing", n_done, report.n_files)
    for answer in in_order(answers):
        for tagged in answer.files:
            if tagged.reason is None:
                report.sound_seconds += tagged.duration_seconds or 0.0
                yield tagged
            else:
                report.reasons.append(tagged.reason)
            n_done += 1
            progress("indexing", n_done, report.n_files)


def _add(tagged: TaggedFile, mark: str, tagger: Tagger, store: IndexDatabase, writer: VectorWriter) -> None:
    assert tagged.timeline is not None
    assert tagged.network_outputs is not None
    number = store.add(tagged.file, mark, recording_date(tagged.file), tagged.timeline, tagger.thresholds)
    writer.add(number, tagged.network_outputs.features)


def _has_left(name: str, places: Sequence[str]) -> bool:
    """Whether a file of the index lay in one of the places, and is there no more."""
    if is_address(name):
        return any(name.startswith(place.rstrip("/") + "/") for place in places)
    folders = (Path(full_location(_without_pattern(place))) for place in places if not is_address(place))
    return not Path(name).exists() and any(Path(name).is_relative_to(folder) for folder in folders)


def _without_pattern(place: str) -> str:
    """The folder in which a pattern is looked for."""
    if not glob.has_magic(place) or Path(place).exists():
        return place
    parts = Path(place).parts
    return str(Path(*takewhile(lambda part: not glob.has_magic(part), parts)))


def _draw_graph(store: IndexDatabase, info: IndexInfo, workers: int | None, progress: Progress) -> None:
    """Bring the graph up to date, or take it away, as the engine asks."""
    state = store.state
    is_large = state.n_vectors >= ROWS_FOR_GRAPH and is_installed()
    if state.n_vectors and (info.engine == "usearch" or (info.engine == "auto" and is_large)):
        is_there = state.n_in_graph > 0 and (store.folder / state.graph_file).exists()
        if is_there and state.n_in_graph == state.n_vectors:
            return
        drawn = state._replace(n_in_graph=state.n_vectors)
        expansion = write_graph(
            store.folder / drawn.graph_file,
            read_vectors(store.folder, state),
            known=store.folder / state.graph_file if is_there else None,
            n_known=state.n_in_graph if is_there else 0,
            expansion=state.expansion,
            workers=workers or n_usable_cores(),
            progress=progress,
        )
        drawn = drawn._replace(expansion=expansion)
    else:
        drawn = state._replace(n_in_graph=0, expansion=0)
    store.state = drawn
    store.commit()
