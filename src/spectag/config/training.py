"""Settings of fine-tuning, augmentation, losses and noisy labels."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from spectag.config.base import MAX_SECONDS, Config


class AugmentConfig(Config):
    """Random changes of the clips in every epoch. A fraction of the clips is changed; 0 switches a change off."""

    mix: float = Field(0.7, ge=0, le=1)
    """Fraction of clips to which another clip is added in power; the labels of both are combined."""
    mix_db: float = Field(6.0, ge=0, le=300)
    """Maximum level difference of the added clip in dB."""
    mixup: float = Field(0.0, ge=0, le=1)
    """Fraction of the other clips that are averaged with another clip, together with the labels (mixup)."""
    mixup_alpha: float = Field(0.3, gt=0, le=1e6)
    """Parameter of mixup: the weight comes from Beta(alpha, alpha)."""
    gain_db: float = Field(6.0, ge=0, le=300)
    """Maximum random gain of every clip in dB, up or down."""
    roll: float = Field(0.0, ge=0, le=1)
    """Fraction of clips that are shifted in time, with wrap-around."""
    spec_augment: float = Field(0.0, ge=0, le=1)
    """Fraction of clips with masked time spans and mel bands (SpecAugment)."""
    n_masks: int = Field(2, gt=0, le=10_000)
    """Number of time masks, and of band masks, in a clip."""
    time_mask: float = Field(0.15, gt=0, lt=1)
    """Maximum length of a time mask, as a fraction of all frames."""
    band_mask: float = Field(0.15, gt=0, lt=1)
    """Maximum width of a band mask, as a fraction of all mel bands."""
    warp: float = Field(0.0, ge=0, le=1)
    """Fraction of clips that are scaled along the mel axis."""
    warp_range: float = Field(0.1, gt=0, lt=1)
    """Maximum scaling along the mel axis, as a fraction."""
    resized_crop: float = Field(0.0, ge=0, le=1)
    """Fraction of clips that are cropped in time and frequency and resized (random resized crop)."""
    resized_crop_scale: float = Field(0.8, gt=0, lt=1)
    """Minimum fraction of the frames and of the bands that a crop keeps."""
    background: Path | None = None
    """Folder of sounds that are added as background noise."""
    background_fraction: float = Field(0.5, ge=0, le=1)
    """Fraction of clips with background noise, if there is a folder."""
    background_db: float = Field(6.0, ge=0, le=300)
    """Minimum level of the clip over the background in dB; the maximum is 24 dB more."""
    image: Literal["none", "random_crop", "rand_augment", "trivial_augment_wide"] = "none"
    """Augmentation of 8-bit images by torchvision, for models that are trained on images. In frozen mode without mixed
    clips, a head that is trained by epochs sees new images in every epoch."""
    disable_last_fraction: float = Field(0.1, ge=0, le=1)
    """Fraction of the epochs, at the end, without any augmentation."""


class LossConfig(Config):
    """The loss function."""

    kind: Literal["bce", "focal", "asymmetric", "lsep", "bootstrap", "lq"] = "bce"
    """Binary cross-entropy, focal, asymmetric, rank loss (lsep), soft bootstrap or L_q; the last two tolerate wrong
    labels."""
    gamma: float = Field(2.0, ge=0, le=100)
    """Focal loss: exponent that reduces the weight of easy labels."""
    gamma_positive: float = Field(0.0, ge=0, le=100)
    """Asymmetric loss: exponent for positive labels."""
    gamma_negative: float = Field(4.0, ge=0, le=100)
    """Asymmetric loss: exponent for negative labels."""
    margin: float = Field(0.05, ge=0, lt=1)
    """Asymmetric loss: a negative label below this probability costs nothing."""
    beta: float = Field(0.7, ge=0, le=1)
    """Bootstrap loss: weight of the labels; the rest is the weight of the network's predictions."""
    q: float = Field(0.7, gt=0, le=1)
    """L_q loss: close to 0 it equals cross-entropy, at 1 the mean absolute error."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Label smoothing s: targets are s/2 and 1 - s/2."""
    class_weights: Literal["none", "balanced"] = "none"
    """balanced gives rare labels more weight: 1 / sqrt(clips), with mean 1."""


class FinetuneConfig(Config):
    """Settings of fine-tuning."""

    linear_probe_first: bool = True
    """Fit the head on frozen features before fine-tuning."""
    unfreeze: Annotated[int, Field(ge=0, le=10_000)] | Literal["all"] = "all"
    """Number of stages to train, counted from the output; the others stay frozen. 0: train the head only."""
    layer_decay: float = Field(0.9, gt=0, le=1)
    """Factor of the learning rate from each stage to the stage before it."""
    head_lr_multiplier: float = Field(1.0, gt=0, le=1e6)
    """Learning rate of the head, relative to the last stage."""
    schedule: Literal["cosine", "one_cycle", "constant"] = "cosine"
    """Learning rate schedule: cosine after a warm-up, one cycle, or constant after a warm-up."""
    warmup_fraction: float = Field(0.1, ge=0, lt=1)
    """Fraction of the steps in which the learning rate rises from 0 (cosine and constant)."""
    weight_averaging: Literal["ema", "swa", "none"] = "ema"
    """Final weights: a moving average (ema), the mean of the last quarter of the epochs (swa), or the last ones."""
    ema_decay: float = Field(0.99, gt=0, lt=1)
    """Decay of the moving average per step."""
    clip_norm: float | None = Field(5.0, gt=0, le=1e6)
    """Maximum norm of the gradient; none: no limit."""
    batch_norm: Literal["frozen", "trained"] = "frozen"
    """frozen keeps the pretrained statistics of batch normalisation. Without pretraining, they are always trained."""
    crop_seconds: float | None = Field(4.0, gt=0, le=MAX_SECONDS)
    """Length of the random training crop in seconds; none: whole clips, all of the same length."""
    short_clips: Literal["both", "wrap", "pad"] = "both"
    """Clips shorter than the crop: repeat them (wrap), add silence (pad), or choose at random (both)."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Numeric precision. auto: bfloat16 on a GPU that supports it, else float32."""
    compile: bool = False
    """Use torch.compile on a GPU."""
    patience: int | None = Field(None, gt=0, le=1_000_000)
    """Stop after this many epochs without a better validation lwlrap, and keep the best epoch; none: do not stop."""
    checkpoint_steps: int = Field(500, gt=0, le=1_000_000_000)
    """Steps between checkpoints; there is also one after every epoch."""


class NoisyConfig(Config):
    """Settings for clips whose labels may be wrong."""

    method: Literal["relabel", "select"] = "relabel"
    """relabel: replace each label with the probability that it is correct, and give uncertain clips less weight.
    select: keep only the clips whose labels all agree with the predictions."""
    per_label: int | None = Field(None, gt=0, le=1_000_000_000)
    """Maximum number of clips per label, the most certain ones; none: no limit."""
    weight: float = Field(1.0, gt=0, le=1)
    """Weight of the most certain noisy clip, relative to a clip of the manifest."""
    loss: Literal["same", "bootstrap", "lq"] = "same"
    """Loss of the noisy clips in fine-tuning; same: the loss of the other clips."""
    separate_head: bool = False
    """In fine-tuning, train a second head on the noisy clips; it is removed at the end."""
