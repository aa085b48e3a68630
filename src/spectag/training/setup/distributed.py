"""The processes that train together: what the first does before the others, and what they must agree on."""

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

_LONGEST_WAIT = timedelta(days=2)
"""Of one process for another, as while the first makes the bank."""
_COUNTS = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
_KNOWN_KINDS = {"NO", "MULTI_CPU", "MULTI_GPU", "MULTI_XPU", "MULTI_NPU", "MULTI_MLU", "MULTI_MUSA", "MULTI_HPU"}


@dataclass(frozen=True)
class Processes:
    """This process among those that train together, mostly the only one, which may do without an accelerator."""

    accelerator: "Accelerator | None" = None

    @classmethod
    def started(cls, *, for_frozen_alone: bool) -> "Processes":
        """Meet the processes that `accelerate launch` started, if any did.

        Raises
        ------
        ConfigError
            If they are to hold parts of the network each.
        """
        if for_frozen_alone and n_started() == 1:
            return cls()
        from accelerate import Accelerator, InitProcessGroupKwargs

        accelerator = Accelerator(
            cpu=True if n_started() > 1 and not _can_meet_on_gpus() else None,  # None: as accelerate was told
            mixed_precision="no",
            kwargs_handlers=[InitProcessGroupKwargs(timeout=_LONGEST_WAIT)],
        )
        kind = accelerator.distributed_type.value
        if kind not in _KNOWN_KINDS:
            raise ConfigError(
                f"accelerate was told to train by {kind}, but each process of spectag needs the whole network; answer "
                "accelerate config anew, or launch with --multi_gpu"
            )
        if accelerator.num_processes > 1:
            _part_in_the_end()
        return cls(accelerator)

    @property
    def are_several(self) -> bool:
        """Whether there is another than this one."""
        return self.accelerator is not None and self.accelerator.num_processes > 1

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes and tells."""
        return self.accelerator is None or self.accelerator.is_main_process

    @property
    def note(self) -> str:
        """What is to be said of who trains; nothing where one process was started and no more were asked for."""
        if self.accelerator is not None and self.are_several:
            return f"{self.accelerator.num_processes} processes share each batch ({self.accelerator.device.type})"
        if n_started() == 1 and {"ACCELERATE_USE_CPU", "MASTER_PORT"} <= os.environ.keys():
            return (
                "one process trains alone: accelerate launch starts several only with --multi_gpu, which works without "
                "a GPU too; leave --cpu out"
            )
        return ""

    @contextmanager
    def main_process_first(self) -> Iterator[None]:
        """A block that the first process runs before the others; its foreseen error is an error in all of them."""
        if self.is_first:
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
        """What the first process makes, in all of them; so is its foreseen error."""
        made = None
        with self.main_process_first():
            if self.is_first:
                made = make()
        return self.broadcast(made)

    def broadcast(self, value: T) -> T:
        """The first process' value, in all of them."""
        if not self.are_several:
            return value
        from accelerate.utils import broadcast_object_list

        values = [value]
        broadcast_object_list(values)
        return values[0]

    def wait(self) -> None:
        """Go on when all have come here."""
        if self.accelerator is not None:
            self.accelerator.wait_for_everyone()


@cache
def _part_in_the_end() -> None:
    """Take leave of the other processes before this one ends; threads that still wait for them would abort it."""
    from torch import distributed

    def part() -> None:
        if distributed.is_initialized():
            distributed.destroy_process_group()

    atexit.register(part)


def n_started() -> int:
    """How many processes the launcher started, by what it left in the environment."""
    return max(int(os.environ.get(name, "1")) for name in _COUNTS)


def _can_meet_on_gpus() -> bool:
    import torch

    return torch.accelerator.is_available() and not torch.backends.mps.is_available()
