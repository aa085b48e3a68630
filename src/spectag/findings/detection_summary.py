"""What occurred where and when: counts of detections beside the hours that were recorded, as a page and as tables."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from spectag.config.findings import SummarySettings
from spectag.data.checked_detections import (
    CHECK_FILE,
    CheckInfo,
    read_check_info,
    read_decisions,
)
from spectag.data.deployments import PlaceFinder, read_deployments
from spectag.data.detections import DetectedSound, DetectionTable, read_detections
from spectag.data.sites import check_site_pattern
from spectag.errors import ConfigError, DataError, MissingExtraError, did_you_mean
from spectag.findings.activity import Activity
from spectag.findings.label_precision import LabelPrecision, precisions_of
from spectag.findings.recorded_effort import (
    Clock,
    EffortReader,
    RecordedEffort,
    SummarisedRecording,
    status_tables_beside,
)
from spectag.findings.summary_page import write_summary_page
from spectag.findings.summary_results import LabelSummary, SiteSummary, Summary, clock_time
from spectag.findings.summary_tables import write_summary_tables
from spectag.findings.sun_times import SunriseActivity, load_astral, sunrise_activity
from spectag.models.model_labels import ModelLabel, ThresholdKind, model_labels
from spectag.reporting.html_pages import check_page_path
from spectag.system.output import check_output_folder
from spectag.system.progress import Log, Progress, no_log, shows_progress, silent


@shows_progress
def summary(
    detections: str | Path,
    output: str | Path | None = None,
    settings: SummarySettings | None = None,
    *,
    tables: str | Path | None = None,
    min_probability: float = 0.0,
    recordings: Sequence[str | Path] = (),
    status: Sequence[str | Path] = (),
    site_from: str | None = None,
    deployments: str | Path | None = None,
    model: str | None = None,
    apply_thresholds: ThresholdKind | None = None,
    checked: str | Path | None = None,
    audio_dir: str | Path | None = None,
    label_column: str | None = None,
    label_separator: str | None = None,
    command: str | None = None,
    progress: Progress = silent,
    log: Log = no_log,
) -> Summary:
    """Count detections by site, day and hour, beside recorded hours.

    Times and sites come from the columns `recorded` and `site` of the table, else from the recordings and their names.
    The recordings themselves are needed only for what the tables do not say.

    Parameters
    ----------
    detections : path
        A table that `read_detections` reads.
    output : path, optional
        The page, .html.
    settings : SummarySettings, optional
    tables : path, optional
        A folder for CSV tables: see docs/reference/output-files.md.
    min_probability : float
        Detections below are left out.
    recordings : sequence of path
        Folders or files. Recordings in which nothing was detected count as effort, too.
    status : sequence of path
        Tables of `spectag tag` with all tagged files and their lengths. By default the one beside the detections.
    site_from : str, optional
        As for `spectag.data.sites.place_of`.
    deployments : path, optional
        As for `spectag.data.deployments.read_deployments`.
    model : str, optional
        Folder or name of the model, whose thresholds are stated.
    apply_thresholds : {"windows", "clips"}, optional
        Count only detections that reach the model's thresholds for short windows, or for whole clips. By default all
        detections of the table are counted.
    checked : path, optional
        decisions.csv of `spectag check`, from which the precision of each label is estimated.
    audio_dir, label_column, label_separator
        As for `read_detections`.
    command : str, optional
        The command line, which the page prints.
    progress : Progress
    log : Log

    Returns
    -------
    Summary

    Raises
    ------
    DataError
        If a table is not understood, or the output can't be written; or if thresholds are to be applied to detections
        without a probability, or with a label that the model does not have.
    ConfigError
        If the page is not .html, the site is not found in a path, or thresholds are to be applied without a model.
    """
    settings = settings or SummarySettings()
    _check_outputs(output, tables)
    if apply_thresholds is not None and model is None:
        raise ConfigError("--apply-thresholds needs the model that has the thresholds: --model")
    if site_from is not None:
        check_site_pattern(site_from)
    places = PlaceFinder(site_from, None if deployments is None else read_deployments(deployments))
    rows, info = ([], None) if checked is None else (read_decisions(checked), _check_info(Path(checked)))
    thresholds = {} if model is None else {row.label: row for row in model_labels(model, log=log)}
    applied = {label: row.threshold_of(apply_thresholds) for label, row in thresholds.items() if apply_thresholds}
    table = read_detections(
        detections,
        audio_dir=audio_dir,
        label_column=label_column,
        label_separator=label_separator,
        min_probability=min_probability,
        min_in_windows=max(min_probability, min(applied.values(), default=0.0)),
        missing_ok=True,
    )
    if apply_thresholds is not None:
        table = replace(table, detections=tuple(_reaching(table, applied)))
    reader = EffortReader(places, _clock(settings), None if audio_dir is None else Path(audio_dir), progress)
    effort = reader.read(table, _status_tables(table, status), list(recordings))
    if not effort.recordings:
        raise DataError(
            f"{table.source}: the table names no recordings; name their folder with --recordings, or the status.csv of "
            "spectag tag with --status"
        )
    result = _summarised(table, effort, settings, min_probability)
    result = replace(
        result,
        model=model,
        applied_thresholds=apply_thresholds,
        checked=None if checked is None else Path(checked),
        decisions={row.key: row.decision for row in rows if row.decision},
        labels=_with_quality(result.labels, thresholds, precisions_of(result.detections, rows, info)),
    )
    if output is not None:
        write_summary_page(result, Path(output), command=command)
    if tables is not None:
        write_summary_tables(result, Path(tables))
    return result


def _check_outputs(output: str | Path | None, tables: str | Path | None) -> None:
    if output is not None:
        check_page_path(Path(output))
    if tables is not None:
        check_output_folder(Path(tables))
        if output is not None and Path(output) == Path(tables):
            raise ConfigError(f"the page and the folder of the tables are both {output}; name different ones")


def _reaching(table: DetectionTable, thresholds: Mapping[str, float]) -> Iterator[DetectedSound]:
    """The detections that reach the threshold of their label."""
    for sound in table.detections:
        if sound.label not in thresholds:
            hint = did_you_mean(sound.label, thresholds)
            raise DataError(
                f"{table.source}: the model has no label {sound.label!r}{hint}; apply the thresholds of the model that "
                "detected it, or leave out --apply-thresholds"
            )
        if sound.probability is None:
            raise DataError(
                f"{table.source}: a detection of {sound.label} in {sound.file} has no probability, so no threshold can "
                "be applied; leave out --apply-thresholds"
            )
        if sound.probability >= thresholds[sound.label]:
            yield sound


def _clock(settings: SummarySettings) -> Clock:
    zones = (settings.timezone, settings.recorder_timezone)
    return Clock(*(None if zone is None else ZoneInfo(zone) for zone in zones))


def _status_tables(table: DetectionTable, status: Sequence[str | Path]) -> list[Path]:
    return [Path(path) for path in status] or status_tables_beside(table.source)


def _check_info(checked: Path) -> CheckInfo | None:
    """How the sample was drawn; None without a check.json."""
    return read_check_info(checked) if (checked.parent / CHECK_FILE).is_file() else None


def _summarised(
    table: DetectionTable, effort: RecordedEffort, settings: SummarySettings, min_probability: float
) -> Summary:
    known = {recording.path for recording in effort.recordings}
    detections = tuple(detection for detection in table.detections if detection.path in known)
    counts = Counter(detection.label for detection in detections)
    labels = [label for label, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    activity = Activity.of(detections, effort.recordings, labels)
    sunrise, no_sunrise = _sunrise(detections, effort.recordings, labels)
    return Summary(
        source=table.source,
        settings=settings,
        min_probability=min_probability,
        detections=detections,
        effort=effort,
        activity=activity,
        labels=_label_summaries(detections, effort.recordings, counts, activity),
        sites=_site_summaries(effort.recordings, activity),
        sunrise=sunrise,
        no_sunrise=no_sunrise,
        model=None,
        applied_thresholds=None,
        checked=None,
        decisions={},
    )


def _sunrise(
    detections: Sequence[DetectedSound], recordings: Sequence[SummarisedRecording], labels: Sequence[str]
) -> tuple[SunriseActivity | None, str]:
    """Times after sunrise, or why there are none."""
    if all(recording.latitude is None for recording in recordings):
        return None, "no latitude and longitude is known; give them with --deployments"
    if all(recording.start is None or recording.start.tzinfo is None for recording in recordings):
        return None, "the time zone of the recordings is unknown; give it with --timezone"
    try:
        load_astral()
    except MissingExtraError as error:
        return None, str(error)
    found = sunrise_activity(detections, recordings, labels)
    return found, "" if found is not None else "no recording has both a place and a time zone"


def _label_summaries(
    detections: Sequence[DetectedSound],
    recordings: Sequence[SummarisedRecording],
    counts: Mapping[str, int],
    activity: Activity,
) -> tuple[LabelSummary, ...]:
    of_path = {recording.path: recording for recording in recordings}
    sites, days = defaultdict[str, set[str]](set), defaultdict[str, set[date]](set)
    ends: dict[str, tuple[datetime, datetime]] = {}
    for detection in detections:
        recording = of_path[detection.path]
        sites[detection.label].add(recording.site)
        if (moment := recording.time_of(detection.start_seconds)) is not None:
            first, last = ends.get(detection.label, (moment, moment))
            ends[detection.label] = min(first, moment, key=clock_time), max(last, moment, key=clock_time)
            days[detection.label].add(moment.date())
    in_effort = activity.label_by_site(in_effort=True).sum(axis=1).tolist()
    summaries = []
    for label, count in zip(activity.labels, in_effort, strict=True):
        earliest, latest = ends.get(label, (None, None))
        per_hour = count / activity.hours if activity.hours else None
        n_sites, n_days = len(sites[label]), len(days[label])
        summaries.append(LabelSummary(label, counts[label], n_sites, n_days, earliest, latest, per_hour))
    return tuple(summaries)


def _site_summaries(recordings: Sequence[SummarisedRecording], activity: Activity) -> tuple[SiteSummary, ...]:
    own: dict[str, list[SummarisedRecording]] = defaultdict(list)
    for recording in recordings:
        own[recording.site].append(recording)
    matrix, hours = activity.label_by_site(), activity.hours_by_site()
    summaries = []
    for number, site in enumerate(activity.sites):
        starts = sorted((r.start for r in own[site] if r.start is not None), key=clock_time)
        places = ((r.latitude, r.longitude) for r in own[site] if r.latitude is not None)
        column = matrix[:, number]
        summaries.append(
            SiteSummary(
                site,
                len(own[site]),
                float(hours[number]),
                int(column.sum()),
                int((column > 0).sum()),
                starts[0] if starts else None,
                starts[-1] if starts else None,
                *next(places, (None, None)),
            )
        )
    return tuple(summaries)


def _with_quality(
    labels: Sequence[LabelSummary], thresholds: Mapping[str, ModelLabel], precisions: Mapping[str, LabelPrecision]
) -> tuple[LabelSummary, ...]:
    with_precision = [replace(row, precision=precisions.get(row.label)) for row in labels]
    return tuple(
        replace(row, threshold=known.threshold, window_threshold=known.window_threshold)
        if (known := thresholds.get(row.label)) is not None
        else row
        for row in with_precision
    )
