"""Explaining a prediction: one figure of the sound, of the attribution map of each label, and of the probabilities."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spectag.array_types import Waveform
from spectag.audio.files import audio_info, read_audio, resample
from spectag.audio.mel import compute_log_mel, hz_to_mel
from spectag.audio.spectrogram_drawing import in_decibels
from spectag.config.base import MelConfig, WindowConfig
from spectag.data.readers.file_finder import IMAGE_SUFFIXES
from spectag.errors import ConfigError, DataError
from spectag.models.pretrained import open_tagger
from spectag.models.tagger import Tagger
from spectag.models.tags import Tags
from spectag.reporting.attribution import MIN_MAP_MAXIMUM, N_PASSES, Attribution, attribute, check_explainable
from spectag.reporting.clip_plots import power_label, show_log_mel
from spectag.reporting.label_colors import LabelColors
from spectag.system.figures import check_figure_path, new_figure, save_figure, shorten_middle
from spectag.system.progress import Log, Progress, no_log, shows_progress, silent
from spectag.system.short_texts import short_repr

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

MAX_SECONDS = 20.0
"""Of a longer recording, an excerpt of EXCERPT_SECONDS is explained."""
EXCERPT_SECONDS = 10.0
MAX_MAPS = 12

_MAX_DEFAULT_LABELS = 4
_BARS_PER_PANEL = 3
_COLORMAP = "viridis"
_MAX_BRIGHTNESS = 0.65  # of the spectrogram below a map
_MAX_OPACITY = 0.85
_OPACITY_POWER = 0.8
_DURATION_TOLERANCE = 0.05  # seconds, by which the duration in a file's header may be wrong


@short_repr
@dataclass(frozen=True, eq=False)
class Explanation:
    """Predictions for an excerpt of a recording, and the attribution maps of labels."""

    tags: Tags
    attribution: Attribution
    """Its times are those of the recording."""
    figure: Path | None
    recording_seconds: float
    """Length of the recording."""

    @property
    def lines(self) -> list[str]:
        """Which part of the recording is explained, and for each explained label where it depends most on the sound."""
        tags = self.tags
        assert tags.end_seconds is not None
        seconds = tags.end_seconds - tags.start_seconds
        part = f"the whole recording, {seconds:.3g} s"
        if self.recording_seconds - seconds >= _DURATION_TOLERANCE:
            part = f"{tags.start_seconds:.1f} to {tags.end_seconds:.1f} s of {self.recording_seconds:.1f} s"
        return [f"explained: {part}", *map(self._line, self.attribution.labels)]

    def _line(self, label: str) -> str:
        """Such as "Dog 0.93, detected (threshold 0.40); most important at 12.3 s, 850 Hz"."""
        threshold = float(self.tags.thresholds[self.tags.labels.index(label)])
        outcome = "detected" if self.tags[label] >= threshold else "not detected"
        peak = self._peak(label)
        where = "no single part matters"
        if peak is not None:
            where = f"most important at {peak['seconds']:.1f} s, {peak['hertz']:,.0f} Hz"
        return f"  {label} {self.tags[label]:.2f}, {outcome} (threshold {threshold:.2f}); {where}"

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the labels that are detected or have a map, most probable first."""
        detected = {tag.label for tag in self.tags.above_threshold()}
        thresholds = dict(zip(self.tags.labels.names, self.tags.thresholds.tolist(), strict=True))
        end = self.tags.end_seconds
        return {
            "file": str(self.tags.path),
            "start": round(self.tags.start_seconds, 3),
            "end": None if end is None else round(end, 3),
            "recording_seconds": round(self.recording_seconds, 3),
            "tags": [
                {
                    "label": tag.label,
                    "probability": round(tag.probability, 6),
                    "threshold": round(thresholds[tag.label], 6),
                    "detected": tag.label in detected,
                    "peak": self._peak(tag.label),
                }
                for tag in self.tags.top(len(self.tags.labels))
                if tag.label in detected.union(self.attribution.labels)
            ],
            "figure": None if self.figure is None else str(self.figure),
        }

    def _peak(self, label: str) -> dict[str, float] | None:
        """The maximum of the label's map; None if it has no map, or no positive value in it."""
        if label not in self.attribution.labels or (peak := self.attribution.peak(label)).logit_lost <= 0:
            return None
        return {
            "seconds": round(peak.seconds, 3),
            "hertz": round(peak.hertz, 1),
            "logit_lost": round(peak.logit_lost, 4),
        }


