"""Segments that a model finds in three minutes of noise, silence and hum, where it should find none.

    python benchmarks/false_segments.py MODEL

For each sound: the labels that segments from frames and from windows report, with the number of segments and their
seconds. The model must have frames. Noise has a spectrum of power f^-slope, at a level below full scale.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spectag.config.tagging import SEGMENT_WINDOW
from spectag.models.tagger import Tagger
from spectag.models.tags import Detection

SAMPLE_RATE, SECONDS = 32_000, 180
N_SAMPLES = SAMPLE_RATE * SECONDS
SLOPES = {"white": 0.0, "between white and pink": 0.5, "pink": 1.0, "brown": 2.0}
LEVELS_DB = (-20, -40, -60)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    tagger = Tagger(parser.parse_args().model)
    print("| sound | from frames | from windows |\n|---|---|---|")
    for name, waveform in sounds():
        cells = [
            summary(tagger.segments(waveform, SAMPLE_RATE, window=window).detections)
            for window in (None, SEGMENT_WINDOW)
        ]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def sounds() -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Each sound with its name."""
    rng = np.random.default_rng(0)
    for name, slope in SLOPES.items():
        waveform = noise(slope, rng)
        for level_db in LEVELS_DB:
            yield f"{name}, {level_db} dB", (waveform * 10 ** (level_db / 20)).astype(np.float32)
    yield "silence", np.zeros(N_SAMPLES, np.float32)
    hum = 0.05 * np.sin(2 * np.pi * 50 * np.arange(N_SAMPLES) / SAMPLE_RATE) + 0.001 * noise(0.0, rng)
    yield "hum of 50 Hz", hum.astype(np.float32)


def noise(slope: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Noise with a root mean square of 1, from 20 Hz on."""
    frequencies = np.fft.rfftfreq(N_SAMPLES, 1 / SAMPLE_RATE)
    amplitudes = (frequencies >= 20) * np.maximum(frequencies, 20) ** (-slope / 2)
    waveform = np.fft.irfft(amplitudes * np.exp(2j * np.pi * rng.random(len(frequencies))), N_SAMPLES)
    return np.asarray(waveform / np.sqrt((waveform**2).mean()))


def summary(detections: Sequence[Detection]) -> str:
    """The labels with the number of their segments and the seconds in them; - without any."""
    seconds = defaultdict(list)
    for found in detections:
        seconds[found.label].append(found.end_seconds - found.start_seconds)
    return ", ".join(f"{label} {len(each)} ({sum(each):.0f} s)" for label, each in sorted(seconds.items())) or "-"


if __name__ == "__main__":
    main()
