"""Thresholds for windows: those of whole clips, those of windows, and those of the maximum over a clip's windows.

    python benchmarks/window_thresholds.py esc10.csv --group-column source [--rotations 8] [--seed 1]

The manifest has one label per clip, and folds. For each fold, heads are trained on the clips of the other folds, or on
mixes of one to four of them (as in benchmarks/competition.py; each mix is made of one fold), with all labels known, or
with a few random ones in each rotation: then clips without a known label are left out, and the other labels are foreign
sounds. All three kinds of thresholds are fitted on the same held-out predictions, for the best F1. They are tested on
windows of soundscapes, mixed from the clips of the fold. A window has a label if it contains at least half a second of
it, and does not have it if it contains none; others do not count. F1 is that of all labels and windows together.
Foreign windows contain only foreign sounds. Printed: means and differences to the thresholds of whole clips, with 95 %
intervals, over folds with all labels known, and over rotations with a few. All rotations have the same mixes and
soundscapes, so the intervals do not contain the variation between these: compare several seeds.
"""

import argparse
import csv
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from competition import N_SOUNDS, N_SOUNDS_PROBABILITIES, mix_sounds
from novelty import HOP_SECONDS, WINDOW_SECONDS, excerpt, windows_of
from spectag.audio.files import read_audio
from spectag.audio.front_end import FrontEnd
from spectag.config.backbones import resolve_mel
from spectag.config.recipe import Recipe
from spectag.data.clips import Manifest
from spectag.data.manifest import read_manifest
from spectag.data.soundscapes import find_sounds, write_soundscapes
from spectag.models.clip_windows import ClipWindows, FrameWindows
from spectag.models.network_session import open_session
from spectag.models.out_of_fold import cross_fitting_folds
from spectag.scoring.calibration import DEFAULT_THRESHOLD, fit_calibration, probabilities_of
from spectag.scoring.thresholds import fill_thresholds, fit_thresholds, fit_window_thresholds
from spectag.system.cache import cache_folder
from spectag.training.heads.per_fold import FrozenFeatures, WindowFeatures, fit_linear_heads
from spectag.training.inputs.feature_store import FeatureStore, PartFeatures
from spectag.training.setup.callbacks import Callbacks
from spectag.training.setup.cross_validation import CrossValidation
from spectag.training.setup.held_out import HeldOut

Waveform = NDArray[np.float32]
Features = NDArray[np.float32]
Thresholds = NDArray[np.float64]

N_MIXES = 75  # in each fold
N_SCENES, SCENE_SECONDS = 2, 240.0  # for each fold
HEARD_SECONDS = 0.5  # of a sound in a window that has its label
KINDS = ("whole clips", "windows", "maximum over windows")


class Extractor:
    """A frozen network: features of waveforms, and of the windows of clips that training may use."""

    def __init__(self, backbone: str, example: Path) -> None:
        self.front_end = FrontEnd(mel=resolve_mel(backbone, None))
        self.sample_rate = self.front_end.sample_rate
        windows = ClipWindows().in_frames(self.front_end)
        assert windows is not None
        self.clip_windows: FrameWindows = windows
        store = FeatureStore(cache_folder() / "spectrograms", Recipe(backbone=backbone), self.front_end)
        inputs = self.front_end.input_of_waveform(read_audio(example, sample_rate=self.sample_rate)[0])
        self.group_sizes = store.group_sizes(inputs)
        self._session = open_session(store.onnx_file(inputs), n_threads=1)

    def features(self, waveform: Waveform) -> Features:
        """Features (n_features,) of a waveform."""
        return self._features(self.front_end.input_of_waveform(waveform))

    def clip_and_windows(self, waveform: Waveform) -> tuple[Features, Features]:
        """Features (n_features,) of a clip, and (n_windows, n_features) of its windows: of the clip, if it has none."""
        inputs, length = self.front_end.input_of_waveform(waveform), self.clip_windows.length
        whole = self._features(inputs)
        starts = self.clip_windows.starts(inputs.shape[-1])
        return whole, np.stack([self._features(inputs[..., start : start + length]) for start in starts] or [whole])

    def _features(self, inputs: NDArray[np.float32]) -> Features:
        return np.asarray(self._session.run(["features"], {"inputs": inputs[None]})[0][0])


@dataclass(frozen=True)
class Clips:
    """Clips for training, with their features as a whole and in windows."""

    whole: Features  # (n_clips, n_features)
    windows: list[Features]  # (n_windows, n_features) of each clip
    y_true: NDArray[np.bool_]  # (n_clips, n_labels)
    folds: NDArray[np.str_]
    groups: NDArray[np.str_]


@dataclass(frozen=True)
class Scene:
    """The windows of the soundscapes of a fold: their features, and how long each label is heard in each of them."""

    features: Features  # (n_windows, n_features)
    seconds: NDArray[np.float64]  # (n_windows, n_labels)


Scores = dict[str, tuple[float, float]]  # by kind of threshold: window F1, and foreign windows with a tag


