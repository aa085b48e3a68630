"""Losses: worked by hand, and compared with torch, torchvision and finite differences."""

import math
from functools import partial

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits
from torchvision.ops import sigmoid_focal_loss

from spectag.config.training import LossConfig
from spectag.training.networks.losses import (
    asymmetric,
    bce,
    bootstrap,
    class_weights,
    clip_losses,
    focal,
    lq,
    lsep,
    smoothed,
)

KINDS = ["bce", "focal", "asymmetric", "lsep", "bootstrap", "lq"]
LABEL_LOSSES = {
    "bce": bce,
    "focal": partial(focal, gamma=2.0),
    "focal, gamma below 1": partial(focal, gamma=0.01),
    "asymmetric": partial(asymmetric, gamma_positive=1.0, gamma_negative=4.0, margin=0.05),
    "asymmetric, gamma below 1": partial(asymmetric, gamma_positive=0.5, gamma_negative=0.5, margin=0.2),
    "asymmetric, no gamma": partial(asymmetric, gamma_positive=0.0, gamma_negative=0.0, margin=0.2),
    "bootstrap": partial(bootstrap, beta=0.7),
    "lq": partial(lq, q=0.7),
}
label_loss = pytest.mark.parametrize("loss", LABEL_LOSSES.values(), ids=LABEL_LOSSES)
every_kind = pytest.mark.parametrize("kind", KINDS)
NAN = math.nan


def tensor(*rows):
    return torch.tensor(rows, dtype=torch.float64)


@pytest.fixture
def logits(rng):
    return torch.from_numpy(rng.normal(scale=3, size=(6, 5)))


@pytest.fixture
def truth(rng):
    return torch.from_numpy(rng.random((6, 5)) < 0.4).double()


@pytest.fixture
def soft(rng):
    return torch.from_numpy(rng.random((6, 5)))


def gradient(loss, logits):
    logits = logits.clone().requires_grad_()
    return torch.autograd.grad(loss(logits).sum(), logits)[0]


# A logit of ln 3 is a probability of 3/4: odds of 3 to 1.
@pytest.mark.parametrize(
    ("loss", "if_true", "if_false"),
    [
        # -ln 3/4 and -ln 1/4
        (bce, math.log(4 / 3), math.log(4)),
        # the same, times (1/4)^2 and times (3/4)^2
        (partial(focal, gamma=2), math.log(4 / 3) / 16, math.log(4) * 9 / 16),
        # true: times 1/4. False: 3/4 - 1/4 = 1/2 is left, so (1/2)^2 times -ln(1 - 1/2)
        (partial(asymmetric, gamma_positive=1, gamma_negative=2, margin=0.25), math.log(4 / 3) / 4, math.log(2) / 4),
        # false, no factor: -ln(1 - 1/2). The margin has no effect on a true label
        (partial(asymmetric, gamma_positive=0, gamma_negative=0, margin=0.25), math.log(4 / 3), math.log(2)),
        # targets 0.8 * 1 + 0.2 * 3/4 = 0.95, and 0.2 * 3/4 = 0.15
        (
            partial(bootstrap, beta=0.8),
            0.95 * math.log(4 / 3) + 0.05 * math.log(4),
            0.15 * math.log(4 / 3) + 0.85 * math.log(4),
        ),
        # the roots of 3/4 and 1/4 taken off 1, and doubled
        (partial(lq, q=0.5), 2 - math.sqrt(3), 1.0),
    ],
)
def test_losses_worked_by_hand(loss, if_true, if_false):
    losses = loss(tensor([math.log(3), math.log(3)]), tensor([1, 0]))
    torch.testing.assert_close(losses, tensor([if_true, if_false]))


def test_lsep_worked_by_hand():
    odds = tensor([2, 1, 3]).log()
    # 1/2 and 3/2 for the pairs of the first label: 1 + 2
    torch.testing.assert_close(lsep(odds, tensor([1, 0, 0])), tensor(3).log())
    # 3/2 and 3/1 for the pairs with the last: 1 + 4.5
    torch.testing.assert_close(lsep(odds, tensor([1, 1, 0])), tensor(5.5).log())
    # the first pair counts twice: 1 + 3 + 3
    torch.testing.assert_close(lsep(odds, tensor([1, 1, 0]), label_weights=tensor(2, 1, 9)), tensor(7).log())
    # the first label is unknown: 1 + 3
    known = torch.tensor([[False, True, True]])
    torch.testing.assert_close(lsep(odds, tensor([1, 1, 0]), known=known), tensor(4).log())


