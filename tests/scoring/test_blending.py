"""Blends: who knows more says more, who says the same has the same share, and luck decides little."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from spectag.scoring import blending as blend_module
from spectag.scoring.blending import ONE_MODEL, EnsembleWeights, fit_ensemble_weights


def made(seed, *, n_clips=300, n_labels=10, noises=(2.0, 2.0), common=0.0):
    """Truth, and logits of members that hear it through so much noise of their own, and so much in common."""
    rng = np.random.default_rng(seed)
    y_true = rng.random((n_clips, n_labels)) < 0.15
    heard = 4.0 * y_true - 3.0 + common * rng.standard_normal(y_true.shape)
    logits = [heard + noise * rng.standard_normal(y_true.shape) for noise in noises]
    return logits, y_true


def noise(seed, shape):
    return np.random.default_rng(seed).standard_normal(shape)


def shares(blend, logits):
    """How much of the say each member has: its weight times the deviation of its logits, all together 1."""
    parts = np.array(blend.weights) * [np.nanstd(each) for each in logits]
    return parts / parts.sum()


def without_pull(monkeypatch, logits, y_true):
    with monkeypatch.context() as patch:
        patch.setattr(blend_module, "L2_PENALTY", 0.0)
        return fit_ensemble_weights(logits, y_true)


# ------------------------------------------------------------------------------------------------ a blend


def test_blend_is_the_weighted_sum_and_the_bias():
    blend = EnsembleWeights((0.5, 2.0), bias=-1.0)
    assert blend([[2.0, 4.0], [1.0, -1.0]]).tolist() == [2.0, -1.0]
    assert blend([np.full((3, 2), 2.0), np.zeros((3, 2))]).tolist() == [[0.0, 0.0]] * 3


def test_a_single_member_is_left_as_it_is(rng):
    logits = rng.standard_normal((5, 3)).astype(np.float32)
    assert np.array_equal(ONE_MODEL([logits]), logits)
    assert fit_ensemble_weights([logits], np.ones((5, 3), bool)) == ONE_MODEL


def test_a_sum_of_large_logits_is_exact_though_their_probabilities_are_1():
    logits = np.array([[60.0]], np.float32), np.array([[-50.0]], np.float32)
    assert EnsembleWeights((0.5, 0.5))(logits) == 5.0


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        ([np.zeros((2, 3))], "logits of 2 members, got those of 1"),
        ([np.zeros((2, 3)), np.zeros((3, 3))], r"one shape from all members, got \[\(2, 3\), \(3, 3\)\]"),
    ],
)
def test_logits_that_do_not_fit_the_blend_are_told(logits, message):
    with pytest.raises(ValueError, match=message):
        EnsembleWeights((1.0, 1.0))(logits)


# ------------------------------------------------------------------------------------------------ fitting


@pytest.mark.parametrize("n_members", [2, 3])
def test_equal_members_on_two_clips_as_worked_by_hand(n_members):
    """One true and one false label: Platt's targets are 2/3 and 1/3, so the blended logits are ln 2 and -ln 2."""
    member = np.array([[5.0], [-5.0]])
    blend = fit_ensemble_weights([member] * n_members, [[True], [False]])
    assert blend([member] * n_members).ravel() == pytest.approx([np.log(2), -np.log(2)], abs=1e-6)
    assert blend.weights == pytest.approx([np.log(2) / 5 / n_members] * n_members, abs=1e-7)
    assert blend.bias == pytest.approx(0, abs=1e-7)


def test_without_pull_it_is_the_logistic_regression(monkeypatch):
    logits, y_true = made(0, n_clips=4000, noises=(2.0, 3.0))
    blend = without_pull(monkeypatch, logits, y_true)
    regression = LogisticRegression(C=np.inf, tol=1e-8).fit(np.stack(logits, axis=-1).reshape(-1, 2), y_true.ravel())
    assert blend.weights == pytest.approx(regression.coef_[0], rel=2e-3)
    assert blend.bias == pytest.approx(regression.intercept_[0], rel=2e-3)


@pytest.mark.parametrize("n_members", [2, 3, 5])
def test_members_that_say_the_same_share_equally(n_members):
    (logits, *_), y_true = made(1)
    assert shares(fit_ensemble_weights([logits] * n_members, y_true), [logits] * n_members) == pytest.approx(
        1 / n_members
    )


@given(
    loudness=st.floats(1e-3, 1e3),
    offset=st.floats(-20, 20),
    member=st.integers(0, 2),
    noises=st.permutations([1, 2, 4]),
)
def test_louder_logits_and_other_offsets_do_not_change_the_blend(loudness, offset, member, noises):
    logits, y_true = made(2, n_clips=60, n_labels=5, noises=noises)
    changed = [*logits]
    changed[member] = loudness * logits[member] + offset
    expected = fit_ensemble_weights(logits, y_true)(logits)
    np.testing.assert_allclose(fit_ensemble_weights(changed, y_true)(changed), expected, atol=1e-3)


