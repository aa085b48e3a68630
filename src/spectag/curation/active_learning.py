"""Active learning: which unlabelled clips to label next.

Suggested clips are those that the model is uncertain about, and that differ from each other and from labelled clips.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import overload

import numpy as np

from spectag.array_types import BoolArray, FloatArray, IntArray
from spectag.config.base import WindowConfig, parse_config
from spectag.curation.candidate_pool import LONG_SECONDS, EmbeddedPool, Pool, embed_pool
from spectag.curation.embedding import nearest_neighbors
from spectag.curation.facility_location import DISSIMILAR, NEAR_DUPLICATE, Selection, margin_uncertainty, select
from spectag.curation.near_duplicates import find_near_duplicates
from spectag.data.clips import Clip
from spectag.data.corrections import join_labels
from spectag.data.manifest import read_manifest
from spectag.data.readers.columns import find_delimiter
from spectag.data.readers.delimited_text import open_table, read_text
from spectag.data.readers.rows import format_times
from spectag.errors import DataError
from spectag.models.out_of_fold import OutOfFoldPredictions, read_out_of_fold
from spectag.models.pretrained import open_tagger
from spectag.models.tagger import Tagger
from spectag.models.tags import Tag
from spectag.system.output import csv_writer, open_output
from spectag.system.progress import Log, Progress, no_log, shows_progress, silent

SUGGESTION_COLUMNS = ("rank", "fname", "start", "end", "labels", "suggested", "probability", "uncertainty", "why")

_FEW_CLIPS = 20  # an embedding of fewer clips is not reliable: then only copies count as near-duplicates
_COPY_SIMILARITY = 0.9999
_N_COMPARED = 3  # labelled clips that a suggestion's samples are compared with
_COMPARED_SIMILARITY = 0.5  # and their lowest similarity
_UNCERTAIN = 0.3
_RIVAL_RATIO = 0.5  # a label may be the true one if its probability is at least this fraction of the highest one
_FAINT_PROBABILITY = 0.1  # if all labels are below it, the question is not which one is true


@dataclass(frozen=True)
class Suggestion:
    """A clip to label, and why."""

    rank: int
    """From 1: label this one first."""
    fname: str
    """Relative to the folder of all clips; for the clips of a manifest, the name in the manifest."""
    file: str
    """The path, or a URL such as s3://bucket/a.wav."""
    start_seconds: float
    end_seconds: float | None
    """None: the whole recording."""
    suggested: tuple[str, ...]
    """Labels above their thresholds, most probable first; if there are none, the most probable label."""
    probability: float
    """Probability of the first suggested label."""
    uncertainty: float | None
    """From 0 to 1; None for a pretrained model, which has other labels."""
    why: str


@dataclass(frozen=True)
class Suggestions(Sequence[Suggestion]):
    """Clips, in the order in which to label them."""

    clips: tuple[Suggestion, ...]
    folder: str
    """The folder that their names are relative to: the `audio_dir` for reading them as a manifest."""
    skipped: tuple[str, ...]
    """Why files can't be read."""

    def __len__(self) -> int:
        return len(self.clips)

    @overload
    def __getitem__(self, index: int) -> Suggestion: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Suggestion, ...]: ...
    def __getitem__(self, index: int | slice) -> Suggestion | tuple[Suggestion, ...]:
        return self.clips[index]


