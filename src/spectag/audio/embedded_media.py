"""Images and sounds as data URIs, so that a page is a single file."""

import base64
import io

import numpy as np
import soundfile
from PIL import Image

from spectag.array_types import Pixels, Waveform
from spectag.audio.files import resample

_MP3_RATES = 8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000  # Hz; few models use frequencies above 16 kHz
_JPEG_QUALITY = 82


def jpeg_uri(pixels: Pixels) -> str:
    """A JPEG image of pixels of shape (height, width) or (height, width, 3)."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=_JPEG_QUALITY, subsampling=0, optimize=True)
    return _data_uri("image/jpeg", file)


def png_uri(pixels: Pixels) -> str:
    """A PNG image of pixels of shape (height, width, 4), the last channel being opacity."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=True)
    return _data_uri("image/png", file)


def mp3_uri(waveform: Waveform, sample_rate: int) -> str:
    """An MP3 file of a waveform, at most 32 kHz. All browsers play MP3 without a gap at the start."""
    mp3_rate = next((rate for rate in _MP3_RATES if rate >= sample_rate), _MP3_RATES[-1])
    file = io.BytesIO()
    soundfile.write(file, np.clip(resample(waveform, sample_rate, mp3_rate), -1, 1), mp3_rate, format="MP3")
    return _data_uri("audio/mpeg", file)


def flac_uri(waveform: Waveform, sample_rate: int) -> str:
    """A FLAC file of a waveform, with 16 bits and without loss."""
    file = io.BytesIO()
    soundfile.write(file, np.clip(waveform, -1, 1), sample_rate, format="FLAC", subtype="PCM_16")
    return _data_uri("audio/flac", file)


def _data_uri(media_type: str, file: io.BytesIO) -> str:
    return f"data:{media_type};base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
