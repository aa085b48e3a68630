"""Clips of recordings with their labels, and the manifest that holds them."""

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from spectag.array_types import BoolArray
from spectag.data.labels import LabelSet
from spectag.data.readers.delimited_text import some_of
from spectag.data.readers.file_finder import IMAGE_SUFFIXES
from spectag.data.readers.rows import clip_name
from spectag.errors import DataError


@dataclass(frozen=True)
class Clip:
    """A labelled stretch of a recording, or all of it."""

    path: Path
    fname: str  # as the manifest has it
    labels: tuple[str, ...]
    fold: str | None = None
    group: str | None = None
    start_seconds: float = 0.0
    end_seconds: float | None = None  # None: to the end of the recording
    line: int | None = None  # in the manifest

    @property
    def origins(self) -> set[tuple[str, str]]:
        """Where it comes from: its file and, if it has one, its group."""
        return {("file", str(self.path))} | ({("group", self.group)} if self.group is not None else set())

    @property
    def name(self) -> str:
        """The file name, with the times where the clip is only a part."""
        return clip_name(self.fname, self.start_seconds, self.end_seconds)


@dataclass(frozen=True)
class Manifest:
    """Clips and the labels that they may have."""

    source: Path
    clips: tuple[Clip, ...]
    labels: LabelSet

    @property
    def folds(self) -> tuple[str | None, ...]:
        """The fold of each clip, None where it has none."""
        return tuple(clip.fold for clip in self.clips)

    @property
    def groups(self) -> tuple[str, ...]:
        """What must stay together, for each clip: clips of one group, and all parts of one file."""
        names: dict[int, str] = {}
        numbers = connected_components([sorted(clip.origins) for clip in self.clips])
        for number, clip in zip(numbers, self.clips, strict=True):
            names.setdefault(number, clip.group or str(clip.path))
        return tuple(names[number] for number in numbers)

    @property
    def holds_images(self) -> bool:
        """Whether the clips are images of spectrograms; images and sounds together are a DataError."""
        images = [clip.fname for clip in self.clips if clip.path.suffix.lower() in IMAGE_SUFFIXES]
        if images and len(images) < len(self.clips):
            raise DataError(
                f"{self.source}: {len(images)} of {len(self.clips)} clips are images ({some_of(images)}), the others "
                "sounds; a manifest holds the one or the other"
            )
        return bool(images)

    def without(self, names: Collection[str]) -> "Manifest":
        """The same without the clips of these files, named with their ending or without.

        Raises
        ------
        DataError
            If that leaves no clip.
        """
        unwanted = set(names)
        kept = tuple(clip for clip in self.clips if not {Path(clip.fname).name, Path(clip.fname).stem} & unwanted)
        if not kept:
            raise DataError(f"{self.source}: all of its {len(self.clips)} clips are to be left out")
        return replace(self, clips=kept)

    def multi_hot(self) -> BoolArray:
        """y_true: bool array of shape (n_clips, n_labels)."""
        y_true = np.zeros((len(self.clips), len(self.labels)), bool)
        for row, clip in enumerate(self.clips):
            y_true[row, [self.labels.index(label) for label in clip.labels]] = True
        return y_true


def connected_components(marks: Sequence[Sequence[Hashable]]) -> list[int]:
    """A number for each item; items that share a mark, also by way of others, share the number."""
    leader = list(range(len(marks)))

    def find(item: int) -> int:
        while leader[item] != item:
            leader[item] = leader[leader[item]]
            item = leader[item]
        return item

    first: dict[Hashable, int] = {}
    for item, own in enumerate(marks):
        for mark in own:
            leader[find(item)] = find(first.setdefault(mark, item))
    return [find(item) for item in range(len(marks))]


def shares_recording(clips: Manifest, others: Manifest, rows: BoolArray) -> BoolArray:
    """Which clips of a manifest are of a file, or a group, of those of another manifest at some rows."""
    origins = {origin for row in np.flatnonzero(rows) for origin in others.clips[row].origins}
    return np.array([not origins.isdisjoint(clip.origins) for clip in clips.clips], bool)
