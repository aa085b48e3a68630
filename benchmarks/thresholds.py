"""How often thresholds for a precision or recall reach it on new clips, and how many clips they then detect.

    python benchmarks/thresholds.py [CLIPS.csv] [--fits 200] [--seed 1]

Compares `spectag calibrate` with the plain rule: the lowest threshold whose precision on the clips of the fit reaches
the goal (for a recall, the highest). The probabilities are calibrated on the same clips. "stated": fits which say that
the goal is reached with a confidence of 0.9. "wrong": fits that say so although new clips miss the goal.

Simulated: ten labels, 50 to 2,000 clips, 400,000 new clips. Logits are normal, and their mean is higher if the clip
has the label: by 5 (easy), 3 (medium) or 2 (hard). alike: other sounds, 5 % as frequent as the label, have the logits
of the label. just below: 12 % as frequent, so that hardly any threshold has a precision above 0.893. 5 a recording: so
many clips have the same labels and similar logits.

CLIPS.csv, with the columns fname, labels and source (the recording): real clips, cut into excerpts of 1 s. A model with
a frozen mn04 is trained on them once. Then 70 % of the recordings are drawn for a fit on the held-out predictions; the
others are the new clips. As these are few, even an exact precision of 0.9 would often be measured as less.
"""

import argparse
import csv
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import spectag
from spectag.models.out_of_fold import read_out_of_fold
from spectag.scoring.calibration import fit_calibration, probabilities_of
from spectag.scoring.thresholds import ThresholdGoal, fit_to_goal

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

N_LABELS = 10
N_NEW = 400_000
SEPARATIONS = {"easy": 5.0, "medium": 3.0, "hard": 2.0, "alike": 4.0, "just below": 4.0}
FRACTIONS_ALIKE = {"alike": 0.05, "just below": 0.12}
SIZES = (
    (50, 0.3, 1),
    (100, 0.3, 1),
    (400, 0.1, 1),
    (400, 0.3, 1),
    (2000, 0.1, 1),
    (2000, 0.1, 5),
)  # clips, frequency, per recording
CASES = [(name, *size) for name in SEPARATIONS for size in SIZES]
HEADER = (
    f"{'clips':42}{'goal':16}{'plain: reached':>15}{'recall':>8}{'stated':>8}{'reached':>9}{'wrong':>7}{'recall':>8}"
)


