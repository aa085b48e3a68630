"""Which parameters belong to which stage of a network: what learns fast, slowly, or not at all."""

from typing import Any

import torch
from torch import Tensor, nn

from spectag.config.training import FinetuneConfig
from spectag.training.networks.network import FeatureExtractor, Tagger


def parameters_by_stage(extractor: FeatureExtractor, example: Tensor) -> list[list[nn.Parameter]]:
    """The parameters of each stage, shallow first: those on which its features depend, and no earlier stage's.

    Parameters
    ----------
    extractor : FeatureExtractor
    example : float tensor of shape (1, channels, height, width)
        Any input.
    """
    left = [parameter for parameter in extractor.parameters() if parameter.requires_grad]
    stages = []
    for stage_sum in _stage_sums(extractor, example):
        if not left or not stage_sum.requires_grad:
            continue
        gradients = torch.autograd.grad(stage_sum, left, retain_graph=True, allow_unused=True)
        stages.append([parameter for parameter, g in zip(left, gradients, strict=True) if g is not None])
        left = [parameter for parameter, g in zip(left, gradients, strict=True) if g is None]
    return [stage for stage in stages if stage]


def _stage_sums(extractor: FeatureExtractor, example: Tensor) -> list[Tensor]:
    """A number for each stage that depends on all that the stage depends on, whether the head sees the stage or not."""
    maps = extractor.backbone(example)
    sums = [stage.sum() for stage in maps.stages]
    return sums if maps.embedding is None or extractor.kind == "last" else [*sums, maps.embedding.sum()]


def learning_groups(
    tagger: Tagger, example: Tensor, learning_rate: float, config: FinetuneConfig
) -> list[dict[str, Any]]:
    """Groups of parameters with their learning rates; parameters in none of them are frozen, here and now.

    The deepest stage learns at `learning_rate`, each one before it slower by the factor `layer_decay`, the head at
    `head_lr_multiplier` times the learning rate. Only the deepest `unfreeze` learn.
    """
    tagger.requires_grad_(True)
    stages = parameters_by_stage(tagger.extractor, example)
    n_trained = len(stages) if config.unfreeze == "all" else min(config.unfreeze, len(stages))
    trained = stages[len(stages) - n_trained :]
    groups: list[dict[str, Any]] = [
        {"params": stage, "lr": learning_rate * config.layer_decay ** (n_trained - 1 - depth)}
        for depth, stage in enumerate(trained)
    ]
    groups.append({"params": list(tagger.head.parameters()), "lr": learning_rate * config.head_lr_multiplier})
    learning = {id(parameter) for group in groups for parameter in group["params"]}
    for parameter in tagger.parameters():
        parameter.requires_grad_(id(parameter) in learning)
    return groups
