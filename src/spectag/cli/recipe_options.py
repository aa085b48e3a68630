"""The options of train, tune and lr-find: the recipe with its settings, and the training data."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from spectag.cli.options import Flag, ImageOptions, MelOptions, Workers
from spectag.config.base import parse_config, read_toml
from spectag.config.data_options import DataOptions
from spectag.config.recipe import Recipe, TrainSettings, apply_flags, merge_settings, recipe_file
from spectag.config.training import AugmentConfig, FinetuneConfig, LossConfig, NoisyConfig
from spectag.errors import ConfigError, DataError, MissingExtraError
from spectag.system.file_errors import similar_file


@dataclass(frozen=True)
class RecipeOptions:
    """How to train: a recipe, and the options that override its settings."""

    recipe: str | None = None
    """Start from this recipe: quick, best, blog, fsdkaggle2019, or a TOML file. Other options override it."""
    settings: Annotated[TrainSettings | None, Parameter(name="*", group="Training")] = None
    mel: MelOptions = None
    image: ImageOptions = None
    augment: Annotated[AugmentConfig | None, Parameter(group="Augmentation (fine-tuning, --n-mixed-clips)")] = None
    loss: Annotated[LossConfig | None, Parameter(group="Loss")] = None
    finetune: Annotated[FinetuneConfig | None, Parameter(group="Fine-tuning (--mode finetune)")] = None
    noisy_labels: Annotated[NoisyConfig | None, Parameter(group="Noisy labels (--noisy)")] = None
    settings_file: Annotated[Path | None, Parameter(show=False)] = None  # the file of --config

    def read(self, *, default_mode: Literal["frozen", "finetune"] = "frozen") -> Recipe:
        """The recipe, overridden first by the file of --config and then by the other options.

        `default_mode` is the mode of a recipe without members that sets none.

        Raises
        ------
        ConfigError
            If there is no such recipe, or the settings contradict each other.
        """
        options: dict[str, Any] = {} if self.settings is None else self.settings.model_dump(exclude_unset=True)
        for name in ("mel", "image", "augment", "loss", "finetune", "noisy_labels"):
            if (table := getattr(self, name)) is not None:
                options[name] = table.model_dump(exclude_unset=True)
        values: dict[str, Any] = {}
        for path in (self.recipe and recipe_file(self.recipe), self.settings_file):
            values = merge_settings(values, read_toml(path)) if path else values
        _check_members(options, values)
        if default_mode != "frozen" and not values.get("members"):
            values = {"mode": default_mode, **values}
        settings = {name: value for name, value in apply_flags(values, options).items() if name in Recipe.model_fields}
        return parse_config(settings, Recipe, source=str(self.settings_file or self.recipe or "train"))

    @contextmanager
    def named_in_errors(self) -> Iterator[None]:
        """If PyTorch is missing and the recipe itself needs it, name --recipe instead of a setting in its file."""
        try:
            yield
        except MissingExtraError:
            if self.recipe is not None:
                from spectag.training.setup.requirements import check_requirements

                check_requirements(RecipeOptions(self.recipe).read(), f"--recipe {self.recipe}")
            raise


def check_data_files(data: DataOptions) -> None:
    """Read corrections and hierarchy, and look for the noisy clips and the background, before the slow import of torch.

    Raises
    ------
    DataError
        If one is missing, or the corrections or the hierarchy cannot be read.
    """
    from spectag.data.corrections import read_corrections
    from spectag.data.hierarchy import read_hierarchy

    if data.corrections is not None:
        read_corrections(data.corrections)
    if data.hierarchy is not None:
        read_hierarchy(data.hierarchy)
    if data.noisy is not None and not Path(data.noisy).exists():
        raise DataError(f"--noisy {data.noisy}: no such file or folder{similar_file(Path(data.noisy))}")
    if data.background is not None and not Path(data.background).is_dir():
        raise DataError(f"--background {data.background}: no such folder{similar_file(Path(data.background))}")


def _check_members(options: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Refuse options without effect: the members of the recipe override them."""
    overridden = sorted({name for member in values.get("members", ()) for name in member if name in options})
    if overridden:
        raise ConfigError(
            f"each member of the recipe sets {', '.join(overridden)} itself, so the option has no effect; copy the "
            "recipe's file, change it there, and use --recipe FILE"
        )


@dataclass(frozen=True)
class _DataOptions(DataOptions):
    complete_annotations: Flag = False
    workers: Workers = None


RecipeGroup = Annotated[RecipeOptions, Parameter(name="*")]
DataGroup = Annotated[_DataOptions, Parameter(name="*", group="Data")]
NO_RECIPE_OPTIONS, NO_DATA_OPTIONS = RecipeOptions(), _DataOptions()
