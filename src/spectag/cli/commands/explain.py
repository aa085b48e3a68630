"""spectag explain."""

import json
from pathlib import Path
from typing import Annotated

from cyclopts import CycloptsError, Parameter
from cyclopts.validators import Number

from spectag.cli.options import Json, Seed
from spectag.cli.terminal import shown_work


def explain_command(
    model: str,
    file: Path,
    /,
    *,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    label: Annotated[list[str] | None, Parameter(negative="")] = None,
    top: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    start: Annotated[float | None, Parameter(validator=Number(gte=0))] = None,
    end: Annotated[float | None, Parameter(validator=Number(gt=0))] = None,
    seed: Seed = 0,
    json_output: Json = False,
) -> int:
    """Draw where in time and frequency a tagger looked for labels, and how probable it holds them.

    Parameters
    ----------
    model
        Folder of a tagger that spectag train made, or the name of a published one: see spectag models.
    file
        A recording. Of one longer than 20 s, the 10 s are taken in which a label is most probable.
    output
        Picture to write: .png, .jpg, .pdf or .svg.
    label
        Look for this label; may be given several times. By default those that are heard, at most 4 of them.
    top
        Look for this many of the most probable labels instead.
    start
        Seconds where the stretch to explain begins. Without --end it is 10 s long, or up to 20 s to the sound's end.
    end
        Seconds where it ends.
    seed
        Of the random masks.
    json_output
        Print the tags, and where each label's map is highest, as JSON.
    """
    from spectag.reporting.explanation import explain

    if output is None and not json_output:
        raise CycloptsError(msg="spectag explain needs -o PICTURE, or --json; see spectag explain --help")
    if label and top is not None:
        raise CycloptsError(msg="--label and --top exclude each other; give one of them")
    with shown_work() as (progress, log):
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
        print(json.dumps(explanation.to_dict(), indent=2, ensure_ascii=False))
    else:
        print(explanation.figure)
    return 0
