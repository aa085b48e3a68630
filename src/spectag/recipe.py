"""What `spectag train` does, as settings: given by flags, read from configs/*.toml, written into every bundle."""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_serializer, model_validator

from spectag.config import Config, ImageConfig, MelConfig

Folds = int | Literal["auto", "given", "none"]


_BY_EPOCHS = ("learning_rate", "momentum", "epochs", "batch_size")


class TrainSettings(Config):
    """How a tagger is trained, but for its front end."""

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
    """lbfgs solves the linear head to the end; the others take `epochs` through the clips."""

    weight_decay: float | None = Field(None, ge=0)
    """Pull of the head's weights to zero; none: chosen on the folds (lbfgs) or 0 (the others)."""

    learning_rate: float = Field(1e-3, gt=0)
    """Step size of adam, adamw and sgd."""

    momentum: float = Field(0.9, ge=0, lt=1)
    """Momentum of sgd."""

    epochs: int = Field(20, gt=0)
    """Passes of adam, adamw and sgd through the training clips."""

    batch_size: int = Field(64, gt=0)
    """Clips a step of adam, adamw and sgd."""

    folds: Folds = "auto"
    """Cross-validation: a number, the manifest's own (given), none, or (auto) its own if it has three, else up to five
    of ours if there are clips enough."""

    valid_share: float | None = Field(None, gt=0, lt=1)
    """Instead of folds: hold out this share of the clips, and train on the rest alone."""

    valid_rows: Literal["stratified", "random"] = "stratified"
    """How valid_share chooses: balanced by label and group, or the rows of scikit-learn's train_test_split."""

    init: Path | None = None
    """Begin with the weights of this earlier bundle (same backbone, features and labels)."""

    seed: int = Field(0, ge=0, lt=2**32)
    """Of folds, shuffling and random weights."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.optimizer == "lbfgs" and self.head != "linear":
            raise ValueError(f"optimizer lbfgs solves the linear head only, not head {self.head}; take adam or sgd")
        if self.optimizer == "lbfgs" and self.init is not None:
            raise ValueError("optimizer lbfgs ends at the same head wherever it begins, so init would do nothing")
        if self.optimizer == "lbfgs" and self.weight_decay == 0:
            raise ValueError("optimizer lbfgs needs a weight_decay above 0, or a head may have no end to reach")
        if self.init is not None and self.valid_share is None and self.folds != "none":
            raise ValueError(
                "init begins with a head that has seen the clips of every fold, so folds would flatter; give the "
                "earlier run's valid_share and seed, or folds = none"
            )
        idle = [name for name in _BY_EPOCHS if getattr(self, name) != type(self).model_fields[name].default]
        if self.optimizer == "lbfgs" and idle:
            raise ValueError(
                f"optimizer lbfgs solves the head to the end, so {', '.join(idle)} would do nothing; take adam or sgd"
            )
        if self.valid_share is None and self.valid_rows == "random":
            raise ValueError("valid_rows = random needs valid_share, such as 0.25")
        if self.valid_share is not None and self.folds not in ("auto", "none"):
            raise ValueError(f"valid_share and folds = {self.folds} ask for different things; leave one out")
        if isinstance(self.folds, int) and self.folds < 2:
            raise ValueError(f"folds must be 2 or more, got {self.folds}; folds = none trains without")
        return self


class Recipe(TrainSettings):
    """How a tagger is trained. The defaults are good for a few clips a label and for thousands."""

    mel: MelConfig | None = None
    """Front end; what is not set is the backbone's own."""

    image: ImageConfig | None = None
    """Train on 8-bit images of the log_mels, as PNG files hold them; none: on the log_mels themselves."""

    @field_serializer("mel")
    def _mel_as_it_was_set(self, mel: MelConfig | None) -> dict[str, Any] | None:
        return None if mel is None else mel.model_dump(mode="json", exclude_unset=True)