@given(order=st.permutations(range(3)))
def test_the_order_of_members_does_not_matter(order):
    logits, y_true = made(3, n_clips=60, n_labels=5, noises=(1, 2, 4))
    weights = fit_ensemble_weights(logits, y_true).weights
    assert fit_ensemble_weights([logits[i] for i in order], y_true).weights == pytest.approx(
        [weights[i] for i in order], rel=1e-3
    )


def test_noise_says_far_less_than_those_who_know():
    logits, y_true = made(4)
    logits.append(5 * noise(0, y_true.shape))
    assert shares(fit_ensemble_weights(logits, y_true), logits)[2] < 0.1
    logits, y_true = made(4, n_clips=5000)
    logits.append(5 * noise(0, y_true.shape))
    assert shares(fit_ensemble_weights(logits, y_true), logits)[2] < 0.01


def test_who_says_the_opposite_gets_nothing():
    (member, _), y_true = made(5, n_clips=1000)
    blend = fit_ensemble_weights([member, -member + noise(0, y_true.shape)], y_true)
    assert blend.weights[1] == 0
    assert blend.weights[0] > 0


def test_where_all_harm_all_share_equally():
    logits, y_true = made(6, n_clips=2000)
    logits = [-logits[0], -3 * logits[1]]
    blend = fit_ensemble_weights(logits, y_true)
    assert shares(blend, logits) == pytest.approx([0.5, 0.5])
    assert all(weight > 0 for weight in blend.weights)


def test_who_always_says_the_same_says_nothing():
    (member, _), y_true = made(7)
    assert fit_ensemble_weights([member, np.full_like(member, -3.0)], y_true).weights[1] == 0
    silent = fit_ensemble_weights([np.full_like(member, -3.0)] * 2, y_true)
    assert silent.weights == (0.0, 0.0)


@pytest.mark.parametrize("seed", range(5))
def test_few_clips_move_the_shares_only_moderately_from_equal(monkeypatch, seed):
    """Networks make their mistakes together, so that few clips tell little of who knows more."""
    logits, y_true = made(seed, noises=(0.6, 1.2), common=3.0)
    free, pulled = (
        shares(b, logits)[0] for b in (without_pull(monkeypatch, logits, y_true), fit_ensemble_weights(logits, y_true))
    )
    assert 0.1 < (pulled - 0.5) / (free - 0.5) < 0.6
    few, y_few = [each[:30] for each in logits], y_true[:30]
    assert shares(fit_ensemble_weights(few, y_few), few)[0] == pytest.approx(0.5, abs=0.1)


def test_more_clips_bring_the_blend_nearer_to_that_without_pull(monkeypatch):
    logits, y_true = made(8, n_clips=100, noises=(1.5, 3.0))
    away = []
    for n_times in (1, 10, 100):
        many, y_many = [np.tile(each, (n_times, 1)) for each in logits], np.tile(y_true, (n_times, 1))
        free = shares(without_pull(monkeypatch, many, y_many), many)[0]
        away.append(free - shares(fit_ensemble_weights(many, y_many), many)[0])
    assert away[0] > 5 * away[1] > 10 * away[2] > 0


def test_members_without_a_mistake_get_finite_weights():
    y_true = np.eye(10, dtype=bool)
    blend = fit_ensemble_weights([np.where(y_true, 2.0, -2.0), np.where(y_true, 1.0, -3.0)], y_true)
    assert max(blend.weights) < 3


@pytest.mark.parametrize("truth", [False, True])
def test_labels_that_are_never_or_always_true_give_finite_numbers(truth):
    (logits, _), y_true = made(9), np.full((300, 10), truth)
    blend = fit_ensemble_weights(logits, y_true)
    assert np.isfinite([*blend.weights, blend.bias]).all()


def test_clips_that_a_member_has_not_answered_do_not_count():
    logits, y_true = made(10)
    expected = fit_ensemble_weights([each[20:] for each in logits], y_true[20:])
    logits[0][:10] = np.nan
    logits[1][10:20, 3] = np.nan
    assert fit_ensemble_weights(logits, y_true) == expected


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        ([], "at least one member, got none"),
        ([np.zeros((4, 3)), np.zeros((4, 2))], r"one shape from all members, got \[\(4, 3\), \(4, 2\)\]"),
        ([np.zeros((3, 4))], r"need y_true of shape .* got \(4, 3\) and \(3, 4\)"),
        ([np.full((4, 3), np.nan), np.zeros((4, 3))], "none of 4 clips has the logits of all 2 members"),
        ([np.full((4, 3), np.inf), np.zeros((4, 3))], "need finite logits"),
    ],
)
def test_what_can_not_be_fitted_is_told(logits, message):
    with pytest.raises(ValueError, match=message):
        fit_ensemble_weights(logits, np.ones((4, 3), bool))
