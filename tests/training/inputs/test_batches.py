"""Batches: reproducible for any number of processes, each clip once, and errors are raised."""

import threading
import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spectag.audio.front_end import FrontEnd
from spectag.audio.mel import compute_log_mel
from spectag.config.base import ImageConfig, MelConfig
from spectag.config.training import AugmentConfig, FinetuneConfig
from spectag.errors import DataError
from spectag.training.inputs.augmenter import Augmenter
from spectag.training.inputs.batches import Batches, Examples, crop_or_pad, sample_systematically, silence_of

MEL = MelConfig(sample_rate=8000, n_fft=256, hop_length=128, n_mels=4, f_max=4000, top_db=None)
FRONT_END = FrontEnd(mel=MEL)
WIDTH = 6
LIVELY = AugmentConfig(mix=0.5, mixup=0.5, roll=0.5, spec_augment=0.5)


def clip_of(number):
    """A clip that encodes its number and the time; every third clip is shorter than an excerpt."""
    n_frames = 4 if number % 3 == 0 else 10
    return (number + np.arange(n_frames) / 100 + np.zeros((1, 4, 1))).astype(np.float32)


def examples_of(n_clean, n_noisy=0, *, inputs=clip_of, backgrounds=()):
    n_clips = n_clean + n_noisy
    return Examples(
        inputs,
        np.eye(n_clips, dtype=np.float32),
        np.where(np.arange(n_clips) < n_clean, 1.0, 0.25).astype(np.float32),
        np.arange(n_clips) >= n_clean,
        backgrounds,
    )


def batches_of(examples, *, width=WIDTH, augment=LIVELY, short_clips="both", **settings):
    settings = {"batch_size": 8, "seed": 3} | settings
    return Batches(examples, FRONT_END, width, FinetuneConfig(short_clips=short_clips), augment, **settings)


def clips_in(batch):
    """Everything about each clip of a batch, augmented."""
    inputs, targets = batch.augmented(Augmenter(LIVELY, FRONT_END), torch.device("cpu"))
    return [
        (inputs[i].numpy().tobytes(), targets[i].numpy().tobytes(), float(batch.weights[i]), bool(batch.is_noisy[i]))
        for i in range(len(inputs))
    ]


def rows_shown(batches, number=1, **settings):
    return np.concatenate([batch.targets.numpy().argmax(axis=1) for batch in batches.epoch(number, **settings)])


# ------------------------------------------------------------------------------------------------ which clips


@pytest.mark.parametrize("n_clips", [1, 2, 7, 8, 9, 30])
def test_each_clean_clip_comes_exactly_once_in_an_epoch(n_clips):
    batches = batches_of(examples_of(n_clips))
    shown = rows_shown(batches, augmented=True)
    assert sorted(shown) == list(range(n_clips))
    assert batches.n_clips == n_clips


@pytest.mark.parametrize(("weight", "n_noisy", "n_shown"), [(1.0, 3, 3), (1.0, 40, 10), (0.3, 10, 3), (0.3, 40, 10)])
def test_number_of_noisy_clips_is_their_weight_and_at_most_that_of_clean_ones(weight, n_noisy, n_shown):
    examples = examples_of(10, n_noisy)
    examples.weights[10:] = weight
    batches = batches_of(examples)
    epochs = [rows_shown(batches, number, augmented=True) for number in (1, 2)]
    assert batches.n_clips == 10 + n_shown
    for shown in epochs:
        assert len(set(shown)) == len(shown) == 10 + n_shown
        assert set(range(10)) <= set(shown)
    assert (set(epochs[0]) != set(epochs[1])) == (n_noisy > n_shown)


def test_noisy_clips_are_sampled_by_weight():
    examples = examples_of(10, 40)
    examples.weights[10:30], examples.weights[30:] = 1.0, 0.1
    batches = batches_of(examples)
    shown = np.concatenate([rows_shown(batches, number, augmented=True) for number in range(1, 31)])
    n_heavy, n_light = ((shown >= 10) & (shown < 30)).sum(), (shown >= 30).sum()
    assert n_heavy + n_light == 300
    assert 0 < n_light < 0.25 * n_heavy


