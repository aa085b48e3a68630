"""What tuning may change in a recipe: the settings that were not given, each with its range or its choices."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from spectag.config.backbones import backbone_spec, front_end_of
from spectag.config.base import MelConfig, parse_config
from spectag.config.recipe import Recipe, laid_over
from spectag.errors import ConfigError, did_you_mean

GROUPS = ("mel", "augment", "head", "learning_rate")
"""Kinds of settings to search over."""

Value = str | float | int | None


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, drawn evenly or evenly in their logarithm."""

    low: float
    high: float
    log: bool = False

    def __contains__(self, value: Value) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high


@dataclass(frozen=True)
class Choice:
    """One of some values."""

    values: tuple[Value, ...]

    def __contains__(self, value: Value) -> bool:
        return value in self.values


@dataclass(frozen=True)
class SearchSpace:
    """Settings to search over, by their names such as augment.mix, and what a person should know of those left out."""

    settings: dict[str, Range | Choice]
    notes: tuple[str, ...]


def search_space(recipe: Recipe, over: Sequence[str] = GROUPS, *, holds_images: bool = False) -> SearchSpace:
    """The settings of some groups that the recipe leaves open and that do something for it.

    Parameters
    ----------
    recipe : Recipe
        What is set in it, be it to the usual value, is never searched over.
    over : names of GROUPS
    holds_images : bool
        Whether the clips are images, whose mel settings are past.

    Raises
    ------
    ConfigError
        If a group is not known, the recipe has members, or nothing is left to search over.
    """
    unknown = [name for name in over if name not in GROUPS]
    if unknown:
        raise ConfigError(
            f"can't search over {unknown[0]!r}{did_you_mean(unknown[0], GROUPS) or ':'} there are {', '.join(GROUPS)}"
        )
    if recipe.members:
        raise ConfigError(
            f"one network is tuned at a time, and this recipe has {len(recipe.members)} members; give the settings of "
            "one of them, and put the best ones in its place"
        )
    given = _given(recipe)
    settings: dict[str, Range | Choice] = {}
    notes = []
    for group in dict.fromkeys(over):
        known, reason = _SPACES[group](recipe, holds_images)
        left = {name: domain for name, domain in known.items() if name not in given}
        if not known:
            notes.append(f"no search over {group}: {reason}")
        elif not left:
            notes.append(f"no search over {group}: {', '.join(known)} are given; leave out what is to be searched over")
        settings |= left
    if not settings:
        raise ConfigError("; ".join(["nothing is left to search over", *notes]))
    return SearchSpace(settings, tuple(notes))


def value_of(recipe: Recipe, name: str) -> Value:
    """What a recipe says of a setting such as learning_rate, augment.mix or mel.n_mels."""
    if name.startswith("mel."):
        value: Value = getattr(front_end_of(recipe.backbone, recipe.mel), name.removeprefix("mel."))
        return value
    part: Any = recipe
    for key in name.split("."):
        part = getattr(part, key)
    return part  # type: ignore[no-any-return]


def with_values(recipe: Recipe, values: Mapping[str, Value]) -> Recipe:
    """A recipe with settings, such as augment.mix, changed, and without a budget.

    Raises
    ------
    ConfigError
        If the settings do not go together.
    """
    changes: dict[str, Any] = {}
    for name, value in values.items():
        *table, key = name.split(".")
        (changes.setdefault(table[0], {}) if table else changes)[key] = value
    changed = parse_config(laid_over(as_it_was_set(recipe), changes), Recipe, source="tune")
    if "mel" in changes:
        front_end_of(changed.backbone, changed.mel)  # refuses what does not go together with the backbone's own
    return changed


def as_it_was_set(recipe: Recipe) -> dict[str, Any]:
    """The settings that were given, for JSON; tables in tables. The budget is the search's own."""
    return recipe.model_dump(mode="json", exclude_unset=True, exclude={"budget"})


def _given(recipe: Recipe) -> set[str]:
    names = set(recipe.model_fields_set)
    for table in recipe.model_fields_set:
        part = getattr(recipe, table)
        if isinstance(part, BaseModel):
            names |= {f"{table}.{key}" for key in part.model_fields_set}
    return names


_Known = tuple[dict[str, Range | Choice], str]
"""Settings, and why there are none."""


def _mel(recipe: Recipe, holds_images: bool) -> _Known:
    if holds_images:
        return {}, "the clips are images, whose mel settings are past"
    if backbone_spec(recipe.backbone).mel_is_fixed:
        return {}, f"{recipe.backbone} was trained with one front end and can't take another"
    if recipe.init is not None:
        return {}, "the tagger to begin with (init) has learnt with one front end"
    usual = front_end_of(recipe.backbone, recipe.mel)
    return {
        "mel.n_mels": _around(usual.n_mels, [n for n in (64, 96, 128, 160, 224) if n <= _most_bands(usual)]),
        "mel.hop_length": _around(usual.hop_length, [usual.hop_length * part // 4 for part in (2, 3, 6)]),
        "mel.f_min": _around(usual.f_min, [20.0, 50.0, 100.0]),
        "mel.f_max": _around(usual.f_max, [usual.sample_rate * part / 16 for part in (4, 6, 7, 8)]),
        "mel.ref": _around(usual.ref, [1.0, "max"]),
        "mel.top_db": _around(usual.top_db, [60.0, 80.0, 100.0]),
    }, ""


def _most_bands(config: MelConfig) -> int:
    """With more, the lowest bands would be narrower than the distance of the FFT's frequencies."""
    return config.n_fft // 8


def _around(usual: Value, others: Sequence[Value]) -> Choice:
    return Choice(tuple(dict.fromkeys([usual, *others])))


def _augment(recipe: Recipe, holds_images: bool) -> _Known:
    every: dict[str, Range | Choice] = {
        "augment.gain_db": Range(0, 12),
        "augment.spec-augment": Range(0, 1),
        "augment.warp": Range(0, 1),
    }
    if recipe.mode == "finetune":
        return {"augment.mix": Range(0, 1), "augment.mixup": Range(0, 1)} | every, ""
    if not recipe.n_mixed_clips:
        return {"n_mixed_clips": Choice((0, 1000, 3000))}, ""
    return {"augment.mix_db": Range(0, 12)} | every, ""


def _head(recipe: Recipe, holds_images: bool) -> _Known:
    loss: dict[str, Range | Choice] = {
        "loss.kind": Choice(("bce", "focal", "asymmetric")),
        "loss.label_smoothing": Range(0, 0.2),
    }
    if recipe.mode == "finetune":
        return loss, ""
    settings: dict[str, Range | Choice] = {"weight_decay": Range(1e-5, 1e-1, log=True)}
    if recipe.init is None:
        settings["features"] = Choice(("all", "last"))
    return settings | (loss if recipe.optimizer != "lbfgs" else {}), ""


def _learning_rate(recipe: Recipe, holds_images: bool) -> _Known:
    if recipe.mode == "finetune":
        return {
            "learning_rate": Range(1e-4, 3e-3, log=True),
            "finetune.layer_decay": Range(0.6, 1),
            "finetune.schedule": Choice(("cosine", "one_cycle", "constant")),
            "finetune.weight-averaging": Choice(("ema", "swa", "none")),
        }, ""
    if recipe.optimizer == "lbfgs":
        return {}, "optimizer lbfgs solves the head without any; take --optimizer adam, or --mode finetune"
    return {"learning_rate": Range(1e-4, 1e-1, log=True)}, ""


_SPACES = {"mel": _mel, "augment": _augment, "head": _head, "learning_rate": _learning_rate}
