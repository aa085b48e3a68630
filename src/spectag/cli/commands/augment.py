"""spectag augment."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from spectag.cli.app import SKIPPED_SOME
from spectag.cli.options import ImageOptions, MelOptions, Seed, Workers
from spectag.cli.terminal import name_skipped, shown_work
from spectag.config.training import AugmentConfig
from spectag.errors import MissingExtraError


def augment_command(
    manifest: Path,
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    clips: Annotated[int, Parameter(validator=Number(gte=1))] = 4,
    seed: Seed = 0,
    backbone: str = "mn04_audioset",
    augment: Annotated[AugmentConfig | None, Parameter(group="Augmentation")] = None,
    mel: MelOptions = None,
    image: ImageOptions = None,
    cache: Path | None = None,
    audio_dir: Path | None = None,
    workers: Workers = None,
) -> int:
    """Show what augmentation does to a manifest's clips: a page of pictures and sounds, before and after.

    Parameters
    ----------
    manifest
        Table of clips and labels, or a folder with a sub-folder per label.
    output
        Page to write, .html. It holds all that it shows.
    clips
        Clips to show.
    seed
        Another seed shows other clips and other changes.
    backbone
        Network whose input is shown. Its weights are not needed.
    bank
        Folder where spectrograms are kept. By default in the user's cache.
    audio_dir
        Where sounds (or images) are that lie neither beside the manifest nor in the folder of its name.
    workers
        Processes that make spectrograms. By default one for each core.
    """
    try:
        from spectag.reporting.augmentation_page import augment as make_page
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "torch", "train", "augmentation") from error
    with shown_work() as (progress, log):
        page = make_page(
            manifest,
            output,
            augment,
            backbone=backbone,
            mel=mel,
            image=image,
            n_clips=clips,
            seed=seed,
            cache=cache,
            audio_dir=audio_dir,
            workers=workers,
            progress=progress,
            log=log,
        )
    name_skipped([reason for _, reason in page.skipped])
    print(page.path)
    return SKIPPED_SOME if page.skipped else 0
