"""How well segments match the sounds: event-based and segment-based F1 by sed_eval, on soundscapes mixed from clips.

    python benchmarks/events.py esc10.csv [--group-column source] [--scenes 2] [--seconds 240]

The manifest must have folds. For each fold, models are trained on the other folds, and soundscapes are mixed from the
clips of this fold, so that no model is tested on its training clips. Settings are tuned on the first two folds; all
printed scores are from the other folds. A cell has the scores of two models: with the default recipe, and with 1,000
mixed clips. Needs sed_eval and setuptools below 81, which its dcase_util imports without requiring it.
"""

import argparse
import csv
import tempfile
import warnings
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from spectag.config.base import SegmentConfig, WindowConfig
from spectag.config.recipe import Recipe
from spectag.data.clips import Manifest
from spectag.data.manifest import read_manifest
from spectag.data.soundscapes import find_sounds, write_soundscapes
from spectag.models.tagger import Tagger
from spectag.models.timeline import Timeline, find_segments
from spectag.tagging.parallel import tag
from spectag.training.pipeline import train

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # warnings of its dependencies
    from sed_eval.sound_event import EventBasedMetrics, SegmentBasedMetrics

RECIPES = (Recipe(), Recipe(n_mixed_clips=1000))
WINDOWS = {1.0: 0.25, 1.5: 0.25, 2.0: 0.25, 3.0: 0.5, 5.0: 0.5}  # seconds: window length and smallest step
CHOSEN = (1.5, 0.5)  # seconds: window and step for which settings are tuned
N_TUNING = 2  # folds
PLAIN = SegmentConfig(smooth_windows=1, hysteresis=1.0, min_duration_seconds=0.0, max_gap_seconds=0.0)
CHOICES: dict[str, list[Any]] = {
    "smooth_windows": [1, 3, 5, 7],
    "hysteresis": [1.0, 0.9, 0.8, 0.7, 0.6, 0.5],
    "min_duration_seconds": [0.0, 0.5, 1.0, 1.5],
    "max_gap_seconds": [0.0, 0.5, 1.0, 2.0],
}
SHIFTS = (-0.4, -0.2, 0.0, 0.2, 0.4)  # of thresholds, in logits
COLUMNS = ("event, 0.2 s", "event, 1 s", "onset, 1 s", "segment, 1 s")
EVENT, SEGMENT = 1, 3  # columns whose mean is maximised

Event = dict[str, Any]  # in the format of sed_eval


@dataclass(frozen=True)
class Recording:
    """A soundscape, its true events, and the probabilities of a model."""

    events: list[Event]
    labels: tuple[str, ...]
    thresholds: NDArray[np.float32]
    timelines: dict[float, Timeline]  # by window length, with the smallest step


def main() -> None:
    arguments = _parser().parse_args()
    manifest = read_manifest(arguments.manifest, group_column=arguments.group_column)
    folds = sorted({fold for fold in manifest.folds if fold is not None})
    by_model = [recordings_by_fold(manifest, folds, recipe, arguments) for recipe in RECIPES]
    tuning = [_joined(by_fold[:N_TUNING]) for by_fold in by_model]
    testing = [_joined(by_fold[N_TUNING:]) for by_fold in by_model]
    best = tuned(tuning)
    n_events = sum(len(recording.events) for recording in testing[0])
    print(f"\nscores of {n_events} events in {len(testing[0])} recordings of {arguments.seconds:g} s")
    print_windows(testing)
    print_steps(testing, best)
    print_thresholds(testing)
    print_errors(testing)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--group-column", default=None)
    parser.add_argument("--scenes", type=int, default=2, help="recordings for each fold")
    parser.add_argument("--seconds", type=float, default=240.0, help="length of each recording")
    return parser


def recordings_by_fold(
    manifest: Manifest, folds: Sequence[str], recipe: Recipe, arguments: argparse.Namespace
) -> list[list[Recording]]:
    """For each fold, soundscapes of its clips, tagged by a model trained on the other folds."""
    by_fold = []
    for number, fold in enumerate(folds):
        inside, outside = (
            replace(manifest, clips=tuple(clip for clip in manifest.clips if (clip.fold == fold) is is_inside))
            for is_inside in (True, False)
        )
        with tempfile.TemporaryDirectory() as work:
            train(outside, Path(work, "model"), recipe)
            tagger = Tagger(Path(work, "model"))
            sounds = find_sounds(inside, sample_rate=tagger.sample_rates[0])
            paths = write_soundscapes(
                work, sounds, n_scenes=arguments.scenes, duration_seconds=arguments.seconds, seed=number
            )
            truth = read_truth(Path(work, "truth.csv"))
            timelines = {window: _timelines(tagger, paths, window, step) for window, step in WINDOWS.items()}
            by_fold.append(
                [
                    Recording(
                        truth[path.name],
                        tagger.labels.names,
                        tagger.thresholds,
                        {window: of_window[i] for window, of_window in timelines.items()},
                    )
                    for i, path in enumerate(paths)
                ]
            )
    return by_fold


