"""Building a sound index: new and changed recordings are embedded; an interrupted run continues where it stopped."""

import glob
import os
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import chain, takewhile
from pathlib import Path

from filelock import FileLock, Timeout

from spectag.config.backbones import PUBLISHED
from spectag.config.base import Channel, WindowConfig
from spectag.config.devices import Device
from spectag.config.network_cards import is_card
from spectag.curation.sound_index.ann_graph import is_installed, load_usearch, write_graph
from spectag.curation.sound_index.database import DATABASE, IndexDatabase, database_errors
from spectag.curation.sound_index.metadata import (
    IndexInfo,
    SearchEngine,
    check_tagger,
    is_index,
    probe,
    read_index_info,
    write_index_info,
)
from spectag.curation.sound_index.recording_dates import recording_date
from spectag.curation.sound_index.vectors import VectorWriter, read_vectors, remove_old_files
from spectag.errors import ConfigError, DataError
from spectag.models.clap_words import WORDS_HEAD, is_clap_name
from spectag.models.pretrained import tagger_folder
from spectag.models.tagger import Tagger
from spectag.system.atomic_files import remove_unfinished, sha256_of
from spectag.system.progress import Log, Progress, no_log, silent
from spectag.system.storage import file_fingerprint, is_url
from spectag.system.worker_pool import n_usable_cores
from spectag.tagging.input_files import find_files
from spectag.tagging.parallel import accepted_suffixes, chunked, in_order, tag_chunks

DEFAULT_MODEL = "audioset-mn04"
DEFAULT_WINDOW = WindowConfig(window_seconds=10.0)
ROWS_FOR_GRAPH = 200_000
"""From this number of windows on, the engine "auto" builds a graph, if usearch is installed."""

_LOCK_SECONDS = 0.5  # to wait for another process that writes the index
_FILES_BEFORE_INFO = rf"lock|{re.escape(DATABASE)}(-\w+)?|\.index\.\d+\.json"


@dataclass
class IndexReport:
    """The result of `build_index`."""

    n_files: int
    """Files that were found."""
    n_unchanged: int = 0
    """Files that were in the index already."""
    n_removed: int = 0
    """Files that were removed from the index, because they no longer exist."""
    reasons: list[str] = field(default_factory=list)
    """Why files were skipped, one reason per file."""
    truncated: list[str] = field(default_factory=list)
    """New files of which only a part can be read."""
    sound_seconds: float = 0.0
    """Total length of the new recordings."""
    n_windows: int = 0
    """Windows in the index at the end."""


