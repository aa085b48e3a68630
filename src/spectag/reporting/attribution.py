"""Where in time and frequency a tagger looked for a label: what it no longer hears when parts of the sound are gone.

Only onnxruntime is asked, and nothing is known of the network: any architecture will do, and several networks that
answer as one. Places are replaced by the clip's own background, at random and many at a time, and the map tells how
much of the label's logit is lost with each place.
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
from spectag.models.tagger import Tagger
from spectag.system.progress import Progress, silent

N_PASSES = 192
"""Random masks, each of which the network hears once; two more passes hear the clip as it is, and nothing of it."""
PATCH_SECONDS = 0.5
"""What is replaced at once is about as long as this, and longer where a clip would have more than MOST_PATCHES."""
MOST_PATCHES = 20
N_BAND_PATCHES = 6
"""Patches over the whole range of frequencies, evenly spaced in mel."""

_SHARE_REPLACED = 0.75
_BACKGROUND_QUANTILE = 0.1
_CELLS_A_PATCH = 4  # of the map, in either direction
_OVERLAP = 1.5**2  # patches that are replaced with a place, when it is, more than without it


@dataclass(frozen=True)
class Peak:
    """Where the map of a label is highest."""

    seconds: float
    hertz: float
    logit_lost: float


@dataclass(frozen=True, eq=False)
class Activation:
    """Where a tagger looked, label by label.

    A map tells how much of the label's logit is lost when a patch around a place is replaced by the background, on
    average over what else is replaced; above 0, the place speaks for the label, and below 0, against it. The maps of
    all labels have one unit. The mean of a map, times the number of patches, is the logit that is lost with all of
    the sound.
    """

    labels: tuple[str, ...]
    time_edges: FloatArray
    """Seconds, of shape (n_times + 1,)."""
    band_edges: FloatArray
    """Hz, of shape (n_bands + 1,), evenly spaced on the mel scale of the tagger's (first) front end."""
    maps: Float32Array
    """Of shape (n_labels, n_bands, n_times), the lowest band first."""

    def map_of(self, label: str) -> Float32Array:
        """The map (n_bands, n_times) of a label; a ValueError where there is none."""
        if label not in self.labels:
            raise ValueError(f"there is no map of {label!r}, only of {', '.join(map(repr, self.labels))}")
        chosen: Float32Array = self.maps[self.labels.index(label)]
        return chosen

    def peak(self, label: str) -> Peak:
        """Where the map of a label is highest: the middle of that cell."""
        chosen = self.map_of(label)
        band, time = np.unravel_index(int(chosen.argmax()), chosen.shape)
        seconds, hertz = ((edges[1:] + edges[:-1]) / 2 for edges in (self.time_edges, self.band_edges))
        return Peak(float(seconds[time]), float(hertz[band]), float(chosen[band, time]))


