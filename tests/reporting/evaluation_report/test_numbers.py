import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.evaluations import random_predictions
from spectag.audio.spectrogram_drawing import frequency_ticks
from spectag.config.backbones import AUDIOSET_MEL
from spectag.data.clips import Clip
from spectag.data.labels import LabelSet
from spectag.evaluation.predictions import Predictions
from spectag.reporting.evaluation_report.clip_selection import (
    POSSIBLE_LABEL_ERROR,
    UNLIKELY_SUCCESS,
    shown_labels,
    surprising_clips,
    worst_clips,
)
from spectag.reporting.evaluation_report.confusion import count_confusions
from spectag.reporting.evaluation_report.curves import mean_curve, precision_recall
from spectag.reporting.evaluation_report.dot_tables import difference_scale, score_scale
from spectag.reporting.number_texts import difference_interval_text, interval_text, percent, score_text
from spectag.reporting.scales import Scale, round_numbers
from spectag.scoring.bootstrap import Estimate
from spectag.scoring.metrics import average_precision

SCORES = st.lists(st.tuples(st.booleans(), st.integers(0, 20)), min_size=1, max_size=400).filter(
    lambda pairs: any(truth for truth, _ in pairs)
)


def arrays(pairs):
    return np.array([truth for truth, _ in pairs]), np.array([value / 20 for _, value in pairs])


def make_predictions(y_true, probabilities, threshold=0.5, labels=("a", "b", "c")):
    y_true = np.array(y_true, bool)
    probabilities = np.array(probabilities, np.float32)
    names = labels[: y_true.shape[1]]
    clips = tuple(
        Clip(Path(f"{row}.wav"), f"{row}.wav", tuple(np.array(names)[truth])) for row, truth in enumerate(y_true)
    )
    return Predictions(
        clips,
        LabelSet(tuple(names)),
        y_true,
        probabilities,
        probabilities,
        np.full(y_true.shape, threshold, np.float32),
        ("unseen",) * len(clips),
        np.ones(len(clips)),
        None,
        (),
    )


@given(SCORES)
def test_area_under_a_curve_is_the_average_precision(pairs):
    truth, scores = arrays(pairs)
    expected = average_precision(truth[:, None], scores[:, None])[0]
    assert precision_recall(truth, scores).area == pytest.approx(expected, abs=1e-12)


@given(SCORES)
def test_thinned_curve_has_at_most_100_steps_and_the_same_area(pairs):
    curve = precision_recall(*arrays(pairs * 3))
    thinned = curve.thinned()
    assert len(thinned.precision) <= 100
    assert thinned.area == pytest.approx(curve.area, abs=1e-9)


def test_curve_of_few_clips_is_not_thinned():
    curve = precision_recall(np.array([True, False, True]), np.array([0.9, 0.5, 0.4]))
    assert curve.thinned() is curve
    assert curve.recall.tolist() == [0, 0.5, 1]
    assert curve.precision.tolist() == pytest.approx([1, 2 / 3])


def test_mean_curve_has_the_mean_area(rng):
    curves = [precision_recall(rng.random(50) < 0.3, rng.random(50)) for _ in range(7)]
    assert mean_curve(curves).area == pytest.approx(np.mean([curve.area for curve in curves]))


def test_confusions_match_hand_counts():
    y_true = np.array([[1, 0, 0], [1, 0, 0], [1, 1, 0], [0, 0, 1], [1, 0, 0]], bool)
    probabilities = np.array(
        [
            [0.2, 0.9, 0.1],  # a missed, b predicted: a confused with b
            [0.8, 0.9, 0.6],  # a predicted, b above it: confused with b; c predicted below a: not
            [0.9, 0.1, 0.8],  # b missed, c predicted: b confused with c; a is above c: not
            [0.1, 0.1, 0.3],  # c missed, nothing predicted
            [0.9, 0.1, 0.1],  # right
        ]
    )
    confusions = count_confusions(y_true, probabilities, probabilities >= 0.5)
    assert confusions.counts.tolist() == [[0, 2, 0], [0, 0, 1], [0, 0, 0]]
    assert confusions.n_clips.tolist() == [4, 1, 1]
    assert confusions.n_detected.tolist() == [3, 0, 0]
    assert confusions.n_nothing.tolist() == [0, 0, 1]
    assert confusions.pairs(5) == [(0, 1), (1, 2)]
    assert confusions.most_confused.tolist() == [1, 0, 2]


