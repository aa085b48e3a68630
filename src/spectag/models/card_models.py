"""Network cards with labels as published models: a bundle is built in the cache at the first use."""

import hashlib
from pathlib import Path

from spectag.config.network_cards import StoredCard, open_card
from spectag.errors import ConfigError, MissingExtraError
from spectag.models.built_models import built_model
from spectag.models.bundle import (
    CARD_FILE,
    FORMAT_VERSION,
    ONNX_FILE,
    BackboneInfo,
    BundleInfo,
    DataInfo,
    write_info,
)
from spectag.models.card_files import (
    GRAPH_VERSION,
    check_labels_fit,
    digest_of,
    front_end_of,
    label_names,
    network_file,
)
from spectag.models.model_card import render_card
from spectag.system.environment import library_version
from spectag.system.progress import Log, Progress, no_log, silent

_BUILD_VERSION = 1
"""Increased when bundles of cards are built in another way."""


PLACEHOLDER_LABEL = "(no label)"
"""The only label of a network that has none: it is never detected."""


def card_bundle(
    reference: str | Path, *, needs_labels: bool = True, progress: Progress = silent, log: Log = no_log
) -> Path:
    """The folder of the model that a network card describes; it is built in the cache at the first use.

    Without `needs_labels`, a card without labels is a model for embeddings, too.

    Raises
    ------
    ConfigError
        If the card is not valid, or has no labels, so that it can only be a backbone.
    WeightsError, BundleError
        If the network cannot be downloaded, is not the one of the card, or does not fit it.
    MissingExtraError
        If the package onnx is not installed, which is needed once.
    """
    stored = open_card(reference)
    if needs_labels and not stored.card.is_model:
        raise ConfigError(
            f"{reference}: this network has no labels, so it cannot tag by itself; train a model with it: "
            f"spectag train labels.csv --backbone {reference} -o model"
        )
    if stored.warning is not None:
        log(stored.warning)
    network = network_file(stored, progress=progress)
    labels = label_names(stored, progress=progress) if stored.card.is_model else (PLACEHOLDER_LABEL,)
    digest = digest_of(network)
    name = f"card-{stored.card.name}-{_build_hash(stored, digest, labels)}"
    folder, is_new = built_model(name, lambda unfinished: _build(unfinished, stored, network, labels, digest))
    if is_new:
        log(f"{stored.card.name}: built from {network}, stored in {folder}")
    return folder


def _build_hash(stored: StoredCard, digest: str, labels: tuple[str, ...]) -> str:
    content = f"{_BUILD_VERSION} {GRAPH_VERSION} {FORMAT_VERSION} {digest} {stored.card.model_dump_json()} {labels!r}"
    return hashlib.blake2b(content.encode(), digest_size=8).hexdigest()


def _build(folder: Path, stored: StoredCard, network: Path, labels: tuple[str, ...], digest: str) -> None:
    try:
        import onnx

        from spectag.models.card_graph import build_card_graph
    except ImportError as error:
        raise MissingExtraError("onnx", "export", "the first use of a network card") from error
    graph = build_card_graph(stored.card, network)
    if stored.card.is_model:
        check_labels_fit(stored, labels, graph.n_labels)
    model = graph.model if stored.card.is_model else graph.with_a_constant_label()
    onnx.save(model, folder / ONNX_FILE)
    info = _info(stored, labels, digest)
    write_info(folder, info)
    (folder / CARD_FILE).write_text(render_card(info, stored.card.name), encoding="utf-8")


def _info(stored: StoredCard, labels: tuple[str, ...], digest: str) -> BundleInfo:
    card = stored.card
    front_end = front_end_of(card)
    return BundleInfo(
        labels=labels,
        front_end=front_end,
        window=front_end.window,
        backbone=BackboneInfo(
            name=card.name,
            features="all",
            head="published",
            pretrained_on=card.trained_on,
            licence=card.licence,
            weights_sha256=digest,
        ),
        thresholds=(card.threshold,) * len(labels),
        thresholds_fitted=(False,) * len(labels),
        metrics={"source": card.citation or card.homepage, "homepage": card.homepage, "note": card.note},
        data=DataInfo(name=card.trained_on, n_clips=None, n_clips_per_label=None, fingerprint=None),
        onnx_difference=None,
        versions={name: library_version(name) for name in ("spectag", "onnxruntime", "numpy")},
    )
