"""Linear heads on the features of a frozen network for each fold, and the weights of clips with noisy labels."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from spectag.array_types import AnyFloatArray, BoolArray, Float32Array, FloatArray, IntArray
from spectag.config.recipe import Recipe
from spectag.models.clip_windows import FrameWindows
from spectag.scoring.calibration_curves import fit_line
from spectag.scoring.model_selection import Choice, HeldOutLogits
from spectag.system.epoch_log import Epoch
from spectag.system.progress import Log, Progress
from spectag.system.worker_pool import n_usable_cores
from spectag.training.heads.discriminant import DEFAULT_SHRINKAGE, SHRINKAGES, fit_discriminant_heads
from spectag.training.heads.logistic import (
    DEFAULT_WEIGHT_DECAY,
    WEIGHT_DECAYS,
    WIDER_WEIGHT_DECAYS,
    LinearHead,
    PrincipalAxes,
    fit_logistic_heads,
)
from spectag.training.heads.name_prior import PRIOR_WEIGHTS, NamePrior
from spectag.training.setup.callbacks import Callbacks
from spectag.training.setup.cross_validation import CrossValidation, Fold
from spectag.training.setup.noisy_labels import Relabelled, relabel_noisy

if TYPE_CHECKING:
    from spectag.training.inputs.feature_store import PartFeatures
    from spectag.training.inputs.mixed_clips import MixedClips

H = TypeVar("H")
T = TypeVar("T")


@dataclass(frozen=True)
class FrozenFeatures:
    """Features of the clips by a frozen network: `clips` (n_clips, n_features), and the number in each stage."""

    clips: Float32Array
    group_sizes: list[int]
    noisy: Float32Array | None = None  # (n_noisy, n_features), of the clips with noisy labels
    mixed: "MixedClips | None" = None
    parts: "Mapping[int, PartFeatures]" = field(default_factory=dict)  # of the long clips, by their rows in `clips`
    prior: NamePrior | None = None
    windows: "WindowFeatures | None" = None

    def logits(
        self, head: Callable[[Float32Array], AnyFloatArray], rows: BoolArray, windows: FrameWindows | None = None
    ) -> FloatArray:
        """Logits (n_rows, n_labels) of some clips by a head, those of long clips as in tagging (`pool_logits`)."""
        if windows is not None:
            of_clips = (self.parts_and_windows(int(row)) for row in np.flatnonzero(rows))
            return np.stack([of_clip.logits(head, windows) for of_clip in of_clips])
        logits = np.asarray(head(self.clips[rows]), np.float64)
        for position, row in enumerate(np.flatnonzero(rows)):
            if (parts := self.parts.get(int(row))) is not None:
                logits[position] = parts.logits(head)
        return logits

    def parts_and_windows(self, row: int) -> "PartFeatures":
        """Features of the parts of a clip and of their windows, read from disk."""
        assert self.windows is not None
        return self.windows.of_clip(row)

    def training_arrays(
        self, fold: Fold, y_true: BoolArray | FloatArray
    ) -> tuple[Float32Array, FloatArray, FloatArray]:
        """Features, targets and weights of all clips that a fold is trained on: plain, noisy and mixed ones."""
        features = [self.clips[fold.train]]
        targets: list[NDArray[Any]] = [y_true[fold.train]]
        weights = [fold.weights_of(np.flatnonzero(fold.train))]
        if fold.noisy is not None and self.noisy is not None:
            kept = fold.noisy.weights > 0
            features.append(self.noisy[kept])
            targets.append(fold.noisy.targets[kept])
            weights.append(fold.noisy.weights[kept])
        if self.mixed is not None:
            rows = self.mixed.within(fold.train)
            features.append(self.mixed.features[rows])
            targets.append(self.mixed.targets[rows])
            weights.append(fold.weights_of(self.mixed.parents[rows]).prod(axis=1))
        return np.concatenate(features), np.concatenate(targets).astype(np.float64), np.concatenate(weights)


@dataclass(frozen=True)
class WindowFeatures:
    """Windows that the logits of clips may contain, and the features of a clip (by its row) with those of its windows.

    They are read from disk when they are needed.
    """

    windows: FrameWindows
    of_clip: "Callable[[int], PartFeatures]"


@dataclass(frozen=True, eq=False)
class WindowLogits:
    """Held-out logits (n_windows, n_labels) of the windows of clips, and the clip (its row) of each, (n_windows,).

    A clip without windows counts as one.
    """

    clips: IntArray
    logits: FloatArray


@dataclass(frozen=True)
class HeadFit(Generic[H]):
    """A head for each training that the final model needs, and the held-out logits of the folds' heads.

    There are epochs only if the heads were trained by epochs. `refit` fits a head on another fold, with the settings
    that are chosen without one part of the held-out clips; None if that takes epochs.
    """

    heads: tuple[H, ...]
    logits: HeldOutLogits
    epochs: tuple[Epoch, ...] = ()
    refit: Callable[[Fold, int], H] | None = None
    window_logits: WindowLogits | None = None


class HeadSettings(NamedTuple):
    """How a linear head is fitted: by LDA with a shrinkage, or by logistic regression with a weight decay."""

    shrinkage: float | None = None
    weight_decay: float | None = None

    def __str__(self) -> str:
        if self.shrinkage is not None:
            return f"LDA with shrinkage {self.shrinkage:g}"
        return f"logistic regression with weight decay {self.weight_decay:g}"


class _Chosen(NamedTuple):
    """The settings of a head, the weight of the prior that is added to it, and the windows in the logits of clips."""

    settings: HeadSettings
    prior_weight: float
    windows: FrameWindows | None = None


_MAX_KEPT_VALUES = 5e7  # weights of heads, 400 MB
_HINT = "recordings that are in several folds lead to this: name what belongs together with --group-column"
_LDA = [HeadSettings(shrinkage) for shrinkage in SHRINKAGES]
_COMPARED = {
    "auto": _LDA,
    "lda": _LDA,
    "logistic": [HeadSettings(weight_decay=decay) for decay in WEIGHT_DECAYS],
}
_DEFAULTS = {  # without held-out clips
    "lda": HeadSettings(DEFAULT_SHRINKAGE),
    "logistic": HeadSettings(weight_decay=DEFAULT_WEIGHT_DECAY),
}
_SMALLEST = {  # of what is tried; few clips need the largest ones, which is no reason to worry
    HeadSettings(weight_decay=WIDER_WEIGHT_DECAYS[-1]): f"the smallest weight decay that was tried; {_HINT}",
    HeadSettings(SHRINKAGES[-1]): f"the smallest shrinkage that was tried; {_HINT}",
}


def fit_linear_heads(
    data: FrozenFeatures, cross_validation: CrossValidation, recipe: Recipe, callbacks: Callbacks
) -> HeadFit[LinearHead]:
    """Linear heads fitted exactly, with the settings that have the best score on held-out clips.

    Without labelled held-out clips, the settings are the defaults. If the backbone's own classifier knows some of the
    labels, its logits are added, with the weight that has the best score. If there are features of windows, the logits
    of clips contain the maximum over windows, if this has a better score.
    """
    candidates = _Candidates(data, cross_validation, callbacks.progress)
    can_compare = any(cross_validation.y_true[fold.valid].any() for fold in cross_validation.folds)
    if recipe.weight_decay is not None:
        choice = candidates.add([HeadSettings(weight_decay=recipe.weight_decay)])
    elif not can_compare:
        choice = candidates.add([_default_settings(recipe, data)])
    else:
        choice = candidates.add(_COMPARED[recipe.classifier])
        while (wider := _beyond_end(candidates.settings, choice)) is not None:
            choice = candidates.add([wider])
        _log_choice(candidates.settings, choice, callbacks.log)
    logits = choice.logits_of(candidates.all_logits)
    settings, prior_weights = [candidates.settings[index] for index in (choice.best, *choice.best_without)], None
    if data.prior is not None:
        prior_weights, logits = candidates.choose_prior_weight(choice)
        _log_prior(data, cross_validation.targets, prior_weights[0], callbacks.log)
    all_chosen = list(map(_Chosen, settings, prior_weights or [0.0] * len(settings)))
    window_logits = None
    if data.windows is not None and can_compare:
        all_chosen, logits, window_logits = _choose_windows(
            data, cross_validation, candidates, all_chosen, logits, callbacks.progress
        )
        _log_windows(all_chosen[0].windows, callbacks.log)
    chosen, *without_part = all_chosen

    def fit(fold: Fold, chosen: _Chosen) -> LinearHead:
        [head] = _fit_fold(data, fold, cross_validation.targets, [chosen.settings])
        return replace(head.with_prior(chosen.prior_weight), windows=chosen.windows)

    def refit(fold: Fold, part: int) -> LinearHead:
        return fit(fold, without_part[part] if without_part else chosen)

    needs_folds = cross_validation.all_clips is None or recipe.final_model != "refit"
    trainings = cross_validation.trainings if needs_folds else cross_validation.trainings[-1:]
    heads = tuple(fit(fold, chosen) for fold in trainings)
    return HeadFit(heads, logits, refit=refit, window_logits=window_logits)


def for_each_fold(function: Callable[[Fold], T], folds: Sequence[Fold]) -> Iterator[T]:
    """The results of a function for each fold, in their order, by as many threads as there are cores."""
    # the limit is that of the process, so that those of the threads would not be undone in the right order
    with threadpool_limits(1), ThreadPoolExecutor(n_usable_cores()) as pool:
        yield from pool.map(function, folds)


def _default_settings(recipe: Recipe, data: FrozenFeatures) -> HeadSettings:
    """The settings without held-out clips, which are missing if labels have only one or two recordings.

    With so few, logistic regression is better for networks that were not trained on sounds (docs/benchmarks.md).
    """
    if recipe.classifier != "auto":
        return _DEFAULTS[recipe.classifier]
    return _DEFAULTS["logistic" if data.prior is None else "lda"]


class _Candidates:
    """Held-out logits of heads that are fitted with several settings, and of the prior."""

    def __init__(self, data: FrozenFeatures, cross_validation: CrossValidation, progress: Progress) -> None:
        self._data, self._cross_validation, self._progress = data, cross_validation, progress
        self._logits: dict[HeadSettings, FloatArray] = {}
        self._prior_logits = np.full(cross_validation.y_true.shape, np.nan)
        self._in_parts = np.isin(np.arange(len(data.clips)), list(data.parts))
        self._heads: dict[tuple[str, HeadSettings], _FoldHead] = {}  # by the fold's name
        self._keeps_heads = bool(self._in_parts.any()) or (data.windows is not None and self._heads_are_small())

    def _heads_are_small(self) -> bool:
        n_labels, n_folds = self._cross_validation.y_true.shape[1], len(self._cross_validation.folds)
        n_values = (len(_LDA) + 1) * n_folds * n_labels * self._data.clips.shape[1]  # and the prior
        return bool(n_values <= _MAX_KEPT_VALUES)

    def heads(self, fold: Fold, settings: Sequence[HeadSettings]) -> "list[_FoldHead]":
        """The heads of a fold with some of the settings; they are fitted again if they were not kept."""
        if self._keeps_heads:
            return [self._heads[fold.name, setting] for setting in settings]
        return _fit_fold(self._data, fold, self._cross_validation.targets, settings)

    @property
    def settings(self) -> list[HeadSettings]:
        """All settings, in the order in which they were added."""
        return list(self._logits)

    @property
    def all_logits(self) -> list[FloatArray]:
        """The held-out logits (n_clips, n_labels) of all settings."""
        return list(self._logits.values())

    def add(self, settings: Sequence[HeadSettings]) -> Choice:
        """Fit heads with further settings, and choose among all."""
        y_true, folds = self._cross_validation.targets, self._cross_validation.folds
        self._logits |= {setting: np.full(y_true.shape, np.nan) for setting in settings}

        def fit(fold: Fold) -> list[_FoldHead]:
            return _fit_fold(self._data, fold, y_true, settings)

        for n_done, (fold, heads) in enumerate(zip(folds, for_each_fold(fit, folds), strict=True), start=1):
            self._predict(fold, dict(zip(settings, heads, strict=True)))
            self._progress("heads", n_done, len(folds))
        return self._cross_validation.choose(self.all_logits)

    def _predict(self, fold: Fold, heads: Mapping[HeadSettings, "_FoldHead"]) -> None:
        """Keep the logits of a fold's held-out clips."""
        for setting, head in heads.items():
            self._logits[setting][fold.valid] = self._data.logits(head.head.logits, fold.valid)
            if self._keeps_heads:
                self._heads[fold.name, setting] = head
            if head.prior is not None:
                self._prior_logits[fold.valid] = self._data.logits(head.prior.logits, fold.valid)

    def choose_prior_weight(self, settings: Choice) -> tuple[list[float], HeldOutLogits]:
        """The weights of the prior beside the chosen settings and those without each part, and the held-out logits."""
        sums = {
            index: [self._with_prior(self.settings[index], weight) for weight in PRIOR_WEIGHTS]
            for index in {settings.best, *settings.best_without}
        }
        choices = {index: self._cross_validation.choose(logits) for index, logits in sums.items()}
        best = choices[settings.best].best
        without = [choices[index].best_without[part] for part, index in enumerate(settings.best_without)]
        logits = (sums[index][number] for index, number in zip(settings.best_without, without, strict=True))
        weights = [PRIOR_WEIGHTS[number] for number in (best, *without)]
        return weights, HeldOutLogits(sums[settings.best][best], tuple(logits))

    def _with_prior(self, setting: HeadSettings, weight: float) -> FloatArray:
        """Held-out logits of heads with these settings and this weight of the prior."""
        logits = self._logits[setting] + weight * self._prior_logits
        for fold in self._cross_validation.folds if self._in_parts.any() else ():
            rows, [head] = fold.valid & self._in_parts, self.heads(fold, [setting])
            logits[rows] = self._data.logits(head.with_prior(weight).logits, rows)  # parts are pooled after the sum
        return logits


