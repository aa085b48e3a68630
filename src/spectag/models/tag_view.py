"""How the tags of a sound look in a notebook: its spectrogram, and a table of the labels."""

from html import escape

import numpy as np

from spectag.array_types import Waveform
from spectag.audio.embedded_media import jpeg_uri
from spectag.audio.files import read_audio
from spectag.audio.mel import compute_log_mel
from spectag.audio.spectrogram_drawing import native_mel_config, spectrogram_pixels
from spectag.errors import SpectagError
from spectag.models.tags import Tags
from spectag.system.storage import local_copy

_MAX_SECONDS = 60.0  # drawn of a recording
_N_ROWS = 6
_BAR_PIXELS = 120


def tags_html(tags: Tags) -> str:
    """The spectrogram of the sound, in colour if matplotlib is installed, and its detected or most probable labels."""
    detected = tags.above_threshold()
    rows = "".join(_row(tag.label, tag.probability, "✓") for tag in detected[:_N_ROWS])
    rows += "".join(_row(tag.label, tag.probability, "") for tag in tags.top(_N_ROWS)[len(detected) :])
    more = f"<p>and {len(detected) - _N_ROWS} more detected labels</p>" if len(detected) > _N_ROWS else ""
    return (
        f"<div><b>{escape(tags.name)}</b>{_picture(tags)}<table><tr><th>label</th><th>probability</th><th></th>"
        f"<th>detected</th></tr>{rows}</table>{more}</div>"
    )


def _row(label: str, probability: float, mark: str) -> str:
    bar = f'<div style="background:#4c72b0;height:0.7em;width:{_BAR_PIXELS * probability:.0f}px"></div>'
    cell = f'<td style="min-width:{_BAR_PIXELS}px">{bar}</td>'
    return f'<tr><td style="text-align:left">{escape(label)}</td><td>{probability:.2f}</td>{cell}<td>{mark}</td></tr>'


def _picture(tags: Tags) -> str:
    """The spectrogram; for an image, or a file that is gone, its place stays empty."""
    if tags.end_seconds is None:
        return ""
    end_seconds = min(tags.end_seconds, tags.start_seconds + _MAX_SECONDS)
    try:
        waveform, sample_rate = _read(tags, end_seconds)
    except SpectagError as error:
        return f"<p>{escape(str(error))}</p>"
    log_mel = compute_log_mel(waveform, native_mel_config(sample_rate, len(waveform)))
    source, seconds = jpeg_uri(spectrogram_pixels(log_mel)), f"{tags.start_seconds:g} to {round(end_seconds, 3):g} s"
    top = f"0 to {sample_rate / 2000:g} kHz"
    return f'<br><img src="{source}" width="480" height="128" alt="spectrogram"><br>{seconds}, {top}'


def _read(tags: Tags, end_seconds: float) -> tuple[Waveform, int]:
    start_seconds, channel = tags.start_seconds, tags.channel
    if tags.array is not None:
        sound = tags.array.open(start_seconds, end_seconds, channel=channel)
        return np.concatenate(list(sound.blocks)), sound.sample_rate
    with local_copy(str(tags.path)) as path:
        return read_audio(path, start_seconds=start_seconds, end_seconds=end_seconds, channel=channel)
