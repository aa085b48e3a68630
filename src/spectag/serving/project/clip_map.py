"""The job that draws the map of a project's clips with a version of the model, and the file that it writes."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectag.array_types import BoolArray, Float32Array, IntArray
from spectag.config.base import Config, parse_config
from spectag.curation.embedding import Embedding
from spectag.data.clips import Manifest
from spectag.data.labels import LabelSet
from spectag.errors import DataError
from spectag.evaluation.predictions import predict_out_of_fold
from spectag.models.tagger import Tagger
from spectag.serving.field_types import RowNumber
from spectag.serving.project.database import ProjectDatabase
from spectag.serving.project.job_kinds import JobContext
from spectag.serving.project.label_clips import LABEL_SCHEMA, LabelledClip
from spectag.serving.project.map_layout import map_places
from spectag.serving.project.own_files import MAPS
from spectag.serving.project.versions import VERSION_SCHEMA, ModelVersions
from spectag.system.atomic_files import unfinished_file
from spectag.system.file_errors import reason_of
from spectag.system.regular_files import check_regular_file

KIND = "map"
_MAX_BYTES = 2**34
_MAX_REASONS = 20  # in the log


class MapQuery(Config):
    """The version of the model that the map is drawn with."""

    version: RowNumber


@dataclass(frozen=True, eq=False)
class ClipMap:
    """The places of clips, and what the model says about them. Arrays have a row for each clip."""

    method: str
    labels: tuple[str, ...]
    """Of the model."""
    numbers: IntArray
    """(n_clips,), of the clips in the project."""
    places: Float32Array
    """(n_clips, 2), from 0 to 1."""
    probabilities: NDArray[np.float16]
    """(n_clips, n_labels)"""
    detected: BoolArray
    """(n_clips, n_labels), whether the probability reaches the threshold."""
    is_held_out: BoolArray
    """(n_clips,), whether the probabilities are of networks that were not trained on the clip."""

    def write(self, path: Path) -> None:
        """Write the map; the file is complete or not there.

        Raises
        ------
        DataError
            If it can't be written.
        """
        arrays: dict[str, Any] = vars(self) | {
            "labels": np.array(self.labels, np.str_),
            "detected": np.packbits(self.detected, axis=1),
        }
        try:
            path.parent.mkdir(exist_ok=True)
            with unfinished_file(path) as unfinished, unfinished.open("wb") as file:
                np.savez(file, **arrays)
        except OSError as error:
            raise DataError(f"{path}: can't be written: {reason_of(error)}; see whether the disk is full") from error

    def select(self, numbers: Collection[int]) -> "ClipMap":
        """The map of some of the clips."""
        rows = np.flatnonzero(np.isin(self.numbers, list(numbers)))
        names = ("numbers", "places", "probabilities", "detected", "is_held_out")
        return replace(self, **{name: getattr(self, name)[rows] for name in names})

    def with_thresholds(self, old: Sequence[float], new: Sequence[float]) -> "ClipMap":
        """The map with other thresholds: labels whose threshold is the same keep what is detected out of fold."""
        before, after = np.array(old, np.float32), np.array(new, np.float32)
        detected = np.where(before == after, self.detected, self.probabilities >= after)
        return replace(self, detected=detected)

    @classmethod
    def read(cls, path: Path) -> "ClipMap":
        """Read a map.

        Raises
        ------
        DataError
            If it is damaged.
        """
        try:
            check_regular_file(path, max_bytes=_MAX_BYTES)
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                found = dict(arrays)
            labels = tuple(map(str, found["labels"]))
            detected = np.unpackbits(found["detected"], axis=1, count=len(labels)).astype(bool)
            read = cls(
                str(found["method"]),
                labels,
                found["numbers"],
                found["places"],
                found["probabilities"],
                detected,
                found["is_held_out"].astype(bool),
            )
        except Exception as error:  # numpy and zip archives raise many kinds of errors
            raise DataError(f"{path}: damaged: {error}; draw the map again") from error
        shapes = [array.shape for array in (read.places, read.probabilities, read.detected, read.is_held_out)]
        n_clips, n_labels = len(read.numbers), len(labels)
        if shapes != [(n_clips, 2), (n_clips, n_labels), (n_clips, n_labels), (n_clips,)]:
            raise DataError(f"{path}: damaged: the arrays have the shapes {shapes}; draw the map again")
        if read.numbers.dtype.kind != "i" or not (
            np.isfinite(read.places).all() and np.isfinite(read.probabilities).all()
        ):
            raise DataError(f"{path}: damaged: not all numbers are finite; draw the map again")
        return read


def map_path(project: Path, version: int) -> Path:
    """The file with the map of a version."""
    return project / MAPS / f"{version:04}.npz"


def draw_map(context: JobContext, query: Mapping[str, Any]) -> dict[str, Any]:
    """Draw the map of a `MapQuery`: all clips of the project that are not dropped.

    Returns
    -------
    dict
        The number of clips, the method, and how many clips can't be read.

    Raises
    ------
    DataError
        If there is no clip, none can be read, or the version does not exist.
    """
    version = parse_config(dict(query), MapQuery, source="the job").version
    folder, clips = _version_and_clips(context.folder, version)
    if not clips:
        raise DataError("the project has no clips; import labels or recordings first")
    tagger = Tagger(folder)
    manifest = Manifest(context.folder / "labels.csv", tuple(one.clip for one in clips), _known_labels(clips))
    numbers = {id(clip): one.number for clip, one in zip(manifest.clips, clips, strict=True)}
    found = predict_out_of_fold(tagger, manifest, features=True, progress=context.progress, log=context.log)
    assert found.features is not None
    context.progress("placing the clips", 0, 0)
    vectors = Embedding.fit(found.features)(found.features)
    places, method = map_places(vectors, rng=np.random.default_rng(0))
    ClipMap(
        method,
        found.labels.names,
        np.array([numbers[id(clip)] for clip in found.clips], np.int64),
        places,
        found.probabilities.astype(np.float16),
        found.probabilities >= found.thresholds,
        np.array([origin != "train" for origin in found.origins], np.bool_),
    ).write(map_path(context.folder, version))
    for _, reason in found.skipped[:_MAX_REASONS]:
        context.log(f"skipped: {reason}")
    return {"version": version, "n_clips": len(found.clips), "n_skipped": len(found.skipped), "method": method}


def _version_and_clips(project: Path, number: int) -> tuple[Path, list[LabelledClip]]:
    database = ProjectDatabase(project, (*VERSION_SCHEMA, *LABEL_SCHEMA))
    try:
        version = ModelVersions(database, project).get(number)
        rows = database.rows("SELECT * FROM clip WHERE NOT is_dropped ORDER BY number")
    finally:
        database.close()
    if version is None:
        raise DataError(f"{project}: there is no version {number} of the model any more; draw the map again")
    return version.folder, [LabelledClip.of_row(row) for row in rows]


def _known_labels(clips: Sequence[LabelledClip]) -> LabelSet:
    names = {name for one in clips for name in (*one.state.labels, *one.state.unknown)}
    return LabelSet(tuple(sorted(names)) or ("",))


@dataclass(frozen=True)
class Disagreement:
    """How the labels of a clip differ most from what the model detects without having been trained on it."""

    kind: str
    """agrees, missed (labelled, but not detected), extra (detected, but not labelled), or unknown."""
    label: str = ""
    probability: float | None = None


UNKNOWN, AGREES = Disagreement("unknown"), Disagreement("agrees")


def disagreements(clips: Mapping[int, LabelledClip], drawn: ClipMap, labels: Sequence[str]) -> list[Disagreement]:
    """How the labels of each clip of a map differ from the predictions.

    Parameters
    ----------
    clips : mapping of int to LabelledClip
        By number, as they are now.
    drawn : ClipMap
    labels : sequence of str
        Those that the project uses: others that the model detects are not counted as differences.

    Returns
    -------
    list of Disagreement
        One for each row of the map.
    """
    columns = {name: drawn.labels.index(name) for name in labels if name in drawn.labels}
    used = np.fromiter(columns.values(), np.int64, len(columns))
    detected = drawn.detected[:, used]
    result: list[Disagreement] = []
    for row, number in enumerate(drawn.numbers.tolist()):
        clip = clips.get(number)
        if clip is None or not clip.state.is_labelled or not drawn.is_held_out[row]:
            result.append(UNKNOWN)
            continue
        true = [columns[name] for name in clip.state.labels if name in columns]
        ignored = {*true, *(columns[name] for name in clip.state.unknown if name in columns)}
        extra = [column for column in used[detected[row]].tolist() if column not in ignored]
        missed = [column for column in true if not drawn.detected[row, column]]
        result.append(_worst(drawn, row, missed, extra))
    return result


def _worst(drawn: ClipMap, row: int, missed: Sequence[int], extra: Sequence[int]) -> Disagreement:
    values = drawn.probabilities[row]
    options = [(1 - float(values[column]), "missed", column) for column in missed]
    options += [(float(values[column]), "extra", column) for column in extra]
    if not options:
        return AGREES
    _, kind, column = max(options)
    return Disagreement(kind, drawn.labels[column], round(float(values[column]), 3))
