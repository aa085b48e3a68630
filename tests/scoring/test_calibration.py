import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydantic import ValidationError
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from spectag.scoring.calibration import Calibration, cross_fit, fit_calibration, probabilities_of
from spectag.scoring.calibration_curves import CalibrationCurve, fit_line, fit_lines, isotonic_curve, linear_curve
from spectag.scoring.reliability_diagram import expected_calibration_error, log_loss
from spectag.scoring.thresholds import ThresholdGoal, fit_thresholds


def draw_clips(rng, n_clips, scales, offsets):
    """Logits, and labels that are true with the probability of scale * logit + offset."""
    logits = rng.normal(-1, 2, (n_clips, len(scales)))
    return logits, rng.random(logits.shape) < expit(np.array(scales) * logits + np.array(offsets))


increasing = st.lists(st.tuples(st.floats(0.05, 3), st.floats(0.05, 3)), min_size=0, max_size=5).map(
    lambda steps: tuple(map(tuple, np.cumsum([(-2.0, -3.0), *steps], axis=0).tolist()))
)
curves = st.builds(CalibrationCurve, points=increasing, slope_below=st.floats(0.05, 5), slope_above=st.floats(0.05, 5))


@given(curves, arrays(np.float64, 20, elements=st.floats(-30, 30)))
def test_curve_is_linear_between_its_points_and_beyond_the_ends(curve, logits):
    xs, ys = np.transpose(curve.points)
    below, above = np.minimum(logits - xs[0], 0), np.maximum(logits - xs[-1], 0)
    expected = np.interp(logits, xs, ys) + curve.slope_below * below + curve.slope_above * above
    calibration = Calibration(method="isotonic", curves=(linear_curve(1, 0), curve))
    calibrated = calibration.calibrated_logits(np.stack([logits, logits], axis=1))
    np.testing.assert_allclose(calibrated[:, 0], logits, atol=1e-12)
    np.testing.assert_allclose(calibrated[:, 1], expected, atol=1e-9)
    order = np.argsort(logits)
    gaps = np.diff(calibrated[order, 1])
    assert (gaps[np.diff(logits[order]) > 1e-6] > 0).all()


def test_logits_may_have_any_number_of_axes_before_the_labels(rng):
    calibration = Calibration(method="platt", curves=(linear_curve(2, 1), linear_curve(0.5, -1)))
    logits = rng.normal(size=(3, 4, 2))
    assert calibration(logits).shape == (3, 4, 2)
    np.testing.assert_array_equal(calibration(logits)[1, 2], calibration(logits[1, 2]))
    np.testing.assert_allclose(calibration([0.5, 0.5]), expit([2, -0.75]))
    with pytest.raises(ValueError, match=r"\(\.\.\., 2\).*\(3,\)"):
        calibration(np.zeros(3))


def test_without_calibration_probabilities_are_the_sigmoid():
    np.testing.assert_array_equal(probabilities_of([0.0, np.nan], None), [0.5, np.nan])
    assert np.isnan(Calibration(method="platt", curves=(linear_curve(2, 0),))([np.nan])).all()


def test_calibration_survives_json():
    curve = CalibrationCurve(points=((0.0, 0.1), (1.5, 2.0)), slope_below=0.5, slope_above=2.0)
    calibration = Calibration(method="isotonic", curves=(linear_curve(0.3, -1 / 3), curve))
    assert Calibration.model_validate_json(calibration.model_dump_json()) == calibration


@pytest.mark.parametrize("points", [((0.0, 0.0), (0.0, 1.0)), ((0.0, 1.0), (1.0, 1.0))])
def test_curve_that_does_not_increase_is_refused(points):
    with pytest.raises(ValidationError, match="must increase"):
        CalibrationCurve(points=points, slope_below=1, slope_above=1)
    with pytest.raises(ValidationError, match="greater than 0"):
        linear_curve(0, 1)


def test_line_without_penalty_is_logistic_regression(rng):
    [logits], [truth] = (array.T for array in draw_clips(rng, 500, [0.6], [0.8]))
    regression = LogisticRegression(C=np.inf, tol=1e-10).fit(logits[:, None], truth)
    fitted = fit_line(logits, truth, scale_l2_penalty=0, offset_l2_penalty=0)
    assert fitted == pytest.approx((regression.coef_.item(), regression.intercept_.item()), abs=1e-4)


