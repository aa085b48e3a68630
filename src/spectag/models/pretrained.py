"""Published taggers, opened by name: built once from published weights, without PyTorch."""

import hashlib
import shutil
import tomllib
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import numpy as np
from filelock import FileLock, Timeout

from spectag.audio.front_end import FrontEnd
from spectag.audio.mel import FRONT_END_VERSION
from spectag.config.backbones import BACKBONES, PUBLISHED, PublishedTagger, WeightsSource
from spectag.config.base import Channel, WindowConfig
from spectag.config.devices import Device
from spectag.config.network_cards import SUFFIX, is_card
from spectag.data.labels import audioset_labels as audioset_labels
from spectag.errors import BundleError, ConfigError, WeightsError, closest_in_order, first_line
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
from spectag.models.clap_store import clap_store
from spectag.models.clap_words import clap_bundle, is_clap_name
from spectag.models.hub import hub_folder, is_hub_name
from spectag.models.model_card import render_card
from spectag.models.nearby_models import closest_model, is_model
from spectag.models.published_graph import open_with_weights, published_graph
from spectag.models.tagger import Tagger
from spectag.models.torch_state_dict import read_torch_state_dict
from spectag.models.weights import cached_weights, find_weights, local_weights
from spectag.system.atomic_files import sha256_of
from spectag.system.cache import CACHE_VARIABLE, cache_folder, hold_cache, permanent_cache_folder, writable_cache_folder
from spectag.system.environment import library_version
from spectag.system.progress import Log, Progress, no_log, shows_progress, silent

THRESHOLD = 0.1
"""The threshold of every label. AudioSet networks rarely predict high probabilities. With mn04 on ESC-10, 96 % of the
clips get a label, and 3.6 labels on average, because labels are nested (Animal, Dog, Bark); 2 % get a label of another
of the ten classes. With 0.5, half of the clips get no label."""

WINDOW = WindowConfig(max_clip_seconds=10.0)
"""The networks were trained on clips of ten seconds, so longer recordings are tagged in parts of this length."""

BUILD_VERSION = 1
"""Increased when bundles are built in another way, so that those in the cache are built again."""

AUDIOSET = "AudioSet (Gemmeke et al., ICASSP 2017), labels by Google under CC BY 4.0"

_ALTERNATIVES = "or run `spectag models download` on a machine with a connection and copy the cache"

DownloadState = Literal["ready", "downloaded", "not downloaded"]


@dataclass(frozen=True)
class PublishedTaggerStatus:
    """A published tagger, and whether it is available on this machine."""

    name: str
    n_labels: int
    sample_rate: int  # Hz
    n_bytes: int  # size of the weights
    n_bytes_is_exact: bool
    licence: str
    mean_average_precision: float  # as published
    state: DownloadState
    path: Path | None  # of the bundle, or of the weights

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"path": self.path and str(self.path)}


@shows_progress
def load(
    model: str | Path,
    *,
    n_threads: int = 1,
    channel: Channel | None = None,
    device: Device = "auto",
    progress: Progress = silent,
    log: Log = no_log,
) -> Tagger:
    """Open a tagger: a trained one by its folder, or a published one by its name.

    Parameters
    ----------
    model : str or Path
        Folder that `spectag train` wrote, a name such as audioset-mn04, a network card with labels, or hf:user/name (or
        hf:user/name@revision) on the Hugging Face Hub, or clap: with words, such as "clap:dog barking, rain". What is
        not here yet is downloaded, except for CLAP.
    n_threads : int
        Threads of the network. Probabilities do not depend on it.
    channel : "mix", "loudest" or int, optional
        How several channels of a sound become one: their mean, the loudest one, or one by its number, counted from 1.
        By default as in training.
    device : "auto", "cpu", "cuda", "coreml", "directml" or "openvino"
        Where the networks run. auto takes cuda or directml if the installed onnxruntime has it and it opens the
        network, otherwise the CPU. A DeviceWarning says what runs on the CPU though another device was to be used.
    progress, log
        `progress=True` shows a bar during a download; or functions that are called with the progress and messages.

    Raises
    ------
    SpectagError
        If there is no tagger with this name, it cannot be downloaded or read, or the device does not run it.

    Examples
    --------
    >>> tagger = spectag.load("audioset-mn04")  # doctest: +SKIP
    >>> tagger.tag("a.wav").top(3)  # doctest: +SKIP
    """
    folder = tagger_folder(model, progress=progress, log=log)
    return Tagger(folder, n_threads=n_threads, channel=channel, device=device).check_device()


def open_tagger(
    model: str | Path | Tagger, *, device: Device = "auto", progress: Progress = silent, log: Log = no_log
) -> Tagger:
    """An open tagger as it is; a folder or a name as `load` opens it."""
    return model if isinstance(model, Tagger) else load(model, device=device, progress=progress, log=log)


