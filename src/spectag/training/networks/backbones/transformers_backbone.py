"""Networks of the library transformers that take sounds: their feature extraction, encoder, and layers as stages.

inputs      waveforms (batch, 1, 1, n_samples); of CLAP log_mels (batch, 1, n_mels, n_frames)
extraction  of waveforms, as the library's feature extractor computes it, so that it is a part of the ONNX graph
encoder     the hidden states of all layers, (batch, n_tokens, n_features); of CLAP (batch, n_features, height, width),
            and the unit vector of the sound, in one space with those of texts
stages      the same as maps (batch, n_features, 1, n_tokens)
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoTokenizer
from transformers.audio_utils import window_function

from spectag.array_types import AnyFloatArray
from spectag.config.transformers_networks import TransformersNetwork
from spectag.errors import ConfigError, WeightsError, first_line
from spectag.models.onnx_file import MAX_ONNX_BYTES
from spectag.training.networks.backbones.base import Backbone, FeatureMaps

_AST_WINDOW, _AST_HOP, _AST_FFT, _AST_LOWEST = 400, 160, 512, 20  # samples, and Hz: no settings of the library
_PRE_EMPHASIS = 0.97
_AST_FLOOR = 1.192092955078125e-07  # of the power, as in Kaldi
_WHISPER_FLOOR, _WHISPER_RANGE = 1e-10, 8.0  # power, and decades below the maximum of the clip
_VARIANCE_FLOOR = 1e-7
_UNUSED = ("masked_spec_embed",)  # weights that only pretraining needs, so not all files contain them
_RANDOM = {"apply_spec_augment": False, "layerdrop": 0.0, "encoder_layerdrop": 0.0}
_EXTRACTORS: Any = AutoFeatureExtractor  # typed only in part
_MODELS: Any = AutoModel
_TOKENIZERS: Any = AutoTokenizer
_FROM_FOLDER: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}


class TransformersBackbone(Backbone):
    """A network of transformers, with random weights until `load_published`.

    The embedding is the pooled output, if the network has one; features of kind "last" are then this embedding. That of
    CLAP is the unit vector that is compared with those of texts.

    Raises
    ------
    ConfigError
        If the library does not know the network, or it is too large for an ONNX file.
    """

    embedding_is_last = True

    def __init__(self, source: TransformersNetwork) -> None:
        super().__init__()
        self.source = source
        try:
            with _quiet():
                self._config = _config(source.folder)
                extractor: Any = _EXTRACTORS.from_pretrained(source.folder, **_FROM_FOLDER)
                self.network = self._encoder(_MODELS.from_config(self._config, trust_remote_code=False))
                self.extraction = _extraction(extractor)
        except Exception as error:  # the library raises errors of any class
            raise ConfigError(f"{source.name}: transformers cannot open it: {first_line(error)}") from error
        n_bytes = 4 * sum(parameter.numel() for parameter in self.network.parameters())
        if n_bytes > MAX_ONNX_BYTES:
            raise ConfigError(
                f"{source.name}: its encoder has {n_bytes / 1e9:.1f} GB of weights, but an ONNX file at most "
                f"{MAX_ONNX_BYTES / 1e9:g} GB; use a smaller one"
            )

    @property
    def settings(self) -> str:
        return self.source.settings

    def local_file(self) -> Path:
        self.source.fetch_weights()
        return self.source.folder

    def load_published(self, path: Path) -> None:
        problem = f"{self.source.name}: transformers cannot load its weights"
        try:
            with _quiet():
                model, info = _MODELS.from_pretrained(
                    path, config=self._config, use_safetensors=True, output_loading_info=True, **_FROM_FOLDER
                )
        except Exception as error:  # the library raises errors of any class
            raise WeightsError(f"{problem}: {first_line(error)}; save_pretrained writes what it can load") from error
        missing = [name for name in info["missing_keys"] if self._is_used(name)]
        if missing:
            raise WeightsError(f"{problem}: {len(missing)} are missing, such as {missing[0]}")
        self.network = self._encoder(model)

    @torch.inference_mode()
    def text_classifier(self, texts: Sequence[str]) -> nn.Linear | None:
        if not self._is_clap:
            return None
        self.source.fetch_tokenizer()
        try:
            with _quiet():
                tokenizer = _TOKENIZERS.from_pretrained(self.source.folder, **_FROM_FOLDER)
                clap = _MODELS.from_pretrained(self.source.folder, use_safetensors=True, **_FROM_FOLDER).float().eval()
        except Exception as error:  # the library raises errors of any class
            raise WeightsError(
                f"{self.source.name}: transformers cannot open its texts: {first_line(error)}"
            ) from error
        tokens = tokenizer(list(texts), padding=True, return_tensors="pt")
        pooled = clap.text_model(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]).pooler_output
        vectors = functional.normalize(clap.text_projection(pooled), dim=-1)
        layer = nn.Linear(vectors.shape[1], len(texts))
        layer.weight.copy_(clap.logit_scale_a.exp() * vectors)
        layer.bias.zero_()
        return layer

    def feature_maps(self, inputs: Tensor) -> FeatureMaps:
        network: Any = self.network
        values = self.extraction(inputs.flatten(1)) if self.source.input.kind == "waveform" else inputs.transpose(2, 3)
        result = network(values, output_hidden_states=True)
        states = *result.hidden_states[:-1], result.last_hidden_state  # some networks have a norm after the last layer
        stages = tuple(state if state.ndim == 4 else state.transpose(1, 2)[:, :, None] for state in states)
        return FeatureMaps(stages, getattr(result, "pooler_output", None))

    def _encoder(self, model: Any) -> nn.Module:
        """The part that takes sounds, in single precision."""
        if self._is_clap:
            _leave_out_fusion(model.audio_model.audio_encoder)
            return _ClapEncoder(model).float().eval()
        encoder: nn.Module = model.get_submodule(self._part)
        return encoder.float().eval()

    @property
    def _is_clap(self) -> bool:
        return bool(self._config.model_type == "clap")

    @property
    def _part(self) -> str:
        """The first letters of the names of all weights for sounds; empty if it is the whole network."""
        if self._is_clap:
            return "audio_"
        return "encoder" if self._config.is_encoder_decoder else ""

    def _is_used(self, weight: str) -> bool:
        is_fusion = ".fusion_model." in weight or ".mel_conv2d." in weight
        return weight.startswith(self._part) and not is_fusion and not weight.endswith(_UNUSED)


class _ClapEncoder(nn.Module):
    """CLAP's part for sounds. Its pooled output is the unit vector of the sound, in one space with those of texts."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.audio_model, self.audio_projection = model.audio_model, model.audio_projection

    def forward(self, inputs: Tensor, *, output_hidden_states: bool) -> Any:
        result: Any = self.audio_model(inputs, output_hidden_states=output_hidden_states)
        result.pooler_output = functional.normalize(self.audio_projection(result.pooler_output), dim=-1)
        return result