def test_lsep_weights_soft_pairs_by_their_targets():
    # true 0.5, false 0.75, odds 2/1: 0.75. The other way: true 0.25, false 0.5, odds 1/2: 0.0625. Never with itself.
    losses = lsep(tensor([1, 2]).log(), tensor([0.5, 0.25]))
    torch.testing.assert_close(losses, tensor(1 + 0.75 + 0.0625).log())


def test_lsep_sums_over_all_pairs_of_a_true_and_a_false_label(logits, truth):
    def by_pairs(z, y):
        return math.log1p(sum(math.exp(z[u] - z[v]) for v in range(5) for u in range(5) if y[v] and not y[u]))

    expected = [by_pairs(*clip) for clip in zip(logits.tolist(), truth.tolist(), strict=True)]
    torch.testing.assert_close(lsep(logits, truth), tensor(*expected))


def test_lsep_falls_as_a_true_label_rises_above_the_false_ones():
    pushed = tensor([-5, 0, 1], [-1, 0, 1], [0.5, 0, 1], [2, 0, 1], [9, 0, 1])
    losses = lsep(pushed, tensor([1, 0, 0]).expand(5, 3))
    assert (losses.diff() < 0).all()
    assert losses[-1] < 0.001


def test_lsep_depends_only_on_differences_of_logits(logits, soft):
    torch.testing.assert_close(lsep(logits + 7, soft), lsep(logits, soft))


@pytest.mark.parametrize("targets", [[0, 0, 0], [1, 1, 1], [1, 1, NAN], [NAN, NAN, 0]])
def test_lsep_of_a_clip_without_pairs_is_0_and_has_no_gradient(targets):
    loss = partial(clip_losses, targets=tensor(targets), config=LossConfig(kind="lsep"))
    logits = tensor([100, -100, 3])
    assert loss(logits).tolist() == [0]
    assert gradient(loss, logits).tolist() == [[0, 0, 0]]


def test_bce_equals_torch(logits, soft):
    mean = clip_losses(logits, soft, LossConfig(kind="bce")).mean()
    torch.testing.assert_close(mean, binary_cross_entropy_with_logits(logits, soft))


def test_weighted_bce_equals_torch(logits, soft):
    weights = tensor(0.5, 1, 2, 1, 0.5)
    mean = clip_losses(logits, soft, LossConfig(kind="bce"), label_weights=weights).mean()
    torch.testing.assert_close(mean, binary_cross_entropy_with_logits(logits, soft, weight=weights))


@pytest.mark.parametrize("gamma", [0.5, 1, 2, 5])
def test_focal_equals_torchvision(logits, truth, gamma):
    torch.testing.assert_close(focal(logits, truth, gamma=gamma), sigmoid_focal_loss(logits, truth, -1, gamma))


@pytest.mark.parametrize(
    "loss",
    [
        partial(focal, gamma=0.0),
        partial(asymmetric, gamma_positive=0.0, gamma_negative=0.0, margin=0.0),
        partial(bootstrap, beta=1.0),
        partial(lq, q=1e-9),
    ],
)
def test_losses_with_neutral_parameters_are_cross_entropy(loss, logits, soft):
    torch.testing.assert_close(loss(logits, soft), bce(logits, soft))


def test_lq_of_1_is_the_absolute_error(logits, truth):
    torch.testing.assert_close(lq(logits, truth, q=1), (truth - logits.sigmoid()).abs())


def test_asymmetric_with_equal_gammas_and_no_margin_is_focal(logits, soft):
    losses = asymmetric(logits, soft, gamma_positive=2, gamma_negative=2, margin=0)
    torch.testing.assert_close(losses, focal(logits, soft, gamma=2))


