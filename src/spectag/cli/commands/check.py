"""spectag check."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter, Token
from cyclopts.validators import Number

from spectag.cli.options import Flag, Output, Workers
from spectag.cli.terminal import new_table, print_next_steps, print_skipped, progress_display, stdout_console
from spectag.config.base import parse_config
from spectag.config.findings import CheckSettings

if TYPE_CHECKING:
    from spectag.findings.check_session import CheckResult


_ALL = 0  # detections of each label


def _per_label(_: object, tokens: Sequence[Token]) -> int:
    """A number from 1, or `_ALL` for none, which differs from an option that is left out."""
    text = tokens[0].value
    if text.strip().lower() == "none":
        return _ALL
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise ValueError(f"expected a number of 1 or more, or none; got {text!r}")
    return number


def check_command(
    model: str,
    detections: Path,
    /,
    *,
    output: Output,
    per_label: Annotated[int | None, Parameter(converter=_per_label)] = None,
    across: str | None = None,
    presence: Flag = False,
    labels: Path | None = None,
    min_probability: Annotated[float | None, Parameter(name="--min", validator=Number(gte=0, lte=1))] = None,
    max_probability: Annotated[float | None, Parameter(name="--max", validator=Number(gte=0, lte=1))] = None,
    context: Annotated[float, Parameter(validator=Number(gte=0, lte=60))] = 3.0,
    training_clips: Flag = False,
    reviewer: str | None = None,
    no_page: Flag = False,
    no_browser: Flag = False,
    port: Annotated[int | None, Parameter(validator=Number(gte=1, lte=65_535))] = None,
    audio_dir: Path | None = None,
    label_column: str | None = None,
    label_separator: str | None = None,
    site_from: str | None = None,
    seed: Annotated[int | None, Parameter(validator=Number(gte=0))] = None,
    workers: Workers = None,
) -> int:
    """Check a sample of detections by ear, on a page.

    Draws a stratified random sample of each label's detections, and opens a page in the browser to listen and decide.
    Ctrl-C ends it. Each decision is saved at once. The command continues the sample in OUTPUT, with its options where
    you give none. Then `spectag calibrate MODEL --checked
    OUTPUT/decisions.csv --precision 0.9` fits thresholds.

    Parameters
    ----------
    model
        The model that made the detections: its folder, or the name of a published one.
    detections
        Table of detections, or a folder of selection tables or label tracks.
    output
        Folder for sample.csv, decisions.csv and check.json, and for the protocol of the check, for a paper.
    per_label
        Detections of each label at most; none for all. By default 96.
    across
        What the sample is spread over: scores, sites and hours, or none, separated by commas, the most important first.
        By default scores,sites,hours.
    presence
        Check whether each label occurred at each site on each day: the most probable detections first, and no others of
        the label, site and day after the first confirmed one.
    labels
        File with the labels to check, one in each line. By default all.
    min_probability
        Leave out detections below this probability. By default none.
    max_probability
        Leave out detections at or above this probability. By default none.
    context
        Seconds before and after each detection.
    training_clips
        At the end, cut the decided detections into OUTPUT/clips. OUTPUT/clips/clips.csv is a manifest of them for
        spectag train: confirmed detections are positives, wrong ones hard negatives.
    reviewer
        Your name. You can also type it on the page.
    no_page
        Only draw the sample, write the protocol, and cut clips.
    no_browser
        Print the address of the page, and do not open it.
    port
        Port of the page on this computer (127.0.0.1). By default one that is free.
    audio_dir
        Folder of the recordings, if they are not beside the table.
    label_column
        Column of the labels, if it is not found by its name.
    label_separator
        What separates the labels in a field, such as ';'. By default a comma.
    site_from
        Regular expression that finds the site in the path of a recording. By default the site is that of the table, or
        what comes before the date in the file name, or the folder.
    seed
        Another seed gives another sample.
    workers
        Processes that cut clips. By default one per core.
    """
    from spectag.findings.check_session import open_check
    from spectag.findings.detection_check import check_page_packages
    from spectag.models.nearby_models import check_model_first

    check_model_first("check", model, [detections])
    values: dict[str, Any] = {"per_label": per_label, "presence": presence or None, "context": context, "seed": seed}
    values = {name: value for name, value in values.items() if value is not None}  # others are those of the sample
    if per_label == _ALL:
        values["per_label"] = None
    if across is not None:
        values["across"] = [name.strip() for name in across.split(",") if name.strip() not in ("", "none")]
    settings = parse_config(values, CheckSettings, source="options")
    if not no_page:
        check_page_packages()
    with ExitStack() as stack:
        with progress_display() as (progress, log):
            sample = open_check(
                model,
                detections,
                output,
                settings,
                labels=labels,
                min_probability=min_probability,
                max_probability=max_probability,
                audio_dir=audio_dir,
                label_column=label_column,
                label_separator=label_separator,
                site_from=site_from,
                progress=progress,
                log=log,
            )
            session = stack.enter_context(sample)
        if not no_page:  # without a spinner
            session.serve(_print_address, port=port, browser=not no_browser, reviewer=reviewer or "")
        with progress_display() as (progress, _):
            result = session.finish(training_clips=training_clips, workers=workers, progress=progress)
    _print(result)
    return print_skipped(result.clips.skipped if result.clips is not None else ())


def _print_address(address: str) -> None:
    print(f"{address}\nOpen this address in a browser on this computer. Ctrl-C ends the check.", flush=True)


def _print(result: "CheckResult") -> None:
    not_needed = ["not needed"] if result.presence else []
    numbers = ("detections", "sampled", "yes", "no", "not sure", *not_needed, "to check")
    table = new_table("label", *numbers, right=numbers)
    for label, count in result.counts.items():
        spared = [count.not_needed] if result.presence else []
        cells = (count.n_detections, count.n_sampled, count.yes, count.no, count.unsure, *spared, count.n_open)
        table.add_row(label, *(f"{cell:,}" for cell in cells))
    if result.counts:
        stdout_console().print(table)
    else:
        print("the table has no detections within these limits")
    print(f"decisions: {result.decisions}\nprotocol: {result.protocol}")
    if (clips := result.clips) is not None:
        print(f"{clips.n_positives:,} positives and {clips.n_negatives:,} hard negatives: {clips.manifest}")
    if commands := [command for command in (result.next_command, result.train_command) if command]:
        print_next_steps(*commands)
