from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.ndimage import grey_closing

from spectag.config.base import SegmentConfig, parse_config
from spectag.errors import ConfigError
from spectag.models.frames_info import FramesInfo
from spectag.models.timeline import (
    Segment,
    Timeline,
    cell_seconds,
    find_segments,
    median_filtered,
    pool_logits,
    pool_windows,
)

# ------------------------------------------------------------------------------------------------ timelines


def windows_of(probabilities, *, window=1.0, hop=1.0):
    """A timeline of one label, or of as many as there are columns."""
    probabilities = np.array(probabilities, np.float32)
    starts = np.arange(len(probabilities)) * hop
    return Timeline(starts, starts + window, probabilities.reshape(len(starts), -1))


@st.composite
def timelines(draw, n_labels=2):
    """Windows with and without overlap or gaps; the last one may have a smaller step."""
    n_windows = draw(st.integers(0, 12))
    window, hop = draw(st.sampled_from([0.3, 1.0, 5.0])), draw(st.sampled_from([0.1, 0.3, 1.0, 7.0]))
    starts = np.arange(n_windows) * hop
    ends = starts + window
    if n_windows > 1 and draw(st.booleans()):
        starts[-1] -= hop / 3
        ends[-1] -= hop / 3
    values = st.sampled_from([0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0])
    rows = draw(
        st.lists(st.lists(values, min_size=n_labels, max_size=n_labels), min_size=n_windows, max_size=n_windows)
    )
    return Timeline(starts, ends, np.array(rows, np.float32).reshape(n_windows, n_labels))


def configs():
    return st.builds(
        SegmentConfig,
        smooth_windows=st.sampled_from([1, 3, 5]),
        hysteresis=st.sampled_from([0.0, 0.4, 0.9, 1.0]),
        min_windows=st.sampled_from([1, 2, 3]),
        min_duration_seconds=st.sampled_from([0.0, 0.3, 1.0, 5.0]),
        max_gap_seconds=st.sampled_from([0.0, 0.1, 0.3, 1.0, 4.0]),
    )


@pytest.mark.parametrize(
    ("starts", "ends", "probabilities"),
    [
        (np.zeros(2), np.ones(1), np.zeros((2, 3), np.float32)),
        (np.zeros(2), np.ones(2), np.zeros((3, 2), np.float32)),
        (np.zeros(2), np.ones(2), np.zeros(2, np.float32)),
    ],
)
def test_timeline_with_wrong_shapes_is_refused(starts, ends, probabilities):
    with pytest.raises(ValueError, match=r"need starts \(n_windows,\).*got \(2,\), "):
        Timeline(starts, ends, probabilities)


def test_unsorted_windows_are_refused():
    with pytest.raises(ValueError, match="sorted by time"):
        Timeline(np.array([1.0, 0.0]), np.array([2.0, 3.0]), np.zeros((2, 1), np.float32))


@pytest.mark.parametrize(
    ("starts", "ends", "expected"),
    [
        ([0, 1, 2], [1, 2, 3], [(0, 1), (1, 2), (2, 3)]),  # adjacent
        ([0, 1, 2], [4, 5, 6], [(0, 2.5), (2.5, 3.5), (3.5, 6)]),  # centres at 2, 3 and 4
        ([0, 4, 5], [5, 9, 10], [(0, 4.5), (4.5, 7), (7, 10)]),  # the last window moved back to the end of the sound
        ([0, 4, 8], [2, 6, 9], [(0, 2), (4, 6), (8, 9)]),  # with gaps
        ([0, 4], [5, 6], [(0, 4.5), (4.5, 6)]),  # a short last window: the overlap is divided
        ([3], [4], [(3, 4)]),
    ],
)
def test_cells_computed_by_hand(starts, ends, expected):
    windows = Timeline(np.array(starts, float), np.array(ends, float), np.zeros((len(starts), 1), np.float32))
    cell_starts, cell_ends = windows.cells
    assert list(zip(cell_starts, cell_ends, strict=True)) == expected


@given(windows=timelines())
def test_cells_do_not_overlap_and_cover_all_windows(windows):
    first, last = windows.cells
    assert (first[1:] >= last[:-1]).all()
    assert (first >= windows.starts).all()
    assert (last <= windows.ends).all()
    for left, right, start, end in zip(last[:-1], first[1:], windows.ends[:-1], windows.starts[1:], strict=True):
        assert left == right or (left, right) == (start, end)  # a gap between windows


# ------------------------------------------------------------------------------------------------ pooling


