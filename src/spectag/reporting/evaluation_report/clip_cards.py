"""Clips to be looked at and listened to: spectrogram, sound, labels, and where the tagger looked for each of them."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from html import escape

import numpy as np

from spectag.array_types import BoolArray, Float32Array, FloatArray
from spectag.audio.mel import hz_to_mel, picture_limits
from spectag.audio.spectrogram_image import log_mel_to_image, read_png
from spectag.config.base import ImageConfig, MelConfig
from spectag.data.clips import Clip
from spectag.data.readers.file_finder import IMAGE_SUFFIXES
from spectag.errors import AudioError, DataError
from spectag.evaluation.predictions import Origin
from spectag.evaluation.results import ModelEvaluation
from spectag.reporting.attribution import Activation, activation
from spectag.reporting.evaluation_report.clip_excerpts import (
    COLORMAP,
    SHOWN_DB,
    Excerpt,
    loudest,
    mel_to_draw,
    mp3,
    spectrogram,
)
from spectag.reporting.evaluation_report.clip_selection import ChosenClip
from spectag.reporting.evaluation_report.formatting import count, swatch, without_folders
from spectag.reporting.evaluation_report.svg import jpeg, png
from spectag.reporting.label_colors import color_of
from spectag.system.progress import Progress
from spectag.system.worker_pool import n_usable_cores

EXCERPT_SECONDS = 10.0

_LEAST_GREATEST = 0.05  # logit: a map without anything does not become one by being drawn louder
_FAINTEST = 0.15  # share of the greatest in all maps of a clip, below which it is noise more often than not
_OUTLINED = 0.5  # share of the greatest
_DENSEST = 0.62  # opacity of the greatest
_N_OPACITIES = 24  # different ones, so that the maps are small
_ORIGINS: dict[Origin, str] = {
    "new": "new to the tagger",
    "held out": "held out from training",
    "learnt": "learnt from",
    "given": "prediction from the table",
}


def clip_cards(
    model: ModelEvaluation, chosen: Sequence[ChosenClip], colored: Sequence[str], progress: Progress
) -> list[str]:
    """A card for each clip, as HTML.

    Clips that can't be read any more have a card that says so.
    """
    cards: list[str] = []
    step = "clips drawn"
    progress(step, 0, len(chosen))
    with ThreadPoolExecutor(n_usable_cores()) as pool:
        try:
            for card in pool.map(lambda clip: _card(model, clip, colored), chosen):
                cards.append(card)
                progress(step, len(cards), len(chosen))
        finally:
            pool.shutdown(cancel_futures=True)  # Ctrl-C does not wait for the clips that are left
    return cards


def color_bar() -> str:
    """What the colours of the spectrograms mean, as HTML."""
    ramp = np.linspace(0, 1, 256, dtype=np.float32)[None]
    colors = log_mel_to_image(np.repeat(ramp, 8, axis=0), ImageConfig(colormap=COLORMAP, low=0, high=1))[0]
    return (
        f'<p class="color-bar"><span>−{SHOWN_DB:g} dB</span><img alt="from black to pale yellow" src="{jpeg(colors)}">'
        "<span>0 dB: the loudest of each clip</span></p>"
    )


def _card(model: ModelEvaluation, chosen: ChosenClip, colored: Sequence[str]) -> str:
    clip = model.predictions.clips[chosen.row]
    try:
        shown, maps = _image(clip) if _is_image(clip) else _sound(model, clip, chosen, colored)
    except (AudioError, DataError) as error:
        shown, maps = f'<p class="gone">It can’t be read now: {escape(without_folders(str(error), clip))}</p>', set()
    return (
        f'<article class="card" id="clip-{chosen.row}"><h3><span class="kind">{escape(chosen.kind)}</span> '
        f"{escape(clip.name)}</h3><p>{escape(chosen.why)}</p>{shown}"
        f'{_verdicts(model, chosen, colored, maps)}<p class="origin">{_origin(model, chosen.row)}</p></article>'
    )


def _is_image(clip: Clip) -> bool:
    return clip.path.suffix.lower() in IMAGE_SUFFIXES


def _image(clip: Clip) -> tuple[str, set[int]]:
    pixels = read_png(clip.path)
    return f'<img class="spectrogram-image" alt="Spectrogram of {escape(clip.name)}" src="{jpeg(pixels)}">', set()


def _sound(model: ModelEvaluation, clip: Clip, chosen: ChosenClip, colored: Sequence[str]) -> tuple[str, set[int]]:
    """Spectrogram and player, and the labels that have a map."""
    excerpt = loudest(clip, EXCERPT_SECONDS)
    mel = _mel_config(model, excerpt)
    maps = _activation(model, excerpt, chosen)
    drawn = {} if maps is None else _drawn_maps(model, maps, chosen, mel, colored)
    heard = "" if excerpt.is_whole else f'<p class="part">{excerpt.in_words()}</p>'
    name = escape(clip.name)
    return (
        f'<div class="sound">{spectrogram(excerpt, mel, clip.name, drawn.values())}'
        f'<audio controls preload="metadata" aria-label="{name}" src="{mp3(excerpt)}"></audio></div>{heard}',
        set(drawn),
    )


def _mel_config(model: ModelEvaluation, excerpt: Excerpt) -> MelConfig:
    """What the tagger hears; without one, frames of about 50 ms, and enough of them."""
    if model.tagger is not None and model.tagger.front_end.mel is not None:
        return model.tagger.front_end.mel
    return mel_to_draw(excerpt)


def _activation(model: ModelEvaluation, excerpt: Excerpt, chosen: ChosenClip) -> Activation | None:
    if model.tagger is None or model.tagger.front_end.mel is None or not chosen.labels:
        return None
    names = [model.labels.names[label] for label in chosen.labels]
    return activation(model.tagger, excerpt.waveform, excerpt.sample_rate, names)


def _drawn_maps(
    model: ModelEvaluation, maps: Activation, chosen: ChosenClip, mel: MelConfig, colored: Sequence[str]
) -> dict[int, str]:
    """The map of each label that a place speaks for, as SVG: denser where more speaks, a line around most of it.

    All maps of a clip have one scale.
    """
    bottom, top = picture_limits(mel)
    heights = np.asarray(1 - (hz_to_mel(maps.band_edges, mel) - bottom) / (top - bottom), np.float64)
    greatest = max(float(maps.maps.max()), _LEAST_GREATEST)
    place = (
        f'x="0" y="{heights[-1]:.4g}" width="{maps.time_edges[-1]:.6g}" height="{heights[0] - heights[-1]:.4g}" '
        'preserveAspectRatio="none"'
    )
    drawn = {}
    for label, values in zip(chosen.labels, maps.maps, strict=True):
        shares = values / greatest
        if float(shares.max()) > _FAINTEST:
            outline = "".join(_outline(shares >= _OUTLINED, maps.time_edges, heights))
            drawn[label] = (
                f'<g class="where" data-map="{label}" visibility="hidden">'
                f'<image {place} href="{_veil(shares, color_of(model.labels.names[label], colored))}"/>'
                f'<path class="halo" d="{outline}"/><path class="outline" d="{outline}"/></g>'
            )
    return drawn


def _veil(shares: Float32Array, color: str) -> str:
    """A picture in one colour, the denser the greater the share."""
    steps = np.rint(np.where(shares > _FAINTEST, shares, 0) * _N_OPACITIES) / _N_OPACITIES
    pixels = np.empty((*shares.shape, 4), np.uint8)
    pixels[..., :3] = [int(color[place : place + 2], 16) for place in (1, 3, 5)]
    pixels[..., 3] = np.rint(255 * _DENSEST * steps)
    return png(pixels[::-1])


def _outline(inside: BoolArray, times: FloatArray, heights: FloatArray) -> Iterator[str]:
    """The edges between cells inside and cells outside."""
    padded = np.pad(inside, 1)
    for band, edge in np.argwhere(padded[1:-1, 1:] != padded[1:-1, :-1]):
        yield f"M{times[edge]:.4g} {heights[band]:.4g}V{heights[band + 1]:.4g}"
    for edge, time in np.argwhere(padded[1:, 1:-1] != padded[:-1, 1:-1]):
        yield f"M{times[time]:.4g} {heights[edge]:.4g}H{times[time + 1]:.4g}"


def _verdicts(model: ModelEvaluation, chosen: ChosenClip, colored: Sequence[str], maps: set[int]) -> str:
    """What is true, what was said, and from where on a label is given; labels with a map are buttons."""
    predictions = model.predictions
    if not chosen.labels:
        return ""
    items = []
    for label in chosen.labels:
        name = model.labels.names[label]
        probability, threshold = (
            float(values[chosen.row, label]) for values in (predictions.probabilities, predictions.thresholds)
        )
        kind, words = _verdict(bool(predictions.y_true[chosen.row, label]), probability >= threshold)
        shown = f'{swatch(name, colored)}<span class="text">{escape(name)}</span>'
        if label in maps:
            shown = (
                f'<button type="button" class="chip" data-map="{label}" aria-pressed="false" '
                f'title="Show where the tagger looked">{shown}</button>'
            )
        else:
            shown = f'<span class="chip">{shown}</span>'
        items.append(
            f'<li class="{kind}">{shown}<span class="meter" style="--value:{100 * probability:.1f}%;'
            f'--threshold:{100 * min(threshold, 1):.1f}%;--label:{color_of(name, colored)}"></span>'
            f'<span class="figure">{probability:.2f} <small>/ {threshold:.2f}</small></span>'
            f'<span class="words">{words}</span></li>'
        )
    return f'<ul class="verdicts">{"".join(items)}</ul>'


def _verdict(is_true: bool, is_given: bool) -> tuple[str, str]:
    if is_true:
        return ("hit", "✓ true, heard") if is_given else ("missed", "○ true, missed")
    return ("wrong", "✕ heard, not true") if is_given else ("neither", "not true, not given")


def _origin(model: ModelEvaluation, row: int) -> str:
    """The labels that it has, how long it is and where its prediction comes from."""
    predictions = model.predictions
    clip, seconds = predictions.clips[row], predictions.durations[row]
    parts = ["no true label" if not clip.labels else count(len(clip.labels), "true label")]
    if np.isfinite(seconds):
        parts.append(f"{seconds:.3g} s")
    parts.append(_ORIGINS[predictions.origins[row]])
    if clip.fold is not None:
        parts.append(f"fold {escape(clip.fold)}")
    return " · ".join(parts)
