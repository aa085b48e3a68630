"""Probabilities that come true."""

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

from spectag.scoring.calibration import Calibration, cross_fitted, fit_calibration, probabilities_of
from spectag.scoring.calibration_curves import Curve, fit_line, fit_lines, isotonic_curve, line
from spectag.scoring.reliability_diagram import expected_calibration_error, log_loss
from spectag.scoring.thresholds import ThresholdGoal, fit_thresholds


def drawn(rng, n_clips, scales, offsets):
    """Logits, and truth that comes true with the probability of scale * logit + offset, label by label."""
    logits = rng.normal(-1, 2, (n_clips, len(scales)))
    return logits, rng.random(logits.shape) < expit(np.array(scales) * logits + np.array(offsets))


rising = st.lists(st.tuples(st.floats(0.05, 3), st.floats(0.05, 3)), min_size=0, max_size=5).map(
    lambda steps: tuple(map(tuple, np.cumsum([(-2.0, -3.0), *steps], axis=0).tolist()))
)
curves = st.builds(Curve, points=rising, slope_below=st.floats(0.05, 5), slope_above=st.floats(0.05, 5))


@given(curves, arrays(np.float64, 20, elements=st.floats(-30, 30)))
def test_a_curve_is_straight_from_point_to_point_and_on_beyond_its_ends(curve, logits):
    xs, ys = np.transpose(curve.points)
    below, above = np.minimum(logits - xs[0], 0), np.maximum(logits - xs[-1], 0)
    expected = np.interp(logits, xs, ys) + curve.slope_below * below + curve.slope_above * above
    calibration = Calibration(method="isotonic", curves=(line(1, 0), curve))
    calibrated = calibration.calibrated_logits(np.stack([logits, logits], axis=1))
    np.testing.assert_allclose(calibrated[:, 0], logits, atol=1e-12)
    np.testing.assert_allclose(calibrated[:, 1], expected, atol=1e-9)
    order = np.argsort(logits)
    gaps = np.diff(calibrated[order, 1])
    assert (gaps[np.diff(logits[order]) > 1e-6] > 0).all()


def test_any_number_of_axes_will_do_if_the_last_is_that_of_the_labels(rng):
    calibration = Calibration(method="platt", curves=(line(2, 1), line(0.5, -1)))
    logits = rng.normal(size=(3, 4, 2))
    assert calibration(logits).shape == (3, 4, 2)
    np.testing.assert_array_equal(calibration(logits)[1, 2], calibration(logits[1, 2]))
    np.testing.assert_allclose(calibration([0.5, 0.5]), expit([2, -0.75]))
    with pytest.raises(ValueError, match=r"\(\.\.\., 2\).*\(3,\)"):
        calibration(np.zeros(3))


def test_without_calibration_probabilities_are_the_sigmoid():
    np.testing.assert_array_equal(probabilities_of([0.0, np.nan], None), [0.5, np.nan])
    assert np.isnan(Calibration(method="platt", curves=(line(2, 0),))([np.nan])).all()


def test_a_calibration_survives_json():
    bent = Curve(points=((0.0, 0.1), (1.5, 2.0)), slope_below=0.5, slope_above=2.0)
    calibration = Calibration(method="isotonic", curves=(line(0.3, -1 / 3), bent))
    assert Calibration.model_validate_json(calibration.model_dump_json()) == calibration


@pytest.mark.parametrize("points", [((0.0, 0.0), (0.0, 1.0)), ((0.0, 1.0), (1.0, 1.0))])
def test_a_curve_that_does_not_rise_is_refused(points):
    with pytest.raises(ValidationError, match="must rise"):
        Curve(points=points, slope_below=1, slope_above=1)
    with pytest.raises(ValidationError, match="greater than 0"):
        line(0, 1)


def test_a_line_without_a_pull_is_logistic_regression(rng):
    [logits], [truth] = (part.T for part in drawn(rng, 500, [0.6], [0.8]))
    regression = LogisticRegression(C=np.inf, tol=1e-10).fit(logits[:, None], truth)
    found = fit_line(logits, truth, scale_l2_penalty=0, offset_l2_penalty=0)
    assert found == pytest.approx((regression.coef_.item(), regression.intercept_.item()), abs=1e-4)


def test_a_pull_is_a_ridge_about_scale_1_and_offset_0(rng):
    [logits], [truth] = (part.T for part in drawn(rng, 200, [3.0], [2.0]))
    scale, offset = fit_line(logits, truth, scale_l2_penalty=7, offset_l2_penalty=4)
    errors = expit(scale * logits + offset) - truth  # at the least loss its slope is 0
    assert (errors @ logits + 7 * (scale - 1), errors.sum() + 4 * offset) == pytest.approx((0, 0), abs=1e-3)


