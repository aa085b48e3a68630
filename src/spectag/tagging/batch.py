"""Tagging a folder's, an archive's, a share's worth of files into tables: nothing is lost, however the run ends."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import cast

from spectag.audio.mel import FRONT_END_VERSION
from spectag.config.base import WindowConfig
from spectag.config.tagging import TagSettings
from spectag.errors import AudioError, ConfigError
from spectag.models.bundle import INFO_FILE
from spectag.models.tagger import Tagger
from spectag.system.output import csv_writer, written
from spectag.system.paths import common_folder
from spectag.system.progress import Log, Progress, no_log, silent
from spectag.system.storage import is_address, size_and_time
from spectag.tagging.events import FileEvents, detected_events
from spectag.tagging.formats.dispatch import FormatName, check_installed, write
from spectag.tagging.formats.submission import Template, write_submission
from spectag.tagging.journal import Journal, open_journal
from spectag.tagging.output_paths import OutputPaths
from spectag.tagging.parallel import Chunk, TaggedChunk, TaggedFile, chunked, in_order, tag_chunks

Engine = Callable[[Sequence[Chunk]], Generator[tuple[Chunk, TaggedChunk], None, None]]
"""What tags portions, and gives each with its answer in the order in which they are done."""

_OF_ALL_LABELS = {"submission", "wide", "wide-parquet"}  # tables in which nothing can be silent


@dataclass
class TaggingReport:
    """How a run went."""

    n_files: int
    n_known: int = 0
    """Files that an earlier run had done."""
    reasons: list[str] = field(default_factory=list)
    """Why files were skipped, one for each of those."""
    n_silent: int = 0
    """Files in which no label reaches its threshold."""
    sound_seconds: float = 0.0
    """Length of all recordings that were tagged now."""
    stage_seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    """What the time of the work went into, over all threads and processes."""

    def note(self, answer: TaggedChunk) -> None:
        """Add up what a portion's tagging took, and how much sound it was."""
        self.sound_seconds += sum(tagged.duration_seconds or 0.0 for tagged in answer.files)
        for stage, seconds in answer.seconds.items():
            self.stage_seconds[stage] += seconds


def tag_to_files(
    tagger: Tagger,
    files: Sequence[str],
    results: OutputPaths,
    *,
    settings: TagSettings,
    template: Template | None = None,
    engine: Engine | None = None,
    workers: int | None = None,
    progress: Progress = silent,
    log: Log = no_log,
) -> TaggingReport:
    """Tag files into tables. A run that was stopped, or killed, goes on where it was, and ends with the same bytes.

    Parameters
    ----------
    tagger : Tagger
    files : sequence of str
        Paths and addresses, each once; the tables follow their order.
    results : Results
        Where the tables go. Each is written whole or not at all.
    settings : TagSettings
        Which windows are tagged, and what is told of them.
    template : Template, optional
        Of the submission, where there is to be one.
    engine : callable, optional
        What tags portions of the files; by default the cores of this machine.
    workers : int, optional
        Cores to use.
    progress, say
        Told of the work.

    Raises
    ------
    DataError
        If a table or the journal can't be written. What is done stays done.
    BundleError
        If the tagger is damaged.
    """
    _check_formats(settings, files, in_folder=results.in_folder)
    marks = {file: _mark(file) for file in files}
    with open_journal(results.journal, key=_key(tagger, settings.windows)) as journal:
        results.remove_unfinished()
        done = journal.done()
        missing = [file for file in files if done.get(file) != marks[file]]
        report = TaggingReport(len(files), len(files) - len(missing))
        if report.n_known:
            log(f"going on with an earlier run, which did {report.n_known:,} of the {len(files):,} files")
        chunks = chunked(missing, workers)
        may_have_died_of_a_file = not journal.is_new and len(files) > 1 and bool(missing)
        run = (
            engine(chunks)
            if engine
            else tag_chunks(
                tagger,
                chunks,
                settings.windows,
                workers=workers,
                isolate_crashes=may_have_died_of_a_file,
                progress=progress,
            )
        )
        with closing(run) as answers:
            _note(answers, journal, marks, report, progress)
        journal.commit()
        _write_tables(journal, tagger, files, results, settings, template, report)
        _write_status(journal, files, results, report)
        _write_settings(results, settings)
        journal.is_needed = False
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
    """Tag files into one table on stdout, each as soon as those before it are done.

    Raises
    ------
    ConfigError
        If several formats are asked for.
    """
    if len(settings.formats) > 1:
        raise ConfigError(f"{len(settings.formats)} formats can't share stdout; give a folder as -o")
    _check_formats(settings, files, in_folder=False)
    report = TaggingReport(len(files))

    def noted() -> Iterator[TaggedFile]:
        chunks = chunked(files, workers)
        progress("tagging", 0, len(files))
        n_done = 0
        with closing(tag_chunks(tagger, chunks, settings.windows, workers=workers, progress=progress)) as answers:
            for answer in in_order(answers):
                report.note(answer)
                for tagged in answer.files:
                    n_done += 1
                    progress("tagging", n_done, len(files))
                    report.reasons += [] if tagged.reason is None else [tagged.reason]
                    yield tagged

    tagged: Iterable[TaggedFile] = noted()
    if template is not None:  # whole or not at all
        tagged = list(tagged)
        template.refuse_skipped(report.reasons)
    heard = _heard(tagged, tagger, settings, None if settings.formats[0] in _OF_ALL_LABELS else report)
    _write_table(settings.formats[0], heard, None, tagger, settings, template, files, in_folder=False)
    return report


