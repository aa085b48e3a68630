"""Settings of learning beyond the head: fine-tuning, augmentation, losses and noisy labels."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from spectag.config.base import Config


class AugmentConfig(Config):
    """How clips are changed, anew each time that the network sees them. Shares are of the clips; 0 switches off."""

    mix: float = Field(0.7, ge=0, le=1)
    """Share to which another clip is added in power, the labels of both joined."""
    mix_db: float = Field(6.0, ge=0)
    """The added clip is louder or softer than the first by up to this many dB."""
    mixup: float = Field(0.0, ge=0, le=1)
    """Share, of the clips that are not mixed so, blended with another clip, and the labels alike (classic mixup)."""
    mixup_alpha: float = Field(0.3, gt=0)
    """The blend's weight is drawn from Beta(alpha, alpha)."""
    gain_db: float = Field(6.0, ge=0)
    """Every clip is made louder or softer by up to this many dB."""
    roll: float = Field(0.0, ge=0, le=1)
    """Share rolled around in time by any number of frames."""
    spec_augment: float = Field(0.0, ge=0, le=1)
    """Share in which stretches of time and bands are silenced (SpecAugment)."""
    n_masks: int = Field(2, gt=0)
    """Masked stretches of time, and as many of bands."""
    time_mask: float = Field(0.15, gt=0, lt=1)
    """Longest masked stretch, as a share of all frames."""
    band_mask: float = Field(0.15, gt=0, lt=1)
    """Widest masked range, as a share of all mel bands."""
    warp: float = Field(0.0, ge=0, le=1)
    """Share whose frequencies are stretched or squeezed along the mel axis."""
    warp_range: float = Field(0.1, gt=0, lt=1)
    """By up to this share."""
    resized_crop: float = Field(0.0, ge=0, le=1)
    """Share cropped in time and frequency and stretched to the old size (random resized crop)."""
    resized_crop_scale: float = Field(0.8, gt=0, lt=1)
    """Least share of the time and of the bands that is kept."""
    background: Path | None = None
    """Folder of sounds to add as background noise."""
    background_share: float = Field(0.5, ge=0, le=1)
    """Share to which one is added, where there is a folder."""
    background_db: float = Field(6.0, ge=0)
    """The background lies from this many to 24 dB more below the clip."""
    image: Literal["none", "random_crop", "rand_augment", "trivial_augment_wide"] = "none"
    """torchvision's changes of 8-bit images, for networks that are trained on images."""
    disable_last_fraction: float = Field(0.1, ge=0, le=1)
    """All of this is switched off for the last share of the epochs."""


class LossConfig(Config):
    """What training makes small."""

    kind: Literal["bce", "focal", "asymmetric", "lsep", "bootstrap", "lq"] = "bce"
    """Binary cross-entropy, focal, asymmetric, rank loss (lsep), soft bootstrap, or L_q; the last two forgive wrong
    labels."""
    gamma: float = Field(2.0, ge=0)
    """Focal: how much less an easy label counts."""
    gamma_positive: float = Field(0.0, ge=0)
    """Asymmetric: the same for labels that are true."""
    gamma_negative: float = Field(4.0, ge=0)
    """Asymmetric: the same for labels that are not."""
    margin: float = Field(0.05, ge=0, lt=1)
    """Asymmetric: a label that is not true and as improbable as this costs nothing."""
    beta: float = Field(0.7, ge=0, le=1)
    """Bootstrap: trust in the labels; the rest is trust in the network's own probabilities."""
    q: float = Field(0.7, gt=0, le=1)
    """L_q: near 0 it is cross-entropy, at 1 the mean absolute error."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Share of every label that is taken to be unknown: targets go from s/2 to 1 - s/2."""
    class_weights: Literal["none", "balanced"] = "none"
    """balanced: rare labels count for more, as 1 / sqrt(clips), with mean 1."""


class FinetuneConfig(Config):
    """How the network itself goes on learning."""

    linear_probe_first: bool = True
    """Fit the head on the frozen features before the network is touched."""
    unfreeze: Annotated[int, Field(gt=0)] | Literal["all"] = "all"
    """How many of the deepest stages learn; the others stay as they are."""
    layer_decay: float = Field(0.9, gt=0, le=1)
    """From a stage to the one before it, the learning rate falls by this factor."""
    head_lr_multiplier: float = Field(1.0, gt=0)
    """The head's learning rate is this many times that of the deepest stage."""
    schedule: Literal["cosine", "one_cycle", "constant"] = "cosine"
    """Learning rate: up and then down along a cosine, one cycle of both halves alike, or constant after the rise."""
    warmup_fraction: float = Field(0.1, ge=0, lt=1)
    """Share of the steps in which it rises from 0 (cosine and constant)."""
    weight_averaging: Literal["ema", "swa", "none"] = "ema"
    """The tagger's weights: a moving average, the mean over the last quarter of the epochs, or those of the end."""
    ema_decay: float = Field(0.99, gt=0, lt=1)
    """Share of the moving average that stays at each step."""
    clip_norm: float | None = Field(5.0, gt=0)
    """Greatest norm of the gradient; none: any."""
    batch_norm: Literal["frozen", "trained"] = "frozen"
    """Whether batch normalisation keeps its pretrained statistics; networks without pretraining always learn them."""
    crop_seconds: float | None = Field(4.0, gt=0)
    """Stretch of a clip that the network sees in training, drawn anew each time; none: whole clips, all alike long."""
    short_clips: Literal["both", "wrap", "pad"] = "both"
    """A clip shorter than the stretch is repeated, laid into silence, or (both) one or the other by chance."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """auto: bfloat16 on a GPU that has it, else float32."""
    compile: bool = False
    """torch.compile the network, where a GPU is."""
    patience: int | None = Field(None, gt=0)
    """Stop early when the held-out lwlrap has not risen for this many epochs, and keep the best; none: go on."""
    checkpoint_steps: int = Field(500, gt=0)
    """Steps between two checkpoints, besides one at each epoch's end."""


class NoisyConfig(Config):
    """What is made of clips whose labels may be wrong. They are never just added to the others."""

    method: Literal["relabel", "select"] = "relabel"
    """relabel: every label gets the probability that it is true, given the tagger's opinion and how often noisy labels
    are wrong; unsure clips weigh less. select: only clips all of whose labels the tagger agrees with are kept."""
    per_label: int | None = Field(None, gt=0)
    """Most clips kept of a label, the surest; none: all that are sure enough."""
    weight: float = Field(1.0, gt=0, le=1)
    """Weight of the surest noisy clip beside a clip of the manifest."""
    loss: Literal["same", "bootstrap", "lq"] = "same"
    """Loss of the noisy clips in fine-tuning, where it is to be another than the manifest's."""
    separate_head: bool = False
    """In fine-tuning, learn the noisy clips by a second head, which is thrown away in the end."""
