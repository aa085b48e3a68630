"""Augmentation of clips: parameters are drawn clip by clip, then applied to a whole batch at once."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from spectag.array_types import Float32Array
from spectag.audio.front_end import FrontEnd
from spectag.config.base import MelConfig
from spectag.config.training import AugmentConfig
from spectag.errors import ConfigError

Span = tuple[float, float]  # start and end, as fractions of an axis

_WHOLE: Span = (0.0, 1.0)
BACKGROUND_SPREAD_DB = 24.0
_IMAGE_DB = 80.0  # from black to white, if the front end does not define it
_TINY = 1e-30  # smallest power if only its ratio to the maximum counts
_NEPERS_PER_DB = math.log(10) / 10  # of power


@dataclass(frozen=True)
class Draw:
    """Augmentation parameters drawn for one clip. Positions are fractions of the input's width or height."""

    mix_db: float | None = None
    """Level of the added clip relative to this one; None: no clip is added."""
    mixup_fraction: float | None = None
    """Weight of the other clip in mixup; None: no mixup."""
    background_db: float | None = None
    """How many decibels the background is below the clip; None: no background."""
    gain_db: float = 0.0
    warp: float = 1.0
    """Factor on the distance of each band from the lowest band."""
    time_crop: Span = _WHOLE
    """Part that is resized to the whole width."""
    band_crop: Span = _WHOLE
    """Part that is resized to the whole height, in the input's order of rows."""
    roll: float = 0.0
    """Fraction of the width by which the input is rolled to the right."""
    time_masks: tuple[Span, ...] = ()
    band_masks: tuple[Span, ...] = ()
    image_seed: int | None = None
    """Seed of torchvision's transform; None: no transform."""

    @property
    def needs_other(self) -> bool:
        """Whether a second clip is added or mixed in."""
        return self.mix_db is not None or self.mixup_fraction is not None

    @property
    def needs_background(self) -> bool:
        """Whether a background is added."""
        return self.background_db is not None


def draw(config: AugmentConfig, rng: np.random.Generator) -> Draw:
    """Draw the augmentation parameters of one clip."""

    def happens(probability: float) -> bool:
        return rng.random() < probability

    mixes = happens(config.mix)
    mixup = not mixes and happens(config.mixup)
    has_background = config.background is not None and happens(config.background_fraction)
    crops, masks = happens(config.resized_crop), happens(config.spec_augment)
    n_masks = config.n_masks if masks else 0
    return Draw(
        mix_db=rng.uniform(-config.mix_db, config.mix_db) if mixes else None,
        mixup_fraction=rng.beta(config.mixup_alpha, config.mixup_alpha) if mixup else None,
        background_db=config.background_db + rng.uniform(0, BACKGROUND_SPREAD_DB) if has_background else None,
        gain_db=rng.uniform(-config.gain_db, config.gain_db),
        warp=rng.uniform(1 - config.warp_range, 1 + config.warp_range) if happens(config.warp) else 1.0,
        time_crop=_random_span(rng, config.resized_crop_scale, 1.0) if crops else _WHOLE,
        band_crop=_random_span(rng, config.resized_crop_scale, 1.0) if crops else _WHOLE,
        roll=rng.random() if happens(config.roll) else 0.0,
        time_masks=tuple(_random_span(rng, 0.0, config.time_mask) for _ in range(n_masks)),
        band_masks=tuple(_random_span(rng, 0.0, config.band_mask) for _ in range(n_masks)),
        image_seed=int(rng.integers(2**32)) if config.image != "none" else None,
    )


def _random_span(rng: np.random.Generator, shortest: float, longest: float) -> Span:
    length = rng.uniform(shortest, longest)
    start = rng.uniform(0, 1 - length)
    return start, start + length