def tagger_folder(
    model: str | Path, *, needs_labels: bool = True, progress: Progress = silent, log: Log = no_log
) -> Path:
    """The folder of a tagger: the folder with this name if it exists, or that of the published tagger.

    A published tagger is built in the cache when it is first used. After that, no connection is needed, and nothing is
    written. For embeddings, a network card needs no labels, and CLAP no words.

    Raises
    ------
    BundleError
        If neither exists, or the bundle cannot be written.
    WeightsError
        If the weights cannot be downloaded, or are not the published ones.
    """
    if is_clap_name(model):
        return clap_bundle(str(model), needs_labels=needs_labels, log=log)
    path = Path(model)
    if is_card_model(model):
        from spectag.models.card_models import card_bundle

        return card_bundle(model, needs_labels=needs_labels, progress=progress, log=log)
    if path.exists():
        if path.is_dir() and not is_model(path) and (closest := closest_model(path)):
            raise BundleError(f"{model}: not a tagger, but this folder has one; did you mean {closest!r}?")
        return path
    if is_hub_name(model):
        return hub_folder(str(model), progress=progress, log=log)
    if str(model) in PUBLISHED:
        return _bundle_of(PUBLISHED[str(model)], progress, log)
    raise _no_such_tagger(model)


def check_model_exists(model: str | Path, device: Device = "auto") -> None:
    """Check what takes no time before a tagger is opened: that it is here or known, and that the device is installed.

    Raises
    ------
    BundleError
        If there is no such tagger.
    ConfigError
        If CLAP is not in the cache, or the installed onnxruntime does not have the device.
    """
    if device != "auto":  # which takes what there is
        from spectag.models.network_session import accelerators_for  # slow to import

        accelerators_for(device)
    if is_clap_name(model):
        clap_store()
    elif not (Path(model).exists() or is_card_model(model) or is_hub_name(model) or str(model) in PUBLISHED):
        raise _no_such_tagger(model)


def _no_such_tagger(model: str | Path) -> BundleError:
    return BundleError(
        f"{model}: not a tagger: no such folder{_did_you_mean(closest_model(model)) or '.'} "
        f"Give a folder that `spectag train -o` wrote, hf:user/name, or one of {', '.join(PUBLISHED)}"
    )


def is_card_model(model: str | Path) -> bool:
    """Whether a model is named by a network card: a file that ends in .toml, or a name that no folder has."""
    is_file = str(model).lower().endswith(SUFFIX) and not Path(model).is_dir()
    return is_file or (is_card(model) and str(model) not in PUBLISHED and not Path(model).exists())


def _did_you_mean(closest: str | None) -> str:
    return f"; did you mean {closest!r}?" if closest else ""


def published_name(bundle: Path) -> str | None:
    """The name of the published tagger that a folder in the cache has; None for other folders."""
    return bundle.name if bundle.name in PUBLISHED and bundle.parent == models_folder() else None


def published_taggers() -> list[PublishedTaggerStatus]:
    """All published taggers: by family, smallest first, and then variants of mn10."""
    return [_status(tagger) for tagger in PUBLISHED.values()]


def check_published_name(name: str) -> str:
    """The name, if it is that of a published tagger.

    Raises
    ------
    ConfigError
        If it is not. The message suggests the most similar name and lists all.
    """
    if name not in PUBLISHED and is_card(name):
        raise ConfigError(f"{name} is a network card; spectag models add {name} downloads, runs and pins its network")
    if name not in PUBLISHED:
        raise ConfigError(
            f"no published tagger has the name {name!r}{_did_you_mean(closest_in_order(name, PUBLISHED)) or '.'} "
            f"The published taggers are {', '.join(PUBLISHED)}"
        )
    return name


def fetch(name: str, *, progress: Progress = silent, log: Log = no_log) -> Path:
    """Prepare a published tagger for use without a connection, and return its folder.

    Raises
    ------
    ConfigError
        If no published tagger has this name.
    WeightsError, BundleError
        As `tagger_folder`.
    """
    tagger = PUBLISHED[check_published_name(name)]
    if not _is_current(models_folder() / tagger.name, tagger):
        permanent_cache_folder()
    return _bundle_of(tagger, progress, log)


def models_folder() -> Path:
    """The folder of the bundles of published taggers."""
    return cache_folder() / "models"


@cache
def audioset_synonyms() -> dict[str, tuple[str, ...]]:
    """AudioSet's names for labels of other data sets; no names for labels that AudioSet does not have."""
    table = tomllib.loads(_data("synonyms.toml").decode())
    return {label: (names,) if isinstance(names, str) else tuple(names) for label, names in table.items()}


def _data(name: str) -> bytes:
    return (files("spectag.models") / "audioset" / name).read_bytes()


def _source(tagger: PublishedTagger) -> WeightsSource:
    source = BACKBONES[tagger.backbone].weights
    assert source is not None
    return source


