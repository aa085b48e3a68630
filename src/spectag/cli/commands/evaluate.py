"""spectag evaluate."""

import math
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number

from spectag.cli.event_table import print_event_evaluation
from spectag.cli.options import DeviceOption, Flag, Json, OptionalOutput, Seed, Workers
from spectag.cli.terminal import (
    estimate_cells,
    new_table,
    print_json,
    print_skipped,
    progress_display,
    score_cell,
    stdout_console,
)
from spectag.config.findings import EventSettings
from spectag.errors import ConfigError
from spectag.system.output import check_output_folder

if TYPE_CHECKING:
    from rich.table import Table

    from spectag.evaluation.results import Comparison, Evaluation, Slice

_N_WORST = 5


def evaluate_command(
    model: str,
    manifest: Path,
    /,
    *,
    output: OptionalOutput = None,
    events: Flag = False,
    event_settings: Annotated[EventSettings | None, Parameter(name="*", group="With --events")] = None,
    compare: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    by: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    common_labels: Flag = False,
    corrections: Path | None = None,
    hierarchy: Path | None = None,
    audio_dir: Path | None = None,
    group_column: str | None = None,
    label_column: str | None = None,
    label_separator: str | None = None,
    resamples: Annotated[int, Parameter(validator=Number(gte=0))] = 1000,
    seed: Seed = 0,
    report: Annotated[bool, Parameter(negative="--no-report", show_default=False)] = True,
    workers: Workers = None,
    device: DeviceOption = "auto",
    json_output: Json = False,
) -> int:
    """Score a model, with confidence intervals and a report.

    Training clips are scored with out-of-fold predictions. If you trained with --corrections, pass them here as
    well. The intervals count recordings, not clips: the clips of a recording are resampled together.

    Parameters
    ----------
    model
        Folder of a model, the name of a published model, hf:user/name, or a table of predictions (CSV, TSV or
        Parquet) with a column fname and one column per label.
    manifest
        Table of clips and labels, or a folder with one sub-folder per label.
    output
        Folder for metrics.json, per_label.csv, slices.csv, comparisons.csv, predictions.parquet (.csv without the
        package pyarrow) and report.html; with --events, for metrics.json, per_label.csv, curve.csv, psd_roc.csv,
        errors.csv and report.html.
    events
        Compare sounds in recordings: the first argument is a table of detections, the second one of annotations, both
        in any format with start, end and label.
    compare
        Compare with this model or table on the same clips. Repeatable.
    by
        Also score each value of this manifest column. Repeatable.
    common_labels
        Score only the labels that the model and the manifest share. Always on for published models.
    corrections
        Label corrections from spectag review. The manifest itself is not changed.
    hierarchy
        CSV with the columns child and parent, or AudioSet's ontology.json: a clip with a child has the parent, too. By
        default that of the training.
    audio_dir
        Folder of the sounds, if they are not beside the manifest.
    group_column
        Manifest column of groups, such as recordist or site, which are resampled as a whole.
    label_column
        Manifest column of the labels, if it is not found by its name, as in a Raven table with a column of your own.
    label_separator
        What separates the labels in a field, such as ';'. By default a comma.
    resamples
        Number of bootstrap resamples; 0 gives no intervals.
    seed
        Seed of the resamples.
    report
        Write report.html into the output folder. On by default.
    workers
        Number of cores to use. By default all, or one for a few clips.
    device
        Where the networks run. auto takes cuda or directml if it is installed and works, otherwise the CPU.
    json_output
        Print the content of metrics.json.
    """
    if events:
        without_effect = {
            "--compare": compare,
            "--by": by,
            "--common-labels": common_labels,
            "--corrections": corrections,
            "--hierarchy": hierarchy,
            "--group-column": group_column,
            "--workers": workers,
        }
        if unused := [name for name, value in without_effect.items() if value]:
            raise ConfigError(f"{unused[0]} has no effect with --events; leave it out")
        return _evaluate_events(
            Path(model),
            manifest,
            output,
            event_settings,
            {"audio_dir": audio_dir, "label_column": label_column, "label_separator": label_separator},
            n_resamples=resamples,
            seed=seed,
            report=report,
            as_json=json_output,
        )
    if event_settings is not None:
        raise ConfigError(
            "--min-probability, --collar, --offset-fraction and --segment have no effect without --events; leave them "
            "out, or add it"
        )
    from spectag.evaluation.evaluation import evaluate
    from spectag.evaluation.output import check_evaluation_folder
    from spectag.models.nearby_models import check_model_first
    from spectag.reporting.evaluation_report.page import write_evaluation_folder

    check_model_first("evaluate", model, [manifest])
    if output is not None:
        check_evaluation_folder(output)
    with progress_display() as (progress, log):
        evaluation = evaluate(
            model,
            manifest,
            compare=compare,
            by=by,
            common_labels=common_labels,
            corrections=corrections,
            hierarchy=hierarchy,
            audio_dir=audio_dir,
            group_column=group_column,
            label_column=label_column,
            label_separator=label_separator,
            n_resamples=resamples,
            seed=seed,
            workers=workers,
            device=device,
            progress=progress,
            log=log,
        )
        if output is not None:
            command = shlex.join(["spectag", *sys.argv[1:]])
            tagger = evaluation.models[0].tagger
            if report and tagger is not None and all(each.takes_log_mel for each in tagger.front_ends):
                log("the report explains some clips, which can take seconds for each; --no-report leaves it out")
            write_evaluation_folder(evaluation, output, report=report, command=command, progress=progress)
    if json_output:
        print_json(evaluation.to_dict())
    else:
        print_evaluation(evaluation, by=by)
        if output is not None:
            print(f"written to {output}")
    return print_skipped(list(dict.fromkeys(reason for scored in evaluation.models for _, reason in scored.skipped)))


