"""The jobs of the Review view: what the model says about all clips, and which of them to label next."""

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from spectag.curation.active_learning import suggest
from spectag.curation.embedding import Embedding
from spectag.curation.label_review import Finding, review
from spectag.curation.near_duplicates import find_near_duplicates
from spectag.data.clips import Clip, Manifest
from spectag.data.labels import LabelSet
from spectag.errors import DataError
from spectag.evaluation.predictions import Predictions, predict_out_of_fold
from spectag.models.tagger import Tagger
from spectag.serving.project.database import ProjectDatabase
from spectag.serving.project.job_kinds import JobContext
from spectag.serving.project.label_clips import LABEL_SCHEMA, LabelledClip
from spectag.serving.project.label_file import LABELS_FILE, table_rows
from spectag.serving.project.label_review_tables import (
    REVIEW_SCHEMA,
    ClipFinding,
    ClipSuggestion,
    probable_labels,
    store_findings,
    store_suggestions,
    stored_bytes,
)
from spectag.serving.project.versions import MODELS
from spectag.system.output import csv_writer, open_output

_CACHE = ".cache"
_Key = tuple[str, float, float | None]


def review_clips(context: JobContext, query: Mapping[str, Any]) -> dict[str, Any]:
    """Tag all clips with a version of the model, and find label errors, near-duplicates and faults.

    Clips that it was trained on get out-of-fold predictions.

    Parameters
    ----------
    context : JobContext
    query : mapping
        `version`: its number.
    """
    version = int(query["version"])
    database, tagger = _opened(context, version)
    try:
        clips = {_key(one.clip): one for one in _stored(database, "NOT is_dropped")}
        if not clips:
            raise DataError("there are no clips; add sounds to the project first")
        predictions, findings = _reviewed(context, tagger, list(clips.values()))
        own = [clips[_key(clip)] for clip in predictions.clips]
        rows = _rows(predictions, findings, own, clips)
        names = predictions.labels.names
        likely = (
            (clip.number, label, value)
            for clip, values in zip(own, predictions.probabilities, strict=True)
            for label, value in probable_labels(names, values, clip.state.labels)
        )
        origins = {name: predictions.origins.count(name) for name in dict.fromkeys(predictions.origins)}
        store_findings(database, version, rows, likely, origins={str(name): n for name, n in origins.items()})
    finally:
        database.close()
    kinds = [row.kind for row in rows]
    return {"clips": len(rows), **{kind: kinds.count(kind) for kind in dict.fromkeys(kinds) if kind}}


def suggest_clips(context: JobContext, query: Mapping[str, Any]) -> dict[str, Any]:
    """Choose which of the unlabelled clips to label next.

    Parameters
    ----------
    context : JobContext
    query : mapping
        `version`: the number of the model's version; `n`: how many clips.
    """
    version = int(query["version"])
    database, tagger = _opened(context, version)
    try:
        clips = {_key(one.clip): one for one in _stored(database, "NOT is_dropped AND NOT is_labelled")}
        if not clips:
            raise DataError("all clips are labelled; add sounds without labels to the project first")
        labelled = _stored(database, "NOT is_dropped AND is_labelled")
        with _tables(context.folder, list(clips.values()), labelled) as (candidates, known):
            chosen = suggest(
                tagger, candidates, int(query["n"]), labelled=known, progress=context.progress, log=context.log
            )
        found = [
            ClipSuggestion(
                clips[os.path.realpath(one.file), one.start_seconds, one.end_seconds].number,
                one.suggested,
                one.probability,
                one.uncertainty,
                one.why,
            )
            for one in chosen
        ]
        store_suggestions(database, version, found)
    finally:
        database.close()
    return {"clips": len(found)}


def _opened(context: JobContext, version: int) -> tuple[ProjectDatabase, Tagger]:
    tagger = Tagger(context.folder / MODELS / f"{version:04}")
    return ProjectDatabase(context.folder, (*LABEL_SCHEMA, *REVIEW_SCHEMA)), tagger


def _stored(database: ProjectDatabase, condition: str) -> list[LabelledClip]:
    rows = database.rows(f"SELECT * FROM clip WHERE {condition} ORDER BY number")  # nosec B608
    return [LabelledClip.of_row(row) for row in rows]


def _key(clip: Clip) -> _Key:
    return str(clip.path), clip.start_seconds, clip.end_seconds


