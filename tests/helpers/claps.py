"""Small CLAP models with random weights, saved as on the Hugging Face Hub, with a tokenizer of a few words."""

import json
from pathlib import Path

import numpy as np
import onnx
import tomli_w
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from spectag.models.clap_store import CLAP_FILES

WORDS = (
    *("this", "is", "a", "sound", "of", "dog", "barking", "rain", "on", "window", "engine", "idling"),
    *("glass", "breaking", "tiles", ".", "barks"),
)
SECONDS = 1.0
RATE = 8_000
N_FEATURES = 12


def tokenizer_json() -> str:
    """A tokenizer of whole words with RoBERTa's tokens at both ends."""
    tokens = ("<s>", "<pad>", "</s>", "<unk>", "<mask>", *WORDS)
    return _tokenizer({token: number for number, token in enumerate(tokens)}).to_str()


def _tokenizer(vocabulary: dict[str, int]) -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [("<s>", 0), ("</s>", 2)]
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    return tokenizer


def feature_settings(truncation: str = "rand_trunc", **settings) -> dict:
    """Of sounds of one second at 8 kHz."""
    return {
        "feature_size": 16,
        "sampling_rate": RATE,
        "hop_length": 80,
        "max_length_s": 1,
        "fft_window_size": 512,
        "frequency_min": 50,
        "frequency_max": 3_500,
        "truncation": truncation,
        "padding": "repeatpad",
    } | settings


def clap_model(*, truncation: str = "rand_trunc", seed: int = 0):
    """A ClapModel with random weights."""
    import torch
    from transformers import ClapConfig, ClapModel

    torch.manual_seed(seed)
    audio = {
        "spec_size": 64,
        "num_mel_bins": 16,
        "window_size": 4,
        "patch_size": 4,
        "patch_stride": [4, 4],
        "patch_embeds_hidden_size": 16,
        "hidden_size": 32,
        "depths": [1, 1],
        "num_attention_heads": [2, 2],
        "num_hidden_layers": 2,
        "enable_fusion": truncation == "fusion",
        "fusion_type": "aff_2d" if truncation == "fusion" else None,
        "projection_dim": N_FEATURES,
    }
    text = {
        "vocab_size": 5 + len(WORDS),
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 80,
        "projection_dim": N_FEATURES,
    }
    config = ClapConfig(audio_config=audio, text_config=text, projection_dim=N_FEATURES)
    model = ClapModel(config).eval()
    with torch.no_grad():  # of new weights, most are 0.02 or less, and all sounds would have one vector
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(5)
    return model


def write_clap(folder: Path, *, truncation: str = "rand_trunc", seed: int = 0):
    """Save a random CLAP as its publishers do; the model."""
    model = clap_model(truncation=truncation, seed=seed)
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(tokenizer_json(), encoding="utf-8")
    names = {"unk_token": "<unk>", "pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    extractor = {"feature_extractor_type": "ClapFeatureExtractor", **feature_settings(truncation)}
    (folder / "preprocessor_config.json").write_text(json.dumps(extractor), encoding="utf-8")
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n", encoding="utf-8")
    return model


N_BANDS = 16
LOW, HIGH = np.arange(N_BANDS) < 6, np.arange(N_BANDS) > 9
TONES = {"low": 200.0, "high": 2_800.0}


def _text_weights() -> np.ndarray:
    """A vector (n_tokens, n_bands) for each token: those of low and high are sounds with energy there."""
    vectors = np.zeros((7, N_BANDS), np.float32)
    for number, bands in ((4, LOW), (5, HIGH), (6, LOW | HIGH)):
        vectors[number] = bands - bands.mean()
    return vectors


def write_band_clap(
    folder: Path, *, n_text: int = N_BANDS, name: str = "bands", shift: float = 0.0, seconds: int = 1, **card
) -> Path:
    """A CLAP as ONNX files that knows where in the spectrum a sound has energy, and the words low, high and both.

    Its vectors of sounds are log-mel spectrograms, averaged over time and centred. The clap.toml.
    """
    folder.mkdir(parents=True, exist_ok=True)
    audio = [
        helper.make_node("ReduceMean", ["input_features"], ["mean_frame"], axes=[1, 2], keepdims=0),
        helper.make_node("ReduceMean", ["mean_frame"], ["mean_band"], axes=[1], keepdims=1),
        helper.make_node("Sub", ["mean_frame", "mean_band"], ["audio_embeds"]),
    ]
    text = [
        helper.make_node("Gather", ["vectors", "input_ids"], ["of_tokens"]),
        helper.make_node("ReduceMean", ["of_tokens"], ["mean"], axes=[1], keepdims=0),
        helper.make_node("Add", ["mean", "bias"], ["text_embeds"]),
    ]
    ids = [_info(each, ["batch", "n"], TensorProto.INT64) for each in ("input_ids", "attention_mask")]
    weights = {"vectors": _text_weights()[:, :n_text], "bias": np.full(n_text, 1e-3 + shift, np.float32)}
    spectrogram = [_info("input_features", ["batch", 1, 100 * seconds + 1, N_BANDS])]
    _save(folder / "audio.onnx", audio, spectrogram, _info("audio_embeds", ["batch", N_BANDS]), {})
    _save(folder / "text.onnx", text, ids, _info("text_embeds", ["batch", n_text]), weights)
    tokens = {token: number for number, token in enumerate(("<s>", "<pad>", "</s>", "<unk>", "low", "high", "both"))}
    (folder / "tokenizer.json").write_text(_tokenizer(tokens).to_str(), encoding="utf-8")
    files = {kind: {"file": file} for kind, file in CLAP_FILES.items()}
    settings = {"name": name, "licence": "CC0-1.0", "features": feature_settings(max_length_s=seconds)} | files | card
    (folder / "clap.toml").write_text(tomli_w.dumps(settings), encoding="utf-8")
    return folder / "clap.toml"


def _info(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def _save(path, nodes, inputs, output, weights):
    constants = [numpy_helper.from_array(values, name) for name, values in weights.items()]
    graph = helper.make_graph(nodes, "encoder", inputs, [output], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)


def low_or_high(kind: str, seconds: float = SECONDS) -> np.ndarray:
    """A tone with some noise, at 8 kHz."""
    t = np.arange(round(seconds * RATE)) / RATE
    noise = 0.01 * np.random.default_rng(0).standard_normal(len(t))
    return (0.3 * np.sin(2 * np.pi * TONES[kind] * t) + noise).astype(np.float32)
