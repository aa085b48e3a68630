"""Networks of the library transformers: hf:ORG/NAME on the Hugging Face Hub, or hf:FOLDER with a saved network.

A network takes the waveform: its feature extraction becomes a part of it, see
`spectag.training.networks.backbones.transformers_backbone`. Only CLAP takes a log-mel spectrogram. From the hub come
only settings and weights in the format safetensors, never code or pickles, and always those of one commit.
"""

import json
import logging
import re
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError

from spectag.config.base import parse_config
from spectag.config.clap import ClapFeatures
from spectag.config.network_cards import CardInput
from spectag.errors import ConfigError, MissingExtraError, WeightsError, first_line, no_connection
from spectag.system.regular_files import read_regular_file

TRANSFORMERS = "hf:"
_EXTRACTOR = "feature_extractor_type"
_EXTRACTOR_FILES = "preprocessor_config.json", "processor_config.json"
_CONFIG_FILE, _README = "config.json", "README.md"
_SETTINGS = (_CONFIG_FILE, *_EXTRACTOR_FILES, _README)
_WEIGHTS = "*.safetensors", "*.safetensors.index.json"
_TOKENIZER = "tokenizer*.json", "vocab.json", "merges.txt", "special_tokens_map.json"
_ORIGIN = "_name_or_path", "transformers_version"
_NAME = re.compile(r"(?P<repository>[A-Za-z0-9][\w.-]*/[\w.-]+)(@(?P<revision>[\w./-]+))?", re.ASCII)
_MAX_BYTES = 20_000_000  # of a file of settings
_AST_FRAME, _AST_HOP = 400, 160  # samples at 16 kHz; no settings of the library
_LEAST_SECONDS = 0.025  # of Whisper and of speech networks: one frame
_MAX_TEXT = 200  # characters of a licence or the name of a data set


@dataclass(frozen=True)
class TransformersNetwork:
    """A network of transformers and what it takes."""

    name: str
    """hf:ORG/NAME@COMMIT, or hf:FOLDER without the path to the folder."""
    folder: Path
    """With its settings, and with its weights after `fetch_weights`."""
    commit: str | None
    """None for a local folder."""
    input: CardInput
    settings: str
    """Those of the network and of its feature extractor, without where and by which version they were saved."""
    pretrained_on: str
    licence: str

    def fetch_weights(self) -> None:
        """Download the weights if they are not in the folder yet. A WeightsError if that is not possible."""
        self._fetch(_WEIGHTS)

    def fetch_tokenizer(self) -> None:
        """Download what turns texts into the input of CLAP. A WeightsError if that is not possible."""
        self._fetch(_TOKENIZER)

    def _fetch(self, patterns: tuple[str, ...]) -> None:
        if self.commit is not None:
            repository = self.name.removeprefix(TRANSFORMERS).partition("@")[0]
            _snapshot(repository, self.commit, patterns)


def is_transformers_network(backbone: str) -> bool:
    """Whether a backbone is named as a network of transformers."""
    return backbone.startswith(TRANSFORMERS)


def transformers_network(backbone: str) -> TransformersNetwork:
    """The network with a name: hf:ORG/NAME, hf:ORG/NAME@REVISION, or hf:FOLDER.

    Raises
    ------
    ConfigError
        If the name is wrong, or the network does not take sounds in one of the ways that spectag knows.
    WeightsError
        If it cannot be downloaded.
    MissingExtraError
        If transformers is not installed.
    """
    if find_spec("transformers") is None:
        raise MissingExtraError("transformers", "transformers", f"the backbone {backbone}")
    reference = backbone.removeprefix(TRANSFORMERS)
    folder, match = Path(reference).expanduser(), _NAME.fullmatch(reference)
    commit = None
    if reference and folder.is_dir():
        name = f"{TRANSFORMERS}{folder.resolve().name}"
    elif match is not None:
        folder = _snapshot(match["repository"], match["revision"], _SETTINGS)
        commit = folder.name
        name = f"{TRANSFORMERS}{match['repository']}@{commit}"
    else:
        raise ConfigError(
            f"{backbone}: no such folder, and not a name on the Hugging Face Hub; expected hf:ORG/NAME, "
            "hf:ORG/NAME@REVISION, or hf: and a folder that save_pretrained has written"
        )
    config, extractor = _read_json(backbone, folder / _CONFIG_FILE), _extractor_settings(backbone, folder)
    network_input = _input_of(backbone, extractor, config)
    settings = [{key: value for key, value in each.items() if key not in _ORIGIN} for each in (config, extractor)]
    pretrained_on, licence = _origin(folder / _README)
    return TransformersNetwork(
        name, folder, commit, network_input, json.dumps(settings, sort_keys=True), pretrained_on, licence
    )


