"""CLAP from Hugging Face's transformers as ONNX files, which tag and search without PyTorch."""

import json
import shutil
from fnmatch import fnmatch
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tomli_w
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from spectag.config.clap import ClapFeatures
from spectag.errors import BundleError, MissingExtraError, first_line, no_connection
from spectag.models.clap_store import CLAP_FILES, DEFAULT_CLAP, ClapStore, install_clap
from spectag.models.network_session import open_session
from spectag.system.cache import writable_cache_folder
from spectag.system.progress import Log, Progress, no_log, silent
from spectag.training.networks.onnx_export import Dynamic, trace

_FILES = ("*.json", "*.safetensors", "vocab.txt", "merges.txt", "README.md")
_PICKLED_WEIGHTS = "pytorch_model.bin"  # transformers reads it with weights_only
_LARGEST_DIFFERENCE = 1e-4  # of the unit vectors of the ONNX files and of transformers
_EXAMPLE_TOKENS = 8


def add_clap_of_transformers(source: str, *, progress: Progress = silent, log: Log = no_log) -> ClapStore:
    """Export a ClapModel into the cache, as the CLAP that is used from then on.

    Parameters
    ----------
    source : str
        A folder that `save_pretrained` of the model and its processor wrote, or a name on the Hugging Face Hub, such as
        laion/clap-htsat-unfused.
    progress, log
        Called during the export, and with messages.

    Raises
    ------
    BundleError
        If it cannot be downloaded, is not a ClapModel, or its ONNX files compute something else.
    MissingExtraError
        If transformers is not installed.
    """
    try:
        transformers: Any = import_module("transformers")
    except ImportError as error:
        raise MissingExtraError("transformers", "transformers,words", f"{source}: exporting CLAP") from error
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    work = writable_cache_folder() / "clap" / "work"
    work.mkdir(parents=True, exist_ok=True)
    folder = Path(source) if Path(source).is_dir() else _downloaded(source, work / "download", log)
    progress(f"exporting {source}", 0, 3)
    model, features, tokenizer = _opened(transformers, folder, source)
    exported = work / "exported"
    exported.mkdir(exist_ok=True)
    (exported / CLAP_FILES["tokenizer"]).write_text(tokenizer, encoding="utf-8")
    for number, (kind, encoder, example, axes) in enumerate(_encoders(model, features), start=1):
        _write(exported / CLAP_FILES[kind], encoder, example, axes, f"{kind}_embeds", source)
        progress(f"exporting {source}", number, 3)
    card = exported / "clap.toml"
    card.write_text(tomli_w.dumps(_card(source, folder, features)), encoding="utf-8")
    store = install_clap(card)
    progress(f"exporting {source}", 3, 3)
    shutil.rmtree(work, ignore_errors=True)
    return store


def _downloaded(name: str, folder: Path, log: Log) -> Path:
    """The files of a model on the hub; those of a download that broke off are kept."""
    try:
        hub: Any = import_module("huggingface_hub")
    except ImportError as error:
        raise MissingExtraError("huggingface_hub", "hub", f"{name}: a model on the hub") from error
    log(f"downloading {name} from the Hugging Face Hub")
    api = hub.HfApi(library_name="spectag")
    try:
        import_module("huggingface_hub.utils").disable_progress_bars()
        info = api.model_info(name)
        for file in _files_to_download([file.rfilename for file in info.siblings or ()]):
            api.hf_hub_download(name, file, revision=info.sha, local_dir=folder)
    except Exception as error:  # those of httpx or requests, and of huggingface_hub
        raise BundleError(
            f"{name}: neither a folder nor available on the Hugging Face Hub: "
            f"{no_connection(error) or first_line(error)}; give a folder that save_pretrained wrote, a name on the "
            f"hub such as {DEFAULT_CLAP}, or a clap.toml"
        ) from error
    return folder


def _files_to_download(files: list[str]) -> list[str]:
    """Those that transformers reads; pickled weights only if there are no others."""
    chosen = [file for file in files if any(fnmatch(file, pattern) for pattern in _FILES) and "/" not in file]
    has_safetensors = any(file.endswith(".safetensors") for file in chosen)
    return chosen if has_safetensors else [*chosen, *({_PICKLED_WEIGHTS} & set(files))]


