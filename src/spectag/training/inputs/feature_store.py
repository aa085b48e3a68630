"""Features of clips, computed once by onnxruntime and kept on disk."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from spectag.array_types import Float32Array
from spectag.audio.front_end import FrontEnd
from spectag.audio.mel import FRONT_END_VERSION
from spectag.config.recipe import Recipe
from spectag.errors import ConfigError, DataError, SpectrogramCacheError
from spectag.models.tagger import open_session
from spectag.system.cache import cache_folder
from spectag.system.progress import Progress
from spectag.system.work_folder import abandoned_work, work_folder
from spectag.system.worker_pool import n_usable_cores
from spectag.training.networks.backbones.base import first_line
from spectag.training.networks.backbones.build import build_backbone
from spectag.training.networks.network import FeatureExtractor, load_part
from spectag.training.networks.onnx_export import export_features

FEATURES_VERSION = 2
"""Increased when the features of a backbone change."""


class FeatureStore:
    """Features by one extractor and one front end, in one file per clip.

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
        torch.manual_seed(recipe.seed)
        backbone = build_backbone(recipe.backbone, pretrained=recipe.pretrained and recipe.init is None)
        self.name = recipe.backbone
        self.extractor = FeatureExtractor(backbone, recipe.features).eval()
        if recipe.init is not None:
            load_part(self.extractor, "extractor", recipe.init)
        self.front_end = front_end
        self.weights_sha256 = _fingerprint(self.extractor)
        what = f"{self.weights_sha256} {recipe.features} {FRONT_END_VERSION} {front_end.model_dump_json()}"
        name = hashlib.blake2b(what.encode(), digest_size=8).hexdigest()
        self.folder = root / "features" / f"{self.name.replace('/', '_')}-{name}"

    def compute(
        self, keys: Sequence[str], inputs: Callable[[int], Float32Array], *, progress: Progress
    ) -> Float32Array:
        """Features (n_clips, n_features) of the clips with these keys; `inputs(i)` gives the input of clip i.

        Inputs are requested only for clips that have no features on disk.

        Raises
        ------
        ConfigError
            If the backbone does not accept inputs of this size.
        DataError
            If features are not finite.
        SpectrogramCacheError
            If features cannot be written or read.
        """
        index_by_key = {key: i for i, key in enumerate(keys)}  # one index for each content
        missing = [i for key, i in index_by_key.items() if not self._path(key).exists()]
        try:
            if missing:
                self._make(missing, keys, inputs, progress)
        except OSError as error:
            raise SpectrogramCacheError(
                f"{self.folder}: cannot write the features: {error.strerror or error}"
            ) from error
        return np.stack([self._load(key) for key in keys])

    def group_sizes(self, example: Float32Array) -> list[int]:
        """The number of features of each stage, first stage first."""
        try:
            with torch.inference_mode():
                return [group.shape[1] for group in self.extractor.groups(torch.from_numpy(example[None].copy()))]
        except Exception as error:  # networks raise errors of any class for a size that they do not accept
            raise self._size_error(example, error) from error

    def onnx_file(self, example: Float32Array) -> Path:
        """The extractor as an ONNX file, written once for each version of torch and kept in the cache."""
        size = "x".join(map(str, example.shape if self.front_end.image else example.shape[:2]))
        weights = f"{self.name.replace('/', '_')}-{self.weights_sha256[:16]}"
        name = f"{weights}-{self.extractor.kind}-{size}-torch{torch.__version__}.onnx"
        folder = cache_folder() / "onnx"
        path = folder / name
        if not path.exists():
            self.group_sizes(example)  # its message about a wrong size is clearer than the exporter's
            with _cleared_work_folder(folder) as work:
                export_features(self.extractor, torch.from_numpy(np.stack([example, example])), work / name)
                (work / name).replace(path)
        return path

    def _size_error(self, example: Float32Array, error: Exception) -> ConfigError:
        _, height, width = example.shape
        return ConfigError(
            f"backbone {self.name} does not accept inputs of {height} rows and {width} columns: {first_line(error)}; "
            "set image.height and image.width to a size that it accepts"
        )

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.npy"

    def _load(self, key: str) -> Float32Array:
        path = self._path(key)
        try:
            return np.asarray(np.load(path))
        except (OSError, EOFError, ValueError) as error:
            raise SpectrogramCacheError(
                f"{path}: cannot read the features: {error}; delete the file and train again"
            ) from error

    def _make(
        self, missing: Sequence[int], keys: Sequence[str], inputs: Callable[[int], Float32Array], progress: Progress
    ) -> None:
        step = f"features by {self.name}"
        progress(step, 0, len(missing))
        session = open_session(self.onnx_file(inputs(missing[0])), n_threads=1)
        with _cleared_work_folder(self.folder) as work, ThreadPoolExecutor(n_usable_cores()) as pool:

            def make(i: int) -> None:
                example = inputs(i)
                try:
                    features = session.run(["features"], {"inputs": example[None]})[0][0]
                except Exception as error:  # onnxruntime's errors have no common class
                    raise self._size_error(example, error) from error
                if not np.isfinite(features).all():
                    raise DataError(f"features of clip {keys[i]} are not finite; are {self.name}'s weights damaged?")
                unfinished = work / f"{keys[i]}.npy"
                np.save(unfinished, features)
                self._path(keys[i]).parent.mkdir(exist_ok=True)
                unfinished.replace(self._path(keys[i]))

            try:
                for n_done, _ in enumerate(pool.map(make, missing), start=1):
                    progress(step, n_done, len(missing))
            finally:
                pool.shutdown(cancel_futures=True)  # Ctrl-C does not wait for the remaining clips


@contextmanager
def _cleared_work_folder(parent: Path) -> Iterator[Path]:
    """A work folder that is removed after the `with` block, together with those of killed runs."""
    try:
        with work_folder(parent) as work:
            yield work
    finally:
        with abandoned_work(parent):
            pass


def _fingerprint(extractor: FeatureExtractor) -> str:
    """SHA-256 of the weights and the features version."""
    digest = hashlib.sha256(f"{FEATURES_VERSION}".encode())
    for name, values in extractor.state_dict().items():
        digest.update(name.encode())
        digest.update(values.contiguous().numpy().tobytes())
    return digest.hexdigest()
