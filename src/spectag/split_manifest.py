"""A manifest's clips dealt into folds, or a share of them held out, with the balance beside what chance would give."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spectag.errors import DataError
from spectag.files import unfinished_file
from spectag.manifest import Manifest, read_manifest
from spectag.split import Balance, balance, holdout, stratified_folds


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
    valid_share: float | None = None,
    seed: int = 0,
    audio_dir: str | Path | None = None,
    group_column: str | None = None,
) -> Split:
    """Deal clips into folds 1, 2, ..., or into train and valid; a group (or a file's parts) is never on two sides.

    Parameters
    ----------
    manifest : path or Manifest
    folds : int, optional
        Number of folds; 5 where neither this nor `valid_share` is given.
    valid_share : float, optional
        Instead of folds, the share that is held out.
    seed : int
        Another seed gives other folds, as well balanced.
    audio_dir, group_column
        As in `read_manifest`.

    Raises
    ------
    DataError
        If there are more folds than groups, or both folds and a share are asked for.
    """
    if folds is not None and valid_share is not None:
        raise DataError("folds and valid_share ask for different things; leave one out")
    if not isinstance(manifest, Manifest):
        manifest = read_manifest(manifest, audio_dir=audio_dir, group_column=group_column)
    y_true = manifest.multi_hot()
    if valid_share is None:
        numbers: NDArray[np.int_] = stratified_folds(y_true, folds or 5, groups=manifest.groups, seed=seed)
        shares, names = None, {int(number): str(number) for number in np.unique(numbers)}
    else:
        numbers = holdout(y_true, valid_share, groups=manifest.groups, seed=seed).astype(int)
        shares, names = (1 - valid_share, valid_share), {0: "train", 1: "valid"}
    spread = balance(y_true, numbers, groups=manifest.groups, shares=shares, seed=seed)
    return Split(manifest, tuple(names[int(number)] for number in numbers), spread)


def write_split(path: Path, result: Split) -> None:
    """Write the manifest as a CSV with the column `fold`: fname, labels, fold, and start, end and group where known.

    Raises
    ------
    DataError
        If the file can't be written.
    """
    clips = result.manifest.clips
    optional: dict[str, list[str | None] | list[float | None]] = {
        "group": [clip.group for clip in clips],
        "start": [clip.start_seconds or None for clip in clips],
        "end": [clip.end_seconds for clip in clips],
    }
    columns = {name: values for name, values in optional.items() if any(value is not None for value in values)}
    try:
        with unfinished_file(path) as unfinished, unfinished.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["fname", "labels", "fold", *columns])
            for row, (clip, part) in enumerate(zip(clips, result.parts, strict=True)):
                extra = ["" if values[row] is None else values[row] for values in columns.values()]
                writer.writerow([clip.fname, ",".join(clip.labels), part, *extra])
    except OSError as error:
        raise DataError(f"{path}: can't be written: {error.strerror or error}") from error
