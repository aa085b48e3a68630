"""Out-of-fold predictions: stored with a tagger, to score it on its training clips and to recalibrate it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from spectag.array_types import BoolArray, FloatArray, IntArray
from spectag.data.clips import Manifest
from spectag.data.labels import LabelSet
from spectag.data.readers.delimited_text import open_table, read_text
from spectag.errors import BundleError, DataError
from spectag.models.bundle import read_info
from spectag.models.versioned_json import parse_json
from spectag.scoring.calibration import DEFAULT_THRESHOLD, CalibrationMethod, CrossFitted, clipped_logit, cross_fit
from spectag.scoring.thresholds import BEST_F1, ThresholdGoal
from spectag.system.atomic_files import unfinished_file
from spectag.system.output import csv_writer, escape_formula
from spectag.system.regular_files import check_regular_file

OUT_OF_FOLD_FILE = "predictions.csv"
"""The clips that a tagger was trained on."""
CALIBRATION_FILE = "calibration.csv"
"""The clips of another manifest on which calibration and thresholds were fitted, if there is one."""
OUT_OF_FOLD_COLUMNS = ("fname", "start", "end", "fold", "group", "labels", "key")
CLIP_COLUMNS = frozenset({"", *OUT_OF_FOLD_COLUMNS, "label", "unknown_labels", "duration", "origin", "threshold"})
"""Columns of tables of predictions, in lower case, that do not contain the probabilities of a label."""
LABEL_SUFFIX = " (label)"
"""Appended to the name of a label that has the name of one of these columns."""
MIN_CLIPS = 3
"""How many clips with a label are needed to fit its curve and threshold on a manifest."""
N_CROSS_FITTING_FOLDS = 5
_MAX_BYTES = 10_000_000_000  # of a file


@dataclass(frozen=True, eq=False)
class OutOfFoldPredictions:
    """The clips that a tagger was trained or calibrated on, with predictions of networks trained without each clip.

    `logits` (n_clips, n_labels) are not calibrated, and NaN for clips without a prediction. `spans` are start and end
    in seconds. `folds` are the names of the folds in which the clips were held out, or "". `keys` are hashes of the
    clips' content. `known` (n_clips, n_labels) says for which labels the truth is known; None means all of them.
    """

    labels: LabelSet
    fnames: tuple[str, ...]
    spans: tuple[tuple[float, float | None], ...]
    folds: tuple[str, ...]
    groups: tuple[str, ...]
    keys: tuple[str, ...]
    y_true: BoolArray
    logits: FloatArray
    known: BoolArray | None = None

    @cached_property
    def targets(self) -> FloatArray:
        """The truth (n_clips, n_labels): 1, 0, or NaN for an unknown label."""
        return np.where(True if self.known is None else self.known, self.y_true, np.nan)

    @cached_property
    def has_prediction(self) -> BoolArray:
        """Which clips were held out in training, (n_clips,)."""
        return np.logical_not(np.isnan(self.logits).any(axis=1))

    @property
    def labels_with_enough_clips(self) -> BoolArray:
        """Which labels at least MIN_CLIPS clips with a prediction have, (n_labels,)."""
        return np.asarray(self.y_true[self.has_prediction].sum(axis=0) >= MIN_CLIPS)

    @cached_property
    def fold_indices(self) -> IntArray:
        """The fold of each clip for cross-fitting, by `cross_fitting_folds`; -1 for clips without a prediction."""
        rows = np.flatnonzero(self.has_prediction)
        indices = np.full(len(self.fnames), -1, np.int64)
        indices[rows] = cross_fitting_folds([self.groups[row] for row in rows])
        return indices

    def cross_fitted(
        self, *, method: CalibrationMethod = "auto", goal: ThresholdGoal = BEST_F1, only_labels: BoolArray | None = None
    ) -> CrossFitted:
        """Probabilities and thresholds (n_clips, n_labels), with those of each clip fitted on the other folds.

        NaN for clips without a prediction. With fewer than two folds, the probabilities are not calibrated and the
        thresholds are the default. `only_labels`, a bool array (n_labels,), restricts fit and result to some labels.
        """
        columns = slice(None) if only_labels is None else only_labels
        logits = self.logits[:, columns]
        if self.fold_indices.max(initial=-1) > 0:
            truth = self.targets[:, columns]
            return cross_fit(logits, truth, self.fold_indices, method=method, goal=goal, groups=self.groups)
        return CrossFitted(expit(logits), np.where(np.isnan(logits), np.nan, DEFAULT_THRESHOLD))

    def with_training_clips(self, others: "OutOfFoldPredictions") -> "OutOfFoldPredictions":
        """These clips and other training clips without predictions, except copies of these."""
        known_keys = set(self.keys)
        rows = [row for row, key in enumerate(others.keys) if key not in known_keys]
        return OutOfFoldPredictions(
            self.labels,
            (*self.fnames, *(others.fnames[row] for row in rows)),
            (*self.spans, *(others.spans[row] for row in rows)),
            (*self.folds, *("" for _ in rows)),
            (*self.groups, *(others.groups[row] for row in rows)),
            (*self.keys, *(others.keys[row] for row in rows)),
            np.concatenate([self.y_true, others.y_true[rows]]),
            np.concatenate([self.logits, np.full((len(rows), len(self.labels)), np.nan)]),
            ~np.isnan(np.concatenate([self.targets, others.targets[rows]])),
        )


def cross_fitting_folds(groups: Sequence[str]) -> IntArray:
    """The fold of each clip for fitting calibration and thresholds on the other clips, from 0, (n_clips,).

    Five folds, or fewer with fewer recordings (groups), whose clips stay together. All clips are in fold 0 if there is
    only one recording.

    The recordings are dealt by chance (always the same for the same groups), not by label, and regardless of the folds
    that the networks were trained in. In folds with equal label frequencies, the other folds reveal how often each
    label occurs in a fold. Calibration would learn it as the label's prior probability, and the scores of the
    calibrated probabilities would be better than those of new clips.
    """
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    n_folds = max(1, min(N_CROSS_FITTING_FOLDS, len(numbers)))
    fold_of_group = np.random.default_rng(0).permutation(len(numbers)) % n_folds
    return fold_of_group[[numbers[group] for group in groups]]


def portable_clip_names(manifest: Manifest) -> tuple[str, ...]:
    """The file of each clip as the manifest names it; absolute paths are made relative to their common folder.

    So a shared tagger does not reveal the folders of this machine.
    """
    paths = [PurePath(clip.fname) for clip in manifest.clips]
    folders = zip(*(path.parent.parts for path in paths if path.is_absolute()), strict=False)
    n_shared = sum(1 for _ in takewhile(lambda names: len(set(names)) == 1, folders))
    return tuple(
        PurePath(*path.parts[n_shared:]).as_posix() if path.is_absolute() else clip.fname
        for path, clip in zip(paths, manifest.clips, strict=True)
    )


def portable_group_names(manifest: Manifest) -> tuple[str, ...]:
    """The group of each clip, by a name that does not reveal the folders of this machine."""
    names: dict[str, str] = {}
    for group, clip, name in zip(manifest.groups, manifest.clips, portable_clip_names(manifest), strict=True):
        names.setdefault(group, clip.group or name)
    return tuple(names[group] for group in manifest.groups)


def label_columns(labels: LabelSet) -> tuple[str, ...]:
    """The column of each label in a table of predictions: its name, with a suffix if another column has this name."""
    return tuple(f"{label}{LABEL_SUFFIX}" if label.lower() in CLIP_COLUMNS else label for label in labels.names)


def write_out_of_fold(path: Path, clips: OutOfFoldPredictions) -> None:
    """Write the clips as CSV: their properties, then a column of uncalibrated probabilities for each label.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    with (
        unfinished_file(path) as unfinished,
        unfinished.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):  # file names may contain bytes that are not valid in any encoding
        write_row = csv_writer(file, exact=True)  # most fields are numbers
        write_row([*OUT_OF_FOLD_COLUMNS, *map(escape_formula, label_columns(clips.labels))])
        names = np.array(clips.labels.names)
        for row, (start, end) in enumerate(clips.spans):
            # a label may contain a comma
            labels = json.dumps(_label_field(names, clips.targets[row]), ensure_ascii=False)
            times = [f"{start!r}" if start else "", "" if end is None else f"{end!r}"]
            probabilities = ["" if np.isnan(z) else f"{expit(z):.10g}" for z in clips.logits[row]]
            properties = clips.folds[row], escape_formula(clips.groups[row]), labels, clips.keys[row]
            write_row([escape_formula(clips.fnames[row]), *times, *properties, *probabilities])


