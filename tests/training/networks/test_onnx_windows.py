"""The loop over windows gives what the network gives for the whole clip and for each window."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch

from helpers.small_training import make_network, weights_of
from spectag.models.clip_windows import FrameWindows
from spectag.models.network_session import open_session
from spectag.models.onnx_file import check_onnx_file
from spectag.training.members.head_training import head_weights
from spectag.training.networks.network import TaggerNetwork
from spectag.training.networks.onnx_composition import write_network
from spectag.training.networks.onnx_export import trace_features, with_weights

WINDOWS = FrameWindows(length=40, hop=20, weight=0.3)


class Exported:
    def __init__(self, path, windows=WINDOWS):
        plain = make_network()
        self.network = TaggerNetwork(plain.extractor, plain.head, windows).eval()
        features = with_weights(trace_features(plain.extractor, torch.zeros(2, 1, 16, 64)), weights_of(plain.extractor))
        write_network(features, head_weights(plain.head), path, windows=windows)
        self.path, self.session = path, open_session(path, n_threads=1)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return Exported(tmp_path_factory.mktemp("windows") / "model.onnx")


@torch.inference_mode()
@pytest.mark.parametrize("n_frames", [8, 40, 59, 60, 61, 80, 100, 333])
def test_outputs_are_those_of_the_excerpts_computed_one_by_one(exported, rng, n_frames):
    inputs = rng.normal(size=(3, 1, 16, n_frames)).astype(np.float32)
    probabilities, features, logits = exported.session.run(None, {"inputs": inputs})
    extractor, head = exported.network.extractor, exported.network.head
    starts = WINDOWS.starts(n_frames)
    excerpts = [inputs, *(inputs[..., start : start + WINDOWS.length] for start in starts)]
    whole, *windows = [head(extractor(torch.from_numpy(excerpt))).numpy() for excerpt in excerpts]
    for number in range(len(inputs)):
        expected = WINDOWS.pool(whole[number], [window[number] for window in windows])
        np.testing.assert_allclose(logits[number], expected, atol=1e-5)
    np.testing.assert_allclose(features, extractor(torch.from_numpy(inputs)).numpy(), atol=1e-5)
    np.testing.assert_allclose(probabilities, 1 / (1 + np.exp(-logits)), atol=1e-6)
    np.testing.assert_allclose(exported.network(torch.from_numpy(inputs)).numpy(), logits, atol=1e-5)


def test_a_batch_of_three_equals_three_single_clips(exported, rng):
    inputs = rng.normal(size=(3, 1, 16, 130)).astype(np.float32)
    [together] = exported.session.run(["logits"], {"inputs": inputs})
    alone = [exported.session.run(["logits"], {"inputs": clip[None]})[0][0] for clip in inputs]
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_labels_without_a_maximum_have_the_logits_of_the_whole_clip(exported, rng, tmp_path):
    some = Exported(tmp_path / "some.onnx", replace(WINDOWS, n_labels=2))
    inputs = rng.normal(size=(1, 1, 16, 130)).astype(np.float32)
    [of_all], [of_some] = (model.session.run(["logits"], {"inputs": inputs})[0] for model in (exported, some))
    whole = exported.network.head(exported.network.extractor(torch.from_numpy(inputs)))[0].detach().numpy()
    np.testing.assert_allclose(of_some[:2], of_all[:2], atol=1e-5)
    np.testing.assert_allclose(of_some[2], whole[2], atol=1e-5)
    assert abs(of_all[2] - whole[2]) > 5e-4
    check_onnx_file(some.path)


def test_file_is_valid_onnx_with_named_axes(exported):
    model = onnx.load(exported.path)
    onnx.checker.check_model(model, full_check=True)
    assert [output.name for output in model.graph.output] == ["probabilities", "features", "logits"]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
