"""Time of a log-mel spectrogram with librosa and with spectag on one core: python benchmarks/mel.py [RECORDING ...]

The calls alternate, and the table compares the medians, so that other load on the machine affects both equally.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import librosa
import numpy as np
from threadpoolctl import threadpool_limits

from spectag.array_types import Float32Array
from spectag.audio.files import read_audio
from spectag.audio.mel import compute_log_mel
from spectag.config.backbones import AUDIOSET_MEL
from spectag.config.base import MelConfig

CLIP_SECONDS = 5
SETTINGS = {
    "blog post": MelConfig(sample_rate=44_100, n_fft=2560, f_max=22_050, ref="max"),
    "librosa's defaults": MelConfig(sample_rate=22_050, f_min=0, f_max=11_025),
    "mn04 (Kaldi)": AUDIOSET_MEL,
}


def librosa_log_mel(waveform: Float32Array, config: MelConfig) -> Float32Array:
    """The log_mel by librosa. For Kaldi settings, the closest that librosa has, which is the same amount of work."""
    if config.pre_emphasis:
        waveform = waveform[1:] - np.float32(config.pre_emphasis) * waveform[:-1]
    power = librosa.feature.melspectrogram(
        y=waveform,
        sr=config.sample_rate,
        n_fft=config.n_fft,
        win_length=config.win_length,
        hop_length=config.hop_length,
        pad_mode=config.pad_mode,
        n_mels=config.n_mels,
        fmin=config.f_min,
        fmax=config.f_max,
        htk=config.mel_scale == "kaldi",
        norm=config.mel_norm,
    )
    if config.log == "ln":
        return (np.log(power + config.amin) - config.mean) / config.std
    ref = np.max if config.ref == "max" else config.ref
    return librosa.power_to_db(power, ref=ref, amin=config.amin, top_db=config.top_db)


def synthetic_clips(sample_rate: int) -> dict[str, Float32Array]:
    """White noise, and brown noise, which needs float64 in more frames (as wind and engines)."""
    white = 0.1 * np.random.default_rng(0).standard_normal(CLIP_SECONDS * sample_rate)
    wind = np.cumsum(white) - np.cumsum(white).mean()
    return {"white noise": white.astype(np.float32), "brown noise": (wind / np.abs(wind).max()).astype(np.float32)}


def recorded_clip(path: Path, sample_rate: int) -> Float32Array:
    waveform, _ = read_audio(path, sample_rate=sample_rate, end_seconds=CLIP_SECONDS)
    return np.resize(waveform, CLIP_SECONDS * sample_rate)


def interleaved_medians(*functions: Callable[[], object], n_repeats: int) -> list[float]:
    """Median milliseconds of each function; the calls alternate."""
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(n_repeats + 1):
        for function, durations in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            durations.append(1000 * (time.perf_counter() - start))
    return [statistics.median(durations[1:]) for durations in times]  # the first call fills the caches


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recordings", nargs="*", type=Path, help=f"looped or cut to {CLIP_SECONDS} s")
    parser.add_argument("--repeats", type=int, default=31)
    arguments = parser.parse_args()

    print(f"{CLIP_SECONDS} s clips, 128 bands, one core, median of {arguments.repeats} calls\n")
    print(f"{'settings':<22} {'sound':<28} {'librosa':>10} {'spectag':>10} {'ratio':>7}")
    for name, config in SETTINGS.items():
        clips = synthetic_clips(config.sample_rate)
        clips |= {path.name: recorded_clip(path, config.sample_rate) for path in arguments.recordings}
        for sound, waveform in clips.items():
            theirs, ours = interleaved_medians(
                lambda waveform=waveform, config=config: librosa_log_mel(waveform, config),
                lambda waveform=waveform, config=config: compute_log_mel(waveform, config),
                n_repeats=arguments.repeats,
            )
            print(f"{name:<22} {sound:<28} {theirs:>7.2f} ms {ours:>7.2f} ms {theirs / ours:>6.2f}x")


if __name__ == "__main__":
    with threadpool_limits(limits=1):
        main()