@shows_progress
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
    """Explain the predictions for a recording: compute, and draw, an attribution map for each label.

    Parameters
    ----------
    model : str, Path or Tagger
        Folder of a model, name of a pretrained one, or a loaded model.
    file : str or Path
        The recording. If it is longer than 20 s, the 10 s are explained in which a label (one of `labels`, if given) is
        most probable.
    output : str or Path, optional
        Figure to write: .png, .jpg, .pdf or .svg.
    labels : sequence of str
        Labels to explain. By default the detected ones, at most 4, or the most probable one if none is detected.
    top : int, optional
        Explain this number of most probable labels instead.
    start_seconds, end_seconds : float, optional
        Excerpt of the recording to explain, at most as long as the model's longest clip. With one limit only, it is
        10 s long.
    n_passes, seed
        See `spectag.reporting.attribution.attribute`.
    progress, log
        `progress=True` shows progress bars; or functions that receive the progress of each step, and messages about
        downloads.

    Raises
    ------
    ConfigError
        If settings exclude each other, or the figure has another suffix.
    AudioError, DataError
        If the sound can't be read, a label is unknown, the model takes only images, or the figure can't be written.
    BundleError, WeightsError
        If the model is missing or damaged.
    MissingExtraError
        If a figure is requested and matplotlib is not installed.
    """
    if output is not None:
        check_figure_path(Path(output))
    _check_choice(labels, top)
    tagger = open_tagger(model, progress=progress, log=log)
    file = Path(file)
    if file.suffix.lower() in IMAGE_SUFFIXES:
        raise DataError(f"{file}: seconds and Hz of an image are not known; give the sound file")
    _ = tagger.sample_rates  # raises an error if the model takes only images
    check_explainable(tagger)
    for label in labels:
        tagger.labels.index(label, where=str(tagger.folder))
    start_seconds, end_seconds = _excerpt(tagger, file, labels, start_seconds, end_seconds, progress)
    waveform, sample_rate = read_audio(
        file, start_seconds=start_seconds, end_seconds=end_seconds, channel=tagger.channel
    )
    end_seconds = start_seconds + len(waveform) / sample_rate
    probabilities = tagger.probabilities(waveform, sample_rate)
    tags = Tags(file, start_seconds, end_seconds, tagger.labels, probabilities, tagger.thresholds)
    explained = labels_to_explain(tags, labels, top)
    attribution = attribute(tagger, waveform, sample_rate, explained, n_passes=n_passes, seed=seed, progress=progress)
    attribution = replace(attribution, time_edges=attribution.time_edges + start_seconds)
    recording_seconds = audio_info(file).duration_seconds
    if output is None:
        return Explanation(tags, attribution, None, recording_seconds)
    figure = explanation_figure(tagger, waveform, sample_rate, tags, attribution, recording_seconds=recording_seconds)
    save_figure(figure, output)
    return Explanation(tags, attribution, Path(output), recording_seconds)


def _check_choice(labels: Sequence[str], top: int | None) -> None:
    if labels and top is not None:
        raise ConfigError(f"top {top} and the labels {', '.join(labels)} exclude each other; give one of them")
    n_maps = len(labels) if top is None else top
    if n_maps > MAX_MAPS or (top is not None and top < 1):
        raise ConfigError(f"expected 1 to {MAX_MAPS} labels to explain, got {n_maps}")


def labels_to_explain(tags: Tags, labels: Sequence[str] = (), top: int | None = None) -> list[str]:
    """The labels that get a map: the given ones without repetition, the most probable `top`, or the detected ones.

    At most 4 detected labels are explained; if there are none, the most probable label.
    """
    if labels:
        return list(dict.fromkeys(labels))
    chosen = tags.top(top) if top is not None else tags.above_threshold()[:_MAX_DEFAULT_LABELS] or tags.top(1)
    return [tag.label for tag in chosen]


