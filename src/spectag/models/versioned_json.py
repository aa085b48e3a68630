"""JSON files with a format version, such as spectag.json: written from a pydantic model and validated when read."""

import json
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from spectag.errors import SpectagError
from spectag.system.atomic_files import unfinished_file

ModelT = TypeVar("ModelT", bound=BaseModel)


def write_versioned_json(path: Path, model: BaseModel, *, exclude: set[str] | None = None) -> None:
    """Write a model with a field `format_version`, without the excluded fields.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    text = json.dumps(model.model_dump(mode="json", exclude=exclude), indent=2, ensure_ascii=False)
    with unfinished_file(path) as unfinished:
        unfinished.write_text(text + "\n", encoding="utf-8")


def read_versioned_json(
    path: Path, model_type: type[ModelT], *, version: int, missing: str, outdated: str, error_type: type[SpectagError]
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

    Raises
    ------
    SpectagError
        Of `error_type`, if the file does not exist, has another format version, or is damaged.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise error_type(missing) from error
    except (OSError, ValueError) as error:
        raise error_type(f"{path}: cannot be read: {error}") from error
    found = values.get("format_version") if isinstance(values, dict) else None
    if found != version:
        is_newer = isinstance(found, int) and found > version
        raise error_type(
            f"{path}: format version {found!r}, but this version of spectag reads version {version}; "
            f"{'update spectag' if is_newer else outdated}"
        )
    try:
        return model_type.model_validate(values)
    except ValidationError as error:
        problem = error.errors()[0]
        location = f" at {'.'.join(map(str, problem['loc']))}" if problem["loc"] else ""
        raise error_type(f"{path}: damaged{location}: {problem['msg'].removeprefix('Value error, ')}") from error
