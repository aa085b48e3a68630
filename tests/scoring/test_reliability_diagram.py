import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sklearn.metrics import log_loss as sklearn_log_loss

from spectag.scoring.reliability_diagram import (
    calibration_errors,
    calibration_metrics,
    expected_calibration_error,
    log_loss,
    reliability,
)


def test_calibrated_probabilities_have_an_error_close_to_0_and_overconfident_ones_do_not(rng):
    probabilities = rng.random((20_000, 3))
    truth = rng.random(probabilities.shape) < probabilities
    assert expected_calibration_error(truth, probabilities) < 0.01
    overconfident = 1 / (1 + ((1 - probabilities) / probabilities) ** 2)  # squared odds
    p = np.linspace(0, 1, 100_001)
    distance = np.abs(p**2 / (p**2 + (1 - p) ** 2) - p).mean()
    assert expected_calibration_error(truth, overconfident) == pytest.approx(distance, abs=0.01)


def test_bins_computed_by_hand():
    bins = reliability([True, False, True, True], [0.05, 0.1, 0.5, 1.0], n_bins=10)
    assert bins.n.tolist() == [1, 1, 0, 0, 0, 1, 0, 0, 0, 1]  # a probability on an edge is in the bin above it
    assert bins.mean_probability[[0, 1, 5, 9]].tolist() == [0.05, 0.1, 0.5, 1.0]
    assert bins.fraction_true[[0, 1, 5, 9]].tolist() == [1, 0, 1, 1]
    assert np.isnan(bins.fraction_true[2])
    assert (bins.fraction_low[2], bins.fraction_high[2]) == (0, 1)
    assert bins.error == pytest.approx((0.95 + 0.1 + 0.5 + 0) / 4)


def test_errors_of_labels_are_those_of_their_columns(rng):
    probabilities = rng.random((200, 4))
    truth = rng.random(probabilities.shape) < probabilities**2
    expected = [expected_calibration_error(truth[:, label], probabilities[:, label]) for label in range(4)]
    assert calibration_errors(truth, probabilities).tolist() == expected


def test_nan_is_not_a_decision():
    assert expected_calibration_error([[True, False]], [[0.75, np.nan]]) == 0.25
    assert math.isnan(expected_calibration_error([True], [np.nan]))
    assert math.isnan(log_loss([True], [np.nan]))


@given(n=st.integers(1, 500), fraction=st.floats(0, 1))
@example(n=29, fraction=1.0)
def test_intervals_solve_wilsons_equation(n, fraction):
    hits = round(fraction * n)
    bins = reliability(np.arange(n) < hits, np.full(n, 0.5), n_bins=1)
    low, high = bins.fraction_low[0], bins.fraction_high[0]
    assert 0 <= low <= hits / n <= high <= 1
    for bound in (low, high):  # the observed fraction lies 1.96 standard deviations from each bound
        assert abs(hits / n - bound) == pytest.approx(1.959964 * math.sqrt(bound * (1 - bound) / n), abs=1e-6)


def test_log_loss_equals_sklearn(rng):
    probabilities, truth = rng.random(100), rng.random(100) < 0.3
    assert log_loss(truth, probabilities) == pytest.approx(sklearn_log_loss(truth, probabilities))


def test_calibration_metrics_are_before_and_after():
    metrics = calibration_metrics([[True], [False]], [[0.6], [0.4]], [[1.0], [0.0]])
    assert metrics == {
        "n_clips": 2,
        "expected_calibration_error": [pytest.approx(0.4), 0.0],
        "log_loss": [pytest.approx(-math.log(0.6)), pytest.approx(0)],
    }


def test_invalid_probabilities_are_refused():
    with pytest.raises(ValueError, match=r"\(1,\) and \(2,\)"):
        reliability([True], [0.5, 0.5])
    with pytest.raises(ValueError, match=r"from 0 to 1, got 0.5 to 1.5"):
        reliability([True, True], [0.5, 1.5])
    with pytest.raises(ValueError, match="n_bins >= 1"):
        reliability([True], [0.5], n_bins=0)
    with pytest.raises(ValueError, match=r"\(1,\) and \(2,\)"):
        log_loss([True], [0.5, 0.5])
    with pytest.raises(ValueError, match=r"\(1,\) and \(1,\)"):
        calibration_errors([True], [0.5])