def read_truth(path: Path) -> dict[str, list[Event]]:
    """The events of each recording."""
    truth: dict[str, list[Event]] = defaultdict(list)
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            truth[row["file"]].append(_event(row["label"], float(row["start"]), float(row["end"])))
    return truth


def _event(label: str, start: float, end: float) -> Event:
    return {"filename": "recording", "event_label": label, "onset": start, "offset": end}


def _timelines(tagger: Tagger, paths: Sequence[Path], window: float, step: float) -> list[Timeline]:
    config = WindowConfig(window_seconds=window, overlap_seconds=window - step)
    return [file.timeline for file in tag(tagger, paths, window=config) if file.timeline is not None]


def _joined(by_fold: Iterable[list[Recording]]) -> list[Recording]:
    return [recording for recordings in by_fold for recording in recordings]


def detected_events(
    recording: Recording, window: float, step: float, config: SegmentConfig, shift: float = 0.0
) -> list[Event]:
    """The detected events in the format of sed_eval, with all thresholds shifted by `shift` logits."""
    timeline, stride = recording.timelines[window], round(step / WINDOWS[window])
    timeline = Timeline(timeline.starts[::stride], timeline.ends[::stride], timeline.probabilities[::stride])
    thresholds = expit(logit(recording.thresholds) + np.float32(shift))
    return [
        _event(recording.labels[segment.label_index], segment.start_seconds, segment.end_seconds)
        for segment in find_segments(timeline, thresholds, config)
    ]


def scores(
    recordings: Sequence[Recording], window: float, step: float, config: SegmentConfig, shift: float = 0.0
) -> NDArray[np.float64]:
    """F1 of each of COLUMNS, over all labels together."""
    labels = list(recordings[0].labels)
    metrics = (
        EventBasedMetrics(labels, t_collar=0.2, percentage_of_length=0.2),
        EventBasedMetrics(labels, t_collar=1.0, percentage_of_length=0.2),
        EventBasedMetrics(labels, t_collar=1.0, evaluate_offset=False),
        SegmentBasedMetrics(labels, time_resolution=1.0),
    )
    for recording in recordings:
        events = detected_events(recording, window, step, config, shift)
        for metric in metrics:
            metric.evaluate(recording.events, events)
    return np.nan_to_num([metric.results_overall_metrics()["f_measure"]["f_measure"] for metric in metrics])


def tuned(recordings_by_model: Sequence[list[Recording]]) -> SegmentConfig:
    """The settings with the best mean of event and segment F1, by coordinate search until nothing improves it."""

    def mean_f1(config: SegmentConfig, window: float = CHOSEN[0], step: float = CHOSEN[1]) -> float:
        return float(
            np.mean([scores(recordings, window, step, config)[[EVENT, SEGMENT]] for recordings in recordings_by_model])
        )

    by_window = {f"{w:g} s every {step:g} s": mean_f1(SegmentConfig(), w, step) for w, step in _all_windows()}
    order = sorted(by_window, key=by_window.__getitem__, reverse=True)[:4]
    print(f"tuning on the first {N_TUNING} folds: " + ", ".join(f"{name} {by_window[name]:.3f}" for name in order))
    best, best_f1, last_f1 = PLAIN, mean_f1(PLAIN), -1.0
    print(f"{CHOSEN[0]:g} s every {CHOSEN[1]:g} s: {best_f1:.3f} for single windows, ", end="")
    while best_f1 > last_f1:
        last_f1 = best_f1
        for name, values in CHOICES.items():
            for value in values:
                candidate = best.model_copy(update={name: value})
                if (f1 := mean_f1(candidate)) > best_f1:
                    best, best_f1 = candidate, f1
    print(f"{best_f1:.3f} with {best}")
    return best


def _all_windows() -> list[tuple[float, float]]:
    """Pairs of window length and step, in seconds."""
    steps = {window: sorted({0.25, 0.5, 1.0, window}) for window in WINDOWS}
    return [(window, step) for window, of_window in steps.items() for step in of_window if step >= WINDOWS[window]]


