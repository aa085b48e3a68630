"""spectag augment."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from spectag.cli.app import training_packages
from spectag.cli.options import ChannelOption, Count, ImageOptions, MelOptions, Output, Seed
from spectag.cli.terminal import print_skipped, progress_display
from spectag.config.training import AugmentConfig


def augment_command(
    manifest: Path,
    /,
    *,
    output: Output,
    clips: Count = 4,
    seed: Seed = 0,
    backbone: str = "mn04_audioset",
    augment: Annotated[AugmentConfig | None, Parameter(group="Augmentation")] = None,
    mel: MelOptions = None,
    image: ImageOptions = None,
    channel: ChannelOption = "mix",
    audio_dir: Path | None = None,
    label_column: str | None = None,
    label_separator: str | None = None,
) -> int:
    """Show what augmentation does to a manifest's clips.

    Writes a page with pictures and sounds before and after augmentation.

    Parameters
    ----------
    manifest
        Table of clips and labels, or a folder with one sub-folder per label.
    output
        HTML file to write. It contains everything it shows.
    clips
        Number of clips to show.
    seed
        Another seed shows other clips and other changes.
    backbone
        Show the input of this network. Its weights are not needed.
    channel
        How several channels become one: their mean (mix), the loudest one of the first ten minutes (loudest), or the
        one with this number, from 1.
    audio_dir
        Folder of the sounds or images, if they are not beside the manifest.
    label_column
        Manifest column of the labels, if it is not found by its name, as in a Raven table with a column of your own.
    label_separator
        What separates the labels in a field, such as ';'. By default a comma.
    """
    with training_packages("finetune", "augmentation"):
        from spectag.data.manifest import read_manifest
        from spectag.reporting.augmentation_page import augment as make_page
    with progress_display() as (progress, _):
        page = make_page(
            read_manifest(manifest, audio_dir=audio_dir, label_column=label_column, label_separator=label_separator),
            output,
            augment,
            backbone=backbone,
            mel=mel,
            image=image,
            channel=channel,
            n_clips=clips,
            seed=seed,
            progress=progress,
        )
    print(page.path)
    return print_skipped([reason for _, reason in page.skipped])
