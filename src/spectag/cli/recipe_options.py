"""Options of learning, which several commands share, and the recipe that they make with a file of settings."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from pydantic import BaseModel

from spectag.config.base import parse_config, read_toml
from spectag.config.recipe import Recipe, TrainSettings, laid_over, recipe_file, with_flags
from spectag.config.training import AugmentConfig, FinetuneConfig, LossConfig, NoisyConfig
from spectag.errors import ConfigError

AugmentOptions = Annotated[AugmentConfig | None, Parameter(group="Augmentation (fine-tuning, and --n-mixed-clips)")]
LossOptions = Annotated[LossConfig | None, Parameter(group="Loss")]
FinetuneOptions = Annotated[FinetuneConfig | None, Parameter(group="Fine-tuning (--mode finetune)")]
NoisyOptions = Annotated[NoisyConfig | None, Parameter(group="Noisy labels (--noisy)")]


def recipe_of(
    name: str | None,
    file: Path | None,
    settings: TrainSettings | None,
    tables: Mapping[str, BaseModel | None],
    *,
    mode: Literal["frozen", "finetune"] = "frozen",
) -> Recipe:
    """The recipe of a name, with the settings of a file laid over it, and over these the flags that were given.

    `mode` is that of a recipe without members where none is given.

    Raises
    ------
    ConfigError
        If there is no such recipe, or the settings do not go together.
    """
    flags: dict[str, Any] = {key: table.model_dump(exclude_unset=True) for key, table in tables.items() if table}
    if settings is not None:
        flags |= settings.model_dump(exclude_unset=True)
    values: dict[str, Any] = {}
    for path in (name and recipe_file(name), file):
        values = laid_over(values, read_toml(path)) if path else values
    _check_members(flags, values)
    if mode != "frozen" and not values.get("members"):
        values = {"mode": mode, **values}
    given = {key: value for key, value in with_flags(values, flags).items() if key in Recipe.model_fields}
    return parse_config(given, Recipe, source=str(file or name or "train"))


def _check_members(flags: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Refuse flags that would do nothing, for the members of the recipe say otherwise."""
    clash = sorted({key for member in values.get("members", ()) for key in member if key in flags})
    if clash:
        raise ConfigError(
            f"the recipe's members set {', '.join(clash)} themselves, so a flag can't; copy the recipe's file, change "
            "it, and give it as --recipe FILE"
        )