def _choose_windows(
    data: FrozenFeatures,
    cross_validation: CrossValidation,
    fitted: _Candidates,
    chosen: Sequence[_Chosen],
    logits: HeldOutLogits,
    progress: Progress,
) -> tuple[list[_Chosen], HeldOutLogits, WindowLogits]:
    """The chosen heads, with windows where they are better than whole clips, the held-out logits, and the windows'.

    `chosen` are the final head and those that are chosen without each part; `logits` are theirs for whole clips.
    """
    assert data.windows is not None
    windows = data.windows.windows
    candidates = {
        of_head: [whole, np.full(whole.shape, np.nan)]
        for of_head, whole in zip(chosen, (logits.chosen, *logits.without), strict=True)
    }
    of_windows: dict[int, FloatArray] = {}  # of the final head's settings, by the row of the clip

    def predict(fold: Fold) -> None:
        heads = fitted.heads(fold, [of_head.settings for of_head in candidates])
        by_settings = {
            of_head: head.with_prior(of_head.prior_weight).logits
            for of_head, head in zip(candidates, heads, strict=True)
        }
        for row in np.flatnonzero(fold.valid).tolist():
            parts = data.parts_and_windows(row)
            for of_head, head_logits in by_settings.items():
                candidates[of_head][1][row] = parts.logits(head_logits, windows)
            of_windows[row] = by_settings[chosen[0]](parts.all_windows)

    for n_done, _ in enumerate(for_each_fold(predict, cross_validation.folds), start=1):
        progress("heads on windows", n_done, len(cross_validation.folds))
    choices = {of_head: cross_validation.choose(both) for of_head, both in candidates.items()}
    best = [choices[chosen[0]].best]
    best += [choices[of_head].best_without[part] for part, of_head in enumerate(chosen[1:])]
    best_logits = [candidates[of_head][index] for of_head, index in zip(chosen, best, strict=True)]
    with_windows = [
        of_head._replace(windows=windows if index else None) for of_head, index in zip(chosen, best, strict=True)
    ]
    rows = sorted(of_windows)
    clips = np.repeat(rows, [len(of_windows[row]) for row in rows])
    window_logits = WindowLogits(clips, np.concatenate([of_windows[row] for row in rows]))
    return with_windows, HeldOutLogits(best_logits[0], tuple(best_logits[1:])), window_logits


