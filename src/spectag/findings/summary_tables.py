"""The CSV tables of a summary."""

import shutil
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path

from spectag.config.base import to_toml
from spectag.errors import DataError
from spectag.findings.biodiversity_tables import write_camtrap_dp, write_darwin_core
from spectag.findings.occupancy_tables import OccupancyData, write_camtrapr, write_unmarked
from spectag.findings.summary_results import Summary
from spectag.system.output import csv_writer, open_output

OWN_FOLDERS = ("unmarked", "camtrapR", "darwin_core", "camtrap_dp")
_MARK = "summary.toml"  # says that the folder is one of ours


def write_summary_tables(summary: Summary, folder: Path) -> None:
    """Write all tables into a folder; the tables of an earlier summary there are replaced.

    Raises
    ------
    DataError
        If a table can't be written, or the occasions are too many.
    """
    occupancy = OccupancyData.of(summary)
    _remove_earlier(folder)
    with open_output(folder / _MARK) as out:
        out.write(to_toml(summary.settings))
    _write_counts(summary, folder / "counts.csv")
    _write_labels(summary, folder / "labels.csv")
    _write_sites(summary, folder / "sites.csv")
    _write_recordings(summary, folder / "recordings.csv")
    if occupancy is not None:
        write_unmarked(summary, occupancy, folder / "unmarked")
        write_camtrapr(summary, occupancy, folder / "camtrapR")
    write_darwin_core(summary, folder / "darwin_core")
    write_camtrap_dp(summary, folder / "camtrap_dp")


def _remove_earlier(folder: Path) -> None:
    """Remove our folders of an earlier summary, which may have files of other labels."""
    if not (folder / _MARK).is_file():
        if any((folder / name).exists() for name in OWN_FOLDERS):
            raise DataError(f"{folder}: contains folders that no summary has written; choose another folder")
        return
    for name in OWN_FOLDERS:
        shutil.rmtree(folder / name, ignore_errors=True)


def _write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    with open_output(path) as out:
        write_row = csv_writer(out)
        write_row(columns)
        for row in rows:
            write_row(row)


def _write_counts(summary: Summary, path: Path) -> None:
    keys, labels = summary.settings.keys, summary.activity.labels
    rows = (
        [*values, f"{hours:.6f}", str(int(counts.sum())), *map(str, counts.tolist())]
        for values, hours, counts in summary.activity.counts(keys)
    )
    _write_table(path, [*keys, "effort_hours", "detections", *labels], rows)


def _write_labels(summary: Summary, path: Path) -> None:
    columns = ["label", "detections", "sites", "days", "first", "last", "threshold", "window_threshold"]
    columns += ["precision", "precision_low", "precision_high", "checked", "effort_hours", "per_hour"]
    rows = []
    for row in summary.labels:
        precision = row.precision
        estimates = [] if precision is None else [f"{x:.4f}" for x in (precision.value, precision.low, precision.high)]
        rows.append([
            row.label,
            *map(str, (row.n_detections, row.n_sites, row.n_days)),
            *map(_text, (row.first, row.last)),
            *("" if value is None else f"{value:.6f}" for value in (row.threshold, row.window_threshold)),
            *(estimates or ["", "", ""]),
            "0" if precision is None else str(precision.n_checked),
            f"{summary.hours:.6f}",
            "" if row.per_hour is None else f"{row.per_hour:.6g}",
        ])  # fmt: skip
    _write_table(path, columns, rows)


def _write_sites(summary: Summary, path: Path) -> None:
    columns = ["site", "latitude", "longitude", "recordings", "effort_hours", "detections", "labels", "first", "last"]
    rows = (
        [
            site.site,
            *("" if degrees is None else repr(degrees) for degrees in (site.latitude, site.longitude)),
            str(site.n_recordings),
            f"{site.hours:.6f}",
            *map(str, (site.n_detections, site.n_labels)),
            *map(_text, (site.first, site.last)),
        ]
        for site in summary.sites
    )
    _write_table(path, columns, rows)


def _write_recordings(summary: Summary, path: Path) -> None:
    counts: dict[Path, int] = {}
    for detection in summary.detections:
        counts[detection.path] = counts.get(detection.path, 0) + 1
    rows = (
        [
            recording.file,
            recording.site,
            _text(recording.start),
            "" if recording.seconds is None else f"{recording.seconds:.3f}",
            str(counts.get(recording.path, 0)),
        ]
        for recording in summary.effort.recordings
    )
    _write_table(path, ["file", "site", "recorded", "seconds", "detections"], rows)


def _text(moment: datetime | None) -> str:
    if moment is None:
        return ""
    return moment.isoformat(timespec="milliseconds" if moment.microsecond else "seconds")
