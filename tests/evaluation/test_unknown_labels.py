"""Unknown labels from the table to the scores: evaluation, calibration, out-of-fold predictions and the report."""

from dataclasses import replace

import numpy as np
import pytest

from helpers.bundles import LABELS, make_bundle, make_info
from spectag.data.labels import LabelSet
from spectag.data.manifest import read_manifest
from spectag.evaluation.evaluation import evaluate
from spectag.evaluation.recalibration import calibrate
from spectag.evaluation.results import fingerprint
from spectag.models.out_of_fold import OUT_OF_FOLD_FILE, OutOfFoldPredictions, read_out_of_fold, write_out_of_fold
from spectag.reporting.evaluation_report.clip_selection import surprising_clips, worst_clips
from spectag.reporting.evaluation_report.confusion import count_confusions
from spectag.reporting.evaluation_report.curves import curve_figures
from spectag.scoring.calibration import fit_calibration
from spectag.scoring.metrics import average_precision, lwlrap
from spectag.scoring.scores import score_predictions

N_CLIPS = 60


@pytest.fixture
def table(tmp_path):
    """A table of labels in which a fifth of the cells is unknown, and the truth with NaN."""
    rng = np.random.default_rng(1)
    targets = (rng.random((N_CLIPS, 3)) < 0.4).astype(float)
    targets[rng.random(targets.shape) < 0.2] = np.nan
    lines = ["fname," + ",".join(LABELS)]
    for number, row in enumerate(targets):
        (tmp_path / f"{number}.wav").touch()
        lines.append(",".join([f"{number}.wav", *("" if np.isnan(cell) else f"{cell:g}" for cell in row)]))
    (tmp_path / "clips.csv").write_text("\n".join(lines))
    return tmp_path / "clips.csv", targets


def predictions_for(table, scores, name="predictions.csv"):
    path = table[0].with_name(name)
    lines = [",".join([f"{row}.wav", *map(str, values)]) for row, values in enumerate(scores.tolist())]
    path.write_text("\n".join(["fname," + ",".join(LABELS), *lines]))
    return path


@pytest.fixture
def scores(table, rng):
    """Scores of a good model, which is sure of every unknown label."""
    scores = np.clip(0.3 + 0.4 * np.nan_to_num(table[1]) + rng.normal(0, 0.1, (N_CLIPS, 3)), 0.01, 0.9).round(4)
    return np.where(np.isnan(table[1]), 0.99, scores)


def test_evaluation_ignores_unknown_labels(table, scores):
    path, targets = table
    others = np.where(np.isnan(targets), 0.01, scores)
    first, second = (evaluate(predictions_for(table, values), path, n_resamples=50) for values in (scores, others))
    assert first.models[0].overall["lwlrap"].value == pytest.approx(lwlrap(targets, scores))
    for label, precision in enumerate(average_precision(targets, scores)):
        assert first.models[0].per_label["average_precision"][label].value == pytest.approx(precision)
    assert first.models[0].overall == second.models[0].overall
    np.testing.assert_array_equal(first.models[0].calibration.ece_per_label, second.models[0].calibration.ece_per_label)
    assert str(first.slices) == str(second.slices)
    thresholds = [evaluation.models[0].predictions.thresholds for evaluation in (first, second)]
    np.testing.assert_array_equal(*thresholds)
    assert str(curve_figures(first.models[0])) == str(curve_figures(second.models[0]))


def test_the_fingerprint_of_a_manifest_depends_on_its_unknown_labels(table):
    manifest = read_manifest(table[0])
    all_known = replace(manifest, clips=tuple(replace(clip, unknown=()) for clip in manifest.clips))
    assert fingerprint(manifest) != fingerprint(all_known)


def test_models_are_compared_without_unknown_labels(table, scores):
    path, targets = table
    others = predictions_for(table, np.where(np.isnan(targets), 0.01, scores), "others.csv")
    [comparison] = evaluate(predictions_for(table, scores), path, compare=[others], n_resamples=50).comparisons
    assert [comparison.differences[name].difference.value for name in ("lwlrap", "roc_auc", "f1_macro")] == [0, 0, 0]


def test_an_unknown_label_is_no_error_in_the_report(table, scores):
    evaluation = evaluate(predictions_for(table, scores), table[0], n_resamples=0)
    predictions, unknown = evaluation.models[0].predictions, np.isnan(table[1])
    assert not predictions.detected[unknown].any()
    for chosen in (*worst_clips(predictions, 60), *surprising_clips(predictions, 60)):
        assert not unknown[chosen.row, list(chosen.labels)].any()
    right = replace(predictions, probabilities=np.where(predictions.y_true | unknown, 0.9, 0.1).astype(np.float32))
    right = replace(right, thresholds=np.full(right.probabilities.shape, 0.5, np.float32))
    assert worst_clips(right, 10) == []
    assert not count_confusions(right.y_true, right.probabilities, right.detected).counts.any()


# -------------------------------------------------------------------------------- out-of-fold predictions


def stored(targets, logits):
    n_clips = len(targets)
    return OutOfFoldPredictions(
        labels=LabelSet(LABELS),
        fnames=tuple(f"{row}.wav" for row in range(n_clips)),
        spans=((0.0, None),) * n_clips,
        folds=("1",) * n_clips,
        groups=tuple(map(str, range(n_clips))),
        keys=tuple(f"{row:032x}" for row in range(n_clips)),
        y_true=targets == 1,
        logits=logits,
        known=~np.isnan(targets),
    )


@pytest.fixture
def clips(rng):
    targets = (rng.random((240, 3)) < 0.4).astype(float)
    logits = 2 * targets - 1.5 + rng.normal(size=targets.shape)
    targets[rng.random(targets.shape) < 0.2] = np.nan
    return stored(targets, logits)


def test_unknown_labels_are_stored_with_a_model(tmp_path, clips):
    bundle = make_bundle(tmp_path / "model", make_info())
    write_out_of_fold(bundle / OUT_OF_FOLD_FILE, clips)
    again = read_out_of_fold(bundle)
    np.testing.assert_array_equal(again.targets, clips.targets)
    np.testing.assert_array_equal(again.y_true, clips.y_true)
    joined = replace(clips, keys=tuple(f"x{key}" for key in clips.keys))
    np.testing.assert_array_equal(
        again.with_training_clips(joined).targets, np.concatenate([clips.targets, clips.targets])
    )


def test_stored_clips_are_calibrated_and_scored_without_unknown_labels(tmp_path, clips):
    bundle = make_bundle(tmp_path / "model", make_info())
    write_out_of_fold(bundle / OUT_OF_FOLD_FILE, clips)
    result = calibrate(bundle, in_place=True)
    clips = read_out_of_fold(bundle)
    assert result.info.calibration == fit_calibration(clips.logits, clips.targets, folds=clips.fold_indices)
    fitted = clips.cross_fitted()
    expected = score_predictions(clips.targets, fitted.probabilities, clips.groups, thresholds=fitted.thresholds)
    assert result.info.metrics["lwlrap"] == pytest.approx(expected.lwlrap)
    assert [label.n_clips for label in result.labels] == clips.y_true.sum(axis=0).tolist()
