"""A look at an ONNX file before onnxruntime opens it: what a stranger's network may contain.

An ONNX file is a protocol buffer: a tree of numbered fields. This module walks through it without copying the weights,
and refuses what networks of spectag never contain: weights outside the folder, tensors that claim more numbers than the
file has, nested graphs except the loop over the windows of a clip, and operators that no network needs. The package
`onnx` is not needed, because it is not installed where models only tag.
"""

import math
import mmap
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spectag.audio.front_end import FrontEnd
from spectag.errors import BundleError
from spectag.system.regular_files import check_regular_file

MAX_ONNX_BYTES = 2_000_000_000
"""Protocol buffers cannot be larger."""
MAX_NODES = 50_000
_MAX_FIELDS = 2_000_000  # of all messages except the weights; a network of 5,000 nodes has 100,000
_MAX_DIMENSIONS = 8
_MAX_VALUES = 2_000_000_000  # of a tensor
_MAX_CONSTANT_BYTES = 100  # of a single number with its name

_STANDARD_DOMAINS = ("", "ai.onnx")
_REFUSED_OPERATORS = re.compile(
    "If|Scan|Sequence.*|ConcatFromSequence|SplitToSequence|Optional.*|String.*|Regex.*|Tf.*|ImageDecoder|"
    "Random.*|Bernoulli|Multinomial|EyeLike|MelWeightMatrix|.*Window|MaxUnpool|Col2Im"
)
"""Text, sequences, conditions, random numbers, and operators that make large results of small inputs."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_TYPED_DATA = (4, 5, 7, 10, 11)  # float_data, int32_data, int64_data, double_data, uint64_data
_ITEM_BYTES = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 16: 2}  # by data type
_HALF_BYTE_TYPES = {21, 22}  # uint4, int4

Span = tuple[int, int]
"""Start and end of a message in the file."""


_ADVICE = "copy the complete model again, or train it again"


class _DamagedError(Exception):
    """Why a file is not an ONNX file."""


class _RefusedError(Exception):
    """Why a network is refused."""


@dataclass
class _Node:
    operator: str = ""
    domain: str = ""
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    graphs: list[Span] = field(default_factory=list)


def check_onnx_file(path: Path, *, is_ours: bool = True) -> tuple[str, ...]:
    """Check the structure of a network; one that is not `is_ours` comes from somebody who does not know spectag.

    Returns
    -------
    tuple of str
        Names of the files beside it that contain weights.

    Raises
    ------
    BundleError
        If it is not a regular file, not an ONNX file, or contains anything that networks of spectag never contain.
    """
    advice = _ADVICE if is_ours else "copy or download it again"
    try:
        check_regular_file(path, max_bytes=MAX_ONNX_BYTES)
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            reader = _Reader(content, path.parent, is_ours=is_ours)
            reader.check_model()
    except (OSError, ValueError) as error:  # ValueError: an empty file
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise BundleError(f"{path}: cannot be read: {reason}; {advice}") from error
    except _DamagedError as error:
        raise BundleError(f"{path}: not an ONNX file, or damaged: {error}; {advice}") from error
    except _RefusedError as error:
        why = "Networks that spectag writes never do, so it is" if is_ours else "Such networks are"
        raise BundleError(f"{path}: {error}. {why} not opened") from error
    return tuple(sorted(reader.external_files))


def check_inputs_and_outputs(path: Path, session: Any, front_end: FrontEnd, n_labels: int, outputs: set[str]) -> None:
    """Compare the inputs and outputs of an opened network with spectag.json.

    Parameters
    ----------
    path : Path
    session : onnxruntime.InferenceSession
    front_end : FrontEnd
    n_labels : int
    outputs : set of str
        Names of the outputs that the network needs.

    Raises
    ------
    BundleError
        If an output is missing, or an input or output has another shape or type.
    """
    height = front_end.mel.n_mels if front_end.mel is not None and front_end.image is None else None
    if front_end.input == "waveform":
        height = 1
    inputs, found = _named(path, session)
    if list(inputs) != ["inputs"]:
        raise BundleError(f"{path}: the network has the inputs {', '.join(inputs)[:100]}, expected only `inputs`")
    _check_shape(path, inputs["inputs"], [None, front_end.n_channels, height, None])
    if missing := sorted(outputs - found.keys()):
        raise BundleError(
            f"{path}: the network has the outputs {', '.join(found)[:100]}, but not {', '.join(missing)}, which "
            f"spectag.json needs; {_ADVICE}"
        )
    by_label: list[int | None] = [None, n_labels]
    shapes: dict[str, list[int | None]] = {
        "probabilities": by_label,
        "logits": by_label,
        "features": [None, None],
        "novelty": [None],
    }
    for name in shapes.keys() & found.keys():
        _check_shape(path, found[name], shapes[name])


def check_frames_file(path: Path) -> None:
    """Check the structure of a frames.onnx, as `check_onnx_file` does; all its weights must be in the file itself.

    Raises
    ------
    BundleError
    """
    if external := check_onnx_file(path):
        raise BundleError(f"{path}: its weights are in {external[0]}, but those of frames are in one file; {_ADVICE}")


def check_frames(path: Path, session: Any, front_end: FrontEnd, n_labels: int) -> None:
    """Compare the input and output of an opened frames.onnx with spectag.json.

    Parameters
    ----------
    path : Path
    session : onnxruntime.InferenceSession
    front_end : FrontEnd
        Of the bundle.
    n_labels : int

    Raises
    ------
    BundleError
        If the input is not log_mels (1, 1, n_mels, n), or there are no probabilities (1, n_frames, n_labels).
    """
    inputs, outputs = _named(path, session)
    n_mels = None if front_end.mel is None else front_end.mel.n_mels
    if list(inputs) != ["inputs"] or "probabilities" not in outputs:
        raise BundleError(
            f"{path}: the network has the inputs {', '.join(inputs)[:100]} and the outputs "
            f"{', '.join(outputs)[:100]}, expected `inputs` and `probabilities`; {_ADVICE}"
        )
    _check_shape(path, inputs["inputs"], [None, 1, n_mels, None])
    _check_shape(path, outputs["probabilities"], [None, None, n_labels])


def _named(path: Path, session: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The inputs and outputs of a session by their names."""
    try:
        inputs, outputs = (
            {item.name: item for item in items} for items in (session.get_inputs(), session.get_outputs())
        )
        _ = [item.shape for item in (*inputs.values(), *outputs.values())]
    except UnicodeDecodeError as error:
        raise BundleError(f"{path}: damaged: the name of an input, output or axis is not UTF-8; {_ADVICE}") from error
    return inputs, outputs