def test_penalty_shrinks_towards_scale_1_and_offset_0(rng):
    [logits], [truth] = (array.T for array in draw_clips(rng, 200, [3.0], [2.0]))
    scale, offset = fit_line(logits, truth, scale_l2_penalty=7, offset_l2_penalty=4)
    errors = expit(scale * logits + offset) - truth  # at the minimum the gradient is 0
    assert (errors @ logits + 7 * (scale - 1), errors.sum() + 4 * offset) == pytest.approx((0, 0), abs=1e-3)


def test_fitting_all_columns_together_equals_fitting_each_alone(rng):
    """Also where Newton's method diverges: extreme logits, and a tagger that is always wrong."""
    logits = np.column_stack([rng.normal(-1, 2, 300), 30 * rng.normal(size=300), np.linspace(-300, 300, 300)])
    truth = np.column_stack([logits[:, 0] + rng.normal(size=300) > 1, rng.random(300) < 0.3, logits[:, 2] < 0])
    scales, offsets = fit_lines(logits, truth, with_offset=True, scale_l2_penalty=3.0, offset_l2_penalty=2.0)
    for label in range(3):
        z, y = logits[:, label], truth[:, label]

        def loss(line, z=z, y=y):
            calibrated = line[0] * z + line[1]
            return np.logaddexp(0, calibrated).sum() - y @ calibrated + 1.5 * (line[0] - 1) ** 2 + line[1] ** 2

        best = minimize(loss, [0.1, 0.0], bounds=[(0.02, 50), (None, None)], method="L-BFGS-B")
        assert loss((scales[label], offsets[label])) == pytest.approx(best.fun, rel=1e-4)
        alone = fit_line(z, y, scale_l2_penalty=3.0, offset_l2_penalty=2.0)
        np.testing.assert_allclose((scales[label], offsets[label]), alone, atol=1e-6)
    assert scales[2] == 0.02  # the smallest scale: a curve never decreases


def test_empty_arrays_are_refused():
    with pytest.raises(ValueError, match=r"\(0,\) and \(0,\)"):
        fit_line([], [])


def test_true_scale_and_offset_are_recovered(rng):
    scales, offsets = [0.5, 2.0, 1.0], [1.0, -2.0, 0.0]
    logits, truth = draw_clips(rng, 20_000, scales, offsets)
    calibration = fit_calibration(logits, truth, method="platt")
    for curve, scale, offset in zip(calibration.curves, scales, offsets, strict=True):
        assert (curve.slope_below, curve.points[0][1]) == pytest.approx((scale, offset), abs=0.2)


@pytest.mark.parametrize(("n_clips", "has_own_curve"), [(10, False), (5000, True)])
def test_label_with_few_clips_is_calibrated_like_all_labels(n_clips, has_own_curve, rng):
    logits, truth = draw_clips(rng, n_clips, [2.0] * 9 + [0.5], [1.0] * 9 + [-1.0])
    *_, own = fit_calibration(logits, truth, method="platt").curves
    pooled, free = (
        fit_line(logits, truth),
        fit_line(logits[:, -1], truth[:, -1], scale_l2_penalty=0.01, offset_l2_penalty=0.01),
    )
    position = (own.slope_below - pooled[0]) / (
        free[0] - pooled[0]
    )  # 0: the common curve, 1: the curve of its own clips
    assert 0.95 < position <= 1 if has_own_curve else 0 <= position < 0.5


@pytest.mark.parametrize("method", ["temperature", "platt", "isotonic"])
def test_perfectly_separated_labels_give_finite_curves(method, rng):
    truth = np.eye(4, dtype=bool)[np.arange(1200) % 4]
    calibration = fit_calibration(np.where(truth, 2.0, -2.0), truth, method=method)
    assert np.isfinite(calibration.calibrated_logits(np.array([[-50.0, -2, 2, 50]] * 2))).all()
    assert all(0.01 < curve.slope_above < 100 for curve in calibration.curves)


def test_isotonic_regression_needs_enough_clips(rng):
    logits = rng.normal(0, 3, (6000, 2))
    truth = rng.random(logits.shape) < np.where(logits < -1, 0.1, np.where(logits < 2, 0.4, 0.8))  # steps
    truth[:, 1] &= np.arange(6000) < 150  # under 100 clips have the second label
    free = fit_calibration(logits, truth, method="isotonic")
    assert len(free.curves[0].points) > 2
    assert len(free.curves[1].points) == 1
    calibrated = free(np.column_stack([[-2.5, 0.5, 4.0], np.zeros(3)]))[:, 0]
    np.testing.assert_allclose(calibrated, [0.1, 0.4, 0.8], atol=0.06)


