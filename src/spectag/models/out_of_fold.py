"""What networks said of clips that they did not see: kept with the tagger, to judge and to adjust it by."""

import csv
import json
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from pathlib import Path, PurePath

import numpy as np
from scipy.special import expit, logit

from spectag.array_types import BoolArray, FloatArray, IntArray
from spectag.data.clips import Manifest
from spectag.data.folds import stratified_folds
from spectag.data.labels import LabelSet
from spectag.data.readers.delimited_text import open_table, read_text
from spectag.errors import BundleError, DataError
from spectag.models.bundle import read_info
from spectag.scoring.calibration import DEFAULT_THRESHOLD, CrossFitted, Method, cross_fitted
from spectag.scoring.thresholds import BEST_F1, ThresholdGoal
from spectag.system.atomic_files import unfinished_file

PREDICTIONS_FILE = "predictions.csv"
"""Of the clips that a tagger was trained on."""
CALIBRATION_FILE = "calibration.csv"
"""Of the other clips that its calibration and thresholds were fitted on, if there were such."""
COLUMNS = ("fname", "start", "end", "fold", "group", "labels", "key")
CLIP_COLUMNS = frozenset({"", *COLUMNS, "label", "duration", "origin", "threshold"})
"""Columns of tables of predictions, in small letters, that hold no label's probabilities."""
LABEL_MARK = " (label)"
"""After the name of a label that is called like one of these columns."""
MIN_CLIPS = 3
"""That must have a label, for the label's curve and threshold to be fitted anew on a manifest."""
N_PARTS = 5
_LEAST_FOLDS = 3  # that are parts by themselves; of fewer, the clips are dealt anew
_SUREST = 23.0  # a logit whose probability still differs from 1 in ten digits


@dataclass(frozen=True, eq=False)
class OutOfFoldPredictions:
    """The clips that a tagger was trained on, or adjusted by, and what networks that had not seen a clip said of it.

    `logits` (n_clips, n_labels), not calibrated, are NaN in the rows of clips that were never held out. `folds` name
    the part in which a clip was held out, "" where it was in none. `keys` tell the clips' content.
    """

    labels: LabelSet
    fnames: tuple[str, ...]
    stretches: tuple[tuple[float, float | None], ...]
    folds: tuple[str, ...]
    groups: tuple[str, ...]
    keys: tuple[str, ...]
    y_true: BoolArray
    logits: FloatArray

    @cached_property
    def seen(self) -> BoolArray:
        """Which clips were held out, of shape (n_clips,)."""
        seen: BoolArray = np.logical_not(np.isnan(self.logits).any(axis=1))
        return seen

    @property
    def told(self) -> BoolArray:
        """Which labels enough of the held-out clips have to tell of them, of shape (n_labels,)."""
        told: BoolArray = self.y_true[self.seen].sum(axis=0) >= MIN_CLIPS
        return told

    @cached_property
    def parts(self) -> IntArray:
        """Parts of the held-out clips to fit on and to judge by turns, numbered from 0; -1 for the other clips.

        Where there are three folds or more, they are the parts. Else the clips are dealt out anew, each recording
        into one part; all are in part 0 where there are too few recordings for two.
        """
        parts = np.full(len(self.fnames), -1, np.int64)
        folds = np.array(self.folds)[self.seen]
        groups = np.array(self.groups)[self.seen]
        names, numbers = np.unique(folds, return_inverse=True)
        if len(names) >= _LEAST_FOLDS:
            parts[self.seen] = numbers
            return parts
        n_parts = min(N_PARTS, len(np.unique(groups)))
        dealt = n_parts > 1
        parts[self.seen] = stratified_folds(self.y_true[self.seen], n_parts, groups=groups) - 1 if dealt else 0
        return parts

    def judged(
        self, *, method: Method = "auto", goal: ThresholdGoal = BEST_F1, of_labels: BoolArray | None = None
    ) -> CrossFitted:
        """Probabilities and thresholds (n_clips, n_labels), of each clip by calibration and goal on the other parts.

        NaN for clips that were not held out. Where there are not two parts, the probabilities are the plain ones and
        the thresholds the default. With `of_labels`, a bool array (n_labels,), by these labels and of them alone.
        """
        columns = slice(None) if of_labels is None else of_labels
        logits = self.logits[:, columns]
        if self.parts.max(initial=-1) > 0:
            return cross_fitted(logits, self.y_true[:, columns], self.parts, method=method, goal=goal)
        return CrossFitted(expit(logits), np.where(np.isnan(logits), np.nan, DEFAULT_THRESHOLD))

    def with_training_clips(self, others: "OutOfFoldPredictions") -> "OutOfFoldPredictions":
        """With others that were learnt from and never held out; copies of its own clips are left out."""
        own = set(self.keys)
        new = [row for row, key in enumerate(others.keys) if key not in own]
        return OutOfFoldPredictions(
            self.labels,
            (*self.fnames, *(others.fnames[row] for row in new)),
            (*self.stretches, *(others.stretches[row] for row in new)),
            (*self.folds, *("" for _ in new)),
            (*self.groups, *(others.groups[row] for row in new)),
            (*self.keys, *(others.keys[row] for row in new)),
            np.concatenate([self.y_true, others.y_true[new]]),
            np.concatenate([self.logits, np.full((len(new), len(self.labels)), np.nan)]),
        )


