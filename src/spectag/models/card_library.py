"""The network cards that a user has: their list, a check that runs a network, and adding a card with pinned hashes."""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from spectag.array_types import Float32Array, Waveform
from spectag.config.backbones import BACKBONES, PUBLISHED
from spectag.config.base import to_toml
from spectag.config.network_cards import (
    CARD_FILE,
    CardFile,
    NetworkCard,
    StoredCard,
    added_cards_folder,
    known_cards,
    open_card,
)
from spectag.errors import BundleError, ConfigError, MissingExtraError, first_line
from spectag.models.bundle import ONNX_FILE, replace_when_complete
from spectag.models.card_files import (
    check_labels_fit,
    digest_of,
    front_end_of,
    label_names,
    network_file,
    stored_network,
)
from spectag.models.card_run import CompositionRequest, NetworkRun, NetworkRunRequest, compose_network, run_network
from spectag.models.network_session import max_network_gigabytes
from spectag.models.onnx_file import check_onnx_file
from spectag.system.atomic_files import sha256_of
from spectag.system.cache import writable_cache_folder
from spectag.system.limited_worker import LimitedWorker
from spectag.system.progress import Log, Progress, no_log, silent

if TYPE_CHECKING:
    from spectag.models.card_graph import CardGraph

RequestT = TypeVar("RequestT")
ResultT = TypeVar("ResultT")

CardState = Literal["added", "verified", "unverified"]
_LABELS_FILE = "labels.txt"
_CHECKED_SECONDS = 5.0  # of each sound, if the network takes any length
_MAX_CHECK_SECONDS = 300.0
_SUM_TOLERANCE = 0.01


@dataclass(frozen=True)
class CardStatus:
    """A network card in the list of models."""

    name: str
    title: str
    is_model: bool
    """Whether it can tag without training; otherwise it is only a backbone."""
    n_labels: int | None
    """None if the file with its labels is not on this machine."""
    sample_rate: int  # Hz
    n_bytes: int | None  # of the network; None if it is not on this machine
    licence: str
    homepage: str
    state: CardState
    """added: by the user, who has run it; unverified: part of spectag, and without a SHA-256."""
    path: Path

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"path": str(self.path)}


@dataclass(frozen=True)
class CardCheck:
    """What a network does with made-up sounds."""

    name: str
    n_bytes: int
    sha256: str
    shapes: dict[str, tuple[int, ...]]
    """Of the network's input and outputs, by name or position; 0 is any size."""
    n_features: int
    n_labels: int | None
    sound_seconds: float
    """Length of each sound."""
    real_time_factor: float
    """Seconds of sound that one core processes in a second."""
    memory_bytes: int | None
    """That the network needs for one sound; None if the system does not report it."""
    probabilities: tuple[float, float] | None
    """The smallest and the largest of all sounds."""
    mean_sum: float | None
    """Sum of the probabilities of a sound, on average."""
    notes: tuple[str, ...]
    """What looks wrong or is worth knowing."""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def card_statuses(*, with_unverified: bool = False) -> list[CardStatus]:
    """The cards that the user has added and those of spectag; of these, by default, only verified ones."""
    cards = (_status(stored) for stored in known_cards())
    return [card for card in cards if with_unverified or card.state != "unverified"]


def check_card(reference: str | Path, *, progress: Progress = silent) -> CardCheck:
    """Open and run the network of a card.

    Raises
    ------
    ConfigError, WeightsError, BundleError
        If the card is not valid, the network is not available, or they do not fit.
    MissingExtraError
        If the package onnx is not installed.
    """
    return _check(open_card(reference), progress)


