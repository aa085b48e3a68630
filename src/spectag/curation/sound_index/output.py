"""What was found, as tables and for programs."""

from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any

from spectag.audio.files import AUDIO_SUFFIXES
from spectag.curation.sound_index.searching import Found
from spectag.data.corrections import join_labels
from spectag.errors import ConfigError
from spectag.system.output import csv_writer, written

COLUMNS = ("similarity", "file", "start", "end", "labels", "recorded", "date_from")


def check_output(output: str) -> None:
    """Raise a ConfigError if a table is to be written over a recording, for -o *.wav is soon typed, or another file."""
    suffix = PurePath(output).suffix.lower()
    if suffix in AUDIO_SUFFIXES:
        raise ConfigError(f"-o {output}: {suffix} is that of a recording; give a table, such as found.csv")
    path = Path(output)
    if path.is_file() and path.stat().st_size and not path.read_bytes().startswith(",".join(COLUMNS).encode()):
        raise ConfigError(f"-o {output}: is there already and holds something else, which would be lost; name another")


def write_found(found: Sequence[Found], location: str | Path | None) -> None:
    """Write what was found as CSV, most alike first.

    Columns: similarity, file, start, end (seconds), labels (with commas between them), recorded (2024-05-01T05:30:00),
    date_from (name or file: what the date was taken from).

    Raises
    ------
    DataError
        If it can't be written.
    """
    with written(location) as out:
        write_row = csv_writer(out)
        write_row(COLUMNS)
        for one in found:
            end = "" if one.end_seconds is None else f"{one.end_seconds:.3f}"
            labels = join_labels(tag.label for tag in one.labels)
            write_row([f"{one.similarity:.6f}", one.file, f"{one.start_seconds:.3f}", end, labels, *_date(one)])


def to_dict(found: Found) -> dict[str, Any]:
    """What was found, as JSON takes it."""
    recorded, date_from = _date(found)
    return {
        "similarity": round(found.similarity, 6),
        "file": found.file,
        "start": found.start_seconds,
        "end": found.end_seconds,
        "labels": [{"label": tag.label, "probability": round(tag.probability, 6)} for tag in found.labels],
        "recorded": recorded or None,
        "date_from": date_from or None,
    }


def _date(found: Found) -> tuple[str, str]:
    if found.recorded is None:
        return "", ""
    return found.recorded.at.isoformat(timespec="seconds"), "name" if found.recorded.by_name else "file"
