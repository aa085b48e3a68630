import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.evaluations import made_predictions
from spectag.config.backbones import AUDIOSET_MEL
from spectag.data.clips import Clip
from spectag.data.labels import LabelSet
from spectag.evaluation.predictions import Predictions
from spectag.evaluation.results import Estimate
from spectag.reporting.evaluation_report.clip_selection import surprises, told_labels, worst_clips
from spectag.reporting.evaluation_report.confusion import confusions
from spectag.reporting.evaluation_report.curves import mean_curve, precision_recall, thinned
from spectag.reporting.evaluation_report.dot_plots import difference_scale, score_scale
from spectag.reporting.evaluation_report.formatting import difference_interval, interval, percent, score
from spectag.reporting.evaluation_report.svg import Scale, round_numbers
from spectag.reporting.svg_parts import frequency_ticks
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
        ("new",) * len(clips),
        np.ones(len(clips)),
        None,
        (),
    )


@given(SCORES)
def test_the_area_under_a_curve_is_the_average_precision(pairs):
    truth, scores = arrays(pairs)
    expected = average_precision(truth[:, None], scores[:, None])[0]
    assert precision_recall(truth, scores).area == pytest.approx(expected, abs=1e-12)


@given(SCORES)
def test_a_thinned_curve_has_at_most_100_steps_and_the_same_area(pairs):
    curve = precision_recall(*arrays(pairs * 3))
    thin = thinned(curve)
    assert len(thin.precision) <= 100
    assert thin.area == pytest.approx(curve.area, abs=1e-9)


def test_a_curve_with_few_clips_is_drawn_as_it_is():
    curve = precision_recall(np.array([True, False, True]), np.array([0.9, 0.5, 0.4]))
    assert thinned(curve) is curve
    assert curve.recall.tolist() == [0, 0.5, 1]
    assert curve.precision.tolist() == pytest.approx([1, 2 / 3])


def test_the_mean_curve_has_the_mean_area(rng):
    curves = [precision_recall(rng.random(50) < 0.3, rng.random(50)) for _ in range(7)]
    assert mean_curve(curves).area == pytest.approx(np.mean([curve.area for curve in curves]))


def test_confusions_by_hand():
    y_true = np.array([[1, 0, 0], [1, 0, 0], [1, 1, 0], [0, 0, 1], [1, 0, 0]], bool)
    probabilities = np.array(
        [
            [0.2, 0.9, 0.1],  # a missed, b given: a taken for b
            [0.8, 0.9, 0.6],  # a given, b above it: taken for b; c given below a: not
            [0.9, 0.1, 0.8],  # b missed, c given: b taken for c; a is above c: not
            [0.1, 0.1, 0.3],  # c missed, nothing given
            [0.9, 0.1, 0.1],  # right
        ]
    )
    found = confusions(y_true, probabilities, probabilities >= 0.5)
    assert found.counts.tolist() == [[0, 2, 0], [0, 0, 1], [0, 0, 0]]
    assert found.n_clips.tolist() == [4, 1, 1]
    assert found.n_given.tolist() == [3, 0, 0]
    assert found.n_nothing.tolist() == [0, 0, 1]
    assert found.pairs(5) == [(0, 1), (1, 2)]
    assert found.most_confused.tolist() == [1, 0, 2]


def test_a_missed_label_is_taken_for_a_given_one_that_is_less_probable():
    found = confusions(np.array([[True, False]]), np.array([[0.6, 0.3]]), np.array([[False, True]]))
    assert found.counts.tolist() == [[0, 1], [0, 0]]


def test_no_label_is_confused_with_itself_nor_with_one_that_is_true(rng):
    y_true, probabilities = rng.random((300, 6)) < 0.3, rng.random((300, 6))
    found = confusions(y_true, probabilities, probabilities > 0.5)
    assert not found.counts.diagonal().any()
    everything = confusions(np.ones((300, 6), bool), probabilities, probabilities > 0.5)
    assert not everything.counts.any()


def test_every_clip_of_a_label_is_a_hit_or_confused_or_met_by_nothing(rng):
    y_true, probabilities = np.eye(6, dtype=bool)[rng.integers(6, size=400)], rng.random((400, 6))
    given_labels = probabilities > 0.7
    found = confusions(y_true, probabilities, given_labels)
    for label in range(6):
        rows = y_true[:, label]
        missed = rows & ~given_labels[:, label]
        assert found.n_given[label] + missed.sum() == rows.sum()
        assert found.n_nothing[label] == (missed & ~given_labels.any(axis=1)).sum()


def test_the_worst_clip_is_the_one_whose_label_is_ranked_lowest():
    predictions = make_predictions(
        [[1, 0, 0], [1, 0, 0], [1, 0, 0], [1, 0, 0]],
        [[0.9, 0.1, 0.1], [0.1, 0.8, 0.3], [0.2, 0.9, 0.1], [0.4, 0.3, 0.1]],
    )
    worst = worst_clips(predictions, 5)
    assert [clip.row for clip in worst] == [1, 2, 3]
    assert [clip.kind for clip in worst] == ["taken for another", "taken for another", "missed"]
    assert worst[0].why == "Its label “a” (0.10) came 3rd, after “b” (0.80)."
    assert worst[2].why == "Its label “a” (0.40) was missed: the threshold is 0.50."


def test_of_equally_ranked_clips_the_surest_mistake_comes_first():
    predictions = make_predictions([[1, 0], [1, 0]], [[0.4, 0.6], [0.1, 0.9]])
    assert [clip.row for clip in worst_clips(predictions, 2)] == [1, 0]