def _leave_out_fusion(clap: Any) -> None:
    """Let a fused CLAP take each sound as one that is not longer than its input."""
    if clap.enable_fusion:
        clap.enable_fusion = clap.patch_embed.enable_fusion = False
        del clap.patch_embed.fusion_model, clap.patch_embed.mel_conv2d


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's notes: on filters of mel bands that are empty, and on weights that a head would have."""
    logging: Any = transformers.logging
    verbosity, has_progress_bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if has_progress_bar:
            logging.enable_progress_bar()


def _config(folder: Path) -> Any:
    """The settings of the network without randomness: spectag augments, and a resumed run is to be the same."""
    config: Any = AutoConfig.from_pretrained(folder, **_FROM_FOLDER)  # nosec B615 - of one commit, see _snapshot
    for name, value in _RANDOM.items():
        if hasattr(config, name):
            setattr(config, name, value)
    return config


def _extraction(extractor: Any) -> nn.Module:
    """The feature extraction as a module: waveforms (batch, n_samples) to the input of the encoder."""
    kinds = {
        "ASTFeatureExtractor": _AstExtraction,
        "WhisperFeatureExtractor": _WhisperExtraction,
        "Wav2Vec2FeatureExtractor": _Standardization,
        "ClapFeatureExtractor": nn.Identity,  # the front end makes its log_mels
    }
    return kinds[type(extractor).__name__](extractor)


