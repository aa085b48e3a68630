"""How well segments fit the sounds: event-based and segment-based F1, by sed_eval, on recordings mixed of clips.

    python benchmarks/events.py esc10.csv [--group-column source] [--scenes 2] [--seconds 240]

The manifest has folds of its own. For each fold taggers learn from the other ones, and recordings are mixed of its
clips, so nothing that is heard in them was learnt from. Settings are tuned on the first two folds,
and all scores printed are those of the other folds. In a cell stand the scores of two taggers: as trained by default,
and with 1,000 mixes. Needs sed_eval, and setuptools below 81, which its dcase_util does not ask for but imports.
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
from spectag.data.soundscapes import find_sounds, write_scenes
from spectag.models.tagger import Tagger
from spectag.models.timeline import Timeline, segments
from spectag.tagging.parallel import tag
from spectag.training.pipeline import train

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its dependencies warn of theirs
    from sed_eval.sound_event import EventBasedMetrics, SegmentBasedMetrics

RECIPES = (Recipe(), Recipe(n_mixed_clips=1000))
WINDOWS = {1.0: 0.25, 1.5: 0.25, 2.0: 0.25, 3.0: 0.5, 5.0: 0.5}  # seconds: the smallest step of windows of a length
CHOSEN = (1.5, 0.5)  # seconds: the window and the step that settings are tuned for
N_TUNING = 2  # folds
PLAIN = SegmentConfig(smooth_windows=1, hysteresis=1.0, min_duration_seconds=0.0, max_gap_seconds=0.0)
CHOICES: dict[str, list[Any]] = {
    "smooth_windows": [1, 3, 5, 7],
    "hysteresis": [1.0, 0.9, 0.8, 0.7, 0.6, 0.5],
    "min_duration_seconds": [0.0, 0.5, 1.0, 1.5],
    "max_gap_seconds": [0.0, 0.5, 1.0, 2.0],
}
SHIFTS = (-0.4, -0.2, 0.0, 0.2, 0.4)  # of thresholds, in the logit
COLUMNS = ("event, 0.2 s", "event, 1 s", "onset, 1 s", "segment, 1 s")
EVENT, SEGMENT = 1, 3  # columns whose mean is made as great as can be

Event = dict[str, Any]  # as sed_eval has it


@dataclass(frozen=True)
class Recording:
    """A mixed recording, its truth, and what a tagger makes of it."""

    events: list[Event]
    labels: tuple[str, ...]
    thresholds: NDArray[np.float32]
    timelines: dict[float, Timeline]  # by the length of the windows, at their smallest step


def main() -> None:
    arguments = _parser().parse_args()
    manifest = read_manifest(arguments.manifest, group_column=arguments.group_column)
    folds = sorted({fold for fold in manifest.folds if fold is not None})
    heard = [heard_by_fold(manifest, folds, recipe, arguments) for recipe in RECIPES]
    tuning = [_joined(by_fold[:N_TUNING]) for by_fold in heard]
    testing = [_joined(by_fold[N_TUNING:]) for by_fold in heard]
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
    parser.add_argument("--seconds", type=float, default=240.0, help="length of each")
    return parser


def heard_by_fold(
    manifest: Manifest, folds: Sequence[str], recipe: Recipe, arguments: argparse.Namespace
) -> list[list[Recording]]:
    """For each fold, recordings of its clips, heard by a tagger that learnt from the others."""
    by_fold = []
    for number, fold in enumerate(folds):
        ours, others = (
            replace(manifest, clips=tuple(clip for clip in manifest.clips if (clip.fold == fold) is is_ours))
            for is_ours in (True, False)
        )
        with tempfile.TemporaryDirectory() as work:
            train(others, Path(work, "model"), recipe)
            tagger = Tagger(Path(work, "model"))
            sounds = find_sounds(ours, sample_rate=tagger.sample_rates[0])
            paths = write_scenes(
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
                        {window: of_paths[i] for window, of_paths in timelines.items()},
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
    return {"filename": "one", "event_label": label, "onset": start, "offset": end}


def _timelines(tagger: Tagger, paths: Sequence[Path], window: float, step: float) -> list[Timeline]:
    config = WindowConfig(window_seconds=window, overlap_seconds=window - step)
    return [file.timeline for file in tag(tagger, paths, window=config) if file.timeline is not None]


def _joined(by_fold: Iterable[list[Recording]]) -> list[Recording]:
    return [recording for recordings in by_fold for recording in recordings]


def events_heard(
    recording: Recording, window: float, step: float, config: SegmentConfig, shift: float = 0.0
) -> list[Event]:
    """What a tagger hears, as sed_eval wants it, with all thresholds shifted by so much in the logit."""
    timeline, every = recording.timelines[window], round(step / WINDOWS[window])
    fewer = Timeline(timeline.starts[::every], timeline.ends[::every], timeline.probabilities[::every])
    thresholds = expit(logit(recording.thresholds) + np.float32(shift))
    return [
        _event(recording.labels[segment.label_index], segment.start_seconds, segment.end_seconds)
        for segment in segments(fewer, thresholds, config)
    ]


def scores(
    recordings: Sequence[Recording], window: float, step: float, config: SegmentConfig, shift: float = 0.0
) -> NDArray[np.float64]:
    """F1 of each of COLUMNS, over all labels."""
    labels = list(recordings[0].labels)
    judges = (
        EventBasedMetrics(labels, t_collar=0.2, percentage_of_length=0.2),
        EventBasedMetrics(labels, t_collar=1.0, percentage_of_length=0.2),
        EventBasedMetrics(labels, t_collar=1.0, evaluate_offset=False),
        SegmentBasedMetrics(labels, time_resolution=1.0),
    )
    for recording in recordings:
        heard = events_heard(recording, window, step, config, shift)
        for judge in judges:
            judge.evaluate(recording.events, heard)
    return np.nan_to_num([judge.results_overall_metrics()["f_measure"]["f_measure"] for judge in judges])


def tuned(heard: Sequence[list[Recording]]) -> SegmentConfig:
    """The settings with the best mean of event and segment F1: one at a time, until none gets better."""

    def merit(config: SegmentConfig, window: float = CHOSEN[0], step: float = CHOSEN[1]) -> float:
        return float(np.mean([scores(recordings, window, step, config)[[EVENT, SEGMENT]] for recordings in heard]))

    by_window = {f"{w:g} s every {step:g} s": merit(SegmentConfig(), w, step) for w, step in _all_windows()}
    order = sorted(by_window, key=by_window.__getitem__, reverse=True)[:4]
    print(f"tuning on the first {N_TUNING} folds: " + ", ".join(f"{name} {by_window[name]:.3f}" for name in order))
    best, greatest, before = PLAIN, merit(PLAIN), -1.0
    print(f"{CHOSEN[0]:g} s every {CHOSEN[1]:g} s: {greatest:.3f} for windows as they are, ", end="")
    while greatest > before:
        before = greatest
        for name, values in CHOICES.items():
            for value in values:
                candidate = best.model_copy(update={name: value})
                if (reached := merit(candidate)) > greatest:
                    best, greatest = candidate, reached
    print(f"{greatest:.3f} with {best}")
    return best


def _all_windows() -> list[tuple[float, float]]:
    """Lengths and steps."""
    steps = {window: sorted({0.25, 0.5, 1.0, window}) for window in WINDOWS}
    return [(window, step) for window, some in steps.items() for step in some if step >= WINDOWS[window]]


def print_windows(heard: Sequence[list[Recording]]) -> None:
    """A row for each window and step; ratios are those of event F1 to the longest windows without overlap."""
    longest = max(WINDOWS)
    base = _event_scores(heard, longest, longest)
    print(f"\n| window, s | step, s | network's work | {' | '.join(COLUMNS)} | ratio |\n|{'---|' * 8}")
    for window, step in _all_windows():
        cells = _cells([scores(recordings, window, step, SegmentConfig()) for recordings in heard])
        ratios = _pair(_event_scores(heard, window, step) / base, ".1f")
        print(f"| {window:g} | {step:g} | {window / step:.1f} | {cells} | {ratios} |")


def print_steps(heard: Sequence[list[Recording]], best: SegmentConfig) -> None:
    """From windows as they are to the defaults, what more could be done, and what was tuned."""
    default = SegmentConfig()
    rows = {
        "windows as they are": PLAIN,
        "smoothed": PLAIN.model_copy(update={"smooth_windows": default.smooth_windows}),
        f"off at {default.hysteresis:g} of the threshold": PLAIN.model_copy(update={"hysteresis": default.hysteresis}),
        "both: the defaults": default,
        "and nothing below 1 s": default.model_copy(update={"min_duration_seconds": 1.0}),
        "and gaps of up to 1 s closed": default.model_copy(update={"max_gap_seconds": 1.0}),
        "tuned on the other folds": best,
    }
    print(f"\n| {CHOSEN[0]:g} s every {CHOSEN[1]:g} s | {' | '.join(COLUMNS)} | ratio |\n|{'---|' * 6}")
    base = _event_scores(heard, *CHOSEN, PLAIN)
    for name, settings in rows.items():
        cells = _cells([scores(recordings, *CHOSEN, settings) for recordings in heard])
        print(f"| {name} | {cells} | {_pair(_event_scores(heard, *CHOSEN, settings) / base, '.2f')} |")


def print_thresholds(heard: Sequence[list[Recording]]) -> None:
    """A row for each length of windows, and a column of event F1 for each shift."""
    print(f"\n| window, s | {' | '.join(f'{shift:+.1f}' for shift in SHIFTS)} |\n|{'---|' * 6}")
    for window in WINDOWS:
        cells = [_pair(_event_scores(heard, window, CHOSEN[1], shift=shift), ".3f") for shift in SHIFTS]
        print(f"| {window:g} | {' | '.join(cells)} |")


def print_errors(heard: Sequence[list[Recording]]) -> None:
    """The medians of what segments begin and end too late, of sounds that one segment alone meets."""
    print("\n| window, s | begins late by, s | ends late by, s | needed in a window, s |\n|---|---|---|---|")
    for window in WINDOWS:
        late = np.array([_lateness(recordings, window) for recordings in heard])
        needed = window / 2 + (late[:, 0] - late[:, 1]) / 2  # a cell begins half a step before a window's centre
        print(f"| {window:g} | {_pair(late[:, 0], '+.2f')} | {_pair(late[:, 1], '+.2f')} | {_pair(needed, '.2f')} |")


def _lateness(recordings: Sequence[Recording], window: float) -> NDArray[np.float64]:
    late = []
    for recording in recordings:
        heard = events_heard(recording, window, CHOSEN[1], SegmentConfig())
        for event in recording.events:
            met = [other for other in heard if _meet(event, other)]
            if len(met) == 1:
                late.append([met[0]["onset"] - event["onset"], met[0]["offset"] - event["offset"]])
    return np.median(late, axis=0)


def _meet(one: Event, other: Event) -> bool:
    same = one["event_label"] == other["event_label"]
    return bool(same and one["onset"] < other["offset"] and other["onset"] < one["offset"])


def _event_scores(
    heard: Sequence[list[Recording]],
    window: float,
    step: float,
    config: SegmentConfig | None = None,
    *,
    shift: float = 0.0,
) -> NDArray[np.float64]:
    """Event F1 of each tagger."""
    config = config or SegmentConfig()
    return np.array([scores(recordings, window, step, config, shift)[EVENT] for recordings in heard])


def _cells(results: Sequence[NDArray[np.float64]]) -> str:
    return " | ".join(_pair(column, ".3f") for column in np.array(results).T)


def _pair(values: Iterable[float], form: str) -> str:
    return ", ".join(f"{value:{form}}" for value in values)


if __name__ == "__main__":
    main()
