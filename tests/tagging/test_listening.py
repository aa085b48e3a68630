"""Onsets and offsets in live sound agree with the segments of the whole recording."""

import io

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from helpers.bundles import LABELS, make_bundle, make_info, tone
from spectag.audio.files import write_audio
from spectag.audio.front_end import FrontEnd
from spectag.audio.live_stream import Block, LiveStream, read_raw
from spectag.config.base import ImageConfig, SegmentConfig, WindowConfig
from spectag.config.listening import ListenSettings
from spectag.errors import AudioError, BundleError, DataError
from spectag.models.bundle import ONNX_FILE
from spectag.models.tagger import Tagger
from spectag.models.timeline import Timeline, find_segments, median_filtered
from spectag.tagging.listening import OnOffDetector, TaggedWindow, listen, median_windows, tag_stream

RATE = 16_000


@pytest.fixture(scope="module")
def tagger(tmp_path_factory):
    return Tagger(make_bundle(tmp_path_factory.mktemp("model") / "m"))


def make_windows(probabilities, *, window=1.0, step=0.5, delay=0.0):
    """Successive windows with these probabilities, each captured at its end, or later by `delay`."""
    rows = np.atleast_2d(np.array(probabilities, np.float32).T).T
    return [
        TaggedWindow(step * i, step * i + window, row, captured_at=step * i + window + delay)
        for i, row in enumerate(rows)
    ]


def detect(probabilities, thresholds, hysteresis, min_windows=1, **options):
    """The onsets and offsets in windows with these probabilities."""
    thresholds = np.array(thresholds, np.float32)
    names = [f"label {i}" for i in range(len(thresholds))]
    detector = OnOffDetector(names, thresholds, hysteresis, lambda: 0.0, min_windows)
    events = [event for window in make_windows(probabilities, **options) for event in detector.update(window)]
    return events + detector.finish()


def make_stream(waveform, sample_rate=RATE, *, n_block=1_600, waits=True, began_at=0.0):
    """Live sound in blocks, each captured at its end."""
    blocks = (
        Block(waveform[start : start + n_block], began_at + min(start + n_block, len(waveform)) / sample_rate)
        for start in range(0, len(waveform), n_block)
    )
    return LiveStream("a sound", sample_rate, blocks, waits)


def segments_of(events):
    """(label, onset, offset) of each segment in which a label is on."""
    onsets, found = {}, []
    for event in events:
        if event.is_onset:
            assert event.label not in onsets
            onsets[event.label] = event.time_seconds
        else:
            found.append((event.label, onsets.pop(event.label), event.time_seconds))
    assert onsets == {}
    return sorted(found)


# ------------------------------------------------------------------------------------------------ onsets and offsets


def test_label_goes_on_at_its_threshold_and_off_below_a_fraction_of_it():
    events = detect([0.3, 0.59, 0.6, 0.4, 0.3, 0.29, 0.5, 0.7], [0.6], hysteresis=0.5)
    assert [(event.time_seconds, event.is_onset, round(event.probability, 2)) for event in events] == [
        (1.25, True, 0.6),  # the middle of what the windows 0.5 to 1.5 s and 1 to 2 s share
        (2.75, False, 0.29),
        (3.75, True, 0.7),
        (4.5, False, 0.7),  # where the last window ends
    ]


def test_offsets_come_first_and_then_the_most_probable_onsets():
    events = detect([[0.9, 0.1, 0.1], [0.0, 0.6, 0.7]], [0.5] * 3, hysteresis=1.0)
    assert [(event.label, event.is_onset) for event in events[1:4]] == [
        ("label 0", False),
        ("label 2", True),
        ("label 1", True),
    ]


def test_labels_of_separate_windows_are_on_for_whole_windows():
    events = detect([[0.9, 0.1], [0.1, 0.9]], [0.5, 0.5], hysteresis=1.0, window=1.0, step=3.0)
    assert segments_of(events) == [("label 0", 0.0, 1.0), ("label 1", 3.0, 4.0)]


def test_label_must_be_on_in_two_windows_in_a_row_to_be_reported():
    events = detect([0.9, 0.1, 0.7, 0.8, 0.1], [0.6], hysteresis=1.0, min_windows=2, step=1.0)
    assert [(event.time_seconds, event.is_onset, round(event.probability, 2)) for event in events] == [
        (2.0, True, 0.8),  # the start of the first of the two windows, and the larger probability
        (4.0, False, 0.1),
    ]
    assert detect([0.1, 0.9], [0.6], hysteresis=1.0, min_windows=2) == []  # the sound ends too early


