"""A sample of detections that is open to be checked: drawn or found in its folder, shown on a page, described."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from shlex import join

from filelock import FileLock, Timeout

from spectag.config.findings import CheckSettings
from spectag.data.checked_detections import (
    CHECK_FILE,
    DECISIONS_FILE,
    SAMPLE_FILE,
    CheckedDetection,
    CheckInfo,
    read_check_info,
    read_decisions,
    write_check_info,
    write_decisions,
    write_sample,
)
from spectag.data.detections import DetectedSound, DetectionTable, read_detections
from spectag.data.labels import LabelSet
from spectag.data.sites import RecordingPlace, check_site_pattern, place_of
from spectag.errors import ConfigError, DataError
from spectag.findings.check_protocol import LabelDecisions, count_decisions, protocol_text
from spectag.findings.checked_sample import (
    describe_labels,
    detections_fingerprint,
    draw_sample,
    presence_unit,
    unique_detections,
)
from spectag.findings.decision_store import DecisionStore
from spectag.findings.training_clips import TrainingClips, write_training_clips
from spectag.models.pretrained import load
from spectag.models.tagger import Tagger
from spectag.reporting.check_page import render_check_card, render_check_page
from spectag.reporting.detection_view import view_detection
from spectag.reporting.number_texts import quantity
from spectag.system.browser import open_in_browser
from spectag.system.output import check_output_folder, open_output
from spectag.system.progress import Log, Progress, no_log, silent
from spectag.tagging.chosen_labels import ChosenLabels

PROTOCOL_FILE, CLIPS_FOLDER = "protocol.md", "clips"
_LOCK, _LOCK_SECONDS = ".check.lock", 0.5  # the page of a server has it for a moment, for each decision
_SAME_SETTINGS = ("seed", "n_per_label", "across", "presence", "site_from", "min_probability", "max_probability")


@dataclass(frozen=True)
class CheckResult:
    """A sample of detections, and what was decided so far."""

    decisions: Path
    """The table of the sample with the decisions, for `spectag calibrate MODEL --checked`."""
    protocol: Path
    counts: dict[str, LabelDecisions]
    """By label."""
    clips: TrainingClips | None = None
    """The training clips, if they were wanted."""
    next_command: str = ""
    """The command that fits thresholds; empty if nothing is decided, or with `presence`."""
    train_command: str = ""
    """The command that trains on the training clips; empty without a confirmed one."""
    presence: bool = False
    """As in the settings."""


@dataclass(frozen=True)
class _CheckedTable:
    """The detections of a table within the limits, and their recordings."""

    detections: Sequence[DetectedSound]
    all_detections: Sequence[DetectedSound]
    """Also those of other labels and probabilities."""
    places: Mapping[Path, RecordingPlace]

    @property
    def paths(self) -> dict[str, Path]:
        """The recordings by their names, without the spaces around them, which tables lose."""
        return {sound.file.strip(): sound.path for sound in self.detections}


class CheckSession:
    """A sample that is open for decisions."""

    def __init__(
        self, tagger: Tagger, table: _CheckedTable, info: CheckInfo, settings: CheckSettings, output: Path
    ) -> None:
        self._tagger, self._table, self._info, self._settings, self._output = tagger, table, info, settings, output
        self._store = DecisionStore(output / DECISIONS_FILE)
        self._paths = table.paths

    def serve(
        self, show_address: Callable[[str], None], *, port: int | None = None, browser: bool = True, reviewer: str = ""
    ) -> None:
        """Show the page until the process is interrupted.

        Parameters
        ----------
        show_address : callable
            Gets the address of the page.
        port : int, optional
            Of the server; by default one that is free.
        browser : bool
            Open the page in the browser.
        reviewer : str
            Name of who decides; by default who decided last.

        Raises
        ------
        ConfigError
            If the port cannot be used.
        """
        from spectag.findings.check_server import make_check_app, serve_check

        page = partial(self._page, reviewer or self._last_reviewer())
        with serve_check(
            lambda token, port: make_check_app(self._store, page, self._card, token=token, port=port), port
        ) as (address, has_ended):
            try:
                show_address(address)
                if browser:
                    open_in_browser(address)
                while not has_ended.wait(0.5):
                    pass
            except KeyboardInterrupt:
                pass  # the usual end

    def finish(
        self, *, training_clips: bool = False, workers: int | None = None, progress: Progress = silent
    ) -> CheckResult:
        """Write the protocol and, if wanted, the training clips."""
        rows, info, output = self._store.rows, self._info, self._output
        with open_output(output / PROTOCOL_FILE) as file:
            file.write(protocol_text(rows, info, self._settings))
        clips, train_command = None, ""
        if training_clips:
            folder, detections = output / CLIPS_FOLDER, self._table.all_detections
            clips = write_training_clips(rows, self._paths, detections, folder, workers=workers, progress=progress)
            if clips.n_positives:
                train_command = join(["spectag", "train", str(clips.manifest), "-o", "next-model"])
        command = calibrate_command_line(info, output) if any(row.decision for row in rows) else ""
        return CheckResult(
            output / DECISIONS_FILE,
            output / PROTOCOL_FILE,
            count_decisions(rows, info),
            clips,
            command,
            train_command,
            info.presence,
        )

    @property
    def rows(self) -> tuple[CheckedDetection, ...]:
        """The sample, with the decisions."""
        return self._store.rows

    def _last_reviewer(self) -> str:
        decided = [row for row in self._store.rows if row.time is not None]
        return max(decided, key=lambda row: str(row.time)).reviewer if decided else ""

    def _page(self, reviewer: str) -> str:
        revision, rows = self._store.revision, self._store.rows
        n_labels = len({row.label for row in rows})
        command = calibrate_command_line(self._info, self._output)
        return render_check_page(
            rows,
            self._tagger.labels.names,
            title=f"Check of {Path(self._info.table).name}",
            about=f"{quantity(len(rows), 'detection')} of {quantity(n_labels, 'label')} to check. Decide whether you "
            "hear the label in the marked part. Each decision is saved at once.",
            finished=f"Press Ctrl-C in the terminal. Then {'fit thresholds:' if command else f'see {DECISIONS_FILE}.'}",
            command=command,
            reviewer=reviewer,
            revision=revision,
            units=["\n".join(presence_unit(row)) for row in rows] if self._info.presence else None,
        )

    def _card(self, index: int) -> str:
        row = self._store.rows[index]
        mel, channel = self._tagger.front_end.mel, self._tagger.channel
        times = row.start_seconds, row.end_seconds
        view = view_detection(
            self._paths[row.file], row.file, *times, mel, context=self._settings.context, channel=channel
        )
        return render_check_card(view)


@contextmanager
def open_check(
    model: str | Path | Tagger,
    detections: str | Path,
    output: Path,
    settings: CheckSettings,
    *,
    labels: str | Path | frozenset[str] | None = None,
    min_probability: float | None = None,
    max_probability: float | None = None,
    audio_dir: str | Path | None = None,
    label_column: str | None = None,
    label_separator: str | None = None,
    site_from: str | None = None,
    progress: Progress = silent,
    log: Log = no_log,
) -> Iterator[CheckSession]:
    """The sample in a folder, or a new one. No other process can open it during the `with` block.

    The parameters and errors are those of `spectag.check`; `labels` may also be the labels themselves.
    """
    check_output_folder(output)
    if site_from is not None:
        check_site_pattern(site_from)
    before = read_check_info(output) if (output / CHECK_FILE).exists() else None
    if before is not None:
        settings = _continued(settings, before)
        min_probability = before.min_probability if min_probability is None else min_probability
        max_probability = before.max_probability if max_probability is None else max_probability
        site_from = site_from or before.site_from
    min_probability = min_probability or 0.0
    tagger = model if isinstance(model, Tagger) else load(model, progress=progress, log=log)
    found = read_detections(
        detections,
        audio_dir=audio_dir,
        label_column=label_column,
        label_separator=label_separator,
        min_in_windows=min_probability,
        missing_ok=True,
    )
    chosen = _chosen_labels(tagger.labels, labels, before)
    table = _within_limits(found, tagger.labels, chosen, (min_probability, max_probability), site_from)
    wanted = CheckInfo(
        table=str(detections),
        model=str(model.folder if isinstance(model, Tagger) else model),
        seed=settings.seed,
        n_per_label=settings.per_label,
        across=settings.across,
        presence=settings.presence,
        site_from=site_from,
        min_probability=min_probability,
        max_probability=max_probability,
        created=datetime.now().astimezone(),
        spectag=version("spectag"),
        fingerprint=detections_fingerprint(table.detections),
        labels={},
    )
    output.mkdir(parents=True, exist_ok=True)
    with locked_check(output):
        yield CheckSession(tagger, table, _open_sample(output, wanted, table, settings), settings, output)


@contextmanager
def locked_check(folder: Path) -> Iterator[None]:
    """Keep other processes, and other users of this function, from changing a sample during the `with` block.

    Raises
    ------
    ConfigError
        If somebody else has it open.
    """
    lock = FileLock(folder / _LOCK)
    try:
        lock.acquire(timeout=_LOCK_SECONDS)
    except Timeout as error:
        raise ConfigError(
            f"{folder}: another spectag check is open on this folder; use its page, which several browsers may have "
            "open, or end it first"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _continued(settings: CheckSettings, before: CheckInfo) -> CheckSettings:
    """The settings, with those of an earlier sample where nothing else was asked for."""
    stored = {"per_label": before.n_per_label, "across": before.across, "presence": before.presence}
    stored["seed"] = before.seed
    given = settings.model_fields_set
    return settings.model_copy(update={name: value for name, value in stored.items() if name not in given})


def _chosen_labels(
    known: LabelSet, labels: str | Path | frozenset[str] | None, before: CheckInfo | None
) -> frozenset[str]:
    """The labels to check: those that are given, of the file, of an earlier sample, or all."""
    if isinstance(labels, frozenset):
        return labels
    if labels is not None:
        return frozenset(ChosenLabels.read(known, Path(labels), None).labels.names)
    return frozenset(before.labels if before is not None and before.labels else known.names)


def _within_limits(
    table: DetectionTable,
    known: LabelSet,
    chosen: frozenset[str],
    limits: tuple[float, float | None],
    site_from: str | None,
) -> _CheckedTable:
    """The detections of chosen labels within the limits of probability."""
    if table.recordings and not any(path.is_file() for path in table.recordings):
        raise DataError(
            f"{table.source}: none of its {len(table.recordings):,} recordings is found, such as "
            f"{table.recordings[0]}; name the folder that contains them with --audio-dir"
        )
    everything = unique_detections(table.detections)
    low, high = limits[0], float("inf") if limits[1] is None else limits[1]
    found = []
    for sound in everything:
        known.index(sound.label, where=str(table.source))
        if sound.label in chosen and (sound.probability is None or low <= sound.probability < high):
            found.append(sound)
    of_table = {} if site_from else table.places
    places = {path: of_table.get(path) or place_of(path, site_from) for path in {sound.path for sound in found}}
    return _CheckedTable(found, everything, places)


def _open_sample(output: Path, wanted: CheckInfo, table: _CheckedTable, settings: CheckSettings) -> CheckInfo:
    """How the sample in the output was drawn; if there is none, it is drawn now."""
    if (output / CHECK_FILE).exists():
        found = read_check_info(output)
        for name in _SAME_SETTINGS:
            before, now = getattr(found, name), getattr(wanted, name)
            if before != now:
                raise ConfigError(
                    f"{output}: contains a sample with {name.removeprefix('n_')} = {_shown(before)}, not "
                    f"{_shown(now)}; leave out the option to continue it, or choose another folder"
                )
        if found.fingerprint != wanted.fingerprint:
            raise ConfigError(
                f"{output}: contains a sample of other detections; the table has changed, or other labels were chosen. "
                "Choose another folder"
            )
        read_decisions(output / DECISIONS_FILE)
        return found
    if (output / DECISIONS_FILE).exists() and any(row.decision for row in read_decisions(output / DECISIONS_FILE)):
        raise DataError(
            f"{output / CHECK_FILE}: no such file, but {DECISIONS_FILE} has decisions; choose another folder"
        )
    sample = draw_sample(table.detections, settings, table.places)
    info = wanted.model_copy(update={"labels": describe_labels(table.detections, sample)})
    write_sample(output / SAMPLE_FILE, sample)
    write_decisions(output / DECISIONS_FILE, sample)
    write_check_info(output / CHECK_FILE, info)  # at last: it says that the others are complete
    return info


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "none"
    return "none" if value is None else str(value)


def calibrate_command_line(info: CheckInfo, output: Path) -> str:
    """The command that uses the decisions; empty with `presence`, which is no random sample."""
    if info.presence:
        return ""
    checked = str(output / DECISIONS_FILE)
    return join(["spectag", "calibrate", info.model, "--checked", checked, "--precision", "0.9", "-o", "new-model"])
