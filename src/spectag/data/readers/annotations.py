"""Annotated sounds in recordings: Audacity label tracks, and folders of label tracks and selection tables."""

import re
import warnings
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from shlex import join

from spectag.audio.files import AUDIO_SUFFIXES
from spectag.data.labels import LabelSplitter
from spectag.data.readers.columns import time_role
from spectag.data.readers.csv_table import clip_table, is_annotation_table, read_csv
from spectag.data.readers.delimited_text import (
    abbreviate,
    parse_time_field,
    preamble,
    read_text,
    shorten,
    split_lines,
)
from spectag.data.readers.file_finder import TABLE_SUFFIX, FileFinder
from spectag.data.readers.folders import visible_files
from spectag.data.readers.rows import ManifestRow, TableOptions
from spectag.errors import DataError, DataWarning

TEXT_SUFFIXES = frozenset({".txt", ".csv", ".tsv", ".ann", ".lab"})
OTHER_SUFFIXES = frozenset({".textgrid", ".jams", ".eaf", ".svl", ".rttm", ".ann", ".lab"})
"""Annotations of other programs, which are not read."""
_NUMBER = r"[+-]?(?:\d+(?:[.,]\d*)?|[.,]\d+)(?:[eE][+-]?\d+)?"
_NO_COMMA = r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?"
_MAX_LINE = 10_000  # characters
# start, end and label: separated by tabs, by spaces, or by commas or semicolons before a text
_TRACK_LINE = re.compile(
    rf"\s*({_NUMBER})\s*\t\s*({_NUMBER})[^\S\t]*(?:\t(.*))?"
    rf"|\s*({_NUMBER}) +({_NUMBER})(?:[ \t]+(.*)|\s*)"
    rf"|\s*({_NO_COMMA})\s*,\s*({_NO_COMMA})\s*,(\s*[^\d\s.,;+-].*)"
    rf"|\s*({_NUMBER})\s*;\s*({_NUMBER})\s*;(\s*[^\d\s.,;+-].*)"
)


def is_label_track(text: str) -> bool:
    """Whether a text is an Audacity label track, perhaps below a line with the names of the columns."""
    lines = _lines(text)
    return any(_parse(line) for _, line in islice(lines, 1))


