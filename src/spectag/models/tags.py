"""What a tagger predicts: the tags of a sound, and the segments in which labels are on."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np

from spectag.array_types import Float32Array
from spectag.audio.sound_arrays import SoundArray
from spectag.config.base import Channel
from spectag.data.labels import LabelSet
from spectag.models.timeline import Timeline
from spectag.system.dataframes import to_dataframe

_N_SHOWN = 3


class Tag(NamedTuple):
    """A label and its probability."""

    label: str
    probability: float


@dataclass(frozen=True, eq=False, repr=False)
class Tags(Sequence[Tag]):
    """The predictions of a tagger for a sound, or for a window of it.

    The tags are the *detected* labels, those that reach their thresholds, most probable first: `list(tags)`,
    `len(tags)`, `for label, probability in tags`, and `"Dog" in tags`. `tags["Dog"]` is the probability of any label.

    `probabilities` and `thresholds` have shape (n_labels,). `path` is None for an array, `end_seconds` for an image.
    """

    path: str | Path | None
    start_seconds: float
    end_seconds: float | None
    labels: LabelSet
    probabilities: Float32Array
    thresholds: Float32Array
    novelty: float | None = None
    """How much the sound differs from the training sounds: above 1 more than 97 % of them. None if it is unknown."""
    array: SoundArray | None = None
    """The sound, if it was an array."""
    channel: Channel = "mix"
    """How several channels of the sound became one."""

    def top(self, n: int) -> list[Tag]:
        """The n most probable labels, detected or not, most probable first."""
        order = np.argsort(-self.probabilities, kind="stable")[:n]
        return [Tag(self.labels.names[index], float(self.probabilities[index])) for index in order]

    def above_threshold(self, threshold: float | None = None) -> list[Tag]:
        """The labels at or above their thresholds (or one threshold for all), most probable first."""
        limits = self.thresholds if threshold is None else np.full_like(self.thresholds, threshold)
        detected = set(np.flatnonzero(self.probabilities >= limits))
        return [tag for tag in self.top(len(self.labels)) if self.labels.index(tag.label) in detected]

    def __iter__(self) -> Iterator[Tag]:
        return iter(self.above_threshold())

    def __len__(self) -> int:
        return int((self.probabilities >= self.thresholds).sum())

    def __contains__(self, label: object) -> bool:
        return any(label in (tag, tag.label) for tag in self)

    @overload
    def __getitem__(self, key: str) -> float: ...
    @overload
    def __getitem__(self, key: int) -> Tag: ...
    @overload
    def __getitem__(self, key: slice) -> list[Tag]: ...
    def __getitem__(self, key: str | int | slice) -> float | Tag | list[Tag]:
        """The probability of a label; or a detected tag by its place.

        Raises
        ------
        DataError
            If the model does not have the label. The message suggests the most similar one.
        """
        if isinstance(key, str):
            return float(self.probabilities[self.labels.index(key)])
        return self.above_threshold()[key]

    def to_dict(self) -> dict[str, float]:
        """The probability of every label, most probable first. `dict(tags)` has the detected labels only."""
        return dict(self.top(len(self.labels)))

    def to_dataframe(self) -> Any:
        """A row for every label, most probable first: label, probability, threshold, detected.

        It is a DataFrame of pandas, or of polars if only polars is installed.
        """
        order = np.argsort(-self.probabilities, kind="stable")
        columns = {
            "label": [self.labels.names[index] for index in order],
            "probability": self.probabilities[order],
            "threshold": self.thresholds[order],
            "detected": (self.probabilities >= self.thresholds)[order],
        }
        return to_dataframe(columns)

    @property
    def name(self) -> str:
        """The file, or that it was an array."""
        return self.array.name if self.array is not None else str(self.path)

    def __repr__(self) -> str:
        """The sound and the most probable labels."""
        detected = list(self)
        tags = ", ".join(f"{label} {probability:.2f}" for label, probability in (detected or self.top(1))[:_N_SHOWN])
        if not detected:
            tags = f"no label detected; most probable: {tags}"
        more = f", and {len(detected) - _N_SHOWN} more" if len(detected) > _N_SHOWN else ""
        return f"Tags({self.name}{_times(self.start_seconds, self.end_seconds)}: {tags}{more})"

    def _repr_html_(self) -> str:
        """The spectrogram and the tags, for notebooks."""
        from spectag.models.tag_view import tags_html

        return tags_html(self)


class Detection(NamedTuple):
    """A segment of a recording in which a label is on, and its greatest probability there."""

    label: str
    start_seconds: float
    end_seconds: float
    probability: float


@dataclass(frozen=True, eq=False, repr=False)
class Segments(Sequence[Detection]):
    """The segments of a recording in which labels are on, in the order of their starts.

    `list(segments)`, `len(segments)` and `for segment in segments` give all of them, `segments["Dog"]` those of one.
    """

    path: str | Path | None
    labels: LabelSet
    detections: tuple[Detection, ...]
    timeline: Timeline = field(repr=False)
    """The probabilities of all labels in each window or frame, and their novelty if the model computes it."""
    name: str

    def __iter__(self) -> Iterator[Detection]:
        return iter(self.detections)

    def __len__(self) -> int:
        return len(self.detections)

    def __contains__(self, label: object) -> bool:
        return any(label in (detection, detection.label) for detection in self.detections)

    @overload
    def __getitem__(self, key: int) -> Detection: ...
    @overload
    def __getitem__(self, key: str | slice) -> list[Detection]: ...
    def __getitem__(self, key: str | int | slice) -> Detection | list[Detection]:
        """The segments of a label, or a segment by its place.

        Raises
        ------
        DataError
            If the model does not have the label.
        """
        if isinstance(key, str):
            self.labels.index(key)
            return [detection for detection in self.detections if detection.label == key]
        return list(self.detections[key]) if isinstance(key, slice) else self.detections[key]

    def to_dict(self) -> dict[str, list[Detection]]:
        """The segments of each label that was detected."""
        return {label: self[label] for label in dict.fromkeys(detection.label for detection in self.detections)}

    def to_dataframe(self) -> Any:
        """A row for each segment: file, start, end (seconds), label, probability, as in the table of `spectag tag`.

        If the model computes novelty, it is the last column: the lowest one of the windows, or frames, of the segment.
        It is a DataFrame of pandas, or of polars if only polars is installed.
        """
        columns = {
            "file": [self.name] * len(self),
            "start": np.array([detection.start_seconds for detection in self], np.float64),
            "end": np.array([detection.end_seconds for detection in self], np.float64),
            "label": [detection.label for detection in self],
            "probability": np.array([detection.probability for detection in self], np.float32),
        }
        if self.timeline.novelty is not None:
            novelties = self.timeline.novelty_of([(segment.start_seconds, segment.end_seconds) for segment in self])
            columns["novelty"] = np.array(novelties, np.float32)
        return to_dataframe(columns)

    def __repr__(self) -> str:
        """The recording, and how many segments each label has."""
        counts = {label: len(of_label) for label, of_label in self.to_dict().items()}
        most = sorted(counts, key=lambda label: -counts[label])
        labels = ", ".join(f"{label} {counts[label]:,}" for label in most[:_N_SHOWN])
        more = f", and {len(most) - _N_SHOWN} more labels" if len(most) > _N_SHOWN else ""
        times = _times(float(self.timeline.starts[0]), float(self.timeline.ends[-1]))
        return f"Segments({self.name}{times}: {f'{labels}{more}' if labels else 'no label detected'})"


def _times(start_seconds: float, end_seconds: float | None) -> str:
    if end_seconds is None or math.isnan(end_seconds):
        return ""
    return f", {start_seconds:g} to {round(end_seconds, 3):g} s"
