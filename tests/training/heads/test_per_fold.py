"""Heads for each fold: held-out predictions, and training on mixed clips and clips with noisy labels."""

import numpy as np
import pytest

from spectag.config.recipe import Recipe
from spectag.data.folds import stratified_folds
from spectag.models.clip_windows import FrameWindows
from spectag.models.timeline import pool_logits
from spectag.scoring.metrics import lwlrap
from spectag.training.heads import per_fold
from spectag.training.heads.discriminant import DEFAULT_SHRINKAGE, fit_discriminant_heads
from spectag.training.heads.logistic import (
    DEFAULT_WEIGHT_DECAY,
    WEIGHT_DECAYS,
    WIDER_WEIGHT_DECAYS,
    PrincipalAxes,
    fit_heads,
)
from spectag.training.heads.name_prior import NamePrior
from spectag.training.heads.per_fold import (
    FrozenFeatures,
    HeadSettings,
    WindowFeatures,
    fit_linear_heads,
    relabel_noisy_clips,
)
from spectag.training.inputs.feature_store import PartFeatures
from spectag.training.inputs.mixed_clips import MixedClips
from spectag.training.setup.callbacks import Callbacks
from spectag.training.setup.cross_validation import CrossValidation
from spectag.training.setup.held_out import HeldOut
from spectag.training.setup.noisy_labels import DOUBTFUL_WEIGHT

SIZES = [3, 5]
N_CLIPS, N_FEATURES, N_LABELS = 60, 8, 3


class World:
    """Synthetic features, and labels that depend on them."""

    def __init__(self, rng):
        self.rng = rng
        self.coefficients = rng.normal(size=(N_FEATURES, N_LABELS))

    def clips(self, n_clips):
        features = self.rng.normal(size=(n_clips, N_FEATURES)).astype(np.float32)
        y_true = features @ self.coefficients + 0.5 * self.rng.normal(size=(n_clips, N_LABELS)) > 0.5
        return features, y_true


@pytest.fixture
def world(rng):
    return World(rng)


def held_out(*rows, is_single_split=False):
    return HeldOut(tuple(str(number) for number in range(1, len(rows) + 1)), rows, is_single_split, "")


FOLD = np.arange(N_CLIPS) % 3
FOLDS = held_out(*(number == FOLD for number in range(3)))
SPLIT = held_out(FOLD == 0, is_single_split=True)
NONE = held_out()


def fitted(features, y_true, choice, *, noisy=None, mixes=None, relabelled=None, lines=None, **recipe):
    data = FrozenFeatures(features, SIZES, noisy, mixes)
    cross_validation = CrossValidation.of(y_true, choice)
    cross_validation = cross_validation if relabelled is None else cross_validation.with_noisy(relabelled)
    callbacks = Callbacks() if lines is None else Callbacks(log=lines.append)
    return fit_linear_heads(data, cross_validation, Recipe(**recipe), callbacks)


# ------------------------------------------------------------------------------------------------ by L-BFGS


def test_held_out_logits_are_from_heads_not_trained_on_the_clip(world):
    features, y_true = world.clips(N_CLIPS)
    fit = fitted(features, y_true, FOLDS, weight_decay=1e-3, final_model="ensemble")
    assert len(fit.heads) == 4
    for number, head in enumerate(fit.heads[:3]):
        rows = number == FOLD
        (alone,) = fit_heads(features[~rows], y_true[~rows], SIZES, (1e-3,))
        np.testing.assert_allclose(fit.logits.chosen[rows], alone.logits(features[rows]), atol=1e-3)
        np.testing.assert_allclose(head.logits(features[rows]), fit.logits.chosen[rows], atol=1e-3)
    (all_clips,) = fit_heads(features, y_true, SIZES, (1e-3,))
    np.testing.assert_allclose(fit.heads[3].logits(features), all_clips.logits(features), atol=1e-2)


