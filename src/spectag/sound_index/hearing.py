"""The tagger of an index: what it makes of sounds, and whether it is the one that made the index."""

from pathlib import Path

import numpy as np

from spectag.errors import DataError
from spectag.runtime import Tagger
from spectag.sound_index.info import IndexInfo

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
