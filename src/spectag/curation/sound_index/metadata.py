"""What an index is, in index.json: by which tagger its sounds are known, and in which windows."""

import json
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, ValidationError

from spectag.config.base import Config, WindowConfig
from spectag.errors import DataError
from spectag.models.tagger import Tagger
from spectag.system.atomic_files import unfinished_file

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


_RATE = 32_000  # Hz
_N_MEANS = 16
_TOLERANCE = 1e-3  # of the length of all means; between machines they differ by a millionth


def probe(tagger: Tagger) -> tuple[float, ...]:
    """What tells a tagger's features from those of others: the number of them, and means of some, of a rising tone."""
    t = np.arange(_RATE) / _RATE
    tone = 0.3 * np.sin(2 * np.pi * (100 * t + 3_000 * t**2)) * np.sin(2 * np.pi * 3 * t)
    features = tagger.answer(tone.astype(np.float32), _RATE).features
    means = [float(some.mean()) for some in np.array_split(features, min(_N_MEANS, len(features)))]
    return (len(features), *means)


def check_tagger(folder: Path, info: IndexInfo, tagger: Tagger) -> None:
    """Raise a DataError if the vectors of an index are not those of a tagger."""
    (n_features, *means), (n_known, *known) = probe(tagger), info.probe
    if n_features == n_known and np.linalg.norm(np.subtract(means, known)) <= _TOLERANCE * np.linalg.norm(known):
        return
    raise DataError(
        f"{folder}: was made by another tagger, {info.model}, than {tagger.folder} is now: their features differ, so "
        "that sounds can't be compared; take that tagger, or index the recordings again, into another folder"
    )
