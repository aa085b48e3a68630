"""Recordings mixed of real clips at known places, and the truth about them: what tells when a tagger hears a sound."""

import csv
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from spectag.array_types import BoolArray, FloatArray, Waveform
from spectag.audio.files import read_audio
from spectag.audio.synthesis import Scene, SoundEvent, faded
from spectag.config.scenes import SceneConfig
from spectag.data.clips import Clip, Manifest
from spectag.errors import DataError
from spectag.system.atomic_files import unfinished_file
from spectag.system.progress import Log, Progress, no_log, silent

PAUSE_SECONDS = 1.0
"""A longer pause ends an event; a shorter one is a part of it."""

_FRAME_SECONDS = 0.02
_ACTIVE_DB = 30.0  # below the loudest frame; what is fainter no one hears over a background
_SILENT_POWER = 1e-10
_PEAK = 0.9
_BLOCK = 1 << 20  # samples mixed at once
_NOISE_SECONDS = 60  # of made-up background
_SEAM_SECONDS = 0.1
_MOST_WAV_BYTES = 4_000_000_000  # a wav tells its size in 32 bits


@dataclass(frozen=True)
class Sound:
    """What is heard in a clip."""

    clip: Clip
    sample_rate: int  # Hz, of the scenes that it is for
    n_samples: int  # of the whole clip
    active: BoolArray  # (n_frames,): which of its frames of 20 ms are loud enough to be heard
    level: float  # RMS of the active frames
    peak: float


@dataclass(frozen=True)
class _Placed:
    """A stretch of a sound in a scene."""

    sound: Sound
    begin: int  # sample of the scene
    parts: tuple[tuple[int, int], ...]  # samples of the clip, from and to: what is heard between long pauses
    gain: float

    @property
    def end(self) -> int:
        return self.begin + self.parts[-1][1] - self.parts[0][0]


def active_frames(waveform: Waveform, sample_rate: int) -> BoolArray:
    """Where something is heard: whether the power of each frame is at most 30 dB below that of the loudest one.

    Parameters
    ----------
    waveform : float32 array of shape (n_samples,)
    sample_rate : int
        Hz.

    Returns
    -------
    bool array of shape (n_frames,)
        For each 20 ms, of which the last may be cut short. None of digital silence is active.
    """
    powers = _frame_powers(waveform, sample_rate)
    return np.asarray(powers >= max(powers.max(initial=0.0) * 10 ** (-_ACTIVE_DB / 10), _SILENT_POWER))


def _frame_powers(waveform: Waveform, sample_rate: int) -> FloatArray:
    n_frame = _frame_samples(sample_rate)
    padding = -len(waveform) % n_frame
    squares = np.pad(waveform.astype(np.float64) ** 2, (0, padding)).reshape(-1, n_frame)
    return np.asarray(squares.mean(axis=1))


def _frame_samples(sample_rate: int) -> int:
    return max(1, round(_FRAME_SECONDS * sample_rate))


def stretches(active: BoolArray) -> list[tuple[int, int]]:
    """The stretches of active frames, from and to: pauses of up to a second are parts of them, longer ones are not.

    Examples
    --------
    >>> stretches(np.array([0, 1, 0, 1, 1, *[0] * 51, 1], bool))
    [(1, 5), (56, 57)]
    """
    frames = np.flatnonzero(active)
    breaks = np.flatnonzero((np.diff(frames) - 1) * _FRAME_SECONDS > PAUSE_SECONDS) + 1
    return [(int(part[0]), int(part[-1]) + 1) for part in np.split(frames, breaks) if len(part)]


