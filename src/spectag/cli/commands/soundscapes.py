"""spectag soundscapes."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from spectag.cli.options import ChannelOption, Count, Output, Seed
from spectag.cli.terminal import progress_display
from spectag.config.scenes import SceneConfig


def soundscapes_command(
    manifest: Path,
    /,
    *,
    output: Output,
    recordings: Count = 10,
    seconds: Annotated[float, Parameter(validator=Number(gte=1))] = 60.0,
    scene: Annotated[SceneConfig | None, Parameter(name="*")] = None,
    background: Path | None = None,
    sample_rate: Annotated[int, Parameter(validator=Number(gte=1000))] = 44_100,
    channel: ChannelOption = "mix",
    audio_dir: Path | None = None,
    label_column: str | None = None,
    label_separator: str | None = None,
    seed: Seed = 0,
) -> None:
    """Mix clips into long test recordings with known event times.

    Use them to measure how well a model finds the onsets and offsets of sounds. truth.csv has a line for each sound:
    file, start, end and label, as in the output of spectag tag.

    Parameters
    ----------
    manifest
        Table of clips and labels, or a folder with one sub-folder per label.
    output
        Folder for the recordings and truth.csv.
    recordings
        Number of recordings.
    seconds
        Length of each recording.
    background
        Recording to mix the clips into. It is repeated if it is too short. By default quiet noise.
    sample_rate
        Sample rate of the recordings.
    channel
        How several channels become one: their mean (mix), the loudest one of the first ten minutes (loudest), or the
        one with this number, from 1.
    audio_dir
        Folder of the sounds, if they are not beside the manifest.
    label_column
        Manifest column of the labels, if it is not found by its name, as in a Raven table with a column of your own.
    label_separator
        What separates the labels in a field, such as ';'. By default a comma.
    seed
        Another seed gives other recordings.
    """
    from spectag.data.manifest import read_manifest
    from spectag.data.soundscapes import find_sounds, read_background, write_soundscapes

    noise = None if background is None else read_background(background, sample_rate=sample_rate, channel=channel)
    with progress_display() as (progress, log):
        clips = read_manifest(manifest, audio_dir=audio_dir, label_column=label_column, label_separator=label_separator)
        write_soundscapes(
            output,
            find_sounds(clips, sample_rate=sample_rate, channel=channel, progress=progress, log=log),
            n_scenes=recordings,
            duration_seconds=seconds,
            seed=seed,
            config=scene,
            background=noise,
            progress=progress,
        )
    print(output / "truth.csv")
