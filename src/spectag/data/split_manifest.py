"""Splitting a manifest into folds, or into training and validation clips, and writing the split as a CSV."""

import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from spectag.config.base import Channel
from spectag.data.audio_groups import SharingClips
from spectag.data.clips import Manifest
from spectag.data.corrections import join_labels
from spectag.data.fingerprint_cache import cached_shared_audio, clip_fingerprints
from spectag.data.folds import Balance, balance, random_holdout, stratified_folds, stratified_holdout
from spectag.data.manifest import ManifestInput, as_manifest, multi_hot_cells
from spectag.data.readers.annotations import is_label_track
from spectag.data.readers.columns import UNKNOWN_COLUMN, Layout
from spectag.data.readers.csv_table import clip_table, extra_columns
from spectag.data.readers.delimited_text import Table
from spectag.errors import DataError
from spectag.system.output import escape_formula, open_output
from spectag.system.paths import relative_name
from spectag.system.progress import Progress, shows_progress, silent
from spectag.system.short_texts import short_repr

N_FOLDS = 5

_Columns = list[tuple[str, Sequence[Any]]]  # name, and the value for each clip


@short_repr
@dataclass(frozen=True)
class Split:
    """A manifest, the fold of each of its clips, and how evenly the labels are distributed."""

    manifest: Manifest
    folds: tuple[str, ...]
    balance: Balance
    order: tuple[int, ...]
    """The clips by their position in the manifest, in the order of the split: random with `test_size`."""
    sharing: SharingClips | None = None
    """The clips that share audio, if they were searched for and there are any."""

    @property
    def n_sharing_between_folds(self) -> int:
        """Number of clips that share audio with clips of other folds."""
        if self.sharing is None:
            return 0
        folds, pairs = np.array(self.folds), self.sharing.pairs
        return len(np.unique(pairs[folds[pairs[:, 0]] != folds[pairs[:, 1]]]))

    @property
    def n_separated_groups(self) -> int:
        """Number of recordings and groups with clips in several folds, which only `test_size` can separate."""
        in_folds = Counter(group for group, _ in set(zip(self.manifest.groups, self.folds, strict=True)))
        return sum(n_folds > 1 for n_folds in in_folds.values())


@shows_progress
def split(
    manifest: ManifestInput,
    *,
    folds: int | None = None,
    validation_fraction: float | None = None,
    test_size: float | None = None,
    seed: int = 0,
    audio_dir: str | Path | None = None,
    group_column: str | None = None,
    label_column: str | None = None,
    label_separator: str | None = None,
    corrections: str | Path | None = None,
    find_shared_audio: bool = False,
    channel: Channel = "mix",
    cache: str | Path | None = None,
    workers: int | None = None,
    progress: Progress = silent,
) -> Split:
    """Split clips into the folds 1, 2, ..., or into "train" and "valid". Clips of one group or one file stay together.

    Parameters
    ----------
    manifest : path, DataFrame or Manifest
    folds : int, optional
        Number of folds. By default 5, if `validation_fraction` is not given either.
    validation_fraction : float, optional
        Hold out this fraction of the clips, instead of making folds.
    test_size : float, optional
        Hold out this fraction of the clips at random, as scikit-learn's `train_test_split` with `random_state=seed`.
        Labels are not balanced, and clips of one group or one file may be separated.
    seed : int
        Another seed gives other folds with a similar balance.
    audio_dir, group_column, label_column, label_separator, corrections
        As for `read_manifest`.
    find_shared_audio : bool
        Also keep clips together that contain the same part of a recording. Where nearly all clips share audio with
        others, those that share much are kept together. This reads all sounds.
    channel, cache, workers, progress
        As for `spectag.data.fingerprint_cache.clip_fingerprints`.

    Raises
    ------
    DataError
        If there are more folds than groups, `find_shared_audio` is used with `test_size`, or several of `folds`,
        `validation_fraction` and `test_size` are given.
    """
    sizes = {"folds": folds, "validation_fraction": validation_fraction, "test_size": test_size}
    given = [name for name, size in sizes.items() if size is not None]
    if len(given) > 1:
        raise DataError(f"{' and '.join(given)} exclude each other; use only one of them")
    if find_shared_audio and test_size is not None:
        raise DataError("a split by test_size is random, so find_shared_audio has no effect; use validation_fraction")
    manifest = as_manifest(
        manifest,
        audio_dir=audio_dir,
        group_column=group_column,
        label_column=label_column,
        label_separator=label_separator,
        corrections=corrections,
    )
    y_true, groups, sharing = manifest.multi_hot(), manifest.groups, None
    if find_shared_audio:
        fingerprints = clip_fingerprints(manifest.clips, cache, channel=channel, workers=workers, progress=progress)
        sharing = SharingClips.of(
            manifest, cached_shared_audio(fingerprints, root=cache, workers=workers, progress=progress)
        )
        groups = sharing.together(folds or N_FOLDS, seed=seed).groups
    order = np.arange(len(manifest.clips))
    if test_size is not None:
        train, valid = random_holdout(len(manifest.clips), test_size, seed=seed)
        numbers, order = np.isin(order, valid).astype(int), np.concatenate([train, valid])
    elif validation_fraction is not None:
        numbers = stratified_holdout(y_true, validation_fraction, groups=groups, seed=seed).astype(int)
    else:
        numbers = stratified_folds(y_true, N_FOLDS if folds is None else folds, groups=groups, seed=seed)
    fraction = test_size or validation_fraction
    fractions = None if fraction is None else (1 - fraction, fraction)
    names = {n: str(n) for n in numbers.tolist()} if fraction is None else {0: "train", 1: "valid"}
    measured = balance(y_true, numbers, groups=groups, fractions=fractions, seed=seed)
    measured = replace(measured, folds=tuple(names[number] for number in measured.folds))
    folds_of_clips = tuple(names[number] for number in numbers.tolist())
    return Split(manifest, folds_of_clips, measured, tuple(order.tolist()), sharing)


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
    fname, *columns = _standard_columns(result.manifest, path.parent)
    _write(path, [fname, ("fold", result.folds), *columns], range(len(result.folds)))


