"""spectag prepare."""

from pathlib import Path

from spectag.cli.options import ChannelOption, ImageOptions, MelOptions, Workers
from spectag.cli.terminal import print_next_steps, print_skipped, progress_display, shell_command


def prepare_command(
    manifest: Path,
    /,
    *,
    cache: Path | None = None,
    png: Path | None = None,
    backbone: str | None = None,
    mel: MelOptions = None,
    image: ImageOptions = None,
    channel: ChannelOption = "mix",
    audio_dir: Path | None = None,
    label_column: str | None = None,
    label_separator: str | None = None,
    workers: Workers = None,
) -> int:
    """Compute and cache the spectrograms of a manifest.

    Training does this by itself. Use this command to do it beforehand, or to export the spectrograms as images.

    Parameters
    ----------
    manifest
        Table of clips and labels, or a folder with one sub-folder per label.
    cache
        Folder for the spectrograms. By default in the user's cache folder.
    png
        Also write the spectrograms as PNG images into this folder, with a table of their labels.
    backbone
        Compute the input of this network. By default the default backbone of spectag train.
    channel
        How several channels become one: their mean (mix), the loudest one of the first ten minutes (loudest), or the
        one with this number, from 1.
    audio_dir
        Folder of the sounds, if they are not beside the manifest.
    label_column
        Manifest column of the labels, if it is not found by its name, as in a Raven table with a column of your own.
    label_separator
        What separates the labels in a field, such as ';'. By default a comma.
    workers
        Number of processes. By default one per core.
    """
    from spectag.data.spectrograms.preparation import prepare

    with progress_display() as (progress, log):
        prepared = prepare(
            manifest,
            audio_dir=audio_dir,
            label_column=label_column,
            label_separator=label_separator,
            cache=cache,
            png=png,
            backbone=backbone,
            mel=mel,
            image=image,
            channel=channel,
            workers=workers,
            progress=progress,
            log=log,
        )
    print(prepared.cache if prepared.images is None else prepared.images.labels_path)
    columns = {"label_column": label_column, "label_separator": label_separator}
    if prepared.images is None:
        options = {"audio_dir": audio_dir, **columns, "backbone": backbone, "cache": cache}
        print_next_steps(shell_command("spectag", "train", manifest, "-o", "model", **options))
    else:
        print_next_steps(shell_command("spectag", "train", prepared.images.labels_path, "-o", "model"))
    return print_skipped([reason for _, reason in prepared.report.skipped])