def _check_shape(path: Path, tensor: Any, expected: Sequence[int | None]) -> None:
    """Compare the shape of an input or output; None is any size."""
    sizes = [size if isinstance(size, int) else None for size in tensor.shape]
    fits = len(sizes) == len(expected) and all(
        None in pair or len(set(pair)) == 1 for pair in zip(sizes, expected, strict=True)
    )
    if not fits or tensor.type != "tensor(float)":
        found, wanted = (
            " x ".join("any" if size is None else str(size) for size in shape) for shape in (sizes, expected)
        )
        raise BundleError(
            f"{path}: {tensor.name} is a {tensor.type[:40]} of shape {found[:60]}, but spectag.json describes a "
            f"tensor(float) of shape {wanted}: the two files are of different models; {_ADVICE}"
        )


class _Reader:
    """Walks through the messages of an ONNX file."""

    def __init__(self, content: mmap.mmap, folder: Path, *, is_ours: bool) -> None:
        self._content = content
        self._folder = folder
        self._is_ours = is_ours
        self._n_fields = 0
        self._n_nodes = 0
        self.external_files: set[str] = set()

    def check_model(self) -> None:
        graphs = []
        for number, value in self._fields((0, len(self._content))):
            if number == 7:
                graphs.append(_span(value))
            elif number in (20, 25):  # training_info, functions
                raise _RefusedError("it contains functions or a training graph")
        if len(graphs) != 1:
            raise _DamagedError(f"it has {len(graphs)} graphs, expected one")
        self._check_graph(graphs[0], is_nested=False)

    def _check_graph(self, graph: Span, *, is_nested: bool) -> None:
        nodes: list[_Node] = []
        constants: dict[str, int] = {}
        for number, value in self._fields(graph):
            if number == 1:
                nodes.append(self._node(_span(value)))
            elif number == 5:
                self._check_tensor(_span(value))
                constants.update(self._integer_constant(_span(value)))
            elif number == 15:
                raise _RefusedError("it contains sparse weights")
        is_loop_over_windows = not is_nested and _counts_windows(nodes, constants)
        for node in nodes:
            self._check_node(node, is_loop_over_windows=is_loop_over_windows)

    def _node(self, span: Span) -> _Node:
        self._n_nodes += 1
        if self._n_nodes > MAX_NODES:
            raise _RefusedError(f"it has more than {MAX_NODES} nodes")
        node = _Node()
        for number, value in self._fields(span):
            if number in (1, 2):
                (node.inputs if number == 1 else node.outputs).append(self._text(_span(value)))
            elif number == 4:
                node.operator = self._text(_span(value))
            elif number == 5:
                self._read_attribute(_span(value), node)
            elif number == 7:
                node.domain = self._text(_span(value))
        return node

    def _read_attribute(self, span: Span, node: _Node) -> None:
        for number, value in self._fields(span):
            if number == 5 or number == 10:  # a tensor, tensors
                self._check_tensor(_span(value))
            elif number == 6 or number == 11:  # a graph, graphs
                node.graphs.append(_span(value))
            elif number in (22, 23):
                raise _RefusedError("it contains sparse weights")

    def _check_node(self, node: _Node, *, is_loop_over_windows: bool) -> None:
        if node.domain not in _STANDARD_DOMAINS or _REFUSED_OPERATORS.fullmatch(node.operator):
            raise _RefusedError(f"it uses the operator {f'{node.domain}.{node.operator}'.strip('.')[:60]!r}")
        if node.operator == "Loop":
            if not is_loop_over_windows or node.inputs != [_LOOP_INPUT, ""] or len(node.graphs) != 1:
                raise _RefusedError("it contains a loop that is not the one over the windows of a clip")
            self._check_graph(node.graphs[0], is_nested=True)
        elif node.graphs:
            raise _RefusedError(f"it contains a graph in an operator {node.operator}")

    def _check_tensor(self, span: Span) -> None:
        dimensions: list[int] = []
        data_type, n_raw, n_typed, is_external = 0, None, 0, False
        location: dict[str, str] = {}
        for number, value in self._fields(span):
            if number == 1:
                dimensions.extend(self._integers(value))
            elif number == 2 and isinstance(value, int):
                data_type = value
            elif number == 9:
                n_raw = _length(value)
            elif number in _TYPED_DATA:
                n_typed += _length(value) if isinstance(value, tuple) else 1
            elif number == 6:
                raise _RefusedError("it contains texts as weights")
            elif number == 13:
                location.update([self._entry(_span(value))])
            elif number == 14:
                is_external = value == 1
        n_values = _n_values(dimensions)
        if is_external or location:
            self._check_external(location, n_values, data_type)
        elif n_raw is not None:
            _check_n_bytes(n_raw, n_values, data_type)
        elif n_values > n_typed:
            raise _DamagedError(f"a tensor claims {n_values} numbers, but the file has {n_typed}")

    def _integer_constant(self, span: Span) -> dict[str, int]:
        """The name and the value of a tensor that is a single int64 with a constant of the loop; else nothing."""
        if span[1] - span[0] > _MAX_CONSTANT_BYTES:
            return {}
        name, values = "", []
        for number, value in self._fields(span):
            if number == 8:
                name = self._text(_span(value))
            elif number == 7:
                values = self._integers(value)
            elif number == 9 and _length(value) == 8:
                start, end = _span(value)
                values = [int.from_bytes(self._content[start:end], "little")]
        return {name: values[0]} if len(values) == 1 else {}

    def _check_external(self, location: dict[str, str], n_values: int, data_type: int) -> None:
        """Weights in another file must be in a regular file of the same folder, which is long enough."""
        name = location.get("location", "")
        if not name or name in (".", "..") or any(character in name for character in "/\\:\0"):
            raise _RefusedError(f"its weights are in {name!r}, outside of its folder")
        try:
            offset, length = (int(location.get(key, "0")[:20]) for key in ("offset", "length"))
            check_regular_file(self._folder / name, max_bytes=2**40)
            n_bytes = (self._folder / name).stat().st_size
        except (OSError, ValueError) as error:
            raise _RefusedError(f"its weights are in {name!r}, which cannot be read; copy it, too") from error
        if not self._is_ours and (self._folder / name).is_symlink():  # ours are links in the cache of the hub
            raise _RefusedError(f"its weights are in {name!r}, which is a link; copy the file instead")
        self.external_files.add(name)
        if offset < 0 or length < 0 or offset + length > n_bytes:
            raise _RefusedError(f"its weights are in {name!r}, which is too short")
        _check_n_bytes(length or n_bytes - offset, n_values, data_type, at_least=not length)

    def _entry(self, span: Span) -> tuple[str, str]:
        texts = {number: self._text(_span(value)) for number, value in self._fields(span)}
        return texts.get(1, ""), texts.get(2, "")

    def _text(self, span: Span) -> str:
        if span[1] - span[0] > 10_000:
            raise _DamagedError("a name is longer than 10,000 characters")
        try:
            return self._content[span[0] : span[1]].decode("utf-8")
        except UnicodeDecodeError as error:
            raise _DamagedError("a name is not UTF-8") from error

    def _integers(self, value: int | Span) -> list[int]:
        """A field of one integer, or of several packed ones."""
        if isinstance(value, int):
            return [value]
        integers: list[int] = []
        position, end = value
        while position < end and len(integers) <= _MAX_DIMENSIONS:
            number, position = self._varint(position, end)
            integers.append(number)
        return integers

    def _fields(self, span: Span) -> Iterator[tuple[int, int | Span]]:
        """The number of each field of a message, and its value: an integer, or the position of its bytes."""
        position, end = span
        while position < end:
            self._n_fields += 1
            if self._n_fields > _MAX_FIELDS:
                raise _RefusedError(f"it has more than {_MAX_FIELDS} fields")
            key, position = self._varint(position, end)
            number, kind = key >> 3, key & 7
            value: int | Span
            if kind == _VARINT:
                value, position = self._varint(position, end)
            elif kind in (_FIXED64, _FIXED32, _BYTES):
                n_bytes = 8 if kind == _FIXED64 else 4
                if kind == _BYTES:
                    n_bytes, position = self._varint(position, end)
                value, position = (position, position + n_bytes), position + n_bytes
            else:
                raise _DamagedError("it has an unknown field")
            if position > end or not number:
                raise _DamagedError("it ends early")
            yield number, value

    def _varint(self, position: int, end: int) -> tuple[int, int]:
        value = 0
        for shift in range(0, 70, 7):
            if position >= end:
                raise _DamagedError("it ends early")
            byte = self._content[position]
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, position
        raise _DamagedError("it has an unknown field")


