"""Attribution: which parts of a spectrogram a model uses to detect a label, found by replacing parts at random.

Random parts of the spectrogram, many at a time, are replaced by the background of the clip. A map shows how much of a
label's logit is lost with each part. Only the model's outputs are needed, so this works for every architecture and for
ensembles.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spectag.array_types import Float32Array, FloatArray, Waveform
from spectag.audio.files import resample
from spectag.audio.front_end import FrontEnd
from spectag.audio.mel import band_centers, compute_log_mel, hz_to_mel, mel_to_hz
from spectag.audio.spectrogram_image import log_mel_to_image
from spectag.config.base import MelConfig
from spectag.errors import DataError
from spectag.models.tagger import Tagger
from spectag.system.progress import Progress, shows_progress, silent

N_PASSES = 192
"""Random masks. The model runs once for each, and twice more: on the whole clip and on nothing but background."""
PATCH_SECONDS = 0.5
"""Duration of the parts that are replaced together; longer if a clip would have more than MAX_TIME_PATCHES."""
MAX_TIME_PATCHES = 20
N_BAND_PATCHES = 6
"""Patches over the whole frequency range, evenly spaced in mel."""
MIN_MAP_MAXIMUM = 0.05
"""Logit that gets the strongest colour at least, so that a map without any attribution stays empty."""

_FRACTION_REPLACED = 0.75
_BACKGROUND_QUANTILE = 0.1
_CELLS_PER_PATCH = 4  # of the map, along each axis
_OVERLAP = 1.5**2  # patches replaced together with a place, on average, minus those replaced without it


@dataclass(frozen=True)
class Peak:
    """The maximum of a label's map."""

    seconds: float
    hertz: float
    logit_lost: float


@dataclass(frozen=True, eq=False)
class Attribution:
    """Which parts of a spectrogram a model uses, label by label.

    The value of a map at a place is the mean loss of the label's logit when a patch around the place is replaced by
    background. Positive values support the label, negative ones oppose it. All maps have the same unit. The mean of a
    map times the number of patches is the logit that is lost if the whole sound is replaced.
    """

    labels: tuple[str, ...]
    time_edges: FloatArray
    """Seconds, of shape (n_times + 1,)."""
    band_edges: FloatArray
    """Hz, of shape (n_bands + 1,), evenly spaced on the mel scale of the model's (first) MelConfig."""
    maps: Float32Array
    """Of shape (n_labels, n_bands, n_times), the lowest band first."""

    def map_of(self, label: str) -> Float32Array:
        """The map (n_bands, n_times) of a label; a ValueError if there is none."""
        if label not in self.labels:
            raise ValueError(f"no map of {label!r}; there are maps of {', '.join(map(repr, self.labels))}")
        chosen: Float32Array = self.maps[self.labels.index(label)]
        return chosen

    def peak(self, label: str) -> Peak:
        """The maximum of a label's map, at the middle of its cell."""
        chosen = self.map_of(label)
        band, time = np.unravel_index(int(chosen.argmax()), chosen.shape)
        seconds, hertz = ((edges[1:] + edges[:-1]) / 2 for edges in (self.time_edges, self.band_edges))
        return Peak(float(seconds[time]), float(hertz[band]), float(chosen[band, time]))