@dataclass
class Tally:
    """The outcome of every fit of a label on new clips, by the plain rule and by the package."""

    plain_reached: list[bool] = field(default_factory=list)
    plain_recall: list[float] = field(default_factory=list)
    stated: list[bool] = field(default_factory=list)
    reached: list[bool] = field(default_factory=list)
    recall: list[float] = field(default_factory=list)

    def row(self, name: str, goal: str) -> str:
        stated, reached = np.array(self.stated), np.array(self.reached)
        of_stated = f"{reached[stated].mean():.1%}" if stated.any() else "-"
        recall = f"{np.array(self.recall)[stated].mean():.2f}" if stated.any() else "-"
        return (
            f"{name:42}{goal:16}{np.mean(self.plain_reached):15.1%}{np.mean(self.plain_recall):8.2f}"
            f"{stated.mean():8.0%}{of_stated:>9}{(stated & ~reached).mean():7.1%}{recall:>8}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="?", type=Path)
    parser.add_argument("--fits", type=int, default=200, help="of all labels")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print(HEADER)
    rng = np.random.default_rng(options.seed)
    for goal in (ThresholdGoal(kind="precision", at_least=0.9), ThresholdGoal(kind="recall", at_least=0.9)):
        for case in CASES:
            simulate(*case, goal, options.fits // N_LABELS, rng)
    if options.clips is not None:
        measure(options.clips, options.fits // N_LABELS, np.random.default_rng(options.seed))


def simulate(
    name: str,
    n_clips: int,
    frequency: float,
    per_recording: int,
    goal: ThresholdGoal,
    n_fits: int,
    rng: np.random.Generator,
) -> None:
    tally = Tally()
    new_truth, new_logits, _ = draw(name, N_NEW, frequency, per_recording, np.random.default_rng(0))
    curves = [precision_recall(new_truth[:, 0], new_logits[:, 0])] * N_LABELS  # all labels are alike
    for _ in range(n_fits):
        truth, logits, recordings = draw(name, n_clips, frequency, per_recording, rng)
        add_fit(tally, truth, logits, recordings, goal, curves)
    title = f"{name}, {n_clips:,}, {frequency:.0%} of them" + (f", {per_recording} a recording" * (per_recording > 1))
    print(tally.row(title, f"{goal.kind} {goal.at_least}"), flush=True)


def draw(
    name: str, n_clips: int, frequency: float, per_recording: int, rng: np.random.Generator
) -> tuple[Bools, Floats, NDArray[np.int64]]:
    """Truth and logits (n_clips, n_labels), underconfident, and recordings (n_clips,)."""
    n_labels = 1 if n_clips == N_NEW else N_LABELS
    recordings = np.arange(n_clips) // per_recording
    shape = recordings[-1] + 1, n_labels
    truth = rng.random(shape) < frequency
    is_alike = ~truth & (rng.random(shape) < FRACTIONS_ALIKE.get(name, 0.0) * frequency / (1 - frequency))
    center = rng.normal(0, 0.8 if per_recording > 1 else 0, shape) + SEPARATIONS[name] * (truth | is_alike)
    noise = rng.normal(0, 0.6 if per_recording > 1 else 1, (n_clips, n_labels))
    return truth[recordings], (center[recordings] + noise - 2) / 2, recordings


def measure(path: Path, n_fits: int, rng: np.random.Generator) -> None:
    """Real clips: train once, and fit on random 70 % of the recordings."""
    with tempfile.TemporaryDirectory() as folder:
        manifest = write_excerpts(path, Path(folder) / "excerpts.csv")
        model = Path(folder) / "model"
        spectag.train(manifest, model, data=spectag.DataOptions(group_column="source"))
        stored = read_out_of_fold(model)
    assert stored is not None
    rows = stored.has_prediction
    truth, logits, recordings = stored.y_true[rows], stored.logits[rows], np.array(stored.groups)[rows]
    split_repeatedly(f"{path.stem}, excerpts of 1 s", truth, logits, recordings, n_fits, rng)


def split_repeatedly(
    name: str, truth: Bools, logits: Floats, recordings: NDArray[np.str_], n_fits: int, rng: np.random.Generator
) -> None:
    """Fit on random 70 % of the recordings; the others are the new clips."""
    for kind in ("precision", "recall"):
        for at_least in (0.8, 0.9):
            tally, goal = Tally(), ThresholdGoal(kind=kind, at_least=at_least)
            for _ in range(n_fits):
                names = rng.permutation(np.unique(recordings))
                is_fit = np.isin(recordings, names[: round(0.7 * len(names))])
                curves = [
                    precision_recall(truth[~is_fit, label], logits[~is_fit, label]) for label in range(truth.shape[1])
                ]
                add_fit(tally, truth[is_fit], logits[is_fit], recordings[is_fit], goal, curves)
            print(tally.row(name, f"{kind} {at_least}"), flush=True)


def write_excerpts(path: Path, excerpts: Path) -> Path:
    """A manifest of five excerpts of 1 s of every clip."""
    with path.open(encoding="utf-8", newline="") as file, excerpts.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["fname", "labels", "start", "end", "source"])
        for row in csv.DictReader(file):
            fname = (path.parent / row["fname"]).resolve()
            writer.writerows([fname, row["labels"], start, start + 1, row["source"]] for start in range(5))
    return excerpts


Curve = tuple[Floats, Floats, Floats]


def precision_recall(truth: Bools, logits: Floats) -> Curve:
    """Falling logits, and precision and recall of new clips down to each of them."""
    order = np.argsort(-logits)
    n_hits = np.cumsum(truth[order])
    return logits[order], n_hits / np.arange(1, len(truth) + 1), n_hits / max(truth.sum(), 1)


def add_fit(
    tally: Tally,
    truth: Bools,
    logits: Floats,
    recordings: NDArray[np.generic],
    goal: ThresholdGoal,
    curves: list[Curve],
) -> None:
    """Fit calibration and thresholds as `spectag calibrate` does, and look up their precision and recall."""
    assert goal.at_least is not None
    calibration = fit_calibration(logits, truth, method="platt")
    probabilities = probabilities_of(logits, calibration)
    fitted = fit_to_goal(truth, probabilities, goal, groups=recordings)
    for label, curve in enumerate(curves):
        if np.isnan(fitted.thresholds[label]):
            continue
        # calibration is increasing: compare ranks of logits instead of probabilities
        detected = logits[probabilities[:, label] >= fitted.thresholds[label], label]
        missed = logits[probabilities[:, label] < fitted.thresholds[label], label]
        outcome = look_up(curve, (detected.min() + missed.max(initial=detected.min() - 1e-9)) / 2)
        tally.stated.append(bool(fitted.reaches_goal[label]))
        tally.reached.append(outcome[goal.kind] >= goal.at_least)
        tally.recall.append(outcome["recall"])
        outcome = look_up(curve, plain_threshold(truth[:, label], logits[:, label], goal))
        tally.plain_reached.append(outcome[goal.kind] >= goal.at_least)
        tally.plain_recall.append(outcome["recall"])


def look_up(curve: Curve, threshold: float) -> dict[str, float]:
    """Precision and recall of new clips; a precision of 1 if none is detected."""
    logits, precisions, recalls = curve
    n_detected = int(np.searchsorted(-logits, -threshold, side="right"))
    if n_detected == 0:
        return {"precision": 1.0, "recall": 0.0}
    return {"precision": precisions[n_detected - 1], "recall": recalls[n_detected - 1]}


def plain_threshold(truth: Bools, logits: Floats, goal: ThresholdGoal) -> float:
    """Midway below the last clip with which the precision or recall of these clips reaches the goal."""
    assert goal.at_least is not None
    falling, precisions, recalls = precision_recall(truth, logits)
    if goal.kind == "precision":
        last = int(np.flatnonzero(precisions >= min(goal.at_least, precisions.max()))[-1])
    else:
        last = int(np.argmax(recalls >= goal.at_least))
    return float(falling[last : last + 2].mean())


if __name__ == "__main__":
    main()
