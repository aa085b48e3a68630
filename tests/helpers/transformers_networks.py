"""Small networks of transformers with random weights, saved as their users save them."""

import warnings

import transformers
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTForAudioClassification,
    HubertConfig,
    HubertModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForSequenceClassification,
    WavLMConfig,
    WavLMModel,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForAudioClassification,
    WhisperModel,
)

RATE = 16_000
_SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
_SPEECH = _SMALL | {
    "conv_dim": (8, 8),
    "conv_kernel": (40, 20),
    "conv_stride": (20, 10),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}
_WHISPER = {
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "num_mel_bins": 80,
    "vocab_size": 60,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
    "max_source_positions": 100,
}


def _ast():
    config = ASTConfig(**_SMALL, max_length=128, num_mel_bins=128, num_labels=3)
    return ASTForAudioClassification(config), ASTFeatureExtractor(max_length=128, mean=-4.2, std=4.5)


def _whisper(kind):
    return kind(WhisperConfig(**_WHISPER)), WhisperFeatureExtractor(feature_size=80, chunk_length=2)


def _speech(kind, config, *, do_normalize=True, **settings):
    return kind(config(**_SPEECH, **settings)), Wav2Vec2FeatureExtractor(do_normalize=do_normalize)


_NETWORKS = {
    "ast": _ast,
    "wav2vec2": lambda: _speech(Wav2Vec2ForSequenceClassification, Wav2Vec2Config),
    "wav2vec2 layer norm": lambda: _speech(
        Wav2Vec2ForSequenceClassification, Wav2Vec2Config, do_stable_layer_norm=True, feat_extract_norm="layer"
    ),
    "hubert": lambda: _speech(HubertModel, HubertConfig, do_normalize=False),
    "wavlm": lambda: _speech(WavLMModel, WavLMConfig),
    "whisper": lambda: _whisper(WhisperModel),
    "whisper classifier": lambda: _whisper(WhisperForAudioClassification),
}
KINDS = tuple(_NETWORKS)


def save_network(folder, kind, *, seed=0):
    """A network in a folder; the library's own network and feature extractor."""
    transformers.set_seed(seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "At least one mel filter has all zero values")  # as Kaldi's have
        network, extractor = _NETWORKS[kind]()
    for parameter in network.parameters():  # some of the initial weights are so small that the layers have no effect
        parameter.data.add_(0.1 * parameter.data.new_empty(parameter.shape).normal_())
    network.eval().save_pretrained(folder)
    extractor.save_pretrained(folder)
    return network, extractor
