"""A clip on a page: the spectrogram and the sound of its loudest excerpt, or its image."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from spectag.array_types import Pixels, Waveform
from spectag.audio.embedded_media import jpeg_uri, mp3_uri
from spectag.audio.files import read_audio, resample
from spectag.audio.mel import compute_log_mel
from spectag.audio.spectrogram_drawing import frequency_ticks, in_decibels, native_mel_config, spectrogram_pixels
from spectag.audio.spectrogram_image import read_png
from spectag.config.base import Channel, MelConfig
from spectag.data.clips import Clip
from spectag.data.readers.file_finder import IMAGE_SUFFIXES
from spectag.system.file_errors import skip_reason

_PEAK = 0.9  # of a sound on a page: quiet clips are amplified
_MAX_GAIN = 100.0  # 40 dB, so that noise stays quiet


@dataclass(frozen=True)
class Excerpt:
    """Part of a clip, from `start_seconds` after its start."""

    waveform: Waveform
    sample_rate: int
    start_seconds: float
    clip_seconds: float

    @property
    def seconds(self) -> float:
        """Duration of the excerpt."""
        return len(self.waveform) / self.sample_rate

    @property
    def text(self) -> str:
        """Which part of the clip this is; empty if it is the whole clip."""
        if self.seconds > self.clip_seconds - 0.05:
            return ""
        end_seconds = self.start_seconds + self.seconds
        return (
            f"The loudest {self.seconds:g} s of {self.clip_seconds:.3g} s, "
            f"from {self.start_seconds:.1f} s to {end_seconds:.1f} s."
        )

    @property
    def mp3(self) -> str:
        """The sound as a data URI, amplified to a common peak."""
        peak = float(np.abs(self.waveform).max())
        gain = min(_PEAK / peak, _MAX_GAIN) if peak else 1.0
        return mp3_uri(self.waveform * np.float32(gain), self.sample_rate)


@dataclass(frozen=True)
class AttributionMap:
    """Where a label's sound is, drawn over a spectrogram: an image and the outline of its strongest part.

    Heights are fractions of the spectrogram's height, from its top.
    """

    label: int
    image: str
    """Data URI."""
    outline: str
    """SVG path, over seconds and heights."""
    seconds: float
    top: float
    height: float


@dataclass(frozen=True)
class TimeMark:
    """A time span that a bar above a spectrogram marks, in seconds from its start."""

    text: str
    """What it is: shown when the pointer is on it, and read aloud."""
    start: float
    end: float
    is_secondary: bool = False
    """Drawn hollow."""


@dataclass(frozen=True)
class SpectrogramFigure:
    """What the macro `spectrogram` draws. The time axis starts at the middle of the first frame."""

    title: str
    image: str
    """Data URI."""
    seconds: float
    frame_seconds: float
    n_frames: int
    frequency_ticks: tuple[tuple[str, float], ...]
    """Text and height from 0 to 1."""
    maps: Sequence[AttributionMap] = ()
    marks: Sequence[TimeMark] = ()


@dataclass(frozen=True)
class ClipView:
    """What the macro `clip_view` shows: a figure and a sound, an image, or why there is neither."""

    name: str
    problem: str = ""
    figure: SpectrogramFigure | None = None
    sound: str = ""
    """Data URI."""
    excerpt_text: str = ""
    image: str = ""
    """Data URI."""


def loudest_excerpt(clip: Clip, seconds: float, channel: Channel = "mix") -> Excerpt:
    """The excerpt of this duration with the most energy, or the whole of a shorter clip.

    Raises
    ------
    AudioError
        If the clip can't be read.
    """
    waveform, rate = read_audio(
        clip.path, start_seconds=clip.start_seconds, end_seconds=clip.end_seconds, channel=channel
    )
    n_samples = round(seconds * rate)
    start = 0
    if len(waveform) > n_samples:
        energy = np.concatenate([[0.0], np.cumsum(waveform.astype(np.float64) ** 2)])
        start = int(np.argmax(energy[n_samples:] - energy[:-n_samples]))
    return Excerpt(waveform[start : start + n_samples], rate, start / rate, len(waveform) / rate)


def view_clip(
    clip: Clip,
    max_seconds: float,
    mel: MelConfig | None,
    maps_of: Callable[[Excerpt, MelConfig], Sequence[AttributionMap]] = lambda excerpt, mel: (),
    *,
    channel: Channel = "mix",
    marks: Sequence[TimeMark] = (),
) -> ClipView:
    """What a page shows of a clip. A clip that can't be read gets a view with the reason.

    Parameters
    ----------
    clip : Clip
    max_seconds : float
        Of a longer clip, the loudest excerpt of this duration is shown.
    mel : MelConfig, optional
        Settings of the spectrogram; by default they suit the sample rate.
    maps_of : callable
        Makes the attribution maps of an excerpt.
    channel : Channel
        How several channels become one.
    marks : sequence of TimeMark
        Times from the start of the clip, which is not longer than `max_seconds`.
    """
    try:
        if clip.path.suffix.lower() in IMAGE_SUFFIXES:
            return ClipView(clip.name, image=jpeg_uri(read_png(clip.path)))
        excerpt = loudest_excerpt(clip, max_seconds, channel)
        mel = mel or native_mel_config(excerpt.sample_rate, len(excerpt.waveform))
        log_mel = compute_log_mel(resample(excerpt.waveform, excerpt.sample_rate, mel.sample_rate), mel)
        pixels = spectrogram_pixels(in_decibels(log_mel, mel)[0])
        title = f"Mel spectrogram of {clip.name}"
        maps = maps_of(excerpt, mel)
        figure = spectrogram_figure(pixels, mel, log_mel.shape[1], title, excerpt.seconds, maps=maps, marks=marks)
        return ClipView(clip.name, figure=figure, sound=excerpt.mp3, excerpt_text=excerpt.text)
    except Exception as error:
        return ClipView(clip.name, problem=reason_without_folder(skip_reason(clip.path, error), clip))


def reason_without_folder(reason: str, clip: Clip) -> str:
    """Why a clip can't be read, with its name instead of its path: a shared page must not show private folders."""
    return reason.replace(str(clip.path), clip.fname)


def spectrogram_figure(
    pixels: Pixels,
    mel: MelConfig,
    n_frames: int,
    title: str,
    seconds: float,
    *,
    maps: Sequence[AttributionMap] = (),
    marks: Sequence[TimeMark] = (),
) -> SpectrogramFigure:
    """A figure of a picture of a log_mel: its axes come from the MelConfig and the number of frames."""
    ticks, frame_seconds = tuple(frequency_ticks(mel)), mel.hop_length / mel.sample_rate
    return SpectrogramFigure(title, jpeg_uri(pixels), seconds, frame_seconds, n_frames, ticks, maps, marks)