def build_index(
    paths: Iterable[str | Path],
    output: str | Path,
    *,
    listed: Iterable[str] = (),
    model: str | Path | None = None,
    window: WindowConfig | None = None,
    channel: Channel | None = None,
    engine: SearchEngine | None = None,
    workers: int | None = None,
    device: Device = "auto",
    progress: Progress = silent,
    log: Log = no_log,
) -> IndexReport:
    """Index recordings, or update their index.

    Files in the given folders that no longer exist are removed from the index. Other files stay in it.

    Parameters
    ----------
    paths : iterable of str or Path
        Files, folders, patterns and URLs: see `spectag.tagging.input_files.find_files`.
    output : str or Path
        Folder of the index.
    listed : iterable of str
        Further files.
    model : str or Path, optional
        Folder of a model, or the name of a pretrained one. By default audioset-mn04, or the model of the existing
        index.
    window : WindowConfig, optional
        The windows that are compared. By default 10 s without overlap.
    channel : "mix", "loudest" or int, optional
        How several channels become one. By default as in the training of the model, or that of the existing index.
    engine : "auto", "exact" or "usearch", optional
        exact compares a query with all windows. usearch searches a graph, and finds nearly all of the closest windows
        among millions. auto uses usearch from 200,000 windows on, if it is installed.
    workers : int, optional
        Number of cores.
    device : str
        Where the networks run, as in `spectag.load`.
    progress, log
        Called with the progress of the work, and with messages.

    Raises
    ------
    ConfigError
        If the existing index has other windows or another channel.
    DataError
        If the existing index was made with another model, is damaged, or can't be written. Indexed files are kept.
    BundleError, AudioError
        If the model can't be read, or there is no sound.
    MissingExtraError
        If the engine is usearch, and usearch is not installed.
    """
    folder = Path(output)
    existing = read_index_info(folder) if is_index(folder) else None
    if existing is None and folder.exists() and (not folder.is_dir() or _has_other_files(folder)):
        raise ConfigError(f"-o {folder}: the folder contains files, but no index; use a separate folder")
    name = os.fspath(model) if model is not None else existing.model if existing else DEFAULT_MODEL
    tagger = Tagger(tagger_folder(name, needs_labels=False, progress=progress, log=log), device=device)
    is_name = is_clap_name(name) or ((name in PUBLISHED or is_card(name)) and not Path(name).exists())
    name = name if is_name else full_location(name)
    if existing is None:
        windows, labels = window or DEFAULT_WINDOW, tagger.labels.names
        info = IndexInfo(
            model=name,
            labels=labels,
            window=windows,
            channel=channel,
            engine=engine or "auto",
            has_words=tagger.info.backbone.head == WORDS_HEAD,
            probe=probe(tagger),
        )
    else:
        _check_same_settings(folder, existing, tagger, window, channel)
        info = existing.model_copy(update={"model": name, "engine": engine or existing.engine})
    if info.engine == "usearch":
        load_usearch()
    locations = [str(path) for path in paths]
    files = list(dict.fromkeys(map(full_location, find_files(locations, accepted_suffixes(tagger), listed=listed))))
    tagger = tagger.with_channel(info.channel)
    with _open_for_writing(folder) as database:
        write_index_info(folder, info)
        report = _update(database, tagger, info, files, locations, workers, progress)
        _update_graph(database, info, workers, progress)
    return report


def _has_other_files(folder: Path) -> bool:
    """Whether a folder has files other than those of a run that was killed before it wrote index.json."""
    return any(not re.fullmatch(_FILES_BEFORE_INFO, path.name) for path in folder.iterdir())


def full_location(file: str) -> str:
    """The name of a file in an index: its absolute path, or its URL."""
    return file if is_url(file) else os.path.abspath(file)  # noqa: PTH100 - does not resolve links


def _check_same_settings(
    folder: Path, existing: IndexInfo, tagger: Tagger, window: WindowConfig | None, channel: Channel | None
) -> None:
    """Raise a DataError or ConfigError if the existing index has another model or other windows."""
    check_tagger(folder, existing, tagger)
    if tagger.labels.names != existing.labels:
        raise DataError(
            f"{folder}: the index was made with a model with other labels, {existing.model}; use that model, or index "
            "the recordings again in another folder"
        )
    if window is not None and window != existing.window:
        raise ConfigError(
            f"{folder}: the index has windows of {_describe(existing.window)}, not of {_describe(window)}; leave out "
            "--window and --overlap, or index the recordings again in another folder"
        )
    if channel is not None and channel != (existing.channel or tagger.channel):
        raise ConfigError(
            f"{folder}: the index was made with channel {existing.channel or tagger.channel}, not {channel}; leave out "
            "--channel, or index the recordings again in another folder"
        )


def _describe(window: WindowConfig) -> str:
    overlap = f" with an overlap of {window.overlap_seconds:g} s" if window.overlap_seconds else ""
    return f"{window.window_seconds:g} s{overlap}"