@pytest.mark.parametrize(
    ("weights", "mix"),
    [
        ([0.3] * 40, 0.0),
        ([0.3] * 40, 0.7),
        ([1.0] * 6 + [0.3] * 13, 0.7),
        ([0.5, 0.25, 0.1], 0.7),
        ([3.0, 2.0] + [0.2] * 20, 0.7),
    ],
)
def test_each_noisy_clip_counts_by_its_weight_on_average_over_epochs(weights, mix):
    """Clips of weight 0.3 once counted as 0.09: they were drawn by weight, and their loss was multiplied by it."""
    n_epochs, n_clean = 400, 40
    examples = examples_of(n_clean, len(weights), inputs=lambda _: np.zeros((1, 4, WIDTH), np.float32))
    examples.weights[n_clean:] = weights
    batches = batches_of(examples, augment=AugmentConfig(mix=mix), batch_size=100)
    totals = np.zeros(len(examples))
    for number in range(n_epochs):
        for batch in batches.epoch(number, augmented=True):
            np.add.at(totals, batch.targets.numpy().argmax(axis=1), batch.weights.numpy() / n_epochs)
    np.testing.assert_allclose(totals[:n_clean], 1.0, rtol=1e-5)
    assert totals[n_clean:].sum() == pytest.approx(sum(weights), rel=1e-3)
    np.testing.assert_allclose(totals[n_clean:], weights, atol=0.1)


@given(weights=st.lists(st.floats(1e-3, 1), min_size=1, max_size=30), seed=st.integers(0, 99))
def test_sample_contains_each_item_at_most_once(weights, seed):
    n_items = max(1, int(sum(weights)))
    probabilities = np.array(weights) * n_items / sum(weights)
    sample = sample_systematically(probabilities, np.random.default_rng(seed))
    assert len(sample) == len(set(sample)) == n_items


def test_clips_of_weight_0_are_never_used():
    examples = examples_of(4, 4)
    examples.weights[5] = 0
    assert 5 not in rows_shown(batches_of(examples), augmented=True)