def test_odds_of_pooled_logits_are_the_mean_odds_weighted_by_length(rng):
    logits, seconds = rng.normal(0, 3, (4, 2, 5)), np.array([60.0, 60.0, 60.0, 7.5])
    expected = np.average(np.exp(logits), axis=0, weights=seconds)
    np.testing.assert_allclose(np.exp(pool_logits(logits, seconds)), expected, rtol=1e-12)


def test_pooled_logits_of_certain_parts_are_finite():
    pooled = pool_logits([[1000.0, -1000.0, 1000.0], [1000.0, -1000.0, -1000.0]], [1.0, 3.0])
    assert pooled.tolist() == pytest.approx([1000.0, -1000.0, 1000 - np.log(4)])


def test_overlap_of_the_last_part_does_not_count_twice():
    """Of 150 s in parts of 60 s, the last two share 30 s."""
    assert cell_seconds([0.0, 60.0, 90.0], [60.0, 120.0, 150.0]).tolist() == [60.0, 45.0, 45.0]


def test_single_part_is_the_clip_even_if_it_has_no_length():
    assert pool_logits([[0.25, -3.0]], [np.nan]).tolist() == [0.25, -3.0]


def test_max_pooling_takes_the_greatest_probability_of_each_label():
    whole = pool_windows(windows_of([[0.1, 0.9], [0.8, 0.2], [0.3, 0.3]]), "max")
    assert whole.starts.tolist() == [0]
    assert whole.ends.tolist() == [3]
    assert whole.probabilities.tolist() == np.array([[0.8, 0.9]], np.float32).tolist()


def test_mean_pooling_weights_windows_by_their_length():
    windows = Timeline(np.array([0.0, 4.0]), np.array([4.0, 5.0]), np.array([[0.9], [0.5]], np.float32))
    mean_odds = (4 * 9 + 1 * 1) / 5
    assert pool_windows(windows, "mean").probabilities[0, 0] == pytest.approx(mean_odds / (1 + mean_odds))


def test_mean_pooling_counts_overlaps_once():
    windows = Timeline(np.array([0.0, 5.0, 6.0]), np.array([5.0, 10.0, 11.0]), np.array([[0], [0], [0.5]], np.float32))
    mean_odds = 3 / 11  # the last cell: 8 to 11
    assert pool_windows(windows, "mean").probabilities[0, 0] == pytest.approx(mean_odds / (1 + mean_odds))


@given(windows=timelines())
def test_pooled_probabilities_are_between_minimum_and_maximum(windows):
    assume(len(windows.starts) > 0)
    minimum, maximum = windows.probabilities.min(axis=0), windows.probabilities.max(axis=0)
    mean = pool_windows(windows, "mean").probabilities[0]
    assert (mean >= minimum - 1e-6).all()
    assert (mean <= maximum + 1e-6).all()
    assert pool_windows(windows, "max").probabilities[0].tolist() == maximum.tolist()


def test_mean_pooling_accepts_certain_windows():
    windows = windows_of([[0.0, 1.0, 0.0], [0.0, 0.5, 1.0]])
    assert pool_windows(windows, "mean").probabilities.tolist() == [[0.0, 1.0, 1.0]]


def test_pooling_does_not_change_a_single_window_or_an_image():
    image = Timeline(np.zeros(1), np.array([np.nan]), np.array([[0.3, 0.4]], np.float32))
    assert pool_windows(image, "mean") is image
    assert pool_windows(image, "max") is image


def test_empty_timelines_and_unknown_methods_cannot_be_pooled():
    with pytest.raises(ValueError, match="without windows"):
        pool_windows(Timeline(np.zeros(0), np.zeros(0), np.zeros((0, 2), np.float32)), "max")
    with pytest.raises(ValueError, match="'max' or 'mean', got 'median'"):
        pool_windows(windows_of([0.1]), "median")


# ------------------------------------------------------------------------------------------------ smoothing


@pytest.mark.parametrize("how", ["max", "mean"])
def test_pooled_windows_have_the_smallest_novelty(how):
    probabilities = np.ones((3, 1), np.float32)
    windows = Timeline(np.arange(3.0), np.arange(3.0) + 1, probabilities, np.array([2, 0.5, 1], np.float32))
    assert pool_windows(windows, how).novelty.tolist() == [0.5]


def test_novelty_needs_a_value_for_each_window():
    with pytest.raises(ValueError, match=r"novelty \(2,\).*got \(3,\)"):
        Timeline(np.arange(2.0), np.arange(2.0) + 1, np.ones((2, 1), np.float32), np.ones(3, np.float32))


