"""The augmentation page: a few clips before and after each change alone and all together, as pictures and sounds.

Changes that can be applied to the waveform as well (mix, background, gain, roll) can be played. The others exist only
in the spectrogram.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from spectag.array_types import Float32Array, Pixels, Waveform
from spectag.audio.embedded_media import flac_uri, jpeg_uri
from spectag.audio.files import find_audio, resample
from spectag.audio.front_end import FrontEnd
from spectag.audio.mel import compute_log_mel
from spectag.audio.spectrogram_drawing import in_decibels, spectrogram_pixels
from spectag.config.backbones import resolve_mel
from spectag.config.base import Channel, ImageConfig, MelConfig
from spectag.config.training import AugmentConfig
from spectag.data.clips import Clip, Manifest
from spectag.data.manifest import ManifestInput, as_manifest
from spectag.errors import ConfigError, DataError
from spectag.reporting.clip_view import SpectrogramFigure, loudest_excerpt, spectrogram_figure
from spectag.reporting.html_pages import check_page_path, render_page, write_page
from spectag.system.file_errors import skip_reason
from spectag.system.progress import Progress, shows_progress, silent
from spectag.training.inputs.augmenter import BACKGROUND_SPREAD_DB, Augmenter, Draw, augment_arrays, draw

_MAX_SECONDS = 4.0  # of a clip, as in training by default
_MAX_BACKGROUND_SECONDS = 60.0  # searched for the loudest excerpt
_PEAK = 0.9  # of the loudest sound of a clip
_IMAGE_SIDE = 224  # pixels of images whose size is not given
_IMAGE_TRANSFORMS = {
    "random_crop": ("RandomCrop", "Moves the image over its edges by up to an eighth."),
    "rand_augment": ("RandAugment", "Two of torchvision's image transforms, of medium strength."),
    "trivial_augment_wide": ("TrivialAugmentWide", "One of torchvision's image transforms, of any strength."),
}
_SWITCHED_OFF = {
    "mix": 0.0,
    "mixup": 0.0,
    "gain_db": 0.0,
    "roll": 0.0,
    "spec_augment": 0.0,
    "warp": 0.0,
    "resized_crop": 0.0,
    "background": None,
    "image": "none",
}


@dataclass(frozen=True)
class AugmentationPage:
    """The page, and the clips that could not be read, each with the reason."""

    path: Path
    skipped: tuple[tuple[Clip, str], ...]


@dataclass(frozen=True)
class _Change:
    """A kind of change, and the settings that apply it alone to every clip."""

    title: str
    description: str
    config: AugmentConfig
    option: str = ""


@dataclass(frozen=True)
class _Sample:
    """A clip or a background as the network receives it, and its sound; None for an image."""

    name: str
    input: Float32Array  # (channels, height, width)
    waveform: Waveform | None


@dataclass(frozen=True)
class _AugmentedSample:
    """A clip before or after a change."""

    title: str
    labels: str
    notes: str
    input: Float32Array
    waveform: Waveform | None  # None if the change can't be applied to the waveform


@dataclass(frozen=True)
class _Cell:
    """What a cell of the page's table shows."""

    title: str
    labels: str
    notes: str
    figure: SpectrogramFigure | None
    image: str
    sound: str


@dataclass(frozen=True)
class _Samples:
    """The clips of the page, and what is needed to change them."""

    config: AugmentConfig
    front_end: FrontEnd
    manifest: Manifest
    clips: list[_Sample]
    backgrounds: list[_Sample] | None
    seed: int


