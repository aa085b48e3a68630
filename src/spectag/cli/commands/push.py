"""spectag push."""

from dataclasses import asdict
from typing import Annotated

from cyclopts import Parameter

from spectag.cli.options import Flag, Json
from spectag.cli.terminal import print_json, progress_display


def push_command(
    model: str,
    to: str,
    /,
    *,
    license_name: Annotated[str | None, Parameter(name="--license")] = None,
    private: Flag = False,
    predictions: bool = True,
    json_output: Json = False,
) -> None:
    """Upload a model to the Hugging Face Hub.

    Prints the name that others give as MODEL, with the commit. Log in first: `hf auth login`, or set HF_TOKEN. Only the
    files of the model are uploaded, with a model card. The repository is created if necessary.

    Parameters
    ----------
    model
        Folder of a model from spectag train, the name of a published model (see spectag models), or hf:user/name.
    to
        Where to upload it, such as hf:user/name.
    license_name
        Licence for the model card, such as cc-by-4.0. By default the one that the card states.
    private
        If the repository is created, only you can see it.
    predictions
        Upload predictions.csv and calibration.csv, too. They contain the names of the training files.
    json_output
        Print the name, the address and the files as JSON.
    """
    from spectag.models.hub import push

    with progress_display() as (progress, log):
        pushed = push(
            model, to, license=license_name, private=private, predictions=predictions, progress=progress, log=log
        )
    if json_output:
        print_json(asdict(pushed))
    else:
        print(pushed.name)