@given(windows=timelines(), n_windows=st.sampled_from([1, 3, 5, 29]))
def test_median_filter_takes_the_median_of_a_window_and_its_neighbours(windows, n_windows):
    assume(len(windows.starts) > 0)
    padded = np.pad(windows.probabilities, [(n_windows // 2,) * 2, (0, 0)], mode="edge")
    expected = np.median(np.lib.stride_tricks.sliding_window_view(padded, n_windows, axis=0), axis=-1)
    result = median_filtered(windows.probabilities, n_windows)
    assert np.array_equal(result, expected)
    assert result.dtype == np.float32
    assert np.array_equal(median_filtered(windows.probabilities[:, 0], n_windows), expected[:, 0])


@pytest.mark.parametrize("n_windows", [0, 2, -1])
def test_median_of_an_even_number_of_windows_is_refused(n_windows):
    with pytest.raises(ValueError, match=f"an odd number, 1 or more, got {n_windows}"):
        median_filtered(np.zeros(3, np.float32), n_windows)


# ------------------------------------------------------------------------------------------------ segments


def find_spans(windows, threshold=0.6, **settings):
    """Start and end of each segment of a timeline of one label."""
    segments = find_segments(windows, np.array([threshold], np.float32), SegmentConfig(**settings))
    return [(segment.start_seconds, segment.end_seconds) for segment in segments]


@pytest.mark.parametrize(
    ("probabilities", "settings", "expected"),
    [
        ([0.1, 0.7, 0.6, 0.5, 0.9], {"hysteresis": 1.0}, [(1, 3), (4, 5)]),
        ([0.1, 0.7, 0.6, 0.5, 0.4], {}, [(1, 4)]),  # on down to 0.7 times 0.6
        ([0.3, 0.7, 0.6, 0.3, 0.2], {"hysteresis": 0.5}, [(0, 4)]),  # on both sides down to 0.3
        ([0.5, 0.5, 0.2, 0.5, 0.6], {"hysteresis": 0.5}, [(3, 5)]),  # the first ones never reach 0.6
        ([0.0, 0.6, 0.0], {"hysteresis": 0.0}, [(0, 3)]),
        ([0.9, 0.1, 0.9, 0.1, 0.1, 0.9], {"max_gap_seconds": 1}, [(0, 3), (5, 6)]),
        ([0.9, 0.1, 0.9, 0.9, 0.1, 0.9], {"min_duration_seconds": 2}, [(2, 4)]),
        ([0.9, 0.1, 0.9, 0.1, 0.1, 0.9], {"max_gap_seconds": 1, "min_duration_seconds": 3}, [(0, 3)]),  # merged first
        ([0.9, 0.1, 0.9, 0.9, 0.1, 0.1], {"smooth_windows": 3}, [(0, 4)]),
        ([0.1, 0.1, 0.9, 0.1, 0.1, 0.1], {"smooth_windows": 3}, []),
        ([0.9, 0.1, 0.9, 0.9, 0.1, 0.9], {"min_windows": 2}, [(2, 4)]),
        ([0.9, 0.1, 0.9, 0.1, 0.9, 0.9], {"min_windows": 2, "max_gap_seconds": 1}, [(4, 6)]),  # before gaps are closed
        ([0.1, 0.9, 0.5, 0.1, 0.9, 0.3], {"min_windows": 2}, [(1, 3)]),  # 0.5 is above 0.7 times 0.6
        ([0.9, 0.9, 0.1], {"min_windows": 3}, []),
        ([0.9, 0.9, 0.9], {}, [(0, 3)]),
        ([0.1, 0.1, 0.1], {}, []),
    ],
)
def test_segments_computed_by_hand(probabilities, settings, expected):
    assert find_spans(windows_of(probabilities), **settings) == expected


@pytest.mark.parametrize(("seconds", "n_segments"), [(1.0, 2), (2.0, 2), (2.5, 1)])
def test_single_window_is_smoothed_away_if_three_windows_overlap(seconds, n_segments):
    """The windows start every second."""
    probabilities = np.array([[0.1, 0.9, 0.1, 0.1, 0.9, 0.9, 0.9]], np.float32).T
    windows = Timeline(np.arange(7.0), np.arange(7.0) + seconds, probabilities)
    assert len(find_segments(windows, np.array([0.6], np.float32), SegmentConfig())) == n_segments


def test_segment_has_the_greatest_smoothed_probability():
    windows = windows_of([0.7, 0.95, 0.75, 0.8, 0.1, 0.1])
    (plain,) = find_segments(windows, np.array([0.6], np.float32), SegmentConfig())
    (smooth,) = find_segments(windows, np.array([0.6], np.float32), SegmentConfig(smooth_windows=3))
    assert plain == Segment(0, 0.0, 4.0, float(np.float32(0.95)))
    assert smooth == Segment(0, 0.0, 4.0, float(np.float32(0.8)))


def test_overlapping_windows_stand_for_the_time_around_their_centres():
    assert find_spans(windows_of([0.1, 0.9, 0.9, 0.1, 0.1, 0.9], window=5.0, hop=1.0)) == [(3.0, 5.0), (7.0, 10.0)]
    assert find_spans(windows_of([0.9, 0.1, 0.1], window=5.0, hop=1.0)) == [(0.0, 3.0)]


def test_segment_does_not_cover_gaps_between_windows():
    windows = windows_of([0.9, 0.9], window=1.0, hop=3.0)
    assert find_spans(windows) == [(0, 1), (3, 4)]
    assert find_spans(windows, max_gap_seconds=2) == [(0, 4)]


def test_overlapping_windows_all_count_so_one_sound_may_be_in_several():
    """A click at 2.9 s is in the windows from 2 to 3.5, from 2.5 to 4 and, almost, in that from 1.5 to 3 s."""
    windows = windows_of([0.1, 0.1, 0.1, 0.9, 0.9, 0.9, 0.1], window=1.5, hop=0.5)
    assert len(find_spans(windows, smooth_windows=1, min_windows=3)) == 1
    assert find_spans(windows, smooth_windows=1, min_windows=4) == []


def test_rounding_errors_do_not_decide_whether_a_gap_is_closed():
    windows = windows_of([0.9, 0.1, 0.1, 0.1, 0.9], window=0.1, hop=0.1)
    assert windows.starts[4] - windows.ends[0] > 0.3  # in binary
    assert find_spans(windows, max_gap_seconds=0.3) == [(0.0, windows.ends[4])]
    assert find_spans(windows, max_gap_seconds=0.299) == [(0.0, 0.1), (windows.starts[4], windows.ends[4])]


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.7])
def test_probability_equal_to_the_threshold_reaches_it(threshold):
    """0.7 is greater than the closest float32."""
    windows = windows_of([threshold])
    assert find_spans(windows, threshold) == [(0, 1)]
    assert len(find_segments(windows, np.array([threshold], np.float64), SegmentConfig())) == 1


def test_segments_are_sorted_by_start_then_label():
    windows = windows_of([[0.1, 0.9, 0.9], [0.9, 0.9, 0.1], [0.1, 0.1, 0.9]])
    result = find_segments(windows, np.full(3, 0.5, np.float32), SegmentConfig())
    assert [(s.start_seconds, s.label_index) for s in result] == [(0, 1), (0, 2), (1, 0), (2, 2)]


def test_each_label_has_its_own_threshold(rng):
    probabilities = rng.random((40, 100), np.float32)
    thresholds = rng.random(100, np.float32)
    together = find_segments(windows_of(probabilities), thresholds, SegmentConfig(smooth_windows=3, hysteresis=0.8))
    alone = [
        (segment.start_seconds, label, segment.end_seconds, segment.probability)
        for label in range(100)
        for segment in find_segments(
            windows_of(probabilities[:, label]),
            thresholds[[label]],
            SegmentConfig(smooth_windows=3, hysteresis=0.8),
        )
    ]
    assert len(alone) > 100
    assert [(s.start_seconds, s.label_index, s.end_seconds, s.probability) for s in together] == sorted(alone)


def naive_segments(windows, thresholds, config):
    """The definition in the docstring, window by window."""
    starts, ends = windows.cells
    result = []
    for label, high in enumerate(thresholds):
        values = median_filtered(windows.probabilities, config.smooth_windows)[:, label]
        low = np.float32(config.hysteresis * float(high))
        on = [value >= high for value in values]
        for order in (range(1, len(on)), range(len(on) - 2, -1, -1)):
            for i in order:
                neighbour = i - 1 if order.step > 0 else i + 1
                on[i] = on[i] or (on[neighbour] and values[i] >= low)
        runs = np.split(np.flatnonzero(on), np.flatnonzero(np.diff(np.flatnonzero(on)) > 1) + 1)
        merged = []
        for i in (window for run in runs if len(run) >= config.min_windows for window in run):
            if merged and round(starts[i] - ends[merged[-1][-1]], 6) <= config.max_gap_seconds:
                merged[-1].append(i)
            else:
                merged.append([i])
        for group in merged:
            start, end = starts[group[0]], ends[group[-1]]
            if round(end - start, 6) >= config.min_duration_seconds:
                result.append(Segment(label, start, end, max(values[group])))
    return sorted(result, key=lambda segment: (segment.start_seconds, segment.label_index))


@given(
    windows=timelines(), config=configs(), thresholds=st.lists(st.sampled_from([0.0, 0.3, 0.7]), min_size=2, max_size=2)
)
def test_segments_equal_those_found_window_by_window(windows, config, thresholds):
    thresholds = np.array(thresholds, np.float32)
    assert find_segments(windows, thresholds, config) == naive_segments(windows, thresholds, config)


@given(windows=timelines(), config=configs())
def test_segments_of_a_label_keep_minimum_gap_and_duration(windows, config):
    result = find_segments(windows, np.array([0.3, 0.7], np.float32), config)
    for label in (0, 1):
        label_segments = [segment for segment in result if segment.label_index == label]
        for before, after in pairwise(label_segments):
            assert after.start_seconds - before.end_seconds > config.max_gap_seconds - 1e-6
        assert all(s.end_seconds - s.start_seconds >= config.min_duration_seconds - 1e-6 for s in label_segments)


def test_segments_need_a_threshold_for_each_label_and_times():
    with pytest.raises(ValueError, match=r"need thresholds of shape \(1,\), got \(2,\)"):
        find_segments(windows_of([0.1]), np.zeros(2, np.float32), SegmentConfig())
    image = Timeline(np.zeros(1), np.array([np.nan]), np.array([[0.3]], np.float32))
    with pytest.raises(ValueError, match="an image has no segments"):
        find_segments(image, np.zeros(1, np.float32), SegmentConfig())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"smooth_windows": 4}, "smooth_windows: expected an odd number .got 4."),
        ({"smooth_windows": 0}, r"smooth_windows: .*greater than or equal to 1 \(got 0\)"),
        ({"hysteresis": 1.2}, r"hysteresis: .*less than or equal to 1 \(got 1.2\)"),
        ({"min_duration_seconds": -1}, "min_duration_seconds: .*greater than or equal to 0"),
        ({"max_gap_seconds": -1}, "max_gap_seconds: .*greater than or equal to 0"),
        ({"max_gap": 1}, "max_gap: unknown setting; did you mean 'max_gap_seconds'?"),
    ],
)
def test_invalid_segment_settings_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        parse_config(values, SegmentConfig, source="tag.toml")