@shows_progress
def augment(
    manifest: ManifestInput,
    output: str | Path,
    config: AugmentConfig | None = None,
    *,
    backbone: str = "mn04_audioset",
    mel: MelConfig | None = None,
    image: ImageConfig | None = None,
    channel: Channel = "mix",
    n_clips: int = 4,
    seed: int = 0,
    audio_dir: str | Path | None = None,
    progress: Progress = silent,
) -> AugmentationPage:
    """Show what augmentation does to some clips of a manifest, as pictures and as sounds.

    Parameters
    ----------
    manifest : path, DataFrame or Manifest
        Sounds, or images of spectrograms, and their labels.
    output : path
        The page, .html. It is written completely or not at all.
    config : AugmentConfig, optional
        Settings of the changes. Each change is also shown alone on every clip, even if it is switched off.
    backbone, mel, image
        Feature extraction, as in training. No weights are needed.
    channel : "mix", "loudest" or int
        How several channels of a sound become one, as in training.
    n_clips : int
        Number of clips, with as many different labels as possible.
    seed : int
        Seed of the choice of clips and of the changes.
    audio_dir
        As in `read_manifest`.
    progress : Progress
        Called with the number of clips drawn.

    Raises
    ------
    SpectagError
        If the manifest can't be read, settings are not valid, or the page can't be written. Unreadable clips are
        skipped and named in the result.
    """
    output = Path(output)
    check_page_path(output)
    if n_clips < 1:
        raise ConfigError(f"n_clips: expected 1 or more clips to show, got {n_clips}")
    config = config or AugmentConfig()
    source = as_manifest(manifest, audio_dir=audio_dir)
    front_end = _front_end(source, backbone, mel, image)
    Augmenter(config, front_end)  # raises an error early if settings do not fit
    n_read = max(n_clips, 2)  # a mix needs a second clip
    samples, skipped = _read_samples(source, config, front_end, channel, n_read, seed)
    write_page(output, _page(samples, min(n_clips, len(samples.clips)), progress))
    return AugmentationPage(output, skipped)


def _front_end(manifest: Manifest, backbone: str, mel: MelConfig | None, image: ImageConfig | None) -> FrontEnd:
    if not manifest.holds_images:
        return FrontEnd(mel=resolve_mel(backbone, mel), image=image)
    size = {"height": _IMAGE_SIDE, "width": _IMAGE_SIDE}
    settings = {} if image is None else image.model_dump(exclude_none=True)
    return FrontEnd(mel=mel and resolve_mel(backbone, mel), image=ImageConfig.model_validate(size | settings))


def _read_samples(
    manifest: Manifest, config: AugmentConfig, front_end: FrontEnd, channel: Channel, n_clips: int, seed: int
) -> tuple[_Samples, tuple[tuple[Clip, str], ...]]:
    """The first readable clips in random order, and those that could not be read."""
    if manifest.holds_images and config.background is not None:
        raise ConfigError(f"{manifest.source}: contains images, but augment.background adds sounds; leave it out")
    rng = np.random.default_rng(seed)
    waveforms: list[tuple[str, Waveform]] = []
    images: list[_Sample] = []
    clips, skipped = [], []
    for clip in _varied_order(manifest, rng):
        try:
            if manifest.holds_images:
                images.append(_Sample(clip.name, front_end.input_of_image(clip.path), None))
            else:
                waveforms.append((clip.name, _loudest_waveform(clip, front_end.sample_rate, channel)))
            clips.append(clip)
        except Exception as error:
            skipped.append((clip, skip_reason(clip.path, error)))
        if len(clips) == n_clips:
            break
    if not clips:
        raise DataError(f"{manifest.source}: none of the clips can be read: {skipped[0][1]}")
    chosen = replace(manifest, clips=tuple(clips))
    if manifest.holds_images:
        return _Samples(config, front_end, chosen, images, None, seed), tuple(skipped)
    n_samples = max(len(waveform) for _, waveform in waveforms)
    samples = [_sample(name, waveform, n_samples, front_end) for name, waveform in waveforms]
    backgrounds = None
    if config.background is not None:
        files = find_audio([config.background])
        backgrounds = [
            _read_background(files[index], n_samples, front_end)
            for index in rng.integers(len(files), size=len(samples))
        ]
    return _Samples(config, front_end, chosen, samples, backgrounds, seed), tuple(skipped)