@contextmanager
def _open_for_writing(folder: Path) -> Iterator[IndexDatabase]:
    """The database of an index, locked against other processes that write."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (
            FileLock(folder / "lock", timeout=_LOCK_SECONDS),
            closing(IndexDatabase(folder)) as database,
            database_errors(folder),
        ):
            remove_unfinished(folder)
            yield database
            remove_old_files(folder, database.state)
    except Timeout as error:
        raise DataError(f"{folder}: another process is updating the index; wait for it, or use another -o") from error
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"{folder}: the index can't be written: {reason}; indexed files are kept") from error


def _update(
    database: IndexDatabase,
    tagger: Tagger,
    info: IndexInfo,
    files: Sequence[str],
    locations: Sequence[str],
    workers: int | None,
    progress: Progress,
) -> IndexReport:
    """Remove changed and missing files from the index, and add new and changed ones."""
    fingerprints = {file: file_fingerprint(file) for file in files}
    indexed = {entry.name: entry.fingerprint for entry in database.entries()}
    order = list(files)  # the embedding is fitted to the first files, so they should be a random sample
    random.Random(0).shuffle(order)  # nosec B311 - of all files, so that a continued run has the same order
    new = [file for file in order if indexed.get(file) != fingerprints[file]]
    removed = [name for name in indexed if name not in fingerprints and _is_gone(name, locations)]
    report = IndexReport(len(files), len(files) - len(new), len(removed))
    may_have_crashed = database.is_indexing and len(new) > 1
    database.remove([*removed, *indexed.keys() & set(new)])
    database.is_indexing = True
    database.commit()
    tagged_chunks = tag_chunks(
        tagger,
        chunked(new, workers),
        info.window,
        features=True,
        workers=workers,
        isolate_crashes=may_have_crashed,
        progress=progress,
    )
    progress("indexing", report.n_unchanged, report.n_files)
    with closing(VectorWriter(database, is_fitted=not info.has_words)) as writer:
        with closing(tagged_chunks):
            tagged_files = chain.from_iterable(chunk.files for chunk in in_order(tagged_chunks))
            for n_done, tagged in enumerate(tagged_files, start=report.n_unchanged + 1):
                if tagged.timeline is None or tagged.network_outputs is None:
                    report.reasons.append(str(tagged.reason))
                else:
                    report.sound_seconds += tagged.duration_seconds or 0.0
                    if tagged.faults.is_truncated:
                        report.truncated.append(tagged.file)
                    date, fingerprint = recording_date(tagged.file), fingerprints[tagged.file]
                    number = database.add(tagged.file, fingerprint, date, tagged.timeline, tagger.thresholds)
                    writer.add(number, tagged.network_outputs.features)
                    writer.commit_sometimes()
                progress("indexing", n_done, report.n_files)
        database.is_indexing = False
        writer.finish()
    report.n_windows = database.counts()[1]
    return report


def _is_gone(name: str, locations: Sequence[str]) -> bool:
    """Whether a file of the index was in one of the locations, and no longer exists."""
    if is_url(name):
        return any(name.startswith(location.rstrip("/") + "/") for location in locations)
    folders = (Path(full_location(_pattern_root(location))) for location in locations if not is_url(location))
    return not Path(name).exists() and any(Path(name).is_relative_to(folder) for folder in folders)


def _pattern_root(location: str) -> str:
    """The folder that a pattern is searched in; other locations are returned as they are."""
    if not glob.has_magic(location) or Path(location).exists():
        return location
    return str(Path(*takewhile(lambda part: not glob.has_magic(part), Path(location).parts)))


def _update_graph(database: IndexDatabase, info: IndexInfo, workers: int | None, progress: Progress) -> None:
    """Build, extend or remove the graph, depending on the engine."""
    state = database.state
    is_large = state.n_vectors >= ROWS_FOR_GRAPH and is_installed()
    if state.n_vectors and (info.engine == "usearch" or (info.engine == "auto" and is_large)):
        path = database.folder / state.graph_file
        is_valid = state.n_in_graph > 0 and path.exists() and sha256_of(path) == database.graph_sha256
        known = path if is_valid else None
        if known and state.n_in_graph == state.n_vectors:
            return
        new_state = state._replace(n_in_graph=state.n_vectors)
        expansion = write_graph(
            database.folder / new_state.graph_file,
            read_vectors(database.folder, state),
            known=known,
            expansion=state.expansion,
            workers=workers or n_usable_cores(),
            progress=progress,
        )
        database.use_graph(state.n_vectors, expansion)
    else:
        database.state = state._replace(n_in_graph=0, expansion=0)
    database.commit()
