"""Splitting a manifest into folds, or into training and validation clips, and writing the split as a CSV."""

import csv
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectag.data.clips import Clip, Manifest
from spectag.data.folds import Balance, balance, stratified_folds, stratified_holdout
from spectag.data.manifest import as_manifest
from spectag.data.readers.annotations import is_annotation
from spectag.data.readers.csv_table import extra_columns
from spectag.data.readers.delimited_text import read_text
from spectag.errors import DataError
from spectag.system.output import open_output


@dataclass(frozen=True)
class Split:
    """A manifest, the fold of each of its clips, and how evenly the labels are distributed."""

    manifest: Manifest
    folds: tuple[str, ...]
    balance: Balance


def split(
    manifest: str | Path | Manifest,
    *,
    folds: int | None = None,
    validation_fraction: float | None = None,
    seed: int = 0,
    audio_dir: str | Path | None = None,
    group_column: str | None = None,
    corrections: str | Path | None = None,
) -> Split:
    """Split clips into the folds 1, 2, ..., or into "train" and "valid". Clips of one group or one file stay together.

    Parameters
    ----------
    manifest : path or Manifest
    folds : int, optional
        Number of folds. By default 5, if `validation_fraction` is not given either.
    validation_fraction : float, optional
        Hold out this fraction of the clips, instead of making folds.
    seed : int
        Another seed gives other folds with a similar balance.
    audio_dir, group_column, corrections
        As for `read_manifest`.

    Raises
    ------
    DataError
        If there are more folds than groups, or both `folds` and `validation_fraction` are given.
    """
    if folds is not None and validation_fraction is not None:
        raise DataError("folds and validation_fraction exclude each other; use only one of them")
    manifest = as_manifest(manifest, audio_dir=audio_dir, group_column=group_column, corrections=corrections)
    y_true = manifest.multi_hot()
    if validation_fraction is None:
        n_folds = 5 if folds is None else folds
        numbers: NDArray[np.int_] = stratified_folds(y_true, n_folds, groups=manifest.groups, seed=seed)
        fractions, names = None, {number: str(number) for number in range(1, n_folds + 1)}
    else:
        numbers = stratified_holdout(y_true, validation_fraction, groups=manifest.groups, seed=seed).astype(int)
        fractions, names = (1 - validation_fraction, validation_fraction), {0: "train", 1: "valid"}
    measured = balance(y_true, numbers, groups=manifest.groups, fractions=fractions, seed=seed)
    measured = replace(measured, folds=tuple(names[number] for number in measured.folds))
    return Split(manifest, tuple(names[int(number)] for number in numbers), measured)


def write_split(path: Path, result: Split) -> None:
    """Write the manifest as a CSV with the column `fold`.

    The columns are fname, fold, group, start and end (if they are used), the extra columns of a CSV manifest, and
    labels. File names are those of the manifest, or paths relative to the new CSV if they would not be found otherwise.
    If a label contains a comma, the CSV is multi-hot.

    Raises
    ------
    DataError
        If the file can't be written.
    """
    clips, labels = result.manifest.clips, result.manifest.labels.names
    multi_hot = any("," in label for label in labels)
    optional: dict[str, list[Any]] = {
        "group": [clip.group for clip in clips],
        "start": [clip.start_seconds or None for clip in clips],
        "end": [clip.end_seconds for clip in clips],
    }
    columns = {name: values for name, values in optional.items() if any(value is not None for value in values)}
    columns |= _extra_columns(result.manifest)
    with open_output(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["fname", "fold", *columns, *(labels if multi_hot else ["labels"])])
        for clip, fold, *extra in zip(clips, result.folds, *columns.values(), strict=True):
            truth = [int(label in clip.labels) for label in labels] if multi_hot else [",".join(clip.labels)]
            writer.writerow([_name_from(path.parent, clip), fold, *extra, *truth])


def _extra_columns(manifest: Manifest) -> dict[str, list[Any]]:
    text = read_text(manifest.source) if manifest.source.is_file() else ""
    if not text or is_annotation(text):
        return {}
    columns = extra_columns(manifest.source, text)
    return {name: [fields.get(clip.line or 0) for clip in manifest.clips] for name, fields in columns.items()}


def _name_from(folder: Path, clip: Clip) -> str:
    """The name of a clip's file in a table in `folder`."""
    if clip.path.absolute() == folder.absolute() / clip.fname:
        return clip.fname
    return Path(os.path.relpath(clip.path.absolute(), folder.resolve())).as_posix()
