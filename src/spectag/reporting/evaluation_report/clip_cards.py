"""Cards of clips to look at and listen to: spectrogram, sound, labels, and attribution maps of the labels."""

from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np

from spectag.array_types import BoolArray, Float32Array, FloatArray
from spectag.audio.embedded_media import jpeg_uri, png_uri
from spectag.audio.mel import hz_to_mel, image_mel_limits
from spectag.audio.spectrogram_drawing import SHOWN_DB, spectrogram_pixels
from spectag.config.base import MelConfig
from spectag.evaluation.results import ModelEvaluation
from spectag.reporting.attribution import MIN_MAP_MAXIMUM, attribute
from spectag.reporting.clip_view import AttributionMap, ClipView, Excerpt, view_clip
from spectag.reporting.evaluation_report.clip_selection import ChosenClip
from spectag.reporting.label_colors import LabelColors
from spectag.reporting.number_texts import quantity
from spectag.system.progress import Progress
from spectag.system.worker_pool import n_usable_cores

EXCERPT_SECONDS = 10.0

_MIN_FRACTION = 0.15  # of the maximum of all maps of a clip; below, it is usually noise
_OUTLINED_FRACTION = 0.5
_MAX_OPACITY = 0.62
_N_OPACITIES = 24  # few different ones keep the images small
_ORIGINS = {
    "unseen": "not used for training",
    "out_of_fold": "out-of-fold prediction",
    "train": "used for training",
    "table": "prediction from the table",
}


@dataclass(frozen=True)
class Verdict:
    """The prediction of a label for a clip, compared with the truth."""

    label: int
    name: str
    probability: float
    threshold: float
    is_true: bool
    has_map: bool

    @property
    def outcome(self) -> str:
        """One of "detected", "missed", "false-positive" and "true-negative"."""
        if self.probability >= self.threshold:
            return "detected" if self.is_true else "false-positive"
        return "missed" if self.is_true else "true-negative"


@dataclass(frozen=True)
class ClipCard:
    """What the template `clip_card.html` shows."""

    chosen: ChosenClip
    view: ClipView
    verdicts: list[Verdict]
    facts: list[str]


def clip_cards(
    model: ModelEvaluation,
    chosen: Sequence[ChosenClip],
    colors: LabelColors,
    progress: Progress,
    *,
    explained: Collection[int] | None = None,
) -> list[ClipCard]:
    """A card for each clip. The card of a clip that can no longer be read shows the reason.

    The clips in `explained`, rows of the predictions, get maps: by default all. The network runs 194 times for each.
    """
    has_maps = model.tagger is not None and all(each.takes_log_mel for each in model.tagger.front_ends)
    rows = {clip.row for clip in chosen if has_maps and (explained is None or clip.row in explained)}
    steps = {
        "explaining clips": [clip for clip in chosen if clip.row in rows],
        "clips drawn": [clip for clip in chosen if clip.row not in rows],
    }
    cards: dict[ChosenClip, ClipCard] = {}
    with ThreadPoolExecutor(n_usable_cores()) as pool:
        try:
            for step, clips in steps.items():
                drawn = pool.map(partial(_card, model, colors, explained=step == "explaining clips"), clips)
                for n_done, clip in enumerate(clips):
                    progress(step, n_done, len(clips))
                    cards[clip] = next(drawn)
                if clips:
                    progress(step, len(clips), len(clips))
        finally:
            pool.shutdown(cancel_futures=True)  # Ctrl-C does not wait for the remaining clips
    return [cards[clip] for clip in chosen]


def color_ramp() -> str:
    """The colours of the spectrograms from the quietest to the loudest, as a data URI."""
    return jpeg_uri(spectrogram_pixels(np.repeat(np.linspace(-SHOWN_DB, 0, 256, dtype=np.float32)[None], 8, axis=0)))


