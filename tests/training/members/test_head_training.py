"""Heads trained by epochs: the loss falls, the same seed gives identical weights, and scores equal scikit-learn's."""

import re

import numpy as np
import pytest
import torch
from scipy.special import expit
from sklearn.metrics import label_ranking_average_precision_score, log_loss

from spectag.config.recipe import Recipe
from spectag.errors import ConfigError
from spectag.training.heads.head_weights import HeadWeights
from spectag.training.heads.logistic import fit_heads
from spectag.training.heads.per_fold import FrozenFeatures
from spectag.training.members.head_training import (
    fit_by_gradient,
    head_module,
    head_weights,
    initial_head,
    train_head,
)
from spectag.training.networks.network import build_head
from spectag.training.setup.callbacks import Callbacks
from spectag.training.setup.cross_validation import CrossValidation
from spectag.training.setup.held_out import HeldOut
from spectag.training.setup.optimization import WeightedTensors, make_optimizer, mean_loss_and_lwlrap

N_CLIPS, N_FEATURES, N_LABELS = 60, 12, 4
NONE_HELD_OUT = np.zeros(N_CLIPS, bool)
BY_ADAM = {"optimizer": "adam", "learning_rate": 0.02, "epochs": 8, "batch_size": 16}


@pytest.fixture
def data(rng):
    """Features, and labels that a linear head can predict from them."""
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
    """A head trained from fixed random weights, and its epochs."""
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
        name="net, fold 1",
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


def test_same_seed_gives_the_same_weights_bit_for_bit(data):
    first, again = (trained(data, head="layer_norm")[0].state_dict() for _ in range(2))
    torch.testing.assert_close(first, again, rtol=0, atol=0)


def test_another_seed_gives_another_order(data):
    first, other = (trained(data, seed=seed)[0].linear.weight for seed in (0, 1))
    assert (first != other).any()


def test_held_out_clips_do_not_change_the_weights(data):
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


def test_weight_decay_shrinks_the_weights(data):
    free, small = (trained(data, optimizer="adamw", weight_decay=decay)[0].linear.weight for decay in (None, 5.0))
    assert small.norm() < 0.8 * free.norm()


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


def test_epochs_have_the_name_of_their_training(data):
    _, epochs = trained(data, epochs=2)
    assert [(epoch.part, epoch.n_epochs, epoch.learning_rate) for epoch in epochs] == [("net, fold 1", 2, 0.02)] * 2


def one_step(data, **settings):
    """The change of the weights by one step of gradient descent on all clips."""
    plain = {"optimizer": "sgd", "learning_rate": 1.0, "momentum": 0, "epochs": 1, "batch_size": N_CLIPS}
    torch.manual_seed(0)
    before = build_head("linear", N_FEATURES, N_LABELS).linear.weight
    return (trained(data, **plain | settings)[0].linear.weight - before).detach().numpy()


def test_steps_of_clips_add_up_with_their_weights(data, rng):
    weights = rng.uniform(0, 1, N_CLIPS)
    of_each = [one_step(data, weights=np.where(np.arange(N_CLIPS) == i, 1.0, 0.0)) for i in range(N_CLIPS)]
    expected = np.tensordot(weights, of_each, axes=1)
    np.testing.assert_allclose(one_step(data, weights=weights), expected, atol=1e-5)


def test_step_of_soft_targets_is_the_mean_of_hard_ones(data):
    features, y_true = data
    steps = [one_step((features, targets)) for targets in (y_true, ~y_true, np.full(y_true.shape, 0.5))]
    np.testing.assert_allclose(steps[2], (steps[0] + steps[1]) / 2, atol=1e-6)


def test_unknown_labels_have_no_gradient(data):
    features, y_true = data
    targets = y_true.astype(np.float32)
    targets[:, 1] = np.nan
    step = one_step((features, targets))
    assert (step[1] == 0).all()
    assert (step[[0, 2, 3]] != 0).all()


def test_balanced_class_weights_make_rare_labels_count_more(data):
    features, _ = data
    y_true = (
        np.arange(N_CLIPS)[:, np.newaxis] % np.array([1, 4, 4, 4]) == 0
    )  # one label of all clips, three of a quarter
    plain, balanced = (one_step((features, y_true), loss={"class_weights": kind}) for kind in ("none", "balanced"))
    weights = np.array([1, 2, 2, 2]) / 1.75  # as 1 / sqrt(clips), with mean 1
    np.testing.assert_allclose(balanced, plain * weights[:, np.newaxis], atol=1e-6)


