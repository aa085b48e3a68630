"""Taggers that others trained and published: by name, made into bundles once, without torch."""

import gzip
import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import numpy as np
from filelock import FileLock, Timeout

from spectag.array_types import Float32Array
from spectag.audio.front_end import FrontEnd
from spectag.audio.mel import FRONT_END_VERSION
from spectag.config.backbones import BACKBONES, PUBLISHED, PublishedTagger, WeightsSource
from spectag.config.base import WindowConfig
from spectag.errors import BundleError, ConfigError, WeightsError, did_you_mean
from spectag.models.bundle import (
    CARD_FILE,
    FORMAT_VERSION,
    ONNX_FILE,
    BackboneInfo,
    BundleInfo,
    DataInfo,
    read_info,
    write_info,
)
from spectag.models.model_card import published_card
from spectag.models.tagger import Tagger
from spectag.models.torch_state_dict import read_torch_file
from spectag.models.weights import cached_weights, find_weights, local_weights
from spectag.system.atomic_files import sha256_of
from spectag.system.cache import CACHE_VARIABLE, cache_folder
from spectag.system.progress import Log, Progress, no_log, silent

THRESHOLD = 0.1
"""For every label: AudioSet's networks are rarely sure. On ESC-10 by mn04, 96 % of the clips get a label, 3.6 of them
on average since labels are nested (Animal, Dog, Bark), and 2 % get one that belongs to another of the ten classes; at
0.5, half of the clips get none."""

WINDOW = WindowConfig(max_clip_seconds=10.0)
"""The networks were trained on clips of ten seconds: a longer recording is heard in parts of this length."""

MADE_BY = 1
"""Raised when bundles are made otherwise than before, to have those in the cache made anew."""

CITATION = (
    "Schmid, Koutini and Widmer, Efficient Large-Scale Audio Tagging via Transformer-to-CNN Knowledge Distillation, "
    "ICASSP 2023, https://arxiv.org/abs/2211.04772"
)
AUDIOSET = "AudioSet (Gemmeke et al., ICASSP 2017), labels by Google under CC BY 4.0"

_SILENT = 4  # onnxruntime's log: its errors are raised anyhow
_OTHER_WAYS = "`spectag models download` on a machine with a connection fetches it"

State = Literal["ready", "weights here", "to download"]


@dataclass(frozen=True)
class Listing:
    """A published tagger, and how much of it is here."""

    name: str
    n_labels: int
    sample_rate: int  # Hz
    n_bytes: int  # of the weights
    n_bytes_is_exact: bool
    licence: str
    mean_average_precision: float  # as published
    state: State
    path: Path | None  # of the bundle, or else of the weights

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"path": self.path and str(self.path)}


def load(model: str | Path, *, n_threads: int = 1, progress: Progress = silent, log: Log = no_log) -> Tagger:
    """Open a tagger: a bundle's folder, or a published tagger by its name.

    Parameters
    ----------
    model : str or Path
        Folder that `spectag train` made, or a name such as audioset-mn04, which may have to be downloaded.
    n_threads : int
        Threads of the network. Probabilities do not depend on it.
    progress, say
        Told of the download.

    Raises
    ------
    SpectagError
        If there is no tagger of this name, or it can't be had or read.

    Examples
    --------
    >>> tagger = spectag.load("audioset-mn04")  # doctest: +SKIP
    >>> tagger.tag("a.wav").top(3)  # doctest: +SKIP
    """
    return Tagger(tagger_folder(model, progress=progress, log=log), n_threads=n_threads)


def tagger_folder(model: str | Path, *, progress: Progress = silent, log: Log = no_log) -> Path:
    """The folder of a tagger: the one of this name where there is one, else that of the published tagger.

    A published tagger is made into a bundle in the cache when it is first asked for; from then on no connection is
    needed, and nothing is written.

    Raises
    ------
    BundleError
        If there is neither, or the bundle can't be written.
    WeightsError
        If the weights can't be had, or are not the published ones.
    """
    path = Path(model)
    if path.exists():
        return path
    if str(model) in PUBLISHED:
        return _bundle_of(PUBLISHED[str(model)], progress, log)
    raise BundleError(
        f"{model}: not a tagger: there is no such folder{did_you_mean(str(model), PUBLISHED) or '.'} "
        f"Give a folder that `spectag train -o` made, or one of {', '.join(PUBLISHED)}"
    )


