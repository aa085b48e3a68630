"""State dicts that PyTorch saved, read without PyTorch.

Such a file is a zip archive: a pickle with the names and shapes of the tensors, and a file with the numbers of each.
Until PyTorch 1.6, it was a sequence of five pickles and then the numbers: a magic number, the version, the sizes of
types, the names and shapes, and the order of the numbers.

Unpickling can run any code that the file refers to, and change objects of the process. So the pickle is not unpickled
here: a small interpreter knows the few instructions that a state dict needs, and refuses all others. It imports and
calls nothing. What it builds consists of its own dicts, tuples, lists, strings, numbers and arrays.
"""

import io
import math
import pickletools  # nosec B403 - lists instructions and runs none
import zipfile
from collections.abc import Callable
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
_OLD_MAGIC, _OLD_VERSION = 0x1950A86A20F9469CFC6C, 1001
_OLD_START = b"\x80\x02\x8a\x0a" + _OLD_MAGIC.to_bytes(10, "little") + b"."  # the first pickle

MAX_FILE_BYTES = 4_000_000_000
_MAX_DIRECTORY_BYTES = 4_000_000  # of the archive: about 40,000 files
_MAX_PICKLE_BYTES = 16_000_000  # that of mn04 has 0.04 MB
_MAX_INSTRUCTIONS = 200_000  # mn04 has 9,592
_MAX_SHOWN = 60  # characters of a name in a message
_MAX_REASON = 200  # characters; pickletools quotes whatever it finds


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
            is_old = file.read(len(_OLD_START)) == _OLD_START
            file.seek(0)
            tensors = (_read_old_file if is_old else _read_archive)(file, Path(path).stat().st_size)
    except Exception as error:  # zip archives raise many kinds of errors
        raise ValueError(f"not a state dict of PyTorch: {str(error)[:_MAX_REASON]}") from error
    if not isinstance(tensors, dict):
        raise ValueError("not a state dict of PyTorch: it is not a dict")  # noqa: TRY004
    if others := [f"{_shown(name)!r}" for name, values in tensors.items() if not isinstance(values, np.ndarray)]:
        raise ValueError(f"not a state dict of PyTorch: {', '.join(others[:3])} is not a tensor")
    return tensors


def _read_archive(file: BinaryIO, n_bytes: int) -> Any:
    """The content of a zip archive."""
    bounded = _BoundedReads(file)
    with zipfile.ZipFile(bounded) as archive:
        bounded.limit = None
        _check_archive(archive, n_bytes)
        folder = _folder_in(archive)
        member = archive.getinfo(f"{folder}data.pkl")
        if member.file_size > _MAX_PICKLE_BYTES:
            raise ValueError(f"its pickle has {member.file_size} bytes, expected at most {_MAX_PICKLE_BYTES}")
        return _run(
            io.BytesIO(archive.read(member)),
            lambda key, _: np.frombuffer(archive.read(f"{folder}data/{key}"), np.uint8),
        )


def _read_old_file(file: BinaryIO, n_bytes: int) -> Any:
    """The content of a file from before PyTorch 1.6. Its numbers follow the pickles, so they are read at the end."""
    pickles = io.BytesIO(file.read(_MAX_PICKLE_BYTES))
    magic, version, _ = (_run(pickles) for _ in range(3))
    if (magic, version) != (_OLD_MAGIC, _OLD_VERSION):
        raise ValueError(f"it is not of version {_OLD_VERSION} of the old format")
    storages: dict[str, NDArray[np.uint8]] = {}

    def reserve(key: str, n_storage_bytes: int) -> NDArray[np.uint8]:
        if n_storage_bytes > n_bytes - sum(map(len, storages.values())):
            raise ValueError("its tensors are larger than the file")
        storages[key] = np.zeros(n_storage_bytes, np.uint8)
        return storages[key]

    content, keys = _run(pickles, reserve), _run(pickles)
    file.seek(pickles.tell())
    is_list_of_names = isinstance(keys, list) and all(isinstance(key, str) for key in keys)
    if not is_list_of_names or sorted(keys) != sorted(storages):
        raise ValueError("it does not list its own tensors")
    for key in keys:
        _n_values = file.read(8)
        if file.readinto(storages[key]) != len(storages[key]):  # type: ignore[attr-defined]
            raise ValueError("it ends early")
        storages[key].flags.writeable = False
    return content


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


ReadStorage = Callable[[str, int], NDArray[np.uint8]]
"""The bytes of a storage, by its name and the number of bytes that the pickle expects."""


def _no_storage(key: str, n_bytes: int) -> NDArray[np.uint8]:
    raise ValueError("it contains a tensor where none is expected")


