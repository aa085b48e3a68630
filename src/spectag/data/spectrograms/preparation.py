"""Spectrograms of a manifest's clips in a bank, and as PNG images where asked."""

from dataclasses import dataclass
from pathlib import Path

from spectag.config.backbones import front_end_of
from spectag.config.base import ImageConfig, MelConfig
from spectag.config.recipe import Recipe
from spectag.data.clips import Manifest
from spectag.data.manifest import read_manifest
from spectag.data.spectrograms.cache import Forecast, PrepareReport, SpectrogramCache, readable_size
from spectag.data.spectrograms.png_export import PngReport, export_png
from spectag.errors import DataError
from spectag.system.cache import cache_folder
from spectag.system.progress import Log, Progress, no_log, silent


@dataclass(frozen=True)
class Prepared:
    """What preparing did; `images` is None where no images were asked for."""

    cache: Path
    forecast: Forecast
    report: PrepareReport
    images: PngReport | None


def prepare(
    manifest: str | Path | Manifest,
    *,
    cache: str | Path | None = None,
    png: str | Path | None = None,
    backbone: str | None = None,
    mel: MelConfig | None = None,
    image: ImageConfig | None = None,
    audio_dir: str | Path | None = None,
    workers: int | None = None,
    progress: Progress = silent,
    log: Log = no_log,
) -> Prepared:
    """Make the spectrograms that training would make, ahead of it.

    Parameters
    ----------
    manifest : path or Manifest
    bank : path, optional
        The bank's folder; by default in the user's cache.
    png : path, optional
        Also write each clip's spectrogram as an image into this folder, and a multi-hot CSV beside them.
    backbone : str, optional
        Whose front end; by default that of `spectag train`.
    mel, image : optional
        Settings laid over the backbone's.
    audio_dir
        As in `read_manifest`.
    workers, progress, say
        As in `train`.

    Raises
    ------
    SpectagError
        If the manifest, the settings or the disk do not allow it. Clips that can't be read are in the report.
    """
    if not isinstance(manifest, Manifest):
        manifest = read_manifest(manifest, audio_dir=audio_dir)
    if manifest.holds_images:
        raise DataError(f"{manifest.source}: holds images, which need no preparing; train on them as they are")
    root = Path(cache) if cache else cache_folder() / "spectrograms"
    store = SpectrogramCache(root, front_end_of(backbone or Recipe().backbone, mel))
    forecast = store.forecast(manifest.clips)
    if forecast.n_clips:
        needed, free = readable_size(forecast.n_bytes), readable_size(forecast.free_bytes)
        log(f"{forecast.n_clips} log_mels to make: about {needed}, and {free} is free")
    report = store.prepare(manifest.clips, workers=workers, progress=progress)
    log(f"bank: {report}")
    images = None
    if png is not None:
        images = export_png(
            store, manifest, report.keys, png, image or ImageConfig(), workers=workers, progress=progress
        )
        log(f"images: {images}")
    return Prepared(store.folder, forecast, report, images)
