"""Tagging many files into tables. A run that is stopped or killed can be resumed, and loses nothing."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from spectag.audio.mel import FRONT_END_VERSION
from spectag.config.base import WindowConfig
from spectag.config.tagging import TagSettings
from spectag.errors import AudioError, ConfigError
from spectag.models.bundle import INFO_FILE
from spectag.models.tagger import Tagger
from spectag.system.output import csv_writer, open_output
from spectag.system.paths import common_folder
from spectag.system.progress import Log, Progress, no_log, silent
from spectag.system.storage import file_fingerprint
from spectag.tagging.events import FileEvents, detected_events
from spectag.tagging.formats.dispatch import FORMATS, TableContext, check_installed, write
from spectag.tagging.formats.submission import Template
from spectag.tagging.input_files import Shard, find_files, read_list
from spectag.tagging.journal import Journal, open_journal
from spectag.tagging.output_paths import OutputPaths, output_paths
from spectag.tagging.parallel import (
    Chunk,
    TaggedChunk,
    TaggedFile,
    accepted_suffixes,
    chunked,
    in_order,
    tag_chunks,
)

TaggingEngine = Callable[[Sequence[Chunk]], Generator[tuple[Chunk, TaggedChunk], None, None]]
"""Tags chunks, and yields each with its result in the order in which they finish."""


@dataclass
class TaggingReport:
    """The counts and times of a run."""

    n_files: int
    n_resumed: int = 0
    """Files that an earlier run had tagged."""
    skip_reasons: list[str] = field(default_factory=list)
    """Why files were skipped, one reason for each."""
    n_without_labels: int = 0
    """Files in which no label reaches its threshold."""
    sound_seconds: float = 0.0
    """Length of the recordings tagged in this run."""
    stage_seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Time spent on each stage of the work, summed over all threads and processes."""
    status: str | None = None
    """The table with the status of every file, if the run wrote one."""

    @property
    def n_tagged(self) -> int:
        """Files tagged in this run."""
        return self.n_files - self.n_resumed - len(self.skip_reasons)

    def add(self, chunk: TaggedChunk) -> None:
        """Add the times of a chunk and the length of its recordings."""
        self.sound_seconds += sum(tagged.duration_seconds or 0.0 for tagged in chunk.files)
        for stage, seconds in chunk.seconds.items():
            self.stage_seconds[stage] += seconds


def tag_inputs(
    tagger: Tagger,
    paths: Iterable[str | Path],
    settings: TagSettings,
    *,
    files_from: str | None = None,
    output: str | None = None,
    shard: Shard | None = None,
    engine: TaggingEngine | None = None,
    workers: int | None = None,
    progress: Progress = silent,
    log: Log = no_log,
) -> TaggingReport:
    """Find files, tag them and write the tables: the work of `spectag tag`.

    Parameters
    ----------
    tagger : Tagger
    paths : iterable of str or Path
        Files, folders, patterns and URLs: see `find_files`.
    settings : TagSettings
    files_from : str, optional
        A file that lists more of them, one in each line; - is stdin.
    output : str, optional
        A table or a folder: see `spectag.tagging.output_paths`. By default stdout.
    shard : Shard, optional
        Tag these files only.
    engine, workers, progress, log
        See `tag_to_files`.

    Raises
    ------
    AudioError
        If a path does not exist, or there is no file to tag.
    ConfigError, DataError, BundleError
        See `tag_to_files`, `output_paths` and `Template`.
    """
    files = find_files(paths, accepted_suffixes(tagger), listed=read_list(files_from) if files_from else ())
    template = None if settings.template is None else Template.read(settings.template, tagger.labels)
    if not files:
        raise AudioError(f"{files_from}: the list contains no file")
    if template is not None:
        files = template.files(files)
    if shard is not None:
        files = shard.select(files)
    if output is None:
        return tag_to_stdout(tagger, files, settings=settings, template=template, workers=workers, progress=progress)
    return tag_to_files(
        tagger,
        files,
        output_paths(output, settings.formats, shard),
        settings=settings,
        template=template,
        engine=engine,
        workers=workers,
        progress=progress,
        log=log,
    )


