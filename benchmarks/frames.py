"""Segments from frames of 80 ms, compared with windows of 1.5 s every 0.5 s, by a model that has both.

    python -m benchmarks.frames esc10.csv [--group-column source] [--mixed] [--per-label N] [--save FOLDER]

The manifest must have folds. For each fold, a model is trained on the other folds with the defaults of `spectag train`,
and recordings are mixed from the clips of this fold (`spectag soundscapes`). Their segments are those of
`Tagger.segments`. A second table is about sounds without pauses: all clips of a label, one after another, as they are.
All scores have 95 % intervals by a bootstrap over recordings. The first two folds are left out, because the settings of
frames were chosen on them (docs/benchmarks.md).

--mixed: the training clips are mixtures of one to three clips with different labels, as in benchmarks/competition.py,
so that nothing says which of the labels is heard when. --per-label N: only one clip each of N recordings per label is
trained on. --save keeps the segments of each fold, to score again.
"""

import argparse
import pickle
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.competition import mix_sounds
from benchmarks.few_recordings import draw_one_clip_each
from numpy.typing import NDArray

from spectag.audio.files import read_audio, write_audio
from spectag.audio.synthesis import Scene
from spectag.config.scenes import SceneConfig
from spectag.config.tagging import SEGMENT_WINDOW
from spectag.data.clips import Clip, Manifest
from spectag.data.manifest import read_manifest
from spectag.data.soundscapes import Sound, find_sounds, make_soundscape
from spectag.models.tagger import Tagger
from spectag.scoring.event_scores import DetectionCounts, SoundEvents, count_events, count_segments
from spectag.training.pipeline import train

N_TUNING, N_SEEDS, N_SCENES, SCENE_SECONDS = 2, 2, 2, 240.0
KINDS = {
    "usual": SceneConfig(),
    "hard": SceneConfig(sounds_per_minute=15, shortest_seconds=0.4, snr_low_db=5, snr_high_db=25),
}
COLUMNS = ("event, 0.2 s", "event, 1 s", "onset, 1 s", "segment, 1 s")
WINDOWS = {"windows": SEGMENT_WINDOW, "frames": None}
METHODS = tuple(WINDOWS)
Events = list[tuple[str, float, float]]
"""Label, start and end in seconds."""


@dataclass(frozen=True)
class Recording:
    """A mixed recording: its events, and the segments by each of METHODS."""

    events: Events
    segments: dict[str, Events]


@dataclass(frozen=True)
class Fold:
    """The recordings of a fold by kind, and the CPU seconds that all of them took by each of METHODS."""

    labels: tuple[str, ...]
    recordings: dict[str, list[Recording]]
    seconds: dict[str, float]
    unmixed: dict[str, tuple[float, float]]
    """By method, in all clips of a label one after another: the part of the time in which the label is reported, and in
    which others are; the mean over the labels."""


def main() -> None:
    arguments = _parser().parse_args()
    manifest = read_manifest(arguments.manifest, group_column=arguments.group_column)
    names = sorted({fold for fold in manifest.folds if fold is not None})
    numbers = range(len(names))[N_TUNING:][: arguments.folds]
    folds = [_kept(arguments, number, manifest, names[number]) for number in numbers]
    n_seconds = len(folds) * len(KINDS) * N_SEEDS * N_SCENES * SCENE_SECONDS
    for method in METHODS:
        print(f"{method}: {3600 * sum(fold.seconds[method] for fold in folds) / n_seconds:.1f} s per hour of sound")
    print(f"\n| sounds | segments from | {' | '.join(COLUMNS)} |\n|{'---|' * 6}")
    for kind in KINDS:
        print_rows(folds, kind)
    print("\n| clips of a label, one after another: segments from | the label | other labels |\n|---|---|---|")
    for method, (right, other) in _means({method: [fold.unmixed[method] for fold in folds] for method in METHODS}):
        print(f"| {method} | {right:.0%} | {other:.0%} |")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--group-column", default=None)
    parser.add_argument("--mixed", action="store_true", help="train on mixtures of clips")
    parser.add_argument("--per-label", type=int, default=None, metavar="N", help="clips per label to train on")
    parser.add_argument("--save", type=Path, default=None, help="folder of the segments of each fold")
    parser.add_argument("--folds", type=int, default=None, help="only so many folds after the first two")
    return parser


def _kept(arguments: argparse.Namespace, number: int, manifest: Manifest, name: str) -> Fold:
    kind = f"{'-mixed' if arguments.mixed else ''}{f'-{arguments.per_label}' if arguments.per_label else ''}"
    path = arguments.save and arguments.save / f"{name}{kind}.pickle"
    if path is not None and path.exists():
        fold: Fold = pickle.loads(path.read_bytes())
        return fold
    fold = tagged_fold(manifest, name, number, mixed=arguments.mixed, per_label=arguments.per_label)
    print(f"fold {name}: {', '.join(f'{what} {seconds:.1f} s' for what, seconds in fold.seconds.items())}", flush=True)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pickle.dumps(fold))
    return fold