def test_labels_of_held_out_clips_do_not_change_their_predictions(world):
    features, y_true = world.clips(N_CLIPS)
    spoilt = np.where((FOLD == 0)[:, np.newaxis], ~y_true, y_true)
    first, other = (fitted(features, labels, FOLDS, weight_decay=1e-3).logits.chosen for labels in (y_true, spoilt))
    np.testing.assert_array_equal(first[FOLD == 0], other[FOLD == 0])
    assert (first[FOLD == 1] != other[FOLD == 1]).all()


def test_single_split_has_one_head_and_no_logits_for_training_clips(world):
    features, y_true = world.clips(N_CLIPS)
    fit = fitted(features, y_true, SPLIT)
    assert len(fit.heads) == 1
    assert np.isnan(fit.logits.chosen[FOLD > 0]).all()
    assert np.isfinite(fit.logits.chosen[FOLD == 0]).all()


def test_settings_of_the_head_are_the_best_on_held_out_clips_and_used_for_all_clips(world):
    features, y_true = world.clips(N_CLIPS)
    lines = []
    fit = fitted(features, y_true, FOLDS, lines=lines, classifier="logistic")
    cross_validation = CrossValidation.of(y_true, FOLDS)
    scores = {
        decay: cross_validation.score(fitted(features, y_true, FOLDS, weight_decay=decay).logits.chosen)
        for decay in WEIGHT_DECAYS
    }
    assert cross_validation.score(fit.logits.chosen) == max(scores.values())
    assert len(set(scores.values())) > 1
    best = max(scores, key=scores.get)
    assert lines == [f"head: logistic regression with weight decay {best:g}, the best of 5 settings on held-out clips"]
    expected = fit_heads(features, y_true, SIZES, (best,))[0].logits(features)
    np.testing.assert_allclose(fit.heads[-1].logits(features), expected, atol=1e-2)


def test_held_out_logits_of_lda_are_those_of_its_heads(world):
    features, y_true = world.clips(N_CLIPS)
    lines = []
    fit = fitted(features, y_true, FOLDS, final_model="ensemble", lines=lines)
    assert lines[0].startswith("head: LDA with shrinkage")
    for number, head in enumerate(fit.heads[:3]):
        rows = number == FOLD
        np.testing.assert_allclose(head.logits(features[rows]), fit.logits.chosen[rows], atol=1e-4)


def prior_of(weights):
    n_labels = weights.shape[1]
    names = {f"label {index}": ("name",) for index in range(n_labels)}
    return NamePrior(names, weights, np.zeros(n_labels), np.ones(n_labels, bool))


@pytest.mark.parametrize("is_right", [True, False])
def test_prior_is_used_only_if_it_ranks_labels_rightly(rng, is_right):
    y_true = np.eye(3, dtype=bool)[rng.integers(3, size=N_CLIPS)]
    features = np.column_stack([y_true + 0.5 * rng.normal(size=(N_CLIPS, 3)), rng.normal(size=(N_CLIPS, 5))])
    prior = prior_of(np.eye(N_FEATURES, 3) * (1 if is_right else -1))
    data = FrozenFeatures(features.astype(np.float32), SIZES, prior=prior)
    lines = []
    fit_linear_heads(data, CrossValidation.of(y_true, FOLDS), Recipe(), Callbacks(log=lines.append))
    assert not [line for line in lines if line.startswith("left out of these")]
    names = [line for line in lines if line.startswith("labels that the network knows by name")]
    assert any(line.endswith("does not help: not used") for line in lines) != is_right
    assert len(names) == is_right, "a prior without effect is not worth a list of names"
    for line in names:
        weight, _, labels = line.rpartition("weight ")[2].partition(": ")
        assert labels == "label 0 ← name; label 1 ← name; label 2 ← name"
        assert float(weight) > 0


