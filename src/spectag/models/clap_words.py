"""CLAP with words as labels: clap:"dog barking, rain" as a model, built in the cache at its first use.

Its logits are those of cosine similarities of a sound and a text, so its probabilities are these similarities, and
0.001 for smaller ones. They become probabilities by `spectag calibrate`, as those of any model.
"""

import hashlib
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from spectag.array_types import Float32Array
from spectag.config.tagging import segment_window
from spectag.errors import ConfigError, DataError, MissingExtraError
from spectag.models.built_models import built_model
from spectag.models.bundle import (
    CARD_FILE,
    FORMAT_VERSION,
    INFO_FILE,
    ONNX_FILE,
    BackboneInfo,
    BundleInfo,
    DataInfo,
    write_info,
)
from spectag.models.card_files import GRAPH_VERSION, front_end_of
from spectag.models.clap_store import ClapStore, clap_store
from spectag.models.model_card import render_card
from spectag.models.word_list import WordList
from spectag.system.cache import cache_folder, only_user
from spectag.system.environment import library_version
from spectag.system.progress import Log, no_log

if TYPE_CHECKING:
    from onnx import ModelProto

    from spectag.models.card_graph import CardGraph

CLAP_NAME = "clap"
WORDS_PREFIX = "clap:"
WORDS_HEAD = "words"
"""BackboneInfo.head of models whose features are in one space with the vectors of texts."""
NOT_PROBABILITIES = (
    "the numbers are cosine similarities of sound and words, not probabilities, and no threshold is known, so all "
    "words are listed; spectag calibrate with --background or labelled clips sets thresholds, --min-confidence one by "
    "hand"
)
_BUILD_VERSION = 1
"""Increased when the same CLAP and words give another model."""
_SMALLEST_SIMILARITY, _LARGEST_SIMILARITY = 1e-3, 1 - 1e-6
_SMALLEST_LENGTH = 1e-12
_N_KEPT = 4
"""Models with words that stay in the cache: each has its own copy of the audio encoder."""
_used = set[Path]()
"""Models that this process may still open."""


def is_clap_name(model: str | Path) -> bool:
    """Whether a model is named as CLAP: clap: with words, or clap, where no folder of this name has a model."""
    is_clap = str(model) == CLAP_NAME and not Path(CLAP_NAME, INFO_FILE).exists()
    return is_clap or str(model).startswith(WORDS_PREFIX)


def clap_bundle(model: str, *, needs_labels: bool = True, log: Log = no_log) -> Path:
    """The folder of CLAP as a model, in the cache.

    Parameters
    ----------
    model : str
        clap: with words, or with a .txt or .toml file of words. For embeddings alone, clap.
    needs_labels : bool
        Refuse CLAP without words.
    log : Log
        Called once with what the numbers mean.

    Raises
    ------
    ConfigError
        If there is no CLAP in the cache, or there are no words.
    BundleError
        If its files are damaged, or the model cannot be written.
    MissingExtraError
        If a package for its first use is not installed.
    """
    words = None if model == CLAP_NAME else WordList.parse(model.removeprefix(WORDS_PREFIX))
    if words is None and needs_labels:
        raise ConfigError('clap needs words: clap:"dog barking, rain on a window"')
    store = clap_store()
    content = (_BUILD_VERSION, GRAPH_VERSION, FORMAT_VERSION, store.card.model_dump_json(), words and words.sentences)
    name = f"clap-{hashlib.blake2b(repr(content).encode(), digest_size=8).hexdigest()}"
    folder, is_new = built_model(name, lambda unfinished: _build(unfinished, store, words))
    _used.add(folder)
    with suppress(OSError):  # a cache that cannot be written
        os.utime(folder)
    if is_new:
        _delete_oldest(folder.parent)
    if words is not None:
        seconds = segment_window(store.card.features.max_length_s).window_seconds
        log(f"{store.card.name}: {NOT_PROBABILITIES}. Segments come from windows of {seconds:g} s")
    return folder