def tag_to_files(
    tagger: Tagger,
    files: Sequence[str],
    paths: OutputPaths,
    *,
    settings: TagSettings,
    template: Template | None = None,
    engine: TaggingEngine | None = None,
    workers: int | None = None,
    progress: Progress = silent,
    log: Log = no_log,
) -> TaggingReport:
    """Tag files into tables. A run that was stopped or killed is resumed, and writes the same bytes as without a stop.

    Parameters
    ----------
    tagger : Tagger
    files : sequence of str
        Paths and URLs, each once. The rows of the tables follow their order.
    paths : OutputPaths
        Where to write. Each table is written completely or not at all.
    settings : TagSettings
        The windows to tag, and the events to report.
    template : Template, optional
        The template of a submission, if one is to be written.
    engine : callable, optional
        Tags chunks of the files. By default the cores of this machine do.
    workers : int, optional
        Number of cores to use.
    progress : Progress
        Called with the number of tagged files.
    log : Log
        Called if an earlier run is resumed.

    Raises
    ------
    DataError
        If a table or the journal can't be written. Files tagged so far stay tagged.
    BundleError
        If the model is damaged.
    """
    _check_formats(settings, files, in_folder=paths.in_folder)
    fingerprints = {file: file_fingerprint(file) for file in files}
    with open_journal(paths.journal, key=_journal_key(tagger, settings.windows)) as journal:
        paths.remove_unfinished()
        known = journal.fingerprints()
        missing = [file for file in files if known.get(file) != fingerprints[file]]
        report = TaggingReport(len(files), len(files) - len(missing), status=paths.status)
        if report.n_resumed:
            log(f"resuming an earlier run, which tagged {report.n_resumed:,} of the {len(files):,} files")
        chunks = chunked(missing, workers)
        if engine is not None:
            run = engine(chunks)
        else:
            a_file_may_have_crashed = not journal.is_new and len(files) > 1 and bool(missing)
            run = tag_chunks(
                tagger,
                chunks,
                settings.windows,
                workers=workers,
                isolate_crashes=a_file_may_have_crashed,
                progress=progress,
            )
        with closing(run) as tagged_chunks:
            _fill_journal(journal, tagged_chunks, fingerprints, report, progress)
        _write_tables(journal, tagger, files, paths, settings, template, report)
        _write_status(journal, files, paths.status, report)
        _write_settings(paths.parameters, settings)
        journal.is_complete = True
    return report


def tag_to_stdout(
    tagger: Tagger,
    files: Sequence[str],
    *,
    settings: TagSettings,
    template: Template | None = None,
    workers: int | None = None,
    progress: Progress = silent,
) -> TaggingReport:
    """Tag files into one table on stdout; a file is written as soon as those before it are tagged.

    Raises
    ------
    ConfigError
        If several formats are requested.
    """
    if len(settings.formats) > 1:
        raise ConfigError(f"{len(settings.formats)} formats can't share stdout; give a folder as -o")
    _check_formats(settings, files, in_folder=False)
    report = TaggingReport(len(files))

    def tagged_files() -> Iterator[TaggedFile]:
        chunks = chunked(files, workers)
        progress("tagging", 0, len(files))
        n_done = 0
        with closing(tag_chunks(tagger, chunks, settings.windows, workers=workers, progress=progress)) as tagged_chunks:
            for chunk in in_order(tagged_chunks):
                report.add(chunk)
                for tagged in chunk.files:
                    n_done += 1
                    progress("tagging", n_done, len(files))
                    if tagged.reason is not None:
                        report.skip_reasons.append(tagged.reason)
                    yield tagged

    files_with_tags: Iterable[TaggedFile] = tagged_files()
    if template is not None:  # written completely or not at all
        files_with_tags = list(files_with_tags)
        template.refuse_skipped(report.skip_reasons)
    (name,) = settings.formats
    events = _events(files_with_tags, tagger, settings, None if FORMATS[name].has_all_labels else report)
    write(name, events, None, _table_context(tagger, files, settings, template))
    return report


