"""The backbones by name: their mel settings, the source of their weights and their licence."""

import re
from dataclasses import dataclass

from spectag.config.base import MelConfig, parse_config
from spectag.config.network_cards import is_card, open_card
from spectag.config.transformers_networks import is_transformers_network, transformers_network
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
    if there are none. `same_graph` is another backbone whose ONNX graph in the package is the same:
    with other weights, and maybe for another hop.
    """

    name: str
    mel: MelConfig
    mel_is_fixed: bool
    pretrained_on: str
    licence: str
    weights: WeightsSource | None = None
    same_graph: str | None = None

    @property
    def graph(self) -> str:
        """The name of its graph."""
        return self.same_graph or self.name


@dataclass(frozen=True)
class PublishedTagger:
    """A network that was published with a head for its own labels, so it can tag without training."""

    name: str
    backbone: str
    mean_average_precision: float
    """On the AudioSet evaluation clips, as published."""
    citation: str


MOBILENET_CITATION = (
    "Schmid, Koutini and Widmer, Efficient Large-Scale Audio Tagging via Transformer-to-CNN Knowledge Distillation, "
    "ICASSP 2023, https://arxiv.org/abs/2211.04772"
)
DYMN_CITATION = (
    "Schmid, Koutini and Widmer, Dynamic Convolutional Neural Networks as Efficient Pre-trained Audio Models, "
    "IEEE/ACM TASLP 2024, https://arxiv.org/abs/2310.15648"
)


@dataclass(frozen=True)
class _Release:
    """A file of EfficientAT's release: `name`_audioset is its backbone, and audioset-`name` with dashes its tagger."""

    name: str
    file_name: str
    precision: int  # mean average precision, in thousandths
    n_bytes: int  # of the parameters, if the SHA-256 is not known
    sha256: str | None = None
    same_graph: str | None = None
    hop_length: int = AUDIOSET_MEL.hop_length
    n_mels: int = AUDIOSET_MEL.n_mels

    @property
    def backbone(self) -> BackboneSpec:
        mel = AUDIOSET_MEL.model_copy(update={"hop_length": self.hop_length, "n_mels": self.n_mels})
        source = WeightsSource(self.file_name, f"{EFFICIENTAT_RELEASE}/{self.file_name}", self.sha256, self.n_bytes)
        same_graph = self.same_graph and f"{self.same_graph}_audioset"
        return BackboneSpec(f"{self.name}_audioset", mel, True, "AudioSet, 527 labels", "MIT", source, same_graph)

    @property
    def tagger(self) -> PublishedTagger:
        name = f"audioset-{self.name.replace('_', '-')}"
        citation = DYMN_CITATION if self.name.startswith("dymn") else MOBILENET_CITATION
        return PublishedTagger(name, self.backbone.name, self.precision / 1000, citation)


_MN10_BYTES = 19_605_292
_MN04_SHA256 = "899a8c6217063f6941793102a2780b3dd788ab11fce468d9cf5f0577c453321c"
_MN10_SHA256 = "0bd7dc2443af498c289a2e739f02ebb515d6aa3fd3ab9db539c86123ae368a4e"


def _mn10_for_hop(milliseconds: int, precision: int) -> _Release:
    name, file_name = f"mn10_hop{milliseconds}", f"mn10_as_hop_{milliseconds}_mAP_{precision}.pt"
    hop_length = milliseconds * AUDIOSET_MEL.sample_rate // 1000
    return _Release(name, file_name, precision, _MN10_BYTES, same_graph="mn10", hop_length=hop_length)


def _mn10_for_bands(n_mels: int, precision: int) -> _Release:
    name, file_name = f"mn10_mels{n_mels}", f"mn10_as_mels_{n_mels}_mAP_{precision}.pt"
    return _Release(name, file_name, precision, _MN10_BYTES, n_mels=n_mels)