def test_isotonic_blocks_equal_sklearn(rng):
    [logits], [truth] = (array.T for array in draw_clips(rng, 400, [0.7], [0.3]))
    curve = isotonic_curve(logits, truth, 0.7, 0.3, l2_penalty=1e-9)
    xs, ys = np.transpose(curve.points)
    rates = IsotonicRegression().fit(logits, truth).predict(logits)
    assert len(xs) == len(np.unique(rates))
    for rate, x, y in zip(np.unique(rates), xs, ys, strict=True):
        assert x == pytest.approx(logits[rates == rate].mean(), abs=1e-5)
        assert expit(y) == pytest.approx(rate, abs=1e-6)


def test_equal_logits_are_one_block():
    [(x, y)] = isotonic_curve(np.full(100, 0.5), np.arange(100) % 4 > 0, 1.0, 0.0, l2_penalty=1e-9).points
    assert (x, expit(y)) == pytest.approx((0.5, 0.75))


def test_isotonic_curves_are_finite_for_separated_labels(rng):
    truth = rng.random((600, 2)) < 0.4
    logits = np.where(truth, 1, -1) * rng.uniform(1, 25, truth.shape)
    for times in (1, 40):
        calibrated = fit_calibration(times * logits, truth, method="isotonic").calibrated_logits(times * logits)
        assert np.isfinite(calibrated).all()
        np.testing.assert_array_equal(calibrated > 0, truth)


@given(
    st.lists(st.tuples(st.integers(-6, 6), st.booleans()), min_size=1, max_size=60),
    st.floats(0.1, 5),
    st.floats(-3, 3),
)
def test_isotonic_curves_always_increase(pairs, scale, offset):
    logits, truth = np.array([z for z, _ in pairs], float), np.array([is_true for _, is_true in pairs])
    curve = isotonic_curve(logits, truth, scale, offset)  # raises an error if the curve does not increase
    assert curve.slope_below == curve.slope_above == scale
    assert logits.min() - 1e-6 <= curve.points[0][0] <= curve.points[-1][0] <= logits.max() + 1e-6


def test_auto_chooses_the_simplest_sufficient_method(rng):
    folds = np.arange(1500) % 5

    def chosen(scales, offsets):
        calibration = fit_calibration(*draw_clips(rng, 1500, scales, offsets), folds=folds)
        return calibration and (calibration.method, len(set(calibration.curves)) > 1)

    assert chosen([1.0] * 5, [0.0] * 5) is None
    assert chosen([3.0] * 5, [0.0] * 5) == ("temperature", False)
    assert chosen([1.0] * 5, [2.0] * 5) == ("platt", False)
    assert chosen([0.8, 1.0, 1.2, 1.0, 1.0], [1.0, 0.0, -1.0, 0.5, -0.5]) == ("platt", True)


def test_calibration_holds_on_other_clips(rng):
    scales, offsets = [0.3, 0.5, 0.4, 0.6], [1.0, 1.5, -0.5, 0.0]
    logits, truth = draw_clips(rng, 4000, scales, offsets)
    calibration = fit_calibration(logits[:2000], truth[:2000], folds=np.arange(2000) % 5)
    assert expected_calibration_error(truth[2000:], expit(logits[2000:])) > 0.1
    assert expected_calibration_error(truth[2000:], calibration(logits[2000:])) < 0.02


def test_ignored_clips_change_nothing(rng):
    logits, truth = draw_clips(rng, 300, [2.0, 2.0], [1.0, 1.0])
    folds = np.arange(300) % 3
    alone = fit_calibration(logits, truth, folds=folds)
    more_logits = np.concatenate([logits, [[np.nan, np.nan], [np.nan, 5.0], [9.0, 9.0]]])
    more_truth = np.concatenate([truth, np.zeros((3, 2), bool)])
    assert fit_calibration(more_logits, more_truth, folds=np.concatenate([folds, [0, 1, -1]])) == alone


