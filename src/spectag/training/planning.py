"""The plan of a training: how long each member is expected to take, measured on a few of its clips."""

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from spectag.array_types import BoolArray, FloatArray, IntArray
from spectag.data.spectrograms.clip_inputs import ClipInputs
from spectag.system.progress import silent
from spectag.training.members.member import MemberInputs

_N_MEASURED_CLIPS = 6
_SECONDS_PER_HEAD = 1.0  # of some thousand clips, on two cores


@dataclass(frozen=True)
class MemberPlan:
    """How a member is trained if there is time: networks or heads, epochs of each, and seconds of all together.

    `n_epochs` and `seconds_per_epoch` are None for a frozen member. Without trainings, there is no time for the member.
    """

    name: str
    n_trainings: int
    seconds: float
    n_mixed_clips: int = 0
    n_epochs: int | None = None
    seconds_per_epoch: float | None = None

    def __str__(self) -> str:
        if not self.n_trainings:
            return f"{self.name}: left out, because it takes too long"
        trainings = f"{self.n_trainings} training{'' if self.n_trainings == 1 else 's'}"
        if self.n_epochs is not None:
            trainings += f" of {self.n_epochs} epochs"
        if self.n_mixed_clips:
            trainings += f" with {self.n_mixed_clips} mixed clips"
        return f"{self.name}: {trainings}, about {rounded(self.seconds)}"


@dataclass(frozen=True)
class FrozenCost:
    """Seconds for the features of all clips and for the heads, and seconds for each mixed clip."""

    seconds: float
    seconds_per_mixed_clip: float


def cost_of_frozen(inputs: MemberInputs, y_true: BoolArray | FloatArray, n_heads: int) -> FrozenCost:
    """The expected time of a frozen member, by the features of a few clips, which stay in the cache."""
    recipe = inputs.recipe.model_copy(update={"n_mixed_clips": min(_N_MEASURED_CLIPS, inputs.recipe.n_mixed_clips)})
    rows = np.unique(np.linspace(0, len(y_true) - 1, _N_MEASURED_CLIPS + 1).astype(int))
    first, others = rows[:1], rows[1:] if len(rows) > 1 else rows

    def compute(inputs: MemberInputs, rows: IntArray, *, with_mixed: bool) -> None:
        is_exact = recipe.optimizer == "lbfgs"
        inputs.frozen_features(y_true[rows], progress=silent, with_mixed=with_mixed, with_windows=is_exact)

    compute(_of_rows(inputs, first), first, with_mixed=False)  # with the export of the network
    sample = dataclasses.replace(_of_rows(inputs, others), recipe=recipe)
    seconds, of_mixed = _seconds_of(lambda: compute(sample, others, with_mixed=False)), 0.0
    if recipe.n_mixed_clips:
        of_mixed = _seconds_of(lambda: compute(sample, others, with_mixed=True)) / recipe.n_mixed_clips
    of_all = seconds / len(others) * len(inputs.readable_clips)
    return FrozenCost(of_all + _SECONDS_PER_HEAD * n_heads, of_mixed)


def _of_rows(inputs: MemberInputs, rows: IntArray) -> MemberInputs:
    """The inputs of some clips, without clips with noisy labels."""
    clips = inputs.clips

    some = ClipInputs(
        dataclasses.replace(clips.manifest, clips=tuple(clips.manifest.clips[row] for row in rows)),
        tuple(clips.keys[row] for row in rows),
        lambda index: clips.inputs(int(rows[index])),
        lambda index: clips.parts(int(rows[index])),
        tuple(clips.part_keys[row] for row in rows),
        tuple(clips.seconds[row] for row in rows),
        (),
    )
    return dataclasses.replace(inputs, clips=some, noisy=None)


def _seconds_of(action: Callable[[], object]) -> float:
    started = time.monotonic()
    action()
    return time.monotonic() - started


def rounded(seconds: float) -> str:
    """A duration with the precision of an estimate, such as 40 s, 12 min or 3.5 h."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