def _parse(line: str) -> re.Match[str] | None:
    return _TRACK_LINE.fullmatch(line) if len(line) < _MAX_LINE else None


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines with labels and their numbers: without comments, frequency ranges, and a header with spaces."""
    n_skipped, _, _ = preamble(text)
    is_first = True
    for number, line in enumerate(split_lines(text), start=1):
        if number <= n_skipped or not line.strip() or line.startswith("\\"):
            continue
        words, was_first, is_first = line.split(), is_first, False
        if not was_first or len(words) > 3 or [time_role(word) for word in words[:2]] != ["start", "end"]:
            yield number, line


def read_label_track(path: Path, text: str, finder: FileFinder, options: TableOptions) -> Iterator[ManifestRow]:
    """The rows of a label track."""
    for column, purpose in ((options.group_column, "groups"), (options.label_column, "labels")):
        if column is not None:
            raise DataError(f"{path}: a label track has no column {column!r} for {purpose}")
    fname, split_labels = finder.sound_of(path), LabelSplitter(options.label_separator)
    for number, line in _lines(text):
        where = f"{path}, line {number}"
        match = _parse(line)
        start, end, label = _track_fields(line, where) if match is None else _groups(match)
        start_seconds = parse_time_field(start, "the start", where)
        end_seconds = parse_time_field(end, "the end", where)
        if start_seconds == end_seconds:
            raise DataError(
                f"{where}: '{shorten(label)}' marks a point at {start_seconds:g} s, not a segment; "
                "in Audacity, extend the label over the sound, or delete it"
            )
        times = start_seconds, end_seconds
        labels = split_labels(label)
        yield ManifestRow(path, number, fname, labels, None, None, *times, is_annotation=True, lacks_label=not labels)


def _groups(match: re.Match[str]) -> tuple[str, str, str]:
    start, end, *label = (value for value in match.groups() if value is not None)
    return start, end, label[0].split("\t")[0].strip() if label else ""


def _track_fields(line: str, where: str) -> tuple[str, str, str]:
    """The fields of a line that is not like a label, for the error messages about them."""
    start, *rest = line.split("\t")
    if not rest:
        raise DataError(f"{where}: '{shorten(line)}' is not a label; expected start, end and label, separated by tabs")
    return start.strip(), rest[0].strip(), rest[1].strip() if len(rest) > 1 else ""


def read_detection_folder(folder: Path, finder: FileFinder, options: TableOptions) -> list[ManifestRow]:
    """The rows of the label tracks and selection tables in a folder.

    Raises
    ------
    DataError
        As `read_annotation_folder`, or if the folder contains none, such as a folder of recordings.
    """
    files = visible_files(folder)
    rows = read_annotation_folder(folder, files, finder, options)
    if rows is None:
        sound = next((path for path in files if path.suffix.lower() in AUDIO_SUFFIXES), None)
        if sound is None:
            raise DataError(f"{folder}: the folder contains no selection tables or label tracks")
        tag = join(["spectag", "tag", "MODEL", str(folder), "-o", "tags.csv"])
        raise DataError(
            f"{folder}: this is a folder of recordings, such as {sound.name}, not of detections; tag it first: {tag}"
        )
    return rows


def read_annotation_folder(
    folder: Path, files: list[Path], finder: FileFinder, options: TableOptions
) -> list[ManifestRow] | None:
    """The rows of the label tracks and selection tables in a folder; None if it contains none.

    A table without annotations becomes a row without labels: none of the labels is in its sound.

    Raises
    ------
    DataError
        If a file looks like annotations, but is not understood; or as for a single table.
    """
    rows: list[ManifestRow] = []
    not_understood, clip_tables = dict[Path, str](), []
    n_annotations = 0
    for path in files:
        if path.suffix.lower() not in TEXT_SUFFIXES | OTHER_SUFFIXES:
            continue
        try:
            text = read_text(path)
        except DataError:
            text = "?"
        found = _read_annotations(path, text, finder, options)
        if found is not None:
            n_annotations += bool(text.strip())
            rows.extend(found)
        elif _looks_like_annotations(path, text, finder):
            not_understood[path] = text
        elif clip_table(path, text) is not None:
            clip_tables.append(str(path.relative_to(folder)))
    names = abbreviate(str(path.relative_to(folder)) for path in not_understood)
    reason = next((_reason(path, text, finder, options) for path, text in not_understood.items()), "")
    if not n_annotations:
        if not_understood:
            warnings.warn(
                f"{folder}: {len(not_understood)} files that look like annotations are not read: {names}{reason}",
                DataWarning,
                stacklevel=2,
            )
        return None
    if not_understood:
        raise DataError(
            f"{folder}: {len(not_understood)} files look like annotations, but are not understood: {names}{reason}; "
            "expected start, end and label in each line, or a header with these columns. Correct the files, or move "
            "them out of the folder"
        )
    if clip_tables:
        warnings.warn(
            f"{folder}: the annotations in the folder are read, but not the tables of clips {abbreviate(clip_tables)}",
            DataWarning,
            stacklevel=2,
        )
    return rows


def _read_annotations(path: Path, text: str, finder: FileFinder, options: TableOptions) -> list[ManifestRow] | None:
    """The rows of one file, or None if it contains no annotations."""
    if is_label_track(text):
        return list(read_label_track(path, text, finder, options))
    if is_annotation_table(path, text, label_column=options.label_column):
        rows = list(read_csv(path, text, finder, options)[0])
        return rows or [ManifestRow(path, None, finder.sound_of(path), (), is_annotation=True)]
    if not text.strip() and finder.own_sound(path) is not None:
        return [ManifestRow(path, None, finder.sound_of(path), (), is_annotation=True)]
    return None


def _reason(path: Path, text: str, finder: FileFinder, options: TableOptions) -> str:
    """Why a file with a header of times is not understood, for messages."""
    try:
        read_csv(path, text, finder, options)
    except DataError as error:
        reason = str(error).removeprefix(f"{path}: ")
        return f" ({reason})" if "--label-column" in reason else ""
    return ""


def _looks_like_annotations(path: Path, text: str, finder: FileFinder) -> bool:
    """Whether a file has the name of a sound or of a selection table, or begins with two numbers."""
    if not text.strip():
        return False
    first = next((line for _, line in _lines(text)), "")
    begins_with_times = path.suffix.lower() == ".txt" and re.match(rf"\s*{_NUMBER}[\s,;]+{_NUMBER}([\s,;]|$)", first)
    has_name = TABLE_SUFFIX.search(path.stem) or path.suffix.lower() in OTHER_SUFFIXES
    return bool(begins_with_times or has_name) or finder.own_sound(path) is not None
