"""How to pool the parts of a long recording: by the mean of their logits, probabilities or odds.

    python benchmarks/long_recordings.py ../shared/data/esc10/esc10.csv

Long recordings are simulated from ESC-10: their parts are clips of 5 s (10 s for the published model: a clip twice), or
white noise of random level.
"""

import argparse
from collections.abc import Callable

import numpy as np
from scipy.special import expit, logit
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import spectag
from spectag.array_types import BoolArray, FloatArray, IntArray
from spectag.audio.files import read_audio
from spectag.models.timeline import pool_logits
from spectag.scoring.metrics import lwlrap

Pool = Callable[[FloatArray], FloatArray]

RATE = 32_000
AUDIOSET = {
    "Dog_bark": "Bark",
    "Rooster": "Chicken, rooster",
    "Rain": "Rain",
    "Sea_waves": "Waves, surf",
    "Fire_crackling": "Fire",
    "Baby_cry": "Baby cry, infant cry",
    "Person_sneeze": "Sneeze",
    "Clock_tick": "Tick",
    "Helicopter": "Helicopter",
    "Chainsaw": "Chainsaw",
}
POOLS: dict[str, Pool] = {
    "mean of logits": lambda logits: logits.mean(axis=0),
    "mean of probabilities": lambda logits: logit(expit(logits).mean(axis=0).clip(1e-12, 1 - 1e-12)),
    "mean of odds": lambda logits: pool_logits(logits, np.ones(len(logits))),
}


def main() -> None:
    """Print the tables of docs/benchmarks.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("manifest", help="ESC-10, with its folds")
    manifest = spectag.read_manifest(parser.parse_args().manifest)
    rng = np.random.default_rng(0)
    tagger = spectag.load("audioset-mn04")
    waveforms = [read_audio(clip.path, sample_rate=RATE)[0] for clip in manifest.clips]
    noise = [10 ** rng.uniform(-4, -1.5) * rng.normal(size=5 * RATE).astype(np.float32) for _ in waveforms]
    y_true, folds = manifest.multi_hot(), np.array([clip.fold for clip in manifest.clips])

    published = np.array([tagger.outputs(np.tile(waveform, 2), RATE).logits for waveform in waveforms], np.float64)
    columns = [tagger.labels.index(AUDIOSET[name]) for name in manifest.labels.names]
    print("published mn04, threshold 0.1: sounds found, false detections per label")
    for n_parts in (2, 3, 6):
        rows = np.array([rng.choice(len(y_true), n_parts, replace=False) for _ in range(400)])
        truth = y_true[rows].any(axis=1)
        for name, pool in POOLS.items():
            detected = expit(pool(published[:, columns][rows.T])) >= 0.1
            print(f"{10 * n_parts} s | {name} | {detected[truth].mean():.3f} | {detected[~truth].mean():.4f}")

    features = np.array([tagger.outputs(waveform, RATE).features for waveform in waveforms], np.float64)
    of_noise = np.array([tagger.outputs(waveform, RATE).features for waveform in noise], np.float64)
    others = [_of_same_fold(folds, rng) for _ in range(3)]
    silent = [of_noise, of_noise[::-1], of_noise[rng.permutation(len(of_noise))]]
    four_labels = y_true | np.any([y_true[rows] for rows in others], axis=0)
    recordings = {
        "noise and a sound": ([silent[0], features], y_true),
        "noise, noise, noise, a sound": ([*silent, features], y_true),
        "two sounds": ([features[others[0]], features], y_true | y_true[others[0]]),
        "four sounds": ([*(features[rows] for rows in others), features], four_labels),
    }
    print("\nrecording | pooled by | head of short clips: lwlrap, found at 0.4, false | of such recordings: lwlrap")
    for name, (parts, truth) in recordings.items():
        by_short = _held_out(np.array(parts), features, y_true, folds)
        by_long = _held_out(np.array(parts), np.mean(parts, axis=0), truth, folds)
        for how, pool in POOLS.items():
            logits = pool(by_short)
            detected = expit(logits) >= 0.4
            values = lwlrap(truth, logits), detected[truth].mean(), detected[~truth].mean()
            print(name, how, *(f"{value:.3f}" for value in values), f"{lwlrap(truth, pool(by_long)):.3f}", sep=" | ")


def _of_same_fold(folds: IntArray, rng: np.random.Generator) -> IntArray:
    """For each clip, a random clip of its fold."""
    return np.array([rng.choice(np.flatnonzero(folds == fold)) for fold in folds])


def _held_out(parts: FloatArray, features: FloatArray, y_true: BoolArray, folds: IntArray) -> FloatArray:
    """Logits (n_parts, n_clips, n_labels) of the parts by heads trained on the features of the other folds."""
    logits = np.empty((*parts.shape[:2], y_true.shape[1]))
    for fold in np.unique(folds):
        valid = folds == fold
        axes = make_pipeline(StandardScaler(), PCA(128, random_state=0)).fit(features[~valid])
        for label in range(y_true.shape[1]):
            head = LogisticRegression(C=0.1, max_iter=1000).fit(axes.transform(features[~valid]), y_true[~valid, label])
            for part, of_part in zip(logits, parts, strict=True):
                part[valid, label] = head.decision_function(axes.transform(of_part[valid]))
    return logits


if __name__ == "__main__":
    main()
