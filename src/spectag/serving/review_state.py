"""What the Review view shows beside the clips: counts, labels, sites, predictions, jobs, the history."""

from dataclasses import asdict
from typing import Any

from spectag.reporting.label_colors import LabelColors
from spectag.serving.job_routes import job_record
from spectag.serving.project.label_review_tables import ReviewResults
from spectag.serving.project.label_rows import LabelStep
from spectag.serving.project.project import Project
from spectag.serving.project.versions import ModelVersion
from spectag.serving.review_filters import queue_lengths

REVIEW_JOB, SUGGEST_JOB = "review", "suggest"
_MAX_SITES = 1_000
_COUNTS = """SELECT count(*) AS n_all, ifnull(sum(is_dropped), 0) AS dropped,
    ifnull(sum(NOT is_dropped AND is_labelled), 0) AS labelled,
    ifnull(sum(NOT is_dropped AND NOT is_labelled), 0) AS unlabelled,
    ifnull(sum(NOT is_dropped AND is_confirmed), 0) AS confirmed,
    min(CASE WHEN recorded != '' THEN recorded END) AS first, max(recorded) AS last FROM clip"""


def current_version(project: Project) -> int:
    """The number of the version in use; 0 in a project without a model."""
    version = project.versions.current
    return 0 if version is None else version.number


def results_version(project: Project, results: ReviewResults) -> int:
    """The version whose results are shown: the one in use, or an ancestor that differs only in its thresholds."""
    return results.first_with_results(project.versions.with_same_networks(current_version(project)))


def review_state(project: Project, results: ReviewResults, model_labels: tuple[str, ...]) -> dict[str, Any]:
    """The state, for JSON. Changes of other programs to labels.csv are taken over first."""
    changes = project.labels.file.look()
    version, shown = current_version(project), results_version(project, results)
    [counts] = project.database.rows(_COUNTS)
    sites = project.database.rows(
        "SELECT site, count(*) AS n FROM clip WHERE site != '' AND NOT is_dropped GROUP BY site ORDER BY site LIMIT ?",
        _MAX_SITES,
    )
    run = results.run(shown)
    own = project.labels.label_counts()
    names = [*model_labels, *(name for name in own if name not in model_labels)]
    colors, model_colors = LabelColors(names), LabelColors(list(model_labels))
    return {
        "counts": dict(counts),
        "labels": [
            {
                "label": name,
                "clips": own.get(name, 0),
                "color": (model_colors if name in model_labels else colors).color(name),  # as in the other views
                "own": name in own,
                "known": name in model_labels,
            }
            for name in names
        ],
        "sites": [dict(row) for row in sites],
        "version": version,
        "predictions": None if run is None else asdict(run) | {"novelty": results.has_novelty(shown)},
        "queues": queue_lengths(project.database, shown),
        "last_edit": _last_edit(project),
        "changed": project.labels.n_changes_since(last_training(project)),
        "trained": last_training(project) is not None,
        "table": {
            "name": project.labels.file.path.name,
            "problem": project.labels.file.problem,
            "changes": None if changes is None else asdict(changes),
        },
        "jobs": {kind: _job(project, kind) for kind in (REVIEW_JOB, SUGGEST_JOB)},
    }


def _last_edit(project: Project) -> int:
    """The number of the last edit, so that a page sees when others have changed something."""
    [row] = project.database.rows("SELECT ifnull(max(number), 0) AS number FROM label_edit")
    return int(row["number"])


def last_training(project: Project) -> ModelVersion | None:
    """The newest version that was trained on the labels of the project; None if there is none."""
    for version in reversed(list(project.versions)):
        query = version.results.get("query")
        if isinstance(query, dict) and query.get("manifest") is None:
            return version
    return None


def _job(project: Project, kind: str) -> dict[str, Any] | None:
    job = project.jobs.last(kind)
    return None if job is None else job_record(job)


def step_record(step: LabelStep) -> dict[str, Any]:
    """A step of the history, for JSON."""
    values = asdict(step)
    for name in ("before", "after"):
        state = getattr(step, name)
        shown = ("labels", "unknown", "is_labelled", "is_dropped")
        values[name] = None if state is None else {key: getattr(state, key) for key in shown}
    return values