@shows_progress
def attribute(
    tagger: Tagger,
    waveform: Waveform,
    sample_rate: int,
    labels: Sequence[str],
    *,
    patch_seconds: float = PATCH_SECONDS,
    n_band_patches: int = N_BAND_PATCHES,
    n_passes: int = N_PASSES,
    seed: int = 0,
    progress: Progress = silent,
) -> Attribution:
    """Attribution maps of labels for a sound that the model receives as a whole.

    Parameters
    ----------
    tagger : Tagger
        A model of sounds, single or ensemble.
    waveform : float32 array of shape (n_samples,)
    sample_rate : int
        Hz.
    labels : sequence of str
        Labels of the model. All maps come from the same passes, so more labels take no more time.
    patch_seconds : float
        Duration of the parts that are replaced together. A clip has at most 20, so those of a long clip are longer.
    n_band_patches : int
        Patches over the frequency range.
    n_passes : int
        Random masks, at least 2. The model runs `n_passes` + 2 times, however long the sound is.
    seed : int
        Seed of the random masks.
    progress
        Called with the number of finished passes.

    Raises
    ------
    DataError
        If the model does not know a label, or takes only images, whose seconds and Hz are not known.
    BundleError
        If a network can't be opened.
    ValueError
        If the waveform is not valid, or a number of patches or passes is too small.

    Notes
    -----
    Each mask replaces three quarters of the patches, with soft edges, on a grid that is shifted at random. The
    background of a band is its 10 % quantile over time, or the 10 % quantile of the whole log_mel if that is lower, so
    that even a constant sound has a background. The lost logits are regressed on the masks, place by place. An image
    keeps the value range of the whole clip, whatever is replaced.

    References
    ----------
    Petsiuk, Das and Saenko, "RISE: Randomized input sampling for explanation of black-box models", BMVC 2018: random
    masks. Zeiler and Fergus, "Visualizing and understanding convolutional networks", ECCV 2014: occlusion.
    """
    label_indices = [tagger.labels.index(label, where=str(tagger.folder)) for label in labels]
    if patch_seconds <= 0 or n_band_patches < 1 or n_passes < 2:
        raise ValueError(
            "need patch_seconds above 0, n_band_patches of 1 or more and n_passes of 2 or more, got "
            f"{patch_seconds:g}, {n_band_patches} and {n_passes}"
        )
    check_explainable(tagger)
    views = [_View.of(front_end, waveform, sample_rate) for front_end in tagger.front_ends]
    duration_seconds = len(waveform) / sample_rate
    n_patches = n_band_patches, int(np.clip(round(duration_seconds / patch_seconds), 1, MAX_TIME_PATCHES))
    mel = views[0].mel
    lowest = min(float(hz_to_mel(view.mel.f_min, mel)) for view in views)
    highest = max(float(hz_to_mel(view.mel.f_max, mel)) for view in views)
    view_positions = [view.positions(mel, lowest, highest, duration_seconds) for view in views]
    map_positions = _cell_middles(n_patches[0] * _CELLS_PER_PATCH), _cell_middles(n_patches[1] * _CELLS_PER_PATCH)

    def logits(masks: Sequence[Float32Array | float]) -> Float32Array:
        inputs = {view.front_end: view.masked(mask) for view, mask in zip(views, masks, strict=True)}
        return tagger.logits_of_inputs(inputs)[label_indices]

    whole, background = logits([0.0] * len(views)), logits([1.0] * len(views))
    rng = np.random.default_rng(seed)
    masks, lost_logits = [], []
    for n_done in range(n_passes):
        progress("explaining", n_done, n_passes)
        mask = _draw_mask(rng, n_patches)
        masks.append(mask.at(*map_positions))
        lost_logits.append(whole - logits([mask.at(*positions) for positions in view_positions]))
    progress("explaining", n_passes, n_passes)
    mean_lost = (whole - background).astype(np.float64) / (n_patches[0] * n_patches[1])
    maps = _regress(np.stack(masks), np.stack(lost_logits), mean_lost)
    n_bands, n_times = maps.shape[1:]
    return Attribution(
        tuple(labels),
        np.linspace(0, duration_seconds, n_times + 1),
        np.asarray(mel_to_hz(np.linspace(lowest, highest, n_bands + 1), mel), np.float64),
        maps,
    )


def check_explainable(tagger: Tagger) -> None:
    """Raise a DataError if a network of a model takes the waveform, so that no part of a log_mel can be replaced."""
    if not all(front_end.takes_log_mel or front_end.mel is None for front_end in tagger.front_ends):
        raise DataError(
            f"{tagger.folder.name}: this model takes the waveform itself, so no part of a spectrogram can be replaced "
            "to explain its predictions; models of log-mel spectrograms can be explained"
        )


