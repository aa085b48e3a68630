"""What a version of the model says about the clips of a project, in tables of its database."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from spectag.array_types import Float32Array, IntArray
from spectag.serving.project.database import ProjectDatabase
from spectag.serving.project.label_rows import now_text

REVIEW_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS review_run (
        version INTEGER PRIMARY KEY, time TEXT NOT NULL, n_clips INTEGER NOT NULL, origins TEXT NOT NULL
    )""",
    """CREATE TABLE IF NOT EXISTS review_clip (
        version INTEGER NOT NULL, clip INTEGER NOT NULL, labels TEXT NOT NULL, unknown TEXT NOT NULL,
        rank INTEGER NOT NULL, kind TEXT NOT NULL, label TEXT, suggested TEXT NOT NULL, certainty REAL,
        note TEXT NOT NULL, original INTEGER, novelty REAL, vector BLOB, PRIMARY KEY (version, clip)
    ) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS review_probability (
        version INTEGER NOT NULL, label TEXT NOT NULL, clip INTEGER NOT NULL, probability REAL NOT NULL,
        PRIMARY KEY (version, label, clip)
    ) WITHOUT ROWID""",
    "CREATE INDEX IF NOT EXISTS review_probability_clip ON review_probability (version, clip)",
    """CREATE TABLE IF NOT EXISTS review_suggestion (
        version INTEGER NOT NULL, rank INTEGER NOT NULL, clip INTEGER NOT NULL, suggested TEXT NOT NULL,
        probability REAL NOT NULL, uncertainty REAL, why TEXT NOT NULL, PRIMARY KEY (version, rank)
    ) WITHOUT ROWID""",
)
LEAST_PROBABILITY = 0.01
"""Lower ones are stored only for the labels of the clip and its most probable ones."""
_N_STORED = 6  # most probable labels of a clip
_N_SHOWN = 6
_VECTOR_TYPE = np.float16


class ClipFinding(NamedTuple):
    """What a version says about a clip; the labels are those that it had then, as JSON."""

    clip: int
    labels: str
    unknown: str
    rank: int
    kind: str
    """As in `curation.label_review`; unreadable; or empty for a clip that is not labelled."""
    label: str | None
    suggested: Sequence[str]
    certainty: float | None
    note: str
    original: int | None
    """The clip that it is the same recording as."""
    novelty: float | None
    vector: bytes | None
    """float16."""


class ClipSuggestion(NamedTuple):
    """A clip to label next."""

    clip: int
    suggested: Sequence[str]
    probability: float
    uncertainty: float | None
    why: str


@dataclass(frozen=True)
class ReviewRun:
    """When a version has looked at the clips."""

    time: str
    n_clips: int
    origins: dict[str, int]
    """Number of clips by the origin of their predictions."""


class ClipVectors(NamedTuple):
    """The vectors of clips, to compare them."""

    numbers: IntArray
    """(n_clips,)"""
    vectors: Float32Array
    """Unit vectors, (n_clips, n_dimensions)."""

    def nearest(self, number: int, n: int) -> list[int]:
        """The most similar clips to one of them, the most similar one first, and itself first of all."""
        rows = np.flatnonzero(self.numbers == number)
        if not len(rows):
            return []
        similarities = self.vectors @ self.vectors[rows[0]]
        similarities[rows[0]] = np.inf
        order = np.argsort(-similarities, kind="stable")[:n]
        return [int(found) for found in self.numbers[order]]


def stored_bytes(vector: Float32Array) -> bytes:
    """A vector as it is stored."""
    return vector.astype(_VECTOR_TYPE).tobytes()


def probable_labels(names: Sequence[str], probabilities: Float32Array, own: Sequence[str]) -> list[tuple[str, float]]:
    """The labels of a clip whose probabilities are stored."""
    columns = {*np.argsort(-probabilities)[:_N_STORED].tolist(), *np.flatnonzero(probabilities >= LEAST_PROBABILITY)}
    columns |= {column for column, name in enumerate(names) if name in own}
    return [(names[column], round(float(probabilities[column]), 6)) for column in sorted(map(int, columns))]


