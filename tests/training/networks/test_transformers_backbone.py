"""Networks of transformers as backbones: equal to the library's own feature extractor and network."""

import numpy as np
import onnxruntime
import pytest
import torch

from helpers.transformers_networks import KINDS, RATE, save_network
from spectag.config.recipe import Recipe
from spectag.config.transformers_networks import transformers_network
from spectag.models.card_files import front_end_of
from spectag.training.networks.backbones.build import build_backbone
from spectag.training.networks.traced_network import TracedNetwork


def sound(seconds, *, seed=0):
    """Noise that becomes silent, with a tone and an offset: loud and quiet bands."""
    rng, times = np.random.default_rng(seed), np.arange(round(seconds * RATE)) / RATE
    tone = 0.4 * np.sin(2 * np.pi * 1_500 * times)
    return (tone + 0.2 * rng.standard_normal(len(times)) * np.exp(-4 * times) + 0.02).astype(np.float32)


@torch.inference_mode()
def library_states(network, extractor, waveform):
    """The extracted input, the hidden states (n_tokens, n_features), and the pooled output, by the library alone."""
    inputs = extractor(waveform, sampling_rate=RATE, return_tensors="pt")
    [values] = (inputs[name] for name in ("input_values", "input_features") if name in inputs)
    encoder = getattr(network, network.base_model_prefix, network)
    encoder = getattr(encoder, "encoder", encoder) if "whisper" in type(network).__name__.lower() else encoder
    result = encoder(values, output_hidden_states=True)
    states = [*result.hidden_states[:-1], result.last_hidden_state]
    return values[0].numpy(), [state[0].numpy() for state in states], getattr(result, "pooler_output", None)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seconds", [0.05, 0.71, 1.2])
def test_extraction_is_that_of_the_library(tmp_path, kind, seconds):
    network, extractor = save_network(tmp_path, kind)
    backbone, waveform = build_backbone(f"hf:{tmp_path}"), sound(seconds)
    expected, _, _ = library_states(network, extractor, waveform)
    np.testing.assert_allclose(backbone.extraction(torch.from_numpy(waveform)[None])[0], expected, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_graph_has_the_statistics_of_all_layers_for_sounds_of_any_length(tmp_path, kind):
    network, extractor = save_network(tmp_path / "net", kind)
    traced = TracedNetwork(Recipe(backbone=f"hf:{tmp_path / 'net'}"), has_one_width=False)
    front_end = front_end_of(transformers_network(f"hf:{tmp_path / 'net'}"))
    traced.write_onnx(tmp_path / "features.onnx", front_end.input_of_waveform(sound(0.5)), traced.weights)
    session = onnxruntime.InferenceSession(tmp_path / "features.onnx")
    for seconds in (0.1, 0.83, 1.2):
        waveform = sound(seconds)
        _, states, pooled = library_states(network, extractor, waveform)
        expected = np.concatenate([[*state.mean(axis=0), *state.std(axis=0)] for state in states])
        expected = expected if pooled is None else np.append(expected, pooled)
        [features] = session.run(["features"], {"inputs": front_end.input_of_waveform(waveform)[None]})
        np.testing.assert_allclose(features[0], expected, atol=1e-4)
