"""A page that shows augmentation to eyes and ears: a few clips before and after, each change alone and all together."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from spectag.array_types import Float32Array, Pixels, Waveform
from spectag.audio.files import find_audio, resample
from spectag.audio.front_end import FrontEnd
from spectag.audio.invert import waveform_of_log_mel
from spectag.audio.mel import compute_log_mel
from spectag.audio.spectrogram_image import image_to_log_mel, log_mel_to_image
from spectag.config.backbones import front_end_of
from spectag.config.base import ImageConfig, MelConfig
from spectag.config.training import AugmentConfig
from spectag.data.clips import Clip, Manifest
from spectag.data.manifest import read_manifest
from spectag.data.spectrograms.clip_inputs import ClipInputs, open_clips
from spectag.errors import ConfigError, DataError
from spectag.reporting.augment_html import Axes, Cell, Heading, page_of_rows
from spectag.system.atomic_files import unfinished_file
from spectag.system.cache import cache_folder
from spectag.system.progress import Log, Progress, no_log, silent
from spectag.training.inputs.augmenter import BACKGROUND_SPREAD_DB, Augmenter, Draw, augment_arrays, draw

_SECONDS = 4.0  # shown of a clip: as much as training sees by default
_BACKGROUND_SECONDS = 60.0  # looked at for the loudest stretch
_HEARD_RATE = 16_000  # Hz
_SHOWN_DB = 80.0  # below the loudest
_COLORMAP = "magma"
_IMAGE_SIDE = 224  # pixels of pictures whose size nobody named
_IMAGE_KINDS = {
    "random_crop": ("RandomCrop", "The image, moved over its edges by up to an eighth."),
    "rand_augment": ("RandAugment", "Two of torchvision's changes of images, of middling strength."),
    "trivial_augment_wide": ("TrivialAugmentWide", "One of torchvision's changes of images, of any strength."),
}
_OFF = {
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
class AugmentPage:
    """The page, and the clips that could not be read, each with the reason."""

    path: Path
    skipped: tuple[tuple[Clip, str], ...]


@dataclass(frozen=True)
class _Change:
    """A kind of change, and the settings that make it alone, on every clip."""

    heading: Heading
    config: AugmentConfig


@dataclass(frozen=True)
class _Sample:
    """A sound or image as it is shown. An image of a log_mel knows the range that it was drawn in."""

    name: str
    input: Float32Array  # (channels, height, width)
    low_high: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True)
class _Shown:
    """A clip before or after a change, and what is to be read about it."""

    input: Float32Array
    alt: str
    labels: str
    notes: str


@dataclass(frozen=True)
class _Show:
    """All that the page is made of."""

    config: AugmentConfig
    front_end: FrontEnd
    manifest: Manifest
    samples: list[_Sample]
    backgrounds: list[_Sample] | None
    n_frames: int | None
    """Of the stretch that is shown; None for images, which don't tell how long they last."""
    seed: int

    @property
    def is_heard(self) -> bool:
        """Whether the inputs can be turned back to sounds."""
        return self.n_frames is not None and self.front_end.n_channels == 1


def augment(
    manifest: str | Path,
    output: str | Path,
    config: AugmentConfig | None = None,
    *,
    backbone: str = "mn04_audioset",
    mel: MelConfig | None = None,
    image: ImageConfig | None = None,
    n_clips: int = 4,
    seed: int = 0,
    cache: str | Path | None = None,
    audio_dir: str | Path | None = None,
    workers: int | None = None,
    progress: Progress = silent,
    log: Log = no_log,
) -> AugmentPage:
    """Show what augmentation does to some clips of a manifest, as pictures and as sounds.

    Parameters
    ----------
    manifest : path
        Sounds, or images of spectrograms, and their labels.
    output : path
        The page, .html; written whole or not at all.
    config : AugmentConfig, optional
        Settings of the changes. Each is also shown alone on every clip, whether it is switched on or not.
    backbone, mel, image
        They name the front end, as in training. No weights are needed.
    n_clips : int
        Clips shown, of as many labels as there are.
    seed : int
        Chooses the clips and the changes.
    bank : path, optional
        Where the clips' log_mels are kept; by default in the user's cache.
    audio_dir
        As in `read_manifest`.
    workers : int, optional
        Processes that make log_mels; by default one for each core.
    progress, say
        Told how far the work is, and what was found.

    Raises
    ------
    SpectagError
        If the manifest, the settings or the disk do not allow it. Clips that can't be read are skipped and named in
        the result.
    """
    output = Path(output)
    if output.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"{output}: the page is an HTML file; change the suffix to .html")
    if n_clips < 1:
        raise ConfigError(f"clips: expected 1 or more to show, got {n_clips}")
    config = config or AugmentConfig()
    source = read_manifest(manifest, audio_dir=audio_dir)
    front_end = _front_end(source, backbone, mel, image)
    Augmenter(config, front_end)  # refuses settings that do not fit, before the work begins
    rng = np.random.default_rng(seed)
    chosen = replace(source, clips=_various(source, max(n_clips, 2), rng))  # one clip alone has none to be mixed with
    root = Path(cache) if cache else cache_folder() / "spectrograms"
    opened_with = front_end if source.holds_images else FrontEnd(mel=front_end.mel)
    clips = open_clips(chosen, opened_with, root, workers=workers, progress=progress, log=log)
    samples, backgrounds, n_frames = _samples(clips, config, front_end, rng)
    show = _Show(config, front_end, clips.manifest, samples, backgrounds, n_frames, seed)
    text = _html(show, min(n_clips, len(samples)), progress)
    try:
        with unfinished_file(output) as unfinished:
            unfinished.write_text(text, encoding="utf-8")
    except OSError as error:
        raise DataError(f"{output}: the page can't be written: {error.strerror or error}") from error
    return AugmentPage(output, clips.skipped)


