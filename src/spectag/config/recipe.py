"""The recipe: all settings of a training, from options and TOML files. Every bundle contains its recipe."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, PlainSerializer, model_validator

from spectag.config.base import MAX_SECONDS, Channel, Config, ImageConfig, MelConfig, parse_config
from spectag.config.extension import backbone_to_extend, check_extended
from spectag.config.training import AugmentConfig, FinetuneConfig, LossConfig, NoisyConfig
from spectag.errors import ConfigError, did_you_mean

Folds = Annotated[int, Field(ge=2, le=1_000)] | Literal["auto", "given", "none"]

_LBFGS_SETTINGS = ("classifier", "name_prior", "label_map", "clip_windows")
_GRADIENT_SETTINGS = ("learning_rate", "momentum", "epochs", "batch_size")
_FINETUNE_DEFAULTS = {"optimizer": "adamw", "batch_size": 32, "weight_decay": 1e-4, "final_model": "average"}
_HEAD_ALONE = {  # as in frozen mode: from the same start, with one learning rate, and the weights of the last step
    "unfreeze": 0,
    "linear_probe_first": False,
    "schedule": "constant",
    "warmup_fraction": 0,
    "weight_averaging": "none",
    "clip_norm": None,
    "crop_seconds": None,
    "precision": "float32",
}
_NUMBER = r"(\d+(?:\.\d+)?)"
_DURATION = re.compile(f"(?:{_NUMBER}h)?(?:{_NUMBER}m)?(?:{_NUMBER}s)?|{_NUMBER}")
# settings that cannot differ between the members of an ensemble
_GLOBAL = (
    *("members", "leave_out", "budget", "init", "extend", "calibration", "channel"),
    *("folds", "validation_fraction", "validation_split", "find_shared_audio"),
)


def parse_duration(value: Any) -> Any:
    """Seconds from a duration such as 90s, 30m or 1h30m; other types than str are returned as they are.

    Raises
    ------
    ValueError
        If the string is not a duration.
    """
    if not isinstance(value, str):
        return value
    match = _DURATION.fullmatch(value.strip())
    if match is None or not any(match.groups()):
        raise ValueError(f"expected a duration such as 90s, 30m or 1h30m, got {value!r}")
    return sum(float(number or 0) * unit for number, unit in zip(match.groups(), (3600, 60, 1, 1), strict=True))


Duration = Annotated[float, BeforeValidator(parse_duration)]


class TrainSettings(Config):
    """Settings of a training, except the tables of the recipe."""

    mode: Literal["frozen", "finetune"] = "frozen"
    """frozen fits a head on a fixed backbone, in seconds. finetune trains the backbone as well."""

    backbone: str = "mn04_audioset"
    """Network that computes the features: mn04_audioset, mn05 to mn40_audioset, dymn04 to dymn20_audioset, a variant of
    mn10 such as mn10_hop20_audioset, efficientnet_lite0, convnext_tiny, timm/NAME, scratch, hf:ORG/NAME or hf:FOLDER of
    transformers, or a network card (card.toml, or a name of spectag models --all)."""

    pretrained: bool = True
    """Start from the published weights of the backbone."""

    features: Literal["all", "last"] = "all"
    """Input of the head: mean and standard deviation of all stages, or the mean of the last stage."""

    head: Literal["linear", "layer_norm"] = "linear"
    """linear: a linear layer on standardised features. layer_norm: LayerNorm2d, Flatten and Linear."""

    optimizer: Literal["lbfgs", "adam", "adamw", "sgd"] = "lbfgs"
    """lbfgs solves the linear head exactly; the others train for `epochs`. Default for fine-tuning: adamw."""

    classifier: Literal["auto", "lda", "logistic"] = "auto"
    """Kind of the head that lbfgs solves: linear discriminant analysis or logistic regression. auto: lda, but logistic
    if no clips can be held out and the backbone knows no label by name."""

    name_prior: bool = True
    """Add what the backbone itself predicts for labels whose names it knows, to heads that lbfgs solves."""

    clip_windows: bool = True
    """Add the maximum over windows of 1.5 s to the logits of whole clips, if held-out clips are then better, for heads
    that lbfgs solves. Short sounds count more. Whole clips of several seconds then take about three times as long."""

    weight_decay: float | None = Field(None, ge=0, le=1e6)
    """L2 penalty of the weights; none: chosen on the folds (lbfgs), 0.0001 (fine-tuning) or 0 (others). With
    lbfgs, a number implies logistic regression."""

    learning_rate: float = Field(1e-3, gt=0, le=1e38)  # float32
    """Learning rate of adam, adamw and sgd."""

    momentum: float = Field(0.9, ge=0, lt=1)
    """Momentum of sgd."""

    epochs: int = Field(20, gt=0, le=1_000_000)
    """Epochs of adam, adamw and sgd."""

    batch_size: int = Field(64, gt=0, le=1_000_000)
    """Clips per step of adam, adamw and sgd, over all processes. Default for fine-tuning: 32."""

    n_mixed_clips: int = Field(0, ge=0, le=100_000_000)
    """Frozen mode: also train on this many mixtures of two training clips."""

    folds: Folds = "auto"
    """Cross-validation folds: a number, the folds of the manifest (given), or none. auto: those of the manifest if
    there are three, else up to five; fine-tuning holds out 20 % of the clips instead."""

    final_model: Literal["refit", "average", "ensemble"] = "refit"
    """Model after cross-validation: train again on all clips (refit), average the weights of the folds, or keep all
    folds as an ensemble. Default for fine-tuning: average."""

    validation_fraction: float | None = Field(None, gt=0, lt=1)
    """Instead of folds, hold out this fraction of the clips for validation."""

    validation_split: Literal["stratified", "random"] = "stratified"
    """How to choose the validation clips: stratified by label and group, or as scikit-learn's train_test_split."""

    find_shared_audio: bool = True
    """Find clips that contain the same recording, and do not train on them where the others are held out."""

    init: Path | None = None
    """Start from the weights of this bundle, which must have the same backbone, features and labels."""

    extend: str | None = None
    """Also give the model the labels of this published one, such as audioset-mn04, whose network must be the frozen
    backbone. Own labels replace published ones of the same name."""

    calibration: Literal["auto", "none", "temperature", "platt", "isotonic"] = "auto"
    """Method of probability calibration on held-out clips; auto: the best one on these clips."""

    seed: int = Field(0, ge=0, lt=2**32)
    """Random seed of folds, shuffling, augmentation and initial weights."""

    channel: Channel = "mix"
    """How several channels of a sound become one, also when the model tags: their mean (mix), the loudest one of the
    first ten minutes (loudest), or the one with this number, from 1."""

    budget: Duration | None = Field(None, gt=0, le=52 * MAX_SECONDS)
    """Time limit of the training, such as 90s, 30m or 1h30m. Members and epochs that do not fit are left out."""


