"""spectag explain."""

from pathlib import Path

from cyclopts import CycloptsError

from spectag.cli.options import Count, Json, Length, Names, OptionalOutput, Seconds, Seed
from spectag.cli.terminal import print_json, print_message, progress_display


def explain_command(
    model: str,
    file: Path,
    /,
    *,
    output: OptionalOutput = None,
    label: Names = None,
    top: Count | None = None,
    start: Seconds = None,
    end: Length = None,
    seed: Seed = 0,
    json_output: Json = False,
) -> None:
    """Draw where in time and frequency a model detects a label.

    Parameters
    ----------
    model
        Folder of a model from spectag train, the name of a published model (see spectag models), or hf:user/name.
    file
        A recording. If it is longer than 20 s, the 10 s with the most probable label are explained.
    output
        Figure to write: .png, .jpg, .pdf or .svg.
    label
        Explain this label. Repeatable. By default the detected labels, at most 4.
    top
        Explain this many of the most probable labels instead.
    start
        Start of the excerpt to explain. Without --end it is 10 s long, or reaches to the end of the sound if
        that is within 20 s.
    end
        End of the excerpt.
    seed
        Seed of the random masks.
    json_output
        Print the tags as JSON, with the time and frequency that each label depends on most.
    """
    from spectag.models.nearby_models import check_model_first
    from spectag.reporting.explanation import explain

    if output is None and not json_output:
        raise CycloptsError(msg="spectag explain needs -o FIGURE or --json; see spectag explain --help")
    if label and top is not None:
        raise CycloptsError(msg="--label and --top exclude each other; give one of them")
    check_model_first("explain", model, [file])
    with progress_display() as (progress, log):
        explanation = explain(
            model,
            file,
            output,
            labels=label or (),
            top=top,
            start_seconds=start,
            end_seconds=end,
            seed=seed,
            progress=progress,
            log=log,
        )
    if json_output:
        print_json(explanation.to_dict())
    else:
        print_message("\n".join(explanation.lines))
        print(explanation.figure)