def _evaluate_events(
    detections: Path,
    annotations: Path,
    output: Path | None,
    settings: EventSettings | None,
    reading: dict[str, Any],
    *,
    n_resamples: int,
    seed: int,
    report: bool,
    as_json: bool,
) -> int:
    """Compare detections with annotations, and print the scores. `reading` is for the table of annotations."""
    from spectag.data.detections import read_detections
    from spectag.evaluation.event_evaluation import evaluate_events
    from spectag.reporting.event_report import write_event_folder

    if output is not None:
        check_output_folder(output)
    with progress_display() as (progress, _):
        evaluation = evaluate_events(
            detections,
            read_detections(annotations, **reading, min_option=None),
            settings=settings,
            audio_dir=reading["audio_dir"],
            n_resamples=n_resamples,
            seed=seed,
            progress=progress,
        )
        if output is not None:
            command = shlex.join(["spectag", *sys.argv[1:]])
            write_event_folder(evaluation, output, report=report, command=command, progress=progress)
    if as_json:
        print_json(evaluation.to_dict())
    else:
        print_event_evaluation(evaluation)
        if output is not None:
            print(f"written to {output}")
    return 0


def print_evaluation(evaluation: "Evaluation", *, by: tuple[str, ...] = ()) -> None:
    """Print the scores with their intervals, how they were computed, the worst labels, slices and comparisons."""
    console = stdout_console()
    console.print(_overall(evaluation), "")
    for line in _notes(evaluation):
        console.print(line, soft_wrap=True, style="bold red" if line.startswith("WARNING") else None)
    if evaluation.models[0].worst_labels:
        console.print("", _worst_labels(evaluation))
    if slices := [part for part in evaluation.slices if part.by in by]:
        console.print("", _slices(slices))
    for comparison in evaluation.comparisons:
        console.print("", _comparison(comparison))
        print(comparison.sentence)


def _notes(evaluation: "Evaluation") -> Iterator[str]:
    yield from (note for scored in evaluation.models for note in scored.notes)
    if evaluation.n_groups < 2:
        yield "no intervals: all clips are of one recording"
    elif evaluation.n_resamples:
        resamples = f"{evaluation.n_resamples:,} bootstrap resamples of {evaluation.n_groups:,} recordings"
        yield f"{100 * evaluation.confidence:.0f} % intervals: {resamples}"
        if math.isnan(evaluation.models[0].overall["f1_macro"].low):
            yield "no intervals of means over labels: too few recordings per label"


def _table(heading: str, *others: str) -> "Table":
    """An empty table. All columns but the first, and the intervals, are aligned to the right."""
    return new_table(heading, *others, right=[name for name in others if not name.endswith("interval")])


def _overall(evaluation: "Evaluation") -> "Table":
    """A row for each score of the evaluated model."""
    from spectag.evaluation.results import METRIC_NAMES

    first = evaluation.models[0]
    table = _table("score", first.name, f"{100 * evaluation.confidence:.0f} % interval")
    for metric, estimate in first.overall.items():
        table.add_row(METRIC_NAMES[metric], *estimate_cells(estimate))
    table.add_row("calibration error", score_cell(first.calibration.reliability_after.error), "")
    return table


def _worst_labels(evaluation: "Evaluation") -> "Table":
    first = evaluation.models[0]
    interval = f"{100 * evaluation.confidence:.0f} % interval"
    table = _table("worst labels", "clips", "average precision", interval, "F1", "threshold")
    for label in first.worst_labels[:_N_WORST]:
        index = first.labels.index(label)
        precision = estimate_cells(first.per_label["average_precision"][index])
        numbers = map(score_cell, (first.per_label["f1"][index].value, float(first.thresholds[index])))
        table.add_row(label, f"{first.n_clips_per_label[index]:,}", *precision, *numbers)
    return table


def _slices(slices: "list[Slice]") -> "Table":
    from spectag.evaluation.results import METRIC_NAMES

    others = [metric for metric in slices[0].overall if metric not in ("lwlrap", "f1_macro")]
    table = _table("slice", "clips", "lwlrap", "interval", *(METRIC_NAMES[metric] for metric in others))
    for part in slices:
        scores = [score_cell(part.overall[metric].value) for metric in others]
        table.add_row(f"{part.by}: {part.value}", f"{part.n_clips:,}", *estimate_cells(part.overall["lwlrap"]), *scores)
    return table


def _comparison(comparison: "Comparison") -> "Table":
    from spectag.evaluation.results import METRIC_NAMES

    table = _table("same clips", comparison.first, comparison.other, "difference", "interval", "p-value")
    for metric, result in comparison.differences.items():
        p_value = "-" if math.isnan(result.p_value) else f"{result.p_value:.3f}"
        difference = estimate_cells(result.difference, "+")
        table.add_row(METRIC_NAMES[metric], score_cell(result.first), score_cell(result.other), *difference, p_value)
    return table
