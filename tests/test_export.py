"""ONNX files say what torch says, for every width, and say nothing of the machine that made them."""

import getpass
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from spectag.backbones import Backbone, FeatureMaps, build_backbone
from spectag.export import export_features, export_tagger
from spectag.runtime import open_session
from spectag.tagger import FeatureExtractor, Tagger, build_head

N_LABELS = 4
WIDTHS = (1, 13, 100, 101, 517, 2001)  # short, odd, long


def exported(network, path, channels=1, height=64, width=96):
    """The features' ONNX file of a backbone and its extractor."""
    extractor = FeatureExtractor(network, "all").eval()
    export_features(extractor, torch.rand(2, channels, height, width), path)
    return extractor


def head_for(extractor, example, kind="linear"):
    """A head of random weights on features that are centred and scaled as they are after training."""
    features = extractor(example).detach()
    head = build_head(kind, features.shape[1], N_LABELS)
    if kind == "linear":
        head.center.copy_(features.mean(dim=0))
        head.scale.copy_(1 / (features.std(dim=0) + 0.1 * features.std()))
    return head


class Exported:
    """A tagger in torch, and the same as an ONNX file."""

    def __init__(self, folder, name, height):
        torch.manual_seed(0)
        self.height = height
        backbone = build_backbone(name, pretrained=name == "efficientnet_lite0")
        extractor = exported(backbone, folder / "features.onnx", height=height)
        head = head_for(extractor, torch.rand(4, 1, height, 96))
        self.tagger = Tagger(extractor, head).eval()
        self.path = folder / "model.onnx"
        export_tagger(folder / "features.onnx", head, head.center.numel(), self.path)
        self.session = open_session(self.path, n_threads=1)

    def __call__(self, inputs):
        return dict(zip(("probabilities", "features"), self.session.run(None, {"inputs": inputs}), strict=True))

    @torch.inference_mode()
    def by_torch(self, inputs):
        features = self.tagger.extractor(torch.from_numpy(inputs))
        return torch.sigmoid(self.tagger.head(features)).numpy(), features.numpy()


@pytest.fixture(
    scope="module", params=[("scratch", 40), ("mn04_audioset", 128), ("efficientnet_lite0", 64)], ids=lambda p: p[0]
)
def model(request, tmp_path_factory):
    return Exported(tmp_path_factory.mktemp("export"), *request.param)


@pytest.mark.parametrize("width", WIDTHS)
def test_probabilities_and_features_are_torchs_at_any_width(model, rng, width):
    inputs = rng.random((1, 1, model.height, width), np.float32)
    probabilities, features = model.by_torch(inputs)
    result = model(inputs)
    np.testing.assert_allclose(result["probabilities"], probabilities, atol=1e-4)
    np.testing.assert_allclose(result["features"], features, rtol=1e-4, atol=1e-5)


def test_a_batch_of_three_equals_three_singles_of_the_exported_tagger(model, rng):
    inputs = rng.random((3, 1, model.height, 75), np.float32)
    singles = np.concatenate([model(single[None])["probabilities"] for single in inputs])
    np.testing.assert_allclose(model(inputs)["probabilities"], singles, atol=1e-5)


def test_silence_is_exported_as_torch_hears_it(model):
    inputs = np.zeros((1, 1, model.height, 50), np.float32)
    probabilities, features = model.by_torch(inputs)
    np.testing.assert_allclose(model(inputs)["probabilities"], probabilities, atol=1e-4)
    np.testing.assert_allclose(model(inputs)["features"], features, rtol=1e-4, atol=1e-6)


def test_the_file_names_its_ends_and_tells_nothing_of_this_machine(model):
    proto = onnx.load(model.path)
    assert [value.name for value in proto.graph.input] == ["inputs"]
    assert [value.name for value in proto.graph.output] == ["probabilities", "features"]
    assert proto.producer_name == "spectag"
    for weights in proto.graph.initializer:
        weights.ClearField("raw_data")  # any bytes may stand there
    text = proto.SerializeToString().decode("latin-1")
    for private in (str(Path.home()), str(Path.cwd()), sys.prefix, "site-packages", ".py", f"/{getpass.getuser()}"):
        assert private not in text, private
    onnx.checker.check_model(model.path)


def test_the_file_is_whole_by_itself(model):
    """Weights of large networks may go to a second file; a bundle has one."""
    n_weights = sum(values.numel() for values in model.tagger.parameters())
    assert model.path.stat().st_size > 4 * n_weights * 0.9
    assert {path.name for path in model.path.parent.iterdir()} == {"features.onnx", "model.onnx"}


def test_a_layer_norm_head_is_exported_too(tmp_path, rng):
    extractor = exported(build_backbone("scratch"), tmp_path / "features.onnx", height=16)
    head = head_for(extractor, torch.rand(4, 1, 16, 20), "layer_norm")
    inputs = rng.random((2, 1, 16, 33), np.float32)
    export_tagger(tmp_path / "features.onnx", head, extractor(torch.from_numpy(inputs)).shape[1], tmp_path / "m.onnx")
    probabilities = open_session(tmp_path / "m.onnx", n_threads=1).run(["probabilities"], {"inputs": inputs})[0]
    with torch.inference_mode():
        expected = torch.sigmoid(Tagger(extractor, head)(torch.from_numpy(inputs)))
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)


class Flat(Backbone):
    """Maps without any deviation, as dead channels have them."""

    def feature_maps(self, inputs):
        return FeatureMaps((torch.relu(inputs - 2),))


def test_the_deviation_of_a_flat_map_is_exported_as_it_is_in_torch(tmp_path):
    extractor = exported(Flat(), tmp_path / "features.onnx", height=8)
    inputs = np.zeros((1, 1, 8, 9), np.float32)
    features = open_session(tmp_path / "features.onnx", n_threads=1).run(None, {"inputs": inputs})[0]
    np.testing.assert_allclose(features, extractor(torch.from_numpy(inputs)), rtol=1e-6, atol=0)


def test_a_network_of_one_size_is_exported_for_that_size(tmp_path, rng):
    torch.manual_seed(0)
    backbone = build_backbone("timm/test_vit", pretrained=False)
    extractor = exported(backbone, tmp_path / "features.onnx", height=160, width=160)
    inputs = rng.random((3, 1, 160, 160), np.float32)
    features = open_session(tmp_path / "features.onnx", n_threads=1).run(None, {"inputs": inputs})[0]
    with torch.inference_mode():
        np.testing.assert_allclose(features, extractor(torch.from_numpy(inputs)), rtol=1e-4, atol=1e-5)


def test_coloured_images_are_exported_with_three_channels(tmp_path, rng):
    extractor = exported(build_backbone("scratch"), tmp_path / "features.onnx", channels=3, height=16)
    inputs = rng.random((1, 3, 16, 21), np.float32)
    features = open_session(tmp_path / "features.onnx", n_threads=1).run(None, {"inputs": inputs})[0]
    with torch.inference_mode():
        np.testing.assert_allclose(features, extractor(torch.from_numpy(inputs)), rtol=1e-4, atol=1e-5)


def test_an_error_of_the_network_is_not_hidden(tmp_path):
    with pytest.raises(Exception, match="feature_maps"):
        export_features(FeatureExtractor(Backbone(), "all"), torch.rand(2, 1, 8, 8), tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())
