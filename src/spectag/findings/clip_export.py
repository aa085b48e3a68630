"""Cut detections out of their recordings: a folder of clips for each label, and a manifest of them."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from spectag.config.base import to_toml
from spectag.config.findings import ClipFormat, ClipSettings
from spectag.data.detections import DetectedSound, read_detections
from spectag.data.sites import RecordingPlace, check_site_pattern, place_of
from spectag.errors import AudioError, ConfigError
from spectag.findings.excerpts import OpenRecording, WrittenClip, open_recording
from spectag.findings.file_names import file_name_of, unused_name
from spectag.findings.sampling import sample_detections, score_band
from spectag.system.file_errors import skip_reason
from spectag.system.output import check_output_folder, csv_writer, open_output
from spectag.system.progress import Progress, shows_progress, silent
from spectag.system.worker_pool import map_unordered, n_usable_cores

MANIFEST_NAME, SETTINGS_NAME = "clips.csv", "clips.toml"
CLIP_COLUMNS = (
    *("fname", "labels", "group", "detected", "probability", "recording"),
    *("from_seconds", "to_seconds", "detected_from", "detected_to"),
)
_PER_TASK = 250  # clips of one recording that a worker cuts at once


class PlannedClip(NamedTuple):
    """A detection, and the file that it is cut into."""

    detection: DetectedSound
    name: str
    """Path below the output, without the suffix."""


class CutClip(NamedTuple):
    """A clip that was written, or the reason why it could not be."""

    clip: PlannedClip
    fname: str
    excerpt: WrittenClip | None
    reason: str | None = None


@dataclass(frozen=True)
class ClipsResult:
    """The clips that were cut, or would be with `dry_run`."""

    manifest: Path
    """Lists the clips; not written by a dry run."""
    counts: dict[str, int]
    """Clips by label."""
    n_detections: int
    """Detections in the table, within the limits of probability."""
    n_bytes: int
    """Size of all clips; estimated by a dry run."""
    skipped: tuple[str, ...] = ()
    """Why detections could not be cut out."""


@shows_progress
def clips(
    detections: str | Path | Sequence[DetectedSound],
    output: str | Path,
    settings: ClipSettings | None = None,
    *,
    min_probability: float = 0.0,
    max_probability: float = float("inf"),
    audio_dir: str | Path | None = None,
    label_column: str | None = None,
    label_separator: str | None = None,
    site_from: str | None = None,
    dry_run: bool = False,
    workers: int | None = None,
    progress: Progress = silent,
) -> ClipsResult:
    """Cut detections out of their recordings, into a folder for each label, with a manifest.

    Clips have the samples, channels, rate and bit depth of the recording, and end where it ends. Lossy recordings
    become wav files with 16 bits. Clips that exist are kept, so that the same call continues after a stop.

    Parameters
    ----------
    detections : path, or sequence of DetectedSound
        A table that `read_detections` reads.
    output : path
        A folder. clips.csv in it is a manifest of the clips: `labels` contains all labels that were detected within
        the clip, whatever their probability, `detected` the one for which it was cut.
    settings : ClipSettings, optional
    min_probability, max_probability : float
        Detections below the first, or at or above the second, are left out.
    audio_dir, label_column, label_separator
        As for `read_detections`.
    site_from : str, optional
        As for `place_of`; used by the mode "spread".
    dry_run : bool
        Count only, and write nothing.
    workers : int, optional
        Number of processes; by default one per core.
    progress : Progress

    Raises
    ------
    DataError
        If the table is not understood, or the output can't be written.
    ConfigError
        If the output has clips with other settings.
    """
    settings, output = settings or ClipSettings(), Path(output)
    check_output_folder(output)
    _check_site_from(site_from, settings)
    places: Mapping[Path, RecordingPlace] = {}
    if isinstance(detections, str | Path):
        table = read_detections(
            detections,
            audio_dir=audio_dir,
            label_column=label_column,
            label_separator=label_separator,
            min_in_windows=min_probability,
            min_option="--min",
        )
        detections, places = table.detections, table.places
    in_limits = [
        detection
        for detection in detections
        if detection.probability is None or min_probability <= detection.probability < max_probability
    ]
    keys = partial(_keys, site_from=site_from, places={} if site_from else places)
    rng = np.random.default_rng(settings.seed)
    chosen = name_clips(sample_detections(in_limits, settings.per_label, settings.mode, keys, rng))
    manifest = output / MANIFEST_NAME
    if dry_run:
        possible, n_bytes, skipped = _estimate(_tasks(chosen), settings)
        return ClipsResult(manifest, _counts(possible), len(in_limits), n_bytes, skipped)
    _store_settings(output, settings, chosen)
    cut = cut_clips(chosen, output, settings, workers, progress)
    written = [result for result in cut if result.excerpt is not None]
    _write_manifest(manifest, written, detections)
    n_bytes = sum(result.excerpt.n_bytes for result in written if result.excerpt)
    skipped = tuple(dict.fromkeys(result.reason for result in cut if result.reason is not None))
    return ClipsResult(manifest, _counts(result.clip for result in written), len(in_limits), n_bytes, skipped)


def _check_site_from(site_from: str | None, settings: ClipSettings) -> None:
    if site_from is None:
        return
    if settings.mode != "spread":
        raise ConfigError(f"site_from has no effect with the mode {settings.mode}; leave it out, or choose spread")
    check_site_pattern(site_from)


def _counts(found: Iterable[PlannedClip]) -> dict[str, int]:
    return dict(sorted(Counter(clip.detection.label for clip in found).items()))


def _keys(
    detection: DetectedSound, *, site_from: str | None, places: Mapping[Path, RecordingPlace]
) -> Sequence[Hashable]:
    """What a sample is spread over: recording, score band, site, hour of the day."""
    place = places.get(detection.path) or place_of(detection.path, site_from)
    time = place.time_of(detection.start_seconds)
    return detection.path, score_band(detection.probability), place.site, None if time is None else time.hour


def name_clips(detections: Sequence[DetectedSound]) -> list[PlannedClip]:
    """The clips with their paths, such as `Dog/0.835_site3_20240501-053012_12.0s-15.0s`."""
    used: set[str] = set()
    folders: dict[str, str] = {}
    named = []
    for detection in detections:
        if detection.label not in folders:
            folders[detection.label] = unused_name(
                file_name_of(detection.label), {*map(str.casefold, folders.values())}
            )
        end = "end" if detection.end_seconds is None else f"{detection.end_seconds:.1f}s"
        probability = "" if detection.probability is None else f"{detection.probability:.3f}_"
        stem = f"{probability}{file_name_of(detection.path.stem)}_{detection.start_seconds:.1f}s-{end}"
        name = unused_name(f"{folders[detection.label]}/{stem}", used)
        used.add(name.casefold())
        named.append(PlannedClip(detection, name))
    return named


def _tasks(clips_to_cut: Sequence[PlannedClip]) -> list[tuple[PlannedClip, ...]]:
    """The clips of each recording by their start, in parts for the workers."""
    of_recording: dict[Path, list[PlannedClip]] = defaultdict(list)
    for clip in clips_to_cut:
        of_recording[clip.detection.path].append(clip)
    return [
        tuple(of_one[begin : begin + _PER_TASK])
        for of_one in (sorted(found, key=lambda clip: clip.detection.start_seconds) for found in of_recording.values())
        for begin in range(0, len(of_one), _PER_TASK)
    ]


def _store_settings(output: Path, settings: ClipSettings, chosen: Sequence[PlannedClip]) -> None:
    """Write the settings into the output, or check that the clips in it are of the same detections and settings."""
    plan = hashlib.sha256(repr([(clip.name, clip.detection.file, clip.detection.span) for clip in chosen]).encode())
    path, text = output / SETTINGS_NAME, f'{to_toml(settings)}plan = "{plan.hexdigest()}"\n'
    if path.exists() and path.read_text(encoding="utf-8") != text:
        raise ConfigError(
            f"{output}: contains clips of other detections, or with other settings ({path.name}); choose another "
            "folder, or delete this one"
        )
    with open_output(path) as file:
        file.write(text)


def cut_clips(
    planned: Sequence[PlannedClip],
    output: Path,
    settings: ClipSettings,
    workers: int | None = None,
    progress: Progress = silent,
) -> list[CutClip]:
    """Cut clips, by name; those that exist are kept. A clip that can't be cut has the reason."""
    tasks = _tasks(planned)
    n_total = sum(map(len, tasks))
    progress("clips", 0, n_total)
    n_workers = min(workers or n_usable_cores(), len(tasks))
    results: list[CutClip] = []
    function = partial(_cut_task, output, settings.format, settings.sample_rate, settings.pad)
    with closing(map_unordered(function, tasks, n_workers=max(n_workers, 1))) as finished:
        for _, cut in finished:
            results += cut
            progress("clips", len(results), n_total)
    return sorted(results, key=lambda result: result.fname)


