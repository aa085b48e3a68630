"""What to label next: unlabelled clips that a tagger is in doubt about, unlike each other and what is labelled."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from spectag.array_types import BoolArray, FloatArray
from spectag.config.base import WindowConfig, parse_config
from spectag.curation.candidate_pool import LONG_SECONDS, EmbeddedPool, Pool, hear
from spectag.curation.embedding import nearest
from spectag.curation.facility_location import NEAR_DUPLICATE, UNLIKE, Selection, margin_uncertainty, select
from spectag.curation.near_duplicates import find_near_duplicates
from spectag.data.clips import Clip
from spectag.data.corrections import join_labels
from spectag.data.manifest import read_manifest
from spectag.data.readers.csv_table import delimiter_of
from spectag.data.readers.delimited_text import open_table, read_text
from spectag.errors import DataError
from spectag.models.out_of_fold import OutOfFoldPredictions, read_out_of_fold
from spectag.models.pretrained import load
from spectag.models.tagger import Tag, Tagger
from spectag.system.output import csv_writer, written
from spectag.system.progress import Log, Progress, no_log, silent

COLUMNS = ("rank", "fname", "start", "end", "labels", "suggested", "probability", "uncertainty", "why")

_FEW = 20  # clips, of which nobody can tell what sounds have in common: only copies count as nearly the same
_COPY = 0.9999
_N_COMPARED, _MAYBE_SAME = 3, 0.5  # how many known clips a suggestion is held against, and how alike they must be
_IN_DOUBT = 0.3
_RIVAL = 0.5  # of the greatest probability: a label that is as probable as this might as well be the one
_FAINT = 0.1  # probability: where no label is heard nor reaches this, the doubt is not which one it is


@dataclass(frozen=True)
class Suggestion:
    """A clip to label, and what speaks for it."""

    rank: int
    """From 1: label this one first."""
    fname: str
    """As seen from the folder that holds all clips; of a manifest's clips, as it has them."""
    file: str
    """The path, or an address such as s3://bucket/a.wav."""
    start_seconds: float
    end_seconds: float | None
    """None: the whole recording."""
    suggested: tuple[str, ...]
    """What the tagger would say, most probable first: the labels that reach their thresholds, or else the nearest."""
    probability: float
    """Of the first of them."""
    uncertainty: float | None
    """From 0 to 1; None: the tagger knows other labels than ours, being one that others published."""
    why: str


