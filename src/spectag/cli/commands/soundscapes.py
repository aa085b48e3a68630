"""spectag mix."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from spectag.cli.options import Seed
from spectag.cli.terminal import shown_work
from spectag.config.scenes import SceneConfig


def soundscapes_command(
    manifest: Path,
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    recordings: Annotated[int, Parameter(validator=Number(gte=1))] = 10,
    seconds: Annotated[float, Parameter(validator=Number(gte=1))] = 60.0,
    scene: Annotated[SceneConfig | None, Parameter(name="*")] = None,
    background: Path | None = None,
    sample_rate: Annotated[int, Parameter(validator=Number(gte=1000))] = 44_100,
    audio_dir: Path | None = None,
    seed: Seed = 0,
) -> int:
    """Mix long recordings of a manifest's clips at known places, to see how well a tagger tells begin and end.

    truth.csv has a line for each sound: file, start, end, label, as spectag tag writes them.

    Parameters
    ----------
    manifest
        Table of clips and labels, or a folder with a sub-folder per label.
    output
        Folder for the recordings and truth.csv.
    recordings
        How many to make.
    seconds
        Length of each.
    background
        A sound that lies under all; it is repeated where it is shorter. By default quiet noise.
    sample_rate
        Of the recordings, in Hz.
    audio_dir
        Where sounds are that lie neither beside the manifest nor in the folder of its name.
    seed
        Another seed makes other recordings.
    """
    from spectag.audio.files import read_audio
    from spectag.data.manifest import read_manifest
    from spectag.data.soundscapes import find_sounds, write_scenes
    from spectag.errors import AudioError

    under = None if background is None else read_audio(background, sample_rate=sample_rate)[0]
    if under is not None and not under.any():
        raise AudioError(f"{background}: is silent throughout; give another --background, or none for quiet noise")
    with shown_work() as (progress, log):
        clips = read_manifest(manifest, audio_dir=audio_dir)
        sounds = find_sounds(clips, sample_rate=sample_rate, progress=progress, log=log)
        write_scenes(
            output,
            sounds,
            n_scenes=recordings,
            duration_seconds=seconds,
            seed=seed,
            config=scene,
            background=under,
            progress=progress,
        )
    print(output / "truth.csv")
    return 0
