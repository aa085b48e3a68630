"""The CLAP in the cache folder: its encoders of sounds and texts, its tokenizer, and clap.toml, which describes them.

There is one at a time. `spectag models clap` puts it there.
"""

import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from filelock import FileLock

from spectag.array_types import Float32Array
from spectag.config.base import parse_config, read_toml, to_toml
from spectag.config.clap import ClapCard
from spectag.config.network_cards import CardFile
from spectag.errors import BundleError, ConfigError, MissingExtraError, WeightsError, first_line
from spectag.models.card_files import url_of
from spectag.models.network_session import open_session
from spectag.models.onnx_file import MAX_ONNX_BYTES, check_onnx_file
from spectag.system.atomic_files import sha256_of
from spectag.system.cache import cache_folder, hold_cache, permanent_cache_folder
from spectag.system.progress import Progress, silent
from spectag.system.regular_files import check_regular_file, read_regular_file

CLAP_CARD = "clap.toml"
CLAP_FILES = {"audio": "audio.onnx", "text": "text.onnx", "tokenizer": "tokenizer.json"}
DEFAULT_CLAP = "laion/clap-htsat-unfused"
_MAX_TOKENIZER_BYTES = 50_000_000
_MAX_TOKENS = 510  # of RoBERTa, without the tokens at both ends


@dataclass(frozen=True)
class ClapStore:
    """A CLAP whose files are in a folder."""

    card: ClapCard
    folder: Path

    def file(self, kind: str) -> Path:
        """The file of the audio encoder, the text encoder or the tokenizer."""
        return self.folder / CLAP_FILES[kind]

    def text_vectors(self, texts: list[str]) -> Float32Array:
        """The vectors (n_texts, n_features) of texts, of length 1.

        Raises
        ------
        BundleError
            If the text encoder does not work as clap.toml describes it.
        ConfigError
            If a text is too long.
        MissingExtraError
            If the package tokenizers is not installed.
        """
        vectors = np.concatenate([self._text_vector(text) for text in texts])
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        if vectors.ndim != 2 or not np.isfinite(vectors).all() or not lengths.all():
            raise BundleError(f"{self.file('text')}: its vectors of texts are not finite, or not (1, n_features)")
        return np.asarray(vectors / lengths, np.float32)

    def _text_vector(self, text: str) -> Float32Array:
        tokens = np.array([self._tokenizer.encode(text).ids], np.int64)
        if tokens.size > _MAX_TOKENS:
            raise ConfigError(f"{text[:60]!r}... has {tokens.size} tokens, expected at most {_MAX_TOKENS}")
        inputs = {"input_ids": tokens, "attention_mask": np.ones_like(tokens)}
        session = self._text_session
        names = [item.name for item in session.get_inputs()]
        try:
            [vector] = session.run([self.card.text_output], {name: inputs[name] for name in names})
        except Exception as error:  # onnxruntime's errors have no common class
            raise BundleError(f"{self.file('text')}: cannot encode {text[:60]!r}: {first_line(error)}") from error
        return np.asarray(vector, np.float32)

    @cached_property
    def _tokenizer(self) -> Any:
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise MissingExtraError("tokenizers", "words", "CLAP's text encoder") from error
        path = self.file("tokenizer")
        try:
            tokenizer = Tokenizer.from_str(read_regular_file(path, max_bytes=_MAX_TOKENIZER_BYTES).decode("utf-8"))
        except Exception as error:  # tokenizers raises Exception itself
            raise BundleError(f"{path}: not a tokenizer.json: {first_line(error)}") from error
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return tokenizer

    @cached_property
    def _text_session(self) -> Any:
        path = self.file("text")
        check_onnx_file(path, is_ours=False)
        return open_session(path, n_threads=1)  # on the CPU: a model must not depend on the device of its first use


def clap_store() -> ClapStore:
    """The CLAP in the cache.

    Raises
    ------
    ConfigError
        If there is none yet, or its clap.toml is damaged. The message says what to do.
    """
    folder = _folder(cache_folder())
    if not (folder / CLAP_CARD).is_file():
        raise ConfigError(
            "there is no CLAP in the cache folder yet. Add one, once: spectag models clap, which needs a connection "
            "and the package transformers, or spectag models clap FOLDER. Without CLAP, words can be matched to the "
            'labels of AudioSet: spectag tag audioset-mn04 --words "dog barking, rain" PATHS'
        )
    hold_cache(cache_folder())
    return ClapStore(_read_card(folder / CLAP_CARD), folder)


def install_clap(path: Path, *, progress: Progress = silent) -> ClapStore:
    """Copy or download the files of a clap.toml into the cache, and try them; an earlier CLAP is replaced.

    Parameters
    ----------
    path : Path
        clap.toml. Its files are beside it, or have a URL.
    progress : Progress
        Called during downloads.

    Raises
    ------
    ConfigError
        If clap.toml is not valid, a file is missing, or the cache cannot be written.
    WeightsError
        If a file cannot be downloaded, or has another SHA-256.
    BundleError
        If the encoders cannot be used, or do not fit together.
    """
    card, cache = _read_card(path), permanent_cache_folder()
    folder = _folder(cache)
    unfinished = folder.with_name(f".{folder.name}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(".lock")):
        shutil.rmtree(unfinished, ignore_errors=True)  # of a killed process
        unfinished.mkdir()
        try:
            files = {
                kind: _fetched(getattr(card, kind), path, unfinished / name, progress)
                for kind, name in CLAP_FILES.items()
            }
            card = card.model_copy(update=files)
            (unfinished / CLAP_CARD).write_text(to_toml(card), encoding="utf-8")
            _check(ClapStore(card, unfinished))
            shutil.rmtree(folder, ignore_errors=True)
            unfinished.rename(folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return ClapStore(card, folder)


def _folder(cache: Path) -> Path:
    return cache / "clap" / "model"


def _read_card(path: Path) -> ClapCard:
    return parse_config(read_toml(path), ClapCard, source=str(path))


def _fetched(source: CardFile, card: Path, path: Path, progress: Progress) -> CardFile:
    """Copy or download a file of a card; the entry of the copy."""
    if source.is_local:
        local = card.parent / PurePosixPath(source.file)
        try:
            check_regular_file(local, max_bytes=MAX_ONNX_BYTES)
            shutil.copyfile(local, path)
        except OSError as error:
            raise ConfigError(f"{card}: {local} cannot be copied: {error.strerror or error}") from error
        if source.sha256 is not None and sha256_of(path) != source.sha256:
            raise WeightsError(f"{local}: SHA-256 is {sha256_of(path)}, but {source.sha256} in {card}")
    else:
        from spectag.system.download import download  # slow to import

        url = url_of(source)
        try:
            download(url, path, sha256=source.sha256, max_bytes=MAX_ONNX_BYTES, progress=progress)
        except OSError as error:
            raise WeightsError(f"{card}: cannot download {url}: {error}") from error
    return CardFile(file=path.name, sha256=sha256_of(path))


def _check(store: ClapStore) -> None:
    """Raise a BundleError if the encoders cannot be used, or their vectors have different lengths."""
    try:
        from spectag.models.card_graph import build_card_graph
    except ImportError as error:
        raise MissingExtraError("onnx", "words", "adding CLAP") from error
    n_audio = sum(build_card_graph(store.card.network, store.file("audio")).group_sizes)
    n_text = store.text_vectors(["a dog barks"]).shape[1]
    if n_audio != n_text:
        raise BundleError(
            f"{store.card.name}: vectors of sounds have {n_audio} numbers, those of texts {n_text}; the two encoders "
            "are not a pair"
        )
