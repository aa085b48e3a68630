"""Compare the calibration methods on the clips stored with models, and on test clips.

    python benchmarks/calibration.py MODEL [TEST.csv] [MODEL [TEST.csv] ...] [--audio-dir DIR]

MODEL is a tagger that `spectag train` made with folds; TEST.csv is a manifest of clips that it was not trained on
(benchmarks/competition.py makes such data). Calibration and thresholds of best F1 are cross-fitted: those of each clip
are fitted on the clips of other folds, to which recordings are dealt by chance. "stored to test": fitted on the stored
clips and scored on the test clips.
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spectag.data.manifest import read_manifest
from spectag.evaluation.predictions import predict
from spectag.models.out_of_fold import OutOfFoldPredictions, cross_fitting_folds, read_out_of_fold
from spectag.models.tagger import Tagger
from spectag.scoring.calibration import DEFAULT_THRESHOLD, clipped_logit, cross_fit, fit_calibration, probabilities_of
from spectag.scoring.metrics import lwlrap
from spectag.scoring.reliability_diagram import calibration_errors, expected_calibration_error, log_loss
from spectag.scoring.thresholds import fill_thresholds, fit_thresholds

METHODS = ("none", "temperature", "platt", "isotonic", "auto")
SCORES = ("ECE", "per label", "log loss", "lwlrap", "F1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", type=Path)
    parser.add_argument("--audio-dir", type=Path)
    arguments = parser.parse_args()
    print(f"{'clips':44}{'method':13}" + "".join(f"{name:>10}" for name in SCORES))
    model = None
    for path in arguments.paths:
        if path.is_dir():
            model, stored = path, read_out_of_fold(path)
            assert stored is not None, f"{path} has no out-of-fold predictions"
            rows = stored.has_prediction
            cross_fit_all(f"{path.name}: stored", stored.logits[rows], stored.y_true[rows], stored.fold_indices[rows])
            continue
        assert model is not None, f"name the model before {path}"
        manifest = read_manifest(path, audio_dir=arguments.audio_dir)
        predictions = predict(Tagger(model), manifest.clips)
        logits = clipped_logit(predictions.uncalibrated)
        groups = dict(zip(manifest.clips, manifest.groups, strict=True))
        folds = cross_fitting_folds([groups[clip] for clip in predictions.clips])
        fit_on_stored(f"{model.name}: stored to test", stored, logits, predictions.y_true)
        cross_fit_all(f"{model.name}: test", logits, predictions.y_true, folds)


def cross_fit_all(name: str, logits: NDArray[np.float64], y_true: NDArray[np.bool_], folds: NDArray[np.int64]) -> None:
    for method in METHODS:
        fitted = cross_fit(logits, y_true, folds, method=method)
        print_row(name, method, y_true, fitted.probabilities, fitted.thresholds)


def fit_on_stored(
    name: str, stored: OutOfFoldPredictions, logits: NDArray[np.float64], y_true: NDArray[np.bool_]
) -> None:
    rows = stored.has_prediction
    for method in METHODS:
        calibration = fit_calibration(stored.logits, stored.y_true, method=method, folds=stored.fold_indices)
        fitted = fit_thresholds(stored.y_true[rows], probabilities_of(stored.logits[rows], calibration))
        thresholds = fill_thresholds(fitted, DEFAULT_THRESHOLD)
        print_row(name, method, y_true, probabilities_of(logits, calibration), thresholds)


def print_row(
    name: str,
    method: str,
    y_true: NDArray[np.bool_],
    probabilities: NDArray[np.float64],
    thresholds: NDArray[np.float64],
) -> None:
    detected = probabilities >= thresholds
    f1 = 2 * (detected & y_true).sum(axis=0) / (detected.sum(axis=0) + y_true.sum(axis=0))
    scores = (
        expected_calibration_error(y_true, probabilities),
        np.nanmean(calibration_errors(y_true, probabilities)),
        log_loss(y_true, probabilities),
        lwlrap(y_true, probabilities),
        np.nanmean(f1),
    )
    print(f"{name:44}{method:13}" + "".join(f"{score:10.4f}" for score in scores), flush=True)


if __name__ == "__main__":
    main()