def activation(
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
) -> Activation:
    """Where a tagger looked for labels in a sound that it hears as a whole.

    Parameters
    ----------
    tagger : Tagger
        One that hears sounds, of one network or several.
    waveform : float32 array of shape (n_samples,)
    sample_rate : int
        Hz.
    labels : sequence of str
        Of the tagger. All maps come from the same passes, so more labels cost nothing.
    patch_seconds : float
        Length of what is replaced at once; a clip has at most 20 such patches, so those of a long one are longer.
    n_band_patches : int
        Patches over the range of frequencies.
    n_passes : int
        Random masks, at least 2. The network hears `n_passes` + 2 inputs, however long the sound.
    seed : int
        The masks are random, but the same for the same seed.
    progress
        Told how many passes are done.

    Raises
    ------
    DataError
        If a label is none of the tagger's, or the tagger hears images of unknown making, in which neither seconds nor
        Hz are known.
    BundleError
        If a network can't be opened.
    ValueError
        If the waveform is none, or a number of patches or passes is too small.

    Notes
    -----
    Each mask replaces three quarters of the patches, softly, on a grid that is shifted at random. The background of a
    band is the level that it exceeds nine tenths of the time, or, where that is lower, the level that nine tenths of
    the log_mel exceed; a sound that never changes has a background, too. The lost logits are regressed on the masks,
    place by place. An image keeps the range of the whole clip, whatever is replaced.

    References
    ----------
    Petsiuk, Das and Saenko, "RISE: Randomized input sampling for explanation of black-box models", BMVC 2018: random
    masks. Zeiler and Fergus, "Visualizing and understanding convolutional networks", ECCV 2014: occlusion.
    """
    positions = [tagger.labels.index(label, where=str(tagger.folder)) for label in labels]
    if patch_seconds <= 0 or n_band_patches < 1 or n_passes < 2:
        raise ValueError(
            "need patch_seconds above 0, n_band_patches of 1 or more and n_passes of 2 or more, got "
            f"{patch_seconds:g}, {n_band_patches} and {n_passes}"
        )
    views = [_View.of(front_end, waveform, sample_rate) for front_end in tagger.front_ends]
    duration_seconds = len(waveform) / sample_rate
    n_patches = n_band_patches, int(np.clip(round(duration_seconds / patch_seconds), 1, MOST_PATCHES))
    scale = views[0].mel
    lowest = min(float(hz_to_mel(view.mel.f_min, scale)) for view in views)
    highest = max(float(hz_to_mel(view.mel.f_max, scale)) for view in views)
    places = [view.places(scale, lowest, highest, duration_seconds) for view in views]
    cells = _middles(n_patches[0] * _CELLS_A_PATCH), _middles(n_patches[1] * _CELLS_A_PATCH)

    def logits(masks: Sequence[Float32Array | float]) -> Float32Array:
        inputs = {view.front_end: view.without(mask) for view, mask in zip(views, masks, strict=True)}
        return tagger.logits_of_inputs(inputs)[positions]

    whole, nothing = logits([0.0] * len(views)), logits([1.0] * len(views))
    rng = np.random.default_rng(seed)
    seen, lost = [], []
    for n_done in range(n_passes):
        progress("looking", n_done, n_passes)
        mask = _draw_mask(rng, n_patches)
        seen.append(mask.at(*cells))
        lost.append(whole - logits([mask.at(*place) for place in places]))
    progress("looking", n_passes, n_passes)
    mean_lost = (whole - nothing).astype(np.float64) / (n_patches[0] * n_patches[1])
    maps = _lost_with_each_place(np.stack(seen), np.stack(lost), mean_lost)
    n_bands, n_times = maps.shape[1:]
    return Activation(
        tuple(labels),
        np.linspace(0, duration_seconds, n_times + 1),
        np.asarray(mel_to_hz(np.linspace(lowest, highest, n_bands + 1), scale), np.float64),
        maps,
    )


@dataclass(frozen=True, eq=False)
class _View:
    """A clip as a front end sees it, and what it looks like where nothing is heard."""

    front_end: FrontEnd
    mel: MelConfig
    drawing: FrontEnd  # the same, with the range of images fixed to that of the whole clip
    log_mel: Float32Array
    background: Float32Array  # (n_mels, 1)

    @classmethod
    def of(cls, front_end: FrontEnd, waveform: Waveform, sample_rate: int) -> "_View":
        rate = front_end.sample_rate  # an error of a tagger that hears images alone
        assert front_end.mel is not None
        log_mel = compute_log_mel(resample(waveform, sample_rate, rate), front_end.mel)
        return cls(front_end, front_end.mel, _with_range_of(log_mel, front_end), log_mel, _background(log_mel))

    def places(
        self, scale: MelConfig, lowest: float, highest: float, duration_seconds: float
    ) -> tuple[FloatArray, FloatArray]:
        """Bands (n_mels,) and frames (n_frames,) as places from 0 to 1 in the map."""
        bands = (hz_to_mel(band_centers(self.mel), scale) - lowest) / (highest - lowest)
        frames = np.arange(self.log_mel.shape[1]) * self.mel.hop_length / self.mel.sample_rate / duration_seconds
        return np.clip(bands, 0, 1), np.clip(frames, 0, 1)

    def without(self, mask: Float32Array | float) -> Float32Array:
        """The network's input, replaced by the background as far as the mask says."""
        return self.drawing.input_of_log_mel(self.log_mel + mask * (self.background - self.log_mel))


