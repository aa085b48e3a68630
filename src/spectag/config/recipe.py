"""What `spectag train` does, as settings: given by flags, read from configs/*.toml, written into every bundle."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, PlainSerializer, model_validator

from spectag.config.base import Config, ImageConfig, MelConfig, parse_config
from spectag.config.training import AugmentConfig, FinetuneConfig, LossConfig, NoisyConfig
from spectag.errors import ConfigError, did_you_mean

Folds = int | Literal["auto", "given", "none"]

_BY_EPOCHS = ("learning_rate", "momentum", "epochs", "batch_size")
_FINETUNE_DEFAULTS = {"optimizer": "adamw", "batch_size": 32, "weight_decay": 1e-4, "final_model": "average"}
_NUMBER = r"(\d+(?:\.\d+)?)"
_DURATION = re.compile(f"(?:{_NUMBER}h)?(?:{_NUMBER}m)?(?:{_NUMBER}s)?|{_NUMBER}")
_COMMON = ("members", "leave_out", "budget", "folds", "validation_fraction", "validation_split", "init", "calibration")


def parse_seconds(value: Any) -> Any:
    """Seconds of a duration such as 90s, 30m or 1h30m; numbers are seconds already.

    Raises
    ------
    ValueError
        If other words are given.
    """
    if not isinstance(value, str):
        return value
    match = _DURATION.fullmatch(value.strip())
    if match is None or not any(match.groups()):
        raise ValueError(f"expected a duration such as 90s, 30m or 1h30m, got {value!r}")
    return sum(float(number or 0) * unit for number, unit in zip(match.groups(), (3600, 60, 1, 1), strict=True))


Seconds = Annotated[float, BeforeValidator(parse_seconds)]


class TrainSettings(Config):
    """How a tagger is trained, but for its front end."""

    mode: Literal["frozen", "finetune"] = "frozen"
    """frozen: the backbone stays as it is and a head is fitted, in seconds. finetune: the backbone learns too."""

    backbone: str = "mn04_audioset"
    """Network below the head: mn04_audioset, mn05 to mn40_audioset, efficientnet_lite0, convnext_tiny, timm/NAME or
    scratch."""

    pretrained: bool = True
    """Begin with the published weights of the backbone."""

    features: Literal["all", "last"] = "all"
    """What the head sees: mean and deviation of every stage, or the mean of the last stage alone."""

    head: Literal["linear", "layer_norm"] = "linear"
    """A linear layer on standardised features, or LayerNorm2d + Flatten + Linear."""

    optimizer: Literal["lbfgs", "adam", "adamw", "sgd"] = "lbfgs"
    """lbfgs solves the linear head to the end; the others take `epochs` through the clips. In fine-tuning: adamw."""

    weight_decay: float | None = Field(None, ge=0)
    """Pull of the weights to zero; none: chosen on the folds (lbfgs), 0.0001 (fine-tuning) or 0 (the others)."""

    learning_rate: float = Field(1e-3, gt=0)
    """Step size of adam, adamw and sgd."""

    momentum: float = Field(0.9, ge=0, lt=1)
    """Momentum of sgd."""

    epochs: int = Field(20, gt=0)
    """Passes of adam, adamw and sgd through the training clips."""

    batch_size: int = Field(64, gt=0)
    """Clips a step of adam, adamw and sgd, over all processes. In fine-tuning: 32."""

    n_mixed_clips: int = Field(0, ge=0)
    """Frozen: also learn from this many clips made by mixing two of the training clips."""

    folds: Folds = "auto"
    """Cross-validation: a number, the manifest's own (given), none, or (auto) its own if it has three, else up to five
    of ours if there are clips enough; fine-tuning then holds out a fifth instead."""

    final_model: Literal["refit", "average", "ensemble"] = "refit"
    """What is kept after folds: one tagger trained again on all clips, one with the mean of the folds' weights, or
    those of all folds, which answer together. In fine-tuning: average."""

    validation_fraction: float | None = Field(None, gt=0, lt=1)
    """Instead of folds: hold out this share of the clips, and train on the rest alone."""

    validation_split: Literal["stratified", "random"] = "stratified"
    """How validation_fraction chooses: balanced by label and group, or the rows of scikit-learn's train_test_split."""

    init: Path | None = None
    """Begin with the weights of this earlier bundle (same backbone, features and labels)."""

    calibration: Literal["auto", "none", "temperature", "platt", "isotonic"] = "auto"
    """How probabilities are made to come true, on held-out clips; auto: as these like best."""

    seed: int = Field(0, ge=0, lt=2**32)
    """Of folds, shuffling, augmentation and random weights."""

    budget: Seconds | None = Field(None, gt=0)
    """Time for all of the training, such as 30m (a bare number: seconds). Members of the recipe that do not fit are
    left out, and fine-tuning gets at most as many epochs as fit."""

    @model_validator(mode="after")
    def _check_folds(self) -> Self:
        if isinstance(self.folds, int) and self.folds < 2:
            raise ValueError(f"folds must be 2 or more, got {self.folds}; folds = none trains without")
        return self