def _front_end(manifest: Manifest, backbone: str, mel: MelConfig | None, image: ImageConfig | None) -> FrontEnd:
    if not manifest.holds_images:
        return FrontEnd(mel=front_end_of(backbone, mel), image=image)
    side = {"height": _IMAGE_SIDE, "width": _IMAGE_SIDE}
    given = {} if image is None else image.model_dump(exclude_none=True)
    return FrontEnd(mel=mel and front_end_of(backbone, mel), image=ImageConfig.model_validate(side | given))


def _various(manifest: Manifest, n_clips: int, rng: np.random.Generator) -> tuple[Clip, ...]:
    """Clips by chance, those first that bring labels not shown yet."""
    first: list[Clip] = []
    later: list[Clip] = []
    seen: set[str] = set()
    for i in rng.permutation(len(manifest.clips)):
        clip = manifest.clips[i]
        (first if clip.labels and seen.isdisjoint(clip.labels) else later).append(clip)
        seen.update(clip.labels)
    return tuple((first + later)[:n_clips])


def _samples(
    clips: ClipInputs, config: AugmentConfig, front_end: FrontEnd, rng: np.random.Generator
) -> tuple[list[_Sample], list[_Sample] | None, int | None]:
    """The clips, a background for each where there is a folder, and the number of frames that all of them have."""
    names = [clip.name for clip in clips.manifest.clips]
    inputs = [clips.inputs(i) for i in range(len(names))]
    if clips.manifest.holds_images or front_end.mel is None:
        if config.background is not None:
            raise ConfigError(
                f"{clips.manifest.source}: holds images, and augment.background adds sounds; leave it out"
            )
        return [_Sample(name, image) for name, image in zip(names, inputs, strict=True)], None, None
    longest = max(log_mel.shape[-1] for log_mel in inputs)
    mel = front_end.mel
    width = min(longest, max(1, round(_SECONDS * mel.sample_rate / mel.hop_length)))
    samples = [_sample(name, log_mel[0], width, front_end) for name, log_mel in zip(names, inputs, strict=True)]
    if config.background is None:
        return samples, None, width
    files = find_audio([config.background])
    backgrounds = []
    for i in rng.integers(len(files), size=len(samples)):
        waveform = front_end.read_waveform(files[i], end_seconds=_BACKGROUND_SECONDS)
        backgrounds.append(_sample(files[i].name, compute_log_mel(waveform, mel), width, front_end))
    return samples, backgrounds, width


def _sample(name: str, log_mel: Float32Array, width: int, front_end: FrontEnd) -> _Sample:
    """The stretch of `width` frames with the greatest mean; what is shorter is repeated."""
    n_frames = log_mel.shape[1]
    sums = np.concatenate([[0.0], np.cumsum(log_mel.mean(axis=0, dtype=np.float64))])
    start = int(np.argmax(sums[width:] - sums[:-width])) if n_frames > width else 0
    stretch = np.take(log_mel, np.arange(start, start + width) % n_frames, axis=1)
    if front_end.image is None:
        return _Sample(name, stretch[None])
    return _Sample(name, front_end.input_of_log_mel(stretch), log_mel_to_image(stretch, front_end.image)[1])


