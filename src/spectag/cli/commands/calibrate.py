"""spectag calibrate."""

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import CycloptsError, Parameter

from spectag.cli.calibration_tables import background_summary, background_table, checked_summary, checked_table
from spectag.cli.options import Flag, Json, OptionalOutput, Workers
from spectag.cli.terminal import (
    new_table,
    print_json,
    print_next_steps,
    print_skipped,
    progress_display,
    shell_command,
    stdout_console,
)

if TYPE_CHECKING:
    from rich.table import Table

    from spectag.evaluation.recalibrated_bundles import Recalibration
    from spectag.scoring.thresholds import ThresholdGoal


def _check_fraction(_: object, value: float | None) -> None:
    if value is None or 0 < value < 1:
        return
    if 1 < value < 100:
        raise ValueError(f"must be a fraction between 0 and 1; for {value:g} % write {value / 100:g}")
    raise ValueError("must be a fraction between 0 and 1, such as 0.9")


Fraction = Annotated[float | None, Parameter(validator=_check_fraction)]
_LOW_CONFIDENCE = 0.5  # about as often above the goal as below it
_FILE_WIDTH = 120  # of the table if it is not printed to a terminal, in characters


def calibrate_command(
    model: str,
    manifest: Path | None = None,
    /,
    *,
    f1: Flag = False,
    precision: Fraction = None,
    recall: Fraction = None,
    confidence: Fraction = None,
    below_f1: Flag = False,
    calibration: Literal["auto", "none", "temperature", "platt", "isotonic"] | None = None,
    set_by_hand: Annotated[list[str] | None, Parameter(name="--set", negative="")] = None,
    checked: Path | None = None,
    figure: Path | None = None,
    width: Fraction = None,
    false_alarms: str | None = None,
    background: Path | None = None,
    output: OptionalOutput = None,
    in_place: Flag = False,
    audio_dir: Path | None = None,
    group_column: str | None = None,
    label_column: str | None = None,
    label_separator: str | None = None,
    corrections: Path | None = None,
    hierarchy: Path | None = None,
    workers: Workers = None,
    json_output: Json = False,
) -> int:
    """Refit a model's probabilities and thresholds, or set thresholds.

    Prints old and new thresholds. The model changes only with --in-place; -o writes a new one.

    Fits on clips that the model was not trained on: those held out in training, whose out-of-fold predictions are
    stored in the model, or those of a manifest. The precision, recall, F1 and expected calibration error (ECE) it
    prints are cross-fitted: each clip is scored with a fit on other clips.

    Parameters
    ----------
    model
        Folder of a model from spectag train, the name of a published model (see spectag models), or hf:user/name.
    manifest
        Clips to fit on, with the model's labels. By default the clips held out in training.
    f1
        Choose the thresholds with the best F1. This is the default, unless the model has another goal.
    precision
        Choose the lowest threshold with at least this precision for each label, but not below the best F1.
    recall
        Choose the highest threshold with at least this recall for each label.
    confidence
        In at least this fraction of fits, new sounds reach the goal. By default 0.9.
    below_f1
        Allow thresholds below the best F1 for a precision, which detect more and make more errors.
    calibration
        How logits become probabilities. By default auto, or unchanged if you only request thresholds.
    set_by_hand
        Set the threshold of a label, such as Dog=0.3. Repeatable. Used alone, it changes nothing else.
    checked
        decisions.csv of spectag check: thresholds with at least --precision among all detections of the checked table.
    figure
        With --checked: draw precision and recall against the threshold of each label into this file, such as
        checked.png.
    width
        With --checked: print how many more checks make the interval of the precision this narrow. By default 0.1.
    false_alarms
        Raise thresholds until each label has no more false alarms in --background, such as 1/h or 5/day.
    background
        Folder of recordings without any of the labels.
    output
        Folder for the new model. Without it and --in-place, nothing is written.
    in_place
        Replace the old model by the new one.
    audio_dir
        Folder of the sounds, if they are not beside the manifest.
    group_column
        Manifest column of groups, such as recordist or site.
    label_column
        Manifest column of the labels, if it is not found by its name, as in a Raven table with a column of your own.
    label_separator
        What separates the labels in a field, such as ';'. By default a comma.
    corrections
        Label corrections from spectag review.
    hierarchy
        CSV with the columns child and parent, or AudioSet's ontology.json: a clip with a child has the parent, too. By
        default that of the training.
    workers
        Number of processes. By default one per core.
    json_output
        Print the table as JSON.
    """
    from spectag.config.backbones import PUBLISHED
    from spectag.data.manifest import read_manifest
    from spectag.evaluation.recalibration import calibrate
    from spectag.models.clap_words import is_clap_name
    from spectag.models.pretrained import is_card_model, tagger_folder
    from spectag.system.figures import check_figure_path

    goal = _goal(f1, precision, recall, confidence, below_f1, has_rate=false_alarms is not None)
    if width is not None and checked is None:
        raise CycloptsError(msg="--width needs --checked")
    if figure is not None:
        if checked is None:
            raise CycloptsError(msg="--figure needs --checked")
        check_figure_path(figure)
    thresholds = dict(map(_threshold, set_by_hand or ()))
    if output is not None and in_place:
        raise CycloptsError(msg="-o and --in-place exclude each other; give one of them")
    is_published = is_clap_name(model) or ((model in PUBLISHED or model.startswith("hf:")) and not Path(model).exists())
    if in_place and (is_published or is_card_model(model)):
        raise CycloptsError(msg=f"{model} is a published model and is not changed; give -o, a folder for the new model")
    clips = None
    if manifest is not None:  # read before a model is downloaded
        clips = read_manifest(
            manifest,
            audio_dir=audio_dir,
            group_column=group_column,
            corrections=corrections,
            hierarchy=hierarchy,
            label_column=label_column,
            label_separator=label_separator,
        )
    with progress_display() as (progress, log):
        result = calibrate(
            tagger_folder(model, progress=progress, log=log),
            goal=goal,
            method=calibration,
            thresholds=thresholds,
            manifest=clips,
            output=output,
            in_place=in_place,
            checked=checked,
            width=0.1 if width is None else width,
            false_alarms=false_alarms,
            background=background,
            confidence=0.9 if confidence is None else confidence,
            workers=workers,
            progress=progress,
            log=log,
        )
    if figure is not None and result.checked is not None:
        from spectag.reporting.threshold_figure import draw_checked_thresholds

        draw_checked_thresholds(result.checked, figure)
    if json_output:
        print_json(result.to_dict())
    else:
        print_recalibration(result)
        if result.checked is not None and result.written_to is not None:
            print_next_steps(shell_command("spectag", "tag", result.written_to, "FOLDER", "-o", "new-tags.csv"))
    unread = () if result.background is None else result.background.skipped
    return print_skipped([*unread, *(reason for _, reason in result.skipped)])


