"""Tagging many files into tables. A run that is stopped or killed can be resumed, and loses nothing."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

from spectag.audio.mel import FRONT_END_VERSION
from spectag.config.base import WindowConfig, read_toml
from spectag.config.tagging import TagSettings
from spectag.errors import AudioError, ConfigError
from spectag.models.bundle import INFO_FILE, RECIPE_FILE
from spectag.models.tagger import Tagger
from spectag.system.output import csv_writer, open_output
from spectag.system.paths import common_folder
from spectag.system.progress import Log, Progress, no_log, silent
from spectag.system.storage import file_fingerprint
from spectag.tagging.events import FileEvents, detected_events
from spectag.tagging.formats.dispatch import FORMATS, TableContext, check_installed, write
from spectag.tagging.formats.submission import Template
from spectag.tagging.input_files import Shard, find_files, read_list
from spectag.tagging.journal import FileStatus, Journal, open_journal
from spectag.tagging.output_paths import OutputPaths, output_paths
from spectag.tagging.parallel import Chunk, TaggedChunk, TaggedFile, accepted_suffixes, chunked, tag, tag_chunks
from spectag.tagging.shift_check import ShiftCheck

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
    notes: list[str] = field(default_factory=list)
    """What is wrong with files that were tagged: the name and the faults of each."""
    n_without_labels: int = 0
    """Files in which no label reaches its threshold."""
    n_without_known_labels: int = 0
    """Files that lose all their tags because of their novelty."""
    n_suppressed: int = 0
    """Tags that are left out because of their novelty."""
    shift_check: ShiftCheck | None = None
    """The recordings tagged in this run, compared with the training clips."""
    sound_seconds: float = 0.0
    """Length of the recordings tagged in this run."""
    stage_seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Time spent on each stage of the work, summed over all threads and processes."""
    status: str | None = None
    """The table with the status of every file, if the run wrote one."""

    @property
    def n_read(self) -> int:
        """Files tagged in this run or an earlier one."""
        return self.n_files - len(self.skip_reasons)

    @property
    def n_tagged(self) -> int:
        """Files tagged in this run."""
        return self.n_read - self.n_resumed

    def add(self, chunk: TaggedChunk) -> None:
        """Add the results of a chunk."""
        self.skip_reasons += [tagged.reason for tagged in chunk.files if tagged.reason is not None]
        self.notes += [
            f"{tagged.file}: {'; '.join(faults)}"
            for tagged in chunk.files
            if tagged.reason is None and (faults := tagged.faults.descriptions())
        ]
        self.sound_seconds += sum(tagged.duration_seconds or 0.0 for tagged in chunk.files)
        if self.shift_check is not None:
            for tagged in chunk.files:
                self.shift_check.add(tagged)
        for stage, seconds in chunk.seconds.items():
            self.stage_seconds[stage] += seconds