def _log_windows(windows: FrameWindows | None, log: Log) -> None:
    if windows is None:
        log("the network listens to each clip as a whole; short windows do not raise the held-out score")
    else:
        log("the network listens to each clip as a whole and in short windows, which raises the held-out score")


def _beyond_end(settings: Sequence[HeadSettings], choice: Choice) -> HeadSettings | None:
    """Logistic regression with the next weight decay, if the best one is at an end of those that were tried."""
    decays = sorted(setting.weight_decay for setting in settings if setting.weight_decay is not None)
    best = settings[choice.best].weight_decay
    if not choice.is_clear or best is None or best not in (decays[0], decays[-1]):
        return None
    position = WIDER_WEIGHT_DECAYS.index(best) + (1 if best == decays[0] else -1)
    in_range = 0 <= position < len(WIDER_WEIGHT_DECAYS)
    return HeadSettings(weight_decay=WIDER_WEIGHT_DECAYS[position]) if in_range else None


def _log_choice(settings: Sequence[HeadSettings], choice: Choice, log: Log) -> None:
    best = settings[choice.best]
    log(f"head: {best}, the best of {len(settings)} settings on held-out clips")
    if choice.is_clear and best in _SMALLEST:
        log(f"the best head has {_SMALLEST[best]}")


def _log_prior(data: FrozenFeatures, y_true: BoolArray | FloatArray, weight: float, log: Log) -> None:
    assert data.prior is not None
    separates = data.prior.separates(data.clips @ data.prior.weights + data.prior.bias, y_true)
    known = np.flatnonzero(data.prior.has_name)
    if not weight or not separates[known].any():
        log("the network knows some labels by name from its own training; its opinion of them does not help: not used")
        return
    log(f"labels that the network knows by name, its own opinion of them added with weight {weight:g}: {data.prior}")
    unused = [label for label, index in zip(data.prior.names, known, strict=True) if not separates[index]]
    if unused:
        log(f"left out of these, because its logits do not separate their clips from others: {', '.join(unused)}")


