"""ONNX files give the outputs of torch for every width, and contain nothing about this machine."""

import copy
import getpass
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from helpers.small_training import weights_of
from spectag.models.network_session import open_session
from spectag.models.novelty import NoveltyModel
from spectag.scoring.calibration import Calibration
from spectag.scoring.calibration_curves import linear_curve
from spectag.training.members.head_training import head_weights
from spectag.training.networks.backbones.base import Backbone, FeatureMaps
from spectag.training.networks.backbones.build import build_backbone
from spectag.training.networks.network import FeatureExtractor, TaggerNetwork, build_head
from spectag.training.networks.onnx_composition import write_network
from spectag.training.networks.onnx_export import trace_features, with_weights

N_LABELS = 4
WIDTHS = (1, 13, 100, 101, 517, 2001)  # short, odd, long


def exported(network, path, channels=1, height=64, width=96):
    """Export the features of a backbone to ONNX; return its extractor."""
    extractor = FeatureExtractor(network, "all").eval()
    graph = trace_features(extractor, torch.rand(2, channels, height, width))
    onnx.save(with_weights(graph, weights_of(extractor)), path)
    return extractor


def run(path, inputs):
    return open_session(path, n_threads=1).run(None, {"inputs": inputs})


@torch.inference_mode()
def head_for(extractor, example):
    """A head with random weights that standardises features."""
    features = extractor(example)
    head = build_head("linear", features.shape[1], N_LABELS)
    head.center.copy_(features.mean(dim=0))
    head.scale.copy_(1 / (features.std(dim=0) + 0.1 * features.std()))
    return head


class Exported:
    """A network in torch, and the same network as an ONNX file."""

    def __init__(self, folder, name, height):
        torch.manual_seed(0)
        self.height = height
        backbone = build_backbone(name, pretrained=name == "efficientnet_lite0")
        extractor = FeatureExtractor(backbone, "all").eval()
        self.graph = trace_features(extractor, torch.rand(2, 1, height, 96))  # takes seconds
        head = head_for(extractor, torch.rand(4, 1, height, 96))
        self.tagger = TaggerNetwork(extractor, head).eval()
        self.path = folder / "model.onnx"
        write_network(with_weights(self.graph, weights_of(extractor)), head_weights(head), self.path)
        self.session = open_session(self.path, n_threads=1)

    def __call__(self, inputs):
        return dict(
            zip(("probabilities", "features", "logits"), self.session.run(None, {"inputs": inputs}), strict=True)
        )

    @torch.inference_mode()
    def by_torch(self, inputs):
        features = self.tagger.extractor(torch.from_numpy(inputs))
        logits = self.tagger.head(features)
        return torch.sigmoid(logits).numpy(), features.numpy(), logits.numpy()


@pytest.fixture(
    scope="module",
    params=[
        ("scratch", 40),
        ("mn04_audioset", 128),
        ("efficientnet_lite0", 64),
    ],
    ids=lambda p: p[0],
)
def model(request, tmp_path_factory):
    return Exported(tmp_path_factory.mktemp("export"), *request.param)


@pytest.mark.parametrize("width", WIDTHS)
def test_probabilities_features_and_logits_are_torchs_at_any_width(model, rng, width):
    inputs = rng.random((1, 1, model.height, width), np.float32)
    probabilities, features, logits = model.by_torch(inputs)
    result = model(inputs)
    np.testing.assert_allclose(result["logits"], logits, rtol=1e-4, atol=4e-4)
    np.testing.assert_allclose(result["probabilities"], probabilities, atol=1e-4)
    np.testing.assert_allclose(result["features"], features, rtol=1e-4, atol=1e-4)


def test_exported_network_gives_the_same_for_a_batch_and_for_single_clips(model, rng):
    inputs = rng.random((3, 1, model.height, 75), np.float32)
    singles = np.concatenate([model(single[None])["probabilities"] for single in inputs])
    np.testing.assert_allclose(model(inputs)["probabilities"], singles, atol=1e-5)


def test_silence_gives_the_same_output_in_onnx_and_torch(model):
    inputs = np.zeros((1, 1, model.height, 50), np.float32)
    probabilities, features, _ = model.by_torch(inputs)
    np.testing.assert_allclose(model(inputs)["probabilities"], probabilities, atol=1e-4)
    np.testing.assert_allclose(model(inputs)["features"], features, rtol=1e-4, atol=1e-4)


def test_file_names_its_inputs_and_outputs_and_contains_no_local_paths(model):
    proto = onnx.load(model.path)
    assert [value.name for value in proto.graph.input] == ["inputs"]
    assert [value.name for value in proto.graph.output] == ["probabilities", "features", "logits"]
    assert proto.producer_name == "spectag"
    for weights in proto.graph.initializer:
        weights.ClearField("raw_data")  # may contain any bytes
    text = proto.SerializeToString().decode("latin-1")
    for private in (str(Path.home()), str(Path.cwd()), sys.prefix, "site-packages", ".py", f"/{getpass.getuser()}"):
        assert private not in text, private
    onnx.checker.check_model(model.path)


