"""Figures for people: a clip as waveform and mel spectrogram, and a collage of clips with their labels.

matplotlib (the extra `plots`) is imported where a figure begins, and never through pyplot: no global state, no window.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spectag.array_types import Float32Array, Waveform
from spectag.audio.files import audio_info, read_audio
from spectag.audio.mel import compute_log_mel, hz_to_mel, picture_limits
from spectag.audio.spectrogram_image import read_png
from spectag.config.base import MelConfig
from spectag.data.clips import Clip
from spectag.data.manifest import read_manifest
from spectag.errors import AudioError, ConfigError, DataError
from spectag.system.figures import LINE_COLOR, TITLE_LENGTH, check_figure_path, middle_cut, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import FillBetweenPolyCollection
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage
    from matplotlib.lines import Line2D

LogMel = Float32Array

_LONGEST_SECONDS = 60.0  # shown of a recording
_FRAME_SECONDS = 0.05  # FFT size for a sound whose MelConfig is not given, to the nearest power of two
_LEAST_COLUMNS = 300  # of such a sound's log_mel, however short it is
_DEFAULT_GRID = "4x4"
_MOST_TILES_A_SIDE = 20
_MANIFEST_SUFFIXES = {".csv", ".tsv", ".txt"}

_COLORMAP = "magma"
_WAVEFORM_COLUMNS = 2000  # from twice as many samples on, only the least and the greatest of each column are drawn
_FEW_SAMPLES = 100  # drawn as points
_TICK_SHARE = 0.08  # of the frequency axis, between two ticks at least: as high as their numbers are in a low panel
_TILE_INCHES = 2.4, 1.9


@dataclass(frozen=True)
class Tile:
    """A clip in a collage."""

    labels: tuple[str, ...]
    caption: str
    picture: NDArray[Any]  # a log_mel, or an image where config is None
    config: MelConfig | None


def show(
    path: str | Path,
    *,
    output: str | Path,
    mel: MelConfig | None = None,
    grid: str | None = None,
    seed: int = 0,
    audio_dir: str | Path | None = None,
) -> Path:
    """Draw a sound as waveform and mel spectrogram, or clips of a manifest as a collage with their labels.

    Parameters
    ----------
    path : str or Path
        A sound, or a manifest: a folder or a table (.csv, .tsv, .txt). At most the first 60 s of a sound are drawn,
        and the title says so.
    output : str or Path
        The figure, as .png, .jpg, .pdf or .svg; written whole or not at all.
    mel : MelConfig, optional
        Front end to draw with; sounds are resampled to its rate. By default the native rate, 128 bands up to half of
        it, frames of about 50 ms, decibels below the loudest.
    grid : str, optional
        Rows and columns of the collage of a manifest; "4x4" by default.
    seed : int
        Which clips of the manifest are drawn is random, but the same for the same seed.
    audio_dir : str or Path, optional
        Where the manifest's sounds are, if neither beside it nor in the folder named like it.

    Returns
    -------
    Path
        The figure.

    Raises
    ------
    ConfigError
        If the grid is not of the form "4x4", is asked for a sound, or the output has another suffix.
    AudioError, DataError
        If the sound or the manifest can't be read, or the figure can't be written. In a collage a clip that can't be
        read leaves its tile empty, and the tile says so.
    MissingExtraError
        If matplotlib is not installed.
    """
    path, output = Path(path), Path(output)
    check_figure_path(output)
    if path.is_dir() or path.suffix.lower() in _MANIFEST_SUFFIXES:
        figure = _manifest_figure(path, _DEFAULT_GRID if grid is None else grid, mel, seed, audio_dir)
    elif grid is None:
        figure = _sound_figure(path, mel)
    else:
        raise ConfigError(f"{path}: a grid ({grid}) shows the clips of a manifest; leave it out for a sound")
    save_figure(figure, output)
    return output


def clip_figure(
    waveform: Waveform, sample_rate: int, log_mel: LogMel, config: MelConfig, *, title: str = ""
) -> "Figure":
    """Waveform above mel spectrogram, on one time axis in seconds, with a colour bar.

    Parameters
    ----------
    waveform : float32 array of shape (n_samples,)
    sample_rate : int
        Hz; may differ from `config.sample_rate`.
    log_mel : float32 array of shape (n_mels, n_frames)
    config : MelConfig
        With which the log_mel was made.
    title : str
        Drawn as it is, shortened where it is too long.
    """
    figure = new_figure(9, 5)
    grid = figure.add_gridspec(2, 2, width_ratios=[1, 0.02], height_ratios=[1, 2.4])
    waveform_ax = figure.add_subplot(grid[0, 0])
    log_mel_ax = figure.add_subplot(grid[1, 0], sharex=waveform_ax)
    show_waveform(waveform, sample_rate, ax=waveform_ax)
    image = show_log_mel(log_mel, config, ax=log_mel_ax)
    waveform_ax.set_xlim(0, len(waveform) / sample_rate)
    waveform_ax.label_outer()
    waveform_ax.set_title(middle_cut(title, 100), fontsize=11, parse_math=False)
    # A column of its own for the colour bar, so that both time axes are equally long.
    figure.colorbar(image, cax=figure.add_subplot(grid[1, 1]), label=power_label(config))
    figure.align_ylabels([waveform_ax, log_mel_ax])
    return figure


def collage_figure(tiles: Sequence[Tile], *, n_rows: int, n_columns: int) -> "Figure":
    """Clips side by side, each over the whole of its tile, with its labels above and its caption below.

    Raises
    ------
    ValueError
        If there are more tiles than places.
    """
    if len(tiles) > n_rows * n_columns:
        raise ValueError(f"expected at most {n_rows} x {n_columns} tiles, got {len(tiles)}")
    width, height = _TILE_INCHES
    figure = new_figure(n_columns * width, n_rows * height)
    for place, tile in enumerate(tiles, start=1):
        ax = figure.add_subplot(n_rows, n_columns, place)
        if tile.config is None:
            ax.imshow(tile.picture, cmap="gray", vmin=0, vmax=255, aspect="auto")
        else:
            show_log_mel(tile.picture, tile.config, ax=ax)
        ax.set(xticks=[], yticks=[], ylabel="")
        ax.set_xlabel(tile.caption, fontsize=7, loc="right", labelpad=2)
        ax.set_title(_title_of(tile.labels), fontsize=8.5, parse_math=False)
    return figure


def show_waveform(waveform: Waveform, sample_rate: int, *, ax: "Axes") -> "Line2D | FillBetweenPolyCollection":
    """Draw a waveform of shape (n_samples,) over seconds; where it is long, its least and greatest samples."""
    loudest = float(np.abs(waveform).max()) or 1.0
    ax.set(xlabel="Time (s)", ylabel="Amplitude", ylim=(-1.05 * loudest, 1.05 * loudest))
    if waveform.size < 2 * _WAVEFORM_COLUMNS:
        marker = "." if waveform.size < _FEW_SAMPLES else ""
        seconds = np.arange(waveform.size) / sample_rate
        (line,) = ax.plot(seconds, waveform, color=LINE_COLOR, linewidth=0.7, marker=marker)
        return line
    starts = np.linspace(0, waveform.size, _WAVEFORM_COLUMNS, endpoint=False).astype(int)
    least, greatest = np.minimum.reduceat(waveform, starts), np.maximum.reduceat(waveform, starts)
    return ax.fill_between(starts / sample_rate, least, greatest, color=LINE_COLOR, linewidth=0.5)


def show_log_mel(log_mel: LogMel, config: MelConfig, *, ax: "Axes", start_seconds: float = 0.0) -> "AxesImage":
    """Draw a log_mel of shape (n_mels, n_frames) over seconds and, evenly spaced in mel, Hz.

    The values are drawn before `config.mean` and `config.std` were applied, in decibels or nepers. The time axis begins
    with `start_seconds`.
    """
    n_frames = log_mel.shape[1]
    frame_seconds = config.hop_length / config.sample_rate
    bottom, top = picture_limits(config)
    power = log_mel * config.std + config.mean
    least = float(power.min())
    image = ax.imshow(
        power,
        cmap=_COLORMAP,
        vmin=least,
        vmax=max(float(power.max()), least + 1),  # so that silence is dark
        aspect="auto",
        origin="lower",
        extent=(start_seconds - frame_seconds / 2, start_seconds + (n_frames - 0.5) * frame_seconds, bottom, top),
    )
    ticks = _octaves(config, bottom, top)
    ax.set_yticks([float(hz_to_mel(tick, config)) for tick in ticks], [str(tick) for tick in ticks])
    end_seconds = start_seconds + max(n_frames - 1, 0.5) * frame_seconds
    ax.set(xlabel="Time (s)", ylabel="Frequency (Hz)", xlim=(start_seconds, end_seconds))
    return image


def in_decibels(log_mel: LogMel, config: MelConfig) -> tuple[LogMel, MelConfig]:
    """A log_mel in decibels, and the config of it: not scaled for a network, and no nepers."""
    power = log_mel * config.std + config.mean
    plain = config.model_copy(update={"log": "db", "mean": 0.0, "std": 1.0})
    return (power if config.log == "db" else power * np.float32(10 / np.log(10))), plain


def _sound_figure(path: Path, mel: MelConfig | None) -> "Figure":
    info = audio_info(path)
    sample_rate = None if mel is None else mel.sample_rate
    waveform, sample_rate = read_audio(path, sample_rate=sample_rate, end_seconds=_LONGEST_SECONDS)
    mel = mel or _native_config(sample_rate, len(waveform))
    duration = f"{info.duration_seconds:.3g} s"
    if info.duration_seconds > _LONGEST_SECONDS:
        duration = f"first {_LONGEST_SECONDS:g} s of {_clock(info.duration_seconds)}"
    title = f"{middle_cut(path.name, 50)}   ({duration}, {sample_rate / 1000:g} kHz)"
    return clip_figure(waveform, sample_rate, compute_log_mel(waveform, mel), mel, title=title)


def _manifest_figure(path: Path, grid: str, mel: MelConfig | None, seed: int, audio_dir: str | Path | None) -> "Figure":
    n_rows, n_columns = _parse_grid(grid)
    manifest = read_manifest(path, audio_dir=audio_dir)
    n_tiles = min(n_rows * n_columns, len(manifest.clips))
    chosen = np.random.default_rng(seed).choice(len(manifest.clips), n_tiles, replace=False)
    clips = [manifest.clips[position] for position in chosen]
    tiles = [_tile(clip, mel, is_image=manifest.holds_images) for clip in clips]
    return collage_figure(tiles, n_rows=n_rows, n_columns=n_columns)


def _tile(clip: Clip, mel: MelConfig | None, *, is_image: bool) -> Tile:
    """A clip that can't be read leaves its tile empty and says so."""
    try:
        return _image_tile(clip) if is_image else _sound_tile(clip, mel)
    except (AudioError, DataError):
        return Tile(clip.labels, "can't be read", np.full((1, 1), 255, np.uint8), None)