def tagged_fold(manifest: Manifest, name: str, number: int, *, mixed: bool, per_label: int | None) -> Fold:
    """Train on the other folds, and find segments in recordings that are mixed from the clips of this one."""
    inside, outside = (
        replace(manifest, clips=tuple(clip for clip in manifest.clips if (clip.fold == name) is is_inside))
        for is_inside in (True, False)
    )
    if per_label is not None:
        outside = few_clips(outside, per_label, np.random.default_rng(number))
    with tempfile.TemporaryDirectory() as work:
        if mixed:
            outside = mixed_clips(outside, Path(work, "clips"), np.random.default_rng(number))
        train(outside, Path(work, "model"))
        tagger = Tagger(Path(work, "model")).open()
        sounds, seconds = find_sounds(inside, sample_rate=tagger.sample_rate), dict.fromkeys(METHODS, 0.0)
        recordings = {
            kind: [
                _tagged(_scene(sounds, config, (number, seed, scene)), tagger, seconds)
                for seed in range(N_SEEDS)
                for scene in range(N_SCENES)
            ]
            for kind, config in KINDS.items()
        }
        return Fold(tagger.labels.names, recordings, seconds, unmixed(inside, tagger))


def few_clips(manifest: Manifest, n_recordings: int, rng: np.random.Generator) -> Manifest:
    """One clip each of some recordings per label, without the given folds, which may not have all labels."""
    rows = draw_one_clip_each(manifest.multi_hot(), np.array(manifest.groups), n_recordings, rng)
    return replace(manifest, clips=tuple(replace(manifest.clips[row], fold=None) for row in rows))


def _scene(sounds: Sequence[Sound], config: SceneConfig, seed: tuple[int, ...]) -> Scene:
    return make_soundscape(sounds, np.random.default_rng(seed), duration_seconds=SCENE_SECONDS, config=config)


def unmixed(manifest: Manifest, tagger: Tagger) -> dict[str, tuple[float, float]]:
    """For each of METHODS, the part of the time in which the right label is reported, and other labels."""
    parts: dict[str, list[tuple[float, float]]] = {method: [] for method in METHODS}
    for label in tagger.labels.names:
        clips = [clip for clip in manifest.clips if label in clip.labels]
        waveform = np.concatenate([read_audio(clip.path, sample_rate=32_000)[0] for clip in clips])
        for method, window in WINDOWS.items():
            found = tagger.segments(waveform, 32_000, window=window).detections
            seconds = np.array([(each.end_seconds - each.start_seconds) * 32_000 / len(waveform) for each in found])
            is_right = np.array([each.label == label for each in found], bool)
            parts[method].append((seconds[is_right].sum(), seconds[~is_right].sum()))
    return {method: (float(right), float(other)) for method, (right, other) in _means(parts)}


def _means(parts: dict[str, list[tuple[float, float]]]) -> list[tuple[str, NDArray[np.float64]]]:
    return [(method, np.mean(of_labels, axis=0)) for method, of_labels in parts.items()]


def _tagged(scene: Scene, tagger: Tagger, seconds: dict[str, float]) -> Recording:
    segments = {}
    for method, window in WINDOWS.items():
        start = time.process_time()
        found = tagger.segments(scene.waveform, scene.sample_rate, window=window)
        seconds[method] += time.process_time() - start
        segments[method] = [(each.label, each.start_seconds, each.end_seconds) for each in found.detections]
    return Recording([(event.label, event.start_seconds, event.end_seconds) for event in scene.events], segments)


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


def counts(fold_recordings: Sequence[tuple[Fold, Recording]], method: str) -> list[DetectionCounts]:
    """The counts of each of COLUMNS, by recording."""
    labels = fold_recordings[0][0].labels
    truth = _events([recording.events for _, recording in fold_recordings], labels)
    detected = _events([recording.segments[method] for _, recording in fold_recordings], labels)
    shape = len(fold_recordings), len(labels)
    collars: list[dict[str, Any]] = [
        {"collar_seconds": 0.2},
        {"collar_seconds": 1.0},
        {"collar_seconds": 1.0, "offsets": False},
    ]
    by_event = [count_events(truth, detected, shape, offset_fraction=0.2, **collar) for collar in collars]
    return [*by_event, count_segments(truth, detected, shape)]


def _events(of_recordings: Sequence[Events], labels: Sequence[str]) -> SoundEvents:
    rows = [
        (number, start, end, labels.index(label))
        for number, events in enumerate(of_recordings)
        for label, start, end in events
    ]
    recordings, starts, ends, label_rows = np.array(rows, np.float64).reshape(-1, 4).T
    return SoundEvents(recordings.astype(int), starts, ends, label_rows.astype(int))


def _f1(count: DetectionCounts, weights: NDArray[np.float64] | None = None) -> float:
    return float(count.of_recordings(weights).overall().f1[0])


def print_rows(folds: Sequence[Fold], kind: str) -> None:
    recordings = [(fold, recording) for fold in folds for recording in fold.recordings[kind]]
    weights = np.random.default_rng(0).multinomial(len(recordings), np.full(len(recordings), 1 / len(recordings)), 1000)
    rows = {method: counts(recordings, method) for method in METHODS}
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