def _span(value: int | Span) -> Span:
    if isinstance(value, int):
        raise _DamagedError("it has an unknown field")
    return value


def _length(value: int | Span) -> int:
    start, end = _span(value)
    return end - start


def _n_values(dimensions: list[int]) -> int:
    """Number of values of a tensor. Negative dimensions are large ones here."""
    if len(dimensions) > _MAX_DIMENSIONS or math.prod(dimensions) > _MAX_VALUES or max(dimensions, default=0) >= 2**62:
        raise _DamagedError("a tensor claims too many numbers")
    return math.prod(dimensions)


def _check_n_bytes(n_bytes: int, n_values: int, data_type: int, *, at_least: bool = False) -> None:
    if data_type in _HALF_BYTE_TYPES:
        expected = (n_values + 1) // 2
    elif data_type in _ITEM_BYTES:
        expected = n_values * _ITEM_BYTES[data_type]
    else:
        raise _DamagedError(f"a tensor has the unknown type {data_type}")
    if n_bytes < expected or (n_bytes != expected and not at_least):
        raise _DamagedError(f"a tensor claims {n_values} numbers, but the file has {n_bytes} bytes for them")


_LOOP_INPUT = "n_excerpts"
_LOOP_COUNT = {  # how it is computed from the width of the input; see spectag.training.networks.onnx_windows
    _LOOP_INPUT: ("Add", "n_used", "one"),
    "n_used": ("Where", "has_windows", "n_windows", "zero"),
    "has_windows": ("GreaterOrEqual", "last_start", "hop"),
    "n_windows": ("Add", "n_starts", "one"),
    "n_starts": ("Div", "almost_next", "hop"),
    "almost_next": ("Sub", "rounded_up", "one"),
    "rounded_up": ("Add", "last_start", "hop"),
    "last_start": ("Sub", "width", "length"),
    "width": ("Squeeze", "size"),
    "size": ("Shape", "inputs"),
}
_MAX_OVERLAP = 32  # windows at the same time; ours are 2


def _counts_windows(nodes: list[_Node], constants: dict[str, int]) -> bool:
    """Whether `n_excerpts` is the number of windows of the input, as spectag computes it: then the loop ends."""
    computed = {node.outputs[0]: (node.operator, *node.inputs) for node in nodes if len(node.outputs) == 1}
    hop, length = constants.get("hop", 0), constants.get("length", 0)
    return (
        0 < hop <= length <= _MAX_OVERLAP * hop
        and (constants.get("zero"), constants.get("one")) == (0, 1)
        and all(computed.get(name) == steps for name, steps in _LOOP_COUNT.items())
    )
