"""Decisions about detections as training clips: what is true becomes a positive, what is not a hard negative."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from spectag.config.findings import ClipSettings
from spectag.data.checked_detections import CheckedDetection
from spectag.data.detections import DetectedSound
from spectag.findings.clip_export import CutClip, DetectedOverlaps, cut_clips, name_clips
from spectag.system.output import csv_writer, open_output
from spectag.system.progress import Progress, silent

TRAINING_CLIPS_FILE = "clips.csv"
TRAINING_COLUMNS = (
    *("fname", "labels", "unknown", "group", "detected", "decision", "probability", "reviewer"),
    *("recording", "from_seconds", "to_seconds"),
)

_Span = tuple[str, float, float | None]


@dataclass(frozen=True)
class TrainingClips:
    """The clips that were cut out of decided detections."""

    manifest: Path
    n_positives: int
    """Clips with a confirmed label."""
    n_negatives: int
    """Clips of detections that are wrong."""
    skipped: tuple[str, ...]
    """Why others could not be cut."""


@dataclass(frozen=True)
class _TrueLabels:
    """What the decisions say of a part of a recording."""

    true: frozenset[str]
    false: frozenset[str]

    @classmethod
    def of(cls, rows: Sequence[CheckedDetection]) -> "_TrueLabels":
        """From all decisions about exactly this part. A confirmed label is true, whoever did not hear it."""
        heard = {label for row in rows if row.decision in ("yes", "no") for label in row.other_labels}
        true = heard | {row.label for row in rows if row.decision == "yes"}
        return cls(frozenset(true), frozenset({row.label for row in rows if row.decision == "no"} - true))


def write_training_clips(
    rows: Sequence[CheckedDetection],
    paths: Mapping[str, Path],
    detections: Sequence[DetectedSound],
    folder: Path,
    *,
    workers: int | None = None,
    progress: Progress = silent,
) -> TrainingClips:
    """Cut the detections with the decision yes or no, and write clips.csv, a manifest of them.

    A clip is the detection, without what is before and after it. Detections of several labels at the same time are one
    clip. Labels that were detected within a clip, but about which nobody decided, are unknown in it.

    Parameters
    ----------
    rows : sequence of CheckedDetection
        The whole sample, also what is not decided: file names do not depend on the decisions.
    paths : mapping
        The recordings, by their names in the rows.
    detections : sequence of DetectedSound
        All detections of the table.
    folder : Path
        For the clips and clips.csv. Clips that exist are kept.
    workers : int, optional
        Number of processes; by default one per core.
    progress : Progress

    Raises
    ------
    DataError
        If clips.csv can't be written.
    """
    of_span: dict[_Span, list[CheckedDetection]] = defaultdict(list)
    for row in rows:
        of_span[row.file, row.start_seconds, row.end_seconds].append(row)
    firsts = [found[0] for found in of_span.values()]
    named = name_clips([_detected(row, paths) for row in firsts])
    wanted = {
        clip: found
        for clip, found in zip(named, of_span.values(), strict=True)
        if any(row.decision in ("yes", "no") for row in found)
    }
    settings = ClipSettings(per_label=None, pad=0.0)
    cut = cut_clips(list(wanted), folder, settings, workers, progress) if wanted else []
    overlaps = DetectedOverlaps(detections)
    written = [one for one in cut if one.excerpt is not None]
    manifest = folder / TRAINING_CLIPS_FILE
    with open_output(manifest) as file:
        write_row = csv_writer(file)
        write_row(TRAINING_COLUMNS)
        for one in written:
            write_row(_fields(one, wanted[one.clip], overlaps))
    n_positives = sum(any(row.decision == "yes" for row in wanted[one.clip]) for one in written)
    skipped = tuple(dict.fromkeys(one.reason for one in cut if one.reason is not None))
    return TrainingClips(manifest, n_positives, len(written) - n_positives, skipped)


def _detected(row: CheckedDetection, paths: Mapping[str, Path]) -> DetectedSound:
    times = row.start_seconds, row.end_seconds
    return DetectedSound(paths[row.file], row.file, *times, row.label, row.probability)


def _fields(cut: CutClip, rows: Sequence[CheckedDetection], overlaps: DetectedOverlaps) -> list[str]:
    """The row of a clip that was cut."""
    assert cut.excerpt is not None
    start, end = cut.excerpt.start_seconds, cut.excerpt.end_seconds
    labels = _TrueLabels.of(rows)
    unknown = overlaps.labels(cut.clip.detection.path, start, end) - labels.true - labels.false
    decided = [row for row in rows if row.decision in ("yes", "no")]
    first = next((row for row in decided if row.decision == "yes"), decided[0])
    return [
        cut.fname,
        repr(sorted(labels.true)),
        repr(sorted(unknown)),
        first.file,
        first.label,
        first.decision,
        "" if first.probability is None else f"{first.probability:.6f}",
        first.reviewer,
        first.file,
        *(f"{seconds:.6f}" for seconds in (start, end)),
    ]
