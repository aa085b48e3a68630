"""Computing the spectrograms of a manifest's clips ahead of training, and exporting them as PNG images."""

from dataclasses import dataclass
from pathlib import Path

from spectag.audio.sound_faults import truncation_warning
from spectag.config.backbones import resolve_mel
from spectag.config.base import Channel, ImageConfig, MelConfig
from spectag.config.recipe import Recipe
from spectag.data.manifest import ManifestInput, as_manifest
from spectag.data.spectrograms.cache import PrepareReport, SpectrogramCache
from spectag.data.spectrograms.png_export import PngReport, export_png
from spectag.errors import DataError
from spectag.system.cache import permanent_cache_folder
from spectag.system.progress import Log, Progress, no_log, shows_progress, silent
from spectag.system.short_texts import short_repr


@short_repr
@dataclass(frozen=True)
class Prepared:
    """The result of `prepare`."""

    cache: Path
    report: PrepareReport
    images: PngReport | None
    """None if no images were requested."""


@shows_progress
def prepare(
    manifest: ManifestInput,
    *,
    cache: str | Path | None = None,
    png: str | Path | None = None,
    backbone: str | None = None,
    mel: MelConfig | None = None,
    image: ImageConfig | None = None,
    channel: Channel = "mix",
    audio_dir: str | Path | None = None,
    label_column: str | None = None,
    label_separator: str | None = None,
    workers: int | None = None,
    progress: Progress = silent,
    log: Log = no_log,
) -> Prepared:
    """Compute the spectrograms that training needs, and store them in the spectrogram cache.

    Parameters
    ----------
    manifest : path, DataFrame or Manifest
    cache : path, optional
        Folder of the spectrogram cache. By default in the user's cache folder.
    png : path, optional
        Also write each clip's spectrogram as an image to this folder, with a multi-hot CSV of the labels.
    backbone : str, optional
        The backbone whose spectrogram settings are used. By default that of `spectag train`.
    mel, image : optional
        Settings that replace those of the backbone.
    channel : "mix", "loudest" or int
        How several channels become one, as for `train`.
    audio_dir, label_column, label_separator
        As for `read_manifest`.
    workers, progress, log
        As for `train`.

    Raises
    ------
    SpectagError
        If the manifest or a setting is invalid, or the disk is full. Clips that can't be read are in the report.
    """
    manifest = as_manifest(manifest, audio_dir=audio_dir, label_column=label_column, label_separator=label_separator)
    if manifest.holds_images:
        raise DataError(f"{manifest.source}: the clips are images, which need no preparation; train on them directly")
    root = Path(cache) if cache else permanent_cache_folder() / "spectrograms"
    store = SpectrogramCache(root, resolve_mel(backbone or Recipe().backbone, mel), channel=channel)
    report = store.prepare(manifest.clips, workers=workers, progress=progress, log=log)
    log(f"spectrogram cache: {report}")
    if report.truncated:
        log(truncation_warning([clip.name for clip in report.truncated]))
    images = None
    if png is not None:
        images = export_png(
            store, manifest, report.keys, png, image or ImageConfig(), workers=workers, progress=progress
        )
        log(f"images: {images}")
    return Prepared(store.folder, report, images)