def test_latency_of_an_onset_contains_the_windows_that_it_waited_for():
    clock = iter([1.25, 2.25])
    detector = OnOffDetector(["a"], np.array([0.5], np.float32), 1.0, lambda: next(clock), min_windows=2)
    first, second = make_windows([0.9, 0.9], step=1.0)
    assert detector.update(first) == []
    [event] = detector.update(second)
    assert event.latency_seconds == 1.25


def test_latency_is_the_time_since_the_last_sample_of_the_window():
    detector = OnOffDetector(["a"], np.array([0.5], np.float32), 1.0, clock=lambda: 1.75)
    [event] = detector.update(make_windows([0.9], delay=0.5)[0])
    assert event.latency_seconds == 0.25


probabilities = st.integers(0, 30).flatmap(
    lambda n: st.lists(st.lists(st.floats(0, 1, width=32), min_size=3, max_size=3), min_size=n, max_size=n)
)
thresholds = st.lists(st.floats(0, 1, width=32), min_size=3, max_size=3)


@given(rows=probabilities, limits=thresholds, hysteresis=st.floats(0, 1), step=st.sampled_from([0.25, 1.0, 1.5]))
def test_every_onset_has_its_offset_in_order_of_time(rows, limits, hysteresis, step):
    events = detect(np.array(rows, np.float32).reshape(-1, 3), limits, hysteresis, step=step)
    times = [event.time_seconds for event in events]
    assert times == sorted(times)
    for label, index in (("label 0", 0), ("label 1", 1), ("label 2", 2)):
        of_label = [event for event in events if event.label == label]
        assert [event.is_onset for event in of_label] == [True, False] * (len(of_label) // 2)
        assert all(event.probability >= limits[index] for event in of_label if event.is_onset)
        offsets = [event for event in of_label if not event.is_onset and event.time_seconds < times[-1]]
        assert all(event.probability <= np.float32(hysteresis * limits[index]) for event in offsets)


@given(
    rows=probabilities,
    limits=thresholds,
    smooth=st.sampled_from([1, 3, 5]),
    step=st.sampled_from([0.25, 0.5, 1.0]),
    least=st.sampled_from([1, 2, 4]),
)
def test_without_hysteresis_labels_are_on_in_the_segments_of_the_recording(rows, limits, smooth, step, least):
    rows, limits = np.array(rows, np.float32).reshape(-1, 3), np.array(limits, np.float32)
    config = SegmentConfig(smooth_windows=smooth, hysteresis=1.0, min_windows=least)
    windows = make_windows(rows, step=step) if len(rows) else []
    starts, ends = (
        np.array([getattr(window, name) for window in windows]) for name in ("start_seconds", "end_seconds")
    )
    expected = [
        (f"label {segment.label_index}", segment.start_seconds, segment.end_seconds)
        for segment in find_segments(Timeline(starts, ends, rows), limits, config)
    ]
    detector = OnOffDetector(["label 0", "label 1", "label 2"], limits, 1.0, lambda: 0.0, least)
    events = [event for window in median_windows(windows, smooth) for event in detector.update(window)]
    assert segments_of(events + detector.finish()) == sorted(expected)


def test_median_comes_as_soon_as_the_following_windows_have_arrived():
    windows = make_windows([0.1, 0.9, 0.2, 0.8, 0.7])
    arrived = []

    def arriving():
        for window in windows:
            arrived.append(window)
            yield window

    medians = median_windows(arriving(), 3)
    first = next(medians)
    assert (len(arrived), first.start_seconds) == (2, 0.0)
    assert next(medians).captured_at == windows[1].captured_at
    assert len(arrived) == 3
    found = [window.probabilities for window in median_windows(windows, 3)]
    assert np.array_equal(found, median_filtered(np.stack([window.probabilities for window in windows]), 3))


# ------------------------------------------------------------------------------------------------ windows


@pytest.mark.parametrize("sample_rate", [RATE, 44_100])
def test_probabilities_equal_those_of_the_same_windows_of_a_file(tagger, tmp_path, sample_rate):
    waveform = np.concatenate([tone(label, 0.83, sample_rate) for label in LABELS])
    write_audio(tmp_path / "a.wav", waveform, sample_rate)
    window = WindowConfig(window_seconds=0.5, overlap_seconds=0.3)
    expected = list(tagger.tag_windows(tmp_path / "a.wav", window))
    samples = soundfile.read(tmp_path / "a.wav", dtype="int16")[0]
    stream = read_raw(io.BytesIO(samples.astype("<i2").tobytes()), sample_rate=sample_rate)
    found = list(tag_stream(tagger, stream, window))
    assert len(found) == len(expected) > 8
    for tagged, tags in zip(found, expected, strict=True):
        assert (tagged.start_seconds, tagged.end_seconds) == (tags.start_seconds, tags.end_seconds)
        assert np.array_equal(tagged.probabilities, tags.probabilities)


def test_successive_tones_are_detected_at_their_times(tagger):
    waveform = np.concatenate([tone(label, 2.0) for label in LABELS])
    events = list(listen(tagger, make_stream(waveform), ListenSettings(window=0.5, overlap=0.25, min_confidence=3e-4)))
    found = {label: (start, end) for label, start, end in segments_of(events)}
    for number, label in enumerate(LABELS):
        assert found[label] == pytest.approx((2.0 * number, 2.0 * (number + 1)), abs=0.3)


def test_min_confidence_replaces_all_thresholds(tagger):
    waveform = tone("middle", 1.0)
    assert events_in(tagger, waveform, min_confidence=1.0) == []
    assert {event.label for event in events_in(tagger, waveform, min_confidence=0.0)} == set(LABELS)
    assert {event.label for event in events_in(tagger, waveform)} == {"middle"}


def events_in(tagger, waveform, **settings):
    return list(listen(tagger, make_stream(waveform), ListenSettings(**settings)))


def test_latency_is_measured_from_the_end_of_the_window_not_of_the_block(tagger):
    stream = make_stream(tone("middle", 2.0), n_block=7_000, began_at=100.0)
    n_events = 0
    for event in listen(tagger, stream, ListenSettings(window=0.5, overlap=0.25), clock=lambda: 110.0):
        window_end = 0.5 if event.is_onset else 2.0
        assert event.latency_seconds == pytest.approx(10.0 - window_end)
        n_events += 1
    assert n_events == 2


def test_slow_tagging_of_a_microphone_tags_the_newest_window_and_counts_the_others(tagger):
    clock = iter(range(1000))
    lines = []
    waveform = tone("low", 3.0)
    window = WindowConfig(window_seconds=0.5, overlap_seconds=0.25)
    stream = make_stream(waveform, n_block=12_800, waits=False)
    found = list(tag_stream(tagger, stream, window, log=lines.append, clock=lambda: next(clock)))
    assert [(tagged.start_seconds, tagged.end_seconds) for tagged in found] == [
        (0.25, 0.75),  # of 0.8 s
        (1.0, 1.5),  # of 1.6 s
        (1.75, 2.25),
        (2.5, 3.0),
    ]
    assert len(lines) == 2
    assert "one arrives every 0.25 s, and the last took 1.00 s to tag" in lines[0]
    assert lines[1] == "left out 7 of 11 windows"
    lines.clear()
    assert len(list(tag_stream(tagger, make_stream(waveform, n_block=12_800), window, log=lines.append))) == 11
    assert lines == []


def test_all_labels_go_off_before_the_error_of_a_broken_stream(tagger):
    def breaking():
        yield from make_stream(tone("middle", 1.0)).blocks
        raise AudioError("gone")

    events = listen(tagger, LiveStream("a sound", RATE, breaking(), waits=False), ListenSettings(window=0.2))
    assert [next(events).is_onset, next(events).is_onset] == [True, False]
    with pytest.raises(AudioError, match="gone"):
        next(events)


def test_model_of_images_is_an_error_before_any_sound_is_read(tmp_path):
    def unread():
        raise AssertionError("a block was read")
        yield

    images = Tagger(make_bundle(tmp_path / "m", make_info(front_end=FrontEnd(mel=None, image=ImageConfig(height=24)))))
    with pytest.raises(DataError, match="can tag images but not sounds"):
        next(listen(images, LiveStream("a sound", RATE, unread(), waits=False)))


def test_damaged_model_is_an_error_before_any_sound_is_read(tmp_path):
    folder = make_bundle(tmp_path / "m")
    (folder / ONNX_FILE).write_bytes(b"no network")
    blocks = iter([Block(tone("low", 1.0), 0.0)])
    with pytest.raises(BundleError, match="not an ONNX file, or damaged"):
        next(listen(Tagger(folder), LiveStream("a sound", RATE, blocks, waits=False)))
    assert next(blocks)


def test_empty_stream_has_no_events(tagger):
    assert list(listen(tagger, LiveStream("a sound", RATE, iter(()), waits=False))) == []


def test_windows_need_a_length(tagger):
    with pytest.raises(ValueError, match="window_seconds=None"):
        next(tag_stream(tagger, make_stream(tone("low", 1.0)), WindowConfig()))
