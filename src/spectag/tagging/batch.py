"""Tagging many files into tables. A run that is stopped or killed can be resumed, and loses nothing."""

import hashlib
import math
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

from spectag.audio.mel import FRONT_END_VERSION
from spectag.config.base import LongRecordingWindows, SegmentFrames, WindowConfig, read_toml
from spectag.config.tagging import LONG_RATIO, TagSettings
from spectag.data.deployments import PlaceFinder, read_deployments
from spectag.data.detections import PLACE_COLUMNS
from spectag.data.label_map import LabelMap, names_for
from spectag.data.label_priors import read_label_priors
from spectag.errors import AudioError, ConfigError
from spectag.models.bundle import INFO_FILE, RECIPE_FILE
from spectag.models.tagger import Tagger
from spectag.system.environment import library_version
from spectag.system.output import csv_writer, open_output
from spectag.system.paths import common_folder
from spectag.system.progress import Log, Progress, no_log, silent
from spectag.system.storage import file_fingerprint
from spectag.tagging.chosen_labels import ChosenLabels
from spectag.tagging.events import FileEvents, detected_events, renamed, windows_to_tag
from spectag.tagging.formats.dispatch import FORMATS, TableContext, check_installed, write
from spectag.tagging.formats.submission import Template
from spectag.tagging.input_files import Shard, find_files, no_files_in_list, read_list
from spectag.tagging.journal import FileStatus, Journal, open_journal
from spectag.tagging.output_paths import OutputPaths, output_paths
from spectag.tagging.parallel import Chunk, TaggedChunk, TaggedFile, accepted_suffixes, chunked, tag, tag_chunks
from spectag.tagging.recording_priors import RecordingPriors
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
    most_probable: tuple[float, str] = (0.0, "")
    """The greatest probability in these files, and its label."""
    longest_clip_seconds: float = math.inf
    """Longer recordings are reported in segments by default, others as a whole."""
    n_in_segments: int = 0
    """Recordings reported in segments because of their length."""
    n_averaged: int = 0
    """Recordings of that length, tagged in this run, that are reported as a whole."""
    n_without_known_labels: int = 0
    """Files that lose all their tags because of their novelty."""
    n_suppressed: int = 0
    """Tags that are left out because of their novelty."""
    n_hidden: int = 0
    """Tags or segments that are hidden by the priors."""
    n_files_with_hidden: int = 0
    """Files in which there are any."""
    prior_notes: list[str] = field(default_factory=list)
    """Why lines of the priors do not apply to some of the recordings."""
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
        durations = [tagged.duration_seconds or 0.0 for tagged in chunk.files]
        self.sound_seconds += sum(durations)
        self.n_averaged += sum(
            duration > self.longest_clip_seconds and len(tagged.timeline.starts) == 1 and tagged.timeline.frames is None
            for duration, tagged in zip(durations, chunk.files, strict=True)
            if tagged.timeline is not None
        )
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
        cannot be read, or a clip that it names cannot be tagged. If a list of labels cannot be read.
    BundleError
        If the model is damaged.
    """
    check_novelty(tagger, settings, str(tagger.folder))
    tagger = tagger.with_channel(settings.channel)
    files = find_files(paths, accepted_suffixes(tagger), listed=read_list(files_from) if files_from else (), log=log)
    chosen = ChosenLabels.read(tagger.labels, settings.labels, settings.not_labels, words=settings.words)
    for match in chosen.matches:
        log(match)
    template = None if settings.template is None else Template.read(settings.template, tagger.labels)
    if not files:
        raise AudioError("no files to tag" if files_from is None else no_files_in_list(files_from))
    if template is not None:
        files = template.files(files)
    if shard is not None:
        files = shard.select(files)
    places = _places(settings, files)
    priors = _priors(settings, tagger, places)
    names = None if settings.names is None else names_for(tagger.labels, settings.names)
    window = windows_to_tag(tagger, settings)
    check = ShiftCheck(tagger.info.training_sounds, tagger.info.novelty, compares_duration=settings.window is None)
    longest = LONG_RATIO * tagger.info.clip_seconds
    report = TaggingReport(len(files), shift_check=check, longest_clip_seconds=longest)
    places = places if settings.has_places else None
    run = _Run(tagger, files, settings, window, template, workers, progress, report, chosen, places, priors, names)
    if output is None:
        run.write_to_stdout()
    else:
        run.write_to_files(output_paths(output, settings.formats, shard), engine, log)
    return run.report


def _places(settings: TagSettings, files: Sequence[str]) -> PlaceFinder | None:
    """Finds sites and times; None if nothing needs them. Raises a ConfigError if the site is not in a path."""
    if not settings.has_places and settings.prior is None:
        return None
    deployments = None if settings.deployments is None else read_deployments(settings.deployments)
    places = PlaceFinder(settings.site_from, deployments)
    places.check(files)
    return places


def _priors(settings: TagSettings, tagger: Tagger, places: PlaceFinder | None) -> RecordingPriors | None:
    if settings.prior is None or places is None:
        return None
    return RecordingPriors(read_label_priors(settings.prior, tagger.labels), places)


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
    if tagger.info.extends is not None:
        return f"it also has the labels of {tagger.info.extends.model}, which knows more than its training sounds"
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
    window: WindowConfig | None
    template: Template | None
    workers: int | None
    progress: Progress
    report: TaggingReport
    chosen: ChosenLabels
    places: PlaceFinder | None
    """Of the columns of tables."""
    priors: RecordingPriors | None
    names: LabelMap | None
    """Of the events in tables."""

    def write_to_stdout(self) -> None:
        """Write one table; a file is written as soon as those before it are tagged."""
        if len(self.settings.formats) > 1:
            raise ConfigError(f"{len(self.settings.formats)} formats cannot share stdout; give a folder as -o")
        self._check_formats(in_folder=False)
        tagged: Iterable[TaggedFile] = tag(
            self.tagger,
            self.files,
            window=self.window,
            workers=self.workers,
            progress=self.progress,
            on_chunk=self.report.add,
        )
        if self.template is not None:  # written completely or not at all
            tagged = list(tagged)
            self.template.refuse_skipped(self.report.skip_reasons)
        (name,) = self.settings.formats
        write(name, self._events(tagged, is_counted=not FORMATS[name].has_all_labels), None, self._context)
        self._report_priors()

    def write_to_files(self, paths: OutputPaths, engine: TaggingEngine | None, log: Log) -> None:
        """Write the tables, the status and the settings, when all files are tagged."""
        self._check_formats(in_folder=paths.in_folder)
        self.report.status = paths.status
        with open_journal(paths.journal, key=_journal_key(self.tagger, self.window)) as journal:
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
            self._report_priors()
            n_hidden = None if self.priors is None else self.priors.n_hidden
            _write_status(statuses, paths.status, self.chosen, self.places, n_hidden)
            with open_output(paths.parameters) as out:
                out.write(
                    f"# spectag tag MODEL PATH... -o OUTPUT --config THIS_FILE\n{self._origin()}{self._parameters()}"
                )
                out.write("" if self.priors is None else self.priors.as_comments())
            journal.is_complete = True

    def _origin(self) -> str:
        """Comments that say which program and model the tags are from, and which windows they used."""
        folder, info_hash = self.tagger.folder, hashlib.sha256((self.tagger.folder / INFO_FILE).read_bytes())
        lines = [
            f"spectag {library_version('spectag')}",
            f"model {self.tagger.info.backbone.name!r} in {str(folder)!r}, SHA-256 of its {INFO_FILE}: "
            f"{info_hash.hexdigest()}",
        ]
        if not isinstance(self.window, SegmentFrames):
            lines.append(_windows_text(self.window))
        return "".join(f"# {line}\n" for line in lines)

    def _parameters(self) -> str:
        """The settings as TOML, and in a comment how the frames of the model were joined."""
        frames, mel = self.tagger.info.frames, self.tagger.front_end.mel
        if frames is None or mel is None or not isinstance(self.window, SegmentFrames):
            return self.settings.to_toml()
        smooth = self.settings.smooth_windows or frames.smooth_frames
        hysteresis = frames.hysteresis if self.settings.hysteresis is None else self.settings.hysteresis
        return (
            f"# segments from frames of {frames.frame_seconds(mel):g} s: gaps shorter than {frames.closed_frames} "
            f"frames filled, median of {smooth}, hysteresis {hysteresis:g}\n{self.settings.to_toml(has_frames=True)}"
        )

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
            window=self.window,
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
            labels=self.chosen.labels,
            root=common_folder(self.files),
            low_hz=mel.f_min if mel else 0.0,
            high_hz=mel.f_max if mel else 0.0,
            template=self.template,
            has_novelty=self.tagger.has_novelty,
            has_places=self.places is not None,
        )

    def _events(self, tagged_files: Iterable[TaggedFile], *, is_counted: bool) -> Iterator[FileEvents]:
        """The events of the files that were tagged; with `is_counted`, the report counts the files without any."""
        for tagged in tagged_files:
            if tagged.timeline is not None:
                detect = partial(
                    detected_events, tagged, tagger=self.tagger, settings=self.settings, chosen=self.chosen
                )
                if self.priors is None:
                    file = detect(tagged.timeline)
                else:
                    file = self.priors.apply(tagged.file, tagged.timeline, detect)
                if self.places is not None:
                    file = replace(file, place=self.places.place_of(Path(file.file)))
                if is_counted and self.settings.depends_on_duration:
                    self.report.n_in_segments += not file.by_window
                if is_counted and not file.events:
                    self.report.n_without_known_labels += file.n_suppressed > 0
                    if not file.n_suppressed:
                        self.report.n_without_labels += 1
                        self._remember_most_probable(file)
                self.report.n_suppressed += is_counted * file.n_suppressed
                yield file if self.names is None else renamed(file, self.names)

    def _report_priors(self) -> None:
        if self.priors is not None:
            self.report.n_hidden = sum(self.priors.n_hidden.values())
            self.report.n_files_with_hidden = len(self.priors.n_hidden)
            self.report.prior_notes = list(self.priors.notes())

    def _remember_most_probable(self, file: FileEvents) -> None:
        """Note the most probable label of a file without events, for a hint."""
        peaks = file.timeline.probabilities.max(axis=0)
        column = int(peaks.argmax())
        self.report.most_probable = max(
            self.report.most_probable, (float(peaks[column]), self.chosen.labels.names[column])
        )


def _windows_text(window: WindowConfig | None) -> str:
    if window is None:
        return "recordings as a whole"
    text = f"windows of {window.window_seconds:g} s with an overlap of {window.overlap_seconds:g} s"
    if isinstance(window, LongRecordingWindows):
        text += f" in recordings longer than {window.longer_than_seconds:g} s, others as a whole"
    return text


def _write_status(
    statuses: Iterable[FileStatus],
    location: str,
    chosen: ChosenLabels,
    places: PlaceFinder | None,
    n_hidden: Mapping[str, int] | None,
) -> None:
    """A row for every file: whether it was tagged, why not, its length, how many labels count, and what is wrong."""
    with open_output(location) as out:
        write_row = csv_writer(out)
        columns = ["file", "status", "reason", "seconds", "expected_seconds", "labels", "notes"]
        columns += [] if n_hidden is None else ["hidden_by_prior"]
        write_row(columns if places is None else [*columns, *PLACE_COLUMNS])
        for status in statuses:
            seconds = ["" if value is None else f"{value:.3f}" for value in (status.seconds, status.expected_seconds)]
            reason = (status.reason or "").removeprefix(f"{status.file}: ")
            place = () if places is None else places.place_of(Path(status.file)).fields(0.0)
            hidden = [] if n_hidden is None else [str(n_hidden.get(status.file, 0)) if status.reason is None else ""]
            write_row([status.file, status.status, reason, *seconds, str(chosen), status.notes, *hidden, *place])


def _journal_key(tagger: Tagger, window: WindowConfig | None) -> str:
    """A hash of everything that the probabilities depend on, except the files."""
    windows = (window or WindowConfig()).model_dump_json()
    kind = "float32 frames" if isinstance(window, SegmentFrames) else "windows"
    settings = f"{FRONT_END_VERSION} log-mean-exp novelty faults least-new {tagger.channel} {kind} {windows}"
    return hashlib.sha256((tagger.folder / INFO_FILE).read_bytes() + settings.encode()).hexdigest()
