"""Results of similarity and fingerprint searches as CSV and JSON."""

from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any

from spectag.audio.files import AUDIO_SUFFIXES
from spectag.curation.sound_index.fingerprint_search import ExcerptMatch
from spectag.curation.sound_index.searching import SearchResult
from spectag.data.corrections import join_labels
from spectag.errors import ConfigError
from spectag.system.output import csv_writer, open_output

SEARCH_COLUMNS = ("similarity", "file", "start", "end", "labels", "recorded", "date_from")
MATCH_COLUMNS = ("excerpt", "file", "start", "n_matches")


def check_results_file(output: str, columns: Sequence[str] = SEARCH_COLUMNS) -> None:
    """Raise a ConfigError if the output would overwrite a recording (-o *.wav is a common mistake) or another file."""
    suffix = PurePath(output).suffix.lower()
    if suffix in AUDIO_SUFFIXES:
        raise ConfigError(f"-o {output}: {suffix} is the suffix of a recording; use a name such as results.csv")
    path = Path(output)
    if path.is_file() and path.stat().st_size and not path.read_bytes().startswith(",".join(columns).encode()):
        raise ConfigError(f"-o {output}: the file contains something else, which would be lost; use another name")


def write_results(results: Sequence[SearchResult], location: str | Path | None) -> None:
    """Write search results as CSV, most similar first, to a path or to stdout.

    Columns: similarity, file, start, end (seconds), labels (comma-separated), recorded (2024-05-01T05:30:00), date_from
    (its source: guano, comment or bext in a wav, the name, or file, the modification time).

    Raises
    ------
    DataError
        If the file can't be written.
    """
    with open_output(location) as out:
        write_row = csv_writer(out)
        write_row(SEARCH_COLUMNS)
        for result in results:
            end = "" if result.end_seconds is None else f"{result.end_seconds:.3f}"
            times, labels = (f"{result.start_seconds:.3f}", end), join_labels(tag.label for tag in result.labels)
            write_row([f"{result.similarity:.6f}", result.file, *times, labels, *_date(result)])


def write_matches(matches: Sequence[ExcerptMatch], location: str | Path | None) -> None:
    """Write the results of a fingerprint search as CSV, to a path or to stdout.

    Columns: excerpt, file, start (of the excerpt in the file, in seconds), n_matches (equal landmarks).

    Raises
    ------
    DataError
        If the file can't be written.
    """
    with open_output(location) as out:
        write_row = csv_writer(out)
        write_row(MATCH_COLUMNS)
        for match in matches:
            write_row([match.excerpt, match.file, f"{match.start_seconds:.3f}", str(match.n_matches)])


def match_to_dict(match: ExcerptMatch) -> dict[str, Any]:
    """A result of a fingerprint search for JSON."""
    return {
        "excerpt": match.excerpt,
        "file": match.file,
        "start": match.start_seconds,
        "n_matches": match.n_matches,
    }


def result_to_dict(result: SearchResult) -> dict[str, Any]:
    """A search result for JSON."""
    recorded, date_from = _date(result)
    return {
        "similarity": round(result.similarity, 6),
        "file": result.file,
        "start": result.start_seconds,
        "end": result.end_seconds,
        "labels": [{"label": tag.label, "probability": round(tag.probability, 6)} for tag in result.labels],
        "recorded": recorded or None,
        "date_from": date_from or None,
    }


def _date(result: SearchResult) -> tuple[str, str]:
    if result.recorded is None:
        return "", ""
    return result.recorded.time.isoformat(timespec="seconds"), result.recorded.source
