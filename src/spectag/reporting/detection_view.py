"""A detection on a page: the spectrogram and the sound with some seconds before and after it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spectag.audio.files import read_audio, resample
from spectag.audio.mel import compute_log_mel
from spectag.audio.spectrogram_drawing import in_decibels, native_mel_config, spectrogram_pixels
from spectag.config.base import Channel, MelConfig
from spectag.reporting.clip_view import ClipView, Excerpt, TimeMark, spectrogram_figure
from spectag.system.file_errors import skip_reason

MAX_DETECTION_SECONDS = 60.0
_MIN_SECONDS = 0.05  # of a sound that is played


@dataclass(frozen=True)
class ShownSpan:
    """The part of a recording that a page shows, and the detection in it, in seconds of the recording."""

    start: float
    end: float
    detection_start: float
    detection_end: float
    is_cut: bool
    """Whether the detection is longer than what is shown."""


def view_detection(
    path: Path,
    name: str,
    start_seconds: float,
    end_seconds: float | None,
    mel: MelConfig | None,
    *,
    context: float,
    channel: Channel = "mix",
) -> ClipView:
    """What a page shows of a detection. Only this part of the recording is read.

    Parameters
    ----------
    path : Path
        The recording. If it can't be read, the view has the reason.
    name : str
        Shown instead of its path.
    start_seconds, end_seconds : float
        The detection; None: up to the end of the recording. Of a longer one, the first 60 s are shown.
    mel : MelConfig, optional
        Settings of the spectrogram; by default they suit the sample rate.
    context : float
        Seconds before and after the detection.
    channel : Channel
        How several channels become one.
    """
    try:
        span = _span(start_seconds, end_seconds, context)
        waveform, rate = read_audio(path, start_seconds=span.start, end_seconds=span.end, channel=channel)
        if len(waveform) < _MIN_SECONDS * rate:
            waveform = np.pad(waveform, (0, round(_MIN_SECONDS * rate) - len(waveform)))
        excerpt = Excerpt(waveform, rate, span.start, len(waveform) / rate)
        mel = mel or native_mel_config(rate, len(waveform))
        log_mel = compute_log_mel(resample(waveform, rate, mel.sample_rate), mel)
        pixels = spectrogram_pixels(in_decibels(log_mel, mel)[0])
        begin, end = (min(time - span.start, excerpt.seconds) for time in (span.detection_start, span.detection_end))
        marks = [TimeMark("the detection", begin, end)]
        title = f"Mel spectrogram of {name}"
        figure = spectrogram_figure(pixels, mel, log_mel.shape[1], title, excerpt.seconds, marks=marks)
        return ClipView(name, figure=figure, sound=excerpt.mp3, excerpt_text=_text(span))
    except Exception as error:
        return ClipView(name, problem=skip_reason(path, error).replace(str(path), name))


def _span(start: float, end: float | None, context: float) -> ShownSpan:
    longest = start + MAX_DETECTION_SECONDS
    shown_end = longest if end is None else min(end, longest)
    return ShownSpan(
        max(start - context, 0.0), shown_end + context, start, shown_end, end is not None and end > longest
    )


def _text(span: ShownSpan) -> str:
    cut = f" Of the longer detection, the first {MAX_DETECTION_SECONDS:.0f} s are shown." if span.is_cut else ""
    return f"The marked part is the detection, from {_clock(span.detection_start)} in the recording.{cut}"


def _clock(seconds: float) -> str:
    """Such as 7.5 s, or 12:34:56.5 for long recordings."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds, 1), 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02}:{rest:04.1f}" if hours else f"{minutes}:{rest:04.1f}"
