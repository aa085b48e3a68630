"""How often 95 % intervals contain the true score, by simulation.

    python benchmarks/intervals.py [--simulations 1000] [--resamples 300] [--workers 2] [--differences]

Every clip has one of ten equally frequent labels. The scores of a clip are normal noise, plus a distance for its label,
which is chosen for the accuracy. Probabilities are their softmax, and thresholds are 0.4. "recordings" are clips of
the same label whose noise is correlated (0.5) by fours; the other clips are independent. The true scores are those of
200,000 clips.

The table has the mean coverage over the accuracies, and in brackets the lowest. "-": no interval, because labels have
too few recordings; with n % if only n % of the simulations have one. With --differences, the intervals are those of the
difference to a second model on the same clips, whose noise is correlated (0.7) and whose accuracy is 0.05 lower.
"""

import argparse
import math
import os
from concurrent.futures import ProcessPoolExecutor

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import softmax
from scipy.stats import norm

from spectag.scoring.bootstrap import Estimate, Resampling, paired_difference
from spectag.scoring.scores import OVERALL_METRICS, resampled_scores, scores_of

N_LABELS = 10
THRESHOLD = 0.4
SIZES = (20, 50, 100, 300, 1000)
ACCURACIES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
CLIPS_PER_RECORDING = 4
BETWEEN_RECORDINGS, BETWEEN_MODELS = 0.5, 0.7  # correlations of the noise
LOSS_OF_ACCURACY = 0.05

Arrays = tuple[NDArray[np.bool_], list[NDArray[np.float64]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=1000)
    parser.add_argument("--resamples", type=int, default=300)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--differences", action="store_true")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    samplings = [(False, size) for size in SIZES] + [(True, size) for size in SIZES]
    cells = [
        (size, in_recordings, accuracy, arguments.differences, arguments.resamples, arguments.simulations)
        for in_recordings, size in samplings
        for accuracy in ACCURACIES
    ]
    with ProcessPoolExecutor(arguments.workers) as pool:
        results = list(pool.map(simulate, *zip(*cells, strict=True)))
    columns = [f"{size}{' in recordings' if in_recordings else ''}" for in_recordings, size in samplings]
    print("| clips |", " | ".join(columns), "|")
    print("|" + "---|" * (len(columns) + 1))
    for metric in OVERALL_METRICS:
        by_accuracy = [result[metric] for result in results]
        n = len(ACCURACIES)
        texts = [cell_text(by_accuracy[start : start + n]) for start in range(0, len(cells), n)]
        print(f"| {metric} |", " | ".join(texts), "|")
    n_without_width = sum(result[metric][2] for result in results for metric in OVERALL_METRICS)
    print(f"\nintervals without a width: {n_without_width}")


def cell_text(counts: list[tuple[int, int, int, int]]) -> str:
    """Mean and lowest coverage over the accuracies; "-" if most simulations of an accuracy have no interval."""
    n_intervals, n_simulations = sum(n for _, n, _, _ in counts), sum(n for *_, n in counts)
    rates = [covered / n for covered, n, _, n_simulated in counts if n >= n_simulated / 2]
    if n_intervals < n_simulations / 2 or len(rates) < len(counts):
        return "-"
    text = f"{100 * np.mean(rates):.1f} ({100 * min(rates):.1f})"
    share = math.floor(100 * n_intervals / n_simulations)
    return text if share >= 99 else f"{text}, {share} %"


def simulate(
    size: int, in_recordings: bool, accuracy: float, differences: bool, n_resamples: int, n_simulations: int
) -> dict[str, tuple[int, int, int, int]]:
    """For each score, how many intervals contain the truth; intervals; those without a width; simulations."""
    accuracies = [accuracy, accuracy - LOSS_OF_ACCURACY] if differences else [accuracy]
    distances = [distance_for(each) for each in accuracies]
    truth = true_scores(distances)
    rng = np.random.default_rng([size, in_recordings, round(1000 * accuracy)])
    counts = {metric: np.zeros(3, int) for metric in OVERALL_METRICS}
    for simulation in range(n_simulations):
        per_recording = CLIPS_PER_RECORDING if in_recordings else 1
        groups = (np.arange(size) // per_recording).tolist()
        estimates = estimate(
            draw(size, per_recording, distances, rng), groups, Resampling(n_resamples, seed=simulation)
        )
        for metric, interval in estimates.items():
            if not math.isnan(interval.low):
                is_covered = interval.low - 1e-9 <= truth[metric] <= interval.high + 1e-9
                counts[metric] += is_covered, 1, interval.high - interval.low < 1e-9
    return {metric: (*map(int, count), n_simulations) for metric, count in counts.items()}


def distance_for(accuracy: float) -> float:
    """The distance by which the score of the true label must be higher on average."""
    x = np.linspace(-8, 8, 4001)
    return float(brentq(lambda d: np.trapezoid(norm.pdf(x) * norm.cdf(x + d) ** (N_LABELS - 1), x) - accuracy, 0, 15))


def draw(n_clips: int, per_recording: int, distances: list[float], rng: np.random.Generator) -> Arrays:
    """The truth of some clips, and the probabilities of each model."""
    recording = np.arange(n_clips) // per_recording
    y_true = np.eye(N_LABELS, dtype=bool)[rng.integers(N_LABELS, size=recording[-1] + 1)[recording]]

    def noise() -> NDArray[np.float64]:
        shared, own = rng.normal(size=(recording[-1] + 1, N_LABELS)), rng.normal(size=(n_clips, N_LABELS))
        correlation = BETWEEN_RECORDINGS if per_recording > 1 else 0.0
        return math.sqrt(correlation) * shared[recording] + math.sqrt(1 - correlation) * own

    shared = noise()
    probabilities = []
    for distance in distances:
        weight = BETWEEN_MODELS if len(distances) > 1 else 1.0
        own = 0.0 if weight == 1 else math.sqrt(1 - weight) * noise()
        probabilities.append(softmax(distance * (math.sqrt(weight) * shared + own + distance * y_true), axis=1))
    return y_true, probabilities


def estimate(arrays: Arrays, groups: list[int], resampling: Resampling) -> dict[str, Estimate]:
    """The overall scores of one model, or the differences of two."""
    y_true, models = arrays
    counts = resampling.counts(groups)
    samples = [resampled_scores(y_true, model, model >= THRESHOLD, counts) for model in models]
    scores = [
        scores_of(each, y_true, model >= THRESHOLD, groups, resampling).overall
        for each, model in zip(samples, models, strict=True)
    ]
    if len(models) == 1:
        return scores[0]
    return {
        metric: paired_difference(
            scores[0][metric],
            scores[1][metric],
            (samples[0].overall[metric][1:], samples[1].overall[metric][1:]),
            len(set(groups)),
            resampling.confidence,
        )[0]
        for metric in OVERALL_METRICS
    }


def true_scores(distances: list[float]) -> dict[str, float]:
    """The scores of many clips of one model, or the differences of two."""
    y_true, models = draw(200_000, 1, distances, np.random.default_rng(0))
    once = np.ones((len(y_true), 1), np.uint16)
    scores = [resampled_scores(y_true, model, model >= THRESHOLD, once).overall for model in models]
    return {
        metric: float(scores[0][metric][0] - (scores[1][metric][0] if len(scores) > 1 else 0))
        for metric in OVERALL_METRICS
    }


if __name__ == "__main__":
    main()
