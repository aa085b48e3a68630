"""What the columns of a table mean, by the kind of their names."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from spectag.data.readers.delimited_text import (
    DELIMITERS,
    Record,
    Table,
    abbreviate,
    normal_name,
    open_table,
    preamble,
    shorten,
    split_lines,
)
from spectag.errors import DataError, did_you_mean

# The names of each column, by preference: ours first, then those of published data sets and other programs.
MANIFEST_COLUMNS = {
    "fname": (
        *("fname", "filename", "file_name", "file", "path", "image", "slice_file_name", "audio_file", "filepath"),
        *("file_path", "audio_filename", "audiofilename", "audio_path", "audio_filepath", "begin_path", "begin_file"),
        *("in_file", "recording", "recording_path", "sound_file", "wav_file", "wav_path", "wav_filename", "wav"),
        *("segment_id", "ytid", "youtube_id", "itemid", "recording_id", "audio_id", "clip_name", "clip_path", "clip"),
        *("audio", "sound", "track"),
    ),
    "labels": (
        *("labels", "label", "category", "event_label", "event_labels", "annotation", "annotations", "primary_label"),
        *("positive_labels", "tags", "tag", "classes", "class_name", "class_label", "sound_class"),
        *("sound_event", "event", "event_class", "species", "common_name", "english_name", "scientific_name"),
        *("species_name", "species_code", "ebird_code", "manual_id", "top1match", "label_species", "call_type"),
        *("species_id", "class"),  # beside a species, class is the taxonomic rank
    ),
    "fold": ("fold", "split", "usage", "subset"),
    "group": ("group", "src_file", "freesound_id", "flickr_video_url", "fsid"),
    "start": ("start", "start_seconds", "start_time", "start_time_seconds", "onset", "t_min", "tmin"),
    "end": ("end", "end_seconds", "end_time", "end_time_seconds", "t_max", "tmax"),
    "weight": ("weight",),
}
UNKNOWN_COLUMN = "unknown"
"""Lists the unknown labels in a table with a column of labels."""
MANIFEST_COLUMN_NAMES = frozenset(name for names in MANIFEST_COLUMNS.values() for name in names)
MORE_LABELS = "secondary_labels"  # BirdCLEF: of the sounds in the background
RAVEN_LABEL_COLUMNS = ("Annotation", "Species", "Common Name", "Label", "Tags")
TRUTH_VALUES = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}
UNKNOWN_VALUES = frozenset({"", "?", "nan", "-1", "-1.0"})

_CLIP_LABELS = frozenset({"labels", "positive_labels", "event_labels", "annotations", "tags", "classes"})
_EVENT_LABELS = frozenset({"event_label", "annotation", "event", "event_class", "sound_event"})
_IDS_OF_VIDEOS = frozenset({"ytid", "youtube_id", "segment_id"})
_EXCERPT_FILES = frozenset({"slice_file_name", "ytid", "youtube_id"})

# other names of the columns of files and labels consist of these words, with at least one of the first ones
_FILE_WORDS = (
    {"file", "filename", "path", "filepath", "fname"},
    {"name", "audio", "sound", "wav", "clip", "recording", "rec"},
)
_LABEL_WORDS = (
    {"label", "labels", "species", "class", "category", "tag", "tags", "annotation"},
    {"name", "sound", "event", "true", "common", "scientific", "call", "target", "main", "final"},
)

_STARTS, _ENDS, _LENGTHS = {"start", "begin", "onset"}, {"end", "stop", "offset"}, {"duration", "length", "dur"}
_TIME_WORD = re.compile("|".join((*_STARTS, *_ENDS, *_LENGTHS)))
_JOINED_TIME = re.compile("(start|begin|onset|end|stop|offset)time")  # StartTime
_DATE = re.compile(r"\d{4}[-/.]\d\d?[-/.]\d\d?|\d\d?[-/.]\d\d?[-/.]\d{4}|\d{8}[T_ ]\d{4}")
_SECONDS = {"s", "sec", "secs", "second", "seconds"}
_OTHER_UNITS = {"sample", "samples", "frame", "frames", "ms", "msec", "milliseconds", "min", "minutes"}
_OF_TIMES = {"time", "times", "event", "segment", "clip", "annotation", "call", "t", "of", "the", "window", "offset"}
_TIMES = {
    *("time", "date", "datetime", "timestamp", "hour", "minute", "second", "seconds", "day", "week", "month", "year"),
    *(*_STARTS, *_ENDS, *_LENGTHS),
}
_PLACES = {
    *("lat", "lats", "latitude", "lon", "lng", "longitude", "latlon", "latlong", "elevation", "altitude", "site"),
    *("location", "place", "station", "plot", "region", "country", "county", "state", "province", "city", "locality"),
    *("gps", "coordinates", "coordinate", "easting", "northing", "utm", "habitat", "sitename", "siteid"),
}
_WORDS_WITH_TIMES_AND_PLACES = {
    *("utc", "gmt", "local", "clock", "file", "clip", "recording", "recorded", "event", "segment", "window", "of"),
    *("the", "at", "in", "name", "id", "code", "no", "nr", "number", "deg", "degrees", "x", "y", "m", "h", "t", "zone"),
    *(*_SECONDS, *_OTHER_UNITS),
}
_FOLDS = {"train", "training", "test", "testing", "valid", "validation", "val", "dev", "eval", "evaluation", "holdout"}
_DETAILS = frozenset({
    *("index", "id", "row_id", "unnamed_0", "level_0", "author", "recordist", "recorder", "annotator", "license"),
    *("licence", "rating", "url", "notes", "note", "comment", "comments", "description", "confidence", "score"),
    *("view", "channel", "selection", "low_freq", "high_freq", "low_f", "high_f", "classid", "class_id", "target"),
    *("verified", "reviewed", "checked"),
    *("min_conf", "sensitivity", "species_list", "manually_verified", "annotation_file", "sample_rate", "samplerate"),
    *("collection", "mids", "salience", "datasetid", "xc_id", "device", "file_offset", "begin_file", "begin_path"),
})  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """What the columns of a table mean."""

    positions: dict[str, int]
    """Positions by meaning: the names in `MANIFEST_COLUMNS`, unknown, more_labels, duration, file_offset, present."""
    label_columns: dict[int, str]
    """The columns of 0 and 1, if there is no column of labels: label by position."""
    is_annotation: bool
    """Whether a row is a sound in a recording, so that others may overlap it, instead of a clip."""
    holds_video_ids: bool = False
    """Whether the files are named by the id of a YouTube video, from which they are excerpts."""
    holds_excerpts: bool = False
    """Whether a file is the excerpt itself, so that start and end are times in its original."""

    @property
    def used(self) -> set[int]:
        """Positions of the columns that have a meaning."""
        return {*self.positions.values(), *self.label_columns}


def open_manifest_table(path: Path, text: str) -> Table:
    """Open a table with the delimiter and the header, perhaps in a comment, that have the most known columns."""
    if text.lstrip()[:1] in ("{", "["):
        raise DataError(
            f"{path}: this looks like JSON; expected a table such as a CSV with the columns fname and labels. Convert "
            "it, for example in Python: pandas.read_json(...).to_csv(..., index=False)"
        )
    _, delimiter, comments = preamble(text)
    comment = comments[-1].lstrip("# ") if comments else ""
    if comment and _n_known(comment, _best_delimiter(comment)) > _n_known(_header(text), find_delimiter(text)):
        return open_table(path, text, delimiter or _best_delimiter(comment), header=comment)
    return open_table(path, text, find_delimiter(text))


def find_delimiter(text: str) -> str:
    """Comma, semicolon, tab or |: the delimiter with which the header has the most columns of known meaning."""
    _, delimiter, _ = preamble(text)
    return delimiter or _best_delimiter(_header(text))


def _header(text: str) -> str:
    n_lines, _, _ = preamble(text)
    return next(islice(split_lines(text), n_lines, None), "")


def _best_delimiter(header: str) -> str:
    return max(DELIMITERS, key=lambda delimiter: (_n_known(header, delimiter), header.count(delimiter)))


def _n_known(header: str, delimiter: str) -> int:
    """The number of columns of known meaning among the first ones."""
    names = [normal_name(name.strip(' "')) for name in header[:100_000].split(delimiter, 100)[:100]]
    return sum(name in MANIFEST_COLUMN_NAMES or time_role(name) is not None for name in names)


def time_role(column: str) -> str | None:
    """Which time of a sound in seconds a column holds: start, end, duration, offset, or None.

    >>> [time_role(name) for name in ("Begin Time (s)", "EndTime", "start_date", "Begin Clock Time")]
    ['start', 'end', None, None]
    """
    if not _TIME_WORD.search(name := normal_name(column)):
        return None
    words = set(_JOINED_TIME.sub(r"\1_time", name).split("_")) - _SECONDS
    if words == {"offset"}:
        return "offset"
    for role, names in (("start", _STARTS), ("end", _ENDS), ("duration", _LENGTHS)):
        if len(words & names) >= 1 and words - names <= _OF_TIMES and (role == "start" or not words & _STARTS):
            return role
    return None


def is_label_column(column: str) -> bool:
    """Whether a column of a multi-hot table is a label, according to its name."""
    name = normal_name(column)
    if column.lower() in MANIFEST_COLUMN_NAMES or name in MANIFEST_COLUMN_NAMES | _DETAILS:
        return False
    words = {word for word in name.split("_") if not word.isdecimal()}
    if words & {"is", "in"} and words & _FOLDS and words <= _FOLDS | {"is", "in", "the", "set", "split", "fold"}:
        return False
    core = words & (_TIMES | _PLACES)
    return not (core and words <= _TIMES | _PLACES | _WORDS_WITH_TIMES_AND_PLACES)


def find_layout(
    table: Table,
    first: Sequence[Record],
    *,
    group_column: str | None = None,
    label_column: str | None = None,
    has_own_sound: Callable[[], bool] = lambda: False,
) -> Layout:
    """What the columns mean.

    Parameters
    ----------
    table : Table
    first : sequence of records
        The first records: an empty column of labels is passed over.
    group_column, label_column : str, optional
        The columns that the user chose.
    has_own_sound : function
        Whether there is a sound with the name of the table, for tables without a column of file names.

    Raises
    ------
    DataError
        If a chosen column does not exist, or there are no file names, no labels, or times in another unit.
    """
    positions = {
        name: found for name, names in MANIFEST_COLUMNS.items() if (found := table.position(*names)) is not None
    }
    for name, position in (_time_positions(table) | _positions_by_words(table)).items():
        positions.setdefault(name, position)
    for name, column in (("unknown", UNKNOWN_COLUMN), ("more_labels", MORE_LABELS), ("present", "present")):
        if (found := table.position(column)) is not None:
            positions[name] = found
    onset, offset = table.position("onset"), table.position("offset")
    if onset is not None and offset is not None:  # rather than the start_time of the recording
        positions |= {"start": onset, "end": offset}
    for name in ("start", "end"):
        if name in positions and any(_DATE.match(fields[positions[name]]) for _, fields in first):
            del positions[name]  # when it was recorded
    if group_column is not None:
        positions["group"] = chosen_position(table, group_column, "groups")
    positions = _with_labels(positions, table, first, label_column)
    is_raven = table.position("begin_time") is not None and table.position("end_time") is not None
    has_times = "start" in positions and ("end" in positions or "duration" in positions)
    if "fname" not in positions and not (has_times and has_own_sound()):
        raise _no_file_names(table)
    label_columns: dict[int, str] = {}
    if "labels" not in positions:
        for name in ("unknown", "more_labels", "present"):
            positions.pop(name, None)
        if not is_raven:
            label_columns = _multi_hot_columns(table, set(positions.values()))
        if not label_columns:
            raise _no_labels(table, positions)
    label = normal_name(table.columns[positions["labels"]]) if "labels" in positions else ""
    file = normal_name(table.columns[positions["fname"]]) if "fname" in positions else ""
    is_event = label in _EVENT_LABELS or (has_times and label not in _CLIP_LABELS) or is_raven
    return Layout(
        positions,
        label_columns,
        is_annotation=bool(label) and is_event,
        holds_video_ids=file in _IDS_OF_VIDEOS,
        holds_excerpts=file in _EXCERPT_FILES,
    )


def _time_positions(table: Table) -> dict[str, int]:
    """The positions of start, end, duration and file_offset: of the first column with each meaning."""
    positions: dict[str, int] = {}
    for position, column in enumerate(table.columns):
        if (role := time_role(column)) is not None:
            positions.setdefault(role, position)
    if (offset := positions.pop("offset", None)) is not None:
        positions.setdefault("end" if "start" in positions else "start", offset)
    if (file_offset := table.position("file_offset")) is not None:
        positions["file_offset"] = file_offset
    return positions


def _positions_by_words(table: Table) -> dict[str, int]:
    """The positions of the first columns whose names consist of the words for files and for labels."""
    positions: dict[str, int] = {}
    for position, column in enumerate(table.columns):
        words = set(normal_name(column).split("_"))
        for name, (core, others) in (("fname", _FILE_WORDS), ("labels", _LABEL_WORDS)):
            if words & core and words <= core | others:
                positions.setdefault(name, position)
    return positions


def _with_labels(
    positions: dict[str, int], table: Table, first: Sequence[Record], label_column: str | None
) -> dict[str, int]:
    """The positions with that of the column of labels: the chosen one, or the first known one that is not empty."""
    if label_column is not None:
        return positions | {"labels": chosen_position(table, label_column, "labels")}
    if table.position("begin_time") is not None:  # Raven
        preferred: Iterable[str] = (*RAVEN_LABEL_COLUMNS, *MANIFEST_COLUMNS["labels"])
    else:
        preferred = MANIFEST_COLUMNS["labels"]
    found = [position for name in preferred if (position := table.position(name)) is not None]
    found += [positions["labels"]] if "labels" in positions else []
    candidates = [position for position in dict.fromkeys(found) if not _is_one_label_of_many(table, position, first)]
    filled = (position for position in candidates if any(fields[position] for _, fields in first))
    chosen = next(filled, candidates[0] if candidates else None)
    others = {name: position for name, position in positions.items() if name != "labels"}
    return others if chosen is None else {"labels": chosen, **others}


def _is_one_label_of_many(table: Table, position: int, first: Sequence[Record]) -> bool:
    """Whether a column is one of several columns of 0 and 1, although its name could be that of a column of labels."""

    def is_hot(column: int) -> bool:
        return all(fields[column].lower() in TRUTH_VALUES for _, fields in first)

    others = (index for index, name in enumerate(table.columns) if index != position and is_label_column(name))
    has_general_name = normal_name(table.columns[position]) in ("label", "labels")
    return bool(first) and not has_general_name and is_hot(position) and any(map(is_hot, others))


def _multi_hot_columns(table: Table, used: set[int]) -> dict[int, str]:
    return {
        position: name
        for position, name in enumerate(table.columns)
        if name and position not in used and (is_label_column(name) or normal_name(name) in MANIFEST_COLUMNS["labels"])
    }


def chosen_position(table: Table, column: str, purpose: str) -> int:
    """Position of the column that the user chose, such as that of the groups."""
    position = table.position(column)
    if position is None:
        raise DataError(
            f"{table.path}: no column {column!r} for {purpose}. The columns are "
            f"{abbreviate(table.columns, 12)}{did_you_mean(column, table.columns)}"
        )
    return position


def has_other_times(table: Table) -> list[str]:
    """The columns that hold the start and end of sounds in samples, frames or other units that are not seconds."""
    return [
        column
        for column in table.columns
        if _TIME_WORD.search(column.casefold())
        and (words := set(re.split(r"[\W_]+", column.casefold()))) & _OTHER_UNITS
        and time_role("_".join(words - _OTHER_UNITS)) in ("start", "end")
    ]


def _no_file_names(table: Table) -> DataError:
    if len(table.columns) == 1 and len(table.columns[0].split()) > 1:
        return DataError(
            f"{table.path}: the first line is '{shorten(table.columns[0])}', which is one column; expected columns "
            "that are separated by commas, semicolons, tabs or |, not by spaces"
        )
    return DataError(
        f"{table.path}: no column with file names; expected fname (or {', '.join(MANIFEST_COLUMNS['fname'][1:5])}) "
        f"in the first line. The columns are {abbreviate(table.columns)}; rename the one with the file names to fname"
    )


def _no_labels(table: Table, positions: dict[str, int]) -> DataError:
    if "start" in positions:
        return DataError(
            f"{table.path}: no column with labels; expected one of {', '.join(RAVEN_LABEL_COLUMNS)}, or name it with "
            f"--label-column. The columns are {abbreviate(table.columns, 12)}"
        )
    return DataError(
        f"{table.path}: no labels; expected a column labels, or a column of 0 and 1 for each label, or name the column "
        f"of labels with --label-column. The columns are {abbreviate(table.columns)}"
    )