def test_weights_are_in_the_one_file(model):
    assert [path.name for path in model.path.parent.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize(
    "calibration", [None, Calibration(method="platt", curves=(linear_curve(2.0, -1.0),) * N_LABELS)]
)
def test_novelty_is_that_of_the_model_of_novelty(model, tmp_path, rng, calibration):
    n_used, n_candidates = 7, 9
    novelty = NoveltyModel(
        rng.normal(size=n_used),
        np.abs(rng.normal(size=n_used)),
        rng.normal(size=(n_used, N_LABELS)) / 3,
        rng.normal(size=(N_LABELS, n_candidates)) / 3,
        level=0.3,
    )
    path = tmp_path / "novelty.onnx"
    graph = with_weights(model.graph, weights_of(model.tagger.extractor))
    write_network(graph, head_weights(model.tagger.head), path, calibration=calibration, novelty=novelty)
    onnx.checker.check_model(onnx.load(path), full_check=True)
    inputs = rng.random((3, 1, model.height, 60), np.float32)
    names = [output.name for output in open_session(path, n_threads=1).get_outputs()]
    outputs = dict(zip(names, run(path, inputs), strict=True))
    assert outputs["novelty"].shape == (3,)
    np.testing.assert_allclose(outputs["novelty"], novelty(outputs["features"].astype(float)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(outputs["features"], model(inputs)["features"], rtol=1e-5, atol=1e-6)


class Pixels(Backbone):
    """The inputs themselves as the only stage."""

    def feature_maps(self, inputs):
        return FeatureMaps((inputs,))


def test_layer_norm_head_is_exported_too(tmp_path, rng):
    extractor = exported(Pixels(), tmp_path / "features.onnx", channels=3, height=8)
    head = build_head("layer_norm", 6, N_LABELS)
    write_network(onnx.load(tmp_path / "features.onnx"), head_weights(head), tmp_path / "model.onnx")
    inputs = rng.random((2, 3, 8, 33), np.float32)
    probabilities = run(tmp_path / "model.onnx", inputs)[0]
    with torch.inference_mode():
        expected = torch.sigmoid(TaggerNetwork(extractor, head)(torch.from_numpy(inputs)))
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)


class Flat(Backbone):
    """Constant maps, like those of dead channels."""

    def feature_maps(self, inputs):
        return FeatureMaps((torch.relu(inputs - 2),))


def test_deviation_of_a_constant_map_is_the_same_in_onnx_and_torch(tmp_path):
    extractor = exported(Flat(), tmp_path / "features.onnx", height=8)
    inputs = np.zeros((1, 1, 8, 9), np.float32)
    features = run(tmp_path / "features.onnx", inputs)[0]
    np.testing.assert_allclose(features, extractor(torch.from_numpy(inputs)), rtol=1e-6, atol=0)


def with_other_weights(extractor):
    """Another extractor of the same architecture, with other weights and statistics."""
    other = copy.deepcopy(extractor)
    torch.manual_seed(1)
    for values in other.state_dict().values():
        if values.is_floating_point():
            values.mul_(1 + 0.2 * torch.rand_like(values)).add_(0.01)
    return other


def test_traced_graph_can_be_used_with_other_weights(model, tmp_path, rng):
    """Batch normalisation is folded into the weights before it, so it must be folded again."""
    extractor = model.tagger.extractor
    inputs = rng.random((2, 1, model.height, 77), np.float32)
    answers = []
    for number, each in enumerate((with_other_weights(extractor), extractor)):
        onnx.save(with_weights(model.graph, weights_of(each)), tmp_path / f"{number}.onnx")
        answers.append(run(tmp_path / f"{number}.onnx", inputs)[0])
        with torch.inference_mode():
            expected = each(torch.from_numpy(inputs)).numpy()
        np.testing.assert_allclose(answers[-1], expected, rtol=1e-4, atol=1e-4)
    assert np.abs(answers[0] - answers[1]).max() > 0.01


def test_graph_has_every_weight_that_the_features_need_by_its_name(model):
    weights = model.tagger.extractor.state_dict()
    assert {initializer.name for initializer in model.graph.graph.initializer} <= set(weights)


class OneWidth(Backbone):
    """A network that accepts only 16 columns."""

    def __init__(self):
        super().__init__()
        self.network = torch.nn.Linear(16, 16)

    def feature_maps(self, inputs):
        return FeatureMaps((self.network(inputs),))


def test_network_of_one_width_is_exported_for_that_width_and_batches_of_any_size(tmp_path, rng):
    extractor = exported(OneWidth(), tmp_path / "features.onnx", height=8, width=16)
    inputs = rng.random((3, 1, 8, 16), np.float32)
    with torch.inference_mode():
        expected = extractor(torch.from_numpy(inputs))
    np.testing.assert_allclose(run(tmp_path / "features.onnx", inputs)[0], expected, rtol=1e-5, atol=1e-6)


def test_error_of_the_network_is_raised(tmp_path):
    with pytest.raises(Exception, match="Backbone has no feature_maps"):
        exported(Backbone(), tmp_path / "features.onnx")
    assert not list(tmp_path.iterdir())