class Augmenter:
    """Applies the drawn parameters to each clip of a batch, on the batch's device.

    Parameters
    ----------
    config : AugmentConfig
    front_end : FrontEnd
        Defines the scale of the inputs. Log_mels are mixed in power, waveforms are added. Of two 8-bit images the
        brighter pixel is taken, because an image has no absolute level. Gain has no effect on images and on log_mels
        relative to their maximum. Waveforms have no bands: only spans of time are masked.

    Raises
    ------
    ConfigError
        If image transforms are requested but the front end makes no images, or bands are to be changed but it makes
        waveforms.
    """

    def __init__(self, config: AugmentConfig, front_end: FrontEnd) -> None:
        if config.image != "none" and front_end.image is None:
            raise ConfigError(
                f"augment.image = {config.image} transforms 8-bit images, but this network takes log_mels; leave it "
                "out, or set --image.colormap grey and a backbone that takes images, such as efficientnet_lite0"
            )
        if front_end.input == "waveform" and (config.warp or config.resized_crop):
            name = "warp" if config.warp else "resized_crop"
            raise ConfigError(
                f"augment.{name} changes the bands of a spectrogram, but this network takes the waveform; leave it out"
            )
        self.config = config
        self.front_end = front_end

    def __call__(
        self,
        inputs: Tensor,
        others: Tensor | None,
        backgrounds: Tensor | None,
        targets: Tensor,
        other_targets: Tensor | None,
        draws: Sequence[Draw],
    ) -> tuple[Tensor, Tensor]:
        """The augmented clips and their targets.

        Parameters
        ----------
        inputs : float tensor of shape (batch, channels, height, width)
        others, backgrounds : float tensors of the same shape, or None
            The clip and the background sound for each clip. Rows that no draw uses may contain anything.
        targets, other_targets : float tensors of shape (batch, n_labels)
            From 0 to 1; NaN if unknown. Added clips join the targets of both.
        draws : sequence of Draw
            One for each clip.

        Returns
        -------
        inputs, targets : new tensors of the same shapes

        Raises
        ------
        ValueError
            If the number of draws is not the number of clips, or an input that a draw needs is missing or has another
            shape.
        """
        if not len(draws) == len(inputs) == len(targets):
            raise ValueError(
                f"expected a draw for each clip, got {len(draws)} for {len(inputs)}, {len(targets)} targets"
            )
        needs_other = any(draw.needs_other for draw in draws)
        _check_shape("others", others, inputs, is_needed=needs_other)
        _check_shape("other_targets", other_targets, targets, is_needed=needs_other)
        _check_shape("backgrounds", backgrounds, inputs, is_needed=any(draw.needs_background for draw in draws))
        inputs, targets = inputs.clone(), targets.clone()
        if others is not None and other_targets is not None:
            _mixup(inputs, others, targets, other_targets, draws)
            rows = _rows([draw.mix_db is not None for draw in draws], targets)
            targets[rows] = joined_targets(targets[rows], other_targets[rows])
        if self.front_end.image is not None:
            self._add_images(inputs, others, backgrounds, draws)
        elif self.front_end.input == "waveform":
            _add_waveforms(inputs, others, backgrounds, draws)
        elif self.front_end.mel is not None:
            _add_in_power(inputs, others, backgrounds, draws, self.front_end.mel)
        self._warp_crop_and_roll(inputs, draws)
        self._transform_images(inputs, draws)
        self._mask(inputs, draws)
        return inputs, targets

    def _add_images(
        self, images: Tensor, others: Tensor | None, backgrounds: Tensor | None, draws: Sequence[Draw]
    ) -> None:
        if others is not None:
            rows = _rows([draw.mix_db is not None for draw in draws], images)
            images[rows] = torch.maximum(images[rows], others[rows])
        if backgrounds is not None:
            rows = _rows([draw.needs_background for draw in draws], images)
            below = _column([draw.background_db for draw in draws if draw.background_db is not None], images)
            darker = (backgrounds[rows] - below / _decibels_in_image(self.front_end)).clamp_min(0)
            images[rows] = torch.maximum(images[rows], darker)

    def _warp_crop_and_roll(self, inputs: Tensor, draws: Sequence[Draw]) -> None:
        """Warp, resized crop and roll, in place."""
        is_warped = [(draw.warp, draw.time_crop, draw.band_crop) != (1.0, _WHOLE, _WHOLE) for draw in draws]
        if any(is_warped):
            rows = _rows(is_warped, inputs)
            lowest_row = -1 if self.front_end.image is None else 1  # row 0 of an image is its highest band
            silence = self._silence(inputs[rows])
            maps = torch.tensor([_map_to_input(draw, lowest_row) for draw in compress(draws, is_warped)]).to(inputs)
            grid = functional.affine_grid(maps, list(inputs[rows].shape), align_corners=True)
            warped = functional.grid_sample(inputs[rows] - silence, grid, align_corners=True)  # 0 beyond the edges
            inputs[rows] = warped + silence
        is_rolled = [draw.roll > 0 for draw in draws]
        if any(is_rolled):
            rows = _rows(is_rolled, inputs)
            width = inputs.shape[-1]
            shifts = torch.tensor([[round(draw.roll * width)] for draw in compress(draws, is_rolled)])
            columns = (torch.arange(width) - shifts).to(inputs.device) % width
            inputs[rows] = inputs[rows].gather(-1, columns[:, None, None].expand_as(inputs[rows]))

    def _transform_images(self, images: Tensor, draws: Sequence[Draw]) -> None:
        seeds = [draw.image_seed for draw in draws if draw.image_seed is not None]
        if seeds:
            # torchvision takes a second to import
            from spectag.training.inputs.image_transforms import transform_images

            rows = _rows([draw.image_seed is not None for draw in draws], images)
            images[rows] = transform_images(images[rows], self.config.image, seeds)

    def _mask(self, inputs: Tensor, draws: Sequence[Draw]) -> None:
        has_masks = [bool(draw.time_masks or draw.band_masks) for draw in draws]
        if any(has_masks):
            rows, chosen = _rows(has_masks, inputs), list(compress(draws, has_masks))
            clips = inputs[rows]
            is_masked_time = _is_covered([draw.time_masks for draw in chosen], clips.shape[-1], inputs.device)
            is_masked = is_masked_time[:, None, None, :]
            if self.front_end.input != "waveform":
                is_masked_band = _is_covered([draw.band_masks for draw in chosen], clips.shape[-2], inputs.device)
                is_masked = is_masked | is_masked_band[:, None, :, None]
            inputs[rows] = torch.where(is_masked, self._silence(clips), clips)

    def _silence(self, inputs: Tensor) -> Tensor:
        """Input values of silence for each clip, of shape (batch, channels or 1, 1, 1)."""
        mel = self.front_end.mel
        if self.front_end.input == "waveform":
            return torch.zeros_like(inputs[:, :1, :1, :1])
        if self.front_end.image is not None or mel is None:
            pixels = inputs.flatten(2)
            darkest = pixels.sum(dim=1, keepdim=True).argmin(dim=2, keepdim=True)
            return pixels.gather(2, darkest.expand(-1, pixels.shape[1], 1))[..., None]
        if mel.ref == "max":
            return inputs.amin(dim=(1, 2, 3), keepdim=True)
        floor = torch.full_like(inputs[:, :1, :1, :1], level_of_no_power(mel))
        return floor if mel.top_db is None else torch.maximum(floor, _top_db_floor(inputs, mel))


