"""Build a backbone: inputs (batch, channels, height, width) to feature maps, first stage first.

Height is frequency and width is time.
"""

from spectag.config.backbones import TIMM, BackboneSpec, backbone_spec
from spectag.config.transformers_networks import is_transformers_network, transformers_network
from spectag.errors import WeightsError, first_line
from spectag.models.weights import WEIGHTS_VARIABLE, find_weights
from spectag.training.networks.backbones.base import Backbone
from spectag.training.networks.backbones.dymn import DynamicMobileNet
from spectag.training.networks.backbones.mobilenet import AudiosetNetwork, MobileNet, MobileNetBackbone
from spectag.training.networks.backbones.scratch import ScratchBackbone


def build_backbone(name: str, *, pretrained: bool = True) -> Backbone:
    """Build a backbone by name, in evaluation mode.

    Parameters
    ----------
    name : str
        A name in `spectag.config.backbones`, timm/NAME, or hf:NAME of a network of transformers.
    pretrained : bool
        Load the published weights; otherwise they are random.

    Raises
    ------
    ConfigError
        If no backbone has this name.
    WeightsError
        If the published weights are not available or do not match.
    """
    spec = backbone_spec(name)
    backbone = _of_transformers(name) if is_transformers_network(name) else _architecture(spec)
    if pretrained and name != "scratch":
        _load_published(backbone, spec)
    return backbone.eval()


def _of_transformers(name: str) -> Backbone:
    from spectag.training.networks.backbones.transformers_backbone import (
        TransformersBackbone,  # takes seconds to import
    )

    return TransformersBackbone(transformers_network(name))


def _architecture(spec: BackboneSpec) -> Backbone:
    if spec.name.endswith("_audioset"):
        return MobileNetBackbone(_audioset_network(spec.name))
    if spec.name == "scratch":
        return ScratchBackbone()
    from spectag.training.networks.backbones import imagenet  # torchvision and timm take seconds to import

    if spec.name == "convnext_tiny":
        return imagenet.ConvNeXtTiny()
    if spec.name == "efficientnet_lite0":
        return imagenet.EfficientNetLite0()
    return imagenet.TimmBackbone(spec.name.removeprefix(TIMM))


def _audioset_network(name: str) -> AudiosetNetwork:
    """The network of a backbone such as mn04_audioset or dymn10_audioset: the digits are tenths of its width."""
    family, width = name.split("_")[0][:-2], int(name.split("_")[0][-2:]) / 10
    return DynamicMobileNet(width) if family == "dymn" else MobileNet(width)


def _load_published(backbone: Backbone, spec: BackboneSpec) -> None:
    path = backbone.local_file() or (find_weights(spec.weights, backbone=spec.name) if spec.weights else None)
    if path is None:
        _fetch_published(backbone, spec.name)
        return
    try:
        backbone.load_published(path)
    except WeightsError:
        raise
    except Exception as error:  # torch's loader raises errors of any class
        raise WeightsError(
            f"{path}: not the published weights of {spec.name}: {first_line(error)}; delete the file and download it "
            "again"
        ) from error


def _fetch_published(backbone: Backbone, name: str) -> None:
    try:
        backbone.fetch_published()
    except Exception as error:  # download clients raise errors of any class
        raise WeightsError(
            f"cannot download the weights of {name}: {first_line(error)}. Put the file into a folder and set "
            f"{WEIGHTS_VARIABLE} to that folder; or use --backbone efficientnet_lite0, whose weights are part of the "
            "package"
        ) from error