@pytest.mark.parametrize(("n_clips", "batch_size"), [(30, 8), (16, 8), (5, 8), (9, 1), (17, 16)])
def test_steps_are_as_few_as_the_batch_size_allows_and_of_similar_size(n_clips, batch_size):
    batches = batches_of(examples_of(n_clips), batch_size=batch_size)
    sizes = [len(batch.draws) for batch in batches.epoch(1, augmented=True)]
    assert len(sizes) == batches.n_steps == -(-n_clips // batch_size)
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1


def test_mix_with_a_noisy_clip_is_noisy():
    for batch in batches_of(examples_of(6, 6), augment=AugmentConfig(mix=1.0)).epoch(1, augmented=True):
        is_noisy = (batch.targets.argmax(1) >= 6) | (batch.other_targets.argmax(1) >= 6)
        assert batch.is_noisy.tolist() == is_noisy.tolist()


# ------------------------------------------------------------------------------------------------ the same for all


@pytest.mark.parametrize("augmented", [True, False])
def test_epoch_from_a_later_step_gives_the_same_batches(augmented):
    examples = examples_of(24, 12)
    whole = [clips_in(batch) for batch in batches_of(examples).epoch(2, augmented=augmented)]
    rest = [clips_in(batch) for batch in batches_of(examples).epoch(2, augmented=augmented, first_step=2)]
    assert len(whole) == 4
    assert rest == whole[2:]


@pytest.mark.parametrize("n_ranks", [2, 3])
def test_several_processes_together_get_the_batches_of_one(n_ranks):
    examples = examples_of(20, 7)
    alone = list(batches_of(examples).epoch(1, augmented=True))
    shared = [batches_of(examples, rank=rank, n_ranks=n_ranks).epoch(1, augmented=True) for rank in range(n_ranks)]
    for whole, *parts in zip(alone, *shared, strict=True):
        assert [clip for part in parts for clip in clips_in(part)] == clips_in(whole)
        assert {part.n_in_step for part in parts} == {whole.n_in_step} == {len(whole.draws)}


def test_epochs_and_seeds_differ():
    examples = examples_of(6)

    def seen(seed, epoch):
        return [clips_in(batch) for batch in batches_of(examples, seed=seed).epoch(epoch, augmented=True)]

    assert seen(3, 1) == seen(3, 1)
    assert seen(3, 1) != seen(3, 2)
    assert seen(3, 1) != seen(4, 1)


@given(n_clips=st.integers(1, 60), batch_size=st.integers(1, 40), n_ranks=st.integers(1, 5))
def test_every_process_has_a_clip_in_every_step(n_clips, batch_size, n_ranks):
    if n_clips < n_ranks:
        with pytest.raises(DataError, match=f"^{n_clips} training clips are too few for {n_ranks} processes"):
            batches_of(examples_of(n_clips), batch_size=batch_size, n_ranks=n_ranks)
        return
    n_steps = batches_of(examples_of(n_clips), batch_size=batch_size, n_ranks=n_ranks).n_steps
    assert all(len(step) >= n_ranks for step in np.array_split(np.arange(n_clips), n_steps))


def test_without_augmentation_nothing_is_drawn():
    (batch,) = batches_of(examples_of(5)).epoch(1, augmented=False)
    assert batch.others is batch.backgrounds is batch.other_targets is None
    inputs, targets = batch.augmented(Augmenter(LIVELY, FRONT_END), torch.device("cpu"))
    torch.testing.assert_close(inputs, batch.inputs, rtol=0, atol=0)
    torch.testing.assert_close(targets, batch.targets, rtol=0, atol=0)


def test_backgrounds_are_excerpts_of_the_given_sounds(tmp_path):
    augment = AugmentConfig(mix=0.0, background=tmp_path, background_fraction=0.5)
    batches = batches_of(examples_of(8, backgrounds=[clip_of(-5)]), augment=augment)
    (batch,) = batches.epoch(1, augmented=True)
    has_background = [drawn.needs_background for drawn in batch.draws]
    assert set(has_background) == {True, False}
    for drawn, background in zip(has_background, batch.backgrounds, strict=True):
        assert (round(float(background.max())) == -5) == drawn


# ------------------------------------------------------------------------------------------------ errors


def loader_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("ThreadPoolExecutor")]


def test_error_of_a_loader_is_raised_and_waiting_batches_are_not_loaded(monkeypatch):
    monkeypatch.setattr("spectag.training.inputs.batches.n_usable_cores", lambda: 1)
    loaded = []

    def inputs(i):
        loaded.append(i)
        time.sleep(0.05)
        raise OSError("the disk is gone")

    epoch = batches_of(examples_of(400, inputs=inputs), batch_size=1).epoch(1, augmented=True)
    with pytest.raises(OSError, match="the disk is gone"):
        next(epoch)
    assert len(loaded) <= 3  # of the five that were requested
    assert not loader_threads()


def test_epoch_left_early_ends_its_threads():
    epoch = batches_of(examples_of(400), batch_size=1).epoch(1, augmented=True)
    next(epoch)
    assert loader_threads()
    epoch.close()
    assert not loader_threads()


def test_whole_epoch_ends_its_threads():
    assert len(list(batches_of(examples_of(20)).epoch(1, augmented=True))) == 3
    assert not loader_threads()


# ------------------------------------------------------------------------------------------------ excerpts


@given(n_frames=st.integers(1, 30), width=st.integers(1, 30), seed=st.integers(0, 99))
def test_excerpt_of_a_long_clip_is_a_part_of_it(n_frames, width, seed):
    clip = np.arange(n_frames + width, dtype=np.float32)[np.newaxis, np.newaxis]
    part = crop_or_pad(clip, width, -1.0, np.random.default_rng(seed))[0, 0]
    np.testing.assert_array_equal(part, part[0] + np.arange(width))
    assert 0 <= part[0] <= n_frames


