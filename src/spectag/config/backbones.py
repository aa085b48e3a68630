"""The backbones by name: what each network hears, where its weights come from, and under what licence."""

from dataclasses import dataclass

from spectag.config.base import MelConfig, parse_config
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
"""The front end that EfficientAT's networks were trained with (Schmid et al., 2023)."""

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
"""For networks that were trained on pictures: decibels below the clip's loudest, brought to 0 (silent) to 1."""


@dataclass(frozen=True)
class WeightsSource:
    """A file of published weights.

    `sha256` is None where the publisher gives none. `n_bytes` is then what the network's own numbers take: a little
    less than the file.
    """

    file_name: str
    url: str
    sha256: str | None
    n_bytes: int = 0


@dataclass(frozen=True)
class BackboneSpec:
    """A network that a tagger can stand on.

    `mel_is_fixed` says that the weights know one front end only, so no other may be paired with them.
    `weights` is None where a library has its own way of fetching them, or where there are none.
    """

    name: str
    mel: MelConfig
    mel_is_fixed: bool
    pretrained_on: str
    licence: str
    weights: WeightsSource | None = None


@dataclass(frozen=True)
class PublishedTagger:
    """A network that was published with labels of its own, and so tags without any training of ours."""

    name: str
    backbone: str
    mean_average_precision: float
    """On AudioSet's evaluation clips, as published."""


def _mobilenet(name: str, file_name: str, n_bytes: int, sha256: str | None = None) -> BackboneSpec:
    source = WeightsSource(file_name, f"{EFFICIENTAT_RELEASE}/{file_name}", sha256, n_bytes)
    return BackboneSpec(name, AUDIOSET_MEL, True, "AudioSet, 527 labels", "MIT", source)


_SPECS = (
    _mobilenet(
        "mn04_audioset",
        "mn04_as_mAP_432.pt",
        4_066_513,
        "899a8c6217063f6941793102a2780b3dd788ab11fce468d9cf5f0577c453321c",
    ),
    _mobilenet("mn05_audioset", "mn05_as_mAP_443.pt", 5_774_732),
    _mobilenet("mn10_audioset", "mn10_as_mAP_471.pt", 19_605_292),
    _mobilenet("mn20_audioset", "mn20_as_mAP_478.pt", 71_832_716),
    _mobilenet("mn30_audioset", "mn30_as_mAP_482.pt", 156_638_636),
    _mobilenet("mn40_audioset", "mn40_as_mAP_484.pt", 274_099_980),
    BackboneSpec("efficientnet_lite0", IMAGE_MEL, False, "ImageNet", "Apache-2.0"),
    BackboneSpec("convnext_tiny", IMAGE_MEL, False, "ImageNet", "BSD-3-Clause"),
    BackboneSpec("scratch", IMAGE_MEL, False, "nothing", "Apache-2.0"),
)

BACKBONES = {spec.name: spec for spec in _SPECS}
TIMM = "timm/"

_TAGGERS = (
    PublishedTagger("audioset-mn04", "mn04_audioset", 0.432),
    PublishedTagger("audioset-mn05", "mn05_audioset", 0.443),
    PublishedTagger("audioset-mn10", "mn10_audioset", 0.471),
    PublishedTagger("audioset-mn20", "mn20_audioset", 0.478),
    PublishedTagger("audioset-mn30", "mn30_audioset", 0.482),
    PublishedTagger("audioset-mn40", "mn40_audioset", 0.484),
)
PUBLISHED = {tagger.name: tagger for tagger in _TAGGERS}
"""Schmid et al. (2023), by the table of their repository, fschmid56/EfficientAT on GitHub."""


def backbone_spec(name: str) -> BackboneSpec:
    """Look a backbone up by name; any network of timm is `timm/NAME`.

    Raises
    ------
    ConfigError
        If no backbone has the name. The message names the nearest and lists all.
    """
    if name.startswith(TIMM) and name != TIMM:
        return BackboneSpec(name, IMAGE_MEL, False, "as timm says", "as timm says")
    if name not in BACKBONES:
        raise ConfigError(
            f"unknown backbone {name!r}{did_you_mean(name, BACKBONES) or '.'} "
            f"There are {', '.join(BACKBONES)}, and timm/NAME for any network of timm."
        )
    return BACKBONES[name]


def front_end_of(name: str, override: MelConfig | None) -> MelConfig:
    """The backbone's mel settings, with those that `override` sets explicitly laid over them.

    Raises
    ------
    ConfigError
        If the backbone was trained with one front end and the override asks for another.
    """
    spec = backbone_spec(name)
    if override is None:
        return spec.mel
    changed = [key for key in override.model_fields_set if getattr(override, key) != getattr(spec.mel, key)]
    if spec.mel_is_fixed and changed:
        raise ConfigError(
            f"backbone {name} was trained with one front end and can't take another: it is at odds with "
            f"{', '.join(f'mel.{key}={getattr(override, key)!r}' for key in sorted(changed))}. "
            "Leave the mel settings out, or choose a backbone that takes any, such as efficientnet_lite0."
        )
    changes = {key: getattr(override, key) for key in changed}
    return parse_config(spec.mel.model_dump() | changes, MelConfig, source=f"mel settings for backbone {name}")
