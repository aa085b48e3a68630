"""Figures of sounds: a clip as waveform and mel spectrogram, and a collage of clips with their labels.

matplotlib (the extra `plots`) is imported only when a figure is drawn. pyplot is not used, so there is no global state
and no window.
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
from spectag.audio.mel import compute_log_mel, image_mel_limits
from spectag.audio.spectrogram_drawing import COLORMAP, frequency_ticks, native_mel_config
from spectag.audio.spectrogram_image import read_png
from spectag.config.base import Channel, MelConfig
from spectag.data.clips import Clip, Manifest
from spectag.data.manifest import read_manifest
from spectag.errors import ConfigError
from spectag.system.figures import LINE_COLOR, TITLE_LENGTH, check_figure_path, new_figure, save_figure, shorten_middle
from spectag.system.file_errors import skip_reason

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import FillBetweenPolyCollection
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage
    from matplotlib.lines import Line2D

_MAX_SECONDS = 60.0  # shown of a recording
_DEFAULT_GRID = "4x4"
_MAX_GRID_SIZE = 20
_MANIFEST_SUFFIXES = {".csv", ".tsv", ".txt"}

_WAVEFORM_COLUMNS = 2000  # above two samples per column, only the minimum and maximum of each column are drawn
_MAX_MARKED_SAMPLES = 100  # drawn with a point each
_TILE_INCHES = 2.4, 1.9


@dataclass(frozen=True)
class Tile:
    """A clip in a collage."""

    labels: tuple[str, ...]
    caption: str
    picture: NDArray[Any]  # a log_mel, or an image if config is None
    config: MelConfig | None


def show(
    path: str | Path,
    *,
    output: str | Path,
    mel: MelConfig | None = None,
    grid: str | None = None,
    seed: int = 0,
    channel: Channel = "mix",
    audio_dir: str | Path | None = None,
    label_column: str | None = None,
    label_separator: str | None = None,
) -> Path:
    """Draw a sound as waveform and mel spectrogram, or clips of a manifest as a collage with their labels.

    Parameters
    ----------
    path : str or Path
        A sound, or a manifest: a folder or a table (.csv, .tsv, .txt). At most the first 60 s of a sound are drawn;
        the title shows this.
    output : str or Path
        The figure: .png, .jpg, .pdf or .svg. It is written completely or not at all.
    mel : MelConfig, optional
        Settings of the spectrogram; sounds are resampled to its sample rate. By default the rate of the sound, 128
        bands up to half of it, an FFT of about 50 ms, and decibels below the loudest.
    grid : str, optional
        Rows and columns of a collage; "4x4" by default.
    seed : int
        Seed of the random choice of clips for a collage.
    channel : "mix", "loudest" or int
        How several channels become one, as for `read_audio`.
    audio_dir : str or Path, optional
        Folder of the manifest's sounds, if they are neither beside it nor in a folder of its name.
    label_column, label_separator : str, optional
        As for `read_manifest`.

    Returns
    -------
    Path
        The figure.

    Raises
    ------
    ConfigError
        If the grid is not of the form "4x4", a grid is given for a sound, or the output has another suffix.
    AudioError, DataError
        If the sound or the manifest can't be read, or the figure can't be written. In a collage, an unreadable clip
        gets an empty tile with a note.
    MissingExtraError
        If matplotlib is not installed.
    """
    path, output = Path(path), Path(output)
    check_figure_path(output)
    if path.is_dir() or path.suffix.lower() in _MANIFEST_SUFFIXES:
        clips = read_manifest(path, audio_dir=audio_dir, label_column=label_column, label_separator=label_separator)
        figure = _manifest_figure(clips, _DEFAULT_GRID if grid is None else grid, mel, channel, seed)
    elif grid is None:
        figure = _sound_figure(path, mel, channel)
    else:
        raise ConfigError(f"{path}: a grid ({grid}) shows the clips of a manifest; leave it out for a sound")
    save_figure(figure, output)
    return output


def clip_figure(
    waveform: Waveform, sample_rate: int, log_mel: Float32Array, config: MelConfig, *, title: str = ""
) -> "Figure":
    """Waveform above mel spectrogram, on one time axis in seconds, with a colour bar.

    Parameters
    ----------
    waveform : float32 array of shape (n_samples,)
    sample_rate : int
        Hz; may differ from `config.sample_rate`.
    log_mel : float32 array of shape (n_mels, n_frames)
    config : MelConfig
        Settings of the log_mel.
    title : str
        Shortened if it is too long.
    """
    figure = new_figure(9, 5)
    grid = figure.add_gridspec(2, 2, width_ratios=[1, 0.02], height_ratios=[1, 2.4])
    waveform_ax = figure.add_subplot(grid[0, 0])
    log_mel_ax = figure.add_subplot(grid[1, 0], sharex=waveform_ax)
    show_waveform(waveform, sample_rate, ax=waveform_ax)
    image = show_log_mel(log_mel, config, ax=log_mel_ax)
    waveform_ax.set_xlim(0, len(waveform) / sample_rate)
    waveform_ax.label_outer()
    waveform_ax.set_title(shorten_middle(title, 100), fontsize=11, parse_math=False)
    # The colour bar has its own column, so that both time axes have the same length.
    figure.colorbar(image, cax=figure.add_subplot(grid[1, 1]), label=power_label(config))
    figure.align_ylabels([waveform_ax, log_mel_ax])
    return figure


def collage_figure(tiles: Sequence[Tile], *, n_rows: int, n_columns: int, title: str = "") -> "Figure":
    """Spectrograms or images in a grid, each with its labels above and its caption below. The title is above all.

    Raises
    ------
    ValueError
        If there are more tiles than the grid has cells.
    """
    if len(tiles) > n_rows * n_columns:
        raise ValueError(f"expected at most {n_rows} x {n_columns} tiles, got {len(tiles)}")
    width, height = _TILE_INCHES
    figure = new_figure(n_columns * width, n_rows * height)
    for number, tile in enumerate(tiles, start=1):
        ax = figure.add_subplot(n_rows, n_columns, number)
        if tile.config is None:
            ax.imshow(tile.picture, cmap="gray", vmin=0, vmax=255, aspect="auto")
        else:
            show_log_mel(tile.picture, tile.config, ax=ax)
        _reduce_ticks(ax, tile)
        ax.set_xlabel(tile.caption, fontsize=7, loc="right", labelpad=2, parse_math=False)
        ax.set_title(_labels_title(tile.labels), fontsize=8.5, parse_math=False)
    if any(tile.config is not None for tile in tiles):
        figure.supxlabel("Time (s)", fontsize=8)
        figure.supylabel("Frequency (Hz)", fontsize=8)
    if title:
        figure.suptitle(title, fontsize=8.5, parse_math=False)
    return figure


def _reduce_ticks(ax: "Axes", tile: Tile) -> None:
    """Few ticks in small print on the axes of a spectrogram in a collage, and none on those of an image."""
    ax.set_ylabel("")
    if tile.config is None:
        ax.set(xticks=[], yticks=[])
        return
    ax.locator_params(axis="x", nbins=4)
    texts = [text.get_text() for text in ax.get_yticklabels()]
    ax.set_yticks(ax.get_yticks()[::2], texts[::2])
    ax.tick_params(labelsize=6, length=2, pad=1)


def show_waveform(waveform: Waveform, sample_rate: int, *, ax: "Axes") -> "Line2D | FillBetweenPolyCollection":
    """Draw a waveform of shape (n_samples,) over seconds; if it is long, the range of samples in each column."""
    loudest = float(np.abs(waveform).max()) or 1.0
    ax.set(xlabel="Time (s)", ylabel="Amplitude", ylim=(-1.05 * loudest, 1.05 * loudest))
    if waveform.size < 2 * _WAVEFORM_COLUMNS:
        marker = "." if waveform.size < _MAX_MARKED_SAMPLES else ""
        seconds = np.arange(waveform.size) / sample_rate
        (line,) = ax.plot(seconds, waveform, color=LINE_COLOR, linewidth=0.7, marker=marker)
        return line
    starts = np.linspace(0, waveform.size, _WAVEFORM_COLUMNS, endpoint=False).astype(int)
    lowest, highest = np.minimum.reduceat(waveform, starts), np.maximum.reduceat(waveform, starts)
    return ax.fill_between(starts / sample_rate, lowest, highest, color=LINE_COLOR, linewidth=0.5)


def show_log_mel(log_mel: Float32Array, config: MelConfig, *, ax: "Axes", start_seconds: float = 0.0) -> "AxesImage":
    """Draw a log_mel of shape (n_mels, n_frames) over seconds, starting at `start_seconds`, and Hz on a mel scale.

    The colours show decibels or nepers, as they were before `config.mean` and `config.std` were applied.
    """
    n_frames = log_mel.shape[1]
    frame_seconds = config.hop_length / config.sample_rate
    bottom, top = image_mel_limits(config)
    power = log_mel * config.std + config.mean
    lowest = float(power.min())
    image = ax.imshow(
        power,
        cmap=COLORMAP,
        vmin=lowest,
        vmax=max(float(power.max()), lowest + 1),  # so that silence is dark
        aspect="auto",
        origin="lower",
        extent=(start_seconds - frame_seconds / 2, start_seconds + (n_frames - 0.5) * frame_seconds, bottom, top),
    )
    texts, heights = zip(*frequency_ticks(config), strict=True)
    ax.set_yticks([bottom + height * (top - bottom) for height in heights], texts)
    end_seconds = start_seconds + max(n_frames - 1, 0.5) * frame_seconds
    ax.set(xlabel="Time (s)", ylabel="Frequency (Hz)", xlim=(start_seconds, end_seconds))
    return image


def _sound_figure(path: Path, mel: MelConfig | None, channel: Channel) -> "Figure":
    info = audio_info(path)
    sample_rate = None if mel is None else mel.sample_rate
    waveform, sample_rate = read_audio(path, sample_rate=sample_rate, end_seconds=_MAX_SECONDS, channel=channel)
    mel = mel or native_mel_config(sample_rate, len(waveform))
    duration = f"{info.duration_seconds:.3g} s"
    if info.duration_seconds > _MAX_SECONDS:
        duration = f"first {_MAX_SECONDS:g} s of {_duration_text(info.duration_seconds)}"
    title = f"{shorten_middle(path.name, 50)}   ({duration}, {sample_rate / 1000:g} kHz)"
    return clip_figure(waveform, sample_rate, compute_log_mel(waveform, mel), mel, title=title)


def _manifest_figure(manifest: Manifest, grid: str, mel: MelConfig | None, channel: Channel, seed: int) -> "Figure":
    n_rows, n_columns = _parse_grid(grid)
    n_tiles = min(n_rows * n_columns, len(manifest.clips))
    chosen = np.random.default_rng(seed).choice(len(manifest.clips), n_tiles, replace=False)
    clips = [manifest.clips[index] for index in chosen]
    tiles = [_tile(clip, mel, channel, is_image=manifest.holds_images) for clip in clips]
    return collage_figure(tiles, n_rows=n_rows, n_columns=n_columns)


def _tile(clip: Clip, mel: MelConfig | None, channel: Channel, *, is_image: bool) -> Tile:
    """The tile of a clip; an empty one with a note if the clip can't be read."""
    try:
        return _image_tile(clip) if is_image else _sound_tile(clip, mel, channel)
    except Exception as error:
        skip_reason(clip.path, error)  # raises it again if it concerns the whole run
        return Tile(clip.labels, "can't be read", np.full((1, 1), 255, np.uint8), None)


