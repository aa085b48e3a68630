"""The labels detected in a recording: by window, pooled, or as segments."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from helpers.bundles import LABELS as BUNDLE_LABELS
from helpers.bundles import make_bundle, make_info
from spectag.config.base import SegmentConfig
from spectag.config.tagging import TagSettings
from spectag.data.label_map import as_label_map
from spectag.models.bundle import WindowThresholds
from spectag.models.tagger import Tagger
from spectag.models.timeline import Timeline
from spectag.tagging.events import (
    Event,
    FileEvents,
    detected_events,
    renamed,
    segment_events,
    select_labels,
    window_events,
)
from spectag.tagging.parallel import TaggedFile

LABELS = ("Bark", "Hi-hat", "Sink")
THRESHOLDS = np.array([0.5, 0.4, 0.6], np.float32)


def timeline_of(*rows):
    starts = np.arange(len(rows)) * 2.0
    return Timeline(starts, starts + 2, np.array(rows, np.float32))


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ({}, ["Hi-hat"]),  # 0.55 is below 0.6, and 0.4 reaches 0.4
        ({"top": 2}, ["Sink", "Hi-hat"]),
        ({"top": 9}, ["Sink", "Hi-hat", "Bark"]),
        ({"threshold": 0.3}, ["Sink", "Hi-hat", "Bark"]),
        ({"threshold": 0.5}, ["Sink"]),
        ({"threshold": 1.0}, []),
        ({"threshold": 0.0}, ["Sink", "Hi-hat", "Bark"]),
        ({"top": 2, "threshold": 0.5}, ["Sink"]),
        ({"top": 1, "threshold": 0.0}, ["Sink"]),
    ],
)
def test_selection_takes_the_top_labels_or_those_above_the_threshold(selection, expected):
    events = window_events(timeline_of([0.3, 0.4, 0.55]), LABELS, THRESHOLDS, **selection)
    assert [event.label for event in events] == expected


def test_events_are_ordered_by_window_and_have_its_times():
    events = window_events(timeline_of([0.9, 0.1, 0.7], [0.1, 0.1, 0.1], [0, 1, 0]), LABELS, THRESHOLDS)
    assert events == (
        Event(0.0, 2.0, "Bark", float(np.float32(0.9))),
        Event(0.0, 2.0, "Sink", float(np.float32(0.7))),
        Event(4.0, 6.0, "Hi-hat", 1.0),
    )


NEW_NAMES = as_label_map({"Bark": "Animal", "Hi-hat": "Animal", "Hiss": None})


def test_of_several_events_of_a_window_that_get_one_name_the_most_probable_stays():
    timeline = timeline_of([0.5, 0.9, 0.7], [0.8, 0.1, 0.9])
    file = FileEvents("a.wav", 4.0, window_events(timeline, LABELS, THRESHOLDS), timeline)
    found = [
        (event.start_seconds, event.label, round(event.probability, 3)) for event in renamed(file, NEW_NAMES).events
    ]
    assert found == [(0.0, "Animal", 0.9), (0.0, "Sink", 0.7), (2.0, "Sink", 0.9), (2.0, "Animal", 0.8)]


def test_segments_that_get_one_name_are_joined_if_they_overlap_or_touch():
    events = (
        Event(0.0, 3.0, "Bark", 0.7, 0.5),
        Event(0.0, 9.0, "Sink", 0.9, 0.1),
        Event(2.0, 2.5, "Hi-hat", 0.8, 0.2),
        Event(3.0, 4.0, "Hi-hat", 0.6, 0.9),
        Event(5.0, 6.0, "Bark", 0.9, 0.4),
        Event(5.0, 6.0, "Hiss", 0.9, 0.4),
    )
    file = FileEvents("a.wav", 9.0, events, timeline_of([0, 0, 0]), by_window=False)
    assert renamed(file, NEW_NAMES).events == (
        Event(0.0, 4.0, "Animal", 0.8, 0.2),
        Event(0.0, 9.0, "Sink", 0.9, 0.1),
        Event(5.0, 6.0, "Animal", 0.9, 0.4),
    )


def test_events_of_an_image_have_no_end():
    image = Timeline(np.zeros(1), np.array([np.nan]), np.array([[0.9, 0, 0]], np.float32))
    assert window_events(image, LABELS, THRESHOLDS)[0].end_seconds is None


def test_many_windows_are_processed_in_batches(rng):
    many = timeline_of(*rng.random((5000, 3)))
    events = window_events(many, LABELS, THRESHOLDS, threshold=0.5)
    assert len(events) == (many.probabilities >= 0.5).sum()
    assert [event.start_seconds for event in events] == sorted(event.start_seconds for event in events)


@given(
    probabilities=arrays(np.float32, (4, 6), elements=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])),
    top=st.none() | st.integers(1, 7),
    threshold=st.none() | st.sampled_from([0.0, 0.3, 0.5, 1.0]),
)
def test_selection_equals_sorting_each_window(probabilities, top, threshold):
    thresholds = np.array([0.5, 0.3, 1.0, 0.0, 0.25, 0.6], np.float32)
    expected = []
    for window, row in enumerate(probabilities):
        ranked = sorted(range(6), key=lambda label: (-row[label], label))[:top]
        limits = thresholds if top is None and threshold is None else np.full(6, threshold or 0.0)
        expected += [(window, label) for label in ranked if row[label] >= limits[label]]
    windows, labels = select_labels(probabilities, thresholds, top=top, threshold=threshold)
    assert list(zip(windows.tolist(), labels.tolist(), strict=True)) == expected


def test_segments_become_events_with_label_names():
    timeline = timeline_of([0.9, 0.0, 0.0], [0.8, 0.0, 0.7], [0.1, 0.0, 0.0])
    assert segment_events(timeline, LABELS, THRESHOLDS, SegmentConfig()) == (
        Event(0.0, 4.0, "Bark", float(np.float32(0.9))),
        Event(2.0, 4.0, "Sink", float(np.float32(0.7))),
    )


@pytest.fixture
def tagger(tmp_path):
    return Tagger(make_bundle(tmp_path / "model"))


def detect(tagger, *, column, **settings):
    """Events of four windows of one second, in which the first label has these probabilities and the others 0."""
    probabilities = np.zeros((4, len(BUNDLE_LABELS)), np.float32)
    probabilities[:, 0] = column
    timeline = Timeline(np.arange(4.0), np.arange(1.0, 5.0), probabilities)
    events = detected_events(TaggedFile("a.wav", timeline), timeline, tagger, TagSettings(**settings)).events
    return [(event.start_seconds, event.end_seconds, round(event.probability, 6)) for event in events]


def test_min_confidence_replaces_the_thresholds_of_windows_and_segments(tagger):
    column = (0.05, 0.05, 0.01, 0.05)
    assert tagger.thresholds[0] > 0.05
    assert detect(tagger, column=column, window=1.0) == []
    assert detect(tagger, column=column, window=1.0, segments=True) == []
    assert detect(tagger, column=column, window=1.0, min_confidence=0.04) == [
        (0.0, 1.0, 0.05),
        (1.0, 2.0, 0.05),
        (3.0, 4.0, 0.05),
    ]
    assert detect(tagger, column=column, window=1.0, segments=True, min_confidence=0.04) == [
        (0.0, 2.0, 0.05),
        (3.0, 4.0, 0.05),
    ]


@pytest.mark.parametrize(("clip_level", "expected"), [("max", 0.8), ("mean", 0.542857)])
def test_pooled_windows_become_one(tagger, clip_level, expected):
    events = detect(tagger, column=(0.8, 0.2, 0.2, 0.2), window=1.0, clip_level=clip_level, min_confidence=0.1)
    assert events == [(0.0, 4.0, expected)]


# ------------------------------------------------------------------------------------------------ novelty


def detect_with_novelty(tagger, *, column, novelty, **settings):
    """The events of `detect` whose windows have these novelties, as (start, end, novelty), and the number left out."""
    probabilities = np.zeros((len(column), len(BUNDLE_LABELS)), np.float32)
    probabilities[:, 0] = column
    starts = np.arange(float(len(column)))
    timeline = Timeline(starts, starts + 1, probabilities, np.array(novelty, np.float32))
    file = detected_events(TaggedFile("a.wav", timeline), timeline, tagger, TagSettings(window=1.0, **settings))
    return [(event.start_seconds, event.end_seconds, event.novelty) for event in file.events], file.n_suppressed


def test_window_has_its_own_novelty_and_a_segment_the_smallest(tagger):
    column, novelty = (0.9, 0.9, 0.0, 0.9), (1.5, 0.5, 0.25, 2.0)
    assert detect_with_novelty(tagger, column=column, novelty=novelty) == (
        [(0.0, 1.0, 1.5), (1.0, 2.0, 0.5), (3.0, 4.0, 2.0)],
        0,
    )
    assert detect_with_novelty(tagger, column=column, novelty=novelty, segments=True) == (
        [(0.0, 2.0, 0.5), (3.0, 4.0, 2.0)],
        0,
    )


def test_labels_of_novel_windows_and_segments_are_left_out_and_counted(tagger):
    column, novelty = (0.9, 0.9, 0.0, 0.9), (1.5, 1.0, 0.25, 2.0)
    assert detect_with_novelty(tagger, column=column, novelty=novelty, max_novelty=1) == ([(1.0, 2.0, 1.0)], 2)
    assert detect_with_novelty(tagger, column=column, novelty=novelty, max_novelty=1, segments=True) == (
        [(0.0, 2.0, 1.0)],
        1,
    )
    assert detect_with_novelty(tagger, column=column, novelty=novelty, max_novelty=2)[1] == 0


@pytest.mark.parametrize("clip_level", ["max", "mean"])
def test_novel_windows_do_not_count_in_a_pool(tagger, clip_level):
    column = (0.9, 0.9, 0.9, 0.0)
    novel_sound, familiar_sound = (2.0, 2.0, 2.0, 0.5), (0.5, 0.5, 0.5, 2.0)
    assert detect_with_novelty(tagger, column=column, novelty=novel_sound, clip_level=clip_level) == (
        [(0.0, 4.0, 0.5)],
        0,
    )
    assert detect_with_novelty(tagger, column=column, novelty=novel_sound, clip_level=clip_level, max_novelty=1) == (
        [],
        1,
    )
    assert detect_with_novelty(tagger, column=column, novelty=familiar_sound, clip_level=clip_level, max_novelty=1) == (
        [(0.0, 4.0, 0.5)],
        0,
    )
    assert detect_with_novelty(
        tagger, column=column, novelty=(2.0,) * 4, clip_level=clip_level, top=1, max_novelty=1
    ) == ([], 1)


def test_windows_and_segments_have_thresholds_of_their_own(tagger, tmp_path):
    windows = WindowThresholds(below_seconds=1.5, thresholds=(0.04, 0.5, 0.5))
    with_own = Tagger(make_bundle(tmp_path / "windows", make_info(window_thresholds=windows)))
    column = (0.05, 0.05, 0.01, 0.05)
    assert detect(with_own, column=column, window=1.0) == [(0.0, 1.0, 0.05), (1.0, 2.0, 0.05), (3.0, 4.0, 0.05)]
    assert detect(with_own, column=column, window=1.0, segments=True) == [(0.0, 2.0, 0.05), (3.0, 4.0, 0.05)]
    assert detect(with_own, column=column, window=1.5) == detect(tagger, column=column, window=1.5) == []
    assert detect(with_own, column=column) == []


@pytest.mark.parametrize("clip_level", ["max", "mean"])
def test_a_familiar_sound_is_not_diluted_by_novel_windows_in_a_pool(tagger, clip_level):
    events = detect_with_novelty(
        tagger, column=(0.9, 0.0, 0.0, 0.0), novelty=(0.5, 2.0, 2.0, 2.0), clip_level=clip_level, max_novelty=1
    )
    assert events == ([(0.0, 4.0, 0.5)], 0)