def _status(tagger: PublishedTagger) -> PublishedTaggerStatus:
    spec, source = BACKBONES[tagger.backbone], _source(tagger)
    bundle = models_folder() / tagger.name
    weights = local_weights(source.file_name) or cached_weights(source.file_name)
    state: DownloadState = "downloaded" if weights.is_file() else "not downloaded"
    path = weights if weights.is_file() else None
    if _is_current(bundle, tagger):
        state, path = "ready", bundle
    return PublishedTaggerStatus(
        tagger.name,
        len(audioset_labels()),
        spec.mel.sample_rate,
        source.n_bytes,
        source.sha256 is not None,
        spec.licence,
        tagger.mean_average_precision,
        state,
        path,
    )


def _build_hash(tagger: PublishedTagger) -> str:
    """A hash of everything that a bundle is built from, except the weights."""
    settings = (BUILD_VERSION, FORMAT_VERSION, FRONT_END_VERSION, THRESHOLD, WINDOW, tagger, BACKBONES[tagger.backbone])
    labels = "".join(f"{label}\n" for label in audioset_labels()).encode()
    content = repr(settings).encode() + labels + published_graph(tagger.backbone)
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def _is_current(bundle: Path, tagger: PublishedTagger) -> bool:
    """Whether the bundle exists, and is what would be built now."""
    try:
        build = read_info(bundle).versions.get("build")
    except BundleError:
        return False
    return build == _build_hash(tagger) and (bundle / ONNX_FILE).is_file()


def _bundle_of(tagger: PublishedTagger, progress: Progress, log: Log) -> Path:
    bundle = models_folder() / tagger.name
    if _is_current(bundle, tagger):
        hold_cache(cache_folder())
        return bundle
    bundle = writable_cache_folder() / "models" / tagger.name
    try:
        bundle.parent.mkdir(parents=True, exist_ok=True)
        with _lock(tagger.name, log):
            if not _is_current(bundle, tagger):  # another process may have built it
                _build(bundle, tagger, progress, log)
    except OSError as error:
        raise BundleError(
            f"{bundle}: cannot write the tagger: {error.strerror or error}; set {CACHE_VARIABLE} to a writable folder "
            "with enough space"
        ) from error
    return bundle


def _lock(name: str, log: Log) -> AbstractContextManager[object]:
    lock = FileLock(models_folder() / f".{name}.lock")
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        log(f"waiting for another process that prepares {name}")
        return lock.acquire()


def _build(bundle: Path, tagger: PublishedTagger, progress: Progress, log: Log) -> None:
    """Write the bundle, completely or not at all."""
    weights = find_weights(_source(tagger), backbone=tagger.name, alternatives=_ALTERNATIVES, progress=progress)
    unfinished = bundle.with_name(f".{bundle.name}")
    shutil.rmtree(unfinished, ignore_errors=True)  # of a killed process
    unfinished.mkdir()
    try:
        _write_network(unfinished / ONNX_FILE, tagger, weights)
        info = _info(tagger, sha256_of(weights))
        write_info(unfinished, info)
        (unfinished / CARD_FILE).write_text(render_card(info, tagger.name), encoding="utf-8")
        shutil.rmtree(bundle, ignore_errors=True)  # of another version
        unfinished.rename(bundle)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    log(f"{tagger.name}: built from {weights}, stored in {bundle}")


def _write_network(path: Path, tagger: PublishedTagger, weights: Path) -> None:
    """Write model.onnx: the graph with its weights, and batch normalisation folded into convolutions."""
    silence = np.zeros((1, 1, BACKBONES[tagger.backbone].mel.n_mels, 100), np.float32)
    try:
        state_dict = read_torch_state_dict(weights)
        # the int64 tensors are batch counts of batch normalisation, which the graph does not need
        tensors = {name: values for name, values in state_dict.items() if values.dtype == np.float32}
        [features] = open_with_weights(published_graph(tagger.backbone), tensors).run(["features"], {"inputs": silence})
    except Exception as error:  # onnxruntime's errors have no common class
        raise _wrong_weights(weights, tagger, first_line(error)) from error
    if not np.isfinite(features).all():
        raise _wrong_weights(weights, tagger, "its features of silence are not finite")
    try:
        open_with_weights(published_graph(tagger.backbone), tensors, save_to=path)
    except Exception as error:  # the weights are right, so writing has failed
        raise OSError(f"onnxruntime cannot write {path.name}: {first_line(error)}") from error


def _wrong_weights(path: Path, tagger: PublishedTagger, reason: str) -> WeightsError:
    return WeightsError(
        f"{path}: not the published weights of {tagger.name}: {reason}; delete the file and download it again"
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
            "source": tagger.citation,
        },
        data=DataInfo(name=AUDIOSET, n_clips=None, n_clips_per_label=None, fingerprint=None),
        onnx_difference=None,
        versions={name: library_version(name) for name in ("spectag", "onnxruntime", "numpy")}
        | {"build": _build_hash(tagger)},
    )
