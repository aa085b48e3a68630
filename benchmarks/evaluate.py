"""Compare the speed of scores with intervals to a loop over scikit-learn: python benchmarks/evaluate.py

Both compute, overall and for each label, average precision, ROC-AUC, F1, precision and recall, and lwlrap overall, on
resamples of synthetic predictions with 1.4 labels per clip. spectag is timed on all resamples, scikit-learn on a few,
and its time is extrapolated. One core. The mAPs of both are compared first.
"""

import argparse
import time
import warnings

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import (
    average_precision_score,
    label_ranking_average_precision_score,
    precision_recall_fscore_support,
    roc_auc_score,
)
from threadpoolctl import threadpool_limits

from spectag.scoring.bootstrap import Resampling
from spectag.scoring.scores import score_predictions

SIZES = ((400, 10), (1_000, 50), (5_000, 80), (10_000, 200), (20_000, 527))
LABELS_PER_CLIP = 1.4

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]


def make_predictions(n_clips: int, n_labels: int, rng: np.random.Generator) -> tuple[BoolArray, FloatArray]:
    y_true = rng.random((n_clips, n_labels)) < LABELS_PER_CLIP / n_labels
    y_true[rng.integers(n_clips, size=2 * n_labels), np.arange(2 * n_labels) % n_labels] = True  # every label occurs
    return y_true, 1 / (1 + np.exp(3 - 3 * y_true - rng.standard_normal(y_true.shape)))


def spectag_seconds(y_true: BoolArray, y_score: FloatArray, n_resamples: int) -> float:
    start = time.perf_counter()
    score_predictions(y_true, y_score, range(len(y_true)), resampling=Resampling(n_resamples))
    return time.perf_counter() - start


def scikit_learn_scores(y_true: BoolArray, y_score: FloatArray) -> float:
    """Compute all scores of one resample and return the mAP."""
    precision = average_precision_score(y_true, y_score, average=None)
    with warnings.catch_warnings():  # a resample may lack a label
        warnings.simplefilter("ignore")
        roc_auc_score(y_true, y_score, average=None)
    for average in (None, "micro", "macro"):
        precision_recall_fscore_support(y_true, y_score >= 0.5, average=average, zero_division=0)
    label_ranking_average_precision_score(y_true, y_score, sample_weight=y_true.sum(axis=1))
    return float(np.mean(precision[y_true.any(axis=0)]))


def scikit_learn_seconds(y_true: BoolArray, y_score: FloatArray, n_timed: int, rng: np.random.Generator) -> float:
    """Seconds per resample."""
    start = time.perf_counter()
    for _ in range(n_timed):
        clips = rng.integers(len(y_true), size=len(y_true))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scikit_learn_scores(y_true[clips], y_score[clips])
    return (time.perf_counter() - start) / n_timed


def check(y_true: BoolArray, y_score: FloatArray) -> None:
    scores = score_predictions(y_true, y_score, range(len(y_true)), resampling=Resampling(n_resamples=0))
    ours, theirs = scores.overall["mean_average_precision"].value, scikit_learn_scores(y_true, y_score)
    if not np.isclose(ours, theirs, atol=1e-9):
        raise SystemExit(f"mAP differs: {ours} by spectag, {theirs} by scikit-learn")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--timed", type=int, default=3, help="resamples by scikit-learn")
    arguments = parser.parse_args()
    print(f"| clips | labels | spectag, {arguments.resamples:,} resamples | scikit-learn, extrapolated | speed-up |")
    print("|---|---|---|---|---|")
    for n_clips, n_labels in SIZES:
        rng = np.random.default_rng(0)
        y_true, y_score = make_predictions(n_clips, n_labels, rng)
        check(y_true, y_score)
        ours = spectag_seconds(y_true, y_score, arguments.resamples)
        theirs = arguments.resamples * scikit_learn_seconds(y_true, y_score, arguments.timed, rng)
        print(f"| {n_clips:,} | {n_labels} | {ours:.2f} s | {theirs:,.0f} s | {theirs / ours:,.0f} |", flush=True)


if __name__ == "__main__":
    with threadpool_limits(1):
        main()