class _MelPower(nn.Module):
    """Waveforms (batch, n_samples) to the power in mel bands (batch, n_frames, n_mels), float64.

    `response` (n_samples, n_fft // 2 + 1) is the spectrum of a frame with a single 1 at each position: all steps from a
    frame to its spectrum are linear.
    """

    basis: Tensor
    bank: Tensor

    def __init__(self, response: NDArray[np.complex128], bank: AnyFloatArray, hop_length: int) -> None:
        super().__init__()
        self.hop_length = hop_length
        basis = np.concatenate([response.real, response.imag], axis=1)
        self.register_buffer("basis", torch.from_numpy(basis.astype(np.float32)))
        self.register_buffer("bank", torch.from_numpy(np.asarray(bank, np.float32)))

    def forward(self, waveforms: Tensor) -> Tensor:
        precision = torch.float32 if waveforms.device.type == "mps" else torch.float64  # which Apple's GPUs do not have
        frames = waveforms.to(precision).unfold(-1, len(self.basis), self.hop_length)
        real, imaginary = (frames @ self.basis.to(precision)).chunk(2, dim=-1)
        return (real.square() + imaginary.square()) @ self.bank.to(precision)


class _AstExtraction(nn.Module):
    """ASTFeatureExtractor: Kaldi's log-mel filter bank, standardised; frames that are missing are 0 before that."""

    def __init__(self, extractor: Any) -> None:
        super().__init__()
        self.n_frames = int(extractor.max_length)
        self.mean = float(extractor.mean) if extractor.do_normalize else 0.0
        self.std = 2 * float(extractor.std) if extractor.do_normalize else 1.0
        frames = np.eye(_AST_WINDOW)
        frames -= frames.mean(axis=1, keepdims=True)
        before = np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
        response = np.fft.rfft(
            (frames - _PRE_EMPHASIS * before) * window_function(_AST_WINDOW, "hann", periodic=False), _AST_FFT
        )
        bank = _kaldi_bank(int(extractor.num_mel_bins), int(extractor.sampling_rate))
        self.mel_power = _MelPower(response, bank, _AST_HOP)

    def forward(self, waveforms: Tensor) -> Tensor:
        log_mel: Tensor = self.mel_power(waveforms).clamp_min(_AST_FLOOR).log().float()
        log_mel = functional.pad(log_mel, (0, 0, 0, self.n_frames - log_mel.shape[1]))
        return (log_mel - self.mean) / self.std


def _kaldi_bank(n_mels: int, sample_rate: int) -> NDArray[np.float64]:
    """Kaldi's mel bands (n_fft // 2 + 1, n_mels): triangles over the mel scale. Some have no frequency and are 0.

    The function of the library has another meaning in older versions.
    """
    mels = _kaldi_mels(np.arange(_AST_FFT // 2 + 1) * (sample_rate / _AST_FFT))
    lowest, highest = _kaldi_mels(np.array([_AST_LOWEST, sample_rate / 2]))
    centers, width = np.linspace(lowest, highest, n_mels + 2)[1:-1], (highest - lowest) / (n_mels + 1)
    bank: NDArray[np.float64] = np.maximum(1 - np.abs(mels[:, None] - centers) / width, 0)
    return bank


def _kaldi_mels(frequencies: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.asarray(1127 * np.log1p(frequencies / 700))


class _WhisperExtraction(nn.Module):
    """WhisperFeatureExtractor: a log-mel spectrogram of the waveform and the silence after it, 8 decades wide."""

    def __init__(self, extractor: Any) -> None:
        super().__init__()
        self.n_samples, self.n_fft = int(extractor.n_samples), int(extractor.n_fft)
        response = np.fft.rfft(np.diag(window_function(self.n_fft, "hann")))
        self.mel_power = _MelPower(response, extractor.mel_filters, int(extractor.hop_length))

    def forward(self, waveforms: Tensor) -> Tensor:
        padded = functional.pad(waveforms, (0, self.n_samples - waveforms.shape[1]))
        padded = functional.pad(padded, (self.n_fft // 2,) * 2, mode="reflect")
        power = self.mel_power(padded)[:, :-1]
        log_mel = power.clamp_min(_WHISPER_FLOOR).log10().float().transpose(1, 2)
        log_mel = torch.maximum(log_mel, log_mel.amax(dim=(1, 2), keepdim=True) - _WHISPER_RANGE)
        return (log_mel + 4) / 4


class _Standardization(nn.Module):
    """Wav2Vec2FeatureExtractor: the waveform with mean 0 and variance 1, if its settings say so."""

    def __init__(self, extractor: Any) -> None:
        super().__init__()
        self.is_standardized = bool(extractor.do_normalize)

    def forward(self, waveforms: Tensor) -> Tensor:
        if not self.is_standardized:
            return waveforms
        variance, mean = torch.var_mean(waveforms, dim=1, correction=0, keepdim=True)
        return (waveforms - mean) / torch.sqrt(variance + _VARIANCE_FLOOR)