def _goal(
    f1: bool,
    precision: float | None,
    recall: float | None,
    confidence: float | None,
    below_f1: bool,
    *,
    has_rate: bool,
) -> "ThresholdGoal | None":
    from spectag.scoring.thresholds import BEST_F1, ThresholdGoal

    if f1 + (precision is not None) + (recall is not None) > 1:
        raise CycloptsError(msg="--f1, --precision and --recall exclude each other; give one of them")
    if confidence is not None and precision is None and recall is None and not has_rate:
        raise CycloptsError(msg="--confidence needs --precision, --recall or --false-alarms")
    if below_f1 and precision is None:
        raise CycloptsError(msg="--below-f1 needs --precision")
    confidence = BEST_F1.confidence if confidence is None else confidence
    if precision is not None:
        return ThresholdGoal(kind="precision", at_least=precision, confidence=confidence, below_f1=below_f1)
    if recall is not None:
        return ThresholdGoal(kind="recall", at_least=recall, confidence=confidence)
    return ThresholdGoal() if f1 else None


def _threshold(text: str) -> tuple[str, float]:
    """Split LABEL=THRESHOLD. The label itself may contain an equals sign."""
    label, _, number = text.rpartition("=")
    try:
        return label, float(number)
    except ValueError as error:
        raise CycloptsError(msg=f"--set {text}: expected LABEL=THRESHOLD, such as --set Dog=0.3") from error


def print_recalibration(result: "Recalibration") -> None:
    """Print the threshold and scores of each label, and what changed overall."""
    if result.checked is not None:
        table, summary = checked_table(result.checked), checked_summary(result.checked)
    elif result.background is not None:
        table, summary = background_table(result.background), background_summary(result.background)
    else:
        table, summary = _table(result), _summary(result)
    stdout_console(width=None if sys.stdout.isatty() else _FILE_WIDTH).print(table)
    print("", *summary, *_outcome(result), sep="\n")