def _varied_order(manifest: Manifest, rng: np.random.Generator) -> list[Clip]:
    """All clips in random order, those first that have new labels."""
    first: list[Clip] = []
    later: list[Clip] = []
    seen: set[str] = set()
    for index in rng.permutation(len(manifest.clips)):
        clip = manifest.clips[index]
        (first if clip.labels and seen.isdisjoint(clip.labels) else later).append(clip)
        seen.update(clip.labels)
    return first + later


def _loudest_waveform(clip: Clip, sample_rate: int, channel: Channel = "mix") -> Waveform:
    excerpt = loudest_excerpt(clip, _MAX_SECONDS, channel)
    return resample(excerpt.waveform, excerpt.sample_rate, sample_rate)


def _read_background(path: Path, n_samples: int, front_end: FrontEnd) -> _Sample:
    clip = Clip(path, path.name, (), end_seconds=_MAX_BACKGROUND_SECONDS)
    return _sample(path.name, _loudest_waveform(clip, front_end.sample_rate), n_samples, front_end)


def _sample(name: str, waveform: Waveform, n_samples: int, front_end: FrontEnd) -> _Sample:
    """A sound of this length; a shorter one is repeated."""
    repeated = np.resize(waveform, n_samples)
    return _Sample(name, front_end.input_of_waveform(repeated), repeated)


def _changes(config: AugmentConfig, front_end: FrontEnd) -> Iterator[_Change]:
    """Each change that is possible, alone and on every clip, then all as configured."""
    switched_off = config.model_copy(update=_SWITCHED_OFF)

    def alone(title: str, description: str, option: str, **settings: object) -> _Change:
        text = f"--augment.{option.replace('_', '-')} {getattr(config, option)}"
        return _Change(title, description, switched_off.model_copy(update=settings), text)

    if front_end.image is None:
        mix = f"Adds another clip, up to {config.mix_db:g} dB louder or softer"
    else:
        mix = "Takes the brighter pixel of two clips"
    yield alone("Mix", f"{mix}. The result has the labels of both.", "mix", mix=1.0)
    yield alone(
        "Mixup",
        "Averages two clips and their labels with the same random weight, drawn from a beta distribution with alpha "
        f"{config.mixup_alpha:g}.",
        "mixup",
        mixup=1.0,
    )
    if config.background is not None:
        low, high = config.background_db, config.background_db + BACKGROUND_SPREAD_DB
        yield alone(
            "Background",
            f"Adds a sound of the background folder, {low:g} to {high:g} dB below the clip.",
            "background_fraction",
            background=config.background,
            background_fraction=1.0,
        )
    if not _is_relative(front_end):
        gain_db = config.gain_db or AugmentConfig().gain_db
        yield alone("Gain", f"Changes the level by up to {gain_db:g} dB.", "gain_db", gain_db=gain_db)
    yield alone("Roll", "Moves the clip in time; what leaves at the end comes in at the start.", "roll", roll=1.0)
    yield alone("Masks", "Silences intervals of time and ranges of bands.", "spec_augment", spec_augment=1.0)
    yield alone("Warp", f"Expands or compresses the frequency axis by up to {config.warp_range:.0%}.", "warp", warp=1.0)
    yield alone(
        "Resized crop",
        f"Enlarges a part with at least {config.resized_crop_scale:.0%} of the time and of the bands.",
        "resized_crop",
        resized_crop=1.0,
    )
    if front_end.image is not None:
        for kind, (title, description) in _IMAGE_TRANSFORMS.items():
            yield alone(title, description, "image", image=kind)
    yield _Change("All as configured", "What training uses: each change on its fraction of the clips.", config)


def _is_relative(front_end: FrontEnd) -> bool:
    """Whether the input does not depend on the level of the sound."""
    return front_end.image is not None or front_end.mel is None or front_end.mel.ref == "max"