def test_all_columns_at_once_get_the_lines_that_each_gets_alone(rng):
    """Also those that Newton's steps lead astray: far-off logits, and a tagger that is wrong about everything."""
    logits = np.column_stack([rng.normal(-1, 2, 300), 30 * rng.normal(size=300), np.linspace(-300, 300, 300)])
    truth = np.column_stack([logits[:, 0] + rng.normal(size=300) > 1, rng.random(300) < 0.3, logits[:, 2] < 0])
    scales, offsets = fit_lines(logits, truth, with_offset=True, scale_l2_penalty=3.0, offset_l2_penalty=2.0)
    for label in range(3):
        z, y = logits[:, label], truth[:, label]

        def loss(line, z=z, y=y):
            bent = line[0] * z + line[1]
            return np.logaddexp(0, bent).sum() - y @ bent + 1.5 * (line[0] - 1) ** 2 + line[1] ** 2

        best = minimize(loss, [0.1, 0.0], bounds=[(0.02, 50), (None, None)], method="L-BFGS-B")
        assert loss((scales[label], offsets[label])) == pytest.approx(best.fun, rel=1e-4)
        alone = fit_line(z, y, scale_l2_penalty=3.0, offset_l2_penalty=2.0)
        np.testing.assert_allclose((scales[label], offsets[label]), alone, atol=1e-6)
    assert scales[2] == 0.02  # never turned round


def test_nothing_to_learn_from_is_refused():
    with pytest.raises(ValueError, match=r"\(0,\) and \(0,\)"):
        fit_line([], [])


def test_the_scale_and_offset_that_made_the_truth_are_found(rng):
    scales, offsets = [0.5, 2.0, 1.0], [1.0, -2.0, 0.0]
    logits, truth = drawn(rng, 20_000, scales, offsets)
    calibration = fit_calibration(logits, truth, method="platt")
    for curve, scale, offset in zip(calibration.curves, scales, offsets, strict=True):
        assert (curve.slope_below, curve.points[0][1]) == pytest.approx((scale, offset), abs=0.2)


@pytest.mark.parametrize(("n_clips", "is_its_own"), [(10, False), (5000, True)])
def test_a_label_is_calibrated_as_all_are_until_its_clips_say_otherwise(n_clips, is_its_own, rng):
    logits, truth = drawn(rng, n_clips, [2.0] * 9 + [0.5], [1.0] * 9 + [-1.0])
    *_, own = fit_calibration(logits, truth, method="platt").curves
    pooled, free = (
        fit_line(logits, truth),
        fit_line(logits[:, -1], truth[:, -1], scale_l2_penalty=0.01, offset_l2_penalty=0.01),
    )
    way = (own.slope_below - pooled[0]) / (free[0] - pooled[0])  # from the curve of all to that of its own clips
    assert 0.95 < way <= 1 if is_its_own else 0 <= way < 0.5


@pytest.mark.parametrize("method", ["temperature", "platt", "isotonic"])
def test_labels_told_apart_without_an_error_stay_finite(method, rng):
    truth = np.eye(4, dtype=bool)[np.arange(1200) % 4]
    calibration = fit_calibration(np.where(truth, 2.0, -2.0), truth, method=method)
    assert np.isfinite(calibration.calibrated_logits(np.array([[-50.0, -2, 2, 50]] * 2))).all()
    assert all(0.01 < curve.slope_above < 100 for curve in calibration.curves)


def test_any_rising_form_is_followed_where_there_are_clips_enough(rng):
    logits = rng.normal(0, 3, (6000, 2))
    truth = rng.random(logits.shape) < np.where(logits < -1, 0.1, np.where(logits < 2, 0.4, 0.8))  # stairs
    truth[:, 1] &= np.arange(6000) < 150  # under 100 clips have the second label
    free = fit_calibration(logits, truth, method="isotonic")
    assert len(free.curves[0].points) > 2
    assert len(free.curves[1].points) == 1
    said = free(np.column_stack([[-2.5, 0.5, 4.0], np.zeros(3)]))[:, 0]
    np.testing.assert_allclose(said, [0.1, 0.4, 0.8], atol=0.06)


def test_isotonic_blocks_lie_where_scikit_learn_has_them(rng):
    [logits], [truth] = (part.T for part in drawn(rng, 400, [0.7], [0.3]))
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


def test_isotonic_curves_stay_finite_where_labels_are_told_apart_by_far(rng):
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
def test_isotonic_curves_rise_whatever_the_clips(pairs, scale, offset):
    logits, truth = np.array([z for z, _ in pairs], float), np.array([is_true for _, is_true in pairs])
    curve = isotonic_curve(logits, truth, scale, offset)  # a curve that does not rise is refused by itself
    assert curve.slope_below == curve.slope_above == scale
    assert logits.min() - 1e-6 <= curve.points[0][0] <= curve.points[-1][0] <= logits.max() + 1e-6


def test_auto_takes_what_is_needed_and_no_more(rng):
    parts = np.arange(1500) % 5

    def chosen(scales, offsets):
        calibration = fit_calibration(*drawn(rng, 1500, scales, offsets), parts=parts)
        return calibration and (calibration.method, len(set(calibration.curves)) > 1)

    assert chosen([1.0] * 5, [0.0] * 5) is None
    assert chosen([3.0] * 5, [0.0] * 5) == ("temperature", False)
    assert chosen([1.0] * 5, [2.0] * 5) == ("platt", False)
    assert chosen([0.8, 1.0, 1.2, 1.0, 1.0], [1.0, 0.0, -1.0, 0.5, -0.5]) == ("platt", True)


