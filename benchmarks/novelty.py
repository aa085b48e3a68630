"""Novelty of sounds: false tags on sounds of other classes, and true tags lost, with and without --max-novelty 1.

    python benchmarks/novelty.py esc10.csv --group-column source [--known 5] [--rotations 10]

The manifest has one label per clip, and folds. In each rotation, a few random labels are known and all others are
foreign. A model is trained on all folds but one, with thresholds and novelty from these folds, and tags the known clips
of the held-out fold and all foreign clips: as a whole, and in windows of 1.5 s, where a clip has the tags of its
windows. Printed: means over folds and rotations, with 95 % intervals over rotations. Then the fraction of known clips
above 1 after changes of the recording, and of mixes of one to four clips (as in benchmarks/competition.py), where each
training mix is made of one fold, and test mixes of the last fold. At the end, how often the shift check warns about
runs of ten recordings, or of a single label.
"""

import argparse
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, sosfilt
from scipy.special import expit

from competition import N_SOUNDS, N_SOUNDS_PROBABILITIES, mix_sounds
from spectag.audio.files import read_audio
from spectag.audio.front_end import FrontEnd
from spectag.audio.sound_statistics import measure_sound
from spectag.config.backbones import resolve_mel
from spectag.config.recipe import Recipe
from spectag.data.manifest import read_manifest
from spectag.models.network_session import open_session
from spectag.models.novelty import NoveltyInfo
from spectag.models.timeline import Timeline
from spectag.models.training_sounds import TrainingSounds
from spectag.scoring.thresholds import fit_thresholds
from spectag.system.cache import cache_folder
from spectag.tagging.parallel import TaggedFile
from spectag.tagging.shift_check import ShiftCheck
from spectag.training.heads.novelty import fit_novelty
from spectag.training.heads.per_fold import FrozenFeatures, fit_linear_heads
from spectag.training.inputs.feature_store import FeatureStore
from spectag.training.setup.callbacks import Callbacks
from spectag.training.setup.cross_validation import CrossValidation
from spectag.training.setup.held_out import HeldOut

Waveform = NDArray[np.float32]
Features = NDArray[np.float32]

WINDOW_SECONDS, HOP_SECONDS = 1.5, 0.5
N_RECORDINGS = 10  # of a run, for the shift check
N_TRAIN, N_TEST = 300, 150  # mixed clips


@dataclass(frozen=True)
class Data:
    """The clips of a manifest: their features as a whole, in windows, and after changes of the recording."""

    labels: NDArray[np.int64]
    folds: NDArray[np.str_]
    groups: NDArray[np.str_]
    waveforms: list[Waveform]
    sample_rate: int
    group_sizes: list[int]
    whole: Features
    windows: list[Features]
    changed: dict[str, Features]
    features_of: Callable[[Waveform], Features]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--group-column", default=None)
    parser.add_argument("--known", type=int, default=5)
    parser.add_argument("--rotations", type=int, default=10)
    parser.add_argument("--backbones", nargs="+", default=["mn04_audioset", "efficientnet_lite0"])
    arguments = parser.parse_args()
    for backbone in arguments.backbones:
        data = read_data(arguments.manifest, arguments.group_column, backbone)
        rows = [
            rotation(data, arguments.known, seed) | mixed_rotation(data, arguments.known, seed)
            for seed in range(arguments.rotations)
        ]
        print(f"{backbone}: means of {arguments.rotations} rotations, {arguments.known} labels known")
        for name in rows[0]:
            values = np.array([row[name] for row in rows])
            margin = 1.96 * values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
            print(f"  {name:54}{values.mean():7.3f}  ± {margin:.3f}")
        for name, fraction in warnings(data).items():
            print(f"  shift check warns, {name:35}{fraction:7.3f}")


def read_data(manifest_path: Path, group_column: str | None, backbone: str) -> Data:
    """Read the sounds and compute all features."""
    manifest = read_manifest(manifest_path, group_column=group_column)
    recipe = Recipe(backbone=backbone)
    front_end = FrontEnd(mel=resolve_mel(backbone, None))
    rate = front_end.sample_rate
    store = FeatureStore(cache_folder() / "spectrograms", recipe, front_end)
    waveforms = [read_audio(clip.path, sample_rate=rate)[0] for clip in manifest.clips]
    example = front_end.input_of_waveform(waveforms[0])
    session = open_session(store.onnx_file(example), n_threads=1)

    def features(waveform: Waveform) -> Features:
        inputs = front_end.input_of_waveform(np.asarray(waveform, np.float32))
        return np.asarray(session.run(["features"], {"inputs": inputs[None]})[0][0])

    changes = changes_of_the_recording(rate)
    return Data(
        labels=manifest.multi_hot().argmax(axis=1),
        folds=np.array([str(clip.fold) for clip in manifest.clips]),
        groups=np.array(manifest.groups),
        waveforms=waveforms,
        sample_rate=rate,
        group_sizes=store.group_sizes(example),
        whole=np.stack([features(waveform) for waveform in waveforms]),
        windows=[np.stack(list(map(features, windows_of(waveform, rate)))) for waveform in waveforms],
        changed={
            name: np.stack([features(change(waveform)) for waveform in waveforms]) for name, change in changes.items()
        },
        features_of=features,
    )


