"""How well probabilities come true."""

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
    wilson_interval,
)


def test_probabilities_that_come_true_have_an_error_near_0_and_doubled_odds_have_not(rng):
    said = rng.random((20_000, 3))
    truth = rng.random(said.shape) < said
    assert expected_calibration_error(truth, said) < 0.01
    bold = 1 / (1 + ((1 - said) / said) ** 2)  # odds squared
    p = np.linspace(0, 1, 100_001)
    away = np.abs(p**2 / (p**2 + (1 - p) ** 2) - p).mean()
    assert expected_calibration_error(truth, bold) == pytest.approx(away, abs=0.01)


def test_bins_worked_out_by_hand():
    bins = reliability([True, False, True, True], [0.05, 0.1, 0.5, 1.0], n_bins=10)
    assert bins.n.tolist() == [1, 1, 0, 0, 0, 1, 0, 0, 0, 1]  # a probability on an edge is in the bin above it
    assert bins.mean_probability[[0, 1, 5, 9]].tolist() == [0.05, 0.1, 0.5, 1.0]
    assert bins.share_true[[0, 1, 5, 9]].tolist() == [1, 0, 1, 1]
    assert np.isnan(bins.share_true[2])
    assert (bins.share_low[2], bins.share_high[2]) == (0, 1)
    assert bins.error == pytest.approx((0.95 + 0.1 + 0.5 + 0) / 4)


def test_errors_of_labels_are_those_of_their_columns(rng):
    said = rng.random((200, 4))
    truth = rng.random(said.shape) < said**2
    expected = [expected_calibration_error(truth[:, label], said[:, label]) for label in range(4)]
    assert calibration_errors(truth, said).tolist() == expected


def test_nan_is_no_decision():
    assert expected_calibration_error([[True, False]], [[0.75, np.nan]]) == 0.25
    assert math.isnan(expected_calibration_error([True], [np.nan]))
    assert math.isnan(log_loss([True], [np.nan]))


@given(n=st.integers(1, 500), share=st.floats(0, 1))
@example(n=29, share=1.0)
def test_wilsons_interval_solves_its_equation(n, share):
    hits = round(share * n)
    low, high = wilson_interval([hits], [n])
    assert 0 <= low[0] <= hits / n <= high[0] <= 1
    for bound in (low[0], high[0]):  # where the share found lies 1.96 standard deviations of the bound away
        assert abs(hits / n - bound) == pytest.approx(1.959964 * math.sqrt(bound * (1 - bound) / n), abs=1e-6)


def test_log_loss_is_that_of_scikit_learn(rng):
    said, truth = rng.random(100), rng.random(100) < 0.3
    assert log_loss(truth, said) == pytest.approx(sklearn_log_loss(truth, said))


def test_calibration_metrics_are_before_and_after():
    found = calibration_metrics([[True], [False]], [[0.6], [0.4]], [[1.0], [0.0]])
    assert found == {
        "n_clips": 2,
        "expected_calibration_error": [pytest.approx(0.4), 0.0],
        "log_loss": [pytest.approx(-math.log(0.6)), pytest.approx(0)],
    }


def test_what_are_no_probabilities_of_the_truth_is_refused():
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