def _sound_tile(clip: Clip, mel: MelConfig | None) -> Tile:
    latest = clip.start_seconds + _LONGEST_SECONDS
    waveform, sample_rate = read_audio(
        clip.path,
        sample_rate=None if mel is None else mel.sample_rate,
        start_seconds=clip.start_seconds,
        end_seconds=latest if clip.end_seconds is None else min(clip.end_seconds, latest),
    )
    mel = mel or _native_config(sample_rate, len(waveform))
    return Tile(clip.labels, f"{len(waveform) / sample_rate:.2g} s", compute_log_mel(waveform, mel), mel)


def _image_tile(clip: Clip) -> Tile:
    image = read_png(clip.path)
    return Tile(clip.labels, f"{image.shape[1]} × {image.shape[0]}", image, None)


def _native_config(sample_rate: int, n_samples: int) -> MelConfig:
    n_fft = max(256, 2 ** round(np.log2(sample_rate * _FRAME_SECONDS)))
    return MelConfig(
        sample_rate=sample_rate,
        n_fft=n_fft,
        hop_length=max(1, min(n_fft // 4, n_samples // _LEAST_COLUMNS)),
        f_min=min(20.0, sample_rate / 8),
        f_max=sample_rate / 2,
        ref="max",
    )


def _parse_grid(grid: str) -> tuple[int, int]:
    form = re.fullmatch(r"(\d{1,3})x(\d{1,3})", grid.strip().lower())
    n_rows, n_columns = map(int, form.groups()) if form else (0, 0)
    if not (1 <= n_rows <= _MOST_TILES_A_SIDE and 1 <= n_columns <= _MOST_TILES_A_SIDE):
        raise ConfigError(
            f"grid: expected rows and columns of 1 to {_MOST_TILES_A_SIDE} in the form '4x4', got {grid!r}"
        )
    return n_rows, n_columns


def _octaves(config: MelConfig, bottom: float, top: float) -> list[int]:
    """Powers of two in Hz, from the highest down as long as they stand apart, on the axis from bottom to top mel."""
    ticks: list[int] = []
    above = np.inf
    for tick in (2**octave for octave in range(20, 0, -1)):
        position = float(hz_to_mel(tick, config))
        if position < bottom or above - position < _TICK_SHARE * (top - bottom):
            break
        if position <= top:
            ticks.append(tick)
            above = position
    return ticks


def power_label(config: MelConfig) -> str:
    """What stands beside the colour bar of a log_mel."""
    name = "dB" if config.log == "db" else "ln"
    return f"Power ({name}, loudest = 0)" if config.ref == "max" else f"Power ({name})"


def _title_of(labels: tuple[str, ...]) -> str:
    """The labels in two lines at most; those that do not fit are counted."""
    if not labels:
        return "(no label)"
    lines = [""]
    for position, label in enumerate(labels):
        n_left = len(labels) - position
        word = middle_cut(label, TITLE_LENGTH - 6)
        longer = f"{lines[-1]}, {word}" if lines[-1] else word
        if len(longer) <= TITLE_LENGTH:
            lines[-1] = longer
        elif len(lines) == 1:
            lines = [lines[0] + ",", word]
        else:
            return f"{lines[0]}\n{lines[1]} +{n_left}"
    return "\n".join(lines)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02} h" if hours else f"{minutes}:{seconds:02} min"
