"""Texts of results that a person prints: at most three lines, however much is in them."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np

MAX_CHARACTERS = 240  # three lines of a terminal
_MAX_OF_FIELD = 60
_N_WRITTEN_OUT = 3  # items of a tuple

Class = TypeVar("Class")


def short_repr(cls: type[Class]) -> type[Class]:
    """Give a dataclass a `repr` of at most three lines: arrays are described, long tuples counted, the rest shortened.

    Examples
    --------
    >>> @short_repr
    ... @dataclasses.dataclass
    ... class Result:
    ...     name: str
    ...     clips: tuple[int, ...]
    ...     scores: np.ndarray
    >>> Result("a.wav", tuple(range(300)), np.zeros((300, 10), np.float32))
    Result(name='a.wav', clips=<300 items>, scores=<float32 (300, 10)>)
    """

    def text_of(self: Any) -> str:
        values = ((field.name, getattr(self, field.name)) for field in dataclasses.fields(self) if field.repr)
        fields = ", ".join(f"{name}={_short(value)}" for name, value in values if value is not None)
        return f"{cls.__name__}({_cut(fields, MAX_CHARACTERS - len(cls.__name__) - 2)})"

    cls.__repr__ = text_of  # type: ignore[method-assign]  # as dataclass does
    return cls


def _short(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"<{value.dtype} {value.shape}>"
    if isinstance(value, tuple | list | Mapping) and len(value) > _N_WRITTEN_OUT:
        return f"<{len(value):,} items>"
    return _cut(repr(value), _MAX_OF_FIELD)


def _cut(text: str, n_characters: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= n_characters else f"{line[: n_characters - 3]}..."