@dataclass(frozen=True)
class Suggestions(Sequence[Suggestion]):
    """Clips in the order in which to label them."""

    clips: tuple[Suggestion, ...]
    folder: str
    """What their names are relative to: `audio_dir` for reading them as a manifest."""
    skipped: tuple[str, ...]
    """Why files could not be read."""

    def __len__(self) -> int:
        return len(self.clips)

    @overload
    def __getitem__(self, index: int) -> Suggestion: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Suggestion, ...]: ...
    def __getitem__(self, index: int | slice) -> Suggestion | tuple[Suggestion, ...]:
        return self.clips[index]


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
    """Suggest which clips to label next, the most useful first: any first few are the suggestion of so many.

    Parameters
    ----------
    model : path, name or Tagger
        One trained on what is labelled so far. To begin with, a published one: its labels are passed over, and clips
        are chosen that are typical of many and unlike each other.
    folder : path, or sequence of paths
        Folders, files, patterns and addresses of recordings; or a manifest, whose labels are passed over.
    n : int
        How many to suggest. There are fewer where the others are labelled, or nearly the same as those that are.
    labelled : path, or sequence of paths
        Manifests of what is labelled. What the tagger learnt from is known to be labelled without them, where it
        is in `folder`.
    window : float, optional
        Suggest stretches of so many seconds.
    audio_dir : path, optional
        Where the sounds of the manifests are that lie neither beside them nor in `folder`.
    seed : int
        Another seed may choose otherwise among more than 10,000 clips; fewer are all looked at.
    workers : int, optional
        Number of cores to use; by default all, or one for a few files.
    progress, say
        Told how far the work is, and what is passed over.

    Raises
    ------
    DataError
        If no file can be read, or nothing is left to suggest; or as `read_manifest`.
    AudioError
        If there are no files.
    ConfigError
        If the window has no length.
    ValueError
        If n is below 1.

    Examples
    --------
    >>> for clip in spectag.curation.active_learning("model", "recordings", 10):  # doctest: +SKIP
    ...     print(clip.fname, clip.why)
    """
    if n < 1:
        raise ValueError(f"need n >= 1, got {n}")
    windows = None if window is None else parse_config({"window_seconds": window}, WindowConfig, source="window")
    tagger = model if isinstance(model, Tagger) else load(model, progress=progress, log=log)
    pool = Pool.find([folder] if isinstance(folder, str | Path) else folder, tagger, audio_dir=audio_dir)
    if windows is not None and pool.stretches is not None:
        raise DataError(f"{folder}: a manifest says itself which stretches its clips are; leave out the window")
    manifests = [labelled] if isinstance(labelled, str | Path) else labelled
    known = [clip for path in manifests for clip in read_manifest(path, audio_dir=audio_dir or pool.audio_dir).clips]
    learnt = read_out_of_fold(tagger.folder)
    rng = np.random.default_rng(seed)
    heard = hear(tagger, pool, known, windows, workers=workers, progress=progress, rng=rng)
    is_labelled = heard.labelled(known, () if learnt is None else learnt.keys, progress=progress)
    _tell_of(heard, is_labelled, log)
    doubt = _doubt(tagger, heard, known, learnt)
    chosen = _chosen(heard, is_labelled, doubt, n, rng=rng, progress=progress)
    if not chosen:
        raise DataError(
            f"{pool.folder}: nothing is left to suggest: all {len(is_labelled):,} clips are labelled, or nearly the "
            "same as clips that are"
        )
    if len(chosen) < min(n, int(np.count_nonzero(~is_labelled))):
        log(f"{len(chosen):,} suggestions: the other clips are nearly the same as these or as labelled ones")
    clips = tuple(
        _suggestion(tagger, heard, choice, rank, None if doubt is None else float(doubt[choice.index]))
        for rank, choice in enumerate(chosen, start=1)
    )
    return Suggestions(clips, pool.folder, heard.skipped)


def _tell_of(heard: EmbeddedPool, is_labelled: BoolArray, log: Log) -> None:
    if heard.n_long:
        log(f"{heard.n_long:,} recordings last more than {LONG_SECONDS:g} s; a window suggests stretches of them")
    if is_labelled.any():
        log(f"{np.count_nonzero(is_labelled):,} of {len(is_labelled):,} clips are labelled already")


def _chosen(
    heard: EmbeddedPool,
    is_labelled: BoolArray,
    doubt: FloatArray | None,
    n: int,
    *,
    rng: np.random.Generator,
    progress: Progress,
) -> list[Selection]:
    """The n most useful clips, by their rows in the pool, each sound once."""
    rows = np.flatnonzero(~is_labelled)
    known = _Known(heard, np.flatnonzero(is_labelled))
    found = select(
        heard.vectors[rows],
        doubt=None if doubt is None else doubt[rows],
        labelled=np.concatenate([heard.vectors[is_labelled], heard.vectors_elsewhere]),
        near_duplicate=NEAR_DUPLICATE if len(heard.vectors) >= _FEW else _COPY,
        rng=rng,
    )
    chosen: list[Selection] = []
    progress("choosing", 0, n)
    for choice in found:
        row = int(rows[choice.index])
        if known.has(row):
            continue
        known.add(row)
        chosen.append(replace(choice, index=row))
        progress("choosing", len(chosen), n)
        if len(chosen) == n:
            break
    return chosen


def _doubt(
    tagger: Tagger, heard: EmbeddedPool, known: Sequence[Clip], learnt: OutOfFoldPredictions | None
) -> FloatArray | None:
    """The doubt (n_clips,) of a tagger that knows our labels."""
    if tagger.info.data.n_clips is None:  # published by others
        return None
    has_empty = learnt is not None and bool((~learnt.y_true.any(axis=1)).any())
    none_is_an_answer = len(tagger.labels) == 1 or has_empty or any(not clip.labels for clip in known)
    return margin_uncertainty(heard.probabilities, none_is_an_answer=none_is_an_answer)