def test_false_label_below_the_margin_has_no_loss_and_no_gradient():
    loss = partial(asymmetric, targets=tensor([0, 0]), gamma_positive=1, gamma_negative=0.5, margin=0.2)
    logits = tensor([-1.5, -1.3])  # probabilities 0.18 and 0.21
    free, costly = loss(logits)[0]
    assert free == 0 < costly
    free, costly = gradient(loss, logits)[0]
    assert free == 0 < costly


def test_gradient_of_bootstrap_flows_through_the_probability():
    # Cross-entropy's p - t times beta, and the entropy's -logit p (1 - p) times 1 - beta
    computed = gradient(partial(bootstrap, targets=tensor([1]), beta=0.8), tensor([math.log(3)]))
    torch.testing.assert_close(computed, tensor([0.8 * -1 / 4 - 0.2 * math.log(3) * 3 / 16]))


@pytest.mark.parametrize("loss", [partial(bootstrap, beta=0.7), partial(lq, q=0.7)])
def test_losses_for_noisy_labels_have_smaller_gradients_at_a_label_that_looks_wrong(loss):
    surely_not = tensor([-4])
    smaller, full = (gradient(partial(kind, targets=tensor([1])), surely_not) for kind in (loss, bce))
    assert full < smaller < 0


@label_loss
def test_loss_of_a_soft_target_is_interpolated(loss, logits, soft):
    both = soft * loss(logits, torch.ones_like(soft)) + (1 - soft) * loss(logits, torch.zeros_like(soft))
    torch.testing.assert_close(loss(logits, soft), both)


@label_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("target", [0.0, 0.3, 1.0])
def test_losses_and_gradients_are_finite_for_extreme_logits(loss, dtype, target):
    logits = torch.tensor([[-1000, -100, -90, -20, 0, 20, 90, 100, 1000]], dtype=dtype)
    at_target = partial(loss, targets=torch.full_like(logits, target))
    assert at_target(logits).isfinite().all()
    assert (at_target(logits) >= 0).all()
    assert gradient(at_target, logits).isfinite().all()


def test_lsep_is_the_greatest_difference_for_extreme_logits():
    loss = partial(lsep, targets=torch.tensor([[1.0, 0.0, 0.0]]))
    logits = torch.tensor([[-100.0, 100.0, 0.0]])
    assert loss(logits).tolist() == [200]
    torch.testing.assert_close(gradient(loss, logits), torch.tensor([[-1.0, 1.0, 0.0]]))
    assert loss(-logits).tolist() == [0]
    assert gradient(loss, -logits).abs().max() < 1e-40


@label_loss
def test_extreme_losses_in_single_precision_are_those_in_double(loss):
    logits = torch.tensor([[-100.0, -50, -10, 10, 50, 100]])
    for target in (0.0, 1.0):
        single = loss(logits, torch.full_like(logits, target))
        double = loss(logits.double(), torch.full_like(logits, target).double())
        torch.testing.assert_close(single.double(), double, rtol=1e-5, atol=1e-6)


@every_kind
def test_gradients_are_the_finite_differences(kind, logits, soft):
    soft[0, 1] = soft[2, 3] = soft[2, 4] = NAN
    soft[3], soft[4, :2] = 0, 1
    config = LossConfig(kind=kind, gamma_positive=1.5, label_smoothing=0.1)
    weights = tensor(0.5, 1, 2, 1, 0.5)
    loss = partial(clip_losses, targets=soft, config=config, label_weights=weights)
    assert torch.autograd.gradcheck(loss, (logits.requires_grad_(),))


@every_kind
@pytest.mark.parametrize("wild", [0.0, 100.0, math.inf, NAN])
def test_unknown_label_has_no_effect(kind, wild):
    config = LossConfig(kind=kind, label_smoothing=0.1)
    known_logits, known_targets = tensor([0.4, -1.2, 2.0]), tensor([1, 0, 0.3])
    with_unknown = tensor([0.4, wild, -1.2, 2.0])
    loss = partial(clip_losses, targets=tensor([1, NAN, 0, 0.3]), config=config)
    torch.testing.assert_close(loss(with_unknown), clip_losses(known_logits, known_targets, config))
    computed = gradient(loss, with_unknown)
    assert computed[0, 1] == 0
    expected = gradient(partial(clip_losses, targets=known_targets, config=config), known_logits)
    torch.testing.assert_close(computed[:, [0, 2, 3]], expected)


