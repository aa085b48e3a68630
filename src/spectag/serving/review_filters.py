"""Which clips the Review view shows: filters and queues, as a query of the database."""

import re
import sqlite3
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from spectag.config.base import Config
from spectag.curation.label_review import LABEL_ISSUES
from spectag.serving.field_types import RowNumber
from spectag.serving.project.database import ProjectDatabase
from spectag.serving.project.label_clips import MAX_LABEL_CHARACTERS

Queue = Literal["all", "suspects", "duplicates", "faults", "suggestions", "similar"]
ClipStatus = Literal["any", "unlabelled", "labelled", "no label", "unknown", "confirmed", "not confirmed", "dropped"]

_DATE = r"\d{4}-\d\d-\d\d"
_STATUS = {
    "any": "NOT clip.is_dropped",
    "unlabelled": "NOT clip.is_dropped AND NOT clip.is_labelled",
    "labelled": "NOT clip.is_dropped AND clip.is_labelled",
    "no label": "NOT clip.is_dropped AND clip.is_labelled AND clip.labels = '[]'",
    "unknown": "NOT clip.is_dropped AND clip.unknown != '[]'",
    "confirmed": "NOT clip.is_dropped AND clip.is_confirmed",
    "not confirmed": "NOT clip.is_dropped AND NOT clip.is_confirmed",
    "dropped": "clip.is_dropped",
}
_AS_REVIEWED = "NOT clip.is_dropped AND NOT clip.is_confirmed AND reviewed.labels = clip.labels"
_QUEUES = {
    "suspects": (
        f"{_AS_REVIEWED} AND reviewed.unknown = clip.unknown AND reviewed.kind IN {LABEL_ISSUES}",
        "reviewed.rank",
    ),
    "duplicates": (
        "NOT clip.is_dropped AND NOT clip.is_confirmed AND reviewed.original IN "
        "(SELECT number FROM clip WHERE NOT is_dropped)",
        "reviewed.rank",
    ),
    "faults": (
        "NOT clip.is_dropped AND NOT clip.is_confirmed AND reviewed.kind IN ('silent', 'clipped', 'unreadable')",
        "reviewed.rank",
    ),
    "suggestions": ("NOT clip.is_dropped AND NOT clip.is_labelled AND proposed.rank IS NOT NULL", "proposed.rank"),
}
"""Condition and order of each queue. An edit of the labels, or a confirmation, takes a clip out of it."""
_ORDERS = {
    "added": "clip.number",
    "name": "clip.fname, clip.start",
    "time": "clip.recorded = '', clip.recorded, clip.start",
    "probability": "ifnull(likely.probability, 0) DESC",
    "novelty": "reviewed.novelty IS NULL, reviewed.novelty DESC",
}
_JOINS = """clip LEFT JOIN review_clip AS reviewed ON reviewed.version = :version AND reviewed.clip = clip.number
    LEFT JOIN review_probability AS likely
    ON likely.version = :version AND likely.label = :candidate AND likely.clip = clip.number
    LEFT JOIN review_suggestion AS proposed ON proposed.version = :version AND proposed.clip = clip.number"""


class ClipFilter(Config):
    """Which clips to show, and in which order. What is left out does not matter."""

    queue: Queue = "all"
    similar_to: RowNumber | None = None
    """A clip, for the queue "similar"."""
    status: ClipStatus = "any"
    label: str | None = Field(None, max_length=MAX_LABEL_CHARACTERS)
    """Only clips that have this label."""
    candidate: str | None = Field(None, max_length=MAX_LABEL_CHARACTERS)
    """The label whose probability matters."""
    min_probability: float = Field(0.0, ge=0, le=1)
    max_probability: float = Field(1.0, ge=0, le=1)
    min_novelty: float | None = Field(None, ge=0, le=1e6)
    site: str | None = Field(None, max_length=1_000)
    first_day: str | None = Field(None, pattern=f"^{_DATE}$")
    last_day: str | None = Field(None, pattern=f"^{_DATE}$")
    first_hour: int | None = Field(None, ge=0, le=23)
    last_hour: int | None = Field(None, ge=0, le=23)
    """By the clock of the recorder; from 22 to 3 is the night."""
    text: str = Field("", max_length=1_000)
    """A part of the name."""
    order: Literal["added", "name", "time", "probability", "novelty"] = "added"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.queue == "similar") != (self.similar_to is not None):
            raise ValueError("similar_to is the clip for the queue similar")
        return self


def matching_clips(database: ProjectDatabase, chosen: ClipFilter, version: int) -> list[int]:
    """The numbers of the clips that match, in order.

    Parameters
    ----------
    database : ProjectDatabase
    chosen : ClipFilter
        Its `similar_to` is ignored.
    version : int
        Whose predictions count.
    """
    order = _QUEUES[chosen.queue][1] if chosen.queue in _QUEUES else _ORDERS[chosen.order]
    condition = " AND ".join(_conditions(chosen))
    query = f"SELECT clip.number FROM {_JOINS} WHERE {condition} ORDER BY {order}, clip.number"  # nosec B608
    return [row["number"] for row in _rows(database, query, chosen.model_dump() | {"version": version})]


def queue_lengths(database: ProjectDatabase, version: int) -> dict[str, int]:
    """The number of clips in each queue."""
    counts = {}
    for name, (condition, _) in _QUEUES.items():
        query = f"SELECT count(*) AS n FROM {_JOINS} WHERE {condition}"  # nosec B608
        [row] = _rows(database, query, {"version": version, "candidate": None})
        counts[name] = int(row["n"])
    return counts


def _rows(database: ProjectDatabase, query: str, values: Mapping[str, Any]) -> list[sqlite3.Row]:
    """The rows of a query with names such as :version."""
    return database.rows(re.sub(r":\w+", "?", query), *(values[name] for name in re.findall(r":(\w+)", query)))


def _conditions(chosen: ClipFilter) -> list[str]:
    conditions: dict[str, Any] = {
        _STATUS[chosen.status]: True,
        _QUEUES.get(chosen.queue, ("1",))[0]: True,
        "EXISTS (SELECT 1 FROM clip_label WHERE label = :label AND clip_label.clip = clip.number AND NOT is_unknown)": (
            chosen.label
        ),
        "reviewed.clip IS NOT NULL AND ifnull(likely.probability, 0) BETWEEN :min_probability AND :max_probability": (
            chosen.candidate
        ),
        "reviewed.novelty >= :min_novelty": chosen.min_novelty is not None,
        "clip.site = :site": chosen.site,
        "clip.recorded >= :first_day": chosen.first_day,
        "substr(clip.recorded, 1, 10) BETWEEN '0' AND :last_day": chosen.last_day,
        _hours(chosen): chosen.first_hour is not None or chosen.last_hour is not None,
        "instr(lower(clip.fname), lower(:text)) > 0": chosen.text,
    }
    return [condition for condition, is_used in conditions.items() if is_used]


def _hours(chosen: ClipFilter) -> str:
    first, last = chosen.first_hour or 0, 23 if chosen.last_hour is None else chosen.last_hour
    hour = "CAST(substr(clip.recorded, 12, 2) AS INTEGER)"
    both = f"({hour} >= {first} {'AND' if first <= last else 'OR'} {hour} <= {last})"
    return f"clip.recorded != '' AND {both}"
