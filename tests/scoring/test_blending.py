import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from spectag.scoring import blending
from spectag.scoring.blending import ONE_MODEL, EnsembleWeights, fit_ensemble_weights


def make_logits(seed, *, n_clips=300, n_labels=10, noises=(2.0, 2.0), common=0.0):
    """Truth, and logits of members: the truth plus noise of each member, and noise that they have in common."""
    rng = np.random.default_rng(seed)
    y_true = rng.random((n_clips, n_labels)) < 0.15
    signal = 4.0 * y_true - 3.0 + common * rng.standard_normal(y_true.shape)
    logits = [signal + noise * rng.standard_normal(y_true.shape) for noise in noises]
    return logits, y_true


def make_noise(seed, shape):
    return np.random.default_rng(seed).standard_normal(shape)


def contributions(ensemble_weights, logits):
    """The contribution of each member: its weight times the deviation of its logits, normalised to a sum of 1."""
    products = np.array(ensemble_weights.weights) * [np.nanstd(member) for member in logits]
    return products / products.sum()


def fit_without_penalty(monkeypatch, logits, y_true):
    with monkeypatch.context() as patch:
        patch.setattr(blending, "L2_PENALTY", 0.0)
        return fit_ensemble_weights(logits, y_true)


# ------------------------------------------------------------------------------------------------ weights


def test_logits_are_combined_by_a_weighted_sum_and_a_bias():
    ensemble_weights = EnsembleWeights((0.5, 2.0), bias=-1.0)
    assert ensemble_weights([[2.0, 4.0], [1.0, -1.0]]).tolist() == [2.0, -1.0]
    assert ensemble_weights([np.full((3, 2), 2.0), np.zeros((3, 2))]).tolist() == [[0.0, 0.0]] * 3


def test_single_member_is_unchanged(rng):
    logits = rng.standard_normal((5, 3)).astype(np.float32)
    assert np.array_equal(ONE_MODEL([logits]), logits)
    assert fit_ensemble_weights([logits], np.ones((5, 3), bool)) == ONE_MODEL


def test_sum_of_large_logits_is_exact():
    logits = np.array([[60.0]], np.float32), np.array([[-50.0]], np.float32)
    assert EnsembleWeights((0.5, 0.5))(logits) == 5.0


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        ([np.zeros((2, 3))], "logits of 2 members, got those of 1"),
        ([np.zeros((2, 3)), np.zeros((3, 3))], r"one shape from all members, got \[\(2, 3\), \(3, 3\)\]"),
    ],
)
def test_logits_that_do_not_fit_the_weights_are_refused(logits, message):
    with pytest.raises(ValueError, match=message):
        EnsembleWeights((1.0, 1.0))(logits)


# ------------------------------------------------------------------------------------------------ fitting


@pytest.mark.parametrize("n_members", [2, 3])
def test_equal_members_on_two_clips_computed_by_hand(n_members):
    """One true and one false label: Platt's targets are 2/3 and 1/3, so the combined logits are ln 2 and -ln 2."""
    member = np.array([[5.0], [-5.0]])
    ensemble_weights = fit_ensemble_weights([member] * n_members, [[True], [False]])
    assert ensemble_weights([member] * n_members).ravel() == pytest.approx([np.log(2), -np.log(2)], abs=1e-6)
    assert ensemble_weights.weights == pytest.approx([np.log(2) / 5 / n_members] * n_members, abs=1e-7)
    assert ensemble_weights.bias == pytest.approx(0, abs=1e-7)


def test_fit_without_penalty_is_logistic_regression(monkeypatch):
    logits, y_true = make_logits(0, n_clips=4000, noises=(2.0, 3.0))
    ensemble_weights = fit_without_penalty(monkeypatch, logits, y_true)
    regression = LogisticRegression(C=np.inf, tol=1e-8).fit(np.stack(logits, axis=-1).reshape(-1, 2), y_true.ravel())
    assert ensemble_weights.weights == pytest.approx(regression.coef_[0], rel=2e-3)
    assert ensemble_weights.bias == pytest.approx(regression.intercept_[0], rel=2e-3)


@pytest.mark.parametrize("n_members", [2, 3, 5])
def test_equal_members_contribute_equally(n_members):
    (logits, *_), y_true = make_logits(1)
    assert contributions(fit_ensemble_weights([logits] * n_members, y_true), [logits] * n_members) == pytest.approx(
        1 / n_members
    )