def names_of_clips(manifest: Manifest) -> tuple[str, ...]:
    """The file of each clip as the manifest names it; of absolute paths, what lies below the folder that all share.

    So nothing of this machine goes out with a tagger.
    """
    paths = [PurePath(clip.fname) for clip in manifest.clips]
    folders = zip(*(path.parent.parts for path in paths if path.is_absolute()), strict=False)
    n_shared = sum(1 for _ in takewhile(lambda names: len(set(names)) == 1, folders))
    return tuple(
        PurePath(*path.parts[n_shared:]).as_posix() if path.is_absolute() else clip.fname
        for path, clip in zip(paths, manifest.clips, strict=True)
    )


def group_names(manifest: Manifest) -> tuple[str, ...]:
    """The group of each clip, by a name that tells nothing of this machine."""
    names: dict[str, str] = {}
    for group, clip, name in zip(manifest.groups, manifest.clips, names_of_clips(manifest), strict=True):
        names.setdefault(group, clip.group or name)
    return tuple(names[group] for group in manifest.groups)


def label_columns(labels: LabelSet) -> tuple[str, ...]:
    """The column of each label in a table of predictions: its name, unless a column is called so already."""
    return tuple(f"{label}{LABEL_MARK}" if label.lower() in CLIP_COLUMNS else label for label in labels.names)


def write_out_of_fold(path: Path, clips: OutOfFoldPredictions) -> None:
    """Write the clips as CSV: what they are, then a column of probabilities, not calibrated, for each label.

    Raises
    ------
    OSError
        If it can't be written.
    """
    with (
        unfinished_file(path) as unfinished,
        unfinished.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):  # names of files may hold bytes that no encoding knows
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*COLUMNS, *label_columns(clips.labels)])
        names = np.array(clips.labels.names)
        for i, (start, end) in enumerate(clips.stretches):
            labels = json.dumps(names[clips.y_true[i]].tolist(), ensure_ascii=False)  # a label may hold a comma
            told = clips.folds[i], clips.groups[i], labels, clips.keys[i]
            times = [f"{start!r}" if start else "", "" if end is None else f"{end!r}"]
            probabilities = ["" if np.isnan(z) else f"{expit(z):.10g}" for z in clips.logits[i]]
            writer.writerow([clips.fnames[i], *times, *told, *probabilities])


def read_out_of_fold(bundle: str | Path, file: str = PREDICTIONS_FILE) -> OutOfFoldPredictions | None:
    """The clips that a tagger was trained on, or those of CALIBRATION_FILE; None of a tagger that came without them.

    Raises
    ------
    BundleError
        If the file is damaged, or is another tagger's.
    """
    path = Path(bundle) / file
    if not path.exists():
        return None
    labels = read_info(bundle).label_set
    table = open_table(path, read_text(path), ",")
    if table.columns != (*COLUMNS, *label_columns(labels)):
        raise BundleError(f"{path}: its columns are not those of this tagger's {len(labels)} labels; train it again")
    try:
        rows = [fields for _, fields in table.records]
        y_true = np.zeros((len(rows), len(labels)), np.bool_)
        for truth, row in zip(y_true, rows, strict=True):
            truth[[labels.index(label) for label in json.loads(row[COLUMNS.index("labels")])]] = True
        probabilities = np.array([[field or "nan" for field in row[len(COLUMNS) :]] for row in rows], np.float64)
        stretches = tuple((float(start or 0), float(end) if end else None) for _, start, end, *_ in rows)
    except (ValueError, DataError) as error:
        raise BundleError(f"{path}: damaged: {error}; train the tagger again") from error
    if not rows:
        raise BundleError(f"{path}: damaged: it has no clips; train the tagger again")
    fnames, _, _, folds, groups, _, keys = list(zip(*rows, strict=True))[: len(COLUMNS)]
    logits = np.clip(logit(probabilities), -_SUREST, _SUREST)
    return OutOfFoldPredictions(labels, fnames, stretches, folds, groups, keys, y_true, logits)