def power_of(log_mel: Tensor, config: MelConfig) -> Tensor:
    """Mel power of log_mels of shape (..., n_mels, n_frames); with `ref="max"`, relative to the maximum."""
    slope, offset = _line(config)
    power = (log_mel * slope).add_(offset).exp_()  # in place if possible: memory access takes most of the time
    return power.sub_(config.amin).clamp_min_(0) if config.log == "ln" and config.ref != "max" else power


def log_mel_of(power: Tensor, config: MelConfig) -> Tensor:
    """Log_mels of mel power of shape (..., n_mels, n_frames), as `compute_log_mel` makes them.

    With `ref="max"`, the scale of the power and `amin` have no effect.
    """
    slope, offset = _line(config)
    if config.ref == "max":
        power = power.clamp_min(_TINY)
        power /= power.amax(dim=(-2, -1), keepdim=True)
    elif config.log == "ln":
        power = power + config.amin
    else:
        power = power.clamp_min(config.amin)
    log_mel = power.log_().sub_(offset).mul_(1 / slope)
    return log_mel if config.top_db is None else torch.maximum(log_mel, _top_db_floor(log_mel, config))


def level_of_no_power(config: MelConfig) -> float:
    """The log_mel value of zero power, without `top_db`; not defined with `ref="max"`."""
    slope, offset = _line(config)
    return (math.log(config.amin) - offset) / slope


