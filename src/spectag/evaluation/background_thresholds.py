"""Thresholds by false alarms per hour, from recordings without any of the labels."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import expit

from spectag.array_types import IntArray
from spectag.config.base import WindowConfig
from spectag.config.tagging import TagSettings
from spectag.errors import DataError
from spectag.models.tagger import Tagger
from spectag.models.timeline import Timeline, count_label_segments
from spectag.scoring.false_alarms import AlarmRate, rate_bound
from spectag.system.progress import Log, Progress
from spectag.tagging.events import is_tagged_as_clip, windows_to_tag
from spectag.tagging.input_files import find_files
from spectag.tagging.parallel import TaggedFile, accepted_suffixes, tag

_GRID = expit(np.arange(-7.0, 7.001, 0.1)).astype(np.float32)
"""Thresholds that are tried, from 0.0009 to 0.9991. A label keeps its own where that is higher."""


@dataclass(frozen=True)
class BackgroundLabel:
    """The threshold of a label, and its false alarms in the background."""

    label: str
    old_threshold: float
    threshold: float
    """Of clips."""
    window_threshold: float
    """Of short windows, and of segments made from them."""
    n_alarms_before: int
    n_alarms: int
    """At the new threshold."""
    per_hour_at_most: float
    """With the confidence of the goal."""
    reaches_goal: bool
    """If False, the threshold is the old one."""
    is_raised: bool


@dataclass(frozen=True)
class BackgroundThresholds:
    """Thresholds by false alarms."""

    folder: str
    n_recordings: int
    hours: float
    goal: str
    """The accepted rate of each label, as it was written."""
    per_hour: float
    confidence: float
    labels: tuple[BackgroundLabel, ...]
    """All labels of the tagger."""
    n_alarms_before: int
    """Of all labels together."""
    n_alarms: int
    per_hour_at_most: float
    """Of all labels together, with this confidence."""
    lowest_per_hour: float
    """No lower rate can be shown with this background and confidence."""
    skipped: tuple[str, ...]
    """Why recordings were not tagged."""

    @property
    def thresholds(self) -> dict[str, float]:
        """The thresholds of clips that are raised."""
        return {row.label: row.threshold for row in self.labels if row.is_raised}

    @property
    def window_thresholds(self) -> dict[str, float]:
        """The thresholds of short windows that are raised."""
        return {row.label: row.window_threshold for row in self.labels if row.is_raised}


def fit_to_background(
    bundle: Path,
    background: str | Path,
    false_alarms: str,
    confidence: float,
    workers: int | None,
    progress: Progress,
    log: Log,
) -> BackgroundThresholds:
    """The lowest thresholds, but not below the old ones, with which each label has no more false alarms than accepted.

    False alarms are counted as `spectag tag` reports them: segments of long recordings, and short ones as a whole.

    Parameters
    ----------
    bundle : Path
        The tagger.
    background : path
        Folder of recordings without any of the labels.
    false_alarms : str
        The accepted rate of each label, such as 1/h or 5/day.
    confidence : float
        How sure it is that new recordings like these do not have more, if false alarms are independent.
    workers, progress, log
        As for `tag`.

    Raises
    ------
    AudioError
        If the folder does not exist or has no recordings.
    ConfigError
        If the rate is not understood.
    DataError
        If there is too little background to show this rate.
    """
    rate = AlarmRate.parse(false_alarms, confidence)
    tagger = Tagger(bundle)
    window = windows_to_tag(tagger, TagSettings())
    files = find_files([background], accepted_suffixes(tagger), log=log)
    counts = np.zeros((len(tagger.labels), len(_GRID)), np.int64)
    seconds, skipped = dict[str, float](), list[str]()
    for tagged in tag(tagger, files, window=window, workers=workers, progress=progress):
        if tagged.timeline is None or tagged.duration_seconds is None:
            skipped.append(tagged.reason or f"{tagged.file}: an image has no length in hours")
        else:
            seconds[tagged.file] = tagged.duration_seconds
            counts += _count_alarms(tagged, tagged.timeline, tagger, window)
    hours = sum(seconds.values()) / 3600
    if hours < rate.hours_needed:
        raise DataError(
            f"{background}: {hours:.2g} h of background cannot show {rate.text} with {100 * confidence:g} % "
            f"confidence, even without an alarm; this needs {rate.hours_needed:.2g} h. Add recordings, accept more "
            "false alarms, or ask for less confidence (--confidence 0.5)"
        )
    labels = tuple(_alarms_of(tagger, index, counts[index], hours, rate) for index in range(len(tagger.labels)))
    n_alarms = sum(row.n_alarms for row in labels)
    return BackgroundThresholds(
        folder=str(background),
        n_recordings=len(seconds),
        hours=hours,
        goal=rate.text,
        per_hour=rate.per_hour,
        confidence=confidence,
        labels=labels,
        n_alarms_before=sum(row.n_alarms_before for row in labels),
        n_alarms=n_alarms,
        per_hour_at_most=rate_bound(n_alarms, hours, confidence),
        lowest_per_hour=rate_bound(0, hours, confidence),
        skipped=tuple(skipped),
    )


def _count_alarms(tagged: TaggedFile, timeline: Timeline, tagger: Tagger, window: WindowConfig | None) -> IntArray:
    """The false alarms in a file, (n_labels, n_thresholds), with the old thresholds where these are higher."""
    is_clip = is_tagged_as_clip(timeline, window)
    old = tagger.thresholds_for(None if is_clip else window)
    peaks = timeline.probabilities.max(axis=0)
    counts = np.zeros((len(old), len(_GRID)), np.int64)
    for label in np.flatnonzero(peaks >= old).tolist():
        thresholds = np.maximum(_GRID, old[label])
        n_reached = int(np.searchsorted(thresholds, peaks[label], side="right"))
        first = max(int(np.searchsorted(thresholds, old[label], side="right")) - 1, 0)  # the last that is the old one
        if is_clip:
            counts[label, :n_reached] = 1
        else:
            reached = thresholds[first:n_reached]
            counts[label, first:n_reached] = count_label_segments(timeline, label, reached, TagSettings())
            counts[label, :first] = counts[label, first]
    return counts


def _alarms_of(tagger: Tagger, index: int, counts: IntArray, hours: float, rate: AlarmRate) -> BackgroundLabel:
    info = tagger.info
    old = info.thresholds[index]
    old_window = old if info.window_thresholds is None else info.window_thresholds.thresholds[index]
    chosen = rate.lowest_index(counts, hours)
    lowest = 0.0 if chosen is None else float(_GRID[chosen])
    new, new_window = (max(threshold, lowest) for threshold in (old, old_window))
    is_raised = (new > old or new_window > old_window) and counts[chosen or 0] < counts[0]
    if not is_raised:
        new, new_window = old, old_window
    n_alarms = int(counts[chosen if is_raised and chosen is not None else 0])
    return BackgroundLabel(
        label=tagger.labels.names[index],
        old_threshold=old,
        threshold=new,
        window_threshold=new_window,
        n_alarms_before=int(counts[0]),
        n_alarms=n_alarms,
        per_hour_at_most=rate_bound(n_alarms, hours, rate.confidence),
        reaches_goal=chosen is not None,
        is_raised=bool(is_raised),
    )