def write_holdout(folder: Path, result: Split) -> tuple[Path, Path]:
    """Write the training and the validation clips as two CSVs, each in the order of the split; return their paths.

    They are named after the manifest: `train_curated_image_labels.csv` gives `train_curated_image_trainset.csv` and
    `train_curated_image_validset.csv`. A CSV keeps its columns; only the labels are corrected, and file names that
    would not be found from `folder` become relative paths. Other manifests get the columns of `write_split`.

    Raises
    ------
    DataError
        If a file can't be written.
    """
    source, folds = result.manifest.source, result.folds
    own = _clip_table(result.manifest)
    columns = _standard_columns(result.manifest, folder) if own is None else _own_columns(result.manifest, *own, folder)
    stem = source.stem.removesuffix("_labels")
    train, valid = folder / f"{stem}_trainset.csv", folder / f"{stem}_validset.csv"
    _write(train, columns, [i for i in result.order if folds[i] == "train"])
    _write(valid, columns, [i for i in result.order if folds[i] == "valid"])
    return train, valid


def _write(path: Path, columns: _Columns, rows: Iterable[int]) -> None:
    with open_output(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([escape_formula(name) for name, _ in columns])
        for row in rows:
            cells = (values[row] for _, values in columns)
            writer.writerow([escape_formula(cell) if isinstance(cell, str) else cell for cell in cells])


def _standard_columns(manifest: Manifest, folder: Path) -> _Columns:
    """The columns of a table in `folder`, whatever the format of the manifest."""
    clips, labels = manifest.clips, manifest.labels.names
    optional: _Columns = [
        ("group", [clip.group for clip in clips]),
        ("start", [clip.start_seconds or None for clip in clips]),
        ("end", [clip.end_seconds for clip in clips]),
        ("weight", [None if clip.weight == 1 else f"{clip.weight:g}" for clip in clips]),
    ]
    return [
        ("fname", [relative_name(clip.path, clip.fname, folder) for clip in clips]),
        *((name, values) for name, values in optional if any(value is not None for value in values)),
        *_extra_columns(manifest),
        *_label_columns(manifest, None if any("," in label for label in labels) else "labels").items(),
    ]


def _own_columns(manifest: Manifest, table: Table, layout: Layout, folder: Path) -> _Columns:
    """The columns of a CSV manifest in their order, with the present labels and names that are found from `folder`."""
    fields = dict(table.records)
    rows = [fields[clip.line or 0] for clip in manifest.clips]
    columns: dict[str, Sequence[Any]] = {name: values for name, *values in zip(table.columns, *rows, strict=True)}
    names = {meaning: table.columns[position] for meaning, position in layout.positions.items()}
    columns[names["fname"]] = [relative_name(clip.path, clip.fname, folder) for clip in manifest.clips]
    columns |= _label_columns(manifest, names.get("labels"), names.get("unknown", UNKNOWN_COLUMN))
    return list(columns.items())


def _label_columns(
    manifest: Manifest, name: str | None, unknown_name: str = UNKNOWN_COLUMN
) -> dict[str, Sequence[Any]]:
    """A column of this name with the labels of each clip, and one of unknown labels if there are any.

    For None, a column of 0, 1 and empty cells for each label.
    """
    if name is None:
        return dict(zip(manifest.labels.names, zip(*multi_hot_cells(manifest), strict=True), strict=True))
    columns: dict[str, Sequence[Any]] = {name: [join_labels(clip.labels) for clip in manifest.clips]}
    if any(clip.unknown for clip in manifest.clips):
        columns[unknown_name] = [join_labels(clip.unknown) for clip in manifest.clips]
    return columns


def _clip_table(manifest: Manifest) -> tuple[Table, Layout] | None:
    """The table of a manifest that is a CSV with a row for each clip."""
    text = manifest.read_table()
    if not text or is_label_track(text):
        return None
    return clip_table(manifest.source, text, label_column=manifest.label_column)


def _extra_columns(manifest: Manifest) -> _Columns:
    own = _clip_table(manifest)
    columns = extra_columns(*own) if own else {}
    return [(name, [fields.get(clip.line or 0) for clip in manifest.clips]) for name, fields in columns.items()]
