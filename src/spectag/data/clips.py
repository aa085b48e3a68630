"""Labelled clips, and the manifest that lists them."""

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from spectag.array_types import BoolArray, FloatArray, IntArray
from spectag.data.labels import LabelSet
from spectag.data.readers.delimited_text import abbreviate, read_text
from spectag.data.readers.file_finder import IMAGE_SUFFIXES
from spectag.data.readers.rows import clip_name
from spectag.errors import DataError


@dataclass(frozen=True, slots=True)
class Clip:
    """A labelled recording, or a labelled part of one."""

    path: Path
    fname: str
    """The name in the manifest."""
    labels: tuple[str, ...]
    fold: str | None = None
    group: str | None = None
    start_seconds: float = 0.0
    end_seconds: float | None = None
    """None: the end of the recording."""
    line: int | None = None
    """Line in the manifest."""
    unknown: tuple[str, ...] = ()
    """Labels of which nobody knows whether they are true. All other labels that the clip does not have are false."""
    weight: float = 1.0
    """How much the clip counts in training, relative to the others; 0 leaves it out. Scores are not weighted."""

    @property
    def origins(self) -> set[tuple[str, str]]:
        """The clip's file and, if it has one, its group. Clips that share an origin belong in the same fold."""
        return {("file", str(self.path))} | ({("group", self.group)} if self.group is not None else set())

    @property
    def name(self) -> str:
        """The file name, followed by the times if the clip is only a part of the file."""
        return clip_name(self.fname, self.start_seconds, self.end_seconds)

    @property
    def is_negative(self) -> bool:
        """Whether every label is false: none is true, and none unknown."""
        return not (self.labels or self.unknown)

    def with_labels(self, labels: tuple[str, ...], unknown: tuple[str, ...]) -> "Clip":
        """The clip with these labels, and of the unknown ones those that are not among them."""
        unknown = tuple(label for label in unknown if label not in labels) if unknown else ()
        times = self.start_seconds, self.end_seconds
        return Clip(self.path, self.fname, labels, self.fold, self.group, *times, self.line, unknown, self.weight)