def _run(pickle: BinaryIO, read_storage: ReadStorage = _no_storage) -> Any:
    """The object that the next pickle of a file describes."""
    interpreter = _Interpreter(read_storage)
    for number, (opcode, argument, _) in enumerate(pickletools.genops(pickle)):
        if number >= _MAX_INSTRUCTIONS:
            raise ValueError(f"its pickle has more than {_MAX_INSTRUCTIONS} instructions")
        if opcode.name == "STOP":
            return interpreter.pop()
        interpreter.execute(opcode.name, argument)
    raise ValueError("its pickle has no end")


class _Interpreter:
    """Executes the instructions of a pickle. Each takes constant time, apart from copying its own arguments."""

    def __init__(self, read_storage: ReadStorage) -> None:
        self._read_storage = read_storage
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._storages: dict[str, NDArray[np.uint8]] = {}

    def execute(self, name: str, argument: Any) -> None:
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
            items = [self.pop() for _ in range(int(name[-1]))]
            self._stack.append(tuple(reversed(items)))
        elif name not in _IGNORED:
            step = _STEPS.get(name)
            if step is None:
                raise ValueError(f"its pickle uses the instruction {name}, which a state dict does not need")
            step(self, argument)

    def pop(self) -> Any:
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
        name, module = self.pop(), self.pop()
        self._push_global(module, name)

    def _push_global(self, module: Any, name: Any) -> None:
        found = _Global((str(module), str(name))) if isinstance(module, str) and isinstance(name, str) else None
        if found is None or (found not in _DTYPES and found not in (_DICT, _REBUILD)):
            shown = "an unnamed object" if found is None else _shown(".".join(found))
            raise ValueError(f"it contains {shown}, which is not a tensor")
        self._stack.append(found)

    def _reduce(self, _: Any) -> None:
        arguments, function = self.pop(), self.pop()
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
        _state, target = self.pop(), self._stack[-1]
        if not isinstance(target, dict):
            raise ValueError("its pickle sets attributes")  # noqa: TRY004

    def _append(self, _: Any) -> None:
        value = self.pop()
        self._append_all([value])

    def _appends(self, _: Any) -> None:
        self._append_all(self._pop_to_mark())

    def _append_all(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, list):
            raise ValueError("its pickle appends to something that is not a list")  # noqa: TRY004
        target.extend(items)

    def _set_item(self, _: Any) -> None:
        value, key = self.pop(), self.pop()
        self._set_items_of([key, value])

    def _set_items(self, _: Any) -> None:
        self._set_items_of(self._pop_to_mark())

    def _set_items_of(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, dict) or len(items) % 2 or not all(isinstance(key, str) for key in items[::2]):
            raise ValueError("its pickle has a dict whose keys are not names")
        target.update(zip(items[::2], items[1::2], strict=True))

    def _persistent(self, _: Any) -> None:
        pid = self.pop()
        match pid:
            case ("storage", _Global() as kind, str() as key, str(), int() as n_values, *view) if (
                kind in _DTYPES and view in ([], [None])  # old files may contain views, which state dicts do not need
            ):
                self._stack.append(_Storage(self._storage(key, _DTYPES[kind], n_values)))
            case _:
                raise ValueError("it contains a reference that is not the storage of a tensor")

    def _storage(self, key: str, dtype: np.dtype[Any], n_values: int) -> NDArray[Any]:
        """The numbers (n_values,) of a storage, which is read once."""
        n_bytes = n_values * dtype.itemsize
        if key not in self._storages:
            self._storages[key] = self._read_storage(key, max(n_bytes, 0))
        content = self._storages[key]
        if not 0 <= n_bytes <= len(content):
            raise ValueError(
                f"the storage {_shown(key)} has {len(content)} bytes, too few for {_shown(n_values)} numbers"
            )
        return content[:n_bytes].view(dtype)


def _folder_in(archive: zipfile.ZipFile) -> str:
    """The folder in the archive that contains everything, with a slash at the end."""
    for name in archive.namelist():
        if name.endswith("/data.pkl"):
            return name.removesuffix("data.pkl")
    raise ValueError("the archive has no data.pkl")


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any) -> NDArray[Any]:
    if not (isinstance(storage, _Storage) and _is_size(offset) and _are_sizes(shape) and _are_sizes(strides)):
        raise ValueError("the layout of a tensor is damaged")
    values = storage.values
    last = sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))  # if there is any number
    n_values = math.prod(shape)
    if n_values > len(values) - offset or (n_values and last >= len(values) - offset):
        raise ValueError(f"a tensor of shape {_shown(shape)} does not fit into its storage")
    in_bytes = [stride * values.itemsize if n_values else 0 for stride in strides]
    return np.lib.stride_tricks.as_strided(values[offset:], shape, in_bytes, writeable=False)


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
    "APPEND": _Interpreter._append,
    "APPENDS": _Interpreter._appends,
    "BUILD": _Interpreter._build,
    "SETITEM": _Interpreter._set_item,
    "SETITEMS": _Interpreter._set_items,
    "BINPERSID": _Interpreter._persistent,
}