def main() -> None:
    arguments = _parser().parse_args()
    manifest = read_manifest(arguments.manifest, group_column=arguments.group_column)
    extractor = Extractor(arguments.backbone, manifest.clips[0].path)
    rng = np.random.default_rng(arguments.seed)
    waveforms = [read_audio(clip.path, sample_rate=extractor.sample_rate)[0] for clip in manifest.clips]
    clips = clips_of(manifest, waveforms, extractor)
    mixes = mixes_of(clips, waveforms, extractor, rng)
    scenes = {fold: scene_of(manifest, fold, extractor, rng) for fold in np.unique(clips.folds).tolist()}
    n_labels = len(manifest.labels.names)
    all_known = np.arange(n_labels)
    rotations = [rng.permutation(n_labels)[: arguments.known] for _ in range(arguments.rotations)]
    print("| training | labels known | thresholds | window F1 | difference | foreign windows with a tag | difference |")
    print("|---|---|---|---|---|---|---|")
    for training, data in (("clips", clips), ("mixes", mixes)):
        by_fold = score_folds(data, scenes, all_known, extractor)
        print_rows(f"| {training} | all {n_labels}", by_fold)
        by_rotation = [mean_scores(score_folds(data, scenes, known, extractor)) for known in rotations]
        print_rows(f"| {training} | {arguments.known} of {n_labels}", by_rotation)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--group-column", default=None)
    parser.add_argument("--backbone", default="mn04_audioset")
    parser.add_argument("--known", type=int, default=5, help="known labels in each rotation")
    parser.add_argument("--rotations", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1, help="of the mixes, the soundscapes and the known labels")
    return parser


def clips_of(manifest: Manifest, waveforms: Sequence[Waveform], extractor: Extractor) -> Clips:
    """The clips of the manifest as they are."""
    whole, windows = zip(*map(extractor.clip_and_windows, waveforms), strict=True)
    folds = np.array([str(clip.fold) for clip in manifest.clips])
    return Clips(np.stack(whole), list(windows), manifest.multi_hot(), folds, np.array(manifest.groups))


def mixes_of(clips: Clips, waveforms: Sequence[Waveform], extractor: Extractor, rng: np.random.Generator) -> Clips:
    """Mixes of one to four clips of a fold with different labels."""
    folds = np.repeat(np.unique(clips.folds), N_MIXES)
    chosen = [_choose_clips(clips, fold, rng) for fold in folds]
    mixes = (mix_sounds([excerpt(waveforms[row], rng) for row in rows], rng)[0] for rows in chosen)
    whole, windows = zip(*map(extractor.clip_and_windows, mixes), strict=True)
    y_true = np.stack([clips.y_true[rows].any(axis=0) for rows in chosen])
    return Clips(np.stack(whole), list(windows), y_true, folds, np.arange(len(folds)).astype(np.str_))


def _choose_clips(clips: Clips, fold: str, rng: np.random.Generator) -> list[int]:
    """The rows of one to four clips of a fold with different labels."""
    n_sounds = rng.choice(N_SOUNDS, p=N_SOUNDS_PROBABILITIES)
    labels = rng.choice(clips.y_true.shape[1], n_sounds, replace=False)
    inside = clips.folds == fold
    return [int(rng.choice(np.flatnonzero(inside & clips.y_true[:, label]))) for label in labels]


def scene_of(manifest: Manifest, fold: str, extractor: Extractor, rng: np.random.Generator) -> Scene:
    """The windows of soundscapes that are mixed from the clips of a fold."""
    inside = replace(manifest, clips=tuple(clip for clip in manifest.clips if str(clip.fold) == fold))
    rate, seed = extractor.sample_rate, int(rng.integers(2**31))
    with tempfile.TemporaryDirectory() as work:
        sounds = find_sounds(inside, sample_rate=rate)
        paths = write_soundscapes(work, sounds, n_scenes=N_SCENES, duration_seconds=SCENE_SECONDS, seed=seed)
        waveforms = [read_audio(path, sample_rate=rate)[0] for path in paths]
        seconds = [seconds_heard(Path(work, "truth.csv"), path.name, manifest.labels.names) for path in paths]
    features = [extractor.features(window) for waveform in waveforms for window in windows_of(waveform, rate)]
    return Scene(np.stack(features), np.concatenate(seconds))


def seconds_heard(truth: Path, file_name: str, labels: Sequence[str]) -> NDArray[np.float64]:
    """How long each label is heard in each window of a soundscape, (n_windows, n_labels)."""
    starts = np.arange(0, SCENE_SECONDS - WINDOW_SECONDS + HOP_SECONDS / 2, HOP_SECONDS)
    seconds = np.zeros((len(starts), len(labels)))
    with truth.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["file"] == file_name:
                end = np.minimum(float(row["end"]), starts + WINDOW_SECONDS)
                overlap = end - np.maximum(float(row["start"]), starts)
                seconds[:, labels.index(row["label"])] += np.maximum(overlap, 0)
    return seconds