def _check_formats(settings: TagSettings, files: Sequence[str], *, in_folder: bool) -> None:
    """Find what would stop the writers before any work is done."""
    check_installed(settings.formats)
    if "audacity" in settings.formats and not in_folder and len(files) > 1:
        raise ConfigError(
            f"an Audacity label track holds one recording, and there are {len(files):,}; give a folder as -o to get "
            "one track for each recording"
        )


def _fill_journal(
    journal: Journal,
    tagged_chunks: Iterator[tuple[Chunk, TaggedChunk]],
    fingerprints: dict[str, str],
    report: TaggingReport,
    progress: Progress,
) -> None:
    n_done = report.n_resumed
    progress("tagging", n_done, report.n_files)
    for _, chunk in tagged_chunks:
        for tagged in chunk.files:
            journal.add(tagged, fingerprints[tagged.file])
        report.add(chunk)
        n_done += len(chunk.files)
        progress("tagging", n_done, report.n_files)
    journal.commit()


def _write_tables(
    journal: Journal,
    tagger: Tagger,
    files: Sequence[str],
    paths: OutputPaths,
    settings: TagSettings,
    template: Template | None,
    report: TaggingReport,
) -> None:
    if template is not None:
        template.refuse_skipped([status.reason for status in journal.statuses(files) if status.reason is not None])
    context = _table_context(tagger, files, settings, template)
    for number, (name, location) in enumerate(paths.tables.items()):
        counted = report if number == 0 and not FORMATS[name].has_all_labels else None
        events = _events(journal.tagged(files), tagger, settings, counted)
        write(name, events, location, context, in_folder=paths.in_folder)


def _table_context(
    tagger: Tagger, files: Sequence[str], settings: TagSettings, template: Template | None
) -> TableContext:
    mel = tagger.front_end.mel
    return TableContext(
        labels=tagger.labels,
        by_window=not settings.joins_windows,
        root=common_folder(files),
        low_hz=mel.f_min if mel else 0.0,
        high_hz=mel.f_max if mel else 0.0,
        template=template,
    )


def _events(
    tagged_files: Iterable[TaggedFile], tagger: Tagger, settings: TagSettings, report: TaggingReport | None
) -> Iterator[FileEvents]:
    """The events of the files that were tagged; `report` counts the files without any."""
    for tagged in tagged_files:
        if tagged.timeline is not None:
            file = detected_events(tagged, tagged.timeline, tagger, settings)
            if report is not None:
                report.n_without_labels += not file.events
            yield file


def _write_status(journal: Journal, files: Sequence[str], location: str, report: TaggingReport) -> None:
    """A row for every file: whether it was tagged, why not, and how long the recording is."""
    with open_output(location) as out:
        write_row = csv_writer(out)
        write_row(["file", "status", "reason", "seconds"])
        for file, reason, seconds in journal.statuses(files):
            if reason is not None:
                report.skip_reasons.append(reason)
            status = "done" if reason is None else "skipped"
            write_row([file, status, reason or "", "" if seconds is None else f"{seconds:.3f}"])


def _write_settings(location: str, settings: TagSettings) -> None:
    with open_output(location) as out:
        out.write("# spectag tag MODEL PATH... -o OUTPUT --config THIS_FILE\n")
        out.write(settings.to_toml())


def _journal_key(tagger: Tagger, window: WindowConfig | None) -> str:
    """A hash of everything that the probabilities depend on, except the files."""
    settings = f"{FRONT_END_VERSION} {(window or WindowConfig()).model_dump_json()}"
    return hashlib.sha256((tagger.folder / INFO_FILE).read_bytes() + settings.encode()).hexdigest()
