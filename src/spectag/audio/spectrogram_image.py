"""Spectrogram images: 8-bit images of log_mels with low frequencies at the bottom, and their PNG files."""

from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from spectag.array_types import Float32Array, Pixels
from spectag.config.base import ImageConfig, MelConfig
from spectag.errors import ConfigError, DataError, MissingExtraError, did_you_mean
from spectag.system.atomic_files import unfinished_file

_FILTER = Image.Resampling.BILINEAR  # when Pillow shrinks an image, it averages over all pixels
_COMPRESS_LEVEL = 1  # files are 8 % larger than with the default of 6, but writing is up to twice as fast
# keys of the text chunks in the PNG
_LOW, _HIGH, _MEL, _SOURCE = "spectag:low", "spectag:high", "spectag:mel", "spectag:source"


def log_mel_to_image(log_mel: Float32Array, config: ImageConfig) -> tuple[Pixels, tuple[float, float]]:
    """The image of a log_mel, and its range from black to white.

    Parameters
    ----------
    log_mel : float array of shape (n_mels, n_frames)
    config : ImageConfig
        Values below `low` are black, values above `high` are white. A range of width 0, as in silence, becomes 1 wide.
        The log_mel is resized with bilinear interpolation, and averaged if it shrinks, before it is rounded to 8 bits.

    Returns
    -------
    image : uint8 array of shape (height, width), or (height, width, 3) for a colour map
        Row 0 is the highest band.
    (low, high) : floats
        The log_mel of the first and the last of the 256 colours.

    Raises
    ------
    ValueError
        If the log_mel is empty, not two-dimensional, or contains NaN or infinity.
    ConfigError
        If matplotlib does not have the colour map.
    MissingExtraError
        If the colour map is not grey and matplotlib is not installed.
    """
    if log_mel.ndim != 2 or log_mel.size == 0:
        raise ValueError(f"expected a log_mel of shape (n_mels, n_frames), got shape {log_mel.shape}")
    if not np.isfinite(log_mel).all():
        raise ValueError("expected a log_mel of finite values, got NaN or infinity")
    low, high = _range(log_mel, config)
    n_mels, n_frames = log_mel.shape
    values = _resized(log_mel[::-1], height=config.height or n_mels, width=config.width or n_frames)
    image = np.clip(np.rint((values - low) * (255 / (high - low))), 0, 255).astype(np.uint8)
    if config.colormap != "grey":
        image = _color_table(config.colormap)[image]
    return image, (low, high)


def image_to_input(image: Pixels, *, height: int, width: int, channels: int) -> Float32Array:
    """An image as a network takes it: of shape (channels, height, width), from 0 to 1.

    The image is resized as in `log_mel_to_image`. Grey is repeated for three channels, and three colours are averaged
    for one channel.

    Raises
    ------
    ValueError
        If the image is not uint8 of shape (height, width) or (height, width, 3), or `channels` is not 1 or 3.
    """
    _check_image(image)
    if channels not in (1, 3):
        raise ValueError(f"expected 1 or 3 channels, got {channels}")
    planes = [image] if image.ndim == 2 else [image[..., color] for color in range(3)]
    resized = np.stack([_resized(plane.astype(np.float32), height=height, width=width) for plane in planes]) / 255
    if channels == 1:
        resized = resized.mean(axis=0, keepdims=True)
    return np.array(np.broadcast_to(resized, (channels, height, width)), np.float32)


def write_png(
    path: str | Path, image: Pixels, *, low: float, high: float, mel: MelConfig | None = None, source: str | None = None
) -> None:
    """Write an image as PNG. The file appears complete or not at all.

    Its text chunks are `spectag:low` and `spectag:high` (the range), `spectag:mel` (the mel settings as JSON) and
    `spectag:source` (a description of the sound and the settings, for `read_png_source`).

    Raises
    ------
    ValueError
        If the image is not uint8 of shape (height, width) or (height, width, 3).
    DataError
        If the file can't be written.
    """
    _check_image(image)
    path = Path(path)
    mel_json = None if mel is None else mel.model_dump_json()
    texts = {_LOW: repr(float(low)), _HIGH: repr(float(high)), _MEL: mel_json, _SOURCE: source}
    chunks = PngInfo()
    for key, text in texts.items():
        if text is not None:
            chunks.add_text(key, text)
    try:
        with unfinished_file(path) as unfinished, unfinished.open("wb") as file:
            Image.fromarray(image).save(file, "PNG", pnginfo=chunks, compress_level=_COMPRESS_LEVEL)
    except OSError as error:
        raise DataError(f"{path}: the image can't be written: {error.strerror or error}") from error


def read_png(path: str | Path) -> Pixels:
    """A PNG or JPEG as uint8, of shape (height, width) if it is grey, else (height, width, 3).

    Transparency is dropped, and 16 bits are reduced to 8.

    Raises
    ------
    DataError
        If the file can't be read, or is not a complete PNG or JPEG.
    """
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as image:
            image.load()
    except FileNotFoundError:
        raise DataError(f"{path}: no such image") from None
    except UnidentifiedImageError:
        raise DataError(f"{path}: not a PNG or JPEG image ({Path(path).stat().st_size} bytes)") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: the image can't be read: {getattr(error, 'strerror', None) or error}") from error
    if image.mode.startswith("I"):
        return (np.asarray(image, np.uint32) >> 8).astype(np.uint8)
    return np.asarray(image.convert("L" if image.mode in ("1", "L", "LA") else "RGB"))


def read_png_source(path: str | Path) -> str | None:
    """The source in a PNG of `write_png`, without decoding it; None if there is no source or no PNG."""
    try:
        with Image.open(path, formats=("PNG",)) as image:
            return str(image.info[_SOURCE])
    except (KeyError, OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None


def _check_image(image: Pixels) -> None:
    is_image = image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)
    if image.dtype != np.uint8 or not is_image or image.size == 0:
        shape = "(height, width) or (height, width, 3)"
        raise ValueError(f"expected a uint8 image of shape {shape}, got {image.dtype} {image.shape}")


def _range(log_mel: Float32Array, config: ImageConfig) -> tuple[float, float]:
    low = float(log_mel.min()) if config.low is None else config.low
    high = float(log_mel.max()) if config.high is None else config.high
    if low < high and 255 / (high - low) < float(np.finfo(np.float32).max):
        return low, high
    return (low, low + 1) if config.high is None else (high - 1, high)


def _resized(values: Float32Array, *, height: int, width: int) -> Float32Array:
    if values.shape == (height, width):
        return values
    return np.asarray(Image.fromarray(values.astype(np.float32)).resize((width, height), _FILTER))


@lru_cache(maxsize=8)
def _color_table(name: str) -> Pixels:
    """The 256 colours of one of matplotlib's maps, of shape (256, 3)."""
    try:
        import matplotlib
    except ModuleNotFoundError as error:
        raise MissingExtraError("matplotlib", "plots", f"the colour map {name!r}") from error
    try:
        colormap = matplotlib.colormaps[name]
    except KeyError:
        nearest = did_you_mean(name, ["grey", *matplotlib.colormaps])
        raise ConfigError(f"colormap: unknown colour map {name!r}{nearest}; grey or any of matplotlib's") from None
    return np.asarray(colormap(np.linspace(0, 1, 256), bytes=True)[:, :3])
