"""Score noise: the reported score must be that of new clips of the same noise.

    python benchmarks/noise.py [--seeds 20]

Logits are drawn regardless of the labels, so nothing but the frequency of the labels can be learned. "reported" is
what `spectag train` prints: calibration is chosen and fitted on other clips (five folds of recordings, dealt by
chance), and the interval is over clips. "new clips" are many others with the final calibration, as when tagging. "in
the interval" counts the seeds whose interval contains the score of the new clips. "by label" is what would be reported
if the folds of the calibration were balanced by label, as those of the networks are.
"""

import argparse

import numpy as np
from numpy.typing import NDArray

from spectag.data.folds import stratified_folds
from spectag.models.out_of_fold import cross_fitting_folds
from spectag.scoring.calibration import cross_fit, fit_calibration, probabilities_of
from spectag.scoring.metrics import lwlrap
from spectag.scoring.scores import score_predictions

N_CLIPS, N_NEW_CLIPS = 300, 20_000
COLUMNS = ("labels", "frequencies", "no calibration", "reported", "interval", "new clips", "in the interval")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    n_seeds = parser.parse_args().seeds
    print(f"lwlrap of {N_CLIPS} clips, mean of {n_seeds} seeds", "", sep="\n")
    print("|", " | ".join([*COLUMNS, "by label"]), "|")
    print("|" + "---|" * (len(COLUMNS) + 1))
    for n_labels in (20, 80, 300):
        for frequencies in ("equal", "1 / rank"):
            runs = [score_noise(n_labels, frequencies, seed) for seed in range(n_seeds)]
            raw, reported, low, high, new, by_label = np.mean(runs, axis=0)
            n_covered = sum(low <= new <= high for _, _, low, high, new, _ in runs)
            print(
                f"| {n_labels} | {frequencies} | {raw:.4f} | {reported:.4f} | {low:.4f} to {high:.4f} | "
                f"{new:.4f} | {n_covered} of {n_seeds} | {by_label:.4f} |",
                flush=True,
            )


def score_noise(n_labels: int, frequencies: str, seed: int) -> tuple[float, ...]:
    """lwlrap without calibration, as reported, its interval, on new clips, and in folds that are balanced by label."""
    rng = np.random.default_rng(seed)
    weights = np.ones(n_labels) if frequencies == "equal" else 1 / np.arange(1, n_labels + 1)
    y_true, logits = draw_noise(weights, N_CLIPS, rng)
    new_y_true, new_logits = draw_noise(weights, N_NEW_CLIPS, rng)
    folds = cross_fitting_folds([str(clip) for clip in range(N_CLIPS)])
    fitted = cross_fit(logits, y_true, folds)
    scores = score_predictions(y_true, fitted.probabilities, range(N_CLIPS), thresholds=fitted.thresholds)
    final = fit_calibration(logits, y_true, folds=folds)
    by_label = cross_fit(logits, y_true, stratified_folds(y_true, 5, seed=seed))
    return (
        lwlrap(y_true, logits),
        scores.lwlrap,
        scores.overall["lwlrap"].low,
        scores.overall["lwlrap"].high,
        lwlrap(new_y_true, probabilities_of(new_logits, final)),
        lwlrap(y_true, by_label.probabilities),
    )


def draw_noise(
    weights: NDArray[np.float64], n_clips: int, rng: np.random.Generator
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Clips with one or two labels, and logits that know nothing about them."""
    n_labels = len(weights)
    first, second = rng.choice(n_labels, size=(2, n_clips), p=weights / weights.sum())
    y_true = np.eye(n_labels, dtype=bool)[first]
    has_two = rng.random(n_clips) < 0.2
    y_true[has_two, second[has_two]] = True
    return y_true, rng.normal(-3, 1, size=y_true.shape)


if __name__ == "__main__":
    main()
