"""A competition submission: exactly the rows and columns of its template."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from spectag.data.labels import LabelSet
from spectag.data.readers.columns import find_delimiter
from spectag.data.readers.delimited_text import open_table, read_text
from spectag.errors import DataError
from spectag.tagging.events import FileEvents

_MAX_REASONS = 3  # in an error message


@dataclass(frozen=True)
class Template:
    """A competition's sample_submission.csv: the rows and columns that a submission needs, in their order."""

    path: Path
    name_column: str
    labels: tuple[str, ...]
    fnames: tuple[str, ...]

    @classmethod
    def read(cls, path: Path, known: LabelSet) -> "Template":
        """Read a template and check its labels against those of the model.

        Byte order marks, semicolons and tabs, as spreadsheet programs write them, are accepted.

        Raises
        ------
        DataError
            If it cannot be read, or has a label that the model does not know.
        """
        text = read_text(path)
        table = open_table(path, text, find_delimiter(text))
        fnames = tuple(fields[0] for _, fields in table.records)
        if not fnames or len(table.columns) < 2:
            raise DataError(f"{path}: expected a header (fname, then the labels) and a row for each clip")
        for label in table.columns[1:]:
            known.index(label, where=f"{path}, line 1")
        return cls(path, table.columns[0], table.columns[1:], fnames)

    def files(self, candidates: Iterable[str]) -> list[str]:
        """The file of each row, in the order of the rows.

        Raises
        ------
        DataError
            If the file of a row is missing, because a submission without it is invalid; or if several files have its
            name.
        """
        by_name: dict[str, list[str]] = {}
        for file in candidates:
            by_name.setdefault(Path(file).name, []).append(file)
        missing = [fname for fname in self.fnames if Path(fname).name not in by_name]
        if missing:
            raise DataError(
                f"{self.path}: {len(missing)} of its {len(self.fnames)} clips are missing, such as {missing[0]}; "
                "give the folder that holds all of them"
            )
        return [self._file_of(fname, by_name[Path(fname).name]) for fname in self.fnames]

    def _file_of(self, fname: str, namesakes: Sequence[str]) -> str:
        """The file of a row among those with its name. The row's folders decide if the name alone does not."""
        parts = Path(fname).parts
        files = [file for file in namesakes if Path(file).parts[-len(parts) :] == parts] or namesakes
        if len(files) > 1:
            raise DataError(f"{self.path}: {fname} may be {files[0]} or {files[1]}; give the folder of one of them")
        return files[0]

    def refuse_skipped(self, reasons: Sequence[str]) -> None:
        """Raise a DataError that names the clips that cannot be tagged, if there are any."""
        if reasons:
            raise DataError(
                f"{self.path}: {len(reasons)} of its {len(self.fnames)} clips cannot be tagged, and a submission needs "
                f"all of them: {'; '.join(reasons[:_MAX_REASONS])}"
            )


def write_submission(files: Iterable[FileEvents], out: TextIO, *, labels: LabelSet, template: Template) -> None:
    """Write exactly the template's rows and columns, filled with probabilities in full precision.

    Names and labels are not escaped for spreadsheets, because a competition compares them with its own.

    Parameters
    ----------
    files : iterable of FileEvents
        One for each row, in the order of the rows (`Template.files`), each with one window: the whole clip. Check with
        `Template.refuse_skipped` first that every clip was tagged.
    out : text file
    labels : LabelSet
        All labels of the model.
    template : Template

    Raises
    ------
    ValueError
        If the files are not those of the rows, or have several windows.
    """
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([template.name_column, *template.labels])
    indices = [labels.index(label) for label in template.labels]
    for fname, file in zip(template.fnames, files, strict=True):
        if Path(file.file).name != Path(fname).name or len(file.timeline.starts) != 1:
            raise ValueError(f"need {fname} as one window, got {file.file} and {len(file.timeline.starts)} windows")
        probabilities = file.timeline.probabilities[0, indices].tolist()
        writer.writerow([fname, *map(repr, probabilities)])