def _opened(transformers: Any, folder: Path, source: str) -> tuple[Any, ClapFeatures, str]:
    """The model, the settings of its features, and the content of its tokenizer.json."""
    try:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
        if kind != "clap":
            raise BundleError(f"{source}: its model_type is {kind!r}, expected 'clap'")
        preprocessor = json.loads(_preprocessor_file(folder).read_text(encoding="utf-8"))
        features = ClapFeatures.of_preprocessor(preprocessor.get("feature_extractor", preprocessor))
        model = transformers.ClapModel.from_pretrained(folder, local_files_only=True).eval()
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        return model, features, tokenizer.backend_tokenizer.to_str()
    except (OSError, ValueError, ValidationError, AttributeError, ImportError) as error:
        raise BundleError(f"{source}: not a CLAP that transformers opens: {first_line(error)}") from error


def _preprocessor_file(folder: Path) -> Path:
    """preprocessor_config.json, or processor_config.json of newer versions of transformers."""
    names = ("preprocessor_config.json", "processor_config.json")
    return next((path for name in names if (path := folder / name).is_file()), folder / names[0])


class _AudioEncoder(nn.Module):
    """From a log-mel spectrogram (1, 1, n_frames, n_mels) to the embedding (1, n_features).

    A fused model gets its input as a sound that is not longer than the network's input: without the fusion of parts.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.audio_model, self.projection = model.audio_model, model.audio_projection
        encoder = self.audio_model.audio_encoder
        encoder.enable_fusion = encoder.patch_embed.enable_fusion = False

    def forward(self, input_features: Tensor) -> Tensor:
        outputs = self.audio_model(input_features=input_features)
        return self.projection(outputs.pooler_output)  # type: ignore[no-any-return]


class _TextEncoder(nn.Module):
    """From the tokens (1, n_tokens) of a text to its embedding (1, n_features)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.text_model, self.projection = model.text_model, model.text_projection

    def forward(self, input_ids: Tensor) -> Tensor:
        outputs = self.text_model(input_ids=input_ids, attention_mask=torch.ones_like(input_ids))
        return self.projection(outputs.pooler_output)  # type: ignore[no-any-return]


def _encoders(model: Any, features: ClapFeatures) -> list[tuple[str, nn.Module, Tensor, dict[int, Any]]]:
    """Each encoder with its kind, an example of its input, and the axes of any length."""
    settings = features.input
    noise = torch.randn(1, 1, settings.n_frames or 1, features.feature_size, generator=torch.Generator().manual_seed(0))
    n_tokens = model.config.text_config.vocab_size
    tokens = torch.arange(_EXAMPLE_TOKENS)[None] % max(2, n_tokens - 4) + min(4, n_tokens - 1)
    return [
        ("audio", _AudioEncoder(model), 20 * noise - 40, {}),
        ("text", _TextEncoder(model), tokens.clamp(max=n_tokens - 1), {1: Dynamic}),
    ]


def _write(path: Path, encoder: nn.Module, example: Tensor, axes: dict[int, Any], output: str, source: str) -> None:
    """Write the ONNX file of an encoder, and compare it with the encoder."""
    name = "input_features" if example.is_floating_point() else "input_ids"
    encoder.eval()
    try:
        graph = trace(encoder, example, name, [output], axes)
    except Exception as error:  # the exporter documents no classes
        raise BundleError(f"{source}: PyTorch cannot export its {path.stem} encoder: {first_line(error)}") from error
    onnx.save(graph, path)
    with torch.inference_mode():
        expected = _unit(encoder(example).numpy())
    [found] = open_session(path, n_threads=1).run([output], {name: example.numpy()})
    difference = float(np.abs(_unit(found) - expected).max())
    if not difference < _LARGEST_DIFFERENCE:
        raise BundleError(f"{source}: the exported {path.stem} encoder differs from transformers by {difference:.1e}")


def _unit(vectors: Any) -> Any:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def _card(source: str, folder: Path, features: ClapFeatures) -> dict[str, Any]:
    is_on_hub = not Path(source).is_dir()
    return {
        "name": source if is_on_hub else folder.resolve().name,
        **({"homepage": f"https://huggingface.co/{source}"} if is_on_hub else {}),
        "licence": _licence(folder / "README.md"),
        "features": features.model_dump(),
        **{kind: {"file": name} for kind, name in CLAP_FILES.items()},
    }


def _licence(card: Path) -> str:
    """The licence in the header of a model card."""
    try:
        lines = card.read_text(encoding="utf-8").splitlines()[:100]
    except (OSError, UnicodeDecodeError):
        return "unknown"
    found = next((line.partition(":")[2].strip() for line in lines if line.startswith("license:")), "")
    return found[:200] or "unknown"
