"""What an index is, in index.json: by which tagger its sounds are known, and in which windows."""

import json
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from spectag.config import Config, WindowConfig
from spectag.errors import DataError
from spectag.files import unfinished_file

INFO_FILE = "index.json"
FORMAT_VERSION = 1
Engine = Literal["auto", "exact", "usearch"]


class IndexInfo(Config):
    """What is told of an index."""

    format_version: int = FORMAT_VERSION
    model: str
    """Name of a published tagger, or the folder of one."""
    labels: tuple[str, ...]
    window: WindowConfig
    engine: Engine = "auto"
    """How the nearest vectors are found: exact looks at all, usearch follows a graph; auto: by their number."""
    probe: tuple[float, ...] = Field(min_length=2)
    """What the tagger makes of a known sound: another tagger makes something else."""


def is_index(folder: Path) -> bool:
    """Whether a folder holds an index."""
    return (folder / INFO_FILE).is_file()


def read_info(folder: Path) -> IndexInfo:
    """Read index.json.

    Raises
    ------
    DataError
        If there is no index, or it was written by a later version, or is damaged.
    """
    path = folder / INFO_FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(
            f"{folder}: not an index: {f'it has no {INFO_FILE}' if folder.is_dir() else 'there is no such folder'}; "
            "expected a folder that `spectag index -o` made"
        ) from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: can't be read: {error}") from error
    version = values.get("format_version") if isinstance(values, dict) else None
    if version != FORMAT_VERSION:
        raise DataError(
            f"{path}: format version {version!r}, but this spectag reads version {FORMAT_VERSION}; update spectag, or "
            "index the recordings again"
        )
    try:
        return IndexInfo.model_validate(values)
    except ValidationError as error:
        problem = error.errors()[0]
        raise DataError(f"{path}: damaged at {'.'.join(map(str, problem['loc']))}: {problem['msg']}") from error


def write_info(folder: Path, info: IndexInfo) -> None:
    """Write index.json."""
    text = json.dumps(info.model_dump(mode="json"), indent=2, ensure_ascii=False)
    with unfinished_file(folder / INFO_FILE) as unfinished:
        unfinished.write_text(text + "\n", encoding="utf-8")
