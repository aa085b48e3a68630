"""MobileNetV3 for log_mels with one input channel, as trained on AudioSet by EfficientAT (MIT licence).

The module names are those of the published state dicts, which are loaded strictly.

References
----------
Howard et al., "Searching for MobileNetV3", ICCV 2019.
Schmid et al., "Efficient Large-Scale Audio Tagging via Transformer-to-CNN Knowledge Distillation", ICASSP 2023.
"""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from spectag.training.networks.backbones.base import Backbone, FeatureMaps

N_AUDIOSET_LABELS = 527


class BlockConfig(NamedTuple):
    """One inverted residual block of MobileNetV3-Large, at width 1."""

    kernel: int
    n_expanded: int
    n_out: int
    squeeze: bool
    activation: type[nn.Module]
    stride: int


MOBILENET_BLOCKS = (
    BlockConfig(3, 16, 16, False, nn.ReLU, 1),
    BlockConfig(3, 64, 24, False, nn.ReLU, 2),
    BlockConfig(3, 72, 24, False, nn.ReLU, 1),
    BlockConfig(5, 72, 40, True, nn.ReLU, 2),
    BlockConfig(5, 120, 40, True, nn.ReLU, 1),
    BlockConfig(5, 120, 40, True, nn.ReLU, 1),
    BlockConfig(3, 240, 80, False, nn.Hardswish, 2),
    BlockConfig(3, 200, 80, False, nn.Hardswish, 1),
    BlockConfig(3, 184, 80, False, nn.Hardswish, 1),
    BlockConfig(3, 184, 80, False, nn.Hardswish, 1),
    BlockConfig(3, 480, 112, True, nn.Hardswish, 1),
    BlockConfig(3, 672, 112, True, nn.Hardswish, 1),
    BlockConfig(5, 672, 160, True, nn.Hardswish, 2),
    BlockConfig(5, 960, 160, True, nn.Hardswish, 1),
    BlockConfig(5, 960, 160, True, nn.Hardswish, 1),
)


