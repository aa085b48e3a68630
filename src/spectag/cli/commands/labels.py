"""spectag labels."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from spectag.cli.options import Json
from spectag.cli.terminal import new_table, print_json, progress_display, stdout_console

if TYPE_CHECKING:
    from spectag.models.model_labels import ModelLabel


def labels_command(model: str, /, *, json_output: Json = False) -> None:
    """List the labels of a model, with thresholds and training clips.

    A label is reported from its threshold on. Thresholds that are not marked as fitted are defaults, or were set by
    hand. spectag calibrate changes them.

    Parameters
    ----------
    model
        Folder of a model from spectag train, the name of a published model (see spectag models), or hf:user/name.
    json_output
        Print the list as JSON.
    """
    from spectag.models.model_labels import model_labels

    with progress_display() as (progress, log):
        labels = model_labels(model, progress=progress, log=log)
    if json_output:
        print_json([asdict(label) for label in labels])
        return
    columns: dict[str, list[Any]] = {
        "clips": ["" if label.n_clips is None else label.n_clips for label in labels],
        "threshold": [f"{label.threshold:.3f}" for label in labels],
        "short windows": [label.window_threshold and f"{label.window_threshold:.3f}" for label in labels],
        "": [_note(label) for label in labels],
    }
    columns = {name: column for name, column in columns.items() if None not in column and any(map(str, column))}
    table = new_table("label", *columns, right=("clips", "threshold", "short windows"))
    for label, *values in zip(labels, *columns.values(), strict=True):
        table.add_row(label.label, *map(str, values))
    stdout_console().print(table)


def _note(label: "ModelLabel") -> str:
    return "fitted, but misses its goal" if label.misses_goal else "fitted" if label.is_fitted else ""
