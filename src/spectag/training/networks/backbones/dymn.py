"""DyMN, the dynamic MobileNetV3 of EfficientAT (MIT licence): its kernels depend on the clip.

The module names are those of the published state dicts, which are loaded strictly.

References
----------
Schmid et al., "Dynamic Convolutional Neural Networks as Efficient Pre-trained Audio Models", TASLP 2024.
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from spectag.training.networks.backbones.mobilenet import (
    MOBILENET_BLOCKS,
    AudiosetNetwork,
    BlockConfig,
    audioset_classifier,
    batch_norm,
    convolution_layers,
    scaled_channels,
)

N_KERNELS = 4
"""Kernels of a dynamic convolution, of which each clip gets a weighted sum."""
_N_PIECES = 2  # linear functions of a dynamic ReLU
_MIN_CONTEXT, _MAX_CONTEXT = 32, 128  # channels of the context at width 1


class _Context(NamedTuple):
    """What a block knows of the whole clip: a vector (batch, n_context), and the attention of its expanded channels.

    The attention is (batch, n_expanded, height, 1) over frequency and (batch, n_expanded, 1, width) over time.
    """

    vector: Tensor
    over_frequency: Tensor
    over_time: Tensor


class _ContextGenerator(nn.Module):
    """The context of a block, from the means of its input over time and over frequency."""

    def __init__(self, n_in: int, n_context: int, n_expanded: int, stride: int) -> None:
        super().__init__()
        self.joint_conv = nn.Conv2d(n_in, n_context, 1, bias=False)
        self.joint_norm = batch_norm(n_context)
        self.conv_f = nn.Conv2d(n_context, n_expanded, 1)
        self.conv_t = nn.Conv2d(n_context, n_expanded, 1)
        self.stride = stride

    def forward(self, maps: Tensor) -> _Context:
        sequences = [maps.mean(dim=3, keepdim=True), maps.mean(dim=2, keepdim=True).transpose(2, 3)]
        n_bands = maps.shape[2]
        joint = functional.hardswish(self.joint_norm(self.joint_conv(torch.cat(sequences, dim=2))))
        over_frequency, over_time = joint[:, :, :n_bands], joint[:, :, n_bands:]
        return _Context(
            joint.mean(dim=(2, 3)),
            torch.sigmoid(self.conv_f(self._pooled(over_frequency))),
            torch.sigmoid(self.conv_t(self._pooled(over_time))).transpose(2, 3),
        )

    def _pooled(self, sequence: Tensor) -> Tensor:
        """A sequence (batch, n_context, n, 1) at the stride of the block."""
        if self.stride == 1:
            return sequence
        return functional.avg_pool2d(sequence, (3, 1), (self.stride, 1), (1, 0))


class _DynamicConvolution(nn.Module):
    """A convolution without bias, whose kernel is a sum of four kernels that is weighted for each clip.

    It is either 1 x 1 or depthwise: with one kernel for each channel.
    """

    def __init__(self, n_in: int, n_out: int, n_context: int, *, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.n_out, self.kernel, self.stride = n_out, kernel, stride
        n_inputs = n_in if kernel == 1 else kernel * kernel  # of each output channel
        self.weight = nn.Parameter(torch.empty(1, 1, N_KERNELS, n_out * n_inputs))
        bound = n_inputs**-0.5  # as for every convolution of torch
        nn.init.uniform_(self.weight, -bound, bound)
        self.residuals = nn.Sequential(nn.Linear(n_context, N_KERNELS))

    def forward(self, maps: Tensor, context: Tensor) -> Tensor:
        """Maps (batch, n_out, height, width) of maps (batch, n_in, height, width) and a context (batch, n_context)."""
        shares = torch.softmax(self.residuals(context), dim=1)  # (batch, N_KERNELS)
        if self.kernel > 1 and torch.compiler.is_compiling():
            return self._sum_of_convolutions(maps, shares)
        mixed = shares @ self.weight.view(N_KERNELS, -1)
        kernels = torch.unflatten(mixed, 1, (self.n_out, -1))  # (batch, n_out, n_inputs)
        return self._depthwise(maps, kernels) if self.kernel > 1 else _pointwise(maps, kernels)

    def _depthwise(self, maps: Tensor, kernels: Tensor) -> Tensor:
        """One convolution for the whole batch, whose clips are groups of channels."""
        n_clips, n_channels, *size = maps.shape
        weight = kernels.reshape(n_clips * n_channels, 1, self.kernel, self.kernel)
        grouped = maps.reshape(1, n_clips * n_channels, *size)
        out = functional.conv2d(grouped, weight, None, self.stride, self.kernel // 2, groups=len(weight))
        return out.view(n_clips, n_channels, *out.shape[2:])

    def _sum_of_convolutions(self, maps: Tensor, shares: Tensor) -> Tensor:
        """The same with kernels that do not depend on the clip, for ONNX: the number of groups is fixed there."""
        weight = self.weight.view(N_KERNELS, self.n_out, self.kernel, self.kernel).transpose(0, 1)
        weight = weight.reshape(self.n_out * N_KERNELS, 1, self.kernel, self.kernel)
        out = functional.conv2d(maps, weight, None, self.stride, self.kernel // 2, groups=self.n_out)
        by_kernel = torch.unflatten(out, 1, (self.n_out, N_KERNELS)) * shares[:, None, :, None, None]
        return by_kernel.sum(dim=2)


def _pointwise(maps: Tensor, kernels: Tensor) -> Tensor:
    """A 1 x 1 convolution of maps (batch, n_in, height, width) with kernels (batch, n_out, n_in)."""
    return torch.unflatten(kernels @ maps.flatten(2), 2, maps.shape[2:])


class _DynamicReLU(nn.Module):
    """The maximum of two linear functions, which depend on the clip and the channel."""

    lambdas: Tensor
    init_v: Tensor

    def __init__(self, n_channels: int, n_context: int) -> None:
        super().__init__()
        self.coef_net = nn.Sequential(nn.Linear(n_context, 2 * _N_PIECES * n_channels))
        self.register_buffer("lambdas", torch.tensor([1.0] * _N_PIECES + [0.5] * _N_PIECES))
        self.register_buffer("init_v", torch.tensor([1.0] + [0.0] * (2 * _N_PIECES - 1)))  # ReLU

    def forward(self, maps: Tensor, context: Tensor) -> Tensor:
        changes = torch.unflatten(2 * torch.sigmoid(self.coef_net(context)) - 1, 1, (-1, 2 * _N_PIECES))
        coefficients = (changes * self.lambdas + self.init_v)[..., None]  # (batch, channels, 4, 1)
        *slopes, intercept, other_intercept = torch.split(coefficients, 1, dim=2)
        return torch.maximum(maps * slopes[0] + intercept, maps * slopes[1] + other_intercept)


class _DynamicBlock(nn.Module):
    """An inverted residual block with dynamic convolutions, a dynamic ReLU and attention over frequency and time."""

    def __init__(self, n_in: int, block: BlockConfig, width: float) -> None:
        super().__init__()
        n_expanded, n_out = scaled_channels(block.n_expanded, width), scaled_channels(block.n_out, width)
        n_context = _n_context(n_expanded, width)
        self.expands = n_expanded != n_in
        if self.expands:
            self.exp_conv = _DynamicConvolution(n_in, n_expanded, n_context)
            self.exp_norm = batch_norm(n_expanded)
            self.exp_act = block.activation()
        self.depth_conv = _DynamicConvolution(
            n_expanded, n_expanded, n_context, kernel=block.kernel, stride=block.stride
        )
        self.depth_norm = batch_norm(n_expanded)
        self.depth_act = _DynamicReLU(n_expanded, n_context)
        self.proj_conv = _DynamicConvolution(n_expanded, n_out, n_context)
        self.proj_norm = batch_norm(n_out)
        self.context_gen = _ContextGenerator(n_in, n_context, n_expanded, block.stride)
        self.adds_input = block.stride == 1 and n_in == n_out

    def forward(self, maps: Tensor) -> Tensor:
        context = self.context_gen(maps)
        out: Tensor = maps
        if self.expands:
            out = self.exp_act(self.exp_norm(self.exp_conv(out, context.vector)))
        out = self.depth_act(self.depth_norm(self.depth_conv(out, context.vector)), context.vector)
        out = out * context.over_frequency * context.over_time
        out = self.proj_norm(self.proj_conv(out, context.vector))
        return maps + out if self.adds_input else out


def _n_context(n_expanded: int, width: float) -> int:
    smallest, largest = (scaled_channels(limit, width) for limit in (_MIN_CONTEXT, _MAX_CONTEXT))
    return min(max(scaled_channels(n_expanded // 4, 1), smallest), largest)


class DynamicMobileNet(AudiosetNetwork):
    """DyMN of any width, with AudioSet's classifier.

    The kernels of a clip depend on means over the whole of it, so a part of a clip has other kernels than the clip.

    Parameters
    ----------
    width : float
        Factor on the number of channels: 0.4 for dymn04, 1.0 for dymn10, 2.0 for dymn20.
    """

    def __init__(self, width: float) -> None:
        super().__init__()
        n_in = scaled_channels(16, width)
        self.in_c = convolution_layers(1, n_in, 3, nn.Hardswish, stride=2)
        self.layers = nn.ModuleList()
        for block in MOBILENET_BLOCKS:
            self.layers.append(_DynamicBlock(n_in, block, width))
            n_in = scaled_channels(block.n_out, width)
        self.out_c = convolution_layers(n_in, 6 * n_in, 1, nn.Hardswish)
        self.classifier = audioset_classifier(6 * n_in, width)

    def stages(self) -> Iterable[nn.Module]:
        return (self.in_c, *self.layers, self.out_c)