def frames_of(rng, n_frames=400):
    """Probabilities of frames of 80 ms that rise and fall, with gaps."""
    levels = np.repeat(rng.choice([0.1, 0.35, 0.9], n_frames // 8), 8) + rng.normal(0, 0.15, n_frames)
    edges = np.arange(n_frames + 1) * 0.08
    return edges, levels.clip(0, 1).astype(np.float32)[:, None]


def test_frames_are_closed_then_smoothed_as_the_model_says(rng):
    edges, values = frames_of(rng)
    frames = FramesInfo(closed_frames=5, smooth_frames=9, hysteresis=0.6)
    found = find_segments(
        Timeline(edges[:-1], edges[1:], values, frames=frames), np.full(1, 0.5, np.float32), SegmentConfig()
    )
    closed = grey_closing(values.astype(np.float32), (5, 1), mode="nearest")
    plain = Timeline(edges[:-1], edges[1:], closed)
    expected = find_segments(plain, np.full(1, 0.5, np.float32), SegmentConfig(smooth_windows=9, hysteresis=0.6))
    assert len(found) > 5
    assert found == expected


def test_settings_of_the_user_win_over_those_of_the_frames(rng):
    edges, values = frames_of(rng)
    frames = FramesInfo(closed_frames=1)
    timeline, limits = Timeline(edges[:-1], edges[1:], values, frames=frames), np.full(1, 0.5, np.float32)
    chosen = SegmentConfig(smooth_windows=1, hysteresis=0.9)
    as_windows = Timeline(edges[:-1], edges[1:], values.astype(np.float32))
    assert find_segments(timeline, limits, chosen) == find_segments(as_windows, limits, chosen)
    assert find_segments(timeline, limits, chosen) != find_segments(timeline, limits, SegmentConfig())


def test_windows_end_at_seven_tenths_of_the_threshold_by_default(rng):
    edges, values = frames_of(rng)
    windows, limits = Timeline(edges[:-1], edges[1:], values.astype(np.float32)), np.full(1, 0.5, np.float32)
    assert find_segments(windows, limits, SegmentConfig()) == find_segments(
        windows, limits, SegmentConfig(hysteresis=0.7)
    )
    assert find_segments(windows, limits, SegmentConfig()) != find_segments(
        windows, limits, SegmentConfig(hysteresis=0.5)
    )
