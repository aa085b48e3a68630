"""Synthetic soundscapes: recordings mixed from clips, with known onsets and offsets of all events."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile

from spectag.array_types import BoolArray, FloatArray, Waveform
from spectag.audio.files import read_audio
from spectag.audio.synthesis import Scene, SoundEvent, fade_ends
from spectag.config.base import Channel
from spectag.config.scenes import SceneConfig
from spectag.data.clips import Clip, Manifest
from spectag.errors import AudioError, DataError
from spectag.system.atomic_files import unfinished_file
from spectag.system.output import csv_writer, open_output
from spectag.system.progress import Log, Progress, no_log, silent
from spectag.system.worker_pool import n_usable_cores

PAUSE_SECONDS = 1.0
"""A longer pause separates two events; a shorter pause is part of an event."""

_FRAME_SECONDS = 0.02
_ACTIVE_DB = 30.0  # below the loudest frame; quieter frames are inaudible over a background
_SILENT_POWER = 1e-10
_PEAK = 0.9
_BLOCK = 1 << 20  # number of samples that are mixed at once
_NOISE_SECONDS = 60  # length of the synthetic background
_CROSSFADE_SECONDS = 0.1
_MAX_WAV_BYTES = 4_000_000_000  # a WAV file stores its size in 32 bits


@dataclass(frozen=True)
class Sound:
    """A clip, and when it is audible."""

    clip: Clip
    sample_rate: int
    """Sample rate of the soundscapes in Hz."""
    n_samples: int
    """Length of the whole clip."""
    active: BoolArray
    """(n_frames,): which frames of 20 ms are audible."""
    level: float
    """RMS of the active frames."""
    peak: float
    channel: Channel = "mix"
    """How several channels become one."""
    waveform: Waveform | None = field(default=None, repr=False, compare=False)
    """The whole clip; None: it is read when it is needed."""

    @property
    def audible_seconds(self) -> list[tuple[float, float]]:
        """Start and end of each interval in which it is audible; a pause of up to 1 s is part of an interval."""
        return [(first * _FRAME_SECONDS, end * _FRAME_SECONDS) for first, end in active_intervals(self.active)]


@dataclass(frozen=True)
class _PlacedSound:
    """A sound, or an excerpt of it, at a position in a soundscape."""

    sound: Sound
    begin: int
    """First sample in the soundscape."""
    intervals: tuple[tuple[int, int], ...]
    """Active intervals, as first and last + 1 sample of the clip. They are separated by long pauses."""
    gain: float

    @property
    def end(self) -> int:
        return self.begin + self.intervals[-1][1] - self.intervals[0][0]


def active_frames(waveform: Waveform, sample_rate: int) -> BoolArray:
    """Which frames are audible: their power is at most 30 dB below that of the loudest frame.

    Parameters
    ----------
    waveform : float32 array of shape (n_samples,)
    sample_rate : int
        Hz.

    Returns
    -------
    bool array of shape (n_frames,)
        One value per 20 ms; the last frame may be shorter. In digital silence no frame is active.
    """
    powers = _frame_powers(waveform, sample_rate)
    return np.asarray(powers >= max(powers.max(initial=0.0) * 10 ** (-_ACTIVE_DB / 10), _SILENT_POWER))


def _frame_powers(waveform: Waveform, sample_rate: int) -> FloatArray:
    n_frame = _frame_samples(sample_rate)
    squares = np.pad(waveform.astype(np.float64) ** 2, (0, -len(waveform) % n_frame))
    return np.asarray(squares.reshape(-1, n_frame).mean(axis=1))


def _frame_samples(sample_rate: int) -> int:
    return max(1, round(_FRAME_SECONDS * sample_rate))


def active_intervals(active: BoolArray) -> list[tuple[int, int]]:
    """Intervals of active frames, as (first, last + 1). Pauses of up to 1 s are part of an interval.

    Examples
    --------
    >>> active_intervals(np.array([0, 1, 0, 1, 1, *[0] * 51, 1], bool))
    [(1, 5), (56, 57)]
    """
    frames = np.flatnonzero(active)
    breaks = np.flatnonzero((np.diff(frames) - 1) * _FRAME_SECONDS > PAUSE_SECONDS) + 1
    return [(int(part[0]), int(part[-1]) + 1) for part in np.split(frames, breaks) if len(part)]


def find_sounds(
    manifest: Manifest,
    *,
    sample_rate: int = 44_100,
    channel: Channel = "mix",
    keep_waveforms: bool = False,
    progress: Progress = silent,
    log: Log = no_log,
) -> tuple[Sound, ...]:
    """Read the clips of a manifest, and find out when they are audible.

    Clips without a label and silent clips are left out.

    Parameters
    ----------
    manifest : Manifest
    sample_rate : int
        Sample rate of the soundscapes, in Hz.
    channel : "mix", "loudest" or int
        How several channels become one, as for `read_audio`.
    keep_waveforms : bool
        Keep the clips in memory. Otherwise they are read again whenever they are mixed.
    progress, log
        Called with the number of clips that have been read, and with the number of clips that are left out.

    Raises
    ------
    AudioError
        If a clip can't be read.
    DataError
        If no clip has both a label and an audible sound.
    """
    sounds, clips = [], [clip for clip in manifest.clips if clip.labels]
    with ThreadPoolExecutor(n_usable_cores()) as pool:
        measured = pool.map(lambda clip: _measure(clip, sample_rate, channel, keep_waveforms), clips)
        for n_done, sound in enumerate(measured):
            progress("sounds", n_done, len(manifest.clips))
            if sound is not None:
                sounds.append(sound)
    progress("sounds", len(manifest.clips), len(manifest.clips))
    if not sounds:
        raise DataError(f"{manifest.source}: no clip has a label and is audible, so there is nothing to mix")
    if n_left_out := len(manifest.clips) - len(sounds):
        log(f"{n_left_out} clips without a label or without sound are left out")
    return tuple(sounds)


def _measure(clip: Clip, sample_rate: int, channel: Channel, keep_waveform: bool) -> Sound | None:
    """None: the clip is silent."""
    waveform = _read(clip, sample_rate, channel)
    active = active_frames(waveform, sample_rate)
    if not active.any():
        return None
    level = float(np.sqrt(_frame_powers(waveform, sample_rate)[active].mean()))
    peak, kept = float(np.abs(waveform).max()), waveform if keep_waveform else None
    return Sound(clip, sample_rate, len(waveform), active, level, peak, channel, kept)


def _read(clip: Clip, sample_rate: int, channel: Channel) -> Waveform:
    start, end = clip.start_seconds, clip.end_seconds
    return read_audio(clip.path, sample_rate=sample_rate, start_seconds=start, end_seconds=end, channel=channel)[0]


def make_soundscape(
    sounds: Sequence[Sound],
    rng: np.random.Generator,
    *,
    duration_seconds: float,
    config: SceneConfig | None = None,
    background: Waveform | None = None,
) -> Scene:
    """Mix sounds at random times over a background.

    Onsets are random, and each label is equally frequent. A sound is left out if it would end after the soundscape,
    exceed `max_at_once`, or begin less than a second after a sound with the same label. The silence at the beginning
    and the end of a clip is removed, see `active_frames`; pauses of more than a second separate events. Sounds are
    faded in and out over 10 ms. Their gain is reduced where the loudest sounds together could exceed full scale. An
    event's `gain_db` is the peak of the whole clip.

    Parameters
    ----------
    sounds : sequence of Sound
        From `find_sounds`.
    rng : np.random.Generator
        The same state gives the same soundscape.
    duration_seconds : float
        Length of the soundscape. All of it is kept in memory; `write_soundscapes` works block by block.
    config : SceneConfig, optional
    background : float32 array of shape (n_samples,), optional
        A recording at the sounds' sample rate. It is repeated from a random position on, and scaled to the level of
        the config. By default brown noise.

    Raises
    ------
    ValueError
        If there are no sounds, their sample rates differ, the soundscape has no length, or the background is silent.
    AudioError
        If a clip can no longer be read.
    """
    sample_rate = _sample_rate(sounds)
    blocks, events = _mix(sounds, rng, round(duration_seconds * sample_rate), config, background)
    return Scene(np.concatenate(list(blocks)), sample_rate, events)


def read_background(path: Path, *, sample_rate: int, channel: Channel = "mix") -> Waveform:
    """A recording to mix soundscapes over, at their sample rate.

    Raises
    ------
    AudioError
        If it can't be read, or is silent.
    """
    waveform = read_audio(path, sample_rate=sample_rate, channel=channel)[0]
    if not waveform.any():
        raise AudioError(f"{path}: the recording is silent; choose another --background, or none for quiet noise")
    return waveform


def write_soundscapes(
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
    """Write soundscapes (wav, 16 bit, mono) and truth.csv, with a line for each event: file, start, end, label.

    The columns are those of the CSV that `spectag tag` writes; `file` is the file name in the folder. The first
    soundscapes of a seed do not depend on `n_scenes`. Existing files with these names are replaced. Memory does not
    grow with the length of a soundscape.

    Returns
    -------
    list of Path
        The soundscapes. truth.csv is in the same folder.

    Raises
    ------
    ValueError
        As `make_soundscape`.
    AudioError
        If a clip can no longer be read.
    DataError
        If the folder can't be written, or a soundscape is too long for a WAV file.
    """
    sample_rate = _sample_rate(sounds)
    n_samples = round(duration_seconds * sample_rate)
    if 2 * n_samples > _MAX_WAV_BYTES:
        raise DataError(
            f"{folder}: {duration_seconds:g} s at {sample_rate} Hz are too long for a WAV file; make several recordings"
        )
    folder = Path(folder)
    paths = [folder / f"scene_{number:04d}.wav" for number in range(1, n_scenes + 1)]
    rows = [("file", "start", "end", "label")]
    try:
        for number, path in enumerate(paths):
            progress("soundscapes", number, n_scenes)
            blocks, events = _mix(sounds, np.random.default_rng((seed, number)), n_samples, config, background)
            _write_wav(path, blocks, sample_rate)
            rows += [
                (path.name, f"{event.start_seconds:.3f}", f"{event.end_seconds:.3f}", event.label) for event in events
            ]
        with open_output(folder / "truth.csv") as file:
            write_row = csv_writer(file)
            for row in rows:
                write_row(row)
    except (OSError, soundfile.LibsndfileError) as error:
        reason = "the disk is probably full" if str(error) == "System error." else str(error)  # libsndfile's words
        raise DataError(f"{folder}: the recordings can't be written: {reason}") from error
    progress("soundscapes", n_scenes, n_scenes)
    return paths


def _write_wav(path: Path, blocks: Iterator[Waveform], sample_rate: int) -> None:
    with (
        unfinished_file(path) as unfinished,
        soundfile.SoundFile(unfinished, "w", samplerate=sample_rate, channels=1, format="WAV") as file,
    ):
        for block in blocks:
            file.write(block)


def _sample_rate(sounds: Sequence[Sound]) -> int:
    rates = sorted({sound.sample_rate for sound in sounds})
    if len(rates) != 1:
        raise ValueError(f"need sounds of one sample rate, got {len(sounds)} sounds with rates {rates}")
    return rates[0]


def _mix(
    sounds: Sequence[Sound],
    rng: np.random.Generator,
    n_samples: int,
    config: SceneConfig | None,
    background: Waveform | None,
) -> tuple[Iterator[Waveform], tuple[SoundEvent, ...]]:
    """The waveform of a soundscape, block by block, and its events in the order of their onsets."""
    if n_samples < 1:
        raise ValueError(f"the length of a soundscape must be at least 1 sample, got {n_samples}")
    config, sample_rate = config or SceneConfig(), sounds[0].sample_rate
    if background is None:
        background = _brown_noise(rng, sample_rate)
    looped = _looped_background(background, sample_rate, config.background_db, rng)
    placed_sounds = _place_sounds(sounds, rng, n_samples, config)
    events = [event for placed in placed_sounds for event in _events(placed)]
    events.sort(key=lambda event: (event.start_seconds, event.label))
    return _blocks(looped, placed_sounds, n_samples), tuple(events)


def _brown_noise(rng: np.random.Generator, sample_rate: int) -> Waveform:
    """A minute of noise whose power falls by 6 dB per octave above 20 Hz.

    It resembles no sound in particular, whereas a model that knows rain would detect rain in white or pink noise.
    """
    n_samples = round(_NOISE_SECONDS * sample_rate)
    frequencies = np.fft.rfftfreq(n_samples, 1 / sample_rate)
    amplitudes = (frequencies >= 20) / np.maximum(frequencies, 20)
    phases = rng.uniform(0, 2 * np.pi, len(frequencies))
    return np.fft.irfft(amplitudes * np.exp(1j * phases), n_samples).astype(np.float32)


def _looped_background(background: Waveform, sample_rate: int, level_db: float, rng: np.random.Generator) -> Waveform:
    """The background at its level, rotated to a random position, with its end cross-faded into its beginning."""
    if background.ndim != 1 or not background.any():
        raise ValueError(f"need a background of shape (n_samples,) that is not silent, got {background.shape}")
    rms = np.sqrt(np.mean(np.square(background, dtype=np.float64)))
    looped = (10 ** (level_db / 20) / rms * background).astype(np.float32)
    n_fade = min(round(_CROSSFADE_SECONDS * sample_rate), len(looped) // 2)
    ramp = np.linspace(0, 1, n_fade, endpoint=False, dtype=np.float32)
    n_kept = len(looped) - n_fade
    looped[:n_fade] = np.sqrt(ramp) * looped[:n_fade] + np.sqrt(1 - ramp) * looped[n_kept:]  # equal power
    return np.roll(looped[:n_kept], int(rng.integers(n_kept)))


def _place_sounds(
    sounds: Sequence[Sound], rng: np.random.Generator, n_samples: int, config: SceneConfig
) -> tuple[_PlacedSound, ...]:
    """Draw sounds and their onsets, in the order of the onsets."""
    sounds_of_label: dict[str, list[Sound]] = defaultdict(list)
    for sound in sounds:
        for label in sound.clip.labels:
            sounds_of_label[label].append(sound)
    labels = sorted(sounds_of_label)
    sample_rate = sounds[0].sample_rate
    free_from: dict[str, int] = {}  # the first sample at which a label may occur again
    result: list[_PlacedSound] = []
    playing: list[_PlacedSound] = []
    seconds = 0.0
    while (seconds := seconds + rng.exponential(60 / config.sounds_per_minute)) * sample_rate < n_samples:
        candidates = sounds_of_label[labels[rng.integers(len(labels))]]
        placed = _draw(candidates[rng.integers(len(candidates))], round(seconds * sample_rate), rng, config)
        if placed is None or placed.end > n_samples:
            continue
        playing = [other for other in playing if other.end > placed.begin]
        is_free = all(free_from.get(label, 0) <= placed.begin for label in placed.sound.clip.labels)
        if is_free and len(playing) < config.max_at_once:
            result.append(placed)
            playing.append(placed)
            free_again = placed.end + round(PAUSE_SECONDS * sample_rate)
            free_from.update(dict.fromkeys(placed.sound.clip.labels, free_again))
    return tuple(result)


def _draw(sound: Sound, begin: int, rng: np.random.Generator, config: SceneConfig) -> _PlacedSound | None:
    """A sound, or a random excerpt of it; None if the excerpt is silent."""
    first, last = active_intervals(sound.active)[0][0], active_intervals(sound.active)[-1][1]
    n_frames, n_frame = last - first, _frame_samples(sound.sample_rate)
    if config.shortest_seconds is not None:
        n_frames = int(rng.integers(min(n_frames, round(config.shortest_seconds / _FRAME_SECONDS)), n_frames + 1))
    first = int(rng.integers(first, last - n_frames + 1))
    excerpt = active_intervals(sound.active[first : first + n_frames])
    snr_db = rng.uniform(config.snr_low_db, config.snr_high_db)
    gain = 10 ** ((config.background_db + snr_db) / 20) / sound.level
    max_peak = _PEAK / config.max_at_once  # so that overlapping sounds together stay below full scale
    intervals = tuple(
        ((first + start) * n_frame, min((first + end) * n_frame, sound.n_samples)) for start, end in excerpt
    )
    return _PlacedSound(sound, begin, intervals, min(gain, max_peak / sound.peak)) if intervals else None


def _events(placed: _PlacedSound) -> Iterator[SoundEvent]:
    sound = placed.sound
    gain_db = float(20 * np.log10(placed.gain * sound.peak))
    offset = placed.begin - placed.intervals[0][0]
    for start, end in placed.intervals:
        for label in sound.clip.labels:
            yield SoundEvent(label, (offset + start) / sound.sample_rate, (offset + end) / sound.sample_rate, gain_db)


def _blocks(background: Waveform, placed_sounds: Sequence[_PlacedSound], n_samples: int) -> Iterator[Waveform]:
    waiting = list(placed_sounds[::-1])
    playing: list[tuple[int, Waveform]] = []  # with the first sample in the soundscape
    for start in range(0, n_samples, _BLOCK):
        end = min(start + _BLOCK, n_samples)
        block = np.take(background, np.arange(start, end), mode="wrap")
        while waiting and waiting[-1].begin < end:
            placed = waiting.pop()
            playing.append((placed.begin, _waveform(placed)))
        for begin, waveform in playing:
            first, last = max(begin, start), min(begin + len(waveform), end)
            block[first - start : last - start] += waveform[first - begin : last - begin]
        playing = [(begin, waveform) for begin, waveform in playing if begin + len(waveform) > end]
        yield np.clip(block, -1, 1)


def _waveform(placed: _PlacedSound) -> Waveform:
    sound = placed.sound
    waveform = sound.waveform
    if waveform is None:
        waveform = _read(sound.clip, sound.sample_rate, sound.channel)
    excerpt = waveform[placed.intervals[0][0] : placed.intervals[-1][1]]
    return np.float32(placed.gain) * fade_ends(excerpt, sound.sample_rate)