def windows_of(waveform: Waveform, rate: int) -> list[Waveform]:
    length, hop = round(WINDOW_SECONDS * rate), round(HOP_SECONDS * rate)
    return [waveform[start : start + length] for start in range(0, max(1, len(waveform) - length + 1), hop)]


def changes_of_the_recording(rate: int) -> dict[str, Callable[[Waveform], Waveform]]:
    """Functions of a waveform, by name."""
    low_pass = butter(8, 4000, fs=rate, output="sos")
    phone = butter(2, [150, 9000], btype="band", fs=rate, output="sos")

    def with_noise(waveform: Waveform, decibels: float) -> Waveform:
        level = np.sqrt(np.mean(np.square(waveform)) + 1e-12) * 10 ** (decibels / 20)
        return waveform + level * np.random.default_rng(0).normal(size=len(waveform))

    return {
        "low-pass at 4 kHz": lambda waveform: sosfilt(low_pass, waveform),
        "150 Hz to 9 kHz, noise at -40 dB": lambda waveform: with_noise(sosfilt(phone, waveform), -40),
        "noise at -10 dB": lambda waveform: with_noise(waveform, -10),
        "25 dB quieter": lambda waveform: 10 ** (-25 / 20) * waveform,
    }


def rotation(data: Data, n_known: int, seed: int) -> dict[str, float]:
    """Means over the folds, with random labels known."""
    known = np.random.default_rng(seed).permutation(np.unique(data.labels))[:n_known]
    is_known = np.isin(data.labels, known)
    y_true = data.labels[:, None] == known
    results = defaultdict(list)
    for fold in np.unique(data.folds):
        train, test = is_known & (data.folds != fold), is_known & (data.folds == fold)
        for name, value in tag_fold(data, y_true, train, test, ~is_known).items():
            results[name].append(value)
    return {name: float(np.mean(values)) for name, values in results.items()}


def tag_fold(
    data: Data,
    y_true: NDArray[np.bool_],
    train: NDArray[np.bool_],
    test: NDArray[np.bool_],
    foreign: NDArray[np.bool_],
) -> dict[str, float]:
    """Train on some clips, and tag known and foreign ones."""
    rows = tuple(data.folds[train] == fold for fold in np.unique(data.folds[train]))
    held_out = HeldOut(tuple(map(str, range(len(rows)))), rows, False, "", groups=tuple(data.groups[train]))
    folds = CrossValidation.of(y_true[train], held_out)
    features = FrozenFeatures(data.whole[train], data.group_sizes)
    fit = fit_linear_heads(features, folds, Recipe(), Callbacks())
    head, novelty = fit.heads[-1], fit_novelty(features, folds)
    thresholds = fit_thresholds(y_true[train], expit(folds.cross_fitted(fit.logits)))

    def tags(clip: Features) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        return expit(head.logits(clip)) >= thresholds, novelty(clip)

    results = {}
    for how, clips in (("whole clips", data.whole[:, None]), (f"windows of {WINDOW_SECONDS:g} s", data.windows)):
        true, true_kept, false, false_kept = [], [], [], []
        n_true_windows = n_true_windows_kept = 0
        for row in np.flatnonzero(test):
            detected, novelties = tags(clips[row])
            true.append((detected & y_true[row]).any())
            true_kept.append((detected & y_true[row] & (novelties <= 1)[:, None]).any())
            is_true = (detected & y_true[row]).any(axis=1)
            n_true_windows += is_true.sum()
            n_true_windows_kept += (is_true & (novelties <= 1)).sum()
        for row in np.flatnonzero(foreign):
            detected, novelties = tags(clips[row])
            false.append(detected.any())
            false_kept.append((detected & (novelties <= 1)[:, None]).any())
        results[f"{how}: foreign clips with a tag"] = np.mean(false)
        results[f"{how}: the same with --max-novelty 1"] = np.mean(false_kept)
        results[f"{how}: true tags of clips lost"] = 1 - np.sum(true_kept) / np.sum(true)
        if how != "whole clips":
            results[f"{how}: true tags of windows lost"] = 1 - n_true_windows_kept / n_true_windows
    results["known clips above 1"] = np.mean(novelty(data.whole[test]) > 1)
    results["foreign clips above 1"] = np.mean(novelty(data.whole[foreign]) > 1)
    for name, changed in data.changed.items():
        results[f"known clips above 1, {name}"] = np.mean(novelty(changed[test]) > 1)
    return results