def test_requested_loss_is_minimised(data):
    _, epochs = trained(data, loss={"kind": "lq", "q": 1.0})
    assert epochs[-1].train_loss < epochs[0].train_loss < 1  # the mean absolute error
    assert trained(data)[1][0].train_loss != epochs[0].train_loss


def test_parameter_groups_keep_their_learning_rates():
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in (0.1, 0.2)]
    for name, kind in (("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)):
        optimizer = make_optimizer(groups, Recipe(optimizer=name, weight_decay=0.25))
        assert type(optimizer) is kind
        assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.2]
        assert [group["weight_decay"] for group in optimizer.param_groups] == [0.25, 0.25]


def test_nan_logits_have_no_lwlrap():
    loss, score = mean_loss_and_lwlrap(torch.full((2, 3), torch.nan), torch.ones(2, 3), Recipe())
    assert np.isnan(loss)
    assert score is None


def test_too_large_learning_rate_is_an_error(data):
    with pytest.raises(ConfigError, match=r"epoch +\d.*train loss (nan|inf).*learning_rate 1e\+38 is too large"):
        trained(data, optimizer="sgd", learning_rate=1e38)


# ------------------------------------------------------------------------------------------------ fold by fold


SIZES = [4, 8]
FOLD = np.arange(N_CLIPS) % 3
IN_FOLD = tuple(number == FOLD for number in range(3))
FOLDS = HeldOut(("1", "2", "3"), IN_FOLD, False, "")
SPLIT = HeldOut(("1",), IN_FOLD[:1], True, "")
NONE = HeldOut((), (), False, "")


def logits_by(head, features):
    with torch.inference_mode():
        return head(torch.from_numpy(features)).numpy()


@pytest.mark.parametrize("head", ["linear", "layer_norm"])
@pytest.mark.parametrize(
    ("choice", "names"), [(FOLDS, ["fold 1", "fold 2", "fold 3", "all clips"]), (SPLIT, ["1"]), (NONE, ["all clips"])]
)
def test_heads_are_trained_fold_by_fold(data, choice, names, head):
    features, y_true = data
    epochs, lines = [], []
    fit = fit_by_gradient(
        FrozenFeatures(features, SIZES),
        CrossValidation.of(y_true, choice),
        Recipe(**BY_ADAM | {"head": head, "epochs": 3}),
        Callbacks(log=lines.append, on_epoch=epochs.append),
        name="net, ",
    )
    assert lines == (names if len(names) > 1 else [])
    assert [(epoch.part, epoch.epoch) for epoch in epochs] == [(f"net, {name}", n) for name in names for n in (1, 2, 3)]
    assert fit.epochs == tuple(epochs)
    assert len(fit.heads) == len(names)
    for rows, of_fold in zip(choice.rows, fit.heads, strict=False):
        np.testing.assert_array_equal(fit.logits.chosen[rows], of_fold.logits(features[rows]))
    assert np.isnan(fit.logits.chosen[~np.any([*choice.rows, np.zeros(N_CLIPS, bool)], axis=0)]).all()
    assert all((epoch.valid_loss is None) == (epoch.part == "net, all clips") for epoch in epochs)


def test_initial_heads_are_drawn_from_the_seed(data):
    features, _ = data
    weights = [initial_head(features, SIZES, N_LABELS, Recipe(seed=seed)).linear.weight for seed in (0, 0, 1)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_head_module_gives_the_same_logits(data):
    features, y_true = data
    (head,) = fit_heads(features, y_true, SIZES, (1e-3,))
    module = head_module(head)
    np.testing.assert_allclose(logits_by(module, features), head.logits(features), atol=1e-5)
    np.testing.assert_allclose(head_weights(module).logits(features), head.logits(features), atol=1e-5)


@pytest.mark.parametrize("kind", ["linear", "layer_norm"])
def test_arrays_of_a_module_give_its_logits(data, kind):
    features, _ = data
    torch.manual_seed(1)
    module = build_head(kind, N_FEATURES, N_LABELS)
    for values in module.state_dict().values():
        values.add_(torch.rand_like(values))
    head = head_weights(module)
    np.testing.assert_allclose(head.logits(features), logits_by(module, features), atol=1e-5)
    np.testing.assert_allclose(head.scaled(2.0, 0.5).logits(features), 2 * head.logits(features) + 0.5, atol=1e-4)
    assert {name: array.shape for name, array in HeadWeights.zeros(kind, N_FEATURES, N_LABELS).arrays.items()} == {
        name: array.shape for name, array in head.arrays.items()
    }