def _label_field(names: NDArray[np.str_], targets: FloatArray) -> list[str] | dict[str, list[str]]:
    """The true labels of a clip and, if there are any, the unknown ones."""
    labels, unknown = names[targets == 1].tolist(), names[np.isnan(targets)].tolist()
    return {"true": labels, "unknown": unknown} if unknown else labels


def _read_label_field(field: str, labels: LabelSet) -> FloatArray:
    """The targets (n_labels,) of a clip."""
    value = parse_json(field)
    true, unknown = (value["true"], value["unknown"]) if isinstance(value, dict) else (value, [])
    targets = np.zeros(len(labels))
    targets[[labels.index(label) for label in true]] = 1
    targets[[labels.index(label) for label in unknown]] = np.nan
    return targets


def read_out_of_fold(bundle: str | Path, file: str = OUT_OF_FOLD_FILE) -> OutOfFoldPredictions | None:
    """The clips that a tagger was trained on, or those of CALIBRATION_FILE; None if the file does not exist.

    A tagger that extends a published model has out-of-fold predictions of its own labels only.

    Raises
    ------
    BundleError
        If the file is damaged, or belongs to another tagger.
    """
    path = Path(bundle) / file
    if not path.exists():
        return None
    info = read_info(bundle)
    labels = LabelSet(info.own_labels) if file == OUT_OF_FOLD_FILE else info.label_set
    try:
        check_regular_file(path, max_bytes=_MAX_BYTES)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}; copy the complete model again") from error
    table = open_table(path, read_text(path), ",")
    if table.columns != (*OUT_OF_FOLD_COLUMNS, *label_columns(labels)):
        raise BundleError(f"{path}: the columns do not match the {len(labels)} labels; train the tagger again")
    try:
        rows = [fields for _, fields in table.records]
        label_fields = [row[OUT_OF_FOLD_COLUMNS.index("labels")] for row in rows]
        targets = np.array([_read_label_field(field, labels) for field in label_fields])
        n_columns = len(OUT_OF_FOLD_COLUMNS)
        probabilities = np.array([[field or "nan" for field in row[n_columns:]] for row in rows], np.float64)
        spans = tuple((float(start or 0), float(end) if end else None) for _, start, end, *_ in rows)
    except (ValueError, KeyError, TypeError, DataError) as error:
        raise BundleError(f"{path}: damaged: {error}; train the tagger again") from error
    if not rows:
        raise BundleError(f"{path}: damaged: the file has no clips; train the tagger again")
    fnames, _, _, folds, groups, _, keys = list(zip(*rows, strict=True))[:n_columns]
    logits = clipped_logit(probabilities)
    return OutOfFoldPredictions(labels, fnames, spans, folds, groups, keys, targets == 1, logits, ~np.isnan(targets))