def test_logits_of_the_parts_of_long_clips_are_pooled_after_the_prior_is_added(world, rng):
    features, y_true = world.clips(N_CLIPS)
    parts = {row: PartFeatures(rng.normal(size=(3, N_FEATURES)).astype(np.float32), np.ones(3)) for row in (4, 7, 20)}
    for row, part in parts.items():
        features[row] = part.mean()
    data = FrozenFeatures(features, SIZES, parts=parts, prior=prior_of(rng.normal(size=(N_FEATURES, N_LABELS))))
    fit = fit_linear_heads(data, CrossValidation.of(y_true, FOLDS), Recipe(final_model="ensemble"), Callbacks())
    for number, head in enumerate(fit.heads[:3]):
        rows = number == FOLD
        np.testing.assert_allclose(data.logits(head.logits, rows), fit.logits.chosen[rows], atol=1e-6)


def test_score_with_a_prior_is_that_of_a_guess_on_noise():
    """The best of several weights of a prior scores too high, and the cross-fitted one does not."""
    scores = []
    for seed in range(30):
        noise = np.random.default_rng(seed)
        y_true = np.eye(3, dtype=bool)[noise.integers(3, size=N_CLIPS)]
        features = noise.normal(size=(N_CLIPS, N_FEATURES)).astype(np.float32)
        prior = prior_of(noise.normal(size=(N_FEATURES, 3)))
        parts = CrossValidation.of(y_true, held_out(noise.permutation(FOLD) == 0, is_single_split=True))
        logits = fit_linear_heads(FrozenFeatures(features, SIZES, prior=prior), parts, Recipe(), Callbacks()).logits
        scores.append([parts.score(logits.chosen), parts.score(parts.cross_fitted(logits))])
    (best, honest), (_, error) = np.mean(scores, axis=0), np.std(scores, axis=0) / len(scores) ** 0.5
    assert best > honest
    assert honest == pytest.approx(np.mean(1 / np.arange(1, 4)), abs=3 * error)


@pytest.mark.parametrize("n_labels", [20, 80])
def test_held_out_score_of_noise_is_that_of_new_clips(n_labels):
    """Folds are balanced by label, so a head must not know how many clips a label has."""
    excesses = []
    for seed in range(6):
        noise = np.random.default_rng(seed)
        y_true = np.eye(n_labels, dtype=bool)[noise.integers(n_labels, size=300)]
        features = noise.normal(size=(300, 50)).astype(np.float32)
        folds = stratified_folds(y_true, 5, seed=seed)
        cross_validation = CrossValidation.of(y_true, held_out(*(folds == number for number in range(1, 6))))
        fit = fit_linear_heads(FrozenFeatures(features, [50]), cross_validation, Recipe(), Callbacks())
        new = np.eye(n_labels, dtype=bool)[noise.integers(n_labels, size=2000)]
        new_logits = fit.heads[-1].logits(noise.normal(size=(2000, 50)).astype(np.float32))
        score = cross_validation.score(cross_validation.cross_fitted(fit.logits))
        excesses.append(score - lwlrap(new, new_logits))
    assert abs(np.mean(excesses)) < 3 * np.std(excesses, ddof=1) / len(excesses) ** 0.5


def tried(lines):
    """The chosen weight decay, and how many settings it was chosen from."""
    best, _, rest = lines[0].removeprefix("head: logistic regression with weight decay ").partition(", the best of ")
    return float(best), int(rest.split()[0])


@pytest.mark.parametrize(("n_features", "noise"), [(8, 0.0), (30, 3.0)], ids=["exact labels", "noisy labels"])
def test_weight_decays_beyond_the_end_are_tried_until_the_best_is_not_at_the_end(rng, n_features, noise):
    """Labels that follow the features exactly need a weight decay below 1e-4, noisy ones one above 1e-2."""
    features = rng.normal(size=(240, n_features)).astype(np.float32)
    signal = features @ rng.normal(size=(n_features, 6))
    y_true = signal + noise * signal.std() * rng.normal(size=signal.shape) > 0.5 * signal.std() * (1 + noise)
    lines = []
    rows = [np.arange(240) % 3 == number for number in range(3)]
    fit = fit_linear_heads(
        FrozenFeatures(features, [n_features]),
        CrossValidation.of(y_true, held_out(*rows)),
        Recipe(classifier="logistic"),
        Callbacks(log=lines.append),
    )
    best, n_tried = tried(lines)
    assert not WEIGHT_DECAYS[0] > best > WEIGHT_DECAYS[-1]
    assert n_tried == len(WEIGHT_DECAYS) + n_steps_beyond(best) + 1  # the last one is worse
    (expected,) = fit_heads(features, y_true, [n_features], (best,))
    np.testing.assert_allclose(fit.heads[-1].logits(features), expected.logits(features), atol=0.05)


