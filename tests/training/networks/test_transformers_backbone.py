"""Networks of transformers as backbones: equal to the library's own feature extractor and network."""

import json
import shutil

import numpy as np
import onnxruntime
import pytest
import torch
import transformers

from helpers import claps
from helpers.transformers_networks import KINDS, RATE, save_network
from spectag.config.recipe import Recipe
from spectag.config.transformers_networks import transformers_network
from spectag.models.card_files import front_end_of
from spectag.training.networks.backbones.build import build_backbone
from spectag.training.networks.network import FeatureExtractor
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


def statistics(states, pooled):
    """The mean and deviation of each layer, then the pooled output."""
    values = [[*state.mean(axis=0), *state.std(axis=0)] for state in states]
    return np.concatenate(values if pooled is None else [*values, pooled[0].numpy()])


@pytest.mark.parametrize("kind", KINDS)
def test_features_are_the_statistics_of_all_layers_of_the_library(tmp_path, kind):
    network, extractor = save_network(tmp_path, kind)
    ours, waveform = FeatureExtractor(build_backbone(f"hf:{tmp_path}"), "all"), sound(0.83)
    _, states, pooled = library_states(network, extractor, waveform)
    with torch.inference_mode():
        found = ours(torch.from_numpy(waveform)[None, None, None])[0]
    np.testing.assert_allclose(found, statistics(states, pooled), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ast", "wav2vec2", "wavlm", "whisper"])
def test_graph_has_the_features_of_sounds_of_any_length(tmp_path, kind):
    network, extractor = save_network(tmp_path / "net", kind)
    session, front_end = written_graph(tmp_path, sound(0.5))
    for seconds in (0.1, 0.83, 1.2):
        waveform = sound(seconds)
        _, states, pooled = library_states(network, extractor, waveform)
        [features] = session.run(["features"], {"inputs": front_end.input_of_waveform(waveform)[None]})
        np.testing.assert_allclose(features[0], statistics(states, pooled), atol=1e-4)


def written_graph(folder, example):
    """The ONNX session of the features of folder/net, and its front end."""
    backbone = f"hf:{folder / 'net'}"
    traced, front_end = TracedNetwork(Recipe(backbone=backbone), has_one_width=False), front_end_of_network(backbone)
    traced.write_onnx(folder / "features.onnx", front_end.input_of_waveform(example), traced.weights)
    return onnxruntime.InferenceSession(folder / "features.onnx"), front_end


def front_end_of_network(backbone):
    return front_end_of(transformers_network(backbone))


@torch.inference_mode()
def clap_features(model, folder, waveform):
    """The features of a CLAP by the library alone; a fused one takes the sound as not longer than its input."""
    extractor = transformers.ClapFeatureExtractor.from_pretrained(folder)
    inputs = extractor(waveform, sampling_rate=claps.RATE, return_tensors="pt")["input_features"]
    result = model.audio_model(inputs, is_longer=torch.zeros(1, 1, dtype=torch.bool), output_hidden_states=True)
    states = [*result.hidden_states[:-1], result.last_hidden_state]
    vector = torch.nn.functional.normalize(model.audio_projection(result.pooler_output), dim=-1)
    return statistics([state[0].flatten(1).T.numpy() for state in states], vector)


@pytest.mark.parametrize("truncation", ["rand_trunc", "fusion"])
@pytest.mark.parametrize("seconds", [0.3, 1.0])
def test_features_of_clap_are_the_statistics_of_all_layers_of_the_library(tmp_path, truncation, seconds):
    model = claps.write_clap(tmp_path, truncation=truncation)
    inputs = front_end_of_network(f"hf:{tmp_path}").input_of_waveform(claps.low_or_high("low", seconds))
    with torch.inference_mode():
        found = FeatureExtractor(build_backbone(f"hf:{tmp_path}"), "all")(torch.from_numpy(inputs)[None])[0]
    expected = clap_features(model, tmp_path, claps.low_or_high("low", seconds))
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_text_classifier_of_clap_gives_the_similarities_of_the_library(tmp_path):
    model, texts = claps.write_clap(tmp_path), ["rain on a window", "dog barking ."]
    traced = TracedNetwork(Recipe(backbone=f"hf:{tmp_path}"), has_one_width=False)
    layer = traced.text_classifier(texts)
    waveform = claps.low_or_high("low")
    inputs = front_end_of_network(f"hf:{tmp_path}").input_of_waveform(waveform)
    with torch.inference_mode():
        features = traced.extractor(torch.from_numpy(inputs)[None])[0].numpy()
    found = layer.weight @ features[-layer.weight.shape[1] :] + layer.bias
    processor = transformers.ClapFeatureExtractor.from_pretrained(tmp_path)
    tokens = transformers.AutoTokenizer.from_pretrained(tmp_path)(texts, padding=True, return_tensors="pt")
    sounds = processor(waveform, sampling_rate=claps.RATE, return_tensors="pt")["input_features"]
    with torch.inference_mode():
        expected = model(
            input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"], input_features=sounds
        ).logits_per_audio[0]
    np.testing.assert_allclose(found, expected, atol=1e-2)
    assert np.ptp(found) > 0.1


def test_other_networks_of_transformers_know_no_texts(tmp_path):
    save_network(tmp_path / "net", "wav2vec2")
    assert build_backbone(f"hf:{tmp_path / 'net'}").text_classifier(["rain"]) is None


@pytest.mark.slow
def test_graph_of_clap_has_the_features_of_several_sounds(tmp_path):
    model = claps.write_clap(tmp_path / "net", truncation="fusion")
    session, front_end = written_graph(tmp_path, claps.low_or_high("low"))
    sounds = [claps.low_or_high(kind, seconds) for kind in claps.TONES for seconds in (0.2, 0.7, 1.0)]
    for batch in (sounds[:1], sounds):
        inputs = np.stack([front_end.input_of_waveform(each) for each in batch])
        expected = [clap_features(model, tmp_path / "net", each) for each in batch]
        [features] = session.run(["features"], {"inputs": inputs})
        np.testing.assert_allclose(features, expected, atol=1e-3)


def test_settings_depend_on_what_is_computed_and_not_on_the_folder_or_the_version_of_the_library(tmp_path):
    save_network(tmp_path / "net", "wav2vec2")
    shutil.copytree(tmp_path / "net", tmp_path / "copy")
    change_config(tmp_path / "copy", transformers_version="4.1.0", _name_or_path="elsewhere")
    settings = build_backbone(f"hf:{tmp_path / 'net'}").settings
    assert build_backbone(f"hf:{tmp_path / 'copy'}").settings == settings
    change_config(tmp_path / "copy", layer_norm_eps=0.1)
    assert build_backbone(f"hf:{tmp_path / 'copy'}").settings != settings


def change_config(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_messages_of_the_library_are_as_before_after_a_network_was_opened(tmp_path):
    save_network(tmp_path, "ast")
    transformers.logging.set_verbosity_info()
    try:
        build_backbone(f"hf:{tmp_path}")
        assert transformers.logging.get_verbosity() == transformers.logging.INFO
        assert transformers.logging.is_progress_bar_enabled()
    finally:
        transformers.logging.set_verbosity_warning()
