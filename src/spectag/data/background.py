"""Background recordings, in which no label of a manifest occurs, as clips without labels."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np

from spectag.audio.files import AUDIO_SUFFIXES, audio_info
from spectag.config.base import WindowConfig
from spectag.data.clips import Clip, Manifest
from spectag.data.readers.delimited_text import abbreviate
from spectag.data.readers.folders import visible_files
from spectag.errors import DataError, SpectagError
from spectag.system.file_errors import similar_file
from spectag.system.progress import Log, no_log

MIN_BACKGROUND_CLIPS = 1000
"""Most background clips of a small manifest; of a larger one, as many as it has clips."""
_MAX_MEASURED_CLIPS = 200  # whose length is read from their files
_SHORTEST_SECONDS = 0.1  # of a background clip


@dataclass(frozen=True)
class _Recording:
    path: Path
    fname: str
    n_clips: int  # 1: the whole recording, unless it is longer than a clip
    is_long: bool
    fault: str = ""  # why it cannot be read


def with_background(manifest: Manifest, folder: str | Path, *, log: Log = no_log) -> Manifest:
    """The manifest with the recordings of a folder and its sub-folders as clips without labels, which come last.

    A long recording is cut into clips that are as long as the median clip of the manifest, at most 60 s; what remains
    at its end is not used. If there are more background clips than `MIN_BACKGROUND_CLIPS` and than clips in the
    manifest, so many are used, evenly distributed over all recordings. If every clip of the manifest has a fold, each
    background recording gets one, too.

    Parameters
    ----------
    manifest : Manifest
        Of sounds.
    folder : path
    log : Log
        Called with the number of recordings and clips.

    Raises
    ------
    DataError
        If there is no such folder, it contains no sounds, none can be read, one of them is also in the manifest, or the
        manifest contains images.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"background {folder}: no such folder{similar_file(folder)}")
    if manifest.holds_images:
        raise DataError(f"background {folder}: {manifest.source} contains images, which cannot be compared with sounds")
    files = [path for path in visible_files(folder) if path.suffix.lower() in AUDIO_SUFFIXES]
    if not files:
        raise DataError(f"background {folder}: no sounds in this folder; expected recordings without any of the labels")
    _check_not_labelled(manifest, folder, files)
    seconds = _clip_seconds(manifest)
    recordings = [_recording(path, folder, seconds) for path in files]
    if all(recording.fault for recording in recordings):
        raise DataError(
            f"background {folder}: none of its {len(files):,} recordings can be read: {recordings[0].fault}"
        )
    most = max(MIN_BACKGROUND_CLIPS, len(manifest.clips))
    clips = list(_clips(recordings, seconds, most))
    n_possible = sum(recording.n_clips for recording in recordings)
    of_all = f" of {n_possible:,} possible ones, evenly distributed" if n_possible > len(clips) else ""
    log(f"background: {len(clips):,} clips of up to {seconds:.3g} s from {len(files):,} recordings{of_all}")
    if None not in manifest.folds:
        clips = _with_folds(clips, manifest.folds)
    return replace(manifest, clips=(*manifest.clips, *clips))


def _check_not_labelled(manifest: Manifest, folder: Path, files: Sequence[Path]) -> None:
    """Raise a DataError if a file is also a clip of the manifest with labels."""
    labelled = {clip.path.resolve() for clip in manifest.clips if not clip.is_negative}
    both = [str(path) for path in files if path.resolve() in labelled]
    if both:
        raise DataError(
            f"background {folder}: {len(both)} of its sounds have labels in {manifest.source}: {abbreviate(both)}; "
            "background recordings contain none of the labels"
        )


def _clip_seconds(manifest: Manifest) -> float:
    """The length of the median clip of the manifest."""
    longest = WindowConfig().max_clip_seconds
    rows = np.unique(np.linspace(0, len(manifest.clips) - 1, _MAX_MEASURED_CLIPS).astype(int)).tolist()
    lengths = []
    for clip in (manifest.clips[row] for row in rows):
        end = clip.end_seconds
        if end is None:
            try:
                end = audio_info(clip.path).duration_seconds
            except SpectagError:  # reported when the clip is read
                continue
        lengths.append(end - clip.start_seconds)
    return min(max(median(lengths), _SHORTEST_SECONDS), longest) if lengths else longest


def _recording(path: Path, folder: Path, seconds: float) -> _Recording:
    # the name contains that of the folder, but not where it is
    name = (Path(folder.resolve().name) / path.relative_to(folder)).as_posix()
    try:
        n_clips = int((audio_info(path).duration_seconds + 1e-9) // seconds)
    except SpectagError as error:  # training reports it when it reads the clip
        return _Recording(path, name, 1, False, str(error))
    return _Recording(path, name, max(n_clips, 1), n_clips > 1)


def _clips(recordings: Sequence[_Recording], seconds: float, most: int) -> Iterator[Clip]:
    """Clips of recordings, at most so many, evenly distributed over all clips that are possible."""
    firsts = np.cumsum([0, *(recording.n_clips for recording in recordings)])
    n_clips = int(firsts[-1])
    numbers = np.arange(n_clips) if n_clips <= most else np.linspace(0, n_clips - 1, most).round().astype(int)
    of_recording = np.searchsorted(firsts, numbers, side="right") - 1
    for number, row in zip(numbers.tolist(), of_recording.tolist(), strict=True):
        recording = recordings[row]
        clip = Clip(recording.path, recording.fname, ())
        if recording.is_long:
            start = (number - int(firsts[row])) * seconds
            clip = replace(clip, start_seconds=round(start, 3), end_seconds=round(start + seconds, 3))
        yield clip


def _with_folds(clips: Sequence[Clip], folds: Sequence[str | None]) -> list[Clip]:
    """The clips in the folds of the manifest: each recording in one, and of all clips as large a part in each fold."""
    names, counts = np.unique(np.array(folds, str), return_counts=True)
    missing = counts / counts.sum() * len(clips)
    of_file: dict[Path, list[int]] = {}
    for row, clip in enumerate(clips):
        of_file.setdefault(clip.path, []).append(row)
    fold_of: dict[int, str] = {}
    for rows in sorted(of_file.values(), key=len, reverse=True):
        fold = int(missing.argmax())
        missing[fold] -= len(rows)
        fold_of |= dict.fromkeys(rows, str(names[fold]))
    return [replace(clip, fold=fold_of[row]) for row, clip in enumerate(clips)]
