"""Why a tagger gives its tags: one figure of what it heard, where it looked for each label, and how sure it is."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spectag.array_types import Waveform
from spectag.audio.files import audio_info, read_audio, resample
from spectag.audio.mel import compute_log_mel, hz_to_mel
from spectag.config.base import MelConfig, WindowConfig
from spectag.data.readers.file_finder import IMAGE_SUFFIXES
from spectag.errors import ConfigError, DataError
from spectag.models.pretrained import load
from spectag.models.tagger import Tagger, Tags
from spectag.reporting.attribution import N_PASSES, Activation, activation
from spectag.reporting.clip_plots import in_decibels, power_label, show_log_mel
from spectag.reporting.label_colors import color_of
from spectag.system.figures import check_figure_path, middle_cut, new_figure, save_figure
from spectag.system.progress import Log, Progress, no_log, silent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

LONGEST_SECONDS = 20.0
"""A longer recording is explained in a stretch of STRETCH_SECONDS."""
STRETCH_SECONDS = 10.0
MOST_PANELS = 12

_MOST_LABELS_UNASKED = 4
_BARS_A_PANEL = 3
_COLORMAP = "viridis"
_DIMMED = 0.65  # brightness of the loudest, beneath a map
_GREATEST_ALPHA = 0.85
_ALPHA_POWER = 0.8
_SCALE_LABEL = "Logit lost without the place"
_SAME_LENGTH = 0.05  # seconds, by which a header may be wrong
_LEAST_GREATEST = 0.05  # logit: a map without anything does not become one by being drawn louder


@dataclass(frozen=True, eq=False)
class Explanation:
    """What a tagger says of a stretch of a recording, and where it looked."""

    tags: Tags
    activation: Activation
    """Its times are those of the recording."""
    figure: Path | None

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the labels that are heard or looked for, most probable first, and where."""
        heard = {tag.label for tag in self.tags.heard()}
        shown = heard | set(self.activation.labels)
        rows = []
        for tag in self.tags.top(len(self.tags.labels)):
            if tag.label in shown:
                threshold = float(self.tags.thresholds[self.tags.labels.index(tag.label)])
                row = {"label": tag.label, "probability": round(tag.probability, 6), "threshold": round(threshold, 6)}
                rows.append(row | {"heard": tag.label in heard, "peak": self._peak(tag.label)})
        end = self.tags.end_seconds
        return {
            "file": str(self.tags.path),
            "start": round(self.tags.start_seconds, 3),
            "end": None if end is None else round(end, 3),
            "tags": rows,
            "figure": None if self.figure is None else str(self.figure),
        }

    def _peak(self, label: str) -> dict[str, float] | None:
        """Where the label's map is highest; None where nothing speaks for it, or it was not looked for."""
        if label not in self.activation.labels or (peak := self.activation.peak(label)).logit_lost <= 0:
            return None
        return {
            "seconds": round(peak.seconds, 3),
            "hertz": round(peak.hertz, 1),
            "logit_lost": round(peak.logit_lost, 4),
        }


def explain(
    model: str | Path | Tagger,
    file: str | Path,
    output: str | Path | None = None,
    *,
    labels: Sequence[str] = (),
    top: int | None = None,
    start_seconds: float | None = None,
    end_seconds: float | None = None,
    n_passes: int = N_PASSES,
    seed: int = 0,
    progress: Progress = silent,
    log: Log = no_log,
) -> Explanation:
    """Tell, and draw, where in a recording a tagger looked for labels, and how probable it holds them.

    Parameters
    ----------
    model : str, Path or Tagger
        Folder of a tagger, the name of a published one, or one that is loaded.
    file : str or Path
        The recording. One of more than 20 s is explained in part: the 10 s in which a label (one of `labels`, if given)
        is most probable, unless `start_seconds` or `end_seconds` is given.
    output : str or Path, optional
        The figure, as .png, .jpg, .pdf or .svg; written whole or not at all. Left out: none is drawn.
    labels : sequence of str
        Which labels to look for. By default those that are heard, at least the most probable one and at most 4.
    top : int, optional
        The so many most probable labels instead.
    start_seconds, end_seconds : float, optional
        A stretch of the recording, at most as long as the tagger hears at once; 10 s where one limit is left out.
    n_passes, seed
        See `spectag.reporting.attribution.activation`.
    progress, say
        Told how far the work is, and of a download.

    Raises
    ------
    ConfigError
        If settings do not go together, or the figure has another suffix.
    AudioError, DataError
        If the sound can't be read, a label is unknown, the tagger hears images alone, or the figure can't be written.
    BundleError, WeightsError
        If there is no such tagger.
    MissingExtraError
        If a figure is wanted and matplotlib is not installed.
    """
    if output is not None:
        check_figure_path(Path(output))
    _check_choice(labels, top)
    tagger = model if isinstance(model, Tagger) else load(model, progress=progress, log=log)
    file = Path(file)
    if file.suffix.lower() in IMAGE_SUFFIXES:
        raise DataError(f"{file}: an image has no seconds and no Hz to look for; give the sound")
    _ = tagger.sample_rates  # an error of a tagger that hears images alone
    for label in labels:
        tagger.labels.index(label, where=str(tagger.folder))
    start_seconds, end_seconds = _stretch(tagger, file, labels, start_seconds, end_seconds, progress)
    waveform, sample_rate = read_audio(file, start_seconds=start_seconds, end_seconds=end_seconds)
    end_seconds = start_seconds + len(waveform) / sample_rate
    probabilities = tagger.probabilities(waveform, sample_rate)
    tags = Tags(file, start_seconds, end_seconds, tagger.labels, probabilities, tagger.thresholds)
    looked = activation(
        tagger, waveform, sample_rate, _chosen(tags, labels, top), n_passes=n_passes, seed=seed, progress=progress
    )
    looked = replace(looked, time_edges=looked.time_edges + start_seconds)
    if output is None:
        return Explanation(tags, looked, None)
    whole_seconds = audio_info(file).duration_seconds
    save_figure(explanation_figure(tagger, waveform, sample_rate, tags, looked, whole_seconds=whole_seconds), output)
    return Explanation(tags, looked, Path(output))