def joined_targets(targets: Tensor, other_targets: Tensor) -> Tensor:
    """Targets of two added clips: 1 - (1 - a) (1 - b). Unknown (NaN) joined with 1 is 1, otherwise NaN."""
    is_certain = (targets == 1) | (other_targets == 1)
    return torch.where(is_certain, 1.0, 1 - (1 - targets) * (1 - other_targets))


def augment_arrays(
    augmenter: Augmenter,
    inputs: Float32Array,
    others: Float32Array,
    backgrounds: Float32Array | None,
    targets: Float32Array,
    other_targets: Float32Array,
    draws: Sequence[Draw],
) -> tuple[Float32Array, Float32Array]:
    """Apply the augmenter to NumPy arrays."""
    added = None if backgrounds is None else torch.from_numpy(backgrounds)
    clips, other_clips, labels, other_labels = map(torch.from_numpy, (inputs, others, targets, other_targets))
    changed, changed_targets = augmenter(clips, other_clips, added, labels, other_labels, draws)
    return changed.numpy(), changed_targets.numpy()


def _check_shape(name: str, values: Tensor | None, like: Tensor, *, is_needed: bool) -> None:
    if is_needed and (values is None or values.shape != like.shape):
        shape = None if values is None else tuple(values.shape)
        raise ValueError(f"a draw needs {name} of shape {tuple(like.shape)}, got {shape}")


def _rows(flags: Sequence[bool], like: Tensor) -> Tensor:
    """Indices of the clips whose flag is set."""
    return torch.tensor([i for i, flag in enumerate(flags) if flag], dtype=torch.long, device=like.device)


def _column(numbers: Sequence[float], like: Tensor) -> Tensor:
    """A number for each clip, of shape (n_clips, 1, 1, 1)."""
    return torch.tensor(numbers, dtype=like.dtype, device=like.device)[:, None, None, None]


def _mixup(inputs: Tensor, others: Tensor, targets: Tensor, other_targets: Tensor, draws: Sequence[Draw]) -> None:
    """Mixup, in place (Zhang et al., "mixup: beyond empirical risk minimization", ICLR 2018)."""
    rows = _rows([draw.mixup_fraction is not None for draw in draws], inputs)
    fraction = _column([draw.mixup_fraction for draw in draws if draw.mixup_fraction is not None], inputs)
    inputs[rows] = torch.lerp(inputs[rows], others[rows], fraction)
    targets[rows] = torch.lerp(targets[rows], other_targets[rows], fraction[:, 0, 0].to(targets.dtype))


def _add_in_power(
    inputs: Tensor, others: Tensor | None, backgrounds: Tensor | None, draws: Sequence[Draw], mel: MelConfig
) -> None:
    """Add clips and backgrounds and apply the gain, in place; only clips that change are converted to power."""
    gains = [0.0 if mel.ref == "max" else draw.gain_db for draw in draws]
    is_changed = [
        gain != 0 or draw.mix_db is not None or draw.needs_background for draw, gain in zip(draws, gains, strict=True)
    ]
    if not any(is_changed):
        return
    rows = _rows(is_changed, inputs)
    draws, gains = list(compress(draws, is_changed)), list(compress(gains, is_changed))
    power = _audible_power(inputs[rows], mel)
    if others is not None:
        _add_at(power, others[rows], [draw.mix_db for draw in draws], mel)
    if backgrounds is not None:
        levels = [None if draw.background_db is None else -draw.background_db for draw in draws]
        _add_at(power, backgrounds[rows], levels, mel)
    power *= 10 ** (_column(gains, inputs) / 10)
    inputs[rows] = log_mel_of(power, mel)