def published_taggers() -> list[Listing]:
    """All published taggers, small ones first."""
    return [_listing(tagger) for tagger in PUBLISHED.values()]


def check_name(name: str) -> str:
    """The name, if a published tagger has it.

    Raises
    ------
    ConfigError
        If none has. The message names the nearest and lists all.
    """
    if name not in PUBLISHED:
        raise ConfigError(
            f"no published tagger is called {name!r}{did_you_mean(name, PUBLISHED) or '.'} "
            f"There are {', '.join(PUBLISHED)}"
        )
    return name


def fetch(name: str, *, progress: Progress = silent, log: Log = no_log) -> Path:
    """Make a published tagger ready for use without a connection, and give its folder.

    Raises
    ------
    ConfigError
        If no published tagger has the name.
    WeightsError, BundleError
        As `tagger_folder`.
    """
    return _bundle_of(PUBLISHED[check_name(name)], progress, log)


def models_folder() -> Path:
    """Where the bundles of published taggers lie."""
    return cache_folder() / "models"


@cache
def audioset_labels() -> tuple[str, ...]:
    """AudioSet's 527 labels by their display names, in the order of the networks' answers."""
    return tuple(_data("labels.txt").decode().splitlines())


def _data(name: str) -> bytes:
    return (files("spectag.models") / "audioset" / name).read_bytes()


def _graph(tagger: PublishedTagger) -> bytes:
    """The network without its weights, as `spectag.training.networks.published_graphs` wrote it."""
    return gzip.decompress(_data(f"{tagger.backbone}.onnx.gz"))


def _source(tagger: PublishedTagger) -> WeightsSource:
    source = BACKBONES[tagger.backbone].weights
    assert source is not None
    return source


def _listing(tagger: PublishedTagger) -> Listing:
    spec, source = BACKBONES[tagger.backbone], _source(tagger)
    bundle = models_folder() / tagger.name
    weights = local_weights(source.file_name) or cached_weights(source.file_name)
    places: tuple[State, Path | None] = ("to download", None)
    if _is_current(bundle, tagger):
        places = ("ready", bundle)
    elif weights.is_file():
        places = ("weights here", weights)
    return Listing(
        tagger.name,
        len(audioset_labels()),
        spec.mel.sample_rate,
        source.n_bytes,
        source.sha256 is not None,
        spec.licence,
        tagger.mean_average_precision,
        *places,
    )


def _making(tagger: PublishedTagger) -> str:
    """A fingerprint of all that a bundle is made of, but for the weights."""
    parts = (MADE_BY, FORMAT_VERSION, FRONT_END_VERSION, THRESHOLD, WINDOW, tagger, BACKBONES[tagger.backbone])
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8)
    digest.update(_data("labels.txt"))
    digest.update(_graph(tagger))
    return digest.hexdigest()


def _is_current(bundle: Path, tagger: PublishedTagger) -> bool:
    """Whether the bundle is there, and as it would be made today."""
    try:
        made = read_info(bundle).versions.get("making")
    except BundleError:
        return False
    return made == _making(tagger) and (bundle / ONNX_FILE).is_file()


def _bundle_of(tagger: PublishedTagger, progress: Progress, log: Log) -> Path:
    bundle = models_folder() / tagger.name
    if _is_current(bundle, tagger):
        return bundle
    try:
        bundle.parent.mkdir(parents=True, exist_ok=True)
        with _alone(tagger.name, log):
            if not _is_current(bundle, tagger):  # another process may have made it meanwhile
                _make(bundle, tagger, progress, log)
    except OSError as error:
        raise BundleError(
            f"{bundle}: the tagger can't be written: {error.strerror or error}; set {CACHE_VARIABLE} to a folder that "
            "has room and can be written to"
        ) from error
    return bundle


