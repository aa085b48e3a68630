"""Parts of SVG figures."""

import base64
import math
from collections.abc import Iterator

from spectag.audio.mel import hz_to_mel, picture_limits
from spectag.config.base import MelConfig

_LEAST_TICK_SHARE = 0.09  # of the frequency axis, between two ticks


def data_uri(kind: str, content: bytes) -> str:
    """An address that holds what it points to."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def frequency_ticks(mel: MelConfig) -> Iterator[tuple[str, float]]:
    """Octaves of 1 kHz that stand well apart, each with its height from 0 to 1 in a picture of a log_mel."""
    bottom, top = picture_limits(mel)
    above = math.inf
    for hertz in (125 << octave for octave in range(10, -1, -1)):
        share = (float(hz_to_mel(hertz, mel)) - bottom) / (top - bottom)
        if 0 <= share <= 1 and above - share > _LEAST_TICK_SHARE:
            yield f"{hertz // 1000}k" if hertz >= 1000 else str(hertz), share
            above = share
