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
from spectag.runtime import Tag, Tags
from spectag.tag import TaggedFile


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
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished_file(path) as unfinished, unfinished.open("w", encoding="utf-8", newline="") as file:
            yield file
    except OSError as error:
        raise DataError(f"{path}: can't be written: {error.strerror or error}") from error


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

        Raises
        ------
        DataError
            If it can't be read, or has a label that the tagger doesn't know.
        """
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                rows = [row for row in csv.reader(file) if row]
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{path}: can't be read as a submission's template: {error}") from error
        if len(rows) < 2 or len(rows[0]) < 2:
            raise DataError(f"{path}: expected a header (fname, then the labels) and a row for each clip")
        for label in rows[0][1:]:
            known.index(label, where=f"{path}, line 1")
        fnames = tuple(row[0] for row in rows[1:])
        return cls(path, rows[0][0], tuple(rows[0][1:]), fnames)


def write_submission(files: Iterable[TaggedFile], template: Template, out: TextIO) -> None:
    """Exactly the template's rows and columns, filled with probabilities in full precision.

    Raises
    ------
    DataError
        If a clip of the template was not tagged: a submission lacking one is invalid, and an invented row a lie.
    """
    rows, reasons = {}, []
    for file in files:
        if file.reason is None:
            rows[file.path.name] = file.tags[0]
        else:
            reasons.append(file.reason)
    missing = [fname for fname in template.fnames if Path(fname).name not in rows]
    if missing:
        raise DataError(
            f"{template.path}: {len(missing)} of its {len(template.fnames)} clips have no tags, such as {missing[0]}"
            f"{_because(reasons)}; give the folder that holds all of them"
        )
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([template.name_column, *template.labels])
    for fname in template.fnames:
        tags = rows[Path(fname).name]
        positions = [tags.labels.index(label) for label in template.labels]
        writer.writerow([fname, *(repr(float(p)) for p in tags.probabilities[positions])])


def _because(reasons: Sequence[str]) -> str:
    return f" ({reasons[0]})" if reasons else ""


def only_named(paths: Iterable[Path], template: Template) -> Iterator[Path]:
    """The files that the template asks for."""
    wanted = {Path(fname).name for fname in template.fnames}
    return (path for path in paths if path.name in wanted)
