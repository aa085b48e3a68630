"""The search space of tuning: the settings that a recipe does not set, each with its range or its choices."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from spectag.config.backbones import backbone_spec, resolve_mel
from spectag.config.base import parse_config
from spectag.config.recipe import Recipe, merge_settings
from spectag.errors import ConfigError, did_you_mean

GROUPS = ("mel", "augment", "head", "learning_rate")
"""Kinds of settings that can be searched over."""

Value = str | float | int | None

_END_FRACTION = 0.02
"""A value is at the end of a range if it is closer to it than this fraction of the range."""


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, drawn uniformly or, with `log`, log-uniformly."""

    low: float
    high: float
    log: bool = False

    def __contains__(self, value: Value) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high


@dataclass(frozen=True)
class SettingChoice:
    """One of these values."""

    values: tuple[Value, ...]

    def __contains__(self, value: Value) -> bool:
        return value in self.values


@dataclass(frozen=True)
class SearchSpace:
    """Settings to search over by name, such as augment.mix, and notes on settings that are left out."""

    settings: dict[str, Range | SettingChoice]
    notes: tuple[str, ...]


def search_space(recipe: Recipe, over: Sequence[str] = GROUPS, *, holds_images: bool = False) -> SearchSpace:
    """The settings of some groups that the recipe does not set and that have an effect on it.

    Parameters
    ----------
    recipe : Recipe
        Settings that it sets, even to the default value, are never searched over.
    over : names of GROUPS
    holds_images : bool
        Whether the clips are images, for which mel settings have no effect.

    Raises
    ------
    ConfigError
        If a group is unknown, the recipe has members, or nothing is left to search over.
    """
    unknown = [name for name in over if name not in GROUPS]
    if unknown:
        raise ConfigError(
            f"cannot search over {unknown[0]!r}{did_you_mean(unknown[0], GROUPS) or ':'} the groups are "
            f"{', '.join(GROUPS)}"
        )
    if recipe.members:
        raise ConfigError(
            f"only one network can be tuned at a time, but the recipe has {len(recipe.members)} members; tune one alone"
        )
    explicit = flatten(explicit_settings(recipe))
    settings: dict[str, Range | SettingChoice] = {}
    notes = []
    for group in dict.fromkeys(over):
        available, reason = _SPACES[group](recipe, holds_images)
        left = {name: domain for name, domain in available.items() if name not in explicit}
        if not available:
            notes.append(f"no search over {group}: {reason}")
        elif not left:
            notes.append(
                f"no search over {group}: the recipe sets {', '.join(available)}; leave out settings to search over"
                + (f" ({reason})" if reason else "")
            )
        settings |= left
    if not settings:
        raise ConfigError("; ".join(["nothing is left to search over", *notes]))
    return SearchSpace(settings, tuple(notes))


def value_of(recipe: Recipe, name: str) -> Value:
    """The value of a recipe's setting such as learning_rate, augment.mix or mel.n_mels."""
    if name.startswith("mel."):
        recipe = recipe.model_copy(update={"mel": resolve_mel(recipe.backbone, recipe.mel)})
    value: Value = attrgetter(name)(recipe)
    return value


def with_values(recipe: Recipe, values: Mapping[str, Value]) -> Recipe:
    """The recipe with other values of settings such as augment.mix, and without a budget.

    Raises
    ------
    ConfigError
        If the settings contradict each other.
    """
    changes: dict[str, Any] = {}
    for name, value in values.items():
        *table, key = name.split(".")
        (changes.setdefault(table[0], {}) if table else changes)[key] = value
    changed = parse_config(merge_settings(explicit_settings(recipe), changes), Recipe, source="tune")
    if "mel" in changes:
        resolve_mel(changed.backbone, changed.mel)  # an error if they contradict those of the backbone
    return changed


def at_an_end(recipe: Recipe, space: SearchSpace, values: Mapping[str, Value]) -> list[str]:
    """The settings whose value is at an end of those that were searched, although values beyond it are possible.

    Parameters
    ----------
    recipe : Recipe
        With which the settings can be combined.
    space : SearchSpace
    values : mapping
        A value of each setting.
    """
    found = []
    for name, value in values.items():
        beyond = _beyond(space.settings[name], value)
        try:
            if beyond is not None and with_values(recipe, {**values, name: beyond}):
                found.append(name)
        except ConfigError:  # the end of the range is the end of what is possible, such as a fraction of 0 or 1
            continue
    return found


