import doctest

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from spectag import timeline
from spectag.timeline import window_starts

lengths = st.integers(1, 10_000)
steps = st.integers(1, 500)


@given(n_samples=lengths, window=steps, hop=steps)
def test_windows_reach_the_last_sample_and_a_short_clip_gets_one(n_samples, window, hop):
    starts = window_starts(n_samples, window=window, hop=hop)
    assert starts[0] == 0
    assert starts[-1] + window >= n_samples
    if n_samples <= window:
        assert len(starts) == 1


@given(n_samples=lengths, window=steps, hop=steps)
def test_every_window_holds_sound_and_none_is_needless(n_samples, window, hop):
    starts = window_starts(n_samples, window=window, hop=hop)
    assert (np.diff(starts) > 0).all()
    assert starts[-1] < n_samples
    assert (starts[:-1] + window < n_samples).all()


@given(n_samples=lengths, window=steps, hop=steps)
def test_windows_without_gaps_lie_hop_apart_and_cover_every_sample(n_samples, window, hop):
    assume(hop <= window)
    starts = window_starts(n_samples, window=window, hop=hop)
    assert starts.tolist() == [i * hop for i in range(len(starts))]
    covered = np.zeros(n_samples, dtype=bool)
    for start in starts:
        covered[start : start + window] = True
    assert covered.all()


@given(n_windows=st.integers(1, 50), hop=steps)
def test_a_recording_that_the_windows_fill_exactly_gets_no_padded_one(n_windows, hop):
    assert len(window_starts(n_windows * hop, window=hop, hop=hop)) == n_windows


@pytest.mark.parametrize(
    ("n_samples", "window", "hop", "expected"),
    [
        (10, 4, 4, [0, 4, 8]),
        (10, 4, 2, [0, 2, 4, 6]),
        (11, 4, 2, [0, 2, 4, 6, 8]),
        (1, 4, 4, [0]),
        (4, 4, 1, [0]),
        (5, 4, 4, [0, 4]),
        (10, 2, 5, [0, 5, 8]),  # a third window at 10 would hold nothing
        (11, 2, 5, [0, 5, 10]),
    ],
)
def test_starts_worked_by_hand(n_samples, window, hop, expected):
    starts = window_starts(n_samples, window=window, hop=hop)
    assert starts.tolist() == expected
    assert starts.dtype == np.int64


@pytest.mark.parametrize(("n_samples", "window", "hop"), [(0, 1, 1), (5, 0, 1), (5, 1, 0), (-3, 1, 1)])
def test_lengths_below_one_sample_are_refused_with_their_values(n_samples, window, hop):
    with pytest.raises(ValueError, match=f"at least 1 sample, got {n_samples}, {window} and {hop}"):
        window_starts(n_samples, window=window, hop=hop)


def test_the_examples_in_the_docstrings_are_right():
    result = doctest.testmod(timeline)
    assert result.attempted > 0
    assert result.failed == 0