def test_missed_label_is_confused_with_a_less_probable_predicted_one():
    confusions = count_confusions(np.array([[True, False]]), np.array([[0.6, 0.3]]), np.array([[False, True]]))
    assert confusions.counts.tolist() == [[0, 1], [0, 0]]


def test_label_is_not_confused_with_itself_or_with_a_true_one(rng):
    y_true, probabilities = rng.random((300, 6)) < 0.3, rng.random((300, 6))
    confusions = count_confusions(y_true, probabilities, probabilities > 0.5)
    assert not confusions.counts.diagonal().any()
    all_true = count_confusions(np.ones((300, 6), bool), probabilities, probabilities > 0.5)
    assert not all_true.counts.any()


def test_clip_of_a_label_is_detected_or_missed_and_nothing_is_counted(rng):
    y_true, probabilities = np.eye(6, dtype=bool)[rng.integers(6, size=400)], rng.random((400, 6))
    predicted = probabilities > 0.7
    confusions = count_confusions(y_true, probabilities, predicted)
    for label in range(6):
        rows = y_true[:, label]
        missed = rows & ~predicted[:, label]
        assert confusions.n_detected[label] + missed.sum() == rows.sum()
        assert confusions.n_nothing[label] == (missed & ~predicted.any(axis=1)).sum()


def test_worst_clip_has_the_lowest_ranked_label():
    predictions = make_predictions(
        [[1, 0, 0], [1, 0, 0], [1, 0, 0], [1, 0, 0]],
        [[0.9, 0.1, 0.1], [0.1, 0.8, 0.3], [0.2, 0.9, 0.1], [0.4, 0.3, 0.1]],
    )
    worst = worst_clips(predictions, 5)
    assert [clip.row for clip in worst] == [1, 2, 3]
    assert [clip.kind for clip in worst] == ["confused", "confused", "missed"]
    assert worst[0].reason == "The true label “a” (0.10) is ranked 3rd, below “b” (0.80)."
    assert worst[2].reason == "The true label “a” (0.40) is missed: its threshold is 0.50."


def test_equally_ranked_clips_are_ordered_by_the_margin_of_the_wrong_label():
    predictions = make_predictions([[1, 0], [1, 0]], [[0.4, 0.6], [0.1, 0.9]])
    assert [clip.row for clip in worst_clips(predictions, 2)] == [1, 0]


def test_false_positive_alone_is_an_error():
    predictions = make_predictions([[1, 0, 0]], [[0.9, 0.7, 0.1]])
    (clip,) = worst_clips(predictions, 2)
    assert clip.reason == "“b” (0.70) is predicted, but the clip does not have this label."
    assert clip.kind == "false positive"


def test_clips_without_labels_or_errors_are_not_among_the_worst():
    predictions = make_predictions([[0, 0], [1, 0]], [[0.9, 0.1], [0.9, 0.1]])
    assert worst_clips(predictions, 5) == []


def test_detected_label_that_is_often_missed_is_an_unlikely_success():
    y_true = np.array([[1, 0], [1, 0], [1, 0], [0, 1], [0, 1]], bool)
    probabilities = [[0.9, 0.1], [0.2, 0.1], [0.3, 0.1], [0.1, 0.9], [0.1, 0.9]]
    (clip,) = surprising_clips(make_predictions(y_true, probabilities), 4)
    assert (clip.row, clip.kind) == (0, UNLIKELY_SUCCESS)
    assert clip.reason == "The label is detected, and no wrong one; the chance of this was 33%."


def test_confident_wrong_label_is_a_possible_label_error():
    predictions = make_predictions([[1, 0], [0, 0], [0, 0]], [[0.9, 0.8], [0.1, 0.95], [0.1, 0.2]])
    chosen = surprising_clips(predictions, 4)
    assert [clip.row for clip in chosen] == [1, 0]
    assert chosen[0].reason == "“b” (0.95) is predicted, but the clip does not have this label."
    assert surprising_clips(predictions, 4, without={1})[0].row == 0


def test_no_clip_is_shown_twice(rng):
    predictions = random_predictions(rng, n_clips=300)
    worst = {clip.row for clip in worst_clips(predictions, 12)}
    chosen = [clip.row for clip in surprising_clips(predictions, 12, without=worst)]
    assert len(chosen) == len(set(chosen)) == 12
    assert worst.isdisjoint(chosen)


