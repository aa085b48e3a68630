"""The plan of a training: what each member costs, measured on this machine, and what fits into a time budget."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from spectag.array_types import BoolArray, FloatArray, IntArray
from spectag.data.spectrograms.clip_inputs import ClipInputs
from spectag.system.progress import silent
from spectag.system.worker_pool import n_usable_cores
from spectag.training.heads.discriminant import SHRINKAGES, fit_discriminant_heads
from spectag.training.heads.logistic import PrincipalAxes
from spectag.training.members.bundle_member import seconds_per_export
from spectag.training.members.member import MemberInputs
from spectag.training.setup.budget import ENOUGH_EPOCHS, affordable

_N_MEASURED_CLIPS = 10
N_MIXED_AT_ONCE = 250
"""Mixed clips are made in steps of this number."""
_SECONDS_PER_GRADIENT_HEAD = 1.0  # of some thousand clips, on two cores
_HEADS_BESIDE = 2.0  # all work on heads takes as long as this many heads for each training: with windows, without parts
_EXPORTS_PER_NETWORK = 1.5  # writing a network and comparing it takes as long as this many exports
_EXPORTS_BESIDE = 5.0  # starting, scores, measured clips and pictures take as long as this many exports
_MAX_WRITING_FRACTION = 0.3
"""Largest fraction of a budget that is kept for writing the model."""
_ENOUGH_MIXED_CLIPS = 1000
"""Mixed clips that are made before anything is fine-tuned: these help most, and fine-tuning for few epochs does not."""
_MAX_FROZEN_FRACTION = 0.5
"""Largest fraction of the time that a fine-tuned member does not need that is used for mixed clips, or for a frozen
member."""


@dataclass(frozen=True)
class FrozenCost:
    """Expected seconds of a frozen member: all features that are missing, the heads, each mixed clip, writing it."""

    features: float
    heads: float
    per_mixed_clip: float = 0.0
    n_mixed_clips: int = 0  # at most
    n_trainings: int = 1
    writing: float = 0.0

    @property
    def seconds(self) -> float:
        """Seconds without mixed clips."""
        return self.features + self.heads


@dataclass(frozen=True)
class FinetuneCost:
    """Expected seconds of an epoch of each training of a fine-tuned member, in their order, and of writing it.

    `n_epochs` is the most that are wanted, `min_trainings` the fewest trainings that are of use.
    """

    per_epoch: tuple[float, ...]
    n_epochs: int
    min_trainings: int = 1
    features: float = 0.0
    writing: float = 0.0
    is_beside_others: bool = False
    """Whether there is a frozen member. Then, this one is left out rather than trained for too few epochs."""

    @property
    def least(self) -> float:
        """Seconds for enough epochs of the trainings that are needed."""
        n_epochs = min(ENOUGH_EPOCHS, self.n_epochs)
        return self.seconds(n_epochs, self.min_trainings) + self.writing

    def seconds(self, n_epochs: int, n_trainings: int) -> float:
        """Seconds of some trainings."""
        return self.features + n_epochs * sum(self.per_epoch[:n_trainings])


Cost = FrozenCost | FinetuneCost


@dataclass(frozen=True)
class MemberPlan:
    """How a member is trained: networks or heads, epochs of each, and seconds of all together.

    `n_epochs` is None for a frozen member. Without trainings, there is no time for the member.
    """

    name: str
    n_trainings: int
    seconds: float
    n_mixed_clips: int = 0
    n_epochs: int | None = None
    cost: Cost | None = None

    @property
    def what(self) -> str:
        """What is trained, without its time."""
        if not self.n_trainings:
            needed = "" if self.cost is None else f": it needs about {rounded(least_seconds(self.cost))}"
            return f"left out, because it takes too long{needed}"
        trainings = f"{self.n_trainings} training{'' if self.n_trainings == 1 else 's'}"
        if self.n_epochs is not None:
            trainings += f" of {self.n_epochs} epochs"
        if self.n_mixed_clips:
            trainings += f" with {self.n_mixed_clips} mixed clips"
        return trainings

    def __str__(self) -> str:
        return f"{self.name}: {self.what}" + (f", about {rounded(self.seconds)}" if self.n_trainings else "")

    @property
    def seconds_with_writing(self) -> float:
        """Seconds of training and of writing the network."""
        return self.seconds + (self.cost.writing if self.cost is not None and self.n_trainings else 0.0)


def allot(costs: Mapping[str, Cost], seconds: float | None, *, must_fit: bool = True) -> dict[str, MemberPlan]:
    """What is trained of each member in the given time, by names and costs; None: everything.

    In this order, as far as there is time: the first frozen member (always, with `must_fit`); enough mixed clips for
    it; fine-tuning with enough epochs; more mixed clips; further frozen members; more epochs.
    """
    left = math.inf if seconds is None else seconds
    plans: dict[str, MemberPlan] = {}
    frozen = [(name, cost) for name, cost in costs.items() if isinstance(cost, FrozenCost)]
    tuned = [(name, cost) for name, cost in costs.items() if isinstance(cost, FinetuneCost)]
    for name, cost in frozen[:1]:
        if must_fit or least_seconds(cost) <= left:
            plans[name] = _plan_frozen(name, cost, left, _ENOUGH_MIXED_CLIPS)
            left -= plans[name].seconds_with_writing
    reserved: dict[str, float] = {}
    for name, needs in tuned:
        if needs.least <= left:
            reserved[name] = needs.least
            left -= needs.least
    fraction = _MAX_FROZEN_FRACTION if reserved else 1.0
    for name in list(plans):
        earlier = plans[name]
        plans[name] = _more_mixed_clips(earlier, fraction * left)
        left -= plans[name].seconds - earlier.seconds
    for name, cost in frozen[1:]:
        if least_seconds(cost) <= fraction * left:
            plans[name] = _plan_frozen(name, cost, fraction * left, cost.n_mixed_clips)
            left -= plans[name].seconds_with_writing
    for number, (name, needs) in enumerate(tuned):
        share = reserved.get(name, 0.0) + max(left, 0.0) / (len(tuned) - number)
        plans[name] = _plan_tuning(name, needs, share - needs.features - needs.writing)
        left += reserved.get(name, 0.0) - plans[name].seconds_with_writing
    return {name: plans.get(name) or MemberPlan(name, 0, 0.0, cost=cost) for name, cost in costs.items()}


def least_seconds(cost: Cost) -> float:
    """Seconds of a member without mixed clips, or with enough epochs, with writing it."""
    return cost.seconds + cost.writing if isinstance(cost, FrozenCost) else cost.least


def seconds_after(costs: Iterable[Cost], seconds: float) -> float:
    """What is left of some seconds after as little as possible of each member, without those that do not fit."""
    for needed in map(least_seconds, costs):
        seconds -= needed if needed <= seconds else 0.0
    return seconds


def _plan_frozen(name: str, cost: FrozenCost, seconds: float, n_mixed_clips: int) -> MemberPlan:
    """A frozen member with up to this many mixed clips, as far as they can be made in the time."""
    plan = MemberPlan(name, cost.n_trainings, cost.seconds, cost=cost)
    return _more_mixed_clips(plan, seconds - least_seconds(cost), n_mixed_clips)


def _more_mixed_clips(plan: MemberPlan, seconds: float, at_most: int | None = None) -> MemberPlan:
    """The plan with as many further mixed clips as can be made in this time."""
    cost = plan.cost
    assert isinstance(cost, FrozenCost)
    wanted = cost.n_mixed_clips if at_most is None else min(at_most, cost.n_mixed_clips)
    n_mixed = min(wanted, plan.n_mixed_clips + max(seconds, 0.0) / max(cost.per_mixed_clip, 1e-9))
    if n_mixed < wanted:
        n_mixed -= n_mixed % N_MIXED_AT_ONCE
    n_mixed = max(int(n_mixed), plan.n_mixed_clips)
    return dataclasses.replace(plan, n_mixed_clips=n_mixed, seconds=cost.seconds + n_mixed * cost.per_mixed_clip)


def _plan_tuning(name: str, cost: FinetuneCost, seconds: float) -> MemberPlan:
    n_epochs, n_trainings = cost.n_epochs, len(cost.per_epoch)
    if (
        cost.is_beside_others
        and cost.seconds(min(ENOUGH_EPOCHS, n_epochs), cost.min_trainings) > seconds + cost.features
    ):
        return MemberPlan(name, 0, 0.0, cost=cost)
    if math.isfinite(seconds):
        n_epochs, n_trainings = affordable(seconds, cost.per_epoch, cost.n_epochs, cost.min_trainings)
    total = cost.seconds(n_epochs, n_trainings) if n_trainings else 0.0
    return MemberPlan(name, n_trainings, total, n_epochs=n_epochs, cost=cost)


def cost_of_frozen(inputs: MemberInputs, y_true: BoolArray | FloatArray, n_trained: Sequence[int]) -> FrozenCost:
    """The expected time of a frozen member, by the features of a few clips, which stay in the cache.

    `n_trained` are the numbers of clips of each training.
    """
    is_exact, n_mixed, per_mixed = inputs.recipe.optimizer == "lbfgs", inputs.recipe.n_mixed_clips, 0.0
    features = seconds_of_features(inputs, y_true, with_windows=is_exact)
    if n_mixed:
        numbers = range(max(n_mixed - _N_MEASURED_CLIPS, 0), n_mixed)  # they are made last, so they are seldom cached
        per_mixed = _seconds_per_item(
            lambda part: inputs.mixed_clips(y_true, numbers[part], progress=silent), len(numbers)
        )
    heads = _seconds_of_heads(inputs, y_true, n_trained) if is_exact else len(n_trained) * _SECONDS_PER_GRADIENT_HEAD
    writing = seconds_of_writing(inputs, y_true.shape[1])
    return FrozenCost(features, heads, per_mixed, n_mixed, len(n_trained), writing)


def seconds_of_features(inputs: MemberInputs, y_true: BoolArray | FloatArray, *, with_windows: bool) -> float:
    """The expected time for all features that are not in the cache yet, by those of a few of these clips."""
    inputs.store.onnx_file(inputs.clips.example)  # made once, and not part of the time of a clip
    missing = inputs.missing(with_windows=with_windows)
    if not len(missing):
        return 0.0
    sample = missing[np.unique(np.linspace(0, len(missing) - 1, _N_MEASURED_CLIPS).astype(int))]

    def make(part: slice) -> None:
        rows = sample[part]
        _of_rows(inputs, rows).frozen_features(
            y_true[rows], progress=silent, with_mixed=False, with_windows=with_windows
        )

    n_noisy = 0 if inputs.noisy is None else len(inputs.noisy.keys)
    return _seconds_per_item(make, len(sample)) * (len(missing) - len(sample) + n_noisy)


def seconds_of_writing(inputs: MemberInputs, n_labels: int) -> float:
    """The expected time for writing and checking the network of a member, by the export of one."""
    return _EXPORTS_PER_NETWORK * seconds_per_export(inputs, n_labels)


def _seconds_per_item(make: Callable[[slice], object], n_items: int) -> float:
    """Seconds for one of many items, without what is done once for all, such as opening the network.

    It is the difference between one item and all others, and at least a quarter of the mean time of the latter.
    """
    if not n_items:
        return 0.0
    of_first = _seconds_of(lambda: make(slice(0, 1)))
    if n_items < 3:
        return of_first
    n_others = n_items - 1
    of_others = _seconds_of(lambda: make(slice(1, None)))
    return max((of_others - of_first) / (n_others - 1), of_others / n_others / 4)


def _seconds_of_heads(inputs: MemberInputs, y_true: BoolArray | FloatArray, n_trained: Sequence[int]) -> float:
    """Seconds of all work on the heads of some trainings, by fitting one of the mean size on random features."""
    group_sizes = inputs.store.group_sizes(inputs.clips.example)
    rng = np.random.default_rng(0)
    fraction = np.mean(n_trained) / len(y_true)
    n_mixed = min(inputs.recipe.n_mixed_clips, _ENOUGH_MIXED_CLIPS)
    n_rows = round(fraction * len(y_true) + fraction**2 * n_mixed)  # of mixed clips, both parents are trained on
    features = rng.normal(size=(n_rows, sum(group_sizes))).astype(np.float32)
    targets = np.resize(np.asarray(y_true, np.float64), (n_rows, y_true.shape[1]))

    def fit() -> None:
        fit_discriminant_heads(PrincipalAxes.of(features, group_sizes, np.ones(n_rows)), targets, SHRINKAGES)

    n_at_once = min(n_usable_cores(), len(n_trained))
    return _HEADS_BESIDE * len(n_trained) / n_at_once * _seconds_of(fit)


def seconds_beside_networks(writing: float, budget: float | None) -> float:
    """Seconds for all but training and writing networks, such as scores and pictures; not too much of a budget.

    Parameters
    ----------
    writing : float
        `seconds_of_writing` of a network.
    """
    seconds = _EXPORTS_BESIDE / _EXPORTS_PER_NETWORK * writing
    return seconds if budget is None else min(seconds, _MAX_WRITING_FRACTION * budget)


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