def find_sounds(
    manifest: Manifest,
    *,
    sample_rate: int = 44_100,
    progress: Progress = silent,
    log: Log = no_log,
) -> tuple[Sound, ...]:
    """What is heard in each clip of a manifest that has a label.

    Clips without a label, or without any sound, are left out.

    Parameters
    ----------
    manifest : Manifest
        Its clips are read, and not kept in memory.
    sample_rate : int
        That of the scenes, in Hz.
    progress, say
        Told how many clips are read, and how many are left out.

    Raises
    ------
    AudioError
        If a clip can't be read.
    DataError
        If no clip is left.
    """
    sounds = []
    for n_done, clip in enumerate(manifest.clips):
        progress("sounds", n_done, len(manifest.clips))
        if clip.labels and (sound := _heard_in(clip, sample_rate)):
            sounds.append(sound)
    progress("sounds", len(manifest.clips), len(manifest.clips))
    if not sounds:
        raise DataError(f"{manifest.source}: no clip has a label and a sound, so nothing can be mixed")
    if n_left := len(manifest.clips) - len(sounds):
        log(f"{n_left} clips without a label or without any sound are left out")
    return tuple(sounds)


def _heard_in(clip: Clip, sample_rate: int) -> Sound | None:
    waveform = _read(clip, sample_rate)
    active = active_frames(waveform, sample_rate)
    if not active.any():
        return None
    level = float(np.sqrt(_frame_powers(waveform, sample_rate)[active].mean()))
    return Sound(clip, sample_rate, len(waveform), active, level, float(np.abs(waveform).max()))


def _read(clip: Clip, sample_rate: int) -> Waveform:
    return read_audio(
        clip.path, sample_rate=sample_rate, start_seconds=clip.start_seconds, end_seconds=clip.end_seconds
    )[0]


def make_scene(
    sounds: Sequence[Sound],
    rng: np.random.Generator,
    *,
    duration_seconds: float,
    config: SceneConfig | None = None,
    background: Waveform | None = None,
) -> Scene:
    """Lay sounds at random places over a background.

    Sounds come at random, each label as often as the others. One that would go beyond the end, or be the third where
    two are allowed at once, or come while its label is heard or within a second after, is left out. Of each sound the
    silence before and after it is cut off, by `active_frames`; an event is a stretch of what is left without a pause
    of more than a second. A sound begins and ends with 10 ms of fading, and is made fainter than the config wants where
    the loudest sounds together could else reach full scale. An event's `gain_db` tells the peak of the whole clip.

    Parameters
    ----------
    sounds : sequence of Sound
        From `find_sounds`.
    rng : np.random.Generator
        The same state gives the same scene.
    duration_seconds : float
        Length of the scene. All of it is kept in memory: `write_scenes` keeps no more than a part.
    config : SceneConfig, optional
    background : float32 array of shape (n_samples,), optional
        A recording at the sounds' sample rate, that is repeated from a random place on; by default brown noise. Only
        its shape counts: it is brought to the config's level.

    Raises
    ------
    ValueError
        If there are no sounds, they differ in sample rate, the scene has no length, or the background is silent.
    AudioError
        If a clip can't be read any more.
    """
    sample_rate = _rate_of(sounds)
    blocks, events = _mix(sounds, rng, round(duration_seconds * sample_rate), config or SceneConfig(), background)
    return Scene(np.concatenate(list(blocks)), sample_rate, events)


def write_scenes(
    folder: str | Path,
    sounds: Sequence[Sound],
    *,
    n_scenes: int,
    duration_seconds: float,
    seed: int = 0,
    config: SceneConfig | None = None,
    background: Waveform | None = None,
    progress: Progress = silent,
) -> list[Path]:
    """Write scenes (wav, 16 bit, mono) and truth.csv, which has a line for each event: file, start, end, label.

    The columns are those of what `spectag tag` writes; `file` is the scene's name in the folder. The first scenes are
    the same however many follow. Files of these names are replaced. Memory does not grow with the scenes' length.

    Returns
    -------
    list of Path
        The scenes; truth.csv lies beside them.

    Raises
    ------
    ValueError
        If `make_scene` raises one.
    AudioError
        If a clip can't be read any more.
    DataError
        If the folder can't be written, or a wav can't hold so long a scene.
    """
    config = config or SceneConfig()
    sample_rate = _rate_of(sounds)
    n_samples = round(duration_seconds * sample_rate)
    if 2 * n_samples > _MOST_WAV_BYTES:
        raise DataError(f"{folder}: a wav can't hold {duration_seconds:g} s at {sample_rate} Hz; make several scenes")
    folder = Path(folder)
    paths = [folder / f"scene_{number:04d}.wav" for number in range(1, n_scenes + 1)]
    rows: list[tuple[str, str, str, str]] = []
    try:
        for number, path in enumerate(paths):
            progress("scenes", number, n_scenes)
            blocks, events = _mix(sounds, np.random.default_rng((seed, number)), n_samples, config, background)
            _write_wav(path, blocks, sample_rate)
            rows += [(path.name, f"{at.start_seconds:.3f}", f"{at.end_seconds:.3f}", at.label) for at in events]
        _write_truth(folder / "truth.csv", rows)
    except (OSError, soundfile.LibsndfileError) as error:
        raise DataError(f"{folder}: can't write the scenes: {error}") from error
    progress("scenes", n_scenes, n_scenes)
    return paths