@every_kind
def test_clip_without_known_labels_has_no_loss_and_no_gradient(kind):
    loss = partial(clip_losses, targets=tensor([NAN, NAN]), config=LossConfig(kind=kind))
    assert loss(tensor([1, -1])).tolist() == [0]
    assert gradient(loss, tensor([1, -1])).tolist() == [[0, 0]]


@every_kind
def test_batch_of_three_is_three_singles(kind, logits, soft):
    soft[1, 2] = NAN
    loss = partial(clip_losses, config=LossConfig(kind=kind))
    singles = torch.cat([loss(logits[row : row + 1], soft[row : row + 1]) for row in range(3)])
    torch.testing.assert_close(loss(logits[:3], soft[:3]), singles)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (LossConfig(kind="focal", gamma=1.5), partial(focal, gamma=1.5)),
        (
            LossConfig(kind="asymmetric", gamma_positive=0.5, gamma_negative=3, margin=0.1),
            partial(asymmetric, gamma_positive=0.5, gamma_negative=3, margin=0.1),
        ),
        (LossConfig(kind="bootstrap", beta=0.9), partial(bootstrap, beta=0.9)),
        (LossConfig(kind="lq", q=0.4), partial(lq, q=0.4)),
    ],
)
def test_settings_have_an_effect_on_the_loss(config, expected, logits, soft):
    torch.testing.assert_close(clip_losses(logits, soft, config), expected(logits, soft).mean(dim=1))


@every_kind
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_loss_of_logits_in_half_precision_is_computed_in_single(kind, dtype, logits, truth):
    config, halves = LossConfig(kind=kind, label_smoothing=0.1), logits.to(dtype)
    losses = clip_losses(halves, truth.bool(), config)
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses, clip_losses(halves.float(), truth.float(), config))


@every_kind
def test_loss_of_half_precision_logits_matches_their_rounded_values(kind, logits, soft):
    """Otherwise double-precision targets and weights from NumPy would make the steps slow."""
    losses = clip_losses(logits.float(), soft, LossConfig(kind=kind), label_weights=tensor(1, 2, 1, 2, 1))
    assert losses.dtype == torch.float32


def test_smoothing_moves_both_ends_by_half_its_amount():
    smooth = smoothed(tensor([0, 1, 0.5, NAN]), 0.2)
    torch.testing.assert_close(smooth, tensor([0.1, 0.9, 0.5, NAN]), equal_nan=True)


def test_targets_are_smoothed_before_the_loss(logits, truth):
    losses = clip_losses(logits, truth, LossConfig(label_smoothing=0.2))
    torch.testing.assert_close(losses, bce(logits, 0.1 + 0.8 * truth).mean(dim=1))


def test_class_weights_fall_with_the_root_of_the_count_and_have_mean_1():
    # 1, 1/2, 1/4, and 1 for the label without a clip: mean 11/16
    weights = class_weights(torch.tensor([1, 4, 16, 0]))
    torch.testing.assert_close(weights, torch.tensor([16 / 11, 8 / 11, 4 / 11, 16 / 11]))


def test_lsep_uses_the_weights_of_true_labels(logits, truth):
    weights = tensor(0.5, 1, 2, 1, 0.5)
    losses = clip_losses(logits, truth, LossConfig(kind="lsep"), label_weights=weights)
    torch.testing.assert_close(losses, lsep(logits - weights.log() * truth, truth))


def test_shapes_that_do_not_match_are_refused():
    two, three = torch.zeros(2, 4), torch.zeros(3, 4)
    with pytest.raises(ValueError, match=r"of one shape \(batch, n_labels\), got \(2, 4\) and \(3, 4\)"):
        clip_losses(two, three, LossConfig())
    with pytest.raises(ValueError, match=r"got \(4,\) and \(4,\)"):
        clip_losses(two[0], two[0], LossConfig())
    with pytest.raises(ValueError, match=r"need a weight for each of 4 labels, got shape \(2,\)"):
        clip_losses(two, two, LossConfig(), label_weights=torch.ones(2))
