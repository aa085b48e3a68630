"""Learning-rate schedules, and averages of the weights over training steps."""

import math

import torch
from torch import nn

from spectag.config.training import FinetuneConfig

_ONE_CYCLE_RISE, _ONE_CYCLE_START, _ONE_CYCLE_END = 0.3, 1 / 25, 1 / 25 / 1e4
SWA_FRACTION = 0.25
"""Fraction of the steps, at the end of training, whose weights are averaged by SWA."""


def lr_factor(step: int, n_steps: int, config: FinetuneConfig) -> float:
    """The learning rate at a step (from 0) of `n_steps`, as a fraction of the full learning rate.

    References
    ----------
    Smith and Topin, "Super-convergence", 2018, for one_cycle, here as torch's OneCycleLR; Loshchilov and Hutter,
    "SGDR", ICLR 2017, for cosine.
    """
    if config.schedule == "one_cycle":
        peak = max(_ONE_CYCLE_RISE * n_steps - 1, 1e-9)
        if step <= peak:
            return _cosine(_ONE_CYCLE_START, 1.0, step / peak)
        return _cosine(1.0, _ONE_CYCLE_END, (step - peak) / max(n_steps - 1 - peak, 1e-9))
    n_warmup = config.warmup_fraction * n_steps
    if step < n_warmup:
        return (step + 1) / (n_warmup + 1)
    if config.schedule == "constant":
        return 1.0
    return _cosine(1.0, 0.0, (step - n_warmup) / (n_steps - n_warmup))


def _cosine(start: float, end: float, fraction: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(fraction, 1.0))) / 2


def averaging_weight(n_averaged: int, config: FinetuneConfig) -> float:
    """Weight of a step in the average with the `n_averaged` steps before it."""
    if n_averaged == 0:
        return 1.0
    if config.weight_averaging == "swa":
        return 1 / (n_averaged + 1)
    return 1 - min(config.ema_decay, (1 + n_averaged) / (10 + n_averaged))  # a short memory at first


@torch.no_grad()
def update_average(average: nn.Module, newest: nn.Module, weight: float) -> None:
    """Move the average, in place, towards the newest weights and batch statistics by `weight` (0 to 1)."""
    for mean, values in zip(average.state_dict().values(), newest.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(values, weight)
        else:  # the number of batches of a batch normalisation
            mean.copy_(values)