def print_windows(recordings_by_model: Sequence[list[Recording]]) -> None:
    """A row for each window and step; the ratio is event F1 relative to the longest windows without overlap."""
    longest = max(WINDOWS)
    base = _event_scores(recordings_by_model, longest, longest)
    print(
        f"\n| window, s | step, s | network runs per second of sound | {' | '.join(COLUMNS)} | ratio |\n|{'---|' * 8}"
    )
    for window, step in _all_windows():
        cells = _cells([scores(recordings, window, step, SegmentConfig()) for recordings in recordings_by_model])
        ratios = _pair(_event_scores(recordings_by_model, window, step) / base, ".1f")
        print(f"| {window:g} | {step:g} | {window / step:.1f} | {cells} | {ratios} |")


def print_steps(recordings_by_model: Sequence[list[Recording]], best: SegmentConfig) -> None:
    """From single windows to the default settings, further settings, and the tuned ones."""
    default = SegmentConfig()
    rows = {
        "single windows": PLAIN,
        "smoothed": PLAIN.model_copy(update={"smooth_windows": default.smooth_windows}),
        f"hysteresis {default.hysteresis:g}": PLAIN.model_copy(update={"hysteresis": default.hysteresis}),
        "both (default)": default,
        "and segments of 1 s or more": default.model_copy(update={"min_duration_seconds": 1.0}),
        "and gaps up to 1 s closed": default.model_copy(update={"max_gap_seconds": 1.0}),
        "tuned on the first folds": best,
    }
    print(f"\n| {CHOSEN[0]:g} s every {CHOSEN[1]:g} s | {' | '.join(COLUMNS)} | ratio |\n|{'---|' * 6}")
    base = _event_scores(recordings_by_model, *CHOSEN, PLAIN)
    for name, settings in rows.items():
        cells = _cells([scores(recordings, *CHOSEN, settings) for recordings in recordings_by_model])
        print(f"| {name} | {cells} | {_pair(_event_scores(recordings_by_model, *CHOSEN, settings) / base, '.2f')} |")


def print_thresholds(recordings_by_model: Sequence[list[Recording]]) -> None:
    """Event F1: a row for each window length, a column for each shift of the thresholds."""
    print(f"\n| window, s | {' | '.join(f'{shift:+.1f}' for shift in SHIFTS)} |\n|{'---|' * 6}")
    for window in WINDOWS:
        cells = [_pair(_event_scores(recordings_by_model, window, CHOSEN[1], shift=shift), ".3f") for shift in SHIFTS]
        print(f"| {window:g} | {' | '.join(cells)} |")


def print_errors(recordings_by_model: Sequence[list[Recording]]) -> None:
    """Median delay of onset and offset, for events that overlap exactly one segment."""
    print("\n| window, s | onset delay, s | offset delay, s | sound needed in a window, s |\n|---|---|---|---|")
    for window in WINDOWS:
        delays = np.array([_delays(recordings, window) for recordings in recordings_by_model])
        needed = window / 2 + (delays[:, 0] - delays[:, 1]) / 2  # a cell begins half a step before a window's centre
        print(
            f"| {window:g} | {_pair(delays[:, 0], '+.2f')} | {_pair(delays[:, 1], '+.2f')} | {_pair(needed, '.2f')} |"
        )


def _delays(recordings: Sequence[Recording], window: float) -> NDArray[np.float64]:
    delays = []
    for recording in recordings:
        detected = detected_events(recording, window, CHOSEN[1], SegmentConfig())
        for event in recording.events:
            overlapping = [other for other in detected if _overlap(event, other)]
            if len(overlapping) == 1:
                delays.append([overlapping[0][end] - event[end] for end in ("onset", "offset")])
    return np.median(delays, axis=0)


def _overlap(first: Event, second: Event) -> bool:
    same_label = first["event_label"] == second["event_label"]
    return bool(same_label and first["onset"] < second["offset"] and second["onset"] < first["offset"])


def _event_scores(
    recordings_by_model: Sequence[list[Recording]],
    window: float,
    step: float,
    config: SegmentConfig | None = None,
    *,
    shift: float = 0.0,
) -> NDArray[np.float64]:
    """Event F1 of each model."""
    config = config or SegmentConfig()
    return np.array([scores(recordings, window, step, config, shift)[EVENT] for recordings in recordings_by_model])


def _cells(results: Sequence[NDArray[np.float64]]) -> str:
    return " | ".join(_pair(column, ".3f") for column in np.array(results).T)


def _pair(values: Iterable[float], form: str) -> str:
    return ", ".join(f"{value:{form}}" for value in values)


if __name__ == "__main__":
    main()