def _background(log_mel: Float32Array) -> Float32Array:
    """The level (n_mels, 1) that each band exceeds nine tenths of the time.

    A band that sounds without a pause would stay as it is; no band's level is above what nine tenths of the log_mel
    exceed.
    """
    of_bands = np.quantile(log_mel, _BACKGROUND_QUANTILE, axis=1, keepdims=True)
    background: Float32Array = np.minimum(of_bands, np.quantile(log_mel, _BACKGROUND_QUANTILE)).astype(np.float32)
    return background


def _with_range_of(log_mel: Float32Array, front_end: FrontEnd) -> FrontEnd:
    """So that no place gets brighter because another one, that set the range, is gone."""
    if front_end.image is None:
        return front_end
    _, (low, high) = log_mel_to_image(log_mel, front_end.image)
    return front_end.model_copy(update={"image": front_end.image.model_copy(update={"low": low, "high": high})})


@dataclass(frozen=True, eq=False)
class _Mask:
    """Which knots of a grid are replaced, 1 or 0, and where the grid begins; in between it is interpolated."""

    knots: Float32Array  # (n_band_patches + 2, n_time_patches + 2)
    shifts: tuple[float, float]  # in patches, below 1

    def at(self, bands: FloatArray, times: FloatArray) -> Float32Array:
        """Values (n_bands, n_times) from 0 to 1 at places from 0 to 1."""
        over_bands = _hats(bands, self.knots.shape[0], self.shifts[0])
        over_times = _hats(times, self.knots.shape[1], self.shifts[1])
        return np.asarray(over_bands @ self.knots @ over_times.T, np.float32)


def _hats(places: FloatArray, n_knots: int, shift: float) -> Float32Array:
    """Weight of each knot at each place, of shape (n_places, n_knots): 1 at the knot, 0 at the next ones."""
    distances = np.abs(places[:, None] * (n_knots - 2) + shift - np.arange(n_knots))
    return np.asarray(np.maximum(1 - distances, 0), np.float32)


def _draw_mask(rng: np.random.Generator, n_patches: tuple[int, int]) -> _Mask:
    """One that replaces as many knots as the others do, so that how much is replaced does not blur where."""
    shape = n_patches[0] + 2, n_patches[1] + 2
    n_knots = shape[0] * shape[1]
    is_replaced = rng.permutation(n_knots) < round(_SHARE_REPLACED * n_knots)
    return _Mask(is_replaced.reshape(shape).astype(np.float32), (float(rng.random()), float(rng.random())))


def _middles(n_cells: int) -> FloatArray:
    return (np.arange(n_cells) + 0.5) / n_cells


def _lost_with_each_place(seen: Float32Array, lost: Float32Array, mean_lost: FloatArray) -> Float32Array:
    """Maps (n_labels, n_bands, n_times) from masks (n_passes, n_bands, n_times) and lost logits (n_passes, n_labels).

    The slope of what is lost over how far a place is replaced, in units of a patch, and with the mean that a label's
    map must have to add up to all that is lost with the whole sound.
    """
    seen, lost = seen - seen.mean(axis=0), lost - lost.mean(axis=0)
    variation = np.maximum((seen**2).sum(axis=0), np.finfo(np.float32).tiny)
    slopes: FloatArray = np.tensordot(lost, seen, axes=(0, 0)) / variation / _OVERLAP
    maps = slopes - slopes.mean(axis=(1, 2), keepdims=True) + mean_lost[:, None, None]
    return np.asarray(maps, np.float32)
