"""The backbones by name: their mel settings, the source of their weights and their licence."""

from dataclasses import dataclass
from itertools import starmap

from spectag.config.base import MelConfig, parse_config
from spectag.config.network_cards import is_card, open_card
from spectag.errors import ConfigError, did_you_mean

EFFICIENTAT_RELEASE = "https://github.com/fschmid56/EfficientAT/releases/download/v0.0.1"

AUDIOSET_MEL = MelConfig(
    sample_rate=32_000,
    n_fft=1024,
    win_length=800,
    hop_length=320,
    window="hann_symmetric",
    pad_mode="reflect",
    pre_emphasis=0.97,
    n_mels=128,
    f_min=0.0,
    f_max=15_000.0,
    mel_scale="kaldi",
    mel_norm=None,
    log="ln",
    amin=1e-5,
    top_db=None,
    mean=-4.5,
    std=5.0,
)
"""The mel settings of the EfficientAT networks (Schmid et al., 2023)."""

IMAGE_MEL = MelConfig(
    sample_rate=32_000,
    n_fft=2048,
    hop_length=512,
    n_mels=224,
    f_min=20.0,
    f_max=16_000.0,
    ref="max",
    top_db=80.0,
    mean=-80.0,
    std=80.0,
)
"""For networks that were trained on photographs: decibels below the maximum of the clip, scaled to 0 (silence) to 1."""


@dataclass(frozen=True)
class WeightsSource:
    """A file with published weights.

    `sha256` is None if no value is known: then the value of the first download is kept, and the file must not change
    later. `n_bytes` is then the size of the parameters, which is a little less than the file.
    """

    file_name: str
    url: str
    sha256: str | None
    n_bytes: int = 0


@dataclass(frozen=True)
class BackboneSpec:
    """A network that can be the backbone of a model.

    If `mel_is_fixed`, the weights only work with these mel settings. `weights` is None if a library downloads them, or
    if there are none.
    """

    name: str
    mel: MelConfig
    mel_is_fixed: bool
    pretrained_on: str
    licence: str
    weights: WeightsSource | None = None


@dataclass(frozen=True)
class PublishedTagger:
    """A network that was published with a head for its own labels, so it can tag without training."""

    name: str
    backbone: str
    mean_average_precision: float
    """On the AudioSet evaluation clips, as published."""


_EFFICIENTAT = (  # name, mean average precision in thousandths, bytes of the parameters, SHA-256
    ("mn04", 432, 4_066_513, "899a8c6217063f6941793102a2780b3dd788ab11fce468d9cf5f0577c453321c"),
    ("mn05", 443, 5_774_732, None),
    ("mn10", 471, 19_708_753, "0bd7dc2443af498c289a2e739f02ebb515d6aa3fd3ab9db539c86123ae368a4e"),
    ("mn20", 478, 71_832_716, None),
    ("mn30", 482, 156_638_636, None),
    ("mn40", 484, 274_099_980, None),
)


def _efficientat(name: str, precision: int, n_bytes: int, sha256: str | None) -> BackboneSpec:
    file_name = f"{name}_as_mAP_{precision}.pt"
    source = WeightsSource(file_name, f"{EFFICIENTAT_RELEASE}/{file_name}", sha256, n_bytes)
    return BackboneSpec(f"{name}_audioset", AUDIOSET_MEL, True, "AudioSet, 527 labels", "MIT", source)


_SPECS = (
    *starmap(_efficientat, _EFFICIENTAT),
    BackboneSpec("efficientnet_lite0", IMAGE_MEL, False, "ImageNet", "Apache-2.0"),
    BackboneSpec("convnext_tiny", IMAGE_MEL, False, "ImageNet", "BSD-3-Clause"),
    BackboneSpec("scratch", IMAGE_MEL, False, "nothing", "Apache-2.0"),
)
BACKBONES = {spec.name: spec for spec in _SPECS}
TIMM = "timm/"

PUBLISHED = {
    f"audioset-{name}": PublishedTagger(f"audioset-{name}", f"{name}_audioset", precision / 1000)
    for name, precision, _, _ in _EFFICIENTAT
}
"""The models of Schmid et al. (2023); scores from the README of github.com/fschmid56/EfficientAT."""


def backbone_spec(name: str) -> BackboneSpec:
    """The backbone with a name. `timm/NAME` is any network of timm, and NAME.toml is a network card, as is its name.

    Raises
    ------
    ConfigError
        If the name is unknown, or the card is not valid. The message suggests the closest name and lists all.
    """
    if name.startswith(TIMM) and name != TIMM:
        return BackboneSpec(name, IMAGE_MEL, False, "see timm", "see timm")
    if name not in BACKBONES and is_card(name):
        card = open_card(name).card
        return BackboneSpec(card.name, card.input.view, True, card.trained_on, card.licence)
    if name not in BACKBONES:
        hint, names = did_you_mean(name, BACKBONES) or ".", ", ".join(BACKBONES)
        raise ConfigError(
            f"unknown backbone {name!r}{hint} The backbones are {names}, and timm/NAME of the library timm. A network "
            "card is one, too: a file such as card.toml, or a name of spectag models --all."
        )
    return BACKBONES[name]


def resolve_mel(name: str, override: MelConfig | None) -> MelConfig:
    """The mel settings of a backbone, replaced by those that `override` sets explicitly.

    Raises
    ------
    ConfigError
        If the mel settings of the backbone are fixed, and the override contains other values.
    """
    spec = backbone_spec(name)
    if override is None:
        return spec.mel
    explicit = override.model_dump(exclude_unset=True)
    changes = {key: value for key, value in explicit.items() if value != getattr(spec.mel, key)}
    if spec.mel_is_fixed and changes:
        listed = ", ".join(f"mel.{key}={value!r}" for key, value in sorted(changes.items()))
        raise ConfigError(
            f"the mel settings of backbone {name} are fixed, but the recipe sets {listed}. "
            "Leave them out, or choose a backbone with free mel settings, such as efficientnet_lite0."
        )
    return parse_config(spec.mel.model_dump() | changes, MelConfig, source=f"mel settings for backbone {name}")
