"""Heads that are trained by epochs: the loss falls, the same seed gives the same bits, and it is torch's own loss."""

import re

import numpy as np
import pytest
import torch
from scipy.special import expit
from sklearn.metrics import label_ranking_average_precision_score, log_loss

from spectag.config.recipe import Recipe
from spectag.errors import ConfigError
from spectag.training.heads.by_epochs import train_head
from spectag.training.networks.network import build_head
from spectag.training.setup.optimization import WeightedTensors, judge, make_optimizer

N_CLIPS, N_FEATURES, N_LABELS = 60, 12, 4
NONE_HELD_OUT = np.zeros(N_CLIPS, bool)
BY_ADAM = {"optimizer": "adam", "learning_rate": 0.02, "epochs": 8, "batch_size": 16}


@pytest.fixture
def data(rng):
    """Features, and labels that a linear head can learn from them."""
    features = rng.normal(size=(N_CLIPS, N_FEATURES)).astype(np.float32)
    y_true = features @ rng.normal(size=(N_FEATURES, N_LABELS)) > 0
    y_true[~y_true.any(axis=1), 0] = True
    return features, y_true


def training_arrays(features, targets, weights=None):
    weights = np.ones(len(features)) if weights is None else weights
    return WeightedTensors(
        *(torch.from_numpy(np.asarray(values, np.float32)) for values in (features, targets, weights))
    )


def trained(data, *, head="linear", valid=NONE_HELD_OUT, weights=None, **recipe):
    """A head of fixed random beginnings after training, and its epochs."""
    torch.manual_seed(0)
    module = build_head(head, N_FEATURES, N_LABELS)
    features, targets = data
    weights = np.ones(N_CLIPS) if weights is None else weights
    epochs = []
    train_head(
        module,
        training_arrays(features[~valid], targets[~valid], weights[~valid]),
        training_arrays(features[valid], targets[valid]) if valid.any() else None,
        Recipe(**BY_ADAM | {"head": head} | recipe),
        epochs.append,
        part="net, fold 1",
    )
    return module, epochs


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("head", ["linear", "layer_norm"])
def test_loss_falls_and_lwlrap_rises_with_every_optimizer(data, optimizer, head):
    _, epochs = trained(data, optimizer=optimizer, head=head)
    assert [epoch.epoch for epoch in epochs] == list(range(1, 9))
    losses = [epoch.train_loss for epoch in epochs]
    assert losses[-1] < 0.8 * losses[0]
    assert epochs[-1].train_lwlrap > epochs[0].train_lwlrap


def test_scores_of_an_epoch_are_those_of_scikit_learn(data):
    features, y_true = data
    valid = np.arange(N_CLIPS) % 3 == 0
    module, epochs = trained(data, valid=valid)
    with torch.inference_mode():
        logits = module(torch.from_numpy(features)).double().numpy()
    probabilities = expit(logits)
    for rows, loss, score in (
        (~valid, epochs[-1].train_loss, epochs[-1].train_lwlrap),
        (valid, epochs[-1].valid_loss, epochs[-1].valid_lwlrap),
    ):
        assert loss == pytest.approx(log_loss(y_true[rows].ravel(), probabilities[rows].ravel()), abs=1e-5)
        weights = y_true[rows].sum(axis=1)
        lrap = label_ranking_average_precision_score(y_true[rows], logits[rows], sample_weight=weights)
        assert score == pytest.approx(lrap, abs=1e-9)


def test_the_same_seed_gives_the_same_weights_bit_for_bit(data):
    first, again = (trained(data, head="layer_norm")[0].state_dict() for _ in range(2))
    torch.testing.assert_close(first, again, rtol=0, atol=0)


def test_another_seed_shuffles_otherwise(data):
    first, other = (trained(data, seed=seed)[0].linear.weight for seed in (0, 1))
    assert (first != other).any()


def test_held_out_clips_are_not_learnt_from(data):
    features, y_true = data
    valid = np.arange(N_CLIPS) >= 40
    spoilt = np.where(valid[:, None], ~y_true, y_true)
    first, other = (trained((features, labels), valid=valid)[0].state_dict() for labels in (y_true, spoilt))
    torch.testing.assert_close(first, other, rtol=0, atol=0)


def test_one_step_of_sgd_is_the_gradient_of_the_mean_loss(data):
    features, y_true = data
    torch.manual_seed(0)
    before = build_head("linear", N_FEATURES, N_LABELS).linear
    weight, bias = before.weight.detach().numpy(), before.bias.detach().numpy()
    error = expit(features @ weight.T + bias) - y_true
    settings = {"optimizer": "sgd", "learning_rate": 0.5, "epochs": 1, "batch_size": N_CLIPS, "weight_decay": 0.1}
    after = trained(data, **settings)[0].linear
    step = error.T @ features / error.size + 0.1 * weight
    np.testing.assert_allclose(after.weight.detach(), weight - 0.5 * step, atol=1e-6)