@dataclass(frozen=True)
class _FoldHead:
    """The head of one training, and the prior on the scale of LDA's logits."""

    head: LinearHead
    prior: LinearHead | None

    def with_prior(self, weight: float) -> LinearHead:
        if self.prior is None:
            return self.head
        weights, bias = self.head.weights + weight * self.prior.weights, self.head.bias + weight * self.prior.bias
        return LinearHead(self.head.standardization, weights, bias)


def _fit_fold(
    data: FrozenFeatures, fold: Fold, y_true: BoolArray | FloatArray, settings: Sequence[HeadSettings]
) -> list[_FoldHead]:
    """A head for each of the settings, all of one kind, fitted on the clips that a fold is trained on."""
    features, targets, weights = data.training_arrays(fold, y_true)
    training = PrincipalAxes.of(features, data.group_sizes, weights)
    shrinkages = [setting.shrinkage for setting in settings if setting.shrinkage is not None]
    decays = [setting.weight_decay for setting in settings if setting.weight_decay is not None]
    heads = fit_discriminant_heads(training, targets, shrinkages) + fit_logistic_heads(training, targets, decays)
    prior = None
    if data.prior is not None:
        [like] = fit_discriminant_heads(training, targets, [DEFAULT_SHRINKAGE])
        prior = data.prior.head(training, targets, like)
    return [_FoldHead(head, prior) for head in heads]