def _delete_oldest(models: Path) -> None:
    """Keep the models that were used last, and all if another process uses the cache."""
    folders = sorted(models.glob(f"clap-{'[0-9a-f]' * 16}"), key=lambda folder: folder.stat().st_mtime)
    with suppress(ConfigError, OSError), only_user(cache_folder()):
        for folder in folders[:-_N_KEPT]:
            if folder not in _used:
                shutil.rmtree(folder)


def text_vector(text: str, info: BundleInfo) -> Float32Array:
    """The vector (n_features,) of a text, of length 1, for a model whose features are those of CLAP.

    Raises
    ------
    DataError
        If the features of the model are not those of the CLAP in the cache.
    """
    store = clap_store()
    if info.backbone.head != WORDS_HEAD or info.backbone.weights_sha256 != store.card.audio.sha256:
        raise DataError(
            f"{text!r}: words can be compared only with features of CLAP, {store.card.name}, but these are of "
            f"{info.backbone.name}"
        )
    return np.asarray(label_vectors(store, WordList.parse_one(text))[0])


def label_vectors(store: ClapStore, words: WordList) -> Float32Array:
    """The vectors (n_labels, n_features) of labels, of length 1: the means of those of their sentences."""
    means = np.stack([store.text_vectors(sentences).mean(axis=0) for sentences in words.sentences.values()])
    lengths = np.linalg.norm(means, axis=1, keepdims=True)
    return np.asarray(means / np.maximum(lengths, _SMALLEST_LENGTH), np.float32)


def _build(folder: Path, store: ClapStore, words: WordList | None) -> None:
    try:
        import onnx

        from spectag.models.card_graph import build_card_graph
    except ImportError as error:
        raise MissingExtraError("onnx", "words", "the first use of CLAP with new words") from error
    graph = build_card_graph(store.card.network, store.file("audio"))
    model = graph.with_a_constant_label() if words is None else _with_words(graph, label_vectors(store, words))
    onnx.save(model, folder / ONNX_FILE)
    info = _info(store, words)
    write_info(folder, info)
    (folder / CARD_FILE).write_text(render_card(info, "clap"), encoding="utf-8")


def _with_words(graph: "CardGraph", vectors: Float32Array) -> "ModelProto":
    """The audio encoder with the similarities of its output with vectors (n_labels, n_features)."""
    from spectag.models.standalone.graph_builder import GraphBuilder

    nodes = GraphBuilder("words/")
    length = nodes("Sqrt", nodes("ReduceSum", nodes("Mul", "features", "features"), [1], keepdims=1))
    unit = nodes("Div", "features", nodes("Max", length, np.float32(_SMALLEST_LENGTH)))
    limits = np.float32(_SMALLEST_SIMILARITY), np.float32(_LARGEST_SIMILARITY)
    similarity = nodes("Clip", nodes("MatMul", unit, np.ascontiguousarray(vectors.T)), *limits)
    odds = nodes("Div", similarity, nodes("Sub", np.float32(1), similarity))
    return graph.with_labels(nodes, nodes("Log", odds), len(vectors))


def _info(store: ClapStore, words: WordList | None) -> BundleInfo:
    from spectag.models.card_models import PLACEHOLDER_LABEL

    card, front_end = store.card, front_end_of(store.card.network)
    labels = (PLACEHOLDER_LABEL,) if words is None else tuple(words.words)
    texts = {} if words is None else {"sentences": words.sentences}
    return BundleInfo(
        labels=labels,
        front_end=front_end,
        window=front_end.window,
        backbone=BackboneInfo(
            name=f"CLAP ({card.name})",
            features="all",
            head=WORDS_HEAD,
            pretrained_on=card.network.trained_on,
            licence=card.licence,
            weights_sha256=card.audio.sha256 or "",
        ),
        thresholds=(0.0 if words is not None else 0.5,) * len(labels),
        thresholds_fitted=(False,) * len(labels),
        metrics={"source": card.name, "homepage": card.homepage, "note": f"Before calibration, {NOT_PROBABILITIES}."}
        | texts,
        data=DataInfo(name=card.network.trained_on, n_clips=None, n_clips_per_label=None, fingerprint=None),
        onnx_difference=None,
        versions={name: library_version(name) for name in ("spectag", "onnxruntime", "numpy")},
    )
