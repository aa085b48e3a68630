"""Scores of sounds with start and end, equal to those of sed_eval 0.2.1 and psds-eval 0.5.3 for the same sounds."""

import tracemalloc

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from helpers.made_events import made_events
from spectag.scoring.event_scores import SoundEvents, count_events, count_segments, match_events
from spectag.scoring.intersection_scores import IntersectionCriteria, match_by_intersection, psds


@pytest.fixture(scope="module")
def sounds():
    return made_events()


def events(*rows):
    """Events from (recording, start, end, label)."""
    recordings, starts, ends, labels = np.array(rows, float).reshape(-1, 4).T
    return SoundEvents(recordings.astype(int), starts, ends, labels.astype(int))


def test_event_based_scores_equal_those_of_sed_eval(sounds):
    truth, detected, _ = sounds
    counts = count_events(truth, detected(0.5), (12, 3)).of_recordings()
    overall = counts.overall()
    assert overall.f1[0] == pytest.approx(0.23003194888178913)
    assert overall.precision[0] == pytest.approx(0.2571428571428571)
    assert overall.recall[0] == pytest.approx(0.20809248554913296)
    np.testing.assert_allclose(counts.f1, [0.22950819672131148, 0.2105263157894737, 0.25])
    np.testing.assert_allclose(counts.precision, [0.25925925925925924, 0.23255813953488372, 0.27906976744186046])
    np.testing.assert_allclose(counts.recall, [0.20588235294117646, 0.19230769230769232, 0.22641509433962265])


def test_onset_scores_equal_those_of_sed_eval(sounds):
    truth, detected, _ = sounds
    counts = count_events(truth, detected(0.5), (12, 3), collar_seconds=0.5, offsets=False).of_recordings()
    assert counts.overall().f1[0] == pytest.approx(0.5367412140575079)
    np.testing.assert_allclose(counts.f1, [0.4754098360655738, 0.5263157894736843, 0.625])


def test_segment_based_scores_equal_those_of_sed_eval(sounds):
    truth, detected, _ = sounds
    counts = count_segments(truth, detected(0.5), (12, 3)).of_recordings()
    overall = counts.overall()
    assert overall.f1[0] == pytest.approx(0.7045267489711935)
    assert overall.precision[0] == pytest.approx(0.7925925925925926)
    assert overall.recall[0] == pytest.approx(0.6340740740740741)
    np.testing.assert_allclose(counts.f1, [0.6971677559912856, 0.738154613466334, 0.676056338028169])


@pytest.mark.parametrize(
    ("criteria", "weights", "expected"),
    [
        (IntersectionCriteria(0.7, 0.7, 0.3), (0.0, 1.0, 100.0), 0.2004806895488435),
        (IntersectionCriteria(0.1, 0.1, 0.3), (0.5, 1.0, 100.0), 0.46530957440749054),
        (IntersectionCriteria(0.5, 0.5, 0.3), (0.0, 0.0, 40.0), 0.18706511995218988),
    ],
)
def test_psds_equals_that_of_psds_eval(sounds, criteria, weights, expected):
    truth, detected, durations = sounds
    rates = [
        match_by_intersection(truth, detected(threshold), 3, criteria).rates(durations, 3)
        for threshold in np.linspace(0.05, 0.95, 10)
    ]
    cross, spread, most = weights
    curve = psds(rates, cross_trigger_weight=cross, spread_weight=spread, max_per_hour=most)
    assert curve.score == pytest.approx(expected, abs=1e-12)


def test_matching_finds_as_many_pairs_as_possible():
    truth = events((0, 1.0, 2.0, 0), (0, 1.3, 2.0, 0))
    detected = events((0, 1.15, 2.0, 0), (0, 0.85, 2.0, 0))  # the first alone could take either
    assert count_events(truth, detected, (1, 1)).n_correct.tolist() == [[2]]