def n_steps_beyond(decay):
    position, first = WIDER_WEIGHT_DECAYS.index(decay), WIDER_WEIGHT_DECAYS.index(WEIGHT_DECAYS[0])
    return max(first - position, position - first - len(WEIGHT_DECAYS) + 1)


def test_best_settings_at_the_end_of_all_that_are_tried_are_reported(world, monkeypatch):
    features, y_true = world.clips(N_CLIPS)
    lines = []
    monkeypatch.setattr(per_fold, "WIDER_WEIGHT_DECAYS", (10.0, 1e-3))
    monkeypatch.setitem(per_fold._COMPARED, "logistic", [HeadSettings(weight_decay=decay) for decay in (10.0, 1e-3)])
    monkeypatch.setitem(per_fold._SMALLEST, HeadSettings(weight_decay=1e-3), "the smallest one")
    fit = fitted(features, y_true, FOLDS, lines=lines, classifier="logistic")
    assert tried(lines) == (1e-3, 2)
    assert lines[1] == "the best head has the smallest one"
    alone = fitted(features, y_true, FOLDS, weight_decay=1e-3)
    np.testing.assert_allclose(fit.logits.chosen, alone.logits.chosen, atol=1e-3)


def test_equally_good_weight_decays_are_not_extended(world):
    """Two clips of each label, perfectly separated: every weight decay has the score 1, and the strongest is used."""
    y_true = np.eye(3, dtype=bool)[np.arange(N_CLIPS) % 3]
    features = (10 * np.repeat(y_true, 3, axis=1)[:, :N_FEATURES]).astype(np.float32)
    folds = held_out(*(np.arange(N_CLIPS) // 20 == k for k in range(3)))
    lines = []
    fitted(features, y_true, folds, lines=lines, classifier="logistic")
    assert tried(lines) == (WEIGHT_DECAYS[0], len(WEIGHT_DECAYS))


def test_scores_of_a_choice_among_heads_on_noise_are_those_of_a_guess():
    """The best of the weight decays scores too high on the clips that it was chosen on."""
    scores = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        y_true = np.eye(3, dtype=bool)[rng.integers(3, size=N_CLIPS)]
        features = rng.normal(size=(N_CLIPS, N_FEATURES)).astype(np.float32)
        parts = CrossValidation.of(y_true, held_out(rng.permutation(FOLD) == 0, is_single_split=True))
        logits = fit_linear_heads(FrozenFeatures(features, SIZES), parts, Recipe(), Callbacks()).logits
        scores.append([parts.score(logits.chosen), parts.score(parts.cross_fitted(logits))])
    (best, honest), (_, error) = np.mean(scores, axis=0), np.std(scores, axis=0) / len(scores) ** 0.5
    assert best > honest
    assert honest == pytest.approx(np.mean(1 / np.arange(1, 4)), abs=3 * error)


@pytest.mark.parametrize("choice", [NONE, SPLIT], ids=["none held out", "none with a label held out"])
def test_default_shrinkage_without_labelled_held_out_clips(world, choice):
    features, y_true = world.clips(N_CLIPS)
    y_true[FOLD == 0] = False
    lines = []
    fit = fitted(features, y_true, choice, classifier="lda", lines=lines)
    rows = CrossValidation.of(y_true, choice).folds[0].train
    training = PrincipalAxes.of(features[rows], SIZES)
    expected = fit_discriminant_heads(training, y_true[rows], [DEFAULT_SHRINKAGE])[0].logits(features)
    np.testing.assert_allclose(fit.heads[0].logits(features), expected, atol=1e-2)
    assert not lines


def test_requested_weight_decay_is_used(world):
    features, y_true = world.clips(N_CLIPS)
    lines = []
    weak, strong = (
        fitted(features, y_true, FOLDS, weight_decay=decay, lines=lines).heads[-1] for decay in (1e-3, 10.0)
    )
    assert np.linalg.norm(strong.weights) < 0.01 * np.linalg.norm(weak.weights)
    assert not lines


# ------------------------------------------------------------------------------------------------ mixed clips


def mixes_of(world, parents):
    features, _ = world.clips(len(parents))
    targets = world.rng.random((len(parents), N_LABELS)) < 0.5
    return MixedClips(features, targets.astype(np.float32), np.array(parents))


def test_fold_is_trained_only_on_mixes_of_two_of_its_clips(world):
    """Clips 0 and 3 are in the first fold, 1 and 4 in the second."""
    features, y_true = world.clips(N_CLIPS)
    mixes = mixes_of(world, [(0, 3), (0, 1), (1, 4)])
    data = FrozenFeatures(features, SIZES, mixed=mixes)
    cross_validation = CrossValidation.of(y_true, FOLDS)
    for fold, within in zip(cross_validation.trainings, ([2], [0], [0, 1, 2], [0, 1, 2]), strict=True):
        train, targets, weights = data.training_arrays(fold, y_true)
        np.testing.assert_array_equal(train, np.concatenate([features[fold.train], mixes.features[within]]))
        np.testing.assert_array_equal(targets, np.concatenate([y_true[fold.train], mixes.targets[within]]))
        assert (weights == 1).all()


def test_mixed_clips_are_trained_on_like_other_clips(world):
    features, y_true = world.clips(N_CLIPS)
    mixes = mixes_of(world, [(0, 1)] * 20)
    fit = fitted(features, y_true, NONE, mixes=mixes, weight_decay=1e-3)
    together = np.concatenate([features, mixes.features]), np.concatenate([y_true, mixes.targets > 0.5])
    expected = fit_heads(*together, SIZES, (1e-3,))[0].logits(features)
    np.testing.assert_allclose(fit.heads[0].logits(features), expected, atol=1e-2)


# ------------------------------------------------------------------------------------------------ noisy clips


def with_noisy(world, *, wrong=0.4, n_noisy=200, choice=FOLDS, **noisy_labels):
    """Clips, and noisy clips of which a fraction has the labels of another clip, relabelled."""
    features, y_true = world.clips(N_CLIPS)
    noisy, truth = world.clips(n_noisy)
    is_wrong = world.rng.random(n_noisy) < wrong
    given = np.where(is_wrong[:, np.newaxis], truth[world.rng.permutation(n_noisy)], truth)
    data = FrozenFeatures(features, SIZES, noisy)
    cross_validation = CrossValidation.of(y_true, choice)
    relabelled = relabel_noisy_clips(data, given, cross_validation, Recipe(noisy_labels=noisy_labels))
    return features, y_true, noisy, truth, given, relabelled


def test_each_training_has_its_own_targets_and_they_are_closer_to_the_truth(world):
    *_, truth, given, relabelled = with_noisy(world)
    assert len(relabelled) == 4
    assert len({result.targets.tobytes() for result in relabelled}) == 4
    for result in relabelled:
        assert np.abs(result.targets - truth).mean() < 0.7 * np.abs(given.astype(float) - truth).mean()
        assert (result.targets[result.agrees] == given[result.agrees]).all()


def test_noisy_targets_of_a_fold_do_not_depend_on_its_held_out_labels(world):
    """The labels of a fold do not change the head that predicts the noisy clips for it."""
    features, y_true = world.clips(N_CLIPS)
    noisy, given = world.clips(40)
    data = FrozenFeatures(features, SIZES, noisy)
    spoilt = np.where((FOLD == 0)[:, np.newaxis], False, y_true)
    relabelled = [
        relabel_noisy_clips(data, given, CrossValidation.of(labels, SPLIT), Recipe()) for labels in (y_true, spoilt)
    ]
    heads = [fitted(features, labels, SPLIT, weight_decay=DEFAULT_WEIGHT_DECAY).heads[0] for labels in (y_true, spoilt)]
    np.testing.assert_array_equal(*(head.logits(noisy) for head in heads))
    assert (
        relabelled[0][0].targets != relabelled[1][0].targets
    ).any()  # only the calibration of the predictions changes


@pytest.mark.parametrize(("method", "doubtful_weight"), [("relabel", DOUBTFUL_WEIGHT), ("select", 0.0)])
def test_noisy_label_settings_have_an_effect(world, method, doubtful_weight):
    features, y_true, noisy, _, given, relabelled = with_noisy(
        world, choice=NONE, method=method, per_label=20, weight=0.5
    )
    (result,) = relabelled
    kept = result.agrees & ~result.over_limit
    np.testing.assert_allclose(result.weights, 0.5 * np.where(kept, 1.0, np.where(result.agrees, 0.0, doubtful_weight)))
    assert result.over_limit.any()
    _, targets, weights = FrozenFeatures(features, SIZES, noisy).training_arrays(
        CrossValidation.of(y_true, NONE).with_noisy(relabelled).folds[0], y_true
    )
    assert (weights > 0).all()
    assert len(targets) == len(weights) == N_CLIPS + (result.weights > 0).sum()
    assert (given[kept].sum(axis=0) <= 20).all()


def test_noisy_clips_are_trained_on_with_their_weights(world):
    features, y_true, noisy, _, _, relabelled = with_noisy(world)
    fit = fitted(features, y_true, FOLDS, noisy=noisy, relabelled=relabelled, weight_decay=1e-3)
    assert fit.logits.chosen.shape == y_true.shape
    for number in range(3):
        rows, result = number == FOLD, relabelled[number]
        kept = result.weights > 0
        (expected,) = fit_heads(
            np.concatenate([features[~rows], noisy[kept]]),
            np.concatenate([y_true[~rows], result.targets[kept]]),
            SIZES,
            (1e-3,),
            clip_weights=np.concatenate([np.ones((~rows).sum()), result.weights[kept]]),
        )
        np.testing.assert_allclose(fit.logits.chosen[rows], expected.logits(features[rows]), atol=1e-3)


def test_noisy_clips_count_once_by_their_weight_also_beside_mixed_clips(world):
    features, y_true, noisy, _, _, relabelled = with_noisy(world)
    mixes = mixes_of(world, [(0, 3), (1, 4), (2, 5)])
    cross_validation = CrossValidation.of(y_true, FOLDS).with_noisy(relabelled)
    for fold in cross_validation.trainings:
        _, _, weights = FrozenFeatures(features, SIZES, noisy, mixes).training_arrays(fold, y_true)
        n_mixed = mixes.within(fold.train).sum()
        assert weights.sum() - fold.train.sum() - n_mixed == pytest.approx(fold.noisy.weights.sum())


def test_noisy_clips_improve_a_model_of_few_clips(world):
    features, y_true, noisy, _, _, relabelled = with_noisy(world, n_noisy=400)
    new, new_truth = world.clips(2000)
    without = fitted(features, y_true, FOLDS, weight_decay=1e-3).heads[-1]
    with_them = fitted(features, y_true, FOLDS, noisy=noisy, relabelled=relabelled, weight_decay=1e-3).heads[-1]
    errors = [((head.logits(new) > 0) != new_truth).mean() for head in (without, with_them)]
    assert errors[1] < errors[0]


class WindowedWorld:
    """Clips with noise, and a window of each without it; or with much more noise."""

    def __init__(self, world, rng, *, is_clear):
        pure, self.y_true = world.clips(N_CLIPS)
        noise = rng.normal(size=pure.shape)
        self.features = (pure + noise).astype(np.float32)
        self.of_windows = (4 * pure if is_clear else pure + 20 * noise).astype(np.float32)
        self.data = FrozenFeatures(self.features, SIZES, windows=WindowFeatures(FrameWindows(10, 5, 0.5), self.of_clip))

    def of_clip(self, row):
        rows = slice(row, row + 1)
        return PartFeatures(self.features[rows], np.ones(1, np.float32), (self.of_windows[rows],))


@pytest.mark.parametrize("is_clear", [True, False])
def test_windows_are_used_if_held_out_clips_are_better_with_them(world, rng, is_clear):
    windowed, lines = WindowedWorld(world, rng, is_clear=is_clear), []
    cross_validation = CrossValidation.of(windowed.y_true, FOLDS)
    fit = fit_linear_heads(windowed.data, cross_validation, Recipe(final_model="ensemble"), Callbacks(log=lines.append))
    assert [head.windows is not None for head in fit.heads] == [is_clear] * len(fit.heads)
    assert sum("the network listens to each clip" in line for line in lines) == 1
    for number, head in enumerate(fit.heads[:3]):
        rows = number == FOLD
        expected = windowed.data.logits(head.logits, rows, head.windows)
        np.testing.assert_allclose(fit.logits.chosen[rows], expected, atol=1e-6)


def test_parts_of_long_clips_are_pooled_after_their_windows(rng):
    head = lambda features: features  # noqa: E731 - the features are the logits
    parts = rng.normal(size=(2, 3)).astype(np.float32)
    windows = tuple(rng.normal(size=(n, 3)).astype(np.float32) for n in (4, 1))
    pool, seconds = FrameWindows(10, 5, 0.5), np.array([60.0, 20.0], np.float32)
    expected = pool_logits([pool.pool(*pair) for pair in zip(parts, windows, strict=True)], seconds)
    np.testing.assert_allclose(PartFeatures(parts, seconds, windows).logits(head, pool), expected)


@pytest.mark.parametrize("knows_names", [True, False])
def test_without_held_out_clips_the_kind_of_head_depends_on_the_names_that_the_network_knows(world, rng, knows_names):
    features, y_true = world.clips(N_CLIPS)
    prior = prior_of(rng.normal(size=(N_FEATURES, N_LABELS))) if knows_names else None
    data, cross_validation = FrozenFeatures(features, SIZES, prior=prior), CrossValidation.of(y_true, NONE)
    expected = Recipe(classifier="lda" if knows_names else "logistic")
    [head], [same] = (fit_linear_heads(data, cross_validation, r, Callbacks()).heads for r in (Recipe(), expected))
    np.testing.assert_array_equal(head.weights, same.weights)


def test_heads_that_are_too_large_to_be_kept_are_fitted_again_for_windows(world, rng, monkeypatch):
    windowed, fits = WindowedWorld(world, rng, is_clear=True), []
    cross_validation = CrossValidation.of(windowed.y_true, FOLDS)
    for limit in (per_fold._MAX_KEPT_VALUES, 0):
        monkeypatch.setattr(per_fold, "_MAX_KEPT_VALUES", limit)
        fits.append(fit_linear_heads(windowed.data, cross_validation, Recipe(), Callbacks()))
    kept, again = fits
    np.testing.assert_array_equal(kept.logits.chosen, again.logits.chosen)
    np.testing.assert_array_equal(kept.window_logits.logits, again.window_logits.logits)


def test_held_out_logits_of_windows_are_those_of_the_heads_of_their_folds(world, rng):
    windowed = WindowedWorld(world, rng, is_clear=True)
    fit = fit_linear_heads(
        windowed.data, CrossValidation.of(windowed.y_true, FOLDS), Recipe(final_model="ensemble"), Callbacks()
    )
    np.testing.assert_array_equal(fit.window_logits.clips, np.arange(N_CLIPS))
    for number, head in enumerate(fit.heads[:3]):
        rows = np.flatnonzero(number == FOLD)
        np.testing.assert_allclose(fit.window_logits.logits[rows], head.logits(windowed.of_windows[rows]), atol=1e-6)