def _before(samples: _Samples) -> list[_AugmentedSample]:
    targets = samples.manifest.multi_hot().astype(np.float32)
    return [
        _AugmentedSample(
            f"{clip.name} before", _labels_text(target, samples.manifest), clip.name, clip.input, clip.waveform
        )
        for clip, target in zip(samples.clips, targets, strict=True)
    ]


def _after(samples: _Samples, change: _Change, number: int) -> list[_AugmentedSample]:
    """All clips after a change. The clip that is mixed into each is the next one."""
    n_clips = len(samples.clips)
    draws = [draw(change.config, np.random.default_rng([samples.seed, number, index])) for index in range(n_clips)]
    inputs = np.stack([clip.input for clip in samples.clips]).astype(np.float32)
    backgrounds = None if samples.backgrounds is None else np.stack([sound.input for sound in samples.backgrounds])
    targets = samples.manifest.multi_hot().astype(np.float32)
    following = np.roll(np.arange(n_clips), -1)
    augmenter = Augmenter(change.config, samples.front_end)
    changed, changed_targets = augment_arrays(
        augmenter, inputs, inputs[following], backgrounds, targets, targets[following], draws
    )
    return [
        _AugmentedSample(
            f"{samples.clips[index].name} after: {change.title}",
            _labels_text(changed_targets[index], samples.manifest),
            "; ".join(_notes(draws[index], samples, index)),
            changed[index],
            _changed_waveform(draws[index], samples, index),
        )
        for index in range(n_clips)
    ]


def _changed_waveform(draw: Draw, samples: _Samples, index: int) -> Waveform | None:
    """The sound of a clip after a change; None if the change exists only in the spectrogram."""
    front_end, waveform = samples.front_end, samples.clips[index].waveform
    is_added = draw.mix_db is not None or draw.background_db is not None
    is_spectral = draw != Draw(
        mix_db=draw.mix_db, background_db=draw.background_db, gain_db=draw.gain_db, roll=draw.roll
    )
    if waveform is None or front_end.mel is None or is_spectral or (is_added and front_end.image is not None):
        return None
    if draw.mix_db is not None:
        other = samples.clips[(index + 1) % len(samples.clips)].waveform
        waveform = _added(waveform, other, draw.mix_db, front_end.mel)
    if draw.background_db is not None and samples.backgrounds is not None:
        waveform = _added(waveform, samples.backgrounds[index].waveform, -draw.background_db, front_end.mel)
    if not _is_relative(front_end):
        waveform = waveform * np.float32(10 ** (draw.gain_db / 20))
    return np.roll(waveform, round(draw.roll * len(waveform)))


def _added(waveform: Waveform, added: Waveform | None, level_db: float, mel: MelConfig) -> Waveform:
    """The sum of two sounds, with the mel power of the second this many dB above that of the first."""
    assert added is not None
    present, new = (_mean_mel_power(sound, mel) for sound in (waveform, added))
    power_ratio = 10 ** (level_db / 10) * present / new if present and new else 1.0
    return waveform + added * np.float32(np.sqrt(power_ratio))


def _mean_mel_power(waveform: Waveform, mel: MelConfig) -> float:
    """Mean over bands and frames; 0 for silence, whose level is not defined."""
    if not waveform.any():
        return 0.0
    plain = {"log": "db", "ref": 1.0, "top_db": None, "mean": 0.0, "std": 1.0}
    return float(np.mean(10 ** (compute_log_mel(waveform, mel.model_copy(update=plain)) / 10)))


def _labels_text(targets: Float32Array, manifest: Manifest) -> str:
    """The labels, with their weights if these are not 1."""
    texts = [
        name if target > 0.995 else f"{name} {target:.0%}"
        for name, target in zip(manifest.labels.names, targets, strict=True)
        if target > 0.005
    ]
    return ", ".join(texts) or "(no label)"