def _changes(config: AugmentConfig, front_end: FrontEnd) -> list[_Change]:
    """Each change that the front end allows, alone and on every clip, then all as configured."""
    off = config.model_copy(update=_OFF)

    def alone(title: str, about: str, option: str, **settings: object) -> _Change:
        now = f"--augment.{option.replace('_', '-')} {getattr(config, option)}"
        return _Change(Heading(title, about, now), off.model_copy(update=settings))

    is_image = front_end.image is not None
    mix = "The brighter pixel of two clips stays" if is_image else "Another clip is added in power"
    level = "" if is_image else f", up to {config.mix_db:g} dB louder or softer"
    gain = config.gain_db or AugmentConfig().gain_db
    low, least = config.background_db, config.resized_crop_scale
    changes = [
        alone("Mix", f"{mix}{level}; the labels of both are true.", "mix", mix=1.0),
        alone(
            "Mixup",
            f"Two clips are blended, and their labels alike, by a share drawn with alpha {config.mixup_alpha:g}.",
            "mixup",
            mixup=1.0,
        ),
        alone(
            "Background",
            f"A sound of the folder is added, {low:g} to {low + BACKGROUND_SPREAD_DB:g} dB below the clip.",
            "background_share",
            background=config.background,
            background_share=1.0,
        ),
        alone("Gain", f"Louder or softer by up to {gain:g} dB.", "gain_db", gain_db=gain),
        alone("Roll", "Moved in time; what goes out at the end comes in at the beginning.", "roll", roll=1.0),
        alone("Masks", "Stretches of time and ranges of bands are silenced.", "masks", spec_augment=1.0),
        alone("Warp", f"Frequencies are drawn apart or together by up to {config.warp_range:.0%}.", "warp", warp=1.0),
        alone("Resized crop", f"{least:.0%} or more of time and bands fill it all.", "resized_crop", resized_crop=1.0),
        *(alone(*words, "image", image=kind) for kind, words in _IMAGE_KINDS.items()),
        _Change(Heading("All as configured", "What training sees: each change on its share of the clips."), config),
    ]
    left_out = set() if is_image else {title for title, _ in _IMAGE_KINDS.values()}
    left_out |= {"Gain"} if _is_relative(front_end) else set()
    left_out |= {"Background"} if config.background is None else set()
    return [change for change in changes if change.heading.title not in left_out]


def _is_relative(front_end: FrontEnd) -> bool:
    """Whether inputs do not tell how loud a sound is."""
    return front_end.image is not None or front_end.mel is None or front_end.mel.ref == "max"


def _changed(show: _Show, change: _Change, number: int) -> list[_Shown]:
    """All clips after a change, each with the next one as the other clip."""
    n_samples = len(show.samples)
    draws = [draw(change.config, np.random.default_rng([show.seed, number, i])) for i in range(n_samples)]
    inputs = np.stack([sample.input for sample in show.samples]).astype(np.float32)
    backgrounds = None if show.backgrounds is None else np.stack([sound.input for sound in show.backgrounds])
    targets = show.manifest.multi_hot().astype(np.float32)
    following = np.roll(np.arange(n_samples), -1)
    augmenter = Augmenter(change.config, show.front_end)
    changed, labels = augment_arrays(
        augmenter, inputs, inputs[following], backgrounds, targets, targets[following], draws
    )
    after = f"after: {change.heading.title}"
    return [
        _Shown(
            changed[i],
            f"{show.samples[i].name} {after}",
            _labels(labels[i], show.manifest),
            "; ".join(_notes(draws[i], show, i)),
        )
        for i in range(n_samples)
    ]


def _labels(targets: Float32Array, manifest: Manifest) -> str:
    """The labels that are true, each with its share where that is not all."""
    named = [
        name if target > 0.995 else f"{name} {target:.0%}"
        for name, target in zip(manifest.labels.names, targets, strict=True)
        if target > 0.005
    ]
    return ", ".join(named) or "(no label)"


def _notes(draw: Draw, show: _Show, i: int) -> Iterator[str]:
    """What was drawn for clip i, in words."""
    other = show.samples[(i + 1) % len(show.samples)].name
    if draw.mix_db is not None:
        louder = f", {abs(draw.mix_db):.1f} dB {'louder' if draw.mix_db > 0 else 'softer'}"
        yield f"with {other}{'' if show.front_end.image else louder}"
    if draw.mixup_share is not None:
        yield f"{draw.mixup_share:.0%} of {other}"
    if draw.background_db is not None and show.backgrounds is not None:
        yield f"{show.backgrounds[i].name}, {draw.background_db:.0f} dB below"
    if draw.gain_db and not _is_relative(show.front_end):
        yield f"{draw.gain_db:+.1f} dB"
    if draw.warp != 1:
        yield f"{abs(draw.warp - 1):.1%} {'apart' if draw.warp > 1 else 'together'}"
    if draw.time_crop != (0.0, 1.0):
        time, bands = (end - start for start, end in (draw.time_crop, draw.band_crop))
        yield f"{time:.0%} of the time, {bands:.0%} of the bands"
    if draw.roll:
        yield f"{draw.roll:.0%} later"
    if draw.time_masks:
        yield f"{len(draw.time_masks)} stretches of time, {len(draw.band_masks)} of bands"


