"""spectag search."""

import json
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import CycloptsError, Parameter
from cyclopts.validators import Number
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from spectag.cli.options import Json

if TYPE_CHECKING:
    from spectag.curation.sound_index.searching import Found

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
    same_file: Annotated[bool, Parameter(negative="")] = False,
    once: Annotated[bool, Parameter(negative="")] = False,
    model: str | None = None,
    output: Annotated[str | None, Parameter(name=["--output", "-o"])] = None,
    json_output: Json = False,
) -> None:
    """Find sounds like this one in an index that spectag index made.

    Similarity is 1 for the same sound, and about 0 for sounds that have nothing to do with each other.

    Parameters
    ----------
    index
        Folder of the index.
    queries
        Sound files; or recordings of the index, by their names. Of several, what they have in common is sought.
    number
        How many to give.
    start
        Seek what sounds like the query from this second on, for the length of a stretch, and not like all of it.
    after
        Recorded at this time or later: 2024-05-01, 2024-05-01T05:30.
    before
        Recorded before this time.
    label
        In which this label was heard. Given several times: one of these.
    not_label
        In which this label was not heard.
    within
        In such a folder, or of such a name: north, 'north/*.flac'.
    same_file
        Find other stretches of the query's own recording, too.
    once
        Give each recording once, by the stretch that is most alike.
    model
        The tagger that made the index, if it lies elsewhere by now.
    output
        CSV to write, such as found.csv. By default a table on stdout.
    json_output
        Print JSON.
    """
    from spectag.curation.sound_index.api import search
    from spectag.curation.sound_index.output import check_output, to_dict, write_found

    if output is not None:
        check_output(output)
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
        write_found(found, output)
    if json_output:
        print(json.dumps([to_dict(one) for one in found], indent=2, ensure_ascii=False))
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


def _print(found: "Sequence[Found]") -> None:
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


def _told_date(found: "Found") -> str:
    if found.recorded is None:
        return ""
    text = f"{found.recorded.at:%Y-%m-%d %H:%M:%S}"
    return text if found.recorded.by_name else f"({text})"


def _short(file: str) -> str:
    """The path from here, of a file that lies below."""
    path = Path(file)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else file