@dataclass(frozen=True, repr=False)
class Manifest:
    """Clips, and the labels that they can have."""

    source: Path
    clips: tuple[Clip, ...]
    labels: LabelSet
    label_column: str | None = None
    """The column of labels in the table, if the user chose it."""
    dataframe_csv: str | None = None
    """The table as CSV, if it was a DataFrame and not a file."""
    parents: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The labels above others, if a hierarchy is given: clips with a label have all of those above it."""

    def __repr__(self) -> str:
        """The table, and the numbers of clips and labels."""
        return f"Manifest({self.source}: {len(self.clips):,} clips, {len(self.labels):,} labels)"

    def read_table(self) -> str:
        """The text of the table; empty if the manifest is a folder, or its file is gone."""
        if self.dataframe_csv is not None:
            return self.dataframe_csv
        return read_text(self.source) if self.source.is_file() else ""

    @property
    def folds(self) -> tuple[str | None, ...]:
        """The fold of each clip, None for clips without a fold."""
        return tuple(clip.fold for clip in self.clips)

    @property
    def groups(self) -> tuple[str, ...]:
        """The group of each clip. Clips of one file or one group have the same group and must not be separated."""
        numbers = connected_groups([sorted(clip.origins) for clip in self.clips]).tolist()
        clip_names = [clip.group or str(clip.path) for clip in self.clips]
        names = dict(zip(numbers[::-1], clip_names[::-1], strict=True))  # the first clip of each group names it
        return tuple(names[number] for number in numbers)

    @property
    def holds_images(self) -> bool:
        """Whether the clips are images of spectrograms. A mix of images and sounds is a DataError."""
        images = [clip.fname for clip in self.clips if clip.path.suffix.lower() in IMAGE_SUFFIXES]
        if images and len(images) < len(self.clips):
            raise DataError(
                f"{self.source}: {len(images)} of {len(self.clips)} clips are images ({abbreviate(images)}), the "
                "others are sounds; use one manifest for images and another one for sounds"
            )
        return bool(images)

    def without(self, names: Collection[str]) -> "Manifest":
        """The manifest without the clips of these files. A name may be given with or without its suffix.

        Raises
        ------
        DataError
            If no clip remains.
        """
        unwanted = set(names)
        kept = tuple(clip for clip in self.clips if not {Path(clip.fname).name, Path(clip.fname).stem} & unwanted)
        if not kept:
            raise DataError(f"{self.source}: all {len(self.clips)} clips are excluded; exclude fewer")
        return replace(self, clips=kept)

    @property
    def weights(self) -> FloatArray:
        """The weight of each clip, (n_clips,)."""
        return np.array([clip.weight for clip in self.clips], np.float64)

    def multi_hot(self) -> BoolArray:
        """y_true: bool array of shape (n_clips, n_labels). Unknown labels are False."""
        y_true = np.zeros((len(self.clips), len(self.labels)), bool)
        for row, clip in enumerate(self.clips):
            y_true[row, [self.labels.index(label) for label in clip.labels]] = True
        return y_true

    def targets(self) -> FloatArray:
        """y_true as float array of shape (n_clips, n_labels): 1, 0, or NaN for an unknown label."""
        return np.where(unknown_labels(self.clips, self.labels), np.nan, self.multi_hot())


def labels_contradict(clips: Iterable[Clip]) -> bool:
    """Whether a label is true for one of the clips and false for another."""
    known = [(set(clip.labels), set(clip.unknown)) for clip in clips]
    of_any = set[str]().union(*(labels for labels, _ in known))
    return any(of_any - labels - unknown for labels, unknown in known)


def unknown_labels(clips: Sequence[Clip], labels: LabelSet) -> BoolArray:
    """Which of these labels are unknown for each clip, (n_clips, n_labels)."""
    return label_matrix([clip.unknown for clip in clips], labels)


def label_matrix(names: Sequence[Collection[str]], labels: LabelSet) -> BoolArray:
    """Which of these labels are among the names of each clip, (n_clips, n_labels). Other names are ignored."""
    columns = {name: column for column, name in enumerate(labels.names)}
    matrix = np.zeros((len(names), len(labels)), np.bool_)
    for row, of_clip in zip(matrix, names, strict=True):
        row[[columns[name] for name in of_clip if name in columns]] = True
    return matrix


def connected_groups(keys_of_items: Sequence[Sequence[Hashable]]) -> IntArray:
    """Group number of each item, shape (n_items,): items that share a key, directly or through others, are one group.

    Examples
    --------
    >>> connected_groups([["a"], ["a", "b"], ["c"], ["b"]])
    array([0, 0, 1, 0])
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components  # takes 0.1 s, and tagging does not need it

    n_items = len(keys_of_items)
    pairs = [(item, key) for item, keys in enumerate(keys_of_items) for key in keys]
    numbers = {key: n_items + number for number, key in enumerate(dict.fromkeys(key for _, key in pairs))}
    # a graph with a node for each item, a node for each key, and an edge from each item to its keys
    edges = [item for item, _ in pairs], [numbers[key] for _, key in pairs]
    n_nodes = n_items + len(numbers)
    graph = coo_array((np.ones(len(pairs), np.bool_), edges), shape=(n_nodes, n_nodes))
    _, components = connected_components(graph, directed=False)
    return np.asarray(components[:n_items], np.int64)


def shares_recording(clips: Manifest, others: Manifest, rows: BoolArray) -> BoolArray:
    """Which clips have a file or a group in common with the clips of `others` at these rows, shape (n_clips,)."""
    origins = {origin for row in np.flatnonzero(rows) for origin in others.clips[row].origins}
    return np.array([not origins.isdisjoint(clip.origins) for clip in clips.clips], bool)