def _cut_task(
    output: Path, clip_format: ClipFormat | None, sample_rate: int | None, pad: float, task: tuple[PlannedClip, ...]
) -> list[CutClip]:
    """Cut clips of one recording."""
    path = task[0].detection.path
    try:
        with open_recording(path) as recording:
            return [_cut(recording, clip, output, clip_format or recording.format, sample_rate, pad) for clip in task]
    except Exception as error:
        reason = skip_reason(path, error)
        return [CutClip(clip, clip.name, None, reason) for clip in task]


def _cut(
    recording: OpenRecording,
    clip: PlannedClip,
    output: Path,
    clip_format: ClipFormat,
    sample_rate: int | None,
    pad: float,
) -> CutClip:
    fname = f"{clip.name}.{clip_format}"
    path = output / fname
    try:
        first, last = recording.limits(*clip.detection.span, pad)
        if path.is_file():
            rate = recording.sample_rate
            return CutClip(clip, fname, WrittenClip(first / rate, last / rate, path.stat().st_size))
        return CutClip(clip, fname, recording.write(path, first, last, clip_format, sample_rate))
    except Exception as error:
        return CutClip(clip, fname, None, skip_reason(recording.path, error))


def _estimate(
    tasks: Sequence[tuple[PlannedClip, ...]], settings: ClipSettings
) -> tuple[list[PlannedClip], int, tuple[str, ...]]:
    """The clips that can be cut, about how many bytes they have, and why others cannot be cut."""
    possible, n_bytes, skipped = list[PlannedClip](), 0.0, list[str]()
    for task in tasks:
        path = task[0].detection.path
        try:
            with open_recording(path) as recording:
                bytes_per_sample = recording.bytes_per_sample(settings.format or recording.format)
                bytes_per_sample *= (settings.sample_rate or recording.sample_rate) / recording.sample_rate
                for clip in task:
                    try:
                        first, last = recording.limits(*clip.detection.span, settings.pad)
                    except AudioError as error:
                        skipped.append(str(error))
                    else:
                        possible.append(clip)
                        n_bytes += (last - first) * bytes_per_sample
        except Exception as error:
            skipped.append(skip_reason(path, error))
    return possible, round(n_bytes), tuple(skipped)


