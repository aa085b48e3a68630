import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from spectag.audio.front_end import FrontEnd
from spectag.audio.mel import band_centers, compute_log_mel
from spectag.config.backbones import AUDIOSET_MEL, IMAGE_MEL
from spectag.config.base import ImageConfig, MelConfig
from spectag.config.training import AugmentConfig
from spectag.errors import ConfigError
from spectag.training.inputs.augmenter import (
    Augmenter,
    Draw,
    augment_arrays,
    draw,
    joined_targets,
    level_of_no_power,
    log_mel_of,
    power_of,
)

RATE = 32_000
NAN = float("nan")
OFF = AugmentConfig(mix=0, gain_db=0)
LIBROSA_MEL = MelConfig()
CONFIGS = {
    "kaldi": AUDIOSET_MEL,
    "below the loudest": IMAGE_MEL,
    "librosa": LIBROSA_MEL,
    "any ref, no cut": MelConfig(ref=0.02, top_db=None, mean=-30, std=12),
    "ln below the loudest": MelConfig(log="ln", amin=1e-4, ref="max", top_db=60, std=3),
}
MELS = pytest.mark.parametrize("mel", CONFIGS.values(), ids=CONFIGS)
ABSOLUTE_MELS = pytest.mark.parametrize(
    "mel",
    [mel for mel in CONFIGS.values() if mel.ref != "max"],
    ids=[name for name in CONFIGS if "loudest" not in name],
)
WAVEFORM = FrontEnd(mel=AUDIOSET_MEL, input="waveform")
GREY = FrontEnd(mel=IMAGE_MEL, image=ImageConfig())
EVERYTHING = Draw(
    mix_db=2.0,
    background_db=5.0,
    gain_db=-3.0,
    warp=1.07,
    time_crop=(0.1, 0.9),
    band_crop=(0.05, 0.95),
    roll=0.3,
    time_masks=((0.1, 0.2), (0.5, 0.55)),
    band_masks=((0.3, 0.4), (0.8, 0.9)),
)


def tone(frequency, *, loudness=0.3, n_samples=32_000):
    return (loudness * np.sin(2 * np.pi * frequency * np.arange(n_samples) / RATE)).astype(np.float32)


def noise(rng, *, loudness=0.1, n_samples=32_000):
    return (loudness * rng.standard_normal(n_samples)).astype(np.float32)


def log_mel(waveform, mel=AUDIOSET_MEL):
    """A batch of one clip."""
    return torch.from_numpy(compute_log_mel(waveform, mel))[None, None]


def mean_power(waveform, mel):
    """Mean power on an absolute scale, for any config."""
    return float(power_of(log_mel(waveform, absolute := mel.model_copy(update={"ref": 1.0})), absolute).mean())


def decibels(values, mel):
    return (values * mel.std + mel.mean) * (1 if mel.log == "db" else 10 / np.log(10))


def augmented(inputs, *draws, others=None, backgrounds=None, front_end=None, config=OFF):
    front_end = front_end or FrontEnd(mel=AUDIOSET_MEL)
    targets = torch.zeros(len(inputs), 2)
    return Augmenter(config, front_end)(inputs, others, backgrounds, targets, targets, draws)[0]


# ------------------------------------------------------------------------------------------------------ power


@MELS
def test_power_undoes_the_logarithm_and_the_logarithm_undoes_power(mel, rng):
    given = log_mel(np.concatenate([noise(rng) + tone(700), np.zeros(8000, np.float32)]), mel)
    assert_close(log_mel_of(power_of(given, mel), mel), given, atol=1e-4, rtol=0)


@ABSOLUTE_MELS
def test_power_is_the_mel_power_before_the_logarithm(mel, rng):
    waveform = noise(rng)
    plain = mel.model_copy(update={"log": "db", "ref": 1.0, "top_db": None, "mean": 0.0, "std": 1.0, "amin": 1e-30})
    expected = 10 ** (log_mel(waveform, plain).double() / 10)
    assert_close(
        power_of(log_mel(waveform, mel), mel).double(), expected, rtol=1e-3, atol=2e-5 if mel.log == "ln" else 0
    )