def _reviewed(
    context: JobContext, tagger: Tagger, clips: Sequence[LabelledClip]
) -> tuple[Predictions, Sequence[Finding]]:
    """The predictions for clips, and what may be wrong with those that are labelled."""
    known = set(tagger.labels.names)
    used = sorted({label for clip in clips if clip.state.is_labelled for label in clip.state.labels} & known)
    manifest = Manifest(
        context.folder / LABELS_FILE, tuple(_for_model(clip, used) for clip in clips), LabelSet(tuple(used))
    )
    if used:
        found = review(tagger, manifest, progress=context.progress, log=context.log)
        assert found.predictions is not None
        return found.predictions, found.findings
    context.log("the clips have no label that the model knows: their labels are not checked")
    predictions = predict_out_of_fold(tagger, manifest, features=True, progress=context.progress, log=context.log)
    assert predictions.features is not None
    same = find_near_duplicates(predictions.clips, predictions.features, progress=context.progress)
    originals = [(predictions.clips[pair.clip], predictions.clips[pair.original]) for pair in same]
    return predictions, [_duplicate(rank, *pair) for rank, pair in enumerate(originals, start=1)]


def _duplicate(rank: int, clip: Clip, original: Clip) -> Finding:
    note = f"the same recording as {original.name}"
    return Finding(rank, "near duplicate", clip, None, None, (), None, None, note, original=original)


def _for_model(clip: LabelledClip, labels: Sequence[str]) -> Clip:
    """The clip with the labels that the model knows. All labels of one that is not labelled are unknown.

    Its name is its path, because names in different folders may be equal.
    """
    plain = replace(clip.clip, fname=str(clip.path))
    if not clip.state.is_labelled:
        return replace(plain, labels=(), unknown=tuple(labels))
    own, unknown = (
        tuple(label for label in names if label in labels) for names in (clip.state.labels, clip.state.unknown)
    )
    return replace(plain, labels=own, unknown=unknown)


def _rows(
    predictions: Predictions,
    findings: Sequence[Finding],
    own: Sequence[LabelledClip],
    clips: Mapping[_Key, LabelledClip],
) -> list[ClipFinding]:
    """What is stored of each clip, also of those that can't be read."""
    assert predictions.features is not None
    vectors = Embedding.fit(predictions.features)(predictions.features)
    novelty: list[float | None] = [None] * len(own)
    if predictions.novelty is not None:
        novelty = [None if np.isnan(value) else round(float(value), 4) for value in predictions.novelty]
    by_key = {_key(finding.clip): finding for finding in findings}
    rows = []
    for clip, vector, new in zip(own, vectors, novelty, strict=True):
        finding = by_key.get(_key(clip.clip))
        row = _finding_row(clip, finding, clips)
        rows.append(row._replace(novelty=new, vector=stored_bytes(vector)))
    for unread, reason in predictions.skipped:
        clip = clips[_key(unread)]
        note = reason.replace(str(clip.path), clip.fname)
        rows.append(_finding_row(clip, None, clips)._replace(kind="unreadable", note=note))
    return rows


def _finding_row(clip: LabelledClip, finding: Finding | None, clips: Mapping[_Key, LabelledClip]) -> ClipFinding:
    columns = clip.state.columns()
    now = clip.number, columns["labels"], columns["unknown"]
    if finding is None:
        return ClipFinding(*now, 0, "", None, (), None, "", None, None, None)
    original = None if finding.original is None else clips[_key(finding.original)]
    note = finding.note if original is None else finding.note.replace(str(original.path), original.fname)
    is_about_labels = clip.state.is_labelled or finding.label is None
    others = tuple(label for label in clip.state.labels if label not in finding.clip.labels)
    return ClipFinding(
        *now,
        rank=finding.rank,
        kind=finding.kind if is_about_labels else "",
        label=finding.label if is_about_labels else None,
        suggested=(*finding.suggested, *others),
        certainty=finding.certainty,
        note=note,
        original=None if original is None else original.number,
        novelty=None,
        vector=None,
    )


@contextmanager
def _tables(
    folder: Path, candidates: Sequence[LabelledClip], labelled: Sequence[LabelledClip]
) -> Iterator[tuple[Path, list[Path]]]:
    """Manifests that are deleted at the end: one of the candidates, and one of the labelled clips if there are any."""
    cache = folder / _CACHE
    cache.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as temporary:
        paths = [Path(temporary) / name for name in ("candidates.csv", "labelled.csv")]
        for path, clips in zip(paths, (candidates, labelled), strict=True):
            with open_output(path) as out:
                write_row = csv_writer(out)
                for row in table_rows(clips, path.parent):
                    write_row(row)
        yield paths[0], paths[1:] if labelled else []
