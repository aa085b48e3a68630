"""Segments from frames of 40 ms, from one pass of the network, compared with windows of 1.5 s every 0.5 s.

    python -m benchmarks.frames esc10.csv [--group-column source] [--mixed] [--save FOLDER]

The manifest must have folds. For each fold, a model and a linear head of frames are trained on the other folds, and
recordings are mixed from the clips of this fold (`spectag soundscapes`). The head of frames is a logistic regression of
the mean and standard deviation over frequency of every stage of the network. It is trained on recordings that are mixed
from the training clips, whose onsets and offsets are known; they have other levels and backgrounds. Settings are tuned
on the first two folds; all printed scores are from the others, with 95 % intervals by a bootstrap over recordings.

--mixed: the training clips are mixtures of one to three clips with different labels, as in benchmarks/competition.py,
so that nothing says which of the labels is heard when. --save keeps the probabilities of each fold, to score again.
"""

import argparse
import itertools
import pickle
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.competition import mix_sounds
from benchmarks.frame_network import FRAME_SECONDS, FrameNetwork, open_frame_network
from numpy.typing import NDArray
from scipy.ndimage import grey_closing
from scipy.special import expit

from spectag.audio.files import read_audio, write_audio
from spectag.audio.synthesis import Scene
from spectag.config.base import SegmentConfig
from spectag.config.scenes import SceneConfig
from spectag.config.tagging import SEGMENT_WINDOW
from spectag.data.clips import Clip, Manifest
from spectag.data.manifest import read_manifest
from spectag.data.soundscapes import Sound, find_sounds, make_soundscape
from spectag.models.tagger import Tagger
from spectag.models.timeline import Timeline, find_segments
from spectag.scoring.event_scores import DetectionCounts, SoundEvents, count_events, count_segments
from spectag.training.heads.logistic import LinearHead, fit_heads
from spectag.training.pipeline import train

N_TUNING, N_SEEDS, N_SCENES, SCENE_SECONDS = 2, 2, 2, 240.0
KINDS = {
    "usual": SceneConfig(),
    "hard": SceneConfig(sounds_per_minute=15, shortest_seconds=0.4, snr_low_db=5, snr_high_db=25),
}
N_TRAINING_SCENES, TRAINING_SECONDS = 8, 150.0
TRAINED = 2  # one of so many frames is trained on
WEIGHT_DECAYS = (1e-3, 3e-4, 1e-4, 3e-5)
Settings = tuple[float, float, int, int]
"""Of frames: weight decay, threshold, and how many frames are closed (1 s: a shorter pause is none) and smoothed."""
THRESHOLDS, CLOSED, SMOOTHED = (0.3, 0.4, 0.5, 0.6, 0.7), (1, 11, 25), (1, 11, 21, 31)
FRAMES = SegmentConfig(hysteresis=0.5)
COLUMNS = ("event, 0.2 s", "event, 1 s", "onset, 1 s", "segment, 1 s")
TUNED_COLUMNS = [0, 1, 3]
MAX_DIFFERENCE = 1e-3  # between probabilities with the head before and after the interpolation


@dataclass(frozen=True)
class Recording:
    """A mixed recording: its events, and the probabilities of windows and, by weight decay, of frames."""

    events: list[tuple[str, float, float]]
    windows: Timeline
    frames: dict[float, NDArray[np.float32]]


@dataclass(frozen=True)
class Fold:
    """The recordings of a fold by kind and seed, and the seconds that they took."""

    labels: tuple[str, ...]
    thresholds: NDArray[np.float32]
    recordings: dict[tuple[str, int], list[Recording]]
    seconds: dict[str, float]