def _summary(result: "Recalibration") -> Iterator[str]:
    calibration, goal = result.info.calibration, result.info.threshold_goal
    if calibration is None:
        yield "probabilities: the plain sigmoid of the logits"
    else:
        curves = "one curve for all labels" if len(set(calibration.curves)) == 1 else "one curve per label"
        yield f"probabilities: {calibration.method}, {curves}"
    yield f"thresholds: {goal}"
    yield from _n_reached(result)
    if n_unchanged := len(result.info.labels) - len(result.labels):
        yield f"{n_unchanged} other labels are unchanged"
    if any(row.origin == "default" for row in result.labels):
        yield "default: too few clips to fit a threshold"
    yield from _missed(result)
    if metrics := result.info.metrics.get("calibration"):
        yield "all labels: ECE {:.4f} before calibration, {:.4f} after".format(*metrics["expected_calibration_error"])
        yield "            log loss {:.4f} before, {:.4f} after".format(*metrics["log_loss"])
    if not all(math.isnan(row.ece_after) for row in result.labels):
        yield f"scored on {result.n_clips:,} clips, each with a fit on other clips"
    yield from _window_thresholds(result)


def _outcome(result: "Recalibration") -> Iterator[str]:
    if result.is_unchanged:
        yield "nothing changed: the thresholds and probabilities are those of the old model"
    if result.written_to is not None:
        yield f"written to {result.written_to}"
    elif result.is_unchanged:
        yield "nothing is written"
    else:
        yield "nothing is written; repeat the command with -o FOLDER for a new model, or --in-place to change this one"


def _missed(result: "Recalibration") -> Iterator[str]:
    """Why labels miss the goal, how many recordings they have and need, and what to do."""
    from spectag.data.readers.delimited_text import abbreviate

    missed, goal = [row for row in result.labels if row.misses_goal], result.info.threshold_goal
    if not missed:
        return
    evidence = "with right detections" if goal.kind == "precision" else "with the label, all detected"
    yield f"missed: these clips are not enough to show {goal}; the closest threshold is used."
    yield f"        This needs at least {goal.n_recordings_needed:,} recordings {evidence}, and more with errors."
    yield f"        Recordings with the label: {abbreviate([f'{row.label} {row.n_recordings:,}' for row in missed])}."
    advice = "add recordings"
    if goal.confidence > _LOW_CONFIDENCE:
        needed = goal.model_copy(update={"confidence": _LOW_CONFIDENCE}).n_recordings_needed
        advice += f", or ask for less confidence: --confidence {_LOW_CONFIDENCE:g} needs {needed:,} recordings"
    yield f"        To reach it, {advice}."


def _window_thresholds(result: "Recalibration") -> Iterator[str]:
    """What became of the thresholds for short windows."""
    from spectag.data.readers.delimited_text import abbreviate

    old, new, info = result.old_window_thresholds, result.info.window_thresholds, result.info
    if old is None or new == old or (new is not None and info.threshold_goal.kind != "precision"):
        return
    rows = list(zip(info.labels, old.thresholds, info.thresholds, strict=True))
    which = f"windows shorter than {old.below_seconds:g} s (--segments, --window, listen)"
    if new is not None:
        n_kept = sum(of_windows > of_clips for _, of_windows, of_clips in rows)
        yield f"{which} keep their own threshold where it is higher than the new one: {n_kept} of {len(rows)} labels"
        return
    changes = [f"{label} {before:.3f} → {after:.3f}" for label, before, after in rows if before != after]
    yield f"{which} had their own thresholds; they now have the new ones: {abbreviate(changes)}"


def _n_reached(result: "Recalibration") -> Iterator[str]:
    """How many labels reach the goal on clips that their thresholds were not fitted on."""
    goal = result.info.threshold_goal
    scores = [getattr(row, goal.kind) for row in result.labels if row.origin == "fitted"]
    scores = [score for score in scores if not math.isnan(score)]
    if goal.at_least is None or not scores:
        return
    n_sure = sum(row.origin == "fitted" and not row.misses_goal for row in result.labels)
    yield f"            with this confidence, {n_sure} of {len(scores)} labels reach it"
    n_reached = sum(score >= goal.at_least for score in scores)
    what = f"{n_reached} of {len(scores)} labels have a {goal.kind} of {goal.at_least:g} or more"
    yield f"            on clips that the threshold was not fitted on, {what}"


def _table(result: "Recalibration") -> "Table":
    scores = ("precision", "recall", "F1", "ECE\nbefore", "ECE\nafter")
    table = new_table("label", "clips", "threshold\nold → new", *scores, right=("clips", *scores))
    table.columns[2].no_wrap = True
    for row in result.labels:
        note = "missed" if row.misses_goal else "" if row.origin == "fitted" else row.origin
        values = row.precision, row.recall, row.f1, row.ece_before, row.ece_after
        cells = ("" if math.isnan(value) else f"{value:.3f}" for value in values)
        threshold = f"{row.old_threshold:.3f} → {row.threshold:.3f} {note}"
        table.add_row(row.label, f"{row.n_clips:,}", threshold, *cells)
    return table
