"""spectag show."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from spectag.cli.options import Seed
from spectag.config.base import MelConfig

_FRONT_END = "Front end (by default what suits the sound; if some is given, as below)"


def show_command(
    path: Path,
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    grid: str | None = None,
    seed: Seed = 0,
    mel: Annotated[MelConfig | None, Parameter(group=_FRONT_END)] = None,
    audio_dir: Path | None = None,
) -> int:
    """Draw a sound's waveform and mel spectrogram, or a collage of a manifest's clips with their labels.

    Parameters
    ----------
    path
        A sound, or a manifest.
    output
        Picture to write: .png, .jpg, .pdf or .svg.
    grid
        Rows and columns of the collage, such as 4x4.
    seed
        Another seed draws other clips of the manifest.
    audio_dir
        Where a manifest's sounds are that lie neither beside it nor in the folder of its name.
    """
    from spectag.reporting.clip_plots import show

    print(show(path, output=output, mel=mel, grid=grid, seed=seed, audio_dir=audio_dir))
    return 0