@given(
    scale=st.floats(1e-3, 1e3),
    offset=st.floats(-20, 20),
    member=st.integers(0, 2),
    noises=st.permutations([1, 2, 4]),
)
def test_scale_and_offset_of_logits_do_not_change_the_result(scale, offset, member, noises):
    logits, y_true = make_logits(2, n_clips=60, n_labels=5, noises=noises)
    changed = [*logits]
    changed[member] = scale * logits[member] + offset
    expected = fit_ensemble_weights(logits, y_true)(logits)
    np.testing.assert_allclose(fit_ensemble_weights(changed, y_true)(changed), expected, atol=1e-3)


@given(order=st.permutations(range(3)))
def test_order_of_members_does_not_matter(order):
    logits, y_true = make_logits(3, n_clips=60, n_labels=5, noises=(1, 2, 4))
    weights = fit_ensemble_weights(logits, y_true).weights
    assert fit_ensemble_weights([logits[i] for i in order], y_true).weights == pytest.approx(
        [weights[i] for i in order], rel=1e-3
    )


def test_noise_contributes_little():
    logits, y_true = make_logits(4)
    logits.append(5 * make_noise(0, y_true.shape))
    assert contributions(fit_ensemble_weights(logits, y_true), logits)[2] < 0.1
    logits, y_true = make_logits(4, n_clips=5000)
    logits.append(5 * make_noise(0, y_true.shape))
    assert contributions(fit_ensemble_weights(logits, y_true), logits)[2] < 0.01


def test_member_that_predicts_the_opposite_gets_no_weight():
    (member, _), y_true = make_logits(5, n_clips=1000)
    ensemble_weights = fit_ensemble_weights([member, -member + make_noise(0, y_true.shape)], y_true)
    assert ensemble_weights.weights[1] == 0
    assert ensemble_weights.weights[0] > 0


def test_harmful_members_contribute_equally():
    logits, y_true = make_logits(6, n_clips=2000)
    logits = [-logits[0], -3 * logits[1]]
    ensemble_weights = fit_ensemble_weights(logits, y_true)
    assert contributions(ensemble_weights, logits) == pytest.approx([0.5, 0.5])
    assert all(weight > 0 for weight in ensemble_weights.weights)


def test_constant_logits_get_no_weight():
    (member, _), y_true = make_logits(7)
    assert fit_ensemble_weights([member, np.full_like(member, -3.0)], y_true).weights[1] == 0
    constant = fit_ensemble_weights([np.full_like(member, -3.0)] * 2, y_true)
    assert constant.weights == (0.0, 0.0)


@pytest.mark.parametrize("seed", range(5))
def test_few_clips_give_almost_equal_contributions(monkeypatch, seed):
    """Networks make the same mistakes, so a few clips do not show which one is better."""
    logits, y_true = make_logits(seed, noises=(0.6, 1.2), common=3.0)
    free = contributions(fit_without_penalty(monkeypatch, logits, y_true), logits)[0]
    penalised = contributions(fit_ensemble_weights(logits, y_true), logits)[0]
    assert 0.1 < (penalised - 0.5) / (free - 0.5) < 0.6
    few, y_few = [member[:30] for member in logits], y_true[:30]
    assert contributions(fit_ensemble_weights(few, y_few), few)[0] == pytest.approx(0.5, abs=0.1)


def test_penalty_matters_less_with_more_clips(monkeypatch):
    logits, y_true = make_logits(8, n_clips=100, noises=(1.5, 3.0))
    distances = []
    for n_times in (1, 10, 100):
        many, y_many = [np.tile(member, (n_times, 1)) for member in logits], np.tile(y_true, (n_times, 1))
        free = contributions(fit_without_penalty(monkeypatch, many, y_many), many)[0]
        distances.append(free - contributions(fit_ensemble_weights(many, y_many), many)[0])
    assert distances[0] > 5 * distances[1] > 10 * distances[2] > 0


def test_members_without_a_mistake_get_finite_weights():
    y_true = np.eye(10, dtype=bool)
    ensemble_weights = fit_ensemble_weights([np.where(y_true, 2.0, -2.0), np.where(y_true, 1.0, -3.0)], y_true)
    assert max(ensemble_weights.weights) < 3


@pytest.mark.parametrize("truth", [False, True])
def test_labels_that_are_never_or_always_true_give_finite_numbers(truth):
    (logits, _), y_true = make_logits(9), np.full((300, 10), truth)
    ensemble_weights = fit_ensemble_weights(logits, y_true)
    assert np.isfinite([*ensemble_weights.weights, ensemble_weights.bias]).all()


def test_clips_without_logits_of_all_members_are_ignored():
    logits, y_true = make_logits(10)
    expected = fit_ensemble_weights([member[20:] for member in logits], y_true[20:])
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
def test_invalid_arrays_are_refused(logits, message):
    with pytest.raises(ValueError, match=message):
        fit_ensemble_weights(logits, np.ones((4, 3), bool))