def tag_to_tables(
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
    """Tag files into tables. A run that was stopped or killed is resumed, and writes the same bytes as without a stop.

    Parameters
    ----------
    tagger : Tagger
    paths : iterable of str or Path
        Files, folders, patterns and URLs: see `find_files`. The rows of the tables follow their order.
    settings : TagSettings
        The windows to tag, the events to report, and the formats.
    files_from : str, optional
        A file that lists more of them, one in each line; - is stdin.
    output : str, optional
        A table or a folder: see `spectag.tagging.output_paths`. Each table is written completely or not at all. By
        default one table is written to stdout, file by file, and the run cannot be resumed.
    shard : Shard, optional
        Tag these files only.
    engine : callable, optional
        Tags chunks of the files, if there is an output. By default the cores of this machine do.
    workers : int, optional
        Number of cores to use.
    progress : Progress
        Called with the number of tagged files.
    log : Log
        Called if an earlier run is resumed, and with the number of files in folders that have other suffixes.

    Raises
    ------
    AudioError
        If a path does not exist, or there is no file to tag.
    ConfigError
        If the formats do not fit the output, or the model has no novelty for `max_novelty`.
    DataError
        If a table or the journal cannot be written; files tagged so far stay tagged. If the template of a submission
        cannot be read, or a clip that it names cannot be tagged.
    BundleError
        If the model is damaged.
    """
    check_novelty(tagger, settings, str(tagger.folder))
    tagger = tagger.with_channel(settings.channel)
    files = find_files(paths, accepted_suffixes(tagger), listed=read_list(files_from) if files_from else (), log=log)
    template = None if settings.template is None else Template.read(settings.template, tagger.labels)
    if not files:
        raise AudioError("no files to tag" if files_from is None else f"{files_from}: the list contains no file")
    if template is not None:
        files = template.files(files)
    if shard is not None:
        files = shard.select(files)
    check = ShiftCheck(tagger.info.training_sounds, tagger.info.novelty, compares_duration=settings.windows is None)
    run = _Run(tagger, files, settings, template, workers, progress, TaggingReport(len(files), shift_check=check))
    if output is None:
        run.write_to_stdout()
    else:
        run.write_to_files(output_paths(output, settings.formats, shard), engine, log)
    return run.report


def check_novelty(tagger: Tagger, settings: TagSettings, model: str) -> None:
    """Raise a ConfigError if the tagger, which the user named `model`, has no novelty for `max_novelty`."""
    if settings.max_novelty is not None and not tagger.has_novelty:
        raise ConfigError(
            f"--max-novelty {settings.max_novelty:g}: {model} has no novelty, because {_why_no_novelty(tagger)}; leave "
            "the option out"
        )


def _why_no_novelty(tagger: Tagger) -> str:
    if tagger.info.data.n_clips_per_label is None:
        return "it is a published model"
    with suppress(ConfigError):
        if read_toml(tagger.folder / RECIPE_FILE).get("mode") == "finetune":
            return "it is fine-tuned"
    if "lwlrap" not in tagger.info.metrics:
        return "no clips were held out in training, and most labels had fewer than three recordings"
    return "it was trained without it"


@dataclass(frozen=True)
class _Run:
    """The files of a run, how to tag them, and what to report."""

    tagger: Tagger
    files: Sequence[str]
    settings: TagSettings
    template: Template | None
    workers: int | None
    progress: Progress
    report: TaggingReport

    def write_to_stdout(self) -> None:
        """Write one table; a file is written as soon as those before it are tagged."""
        if len(self.settings.formats) > 1:
            raise ConfigError(f"{len(self.settings.formats)} formats cannot share stdout; give a folder as -o")
        self._check_formats(in_folder=False)
        tagged: Iterable[TaggedFile] = tag(
            self.tagger,
            self.files,
            window=self.settings.windows,
            workers=self.workers,
            progress=self.progress,
            on_chunk=self.report.add,
        )
        if self.template is not None:  # written completely or not at all
            tagged = list(tagged)
            self.template.refuse_skipped(self.report.skip_reasons)
        (name,) = self.settings.formats
        write(name, self._events(tagged, is_counted=not FORMATS[name].has_all_labels), None, self._context)

    def write_to_files(self, paths: OutputPaths, engine: TaggingEngine | None, log: Log) -> None:
        """Write the tables, the status and the settings, when all files are tagged."""
        self._check_formats(in_folder=paths.in_folder)
        self.report.status = paths.status
        with open_journal(paths.journal, key=_journal_key(self.tagger, self.settings.windows)) as journal:
            paths.remove_unfinished()
            self._fill(journal, engine, log)
            statuses = list(journal.statuses(self.files))  # in the order of the files
            self.report.skip_reasons = [status.reason for status in statuses if status.reason is not None]
            self.report.notes = [
                f"{status.file}: {status.notes}" for status in statuses if status.notes and status.reason is None
            ]
            if self.template is not None:
                self.template.refuse_skipped(self.report.skip_reasons)
            for number, (name, location) in enumerate(paths.tables.items()):
                is_counted = number == 0 and not FORMATS[name].has_all_labels
                events = self._events(journal.tagged(self.files), is_counted=is_counted)
                write(name, events, location, self._context, in_folder=paths.in_folder)
            _write_status(statuses, paths.status)
            with open_output(paths.parameters) as out:
                out.write(f"# spectag tag MODEL PATH... -o OUTPUT --config THIS_FILE\n{self.settings.to_toml()}")
            journal.is_complete = True

    def _check_formats(self, *, in_folder: bool) -> None:
        """Find what would stop the writers before any work is done."""
        check_installed(self.settings.formats)
        if "audacity" in self.settings.formats and not in_folder and len(self.files) > 1:
            raise ConfigError(f"an Audacity track holds one recording, got {len(self.files):,}; give a folder as -o")

    def _fill(self, journal: Journal, engine: TaggingEngine | None, log: Log) -> None:
        """Tag the files that are not in the journal, or have changed since."""
        n_files, known = len(self.files), journal.fingerprints()
        fingerprints = {file: file_fingerprint(file) for file in self.files}
        missing = [file for file in self.files if known.get(file) != fingerprints[file]]
        n_done = self.report.n_resumed = n_files - len(missing)
        if n_done:
            log(f"resuming an earlier run, which tagged {n_done:,} of the {n_files:,} files")
        a_file_may_have_crashed = not journal.is_new and n_files > 1 and bool(missing)
        engine = engine or partial(
            tag_chunks,
            self.tagger,
            window=self.settings.windows,
            workers=self.workers,
            isolate_crashes=a_file_may_have_crashed,
            progress=self.progress,
        )
        self.progress("tagging", n_done, n_files)
        with closing(engine(chunked(missing, self.workers))) as tagged_chunks:
            for _, chunk in tagged_chunks:
                for tagged in chunk.files:
                    journal.add(tagged, fingerprints[tagged.file])
                self.report.add(chunk)
                n_done += len(chunk.files)
                self.progress("tagging", n_done, n_files)
        journal.commit()

    @cached_property
    def _context(self) -> TableContext:
        mel = self.tagger.front_end.mel
        return TableContext(
            labels=self.tagger.labels,
            by_window=not self.settings.joins_windows,
            root=common_folder(self.files),
            low_hz=mel.f_min if mel else 0.0,
            high_hz=mel.f_max if mel else 0.0,
            template=self.template,
            has_novelty=self.tagger.has_novelty,
        )

    def _events(self, tagged_files: Iterable[TaggedFile], *, is_counted: bool) -> Iterator[FileEvents]:
        """The events of the files that were tagged; with `is_counted`, the report counts the files without any."""
        for tagged in tagged_files:
            if tagged.timeline is not None:
                file = detected_events(tagged, tagged.timeline, self.tagger, self.settings)
                if is_counted and not file.events:
                    self.report.n_without_labels += not file.n_suppressed
                    self.report.n_without_known_labels += file.n_suppressed > 0
                self.report.n_suppressed += is_counted * file.n_suppressed
                yield file


def _write_status(statuses: Iterable[FileStatus], location: str) -> None:
    """A row for every file: whether it was tagged, why not, how long the recording is, and what is wrong with it."""
    with open_output(location) as out:
        write_row = csv_writer(out)
        write_row(["file", "status", "reason", "seconds", "expected_seconds", "notes"])
        for status in statuses:
            seconds = ["" if value is None else f"{value:.3f}" for value in (status.seconds, status.expected_seconds)]
            reason = (status.reason or "").removeprefix(f"{status.file}: ")
            write_row([status.file, status.status, reason, *seconds, status.notes])


def _journal_key(tagger: Tagger, window: WindowConfig | None) -> str:
    """A hash of everything that the probabilities depend on, except the files."""
    windows = (window or WindowConfig()).model_dump_json()
    settings = f"{FRONT_END_VERSION} log-mean-exp novelty faults {tagger.channel} {windows}"
    return hashlib.sha256((tagger.folder / INFO_FILE).read_bytes() + settings.encode()).hexdigest()
