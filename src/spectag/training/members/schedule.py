"""How the learning rate rises and falls, and which steps' weights make the average."""

import math

import torch
from torch import nn

from spectag.config.training import FinetuneConfig

_ONE_CYCLE_RISE, _ONE_CYCLE_START, _ONE_CYCLE_END = 0.3, 1 / 25, 1 / 25 / 1e4
SWA_SHARE = 0.25
"""Of all steps, the last ones whose mean is taken."""


def rate_factor(step: int, n_steps: int, config: FinetuneConfig) -> float:
    """Share of the full learning rate at a step (from 0) of so many.

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
    n_rising = config.warmup_fraction * n_steps
    if step < n_rising:
        return (step + 1) / (n_rising + 1)
    if config.schedule == "constant":
        return 1.0
    return _cosine(1.0, 0.0, (step - n_rising) / (n_steps - n_rising))


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(share, 1.0))) / 2


def averaging_weight(n_averaged: int, config: FinetuneConfig) -> float:
    """Share of a step's weights in the average with those of so many steps before it."""
    if n_averaged == 0:
        return 1.0
    if config.weight_averaging == "swa":
        return 1 / (n_averaged + 1)
    return 1 - min(config.ema_decay, (1 + n_averaged) / (10 + n_averaged))  # soon forgets where it began


@torch.no_grad()
def update_average(average: nn.Module, newest: nn.Module, share: float) -> None:
    """Take a share of the newest weights and statistics into their average, in place."""
    for mean, values in zip(average.state_dict().values(), newest.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(values, share)
        else:  # batch normalisation counts its batches
            mean.copy_(values)
