"""Networks below the head. Each turns inputs (batch, channels, height, width) into feature maps, shallow first.

Height is frequency and width is time.
"""

from spectag.config.backbones import TIMM, BackboneSpec, backbone_spec
from spectag.errors import WeightsError
from spectag.models.weights import WEIGHTS_VARIABLE, find_weights
from spectag.training.networks.backbones.base import Backbone, first_line
from spectag.training.networks.backbones.mobilenet import MobileNetBackbone
from spectag.training.networks.backbones.scratch import ScratchBackbone


def build_backbone(name: str, *, pretrained: bool = True) -> Backbone:
    """Build a network by name, in evaluation mode.

    Parameters
    ----------
    name : str
        A name of the catalogue, or timm/NAME.
    pretrained : bool
        Load the published weights; otherwise they are random.

    Raises
    ------
    ConfigError
        If there is no backbone of that name.
    WeightsError
        If the published weights can't be had or do not fit.
    """
    spec = backbone_spec(name)
    backbone = _architecture(spec)
    if pretrained and name != "scratch":
        _load_published(backbone, spec)
    return backbone.eval()


def _architecture(spec: BackboneSpec) -> Backbone:
    if spec.name.endswith("_audioset"):
        return MobileNetBackbone(width=int(spec.name[2:4]) / 10)
    if spec.name == "scratch":
        return ScratchBackbone()
    from spectag.training.networks.backbones import imagenet  # torchvision and timm take seconds to import

    if spec.name == "convnext_tiny":
        return imagenet.ConvNeXtTiny()
    if spec.name == "efficientnet_lite0":
        return imagenet.EfficientNetLite0()
    return imagenet.TimmBackbone(spec.name.removeprefix(TIMM))


def _load_published(backbone: Backbone, spec: BackboneSpec) -> None:
    path = backbone.local_file() or (find_weights(spec.weights, backbone=spec.name) if spec.weights else None)
    if path is None:
        _fetch_published(backbone, spec.name)
        return
    try:
        backbone.load_published(path)
    except Exception as error:  # torch's unpickler and loader raise whatever they meet
        raise WeightsError(
            f"{path}: not the published weights of {spec.name}: {first_line(error)}; delete the file and fetch it again"
        ) from error


def _fetch_published(backbone: Backbone, name: str) -> None:
    try:
        backbone.fetch_published()
    except Exception as error:  # the hubs' clients raise kinds of their own
        raise WeightsError(
            f"the weights of {name} can't be had: {first_line(error)}. Ways out: put their file into a folder and set "
            f"{WEIGHTS_VARIABLE} to it; take --backbone efficientnet_lite0, whose weights come with the package; "
            "or train without them by --no-pretrained"
        ) from error
