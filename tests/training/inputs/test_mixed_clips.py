"""Mixed clips: their parents, labels and levels, and that each is computed once."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectag.audio.front_end import FrontEnd
from spectag.audio.mel import compute_log_mel
from spectag.config.base import ImageConfig, MelConfig
from spectag.config.recipe import Recipe
from spectag.system.progress import silent
from spectag.training.inputs.feature_store import FeatureStore
from spectag.training.inputs.mixed_clips import MixedClips, mix_clips

MEL = MelConfig(sample_rate=8000, n_fft=256, hop_length=128, n_mels=16, f_max=4000, top_db=None)
KEYS = [f"{number:032x}" for number in range(4)]
Y_TRUE = np.eye(4, dtype=bool)


@pytest.fixture
def inputs(rng):
    """Three noises of different lengths and one silence."""
    sounds = [rng.normal(size=n).astype(np.float32) for n in (2000, 4000, 3000)] + [np.zeros(1000, np.float32)]
    return [compute_log_mel(sound, MEL)[None] for sound in sounds]


class RecordingStore:
    """In place of a FeatureStore: keeps the inputs of new clips, and computes one feature of each."""

    def __init__(self, front_end):
        self.front_end = front_end
        self.inputs = {}
        self.features = {}

    def compute(self, keys, inputs, *, progress):
        self.inputs = {i: inputs(i) for i, key in enumerate(keys) if key not in self.features}
        self.features |= {keys[i]: values.mean(keepdims=True)[0, 0] for i, values in self.inputs.items()}
        return np.stack([self.features[key] for key in keys])


@pytest.fixture
def store():
    return RecordingStore(FrontEnd(mel=MEL))


def mixes_of(store, inputs, *, y_true=Y_TRUE, **recipe):
    recipe = Recipe(backbone="scratch", **{"n_mixed_clips": 12} | recipe)
    numbers = range(recipe.n_mixed_clips)
    return mix_clips(store, KEYS[: len(inputs)], inputs.__getitem__, y_true, recipe, numbers, progress=silent)


def test_labels_are_those_of_both_parents(store, inputs):
    mixes = mixes_of(store, inputs)
    assert mixes.features.shape == (12, 1)
    for target, (first, second) in zip(mixes.targets, mixes.parents, strict=True):
        assert first != second
        assert np.flatnonzero(target).tolist() == sorted([first, second])


def test_a_label_is_unknown_if_it_is_unknown_in_one_parent_and_not_in_the_other(store, inputs):
    y_true = np.array([[1, 0, np.nan], [np.nan, 1, 0], [0, np.nan, 1], [0, 0, 0]])
    mixes = mixes_of(store, inputs, y_true=y_true)
    expected = {
        (0, 1): [1, 1, np.nan],
        (0, 2): [1, np.nan, 1],
        (0, 3): [1, 0, np.nan],
        (1, 2): [np.nan, 1, 1],
        (1, 3): [np.nan, 1, 0],
        (2, 3): [0, np.nan, 1],
    }
    for target, parents in zip(mixes.targets, mixes.parents.tolist(), strict=True):
        np.testing.assert_array_equal(target, expected[tuple(sorted(parents))])


def test_mixed_clip_is_as_loud_as_its_parents_and_as_long_as_the_longer(store, inputs):
    """Powers add: with the second at the level of the first, and no gain, a mix has twice the first's power."""
    mixes = mixes_of(store, inputs, n_mixed_clips=30, augment={"mix_db": 0.0, "gain_db": 0.0})
    of_noises = [number for number in store.inputs if 3 not in mixes.parents[number]]
    assert of_noises
    for number in of_noises:
        mix, (first, second) = store.inputs[number], (inputs[i] for i in mixes.parents[number])
        assert mix.shape[-1] == max(first.shape[-1], second.shape[-1])
        assert (10 ** (mix / 10)).sum() == pytest.approx(2 * (10 ** (first / 10)).sum(), rel=1e-3)


def test_mix_with_silence_is_the_other_clip_with_silence_around_it(store, inputs):
    mixes = mixes_of(store, inputs, n_mixed_clips=30, augment={"gain_db": 0.0})
    with_silence = [number for number in store.inputs if 3 in mixes.parents[number]]
    assert with_silence
    for number in with_silence:
        (other,) = (inputs[i] for i in mixes.parents[number] if i != 3)
        np.testing.assert_allclose(store.inputs[number], other, atol=1e-3)


def test_mixed_clips_are_computed_once_and_do_not_depend_on_their_number(tmp_path, inputs):
    store = FeatureStore(tmp_path, Recipe(backbone="scratch"), FrontEnd(mel=MEL))
    requested = []

    class Clips:
        def __getitem__(self, i):
            requested.append(i)
            return inputs[i]

        def __len__(self):
            return len(inputs)

    first = mixes_of(store, Clips())
    assert set(requested) == set(first.parents.ravel())
    requested.clear()
    np.testing.assert_array_equal(mixes_of(store, Clips()).features, first.features)
    assert not requested
    more = mixes_of(store, Clips(), n_mixed_clips=15)
    assert set(requested) == set(more.parents[12:].ravel())
    np.testing.assert_array_equal(more.features[:12], first.features)
    np.testing.assert_array_equal(more.parents[:12], first.parents)


@pytest.mark.parametrize(
    "change", [{"augment": {"spec_augment": 1.0}}, {"augment": {"mix_db": 1.0}}, {"seed": 1}], ids=str
)
def test_other_settings_give_other_mixed_clips(store, inputs, change):
    mixes_of(store, inputs)
    mixes_of(store, inputs, **change)
    assert len(store.inputs) == 12


@pytest.mark.parametrize("same", [{"augment": {"mix": 0.1}}, {"weight_decay": 0.1}], ids=str)
def test_settings_without_effect_on_mixed_clips_keep_them(store, inputs, same):
    mixes_of(store, inputs)
    mixes_of(store, inputs, **same)
    assert not store.inputs


def test_backgrounds_are_not_used_in_mixed_clips(store, inputs):
    mixes_of(store, inputs, augment={"background": Path("noises"), "background_fraction": 1.0})
    assert len(store.inputs) == 12


def test_one_clip_is_mixed_with_itself(store, inputs):
    mixes = mixes_of(store, inputs[:1], y_true=np.ones((1, 2), bool))
    assert (mixes.parents == 0).all()
    assert (mixes.targets == 1).all()


def test_images_are_mixed_by_their_brighter_pixels(rng):
    images = [rng.random((1, 16, 16), np.float32) for _ in range(3)]
    store = RecordingStore(FrontEnd(mel=None, image=ImageConfig(height=16, width=16)))
    mixes = mixes_of(store, images, y_true=Y_TRUE[:3])
    for number, mix in store.inputs.items():
        np.testing.assert_array_equal(mix, np.maximum(*(images[i] for i in mixes.parents[number])))


@given(
    parents=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=8),
    rows=st.sets(st.integers(0, 5)),
)
def test_mixed_clips_within_rows_have_both_parents_there(parents, rows):
    mixes = MixedClips(
        np.zeros((len(parents), 1), np.float32), np.zeros((len(parents), 1), np.float32), np.array(parents)
    )
    within = mixes.within(np.isin(np.arange(6), list(rows)))
    assert within.tolist() == [first in rows and second in rows for first, second in parents]
