"""Labels go on and off while a sound goes on, as they would on the whole of it."""

import io

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from helpers.bundles import LABELS, make_bundle, make_info, tone
from spectag.audio.files import write_audio
from spectag.audio.front_end import FrontEnd
from spectag.audio.live_stream import Block, LiveSound, decoded, read_raw
from spectag.config.base import ImageConfig, SegmentConfig, WindowConfig
from spectag.config.listening import ListenSettings
from spectag.errors import AudioError, BundleError, DataError
from spectag.models.bundle import ONNX_FILE
from spectag.models.tagger import Tagger
from spectag.models.timeline import Timeline, segments, median_filtered
from spectag.tagging.listening import Answer, OnOffDetector, hear, listen, with_medians

RATE = 16_000


@pytest.fixture(scope="module")
def tagger(tmp_path_factory):
    return Tagger(make_bundle(tmp_path_factory.mktemp("model") / "m"))


def answers_of(probabilities, *, window=1.0, step=0.5, heard_late=0.0):
    """Windows that follow each other, each heard at its end (or later), with these probabilities."""
    rows = np.atleast_2d(np.array(probabilities, np.float32).T).T
    return [
        Answer(step * i, step * i + window, row, heard_at=step * i + window + heard_late) for i, row in enumerate(rows)
    ]


def changes_of(probabilities, thresholds, hysteresis, **options):
    """What the switches tell of windows."""
    thresholds = np.array(thresholds, np.float32)
    switches = OnOffDetector([f"label {i}" for i in range(len(thresholds))], thresholds, hysteresis, clock=lambda: 0.0)
    found = [change for answer in answers_of(probabilities, **options) for change in switches.take(answer)]
    return found + switches.all_off()


def live(waveform, sample_rate=RATE, *, n_block=1_600, waits=True, began_at=0.0):
    """A sound that comes in blocks, each heard when it ends."""
    blocks = (
        Block(waveform[start : start + n_block], began_at + min(start + n_block, len(waveform)) / sample_rate)
        for start in range(0, len(waveform), n_block)
    )
    return LiveSound("a sound", sample_rate, blocks, waits)


def stretches_of(changes):
    """(label, from, to) of each stretch that labels are on."""
    began, found = {}, []
    for change in changes:
        if change.is_on:
            assert change.label not in began
            began[change.label] = change.time_seconds
        else:
            found.append((change.label, began.pop(change.label), change.time_seconds))
    assert began == {}
    return sorted(found)


# ------------------------------------------------------------------------------------------------ on and off


def test_label_goes_on_at_its_threshold_and_off_below_a_share_of_it():
    changes = changes_of([0.3, 0.59, 0.6, 0.4, 0.3, 0.29, 0.5, 0.7], [0.6], hysteresis=0.5)
    assert [(change.time_seconds, change.is_on, round(change.probability, 2)) for change in changes] == [
        (1.25, True, 0.6),  # the windows 0.5 to 1.5 s and 1 to 2 s share what is between them
        (2.75, False, 0.29),
        (3.75, True, 0.7),
        (4.5, False, 0.7),  # where the last window ends
    ]


def test_what_goes_off_comes_first_and_then_the_most_probable():
    changes = changes_of([[0.9, 0.1, 0.1], [0.0, 0.6, 0.7]], [0.5] * 3, hysteresis=1.0)
    assert [(change.label, change.is_on) for change in changes[1:4]] == [
        ("label 0", False),
        ("label 2", True),
        ("label 1", True),
    ]


def test_window_that_touches_none_before_it_stands_for_itself():
    changes = changes_of([[0.9, 0.1], [0.1, 0.9]], [0.5, 0.5], hysteresis=1.0, window=1.0, step=3.0)
    assert stretches_of(changes) == [("label 0", 0.0, 1.0), ("label 1", 3.0, 4.0)]


def test_latency_is_the_time_since_the_windows_last_sample_was_heard():
    switches = OnOffDetector(["a"], np.array([0.5], np.float32), 1.0, clock=lambda: 1.75)
    [change] = switches.take(answers_of([0.9], heard_late=0.5)[0])
    assert change.latency_seconds == 0.25


probabilities = st.integers(0, 30).flatmap(
    lambda n: st.lists(st.lists(st.floats(0, 1, width=32), min_size=3, max_size=3), min_size=n, max_size=n)
)
thresholds = st.lists(st.floats(0, 1, width=32), min_size=3, max_size=3)


