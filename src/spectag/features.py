"""Features of clips by onnxruntime, each worked out once and kept on disk."""

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from spectag.backbones import build_backbone
from spectag.errors import DataError
from spectag.export import export_features
from spectag.front_end import FrontEnd
from spectag.progress import Progress
from spectag.recipe import Recipe
from spectag.runtime import open_session
from spectag.tagger import FeatureExtractor
from spectag.weights import cache_folder
from spectag.work_folder import ended_work, work_folder
from spectag.workers import usable_cores

Float32Array = NDArray[np.float32]
FEATURES_VERSION = 1
"""Raised when the same backbone gives other features than before."""


class FeatureStore:
    """Features of one extractor behind one front end, a file for each clip.

    Parameters
    ----------
    root : Path
        The bank's folder; features lie in its sub-folder `features`.
    recipe : Recipe
        Names the backbone and which features. Without pretraining its weights are drawn from the recipe's seed.
    front_end : FrontEnd
    """

    def __init__(self, root: Path, recipe: Recipe, front_end: FrontEnd) -> None:
        torch.manual_seed(recipe.seed)
        backbone = build_backbone(recipe.backbone, pretrained=recipe.pretrained)
        self.extractor = FeatureExtractor(backbone, recipe.features).eval()
        self.front_end = front_end
        self.weights_sha256 = _fingerprint(self.extractor)
        what = f"{self.weights_sha256} {recipe.features} {front_end.image}"
        name = hashlib.blake2b(what.encode(), digest_size=8).hexdigest()
        self.folder = root / "features" / f"{recipe.backbone.replace('/', '_')}-{name}"

    def compute(
        self, keys: Sequence[str], inputs: Callable[[int], Float32Array], *, progress: Progress
    ) -> Float32Array:
        """Features (n_clips, n_features) of the clips with these keys; `inputs(i)` gives the input of clip i.

        Clips whose features are on disk are not looked at.
        """
        missing = [i for i, key in enumerate(keys) if not self._path(key).exists()]
        if missing:
            self._make(missing, keys, inputs, progress)
        return np.stack([np.load(self._path(key)) for key in keys])

    def group_sizes(self, example: Float32Array) -> list[int]:
        """The number of features of each stage, shallow first."""
        with torch.inference_mode():
            return [group.shape[1] for group in self.extractor.groups(torch.from_numpy(example[None].copy()))]

    def onnx_file(self, example: Float32Array) -> Path:
        """The extractor as an ONNX file, written once for each version of torch and kept in the cache."""
        size = "x".join(map(str, example.shape if self.front_end.image else example.shape[:2]))
        name = f"{self.weights_sha256[:16]}-{self.extractor.kind}-{size}-torch{torch.__version__}.onnx"
        folder = cache_folder() / "onnx"
        path = folder / name
        if not path.exists():
            with work_folder(folder) as work:
                export_features(self.extractor, torch.from_numpy(np.stack([example, example])), work / name)
                (work / name).replace(path)
        return path

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.npy"

    def _make(
        self, missing: Sequence[int], keys: Sequence[str], inputs: Callable[[int], Float32Array], progress: Progress
    ) -> None:
        session = open_session(self.onnx_file(inputs(missing[0])), n_threads=1)
        with ended_work(self.folder):
            pass  # what a killed run has left is of no use
        with work_folder(self.folder) as work, ThreadPoolExecutor(usable_cores()) as pool:

            def make(i: int) -> None:
                features = session.run(["features"], {"inputs": inputs(i)[None]})[0][0]
                if not np.isfinite(features).all():
                    raise DataError(f"the backbone's features of clip {keys[i]} are not finite; its weights are damaged")
                unfinished = work / f"{keys[i]}-{os.getpid()}-{i}.npy"
                np.save(unfinished, features)
                self._path(keys[i]).parent.mkdir(exist_ok=True)
                unfinished.replace(self._path(keys[i]))

            step = f"features by {self.folder.name.rpartition('-')[0]}"
            progress(step, 0, len(missing))
            for n_done, _ in enumerate(pool.map(make, missing), start=1):
                progress(step, n_done, len(missing))


def _fingerprint(extractor: FeatureExtractor) -> str:
    """SHA-256 of the weights, and of how features are made of them."""
    digest = hashlib.sha256(f"{FEATURES_VERSION}".encode())
    for name, values in extractor.state_dict().items():
        digest.update(name.encode())
        digest.update(values.contiguous().numpy().tobytes())
    return digest.hexdigest()
