"""Parameter groups for fine-tuning: a learning rate for each stage of the network, and which stages are frozen."""

from typing import Any

import torch
from torch import Tensor, nn

from spectag.config.training import FinetuneConfig
from spectag.training.networks.network import FeatureExtractor, TaggerNetwork


def parameters_by_stage(extractor: FeatureExtractor, example: Tensor) -> list[list[nn.Parameter]]:
    """The parameters of each stage, first stage first: those on which its features depend but no earlier stage's do.

    Parameters
    ----------
    extractor : FeatureExtractor
    example : float tensor of shape (1, channels, height, width)
        Any input.
    """
    remaining = [parameter for parameter in extractor.parameters() if parameter.requires_grad]
    stages = []
    for stage_sum in _stage_sums(extractor, example):
        if not remaining or not stage_sum.requires_grad:
            continue
        gradients = torch.autograd.grad(stage_sum, remaining, retain_graph=True, allow_unused=True)
        stages.append([parameter for parameter, g in zip(remaining, gradients, strict=True) if g is not None])
        remaining = [parameter for parameter, g in zip(remaining, gradients, strict=True) if g is None]
    return [stage for stage in stages if stage]


def _stage_sums(extractor: FeatureExtractor, example: Tensor) -> list[Tensor]:
    """A scalar for each stage that depends on all parameters of the stage, even if the head does not use it."""
    maps = extractor.backbone(example)
    sums = [stage.sum() for stage in maps.stages]
    return sums if maps.embedding is None or extractor.kind == "last" else [*sums, maps.embedding.sum()]


def optimizer_groups(
    tagger: TaggerNetwork, example: Tensor, learning_rate: float, config: FinetuneConfig
) -> list[dict[str, Any]]:
    """Parameter groups with their learning rates. All other parameters are frozen by this call.

    The last stage has `learning_rate`, and each stage before it `layer_decay` times the rate of the next; the head has
    `head_lr_multiplier` times `learning_rate`. Only the last `unfreeze` stages and the head are trained.
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
    trained_ids = {id(parameter) for group in groups for parameter in group["params"]}
    for parameter in tagger.parameters():
        parameter.requires_grad_(id(parameter) in trained_ids)
    return groups