@dataclass(frozen=True, eq=False)
class _View:
    """A clip as one network of the model receives it, and its background."""

    front_end: FrontEnd
    mel: MelConfig
    fixed_range: FrontEnd  # the same, with the value range of images fixed to that of the whole clip
    log_mel: Float32Array
    background: Float32Array  # (n_mels, 1)

    @classmethod
    def of(cls, front_end: FrontEnd, waveform: Waveform, sample_rate: int) -> "_View":
        rate = front_end.sample_rate  # raises an error if the model takes only images
        assert front_end.mel is not None
        log_mel = compute_log_mel(front_end.padded(resample(waveform, sample_rate, rate)), front_end.mel)
        return cls(front_end, front_end.mel, _with_range_of(log_mel, front_end), log_mel, _background(log_mel))

    def positions(
        self, mel: MelConfig, lowest: float, highest: float, duration_seconds: float
    ) -> tuple[FloatArray, FloatArray]:
        """Positions of the bands (n_mels,) and frames (n_frames,) on the axes of the map, from 0 to 1."""
        bands = (hz_to_mel(band_centers(self.mel), mel) - lowest) / (highest - lowest)
        frames = np.arange(self.log_mel.shape[1]) * self.mel.hop_length / self.mel.sample_rate / duration_seconds
        return np.clip(bands, 0, 1), np.clip(frames, 0, 1)

    def masked(self, mask: Float32Array | float) -> Float32Array:
        """The network's input, replaced by the background in proportion to the mask."""
        return self.fixed_range.input_of_log_mel(self.log_mel + mask * (self.background - self.log_mel))


def _background(log_mel: Float32Array) -> Float32Array:
    """The 10 % quantile (n_mels, 1) of each band over time, limited to that of the whole log_mel.

    Without the limit, a band with a constant sound would not change when it is replaced.
    """
    band_quantiles = np.quantile(log_mel, _BACKGROUND_QUANTILE, axis=1, keepdims=True)
    background: Float32Array = np.minimum(band_quantiles, np.quantile(log_mel, _BACKGROUND_QUANTILE)).astype(np.float32)
    return background


def _with_range_of(log_mel: Float32Array, front_end: FrontEnd) -> FrontEnd:
    """The front end with a fixed value range, so that replacing the loudest part does not brighten the rest."""
    if front_end.image is None:
        return front_end
    _, (low, high) = log_mel_to_image(log_mel, front_end.image)
    return front_end.model_copy(update={"image": front_end.image.model_copy(update={"low": low, "high": high})})


@dataclass(frozen=True, eq=False)
class _Mask:
    """A random grid: knots that are replaced are 1, others 0, and in between the mask is interpolated."""

    knots: Float32Array  # (n_band_patches + 2, n_time_patches + 2)
    shifts: tuple[float, float]  # of the grid, in patches, below 1

    def at(self, bands: FloatArray, times: FloatArray) -> Float32Array:
        """Values (n_bands, n_times) from 0 to 1 at positions from 0 to 1."""
        band_weights = _knot_weights(bands, self.knots.shape[0], self.shifts[0])
        time_weights = _knot_weights(times, self.knots.shape[1], self.shifts[1])
        return np.asarray(band_weights @ self.knots @ time_weights.T, np.float32)


def _knot_weights(positions: FloatArray, n_knots: int, shift: float) -> Float32Array:
    """Weights of linear interpolation, of shape (n_positions, n_knots): 1 at the knot, 0 at the neighbouring ones."""
    distances = np.abs(positions[:, None] * (n_knots - 2) + shift - np.arange(n_knots))
    return np.asarray(np.maximum(1 - distances, 0), np.float32)


def _draw_mask(rng: np.random.Generator, n_patches: tuple[int, int]) -> _Mask:
    """A mask that replaces a fixed number of knots, so that the total amount replaced adds no noise to the maps."""
    shape = n_patches[0] + 2, n_patches[1] + 2
    n_knots = shape[0] * shape[1]
    is_replaced = rng.permutation(n_knots) < round(_FRACTION_REPLACED * n_knots)
    return _Mask(is_replaced.reshape(shape).astype(np.float32), (float(rng.random()), float(rng.random())))


def _cell_middles(n_cells: int) -> FloatArray:
    return (np.arange(n_cells) + 0.5) / n_cells


def _regress(masks: Float32Array, lost_logits: Float32Array, mean_lost: FloatArray) -> Float32Array:
    """Maps (n_labels, n_bands, n_times) from masks (n_passes, n_bands, n_times) and losses (n_passes, n_labels).

    A map holds the slopes of the loss over the mask, in units of a patch. Its mean is set so that the map adds up to
    the loss of the whole sound.
    """
    masks, lost_logits = masks - masks.mean(axis=0), lost_logits - lost_logits.mean(axis=0)
    variation = np.maximum((masks**2).sum(axis=0), np.finfo(np.float32).tiny)
    slopes: FloatArray = np.tensordot(lost_logits, masks, axes=(0, 0)) / variation / _OVERLAP
    maps = slopes - slopes.mean(axis=(1, 2), keepdims=True) + mean_lost[:, None, None]
    return np.asarray(maps, np.float32)