def _write_wav(path: Path, blocks: Iterator[Waveform], sample_rate: int) -> None:
    with (
        unfinished_file(path) as unfinished,
        soundfile.SoundFile(unfinished, "w", samplerate=sample_rate, channels=1, format="WAV") as file,
    ):
        for block in blocks:
            file.write(block)


def _write_truth(path: Path, rows: Sequence[tuple[str, str, str, str]]) -> None:
    with unfinished_file(path) as unfinished, unfinished.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["file", "start", "end", "label"])
        writer.writerows(rows)


def _rate_of(sounds: Sequence[Sound]) -> int:
    rates = sorted({sound.sample_rate for sound in sounds})
    if len(rates) != 1:
        raise ValueError(f"need sounds of one sample rate, got {len(sounds)} sounds with rates {rates}")
    return rates[0]


def _mix(
    sounds: Sequence[Sound],
    rng: np.random.Generator,
    n_samples: int,
    config: SceneConfig,
    background: Waveform | None,
) -> tuple[Iterator[Waveform], tuple[SoundEvent, ...]]:
    """The waveform of a scene, block by block, and its events in the order in which they begin."""
    if n_samples < 1:
        raise ValueError(f"need a scene of some length, got {n_samples} samples")
    sample_rate = _rate_of(sounds)
    if background is None:
        background = _brown_noise(rng, sample_rate)
    bed = _bed(background, sample_rate, config.background_db, rng)
    placed = _place(sounds, rng, n_samples, config)
    events = [event for one in placed for event in _events_of(one)]
    events.sort(key=lambda event: (event.start_seconds, event.label))
    return _blocks(bed, placed, n_samples), tuple(events)


def _brown_noise(rng: np.random.Generator, sample_rate: int) -> Waveform:
    """A minute of noise whose power falls by 6 dB an octave from 20 Hz up.

    It is like no sound in particular; white and pink noise are rain to a tagger that knows rain.
    """
    n_samples = round(_NOISE_SECONDS * sample_rate)
    frequencies = np.fft.rfftfreq(n_samples, 1 / sample_rate)
    amplitudes = (frequencies >= 20) / np.maximum(frequencies, 20)
    phases = rng.uniform(0, 2 * np.pi, len(frequencies))
    return np.fft.irfft(amplitudes * np.exp(1j * phases), n_samples).astype(np.float32)


