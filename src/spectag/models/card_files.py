"""What a network card refers to: its network and labels, beside the card or downloaded, and its front end.

A downloaded file without a known SHA-256 is trusted at its first download; see `spectag.models.weights`.
"""

import csv
import hashlib
import io
import os
from pathlib import Path, PurePosixPath

from spectag.audio.front_end import FrontEnd
from spectag.config.backbones import WeightsSource
from spectag.config.base import Channel
from spectag.config.network_cards import CardFile, NetworkCard, StoredCard
from spectag.config.transformers_networks import TransformersNetwork
from spectag.data.labels import audioset_labels
from spectag.errors import BundleError, ConfigError, WeightsError
from spectag.models.limits import MAX_LABELS
from spectag.models.onnx_file import MAX_ONNX_BYTES, check_onnx_file
from spectag.models.weights import cached_weights, find_weights, local_weights
from spectag.system.atomic_files import sha256_of
from spectag.system.progress import Progress, silent
from spectag.system.regular_files import check_regular_file, read_regular_file

GRAPH_VERSION = 2  # of spectag.models.card_graph: increased when the same card gives other features or logits
MAX_LABELS_BYTES = 20_000_000
_MAX_LABEL_CHARACTERS = 300
_HUB_VARIABLE, _HUB = "HF_ENDPOINT", "https://huggingface.co"
_LABEL_COLUMNS = ("display_name", "label", "name")
_ALTERNATIVES = "or use a machine with a connection and copy the cache"


def front_end_of(network: NetworkCard | TransformersNetwork, channel: Channel = "mix") -> FrontEnd:
    """The front end of what a card describes, or of a network of transformers."""
    shortest, longest = network.input.sample_limits
    return FrontEnd(
        mel=network.input.view,
        channel=channel,
        input=network.input.kind,
        min_samples=shortest,
        max_samples=longest,
        padding=network.input.padding,
    )


def network_file(stored: StoredCard, *, progress: Progress = silent) -> Path:
    """The network of a card, downloaded if necessary.

    Raises
    ------
    ConfigError
        If a file beside the card is missing, is not the one of the card, or lies outside of the card's folder.
    WeightsError
        If it cannot be downloaded, or is not the expected one.
    """
    return _file(stored, stored.card.network, ".onnx", MAX_ONNX_BYTES, progress)


def label_names(stored: StoredCard, *, progress: Progress = silent) -> tuple[str, ...]:
    """The labels of a card, in the order of the logits.

    Raises
    ------
    ConfigError
        If the card has none, or the file has no or repeated labels. Other errors are those of `network_file`.
    """
    card = stored.card
    if card.labels is None:
        raise ConfigError(f"{card.name}: its card has no labels")
    if card.labels.source is None:
        return audioset_labels()
    suffix = ".csv" if card.labels.source.file.lower().endswith(".csv") else ".txt"
    path = _file(stored, card.labels.source, suffix, MAX_LABELS_BYTES, progress)
    try:
        text = read_regular_file(path, max_bytes=MAX_LABELS_BYTES).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot read the labels: {error}") from error
    names = _column(path, text, card.labels.column) if suffix == ".csv" else text.splitlines()
    return _checked_labels(path, [name.strip() for name in names])


def digest_of(path: Path) -> str:
    """SHA-256 of a network; if it has weights in other files beside it, of the SHA-256 of all of them.

    A BundleError if it is not a network that is opened, or has more than 2 GB.
    """
    files = check_onnx_file(path, is_ours=False)
    if sum((path.parent / name).stat().st_size for name in files) > MAX_ONNX_BYTES:
        raise BundleError(f"{path}: the other files with its weights have more than {MAX_ONNX_BYTES / 1e9:g} GB")
    hashes = [sha256_of(file) for file in (path, *(path.parent / name for name in files))]
    return hashlib.sha256("".join(hashes).encode()).hexdigest() if files else hashes[0]


