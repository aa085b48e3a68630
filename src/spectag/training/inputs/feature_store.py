"""Features of clips, computed once by onnxruntime and kept on disk."""

import hashlib
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import ArrayLike

from spectag.array_types import Float32Array, FloatArray
from spectag.audio.front_end import FrontEnd
from spectag.audio.mel import FRONT_END_VERSION
from spectag.config.network_cards import is_card, open_card
from spectag.config.recipe import Recipe
from spectag.data.spectrograms.clip_inputs import ClipInputs, ClipPart
from spectag.errors import ConfigError, DataError, SpectrogramCacheError
from spectag.models.clip_windows import FrameWindows
from spectag.models.network_session import open_session
from spectag.models.published_graph import has_published_graph
from spectag.models.timeline import cell_seconds, pool_logits
from spectag.system.progress import Progress
from spectag.system.worker_pool import n_usable_cores
from spectag.training.networks.card_network import CardNetwork
from spectag.training.networks.feature_network import (
    FeatureNetwork,
    Weights,
    cached_onnx,
    cleared_work_folder,
    size_error,
)
from spectag.training.networks.published_network import PublishedNetwork
from spectag.training.setup.requirements import has_published_network

if TYPE_CHECKING:
    from spectag.training.networks.network import FeatureExtractor


@dataclass(frozen=True)
class PartFeatures:
    """Features (n_parts, n_features) of a clip's parts, and the parts' weights (n_parts,), see `cell_seconds`."""

    features: Float32Array
    seconds: Float32Array
    windows: tuple[Float32Array, ...] = ()
    """Features (n_windows, n_features) of the windows of each part; empty without windows."""

    def first(self, n_parts: int | None) -> "PartFeatures":
        """The first parts; None: all."""
        return PartFeatures(self.features[:n_parts], self.seconds[:n_parts], self.windows[:n_parts])

    def mean(self) -> Float32Array:
        """The mean features (n_features,), on which a head is trained."""
        return np.average(self.features, axis=0, weights=self.seconds).astype(np.float32, copy=False)

    @property
    def all_windows(self) -> Float32Array:
        """Features (n, n_features) of the windows of all parts, or of the parts if they have no windows."""
        windows = [features for features in self.windows if len(features)]
        return np.concatenate(windows) if windows else self.features

    def logits(self, head: Callable[[Float32Array], ArrayLike], windows: FrameWindows | None = None) -> FloatArray:
        """Logits (n_labels,) of the clip by a head: features (n, n_features) to logits (n, n_labels)."""
        logits = np.asarray(head(self.features), np.float64)
        if windows is not None:
            of_windows = [head(features) for features in self.windows]
            logits = np.stack([windows.pool(*pair) for pair in zip(logits, of_windows, strict=True)])
        return pool_logits(logits, self.seconds)


def open_network(recipe: Recipe, front_end: FrontEnd) -> FeatureNetwork:
    """The network of a recipe before training.

    Raises
    ------
    ConfigError
        If no backbone has this name.
    WeightsError, BundleError
        If the weights are not available or do not match.
    """
    if is_card(recipe.backbone):
        return CardNetwork(open_card(recipe.backbone), recipe.features)
    if has_published_network(recipe):
        return PublishedNetwork(recipe.backbone, recipe.features)
    from spectag.training.networks.traced_network import TracedNetwork

    traced = TracedNetwork(recipe, has_one_width=front_end.image is not None)
    if has_published_graph(recipe.backbone):  # tracing takes a minute for DyMN
        return PublishedNetwork(recipe.backbone, recipe.features, traced.weights)
    return traced