class _Known:
    """The clips that are labelled or suggested, to tell whether another is the same recording."""

    def __init__(self, heard: EmbeddedPool, labelled: NDArray[np.intp]) -> None:
        self._heard = heard
        self._clips = [*map(heard.clip, labelled.tolist()), *heard.elsewhere]
        self._vectors = [*heard.vectors[labelled], *heard.vectors_elsewhere]

    def has(self, row: int) -> bool:
        """Whether the clip at a row of the pool has the sound of one that is nearest to it."""
        if not self._clips:
            return False
        places, likeness = nearest(self._heard.vectors[[row]], np.stack(self._vectors), _N_COMPARED)
        near = [int(place) for place in places[0][likeness[0] >= _MAYBE_SAME]]
        clips = [*(self._clips[place] for place in near), self._heard.clip(row)]
        vectors = [*(self._vectors[place] for place in near), self._heard.vectors[row]]
        return any(pair.clip == len(near) for pair in find_near_duplicates(clips, vectors, workers=1))

    def add(self, row: int) -> None:
        """Let the clip at a row of the pool be known."""
        self._clips.append(self._heard.clip(row))
        self._vectors.append(self._heard.vectors[row])


def _suggestion(tagger: Tagger, heard: EmbeddedPool, choice: Selection, rank: int, doubt: float | None) -> Suggestion:
    start, end = heard.stretches[choice.index]
    probabilities = heard.probabilities[choice.index]
    order = np.argsort(-probabilities, kind="stable")
    above = [i for i in order if probabilities[i] >= tagger.thresholds[i]]
    said = above or [order[0]]
    nearest_two = [Tag(tagger.labels.names[i], float(probabilities[i])) for i in order[:2]]
    return Suggestion(
        rank=rank,
        fname=heard.fnames[choice.index],
        file=heard.files[choice.index],
        start_seconds=start,
        end_seconds=end,
        suggested=tuple(tagger.labels.names[i] for i in said),
        probability=float(probabilities[said[0]]),
        uncertainty=doubt,
        why=_why(choice, doubt, nearest_two, is_heard=bool(above)),
    )


def _why(choice: Selection, doubt: float | None, nearest_two: Sequence[Tag], *, is_heard: bool) -> str:
    """What speaks for a clip, given its two most probable labels, or its only one."""
    reasons = []
    if choice.likeness < UNLIKE:
        reasons.append("unlike anything labelled")
    if doubt is not None and doubt >= _IN_DOUBT:
        first, *others = nearest_two
        is_between = is_heard or first.probability >= _FAINT
        if is_between and others and others[0].probability >= _RIVAL * first.probability:
            reasons.append(f"unsure between {first.label} and {others[0].label}")
        else:
            reasons.append(f"unsure of {first.label}" if is_heard else f"nothing heard, {first.label} is nearest")
    if choice.stands_for > 1:
        reasons.append(f"stands for {choice.stands_for:,} clips")
    return "; ".join(reasons) or "unlike the clips before it"


def check_output(path: Path) -> None:
    """Tell before any work what would stop it at its end, or would be lost by it.

    Raises
    ------
    DataError
        If there is a folder of this name, or a table in which labels are filled in, or what is no table.
    """
    if path.is_dir():
        raise DataError(f"{path}: is a folder; give the name of a CSV to write")
    if not path.is_file():
        return
    text = read_text(path)
    table = open_table(path, text, delimiter_of(text))
    place = table.position("labels")
    if place is not None and any(fields[place] for _, fields in table.records):
        raise DataError(f"{path}: has labels filled in, which would be lost; give the suggestions another name")


def write_suggestions(path: str | Path | None, suggestions: Suggestions) -> None:
    """Write suggestions as a CSV that is a manifest once its column `labels` is filled in; without a path to stdout.

    Raises
    ------
    DataError
        If the file can't be written.
    """
    with written(path) as file:
        write_row = csv_writer(file)
        write_row(COLUMNS)
        for clip in suggestions:
            is_whole = clip.end_seconds is None
            write_row(
                [
                    str(clip.rank),
                    clip.fname,
                    "" if is_whole and not clip.start_seconds else f"{clip.start_seconds!r}",
                    "" if is_whole else f"{clip.end_seconds!r}",
                    "",
                    join_labels(clip.suggested),
                    f"{clip.probability:.4f}",
                    "" if clip.uncertainty is None else f"{clip.uncertainty:.4f}",
                    clip.why,
                ]
            )
