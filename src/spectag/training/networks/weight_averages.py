"""The mean weights of several networks."""

import copy
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import nn

from spectag.training.networks.network import StandardizedLinear

N = TypeVar("N", bound=nn.Module)


def average_weights(networks: Sequence[N]) -> N:
    """A network with the mean weights of several networks that started from the same weights.

    References
    ----------
    Wortsman et al., "Model soups", ICML 2022.
    """
    networks = [copy.deepcopy(network) for network in networks]
    _share_standardization(networks)
    states = [network.state_dict() for network in networks]
    mean = {
        name: torch.stack([state[name].double() for state in states]).mean(dim=0).to(first.dtype)
        for name, first in states[0].items()
    }
    networks[0].load_state_dict(mean)
    return networks[0]


def _share_standardization(networks: Sequence[nn.Module]) -> None:
    """Give all linear heads the same center and scale, so that averaging their weights averages their logits."""
    heads = [module for network in networks for module in network.modules() if isinstance(module, StandardizedLinear)]
    if heads:
        center = torch.stack([head.center for head in heads]).mean(dim=0)
        scale = torch.stack([head.scale for head in heads]).mean(dim=0)
        for head in heads:
            head.rebase(center, scale)