def test_a_label_given_too_much_is_a_fault_as_well():
    predictions = make_predictions([[1, 0, 0]], [[0.9, 0.7, 0.1]])
    (clip,) = worst_clips(predictions, 2)
    assert clip.why == "“b” (0.70) was given, which it does not have."
    assert clip.kind == "given too much"


def test_clips_without_labels_and_faultless_ones_are_not_worst():
    predictions = make_predictions([[0, 0], [1, 0]], [[0.9, 0.1], [0.9, 0.1]])
    assert worst_clips(predictions, 5) == []


def test_what_is_often_missed_surprises_when_it_is_heard():
    y_true = np.array([[1, 0], [1, 0], [1, 0], [0, 1], [0, 1]], bool)
    probabilities = [[0.9, 0.1], [0.2, 0.1], [0.3, 0.1], [0.1, 0.9], [0.1, 0.9]]
    (clip,) = surprises(make_predictions(y_true, probabilities), 4)
    assert (clip.row, clip.kind) == (0, "heard against the odds")
    assert clip.why == "Its label was heard, and nothing else; the chance of hearing it was 33%."


def test_a_confident_label_that_is_not_true_is_to_be_looked_at_again():
    predictions = make_predictions([[1, 0], [0, 0], [0, 0]], [[0.9, 0.8], [0.1, 0.95], [0.1, 0.2]])
    chosen = surprises(predictions, 4)
    assert [clip.row for clip in chosen] == [1, 0]
    assert chosen[0].why == "“b” (0.95) was given, and is not among its labels. Is it to be heard?"
    assert surprises(predictions, 4, without={1})[0].row == 0


def test_no_clip_is_shown_twice(rng):
    predictions = made_predictions(rng, n_clips=300)
    worst = {clip.row for clip in worst_clips(predictions, 12)}
    chosen = [clip.row for clip in surprises(predictions, 12, without=worst)]
    assert len(chosen) == len(set(chosen)) == 12
    assert worst.isdisjoint(chosen)


def test_both_kinds_of_surprises_share_the_places(rng):
    labels = [f"label {i}" for i in range(12)]
    chosen = surprises(made_predictions(rng, n_clips=300, labels=labels), 12)
    kinds = [clip.kind for clip in chosen]
    assert kinds.count("heard against the odds") == kinds.count("a label to look at again") == 6


def test_labels_told_of_a_clip_are_the_true_ones_and_what_was_put_before_them():
    predictions = make_predictions([[0, 1, 0]], [[0.3, 0.2, 0.1]])
    assert told_labels(predictions, 0) == (0, 1)
    assert told_labels(predictions, 0, first=2) == (0, 1, 2)


def test_a_clip_tells_five_labels_at_most_and_never_leaves_out_a_true_one_for_a_wrong_one(rng):
    predictions = make_predictions(
        np.eye(12, dtype=bool)[:1], np.linspace(0.1, 0.99, 12)[None], labels=tuple("abcdefghijkl")
    )
    told = told_labels(predictions, 0)
    assert len(told) == 5
    assert 0 in told


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_round_numbers_lie_within_and_are_evenly_spaced(low, span):
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


def test_what_lies_beyond_an_axis_stays_at_its_end():
    assert Scale(0, 1, 10, 20)(7) == 20


def test_octaves_of_the_network_that_hears_up_to_15_khz():
    ticks = dict(frequency_ticks(AUDIOSET_MEL))
    assert list(ticks)[:3] == ["8k", "4k", "2k"]
    assert 0 < ticks["1k"] < ticks["2k"] < ticks["8k"] < 1


def test_the_axis_of_scores_begins_at_0_unless_all_are_high():
    assert score_scale([Estimate(0.97, 0.93, 0.99)]).low == 0.9
    assert score_scale([Estimate(0.97, 0.61, 0.99), Estimate(math.nan)]).low == 0.6
    assert score_scale([Estimate(0.3, 0.2, 0.4)]).low == 0
    assert score_scale([Estimate(1.0, 1.0, 1.0)]).low == 0.9
    assert score_scale([]).low == 0


def test_the_axis_of_differences_has_0_in_the_middle():
    scale = difference_scale([Estimate(0.02, -0.01, 0.05)])
    assert scale(0) == pytest.approx(50)
    assert scale.high > 0.05
    assert difference_scale([]).high > 0


def test_numbers_as_a_person_reads_them():
    assert score(0.12345) == "0.123"
    assert score(math.nan) == "–"
    assert score(math.inf) == "∞"
    assert interval(Estimate(0.5, 0.4, 0.6)) == "0.400–0.600"
    assert interval(Estimate(0.5)) == ""
    assert interval(Estimate(-0.5, -math.inf, -0.174)) == "−∞ to −0.174"
    assert interval(Estimate(0.6, 0.0, math.inf)) == "0.000–∞"
    assert difference_interval(Estimate(0.0, -0.012, 0.003)) == "−0.012 to +0.003"
    assert percent(0.5) == "50\xa0%"
    assert percent(0.034) == "3.4\xa0%"


def test_thresholds_of_each_clip_count(rng):
    predictions = make_predictions([[1, 0], [1, 0]], [[0.6, 0.1], [0.6, 0.1]])
    own = replace(predictions, thresholds=np.array([[0.5, 0.5], [0.7, 0.5]], np.float32))
    assert [clip.row for clip in worst_clips(own, 2)] == [1]