def _html(show: _Show, n_shown: int, progress: Progress) -> str:
    changes = _changes(show.config, show.front_end)
    before = [
        _Shown(sample.input, f"{sample.name} before", _labels(targets, show.manifest), sample.name)
        for sample, targets in zip(show.samples, show.manifest.multi_hot().astype(np.float32), strict=True)
    ]
    rows = [before, *(_changed(show, change, number) for number, change in enumerate(changes))]
    columns = []
    for i in range(n_shown):
        progress("clips shown", i, n_shown)
        columns.append(_column(show, [row[i] for row in rows], show.samples[i].low_high))
    progress("clips shown", n_shown, n_shown)
    headings = [Heading("Before"), *(change.heading for change in changes)]
    mel = show.front_end.mel
    return page_of_rows(
        f"Augmentation of {show.manifest.source.name}",
        _about(show),
        list(zip(headings, zip(*columns, strict=True), strict=True)),
        axes=None if mel is None or show.n_frames is None else Axes(mel, show.n_frames),
        sample_rate=_HEARD_RATE if mel is None else min(mel.sample_rate, _HEARD_RATE),
    )


def _about(show: _Show) -> str:
    """What a reader has to know, one sentence each."""
    known = [
        "What training changes in clips, anew each time that it sees them: each change alone, then all as configured."
    ]
    if show.is_heard:
        known.append(
            "Before and after are both turned back from the network's input to sound in the same way, so what differs "
            "between them is the change alone, and how both differ from the recording is not."
        )
    elif show.n_frames is None:
        known.append("The manifest holds images, so there is nothing to hear.")
    else:
        known.append("The network is shown coloured images, which are not turned back to sound.")
    if show.front_end.image is None:
        known.append("All pictures of a clip have the same colour scale.")
    if _is_relative(show.front_end):
        known.append("Gain is left out: the input does not tell how loud a sound is.")
    return " ".join(known)


def _column(show: _Show, shown: Sequence[_Shown], low_high: tuple[float, float]) -> list[Cell]:
    """A clip before and after all changes."""
    inputs = [one.input for one in shown]
    pictures = _pictures(show.front_end, inputs)
    waveforms = _waveforms(show, inputs, low_high) if show.is_heard else [None] * len(inputs)
    return [
        Cell(picture, one.alt, waveform, one.labels, one.notes)
        for one, picture, waveform in zip(shown, pictures, waveforms, strict=True)
    ]


def _pictures(front_end: FrontEnd, inputs: Sequence[Float32Array]) -> list[Pixels]:
    """Inputs of a clip as pictures, log_mels all on one colour scale."""
    if front_end.image is not None or front_end.mel is None:
        pixels = [np.rint(255 * image).clip(0, 255).astype(np.uint8) for image in inputs]
        return [image[0] if len(image) == 1 else image.transpose(1, 2, 0) for image in pixels]
    high = max(float(log_mel.max()) for log_mel in inputs)
    decibel = (1.0 if front_end.mel.log == "db" else math.log(10) / 10) / front_end.mel.std
    low = max(min(float(log_mel.min()) for log_mel in inputs), high - _SHOWN_DB * decibel)
    scale = ImageConfig(colormap=_COLORMAP, low=min(low, high - decibel), high=high)
    return [log_mel_to_image(log_mel[0], scale)[0] for log_mel in inputs]


def _waveforms(show: _Show, inputs: Sequence[Float32Array], low_high: tuple[float, float]) -> list[Waveform]:
    """A clip's sounds, all on one scale, so that what is louder sounds louder."""
    assert show.front_end.mel is not None
    waveforms = []
    for values in inputs:
        log_mel = values[0] if show.front_end.image is None else _log_mel_of(values[0], low_high, show)
        rng = np.random.default_rng(show.seed)  # the same phases to begin with, before and after
        waveform, rate = waveform_of_log_mel(log_mel, show.front_end.mel, rng=rng)
        waveforms.append(resample(waveform, rate, min(rate, _HEARD_RATE)))
    peak = max(1.0, *(float(np.abs(waveform).max()) for waveform in waveforms))
    return [waveform / np.float32(peak) for waveform in waveforms]


def _log_mel_of(image: Float32Array, low_high: tuple[float, float], show: _Show) -> Float32Array:
    """The log_mel of a grey image (height, width) from 0 to 1, of the shown number of frames."""
    assert show.front_end.mel is not None
    size = (show.n_frames or image.shape[1], show.front_end.mel.n_mels)
    pixels = Image.fromarray(np.rint(255 * image).clip(0, 255).astype(np.uint8))
    resized = pixels if pixels.size == size else pixels.resize(size, Image.Resampling.BILINEAR)
    return image_to_log_mel(np.asarray(resized), low=low_high[0], high=low_high[1])