def test_calibrated_probabilities_come_true_on_other_clips(rng):
    scales, offsets = [0.3, 0.5, 0.4, 0.6], [1.0, 1.5, -0.5, 0.0]
    logits, truth = drawn(rng, 4000, scales, offsets)
    calibration = fit_calibration(logits[:2000], truth[:2000], parts=np.arange(2000) % 5)
    assert expected_calibration_error(truth[2000:], expit(logits[2000:])) > 0.1
    assert expected_calibration_error(truth[2000:], calibration(logits[2000:])) < 0.02


def test_clips_that_do_not_count_change_nothing(rng):
    logits, truth = drawn(rng, 300, [2.0, 2.0], [1.0, 1.0])
    parts = np.arange(300) % 3
    alone = fit_calibration(logits, truth, parts=parts)
    more_logits = np.concatenate([logits, [[np.nan, np.nan], [np.nan, 5.0], [9.0, 9.0]]])
    more_truth = np.concatenate([truth, np.zeros((3, 2), bool)])
    assert fit_calibration(more_logits, more_truth, parts=np.concatenate([parts, [0, 1, -1]])) == alone


def test_there_is_no_calibration_where_nothing_can_be_learnt(rng):
    logits, truth = drawn(rng, 50, [3.0, 3.0], [1.0, 1.0])
    assert fit_calibration(logits, truth, method="none") is None
    assert fit_calibration(logits, np.zeros_like(truth), method="platt") is None
    assert fit_calibration(logits, truth, parts=np.zeros(50, int)) is None  # one part: nothing to choose by
    assert fit_calibration(logits, truth, method="platt", parts=np.zeros(50, int)) is not None
    assert fit_calibration(logits, truth, method="platt", parts=np.full(50, -1)) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"y_true": np.zeros((3, 3), bool)}, r"\(4, 2\), \(3, 3\) and \(4,\)"),
        ({"parts": [0, 1]}, r"\(4, 2\), \(4, 2\) and \(2,\)"),
        ({"logits": np.full((4, 2), np.inf)}, "finite logits"),
        ({"parts": None}, "needs parts"),
    ],
)
def test_what_does_not_fit_together_is_refused(change, words):
    arguments = {"logits": np.zeros((4, 2)), "y_true": np.zeros((4, 2), bool), "parts": [0, 1, 0, 1]} | change
    with pytest.raises(ValueError, match=words):
        fit_calibration(arguments["logits"], arguments["y_true"], parts=arguments["parts"])


@pytest.mark.parametrize("method", ["auto", "platt", "isotonic"])
def test_cross_fitting_never_sees_its_own_part(method, rng):
    logits, truth = drawn(rng, 600, [0.5, 3.0, 1.0], [1.0, 0.0, 2.0])
    parts = np.arange(600) % 4
    goal = ThresholdGoal(kind="precision", at_least=0.8)
    before = cross_fitted(logits, truth, parts, method=method, goal=goal)
    other_truth = truth.copy()
    other_truth[parts == 2] = ~truth[parts == 2]
    after = cross_fitted(logits, other_truth, parts, method=method, goal=goal)
    for found, changed in ((before.probabilities, after.probabilities), (before.thresholds, after.thresholds)):
        np.testing.assert_array_equal(found[parts == 2], changed[parts == 2])
        assert (found[parts != 2] != changed[parts != 2]).any()


def test_cross_fitting_is_fitting_on_the_other_parts(rng):
    logits, truth = drawn(rng, 300, [0.5, 3.0], [1.0, 0.0])
    parts = np.arange(300) % 3
    found = cross_fitted(logits, truth, parts, goal=ThresholdGoal(kind="recall", at_least=0.9))
    for part in range(3):
        own = parts == part
        calibration = fit_calibration(logits[~own], truth[~own], parts=parts[~own])
        np.testing.assert_allclose(found.probabilities[own], probabilities_of(logits[own], calibration))
        said = probabilities_of(logits[~own], calibration)
        expected = fit_thresholds(truth[~own], said, ThresholdGoal(kind="recall", at_least=0.9))
        np.testing.assert_allclose(found.thresholds[own], np.tile(expected, (own.sum(), 1)))
    assert log_loss(truth, found.probabilities) < log_loss(truth, expit(logits))


def test_cross_fitting_leaves_out_what_does_not_count_and_has_a_default_threshold(rng):
    logits, truth = drawn(rng, 40, [1.0, 1.0], [0.0, 0.0])
    truth[:, 1] = False
    logits[3] = np.nan
    parts = np.arange(40) % 2
    parts[5] = -1
    found = cross_fitted(logits, truth, parts)
    left_out = np.isin(np.arange(40), [3, 5])
    assert (np.isnan(found.probabilities).all(axis=1) == left_out).all()
    assert (np.isnan(found.thresholds).all(axis=1) == left_out).all()
    assert (found.thresholds[~left_out, 1] == 0.5).all()
    with pytest.raises(ValueError, match="two parts or more with logits, got 1"):
        cross_fitted(logits, truth, np.zeros(40, int))