def add_card(reference: str | Path, *, progress: Progress = silent, log: Log = no_log) -> tuple[Path, CardCheck]:
    """Download and run the network of a card, and keep the card with the hashes of its files.

    Returns
    -------
    Path
        Of the card in the cache folder; an earlier card of this name is replaced.
    CardCheck

    Raises
    ------
    ConfigError, WeightsError, BundleError, MissingExtraError
        As `check_card`. Nothing is kept then.
    """
    stored = open_card(reference)
    name = stored.card.name
    if name in PUBLISHED or name in BACKBONES:
        raise ConfigError(f"{reference}: {name} is a network of spectag; give the card another name")
    check = _check(stored, progress)
    writable_cache_folder()
    folder = added_cards_folder() / name
    if folder.exists():
        log(f"{name}: the card in {folder} is replaced")
    try:
        with replace_when_complete(folder) as unfinished:
            card = _with_copies(stored, unfinished)
            (unfinished / CARD_FILE).write_text(to_toml(card), encoding="utf-8")
    except OSError as error:
        raise BundleError(f"{folder}: cannot be written: {error.strerror or error}") from error
    return folder / CARD_FILE, check


def _status(stored: StoredCard) -> CardStatus:
    card, network = stored.card, stored_network(stored)
    state: CardState = "added" if not stored.is_packaged else "verified" if stored.is_verified else "unverified"
    return CardStatus(
        card.name,
        card.title,
        card.is_model,
        _n_labels(stored),
        card.input.rate,
        None if network is None else network.stat().st_size,
        card.licence,
        card.homepage,
        state,
        stored.path,
    )


def _n_labels(stored: StoredCard) -> int | None:
    labels = stored.card.labels
    if labels is None or (labels.source is not None and not labels.source.is_local):
        return None
    try:
        return len(label_names(stored))
    except ConfigError:  # damaged; an error when it is used
        return None


def _with_copies(stored: StoredCard, folder: Path) -> NetworkCard:
    """The card with hashes; files that were beside it are copied into the folder."""
    card, network = stored.card, network_file(stored)
    changes: dict[str, Any] = {"network": _pinned(card.network, network)}
    if card.network.is_local:
        shutil.copyfile(network, folder / ONNX_FILE)
        for file in check_onnx_file(network, is_ours=False):
            if file in (ONNX_FILE, CARD_FILE, _LABELS_FILE):
                raise ConfigError(f"{network}: its weights are in {file}, which is another file of a card; rename it")
            shutil.copyfile(network.parent / file, folder / file)
        changes["network"] = CardFile(file=ONNX_FILE, sha256=sha256_of(folder / ONNX_FILE))
    if card.labels is not None and card.labels.source is not None:  # they are small: no second download is needed
        (folder / _LABELS_FILE).write_text("".join(f"{name}\n" for name in label_names(stored)), encoding="utf-8")
        source = CardFile(file=_LABELS_FILE, sha256=sha256_of(folder / _LABELS_FILE))
        changes["labels"] = card.labels.model_copy(update={"source": source, "column": None})
    return card.model_copy(update=changes)


def _pinned(source: CardFile, path: Path) -> CardFile:
    return source.model_copy(update={"sha256": sha256_of(path)})


def _check(stored: StoredCard, progress: Progress) -> CardCheck:
    network = network_file(stored, progress=progress)
    digest, labels = digest_of(network), label_names(stored, progress=progress) if stored.card.labels else None
    sounds = list(_made_up_sounds(stored.card))
    with tempfile.TemporaryDirectory() as folder:
        composed = Path(folder) / ONNX_FILE
        graph = _composed(stored, network, composed)
        if labels is not None and graph.n_labels is not None:
            check_labels_fit(stored, labels, graph.n_labels)
        run = _run(graph, composed, stored.card, sounds)
    probabilities = None if graph.n_labels is None else np.concatenate(run.outputs)
    sound_seconds = len(sounds[0]) / stored.card.input.rate
    return CardCheck(
        name=stored.card.name,
        n_bytes=network.stat().st_size,
        sha256=digest,
        shapes=graph.shapes,
        n_features=sum(graph.group_sizes),
        n_labels=graph.n_labels,
        sound_seconds=sound_seconds,
        real_time_factor=sound_seconds / max(run.seconds, 1e-9),
        memory_bytes=run.memory_bytes,
        probabilities=None if probabilities is None else (float(probabilities.min()), float(probabilities.max())),
        mean_sum=None if probabilities is None else float(probabilities.sum(axis=1).mean()),
        notes=tuple(_notes(stored.card, graph, run.outputs)),
    )