def _check_choice(labels: Sequence[str], top: int | None) -> None:
    if labels and top is not None:
        raise ConfigError(f"top {top} and the labels {', '.join(labels)} exclude each other; give one of them")
    n_panels = len(labels) if top is None else top
    if n_panels > MOST_PANELS or (top is not None and top < 1):
        raise ConfigError(f"need 1 to {MOST_PANELS} labels to look for, got {n_panels}")


def _chosen(tags: Tags, labels: Sequence[str], top: int | None) -> list[str]:
    """The labels to look for, each once."""
    if labels:
        return list(dict.fromkeys(labels))
    if top is not None:
        return [tag.label for tag in tags.top(top)]
    return [tag.label for tag in tags.heard()[:_MOST_LABELS_UNASKED] or tags.top(1)]


def _stretch(
    tagger: Tagger,
    file: Path,
    labels: Sequence[str],
    start_seconds: float | None,
    end_seconds: float | None,
    progress: Progress,
) -> tuple[float, float]:
    """From where to where to explain a recording; the end may lie beyond its end."""
    most = tagger.info.window.max_clip_seconds
    whole, part = min(LONGEST_SECONDS, most), min(STRETCH_SECONDS, most)
    duration = audio_info(file).duration_seconds
    if start_seconds is None and end_seconds is None:
        if duration <= whole:
            return 0.0, whole
        return _most_certain(tagger, file, labels, part, duration, progress)
    if end_seconds is None:
        assert start_seconds is not None
        return start_seconds, start_seconds + (whole if duration - start_seconds <= whole else part)
    if start_seconds is None:
        start_seconds = 0.0 if end_seconds <= whole else end_seconds - part
    if min(end_seconds, duration) - start_seconds > most:
        raise ConfigError(
            f"{file}: this tagger hears {most:g} s at once, so no more are explained, got {start_seconds:g} to "
            f"{end_seconds:g} s"
        )
    return start_seconds, end_seconds


def _most_certain(
    tagger: Tagger, file: Path, labels: Sequence[str], seconds: float, duration: float, progress: Progress
) -> tuple[float, float]:
    """The window of so many seconds in which one of the labels, or of all, is most probable."""
    positions = [tagger.labels.index(label) for label in labels] or slice(None)
    best, greatest = (0.0, seconds), -1.0
    for tags in tagger.tag_windows(file, WindowConfig(window_seconds=seconds)):
        assert tags.end_seconds is not None
        progress("searching", round(min(tags.end_seconds, duration)), round(duration))
        if (probability := float(tags.probabilities[positions].max())) > greatest:
            best, greatest = (tags.start_seconds, tags.end_seconds), probability
    return best


