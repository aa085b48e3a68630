"""DyMN computes what EfficientAT's own code computes, clip by clip."""

import json

import numpy as np
import pytest
import torch
from torch.nn import functional

from helpers.filled_weights import fill_weights
from helpers.paths import SHARED
from spectag.training.networks.backbones.dymn import DynamicMobileNet
from spectag.training.networks.backbones.mobilenet import MobileNet, MobileNetBackbone
from spectag.training.networks.network import FeatureExtractor
from spectag.training.networks.parameter_groups import parameters_by_stage

REFERENCE = SHARED / "reference" / "networks.npz"
needs_reference = pytest.mark.skipif(not REFERENCE.exists(), reason="needs ../shared/reference/networks.npz")
FAMILIES = {"dymn04": (DynamicMobileNet, 0.4), "dymn10": (DynamicMobileNet, 1.0), "mn10": (MobileNet, 1.0)}


@pytest.fixture(scope="module")
def dymn04():
    return fill_weights(DynamicMobileNet(0.4))


@pytest.fixture
def log_mels(rng):
    """Three clips, of which each has its own loudness."""
    loudness = np.array([-2.0, 0.0, 1.0])[:, None, None, None]
    return torch.from_numpy((rng.normal(size=(3, 1, 128, 90)) + loudness).astype(np.float32))