def _check_formats(settings: TagSettings, files: Sequence[str], *, in_folder: bool) -> None:
    """Raise before any work what would else be found when it is done."""
    check_installed(settings.formats)
    if "audacity" in settings.formats and not in_folder and len(files) > 1:
        raise ConfigError(
            f"a label track of Audacity's is that of one recording, and there are {len(files):,}; give a folder as -o "
            "for a track for each"
        )


def _note(
    answers: Iterator[tuple[Chunk, TaggedChunk]],
    journal: Journal,
    marks: dict[str, str],
    report: TaggingReport,
    progress: Progress,
) -> None:
    n_done = report.n_known
    progress("tagging", n_done, report.n_files)
    for _, answer in answers:
        for tagged in answer.files:
            journal.add(tagged, marks[tagged.file])
        report.note(answer)
        n_done += len(answer.files)
        progress("tagging", n_done, report.n_files)


def _write_tables(
    journal: Journal,
    tagger: Tagger,
    files: Sequence[str],
    results: OutputPaths,
    settings: TagSettings,
    template: Template | None,
    report: TaggingReport,
) -> None:
    if template is not None:
        template.refuse_skipped([outcome.reason for outcome in journal.outcomes(files) if outcome.reason is not None])
    for number, (name, location) in enumerate(results.tables.items()):
        heard = _heard(
            journal.tagged(files), tagger, settings, report if number == 0 and name not in _OF_ALL_LABELS else None
        )
        _write_table(name, heard, location, tagger, settings, template, files, in_folder=results.in_folder)


def _write_table(
    name: str,
    heard: Iterator[FileEvents],
    location: str | None,
    tagger: Tagger,
    settings: TagSettings,
    template: Template | None,
    files: Sequence[str],
    *,
    in_folder: bool,
) -> None:
    if template is not None and name == "submission":
        with written(location) as out:
            write_submission(heard, template, tagger.labels, out)
        return
    mel = tagger.front_end.mel
    write(
        cast("FormatName", name),
        heard,
        location,
        labels=tagger.labels.names,
        by_window=not settings.joins_windows,
        root=common_folder(files),
        low_hz=mel.f_min if mel else 0.0,
        high_hz=mel.f_max if mel else 0.0,
        in_folder=in_folder,
    )


def _heard(
    tagged: Iterable[TaggedFile], tagger: Tagger, settings: TagSettings, report: TaggingReport | None
) -> Iterator[FileEvents]:
    for file in tagged:
        if file.timeline is not None:
            heard = detected_events(file, file.timeline, tagger, settings)
            if report is not None:
                report.n_silent += not heard.events
            yield heard


def _write_status(journal: Journal, files: Sequence[str], results: OutputPaths, report: TaggingReport) -> None:
    """A row for every file: whether it was tagged, why not, and how long the recording is."""
    with written(results.status) as out:
        write_row = csv_writer(out)
        write_row(["file", "status", "reason", "seconds"])
        for file, reason, seconds in journal.outcomes(files):
            report.reasons += [] if reason is None else [reason]
            status = "done" if reason is None else "skipped"
            write_row([file, status, reason or "", "" if seconds is None else f"{seconds:.3f}"])


def _write_settings(results: OutputPaths, settings: TagSettings) -> None:
    with written(results.parameters) as out:
        out.write("# spectag tag MODEL PATH... -o OUTPUT --config THIS_FILE\n")
        out.write(settings.to_toml())


def _key(tagger: Tagger, window: WindowConfig | None) -> str:
    """What the probabilities in a journal depend on, files aside."""
    settings = f"{FRONT_END_VERSION} {(window or WindowConfig()).model_dump_json()}"
    return hashlib.sha256((tagger.folder / INFO_FILE).read_bytes() + settings.encode()).hexdigest()


def _mark(file: str) -> str:
    """A text that changes when a file does. Of addresses it is empty: asking for each takes longer than tagging it."""
    if is_address(file):
        return ""
    try:
        return " ".join(map(str, size_and_time(file)))
    except AudioError:
        return ""