@shows_progress
def suggest(
    model: str | Path | Tagger,
    folder: str | Path | Sequence[str | Path],
    n: int = 50,
    *,
    labelled: str | Path | Sequence[str | Path] = (),
    window: float | None = None,
    audio_dir: str | Path | None = None,
    seed: int = 0,
    workers: int | None = None,
    progress: Progress = silent,
    log: Log = no_log,
) -> Suggestions:
    """Suggest which clips to label next, the most useful clip first. The first k of n are the best k clips to label.

    Parameters
    ----------
    model : path, name or Tagger
        A model that was trained on the labelled clips. At the beginning, use a pretrained one: its labels are ignored,
        and the suggested clips are typical of many other clips and differ from each other.
    folder : path, or sequence of paths
        Folders, files, patterns and URLs of recordings; or a manifest, whose labels are ignored.
    n : int
        Number of suggestions. There are fewer if all other clips are labelled, or near-duplicates of labelled clips.
    labelled : path, or sequence of paths
        Manifests of labelled clips. The model's training clips are recognised without them, if they are in `folder`.
    window : float, optional
        Suggest windows of this length in seconds, instead of whole recordings.
    audio_dir : path, optional
        Folder of the manifests' sounds, if they are neither beside the manifests nor in `folder`.
    seed : int
        Only used for more than 10,000 clips: then a random sample of them is covered.
    workers : int, optional
        Number of cores. By default all, or one for a few files.
    progress, log
        Called with the progress of the work, and with a note on clips that are left out.

    Raises
    ------
    DataError
        If no file can be read, or there is nothing left to suggest; or as `read_manifest`.
    AudioError
        If there are no files.
    ConfigError
        If the window has no length.
    ValueError
        If n is below 1.

    Examples
    --------
    >>> for clip in spectag.suggest("model", "recordings", 10):  # doctest: +SKIP
    ...     print(clip.fname, clip.why)
    """
    if n < 1:
        raise ValueError(f"need n >= 1, got {n}")
    windows = None if window is None else parse_config({"window_seconds": window}, WindowConfig, source="window")
    tagger = open_tagger(model, progress=progress, log=log)
    pool = Pool.find([folder] if isinstance(folder, str | Path) else folder, tagger, audio_dir=audio_dir)
    if windows is not None and pool.spans is not None:
        raise DataError(f"{folder}: the manifest defines the start and end of its clips; leave out the window")
    manifests = [labelled] if isinstance(labelled, str | Path) else labelled
    labelled_clips = [
        clip for path in manifests for clip in read_manifest(path, audio_dir=audio_dir or pool.audio_dir).clips
    ]
    out_of_fold = read_out_of_fold(tagger.folder)
    rng = np.random.default_rng(seed)
    embedded = embed_pool(tagger, pool, labelled_clips, windows, workers=workers, progress=progress, rng=rng)
    is_labelled = embedded.labelled(labelled_clips, () if out_of_fold is None else out_of_fold.keys, progress=progress)
    if embedded.n_long:
        log(f"{embedded.n_long:,} recordings are longer than {LONG_SECONDS:g} s; use a window to get shorter clips")
    if is_labelled.any():
        log(f"{np.count_nonzero(is_labelled):,} of {len(is_labelled):,} clips are labelled already")
    uncertainty = _uncertainty(tagger, embedded, labelled_clips, out_of_fold)
    clips: list[Suggestion] = []
    progress("choosing", 0, n)
    for selection in islice(_select(embedded, is_labelled, uncertainty, rng), n):
        clips.append(_suggestion(tagger, embedded, selection, len(clips) + 1, uncertainty))
        progress("choosing", len(clips), n)
    if not clips:
        left_out = f"all {len(is_labelled):,} clips are labelled, or are near-duplicates of labelled clips"
        raise DataError(f"{pool.folder}: nothing is left to suggest: {left_out}")
    if len(clips) < min(n, int(np.count_nonzero(~is_labelled))):
        log(f"{len(clips):,} suggestions: the other clips are near-duplicates of these or of labelled clips")
    return Suggestions(tuple(clips), pool.folder, embedded.skipped)


def _select(
    embedded: EmbeddedPool, is_labelled: BoolArray, uncertainty: FloatArray | None, rng: np.random.Generator
) -> Iterator[Selection]:
    """Clips by their rows in the pool, the most useful first, without near-duplicates."""
    rows = np.flatnonzero(~is_labelled)
    compared = _ComparedClips(embedded, np.flatnonzero(is_labelled))
    candidates = select(
        embedded.vectors[rows],
        uncertainty=None if uncertainty is None else uncertainty[rows],
        labelled=np.concatenate([embedded.vectors[is_labelled], embedded.vectors_elsewhere]),
        near_duplicate=NEAR_DUPLICATE if len(embedded.vectors) >= _FEW_CLIPS else _COPY_SIMILARITY,
        rng=rng,
    )
    for candidate in candidates:
        row = int(rows[candidate.index])
        if not compared.has_near_duplicate(row):
            compared.add(row)
            yield replace(candidate, index=row)


def _uncertainty(
    tagger: Tagger, embedded: EmbeddedPool, labelled_clips: Sequence[Clip], out_of_fold: OutOfFoldPredictions | None
) -> FloatArray | None:
    """The uncertainty (n_clips,) of a model that was trained on the user's labels; None for a pretrained model."""
    if tagger.info.data.n_clips is None:
        return None
    was_trained_on_negatives = out_of_fold is not None and bool((out_of_fold.targets == 0).all(axis=1).any())
    has_negatives = was_trained_on_negatives or any(clip.is_negative for clip in labelled_clips)
    return margin_uncertainty(
        embedded.probabilities, allow_no_label=embedded.probabilities.shape[1] == 1 or has_negatives
    )