def test_weight_decay_pulls_the_weights_to_zero(data):
    free, pulled = (trained(data, optimizer="adamw", weight_decay=decay)[0].linear.weight for decay in (None, 5.0))
    assert pulled.norm() < 0.8 * free.norm()


def test_without_held_out_clips_there_are_no_valid_scores(data):
    _, epochs = trained(data, epochs=1)
    assert epochs[0].valid_loss is epochs[0].valid_lwlrap is None
    assert re.fullmatch(r"epoch   1   train loss 0\.\d{4} lwlrap 0\.\d{4}", str(epochs[0]))


def test_clips_without_a_label_count_in_the_loss_but_have_no_lwlrap(data):
    features, y_true = data
    valid = np.arange(N_CLIPS) < 5
    _, epochs = trained((features, y_true & ~valid[:, None]), valid=valid, epochs=1)
    assert epochs[0].valid_loss > 0
    assert epochs[0].valid_lwlrap is None


def test_epochs_tell_where_they_belong(data):
    _, epochs = trained(data, epochs=2)
    assert [(epoch.part, epoch.n_epochs, epoch.learning_rate) for epoch in epochs] == [("net, fold 1", 2, 0.02)] * 2


def one_step(data, **settings):
    """What a step of plain gradient descent on all clips adds to the weights."""
    plain = {"optimizer": "sgd", "learning_rate": 1.0, "momentum": 0, "epochs": 1, "batch_size": N_CLIPS}
    torch.manual_seed(0)
    before = build_head("linear", N_FEATURES, N_LABELS).linear.weight
    return (trained(data, **plain | settings)[0].linear.weight - before).detach().numpy()


def test_steps_of_clips_add_up_with_their_weights(data, rng):
    weights = rng.uniform(0, 1, N_CLIPS)
    of_each = [one_step(data, weights=np.where(np.arange(N_CLIPS) == i, 1.0, 0.0)) for i in range(N_CLIPS)]
    expected = np.tensordot(weights, of_each, axes=1)
    np.testing.assert_allclose(one_step(data, weights=weights), expected, atol=1e-5)


def test_soft_targets_are_learnt_as_the_mean_of_hard_ones(data):
    features, y_true = data
    steps = [one_step((features, targets)) for targets in (y_true, ~y_true, np.full(y_true.shape, 0.5))]
    np.testing.assert_allclose(steps[2], (steps[0] + steps[1]) / 2, atol=1e-6)


def test_unknown_labels_teach_nothing(data):
    features, y_true = data
    targets = y_true.astype(np.float32)
    targets[:, 1] = np.nan
    step = one_step((features, targets))
    assert (step[1] == 0).all()
    assert (step[[0, 2, 3]] != 0).all()


def test_balanced_class_weights_make_rare_labels_count_more(data):
    features, _ = data
    y_true = np.arange(N_CLIPS)[:, np.newaxis] % np.array([1, 4, 4, 4]) == 0  # of all clips, and of a quarter thrice
    plain, balanced = (one_step((features, y_true), loss={"class_weights": kind}) for kind in ("none", "balanced"))
    weights = np.array([1, 2, 2, 2]) / 1.75  # as 1 / sqrt(clips), with mean 1
    np.testing.assert_allclose(balanced, plain * weights[:, np.newaxis], atol=1e-6)


def test_the_loss_asked_for_is_the_one_that_falls(data):
    _, epochs = trained(data, loss={"kind": "lq", "q": 1.0})
    assert epochs[-1].train_loss < epochs[0].train_loss < 1  # the mean absolute error
    assert trained(data)[1][0].train_loss != epochs[0].train_loss


def test_groups_keep_their_own_rates():
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in (0.1, 0.2)]
    for name, kind in (("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)):
        optimizer = make_optimizer(groups, Recipe(optimizer=name, weight_decay=0.25))
        assert type(optimizer) is kind
        assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.2]
        assert [group["weight_decay"] for group in optimizer.param_groups] == [0.25, 0.25]


def test_logits_that_are_no_numbers_have_no_lwlrap():
    loss, score = judge(torch.full((2, 3), torch.nan), torch.ones(2, 3), Recipe())
    assert np.isnan(loss)
    assert score is None


def test_steps_too_large_are_an_error_that_says_so(data):
    with pytest.raises(ConfigError, match=r"epoch +\d.*train loss (nan|inf).*learning_rate 1e\+38 is too large"):
        trained(data, optimizer="sgd", learning_rate=1e38)