def _excerpt(
    tagger: Tagger,
    file: Path,
    labels: Sequence[str],
    start_seconds: float | None,
    end_seconds: float | None,
    progress: Progress,
) -> tuple[float, float]:
    """Start and end of what is explained; the end may lie beyond that of the recording."""
    max_seconds = tagger.info.window.max_clip_seconds
    whole_seconds, excerpt_seconds = min(MAX_SECONDS, max_seconds), min(EXCERPT_SECONDS, max_seconds)
    duration = audio_info(file).duration_seconds
    if start_seconds is None and end_seconds is None:
        if duration <= whole_seconds:
            return 0.0, whole_seconds
        return _most_probable_window(tagger, file, labels, excerpt_seconds, duration, progress)
    if end_seconds is None:
        assert start_seconds is not None
        return start_seconds, start_seconds + (
            whole_seconds if duration - start_seconds <= whole_seconds else excerpt_seconds
        )
    if start_seconds is None:
        start_seconds = 0.0 if end_seconds <= whole_seconds else end_seconds - excerpt_seconds
    if min(end_seconds, duration) - start_seconds > max_seconds:
        raise ConfigError(
            f"{file}: the model takes clips of at most {max_seconds:g} s, got {start_seconds:g} to {end_seconds:g} s; "
            "choose a shorter excerpt"
        )
    return start_seconds, end_seconds


def _most_probable_window(
    tagger: Tagger, file: Path, labels: Sequence[str], seconds: float, duration: float, progress: Progress
) -> tuple[float, float]:
    """The window of this duration in which one of the labels (by default of all labels) is most probable."""
    label_indices = [tagger.labels.index(label) for label in labels] or slice(None)
    best, highest = (0.0, seconds), -1.0
    for tags in tagger.tag_windows(file, WindowConfig(window_seconds=seconds)):
        assert tags.end_seconds is not None
        progress("searching", round(min(tags.end_seconds, duration)), round(duration))
        if (probability := float(tags.probabilities[label_indices].max())) > highest:
            best, highest = (tags.start_seconds, tags.end_seconds), probability
    return best


def explanation_figure(
    tagger: Tagger,
    waveform: Waveform,
    sample_rate: int,
    tags: Tags,
    attribution: Attribution,
    *,
    recording_seconds: float | None = None,
) -> "Figure":
    """The spectrogram, the map of each label over it, and the probabilities beside them.

    Parameters
    ----------
    tagger : Tagger
    waveform : float32 array of shape (n_samples,)
        The excerpt that is explained.
    sample_rate : int
        Hz.
    tags : Tags
        Predictions for the excerpt; its times are those of the recording.
    attribution : Attribution
        Maps of the excerpt; its times are those of the recording.
    recording_seconds : float, optional
        Duration of the recording. If the excerpt is only a part of it, the title names the part.
    """
    config = tagger.front_end.mel
    assert config is not None
    log_mel, config = in_decibels(compute_log_mel(resample(waveform, sample_rate, config.sample_rate), config), config)
    colors = LabelColors(tags.labels.names)
    n_panels = 1 + len(attribution.labels)
    figure = new_figure(11, 1.2 + 1.9 * n_panels)
    grid = figure.add_gridspec(n_panels, 3, width_ratios=[1, 0.018, 0.3])
    axes = [figure.add_subplot(grid[0, 0])]
    axes += [figure.add_subplot(grid[row, 0], sharex=axes[0], sharey=axes[0]) for row in range(1, n_panels)]
    image = show_log_mel(log_mel, config, ax=axes[0], start_seconds=tags.start_seconds)
    axes[0].set_title(_title(tags, recording_seconds), loc="left", fontsize=11, parse_math=False)
    figure.colorbar(image, cax=figure.add_subplot(grid[0, 1]), label=power_label(config))
    for label, ax in zip(attribution.labels, axes[1:], strict=True):
        show_log_mel(log_mel, config, ax=ax, start_seconds=tags.start_seconds).set_cmap(_dimmed_grey())
        overlay = show_attribution(attribution, label, config, ax=ax)
        title = shorten_middle(label, 60)
        ax.set_title(title, loc="left", fontsize=10, parse_math=False, color=colors.color(label))
    figure.colorbar(overlay, cax=figure.add_subplot(grid[1:, 1]), label="Logit lost if replaced")
    for ax in axes:
        ax.label_outer()
    show_tags(tags, attribution.labels, n_shown=_BARS_PER_PANEL * n_panels, ax=figure.add_subplot(grid[:, 2]))
    return figure