def _composed(stored: StoredCard, network: Path, composed: Path) -> "CardGraph":
    """Compose the network, which runs it once, by a process with limits; it is written into a file."""
    if find_spec("onnx") is None:
        raise MissingExtraError("onnx", "export", "running the network of a card")
    return _ask(compose_network, CompositionRequest(stored.card, network, composed), stored.card.name)


def _made_up_sounds(card: NetworkCard) -> Iterator[Waveform]:
    """Noise, a tone and silence, as long as the network takes, or 5 s."""
    front_end, rate = front_end_of(card), card.input.rate
    n_samples = max(front_end.min_samples or 1, round(min(_CHECKED_SECONDS, front_end.part_seconds) * rate))
    times = np.arange(n_samples) / rate
    yield (0.1 * np.random.default_rng(0).standard_normal(n_samples)).astype(np.float32)
    yield (0.3 * np.sin(2 * np.pi * min(1_000, rate / 4) * times)).astype(np.float32)
    yield np.zeros(n_samples, np.float32)


def _run(graph: "CardGraph", composed: Path, card: NetworkCard, sounds: list[Waveform]) -> NetworkRun:
    """The probabilities of sounds, or features of a network without labels, by a process with limits."""
    front_end, name = front_end_of(card), "features" if graph.n_labels is None else "probabilities"
    inputs = tuple(front_end.input_of_waveform(sound)[None] for sound in sounds)
    return _ask(run_network, NetworkRunRequest(composed, name, inputs), card.name)


def _ask(function: Callable[[RequestT], ResultT], request: RequestT, name: str) -> ResultT:
    """The result of a function that runs a network, by a process with limits of time and memory."""
    worker = LimitedWorker(function, seconds=_MAX_CHECK_SECONDS, gigabytes=2 * max_network_gigabytes())
    try:
        return worker.ask(request)
    except BundleError:
        raise
    except Exception as error:  # onnxruntime's errors have no common class
        raise BundleError(f"{name}: the network cannot process a sound: {first_line(error)}") from error
    finally:
        worker.close()


def _notes(card: NetworkCard, graph: "CardGraph", outputs: Sequence[Float32Array]) -> Iterator[str]:
    values = np.concatenate(outputs)
    if not np.isfinite(values).all():
        yield "WARNING: its outputs are not finite for all of noise, a tone and silence"
    if np.ptp(values, axis=0).max() == 0:
        yield "WARNING: noise, a tone and silence have the same outputs; check the input of the card"
    if graph.label_scores is None:
        yield "it has no output for labels, so it is a backbone only"
        return
    lowest, highest = float(graph.label_scores.min()), float(graph.label_scores.max())
    are_probabilities = lowest >= 0 and highest <= 1
    if card.outputs.probabilities is not None and not are_probabilities:
        yield f"WARNING: these are no probabilities, but {lowest:.3g} to {highest:.3g}; use outputs.logits"
    if card.outputs.logits is not None and are_probabilities:
        yield f"WARNING: these logits are from {lowest:.3g} to {highest:.3g}; are they outputs.probabilities?"
    sums = values.sum(axis=1)
    if values.shape[1] > 1 and np.abs(sums - 1).max() < _SUM_TOLERANCE:
        yield "the probabilities of a sound sum to 1, so only one label is likely at a time (softmax)"
    if card.labels is None:
        yield "its card has no labels, so it is a backbone only"
    yield "the probabilities are not calibrated by spectag: run spectag calibrate on labelled clips"
