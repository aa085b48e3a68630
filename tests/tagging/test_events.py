"""Which labels are heard, and when."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from spectag.config.base import SegmentConfig
from spectag.models.timeline import Timeline
from spectag.tagging.events import EventSelection, Event, segment_events, window_events

LABELS = ("Bark", "Hi-hat", "Sink")
THRESHOLDS = np.array([0.5, 0.4, 0.6], np.float32)


def timeline_of(*rows):
    starts = np.arange(len(rows)) * 2.0
    return Timeline(starts, starts + 2, np.array(rows, np.float32))


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (EventSelection(), ["Hi-hat"]),  # 0.55 is below 0.6, and 0.4 reaches 0.4
        (EventSelection(top=2), ["Sink", "Hi-hat"]),
        (EventSelection(top=9), ["Sink", "Hi-hat", "Bark"]),
        (EventSelection(threshold=0.3), ["Sink", "Hi-hat", "Bark"]),
        (EventSelection(threshold=0.5), ["Sink"]),
        (EventSelection(threshold=1.0), []),
        (EventSelection(threshold=0.0), ["Sink", "Hi-hat", "Bark"]),
        (EventSelection(top=2, threshold=0.5), ["Sink"]),
        (EventSelection(top=1, threshold=0.0), ["Sink"]),
    ],
)
def test_choice_takes_the_top_or_what_reaches_thresholds_most_probable_first(choice, expected):
    events = window_events(timeline_of([0.3, 0.4, 0.55]), LABELS, THRESHOLDS, choice)
    assert [event.label for event in events] == expected


def test_events_come_window_after_window_with_their_times():
    events = window_events(
        timeline_of([0.9, 0.1, 0.7], [0.1, 0.1, 0.1], [0, 1, 0]), LABELS, THRESHOLDS, EventSelection()
    )
    assert events == (
        Event(0.0, 2.0, "Bark", float(np.float32(0.9))),
        Event(0.0, 2.0, "Sink", float(np.float32(0.7))),
        Event(4.0, 6.0, "Hi-hat", 1.0),
    )


def test_events_of_an_image_have_no_end():
    image = Timeline(np.zeros(1), np.array([np.nan]), np.array([[0.9, 0, 0]], np.float32))
    assert window_events(image, LABELS, THRESHOLDS, EventSelection())[0].end_seconds is None


def test_many_windows_are_taken_piece_by_piece_to_the_same_end(rng):
    many = timeline_of(*rng.random((5000, 3)))
    events = window_events(many, LABELS, THRESHOLDS, EventSelection(threshold=0.5))
    assert len(events) == (many.probabilities >= 0.5).sum()
    assert [event.start_seconds for event in events] == sorted(event.start_seconds for event in events)


@given(
    probabilities=arrays(np.float32, (4, 6), elements=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])),
    top=st.none() | st.integers(1, 7),
    threshold=st.none() | st.sampled_from([0.0, 0.3, 0.5, 1.0]),
)
def test_choice_is_what_sorting_each_window_by_hand_gives(probabilities, top, threshold):
    own = np.array([0.5, 0.3, 1.0, 0.0, 0.25, 0.6], np.float32)
    expected = []
    for window, row in enumerate(probabilities):
        ranked = sorted(range(6), key=lambda label: (-row[label], label))[:top]
        limits = own if top is None and threshold is None else np.full(6, threshold or 0.0)
        expected += [(window, label) for label in ranked if row[label] >= limits[label]]
    windows, labels = EventSelection(top, threshold)(probabilities, own)
    assert list(zip(windows.tolist(), labels.tolist(), strict=True)) == expected


def test_segments_become_events_with_the_names_of_their_labels():
    timeline = timeline_of([0.9, 0.0, 0.0], [0.8, 0.0, 0.7], [0.1, 0.0, 0.0])
    assert segment_events(timeline, LABELS, THRESHOLDS, SegmentConfig()) == (
        Event(0.0, 4.0, "Bark", float(np.float32(0.9))),
        Event(2.0, 4.0, "Sink", float(np.float32(0.7))),
    )
