"""spectag show."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from spectag.cli.options import ChannelOption, Output, Seed
from spectag.config.base import MelConfig

_SPECTROGRAM = "Spectrogram (by default suited to the sound; if you set one, the others are as below)"


def show_command(
    path: Path,
    /,
    *,
    output: Output,
    grid: str | None = None,
    seed: Seed = 0,
    mel: Annotated[MelConfig | None, Parameter(group=_SPECTROGRAM)] = None,
    channel: ChannelOption = "mix",
    audio_dir: Path | None = None,
    label_column: str | None = None,
    label_separator: str | None = None,
) -> None:
    """Draw a sound, or a grid of a manifest's clips.

    A sound is drawn as waveform and mel spectrogram. A grid shows the spectrograms of clips with their labels.

    Parameters
    ----------
    path
        A sound file, or a manifest.
    output
        Figure to write: .png, .jpg, .pdf or .svg.
    grid
        Rows and columns of the grid, such as 4x4.
    seed
        Another seed draws other clips of the manifest.
    channel
        How several channels become one: their mean (mix), the loudest one of the first ten minutes (loudest), or the
        one with this number, from 1.
    audio_dir
        Folder of the sounds, if they are not beside the manifest.
    label_column
        Manifest column of the labels, if it is not found by its name, as in a Raven table with a column of your own.
    label_separator
        What separates the labels in a field, such as ';'. By default a comma.
    """
    from spectag.reporting.clip_plots import show

    figure = show(
        path,
        output=output,
        mel=mel,
        grid=grid,
        seed=seed,
        channel=channel,
        audio_dir=audio_dir,
        label_column=label_column,
        label_separator=label_separator,
    )
    print(figure)