@needs_reference
@pytest.mark.parametrize("name", FAMILIES)
def test_logits_and_last_maps_are_those_of_the_published_code(name):
    family, width = FAMILIES[name]
    network, reference = fill_weights(family(width)), np.load(REFERENCE)
    inputs = torch.from_numpy(reference["inputs"])
    with torch.inference_mode():
        logits, maps = network(inputs), MobileNetBackbone(network)(inputs)
    np.testing.assert_allclose(logits, reference[f"{name}_logits"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(maps.stages[-1].mean(dim=(2, 3)), reference[f"{name}_embedding"], rtol=0, atol=1e-5)


@needs_reference
@pytest.mark.parametrize("name", FAMILIES)
def test_tensors_have_the_published_names_and_shapes(name):
    family, width = FAMILIES[name]
    with torch.device("meta"):
        state_dict = family(width).state_dict()
    published = json.loads(REFERENCE.with_suffix(".json").read_text(encoding="utf-8"))[name]
    assert {key: list(values.shape) for key, values in state_dict.items()} == published


@pytest.mark.parametrize(("width", "millions"), [(0.4, 1.97), (1.0, 10.57), (2.0, 40.02)])
def test_each_dymn_has_about_the_published_number_of_parameters(width, millions):
    with torch.device("meta"):
        network = DynamicMobileNet(width)
    assert sum(values.numel() for values in network.parameters()) / 1e6 == pytest.approx(millions, rel=0.005)


def normalised(maps, norm):
    values = (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    mean, variance, scale, offset = (value[:, None, None] for value in values)
    return (maps - mean) / torch.sqrt(variance + 1e-3) * scale + offset


def convolved(maps, layer, context, *, groups=1, **options):
    """A convolution of one clip with the kernel that its context chooses."""
    logits = layer.residuals[0].weight @ context + layer.residuals[0].bias
    kernels = layer.weight[0, 0].reshape(4, layer.n_out, -1)
    kernel = sum(share * kernel for share, kernel in zip(logits.exp() / logits.exp().sum(), kernels, strict=True))
    size = round((kernel.shape[1] / (maps.shape[0] // groups)) ** 0.5)
    return functional.conv2d(maps[None], kernel.reshape(layer.n_out, -1, size, size), groups=groups, **options)[0]


def attention(sequence, convolution, stride):
    """Factors (channels, n) of a sequence (n_context, n)."""
    if stride == 2:
        padded = functional.pad(sequence, (1, 1))
        sequence = torch.stack([padded[:, i : i + 3].mean(dim=1) for i in range(0, sequence.shape[1], 2)], dim=1)
    return torch.sigmoid(convolution.weight[:, :, 0, 0] @ sequence + convolution.bias[:, None])


def block_by_definition(block, maps):
    """The output of a block for one clip (channels, height, width), as the paper defines it."""
    generator, stride = block.context_gen, block.depth_conv.stride
    sequence = torch.cat([maps.mean(dim=2), maps.mean(dim=1)], dim=1)
    joint = normalised((generator.joint_conv.weight[:, :, 0, 0] @ sequence)[:, :, None], generator.joint_norm)[..., 0]
    joint = joint * torch.clamp(joint + 3, 0, 6) / 6
    context = joint.mean(dim=1)
    out = maps
    if block.expands:
        out = block.exp_act(normalised(convolved(out, block.exp_conv, context), block.exp_norm))
    depthwise = {"groups": len(out), "stride": stride, "padding": block.depth_conv.kernel // 2}
    out = normalised(convolved(out, block.depth_conv, context, **depthwise), block.depth_norm)
    activation, linear = block.depth_act, block.depth_act.coef_net[0]
    theta = (2 * torch.sigmoid(linear.weight @ context + linear.bias) - 1).reshape(-1, 4)
    a1, a2, b1, b2 = (theta * activation.lambdas + activation.init_v).T[:, :, None, None]
    out = torch.maximum(out * a1 + b1, out * a2 + b2)
    out = out * attention(joint[:, : maps.shape[1]], generator.conv_f, stride)[:, :, None]
    out = out * attention(joint[:, maps.shape[1] :], generator.conv_t, stride)[:, None, :]
    out = normalised(convolved(out, block.proj_conv, context), block.proj_norm)
    return maps + out if maps.shape == out.shape else out


@pytest.mark.parametrize("number", [0, 1, 2, 6])
def test_block_is_that_of_the_paper_for_each_clip(dymn04, number, rng):
    """The first has no expansion, the second and the last halve the maps, the third adds its input."""
    block = dymn04.layers[number]
    n_in = block.context_gen.joint_conv.in_channels
    maps = torch.from_numpy(rng.normal(size=(3, n_in, 11, 14)).astype(np.float32))
    with torch.inference_mode():
        expected = torch.stack([block_by_definition(block, clip) for clip in maps])
        torch.testing.assert_close(block(maps), expected, rtol=1e-4, atol=1e-5)


def test_batch_of_three_clips_gives_what_three_single_clips_give(dymn04, log_mels):
    extractor = FeatureExtractor(MobileNetBackbone(dymn04), "all").eval()
    with torch.inference_mode():
        singles = torch.cat([extractor(log_mel[None]) for log_mel in log_mels])
        torch.testing.assert_close(extractor(log_mels), singles, rtol=1e-4, atol=1e-5)


def test_exporter_sees_a_network_with_the_same_outputs(dymn04, log_mels, monkeypatch):
    """In ONNX, a depthwise convolution cannot have a group for each channel of each clip."""
    with torch.inference_mode():
        expected = dymn04(log_mels)
        monkeypatch.setattr("torch.compiler.is_compiling", lambda: True)
        torch.testing.assert_close(dymn04(log_mels), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("n_frames", [1, 2, 33])
def test_every_block_is_a_stage_at_any_clip_length(dymn04, n_frames, rng):
    backbone = MobileNetBackbone(dymn04)
    log_mel = torch.from_numpy(rng.normal(size=(2, 1, 128, n_frames)).astype(np.float32))
    with torch.inference_mode():
        maps = backbone(log_mel)
        torch.testing.assert_close(dymn04.classifier[-1](maps.embedding), dymn04(log_mel))
    assert len(maps.stages) == 17
    assert maps.stages[0].shape == (2, 8, 64, -(-n_frames // 2))
    assert maps.stages[-1].shape == (2, 384, 4, -(-n_frames // 32))


def test_fine_tuning_reaches_every_weight_below_the_labels(log_mels):
    backbone = MobileNetBackbone(fill_weights(DynamicMobileNet(0.4)))
    backbone(log_mels).embedding.square().sum().backward()
    without = {name for name, values in backbone.network.named_parameters() if values.grad is None}
    assert without == {"classifier.5.weight", "classifier.5.bias"}
    assert all(values.grad.abs().sum() > 0 for values in backbone.parameters() if values.grad is not None)


def test_learning_rates_differ_by_stage(dymn04, log_mels):
    extractor = FeatureExtractor(MobileNetBackbone(dymn04), "all")
    stages = parameters_by_stage(extractor, log_mels[:1])
    names = {parameter: name for name, parameter in dymn04.named_parameters()}
    assert len(stages) == 18
    assert {names[parameter].split(".")[0] for parameter in stages[0]} == {"in_c"}
    assert {names[parameter].split(".")[1] for parameter in stages[5]} == {"4"}
    assert {names[parameter].rsplit(".", 1)[0] for parameter in stages[-1]} == {"classifier.2"}