def _card(model: ModelEvaluation, colors: LabelColors, chosen: ChosenClip, *, explained: bool) -> ClipCard:
    mel = None if model.tagger is None else model.tagger.front_end.mel
    channel = "mix" if model.tagger is None else model.tagger.channel
    maps_of = partial(_maps, model, chosen, colors) if explained else _no_maps
    view = view_clip(model.predictions.clips[chosen.row], EXCERPT_SECONDS, mel, maps_of, channel=channel)
    labels_with_map = {drawn.label for drawn in view.figure.maps} if view.figure else set()
    return ClipCard(chosen, view, list(_verdicts(model, chosen, labels_with_map)), list(_facts(model, chosen.row)))


def _no_maps(excerpt: Excerpt, mel: MelConfig) -> list[AttributionMap]:
    return []


def _maps(
    model: ModelEvaluation, chosen: ChosenClip, colors: LabelColors, excerpt: Excerpt, mel: MelConfig
) -> list[AttributionMap]:
    """A map of each label for which some place matters. All maps of a clip have the same colour scale."""
    if model.tagger is None or not chosen.labels or not all(each.takes_log_mel for each in model.tagger.front_ends):
        return []
    names = [model.labels.names[label] for label in chosen.labels]
    attribution = attribute(model.tagger, excerpt.waveform, excerpt.sample_rate, names)
    bottom, top = image_mel_limits(mel)
    heights = np.asarray(1 - (hz_to_mel(attribution.band_edges, mel) - bottom) / (top - bottom), np.float64)
    maximum = max(float(attribution.maps.max()), MIN_MAP_MAXIMUM)
    maps = []
    for label, name, values in zip(chosen.labels, names, attribution.maps / maximum, strict=True):
        if float(values.max()) > _MIN_FRACTION:
            outline = "".join(_outline(values >= _OUTLINED_FRACTION, attribution.time_edges, heights))
            image = _map_image(values, colors.color(name))
            seconds, height = float(attribution.time_edges[-1]), float(heights[0] - heights[-1])
            maps.append(AttributionMap(label, image, outline, seconds, float(heights[-1]), height))
    return maps


def _map_image(values: Float32Array, color: str) -> str:
    """An image in one colour, more opaque for greater values, as a data URI."""
    steps = np.rint(np.where(values > _MIN_FRACTION, values, 0) * _N_OPACITIES) / _N_OPACITIES
    pixels = np.empty((*values.shape, 4), np.uint8)
    pixels[..., :3] = list(bytes.fromhex(color[1:]))
    pixels[..., 3] = np.rint(255 * _MAX_OPACITY * steps)
    return png_uri(pixels[::-1])


def _outline(inside: BoolArray, times: FloatArray, heights: FloatArray) -> Iterator[str]:
    """SVG path commands for the edges between cells inside and cells outside."""
    padded = np.pad(inside, 1)
    for band, edge in np.argwhere(padded[1:-1, 1:] != padded[1:-1, :-1]):
        yield f"M{times[edge]:.4g} {heights[band]:.4g}V{heights[band + 1]:.4g}"
    for edge, time in np.argwhere(padded[1:, 1:-1] != padded[:-1, 1:-1]):
        yield f"M{times[time]:.4g} {heights[edge]:.4g}H{times[time + 1]:.4g}"


def _verdicts(model: ModelEvaluation, chosen: ChosenClip, labels_with_map: set[int]) -> Iterator[Verdict]:
    predictions = model.predictions
    for label in chosen.labels:
        yield Verdict(
            label,
            model.labels.names[label],
            float(predictions.probabilities[chosen.row, label]),
            float(predictions.thresholds[chosen.row, label]),
            bool(predictions.y_true[chosen.row, label]),
            label in labels_with_map,
        )


def _facts(model: ModelEvaluation, row: int) -> Iterator[str]:
    """Number of labels, duration, origin of the prediction, fold."""
    predictions = model.predictions
    clip, seconds = predictions.clips[row], predictions.durations[row]
    yield quantity(len(clip.labels), "true label") if clip.labels else "no true label"
    if np.isfinite(seconds):
        yield f"{seconds:.3g} s"
    yield _ORIGINS[predictions.origins[row]]
    if clip.fold is not None:
        yield f"fold {clip.fold}"
