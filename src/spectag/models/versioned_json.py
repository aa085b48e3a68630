"""JSON files with a format version, such as spectag.json: written from a pydantic model and validated when read."""

import json
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from spectag.errors import SpectagError
from spectag.system.atomic_files import unfinished_file
from spectag.system.output import text_problem
from spectag.system.regular_files import read_regular_file

MAX_JSON_BYTES = 64_000_000
"""Of a file. That of a model with 15,000 labels has 3 MB, and with isotonic curves of 1,000 labels up to 20 MB."""
MAX_JSON_VALUES = 2_000_000
"""In a file, about. Parsing the worst of them takes 0.4 GB."""
MAX_JSON_DEPTH = 32
"""Of nested lists and objects. Our files have at most eight levels."""
_MAX_SHOWN = 40  # characters of a value in a message
_MAX_DIGITS = 20  # of an integer; more digits than 64 bits have

ModelT = TypeVar("ModelT", bound=BaseModel)


def write_versioned_json(path: Path, model: BaseModel, *, exclude: set[str] | None = None) -> None:
    """Write a model with a field `format_version`, without the excluded fields.

    Raises
    ------
    OSError
        If the file cannot be written.
    ValueError
        If it would be too large to be read again.
    """
    text = json.dumps(model.model_dump(mode="json", exclude=exclude), indent=2, ensure_ascii=False)
    _check_n_values(text)
    content = f"{text}\n".encode()
    if len(content) > MAX_JSON_BYTES:
        raise ValueError(f"it has {len(content):,} bytes, expected at most {MAX_JSON_BYTES:,}")
    with unfinished_file(path) as unfinished:
        unfinished.write_bytes(content)


def read_versioned_json(
    path: Path,
    model_type: type[ModelT],
    *,
    version: int,
    missing: str,
    outdated: str,
    error_type: type[SpectagError],
    upgrades: Mapping[int, str] = MappingProxyType({}),
) -> ModelT:
    """Read a file that `write_versioned_json` wrote.

    Parameters
    ----------
    path : Path
    model_type : subclass of BaseModel
    version : int
        The format version that this version of spectag reads.
    missing : str
        The error message if there is no such file.
    outdated : str
        What to do with a file of an older format version.
    error_type : subclass of SpectagError
    upgrades : mapping from int to str
        What to do with a file of one of these versions, which can be upgraded.

    Raises
    ------
    SpectagError
        Of `error_type`, if the file does not exist, has another format version, or is damaged.
    """
    try:
        values = parse_json(read_regular_file(path, max_bytes=MAX_JSON_BYTES).decode("utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise error_type(missing) from error
    except OSError as error:
        raise error_type(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise error_type(f"{path}: cannot be read: {error}") from error
    found = values.get("format_version") if isinstance(values, dict) else None
    if found != version:
        is_newer = isinstance(found, int) and found > version
        remedy = upgrades.get(found, outdated) if isinstance(found, int) else outdated
        raise error_type(
            f"{path}: format version {_short(found)}, but this version of spectag reads version {version}; "
            f"{'update spectag' if is_newer else remedy}"
        )
    try:
        return model_type.model_validate(values)
    except ValidationError as error:
        raise error_type(f"{path}: damaged{problem_of(error)}") from error


def problem_of(error: ValidationError) -> str:
    """The first problem, and where it is: " at labels.1: ..."."""
    problem = error.errors()[0]
    location = f" at {'.'.join(map(str, problem['loc']))}" if problem["loc"] else ""
    return f"{location}: {problem['msg'].removeprefix('Value error, ')}"


def _short(value: Any) -> str:
    """The representation of a value, shortened for a message."""
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def parse_json(text: str) -> Any:
    """The value of a JSON text from a stranger.

    Stricter than `json.loads`: NaN, infinite and huge numbers, repeated keys, deep nesting, too many values, control
    characters other than tabs and line breaks, and half characters (unpaired surrogates), which cannot be written to a
    file, are refused.

    Raises
    ------
    ValueError
        If the text is not JSON, or one of these.

    Examples
    --------
    >>> parse_json('{"a": [1, 2.5]}')
    {'a': [1, 2.5]}
    """
    _check_n_values(text)
    try:
        value = json.loads(
            text,
            object_pairs_hook=_object_without_duplicates,
            parse_constant=_refuse_constant,
            parse_float=_finite_float,
            parse_int=_short_integer,
        )
    except RecursionError:
        raise ValueError(f"lists and objects are nested more than {MAX_JSON_DEPTH} deep") from None
    _check_depth_and_text(value)
    return value


def _check_n_values(text: str) -> None:
    n_values = sum(map(text.count, ",[{"))
    if n_values > MAX_JSON_VALUES:
        raise ValueError(f"it has about {n_values:,} values, expected at most {MAX_JSON_VALUES:,}")


def _object_without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        duplicate = next(key for key, count in counts.items() if count > 1)
        raise ValueError(f"the key {_short(duplicate)} occurs twice in an object")
    return values


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number of JSON")


def _finite_float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:_MAX_SHOWN]} is too large")
    return number


def _short_integer(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"an integer has {len(text)} digits, expected at most {_MAX_DIGITS}")
    return int(text)


def _check_depth_and_text(value: Any) -> None:
    """Raise a ValueError if a value is nested too deep, or contains text that cannot be encoded."""
    level = [value]
    for _ in range(MAX_JSON_DEPTH + 1):
        children: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                children.extend(item)
                children.extend(item.values())
            elif isinstance(item, list):
                children.extend(item)
            elif isinstance(item, str):
                _check_text(item)
        if not children:
            return
        level = children
    raise ValueError(f"lists and objects are nested more than {MAX_JSON_DEPTH} deep")


def _check_text(text: str) -> None:
    if problem := text_problem(text):
        raise ValueError(f"the text {_short(text)} contains {problem}")