def relabel_noisy_clips(
    data: FrozenFeatures,
    labels: BoolArray | FloatArray,
    cross_validation: CrossValidation,
    recipe: Recipe,
    clip_weights: FloatArray | None = None,
) -> list[Relabelled]:
    """Targets and weights of the clips with noisy labels, for each of `trainings`.

    For each training, the predictions come from a head that was fitted on that training's clips only.

    Parameters
    ----------
    data : FrozenFeatures
        Including those of the clips with noisy labels.
    labels : bool array of shape (n_noisy, n_labels)
        The labels that may be wrong; or 1, 0, and NaN for unknown labels.
    cross_validation : CrossValidation
        Without clips with noisy labels.
    recipe : Recipe
    clip_weights : float array of shape (n_noisy,), optional
        Factors of the weights.
    """
    assert data.noisy is not None
    y_true, noisy_labels = cross_validation.targets, recipe.noisy_labels
    heads = [_fit_fold(data, fold, y_true, [_DEFAULTS["logistic"]])[0].head for fold in cross_validation.trainings]
    logits = np.full(y_true.shape, np.nan)
    for fold, head in zip(cross_validation.folds, heads, strict=False):  # the training on all clips comes last
        logits[fold.valid] = data.logits(head.logits, fold.valid)
    rows = ~np.isnan(logits).any(axis=1)
    scale, offset = fit_line(logits[rows], y_true[rows]) if rows.any() else (1.0, 0.0)
    return [
        relabel_noisy(
            scale * head.logits(data.noisy) + offset,
            labels,
            keep_doubtful=noisy_labels.method == "relabel",
            per_label=noisy_labels.per_label,
            weight=noisy_labels.weight,
            clip_weights=clip_weights,
        )
        for head in heads
    ]
