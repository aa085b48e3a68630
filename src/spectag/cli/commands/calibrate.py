"""spectag calibrate."""

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import CycloptsError, Parameter
from cyclopts.validators import Number
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from spectag.cli.app import SKIPPED_SOME
from spectag.cli.options import Json, Workers
from spectag.cli.terminal import name_skipped, shown_work

if TYPE_CHECKING:
    from spectag.evaluation.recalibration import LabelResult, Recalibration
    from spectag.scoring.thresholds import ThresholdGoal

_MARKS = {"fitted": "", "default": "default", "set": "set"}

Share = Annotated[float | None, Parameter(validator=Number(gt=0, lte=1))]


def calibrate_command(
    model: str,
    manifest: Path | None = None,
    /,
    *,
    f1: Annotated[bool, Parameter(name="--f1", negative="")] = False,
    precision: Share = None,
    recall: Share = None,
    calibration: Literal["auto", "none", "temperature", "platt", "isotonic"] | None = None,
    set_by_hand: Annotated[list[str] | None, Parameter(name="--set", negative="")] = None,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    audio_dir: Path | None = None,
    group_column: str | None = None,
    corrections: Path | None = None,
    workers: Workers = None,
    json_output: Json = False,
) -> int:
    """Fit a tagger's thresholds and calibration, or set thresholds by hand.

    Both are fitted on clips that the tagger did not learn from: those that were held out in training, which it keeps,
    or a manifest's. Precision, recall, F1 and calibration error (ECE) are of clips that neither was fitted on.

    Parameters
    ----------
    model
        Folder of a tagger that spectag train made, or the name of a published one: see spectag models.
    manifest
        Clips to fit on, with labels as the tagger has them. By default those that were held out in training.
    f1
        Thresholds with the best F1. The default, unless the tagger was given others.
    precision
        Thresholds by which at least this share of what is given a label has it, and as much as possible is found.
    recall
        Thresholds by which at least this share of what has a label is given it, and as little else as possible.
    calibration
        How logits become probabilities: see docs/calibration.md. [default: auto; unchanged if only thresholds are
        asked for]
    set_by_hand
        A label's threshold, such as Dog=0.3; may be given again. Alone it changes nothing else.
    output
        Where to write the new tagger. By default it takes the old one's place.
    audio_dir
        Where sounds are that lie neither beside the manifest nor in the folder of its name.
    group_column
        Column whose equal values belong together, such as the recordist's.
    corrections
        Corrections of the manifest's labels, as spectag review makes them.
    workers
        Processes. By default one for each core.
    json_output
        Print the table as JSON.
    """
    from spectag.config.backbones import PUBLISHED
    from spectag.data.manifest import read_manifest
    from spectag.evaluation.recalibration import calibrate
    from spectag.models.pretrained import tagger_folder

    goal, thresholds = _goal(f1, precision, recall), dict(map(_threshold, set_by_hand or ()))
    if output is None and model in PUBLISHED and not Path(model).exists():
        raise CycloptsError(msg=f"{model} is a published tagger, which stays as it is; say by -o where yours is to go")
    clips = None
    if manifest is not None:
        clips = read_manifest(manifest, audio_dir=audio_dir, group_column=group_column, corrections=corrections)
    with shown_work() as (progress, log):
        result = calibrate(
            tagger_folder(model, progress=progress, log=log),
            goal=goal,
            method=calibration,
            thresholds=thresholds,
            manifest=clips,
            output=output,
            workers=workers,
            progress=progress,
            log=log,
        )
    if json_output:
        print(json.dumps(result.to_dict(), indent=2, ensure_ascii=False))
    else:
        print_recalibration(result, Console(file=sys.stdout, highlight=False))
    name_skipped([reason for _, reason in result.skipped])
    return SKIPPED_SOME if result.skipped else 0


def _goal(f1: bool, precision: float | None, recall: float | None) -> "ThresholdGoal | None":
    from spectag.scoring.thresholds import ThresholdGoal

    if f1 + (precision is not None) + (recall is not None) > 1:
        raise CycloptsError(msg="--f1, --precision and --recall are three goals; give one of them")
    if precision is not None:
        return ThresholdGoal(kind="precision", at_least=precision)
    if recall is not None:
        return ThresholdGoal(kind="recall", at_least=recall)
    return ThresholdGoal() if f1 else None


def _threshold(text: str) -> tuple[str, float]:
    """Label and threshold of LABEL=THRESHOLD; a label may hold the sign itself."""
    label, _, number = text.rpartition("=")
    try:
        return label, float(number)
    except ValueError as error:
        raise CycloptsError(msg=f"--set {text}: give a label and its threshold, such as --set Dog=0.3") from error


def print_recalibration(result: "Recalibration", console: Console) -> None:
    """Print what became of each label, and of all together."""
    console.print(_table(result))
    console.print()
    for line in _remarks(result):
        console.print(line, markup=False, soft_wrap=True)


def _share_reached(result: "Recalibration") -> str:
    """How many labels reach the goal on clips that their thresholds were not fitted on."""
    goal = result.info.threshold_goal
    values = [getattr(row, goal.kind) for row in result.labels if row.origin == "fitted"]
    known = [value for value in values if not math.isnan(value)]
    if goal.at_least is None or not known:
        return ""
    n_reached = sum(value >= goal.at_least for value in known)
    return f"; reached by {n_reached} of {len(known)} labels on clips that it was not fitted on"


def _remarks(result: "Recalibration") -> Iterator[str]:
    calibration, goal = result.info.calibration, result.info.threshold_goal
    if calibration is None:
        yield "probabilities: the plain sigmoid of the logits"
    else:
        shared = "one curve for all labels" if len(set(calibration.curves)) == 1 else "a curve for each label"
        yield f"probabilities: {calibration.method}, {shared}"
    yield f"thresholds: {goal}{_share_reached(result)}"
    if n_others := len(result.info.labels) - len(result.labels):
        yield f"{n_others} other labels are as they were"
    if any(row.origin == "default" for row in result.labels):
        yield "default: too few clips to fit a threshold"
    if any(row.misses_goal for row in result.labels):
        yield f"missed: no threshold reaches {goal}, and this one comes nearest"
    if found := result.info.metrics.get("calibration"):
        errors, losses = found["expected_calibration_error"], found["log_loss"]
        yield "all labels together: ECE {:.4f} before calibration, {:.4f} after".format(*errors)
        yield "                     log loss {:.4f} before, {:.4f} after".format(*losses)
    if not all(math.isnan(row.ece_after) for row in result.labels):
        yield f"judged on {result.n_clips:,} clips, each by what was fitted on others"
    yield f"written to {result.bundle}"


def _table(result: "Recalibration") -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("label", overflow="fold", vertical="top")
    table.add_column("clips", justify="right", no_wrap=True)
    table.add_column("threshold", no_wrap=True)
    for name in ("precision", "recall", "F1", "ECE\nbefore", "ECE\nafter"):
        table.add_column(name, justify="right")
    for row in result.labels:
        threshold = f"{row.threshold:.3f} {'missed' if row.misses_goal else _MARKS[row.origin]}"
        table.add_row(escape(row.label), f"{row.n_clips:,}", threshold, *_scores(row))
    return table


def _scores(row: "LabelResult") -> list[str]:
    values = (row.precision, row.recall, row.f1, row.ece_before, row.ece_after)
    return ["" if math.isnan(value) else f"{value:.3f}" for value in values]
