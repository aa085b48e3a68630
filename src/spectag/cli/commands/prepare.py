"""spectag prepare."""

from pathlib import Path

from spectag.cli.app import SKIPPED_SOME
from spectag.cli.options import ImageOptions, MelOptions, Workers
from spectag.cli.terminal import name_skipped, shown_work


def prepare_command(
    manifest: Path,
    /,
    *,
    cache: Path | None = None,
    png: Path | None = None,
    backbone: str | None = None,
    mel: MelOptions = None,
    image: ImageOptions = None,
    audio_dir: Path | None = None,
    workers: Workers = None,
) -> int:
    """Make the spectrograms of a manifest's clips, once.

    Parameters
    ----------
    manifest
        Table of clips and labels, or a folder with a sub-folder per label.
    bank
        Folder where the spectrograms are kept. By default in the user's cache.
    png
        Also write them as PNG images into this folder, with a multi-hot CSV of the labels.
    backbone
        Whose front end. By default that of spectag train.
    audio_dir
        Where sounds are that lie neither beside the manifest nor in the folder of its name.
    workers
        Processes. By default one for each core.
    """
    from spectag.data.spectrograms.preparation import prepare

    with shown_work() as (progress, log):
        prepared = prepare(
            manifest,
            cache=cache,
            png=png,
            backbone=backbone,
            mel=mel,
            image=image,
            audio_dir=audio_dir,
            workers=workers,
            progress=progress,
            log=log,
        )
    name_skipped([reason for _, reason in prepared.report.skipped])
    print(prepared.cache if prepared.images is None else prepared.images.labels_path)
    return SKIPPED_SOME if prepared.report.skipped else 0
