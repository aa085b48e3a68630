"""spectag search."""

import json
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import CycloptsError, Parameter
from cyclopts.validators import Number

from spectag.cli.options import Flag, Json

if TYPE_CHECKING:
    from spectag.curation.sound_index.searching import SearchResult

_WIDE = 10_000  # columns, of what is not a terminal


def search_command(
    index: Path,
    queries: list[str],
    /,
    *,
    number: Annotated[int, Parameter(name=["--number", "-n"], validator=Number(gte=1))] = 10,
    start: Annotated[float | None, Parameter(validator=Number(gte=0))] = None,
    after: str | None = None,
    before: str | None = None,
    label: Annotated[list[str] | None, Parameter(negative="")] = None,
    not_label: Annotated[list[str] | None, Parameter(negative="")] = None,
    within: Annotated[list[str] | None, Parameter(name="--in", negative="")] = None,
    same_file: Flag = False,
    once: Flag = False,
    model: str | None = None,
    output: Annotated[str | None, Parameter(name=["--output", "-o"])] = None,
    json_output: Json = False,
) -> None:
    """Find similar sounds in an index.

    Similarity is 1 for identical sounds and about 0 for unrelated sounds.

    Parameters
    ----------
    index
        Folder of the index, from spectag index.
    queries
        Sound files, or names of recordings in the index. Several queries are averaged.
    number
        Number of results.
    start
        Search for the excerpt of the query that starts here, instead of the whole query.
    after
        Only recordings from this time on: 2024-05-01 or 2024-05-01T05:30.
    before
        Only recordings before this time.
    label
        Only excerpts in which this label was detected. Repeatable: one of these labels.
    not_label
        Only excerpts in which this label was not detected. Repeatable.
    within
        Only files in this folder, or with this name: north, 'north/*.flac'. Repeatable.
    same_file
        Also return other excerpts of the query's own recording.
    once
        Return each recording once, with its most similar excerpt.
    model
        The model that built the index, if it has moved.
    output
        CSV to write. By default a table is printed.
    json_output
        Print the results as JSON.
    """
    from spectag.curation.sound_index.api import search
    from spectag.curation.sound_index.output import check_results_file, result_to_dict, write_results

    if output is not None:
        check_results_file(output)
    found = search(
        index,
        queries,
        n=number,
        start=start,
        after=_date("--after", after),
        before=_date("--before", before),
        label=label or (),
        not_label=not_label or (),
        within=within or (),
        same_file=same_file,
        once=once,
        model=model,
    )
    if output is not None:
        write_results(found, output)
    if json_output:
        print(json.dumps([result_to_dict(one) for one in found], indent=2, ensure_ascii=False))
    elif output is None:
        _print(found)
    if not found:
        print("nothing found: no other recording fulfils all of these conditions", file=sys.stderr)


def _date(option: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        date = datetime.fromisoformat(text)
    except ValueError as error:
        raise CycloptsError(msg=f"{option} {text}: expected a date, such as 2024-05-01 or 2024-05-01T05:30") from error
    if date.tzinfo is not None:
        raise CycloptsError(
            msg=f"{option} {text}: dates are those of the recorder's clock, without a time zone; leave it out"
        )
    return date


def _print(found: "Sequence[SearchResult]") -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), show_header=bool(found))
    table.add_column("similarity", justify="right", no_wrap=True)
    table.add_column("file", overflow="fold")
    table.add_column("seconds", no_wrap=True)
    table.add_column("labels", overflow="fold")
    table.add_column("recorded", no_wrap=True)
    for one in found:
        end = "" if one.end_seconds is None else f"–{one.end_seconds:.1f}"
        labels = ", ".join(tag.label for tag in one.labels)
        seconds = f"{one.start_seconds:.1f}{end}"
        table.add_row(f"{one.similarity:.3f}", escape(_short(one.file)), seconds, escape(labels), _told_date(one))
    console = Console(file=sys.stdout, highlight=False)
    console = console if console.is_terminal else Console(file=sys.stdout, highlight=False, width=_WIDE)
    console.print(table)
    if any(one.recorded is not None and not one.recorded.by_name for one in found):
        print("dates in brackets: no date in the name, so when the file was last changed", file=sys.stderr)


def _told_date(found: "SearchResult") -> str:
    if found.recorded is None:
        return ""
    text = f"{found.recorded.at:%Y-%m-%d %H:%M:%S}"
    return text if found.recorded.by_name else f"({text})"


def _short(file: str) -> str:
    """The path from here, of a file that lies below."""
    path = Path(file)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else file