def _notes(draw: Draw, samples: _Samples, index: int) -> Iterator[str]:
    """The random settings that were drawn for a clip."""
    other = samples.clips[(index + 1) % len(samples.clips)].name
    if draw.mix_db is not None:
        level = f", {abs(draw.mix_db):.1f} dB {'louder' if draw.mix_db > 0 else 'softer'}"
        yield f"with {other}{'' if samples.front_end.image else level}"
    if draw.mixup_fraction is not None:
        yield f"{draw.mixup_fraction:.0%} of {other}"
    if draw.background_db is not None and samples.backgrounds is not None:
        yield f"{samples.backgrounds[index].name}, {draw.background_db:.0f} dB below"
    if draw.gain_db and not _is_relative(samples.front_end):
        yield f"{draw.gain_db:+.1f} dB"
    if draw.warp != 1:
        yield f"{abs(draw.warp - 1):.1%} {'wider' if draw.warp > 1 else 'narrower'}"
    if draw.time_crop != (0.0, 1.0):
        time, bands = (end - start for start, end in (draw.time_crop, draw.band_crop))
        yield f"{time:.0%} of the time, {bands:.0%} of the bands"
    if draw.roll:
        yield f"{draw.roll:.0%} later"
    if draw.time_masks:
        yield f"{len(draw.time_masks)} intervals of time, {len(draw.band_masks)} ranges of bands"


def _page(samples: _Samples, n_shown: int, progress: Progress) -> str:
    changes = list(_changes(samples.config, samples.front_end))
    rows = [_before(samples), *(_after(samples, change, number) for number, change in enumerate(changes))]
    columns = []
    for index in range(n_shown):
        progress("clips drawn", index, n_shown)
        columns.append(_column(samples.front_end, [row[index] for row in rows]))
    progress("clips drawn", n_shown, n_shown)
    before, *after = zip(*columns, strict=True)
    return render_page(
        "augmentation.html",
        ("player.js",),
        title=f"Augmentation of {samples.manifest.source.name}",
        before=before,
        rows=list(zip(changes, after, strict=True)),
        has_sounds=not samples.manifest.holds_images,
        has_common_colors=samples.front_end.image is None,
        is_relative=_is_relative(samples.front_end),
    )


def _column(front_end: FrontEnd, augmented: Sequence[_AugmentedSample]) -> list[_Cell]:
    """A clip before and after all changes. Its pictures have one colour scale, its sounds one volume."""
    pictures = _pictures(front_end, [sample.input for sample in augmented])
    waveforms = [sample.waveform for sample in augmented if sample.waveform is not None]
    peak = max((float(np.abs(waveform).max()) for waveform in waveforms), default=0.0)
    gain = np.float32(_PEAK / peak if peak else 1.0)
    cells = []
    for sample, pixels in zip(augmented, pictures, strict=True):
        figure, image, sound = None, "", ""
        if augmented[0].waveform is None or front_end.mel is None:
            image = jpeg_uri(pixels)
        else:
            seconds = len(augmented[0].waveform) / front_end.sample_rate
            n_frames = 1 + len(augmented[0].waveform) // front_end.mel.hop_length
            figure = spectrogram_figure(pixels, front_end.mel, n_frames, sample.title, seconds)
        if sample.waveform is not None:
            sound = flac_uri(sample.waveform * gain, front_end.sample_rate)
        cells.append(_Cell(sample.title, sample.labels, sample.notes, figure, image, sound))
    return cells


def _pictures(front_end: FrontEnd, inputs: Sequence[Float32Array]) -> list[Pixels]:
    """Inputs of a clip as pictures, log_mels with one colour scale."""
    if front_end.image is not None or front_end.mel is None:
        pixels = [np.rint(255 * image).clip(0, 255).astype(np.uint8) for image in inputs]
        return [image[0] if len(image) == 1 else image.transpose(1, 2, 0) for image in pixels]
    decibels = [in_decibels(log_mel[0], front_end.mel)[0] for log_mel in inputs]
    high = max(float(log_mel.max()) for log_mel in decibels)
    return [spectrogram_pixels(log_mel, high=high) for log_mel in decibels]
