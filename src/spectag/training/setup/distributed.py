"""Processes that train together: which one is the main process, and how they exchange values."""

import atexit
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, TypeVar

from spectag.errors import ConfigError, SpectagError

if TYPE_CHECKING:
    from accelerate import Accelerator

T = TypeVar("T")

_TIMEOUT = timedelta(days=2)
"""How long a process waits for the others, for example while the main process fills the spectrogram cache."""
_COUNT_VARIABLES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
_SUPPORTED = {"NO", "MULTI_CPU", "MULTI_GPU", "MULTI_XPU", "MULTI_NPU", "MULTI_MLU", "MULTI_MUSA", "MULTI_HPU"}


@dataclass(frozen=True)
class Processes:
    """This process and the others that train with it. A single process may work without an accelerator."""

    accelerator: "Accelerator | None" = None

    @classmethod
    def connect(cls, *, frozen_only: bool) -> "Processes":
        """Connect to the other processes that `accelerate launch` started, if any.

        Raises
        ------
        ConfigError
            If accelerate is configured to split the network between processes.
        """
        if frozen_only and n_launched() == 1:
            return cls()
        from accelerate import Accelerator, InitProcessGroupKwargs

        accelerator = Accelerator(
            cpu=True if n_launched() > 1 and not _has_distributed_gpus() else None,  # None: as accelerate is configured
            mixed_precision="no",
            kwargs_handlers=[InitProcessGroupKwargs(timeout=_TIMEOUT)],
        )
        kind = accelerator.distributed_type.value
        if kind not in _SUPPORTED:
            raise ConfigError(
                f"accelerate is configured for {kind}, but each spectag process needs the whole network; run "
                "accelerate config again, or launch with --multi_gpu"
            )
        if accelerator.num_processes > 1:
            _leave_group_at_exit()
        return cls(accelerator)

    @property
    def is_distributed(self) -> bool:
        """Whether two or more processes train together."""
        return self.accelerator is not None and self.accelerator.num_processes > 1

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and prints messages."""
        return self.accelerator is None or self.accelerator.is_main_process

    @property
    def note(self) -> str:
        """A line for the log about the processes; empty if one process was launched and no more were requested."""
        if self.accelerator is not None and self.is_distributed:
            return f"{self.accelerator.num_processes} processes share each batch ({self.accelerator.device.type})"
        if n_launched() == 1 and {"ACCELERATE_USE_CPU", "MASTER_PORT"} <= os.environ.keys():
            return (
                "only one process is training: accelerate launch starts several only with --multi_gpu, which works "
                "without a GPU too; leave out --cpu"
            )
        return ""

    @contextmanager
    def main_process_first(self) -> Iterator[None]:
        """Run the block in the main process, then in the others. A SpectagError there is raised in all of them."""
        if self.is_main:
            try:
                yield
            except SpectagError as error:
                self.broadcast(str(error))
                raise
            self.broadcast("")
        else:
            if problem := self.broadcast(""):
                raise SpectagError(problem)
            yield

    def broadcast_from_main(self, make: Callable[[], T]) -> T | None:
        """Call `make` in the main process; return its result, or raise its SpectagError, in all processes."""
        result = None
        with self.main_process_first():
            if self.is_main:
                result = make()
        return self.broadcast(result)

    def broadcast(self, value: T) -> T:
        """The main process's value, in all processes."""
        if not self.is_distributed:
            return value
        from accelerate.utils import broadcast_object_list

        values = [value]
        broadcast_object_list(values)
        return values[0]

    def wait(self) -> None:
        """Wait until all processes reach this call."""
        if self.accelerator is not None:
            self.accelerator.wait_for_everyone()


@cache
def _leave_group_at_exit() -> None:
    """Leave the process group before Python exits: threads that still wait for other processes would abort it."""
    from torch import distributed

    def leave() -> None:
        if distributed.is_initialized():
            distributed.destroy_process_group()

    atexit.register(leave)


def n_launched() -> int:
    """Number of processes that the launcher started, according to the environment variables that it set."""
    values = [os.environ.get(name, "") for name in _COUNT_VARIABLES]
    return max([1, *(int(value) for value in values if value.isdecimal())])


def _has_distributed_gpus() -> bool:
    import torch

    return torch.accelerator.is_available() and not torch.backends.mps.is_available()
