"""CLAP as transformers saves it, exported to ONNX files, against transformers itself."""

import json

import numpy as np
import pytest
import torch

from helpers.claps import RATE, feature_settings, write_clap
from helpers.hub_server import HubServer
from spectag.errors import BundleError
from spectag.models.clap_store import clap_store
from spectag.models.pretrained import load
from spectag.training.networks.clap_export import add_clap_of_transformers

transformers = pytest.importorskip("transformers")

SENTENCES = ["This is a sound of dog barking.", "This is a sound of rain on a window."]
LABELS = ("dog barking", "rain on a window")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SPECTAG_CACHE", str(tmp_path / "cäche"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def sounds(rng):
    """Of the length of the input and shorter: a tone and noise."""
    t = np.arange(RATE) / RATE
    tone = 0.3 * np.sin(2 * np.pi * 440 * t)
    return [waveform.astype(np.float32) for waveform in (tone, 0.1 * rng.standard_normal(RATE), tone[:3_000])]


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def audio_vectors(model, waveforms, truncation):
    """By transformers; of a fused model for sounds that are not longer than its input."""
    extractor = transformers.ClapFeatureExtractor(**feature_settings(truncation))
    vectors = []
    for waveform in waveforms:
        features = extractor(waveform, sampling_rate=RATE, return_tensors="pt")["input_features"].float()
        with torch.inference_mode():
            outputs = model.audio_model(input_features=features, is_longer=torch.zeros(1, 1, dtype=torch.bool))
            vectors.append(model.audio_projection(outputs.pooler_output)[0].numpy())
    return unit(np.array(vectors))


def text_vectors(model, folder):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokens = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    with torch.inference_mode():
        outputs = model.text_model(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
        return unit(model.text_projection(outputs.pooler_output).numpy())


@pytest.mark.slow
@pytest.mark.parametrize("truncation", ["rand_trunc", "fusion"])
def test_exported_clap_gives_the_vectors_and_similarities_of_transformers(tmp_path, rng, truncation):
    model = write_clap(tmp_path / "clap", truncation=truncation)
    store = add_clap_of_transformers(str(tmp_path / "clap"))
    assert (store.card.name, store.card.licence) == ("clap", "apache-2.0")
    expected_texts = text_vectors(model, tmp_path / "clap")
    np.testing.assert_allclose(store.text_vectors(SENTENCES), expected_texts, atol=1e-4)
    tagger = load(f"clap:{', '.join(LABELS)}")
    waveforms = sounds(rng)
    outputs = [tagger.outputs(waveform, RATE) for waveform in waveforms]
    expected = audio_vectors(model, waveforms, truncation)
    assert np.abs(expected[0] - expected[1]).max() > 0.05  # the random model tells sounds apart
    np.testing.assert_allclose(unit(np.array([each.features for each in outputs])), expected, atol=1e-4)
    similarities = np.maximum(expected @ expected_texts.T, 1e-3)
    np.testing.assert_allclose([each.probabilities for each in outputs], similarities, atol=1e-4)


@pytest.mark.slow
def test_clap_on_the_hub_is_downloaded_and_exported(tmp_path, monkeypatch):
    write_clap(tmp_path / "clap")
    server = HubServer()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    server.add("me/clap", {path.name: path.read_bytes() for path in (tmp_path / "clap").iterdir()})
    try:
        store = add_clap_of_transformers("me/clap")
    finally:
        server.close()
    assert (store.card.name, store.card.homepage) == ("me/clap", "https://huggingface.co/me/clap")
    assert store.text_vectors(["a dog barks"]).shape == (1, 12)
    assert not (store.folder.parent / "work").exists()
    assert clap_store() == store


def test_hub_that_cannot_be_reached_is_told_without_the_error_number_of_the_system(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(BundleError, match="available on the Hugging Face Hub: no connection; give a folder"):
        add_clap_of_transformers("me/clap")


def test_name_that_is_neither_a_folder_nor_on_the_hub_is_refused_in_one_line(monkeypatch):
    server = HubServer()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
    try:
        with pytest.raises(BundleError, match="me/none: neither a folder nor available on the Hugging Face Hub"):
            add_clap_of_transformers("me/none")
    finally:
        server.close()


@pytest.mark.parametrize(
    ("config", "message"), [({"model_type": "bert"}, "'bert', expected 'clap'"), (None, "not a CLAP")]
)
def test_folder_of_another_model_is_refused(tmp_path, config, message):
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(BundleError, match=message):
        add_clap_of_transformers(str(tmp_path))
