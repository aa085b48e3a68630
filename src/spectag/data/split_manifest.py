"""A manifest's clips dealt into folds, or a share of them held out, with the balance beside what chance would give."""

import csv
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectag.data.clips import Clip, Manifest
from spectag.data.folds import Balance, balance, holdout, stratified_folds
from spectag.data.manifest import manifest_of
from spectag.data.readers.annotations import is_annotation
from spectag.data.readers.csv_table import further_columns
from spectag.data.readers.delimited_text import read_text
from spectag.errors import DataError
from spectag.system.output import written


@dataclass(frozen=True)
class Split:
    """The part that each clip is in, and how evenly the labels are spread."""

    manifest: Manifest
    parts: tuple[str, ...]
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
    """Deal clips into folds 1, 2, ..., or into train and valid; a group (or a file's parts) is never on two sides.

    Parameters
    ----------
    manifest : path or Manifest
    folds : int, optional
        Number of folds; 5 where neither this nor `validation_fraction` is given.
    validation_fraction : float, optional
        Instead of folds, the share that is held out.
    seed : int
        Another seed gives other folds, as well balanced.
    audio_dir, group_column, corrections
        As in `read_manifest`.

    Raises
    ------
    DataError
        If there are more folds than groups, or both folds and a share are asked for.
    """
    if folds is not None and validation_fraction is not None:
        raise DataError("folds and validation_fraction ask for different things; leave one out")
    manifest = manifest_of(manifest, audio_dir=audio_dir, group_column=group_column, corrections=corrections)
    y_true = manifest.multi_hot()
    if validation_fraction is None:
        n_folds = 5 if folds is None else folds
        numbers: NDArray[np.int_] = stratified_folds(y_true, n_folds, groups=manifest.groups, seed=seed)
        shares, names = None, {number: str(number) for number in range(1, n_folds + 1)}
    else:
        numbers = holdout(y_true, validation_fraction, groups=manifest.groups, seed=seed).astype(int)
        shares, names = (1 - validation_fraction, validation_fraction), {0: "train", 1: "valid"}
    spread = balance(y_true, numbers, groups=manifest.groups, shares=shares, seed=seed)
    spread = replace(spread, parts=tuple(names[number] for number in spread.parts))
    return Split(manifest, tuple(names[int(number)] for number in numbers), spread)


def write_split(path: Path, result: Split) -> None:
    """Write the manifest as a CSV with the column `fold`: fname, labels, fold, and start, end and group where known.

    Further columns of a CSV manifest are kept.

    The names of the sounds are those of the manifest, or the way from the new CSV to the sounds where these are not
    found from there. Labels that hold commas get a column of 0 and 1 each, and so do all the others.

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
    columns |= _further_columns(result.manifest)
    with written(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["fname", "fold", *columns, *(labels if multi_hot else ["labels"])])
        for clip, part, *extra in zip(clips, result.parts, *columns.values(), strict=True):
            told = [int(label in clip.labels) for label in labels] if multi_hot else [",".join(clip.labels)]
            writer.writerow([_name_from(path.parent, clip), part, *extra, *told])


def _further_columns(manifest: Manifest) -> dict[str, list[Any]]:
    if not manifest.source.is_file():
        return {}
    text = read_text(manifest.source)
    if is_annotation(text):
        return {}
    columns = further_columns(manifest.source, text)
    return {name: [fields.get(clip.line or 0) for clip in manifest.clips] for name, fields in columns.items()}


def _name_from(folder: Path, clip: Clip) -> str:
    """What a table in `folder` calls a clip's sound."""
    if clip.path.absolute() == folder.absolute() / clip.fname:
        return clip.fname
    return Path(os.path.relpath(clip.path.absolute(), folder.resolve())).as_posix()