def _add_waveforms(waveforms: Tensor, others: Tensor | None, backgrounds: Tensor | None, draws: Sequence[Draw]) -> None:
    """Add clips and backgrounds (batch, 1, 1, n_samples) and apply the gain, in place.

    Levels are relative to the mean power of the clip, as in `_add_at`.
    """
    below = [None if draw.background_db is None else -draw.background_db for draw in draws]
    for added, levels_db in ((others, [draw.mix_db for draw in draws]), (backgrounds, below)):
        if added is None:
            continue
        rows = _rows([level is not None for level in levels_db], waveforms)
        present, new = (sounds[rows].square().mean(dim=(1, 2, 3), keepdim=True) for sounds in (waveforms, added))
        ratio = 10 ** (_column([level for level in levels_db if level is not None], waveforms) / 10)
        scale = torch.where((present > 0) & (new > 0), torch.sqrt(ratio * present / new), 1.0)
        waveforms[rows] += scale * added[rows]
    waveforms *= 10 ** (_column([draw.gain_db for draw in draws], waveforms) / 20)


def _add_at(power: Tensor, added: Tensor, levels_db: Sequence[float | None], mel: MelConfig) -> None:
    """Add sounds to power, in place, each at its level relative to the mean power of the clip; None: not added."""
    rows = _rows([level is not None for level in levels_db], power)
    added_power = _audible_power(added[rows], mel)
    ratio = 10 ** (_column([level for level in levels_db if level is not None], power) / 10)
    present = power.mean(dim=(1, 2, 3), keepdim=True)[rows]
    new = added_power.mean(dim=(1, 2, 3), keepdim=True)
    scale = torch.where((present > 0) & (new > 0), ratio * present / new, 1.0)  # silence has no level
    power.index_add_(0, rows, added_power.mul_(scale))


def _audible_power(log_mel: Tensor, mel: MelConfig) -> Tensor:
    """Power of clips (batch, 1, n_mels, n_frames); 0 for a clip of digital silence, whose log_mel is constant.

    Scaled to the level of another clip, the floor of its log_mel would be loud noise.
    """
    lowest, highest = torch.aminmax(log_mel.flatten(1), dim=1)
    return power_of(log_mel, mel).mul_((highest > lowest)[:, None, None, None])


def _line(config: MelConfig) -> tuple[float, float]:
    """Slope and offset from a log_mel to the natural logarithm of its power."""
    ref = 1.0 if config.ref == "max" else max(config.ref, config.amin)
    return config.std * _nepers_per_unit(config), config.mean * _nepers_per_unit(config) + math.log(ref)


def _nepers_per_unit(config: MelConfig) -> float:
    """Nepers of power per unit of a log_mel before standardisation."""
    return _NEPERS_PER_DB if config.log == "db" else 1.0


def _top_db_floor(log_mel: Tensor, config: MelConfig) -> Tensor:
    """The smallest value of each clip according to top_db, of shape (..., 1, 1)."""
    assert config.top_db is not None
    return log_mel.amax(dim=(-2, -1), keepdim=True) - config.top_db * _NEPERS_PER_DB / _line(config)[0]


def _map_to_input(draw: Draw, lowest_row: int) -> list[list[float]]:
    """The position in the input of each output point, as for `affine_grid`: rows x and y, from -1 to 1.

    The lowest band, at y = lowest_row, is the fixed point of the warp. The crop comes after the warp.
    """
    (left, right), (top, bottom) = draw.time_crop, draw.band_crop
    x = [right - left, 0.0, right + left - 1]
    y = [0.0, bottom - top, bottom + top - 1]
    return [x, [0.0, y[1] / draw.warp, y[2] / draw.warp + lowest_row * (1 - 1 / draw.warp)]]


def _is_covered(masks: Sequence[Sequence[Span]], size: int, device: torch.device) -> Tensor:
    """Which frames (or bands) have their centre in one of a clip's masks, of shape (n_clips, size)."""
    centers = (torch.arange(size, device=device) + 0.5) / size
    start, end = torch.tensor(masks, device=device).view(len(masks), len(masks[0]), 2).unbind(-1)
    return ((centers >= start[..., None]) & (centers < end[..., None])).any(dim=1)


def _decibels_in_image(front_end: FrontEnd) -> float:
    """Decibels of power from black to white in an image."""
    image, mel = front_end.image, front_end.mel
    if image is None or mel is None:
        return _IMAGE_DB
    if image.low is not None and image.high is not None:
        return (image.high - image.low) * mel.std * _nepers_per_unit(mel) / _NEPERS_PER_DB
    return mel.top_db or _IMAGE_DB
