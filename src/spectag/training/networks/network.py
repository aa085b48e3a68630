"""The whole network: a backbone, its stages pooled to features, and a head."""

from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from spectag.errors import BundleError, first_line
from spectag.models.bundle import WEIGHTS_FILE, check_network_file, read_info
from spectag.models.clip_windows import FrameWindows
from spectag.training.heads.head_weights import LAYER_NORM_EPSILON, HeadKind
from spectag.training.networks.backbones.base import Backbone

_MIN_VARIANCE = 1e-10


class FeatureExtractor(nn.Module):
    """A backbone and the pooling of its stages.

    Parameters
    ----------
    backbone : Backbone
    kind : "all" or "last"
        all: mean and standard deviation over frequency and time of every stage, then the backbone's embedding if it
        has one. last: the mean of the last stage; of networks of transformers, their pooled output if they have one.
    """

    def __init__(self, backbone: Backbone, kind: Literal["all", "last"]) -> None:
        super().__init__()
        self.backbone = backbone
        self.kind = kind

    def groups(self, inputs: Tensor) -> list[Tensor]:
        """Features (batch, n) of each stage, first stage first."""
        maps = self.backbone(inputs)
        if self.kind == "last" and self.backbone.embedding_is_last and maps.embedding is not None:
            return [maps.embedding]
        if self.kind == "last":
            return [maps.stages[-1].mean(dim=(2, 3))]
        groups = [_mean_and_deviation(stage) for stage in maps.stages]
        return groups if maps.embedding is None else [*groups, maps.embedding]

    def forward(self, inputs: Tensor) -> Tensor:
        """Features (batch, n_features) of inputs (batch, channels, height, width)."""
        return torch.cat(self.groups(inputs), dim=1)


def _mean_and_deviation(maps: Tensor) -> Tensor:
    """Mean and standard deviation (batch, 2 * channels) over frequency and time of maps (batch, channels, ...)."""
    if maps.device.type == "cpu" and not torch.compiler.is_compiling():
        pooled: Tensor = _MeanAndDeviation.apply(maps)
        return pooled
    variance, mean = torch.var_mean(maps, dim=(2, 3), correction=0)
    deviation = torch.sqrt(variance.clamp(min=_MIN_VARIANCE))  # clamp, not a sum: the exporter drops such a small term
    return torch.cat([mean, deviation], dim=1)


class _MeanAndDeviation(torch.autograd.Function):
    """`_mean_and_deviation` on a CPU, outside of the exporter.

    There, torch needs 4 to 28 times as long for var_mean of maps in channels_last, and several passes over the maps for
    its gradient instead of one.
    """

    @staticmethod
    def forward(ctx: Any, maps: Tensor) -> Tensor:
        mean = maps.mean(dim=(2, 3), keepdim=True)
        variance = (maps - mean).square_().mean(dim=(2, 3))
        mean, deviation = mean[:, :, 0, 0], variance.clamp(min=_MIN_VARIANCE).sqrt_()
        ctx.save_for_backward(maps, mean, deviation, variance >= _MIN_VARIANCE)
        return torch.cat([mean, deviation], dim=1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        maps, mean, deviation, varies = ctx.saved_tensors
        of_mean, of_deviation = (gradient / maps[0, 0].numel()).chunk(2, dim=1)
        slope = torch.where(varies, of_deviation / deviation, 0.0)
        offset = of_mean - slope * mean
        return torch.addcmul(offset[:, :, None, None], slope[:, :, None, None], maps)


class StandardizedLinear(nn.Module):
    """A linear layer on standardised features: (features - center) * scale."""

    center: Tensor
    scale: Tensor

    def __init__(self, n_features: int, n_labels: int) -> None:
        super().__init__()
        self.register_buffer("center", torch.zeros(n_features))
        self.register_buffer("scale", torch.ones(n_features))
        self.linear = nn.Linear(n_features, n_labels)

    def forward(self, features: Tensor) -> Tensor:
        """Logits (batch, n_labels) of features (batch, n_features)."""
        logits: Tensor = self.linear((features - self.center) * self.scale)
        return logits

    @torch.no_grad()
    def rebase(self, center: Tensor, scale: Tensor) -> None:
        """Replace center and scale, and adapt the weights so that the logits stay the same.

        Features with a new scale of 0 are ignored from then on.
        """
        weight, bias = self.linear.weight.double(), self.linear.bias.double()
        slopes = weight * self.scale.double()
        bias = bias + slopes @ (center.double() - self.center.double())
        used = scale > 0
        weight = torch.where(used, slopes / torch.where(used, scale, torch.ones_like(scale)).double(), 0.0)
        self.linear.weight.copy_(weight)
        self.linear.bias.copy_(bias)
        self.center.copy_(center)
        self.scale.copy_(scale)


class LayerNormHead(nn.Module):
    """The head of torchvision's ConvNeXt on pooled features: LayerNorm2d, Flatten, Linear."""

    def __init__(self, n_features: int, n_labels: int) -> None:
        super().__init__()
        from torchvision.models.convnext import LayerNorm2d

        self.layers = nn.Sequential(
            LayerNorm2d(n_features, eps=LAYER_NORM_EPSILON), nn.Flatten(1), nn.Linear(n_features, n_labels)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Logits (batch, n_labels) of features (batch, n_features)."""
        logits: Tensor = self.layers(features[:, :, None, None])
        return logits


def build_head(kind: HeadKind, n_features: int, n_labels: int) -> StandardizedLinear | LayerNormHead:
    """A head with random weights."""
    return StandardizedLinear(n_features, n_labels) if kind == "linear" else LayerNormHead(n_features, n_labels)


class TaggerNetwork(nn.Module):
    """Inputs (batch, channels, height, width) to logits (batch, n_labels).

    With `windows`, the logits contain the maximum over the input and its windows.
    """

    def __init__(self, extractor: FeatureExtractor, head: nn.Module, windows: FrameWindows | None = None) -> None:
        super().__init__()
        self.extractor = extractor
        self.head = head
        self.windows = windows

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (batch, n_labels); their sigmoid is the probability of each label."""
        logits: Tensor = self.head(self.extractor(inputs))
        if self.windows is None:
            return logits
        length, weight, largest = self.windows.length, self.windows.weight, logits
        for start in self.windows.starts(inputs.shape[-1]):
            largest = torch.maximum(largest, self.head(self.extractor(inputs[..., start : start + length])))
        return (1 - weight) * logits + weight * largest


def load_part(module: nn.Module, name: str, bundle: Path) -> None:
    """Load the weights of a part of the network, "extractor" or "head", from a bundle into a module.

    Raises
    ------
    BundleError
        If the bundle's weights are damaged, have changed since the bundle was written, or do not match.
    """
    path = bundle / WEIGHTS_FILE
    check_network_file(bundle, read_info(bundle), WEIGHTS_FILE)
    try:
        saved = load_file(path)
        module.load_state_dict(
            {key.removeprefix(f"{name}."): values for key, values in saved.items() if key.startswith(f"{name}.")}
        )
    except (OSError, RuntimeError, SafetensorError) as error:
        raise BundleError(f"{path}: cannot load the weights: {first_line(error)}; train that bundle again") from error