def explanation_figure(
    tagger: Tagger,
    waveform: Waveform,
    sample_rate: int,
    tags: Tags,
    looked: Activation,
    *,
    whole_seconds: float | None = None,
) -> "Figure":
    """The spectrogram, the map of each label over it, and the tags beside them.

    Parameters
    ----------
    tagger : Tagger
    waveform : float32 array of shape (n_samples,)
        The stretch that is explained.
    sample_rate : int
        Hz.
    tags : Tags
        Of the stretch; its times are those of the recording.
    looked : Activation
        The same.
    whole_seconds : float, optional
        Length of the recording: the title says so where the stretch is a part of it.
    """
    config = tagger.front_end.mel
    assert config is not None
    log_mel, config = in_decibels(compute_log_mel(resample(waveform, sample_rate, config.sample_rate), config), config)
    names = tags.labels.names
    n_panels = 1 + len(looked.labels)
    figure = new_figure(11, 1.2 + 1.9 * n_panels)
    grid = figure.add_gridspec(n_panels, 3, width_ratios=[1, 0.018, 0.3])
    axes = [figure.add_subplot(grid[0, 0])]
    axes += [figure.add_subplot(grid[row, 0], sharex=axes[0], sharey=axes[0]) for row in range(1, n_panels)]
    image = show_log_mel(log_mel, config, ax=axes[0], start_seconds=tags.start_seconds)
    axes[0].set_title(_title(tags, whole_seconds), loc="left", fontsize=11, parse_math=False)
    figure.colorbar(image, cax=figure.add_subplot(grid[0, 1]), label=power_label(config))
    for label, ax in zip(looked.labels, axes[1:], strict=True):
        show_log_mel(log_mel, config, ax=ax, start_seconds=tags.start_seconds).set_cmap(_dimmed_grey())
        overlay = show_activation(looked, label, config, ax=ax)
        ax.set_title(middle_cut(label, 60), loc="left", fontsize=10, parse_math=False, color=color_of(label, names))
    figure.colorbar(overlay, cax=figure.add_subplot(grid[1:, 1]), label=_SCALE_LABEL)
    for ax in axes:
        ax.label_outer()
    show_tags(tags, looked.labels, n_shown=_BARS_A_PANEL * n_panels, ax=figure.add_subplot(grid[:, 2]))
    return figure


def show_activation(looked: Activation, label: str, config: MelConfig, *, ax: "Axes") -> "AxesImage":
    """Draw the map of a label over what `show_log_mel` drew, the clearer the more the place speaks for the label.

    All labels of an activation have one scale, from 0 to the greatest of all maps. What speaks against the label is not
    drawn.

    Parameters
    ----------
    looked : Activation
    label : str
        One of its labels.
    config : MelConfig
        Of the tagger's first front end, with which the log_mel was drawn.

    Raises
    ------
    ValueError
        If there is no map of the label.
    """
    shown = np.maximum(looked.map_of(label), 0)
    greatest = max(float(looked.maps.max()), _LEAST_GREATEST)
    bottom, top = (float(hz_to_mel(edge, config)) for edge in looked.band_edges[[0, -1]])
    limits = ax.get_xlim(), ax.get_ylim()
    image = ax.imshow(
        shown,
        cmap=_COLORMAP,
        vmin=0,
        vmax=greatest,
        alpha=(shown / greatest) ** _ALPHA_POWER * _GREATEST_ALPHA,
        interpolation="bilinear",
        aspect="auto",
        origin="lower",
        extent=(float(looked.time_edges[0]), float(looked.time_edges[-1]), bottom, top),
    )
    ax.set(xlim=limits[0], ylim=limits[1])  # imshow sets them anew
    return image


def show_tags(tags: Tags, looked_for: Sequence[str] = (), *, n_shown: int = 6, ax: "Axes") -> None:
    """Draw the n most probable tags as bars, the most probable on top: filled where heard, a line at the threshold.

    Labels that were looked for are among them, however improbable.
    """
    heard = {tag.label for tag in tags.heard()}
    most_probable = tags.top(n_shown)
    others = [tag for tag in tags.top(len(tags.labels))[n_shown:] if tag.label in looked_for]
    shown = most_probable[: n_shown - len(others)] + others
    colors = [color_of(tag.label, tags.labels.names) for tag in shown]
    rows = np.arange(len(shown))
    bars = ax.barh(rows, [tag.probability for tag in shown], height=0.3, color=colors, edgecolor=colors, linewidth=1.2)
    for bar, tag in zip(bars, shown, strict=True):
        bar.set_fill(tag.label in heard)
    thresholds = [float(tags.thresholds[tags.labels.index(tag.label)]) for tag in shown]
    ax.vlines(thresholds, rows - 0.22, rows + 0.22, color="black", linewidth=1.8)
    ax.set(xlim=(0, 1), ylim=(len(shown) - 0.5, -0.7), xlabel="Probability")
    ax.set_yticks([])
    for row, tag in zip(rows, shown, strict=True):
        name = f"{middle_cut(tag.label, 30)}  {tag.probability:.2f}"
        ax.text(0, row - 0.24, name, fontsize=8.5, va="bottom", parse_math=False)
    ax.set_title("Tags (filled: heard; line: threshold)", fontsize=9, loc="left")
    ax.spines[["top", "right"]].set_visible(False)


def _dimmed_grey() -> Any:
    """Grey from black up to a brightness that leaves the maps above it to be seen."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("dimmed grey", ["black", str(_DIMMED)])


def _title(tags: Tags, whole_seconds: float | None) -> str:
    name = middle_cut(Path(tags.path).name, 60)
    assert tags.end_seconds is not None
    seconds = tags.end_seconds - tags.start_seconds
    if whole_seconds is None or whole_seconds - seconds < _SAME_LENGTH:
        return f"{name}   ({seconds:.3g} s)"
    return f"{name}   ({tags.start_seconds:.5g} to {tags.end_seconds:.5g} s of {whole_seconds:.5g} s)"