class _ComparedClips:
    """The clips that are labelled or suggested, with which the next candidates are compared."""

    def __init__(self, embedded: EmbeddedPool, labelled_rows: IntArray) -> None:
        self._embedded = embedded
        self._clips = [*map(embedded.clip, labelled_rows.tolist()), *embedded.labelled_elsewhere]
        self._vectors = [*embedded.vectors[labelled_rows], *embedded.vectors_elsewhere]

    def has_near_duplicate(self, row: int) -> bool:
        """Whether the clip at a row of the pool is the same recording as one of the most similar clips."""
        if not self._clips:
            return False
        indices, similarities = nearest_neighbors(self._embedded.vectors[[row]], np.stack(self._vectors), _N_COMPARED)
        similar = indices[0][similarities[0] >= _COMPARED_SIMILARITY].tolist()
        clips = [*(self._clips[index] for index in similar), self._embedded.clip(row)]
        vectors = [*(self._vectors[index] for index in similar), self._embedded.vectors[row]]
        return any(pair.clip == len(similar) for pair in find_near_duplicates(clips, vectors, workers=1))

    def add(self, row: int) -> None:
        """Add the clip at a row of the pool."""
        self._clips.append(self._embedded.clip(row))
        self._vectors.append(self._embedded.vectors[row])


def _suggestion(
    tagger: Tagger, embedded: EmbeddedPool, selection: Selection, rank: int, uncertainty: FloatArray | None
) -> Suggestion:
    index = selection.index
    start, end = embedded.spans[index]
    probabilities = embedded.probabilities[index]
    clip_uncertainty = None if uncertainty is None else float(uncertainty[index])
    order = np.argsort(-probabilities, kind="stable")
    above_threshold = [label for label in order if probabilities[label] >= tagger.thresholds[label]]
    suggested = above_threshold or [order[0]]
    most_probable = [Tag(tagger.labels.names[label], float(probabilities[label])) for label in order[:2]]
    return Suggestion(
        rank=rank,
        fname=embedded.fnames[index],
        file=embedded.files[index],
        start_seconds=start,
        end_seconds=end,
        suggested=tuple(tagger.labels.names[label] for label in suggested),
        probability=float(probabilities[suggested[0]]),
        uncertainty=clip_uncertainty,
        why=reasons_to_label(selection, clip_uncertainty, most_probable, n_detected=len(above_threshold)),
    )


def reasons_to_label(
    selection: Selection, uncertainty: float | None, most_probable: Sequence[Tag], *, n_detected: int
) -> str:
    """Why to label a clip, given its one or two most probable labels, and how many labels are detected."""
    reasons = []
    if selection.similarity < DISSIMILAR:
        reasons.append("unlike anything labelled")
    if uncertainty is not None and uncertainty >= _UNCERTAIN:
        first, *others = most_probable
        is_likely = n_detected > 0 or first.probability >= _FAINT_PROBABILITY
        if is_likely and others and others[0].probability >= _RIVAL_RATIO * first.probability:
            either = f"unsure between {first.label} and {others[0].label}"
            both = f"unsure whether it is {first.label}, {others[0].label} or both"
            reasons.append(both if n_detected > 1 else either)
        elif n_detected:
            reasons.append(f"unsure of {first.label}")
        else:
            reasons.append(f"nothing detected, {first.label} is most probable")
    if selection.n_represented > 1:
        reasons.append(f"represents {selection.n_represented:,} clips")
    return "; ".join(reasons) or "unlike the clips before it"


def check_suggestions_file(path: Path) -> None:
    """Check, before any work, that the suggestions can be written to a path without losing labels.

    Raises
    ------
    DataError
        If the path is a folder, a table with labels filled in, or a file that is not a table.
    """
    if path.is_dir():
        raise DataError(f"{path}: this is a folder; give the name of a CSV")
    if not path.is_file():
        return
    text = read_text(path)
    table = open_table(path, text, find_delimiter(text))
    column = table.position("labels")
    if column is not None and any(fields[column] for _, fields in table.records):
        raise DataError(f"{path}: the file contains labels, which would be lost; choose another file name")


def write_suggestions(path: str | Path | None, suggestions: Suggestions) -> None:
    """Write suggestions as a CSV, to a path or to stdout. It is a manifest once its column `labels` is filled in.

    Raises
    ------
    DataError
        If the file can't be written.
    """
    with open_output(path) as file:
        write_row = csv_writer(file)
        write_row(SUGGESTION_COLUMNS)
        for clip in suggestions:
            times, suggested = format_times(clip.start_seconds, clip.end_seconds), join_labels(clip.suggested)
            uncertainty = "" if clip.uncertainty is None else f"{clip.uncertainty:.4f}"
            numbers = f"{clip.probability:.4f}", uncertainty
            write_row([str(clip.rank), clip.fname, *times, "", suggested, *numbers, clip.why])