@given(n_frames=st.integers(1, 30), more=st.integers(1, 30), seed=st.integers(0, 99))
def test_short_clip_is_repeated_or_padded_with_silence(n_frames, more, seed):
    clip = np.arange(1, n_frames + 1, dtype=np.float32)[np.newaxis, np.newaxis]
    width = n_frames + more
    wrapped = crop_or_pad(clip, width, -1.0, np.random.default_rng(seed), short="wrap")[0, 0]
    np.testing.assert_array_equal(wrapped, 1 + np.arange(width) % n_frames)
    padded = crop_or_pad(clip, width, -1.0, np.random.default_rng(seed), short="pad")[0, 0]
    assert (padded == -1).sum() == more
    start = int((padded != -1).argmax())
    np.testing.assert_array_equal(padded[start : start + n_frames], clip[0, 0])
    either = crop_or_pad(clip, width, -1.0, np.random.default_rng(seed), short="both")[0, 0]
    assert len(either) == width
    assert set(clip[0, 0]) <= set(either) <= set(clip[0, 0]) | {-1.0}


def test_both_repeats_or_pads_at_random():
    clip = np.ones((1, 1, 3), np.float32)
    n_wrapped = sum((crop_or_pad(clip, 5, 0.0, np.random.default_rng(i), short="both") == 1).all() for i in range(400))
    assert 150 < n_wrapped < 250


def test_every_position_in_a_clip_is_drawn():
    clip = np.arange(6, dtype=np.float32)[np.newaxis, np.newaxis]
    starts = [crop_or_pad(clip, 4, 0.0, np.random.default_rng(i))[0, 0, 0] for i in range(100)]
    assert set(starts) == {0, 1, 2}
    short = clip[..., 1:3]
    positions = [int(crop_or_pad(short, 4, 0.0, np.random.default_rng(i))[0, 0].argmax()) for i in range(100)]
    assert set(positions) == {1, 2, 3}


def test_clips_of_one_width_are_used_unchanged():
    (batch,) = batches_of(examples_of(3, inputs=lambda i: np.full((1, 4, 9), i, np.float32)), width=None).epoch(
        1, augmented=False
    )
    assert batch.inputs.shape == (3, 1, 4, 9)


# ------------------------------------------------------------------------------------------------ silence


@pytest.mark.parametrize("top_db", [None, 30.0, 80.0])
@pytest.mark.parametrize("scale", [{"log": "db"}, {"log": "ln"}, {"log": "ln", "mean": -4.5, "std": 5.0}], ids=str)
def test_silence_has_the_value_of_the_front_end(rng, scale, top_db):
    config = MelConfig(**MEL.model_dump() | scale | {"top_db": top_db, "amin": 1e-5})
    noise = rng.normal(size=4000)
    noise_then_silence = np.concatenate([noise, np.zeros(4000)]).astype(np.float32)
    expected = compute_log_mel(noise_then_silence, config)[:, -5:]
    inputs = compute_log_mel(noise.astype(np.float32), config)[np.newaxis]
    np.testing.assert_allclose(silence_of(inputs, FrontEnd(mel=config)), expected, atol=1e-4)


def test_silence_is_top_db_below_a_clip_relative_to_its_maximum(rng):
    config = MelConfig(**MEL.model_dump() | {"ref": "max", "top_db": 60.0})
    inputs = compute_log_mel(rng.normal(size=4000).astype(np.float32), config)[np.newaxis]
    assert silence_of(inputs, FrontEnd(mel=config)) == pytest.approx(-60, abs=1e-4)
    without = config.model_copy(update={"top_db": None})
    assert silence_of(inputs, FrontEnd(mel=without)) == inputs.min()


@pytest.mark.parametrize("log", ["db", "ln"])
def test_padded_silent_clip_is_constant(rng, log):
    config = MEL.model_copy(update={"log": log})
    inputs = compute_log_mel(np.zeros(2000, np.float32), config)[np.newaxis]
    laid = crop_or_pad(inputs, 50, silence_of(inputs, FrontEnd(mel=config)), rng)
    assert laid.min() == laid.max()


def test_silence_of_an_image_is_its_darkest_pixel(rng):
    image = rng.random((3, 4, 5), np.float32)
    assert silence_of(image, FrontEnd(mel=MEL, image=ImageConfig(colormap="magma"))) == image.min()
