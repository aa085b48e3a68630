"""spectag upgrade."""

from pathlib import Path

from spectag.cli.options import Flag, OptionalOutput
from spectag.cli.terminal import progress_display


def upgrade_command(model: Path, /, *, output: OptionalOutput = None, in_place: Flag = False) -> None:
    """Rewrite a model of an earlier version of spectag for this one.

    The probabilities stay the same, and nothing is trained. A model that cannot be upgraded is not changed.

    Parameters
    ----------
    model
        Folder of the model.
    output
        Folder for the new model.
    in_place
        Replace the old model by the new one.
    """
    from spectag.models.upgrading import upgrade

    with progress_display() as (_, log):
        folder = upgrade(model, output=output, in_place=in_place, log=log)
    print(folder)