@ABSOLUTE_MELS
def test_level_of_no_power_is_the_log_mel_of_silence(mel):
    assert_close(log_mel(np.zeros(4000, np.float32), mel).mean().item(), level_of_no_power(mel), rtol=0, atol=1e-5)


@MELS
def test_mix_of_two_tones_is_the_log_mel_of_their_sum(mel):
    first, second = tone(500, loudness=0.4), tone(4000, loudness=0.2)
    level = 10 * np.log10(mean_power(second, mel) / mean_power(first, mel))  # so that nothing is scaled
    mixed = augmented(log_mel(first, mel), Draw(mix_db=level), others=log_mel(second, mel), front_end=FrontEnd(mel=mel))
    expected = log_mel(first + second, mel)
    is_present = expected[..., 5:-5] > expected.max() - (decibels(1.0, mel) - decibels(0.0, mel)) ** -1 * 30
    assert 0.02 < is_present.float().mean() < 0.5
    difference = decibels(mixed, mel) - decibels(expected, mel)
    assert difference[..., 5:-5][is_present].abs().max() < 0.3


@MELS
@pytest.mark.parametrize("mix_db", [-6.0, 0.0, 5.0])
def test_added_clip_has_the_drawn_level_whatever_its_loudness(mel, mix_db, rng):
    low = noise(rng)
    high = tone(6000, loudness=0.03)
    mixed = augmented(log_mel(low, mel), Draw(mix_db=mix_db), others=log_mel(high, mel), front_end=FrontEnd(mel=mel))
    power = power_of(mixed, mel)
    alone = power_of(log_mel(low, mel), mel)
    elsewhere = slice(0, mel.n_mels // 2)  # without the tone
    alone *= power[..., elsewhere, :].mean() / alone[..., elsewhere, :].mean()  # to the same scale
    added = (power - alone).mean()
    assert 10 * torch.log10(added / alone.mean()) == pytest.approx(mix_db, abs=0.2)


@MELS
def test_adding_silence_changes_nothing_and_silence_becomes_the_added_clip(mel, rng):
    clip, silence = log_mel(noise(rng), mel), log_mel(np.zeros(32_000, np.float32), mel)
    front_end = FrontEnd(mel=mel)
    assert_close(augmented(clip, Draw(mix_db=3.0), others=silence, front_end=front_end), clip, atol=1e-4, rtol=0)
    assert_close(augmented(silence, Draw(mix_db=3.0), others=clip, front_end=front_end), clip, atol=1e-4, rtol=0)
    assert_close(augmented(silence, Draw(mix_db=3.0), others=silence, front_end=front_end), silence, atol=1e-4, rtol=0)
    assert_close(augmented(silence, Draw(gain_db=6.0), front_end=front_end), silence, atol=1e-4, rtol=0)


@ABSOLUTE_MELS
def test_gain_makes_the_log_mel_of_a_louder_waveform(mel, rng):
    waveform = noise(rng, loudness=0.05)
    louder = augmented(log_mel(waveform, mel), Draw(gain_db=6.0), front_end=FrontEnd(mel=mel))
    assert_close(louder, log_mel(waveform * np.float32(10 ** (6 / 20)), mel), atol=2e-3, rtol=0)


@pytest.mark.parametrize("front_end", [FrontEnd(mel=IMAGE_MEL), GREY], ids=["log_mel", "image"])
def test_gain_does_nothing_where_levels_are_relative(front_end, rng):
    clip = torch.from_numpy(front_end.input_of_waveform(noise(rng)))[None]
    assert augmented(clip, Draw(gain_db=6.0), front_end=front_end).equal(clip)


def test_background_has_the_drawn_level(rng):
    clip, background = noise(rng), tone(6000, loudness=0.9)
    changed = augmented(log_mel(clip), Draw(background_db=10.0), backgrounds=log_mel(background))
    mixed = augmented(log_mel(clip), Draw(mix_db=-10.0), others=log_mel(background))
    assert_close(changed, mixed)
    assert not changed.equal(log_mel(clip))


# ------------------------------------------------------------------------------------------------------ labels


def test_joined_targets_are_those_of_either_clip_and_unknown_unless_one_is_true():
    ours = torch.tensor([[0.0, 0.0, 1.0, 0.5, NAN, NAN, 1.0, NAN, 0.3]])
    theirs = torch.tensor([[0.0, 1.0, 1.0, 0.5, 0.0, 1.0, NAN, NAN, NAN]])
    expected = torch.tensor([[0.0, 1.0, 1.0, 0.75, NAN, 1.0, 1.0, NAN, NAN]])
    assert_close(joined_targets(ours, theirs), expected, equal_nan=True)
    assert_close(joined_targets(theirs, ours), expected, equal_nan=True)


def test_targets_are_joined_by_mixing_interpolated_by_mixup_and_unchanged_otherwise(rng):
    clips = torch.rand(3, 1, 8, 9)
    others = torch.rand(3, 1, 8, 9)
    targets = torch.tensor([[1.0, 0.0]] * 3)
    other_targets = torch.tensor([[0.0, 1.0]] * 3)
    draws = [Draw(mix_db=0.0), Draw(mixup_fraction=0.25), Draw()]
    augmenter = Augmenter(OFF, FrontEnd(mel=AUDIOSET_MEL))
    changed, labels = augmenter(clips, others, None, targets, other_targets, draws)
    assert_close(labels, torch.tensor([[1.0, 1.0], [0.75, 0.25], [1.0, 0.0]]))
    assert_close(changed[1], 0.75 * clips[1] + 0.25 * others[1])
    assert changed[2].equal(clips[2])


def test_mixup_with_an_unknown_label_is_unknown():
    clips = torch.rand(1, 1, 4, 4)
    augmenter = Augmenter(OFF, FrontEnd(mel=AUDIOSET_MEL))
    _, labels = augmenter(
        clips, clips, None, torch.tensor([[1.0, NAN]]), torch.tensor([[NAN, 1.0]]), [Draw(mixup_fraction=0.5)]
    )
    assert labels.isnan().all()


# ------------------------------------------------------------------------------------------- time and frequency


def test_roll_equals_numpy():
    clip = torch.rand(2, 1, 4, 10)
    rolled = augmented(clip, Draw(roll=0.3), Draw())
    assert rolled[0].equal(torch.from_numpy(np.roll(clip[0].numpy(), 3, axis=-1)))
    assert rolled[1].equal(clip[1])


@pytest.mark.parametrize(("warp", "frequency"), [(1.1, 2000.0), (0.9, 2000.0), (1.1, 300.0), (0.9, 9000.0)])
def test_warp_moves_a_tone_up_the_bands_by_its_factor(warp, frequency):
    clip = log_mel(tone(frequency))
    band = int(np.abs(band_centers(AUDIOSET_MEL) - frequency).argmin())
    assert abs(clip.mean(dim=-1).argmax() - band) <= 1
    assert abs(augmented(clip, Draw(warp=warp)).mean(dim=-1).argmax() - band * warp) <= 1.5


def test_warp_of_an_image_leaves_its_lowest_row_where_it_is(rng):
    image = torch.from_numpy(GREY.input_of_waveform(noise(rng)))[None]
    for warp in (0.9, 1.1):
        assert_close(augmented(image, Draw(warp=warp), front_end=GREY)[..., -1, :], image[..., -1, :])


def test_warp_fills_bands_above_the_highest_with_silence(rng):
    squeezed = augmented(log_mel(noise(rng)), Draw(warp=0.9))
    floor = torch.full_like(squeezed[..., -12:, :], level_of_no_power(AUDIOSET_MEL))
    assert_close(squeezed[..., -12:, :], floor)
    assert squeezed[..., -14, :].min() > floor[0, 0, 0, 0] + 0.1


def test_crop_is_resized_to_the_whole_input():
    ramp = torch.linspace(0, 1, 101)
    clip = ramp[None, None, None, :] + 10 * ramp[None, None, :, None]
    cropped = augmented(clip, Draw(time_crop=(0.2, 0.7), band_crop=(0.1, 0.9)))
    expected = (
        torch.linspace(0.2, 0.7, 101)[None, None, None, :] + 10 * torch.linspace(0.1, 0.9, 101)[None, None, :, None]
    )
    assert_close(cropped, expected, atol=1e-4, rtol=0)


@ABSOLUTE_MELS
def test_masks_contain_the_value_of_silence(mel, rng):
    waveform = np.concatenate([noise(rng), np.zeros(32_000, np.float32)])
    clip = log_mel(waveform, mel)
    draw = Draw(time_masks=((0.0, 0.25),), band_masks=((0.5, 0.75),))
    masked = augmented(clip, draw, front_end=FrontEnd(mel=mel))
    n_frames = clip.shape[-1]
    silence = clip[..., -1].mean()
    assert_close(masked[..., : n_frames // 4 - 1], torch.full_like(masked[..., : n_frames // 4 - 1], silence))
    bands = slice(mel.n_mels // 2, 3 * mel.n_mels // 4)
    assert_close(masked[..., bands, :], torch.full_like(masked[..., bands, :], silence))
    assert masked[..., : mel.n_mels // 2, n_frames // 4 + 1 :].equal(clip[..., : mel.n_mels // 2, n_frames // 4 + 1 :])


def test_masks_contain_the_minimum_of_the_clip_if_levels_are_relative(rng):
    clip = torch.cat([log_mel(noise(rng), IMAGE_MEL), log_mel(tone(900), IMAGE_MEL)])
    masked = augmented(clip, *[Draw(time_masks=((0.5, 0.6),), band_masks=())] * 2, front_end=FrontEnd(mel=IMAGE_MEL))
    middle = int(0.55 * clip.shape[-1])
    for before, after in zip(clip, masked, strict=True):
        assert (after[..., middle] == before.min()).all()


# ------------------------------------------------------------------------------------------------------ images


def test_images_are_added_by_their_brighter_pixel_and_backgrounds_are_darkened():
    images, others = torch.rand(2, 1, 6, 7), torch.rand(2, 1, 6, 7)
    changed = augmented(
        images, Draw(mix_db=-3.0), Draw(background_db=20.0), others=others, backgrounds=others, front_end=GREY
    )
    assert changed[0].equal(torch.maximum(images[0], others[0]))
    assert_close(changed[1], torch.maximum(images[1], others[1] - 20 / IMAGE_MEL.top_db))


@pytest.mark.parametrize("background_db", [None, 9.0])
def test_waveforms_are_added_at_the_drawn_level_and_made_louder(rng, background_db):
    first, second = noise(rng), noise(rng, loudness=0.7)
    clip, other = (torch.from_numpy(each)[None, None, None] for each in (first, second))
    drawn = Draw(mix_db=-4.0, gain_db=6.0) if background_db is None else Draw(background_db=9.0)
    level_db, gain = (-4.0, 10 ** (6 / 20)) if background_db is None else (-9.0, 1.0)
    mixed, _ = Augmenter(OFF, WAVEFORM)(clip, other, other, torch.zeros(1, 0), torch.zeros(1, 0), [drawn])
    added = mixed[0, 0, 0].numpy() / gain - first
    assert np.corrcoef(added, second)[0, 1] == pytest.approx(1, abs=1e-4)
    assert 10 * np.log10((added**2).mean() / (first**2).mean()) == pytest.approx(level_db, abs=1e-3)


def test_waveform_that_is_added_to_silence_keeps_its_level(rng):
    other = torch.from_numpy(noise(rng))[None, None, None]
    drawn = [Draw(mix_db=-4.0)]
    mixed, _ = Augmenter(OFF, WAVEFORM)(
        torch.zeros_like(other), other, None, torch.zeros(1, 0), torch.zeros(1, 0), drawn
    )
    assert_close(mixed, other)


def test_masks_of_a_waveform_are_silent_and_only_in_time(rng):
    clip = torch.from_numpy(noise(rng))[None, None, None]
    drawn = [Draw(time_masks=((0.25, 0.5),), band_masks=((0.0, 1.0),))]
    masked, _ = Augmenter(OFF, WAVEFORM)(clip, None, None, torch.zeros(1, 0), None, drawn)
    expected = clip.clone()
    expected[..., 8_000:16_000] = 0
    assert_close(masked, expected)


@pytest.mark.parametrize("name", ["warp", "resized_crop"])
def test_changes_of_bands_are_refused_for_a_network_that_takes_the_waveform(name):
    with pytest.raises(ConfigError, match=rf"^augment.{name} changes the bands .* takes the waveform; leave it out$"):
        Augmenter(AugmentConfig(**{name: 0.5}), WAVEFORM)


def test_masks_of_coloured_images_have_the_colour_of_silence(rng):
    front_end = FrontEnd(mel=IMAGE_MEL, image=ImageConfig(colormap="viridis"))
    waveform = np.concatenate([noise(rng), np.zeros(16_000, np.float32)])
    image = torch.from_numpy(front_end.input_of_waveform(waveform))[None]
    masked = augmented(image, Draw(time_masks=((0.2, 0.3),), band_masks=((0.0, 0.0),)), front_end=front_end)
    column = masked[0, :, :, int(0.25 * image.shape[-1])]
    assert_close(column, image[0, :, 10, -1][:, None].expand_as(column))


@pytest.mark.parametrize("kind", ["random_crop", "rand_augment", "trivial_augment_wide"])
def test_torchvision_transforms_use_the_seed_of_the_clip_only(kind):
    config = AugmentConfig(mix=0, image=kind)
    front_end = FrontEnd(mel=IMAGE_MEL, image=ImageConfig(colormap="magma"))
    image = torch.linspace(0, 1, 3 * 32 * 32).view(1, 3, 32, 32)
    state = torch.get_rng_state()
    several = augmented(image.expand(12, -1, -1, -1), *map(seeded, range(12)), front_end=front_end, config=config)
    assert torch.get_rng_state().equal(state)
    torch.manual_seed(99)
    again = augmented(image, seeded(7), front_end=front_end, config=config)
    assert again[0].equal(several[7])
    assert len({bytes((255 * image).byte().numpy()) for image in several}) > 4
    assert_close(several * 255, (several * 255).round())
    assert 0 <= several.min() <= several.max() <= 1


def seeded(seed):
    return Draw(image_seed=seed)


def test_random_crop_shifts_the_image_beyond_its_edges():
    config = AugmentConfig(mix=0, image="random_crop")
    image = torch.ones(1, 1, 32, 40)
    moved = augmented(image.expand(50, -1, -1, -1), *map(seeded, range(50)), front_end=GREY, config=config)
    n_rows, n_columns = ((moved[:, 0] > 0).any(dim=dim).sum(dim=1) for dim in (2, 1))
    assert n_rows.min() in (28, 29)
    assert n_columns.min() in (35, 36)
    assert_close((moved > 0).flatten(1).sum(dim=1), n_rows * n_columns)


def test_image_transforms_are_refused_for_a_network_that_takes_log_mels():
    with pytest.raises(ConfigError, match=r"augment.image = rand_augment transforms 8-bit images.*efficientnet_lite0"):
        Augmenter(AugmentConfig(image="rand_augment"), FrontEnd(mel=AUDIOSET_MEL))


def test_torchvision_is_imported_only_for_images():
    script = "import sys, spectag.training.inputs.augmenter; print('torchvision' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "False\n"
    )


# ------------------------------------------------------------------------------------------------------ batches


@MELS
def test_batch_of_three_equals_three_single_clips(mel, rng):
    clips, others, backgrounds = (torch.cat([log_mel(noise(rng), mel) for _ in range(3)]) for _ in range(3))
    draws = [EVERYTHING, replace(EVERYTHING, mix_db=None, mixup_fraction=0.4, roll=0.0), Draw(gain_db=2.0)]
    front_end = FrontEnd(mel=mel)
    batch = augmented(clips, *draws, others=others, backgrounds=backgrounds, front_end=front_end)
    for i in range(3):
        part = slice(i, i + 1)
        single = augmented(
            clips[part], draws[i], others=others[part], backgrounds=backgrounds[part], front_end=front_end
        )
        assert_close(batch[part], single, atol=1e-4, rtol=0)


def test_arguments_are_not_changed_and_unused_rows_are_ignored(rng):
    clips = torch.cat([log_mel(noise(rng))] * 2)
    others = torch.cat([log_mel(tone(900)), torch.full_like(clips[:1], NAN)])
    before = clips.clone()
    changed = augmented(clips, EVERYTHING, Draw(gain_db=1.0), others=others, backgrounds=others)
    assert clips.equal(before)
    assert changed.isfinite().all()
    assert augmented(clips, Draw(), Draw()).equal(clips)


def test_arrays_are_augmented_like_tensors(rng):
    clip, other = log_mel(noise(rng)), log_mel(tone(900))
    targets = np.eye(2, dtype=np.float32)
    augmenter = Augmenter(OFF, FrontEnd(mel=AUDIOSET_MEL))
    draws = [replace(EVERYTHING, background_db=None)]
    changed, labels = augment_arrays(augmenter, clip.numpy(), other.numpy(), None, targets[:1], targets[1:], draws)
    assert_close(torch.from_numpy(changed), augmented(clip, *draws, others=other))
    assert labels.tolist() == [[1.0, 1.0]]


def test_inputs_that_a_draw_needs_must_be_given():
    clip = torch.zeros(1, 1, 4, 5)
    with pytest.raises(ValueError, match=r"needs others of shape \(1, 1, 4, 5\), got None"):
        augmented(clip, Draw(mix_db=0.0))
    with pytest.raises(ValueError, match=r"needs backgrounds of shape \(1, 1, 4, 5\), got \(1, 1, 4, 6\)"):
        augmented(clip, Draw(background_db=0.0), backgrounds=torch.zeros(1, 1, 4, 6))
    with pytest.raises(ValueError, match=r"a draw for each clip, got 2 for 1"):
        augmented(clip, Draw(), Draw())


# ------------------------------------------------------------------------------------------------------ draws


@given(seed=st.integers(0, 2**32 - 1))
def test_draw_stays_within_the_settings(seed):
    config = AugmentConfig(
        mix=0.5, mixup=0.5, roll=0.5, spec_augment=0.5, warp=0.5, resized_crop=0.5, background="noises"
    )
    drawn = draw(config, np.random.default_rng(seed))
    assert drawn == draw(config, np.random.default_rng(seed))
    assert drawn.mix_db is None or (abs(drawn.mix_db) <= 6 and drawn.mixup_fraction is None)
    assert drawn.mixup_fraction is None or 0 <= drawn.mixup_fraction <= 1
    assert drawn.background_db is None or 6 <= drawn.background_db <= 30
    assert drawn.needs_other == (drawn.mix_db is not None or drawn.mixup_fraction is not None)
    assert drawn.needs_background == (drawn.background_db is not None)
    assert abs(drawn.gain_db) <= 6
    assert 0.9 <= drawn.warp <= 1.1
    assert 0 <= drawn.roll < 1
    for start, end in (drawn.time_crop, drawn.band_crop):
        assert start >= 0
        assert start + 0.8 <= end + 1e-9 <= 1 + 2e-9
    assert len(drawn.time_masks) == len(drawn.band_masks)
    for start, end in drawn.time_masks + drawn.band_masks:
        assert 0 <= start <= end <= min(1, start + 0.15) + 1e-9
    assert drawn.image_seed is None


def test_each_augmentation_has_its_probability(rng):
    config = AugmentConfig(mix=0.7, mixup=0.5, roll=0.2, spec_augment=0.3, background="noises", background_fraction=0.4)
    draws = [draw(config, rng) for _ in range(4000)]
    shares = [
        np.mean([drawn.mix_db is not None for drawn in draws]),
        np.mean([drawn.mixup_fraction is not None for drawn in draws]),
        np.mean([drawn.roll > 0 for drawn in draws]),
        np.mean([len(drawn.time_masks) == 2 for drawn in draws]),
        np.mean([drawn.needs_background for drawn in draws]),
    ]
    assert shares == pytest.approx([0.7, 0.3 * 0.5, 0.2, 0.3, 0.4], abs=0.03)


def test_nothing_is_drawn_if_all_probabilities_are_0(rng):
    assert draw(OFF, rng) == Draw()
    assert draw(AugmentConfig(mix=0, gain_db=0, background_fraction=1), rng) == Draw()
    assert not Draw().needs_other
    assert not Draw().needs_background