@lru_cache(maxsize=32)
def _snapshot(repository: str, revision: str | None, patterns: tuple[str, ...]) -> Path:
    """The folder of a commit in the cache of the hub's own client, with the files at its top that match.

    The hub is asked once in a process, so that a training has one commit.
    """
    hub: Any = import_module("huggingface_hub")
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        return Path(
            hub.snapshot_download(
                repository,
                revision=revision,
                allow_patterns=list(patterns),
                ignore_patterns=["*/*"],
            )
        )
    except Exception as error:  # those of httpx or requests, and of huggingface_hub
        raise WeightsError(
            f"{TRANSFORMERS}{repository}: no folder {repository} here, and it cannot be downloaded from the Hugging "
            f"Face Hub: {no_connection(error) or first_line(error)}; check the name, which is ORG/NAME such as "
            "MIT/ast-finetuned-audioset-10-10-0.4593, and the connection, log in with `hf auth login` if it is "
            "private, or give a folder with it: hf:FOLDER"
        ) from error


def _extractor_settings(backbone: str, folder: Path) -> dict[str, Any]:
    """The settings of the feature extractor; a processor contains them."""
    for file in _EXTRACTOR_FILES:
        if (folder / file).is_file():
            settings = _read_json(backbone, folder / file)
            nested = settings.get("feature_extractor", settings)
            if isinstance(nested, dict) and _EXTRACTOR in nested:
                return nested
    raise ConfigError(
        f"{backbone}: no feature extractor in its {' or '.join(_EXTRACTOR_FILES)}; networks that take sounds have one"
    )


def _read_json(backbone: str, path: Path) -> dict[str, Any]:
    try:
        values = json.loads(read_regular_file(path, max_bytes=_MAX_BYTES).decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{backbone}: {path.name} cannot be read: {first_line(error)}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{backbone}: {path.name} has no settings")
    return values


def _input_of(backbone: str, extractor: dict[str, Any], config: dict[str, Any]) -> CardInput:
    """What a network takes. Shorter waveforms are padded in the network, as the extractor pads them."""
    if extractor[_EXTRACTOR] == "ClapFeatureExtractor":
        known = {name: value for name, value in extractor.items() if name in ClapFeatures.model_fields}
        return _clap_input(parse_config(known, ClapFeatures, source=backbone), backbone)
    try:
        rate = int(extractor.get("sampling_rate", 16_000))
        shortest, longest = _seconds(extractor, config, rate)
    except KeyError:
        _refuse(backbone, f"it has the feature extractor {_one_line(extractor[_EXTRACTOR])[:60]!r}")
    except (TypeError, ValueError, ArithmeticError):
        _refuse(backbone, "settings of its feature extractor are not numbers")
    values = {"kind": "waveform", "sample_rate": rate, "min_seconds": shortest, "max_seconds": longest}
    return parse_config(values, CardInput, source=backbone)


def _clap_input(features: ClapFeatures, backbone: str) -> CardInput:
    try:
        return features.input
    except ValidationError as error:  # of the mel bands
        reasons = "; ".join(each["msg"] for each in error.errors())
        raise ConfigError(f"{backbone}: settings of its feature extractor do not fit: {reasons}") from error


def _seconds(extractor: dict[str, Any], config: dict[str, Any], rate: int) -> tuple[float, float | None]:
    """The shortest and the longest sound. A KeyError for an unknown extractor."""
    kind = extractor[_EXTRACTOR]
    if kind == "ASTFeatureExtractor":
        n_frames = int(extractor.get("max_length", 1_024))
        return _AST_FRAME / rate, (_AST_FRAME + (n_frames - 1) * _AST_HOP) / rate
    if kind == "WhisperFeatureExtractor":
        return _LEAST_SECONDS, float(extractor.get("chunk_length", 30))
    if kind == "Wav2Vec2FeatureExtractor":
        return max(_LEAST_SECONDS, _receptive_field(config) / rate), None
    raise KeyError(kind)


def _receptive_field(config: dict[str, Any]) -> int:
    """Samples that the convolutions of a speech network need for one frame."""
    n_samples = 1
    for kernel, stride in zip(reversed(config["conv_kernel"]), reversed(config["conv_stride"]), strict=True):
        n_samples = (n_samples - 1) * int(stride) + int(kernel)
    return n_samples


def _refuse(backbone: str, reason: str) -> NoReturn:
    raise ConfigError(
        f"{backbone}: {reason}; spectag knows networks with ASTFeatureExtractor, ClapFeatureExtractor, "
        "WhisperFeatureExtractor or Wav2Vec2FeatureExtractor (wav2vec2, HuBERT, WavLM and others). Export others to "
        "ONNX and describe them with a network card"
    )


def _origin(readme: Path) -> tuple[str, str]:
    """The data sets and the licence in the header of a model card, as far as it says them."""
    unknown = "see its model card"
    if not readme.is_file():
        return unknown, unknown
    try:
        card: Any = import_module("huggingface_hub").ModelCard.load(readme)
        datasets, licence = card.data.datasets, card.data.license
    except Exception:  # of the parser of YAML; the header only informs
        return unknown, unknown
    names = [datasets] if isinstance(datasets, str) else datasets or []
    return ", ".join(map(_one_line, names)) or unknown, _one_line(licence or unknown)


def _one_line(text: object) -> str:
    return " ".join(str(text).split())[:_MAX_TEXT]