@contextmanager
def _alone(name: str, log: Log) -> Iterator[None]:
    lock = FileLock(models_folder() / f".{name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log(f"waiting for another process that makes {name} ready")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _make(bundle: Path, tagger: PublishedTagger, progress: Progress, log: Log) -> None:
    """Write the bundle, whole or not at all."""
    source = _source(tagger)
    weights = find_weights(source, backbone=tagger.name, other_ways=_OTHER_WAYS, progress=progress)
    unfinished = bundle.with_name(f".{bundle.name}")
    if unfinished.exists():  # of a run that was killed
        shutil.rmtree(unfinished)
    unfinished.mkdir()
    try:
        _write_network(unfinished / ONNX_FILE, tagger, weights)
        info = _info(tagger, sha256_of(weights))
        write_info(unfinished, info)
        card = published_card(info, tagger.name, file_url=source.url, citation=CITATION)
        (unfinished / CARD_FILE).write_text(card, encoding="utf-8")
        if bundle.exists():
            shutil.rmtree(bundle)
        unfinished.rename(bundle)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    log(f"{tagger.name}: made of {weights}, kept in {bundle}")


def _write_network(path: Path, tagger: PublishedTagger, weights: Path) -> None:
    """Write model.onnx: the graph with its weights, and batch norms folded into convolutions."""
    silence = np.zeros((1, 1, BACKBONES[tagger.backbone].mel.n_mels, 100), np.float32)
    try:
        # float32, as the counts of batches that trained a batch norm take no part
        tensors = {name: values for name, values in read_torch_file(weights).items() if values.dtype == np.float32}
        [features] = _open(_graph(tagger), tensors).run(["features"], {"inputs": silence})
    except Exception as error:  # onnxruntime's errors share no class
        raise _wrong_weights(weights, tagger, str(error).splitlines()[0]) from error
    if not np.isfinite(features).all():
        raise _wrong_weights(weights, tagger, "what it makes of silence is not finite")
    try:
        _open(_graph(tagger), tensors, save_to=path)
    except Exception as error:  # that the weights are right is known, so the disk is to blame
        raise OSError(f"onnxruntime can't write {path.name}: {str(error).splitlines()[0]}") from error


def _open(graph: bytes, tensors: dict[str, Float32Array], *, save_to: Path | None = None) -> Any:
    """An onnxruntime session of a graph without weights; it refuses any tensor too many, too few or of other shape."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC  # the same on any machine
    options.log_severity_level = _SILENT
    if save_to is not None:
        options.optimized_model_filepath = str(save_to)
    values = [onnxruntime.OrtValue.ortvalue_from_numpy(tensor) for tensor in tensors.values()]
    options.add_external_initializers(list(tensors), values)
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _wrong_weights(path: Path, tagger: PublishedTagger, reason: str) -> WeightsError:
    return WeightsError(
        f"{path}: not the published weights of {tagger.name}: {reason}; delete the file and fetch it again"
    )


def _info(tagger: PublishedTagger, weights_sha256: str) -> BundleInfo:
    spec, labels = BACKBONES[tagger.backbone], audioset_labels()
    return BundleInfo(
        labels=labels,
        front_end=FrontEnd(mel=spec.mel),
        window=WINDOW,
        backbone=BackboneInfo(
            name=spec.name,
            features="all",
            head="published",
            pretrained_on=spec.pretrained_on,
            licence=spec.licence,
            weights_sha256=weights_sha256,
        ),
        thresholds=(THRESHOLD,) * len(labels),
        thresholds_fitted=(False,) * len(labels),
        metrics={
            "mean_average_precision": tagger.mean_average_precision,
            "on": "AudioSet's evaluation clips",
            "source": CITATION,
        },
        data=DataInfo(name=AUDIOSET, n_clips=None, n_clips_per_label=None, fingerprint=None),
        onnx_difference=None,
        versions={name: version(name) for name in ("spectag", "onnxruntime", "numpy")} | {"making": _making(tagger)},
    )