def _sound_tile(clip: Clip, mel: MelConfig | None, channel: Channel) -> Tile:
    max_end = clip.start_seconds + _MAX_SECONDS
    waveform, sample_rate = read_audio(
        clip.path,
        sample_rate=None if mel is None else mel.sample_rate,
        start_seconds=clip.start_seconds,
        end_seconds=max_end if clip.end_seconds is None else min(clip.end_seconds, max_end),
        channel=channel,
    )
    mel = mel or native_mel_config(sample_rate, len(waveform))
    return Tile(clip.labels, f"{len(waveform) / sample_rate:.2g} s", compute_log_mel(waveform, mel), mel)


def _image_tile(clip: Clip) -> Tile:
    image = read_png(clip.path)
    return Tile(clip.labels, f"{image.shape[1]} × {image.shape[0]}", image, None)


def _parse_grid(grid: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,3})x(\d{1,3})", grid.strip().lower())
    n_rows, n_columns = map(int, match.groups()) if match else (0, 0)
    if not (1 <= n_rows <= _MAX_GRID_SIZE and 1 <= n_columns <= _MAX_GRID_SIZE):
        raise ConfigError(f"grid: expected rows and columns of 1 to {_MAX_GRID_SIZE} in the form '4x4', got {grid!r}")
    return n_rows, n_columns


def power_label(config: MelConfig) -> str:
    """The title of a log_mel's colour bar."""
    name = "dB" if config.log == "db" else "ln"
    return f"Power ({name}, loudest = 0)" if config.ref == "max" else f"Power ({name})"


def _labels_title(labels: tuple[str, ...]) -> str:
    """The labels in at most two lines; those that do not fit are counted."""
    if not labels:
        return "(no label)"
    lines = [""]
    for index, label in enumerate(labels):
        word = shorten_middle(label, TITLE_LENGTH - 6)
        longer = f"{lines[-1]}, {word}" if lines[-1] else word
        if len(longer) <= TITLE_LENGTH:
            lines[-1] = longer
        elif len(lines) == 1:
            lines = [lines[0] + ",", word]
        else:
            return f"{lines[0]}\n{lines[1]} +{len(labels) - index}"
    return "\n".join(lines)


def _duration_text(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02} h" if hours else f"{minutes}:{seconds:02} min"
