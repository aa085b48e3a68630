"""Synthetic sounds of ten kinds that a person recognises, and scenes that mix them, for demos and tests.

Every kind is a function of a random generator, a duration in seconds (above 0) and a sample rate in Hz (at least
16,000, otherwise a ValueError). It returns a float32 waveform of shape (n_samples,) with a peak of 0.9. Pitch, tempo
and timbre are random; the same state of the generator gives the same bytes. Some kinds take a tempo, in sweeps,
strikes, firings, knocks or ticks per second.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from scipy.signal import butter, sosfilt

from spectag.array_types import AnyFloatArray, Waveform

_PEAK = 0.9
_MIN_SAMPLE_RATE = 16_000  # Hz


def siren(rng: Generator, duration_seconds: float, sample_rate: int, *, tempo: float | None = None) -> Waveform:
    """A horn whose pitch goes up and down between about 600 and 1,400 Hz."""
    seconds = _seconds(duration_seconds, sample_rate)
    tempo = rng.uniform(0.4, 3.0) if tempo is None else tempo
    low, high = rng.uniform(450, 700), rng.uniform(1100, 1600)
    height = 0.5 - 0.5 * np.cos(2 * np.pi * tempo * seconds + rng.uniform(0, 2 * np.pi))
    phase = _phase(low * (high / low) ** height, sample_rate)
    harmonics = [1.0, *rng.uniform([0.2, 0.1, 0.0], [0.6, 0.4, 0.2])]
    return _to_peak(np.sum([level * np.sin(n * phase) for n, level in enumerate(harmonics, start=1)], axis=0))


def bell(rng: Generator, duration_seconds: float, sample_rate: int, *, tempo: float | None = None) -> Waveform:
    """A church bell with regular strikes: its partials are not harmonic, and the high ones fade first."""
    seconds = _seconds(duration_seconds, sample_rate)
    tempo = rng.uniform(0.4, 1.2) if tempo is None else tempo
    ratios = np.array([0.5, 1.0, 1.2, 1.5, 2.0, 2.66, 3.0, 4.1]) * rng.normal(1, 0.004, 8)
    levels = np.array([0.5, 1.0, 0.7, 0.4, 0.8, 0.4, 0.3, 0.25]) * rng.uniform(0.5, 1.5, 8)
    frequencies = rng.uniform(280, 750) * ratios
    decays = rng.uniform(1.5, 3.5) / ratios
    tones = [_ring(len(seconds), sample_rate, *tone) for tone in zip(frequencies, decays, strict=True)]
    strike = np.sum(levels[:, None] * tones, axis=0)
    times = _regular_times(rng, duration_seconds, tempo)
    return _to_peak(_repeat(strike, times, rng.uniform(0.7, 1.0, len(times)), len(seconds), sample_rate))


def rain(rng: Generator, duration_seconds: float, sample_rate: int) -> Waveform:
    """Soft broadband noise, and about a hundred or more drops per second that ring for a moment."""
    n_samples = len(_seconds(duration_seconds, sample_rate))
    rustle = _band(_noise(rng, n_samples), sample_rate, rng.uniform(300, 700), rng.uniform(4000, 7000))
    drops = np.zeros(n_samples)
    n_drops = 1 + rng.poisson(duration_seconds * rng.uniform(80, 300))
    drops[rng.integers(n_samples, size=n_drops)] = rng.exponential(1.0, n_drops)
    pitch = rng.uniform(1500, 3500)
    ringing = _band(drops, sample_rate, 0.7 * pitch, 1.5 * pitch)
    return _to_peak(_to_rms(rustle, 1.0) + _to_rms(ringing, rng.uniform(1.0, 2.0)))


def engine(rng: Generator, duration_seconds: float, sample_rate: int, *, tempo: float | None = None) -> Waveform:
    """A motor: fast, low thuds of uneven loudness and slightly varying speed."""
    seconds = _seconds(duration_seconds, sample_rate)
    tempo = rng.uniform(25, 70) if tempo is None else tempo
    drift = rng.uniform(0.03, 0.12) * np.sin(2 * np.pi * rng.uniform(0.1, 0.5) * seconds + rng.uniform(0, 2 * np.pi))
    phase = _phase(tempo * (1 + drift), sample_rate)
    thuds = np.exp(rng.uniform(2.0, 5.0) * (np.cos(phase) - 1))
    n_cylinders = rng.choice([2, 4])
    turn = _phase(tempo / n_cylinders * (1 + drift), sample_rate)
    unevenness = 1 + rng.uniform(0.1, 0.4) * np.cos(turn)  # one cylinder is the loudest
    rattle = rng.uniform(0.3, 1.0) * _noise(rng, len(seconds))
    return _to_peak(_band(thuds * (unevenness + rattle), sample_rate, 30, rng.uniform(700, 1500)))


def chirp(rng: Generator, duration_seconds: float, sample_rate: int) -> Waveform:
    """A small bird: groups of short notes that glide quickly between 2,500 and 7,500 Hz."""
    n_samples = len(_seconds(duration_seconds, sample_rate))
    note_seconds = rng.uniform(0.05, 0.12)
    phase = _seconds(note_seconds, sample_rate) / note_seconds  # from 0 to 1
    start, end = np.sort(rng.uniform(2500, 7500, 2))[:: rng.choice([-1, 1])]
    glide = 2.0 ** (rng.uniform(-0.3, 0.3) * np.sin(np.pi * phase))
    frequency = np.clip(start * (end / start) ** phase * glide, 2500, 7500)
    note = np.sin(np.pi * phase) * np.sin(_phase(frequency, sample_rate))
    times = _grouped_times(rng, duration_seconds, rng.uniform(6, 0.9 / note_seconds), per_group=(2, 9))
    return _to_peak(_repeat(note, times, rng.uniform(0.5, 1.0, len(times)), n_samples, sample_rate))


def knock(rng: Generator, duration_seconds: float, sample_rate: int, *, tempo: float | None = None) -> Waveform:
    """Knuckles on a wooden door: three to six dull knocks, a pause, and again."""
    n_samples = len(_seconds(duration_seconds, sample_rate))
    tempo = rng.uniform(3.0, 6.5) if tempo is None else tempo
    seconds = _seconds(0.15, sample_rate)
    wood = [
        rng.uniform(0.4, 1.0) * _ring(len(seconds), sample_rate, frequency, rng.uniform(0.06, 0.14))
        for frequency in rng.uniform([110, 220, 400], [200, 380, 700])
    ]
    knuckle = _band(_noise(rng, len(seconds)), sample_rate, 500, 2500) * _decay(seconds, 0.02)
    times = _grouped_times(rng, duration_seconds, tempo, per_group=(3, 6))
    strike = np.sum([*wood, rng.uniform(0.1, 0.5) * knuckle], axis=0)
    return _to_peak(_repeat(strike, times, rng.uniform(0.7, 1.0, len(times)), n_samples, sample_rate))


def tick(rng: Generator, duration_seconds: float, sample_rate: int, *, tempo: float | None = None) -> Waveform:
    """A clock: short bright clicks at a constant tempo; every second click is lower."""
    n_samples = len(_seconds(duration_seconds, sample_rate))
    tempo = float(rng.choice([2, 3, 4, 5])) if tempo is None else tempo
    seconds = _seconds(0.04, sample_rate)
    high = rng.uniform(2500, 4500)
    decay = _decay(seconds, rng.uniform(0.01, 0.03))
    noise = _noise(rng, len(seconds))
    times = _regular_times(rng, duration_seconds, tempo)
    ticks, tocks = (
        _repeat(decay * _band(noise, sample_rate, 0.85 * pitch, 1.2 * pitch), times, 1.0, n_samples, sample_rate)
        for pitch, times in ((high, times[0::2]), (high * rng.uniform(0.7, 0.9), times[1::2]))
    )
    return _to_peak(ticks + tocks)


def hiss(rng: Generator, duration_seconds: float, sample_rate: int) -> Waveform:
    """Escaping steam: steady high-frequency noise."""
    seconds = _seconds(duration_seconds, sample_rate)
    swell = 1 + rng.uniform(0, 0.3) * np.sin(2 * np.pi * rng.uniform(0.1, 0.7) * seconds + rng.uniform(0, 2 * np.pi))
    noise = _noise(rng, len(seconds))
    return _to_peak(swell * _band(noise, sample_rate, rng.uniform(3500, 6000), 0.45 * sample_rate))


def buzz(rng: Generator, duration_seconds: float, sample_rate: int) -> Waveform:
    """A fly in a room: an unsteady tone of 140 to 260 Hz with dozens of harmonics that gets louder and softer."""
    seconds = _seconds(duration_seconds, sample_rate)
    flight = np.sin(2 * np.pi * rng.uniform(0.3, 1.2) * seconds + rng.uniform(0, 2 * np.pi))
    tremble = np.sin(2 * np.pi * rng.uniform(5, 12) * seconds)
    frequency = rng.uniform(140, 260) * (1 + rng.uniform(0.03, 0.10) * flight + 0.01 * tremble)
    cosine = np.cos(_phase(frequency, sample_rate))
    fall = rng.uniform(0.85, 0.93)
    reed = (1 - fall * cosine) / (1 - 2 * fall * cosine + fall**2)  # the sum of fall**n cos(n phase) over all n
    return _to_peak(_band(reed * (1 + rng.uniform(0.2, 0.5) * flight), sample_rate, 200, 0.45 * sample_rate))


def whistle(rng: Generator, duration_seconds: float, sample_rate: int) -> Waveform:
    """A whistled tune: an almost pure tone that slides from note to note, and a little breath noise."""
    seconds = _seconds(duration_seconds, sample_rate)
    position = seconds * rng.uniform(1.5, 3.5)  # in notes
    note, phase_in_note = position.astype(int), position % 1
    tune = (rng.choice([0, 2, 4, 5, 7, 9, 12], note[-1] + 2) / 12).astype(np.float32)  # in octaves
    slide = np.minimum(phase_in_note / 0.2, 1)
    vibrato = rng.uniform(0.003, 0.015) * np.sin(2 * np.pi * rng.uniform(4, 7) * seconds)
    pitch = np.exp2(tune[note] * (1 - slide) + tune[note + 1] * slide + vibrato)
    phase = _phase(rng.uniform(900, 1300) * pitch, sample_rate)
    tone = np.sin(phase) + rng.uniform(0.01, 0.06) * np.sin(2 * phase)
    breath = _to_rms(_band(_noise(rng, len(seconds)), sample_rate, 1000, 4000), rng.uniform(0.005, 0.02))
    return _to_peak((0.4 + 0.6 * np.sqrt(np.sin(np.pi * phase_in_note))) * tone + breath)


_Sound = Callable[[Generator, float, int], Waveform]
_SOUNDS: tuple[_Sound, ...] = (bell, buzz, chirp, engine, hiss, knock, rain, siren, tick, whistle)
KINDS = {sound.__name__.capitalize(): sound for sound in _SOUNDS}


@dataclass(frozen=True)
class SoundEvent:
    """A labelled sound in a scene."""

    label: str
    start_seconds: float
    end_seconds: float
    gain_db: float  # its peak relative to full scale


@dataclass(frozen=True)
class Scene:
    """A mixture of sounds, and its events."""

    waveform: Waveform
    sample_rate: int  # Hz
    events: tuple[SoundEvent, ...]  # sorted by onset


def draw_labels(rng: Generator) -> tuple[str, ...]:
    """One to three different labels of KINDS, sorted; a single label is the most frequent case."""
    n_labels = rng.choice([1, 2, 3], p=[0.5, 0.35, 0.15])
    return tuple(sorted(rng.choice(list(KINDS), n_labels, replace=False).tolist()))


def make_demo_scene(
    rng: Generator,
    *,
    labels: Sequence[str] | None = None,
    duration_seconds: float | None = None,
    sample_rate: int = 44_100,
) -> Scene:
    """Mix sounds with random gains, onsets and lengths over faint noise.

    Each sound lasts for at least half of the scene. The mixture is clipped to [-1, 1]; up to three sounds never clip.

    Parameters
    ----------
    rng : Generator
        The same state gives the same scene.
    labels : sequence of str, optional
        Keys of KINDS; by default, chosen by `draw_labels`.
    duration_seconds : float, optional
        Length of the scene; by default, between 1 and 5 s.

    Raises
    ------
    ValueError
        If a label is not in KINDS.
    """
    labels = draw_labels(rng) if labels is None else labels
    if unknown := set(labels) - set(KINDS):
        raise ValueError(f"unknown kind of sound: {', '.join(sorted(unknown))}; the known kinds are {', '.join(KINDS)}")
    duration_seconds = rng.uniform(1, 5) if duration_seconds is None else duration_seconds
    n_samples = len(_seconds(duration_seconds, sample_rate))
    waveform = _to_rms(_noise(rng, n_samples), 10 ** (rng.uniform(-75, -55) / 20))
    events = []
    for label in labels:
        n_event = max(1, round(n_samples * rng.uniform(0.5, 1.0)))
        start = int(rng.integers(n_samples - n_event + 1))
        gain_db = rng.uniform(-22, -10)  # so three sounds never reach full scale
        sound = KINDS[label](rng, n_event / sample_rate, sample_rate)
        waveform[start : start + n_event] += 10 ** (gain_db / 20) / _PEAK * fade_ends(sound, sample_rate)
        events.append(SoundEvent(label, start / sample_rate, (start + n_event) / sample_rate, gain_db))
    events.sort(key=lambda event: event.start_seconds)
    return Scene(np.clip(waveform, -1, 1).astype(np.float32), sample_rate, tuple(events))


def fade_ends(waveform: Waveform, sample_rate: int) -> Waveform:
    """The waveform with a fade-in and a fade-out of 10 ms, because a cut sound would click."""
    ramp = np.minimum(np.arange(1, len(waveform) + 1) / (0.01 * sample_rate), 1).astype(np.float32)
    return np.asarray(waveform * ramp * ramp[::-1], np.float32)


def _seconds(duration_seconds: float, sample_rate: int) -> AnyFloatArray:
    """The time of each sample."""
    if duration_seconds <= 0 or sample_rate < _MIN_SAMPLE_RATE:
        raise ValueError(
            f"need a duration above 0 s and a sample rate of {_MIN_SAMPLE_RATE} Hz or more, "
            f"got {duration_seconds:g} s and {sample_rate} Hz"
        )
    return np.arange(max(1, round(duration_seconds * sample_rate)), dtype=np.float32) / np.float32(sample_rate)


def _phase(frequency: AnyFloatArray, sample_rate: int) -> AnyFloatArray:
    """The phase, from 0 to 2 pi, of a tone whose frequency changes from sample to sample."""
    cycles = np.cumsum(frequency, dtype=np.float64) / sample_rate
    return 2 * np.pi * (cycles - np.floor(cycles)).astype(np.float32)


def _ring(n_samples: int, sample_rate: int, frequency: float, decay_seconds: float) -> AnyFloatArray:
    """A struck tone that decays by 60 dB in the given time."""
    step = np.exp((2j * np.pi * frequency - 3 * np.log(10) / decay_seconds) / sample_rate)
    return np.cumprod(np.full(n_samples, step)).imag


def _decay(seconds: AnyFloatArray, decay_seconds: float) -> AnyFloatArray:
    """An envelope that decays from 1 by 60 dB in the given time."""
    return np.asarray(np.exp(-3 * np.log(10) / decay_seconds * seconds))


def _noise(rng: Generator, n_samples: int) -> AnyFloatArray:
    return rng.standard_normal(n_samples, dtype=np.float32)


def _band(waveform: AnyFloatArray, sample_rate: int, low: float, high: float) -> AnyFloatArray:
    return np.asarray(sosfilt(butter(2, [low, high], "bandpass", fs=sample_rate, output="sos"), waveform))


def _regular_times(rng: Generator, duration_seconds: float, tempo: float) -> AnyFloatArray:
    """Times in seconds at a constant tempo, the first within half a beat."""
    return np.arange(rng.uniform(0, min(0.5 / tempo, 0.5 * duration_seconds)), duration_seconds, 1 / tempo)


def _grouped_times(rng: Generator, duration_seconds: float, tempo: float, per_group: tuple[int, int]) -> AnyFloatArray:
    """Times in seconds at a constant tempo within groups; the gap between groups is 0.3 to 1 s longer."""
    times = [rng.uniform(0, min(0.3, 0.3 * duration_seconds))]
    while times[-1] < duration_seconds:
        n_more = rng.integers(per_group[0], per_group[1] + 1) - 1
        times += list(times[-1] + np.arange(1, n_more + 1) / tempo)
        times.append(times[-1] + 1 / tempo + rng.uniform(0.3, 1.0))
    return np.array([time for time in times if time < duration_seconds])


def _repeat(
    sound: AnyFloatArray, times: AnyFloatArray, gains: AnyFloatArray | float, n_samples: int, sample_rate: int
) -> AnyFloatArray:
    """The sound once at each time, cut at the end."""
    waveform = np.zeros(n_samples)
    for start, gain in zip((times * sample_rate).astype(int), np.broadcast_to(gains, times.shape), strict=True):
        n_audible = min(len(sound), n_samples - start)
        waveform[start : start + n_audible] += gain * sound[:n_audible]
    return waveform


def _to_peak(waveform: AnyFloatArray) -> Waveform:
    peak = max(float(np.abs(waveform).max()), 1e-9)
    return (waveform * (_PEAK / peak)).astype(np.float32)


def _to_rms(waveform: AnyFloatArray, rms: float) -> AnyFloatArray:
    current = max(float(np.sqrt(np.mean(waveform**2))), 1e-9)
    return waveform * (rms / current)
