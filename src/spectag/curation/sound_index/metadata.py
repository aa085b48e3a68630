"""The metadata of a sound index, in index.json: its model, labels, windows and search engine."""

from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from spectag.config.base import Channel, Config, WindowConfig
from spectag.errors import DataError
from spectag.models.limits import MAX_LABELS, Quantity
from spectag.models.tagger import Tagger
from spectag.models.versioned_json import read_versioned_json, write_versioned_json

INDEX_INFO_FILE = "index.json"
INDEX_FORMAT_VERSION = 3
SearchEngine = Literal["auto", "exact", "usearch"]


class IndexInfo(Config):
    """The content of index.json."""

    format_version: int = Field(INDEX_FORMAT_VERSION, ge=0, le=1_000)
    model: str
    """Name of a pretrained model, or the folder of a model."""
    labels: tuple[str, ...] = Field(max_length=MAX_LABELS)
    window: WindowConfig
    channel: Channel | None = None
    """How several channels become one; None: as in the training of the model."""
    engine: SearchEngine = "auto"
    """exact compares a query with all vectors, usearch searches a graph; auto decides by the number of vectors."""
    has_words: bool = False
    """Whether its vectors are those of CLAP, which can be compared with those of texts."""
    probe: tuple[Quantity, ...] = Field(min_length=2, max_length=1_000)
    """Features of a test sound, which identify the model."""


def is_index(folder: Path) -> bool:
    """Whether a folder contains an index."""
    return (folder / INDEX_INFO_FILE).is_file()


def read_index_info(folder: Path) -> IndexInfo:
    """Read index.json.

    Raises
    ------
    DataError
        If there is no index, it has another format version, or it is damaged.
    """
    reason = f"no file {INDEX_INFO_FILE}" if folder.is_dir() else "no such folder"
    return read_versioned_json(
        folder / INDEX_INFO_FILE,
        IndexInfo,
        version=INDEX_FORMAT_VERSION,
        missing=f"{folder}: not an index: {reason}; expected a folder that `spectag index -o` wrote",
        outdated="index the recordings again",
        error_type=DataError,
    )


def write_index_info(folder: Path, info: IndexInfo) -> None:
    """Write index.json."""
    write_versioned_json(folder / INDEX_INFO_FILE, info)


_PROBE_SAMPLE_RATE = 32_000  # Hz
_N_MEANS = 16
_TOLERANCE = 1e-3  # relative to the norm of the means; between machines they differ by about 1e-6


def probe(tagger: Tagger) -> tuple[float, ...]:
    """Numbers that identify a model's features: their number, and means of groups of them for a rising tone."""
    t = np.arange(_PROBE_SAMPLE_RATE) / _PROBE_SAMPLE_RATE
    tone = 0.3 * np.sin(2 * np.pi * (100 * t + 3_000 * t**2)) * np.sin(2 * np.pi * 3 * t)
    features = tagger.outputs(tone.astype(np.float32), _PROBE_SAMPLE_RATE).features
    means = [float(group.mean()) for group in np.array_split(features, min(_N_MEANS, len(features)))]
    return (len(features), *means)


def check_tagger(folder: Path, info: IndexInfo, tagger: Tagger) -> None:
    """Raise a DataError if the vectors of an index were computed with another model."""
    (n_features, *means), (n_expected, *expected) = probe(tagger), info.probe
    tolerance = _TOLERANCE * np.linalg.norm(expected)
    if n_features == n_expected and np.linalg.norm(np.subtract(means, expected)) <= tolerance:
        return
    raise DataError(
        f"{folder}: the index was made with the model {info.model}, whose features differ from those of "
        f"{tagger.folder}; use that model, or index the recordings again in another folder"
    )
