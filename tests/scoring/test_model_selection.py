"""Choices on held-out clips: pure chance must not be rewarded, and a part's labels must not matter for it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectag.scoring.metrics import lwlrap
from spectag.scoring.model_selection import HeldOutLogits, choose

N_CLIPS, N_LABELS = 60, 5
PARTS = np.arange(N_CLIPS) % 5


def noise(rng, n_candidates=30, n_clips=N_CLIPS):
    """Random labels, one for each clip, and candidates whose logits know nothing about them."""
    y_true = np.eye(N_LABELS, dtype=bool)[rng.integers(N_LABELS, size=n_clips)]
    return list(rng.normal(size=(n_candidates, n_clips, N_LABELS))), y_true


# ------------------------------------------------------------------------------------------------ scores


def test_best_of_many_guesses_scores_too_high_and_the_cross_fitted_choice_scores_like_a_guess(rng):
    """With one label of five, the expected lwlrap of a guess is the mean of 1, 1/2, ..., 1/5."""
    of_a_guess = np.mean(1 / np.arange(1, 6))
    best, cross_fitted = [], []
    for _ in range(60):
        candidates, y_true = noise(rng)
        logits = choose(candidates, y_true, PARTS, lwlrap).logits_of(candidates)
        best.append(lwlrap(y_true, logits.chosen))
        cross_fitted.append(lwlrap(y_true, logits.cross_fitted(PARTS)))
    standard_error = np.std(cross_fitted) / np.sqrt(len(cross_fitted))
    assert np.mean(best) > of_a_guess + 0.05
    assert np.mean(cross_fitted) == pytest.approx(of_a_guess, abs=3 * standard_error)
    assert standard_error < 0.01


def test_candidate_that_is_clearly_better_is_chosen_with_and_without_each_part(rng):
    candidates, y_true = noise(rng, n_candidates=4)
    candidates[2] += 3 * y_true
    choice = choose(candidates, y_true, PARTS, lwlrap)
    assert (choice.best, choice.best_without, choice.is_clear) == (2, (2,) * 5, True)
    np.testing.assert_array_equal(choice.logits_of(candidates).cross_fitted(PARTS), candidates[2])


@given(part=st.integers(0, 4), seed=st.integers(0, 99))
def test_labels_of_a_part_do_not_change_the_choice_for_it(part, seed):
    rng = np.random.default_rng(seed)
    candidates, y_true = noise(rng, n_candidates=5)
    spoilt = np.where((part == PARTS)[:, None], ~y_true, y_true)
    choices = [choose(candidates, labels, PARTS, lwlrap).best_without[part] for labels in (y_true, spoilt)]
    assert choices[0] == choices[1]


# ------------------------------------------------------------------------------------------------ special cases


def test_first_of_equals_is_chosen_and_is_not_clear(rng):
    candidates, y_true = noise(rng, n_candidates=1)
    choice = choose([candidates[0], 2 * candidates[0]], y_true, PARTS, lwlrap)
    assert (choice.best, choice.best_without, choice.is_clear) == (0, (0,) * 5, False)


def test_clips_that_are_not_held_out_play_no_role(rng):
    candidates, y_true = noise(rng)
    more = [np.vstack([logits, np.full((3, N_LABELS), np.nan)]) for logits in candidates]
    labels = np.vstack([y_true, np.ones((3, N_LABELS), bool)])
    parts = np.append(PARTS, [-1, -1, 0])
    choice, of_more = choose(candidates, y_true, PARTS, lwlrap), choose(more, labels, parts, lwlrap)
    assert (of_more.best, of_more.best_without) == (choice.best, choice.best_without)
    assert np.isnan(of_more.logits_of(more).cross_fitted(parts)[N_CLIPS:]).all()


def test_without_two_parts_there_is_only_the_choice_on_all_clips(rng):
    candidates, y_true = noise(rng)
    for parts in (np.zeros(N_CLIPS, int), np.full(N_CLIPS, -1)):
        choice = choose(candidates, y_true, parts, lambda truth, logits: lwlrap(truth, logits) if len(truth) else None)
        assert choice.best_without == ()
        np.testing.assert_array_equal(choice.logits_of(candidates).cross_fitted(parts), candidates[choice.best])


def test_choice_on_all_clips_stands_in_where_the_others_have_no_label(rng):
    candidates, y_true = noise(rng)
    y_true[PARTS > 0] = False
    choice = choose(candidates, y_true, PARTS, lambda *arrays: lwlrap(*arrays) if arrays[0].any() else None)
    assert choice.best_without[0] == choice.best


# ------------------------------------------------------------------------------------------------ scale


@given(scale=st.floats(0.01, 100), offset=st.floats(-50, 50))
def test_scale_and_offset_of_another_choice_do_not_change_its_cross_fitted_logits(scale, offset):
    chosen, other = np.random.default_rng(0).normal(size=(2, N_CLIPS, N_LABELS))
    plain, changed = (
        HeldOutLogits(chosen, (logits, *[chosen] * 4)).cross_fitted(PARTS) for logits in (other, scale * other + offset)
    )
    np.testing.assert_allclose(changed, plain, atol=1e-6)
    np.testing.assert_array_equal(plain[PARTS > 0], chosen[PARTS > 0])
    np.testing.assert_array_equal(plain[PARTS == 0].argsort(axis=1), other[PARTS == 0].argsort(axis=1))
