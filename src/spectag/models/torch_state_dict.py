"""State dicts that PyTorch saved, read without PyTorch.

Such a file is a zip archive: a pickle with the names and shapes of the tensors, and a file with the numbers of each.
Unpickling can run any code that the file refers to. Here, a file that refers to anything but tensors is refused.
"""

import io
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_DTYPES: dict[str, np.dtype[Any]] = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


def read_torch_state_dict(path: str | Path) -> dict[str, NDArray[Any]]:
    """The tensors of a state dict, by name.

    Raises
    ------
    ValueError
        If the file is not a state dict, is damaged, or contains more than float32 and int64 tensors.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            tensors = dict(_TensorUnpickler(archive, _folder_in(archive)).load())
    except Exception as error:  # zip archives and pickles raise many kinds of errors
        raise ValueError(f"not a state dict of PyTorch: {error}") from error
    if others := [f"{name!r}" for name, values in tensors.items() if not isinstance(values, np.ndarray)]:
        raise ValueError(f"not a state dict of PyTorch: {', '.join(others[:3])} is not a tensor")
    return tensors


def _folder_in(archive: zipfile.ZipFile) -> str:
    """The folder in the archive that contains everything, with a slash at the end."""
    for name in archive.namelist():
        if name.endswith("/data.pkl"):
            return name.removesuffix("data.pkl")
    raise ValueError("the archive has no data.pkl")


class _TensorUnpickler(pickle.Unpickler):
    """An unpickler that accepts only ordered dicts and tensors."""

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
            return _DTYPES[name]
        raise pickle.UnpicklingError(f"it contains {module}.{name}, which is not a tensor")

    def persistent_load(self, pid: Any) -> NDArray[Any]:
        """The numbers (n,) of a tensor's storage."""
        _, dtype, key, _, n_values = pid
        return np.frombuffer(self._archive.read(f"{self._folder}data/{key}"), dtype, count=n_values)


def _rebuild_tensor(
    values: NDArray[Any], offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any
) -> NDArray[Any]:
    tensor = values[offset : offset + int(np.prod(shape))].reshape(shape)
    contiguous = tuple(stride // values.itemsize for stride in tensor.strides)
    if any(n > 1 and stride != expected for n, stride, expected in zip(shape, strides, contiguous, strict=True)):
        raise pickle.UnpicklingError(f"a tensor of shape {shape} is not contiguous: strides {strides}")
    return tensor
