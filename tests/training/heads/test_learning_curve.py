"""Learning curves: what is drawn, what is predicted, and when there is none."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectag.config.recipe import Recipe
from spectag.data.folds import stratified_folds
from spectag.scoring.model_selection import HeldOutLogits
from spectag.training.heads import learning_curve as module
from spectag.training.heads.learning_curve import draw_recordings, extrapolate, learning_curve
from spectag.training.heads.logistic import LinearHead, Standardization
from spectag.training.heads.name_prior import NamePrior
from spectag.training.heads.per_fold import FrozenFeatures, HeadFit, fit_linear_heads
from spectag.training.inputs.mixed_clips import MixedClips
from spectag.training.setup.callbacks import Callbacks
from spectag.training.setup.cross_validation import CrossValidation
from spectag.training.setup.held_out import HeldOut
from spectag.training.setup.noisy_labels import LabelRates, Relabelled

N_FEATURES, N_LABELS = 40, 8


class World:
    """Clips of recordings: features are those of the label, the recording and the clip."""

    def __init__(self, rng):
        self.rng = rng
        self.means = rng.normal(size=(N_LABELS, N_FEATURES))

    def clips(self, n_recordings, n_clips_each=2):
        """Features, labels and recordings; `n_recordings` of each label."""
        recordings = np.repeat(np.arange(N_LABELS * n_recordings), n_clips_each)
        labels = recordings % N_LABELS
        of_recording = 2.0 * self.rng.normal(size=(N_LABELS * n_recordings, N_FEATURES))
        features = self.means[labels] + of_recording[recordings] + self.rng.normal(size=(len(labels), N_FEATURES))
        return features.astype(np.float32), np.eye(N_LABELS, dtype=bool)[labels], recordings


@pytest.fixture
def world(rng):
    return World(rng)


def folds_of(y_true, recordings, n_folds=4, **held_out):
    folds = stratified_folds(y_true, n_folds, groups=recordings)
    rows = tuple(folds == number for number in range(1, n_folds + 1))
    groups = tuple(f"recording {number}" for number in recordings)
    names = tuple(map(str, range(n_folds)))
    return CrossValidation.of(y_true, HeldOut(names, rows, False, "", groups=groups, **held_out))


def curve_of(features, y_true, recordings, *, data=None, cross_validation=None, **recipe):
    data = data or FrozenFeatures(features, [N_FEATURES])
    cross_validation = cross_validation or folds_of(y_true, recordings)
    fit = fit_linear_heads(data, cross_validation, Recipe(**recipe), Callbacks())
    return learning_curve(data, cross_validation, fit, seed=1)


# ------------------------------------------------------------------------------------------------ what is drawn


@given(seed=st.integers(0, 10_000), n_labels=st.integers(1, 5), fraction=st.sampled_from([0.25, 0.5]))
def test_whole_recordings_are_drawn_and_no_label_loses_all(seed, n_labels, fraction):
    rng = np.random.default_rng(seed)
    recordings, y_true = rng.integers(20, size=60), rng.random((60, n_labels)) < 0.2
    drawn = draw_recordings(y_true, recordings, fraction, rng)
    assert not set(recordings[drawn]) & set(recordings[~drawn])
    np.testing.assert_array_equal(y_true[drawn].any(axis=0), y_true.any(axis=0))


@pytest.mark.parametrize("fraction", [0.25, 0.5])
def test_fraction_holds_for_each_label_and_on_average_if_it_is_no_whole_number(rng, fraction):
    recordings = np.repeat(np.arange(26), 2)
    y_true = np.array([recordings < 16, (recordings >= 16) & (recordings < 26)]).T  # 16 and 10 recordings
    draws = [draw_recordings(y_true, recordings, fraction, rng) for _ in range(400)]
    counts = np.array([[len(set(recordings[drawn & has_label])) for has_label in y_true.T] for drawn in draws])
    assert (counts[:, 0] == 16 * fraction).all()
    assert counts[:, 1].mean() == pytest.approx(10 * fraction, abs=0.1)


def test_clips_without_labels_are_drawn_like_those_of_a_label(rng):
    y_true = np.zeros((40, 1), bool)
    y_true[:8] = True
    drawn = draw_recordings(y_true, np.arange(40), 0.25, rng)
    assert (drawn[:8].sum(), drawn[8:].sum()) == (2, 8)


# ------------------------------------------------------------------------------------------------ what is predicted


@pytest.mark.parametrize("exponent", [-0.2, -0.5, -1.0])
def test_error_that_is_a_power_of_the_number_of_recordings_is_continued(exponent):
    fractions = np.array([0.3, 0.5, 1.0])
    assert extrapolate(fractions, 1 - 0.2 * fractions**exponent) == pytest.approx(1 - 0.2 * 2**exponent)


@pytest.mark.parametrize("scores", [[0.9, 0.8, 0.7], [1.0, 1.0, 1.0], [1.0, 1.0, 0.95], [0.5, 0.5, 0.5]])
def test_score_that_does_not_grow_stays(scores):
    assert extrapolate([0.25, 0.5, 1.0], scores) == pytest.approx(scores[-1])


def test_prediction_is_near_the_score_with_twice_as_many_recordings():
    errors, gains = [], []
    for seed in range(5):
        features, y_true, recordings = World(np.random.default_rng(seed)).clips(24, n_clips_each=1)
        half = recordings < N_LABELS * 12
        smaller, larger = (
            curve_of(features[half], y_true[half], recordings[half]),
            curve_of(features, y_true, recordings),
        )
        errors.append(smaller.expected - larger.scores[-1])
        gains.append(larger.scores[-1] - smaller.scores[-1])
    assert np.mean(gains) > 0.02
    assert abs(np.mean(errors)) < 0.5 * np.mean(gains)


# ------------------------------------------------------------------------------------------------ the curve


def test_last_point_is_the_score_that_training_reports_and_the_curve_rises(world):
    features, y_true, recordings = world.clips(16)
    data, cross_validation = FrozenFeatures(features, [N_FEATURES]), folds_of(y_true, recordings)
    fit = fit_linear_heads(data, cross_validation, Recipe(), Callbacks())
    curve = learning_curve(data, cross_validation, fit, seed=1)
    assert curve.fractions == pytest.approx((0.25, 0.5, 1.0), abs=0.02)
    assert curve.scores[-1] == cross_validation.score(cross_validation.cross_fitted(fit.logits))
    assert list(curve.scores) == sorted(curve.scores)
    assert curve == learning_curve(data, cross_validation, fit, seed=1)
    assert curve.to_dict()["expected"] == curve.expected > curve.scores[-1]


def spied(cross_validation):
    """The trainings for the learning curve."""
    y_true, trainings = cross_validation.y_true, []
    head = LinearHead(
        Standardization(np.zeros(1), np.ones(1)), np.ones((1, y_true.shape[1])), np.zeros(y_true.shape[1])
    )

    def refit(fold, part):
        trainings.append((fold, part))
        return head

    fit = HeadFit((head,), HeldOutLogits(np.zeros(y_true.shape)), refit=refit)
    learning_curve(FrozenFeatures(np.ones((len(y_true), 1), np.float32), [1]), cross_validation, fit, seed=1)
    return trainings


def test_fold_is_trained_on_none_of_the_clips_that_it_leaves_out(world):
    _, y_true, recordings = world.clips(16)
    plain = folds_of(y_true, recordings)
    left_out = tuple(np.roll(fold.valid, 2) & ~fold.valid for fold in plain.folds)
    purged = folds_of(y_true, recordings, left_out=left_out)
    trainings = spied(purged)
    assert len(trainings) == 8
    by_name = {fold.name: fold for fold in purged.folds}
    for fold, part in trainings:
        assert not (fold.train & ~by_name[fold.name].train).any()
        assert (purged.parts[fold.valid] == part).all()


def test_each_part_of_a_single_split_is_predicted_with_settings_chosen_without_it(world):
    _, y_true, recordings = world.clips(16)
    valid = recordings % 5 == 0
    groups = tuple(map(str, recordings))
    split = CrossValidation.of(y_true, HeldOut(("valid",), (valid,), True, "", groups=groups))
    assert [part for _, part in spied(split)] == 2 * list(range(split.n_parts))


def test_prior_is_part_of_the_curve(world):
    """A prior that knows the labels is as good with few recordings."""
    features, y_true, recordings = world.clips(8)
    names = {str(label): ("name",) for label in range(N_LABELS)}
    prior = NamePrior(names, world.means.T, np.zeros(N_LABELS), np.ones(N_LABELS, bool))
    data = FrozenFeatures(features, [N_FEATURES], prior=prior)
    with_prior = curve_of(features, y_true, recordings, data=data)
    assert with_prior.scores[0] > curve_of(features, y_true, recordings).scores[0] + 0.1


def test_mixed_clips_and_clips_with_noisy_labels_are_trained_on(world):
    features, y_true, recordings = world.clips(8)
    noisy, noisy_labels, _ = world.clips(30)
    parents = world.rng.integers(len(features), size=(50, 2))
    targets = (y_true[parents[:, 0]] | y_true[parents[:, 1]]).astype(np.float32)
    mixed = MixedClips(features[parents].mean(axis=1), targets, parents)
    cross_validation = folds_of(y_true, recordings)
    all_noisy, none = np.ones(len(noisy), bool), np.zeros(len(noisy), bool)
    relabelled = Relabelled(noisy_labels.astype(float), np.ones(len(noisy)), all_noisy, none, LabelRates(1, 0))
    with_noisy = cross_validation.with_noisy([relabelled] * 5)
    data = FrozenFeatures(features, [N_FEATURES], noisy, mixed)
    curve = curve_of(features, y_true, recordings, data=data, cross_validation=with_noisy)
    without = curve_of(features, y_true, recordings, data=replace(data, mixed=None))
    assert curve.scores[0] > without.scores[0]


@pytest.mark.parametrize("classifier", ["lda", "logistic"])
def test_one_recording_a_label_to_train_on_gives_no_curve(world, classifier):
    features, y_true, recordings = world.clips(2)
    halves = folds_of(y_true, recordings, 2)
    assert curve_of(features, y_true, recordings, cross_validation=halves, classifier=classifier) is None


def test_two_or_three_recordings_a_label_give_the_fractions_that_are_possible(world):
    features, y_true, recordings = world.clips(3)
    thirds = folds_of(y_true, recordings, 3)
    assert curve_of(features, y_true, recordings, cross_validation=thirds).fractions == (0.5, 1.0)


def test_no_curve_without_held_out_clips_or_with_many_clips(world, monkeypatch):
    features, y_true, recordings = world.clips(8)
    none = CrossValidation.of(y_true, HeldOut((), (), False, ""))
    assert curve_of(features, y_true, recordings, cross_validation=none) is None
    assert curve_of(features, y_true, recordings) is not None
    monkeypatch.setattr(module, "MAX_CLIPS", len(features))
    assert curve_of(features, y_true, recordings) is not None
    with_noisy = FrozenFeatures(features, [N_FEATURES], noisy=features[:1])
    assert curve_of(features, y_true, recordings, data=with_noisy) is None