def _beyond(domain: Range | SettingChoice, value: Value) -> float | None:
    """A number beyond the end of a domain at which the value lies; None if it lies inside."""
    if not isinstance(value, int | float):
        return None
    if isinstance(domain, SettingChoice):
        numbers = sorted(number for number in domain.values if isinstance(number, int | float))
        if len(numbers) < 3 or value not in (numbers[0], numbers[-1]):
            return None
        return value + 1 if value == numbers[-1] else value - 1
    low, high = (math.log(end) if domain.log else end for end in (domain.low, domain.high))
    position = ((math.log(value) if domain.log else value) - low) / (high - low)
    if min(position, 1 - position) > _END_FRACTION:
        return None
    outside = high + (high - low) / 10 if position > 0.5 else low - (high - low) / 10
    return math.exp(outside) if domain.log else outside


def explicit_settings(recipe: Recipe) -> dict[str, Any]:
    """The settings that the recipe sets, as nested dicts for JSON, without the budget."""
    return recipe.model_dump(mode="json", exclude_unset=True, exclude={"budget"})


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one dict, with names such as augment.mix."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


_Available = tuple[dict[str, Range | SettingChoice], str]
"""Settings, and the reason if there are none, or no more."""


def _mel(recipe: Recipe, holds_images: bool) -> _Available:
    if holds_images:
        return {}, "mel settings have no effect on images"
    if backbone_spec(recipe.backbone).mel_is_fixed:
        return {}, f"{recipe.backbone} was trained with fixed mel settings"
    if recipe.init is not None:
        return {}, "the initial model (init) was trained with fixed mel settings"
    default = resolve_mel(recipe.backbone, recipe.mel)
    return {
        # with more bands than n_fft / 8, the lowest would be narrower than the resolution of the FFT
        "mel.n_mels": _choice(default.n_mels, [n for n in (64, 96, 128, 160, 224) if n <= default.n_fft // 8]),
        "mel.hop_length": _choice(default.hop_length, [default.hop_length * quarters // 4 for quarters in (2, 3, 6)]),
        "mel.f_min": _choice(default.f_min, [20.0, 50.0, 100.0]),
        "mel.f_max": _choice(default.f_max, [default.sample_rate * sixteenths / 16 for sixteenths in (4, 6, 7, 8)]),
        "mel.ref": _choice(default.ref, [1.0, "max"]),
        "mel.top_db": _choice(default.top_db, [60.0, 80.0, 100.0]),
    }, ""


def _choice(default: Value, others: Sequence[Value]) -> SettingChoice:
    return SettingChoice(tuple(dict.fromkeys([default, *others])))


def _augment(recipe: Recipe, holds_images: bool) -> _Available:
    always: dict[str, Range | SettingChoice] = {
        "augment.gain_db": Range(0, 12),
        "augment.spec_augment": Range(0, 1),
        "augment.warp": Range(0, 1),
    }
    if recipe.mode == "finetune":
        return {"augment.mix": Range(0, 1), "augment.mixup": Range(0, 1)} | always, ""
    if not recipe.n_mixed_clips:
        return {"n_mixed_clips": SettingChoice((0, 1000, 3000))}, ""
    return {"augment.mix_db": Range(0, 12)} | always, ""


def _head(recipe: Recipe, holds_images: bool) -> _Available:
    loss: dict[str, Range | SettingChoice] = {
        "loss.kind": SettingChoice(("bce", "focal", "asymmetric")),
        "loss.label_smoothing": Range(0, 0.2),
    }
    if recipe.mode == "finetune":
        return loss, ""
    settings: dict[str, Range | SettingChoice] = {}
    if recipe.optimizer != "lbfgs" or recipe.classifier == "logistic":
        settings["weight_decay"] = Range(1e-5, 1e-1, log=True)
    if recipe.init is None:
        settings["features"] = SettingChoice(("all", "last"))
    if recipe.optimizer != "lbfgs":
        return settings | loss, ""
    if recipe.classifier != "logistic":
        return settings, "the shrinkage of lda is chosen on the folds; --classifier logistic has a weight_decay"
    return settings, ""


def _learning_rate(recipe: Recipe, holds_images: bool) -> _Available:
    if recipe.mode == "finetune":
        return {
            "learning_rate": Range(1e-4, 3e-3, log=True),
            "finetune.layer_decay": Range(0.6, 1),
            "finetune.schedule": SettingChoice(("cosine", "one_cycle", "constant")),
            "finetune.weight_averaging": SettingChoice(("ema", "swa", "none")),
        }, ""
    if recipe.optimizer == "lbfgs":
        return {}, "optimizer lbfgs has no learning rate; use --optimizer adam, or --mode finetune"
    return {"learning_rate": Range(1e-4, 1e-1, log=True)}, ""


_SPACES = {"mel": _mel, "augment": _augment, "head": _head, "learning_rate": _learning_rate}
