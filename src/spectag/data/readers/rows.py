"""The rows of a manifest, as every reader returns them, before the files are found."""

from dataclasses import dataclass
from pathlib import Path

from spectag.data.readers.text_files import shorten
from spectag.errors import DataError


@dataclass(frozen=True)
class TableOptions:
    """Which columns of a table the user chose, and what separates labels in a field."""

    group_column: str | None = None
    label_column: str | None = None
    label_separator: str | None = None


@dataclass(slots=True)
class ManifestRow:
    """A labelled recording, or part of one, as named by a table or a folder."""

    source: Path
    line: int | None
    fname: str
    labels: tuple[str, ...]
    fold: str | None = None
    group: str | None = None
    start_seconds: float = 0.0
    end_seconds: float | None = None
    unknown: tuple[str, ...] = ()
    """Labels of which nobody knows whether they are true."""
    weight: float = 1.0
    """How much the clip counts in training."""
    is_annotation: bool = False
    """Whether the row is one sound in a recording, so that others may overlap it."""
    lacks_label: bool = False
    """Whether the row is an annotated segment, but the label was left empty."""

    def __post_init__(self) -> None:
        if not self.fname:
            raise DataError(f"{self.where}: the file name is empty; expected the name of a sound")
        if self.end_seconds is not None and self.end_seconds <= self.start_seconds:
            times = f"ends at {self.end_seconds:g} s but starts at {self.start_seconds:g} s"
            raise DataError(f"{self.where}: {shorten(self.fname)} {times}; a clip must end after its start")
        if self.unknown and (both := sorted(set(self.labels) & set(self.unknown))):
            raise DataError(f"{self.where}: {both[0]!r} is a label of the clip, and unknown; delete one of the two")

    @property
    def where(self) -> str:
        """The file and, in a table, the line."""
        return str(self.source) if self.line is None else f"{self.source}, line {self.line}"


def clip_name(fname: str, start_seconds: float, end_seconds: float | None) -> str:
    """The file name of a clip, followed by the times if the clip is only a part of the file."""
    if end_seconds is not None:
        return f"{fname} ({start_seconds:g}-{end_seconds:g} s)"
    return f"{fname} (from {start_seconds:g} s)" if start_seconds else fname


def format_times(start_seconds: float, end_seconds: float | None) -> tuple[str, str]:
    """Start and end in a table; empty for the start and the end of the file."""
    return f"{start_seconds!r}" if start_seconds else "", "" if end_seconds is None else f"{end_seconds!r}"