def _write_manifest(path: Path, written: Sequence[CutClip], detections: Sequence[DetectedSound]) -> None:
    """Write clips.csv. Its columns of times are not those of an excerpt, because the file is the excerpt itself."""
    others = DetectedOverlaps(detections)
    with open_output(path) as file:
        write_row = csv_writer(file)
        write_row(CLIP_COLUMNS)
        for clip, fname, excerpt, _ in written:
            if excerpt is None:
                continue
            detection = clip.detection
            labels = others.labels(detection.path, excerpt.start_seconds, excerpt.end_seconds) | {detection.label}
            end = excerpt.end_seconds if detection.end_seconds is None else detection.end_seconds
            write_row([
                fname,
                repr(sorted(labels)),
                detection.file,
                detection.label,
                "" if detection.probability is None else f"{detection.probability:.6f}",
                detection.file,
                *(f"{seconds:.6f}" for seconds in (excerpt.start_seconds, excerpt.end_seconds)),
                *(f"{seconds:.3f}" for seconds in (detection.start_seconds, end)),
            ])  # fmt: skip


class DetectedOverlaps:
    """Finds the labels of all detections that overlap a part of a recording."""

    def __init__(self, detections: Sequence[DetectedSound]) -> None:
        of_recording: dict[Path, list[DetectedSound]] = defaultdict(list)
        for detection in detections:
            of_recording[detection.path].append(detection)
        self._sorted = {
            path: sorted(found, key=lambda detection: detection.start_seconds) for path, found in of_recording.items()
        }
        self._starts = {path: np.array([d.start_seconds for d in found]) for path, found in self._sorted.items()}
        self._latest = {path: np.maximum.accumulate([_end(d) for d in found]) for path, found in self._sorted.items()}

    def labels(self, path: Path, start: float, end: float) -> set[str]:
        """The labels that overlap the time from `start` to `end`, in seconds."""
        return {detection.label for detection in self._before(path, end, start) if _end(detection) > start}

    def _before(self, path: Path, end: float, start: float) -> Iterator[DetectedSound]:
        """The detections that start before `end`, without those that all end before `start`."""
        n_before = int(np.searchsorted(self._starts[path], end))
        first = int(np.searchsorted(self._latest[path], start, side="right"))
        yield from self._sorted[path][first:n_before]


def _end(detection: DetectedSound) -> float:
    return float("inf") if detection.end_seconds is None else detection.end_seconds
