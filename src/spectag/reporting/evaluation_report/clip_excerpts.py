"""A stretch of a clip on a page: its spectrogram with axes, and its sound, both inside the page."""

import io
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import soundfile

from spectag.array_types import Float32Array, Pixels, Waveform
from spectag.audio.files import read_audio, resample
from spectag.audio.mel import compute_log_mel
from spectag.audio.spectrogram_image import log_mel_to_image
from spectag.config.base import ImageConfig, MelConfig
from spectag.data.clips import Clip
from spectag.errors import MissingExtraError
from spectag.reporting.evaluation_report.svg import Scale, figure, jpeg
from spectag.reporting.svg_parts import data_uri, frequency_ticks

SHOWN_DB = 80.0  # below the loudest
COLORMAP = "magma"

_MP3_RATES = 8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000  # Hz, up to what most taggers hear
_PEAK = 0.9  # of the sounds, so that quiet ones are heard
_MOST_GAIN = 100.0  # 40 dB: noise stays noise
_MOST_COLUMNS, _MOST_ROWS = 480, 128  # pixels of a picture
_LEFT, _TOP, _WIDTH, _HEIGHT = 40, 16, 392, 138  # of the spectrogram in its figure
_DECIBEL_A_NEPER = 10 / math.log(10)  # of power


@dataclass(frozen=True)
class Excerpt:
    """The loudest stretch of a clip, from `start_seconds` in it."""

    waveform: Waveform
    sample_rate: int
    start_seconds: float
    clip_seconds: float

    @property
    def seconds(self) -> float:
        """How long it is."""
        return len(self.waveform) / self.sample_rate

    @property
    def is_whole(self) -> bool:
        """Whether it is all of the clip."""
        return self.seconds > self.clip_seconds - 0.05

    def in_words(self) -> str:
        """Which part of the clip it is."""
        start, end = self.start_seconds, self.start_seconds + self.seconds
        return f"The loudest {self.seconds:g} s of {self.clip_seconds:.3g} s: from {start:.1f} s to {end:.1f} s."


def loudest(clip: Clip, seconds: float) -> Excerpt:
    """The loudest stretch of this length, or all of a shorter clip.

    Raises
    ------
    AudioError
        If the clip can't be read.
    """
    waveform, rate = read_audio(clip.path, start_seconds=clip.start_seconds, end_seconds=clip.end_seconds)
    n = round(seconds * rate)
    start = 0
    if len(waveform) > n:
        energy = np.concatenate([[0.0], np.cumsum(waveform.astype(np.float64) ** 2)])
        start = int(np.argmax(energy[n:] - energy[:-n]))
    return Excerpt(waveform[start : start + n], rate, start / rate, len(waveform) / rate)


def mel_to_draw(excerpt: Excerpt) -> MelConfig:
    """A front end for a sound that no tagger hears: frames of about 50 ms, and enough of them."""
    rate = excerpt.sample_rate
    n_fft = max(256, 2 ** round(math.log2(rate * 0.05)))
    hop = max(1, min(n_fft // 4, len(excerpt.waveform) // 300))
    return MelConfig(
        sample_rate=rate, n_fft=n_fft, hop_length=hop, n_mels=96, f_min=min(20.0, rate / 8), f_max=rate / 2, top_db=None
    )


def spectrogram(excerpt: Excerpt, mel: MelConfig, name: str, overlays: Iterable[str] = ()) -> str:
    """The picture with its axes, as SVG; overlays, SVG too, are in seconds and in shares of the height."""
    waveform = resample(excerpt.waveform, excerpt.sample_rate, mel.sample_rate)
    log_mel = compute_log_mel(waveform, mel)
    frame = mel.hop_length / mel.sample_rate
    seconds = excerpt.seconds
    right, bottom = _LEFT + _WIDTH, _TOP + _HEIGHT
    inner = (
        f'<svg x="{_LEFT}" y="{_TOP}" width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {seconds:.6g} 1" '
        f'preserveAspectRatio="none"><image class="picture" x="{-frame / 2:.6g}" y="0" '
        f'width="{log_mel.shape[1] * frame:.6g}" height="1" preserveAspectRatio="none" '
        f'href="{jpeg(_picture(log_mel, mel))}"/>{"".join(overlays)}</svg>'
    )
    parts = [
        inner,
        f'<rect class="frame" x="{_LEFT}" y="{_TOP}" width="{_WIDTH}" height="{_HEIGHT}"/>',
        f'<path class="playhead" d="M{_LEFT} {_TOP}V{bottom}" visibility="hidden"/>',
        *_ticks(mel, Scale(0, seconds, _LEFT, right), bottom),
    ]
    attributes = f'data-seconds="{seconds:.6g}"'
    title = f"Mel spectrogram of {name}"
    return figure(_LEFT + _WIDTH + 8, bottom + 32, title, parts, classes="spectrogram", attributes=attributes)


def _picture(log_mel: Float32Array, mel: MelConfig) -> Pixels:
    decibels = log_mel * mel.std * (1.0 if mel.log == "db" else _DECIBEL_A_NEPER)
    high = float(decibels.max())
    if decibels.min() == high:
        high += SHOWN_DB  # silence is dark
    size = {"height": min(log_mel.shape[0], _MOST_ROWS), "width": min(log_mel.shape[1], _MOST_COLUMNS)}
    settings = {"low": high - SHOWN_DB, "high": high, **size}
    try:
        return log_mel_to_image(decibels, ImageConfig.model_validate(settings | {"colormap": COLORMAP}))[0]
    except MissingExtraError:  # the colours are matplotlib's
        return log_mel_to_image(decibels, ImageConfig.model_validate(settings))[0]


def _ticks(mel: MelConfig, across: Scale, bottom: float) -> Iterator[str]:
    yield f'<text class="end" x="{_LEFT - 6}" y="{_TOP - 5}">Hz</text>'
    for name, share in frequency_ticks(mel):
        y = bottom - share * _HEIGHT
        yield f'<path class="axis" d="M{_LEFT} {y:.1f}h-4"/>'
        yield f'<text class="end" x="{_LEFT - 6}" y="{y + 4:.1f}">{name}</text>'
    for tick in across.ticks:
        x = across(tick)
        yield f'<path class="axis" d="M{x:.1f} {bottom}v4"/><text x="{x:.1f}" y="{bottom + 16}">{tick:g}</text>'
    yield f'<text class="end" x="{across.end:g}" y="{bottom + 29}">seconds</text>'


def mp3(excerpt: Excerpt) -> str:
    """The sound as the address of itself. Browsers all play an mp3, and from its first sample on, as they should."""
    rate = next((rate for rate in _MP3_RATES if rate >= excerpt.sample_rate), _MP3_RATES[-1])
    waveform = resample(excerpt.waveform, excerpt.sample_rate, rate)
    peak = float(np.abs(waveform).max())
    gain = min(_PEAK / peak, _MOST_GAIN) if peak else 1.0
    file = io.BytesIO()
    soundfile.write(file, waveform * np.float32(gain), rate, format="MP3")
    return data_uri("audio/mpeg", file.getvalue())
