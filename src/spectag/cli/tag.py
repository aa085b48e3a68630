"""spectag tag."""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from spectag.cli import SKIPPED_SOME
from spectag.cli.options import Workers
from spectag.cli.screen import name_skipped, shown_work
from spectag.errors import ConfigError

if TYPE_CHECKING:
    from spectag.config import WindowConfig
    from spectag.tables import Choice
    from spectag.tag import TaggedFile

Format = Literal["csv", "jsonl", "submission"]


def tag_command(
    model: Path,
    paths: Annotated[list[Path], Parameter(negative="")],
    /,
    *,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    table_format: Annotated[Format | None, Parameter(name="--format")] = None,
    template: Path | None = None,
    window: Annotated[float | None, Parameter(validator=Number(gt=0))] = None,
    overlap: Annotated[float, Parameter(validator=Number(gte=0))] = 0.0,
    top: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    threshold: Annotated[float | None, Parameter(validator=Number(gte=0, lte=1))] = None,
    workers: Workers = None,
) -> int:
    """Tag recordings.

    Without --top and --threshold the labels are given whose probability reaches the tagger's own threshold for them.

    Parameters
    ----------
    model
        Folder of a tagger that spectag train made.
    paths
        Sound files, and folders that are searched for them.
    output
        File to write, whole or not at all. By default stdout.
    table_format
        csv: a line for each tag. jsonl: a JSON object for each recording or window. submission: the rows and columns
        of --template. By default as --template or the output's suffix say, else csv.
    template
        A competition's sample_submission.csv: give all labels' probabilities for the clips that it names.
    window
        Tag each stretch of this many seconds. By default recordings are tagged as a whole.
    overlap
        Seconds that a window shares with the one before it.
    top
        Give this many labels, the most probable ones.
    threshold
        Give the labels of at least this probability, from 0 to 1.
    workers
        Processes. By default one for each core, or none but this for a few files.
    """
    from spectag.runtime import Tagger
    from spectag.tables import Choice, Template, write_csv, write_jsonl, write_submission, written
    from spectag.tag import find_files, tag

    chosen = table_format or _format_of(output, template)
    windows = _windows(window, overlap)
    _check(chosen, template, whole=windows is None, all_labels=top is None and threshold is None)
    tagger = Tagger(model)
    files = find_files(tagger, paths)
    skipped: list[str] = []
    silent: list[Path] = []
    with shown_work(results_to_stdout=output is None) as (progress, _), written(output) as out:
        if template is not None:
            rows = Template.read(template, tagger.labels)
            tagged = tag(tagger, rows.files(files), workers=workers, progress=progress)
            write_submission(tagged, rows, out)
        else:
            tagged = tag(tagger, files, window=windows, workers=workers, progress=progress)
            write = write_jsonl if chosen == "jsonl" else write_csv
            choice = Choice(top, threshold)
            write(_noting(tagged, choice, skipped, silent), choice, out)
    name_skipped(skipped)
    if silent:
        print(
            f"nothing heard in {len(silent)} of {len(files)} files: no label reaches its threshold there; "
            "--top 1 shows the nearest",
            file=sys.stderr,
        )
    return SKIPPED_SOME if skipped else 0


def _format_of(output: Path | None, template: Path | None) -> Format:
    if template is not None:
        return "submission"
    return "jsonl" if output is not None and output.suffix.lower() == ".jsonl" else "csv"


def _windows(window: float | None, overlap: float) -> "WindowConfig | None":
    from spectag.config import WindowConfig, parse_config

    if window is None and overlap:
        raise ConfigError(f"--overlap {overlap:g} needs --window, the length of what overlaps")
    values = {"window_seconds": window, "overlap_seconds": overlap}
    return None if window is None else parse_config(values, WindowConfig, source="--window and --overlap")


def _check(chosen: Format, template: Path | None, *, whole: bool, all_labels: bool) -> None:
    if chosen == "submission" and template is None:
        raise ConfigError("--format submission needs --template, the competition's sample_submission.csv")
    if chosen != "submission" and template is not None:
        raise ConfigError(f"--template asks for a submission, and --format {chosen} for another table; leave one out")
    if chosen == "submission" and not (whole and all_labels):
        raise ConfigError(
            "a submission has all labels' probabilities for whole clips; leave out --top, --threshold and --window"
        )


def _noting(
    tagged: "Iterable[TaggedFile]", choice: "Choice", skipped: list[str], silent: list[Path]
) -> "Iterator[TaggedFile]":
    """The same files; why some were skipped, and in which nothing was heard, is noted."""
    for file in tagged:
        if file.reason is not None:
            skipped.append(file.reason)
        elif not any(choice(tags) for tags in file.tags):
            silent.append(file.path)
        yield file