class FeatureStore:
    """Features by one extractor and one front end, in one file per clip.

    The file of a clip in several parts has a row for each part: its weight, then its features. That of another clip has
    only the features. Features of windows are in other files, with a row for each window: its part, then its features.

    Parameters
    ----------
    root : Path
        Folder of the spectrogram cache; features are in its subfolder `features`.
    recipe : Recipe
        Its settings `backbone` and `features`. The weights are the published ones, those of the bundle `init`, or
        (without pretraining) random, drawn with the seed.
    front_end : FrontEnd
    """

    def __init__(self, root: Path, recipe: Recipe, front_end: FrontEnd) -> None:
        self.network = open_network(recipe, front_end)
        self.name = self.network.name
        self.front_end = front_end
        self.weights_sha256 = self.network.weights_sha256
        what = f"{self.weights_sha256} {recipe.features} {FRONT_END_VERSION} {front_end.model_dump_json()}"
        name = hashlib.blake2b(what.encode(), digest_size=8).hexdigest()
        self.folder = root / "features" / f"{self.network.file_name}-{name}"

    def of_clips(self, clips: ClipInputs, *, progress: Progress) -> Float32Array:
        """Features (n_clips, n_features) of clips; those of a clip in several parts are their mean.

        The errors are those of `compute`.
        """
        names = [str(clip.path) for clip in clips.manifest.clips]
        self._make_missing(clips.part_keys, clips.parts, names, progress)
        return np.stack([self._load(key).mean() for key in clips.part_keys])

    def of_parts(self, clips: ClipInputs, index: int, windows: FrameWindows | None = None) -> PartFeatures:
        """Features of the parts of a clip that `of_clips` has computed, and of the windows by `make_windows`."""
        parts = self._load(clips.part_keys[index])
        if windows is None:
            return parts
        values = self._read(self._path(clips.part_keys[index], windows))
        n_parts, n_features = parts.features.shape
        of_parts = tuple(values[values[:, 0] == number, 1:].reshape(-1, n_features) for number in range(n_parts))
        return replace(parts, windows=of_parts)

    def make_windows(self, clips: ClipInputs, windows: FrameWindows, *, progress: Progress) -> None:
        """Compute the features of the windows of clips where they are missing. The errors are those of `compute`."""
        names = [str(clip.path) for clip in clips.manifest.clips]
        self._make_missing(clips.part_keys, clips.parts, names, progress, windows)

    def accepts_width(self, example: Float32Array, width: int) -> bool:
        """Whether the network accepts inputs (channels, height, width) of another width than the example's."""
        silence = np.zeros((1, *example.shape[:2], width), np.float32)
        try:
            self._open(example).run(["features"], {"inputs": silence})
        except ConfigError:
            raise
        except Exception:  # onnxruntime raises errors of any class for a size that the network does not accept
            return False
        return True

    def compute(
        self, keys: Sequence[str], inputs: Callable[[int], Float32Array], *, progress: Progress
    ) -> Float32Array:
        """Features (n_clips, n_features) of the inputs with these keys; `inputs(i)` gives input i, one part.

        Inputs are requested only if there are no features of them on disk.

        Raises
        ------
        ConfigError
            If the backbone does not accept inputs of this size.
        DataError
            If features are not finite.
        SpectrogramCacheError
            If features cannot be written or read.
        """
        self._make_missing(keys, lambda i: [ClipPart.of_whole(inputs(i))], keys, progress)
        return np.stack([self._load(key).mean() for key in keys])

    def _make_missing(
        self,
        keys: Sequence[str],
        parts: Callable[[int], Iterable[ClipPart]],
        names: Sequence[str],
        progress: Progress,
        windows: FrameWindows | None = None,
    ) -> None:
        missing = self.missing(keys, windows)
        try:
            if missing:
                self._make(missing, keys, parts, names, progress, windows)
        except OSError as error:
            raise SpectrogramCacheError(
                f"{self.folder}: cannot write the features: {error.strerror or error}"
            ) from error

    def missing(self, keys: Sequence[str], windows: FrameWindows | None = None) -> list[int]:
        """The index of each content whose features, or those of its windows, are not in the cache yet."""
        index_by_key = {key: i for i, key in enumerate(keys)}
        return [i for key, i in index_by_key.items() if not self._path(key, windows).exists()]

    def group_sizes(self, example: Float32Array) -> list[int]:
        """The number of features of each stage, first stage first."""
        return self.network.group_sizes(example)

    @property
    def extractor(self) -> "FeatureExtractor":
        """The network in PyTorch."""
        return self.network.extractor

    def onnx_file(self, example: Float32Array) -> Path:
        """The network as an ONNX file for inputs of the example's size, written once and kept in the cache."""
        size = "x".join(map(str, example.shape if self.front_end.image else example.shape[:2]))
        network = self.network
        what = f"{self.weights_sha256[:16]}-{network.kind}-{size}-{network.version}"
        return cached_onnx(
            f"{network.file_name}-{what}.onnx",
            lambda path: network.write_onnx(path, example, network.weights),
        )

    def features_graph(self, example: Float32Array, weights: Weights) -> onnx.ModelProto:
        """The network as an ONNX graph with these weights: its own, or those after fine-tuning."""
        if weights is self.network.weights:
            return onnx.load(self.onnx_file(example))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "features.onnx"
            self.network.write_onnx(path, example, weights)
            return onnx.load(path)

    def _open(self, example: Float32Array) -> Any:
        """A session of the network, without a limit of memory if it is our own: all cores use it at once."""
        return open_session(self.onnx_file(example), n_threads=1, limits_memory=not self.network.is_ours)

    def _path(self, key: str, windows: FrameWindows | None = None) -> Path:
        what = "" if windows is None else f"-windows-{windows.length}-{windows.hop}"
        return self.folder / key[:2] / f"{key}{what}.npy"

    def _read(self, path: Path) -> Float32Array:
        try:
            values: Float32Array = np.load(path)
        except (OSError, EOFError, ValueError) as error:
            raise SpectrogramCacheError(
                f"{path}: cannot read the features: {error}; delete the file and train again"
            ) from error
        return values

    def _load(self, key: str) -> PartFeatures:
        values = self._read(self._path(key))
        if values.ndim == 1:
            return PartFeatures(values[None], np.ones(1, np.float32))
        return PartFeatures(values[:, 1:], values[:, 0])

    def _make(
        self,
        missing: Sequence[int],
        keys: Sequence[str],
        parts: Callable[[int], Iterable[ClipPart]],
        names: Sequence[str],
        progress: Progress,
        windows: FrameWindows | None,
    ) -> None:
        step = f"features by {self.name}" if windows is None else f"windows by {self.name}"
        progress(step, 0, len(missing))
        session = self._open(next(iter(parts(missing[0]))).inputs)
        with cleared_work_folder(self.folder) as work, ThreadPoolExecutor(n_usable_cores()) as pool:

            def features_of(inputs: Float32Array) -> Float32Array:
                try:
                    features: Float32Array = session.run(["features"], {"inputs": inputs[None]})[0][0]
                except Exception as error:  # onnxruntime's errors have no common class
                    raise size_error(self.name, inputs, error) from error
                return features

            def make(i: int) -> None:
                values = (
                    _part_rows(parts(i), features_of)
                    if windows is None
                    else _window_rows(parts(i), features_of, windows)
                )
                if not np.isfinite(values).all():
                    raise DataError(
                        f"{names[i]}: the features of this clip are not finite; if the sound is fine, the weights of "
                        f"{self.name} are damaged: download them again"
                    )
                path = self._path(keys[i], windows)
                unfinished = work / path.name
                np.save(unfinished, values)
                path.parent.mkdir(exist_ok=True)
                unfinished.replace(path)

            try:
                for n_done, _ in enumerate(pool.map(make, missing), start=1):
                    progress(step, n_done, len(missing))
            finally:
                pool.shutdown(cancel_futures=True)  # Ctrl-C does not wait for the remaining clips


def _part_rows(parts: Iterable[ClipPart], features_of: Callable[[Float32Array], Float32Array]) -> Float32Array:
    """For each part its weight, then its features; only the features of a single part."""
    times, rows = [], []
    for part in parts:
        times.append((part.start_seconds, part.end_seconds))
        rows.append(features_of(part.inputs))
    if len(rows) == 1:
        return rows[0]
    return np.column_stack([cell_seconds(*zip(*times, strict=True)).astype(np.float32), np.stack(rows)])


def _window_rows(
    parts: Iterable[ClipPart], features_of: Callable[[Float32Array], Float32Array], windows: FrameWindows
) -> Float32Array:
    """For each window the number of its part, then its features, (n_windows, 1 + n_features)."""
    rows = [
        np.append(np.float32(number), features_of(part.inputs[..., start : start + windows.length]))
        for number, part in enumerate(parts)
        for start in windows.starts(part.inputs.shape[-1])
    ]
    return np.stack(rows) if rows else np.empty((0, 1), np.float32)