def mixed_rotation(data: Data, n_known: int, seed: int) -> dict[str, float]:
    """The novelty of mixed clips, with random labels known."""
    rng = np.random.default_rng(seed)
    names = rng.permutation(np.unique(data.labels))
    known, foreign = names[:n_known], names[n_known:]
    *train_folds, test_fold = np.unique(data.folds)
    train = [mixed_clips(data, known, data.folds == fold, N_TRAIN // len(train_folds), rng) for fold in train_folds]
    features, y_true = (np.concatenate(arrays) for arrays in zip(*train, strict=True))
    fold_of_row = np.repeat(np.arange(len(train)), [len(rows) for rows, _ in train])
    rows = tuple(fold_of_row == number for number in range(len(train)))
    folds = CrossValidation.of(y_true, HeldOut(tuple(map(str, train_folds)), rows, False, ""))
    novelty = fit_novelty(FrozenFeatures(features, data.group_sizes), folds)
    is_test = data.folds == test_fold
    return {
        f"mixed clips above 1, {name}": np.mean(novelty(mixed_clips(data, labels, is_test, N_TEST, rng)[0]) > 1)
        for name, labels in (("known", known), ("foreign", foreign))
    }


def mixed_clips(
    data: Data, labels: NDArray[np.int64], rows: NDArray[np.bool_], n_clips: int, rng: np.random.Generator
) -> tuple[Features, NDArray[np.bool_]]:
    """Features and labels (n_clips, n_labels) of mixes of clips of different labels."""
    features, y_true = [], []
    for _ in range(n_clips):
        chosen = rng.choice(labels, rng.choice(N_SOUNDS, p=N_SOUNDS_PROBABILITIES), replace=False)
        sounds = [data.waveforms[rng.choice(np.flatnonzero(rows & (data.labels == label)))] for label in chosen]
        features.append(data.features_of(mix_sounds([excerpt(sound, rng) for sound in sounds], rng)[0]))
        y_true.append(np.isin(labels, chosen))
    return np.stack(features), np.stack(y_true)


def excerpt(waveform: Waveform, rng: np.random.Generator) -> Waveform:
    """A random part of a waveform, without silence at its ends."""
    loud = np.flatnonzero(np.abs(waveform) > 1e-4)
    sound = waveform[loud[0] : loud[-1] + 1] if len(loud) else waveform
    n_samples = int(len(sound) * rng.uniform(0.4, 1))
    start = int(rng.integers(len(sound) - n_samples + 1))
    return sound[start : start + n_samples]


def warnings(data: Data) -> dict[str, float]:
    """How often the shift check warns, without novelty: training on all folds but one, ten recordings of that fold."""
    changes = {"the same device": lambda waveform: waveform, **changes_of_the_recording(data.sample_rate)}
    measured = {
        name: [measure_sound(np.asarray(change(waveform), np.float32), data.sample_rate) for waveform in data.waveforms]
        for name, change in changes.items()
    }
    seconds = np.array([len(waveform) / data.sample_rate for waveform in data.waveforms])
    rng, results = np.random.default_rng(0), defaultdict(list)
    for fold in np.unique(data.folds):
        train, test = np.flatnonzero(data.folds != fold), np.flatnonzero(data.folds == fold)
        plain = measured["the same device"]
        training = TrainingSounds.of([plain[row] for row in train], seconds[train])

        def warns(name: str, chosen: NDArray[np.int64], training: TrainingSounds = training) -> bool:
            check = ShiftCheck(training, NoveltyInfo(n_held_out=1), compares_duration=True)
            for row in np.resize(chosen, max(len(chosen), N_RECORDINGS)):
                times = np.zeros(1), seconds[[row]]
                timeline = Timeline(*times, np.zeros((1, 1), np.float32))
                check.add(replace(TaggedFile("a.wav", timeline), sound=measured[name][row]))
            return bool(check.differences())

        for name in measured:
            results[name] += [warns(name, rng.choice(test, N_RECORDINGS, replace=False)) for _ in range(20)]
        for label in np.unique(data.labels):
            results["one label, the same device"].append(warns("the same device", test[data.labels[test] == label]))
    return {name: float(np.mean(values)) for name, values in results.items()}


if __name__ == "__main__":
    main()
