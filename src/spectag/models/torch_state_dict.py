"""State dicts that PyTorch saved, read without PyTorch.

Such a file is a zip archive: a pickle with the names and shapes of the tensors, and a file with the numbers of each.
Unpickling can run any code that the file refers to, and change objects of the process. So the pickle is not unpickled
here: a small interpreter knows the few instructions that a state dict needs, and refuses all others. It imports and
calls nothing. What it builds consists of its own dicts, tuples, strings, numbers and arrays.
"""

import io
import math
import pickletools  # nosec B403 - lists instructions and runs none
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from spectag.system.regular_files import check_regular_file

_DTYPES: dict[tuple[str, str], np.dtype[Any]] = {
    ("torch", "FloatStorage"): np.dtype("<f4"),
    ("torch", "LongStorage"): np.dtype("<i8"),
}
_DICT, _REBUILD = ("collections", "OrderedDict"), ("torch._utils", "_rebuild_tensor_v2")

MAX_FILE_BYTES = 4_000_000_000
_MAX_DIRECTORY_BYTES = 4_000_000  # of the archive: about 40,000 files
_MAX_PICKLE_BYTES = 16_000_000  # that of mn04 has 0.04 MB
_MAX_INSTRUCTIONS = 200_000  # mn04 has 9,592
_MAX_SHOWN = 60  # characters of a name in a message


def read_torch_state_dict(path: str | Path) -> dict[str, NDArray[Any]]:
    """The tensors of a state dict, by name. They are read-only, and share memory if they share a storage.

    Time and memory are proportional to the size of the file.

    Raises
    ------
    ValueError
        If the file is not a state dict, is damaged, or contains more than float32 and int64 tensors.
    """
    try:
        check_regular_file(Path(path), max_bytes=MAX_FILE_BYTES)
        with Path(path).open("rb") as file:
            bounded = _BoundedReads(file)
            with zipfile.ZipFile(bounded) as archive:
                bounded.limit = None
                _check_archive(archive, Path(path).stat().st_size)
                tensors = _Interpreter(archive).run()
    except Exception as error:  # zip archives raise many kinds of errors
        raise ValueError(f"not a state dict of PyTorch: {error}") from error
    if not isinstance(tensors, dict):
        raise ValueError("not a state dict of PyTorch: it is not a dict")  # noqa: TRY004
    if others := [f"{_shown(name)!r}" for name, values in tensors.items() if not isinstance(values, np.ndarray)]:
        raise ValueError(f"not a state dict of PyTorch: {', '.join(others[:3])} is not a tensor")
    return tensors


class _BoundedReads:
    """A file from which no more than `limit` bytes can be read at once, for the table of contents of an archive."""

    def __init__(self, file: BinaryIO) -> None:
        self.limit: int | None = _MAX_DIRECTORY_BYTES
        self.seek, self.tell, self.seekable, self.close = file.seek, file.tell, file.seekable, file.close
        self._file = file

    def read(self, n_bytes: int = -1) -> bytes:
        if self.limit is None:
            return self._file.read(n_bytes)
        content = self._file.read(min(n_bytes, self.limit + 1) if n_bytes >= 0 else self.limit + 1)
        if len(content) > self.limit:
            raise ValueError("the archive lists too many files")
        return content


def _check_archive(archive: zipfile.ZipFile, n_bytes: int) -> None:
    """Raise a ValueError if the files of an archive are compressed, overlap, or occur twice, as PyTorch's never do."""
    members = archive.infolist()
    if any(m.compress_type != zipfile.ZIP_STORED or m.compress_size != m.file_size for m in members):
        raise ValueError("the archive is compressed")
    if len({member.filename for member in members}) < len(members):
        raise ValueError("the archive contains a file twice")
    if sum(member.file_size for member in members) > n_bytes:
        raise ValueError("the files in the archive overlap")


class _Global(tuple[str, str]):
    """The name of a class or function in a pickle. Nothing is imported."""


class _Mark:
    """The start of a sequence on the stack."""


class _Storage:
    """The numbers (n,) of one or more tensors."""

    def __init__(self, values: NDArray[Any]) -> None:
        self.values = values