def _bed(background: Waveform, sample_rate: int, level_db: float, rng: np.random.Generator) -> Waveform:
    """The background at its level and from a random place on, its end joined to its beginning."""
    if background.ndim != 1 or not background.any():
        raise ValueError(f"need a background of shape (n_samples,) that is not silent, got {background.shape}")
    rms = np.sqrt(np.mean(np.square(background, dtype=np.float64)))
    bed = (10 ** (level_db / 20) / rms * background).astype(np.float32)
    n_seam = min(round(_SEAM_SECONDS * sample_rate), len(bed) // 2)
    rise = np.linspace(0, 1, n_seam, endpoint=False, dtype=np.float32)
    bed[:n_seam] = np.sqrt(rise) * bed[:n_seam] + np.sqrt(1 - rise) * bed[len(bed) - n_seam :]  # powers add up
    bed = bed[: len(bed) - n_seam]
    return np.roll(bed, int(rng.integers(len(bed))))


def _place(
    sounds: Sequence[Sound], rng: np.random.Generator, n_samples: int, config: SceneConfig
) -> tuple[_Placed, ...]:
    """Draw which sounds come when, in the order in which they begin."""
    of_label: dict[str, list[Sound]] = defaultdict(list)
    for sound in sounds:
        for label in sound.clip.labels:
            of_label[label].append(sound)
    labels = sorted(of_label)
    sample_rate = sounds[0].sample_rate
    pause = round(PAUSE_SECONDS * sample_rate)
    free_at: dict[str, int] = {}  # sample from which on a label may be heard again
    placed: list[_Placed] = []
    on: list[_Placed] = []
    seconds = 0.0
    while (seconds := seconds + rng.exponential(60 / config.sounds_per_minute)) * sample_rate < n_samples:
        candidates = of_label[labels[rng.integers(len(labels))]]
        one = _draw(candidates[rng.integers(len(candidates))], round(seconds * sample_rate), rng, config)
        if one is None or one.end > n_samples:
            continue
        on = [other for other in on if other.end > one.begin]
        if len(on) < config.max_at_once and all(free_at.get(each, 0) <= one.begin for each in one.sound.clip.labels):
            placed.append(one)
            on.append(one)
            free_at.update(dict.fromkeys(one.sound.clip.labels, one.end + pause))
    return tuple(placed)


def _draw(sound: Sound, begin: int, rng: np.random.Generator, config: SceneConfig) -> _Placed | None:
    """A sound, or a random stretch of it; None where the stretch is a pause."""
    first, last = stretches(sound.active)[0][0], stretches(sound.active)[-1][1]
    n_frames, n_frame = last - first, _frame_samples(sound.sample_rate)
    if config.shortest_seconds is not None:
        n_frames = int(rng.integers(min(n_frames, round(config.shortest_seconds / _FRAME_SECONDS)), n_frames + 1))
    first = int(rng.integers(first, last - n_frames + 1))
    heard = stretches(sound.active[first : first + n_frames])
    snr_db = rng.uniform(config.snr_low_db, config.snr_high_db)
    gain = 10 ** ((config.background_db + snr_db) / 20) / sound.level
    loudest = _PEAK / config.max_at_once  # so that all at once do not reach full scale
    parts = tuple(((first + start) * n_frame, min((first + end) * n_frame, sound.n_samples)) for start, end in heard)
    return _Placed(sound, begin, parts, min(gain, loudest / sound.peak)) if parts else None


def _events_of(placed: _Placed) -> Iterator[SoundEvent]:
    sound = placed.sound
    gain_db = float(20 * np.log10(placed.gain * sound.peak))
    offset = placed.begin - placed.parts[0][0]
    for start, end in placed.parts:
        for label in sound.clip.labels:
            yield SoundEvent(label, (offset + start) / sound.sample_rate, (offset + end) / sound.sample_rate, gain_db)


def _blocks(bed: Waveform, placed: Sequence[_Placed], n_samples: int) -> Iterator[Waveform]:
    waiting = list(placed[::-1])
    playing: list[tuple[int, Waveform]] = []  # the sample of the scene with which it begins
    for start in range(0, n_samples, _BLOCK):
        end = min(start + _BLOCK, n_samples)
        block = np.take(bed, np.arange(start, end), mode="wrap")
        while waiting and waiting[-1].begin < end:
            one = waiting.pop()
            playing.append((one.begin, _waveform_of(one)))
        for begin, waveform in playing:
            first, last = max(begin, start), min(begin + len(waveform), end)
            block[first - start : last - start] += waveform[first - begin : last - begin]
        playing = [(begin, waveform) for begin, waveform in playing if begin + len(waveform) > end]
        yield np.clip(block, -1, 1)


def _waveform_of(placed: _Placed) -> Waveform:
    sound = placed.sound
    waveform = _read(sound.clip, sound.sample_rate)[placed.parts[0][0] : placed.parts[-1][1]]
    return np.float32(placed.gain) * faded(waveform, sound.sample_rate)