@given(rows=probabilities, limits=thresholds, hysteresis=st.floats(0, 1), step=st.sampled_from([0.25, 1.0, 1.5]))
def test_every_on_has_its_off_in_order_of_time(rows, limits, hysteresis, step):
    changes = changes_of(np.array(rows, np.float32).reshape(-1, 3), limits, hysteresis, step=step)
    times = [change.time_seconds for change in changes]
    assert times == sorted(times)
    for label, index in (("label 0", 0), ("label 1", 1), ("label 2", 2)):
        own = [change for change in changes if change.label == label]
        assert [change.is_on for change in own] == [True, False] * (len(own) // 2)
        assert all(change.probability >= limits[index] for change in own if change.is_on)
        ends = [change for change in own if not change.is_on and change.time_seconds < times[-1]]
        assert all(change.probability <= np.float32(hysteresis * limits[index]) for change in ends)


@given(rows=probabilities, limits=thresholds, smooth=st.sampled_from([1, 3, 5]), step=st.sampled_from([0.25, 0.5, 1.0]))
def test_without_hysteresis_labels_are_on_in_the_segments_of_the_whole(rows, limits, smooth, step):
    rows, limits = np.array(rows, np.float32).reshape(-1, 3), np.array(limits, np.float32)
    config = SegmentConfig(smooth_windows=smooth, hysteresis=1.0, min_duration_seconds=0.0, max_gap_seconds=0.0)
    parts = answers_of(rows, step=step) if len(rows) else []
    starts, ends = (np.array([getattr(part, name) for part in parts]) for name in ("start_seconds", "end_seconds"))
    expected = [
        (f"label {segment.label_index}", segment.start_seconds, segment.end_seconds)
        for segment in segments(Timeline(starts, ends, rows), limits, config)
    ]
    switches = OnOffDetector(["label 0", "label 1", "label 2"], limits, 1.0, clock=lambda: 0.0)
    changes = [change for answer in with_medians(parts, smooth) for change in switches.take(answer)]
    assert stretches_of(changes + switches.all_off()) == sorted(expected)


def test_median_is_given_as_soon_as_the_windows_after_it_are_there():
    parts = answers_of([0.1, 0.9, 0.2, 0.8, 0.7])
    drawn = []

    def coming():
        for part in parts:
            drawn.append(part)
            yield part

    medians = with_medians(coming(), 3)
    first = next(medians)
    assert (len(drawn), first.start_seconds) == (2, 0.0)
    assert next(medians).heard_at == parts[1].heard_at
    assert len(drawn) == 3
    found = [answer.probabilities for answer in with_medians(parts, 3)]
    assert np.array_equal(found, median_filtered(np.stack([part.probabilities for part in parts]), 3))


# ------------------------------------------------------------------------------------------------ windows


@pytest.mark.parametrize("sample_rate", [RATE, 44_100])
def test_probabilities_are_those_of_the_same_windows_of_a_file(tagger, tmp_path, sample_rate):
    waveform = np.concatenate([tone(label, 0.83, sample_rate) for label in LABELS])
    write_audio(tmp_path / "a.wav", waveform, sample_rate)
    window = WindowConfig(window_seconds=0.5, overlap_seconds=0.3)
    expected = list(tagger.tag_windows(tmp_path / "a.wav", window))
    samples = soundfile.read(tmp_path / "a.wav", dtype="int16")[0]
    sound = read_raw(io.BytesIO(samples.astype("<i2").tobytes()), sample_rate=sample_rate)
    found = list(hear(tagger, sound, window))
    assert len(found) == len(expected) > 8
    for one, same in zip(found, expected, strict=True):
        assert (one.start_seconds, one.end_seconds) == (same.start_seconds, same.end_seconds)
        assert np.array_equal(one.probabilities, same.probabilities)


def test_tones_one_after_another_are_told_each_in_its_place(tagger):
    waveform = np.concatenate([tone(label, 2.0) for label in LABELS])
    changes = list(listen(tagger, live(waveform), ListenSettings(window=0.5, overlap=0.25, min_confidence=3e-4)))
    found = {label: (start, end) for label, start, end in stretches_of(changes)}
    for number, label in enumerate(LABELS):
        assert found[label] == pytest.approx((2.0 * number, 2.0 * (number + 1)), abs=0.3)


def test_one_threshold_may_stand_for_all(tagger):
    waveform = tone("middle", 1.0)
    assert listening(tagger, waveform, min_confidence=1.0) == []
    assert {change.label for change in listening(tagger, waveform, min_confidence=0.0)} == set(LABELS)
    assert {change.label for change in listening(tagger, waveform)} == {"middle"}


def listening(tagger, waveform, **settings):
    return list(listen(tagger, live(waveform), ListenSettings(**settings)))


def test_windows_are_those_asked_for_or_the_taggers_or_those_of_segments():
    whole, own = WindowConfig(), WindowConfig(window_seconds=5.0)
    assert ListenSettings().windows(own) == WindowConfig(window_seconds=5.0, overlap_seconds=4.5)
    assert ListenSettings(window=0.6).windows(own) == WindowConfig(window_seconds=0.6, overlap_seconds=0.3)
    assert ListenSettings(window=3.0, overlap=0.0).windows(own) == WindowConfig(window_seconds=3.0)
    of_segments = ListenSettings().windows(whole)
    assert of_segments.window_seconds - of_segments.overlap_seconds == 0.5


def test_latency_counts_from_the_windows_end_and_not_from_the_blocks(tagger):
    sound = live(tone("middle", 2.0), n_block=7_000, began_at=100.0)
    n_changes = 0
    for change in listen(tagger, sound, ListenSettings(window=0.5, overlap=0.25), clock=lambda: 110.0):
        window_end = 0.5 if change.is_on else 2.0
        assert change.latency_seconds == pytest.approx(10.0 - window_end)
        n_changes += 1
    assert n_changes == 2


def test_of_a_sound_that_does_not_wait_the_newest_window_is_tagged_and_the_others_are_counted(tagger):
    clock = iter(range(1000))
    said = []
    waveform = tone("low", 3.0)
    window = WindowConfig(window_seconds=0.5, overlap_seconds=0.25)
    sound = live(waveform, n_block=12_800, waits=False)
    found = list(hear(tagger, sound, window, log=said.append, clock=lambda: next(clock)))
    assert [(one.start_seconds, one.end_seconds) for one in found] == [
        (0.25, 0.75),  # of 0.8 s
        (1.0, 1.5),  # of 1.6 s
        (1.75, 2.25),
        (2.5, 3.0),
    ]
    assert len(said) == 2
    assert "one comes every 0.25 s, and the last took 1.00 s to tag" in said[0]
    assert said[1] == "left out 7 of 11 windows"
    said.clear()
    assert len(list(hear(tagger, live(waveform, n_block=12_800), window, log=said.append))) == 11
    assert said == []


def test_where_a_sound_breaks_off_all_goes_off_and_then_the_error_comes(tagger):
    def breaking():
        yield from live(tone("middle", 1.0)).blocks
        raise AudioError("gone")

    changes = listen(tagger, LiveSound("a sound", RATE, breaking(), waits=False), ListenSettings(window=0.2))
    assert [next(changes).is_on, next(changes).is_on] == [True, False]
    with pytest.raises(AudioError, match="gone"):
        next(changes)


def test_tagger_of_images_refuses_before_any_sound_is_heard(tmp_path):
    def never():
        raise AssertionError("was drawn")
        yield

    images = Tagger(make_bundle(tmp_path / "m", make_info(front_end=FrontEnd(mel=None, image=ImageConfig(height=24)))))
    with pytest.raises(DataError, match="can tag such images but not sounds"):
        next(listen(images, LiveSound("a sound", RATE, never(), waits=False)))


def test_damaged_tagger_is_told_before_any_sound_is_heard(tmp_path):
    folder = make_bundle(tmp_path / "m")
    (folder / ONNX_FILE).write_bytes(b"no network")
    blocks = iter([Block(tone("low", 1.0), 0.0)])
    with pytest.raises(BundleError, match="can't be opened"):
        next(listen(Tagger(folder), LiveSound("a sound", RATE, blocks, waits=False)))
    assert next(blocks)


def test_no_sound_at_all_is_no_window(tagger):
    assert list(listen(tagger, LiveSound("a sound", RATE, iter(()), waits=False))) == []


# ------------------------------------------------------------------------------------------------ raw samples


@pytest.mark.parametrize(
    ("encoding", "subtype"), [("s16le", "PCM_16"), ("s24le", "PCM_24"), ("s32le", "PCM_32"), ("f32le", "FLOAT")]
)
def test_samples_are_decoded_as_libsndfile_does(rng, encoding, subtype):
    raw = io.BytesIO()
    samples = np.concatenate([rng.uniform(-1, 1, 1000), [-1.0, 0.0, 0.999]])
    soundfile.write(raw, samples, RATE, format="RAW", subtype=subtype, endian="LITTLE")
    raw.seek(0)
    expected = soundfile.read(
        raw, samplerate=RATE, channels=1, format="RAW", subtype=subtype, endian="LITTLE", dtype="float32"
    )[0]
    found = decoded(raw.getvalue(), encoding)
    assert found.dtype == np.float32
    assert np.array_equal(found, expected)


@given(sizes=st.lists(st.integers(1, 700), max_size=30), n_channels=st.integers(1, 3), n_odd=st.integers(0, 1))
def test_samples_are_the_same_in_whatever_pieces_the_bytes_come(sizes, n_channels, n_odd):
    values = np.arange(sum(sizes) // 2 // n_channels * n_channels, dtype="<i2")
    said = []
    if not values.size:
        return
    pipe = Pipe(values.tobytes() + b"x" * n_odd, sizes)
    sound = read_raw(pipe, sample_rate=1000, n_channels=n_channels, log=said.append)
    found = np.concatenate([block.waveform for block in sound.blocks])
    assert found == pytest.approx(values.reshape(-1, n_channels).mean(axis=1) / 32_768, abs=1e-7)
    assert [line[:21] for line in said] == ["stdin: left out 1 byt"] * n_odd


class Pipe(io.BytesIO):
    """Bytes that come in pieces of these sizes, and then at once; who wants many at a time would wait for them."""

    def __init__(self, data, sizes):
        super().__init__(data)
        self._sizes = iter(sizes)

    def read(self, size=-1):
        assert 0 <= size <= 4
        return super().read(size)

    def read1(self, size=-1):
        return super().read1(min(size, next(self._sizes, size)))


def test_blocks_are_short_and_know_when_they_came():
    clock = iter([1.0, 2.0, 3.0])
    sound = read_raw(io.BytesIO(bytes(2 * 2_000)), sample_rate=RATE, clock=lambda: next(clock))
    blocks = list(sound.blocks)
    assert sum(len(block.waveform) for block in blocks) == 2_000
    assert max(len(block.waveform) for block in blocks) <= 0.05 * RATE + 2
    assert [block.heard_at for block in blocks] == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("file_format", ["WAV", "RF64", "FLAC", "OGG"])
def test_file_with_a_header_is_refused_with_what_to_do(file_format):
    file = io.BytesIO()
    soundfile.write(file, np.zeros(100), RATE, format=file_format)
    file.seek(0)
    with pytest.raises(AudioError, match=r"stdin: an? \w+ file comes, .* `spectag tag`, .* ffmpeg .* -ar 16000 - \|"):
        next(read_raw(file, sample_rate=RATE).blocks)


def test_pipe_that_gives_nothing_is_an_error():
    for data in (b"", b"x"):
        with pytest.raises(AudioError, match="stdin: no sound came"):
            list(read_raw(io.BytesIO(data), sample_rate=RATE).blocks)


@pytest.mark.parametrize("value", [np.nan, -np.inf, 3e20])
def test_what_can_be_no_sound_is_refused_where_it_is(value):
    samples = np.zeros(RATE, "<f4")
    samples[8_100] = value
    with pytest.raises(AudioError, match=r"stdin: a sample at 0\.50.* s or soon after is .*is the sound f32le\?"):
        list(read_raw(io.BytesIO(samples.tobytes()), sample_rate=RATE, encoding="f32le").blocks)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"overlap": 1.0}, "--overlap 1 needs --window"),
        ({"window": 1.0, "overlap": 1.0}, "need overlap < window, got 1 s and 1 s"),
        ({"smooth_windows": 2}, "odd number of windows, got --smooth-windows 2"),
    ],
)
def test_settings_that_do_not_fit_are_refused(values, words):
    with pytest.raises(ValueError, match=words):
        ListenSettings(**values)


def test_windows_need_a_length(tagger):
    with pytest.raises(ValueError, match="window_seconds=None"):
        next(hear(tagger, live(tone("low", 1.0)), WindowConfig()))