def test_no_calibration_without_labels_or_folds(rng):
    logits, truth = draw_clips(rng, 50, [3.0, 3.0], [1.0, 1.0])
    assert fit_calibration(logits, truth, method="none") is None
    assert fit_calibration(logits, np.zeros_like(truth), method="platt") is None
    assert fit_calibration(logits, truth, folds=np.zeros(50, int)) is None  # one fold: no cross-validation
    assert fit_calibration(logits, truth, method="platt", folds=np.zeros(50, int)) is not None
    assert fit_calibration(logits, truth, method="platt", folds=np.full(50, -1)) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y_true": np.zeros((3, 3), bool)}, r"\(4, 2\), \(3, 3\) and \(4,\)"),
        ({"folds": [0, 1]}, r"\(4, 2\), \(4, 2\) and \(2,\)"),
        ({"logits": np.full((4, 2), np.inf)}, "finite logits"),
        ({"folds": None}, "needs folds"),
    ],
)
def test_invalid_arguments_are_refused(change, message):
    arguments = {"logits": np.zeros((4, 2)), "y_true": np.zeros((4, 2), bool), "folds": [0, 1, 0, 1]} | change
    with pytest.raises(ValueError, match=message):
        fit_calibration(arguments["logits"], arguments["y_true"], folds=arguments["folds"])


@pytest.mark.parametrize("method", ["auto", "platt", "isotonic"])
def test_cross_fitting_does_not_use_a_clips_own_fold(method, rng):
    logits, truth = draw_clips(rng, 600, [0.5, 3.0, 1.0], [1.0, 0.0, 2.0])
    folds = np.arange(600) % 4
    goal = ThresholdGoal(kind="precision", at_least=0.8)
    before = cross_fit(logits, truth, folds, method=method, goal=goal)
    other_truth = truth.copy()
    other_truth[folds == 2] = ~truth[folds == 2]
    after = cross_fit(logits, other_truth, folds, method=method, goal=goal)
    for result, changed in ((before.probabilities, after.probabilities), (before.thresholds, after.thresholds)):
        np.testing.assert_array_equal(result[folds == 2], changed[folds == 2])
        assert (result[folds != 2] != changed[folds != 2]).any()


def test_cross_fitting_is_fitting_on_the_other_folds(rng):
    logits, truth = draw_clips(rng, 300, [0.5, 3.0], [1.0, 0.0])
    folds = np.arange(300) % 3
    fitted = cross_fit(logits, truth, folds, goal=ThresholdGoal(kind="recall", at_least=0.9))
    for fold in range(3):
        in_fold = folds == fold
        calibration = fit_calibration(logits[~in_fold], truth[~in_fold], folds=folds[~in_fold])
        np.testing.assert_allclose(fitted.probabilities[in_fold], probabilities_of(logits[in_fold], calibration))
        probabilities = probabilities_of(logits[~in_fold], calibration)
        expected = fit_thresholds(truth[~in_fold], probabilities, ThresholdGoal(kind="recall", at_least=0.9))
        np.testing.assert_allclose(fitted.thresholds[in_fold], np.tile(expected, (in_fold.sum(), 1)))
    assert log_loss(truth, fitted.probabilities) < log_loss(truth, expit(logits))


def test_cross_fitting_ignores_clips_without_logits_or_fold_and_has_a_default_threshold(rng):
    logits, truth = draw_clips(rng, 40, [1.0, 1.0], [0.0, 0.0])
    truth[:, 1] = False
    logits[3] = np.nan
    folds = np.arange(40) % 2
    folds[5] = -1
    fitted = cross_fit(logits, truth, folds)
    left_out = np.isin(np.arange(40), [3, 5])
    assert (np.isnan(fitted.probabilities).all(axis=1) == left_out).all()
    assert (np.isnan(fitted.thresholds).all(axis=1) == left_out).all()
    assert (fitted.thresholds[~left_out, 1] == 0.5).all()
    with pytest.raises(ValueError, match="two or more folds with logits, got 1"):
        cross_fit(logits, truth, np.zeros(40, int))


@pytest.mark.parametrize("method", ["temperature", "platt", "isotonic"])
def test_raw_logits_are_those_before_calibration(rng, method):
    logits = rng.normal(0, 2, (300, 2))
    calibration = fit_calibration(logits, rng.random(logits.shape) < expit(2 * logits - 1), method=method)
    assert calibration is not None
    np.testing.assert_allclose(calibration.raw_logits(calibration.calibrated_logits(logits)), logits, atol=1e-6)