class _Interpreter:
    """Runs the pickle of a state dict. Every instruction takes constant time, apart from copying its own arguments."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._folder = _folder_in(archive)
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._storages: dict[str, NDArray[Any]] = {}

    def run(self) -> Any:
        """The object that the pickle describes."""
        member = self._archive.getinfo(f"{self._folder}data.pkl")
        if member.file_size > _MAX_PICKLE_BYTES:
            raise ValueError(f"its pickle has {member.file_size} bytes, expected at most {_MAX_PICKLE_BYTES}")
        pickle = io.BytesIO(self._archive.read(member))
        for number, (opcode, argument, _) in enumerate(pickletools.genops(pickle)):
            if number >= _MAX_INSTRUCTIONS:
                raise ValueError(f"its pickle has more than {_MAX_INSTRUCTIONS} instructions")
            if opcode.name == "STOP":
                return self._pop()
            self._execute(opcode.name, argument)
        raise ValueError("its pickle has no end")

    def _execute(self, name: str, argument: Any) -> None:
        if name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name])
        elif name in _LITERALS:
            self._stack.append(argument)
        elif name in _EMPTY:
            self._stack.append(_EMPTY[name]())
        elif name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self._memo[len(self._memo) if name == "MEMOIZE" else argument] = self._stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            self._stack.append(self._memo[argument])
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            items = [self._pop() for _ in range(int(name[-1]))]
            self._stack.append(tuple(reversed(items)))
        elif name not in _IGNORED:
            step = _STEPS.get(name)
            if step is None:
                raise ValueError(f"its pickle uses the instruction {name}, which a state dict does not need")
            step(self, argument)

    def _pop(self) -> Any:
        value = self._stack.pop()
        if value is _Mark:
            raise ValueError("its pickle is damaged: a value is missing")
        return value

    def _pop_to_mark(self) -> list[Any]:
        items: list[Any] = []
        while (item := self._stack.pop()) is not _Mark:
            items.append(item)
        return items[::-1]

    def _tuple(self, _: Any) -> None:
        self._stack.append(tuple(self._pop_to_mark()))

    def _global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self._push_global(module, name)

    def _stack_global(self, _: Any) -> None:
        name, module = self._pop(), self._pop()
        self._push_global(module, name)

    def _push_global(self, module: Any, name: Any) -> None:
        found = _Global((str(module), str(name))) if isinstance(module, str) and isinstance(name, str) else None
        if found is None or (found not in _DTYPES and found not in (_DICT, _REBUILD)):
            shown = "an unnamed object" if found is None else _shown(".".join(found))
            raise ValueError(f"it contains {shown}, which is not a tensor")
        self._stack.append(found)

    def _reduce(self, _: Any) -> None:
        arguments, function = self._pop(), self._pop()
        if not isinstance(function, _Global) or not isinstance(arguments, tuple):
            raise ValueError("its pickle calls something that is not a function")  # noqa: TRY004
        if function == _DICT and not arguments:
            self._stack.append({})
        elif function == _REBUILD and len(arguments) >= 4:
            self._stack.append(_tensor(*arguments[:4]))
        else:
            raise ValueError(f"its pickle calls {_shown('.'.join(function))} with unknown arguments")

    def _build(self, _: Any) -> None:
        """Attributes of a dict, such as the versions of PyTorch's modules, are not needed."""
        _state, target = self._pop(), self._stack[-1]
        if not isinstance(target, dict):
            raise ValueError("its pickle sets attributes")  # noqa: TRY004

    def _set_item(self, _: Any) -> None:
        value, key = self._pop(), self._pop()
        self._set_items_of([key, value])

    def _set_items(self, _: Any) -> None:
        self._set_items_of(self._pop_to_mark())

    def _set_items_of(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, dict) or len(items) % 2 or not all(isinstance(key, str) for key in items[::2]):
            raise ValueError("its pickle has a dict whose keys are not names")
        target.update(zip(items[::2], items[1::2], strict=True))

    def _persistent(self, _: Any) -> None:
        pid = self._pop()
        match pid:
            case ("storage", _Global() as kind, str() as key, str(), int() as n_values) if kind in _DTYPES:
                self._stack.append(_Storage(self._storage(key, _DTYPES[kind], n_values)))
            case _:
                raise ValueError("it contains a reference that is not the storage of a tensor")

    def _storage(self, key: str, dtype: np.dtype[Any], n_values: int) -> NDArray[Any]:
        """The numbers (n_values,) in a file of the archive, which is read once."""
        if key not in self._storages:
            self._storages[key] = np.frombuffer(self._archive.read(f"{self._folder}data/{key}"), np.uint8)
        content = self._storages[key]
        if not 0 <= n_values * dtype.itemsize <= len(content):
            raise ValueError(
                f"the storage {_shown(key)} has {len(content)} bytes, too few for {_shown(n_values)} numbers"
            )
        return content[: n_values * dtype.itemsize].view(dtype)


def _folder_in(archive: zipfile.ZipFile) -> str:
    """The folder in the archive that contains everything, with a slash at the end."""
    for name in archive.namelist():
        if name.endswith("/data.pkl"):
            return name.removesuffix("data.pkl")
    raise ValueError("the archive has no data.pkl")


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any) -> NDArray[Any]:
    if not (isinstance(storage, _Storage) and _is_size(offset) and _are_sizes(shape) and _are_sizes(strides)):
        raise ValueError("the layout of a tensor is damaged")
    n_values = math.prod(shape)
    if len(strides) != len(shape) or offset + n_values > len(storage.values):
        raise ValueError(f"a tensor of shape {_shown(shape)} does not fit into its storage")
    tensor = storage.values[offset : offset + n_values].reshape(shape)
    contiguous = tuple(stride // tensor.itemsize for stride in tensor.strides)
    if any(n > 1 and stride != expected for n, stride, expected in zip(shape, strides, contiguous, strict=True)):
        raise ValueError(f"a tensor of shape {_shown(shape)} is not contiguous: strides {_shown(strides)}")
    return tensor


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**62


def _are_sizes(values: Any) -> bool:
    return isinstance(values, tuple) and len(values) <= 16 and all(map(_is_size, values))


def _shown(value: Any) -> str:
    """A value in a message. Only strings, numbers and tuples of numbers are shown, so that it stays short."""
    text = str(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "MARK": _Mark}
_EMPTY: dict[str, Any] = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_LITERALS = frozenset(
    {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
)
_IGNORED = frozenset({"PROTO", "FRAME"})
_STEPS: dict[str, Any] = {
    "TUPLE": _Interpreter._tuple,
    "GLOBAL": _Interpreter._global,
    "STACK_GLOBAL": _Interpreter._stack_global,
    "REDUCE": _Interpreter._reduce,
    "BUILD": _Interpreter._build,
    "SETITEM": _Interpreter._set_item,
    "SETITEMS": _Interpreter._set_items,
    "BINPERSID": _Interpreter._persistent,
}
