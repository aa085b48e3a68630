"""spectag write-tags."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from spectag.cli.options import Flag, Output
from spectag.cli.terminal import print_message, print_skipped, progress_display


def write_tags_command(
    detections: Path,
    /,
    *,
    output: Output,
    sidecars: Flag = False,
    names: Path | None = None,
    overwrite: Flag = False,
    min_probability: Annotated[float, Parameter(name="--min", validator=Number(gte=0, lte=1))] = 0.0,
    max_probability: Annotated[float | None, Parameter(name="--max", validator=Number(gte=0, lte=1))] = None,
    audio_dir: Path | None = None,
    label_column: str | None = None,
    label_separator: str | None = None,
) -> int:
    """Write labels into copies of the recordings, or into XMP sidecars.

    The recordings never change. Copies have the same samples, names, times and metadata. A wav gets cue points, iXML
    and bext, mp3 and aiff get ID3, flac, ogg and opus Vorbis comments. Recordings without a detection are left out.

    Parameters
    ----------
    detections
        Table of detections, or a folder of selection tables or label tracks.
    output
        Folder for the copies or sidecars, with the sub-folders of the recordings.
    sidecars
        Write an XMP file for each recording instead of a copy.
    names
        Write other names: ucs, which gives labels of AudioSet their CatID of the Universal Category System for sound
        effects; or a CSV with the columns old and new, as for spectag relabel.
    overwrite
        Replace earlier copies and sidecars. Sidecars of other programs always stay.
    min_probability
        Leave out detections below this probability.
    max_probability
        Leave out detections at or above this probability. By default none.
    audio_dir
        Folder of the recordings, if they are not beside the table.
    label_column
        Column of the labels, if it is not found by its name.
    label_separator
        What separates the labels in a field, such as ';'. By default a comma.
    """
    from spectag.findings.tag_writing import write_tags

    with progress_display() as (progress, _):
        result = write_tags(
            detections,
            output,
            sidecars=sidecars,
            names=names,
            overwrite=overwrite,
            min_probability=min_probability,
            max_probability=float("inf") if max_probability is None else max_probability,
            audio_dir=audio_dir,
            label_column=label_column,
            label_separator=label_separator,
            progress=progress,
        )
    one, several = ("sidecar", "sidecars") if sidecars else ("copy", "copies")
    print(f"{len(result.files):,} {one if len(result.files) == 1 else several} written to {result.output}")
    if result.kept:
        are = "1 file was" if len(result.kept) == 1 else f"{len(result.kept):,} files were"
        replaced = "those of spectag" if sidecars else "copies"
        print_message(f"{are} there before, and kept, such as {result.kept[0]}; --overwrite replaces {replaced}")
    return print_skipped(result.skipped)