def store_findings(
    database: ProjectDatabase,
    version: int,
    findings: Iterable[ClipFinding],
    probabilities: Iterable[tuple[int, str, float]],
    *,
    origins: dict[str, int],
) -> None:
    """Replace what is stored for a version.

    Parameters
    ----------
    database : ProjectDatabase
    version : int
    findings : iterable of ClipFinding
    probabilities : iterable of (int, str, float)
        Clip, label, probability.
    origins : dict
        See `ReviewRun`.
    """
    rows = [(version, *one._replace(suggested=json.dumps(one.suggested, ensure_ascii=False))) for one in findings]
    with database.transaction() as connection:
        for table in ("review_run", "review_clip", "review_probability"):
            connection.execute(f"DELETE FROM {table} WHERE version = ?", (version,))  # nosec B608
        marks = ", ".join("?" * (1 + len(ClipFinding._fields)))
        names = f"version, {', '.join(ClipFinding._fields)}"
        connection.executemany(f"INSERT INTO review_clip ({names}) VALUES ({marks})", rows)  # nosec B608
        connection.executemany(
            "INSERT INTO review_probability (version, clip, label, probability) VALUES (?, ?, ?, ?)",
            ((version, *row) for row in probabilities),
        )
        run = version, now_text(), len(rows), json.dumps(origins)
        connection.execute("INSERT INTO review_run VALUES (?, ?, ?, ?)", run)


def store_suggestions(database: ProjectDatabase, version: int, suggestions: Sequence[ClipSuggestion]) -> None:
    """Replace the suggestions of a version, best first."""
    with database.transaction() as connection:
        connection.execute("DELETE FROM review_suggestion WHERE version = ?", (version,))
        connection.executemany(
            "INSERT INTO review_suggestion VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                (version, rank, one.clip, json.dumps(one.suggested, ensure_ascii=False), *one[2:])
                for rank, one in enumerate(suggestions, start=1)
            ],
        )


class ReviewResults:
    """Reads what versions say about clips.

    Parameters
    ----------
    database : ProjectDatabase
    """

    def __init__(self, database: ProjectDatabase) -> None:
        self._database = database
        self._vectors: tuple[int, str, ClipVectors] | None = None

    def run(self, version: int) -> ReviewRun | None:
        """When a version has looked at the clips; None if it has not."""
        rows = self._database.rows("SELECT * FROM review_run WHERE version = ?", version)
        return ReviewRun(rows[0]["time"], rows[0]["n_clips"], json.loads(rows[0]["origins"])) if rows else None

    def first_with_results(self, versions: Sequence[int]) -> int:
        """The first of these versions that has looked at clips or suggested some; the first one if none has."""
        query = """SELECT 1 FROM review_run WHERE version = ?
            UNION ALL SELECT 1 FROM review_suggestion WHERE version = ? LIMIT 1"""
        found = (version for version in versions if self._database.rows(query, version, version))
        return next(found, versions[0])

    def has_novelty(self, version: int) -> bool:
        """Whether it has stored the novelty of clips."""
        query = "SELECT 1 FROM review_clip WHERE version = ? AND novelty IS NOT NULL LIMIT 1"
        return bool(self._database.rows(query, version))

    def details(self, version: int, numbers: Sequence[int]) -> dict[int, dict[str, Any]]:
        """What a version says about clips, for JSON, by their numbers."""
        places = ",".join("?" * len(numbers))
        found: dict[int, dict[str, Any]] = {number: {"probabilities": []} for number in numbers}
        for row in self._database.rows(
            f"""SELECT clip, label, probability FROM review_probability
                WHERE version = ? AND clip IN ({places}) ORDER BY probability DESC""",  # nosec B608
            version,
            *numbers,
        ):
            shown = found[row["clip"]]["probabilities"]
            if len(shown) < _N_SHOWN:
                shown.append({"label": row["label"], "probability": row["probability"]})
        names = "kind", "label", "certainty", "note", "original", "novelty"
        for row in self._database.rows(
            f"SELECT * FROM review_clip WHERE version = ? AND clip IN ({places})",  # nosec B608
            version,
            *numbers,
        ):
            shown = {name: row[name] for name in names} | {"suggested": json.loads(row["suggested"])}
            found[row["clip"]] |= shown | {"seen_labels": json.loads(row["labels"])}
        for row in self._database.rows(
            f"SELECT clip, suggested, why FROM review_suggestion WHERE version = ? AND clip IN ({places})",  # nosec B608
            version,
            *numbers,
        ):
            found[row["clip"]] |= {"why": row["why"], "proposed": json.loads(row["suggested"])}
        return found

    def vectors(self, version: int) -> ClipVectors | None:
        """The vectors of the clips of a version; None if there are none."""
        run = self.run(version)
        if run is None:
            return None
        kept = self._vectors
        if kept is None or kept[:2] != (version, run.time):
            rows = self._database.rows(
                "SELECT clip, vector FROM review_clip WHERE version = ? AND vector IS NOT NULL", version
            )
            if not rows:
                return None
            values = np.frombuffer(b"".join(row["vector"] for row in rows), _VECTOR_TYPE).reshape(len(rows), -1)
            numbers = np.array([row["clip"] for row in rows], np.int64)
            kept = self._vectors = version, run.time, ClipVectors(numbers, values.astype(np.float32))
        return kept[2]
