"""The backbones' names, front ends and sources."""

import hashlib

import pytest

from helpers.paths import SHARED
from spectag.config.backbones import AUDIOSET_MEL, BACKBONES, IMAGE_MEL, backbone_spec, front_end_of
from spectag.config.base import MelConfig
from spectag.errors import ConfigError

MN04 = SHARED / "weights" / "mn04_as_mAP_432.pt"


@pytest.mark.parametrize("name", BACKBONES)
def test_each_backbone_is_found_by_its_name_and_hears_what_it_was_trained_on(name):
    spec = backbone_spec(name)
    assert spec.name == name
    assert front_end_of(name, None) == spec.mel


@pytest.mark.parametrize("spec", [spec for spec in BACKBONES.values() if spec.weights], ids=lambda spec: spec.name)
def test_published_weights_come_over_https_under_their_own_name(spec):
    assert spec.weights.url.startswith("https://")
    assert spec.weights.url.endswith(f"/{spec.weights.file_name}")


@pytest.mark.skipif(not MN04.exists(), reason=f"needs {MN04}")
def test_checksum_of_mn04_is_that_of_the_published_file():
    assert hashlib.sha256(MN04.read_bytes()).hexdigest() == BACKBONES["mn04_audioset"].weights.sha256


def test_any_network_of_timm_is_taken_by_name():
    assert backbone_spec("timm/resnet18").name == "timm/resnet18"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("effnet_lite0", r"backbone 'effnet_lite0'; did you mean 'efficientnet_lite0'\? There are mn04_audioset, "),
        ("zzz", r"unknown backbone 'zzz'\. There are .*scratch, and timm/NAME"),
        ("timm/", "unknown backbone 'timm/'"),
        ("", "unknown backbone ''"),
    ],
)
def test_unknown_backbone_is_told_with_the_nearest_and_all(name, message):
    with pytest.raises(ConfigError, match=message):
        backbone_spec(name)


def test_settings_that_are_given_lie_over_those_of_the_backbone():
    mel = front_end_of("efficientnet_lite0", MelConfig(f_max=14_000.0, top_db=None))
    assert mel == IMAGE_MEL.model_copy(update={"f_max": 14_000.0, "top_db": None})


def test_setting_given_as_its_default_counts_as_given():
    assert front_end_of("efficientnet_lite0", MelConfig(n_mels=128)).n_mels == 128


def test_backbone_with_a_front_end_of_its_own_takes_that_one():
    assert front_end_of("mn04_audioset", MelConfig(n_mels=128, sample_rate=32_000)) == AUDIOSET_MEL
    assert front_end_of("mn04_audioset", AUDIOSET_MEL) == AUDIOSET_MEL


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            {"n_mels": 64, "f_max": 14_000.0},
            r"at odds with mel\.f_max=14000\.0, mel\.n_mels=64\. Leave the mel settings",
        ),
        ({"mel_norm": "slaney"}, r"mel\.mel_norm='slaney'"),
        ({"n_fft": 512}, r"mel\.n_fft=512"),
    ],
)
def test_backbone_with_a_front_end_of_its_own_takes_no_other(override, message):
    with pytest.raises(ConfigError, match=f"mn04_audioset was trained with one front end .*{message}"):
        front_end_of("mn04_audioset", MelConfig(**override))
