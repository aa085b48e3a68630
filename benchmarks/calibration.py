"""What calibration gives, by method, on the clips that taggers kept from training and on clips of a test.

    python benchmarks/calibration.py MODEL [TEST.csv] [MODEL [TEST.csv] ...] [--audio-dir DIR]

A MODEL is a tagger that `spectag train` made with folds; TEST.csv is a manifest of clips that it did not learn from
(benchmarks/competition.py makes such data). Each clip is calibrated, and its thresholds of best F1 are fitted, without
its own fold or part. "kept for test": fitted on the clips that the tagger kept, and judged on the test's.
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit

from spectag.data.folds import stratified_folds
from spectag.data.manifest import read_manifest
from spectag.evaluation.predictions import predict
from spectag.models.out_of_fold import OutOfFoldPredictions, read_out_of_fold
from spectag.models.tagger import Tagger
from spectag.scoring.calibration import DEFAULT_THRESHOLD, cross_fitted, fit_calibration, probabilities_of
from spectag.scoring.metrics import lwlrap, mean_of_defined
from spectag.scoring.reliability_diagram import calibration_errors, expected_calibration_error, log_loss
from spectag.scoring.thresholds import fit_thresholds

METHODS = ("none", "temperature", "platt", "isotonic", "auto")
COLUMNS = ("ECE", "a label", "log loss", "lwlrap", "F1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("places", nargs="+", type=Path)
    parser.add_argument("--audio-dir", type=Path)
    arguments = parser.parse_args()
    print(f"{'clips':44}{'method':13}" + "".join(f"{column:>10}" for column in COLUMNS))
    model = None
    for place in arguments.places:
        if place.is_dir():
            model, kept = place, read_out_of_fold(place)
            assert kept is not None, f"{place} keeps no clips"
            of_all_methods(f"{place.name}: kept", kept.logits[kept.seen], kept.y_true[kept.seen], kept.parts[kept.seen])
            continue
        assert model is not None, f"name the tagger before {place}"
        manifest = read_manifest(place, audio_dir=arguments.audio_dir)
        said = predict(Tagger(model), manifest.clips)
        logits = np.clip(logit(said.uncalibrated.astype(np.float64)), -23, 23)
        parts = stratified_folds(said.y_true, 5, groups=[str(i) for i in range(len(logits))])
        from_kept(f"{model.name}: kept for test", kept, logits, said.y_true)
        of_all_methods(f"{model.name}: test", logits, said.y_true, parts)


def of_all_methods(name: str, logits: NDArray[np.float64], y_true: NDArray[np.bool_], parts: NDArray[np.int64]) -> None:
    for method in METHODS:
        found = cross_fitted(logits, y_true, parts, method=method)
        print_row(name, method, y_true, found.probabilities, found.thresholds)


def from_kept(name: str, kept: OutOfFoldPredictions, logits: NDArray[np.float64], y_true: NDArray[np.bool_]) -> None:
    for method in METHODS:
        calibration = fit_calibration(kept.logits, kept.y_true, method=method, parts=kept.parts)
        found = fit_thresholds(kept.y_true[kept.seen], probabilities_of(kept.logits[kept.seen], calibration))
        thresholds = np.where(np.isnan(found), DEFAULT_THRESHOLD, found)
        print_row(name, method, y_true, probabilities_of(logits, calibration), thresholds)


def print_row(
    name: str,
    method: str,
    y_true: NDArray[np.bool_],
    probabilities: NDArray[np.float64],
    thresholds: NDArray[np.float64],
) -> None:
    given = probabilities >= thresholds
    f1 = 2 * (given & y_true).sum(axis=0) / (given.sum(axis=0) + y_true.sum(axis=0))
    scores = (
        expected_calibration_error(y_true, probabilities),
        mean_of_defined(calibration_errors(y_true, probabilities)),
        log_loss(y_true, probabilities),
        lwlrap(y_true, probabilities),
        mean_of_defined(f1),
    )
    print(f"{name:44}{method:13}" + "".join(f"{score:10.4f}" for score in scores), flush=True)


if __name__ == "__main__":
    main()