def test_both_kinds_of_surprising_clips_are_shown_equally_often(rng):
    labels = [f"label {i}" for i in range(12)]
    chosen = surprising_clips(random_predictions(rng, n_clips=300, labels=labels), 12)
    kinds = [clip.kind for clip in chosen]
    assert kinds.count(UNLIKELY_SUCCESS) == kinds.count(POSSIBLE_LABEL_ERROR) == 6


def test_shown_labels_are_the_true_ones_and_wrong_ones_ranked_above():
    predictions = make_predictions([[0, 1, 0]], [[0.3, 0.2, 0.1]])
    assert shown_labels(predictions, 0) == (0, 1)
    assert shown_labels(predictions, 0, required=2) == (0, 1, 2)


def test_at_most_five_labels_are_shown_and_true_ones_come_first(rng):
    predictions = make_predictions(
        np.eye(12, dtype=bool)[:1], np.linspace(0.1, 0.99, 12)[None], labels=tuple("abcdefghijkl")
    )
    labels = shown_labels(predictions, 0)
    assert len(labels) == 5
    assert 0 in labels


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_round_numbers_are_within_the_range_and_few(low, span):
    numbers = np.array(list(round_numbers(low, low + span, 5)))
    assert len(numbers) <= 6
    assert (numbers >= low - 1e-6 * span).all()
    assert (numbers <= low + 1.000001 * span).all()


def test_round_numbers_of_scores():
    assert list(round_numbers(0, 1, 5)) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert list(round_numbers(0.9, 1, 5)) == [0.9, 0.92, 0.94, 0.96, 0.98, 1]


def test_a_logarithmic_scale_puts_equal_ratios_at_equal_distances():
    scale = Scale(1, 100, 0, 200, is_logarithmic=True)
    assert [scale(x) for x in (1, 10, 100)] == pytest.approx([0, 100, 200])
    assert scale.ticks == [1, 10, 100]
    assert Scale(1, 40, 0, 200, is_logarithmic=True).ticks == [1, 3, 10, 30]


def test_number_beyond_an_axis_is_put_at_its_end():
    assert Scale(0, 1, 10, 20)(7) == 20


def test_frequency_ticks_are_octaves_of_1_khz():
    ticks = dict(frequency_ticks(AUDIOSET_MEL))
    assert list(ticks)[:3] == ["8k", "4k", "2k"]
    assert 0 < ticks["1k"] < ticks["2k"] < ticks["8k"] < 1


def test_axis_of_scores_starts_at_0_unless_all_are_high():
    assert score_scale([Estimate(0.97, 0.93, 0.99)]).low == 0.9
    assert score_scale([Estimate(0.97, 0.61, 0.99), Estimate(math.nan)]).low == 0.6
    assert score_scale([Estimate(0.3, 0.2, 0.4)]).low == 0
    assert score_scale([Estimate(1.0, 1.0, 1.0)]).low == 0.9
    assert score_scale([]).low == 0


def test_axis_of_differences_has_0_in_the_middle():
    scale = difference_scale([Estimate(0.02, -0.01, 0.05)])
    assert scale(0) == pytest.approx(50)
    assert scale.high > 0.05
    assert difference_scale([]).high > 0


def test_numbers_are_printed_for_people():
    assert score_text(0.12345) == "0.123"
    assert score_text(math.nan) == "–"
    assert score_text(math.inf) == "∞"
    assert interval_text(Estimate(0.5, 0.4, 0.6)) == "0.400–0.600"
    assert interval_text(Estimate(0.5)) == ""
    assert interval_text(Estimate(-0.5, -math.inf, -0.174)) == "−∞ to −0.174"
    assert interval_text(Estimate(0.6, 0.0, math.inf)) == "0.000–∞"
    assert difference_interval_text(Estimate(0.0, -0.012, 0.003)) == "−0.012 to +0.003"
    assert percent(0.5) == "50\xa0%"
    assert percent(0.034) == "3.4\xa0%"


def test_clips_have_their_own_thresholds(rng):
    predictions = make_predictions([[1, 0], [1, 0]], [[0.6, 0.1], [0.6, 0.1]])
    per_clip = replace(predictions, thresholds=np.array([[0.5, 0.5], [0.7, 0.5]], np.float32))
    assert [clip.row for clip in worst_clips(per_clip, 2)] == [1]