def _file(stored: StoredCard, source: CardFile, suffix: str, max_bytes: int, progress: Progress) -> Path:
    if source.is_local:
        return _local_file(stored, source, max_bytes)
    name = stored.card.name
    weights = WeightsSource(_cached_name(name, source, suffix), url_of(source), source.sha256)
    path = find_weights(weights, backbone=name, alternatives=_ALTERNATIVES, max_bytes=max_bytes, progress=progress)
    try:
        check_regular_file(path, max_bytes=max_bytes)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be used: {error.strerror or error}") from error
    return path


def _cached_name(name: str, source: CardFile, suffix: str) -> str:
    address = hashlib.blake2b(url_of(source).encode(), digest_size=8).hexdigest()
    return f"card-{name}-{address}{suffix}"


def stored_network(stored: StoredCard) -> Path | None:
    """The network of a card if it is on this machine; it is neither downloaded nor checked."""
    source = stored.card.network
    if source.is_local:
        path = stored.path.parent / PurePosixPath(source.file)
    else:
        name = _cached_name(stored.card.name, source, ".onnx")
        path = local_weights(name) or cached_weights(name)
    return path if path.is_file() else None


def url_of(source: CardFile) -> str:
    """The address of a file that is not beside the card."""
    if source.hub_path is None:
        return source.file
    repository, path = source.hub_path
    endpoint = os.environ.get(_HUB_VARIABLE, _HUB).rstrip("/")
    return f"{endpoint}/{repository}/resolve/{source.revision}/{path}"


def _local_file(stored: StoredCard, source: CardFile, max_bytes: int) -> Path:
    folder = stored.path.parent
    path = folder / PurePosixPath(source.file)
    try:
        check_regular_file(path, max_bytes=max_bytes)
        is_inside = path.resolve().is_relative_to(folder.resolve())
        found = sha256_of(path) if source.sha256 is not None and is_inside else None
    except OSError as error:
        raise ConfigError(f"{stored.path}: {path} cannot be read: {error.strerror or error}") from error
    if not is_inside:
        raise ConfigError(f"{stored.path}: {source.file} is a link to a file outside of the folder of the card")
    if found != source.sha256:
        raise ConfigError(f"{path}: not the file of the card: SHA-256 is {found}, expected {source.sha256}")
    return path


def _column(path: Path, text: str, wanted: str | None) -> list[str]:
    """A column of a CSV with a header."""
    try:
        header, *rows = [row for row in csv.reader(io.StringIO(text)) if row]
    except (csv.Error, ValueError) as error:
        raise ConfigError(f"{path}: not a CSV with a header and labels") from error
    candidates = (wanted,) if wanted is not None else _LABEL_COLUMNS
    column = next((name for name in candidates if name in header), header[0] if len(header) == 1 else None)
    if column is None or (wanted is not None and column != wanted):
        raise ConfigError(f"{path}: no column {' or '.join(candidates)}, but {', '.join(header)[:200]}")
    index = header.index(column)
    return [row[index] if index < len(row) else "" for row in rows]


def _checked_labels(path: Path, names: list[str]) -> tuple[str, ...]:
    while names and not names[-1]:
        names.pop()
    if not 1 <= len(names) <= MAX_LABELS:
        raise ConfigError(f"{path}: {len(names)} labels, expected 1 to {MAX_LABELS:,}")
    seen: set[str] = set()
    for number, name in enumerate(names, start=1):
        if not name or len(name) > _MAX_LABEL_CHARACTERS or not name.isprintable():
            raise ConfigError(f"{path}: label {number} is {name[:60]!r}, expected printable text")
        if name in seen:
            raise ConfigError(f"{path}: label {number}, {name!r}, occurs twice")
        seen.add(name)
    return tuple(names)


def check_labels_fit(stored: StoredCard, names: tuple[str, ...], n_labels: int | None) -> None:
    """Raise a BundleError if a network has another number of labels than its card."""
    if n_labels != len(names):
        raise BundleError(f"{stored.card.name}: the network has {n_labels} outputs for labels, but {len(names)} labels")
