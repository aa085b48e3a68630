"""The recipes that the Train view offers, and what a training needs to know beside them."""

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from spectag.config.base import Config, parse_config, read_toml
from spectag.config.recipe import Folds, Recipe, apply_flags, recipe_file
from spectag.errors import ConfigError, MissingExtraError
from spectag.models.bundle import RECIPE_FILE
from spectag.serving.field_types import RowNumber
from spectag.training.setup.requirements import purpose_of_torch

RECIPES = ("quick", "best", "fsdkaggle2019", "blog")
"""In the order of the page, which has a line of explanation for each."""
QUICK = "quick"
_MAX_MINUTES = 60.0 * 24 * 30
_SHARED_SETTINGS = ("folds", "seed")


class TrainQuery(Config):
    """What to train: clips and a recipe."""

    manifest: str | None = Field(None, max_length=10_000)
    """A table or a folder; None: the labels of the project."""
    recipe: str | None = Field(None, max_length=100)
    """The name of a recipe; None: that of the parent."""
    parent: RowNumber | None = None
    """The version that the new one is compared with."""
    origin: str = "trained"
    folds: Folds | None = None
    """None: as the recipe says."""
    group_column: Annotated[str | None, Field(max_length=1_000)] = None
    seed: int | None = Field(None, ge=0, lt=2**32)
    budget_minutes: float | None = Field(None, gt=0, le=_MAX_MINUTES)


def recipe_of(query: TrainQuery, parent: Path | None) -> Recipe:
    """The recipe of a training.

    Parameters
    ----------
    query : TrainQuery
    parent : Path, optional
        The folder of the version that it is made from; used if the query names no recipe. A published model has none,
        so the new version is then made by the recipe quick.

    Raises
    ------
    ConfigError
        If there is no such recipe, or the settings contradict each other.
    """
    values = _settings_of(parent) if query.recipe is None else _settings_by_name(query.recipe)
    options: dict[str, Any] = {name: getattr(query, name) for name in _SHARED_SETTINGS}
    options["budget"] = None if query.budget_minutes is None else 60.0 * query.budget_minutes
    given = {name: value for name, value in options.items() if value is not None}
    if "folds" in given:
        values = {name: value for name, value in values.items() if not name.startswith("validation_")}
    return parse_config(apply_flags(values, given), Recipe, source=query.recipe or RECIPE_FILE)


def _settings_by_name(name: str) -> dict[str, Any]:
    if name not in RECIPES:
        raise ConfigError(f"no recipe {name!r}; expected one of {', '.join(RECIPES)}")
    return read_toml(recipe_file(name))


def _settings_of(version: Path | None) -> dict[str, Any]:
    if version is None or not (version / RECIPE_FILE).is_file():
        return _settings_by_name(QUICK)
    return read_toml(version / RECIPE_FILE)


def is_fast(recipe: Recipe) -> bool:
    """Whether a training with cached features only fits heads, which takes seconds."""
    return all(member.mode == "frozen" and member.optimizer == "lbfgs" for member in recipe.member_recipes())


def described_recipes() -> list[dict[str, Any]]:
    """For each recipe its name, whether it makes use of a budget, and the command that installs what it lacks."""
    return [_described(name) for name in RECIPES]


def _described(name: str) -> dict[str, Any]:
    recipe = parse_config(_settings_by_name(name), Recipe, source=name)
    has_budget = bool(recipe.members) or recipe.mode == "finetune"
    return {"name": name, "budget": has_budget, "missing": missing_packages(recipe)}


def missing_packages(recipe: Recipe) -> str | None:
    """What a recipe needs and how to install it; None if it needs nothing that is missing."""
    purpose = purpose_of_torch(recipe)
    if purpose is None or find_spec("torch") is not None:
        return None
    return str(MissingExtraError("torch", "finetune", purpose))
