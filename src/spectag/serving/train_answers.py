"""What a worker process computes for the Train view: what is in a manifest, a clip to play, and cards of models."""

import io
import warnings
from collections import Counter
from typing import Any

import numpy as np
import soundfile
from pydantic import Field

from spectag.audio.files import read_audio
from spectag.config.base import MAX_SECONDS, Config
from spectag.data.clips import Manifest
from spectag.data.manifest import read_manifest
from spectag.errors import DataError
from spectag.models.bundle import CARD_FILE, BundleInfo, read_info
from spectag.serving.answers import AnswerLimits, Question
from spectag.system.file_errors import reason_of
from spectag.system.regular_files import check_regular_file

MAX_LABELS = 500
"""Labels of a manifest that are listed."""
MAX_PLAYED_SECONDS = 60.0
_MAX_PLAYED_RATE = 48_000
_MAX_CARD_BYTES = 2_000_000
_MAX_HEADER = 100_000  # characters
_MAX_COLUMNS = 200
_METRICS = (
    "lwlrap",
    "mean_average_precision",
    "top1_accuracy",
    "f1_macro",
)  # the first that is defined is the main one


class ManifestQuery(Config):
    """How to read a manifest."""

    group_column: str | None = Field(None, max_length=1_000)


class ClipQuery(Config):
    """A part of a sound."""

    start_seconds: float = Field(0.0, ge=0, le=MAX_SECONDS)
    end_seconds: float | None = Field(None, ge=0, le=MAX_SECONDS)


def manifest_content(_: AnswerLimits, question: Question) -> dict[str, Any]:
    """The clips, labels, folds and groups of a manifest, and remarks about it."""
    query = question.query
    assert isinstance(query, ManifestQuery)
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        manifest = read_manifest(question.path, group_column=query.group_column)
    counts = Counter(label for clip in manifest.clips for label in clip.labels)
    labels = sorted(((name, counts[name]) for name in manifest.labels.names), key=lambda item: item[1])
    return {
        "n_clips": len(manifest.clips),
        "n_files": len({clip.path for clip in manifest.clips}),
        "n_labels": len(manifest.labels),
        "labels": labels[:MAX_LABELS],
        "n_unlabelled": sum(clip.is_negative for clip in manifest.clips),
        "n_folds": len({clip.fold for clip in manifest.clips if clip.fold}),
        "n_groups": len({clip.group for clip in manifest.clips if clip.group}),
        "columns": _columns(manifest),
        "notes": [str(note.message) for note in notes],
    }


def _columns(manifest: Manifest) -> list[str]:
    """The columns of a table with a header; none for folders and for tables of other programs."""
    if not manifest.source.is_file() or manifest.source.suffix.lower() not in (".csv", ".tsv"):
        return []
    with manifest.source.open(encoding="utf-8-sig", errors="replace") as file:
        header = file.readline(_MAX_HEADER).strip()
    delimiter = max(",;\t", key=header.count)
    return [name.strip().strip('"') for name in header.split(delimiter)][:_MAX_COLUMNS]


def clip_wav(_: AnswerLimits, question: Question) -> bytes:
    """A clip as wav of 16 bits, at most its first minute."""
    query = question.query
    assert isinstance(query, ClipQuery)
    last = query.start_seconds + MAX_PLAYED_SECONDS
    end = last if query.end_seconds is None else min(query.end_seconds, last)
    waveform, rate = read_audio(question.path, start_seconds=query.start_seconds, end_seconds=end)
    if rate > _MAX_PLAYED_RATE:
        waveform, rate = read_audio(
            question.path, sample_rate=_MAX_PLAYED_RATE, start_seconds=query.start_seconds, end_seconds=end
        )
    out = io.BytesIO()
    soundfile.write(out, np.clip(waveform, -1, 1), rate, format="WAV", subtype="PCM_16")
    return out.getvalue()


def stored_results(_: AnswerLimits, question: Question) -> dict[str, Any]:
    """The scores in the spectag.json of a model, in the form of the results of a training on the page."""
    info = read_info(question.path)
    metrics = info.metrics
    values = {name: number for name in _METRICS if (number := _number(metrics.get(name))) is not None}
    if not values:
        return {}
    intervals = metrics.get("intervals", {})
    scores = {}
    for name, value in values.items():
        ends = intervals.get(name) if isinstance(intervals, dict) else None
        low, high = map(_number, ends) if isinstance(ends, list) and len(ends) == 2 else (None, None)
        scores[name] = {"value": value, "low": low, "high": high}
    folds = metrics.get("folds")
    return {
        "metric": next(name for name in _METRICS if name in values),
        "scores": scores,
        "n_scored": _number(metrics.get("n_clips")) or 0,
        "n_clips": info.data.n_clips,
        "folds": [_fold(fold) for fold in folds if isinstance(fold, dict)] if isinstance(folds, list) else [],
        "labels": _precisions(info),
    }


def _fold(fold: dict[str, Any]) -> dict[str, Any]:
    return {"name": str(fold.get("name", "")), **{name: _number(fold.get(name)) for name in ("n_clips", *_METRICS)}}


def _precisions(info: BundleInfo) -> list[dict[str, Any]]:
    """The average precision of each label, the lowest first; empty if they are not stored."""
    per_label = info.metrics.get("per_label")
    if not isinstance(per_label, dict):
        return []
    counts, values = per_label.get("n_clips"), per_label.get("average_precision")
    if not (
        isinstance(counts, list) and isinstance(values, list) and len(counts) == len(values) == len(info.own_labels)
    ):
        return []
    rows = [
        {"label": label, "n_clips": _number(count) or 0, "value": _number(value)}
        for label, count, value in zip(info.own_labels, counts, values, strict=True)
    ]
    return sorted(rows, key=lambda row: (row["value"] is None, row["value"]))


def _number(value: object) -> float | int | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def model_card(_: AnswerLimits, question: Question) -> dict[str, Any]:
    """The card of a model as text."""
    path = question.path / CARD_FILE
    try:
        if path.exists():
            check_regular_file(path, max_bytes=_MAX_CARD_BYTES)
            card = path.read_text(encoding="utf-8", errors="replace")
        else:
            card = ""
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {reason_of(error)}") from error
    return {"card": card}
