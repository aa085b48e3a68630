"""Tags as tables: CSV, JSON lines, and a competition's submission."""

import csv
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from spectag.errors import DataError
from spectag.files import unfinished_file
from spectag.labels import LabelSet
from spectag.manifest.table import first_lines, open_table, read_text
from spectag.runtime import Tag, Tags
from spectag.tag import TaggedFile

_N_NAMED = 3  # unreadable clips in a message


@dataclass(frozen=True)
class Choice:
    """Which tags of a stretch are written: the `top` most probable, or those at or above `threshold`.

    With neither, those at or above the tagger's own thresholds.
    """

    top: int | None = None
    threshold: float | None = None

    def __call__(self, tags: Tags) -> list[Tag]:
        if self.top is not None:
            return [tag for tag in tags.top(self.top) if tag.probability >= (self.threshold or 0.0)]
        return tags.heard(self.threshold)


@contextmanager
def written(path: Path | None) -> Iterator[TextIO]:
    """A text file that is written whole or not at all, or stdout where there is no path.

    Raises
    ------
    DataError
        If the file can't be written.
    """
    if path is None:
        yield sys.stdout
        return
    try:
        with unfinished_file(path) as unfinished, _open_text(unfinished) as file:
            yield file
    except OSError as error:
        raise DataError(f"{path}: can't be written: {error.strerror or error}") from error


def _open_text(path: Path) -> TextIO:
    """Open for writing; of a file name that no encoding knows, bytes are written as \\udcff, which JSON reads again."""
    return path.open("w", encoding="utf-8", errors="backslashreplace", newline="")


def write_csv(files: Iterable[TaggedFile], choice: Choice, out: TextIO) -> None:
    """A line for each tag: file, start, end (seconds), label, probability. A stretch without tags has no line."""
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["file", "start", "end", "label", "probability"])
    for file in files:
        for tags in file.tags:
            times = [_seconds(tags.start_seconds), _seconds(tags.end_seconds)]
            writer.writerows([str(file.path), *times, tag.label, f"{tag.probability:.6f}"] for tag in choice(tags))


def write_jsonl(files: Iterable[TaggedFile], choice: Choice, out: TextIO) -> None:
    """A JSON object for each stretch, with or without tags: file, start, end, tags."""
    for file in files:
        for tags in file.tags:
            heard = [{"label": tag.label, "probability": round(tag.probability, 6)} for tag in choice(tags)]
            record = {"file": str(file.path), "start": tags.start_seconds, "end": tags.end_seconds, "tags": heard}
            out.write(json.dumps(record, ensure_ascii=False) + "\n")


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


@dataclass(frozen=True)
class Template:
    """A competition's sample_submission.csv: the rows and columns that it wants, in its order."""

    path: Path
    name_column: str
    labels: tuple[str, ...]
    fnames: tuple[str, ...]

    @classmethod
    def read(cls, path: Path, known: LabelSet) -> "Template":
        """Read a template and hold its labels against those of the tagger.

        Spreadsheet programs' byte order marks, semicolons and tabs are understood.

        Raises
        ------
        DataError
            If it can't be read, or has a label that the tagger doesn't know.
        """
        text = read_text(path)
        header = "".join(first_lines(text, 1))
        table = open_table(path, text, next((mark for mark in ",;\t" if mark in header), ","))
        fnames = tuple(fields[0] for _, fields in table.records)
        if not fnames or len(table.columns) < 2:
            raise DataError(f"{path}: expected a header (fname, then the labels) and a row for each clip")
        for label in table.columns[1:]:
            known.index(label, where=f"{path}, line 1")
        return cls(path, table.columns[0], table.columns[1:], fnames)

    def files(self, among: Iterable[Path]) -> list[Path]:
        """The file of each row, in the order of the rows.

        Raises
        ------
        DataError
            If a clip is not there: a submission lacking one is invalid, and an invented row a lie. Or if several
            files have its name.
        """
        by_name: dict[str, list[Path]] = {}
        for path in among:
            by_name.setdefault(path.name, []).append(path)
        files = [_one_file(self.path, fname, by_name.get(Path(fname).name, [])) for fname in self.fnames]
        missing = [fname for fname, file in zip(self.fnames, files, strict=True) if file is None]
        if missing:
            raise DataError(
                f"{self.path}: {len(missing)} of its {len(self.fnames)} clips are not there, such as {missing[0]}; "
                "give the folder that holds all of them"
            )
        return [file for file in files if file is not None]


def _one_file(template: Path, fname: str, of_its_name: Sequence[Path]) -> Path | None:
    """The file that a row means: by its folders too, where the row tells them and names alone do not decide."""
    parts = Path(fname).parts
    in_its_folder = [path for path in of_its_name if path.parts[-len(parts) :] == parts]
    files = in_its_folder or of_its_name
    if len(files) > 1:
        raise DataError(f"{template}: {fname} may be {files[0]} or {files[1]}; give the folder of one of them")
    return files[0] if files else None


def write_submission(files: Iterable[TaggedFile], template: Template, out: TextIO) -> None:
    """Exactly the template's rows and columns, filled with probabilities in full precision.

    Parameters
    ----------
    files : iterable of TaggedFile
        One for each row, tagged as a whole, in the order of the rows.

    Raises
    ------
    DataError
        If a file can't be read.
    """
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([template.name_column, *template.labels])
    unreadable = []
    for fname, file in zip(template.fnames, files, strict=True):
        if file.reason is not None:
            unreadable.append(file.reason)
            continue
        tags = file.tags[0]
        probabilities = tags.probabilities[[tags.labels.index(label) for label in template.labels]]
        writer.writerow([fname, *(repr(float(probability)) for probability in probabilities)])
    if unreadable:
        raise DataError(
            f"{template.path}: {len(unreadable)} of its {len(template.fnames)} clips can't be tagged, and a submission "
            f"needs all of them: {'; '.join(unreadable[:_N_NAMED])}"
        )
