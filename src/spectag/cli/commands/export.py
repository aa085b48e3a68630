"""spectag export."""

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from spectag.cli.options import Flag, Json, Length, Output
from spectag.cli.terminal import print_json, progress_display

if TYPE_CHECKING:
    from spectag.models.standalone.exporting import ExportedModel


def export_command(
    model: str,
    /,
    *,
    output: Output,
    fp16: Flag = False,
    opset: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    max_seconds: Length = None,
    json_output: Json = False,
) -> None:
    """Export a model as one ONNX file that runs without spectag.

    The file takes a waveform at the model's sample rate and returns calibrated probabilities. The feature extraction is
    part of it, and labels and thresholds are in its metadata. It runs wherever onnxruntime does: Python, C++, browsers,
    phones. It is compared with the model before it is written, and the largest difference is printed.

    Parameters
    ----------
    model
        Folder of a model from spectag train, the name of a published model (see spectag models), or hf:user/name.
    output
        File to write, such as model.onnx.
    fp16
        Store the weights as float16. The file is about half as large; probabilities change slightly.
    opset
        Version of ONNX's operators, from 18, for older runtimes. By default that of the model.
    max_seconds
        Only take waveforms of exactly this length, for devices that need fixed shapes. At most the length of the
        model's parts (60, or 10 for published models). By default any length.
    json_output
        Print the result as JSON.
    """
    from spectag.models.standalone.exporting import export

    with progress_display() as (progress, log):
        exported = export(model, output, fp16=fp16, opset=opset, max_seconds=max_seconds, progress=progress, log=log)
    if json_output:
        print_json(exported.to_dict())
    else:
        _print_exported(exported)


def _print_exported(exported: "ExportedModel") -> None:
    """Print what the file takes and returns, how close it is to the model, and how to run it."""
    print(f"{exported.path}: {exported.n_bytes / 1e6:.1f} MB, opset {exported.opset}")
    for kind, shapes in (("input", exported.inputs), ("output", exported.outputs)):
        for name, shape in shapes.items():
            rate = f", mono at {exported.sample_rate} Hz" if kind == "input" else ""
            print(f"{kind:7} {name:14} float32 ({', '.join(map(str, shape))}){rate}")
    sounds = ", ".join(f"{seconds:g}" for seconds in exported.checked_seconds)
    print(
        f"largest difference in probability from the model: {exported.largest_difference:.1e}, on sounds of {sounds} s"
    )
    print(f"\nTo run it with onnxruntime and numpy alone:\n\n{exported.example()}", end="")