def _as_in_toml(values: dict[str, Any]) -> dict[str, Any]:
    """Settings in the words of TOML, so that they are the same when they are read back."""
    result: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, BaseModel):
            result[name] = _as_in_toml(value.model_dump(mode="json", exclude_unset=True))
        elif isinstance(value, dict):
            result[name] = _as_in_toml(value)
        else:
            result[name] = "none" if value is None else str(value) if isinstance(value, Path) else value
    return result


class Recipe(TrainSettings):
    """How a tagger is trained. The defaults are good for a few clips a label and for thousands."""

    mel: Annotated[MelConfig | None, PlainSerializer(lambda mel: mel and _as_it_was_set(mel))] = None
    """Front end; what is not set is the backbone's own."""

    image: ImageConfig | None = None
    """Train on 8-bit images of the log_mels, as PNG files hold them; none: on the log_mels themselves."""

    augment: AugmentConfig = AugmentConfig()
    """How clips are changed in fine-tuning, and in the clips of `n_mixed_clips`."""

    loss: LossConfig = LossConfig()
    """What fine-tuning, and a head trained by epochs, make small."""

    finetune: FinetuneConfig = FinetuneConfig()
    """How the network itself goes on learning."""

    noisy_labels: NoisyConfig = NoisyConfig()
    """What is made of the manifest of noisy labels, where one is given."""

    leave_out: tuple[str, ...] = ()
    """Clips that are known to be wrong and are not learnt from, by their file names with or without the ending."""

    members: tuple[Annotated[dict[str, Any], AfterValidator(_as_in_toml)], ...] = ()
    """Taggers that answer together, each given by the settings in which it differs from this recipe. Their weights are
    fitted on held-out clips."""

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_mode(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("mode") != "finetune":
            return values
        values = {**_FINETUNE_DEFAULTS, **values}
        if values["weight_decay"] in (None, "none"):
            values["weight_decay"] = _FINETUNE_DEFAULTS["weight_decay"]
        return values

    @model_validator(mode="after")
    def _check(self) -> Self:
        self._check_held_out()
        if self.members:
            self._check_members()
        elif self.mode == "finetune":
            self._check_finetune()
        else:
            self._check_frozen()
        return self

    def _check_held_out(self) -> None:
        if self.validation_fraction is None and self.validation_split == "random":
            raise ValueError("validation_split = random needs validation_fraction, such as 0.25")
        if self.validation_fraction is not None and self.folds not in ("auto", "none"):
            raise ValueError(f"validation_fraction and folds = {self.folds} ask for different things; leave one out")
        if (
            self.init is not None
            and self.validation_fraction is None
            and self.folds != "none"
            and self.optimizer != "lbfgs"
        ):
            raise ValueError(
                "init begins with a head that has seen the clips of every fold, so folds would flatter; give the "
                "earlier run's validation_fraction and seed, or folds = none"
            )

    def _check_finetune(self) -> None:
        if self.optimizer == "lbfgs":
            raise ValueError("optimizer lbfgs solves the head of a frozen network; fine-tune by adamw, adam or sgd")
        if self.n_mixed_clips:
            raise ValueError("mixes are for frozen networks; fine-tuning mixes clips as it goes (augment.mix)")

    def _check_frozen(self) -> None:
        if self.optimizer == "lbfgs":
            self._check_lbfgs()
        if self.finetune != FinetuneConfig():
            raise ValueError("finetune settings do nothing for a frozen network; give --mode finetune")
        if self.augment != AugmentConfig() and not self.n_mixed_clips:
            raise ValueError(
                "augment settings do nothing for a frozen network without mixes; give --n-mixed-clips 3000"
            )

    def _check_lbfgs(self) -> None:
        if self.head != "linear":
            raise ValueError(f"optimizer lbfgs solves the linear head only, not head {self.head}; take adam or sgd")
        if self.init is not None:
            raise ValueError("optimizer lbfgs ends at the same head wherever it begins, so init would do nothing")
        if self.weight_decay == 0:
            raise ValueError("optimizer lbfgs needs a weight_decay above 0, or a head may have no end to reach")
        if self.loss != LossConfig():
            raise ValueError("optimizer lbfgs knows one loss, bce; take adam, or --mode finetune, for another")
        idle = [name for name in _BY_EPOCHS if getattr(self, name) != type(self).model_fields[name].default]
        if idle:
            raise ValueError(
                f"optimizer lbfgs solves the head to the end, so {', '.join(idle)} would do nothing; take adam or sgd"
            )

    def _check_members(self) -> None:
        for number, member in enumerate(self.members, start=1):
            common = [name for name in _COMMON if name in member]
            if common:
                raise ValueError(f"member {number}: {', '.join(common)} can't differ between members; set it for all")
        try:
            self.member_recipes()
        except ConfigError as error:
            raise ValueError(str(error)) from error

    def member_recipes(self) -> tuple["Recipe", ...]:
        """The recipe of each member; of a recipe without members, itself.

        A member has the settings of this recipe that are not the usual ones of its mode, where they do something in
        the member's own mode, and over these its own settings.

        Raises
        ------
        ConfigError
            If the settings of a member do not go together.
        """
        if not self.members:
            return (self,)
        usual = Recipe(mode=self.mode).model_dump(mode="json")
        values = self.model_dump(mode="json", exclude={"members"})
        shared = {name: value for name, value in values.items() if name == "mode" or value != usual[name]}
        return tuple(
            parse_config(_with_shared(shared, member), Recipe, source=f"member {number}")
            for number, member in enumerate(self.members, start=1)
        )


def _with_shared(shared: dict[str, Any], member: dict[str, Any]) -> dict[str, Any]:
    """A member's settings and those shared ones that do something for it."""
    settings = laid_over(shared, member)
    idle = _idle(settings)
    return {name: value for name, value in settings.items() if name in member or name not in idle}


def _idle(settings: dict[str, Any]) -> list[str]:
    """The settings that would do nothing beside these."""
    if settings.get("mode") == "finetune":
        return ["n_mixed_clips"]
    idle = ["finetune"]
    if settings.get("optimizer", "lbfgs") == "lbfgs":
        idle += ["loss", *_BY_EPOCHS]
    return idle if settings.get("n_mixed_clips") else [*idle, "augment"]


def with_flags(values: dict[str, Any], flags: dict[str, Any]) -> dict[str, Any]:
    """A file's settings with flags laid over them, and over those of each member where they do something for it."""
    own = {name: value for name, value in flags.items() if name not in _COMMON}

    def of_member(member: dict[str, Any]) -> dict[str, Any]:
        idle = _idle(laid_over(laid_over(values, member), own))
        return laid_over(member, {name: value for name, value in own.items() if name not in idle})

    result = laid_over(values, flags)
    return {**result, "members": [of_member(member) for member in values["members"]]} if "members" in values else result


def _as_it_was_set(config: Config) -> dict[str, Any]:
    return config.model_dump(mode="json", exclude_unset=True)


def laid_over(shared: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Settings with others laid over them; of tables such as augment, key by key."""
    tables = {
        name: {**shared[name], **value}
        for name, value in own.items()
        if isinstance(value, dict) and isinstance(shared.get(name), dict)
    }
    return {**shared, **own, **tables}


def recipe_file(name: str) -> Path:
    """The file of a recipe that comes with spectag, or a file of one's own.

    Raises
    ------
    ConfigError
        If there is neither. The message names the recipes that there are.
    """
    if Path(name).is_file():
        return Path(name)
    own = {path.stem: path for path in sorted(_recipes_folder().glob("*.toml"))}
    if name not in own:
        raise ConfigError(
            f"no recipe {name!r}{did_you_mean(name, own) or ':'} there is no such file, and spectag has "
            f"{', '.join(own)}"
        )
    return own[name]


def _recipes_folder() -> Path:
    installed = Path(__file__).parents[1] / "configs"
    return installed if installed.is_dir() else Path(__file__).parents[3] / "configs"  # in a checkout