def main() -> None:
    arguments = _parser().parse_args()
    manifest = read_manifest(arguments.manifest, group_column=arguments.group_column)
    names = sorted({fold for fold in manifest.folds if fold is not None})
    folds = [_kept(arguments.save, number, manifest, name, arguments.mixed) for number, name in enumerate(names)]
    best = tuned(folds[:N_TUNING])
    print("weight decay {:g}, threshold {:g}, {} frames closed, median of {} frames".format(*best))
    print_seconds(folds)
    print(f"\n| sounds | segments from | {' | '.join(COLUMNS)} |\n|{'---|' * 6}")
    for kind in KINDS:
        print_rows(folds[N_TUNING:], kind, best)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--group-column", default=None)
    parser.add_argument("--mixed", action="store_true", help="train on mixtures of clips")
    parser.add_argument("--save", type=Path, default=None, help="folder of the probabilities of each fold")
    return parser


def _kept(folder: Path | None, number: int, manifest: Manifest, name: str, mixed: bool) -> Fold:
    path = folder and folder / f"{name}{'-mixed' if mixed else ''}.pickle"
    if path is not None and path.exists():
        fold: Fold = pickle.loads(path.read_bytes())
        return fold
    fold = tagged_fold(manifest, name, number, mixed)
    print(f"fold {name}: {', '.join(f'{what} {seconds:.1f} s' for what, seconds in fold.seconds.items())}", flush=True)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pickle.dumps(fold))
    return fold


def tagged_fold(manifest: Manifest, name: str, number: int, mixed: bool) -> Fold:
    """Train on the other folds, and tag recordings that are mixed from the clips of this one."""
    inside, outside = (
        replace(manifest, clips=tuple(clip for clip in manifest.clips if (clip.fold == name) is is_inside))
        for is_inside in (True, False)
    )
    with tempfile.TemporaryDirectory() as work:
        if mixed:
            outside = mixed_clips(outside, Path(work, "clips"), np.random.default_rng(number))
        train(outside, Path(work, "model"))
        tagger = Tagger(Path(work, "model")).open()
        network = open_frame_network(tagger.info.backbone.name, tagger.front_end)
        own, others = (find_sounds(part, sample_rate=tagger.sample_rate) for part in (inside, outside))
        seconds = dict.fromkeys(("windows", "frames", "training of frames"), 0.0)
        start = time.process_time()
        heads = train_frames(network, others, tagger.labels.names, number)
        seconds["training of frames"] = time.process_time() - start
        recordings = {
            (kind, seed): [
                _tagged(_scene(own, KINDS[kind], SCENE_SECONDS, (number, seed, scene)), tagger, network, heads, seconds)
                for scene in range(N_SCENES)
            ]
            for kind in KINDS
            for seed in range(N_SEEDS)
        }
        return Fold(tagger.labels.names, tagger.thresholds_for(SEGMENT_WINDOW), recordings, seconds)


def mixed_clips(manifest: Manifest, folder: Path, rng: np.random.Generator) -> Manifest:
    """As many mixtures of one to three clips with different labels as the manifest has clips."""
    of_label = {label: [clip for clip in manifest.clips if label in clip.labels] for label in manifest.labels.names}
    folder.mkdir()
    clips = []
    for number in range(len(manifest.clips)):
        labels = rng.choice(sorted(of_label), rng.choice([1, 2, 3], p=[0.6, 0.3, 0.1]), replace=False).tolist()
        chosen = [of_label[label][rng.integers(len(of_label[label]))] for label in labels]
        sounds = [read_audio(clip.path, sample_rate=32_000)[0] for clip in chosen]
        path = folder / f"{number}.wav"
        write_audio(path, mix_sounds(sounds, rng)[0], 32_000)
        clips.append(Clip(path, path.name, tuple(sorted(labels))))
    return replace(manifest, clips=tuple(clips))


def _scene(
    sounds: Sequence[Sound], config: SceneConfig, seconds: float, seed: tuple[int, ...], colour: float | None = None
) -> Scene:
    """A mixed recording; `colour`: over noise whose power falls with this power of the frequency, else brown noise."""
    rng = np.random.default_rng(seed)
    background = None
    if colour is not None:
        n_samples = 30 * sounds[0].sample_rate
        frequencies = np.fft.rfftfreq(n_samples, 1 / sounds[0].sample_rate)
        amplitudes = (frequencies >= 20) * np.maximum(frequencies, 20) ** (-colour / 2)
        phases = rng.uniform(0, 2 * np.pi, len(frequencies))
        background = np.fft.irfft(amplitudes * np.exp(1j * phases), n_samples).astype(np.float32)
    return make_soundscape(sounds, rng, duration_seconds=seconds, config=config, background=background)