def show_attribution(attribution: Attribution, label: str, config: MelConfig, *, ax: "Axes") -> "AxesImage":
    """Draw the map of a label over the spectrogram that `show_log_mel` drew; greater values are more opaque.

    All labels share a scale from 0 to the maximum of all maps. Negative values are not drawn.

    Parameters
    ----------
    attribution : Attribution
    label : str
        One of its labels.
    config : MelConfig
        Settings with which the log_mel was drawn.

    Raises
    ------
    ValueError
        If there is no map of the label.
    """
    shown = np.maximum(attribution.map_of(label), 0)
    maximum = max(float(attribution.maps.max()), MIN_MAP_MAXIMUM)
    bottom, top = (float(hz_to_mel(edge, config)) for edge in attribution.band_edges[[0, -1]])
    limits = ax.get_xlim(), ax.get_ylim()
    image = ax.imshow(
        shown,
        cmap=_COLORMAP,
        vmin=0,
        vmax=maximum,
        alpha=(shown / maximum) ** _OPACITY_POWER * _MAX_OPACITY,
        interpolation="bilinear",
        aspect="auto",
        origin="lower",
        extent=(float(attribution.time_edges[0]), float(attribution.time_edges[-1]), bottom, top),
    )
    ax.set(xlim=limits[0], ylim=limits[1])  # imshow changes them
    return image


def show_tags(tags: Tags, explained: Sequence[str] = (), *, n_shown: int = 6, ax: "Axes") -> None:
    """Draw the n most probable labels as bars, the most probable on top, filled if detected, with their thresholds.

    Labels that are explained are always among them.
    """
    detected = {tag.label for tag in tags.above_threshold()}
    others = [tag for tag in tags.top(len(tags.labels))[n_shown:] if tag.label in explained]
    shown = tags.top(n_shown)[: n_shown - len(others)] + others
    colors = LabelColors(tags.labels.names)
    bar_colors = [colors.color(tag.label) for tag in shown]
    rows = np.arange(len(shown))
    widths = [tag.probability for tag in shown]
    bars = ax.barh(rows, widths, height=0.3, color=bar_colors, edgecolor=bar_colors, linewidth=1.2)
    for bar, tag in zip(bars, shown, strict=True):
        bar.set_fill(tag.label in detected)
    thresholds = [float(tags.thresholds[tags.labels.index(tag.label)]) for tag in shown]
    ax.vlines(thresholds, rows - 0.22, rows + 0.22, color="black", linewidth=1.8)
    ax.set(xlim=(0, 1), ylim=(len(shown) - 0.5, -0.7), xlabel="Probability")
    ax.set_yticks([])
    for row, tag in zip(rows, shown, strict=True):
        name = f"{shorten_middle(tag.label, 30)}  {tag.probability:.2f}"
        ax.text(0, row - 0.24, name, fontsize=8.5, va="bottom", parse_math=False)
    ax.set_title("Filled: detected, line: threshold", fontsize=9, loc="left")
    ax.spines[["top", "right"]].set_visible(False)


def _dimmed_grey() -> Any:
    """A grey colour map that stays dark enough for the maps above it."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("dimmed grey", ["black", str(_MAX_BRIGHTNESS)])


def _title(tags: Tags, recording_seconds: float | None) -> str:
    name = shorten_middle(Path(tags.name).name, 60)
    assert tags.end_seconds is not None
    seconds = tags.end_seconds - tags.start_seconds
    if recording_seconds is None or recording_seconds - seconds < _DURATION_TOLERANCE:
        return f"{name}   ({seconds:.3g} s)"
    return f"{name}   ({tags.start_seconds:.5g} to {tags.end_seconds:.5g} s of {recording_seconds:.5g} s)"
