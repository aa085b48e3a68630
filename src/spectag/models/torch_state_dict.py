"""The tensors of a state dict that torch saved, read without torch.

Such a file is a zip: a pickle that says which tensor is where, and a member for each tensor's numbers. Unpickling
usually may run whatever the file names; here a file that names anything but a tensor is refused.
"""

import io
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_DTYPES: dict[str, np.dtype[Any]] = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


def read_torch_file(path: str | Path) -> dict[str, NDArray[Any]]:
    """The tensors of a state dict, by name.

    Raises
    ------
    ValueError
        If the file is something else, is damaged, or holds more than tensors of float32 and int64.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            tensors = dict(_TensorUnpickler(archive, _folder_in(archive)).load())
    except Exception as error:  # zip files and pickles fail in all kinds of ways
        raise ValueError(f"no weights as torch saves them: {error}") from error
    others = [f"{name!r}" for name, values in tensors.items() if not isinstance(values, np.ndarray)]
    if others:
        raise ValueError(f"no weights as torch saves them: {', '.join(others[:3])} is no tensor")
    return tensors


def _folder_in(archive: zipfile.ZipFile) -> str:
    """The folder in the zip that holds everything, ending in a slash."""
    for name in archive.namelist():
        if name.endswith("/data.pkl"):
            return name.removesuffix("data.pkl")
    raise ValueError("the zip holds no data.pkl")


class _Storage(NamedTuple):
    """The kind of a tensor's numbers, by which torch names the storage."""

    dtype: np.dtype[Any]


class _TensorUnpickler(pickle.Unpickler):
    """Knows ordered dicts, and how torch rebuilds a tensor."""

    def __init__(self, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(io.BytesIO(archive.read(f"{folder}data.pkl")))
        self._archive = archive
        self._folder = folder

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if module == "torch" and name in _DTYPES:
            return _Storage(_DTYPES[name])
        raise pickle.UnpicklingError(f"it names {module}.{name}, which is no tensor")

    def persistent_load(self, pid: Any) -> NDArray[Any]:
        """The numbers (n,) of a storage."""
        _, storage, key, _, n_values = pid
        return np.frombuffer(self._archive.read(f"{self._folder}data/{key}"), storage.dtype, count=n_values)


def _rebuild_tensor(
    values: NDArray[Any], offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any
) -> NDArray[Any]:
    tensor = values[offset : offset + int(np.prod(shape))].reshape(shape)
    own_strides = tuple(stride // values.itemsize for stride in tensor.strides)
    if any(n > 1 and stride != own for n, stride, own in zip(shape, strides, own_strides, strict=True)):
        raise pickle.UnpicklingError(f"a tensor of shape {shape} lies in steps of {strides}")
    return tensor
