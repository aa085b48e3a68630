"""What jobs can do: the functions of each kind."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from spectag.system.epoch_log import OnEpoch
from spectag.system.progress import Log, Progress

JOB_KINDS: dict[str, str] = {
    "clips": "spectag.serving.project.checked_clips:cut_checked_clips",
    "map": "spectag.serving.project.clip_map:draw_map",
    "review": "spectag.serving.review_jobs:review_clips",
    "suggest": "spectag.serving.review_jobs:suggest_clips",
    "tag": "spectag.serving.project.bulk_tagging:tag_recordings",
    "train": "spectag.serving.project.training:train_version",
}
"""Module and function of each kind of job. A project only names kinds: it can't make the server run anything else."""


@dataclass(frozen=True)
class JobContext:
    """What a job gets beside what it was asked for."""

    folder: Path
    """The project. `ProjectDatabase` opens its database, which the server uses at the same time."""
    progress: Progress
    log: Log
    job_folder: Path
    """A folder of the job, for its unfinished files. It is the same when the job is resumed."""
    on_epoch: OnEpoch = lambda _: None
    seconds_left: Callable[[float], None] = lambda _: None
    """To call with the time that the whole job still takes, when that can be foreseen."""


JobFunction = Callable[[JobContext, Mapping[str, Any]], dict[str, Any]]
"""Returns a JSON object. Its SpectagErrors become the reason why the job failed; KeyboardInterrupt stops it."""


def imported_function(name: str) -> JobFunction:
    """The function of a job, by its module and name, such as `package.module:function`."""
    module, _, function_name = name.partition(":")
    function: JobFunction = getattr(import_module(module), function_name)
    return function
