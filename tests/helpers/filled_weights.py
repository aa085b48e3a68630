"""Weights of a network that depend only on their names and shapes, as those of the reference outputs."""

import zlib

import numpy as np
import torch


def filled_weight(name, shape):
    """Random values, drawn with a seed that is computed from the name."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("running_var"):
        return rng.uniform(0.5, 1.5, shape)
    if name.endswith("running_mean"):
        return rng.normal(0, 0.1, shape)
    if len(shape) == 1 and name.endswith("weight"):
        return rng.uniform(0.5, 1.5, shape)
    if len(shape) <= 1:
        return rng.normal(0, 0.1, shape)
    return rng.normal(0, 1 / np.sqrt(np.prod(shape[1:])), shape)


def fill_weights(network):
    """Fill the floating tensors of a network's state dict, and return the network in evaluation mode."""
    for name, values in network.state_dict().items():
        if values.is_floating_point():
            values.copy_(torch.from_numpy(filled_weight(name, tuple(values.shape))))
    return network.eval()