def train_frames(
    network: FrameNetwork, sounds: Sequence[Sound], labels: Sequence[str], number: int
) -> dict[float, LinearHead]:
    """A head of frames for each weight decay, trained on recordings that are mixed from the sounds."""
    features, targets = [], []
    for scene_number in range(N_TRAINING_SCENES):
        config = SceneConfig(
            sounds_per_minute=24, shortest_seconds=(2.0, 0.5)[scene_number % 2], snr_low_db=5, snr_high_db=35
        )
        colour = (None, 0.5, 1.0, 1.5)[scene_number // 2 % 4]
        scene = _scene(sounds, config, TRAINING_SECONDS, (number, 99, scene_number), colour)
        of_frames = network.features(network.front_end.input_of_waveform(scene.waveform))
        features.append(of_frames[::TRAINED])
        targets.append(_frame_targets(scene, labels, len(of_frames))[::TRAINED])
    heads = fit_heads(np.concatenate(features), np.concatenate(targets), network.group_sizes, WEIGHT_DECAYS)
    return dict(zip(WEIGHT_DECAYS, heads, strict=True))


def _frame_targets(scene: Scene, labels: Sequence[str], n_frames: int) -> NDArray[np.bool_]:
    """Which labels are on in which frames, (n_frames, n_labels)."""
    times, targets = np.arange(n_frames) * FRAME_SECONDS, np.zeros((n_frames, len(labels)), bool)
    for event in scene.events:
        targets[(times >= event.start_seconds) & (times < event.end_seconds), labels.index(event.label)] = True
    return targets


def _tagged(
    scene: Scene,
    tagger: Tagger,
    network: FrameNetwork,
    heads: dict[float, LinearHead],
    seconds: dict[str, float],
) -> Recording:
    start = time.process_time()
    tags = list(tagger.tag_windows(scene.waveform, SEGMENT_WINDOW, sample_rate=scene.sample_rate))
    middle = time.process_time()
    log_mel = network.front_end.input_of_waveform(scene.waveform)
    logits = network.logits(log_mel, heads[WEIGHT_DECAYS[0]])
    seconds["frames"] += time.process_time() - middle
    seconds["windows"] += middle - start
    features = network.features(log_mel)
    by_decay = {decay: np.asarray(expit(head.logits(features)), np.float32) for decay, head in heads.items()}
    assert np.abs(by_decay[WEIGHT_DECAYS[0]] - expit(logits)).max() < MAX_DIFFERENCE
    timeline = Timeline(
        np.array([tag.start_seconds for tag in tags], np.float64),
        np.array([tag.end_seconds for tag in tags], np.float64),
        np.array([tag.probabilities for tag in tags]),
    )
    return Recording([(e.label, e.start_seconds, e.end_seconds) for e in scene.events], timeline, by_decay)


def counts(recordings: Sequence[tuple[Fold, Recording]], settings: Settings | None) -> list[DetectionCounts]:
    """The counts of each of COLUMNS, by recording; with `settings` None, those of windows."""
    labels = recordings[0][0].labels
    truth = _events([recording.events for _, recording in recordings], labels)
    detected = _events([_detected(fold, recording, settings) for fold, recording in recordings], labels)
    shape = len(recordings), len(labels)
    collars: list[dict[str, Any]] = [
        {"collar_seconds": 0.2},
        {"collar_seconds": 1.0},
        {"collar_seconds": 1.0, "offsets": False},
    ]
    by_event = [count_events(truth, detected, shape, offset_fraction=0.2, **collar) for collar in collars]
    return [*by_event, count_segments(truth, detected, shape)]


def _detected(fold: Fold, recording: Recording, settings: Settings | None) -> list[tuple[str, float, float]]:
    timeline, thresholds, config = recording.windows, fold.thresholds, SegmentConfig()
    if settings is not None:
        decay, threshold, n_closed, n_smoothed = settings
        closed = grey_closing(recording.frames[decay], (n_closed, 1), mode="nearest")
        middles = FRAME_SECONDS * np.arange(len(closed), dtype=np.float64)
        starts, ends = (middles - FRAME_SECONDS / 2).clip(0), middles + FRAME_SECONDS / 2
        timeline = Timeline(starts, ends, closed)
        thresholds = np.full(len(fold.labels), threshold, np.float32)
        config = FRAMES.model_copy(update={"smooth_windows": n_smoothed})
    segments = find_segments(timeline, thresholds, config)
    return [(fold.labels[found.label_index], found.start_seconds, found.end_seconds) for found in segments]


def _events(of_recordings: Sequence[Sequence[tuple[str, float, float]]], labels: Sequence[str]) -> SoundEvents:
    rows = [
        (number, start, end, labels.index(label))
        for number, events in enumerate(of_recordings)
        for label, start, end in events
    ]
    recordings, starts, ends, label_rows = np.array(rows, np.float64).reshape(-1, 4).T
    return SoundEvents(recordings.astype(int), starts, ends, label_rows.astype(int))


def _of_kind(folds: Sequence[Fold], kind: str) -> list[tuple[Fold, Recording]]:
    return [
        (fold, recording)
        for fold in folds
        for (name, _), recordings in fold.recordings.items()
        if name == kind
        for recording in recordings
    ]


def _f1(count: DetectionCounts, weights: NDArray[np.float64] | None = None) -> float:
    return float(count.of_recordings(weights).overall().f1[0])


def tuned(folds: Sequence[Fold]) -> Settings:
    """The settings with the best mean F1 over both kinds of sounds."""

    def mean_f1(settings: Settings) -> float:
        of_kinds = [counts(_of_kind(folds, kind), settings) for kind in KINDS]
        return float(np.mean([_f1(of_kind[column]) for of_kind in of_kinds for column in TUNED_COLUMNS]))

    return max(itertools.product(WEIGHT_DECAYS, THRESHOLDS, CLOSED, SMOOTHED), key=mean_f1)


def print_seconds(folds: Sequence[Fold]) -> None:
    n_seconds = len(folds) * len(KINDS) * N_SEEDS * N_SCENES * SCENE_SECONDS
    for what in ("windows", "frames"):
        print(f"{what}: {3600 * sum(fold.seconds[what] for fold in folds) / n_seconds:.1f} s per hour of sound")


def print_rows(folds: Sequence[Fold], kind: str, settings: Settings) -> None:
    recordings = _of_kind(folds, kind)
    weights = np.random.default_rng(0).multinomial(len(recordings), np.full(len(recordings), 1 / len(recordings)), 1000)
    rows = {"windows": counts(recordings, None), "frames": counts(recordings, settings)}
    samples = {name: np.array([[_f1(count, w) for count in row] for w in weights]) for name, row in rows.items()}
    for name, row in rows.items():
        cells = [f"{_f1(c)} {_interval(s)}" for c, s in zip(row, samples[name].T, strict=True)]
        print(f"| {kind} | {name} | {' | '.join(_rounded(cell) for cell in cells)} |")
    differences = np.subtract(samples["frames"], samples["windows"])
    gains = [_f1(of_frames) - _f1(of_windows) for of_windows, of_frames in zip(*rows.values(), strict=True)]
    cells = [f"{gain} {_interval(sample)}" for gain, sample in zip(gains, differences.T, strict=True)]
    print(f"| {kind} | difference | {' | '.join(_rounded(cell) for cell in cells)} |")


def _interval(samples: Any) -> str:
    low, high = np.quantile(samples, [0.025, 0.975])
    return f"({low:.2f} to {high:.2f})"


def _rounded(cell: str) -> str:
    value, rest = cell.split(" ", 1)
    return f"{float(value):.3f} {rest}"


if __name__ == "__main__":
    main()