def score_folds(clips: Clips, scenes: dict[str, Scene], known: NDArray[np.int64], extractor: Extractor) -> list[Scores]:
    """The scores of each fold, by a head that is trained on the other folds' clips with a known label."""
    return [dict(score_fold(clips, scene, fold, known, extractor)) for fold, scene in scenes.items()]


def score_fold(
    clips: Clips, scene: Scene, fold: str, known: NDArray[np.int64], extractor: Extractor
) -> Iterator[tuple[str, tuple[float, float]]]:
    """For each kind of threshold, the scores on the soundscapes of a fold."""
    rows = np.flatnonzero(clips.y_true[:, known].any(axis=1) & (clips.folds != fold))
    y_true, groups = clips.y_true[rows][:, known], clips.groups[rows].tolist()
    held_out = tuple(clips.folds[rows] == other for other in np.unique(clips.folds[rows]))
    names = tuple(map(str, range(len(held_out))))
    folds = CrossValidation.of(y_true, HeldOut(names, held_out, False, "", groups=tuple(groups)))
    fit = fit_linear_heads(features_of(clips, rows, extractor), folds, Recipe(), Callbacks())
    assert fit.window_logits is not None
    logits = folds.cross_fitted(fit.logits)
    calibration = fit_calibration(logits, y_true, method="auto", folds=cross_fitting_folds(groups))
    of_clips = probabilities_of(logits, calibration)
    of_windows = probabilities_of(fit.window_logits.logits, calibration)
    detected = probabilities_of(fit.heads[-1].logits(scene.features), calibration)
    for kind, thresholds in fitted_thresholds(y_true, of_clips, of_windows, fit.window_logits.clips):
        yield kind, scores(detected >= thresholds, scene.seconds, known)


def features_of(clips: Clips, rows: NDArray[np.int64], extractor: Extractor) -> FrozenFeatures:
    """The features of some clips for training."""

    def of_clip(row: int) -> PartFeatures:
        clip = rows[row]
        return PartFeatures(clips.whole[[clip]], np.ones(1, np.float32), (clips.windows[clip],))

    windows = WindowFeatures(extractor.clip_windows, of_clip)
    return FrozenFeatures(clips.whole[rows], extractor.group_sizes, windows=windows)


def fitted_thresholds(
    y_true: NDArray[np.bool_],
    of_clips: NDArray[np.float64],
    of_windows: NDArray[np.float64],
    clip_of_window: NDArray[np.int64],
) -> Iterator[tuple[str, Thresholds]]:
    """Thresholds (n_labels,) of each kind; those of whole clips where a label has no others, as in training."""
    largest = np.zeros(y_true.shape)
    np.maximum.at(largest, clip_of_window, of_windows)
    default = fill_thresholds(fit_thresholds(y_true, of_clips), DEFAULT_THRESHOLD)
    windows = fit_window_thresholds(y_true, of_windows, clip_of_window)
    fitted = (default, windows, fit_thresholds(y_true, largest))
    return ((kind, fill_thresholds(thresholds, default)) for kind, thresholds in zip(KINDS, fitted, strict=True))


def scores(detected: NDArray[np.bool_], seconds: NDArray[np.float64], known: NDArray[np.int64]) -> tuple[float, float]:
    """Window F1, and the fraction of foreign windows with a tag (NaN if all labels are known)."""
    is_true, is_absent = seconds[:, known] >= HEARD_SECONDS, seconds[:, known] == 0
    n_hits = np.sum(detected & is_true)
    f1 = 2 * n_hits / (np.sum(detected & (is_true | is_absent)) + np.sum(is_true))
    is_foreign = seconds.any(axis=1) & is_absent.all(axis=1)
    foreign = detected[is_foreign].any(axis=1)
    return float(f1), float(foreign.mean()) if len(foreign) else np.nan


def mean_scores(by_fold: Sequence[Scores]) -> Scores:
    """The mean over folds."""
    means = {kind: np.mean([of_fold[kind] for of_fold in by_fold], axis=0) for kind in KINDS}
    return {kind: (float(f1), float(foreign)) for kind, (f1, foreign) in means.items()}


def print_rows(start: str, draws: Sequence[Scores]) -> None:
    """A row for each kind of threshold: means over folds or rotations, and differences to the first kind."""
    values = {kind: np.array([draw[kind] for draw in draws]) for kind in KINDS}
    for kind, of_kind in values.items():
        differences = of_kind - values[KINDS[0]]
        columns = zip(of_kind.T, differences.T, strict=True)
        cells = [cell for column, difference in columns for cell in _cells(column, difference, kind != KINDS[0])]
        print(f"{start} | {kind} | {' | '.join(cells)} |", flush=True)


def _cells(column: NDArray[np.float64], differences: NDArray[np.float64], is_compared: bool) -> Iterable[str]:
    """A mean, and the mean difference with its 95 % interval."""
    if np.isnan(column).all():
        return "", ""
    half = stats.t.ppf(0.975, len(differences) - 1) * stats.sem(differences)
    return f"{column.mean():.3f}", f"{differences.mean():+.3f} ± {half:.3f}" if is_compared else ""


if __name__ == "__main__":
    main()