@pytest.mark.parametrize(("collar", "fraction", "offsets"), [(0.2, 0.5, True), (1.0, 0.0, True), (0.5, 0.5, False)])
def test_matching_equals_an_assignment_of_all_pairs(rng, collar, fraction, offsets):
    starts, ends = rng.uniform(0, 20, (2, 60)).round(1), rng.uniform(0.1, 3, (2, 60)).round(1)
    zeros = np.zeros(60, np.int64)
    truth, detected = (SoundEvents(zeros, starts[n], starts[n] + ends[n], zeros) for n in (0, 1))
    is_hit = np.abs(truth.starts[:, None] - detected.starts) <= collar
    if offsets:
        collars = np.maximum(collar, fraction * (truth.ends - truth.starts))[:, None]
        is_hit &= np.abs(truth.ends[:, None] - detected.ends) <= collars
    rows, columns = linear_sum_assignment(is_hit, maximize=True)
    options = {"collar_seconds": collar, "offset_fraction": fraction, "offsets": offsets}
    counts = count_events(truth, detected, (1, 1), **options)
    assert counts.n_correct[0, 0] == is_hit[rows, columns].sum() > 0


def test_memory_of_matching_grows_with_the_sounds_and_not_with_their_square():
    starts = np.arange(5614.0)
    zeros = np.zeros(len(starts), np.int64)
    sounds = SoundEvents(zeros, starts, starts + 0.5, zeros)
    tracemalloc.start()
    try:
        n_correct = count_events(sounds, sounds, (1, 1)).n_correct
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert n_correct.tolist() == [[5614]]
    assert peak < 5e6  # bytes


def test_perfect_detections_have_perfect_scores(sounds):
    truth, _, durations = sounds
    assert count_events(truth, truth, (12, 3)).of_recordings().f1.tolist() == [1, 1, 1]
    assert count_segments(truth, truth, (12, 3), segment_seconds=0.5).of_recordings().f1.tolist() == [1, 1, 1]
    assert psds([match_by_intersection(truth, truth, 3, IntersectionCriteria()).rates(durations, 3)]).score == 1


def test_nothing_detected_finds_nothing_and_has_no_precision(sounds):
    truth, _, durations = sounds
    counts = count_events(truth, events(), (12, 3)).of_recordings()
    assert counts.recall.tolist() == [0, 0, 0]
    assert np.isnan(counts.precision).all()
    assert psds([match_by_intersection(truth, events(), 3, IntersectionCriteria()).rates(durations, 3)]).score == 0


def test_merged_joins_sounds_of_one_label_that_overlap_or_touch():
    merged = events((0, 5, 6, 0), (0, 1, 4, 0), (0, 2, 3, 0), (0, 4, 4.5, 0), (1, 1, 2, 0), (0, 1, 2, 1)).merged()
    rows = list(zip(merged.recordings, merged.labels, merged.starts, merged.ends, strict=True))
    assert rows == [(0, 0, 1, 4.5), (0, 0, 5, 6), (0, 1, 1, 2), (1, 0, 1, 2)]


def test_label_without_true_sounds_does_not_lower_psds():
    truth = events((0, 0, 5, 0))
    detected = events((0, 0, 5, 0), (0, 10, 11, 1))
    rates = match_by_intersection(truth, detected, 2, IntersectionCriteria()).rates(np.array([3600.0]), 2)
    assert rates.false_positives_per_hour.tolist() == [0, 1]
    assert np.isnan(rates.true_positive_ratios[1])
    assert psds([rates]).score == 1


def test_weights_count_a_recording_several_times():
    truth = events((0, 1, 2, 0), (1, 1, 2, 0), (1, 5, 6, 0))
    detected = events((0, 1, 2, 0), (1, 8, 9, 0))
    twice = np.array([2.0, 1.0])
    counts = count_events(truth, detected, (2, 1)).of_recordings(twice)
    assert (counts.n_correct[0], counts.n_true[0], counts.n_detected[0]) == (2, 4, 3)
    rates = match_by_intersection(truth, detected, 1, IntersectionCriteria()).rates(np.full(2, 1200.0), 1, twice)
    assert rates.true_positive_ratios[0] == 0.5
    assert rates.false_positives_per_hour[0] == 1


def test_matches_name_the_sounds_and_detections_that_are_counted(sounds):
    truth, detected, _ = sounds
    found = detected(0.5)
    matches, counts = match_events(truth, found), count_events(truth, found, (12, 3))
    assert matches.is_found.sum() == matches.is_right.sum() == counts.n_correct.sum() > 0
    alone = match_events(truth[matches.is_found], found[matches.is_right])
    assert alone.is_found.all()
    assert alone.is_right.all()


def test_merged_events_know_their_parts():
    merged, rows = events((0, 5, 6, 0), (0, 1, 2, 0), (0, 1.5, 3, 0), (1, 0, 1, 0)).merge()
    assert rows.tolist() == [1, 0, 0, 2]
    assert merged.ends.tolist() == [3, 6, 1]
