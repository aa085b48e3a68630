"""Writing the labels of detections into copies of the recordings, or into sidecars beside them."""

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from spectag.audio.files import audio_info
from spectag.data.detections import DetectedSound, read_detections
from spectag.data.label_map import LabelChanges, LabelMap, names_for
from spectag.errors import ConfigError
from spectag.findings.file_tags import (
    WAV_SUFFIXES,
    RecordingTags,
    is_own_sidecar,
    load_mutagen,
    write_copy,
    xmp_sidecar,
)
from spectag.system.atomic_files import unfinished_file
from spectag.system.file_errors import skip_reason
from spectag.system.output import check_output_folder, open_output
from spectag.system.paths import Parts, TablePaths, common_folder, join_parts, split_below
from spectag.system.progress import Progress, shows_progress, silent


@dataclass(frozen=True)
class WrittenTags:
    """The files that were written."""

    output: Path
    files: tuple[Path, ...]
    """Copies or sidecars, in the order of the recordings in the table."""
    kept: tuple[Path, ...] = ()
    """Files that were there before, and stay."""
    skipped: tuple[str, ...] = ()
    """Why recordings were left out."""


@shows_progress
def write_tags(
    detections: str | Path | Sequence[DetectedSound],
    output: str | Path,
    *,
    sidecars: bool = False,
    names: LabelChanges | None = None,
    overwrite: bool = False,
    min_probability: float = 0.0,
    max_probability: float = float("inf"),
    audio_dir: str | Path | None = None,
    label_column: str | None = None,
    label_separator: str | None = None,
    progress: Progress = silent,
) -> WrittenTags:
    """Write the labels of detections into copies of their recordings, or into XMP sidecars.

    The recordings never change. Copies have the name, the time and the samples of the recording, and all of its
    metadata. Recordings without a detection are left out.

    Parameters
    ----------
    detections : path, or sequence of DetectedSound
        A table that `read_detections` reads.
    output : path
        A folder. The files have the same sub-folders as the recordings.
    sidecars : bool
        Write an XMP file for each recording instead of a copy.
    names : path or mapping, optional
        Other names for the labels, as for `relabel`: "ucs", a table, or the new names by label.
    overwrite : bool
        Replace earlier copies and sidecars. Sidecars of other programs always stay.
    min_probability, max_probability : float
        Detections below the first, or at or above the second, are left out.
    audio_dir, label_column, label_separator
        As for `read_detections`.
    progress : Progress

    Raises
    ------
    DataError
        If a table is not understood, or `names` has none of the labels.
    ConfigError
        If a copy would replace its recording.
    MissingExtraError
        If mutagen, which files other than wav need, is not installed.
    """
    output = Path(output)
    check_output_folder(output)
    if isinstance(detections, str | Path):
        detections = read_detections(
            detections,
            audio_dir=audio_dir,
            label_column=label_column,
            label_separator=label_separator,
            min_in_windows=min_probability,
            min_option="--min",
        ).detections
    detections = [
        sound
        for sound in detections
        if sound.probability is None or min_probability <= sound.probability < max_probability
    ]
    if names is not None:
        labels = (sound.label for sound in detections)
        detections = _renamed(detections, names_for(labels, names, separator=label_separator))
    recordings = _by_recording(detections)
    root = common_folder(str(tags.path) for tags in recordings)
    targets = _targets(recordings, output, root, sidecars=sidecars)
    if not sidecars:
        _check_targets(recordings, targets, output)
    return _write_all(recordings, targets, output, progress, sidecars=sidecars, overwrite=overwrite)


def _renamed(detections: Sequence[DetectedSound], new_names: LabelMap) -> list[DetectedSound]:
    """The detections with other labels. Of several with one time that get the same label, the most probable stays."""
    renamed: dict[tuple[Path, tuple[float, float | None], str], DetectedSound] = {}
    for sound in detections:
        for label in new_names((sound.label,)):
            key = sound.path, sound.span, label
            if key not in renamed or (renamed[key].probability or 0.0) < (sound.probability or 0.0):
                renamed[key] = replace(sound, label=label)
    return list(renamed.values())


def _by_recording(detections: Sequence[DetectedSound]) -> list[RecordingTags]:
    sounds: dict[Path, list[DetectedSound]] = defaultdict(list)
    for sound in detections:
        sounds[sound.path].append(sound)
    return [RecordingTags(path, tuple(of_recording)) for path, of_recording in sounds.items()]


def _targets(recordings: Sequence[RecordingTags], output: Path, root: Parts, *, sidecars: bool) -> list[Path]:
    if sidecars:
        paths = TablePaths(output, root, ".xmp")
        return [Path(paths.path_for(str(tags.path))) for tags in recordings]
    return [output / join_parts(split_below(str(tags.path), root)[1]) for tags in recordings]


def _check_targets(recordings: Sequence[RecordingTags], targets: Sequence[Path], output: Path) -> None:
    """Refuse copies onto recordings, and find out early if a package is missing."""
    originals = {tags.path.resolve() for tags in recordings}
    for target in targets:
        if target.resolve() in originals:
            raise ConfigError(f"-o {output}: {target} is a recording itself; choose another folder for the copies")
    if any(tags.path.suffix.lower() not in WAV_SUFFIXES for tags in recordings):
        load_mutagen()


def _write_all(
    recordings: Sequence[RecordingTags],
    targets: Sequence[Path],
    output: Path,
    progress: Progress,
    *,
    sidecars: bool,
    overwrite: bool,
) -> WrittenTags:
    written, kept, skipped = list[Path](), list[Path](), list[str]()
    step = "sidecars" if sidecars else "copies"
    progress(step, 0, len(recordings))
    for number, (tags, target) in enumerate(zip(recordings, targets, strict=True), start=1):
        try:
            if target.exists() and (not overwrite or (sidecars and not is_own_sidecar(target))):
                kept.append(target)
            else:
                (_write_sidecar if sidecars else _write_copy)(tags, target)
                written.append(target)
        except Exception as error:
            skipped.append(skip_reason(tags.path, error))
        progress(step, number, len(recordings))
    return WrittenTags(output, tuple(written), tuple(kept), tuple(skipped))


def _write_copy(tags: RecordingTags, target: Path) -> None:
    duration = audio_info(tags.path).duration_seconds
    with unfinished_file(target) as unfinished:
        write_copy(tags, unfinished, duration)
        times = tags.path.stat()
        os.utime(unfinished, ns=(times.st_atime_ns, times.st_mtime_ns))


def _write_sidecar(tags: RecordingTags, target: Path) -> None:
    info = audio_info(tags.path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with open_output(target) as file:
        file.write(xmp_sidecar(tags, info.duration_seconds, info.sample_rate))