_EFFICIENTAT = (
    _Release("mn04", "mn04_as_mAP_432.pt", 432, 4_066_513, _MN04_SHA256),
    _Release("mn05", "mn05_as_mAP_443.pt", 443, 5_774_732),
    _Release("mn10", "mn10_as_mAP_471.pt", 471, 19_708_753, _MN10_SHA256),
    _Release("mn20", "mn20_as_mAP_478.pt", 478, 71_832_716),
    _Release("mn30", "mn30_as_mAP_482.pt", 482, 156_638_636),
    _Release("mn40", "mn40_as_mAP_484.pt", 484, 274_099_980),
    _Release("mn40_ext", "mn40_as_ext_mAP_487.pt", 487, 274_099_980, same_graph="mn40"),
    _Release("dymn04", "dymn04_as.pt", 450, 7_888_740),
    _Release("dymn10", "dymn10_as.pt", 477, 42_300_740),
    _Release("dymn20", "dymn20_as_mAP_493.pt", 493, 160_077_252),
    _mn10_for_hop(5, 475),
    _mn10_for_hop(15, 463),
    _mn10_for_hop(20, 456),
    _mn10_for_hop(25, 447),
    _mn10_for_bands(40, 453),
    _mn10_for_bands(64, 461),
    _mn10_for_bands(256, 474),
)

_SPECS = (
    *(release.backbone for release in _EFFICIENTAT),
    BackboneSpec("efficientnet_lite0", IMAGE_MEL, False, "ImageNet", "Apache-2.0"),
    BackboneSpec("convnext_tiny", IMAGE_MEL, False, "ImageNet", "BSD-3-Clause"),
    BackboneSpec("scratch", IMAGE_MEL, False, "nothing", "Apache-2.0"),
)
BACKBONES = {spec.name: spec for spec in _SPECS}
TIMM = "timm/"
_TIMM_NAME = re.compile(r"[\w.-]+")

PUBLISHED = {release.tagger.name: release.tagger for release in _EFFICIENTAT}
"""The models of Schmid et al.; scores from the README of github.com/fschmid56/EfficientAT and its file names."""


def backbone_spec(name: str) -> BackboneSpec:
    """The backbone with a name.

    `timm/NAME` is any network of timm, `hf:NAME` one of transformers, and NAME.toml a network card, as is its name.

    Raises
    ------
    ConfigError
        If the name is unknown, or the card is not valid. The message suggests the closest name.
    """
    if name.startswith(TIMM) and name != TIMM:
        return BackboneSpec(name, IMAGE_MEL, False, "see timm", "see timm")
    if is_transformers_network(name):
        source = transformers_network(name)
        return BackboneSpec(source.name, source.input.view, True, source.pretrained_on, source.licence)
    if name not in BACKBONES and is_card(name):
        card = open_card(name).card
        return BackboneSpec(card.name, card.input.view, True, card.trained_on, card.licence)
    if name not in BACKBONES:
        raise ConfigError(
            f"unknown backbone {name!r}{_meant_backbone(name) or '.'} docs/reference/backbones.md lists the backbones, "
            "such as mn04_audioset. timm/NAME of the library timm is one, too, and so are hf:ORG/NAME of the library "
            "transformers, and a network card: a file such as card.toml, or a name of spectag models --all."
        )
    return BACKBONES[name]


def _meant_backbone(name: str) -> str:
    """For the end of an error message: what was probably meant, or "" if the name resembles none."""
    if tagger := PUBLISHED.get(name):
        return f": it is a published model; did you mean its backbone {tagger.backbone!r}?"
    variants = {known: numbers for known in BACKBONES if (numbers := _distances(name, known))}
    if variants:
        return f"; did you mean {min(variants, key=variants.__getitem__)!r}?"
    beginning = next((known for known in BACKBONES if name and known.startswith(name)), None)
    if beginning:
        return f"; did you mean {beginning!r}?"
    of_timm = f"; if it is a network of the library timm, write '{TIMM}{name}'." if _TIMM_NAME.fullmatch(name) else ""
    return did_you_mean(name, BACKBONES) or of_timm


def _distances(name: str, known: str) -> list[int]:
    """How far apart the numbers in two names are; empty if the names differ by more than numbers."""
    (words, numbers), (known_words, known_numbers) = (
        (re.sub(r"\d+", "", text), [int(number) for number in re.findall(r"\d+", text)]) for text in (name, known)
    )
    if words != known_words or len(numbers) != len(known_numbers):
        return []
    return [abs(number - other) for number, other in zip(numbers, known_numbers, strict=True)]


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
