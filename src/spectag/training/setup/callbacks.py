"""Functions of the caller that a training reports to."""

from dataclasses import dataclass

from spectag.system.epoch_log import OnEpoch
from spectag.system.progress import Log, Progress, no_log, silent


@dataclass(frozen=True)
class Callbacks:
    """Called with the progress of each step, with messages, and with each epoch."""

    progress: Progress = silent
    log: Log = no_log
    on_epoch: OnEpoch = lambda _: None
