"""The backbones: names, mel settings and weights."""

import hashlib

import pytest

from helpers.paths import SHARED
from spectag.config.backbones import AUDIOSET_MEL, BACKBONES, IMAGE_MEL, backbone_spec, resolve_mel
from spectag.config.base import MelConfig
from spectag.errors import ConfigError

MN04 = SHARED / "weights" / "mn04_as_mAP_432.pt"


@pytest.mark.parametrize("name", BACKBONES)
def test_backbone_is_found_by_name_and_has_its_own_mel_settings(name):
    spec = backbone_spec(name)
    assert spec.name == name
    assert resolve_mel(name, None) == spec.mel


@pytest.mark.parametrize("spec", [spec for spec in BACKBONES.values() if spec.weights], ids=lambda spec: spec.name)
def test_weights_have_an_https_url_with_their_file_name(spec):
    assert spec.weights.url.startswith("https://")
    assert spec.weights.url.endswith(f"/{spec.weights.file_name}")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("mn10_hop5", {"hop_length": 160}),
        ("mn10_hop15", {"hop_length": 480}),
        ("mn10_hop20", {"hop_length": 640}),
        ("mn10_hop25", {"hop_length": 800}),
        ("mn10_mels40", {"n_mels": 40}),
        ("mn10_mels64", {"n_mels": 64}),
        ("mn10_mels256", {"n_mels": 256}),
        ("mn40_ext", {}),
        ("dymn20", {}),
    ],
)
def test_variants_differ_from_the_common_mel_settings_only_by_what_their_names_say(name, change):
    spec = backbone_spec(f"{name}_audioset")
    assert spec.mel == AUDIOSET_MEL.model_copy(update=change)
    assert spec.mel == MelConfig(**spec.mel.model_dump())
    assert spec.mel_is_fixed


@pytest.mark.skipif(not MN04.exists(), reason=f"needs {MN04}")
def test_checksum_of_mn04_equals_the_published_file():
    assert hashlib.sha256(MN04.read_bytes()).hexdigest() == BACKBONES["mn04_audioset"].weights.sha256


def test_any_timm_network_is_a_backbone():
    assert backbone_spec("timm/resnet18").name == "timm/resnet18"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("effnet_lite0", r"'effnet_lite0'; did you mean 'efficientnet_lite0'\? docs/reference/backbones.md lists"),
        ("audioset-mn04", "is a published model; did you mean its backbone 'mn04_audioset'"),
        ("audioset-mn10-hop5", "did you mean its backbone 'mn10_hop5_audioset'"),
        ("mn06_audioset", "did you mean 'mn05_audioset'"),
        ("mn10_mels60_audioset", "did you mean 'mn10_mels64_audioset'"),
        ("resnet18", r"unknown backbone 'resnet18'; if it is a network .*timm, write 'timm/resnet18'\. docs"),
        ("mn10", "did you mean 'mn10_audioset'"),
        ("a b", r"unknown backbone 'a b'\. docs/reference/backbones.md lists the backbones"),
        ("timm/", r"unknown backbone 'timm/'\. "),
        ("", r"unknown backbone ''\. "),
    ],
)
def test_unknown_backbone_raises_an_error_with_a_suggestion_and_the_place_of_all_names(name, message):
    with pytest.raises(ConfigError, match=message):
        backbone_spec(name)


def test_explicit_mel_settings_replace_those_of_the_backbone():
    mel = resolve_mel("efficientnet_lite0", MelConfig(f_max=14_000.0, top_db=None))
    assert mel == IMAGE_MEL.model_copy(update={"f_max": 14_000.0, "top_db": None})


def test_explicit_setting_equal_to_the_default_replaces_the_backbones():
    assert resolve_mel("efficientnet_lite0", MelConfig(n_mels=128)).n_mels == 128


def test_backbone_with_fixed_mel_settings_accepts_equal_settings():
    assert resolve_mel("mn04_audioset", MelConfig(n_mels=128, sample_rate=32_000)) == AUDIOSET_MEL
    assert resolve_mel("mn04_audioset", AUDIOSET_MEL) == AUDIOSET_MEL


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            {"n_mels": 64, "f_max": 14_000.0},
            r"but the recipe sets mel\.f_max=14000\.0, mel\.n_mels=64\. Leave them out",
        ),
        ({"mel_norm": "slaney"}, r"mel\.mel_norm='slaney'"),
        ({"n_fft": 512}, r"mel\.n_fft=512"),
    ],
)
def test_backbone_with_fixed_mel_settings_rejects_others(override, message):
    with pytest.raises(ConfigError, match=f"mel settings of backbone mn04_audioset are fixed.*{message}"):
        resolve_mel("mn04_audioset", MelConfig(**override))
