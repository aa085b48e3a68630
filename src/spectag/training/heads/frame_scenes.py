"""Recordings in which the times of all sounds are known, mixed from training clips, for a head of frames."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator

from spectag.array_types import Float32Array, FloatArray, IntArray, Waveform
from spectag.audio.files import read_audio
from spectag.audio.front_end import FrontEnd
from spectag.audio.synthesis import SoundEvent
from spectag.config.scenes import SceneConfig
from spectag.data.clips import Clip, Manifest
from spectag.data.soundscapes import Sound, find_sounds, make_soundscape
from spectag.system.progress import Progress
from spectag.system.worker_pool import n_usable_cores
from spectag.training.networks.frame_graph import FrameGraph

NOT_TRAINED, ALWAYS_TRAINED = -2, -1
"""Parts of clips that are not trained on, and of clips that are never held out."""
MAX_CLIP_SECONDS = 30.0
"""Longer clips are not used: a label may be on in a small part of them, and nobody knows in which."""

_CUT_SECONDS = 10.0  # longer clips are cut to this length
_SOUND_SECONDS, _SECONDS_PER_LABEL, _MAX_SOUND_SECONDS = 1_500.0, 30.0, 6_000.0  # of all clips that are mixed
_LEAST_CLIPS = 3  # of a label without other labels; with fewer, clips with other labels are used, too
_N_SCENES, _SCENE_SECONDS = 8, 1_200.0  # at least so many recordings, and their seconds together
_UNMIXED_SECONDS = 750.0  # of clips one after another, of all parts together
_LABELS_PER_SCENES, _MOST_TIMES = 20, 3  # with more labels, the recordings are longer, up to so many times
_COLOURS = (2.0, 0.5, 1.0, 1.5)  # of the noise: its power falls with this power of the frequency
_NOISE_SECONDS = 30
_LOWEST_FREQUENCY = 20  # Hz, of the noise


@dataclass(frozen=True)
class Truth:
    """What is known while a clip that was chosen for a label is audible: which labels are on, and which are unknown."""

    on: tuple[str, ...]
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True)
class ChosenClips:
    """Clips to mix, each with only the label for which it was chosen; their parts; and the truth of each such label."""

    clips: tuple[Clip, ...]
    parts: tuple[int, ...]
    truths: Mapping[str, Truth]


@dataclass(frozen=True, eq=False)
class FrameScene:
    """A mixed recording: the part of its clips, features (n, n_features), targets (n, n_labels) and its events.

    Targets are 1, 0, or NaN if unknown. The labels of the events are those for which the clips were chosen.
    """

    part: int
    features: Float32Array
    targets: FloatArray
    events: tuple[SoundEvent, ...]


def choose_clips(manifest: Manifest, parts: IntArray, seconds: Sequence[float], rng: Generator) -> ChosenClips | None:
    """Choose clips to mix, about equally many for each label; None if a label has none.

    Clips with a single label are preferred, because nobody knows which label of a clip is on when. Labels that a
    hierarchy derives from another one do not count. Where fewer than three such clips have a label, those with other
    labels are used, too: the label counts as on while the clip is audible, and the others are unknown.

    Parameters
    ----------
    manifest : Manifest
    parts : int array of shape (n_clips,)
        Clips of a part will be mixed only with each other.
    seconds : sequence of float
        The length of each clip.
    rng : Generator
    """
    rows = np.flatnonzero((parts > NOT_TRAINED) & (np.array(seconds) <= MAX_CLIP_SECONDS))
    rows = rng.permutation([row for row in rows if manifest.clips[row].labels])
    clean: dict[str, list[int]] = {}
    for row in rows.tolist():
        if (label := _single_label(manifest.clips[row], manifest.parents)) is not None:
            clean.setdefault(label, []).append(row)
    rows_of = {label: of_label for label, of_label in clean.items() if len(of_label) >= _LEAST_CLIPS}
    on = {label for primary in rows_of for label in (primary, *manifest.parents.get(primary, ()))}
    for label in sorted({label for clip in manifest.clips for label in clip.labels} - on):
        rows_of[label] = [row for row in rows.tolist() if label in manifest.clips[row].labels]
    if not rows_of or not all(rows_of.values()):
        return None
    total = float(np.clip(_SECONDS_PER_LABEL * len(rows_of), _SOUND_SECONDS, _MAX_SOUND_SECONDS))
    return _chosen(manifest, parts, seconds, rows_of, total / len(rows_of), rng)


def _single_label(clip: Clip, parents: Mapping[str, tuple[str, ...]]) -> str | None:
    """The label of a clip from which all its labels follow; None if there is none, or something is unknown."""
    above = {label for name in clip.labels for label in parents.get(name, ())}
    lowest = [label for label in clip.labels if label not in above]
    return lowest[0] if len(lowest) == 1 and not clip.unknown else None


def _chosen(
    manifest: Manifest,
    parts: IntArray,
    seconds: Sequence[float],
    rows_of: Mapping[str, Sequence[int]],
    seconds_per_label: float,
    rng: Generator,
) -> ChosenClips:
    clips, of_clips, truths = list[Clip](), list[int](), dict[str, Truth]()
    for label, rows in sorted(rows_of.items()):
        ranks = _ranks([int(parts[row]) for row in rows])
        in_turn = [rows[index] for index in np.argsort(ranks, kind="stable")]  # from each part in turn
        lengths = np.minimum([seconds[row] for row in in_turn], _CUT_SECONDS)
        used = [
            row for row, before in zip(in_turn, np.cumsum(lengths) - lengths, strict=True) if before < seconds_per_label
        ]
        on = (label, *manifest.parents.get(label, ()))
        others = {name for row in used for name in (*manifest.clips[row].labels, *manifest.clips[row].unknown)}
        truths[label] = Truth(on, tuple(sorted(others.difference(on).intersection(manifest.labels.names))))
        clips += [_cut(manifest.clips[row], seconds[row], label, rng) for row in used]
        of_clips += [int(parts[row]) for row in used]
    return ChosenClips(tuple(clips), tuple(of_clips), truths)


def _ranks(parts: Sequence[int]) -> list[int]:
    """How many earlier items are of the same part."""
    seen = dict.fromkeys(parts, -1)
    ranks = []
    for part in parts:
        seen[part] += 1
        ranks.append(seen[part])
    return ranks


def _cut(clip: Clip, seconds: float, label: str, rng: Generator) -> Clip:
    """A clip with only this label, or a random part of it if it is long."""
    if seconds <= _CUT_SECONDS:
        return replace(clip, labels=(label,))
    start = clip.start_seconds + float(rng.uniform(0, seconds - _CUT_SECONDS))
    return replace(clip, labels=(label,), start_seconds=start, end_seconds=start + _CUT_SECONDS)


def make_frame_scenes(
    manifest: Manifest,
    parts: IntArray,
    chosen: ChosenClips,
    graph: FrameGraph,
    front_end: FrontEnd,
    *,
    seed: int,
    progress: Progress,
) -> list[FrameScene]:
    """Mix recordings, at least eight and at least two of each part, and compute their features.

    Their sounds are 5 to 35 dB above noise of different colours, or in half of the recordings above a clip without
    labels if there is one. A further recording of each part consists of its clips as they are, one after another:
    without those, the head would take more of a sound without pauses for other sounds (docs/benchmarks.md).

    Raises
    ------
    AudioError
        If a clip can no longer be read.
    DataError
        If no clip is audible.
    """
    sounds_of = _sounds_by_part(manifest, chosen, front_end, progress)
    negatives = [row for row, clip in enumerate(manifest.clips) if clip.is_negative and parts[row] > NOT_TRAINED]
    n_each = max(2, -(-_N_SCENES // len(sounds_of)))
    longer = float(np.clip(len(chosen.truths) / _LABELS_PER_SCENES, 1, _MOST_TIMES))

    def mixed(number: int, part: int) -> tuple[Waveform, tuple[SoundEvent, ...]]:
        rng = np.random.default_rng((seed, number))
        backgrounds = [manifest.clips[row] for row in negatives if parts[row] == part]
        turn = number // len(sounds_of)
        background = None
        if backgrounds and turn % 2:
            background = _read(backgrounds[rng.integers(len(backgrounds))], front_end)
        if background is None:
            background = _noise(rng, _COLOURS[number % len(_COLOURS)], front_end.sample_rate)
        config = SceneConfig(sounds_per_minute=24, shortest_seconds=(2.0, 0.5)[turn % 2], snr_low_db=5, snr_high_db=35)
        seconds = longer * _SCENE_SECONDS / (n_each * len(sounds_of))
        scene = make_soundscape(sounds_of[part], rng, duration_seconds=seconds, config=config, background=background)
        return scene.waveform, scene.events

    def make(number: int, part: int) -> FrameScene:
        if number < n_each * len(sounds_of):
            waveform, events = mixed(number, part)
        else:
            seconds = longer * _UNMIXED_SECONDS / len(sounds_of)
            waveform, events = _one_after_another(sounds_of[part], seconds, np.random.default_rng((seed, number)))
        features = graph.features(front_end.input_of_waveform(waveform))
        targets = _targets(events, chosen.truths, manifest.labels.names, _times(len(features), graph, front_end))
        return FrameScene(part, features, targets, events)

    with ThreadPoolExecutor(n_usable_cores()) as pool:
        tasks = enumerate(sorted(sounds_of) * (n_each + 1))
        return list(pool.map(lambda task: make(*task), tasks))


def _sounds_by_part(
    manifest: Manifest, chosen: ChosenClips, front_end: FrontEnd, progress: Progress
) -> dict[int, list[Sound]]:
    part_of = {id(clip): part for clip, part in zip(chosen.clips, chosen.parts, strict=True)}
    by_part: dict[int, list[Sound]] = {}
    for sound in find_sounds(
        replace(manifest, clips=chosen.clips),
        sample_rate=front_end.sample_rate,
        channel=front_end.channel,
        keep_waveforms=True,
        progress=progress,
    ):
        by_part.setdefault(part_of[id(sound.clip)], []).append(sound)
    return by_part


def _one_after_another(
    sounds: Sequence[Sound], seconds: float, rng: Generator
) -> tuple[Waveform, tuple[SoundEvent, ...]]:
    """Clips as they are in random order, about so many seconds, and when they are audible."""
    waveforms, events, n_samples = list[Waveform](), list[SoundEvent](), 0
    for index in rng.permutation(len(sounds)).tolist():
        sound, start = sounds[index], n_samples / sounds[index].sample_rate
        if start >= seconds:
            break
        assert sound.waveform is not None  # find_sounds has kept it
        gain_db = 20 * float(np.log10(sound.peak))
        events += [
            SoundEvent(sound.clip.labels[0], start + begin, start + end, gain_db)
            for begin, end in sound.audible_seconds
        ]
        waveforms.append(sound.waveform)
        n_samples += len(sound.waveform)
    return np.concatenate(waveforms), tuple(events)


def _times(n_frames: int, graph: FrameGraph, front_end: FrontEnd) -> FloatArray:
    assert front_end.mel is not None
    return np.asarray(np.arange(n_frames) * graph.info.frame_seconds(front_end.mel), np.float64)


def _targets(
    events: Sequence[SoundEvent], truths: Mapping[str, Truth], labels: Sequence[str], times: FloatArray
) -> FloatArray:
    """Which labels are on at which times, (n_times, n_labels); NaN where nobody knows."""
    columns = {label: column for column, label in enumerate(labels)}
    targets = np.zeros((len(times), len(labels)))
    audible = [(event, (times >= event.start_seconds) & (times < event.end_seconds)) for event in events]
    for event, is_audible in audible:
        for name in truths[event.label].unknown:
            targets[is_audible, columns[name]] = np.nan
    for event, is_audible in audible:
        for name in truths[event.label].on:
            targets[is_audible, columns[name]] = 1.0
    return targets


def _read(clip: Clip, front_end: FrontEnd) -> Waveform | None:
    """The first half minute of a clip; None if it is silent."""
    end = clip.start_seconds + MAX_CLIP_SECONDS
    waveform = read_audio(
        clip.path,
        sample_rate=front_end.sample_rate,
        start_seconds=clip.start_seconds,
        end_seconds=end if clip.end_seconds is None else min(end, clip.end_seconds),
        channel=front_end.channel,
    )[0]
    return waveform if waveform.any() else None


def _noise(rng: Generator, colour: float, sample_rate: int) -> Waveform:
    """Noise whose power falls with this power of the frequency."""
    n_samples = _NOISE_SECONDS * sample_rate
    frequencies = np.fft.rfftfreq(n_samples, 1 / sample_rate)
    amplitudes = (frequencies >= _LOWEST_FREQUENCY) * np.maximum(frequencies, _LOWEST_FREQUENCY) ** (-colour / 2)
    phases = rng.uniform(0, 2 * np.pi, len(frequencies))
    return np.fft.irfft(amplitudes * np.exp(1j * phases), n_samples).astype(np.float32)
