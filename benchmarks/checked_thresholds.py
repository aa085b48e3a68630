"""How often thresholds from 96 checked detections reach a precision of 0.9 on the unchecked rest of the table.

    python benchmarks/checked_thresholds.py [--samples 200] [--checks 96] [--seed 1]

Simulated tables of 3,000 detections of a label with probabilities from 0.2. Most are sure and some unsure (sure), or
most have low probabilities (unsure). The curves give the chance that a detection with a probability is right. Each
sample is drawn across score bands, as spectag check does. Four rules choose the lowest threshold with a precision of
0.9:

- plain: by the weighted precision of the checked detections
- bound: by its lower bound (Clopper and Pearson 1934, Kish's effective sample size), the lowest threshold of all
- sequence: the same bound, tested from the highest threshold with enough checks down, until one fails
- curves: spectag.scoring.checked_precision, which spectag calibrate --checked uses

wrong: samples with a threshold that misses the precision on the rest. recall: right detections above the threshold, as
a fraction of those above the lowest threshold that truly reaches the precision; 0 for samples without a threshold.
"""

import argparse
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc, expit, logit

from spectag.findings.checked_sample import allocate
from spectag.scoring.checked_precision import checked_precision

Floats = NDArray[np.float64]

GOAL, CONFIDENCE = 0.9, 0.9
N_DETECTIONS = 3000
CURVES: dict[str, Callable[[Floats], Floats]] = {
    "calibrated": lambda p: p,
    "steeper than calibrated": lambda p: expit(2 * logit(p) - 1),
    "few errors above 0.5": lambda p: expit(3 * logit(p) + 2),
    "a twentieth always wrong": lambda p: 0.95 * expit(3 * logit(p)),
    "0.96 above 0.6": lambda p: np.where(p > 0.6, 0.96, 0.4),
    "0.97 everywhere": lambda p: np.full(len(p), 0.97),
    "0.92 everywhere": lambda p: np.full(len(p), 0.92),
    "0.899 everywhere": lambda p: np.full(len(p), 0.899),
    "an eighth always wrong": lambda p: 0.88 * expit(3 * logit(p)),
    "too confident": lambda p: expit(0.7 * logit(p) - 0.8),
    "surest are worse": lambda p: np.where(p > 0.97, 0.75, expit(2 * logit(p))),
}


def make_table(curve: Callable[[Floats], Floats], kind: str, rng: np.random.Generator) -> tuple[Floats, Floats]:
    n = N_DETECTIONS
    scores = rng.beta(0.8, 2.5, n)
    if kind == "sure":
        scores = np.where(rng.random(n) < 0.5, rng.beta(6, 0.6, n), scores)
    probabilities = np.clip(0.2 + 0.8 * scores, 0.2, 1 - 1e-6)
    return probabilities, (rng.random(n) < curve(probabilities)).astype(float)


def draw(probabilities: Floats, n: int, rng: np.random.Generator) -> tuple[NDArray[np.int64], Floats]:
    """The rows and weights of a sample across score bands."""
    bands = np.minimum((10 * probabilities).astype(int), 9)
    members = [np.flatnonzero(bands == band) for band in np.unique(bands)]
    sizes = allocate([len(rows) for rows in members], n)
    rows = [rng.choice(found, size, replace=False) for found, size in zip(members, sizes, strict=True)]
    weights = [np.full(size, len(found) / size) for found, size in zip(members, sizes, strict=True)]
    return np.concatenate(rows), np.concatenate(weights)


def thresholds_of(probabilities: Floats, weights: Floats, is_right: Floats) -> dict[str, float | None]:
    """The threshold of each rule; None if there is none."""
    order = np.argsort(-probabilities)
    scores, sizes = probabilities[order], weights[order]
    precision = np.cumsum(sizes * is_right[order]) / np.cumsum(sizes)
    n = np.cumsum(sizes) ** 2 / np.cumsum(sizes**2)
    n_right = np.maximum(precision * n, 1e-9)
    passes = betainc(n_right, n - n_right + 1, GOAL) <= 1 - CONFIDENCE
    can_pass = GOAL**n <= 1 - CONFIDENCE
    start = int(can_pass.argmax()) if can_pass.any() else len(n)
    n_passed = int(np.append(~passes[start:], True).argmax())
    result = checked_precision(probabilities, weights, is_right, confidence=CONFIDENCE)
    index = result.lowest_index(GOAL)
    lowest = {name: np.flatnonzero(found) for name, found in (("plain", precision >= GOAL), ("bound", passes))}
    return {
        **{name: float(scores[found[-1]]) if found.size else None for name, found in lowest.items()},
        "sequence": float(scores[start + n_passed - 1]) if n_passed else None,
        "curves": None if index is None else float(result.thresholds[index]),
    }


def simulate(
    curve: Callable[[Floats], Floats], kind: str, n_samples: int, n_checks: int, seed: int
) -> dict[str, tuple[float, float]]:
    """Wrong samples and mean recall of each rule, both as fractions."""
    rng = np.random.default_rng(seed)
    outcomes: dict[str, list[tuple[bool, float]]] = {}
    for _ in range(n_samples):
        probabilities, is_right = make_table(curve, kind, rng)
        order = np.argsort(-probabilities)
        hits = np.cumsum(is_right[order])
        reaches = np.flatnonzero(hits / np.arange(1, len(hits) + 1) >= GOAL)
        best = hits[reaches[-1]] if reaches.size else np.inf
        rows, weights = draw(probabilities, n_checks, rng)
        is_rest = np.ones(len(probabilities), bool)
        is_rest[rows] = False
        for rule, threshold in thresholds_of(probabilities[rows], weights, is_right[rows]).items():
            above = probabilities >= (np.inf if threshold is None else threshold)
            rest = is_right[above & is_rest]
            outcome = bool(rest.size and rest.mean() < GOAL), min(is_right[above].sum() / best, 1.0)
            outcomes.setdefault(rule, []).append(outcome)
    return {rule: tuple(np.mean(values, axis=0).tolist()) for rule, values in outcomes.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--checks", type=int, default=96)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    rules = ("plain", "bound", "sequence", "curves")
    print("| table | curve |" + "".join(f" {rule}: wrong | recall |" for rule in rules))
    print("|---|---|" + "---|---|" * len(rules))
    for kind in ("sure", "unsure"):
        for name, curve in CURVES.items():
            found = simulate(curve, kind, arguments.samples, arguments.checks, arguments.seed)
            cells = "".join(f" {100 * found[rule][0]:.1f} % | {found[rule][1]:.2f} |" for rule in rules)
            print(f"| {kind} | {name} |{cells}", flush=True)


if __name__ == "__main__":
    main()
