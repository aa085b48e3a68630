"""The labels of a model with their thresholds, for people and programs. The network is not opened."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from spectag.config.backbones import PUBLISHED
from spectag.models.bundle import BundleInfo, read_info
from spectag.models.pretrained import THRESHOLD, audioset_labels, tagger_folder
from spectag.system.progress import Log, Progress, no_log, silent

ThresholdKind = Literal["windows", "clips"]


@dataclass(frozen=True)
class ModelLabel:
    """A label of a model."""

    label: str
    n_clips: int | None  # training clips with the label; None for labels of published models
    threshold: float  # the probability from which the label is reported
    window_threshold: float | None  # the same for short windows; None if they have no thresholds of their own
    is_fitted: bool  # on held-out clips; otherwise the threshold is a default or was set by hand
    misses_goal: bool  # the threshold does not reach the precision or recall that it was fitted for

    def threshold_of(self, kind: ThresholdKind) -> float:
        """The threshold for short windows, which is that for clips if they have none of their own, or for clips."""
        return self.threshold if kind == "clips" or self.window_threshold is None else self.window_threshold


def model_labels(model: str | Path, *, progress: Progress = silent, log: Log = no_log) -> list[ModelLabel]:
    """The labels of a model, in the order of its probabilities.

    Parameters
    ----------
    model : str or Path
        As for `load`. A published model need not be downloaded.
    progress, log
        Called during a download.

    Raises
    ------
    SpectagError
        As `load`.
    """
    if str(model) in PUBLISHED and not Path(model).exists():
        return [ModelLabel(label, None, THRESHOLD, None, False, False) for label in audioset_labels()]
    return _labels_of(read_info(tagger_folder(model, progress=progress, log=log)))


def _labels_of(info: BundleInfo) -> list[ModelLabel]:
    unknown: Sequence[None] = [None] * len(info.labels)
    windows, n_clips = info.window_thresholds, info.data.n_clips_per_label
    columns = zip(
        info.labels,
        unknown if n_clips is None else (*n_clips, *unknown[len(n_clips) :]),
        info.thresholds,
        windows.thresholds if windows is not None else unknown,
        info.thresholds_fitted,
        strict=True,
    )
    return [ModelLabel(*row, misses_goal=row[0] in info.labels_missing_goal) for row in columns]
