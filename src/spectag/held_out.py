"""What networks said of training clips that they did not see: kept with the tagger, to judge and to adjust it by."""

import csv
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from spectag.bundle import read_info
from spectag.calibration import DEFAULT_THRESHOLD, CrossFitted, Method, cross_fitted
from spectag.errors import BundleError, DataError
from spectag.files import unfinished_file
from spectag.labels import LabelSet
from spectag.manifest.table import open_table, read_text
from spectag.split import stratified_folds
from spectag.thresholds import BEST_F1, ThresholdGoal

PREDICTIONS_FILE = "predictions.csv"
COLUMNS = ("fname", "start", "end", "fold", "group", "labels", "key")
N_PARTS = 5
_LEAST_FOLDS = 3  # that are parts by themselves; of fewer, the clips are dealt anew
_SUREST = 23.0  # a logit whose probability still differs from 1 in ten digits

BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class HeldOutClips:
    """The clips that a tagger was trained on, and what networks that had not seen a clip said of it.

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

    def judged(self, *, method: Method = "auto", goal: ThresholdGoal = BEST_F1) -> CrossFitted:
        """Probabilities and thresholds (n_clips, n_labels), of each clip by calibration and goal on the other parts.

        NaN for clips that were not held out. Where there are not two parts, the probabilities are the plain ones and
        the thresholds the default.
        """
        if self.parts.max(initial=-1) > 0:
            return cross_fitted(self.logits, self.y_true, self.parts, method=method, goal=goal)
        return CrossFitted(expit(self.logits), np.where(np.isnan(self.logits), np.nan, DEFAULT_THRESHOLD))


def write_held_out(path: Path, clips: HeldOutClips) -> None:
    """Write the clips as CSV: what they are, then a column of probabilities, not calibrated, for each label.

    Raises
    ------
    OSError
        If it can't be written.
    """
    with unfinished_file(path) as unfinished, unfinished.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*COLUMNS, *clips.labels.names])
        names = np.array(clips.labels.names)
        for i, (start, end) in enumerate(clips.stretches):
            labels = json.dumps(names[clips.y_true[i]].tolist(), ensure_ascii=False)  # a label may hold a comma
            told = clips.folds[i], clips.groups[i], labels, clips.keys[i]
            times = [f"{start!r}" if start else "", "" if end is None else f"{end!r}"]
            probabilities = ["" if np.isnan(z) else f"{expit(z):.10g}" for z in clips.logits[i]]
            writer.writerow([clips.fnames[i], *times, *told, *probabilities])


def read_held_out(bundle: str | Path) -> HeldOutClips | None:
    """The clips that a tagger was trained on; None of a tagger that came without them.

    Raises
    ------
    BundleError
        If the file is damaged, or is another tagger's.
    """
    path = Path(bundle) / PREDICTIONS_FILE
    if not path.exists():
        return None
    labels = read_info(bundle).label_set
    table = open_table(path, read_text(path), ",")
    if table.columns != (*COLUMNS, *labels.names):
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
    fnames, _, _, folds, groups, _, keys = list(zip(*rows, strict=True))[: len(COLUMNS)]
    logits = np.clip(logit(probabilities), -_SUREST, _SUREST)
    return HeldOutClips(labels, fnames, stretches, folds, groups, keys, y_true, logits)
