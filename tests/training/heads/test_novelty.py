"""Novelty: held-out clips of the training sounds stay below 1, other sounds do not."""

import numpy as np
import pytest

from spectag.models.novelty import KEPT_FRACTION, NoveltyModel
from spectag.training.heads.novelty import fit_directions, fit_novelty
from spectag.training.heads.per_fold import FrozenFeatures
from spectag.training.inputs.feature_store import PartFeatures
from spectag.training.setup.cross_validation import CrossValidation
from spectag.training.setup.held_out import HeldOut

N_CLIPS, N_UNUSED, N_USED = 400, 8, 40
FOLDS = np.arange(N_CLIPS) % 5


def make_clips(rng, y_true, *, labels=slice(None)):
    """Features around the sum of the centres of a clip's labels; the first ones say nothing."""
    centers = 3 * np.random.default_rng(7).normal(size=(8, N_USED))[labels]
    used = y_true @ centers[: y_true.shape[1]] + rng.normal(size=(len(y_true), N_USED))
    return np.hstack([100 * rng.normal(size=(len(y_true), N_UNUSED)), used]).astype(np.float32)


def single_labels(n_clips=N_CLIPS):
    return np.eye(4, dtype=bool)[np.arange(n_clips) // 5 % 4]


def data_of(features, **parts):
    return FrozenFeatures(features, [N_UNUSED, N_USED], **parts)


def folds_of(y_true, folds=FOLDS, groups=None):
    numbers = np.unique(folds) if folds is not None else ()
    rows = tuple(folds == number for number in numbers)
    return CrossValidation.of(y_true, HeldOut(tuple(map(str, numbers)), rows, False, "", groups=groups))


def test_new_clips_of_the_training_sounds_stay_below_one_and_others_do_not(rng):
    y_true = single_labels()
    model = fit_novelty(data_of(make_clips(rng, y_true)), folds_of(y_true))
    familiar = model(make_clips(rng, y_true))
    foreign = model(make_clips(rng, y_true, labels=slice(4, 8)))
    assert abs((familiar <= 1).mean() - KEPT_FRACTION) < 0.03
    assert (foreign > 1).mean() > 0.95
    assert model.n_held_out == N_CLIPS


def test_level_is_that_of_clips_that_the_model_is_not_fitted_on(rng):
    y_true = single_labels(40)
    data, folds = data_of(make_clips(rng, y_true)), folds_of(y_true, np.arange(40) % 5)
    in_sample = fit_directions(data.clips, y_true, n_used=N_USED).distances(data.clips)
    assert fit_novelty(data, folds).level > np.quantile(in_sample, KEPT_FRACTION)


def test_clip_with_two_labels_that_occur_together_is_not_novel(rng):
    y_true = single_labels()
    y_true[::2] |= np.roll(y_true[::2], 1, axis=1)
    model = fit_novelty(data_of(make_clips(rng, y_true)), folds_of(y_true))
    assert model.combinations.shape == (4, 4 + 4)
    assert np.allclose(np.linalg.norm(model.directions @ model.combinations, axis=0), 1)
    assert (model(make_clips(rng, y_true)) <= 1).mean() > 0.93
    separate = fit_directions(make_clips(rng, single_labels()), single_labels(), n_used=N_USED)
    pairs = make_clips(rng, y_true[::2])
    assert model.distances(pairs).mean() < separate.distances(pairs).mean() - 0.1


def test_clips_without_labels_are_training_sounds_too(rng):
    y_true = np.column_stack([single_labels()[:, :3], np.zeros(N_CLIPS, bool)])
    features = make_clips(rng, single_labels())  # the fourth sound is background
    model = fit_novelty(data_of(features), folds_of(y_true))
    assert (model(make_clips(rng, single_labels())[15:20]) <= 1).all()


def test_clips_whose_labels_are_unknown_are_not_taken_for_clips_without_labels(rng):
    targets = single_labels().astype(float)
    targets[::4] = np.where(targets[::4] == 1, np.nan, 0)
    model = fit_directions(make_clips(rng, single_labels()), targets, n_used=N_USED)
    assert model.directions.shape == (N_USED, 4)
    targets[0] = 0
    assert fit_directions(make_clips(rng, single_labels()), targets, n_used=N_USED).directions.shape == (N_USED, 5)


def test_loudness_of_features_does_not_matter(rng):
    y_true = single_labels()
    features = make_clips(rng, y_true)
    model = fit_directions(features, y_true, n_used=N_USED)
    center = np.concatenate([np.zeros(N_UNUSED), model.center])
    assert np.allclose(model.distances(center + 3 * (features - center)), model.distances(features), atol=1e-6)


def test_features_at_the_centre_and_constant_features_are_no_error(rng):
    y_true = single_labels(20)
    features = make_clips(rng, y_true)
    features[:, -1] = 5
    model = fit_novelty(data_of(features), folds_of(y_true, np.arange(20) % 5))
    center = np.concatenate([np.zeros(N_UNUSED), model.center])[None]
    assert np.isfinite(model(np.vstack([features, center]))).all()
    assert model.distances(center) == [1.0]


def test_copies_of_training_clips_give_no_level_of_zero(rng):
    y_true = np.tile(single_labels(20)[::5], (5, 1))
    features = np.tile(make_clips(rng, np.eye(4, dtype=bool)), (5, 1))
    model = fit_novelty(data_of(features), folds_of(y_true, np.arange(20) // 4))
    assert model.level > 0
    assert np.isfinite(model(features)).all()


def test_long_clip_has_the_smallest_novelty_of_its_parts(rng):
    y_true = single_labels()
    features = make_clips(rng, y_true)
    plain = fit_novelty(data_of(features), folds_of(y_true))
    foreign = make_clips(rng, y_true, labels=slice(4, 8))
    clips, seconds = features.copy(), np.array([60, 60], np.float32)
    rows = np.arange(0, N_CLIPS, 4)
    parts = {int(row): PartFeatures(np.stack([features[row], foreign[row]]), seconds) for row in rows}
    clips[rows] = [part.mean() for part in parts.values()]
    assert fit_novelty(data_of(clips, parts=parts), folds_of(y_true)).level < 1.3 * plain.level


def test_without_held_out_clips_folds_keep_recordings_together(rng):
    y_true = single_labels()
    features = make_clips(rng, y_true)
    groups = tuple(str(row // 5) for row in range(N_CLIPS))
    none = folds_of(y_true, None, groups)
    assert not any(fold.valid.any() for fold in none.folds)
    model = fit_novelty(data_of(features), none)
    assert (model(make_clips(rng, y_true)) <= 1).mean() > 0.9
    assert np.array_equal(fit_novelty(data_of(features), none).directions, model.directions)
    few = tuple(str(row // 5 % 8) for row in range(N_CLIPS))  # two recordings of each label
    assert fit_novelty(data_of(features), folds_of(y_true, None, few)) is None


def test_one_split_is_enough(rng):
    y_true = single_labels()
    split = HeldOut(("valid",), (FOLDS == 0,), True, "")
    model = fit_novelty(data_of(make_clips(rng, y_true)), CrossValidation.of(y_true, split))
    assert model.n_held_out == (FOLDS == 0).sum()


def test_novelty_by_hand():
    model = NoveltyModel(np.zeros(2), np.ones(2), np.array([[1.0, 0.0], [0.0, 1.0]]), np.eye(2), level=0.5)
    features = np.array([[9.0, 2.0, 0.0], [9.0, 3.0, 3.0], [9.0, -1.0, 0.0]])  # the first feature is not used
    assert model(features) == pytest.approx([0, 2 * (1 - np.sqrt(0.5)), 2])
