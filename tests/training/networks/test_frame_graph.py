"""The network of frames computes what its features and a linear head say, wherever a block begins."""

import numpy as np
import onnx
import pytest
import torch
from scipy.special import expit

from spectag.audio.front_end import FrontEnd
from spectag.config.backbones import AUDIOSET_MEL, BACKBONES
from spectag.models.network_session import open_session
from spectag.models.onnx_file import check_frames, check_frames_file
from spectag.training.heads.logistic import LinearHead, Standardization
from spectag.training.networks.backbones.mobilenet import MobileNet
from spectag.training.networks.frame_graph import FrameGraph, has_stages
from spectag.training.networks.published_network import PublishedNetwork

N_MELS, N_LABELS = 128, 3


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """mn05 with random weights."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights")
    torch.save(MobileNet(0.5).eval().state_dict(), folder / BACKBONES["mn05_audioset"].weights.file_name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECTAG_WEIGHTS", str(folder))
        return PublishedNetwork("mn05_audioset", "all")


@pytest.fixture(scope="module")
def graph(network):
    return FrameGraph(network.name, network.weights, N_MELS)


def make_head(graph, rng):
    n_features = sum(graph.group_sizes)
    standardization = Standardization(rng.normal(0, 1, n_features), rng.uniform(0.5, 2, n_features) / 40)
    return LinearHead(standardization, rng.normal(0, 1, (n_features, N_LABELS)), rng.normal(0, 1, N_LABELS))


def open_frames(graph, head, tmp_path, scale=1.0, offset=0.0):
    path = tmp_path / "frames.onnx"
    model = graph.with_head(head, np.full(N_LABELS, scale), np.full(N_LABELS, offset))
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path, open_session(path, n_threads=1)


@pytest.mark.parametrize("n_log_mel", [8, 72, 1024])
def test_probabilities_are_those_of_the_head_on_the_features(graph, tmp_path, rng, n_log_mel):
    head = make_head(graph, rng)
    _, session = open_frames(graph, head, tmp_path, scale=1.5, offset=-0.5)
    log_mel = rng.normal(0, 1, (1, N_MELS, n_log_mel)).astype(np.float32)
    [probabilities] = session.run(["probabilities"], {"inputs": log_mel[None]})
    expected = expit(1.5 * head.logits(graph.features(log_mel)) - 0.5)
    assert probabilities.shape == (1, n_log_mel // 8, N_LABELS)
    np.testing.assert_allclose(probabilities[0], expected, atol=2e-4)


def test_features_of_frames_have_the_mean_of_each_stage_over_the_clip(graph, network, tmp_path, rng):
    log_mel = rng.normal(0, 1, (1, N_MELS, 256)).astype(np.float32)
    network.write_onnx(tmp_path / "features.onnx", log_mel, network.weights)
    [of_clip] = open_session(tmp_path / "features.onnx", n_threads=1).run(["features"], {"inputs": log_mel[None]})
    sizes = network.group_sizes(log_mel)
    stride_8 = [index for index, stride in enumerate(graph.strides) if stride == 8]
    assert stride_8  # neither interpolated nor thinned out
    first_used = len(sizes) - 1 - len(graph.group_sizes)  # the last group is the embedding
    of_stages, of_frames = np.split(of_clip[0], np.cumsum(sizes)), graph.features(log_mel)
    frames_by_stage = np.split(of_frames, np.cumsum(graph.group_sizes)[:-1], axis=1)
    for index in stride_8:
        n_channels = graph.group_sizes[index] // 2
        means = frames_by_stage[index][:, :n_channels].mean(axis=0)
        np.testing.assert_allclose(means, of_stages[first_used + index][:n_channels], rtol=1e-3, atol=1e-4)


def test_long_sound_is_processed_in_blocks_that_overlap(graph, rng):
    n_log_mel = 3_000
    log_mel = rng.normal(0, 1, (1, N_MELS, n_log_mel)).astype(np.float32)
    features = graph.features(log_mel)
    assert len(features) == n_log_mel // 8
    np.testing.assert_allclose(features[:100], graph.features(log_mel[:, :, :1024])[:100], atol=1e-5)
    last = graph.features(log_mel[:, :, -1024:])  # the last block is a whole one, too
    np.testing.assert_allclose(features[-20:], last[-20:], atol=1e-5)


def test_file_passes_the_checks_of_models_from_strangers(graph, tmp_path, rng):
    path, session = open_frames(graph, make_head(graph, rng), tmp_path)
    front_end = FrontEnd(mel=AUDIOSET_MEL)
    check_frames_file(path)
    check_frames(path, session, front_end, N_LABELS)


def test_networks_without_stages_in_time_have_no_frames(network):
    assert has_stages(network)
    assert not has_stages(PublishedNetwork("efficientnet_lite0", "all"))
