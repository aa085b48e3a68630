"""Heads that are trained by epochs: the loss falls, the same seed gives the same bits, and it is torch's own loss."""

import re

import numpy as np
import pytest
import torch
from sklearn.metrics import label_ranking_average_precision_score, log_loss

from spectag.errors import ConfigError
from spectag.gradient_fit import Epoch, train_head
from spectag.recipe import Recipe
from spectag.tagger import build_head

N_CLIPS, N_FEATURES, N_LABELS = 60, 12, 4
NONE_HELD_OUT = np.zeros(N_CLIPS, bool)


@pytest.fixture
def data(rng):
    """Features, and labels that a linear head can learn from them."""
    features = rng.normal(size=(N_CLIPS, N_FEATURES)).astype(np.float32)
    y_true = features @ rng.normal(size=(N_FEATURES, N_LABELS)) > 0
    y_true[~y_true.any(axis=1), 0] = True
    return features, y_true


def trained(data, *, head="linear", valid=NONE_HELD_OUT, **recipe):
    """A head of fixed random beginnings after training, and its epochs."""
    torch.manual_seed(0)
    module = build_head(head, N_FEATURES, N_LABELS)
    epochs = []
    settings = {"optimizer": "adam", "learning_rate": 0.02, "epochs": 8, "batch_size": 16, "head": head}
    train_head(module, *data, valid, Recipe(**settings | recipe), epochs.append)
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
    probabilities = 1 / (1 + np.exp(-logits))
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
    error = 1 / (1 + np.exp(-(features @ weight.T + bias))) - y_true
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


def test_an_epoch_reads_as_a_line():
    assert str(Epoch(12, 0.25, 0.5, 1.0, None)) == "epoch  12   train loss 0.2500 lwlrap 0.5000   valid loss 1.0000"


def test_steps_too_large_are_an_error_that_says_so(data):
    with pytest.raises(ConfigError, match=r"epoch +\d.*train loss (nan|inf).*learning_rate 1e\+38 is too large"):
        trained(data, optimizer="sgd", learning_rate=1e38)