def _toml_value(value: Any) -> Any:
    """A setting, or a table of settings, as TOML has it, so that it stays equal when it is written and read."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json", exclude_unset=True)
    if isinstance(value, dict):
        return {name: _toml_value(setting) for name, setting in value.items()}
    return "none" if value is None else str(value) if isinstance(value, Path) else value


def _set_values(mel: MelConfig | None) -> dict[str, Any] | None:
    return None if mel is None else mel.model_dump(mode="json", exclude_unset=True)


class Recipe(TrainSettings):
    """All settings of a training. The defaults suit a few clips per label as well as thousands."""

    mel: Annotated[MelConfig | None, PlainSerializer(_set_values)] = None
    """Mel settings; by default, those of the backbone."""

    image: ImageConfig | None = None
    """Train on 8-bit images of the log-mel spectrograms; none: on the spectrograms."""

    augment: AugmentConfig = Field(default_factory=AugmentConfig)
    """Augmentation in fine-tuning and in mixed clips."""

    loss: LossConfig = Field(default_factory=LossConfig)
    """Loss of fine-tuning, and of a head that is trained by epochs."""

    finetune: FinetuneConfig = Field(default_factory=FinetuneConfig)
    """Settings of fine-tuning."""

    noisy_labels: NoisyConfig = Field(default_factory=NoisyConfig)
    """Settings for the manifest with noisy labels."""

    label_map: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """For `name_prior`: the backbone's names for labels, instead of those that are found; an empty list means none."""

    leave_out: tuple[str, ...] = ()
    """Clips to leave out, by their file names with or without the suffix."""

    members: tuple[Annotated[dict[str, Any], AfterValidator(_toml_value)], ...] = ()
    """Members of an ensemble, each with the settings that differ from this recipe. Their weights are fitted on
    held-out clips."""

    @model_validator(mode="before")
    @classmethod
    def _finetune_defaults(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("mode") != "finetune":
            return values
        values = {**_FINETUNE_DEFAULTS, **values}
        if values["weight_decay"] in (None, "none"):
            values["weight_decay"] = _FINETUNE_DEFAULTS["weight_decay"]
        return values

    @model_validator(mode="before")
    @classmethod
    def _backbone_of_extended_model(cls, values: Any) -> Any:
        """Without another wish, the backbone is that of the model to extend."""
        if not isinstance(values, dict) or "backbone" in values:
            return values
        backbone = backbone_to_extend(values.get("extend"))
        return values if backbone is None else {**values, "backbone": backbone}

    @model_validator(mode="before")
    @classmethod
    def _logistic_if_weight_decay(cls, values: Any) -> Any:
        """With lbfgs, a number for weight_decay implies logistic regression; members decide for themselves."""
        if not isinstance(values, dict) or values.get("members") or values.get("mode", "frozen") != "frozen":
            return values
        has_decay = values.get("weight_decay") not in (None, "none")
        if has_decay and values.get("optimizer", "lbfgs") == "lbfgs" and "classifier" not in values:
            return {**values, "classifier": "logistic"}
        return values

    @model_validator(mode="after")
    def _check(self) -> Self:
        self._check_validation()
        if self.extend is not None:
            check_extended(self.extend, self.model_dump())
        if self.members:
            self._check_members()
        elif self.mode == "finetune":
            self._check_finetune()
        else:
            self._check_frozen()
        defaults = type(self).model_fields
        unused = [
            name
            for name in _LBFGS_SETTINGS
            if getattr(self, name) != defaults[name].get_default(call_default_factory=True)
        ]
        if unused and self.optimizer != "lbfgs" and not self.members:
            raise ValueError(f"{', '.join(unused)}: no effect on optimizer {self.optimizer}, only on lbfgs")
        return self

    def _check_validation(self) -> None:
        if self.validation_fraction is None and self.validation_split == "random":
            raise ValueError("validation_split = random needs validation_fraction, such as 0.25")
        if self.validation_fraction is not None and self.folds not in ("auto", "none"):
            raise ValueError(f"validation_fraction and folds = {self.folds} contradict each other; leave one out")
        uses_folds = self.validation_fraction is None and self.folds != "none"
        if self.init is not None and uses_folds and self.optimizer != "lbfgs":
            reason = "the head of init was trained on the clips of every fold, so the scores would be too high"
            raise ValueError(f"{reason}; set its validation_fraction and seed, or folds = none")

    def _check_finetune(self) -> None:
        if self.optimizer == "lbfgs":
            raise ValueError("optimizer lbfgs is for frozen networks; fine-tune with adamw, adam or sgd")
        if self.n_mixed_clips:
            raise ValueError("n_mixed_clips is for frozen networks; augment.mix is for fine-tuning")

    def _check_frozen(self) -> None:
        if self.optimizer == "lbfgs":
            self._check_lbfgs()
        if self.finetune != FinetuneConfig():
            raise ValueError("finetune settings have no effect on a frozen network; add --mode finetune")
        if self.augment != AugmentConfig() and not self.n_mixed_clips and not self._augments_images:
            raise ValueError(
                "augment settings need mixed clips in a frozen network; add --n-mixed-clips 3000. Without them, only "
                "augment.image has an effect, with --optimizer adam or sgd"
            )

    def _check_lbfgs(self) -> None:
        if self.head != "linear":
            raise ValueError(f"optimizer lbfgs is for the linear head, got head {self.head}; use adam or sgd")
        if self.init is not None:
            raise ValueError("optimizer lbfgs finds the same head from any start, so init has no effect")
        if self.weight_decay is not None and self.classifier == "lda":
            raise ValueError("weight_decay has no effect on classifier lda, only on logistic; leave one of them out")
        if self.weight_decay == 0:
            raise ValueError("optimizer lbfgs needs a weight_decay above 0, otherwise it may not converge")
        if self.loss != LossConfig():
            raise ValueError("optimizer lbfgs supports the loss bce only; use adam or --mode finetune for others")
        defaults = type(self).model_fields
        if unused := [name for name in _GRADIENT_SETTINGS if getattr(self, name) != defaults[name].default]:
            raise ValueError(f"{', '.join(unused)}: no effect on optimizer lbfgs; use adam or sgd")

    @property
    def _augments_images(self) -> bool:
        """Whether the frozen network sees images that are augmented in every epoch."""
        has_epochs = self.mode == "frozen" and self.optimizer != "lbfgs" and not self.n_mixed_clips
        return has_epochs and self.augment.image != "none" and self.augment == AugmentConfig(image=self.augment.image)

    def _check_members(self) -> None:
        for number, member in enumerate(self.members, start=1):
            if shared := [name for name in _GLOBAL if name in member]:
                raise ValueError(f"member {number}: {', '.join(shared)} can't differ between members; set it for all")
        try:
            self.member_recipes()
        except ConfigError as error:
            raise ValueError(str(error)) from error

    def member_recipes(self) -> tuple["Recipe", ...]:
        """The recipes of the members; a recipe without members is its own only member.

        A member inherits the settings of this recipe that differ from the defaults, if they have an effect on the
        member. Its own settings take precedence. A frozen member that augments images is fine-tuned without unfreezing
        any stage, because its features cannot be cached.

        Raises
        ------
        ConfigError
            If the settings of a member contradict each other.
        """
        if not self.members:
            return (self._as_trained(),)
        defaults = Recipe(mode=self.mode).model_dump(mode="json")
        values = self.model_dump(mode="json", exclude={"members"})
        shared = {name: value for name, value in values.items() if name == "mode" or value != defaults[name]}
        return tuple(
            parse_config(_with_inherited(shared, member), Recipe, source=f"member {number}")._as_trained()
            for number, member in enumerate(self.members, start=1)
        )

    def _as_trained(self) -> "Recipe":
        """This recipe; if it augments images for a frozen network, as fine-tuning of the head alone."""
        if not self._augments_images:
            return self
        augment = {"image": self.augment.image, "mix": 0, "gain_db": 0, "disable_last_fraction": 0}
        changes = {"weight_decay": self.weight_decay or 0, "augment": augment, "finetune": _HEAD_ALONE}
        return Recipe.model_validate(self.model_dump() | {"mode": "finetune"} | changes)


def _with_inherited(shared: dict[str, Any], member: dict[str, Any]) -> dict[str, Any]:
    """The settings of a member, and the shared settings that have an effect on it."""
    unused = _unused_settings(merge_settings(shared, member))
    return merge_settings({name: value for name, value in shared.items() if name not in unused}, member)


def _unused_settings(settings: dict[str, Any]) -> list[str]:
    """Names of the settings that have no effect together with these."""
    if settings.get("mode") == "finetune":
        return ["n_mixed_clips", *_LBFGS_SETTINGS]
    unused = ["finetune"]
    if settings.get("optimizer", "lbfgs") == "lbfgs":
        unused += ["loss", *_GRADIENT_SETTINGS, *(["weight_decay"] if settings.get("classifier") == "lda" else [])]
    else:
        unused += _LBFGS_SETTINGS
    return unused if settings.get("n_mixed_clips") else [*unused, "augment"]


def apply_flags(values: dict[str, Any], flags: dict[str, Any]) -> dict[str, Any]:
    """The settings of a file, replaced by flags; also in each member if the flag has an effect on it."""
    result = merge_settings(values, flags)
    if "members" in values:
        member_flags = {name: value for name, value in flags.items() if name not in _GLOBAL}
        result["members"] = [_with_member_flags(values, member, member_flags) for member in values["members"]]
    return result


def _with_member_flags(values: dict[str, Any], member: dict[str, Any], flags: dict[str, Any]) -> dict[str, Any]:
    unused = _unused_settings(merge_settings(merge_settings(values, member), flags))
    return merge_settings(member, {name: value for name, value in flags.items() if name not in unused})


def merge_settings(shared: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """The shared settings, replaced by a member's own ones; tables such as augment are merged by key."""
    tables = {
        name: {**shared[name], **value}
        for name, value in own.items()
        if isinstance(value, dict) and isinstance(shared.get(name), dict)
    }
    return {**shared, **own, **tables}


def recipe_file(name: str) -> Path:
    """The path of a recipe: a file, or a recipe of spectag by its name.

    Raises
    ------
    ConfigError
        If neither exists. The message lists the recipes of spectag.
    """
    if Path(name).is_file():
        return Path(name)
    folder = Path(__file__).parents[1] / "configs"
    folder = folder if folder.is_dir() else Path(__file__).parents[3] / "configs"  # in a source tree
    recipes = {path.stem: path for path in sorted(folder.glob("*.toml"))}
    if name not in recipes:
        hint = did_you_mean(name, recipes) or "."
        raise ConfigError(f"no recipe {name!r}{hint} No such file; the recipes of spectag are {', '.join(recipes)}")
    return recipes[name]