def scaled_channels(n_channels: int, width: float) -> int:
    """The multiple of 8 closest to n_channels * width, at most 10 % below it."""
    exact = n_channels * width
    rounded = max(8, int(exact + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * exact else rounded


class _Convolution(nn.Sequential):
    """The layers of `convolution_layers`, computed in one step if possible."""

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (batch, n_out, height, width) of maps (batch, n_in, height, width).

        With fixed batch statistics, the normalisation becomes part of the convolution's weights. Results and gradients
        are the same up to rounding, and no pass over the maps is needed. The exporter sees the published layers.
        """
        layers: list[Callable[[Tensor], Tensor]] = list(self)
        if not self[1].training and not torch.compiler.is_compiling():
            layers[:2] = [_folded(*self[:2])]
        for layer in layers:
            maps = layer(maps)
        return maps


def _folded(convolution: Any, norm: Any) -> Callable[[Tensor], Tensor]:
    """A convolution followed by batch normalisation with fixed statistics, as one convolution."""
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    weight, bias = convolution.weight * scale[:, None, None, None], norm.bias - norm.running_mean * scale
    return partial(convolution._conv_forward, weight=weight, bias=bias)


def batch_norm(n_channels: int) -> nn.BatchNorm2d:
    """Batch normalisation with the settings of the published networks."""
    return nn.BatchNorm2d(n_channels, eps=1e-3, momentum=0.01)


def convolution_layers(
    n_in: int, n_out: int, kernel: int, activation: type[nn.Module] | None, *, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """A convolution, its batch normalisation, and an activation if there is one."""
    layers: list[nn.Module] = [
        nn.Conv2d(n_in, n_out, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False),
        batch_norm(n_out),
    ]
    return _Convolution(*layers, *([activation(inplace=True)] if activation else []))


class _ChannelSqueeze(nn.Module):
    """A factor for each channel, from the channel means over frequency and time."""

    def __init__(self, n_channels: int, n_squeezed: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(n_channels, n_squeezed)
        self.fc2 = nn.Linear(n_squeezed, n_channels)

    def forward(self, maps: Tensor) -> Tensor:
        means = maps.mean(dim=(2, 3))  # (batch, channels)
        factors = torch.sigmoid(self.fc2(torch.relu(self.fc1(means))))
        return factors[:, :, None, None]


class _ConcurrentSqueeze(nn.Module):
    """Squeeze-excitation over channels, the only kind (of channel, frequency, time) in the released networks."""

    def __init__(self, n_channels: int, n_squeezed: int) -> None:
        super().__init__()
        self.conc_se_layers = nn.ModuleList([_ChannelSqueeze(n_channels, n_squeezed)])

    def forward(self, maps: Tensor) -> Tensor:
        squeezed: Tensor = maps * self.conc_se_layers[0](maps)
        return squeezed


class _InvertedResidual(nn.Module):
    def __init__(self, n_in: int, block: BlockConfig, width: float) -> None:
        super().__init__()
        n_expanded, n_out = scaled_channels(block.n_expanded, width), scaled_channels(block.n_out, width)
        layers: list[nn.Module] = []
        if n_expanded != n_in:
            layers.append(convolution_layers(n_in, n_expanded, 1, block.activation))
        layers.append(
            convolution_layers(
                n_expanded, n_expanded, block.kernel, block.activation, stride=block.stride, groups=n_expanded
            )
        )
        if block.squeeze:
            layers.append(_ConcurrentSqueeze(n_expanded, scaled_channels(n_expanded // 4, 1)))
        layers.append(convolution_layers(n_expanded, n_out, 1, None))
        self.block = nn.Sequential(*layers)
        self.adds_input = block.stride == 1 and n_in == n_out

    def forward(self, maps: Tensor) -> Tensor:
        out: Tensor = self.block(maps)
        return maps + out if self.adds_input else out


def audioset_classifier(n_last: int, width: float) -> nn.Sequential:
    """The layers from the last maps (batch, n_last, height, width) to AudioSet's logits."""
    n_hidden = scaled_channels(1280, width)
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(1),
        nn.Linear(n_last, n_hidden),
        nn.Hardswish(inplace=True),
        nn.Dropout(0.2),
        nn.Linear(n_hidden, N_AUDIOSET_LABELS),
    )


class AudiosetNetwork(nn.Module):
    """A network of EfficientAT: stages, then AudioSet's classifier."""

    classifier: nn.Sequential

    def stages(self) -> Iterable[nn.Module]:
        """The layers before the classifier, first stage first."""
        raise TypeError(f"{type(self).__name__} has no stages")

    def forward(self, log_mel: Tensor) -> Tensor:
        """Logits (batch, 527) of log_mels (batch, 1, n_mels, n_frames)."""
        maps = log_mel
        for stage in self.stages():
            maps = stage(maps)
        logits: Tensor = self.classifier(maps)
        return logits


class MobileNet(AudiosetNetwork):
    """MobileNetV3-Large of any width, with AudioSet's classifier.

    Parameters
    ----------
    width : float
        Factor on the number of channels: 0.4 for mn04, 1.0 for mn10, ...
    """

    def __init__(self, width: float) -> None:
        super().__init__()
        n_in = scaled_channels(16, width)
        layers: list[nn.Module] = [convolution_layers(1, n_in, 3, nn.Hardswish, stride=2)]
        for block in MOBILENET_BLOCKS:
            layers.append(_InvertedResidual(n_in, block, width))
            n_in = scaled_channels(block.n_out, width)
        n_last = 6 * n_in
        layers.append(convolution_layers(n_in, n_last, 1, nn.Hardswish))
        self.features = nn.Sequential(*layers)
        self.classifier = audioset_classifier(n_last, width)

    def stages(self) -> Iterable[nn.Module]:
        return self.features


class MobileNetBackbone(Backbone):
    """A MobileNet. Every block is a stage; the embedding is the layer before AudioSet's labels."""

    def __init__(self, network: AudiosetNetwork) -> None:
        super().__init__()
        self.network: AudiosetNetwork = network

    def classifier(self) -> nn.Linear:
        layer = self.network.classifier[-1]
        assert isinstance(layer, nn.Linear)
        return layer

    def load_published(self, path: Path) -> None:
        self.network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))

    def feature_maps(self, inputs: Tensor) -> FeatureMaps:
        maps, stages = inputs, []
        for stage in self.network.stages():
            maps = stage(maps)
            stages.append(maps)
        pool, flatten, hidden, activation = self.network.classifier[:4]
        return FeatureMaps(tuple(stages), activation(hidden(flatten(pool(maps)))))
