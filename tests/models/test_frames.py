"""Frames: the same for a recording in blocks as for the whole, and segments from them."""

import numpy as np
import pytest

from helpers.bundles import tone
from helpers.frames import FRAMES, FRAMES_MEL, make_frames_bundle, make_frames_info
from spectag.audio.files import resample
from spectag.audio.front_end import FrontEnd
from spectag.audio.mel import compute_log_mel
from spectag.config.backbones import AUDIOSET_MEL
from spectag.config.base import MelConfig, SegmentConfig, SegmentFrames, WindowConfig
from spectag.config.tagging import SEGMENT_FRAMES, SEGMENT_WINDOW, TagSettings
from spectag.errors import BundleError, ConfigError, DataError
from spectag.models.frames import FrameCutter, FrameNetwork, novelty_of_frames
from spectag.models.frames_info import FramesInfo
from spectag.models.novelty import NoveltyInfo
from spectag.models.tagger import Tagger
from spectag.models.timeline import find_segments
from spectag.tagging.events import windows_to_tag
from spectag.training.networks.frame_graph import _blocks

RATE = 16_000
SMALL = FramesInfo(block=128, context=16)


@pytest.fixture(scope="module")
def tagger(tmp_path_factory):
    return Tagger(make_frames_bundle(tmp_path_factory.mktemp("models") / "m"))


def changing_sound(rng, seconds, sample_rate=RATE):
    """Noise whose level changes all the time, so that no two frames are equal."""
    levels = np.repeat(10 ** rng.uniform(-3, 0, int(10 * seconds) + 1), sample_rate // 10)
    n_samples = round(seconds * sample_rate)
    return (levels[:n_samples] * rng.normal(0, 0.2, n_samples)).astype(np.float32)


@pytest.mark.parametrize("mel", [FRAMES_MEL, AUDIOSET_MEL, MelConfig(n_fft=1_023, top_db=None)])
@pytest.mark.parametrize("sample_rate", [16_000, 22_050, 44_100])
def test_blocks_are_those_of_the_training_with_the_log_mel_of_the_whole_sound(rng, mel, sample_rate):
    for n_blocks in (0.4, 1.0, 3.2):
        sound = changing_sound(rng, n_blocks * SMALL.block * mel.hop_length / mel.sample_rate, sample_rate)
        whole = compute_log_mel(resample(sound, sample_rate, mel.sample_rate), mel)
        blocks = list(FrameCutter(sample_rate, mel, SMALL).cut(np.array_split(sound, 7)))
        for block, (part, used) in zip(blocks, _blocks(-(-whole.shape[1] // 8) * 8, SMALL), strict=True):
            assert block.log_mel(FrontEnd(mel=mel))[0] == pytest.approx(whole[:, part], abs=1e-4)
            assert (block.n_before, block.n_before + block.n_frames) == (used.start, used.stop)


@pytest.mark.parametrize("n_read", [50, 500, 7_919, 10**6])
def test_blocks_do_not_depend_on_how_a_sound_is_read(rng, n_read):
    sound = changing_sound(rng, 9.1)
    pieces = [sound[begin : begin + n_read] for begin in range(0, len(sound), n_read)]
    found, expected = (list(FrameCutter(RATE, FRAMES_MEL, SMALL).cut(blocks)) for blocks in (pieces, [sound]))
    for block, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(block.edges, other.edges)
        np.testing.assert_array_equal(block.log_mel(FrontEnd(mel=FRAMES_MEL)), other.log_mel(FrontEnd(mel=FRAMES_MEL)))


@pytest.mark.parametrize("seconds", [0.03, 3.0, 35.0, 47.3])
def test_probabilities_of_blocks_are_those_of_one_pass_over_the_whole_sound(tagger, rng, seconds):
    sound = changing_sound(rng, seconds)
    found = tagger.segments(sound, RATE).timeline
    network = FrameNetwork(tagger.folder, tagger.info, FRAMES, 1, "cpu")
    whole = network.probabilities(compute_log_mel(sound, FRAMES_MEL)[None])
    assert found.probabilities.shape == whole.shape
    assert found.probabilities == pytest.approx(whole, abs=1e-4)
    assert len(np.unique(whole, axis=0)) == len(whole)


@pytest.mark.parametrize("n_samples", [1, 100, 480, 2_000, 143_360, 500_001])
def test_frames_follow_each_other_from_the_start_to_the_end_of_the_sound(tagger, n_samples):
    timeline = tagger.segments(np.full(n_samples, 0.01, np.float32), RATE).timeline
    assert timeline.starts[0] == 0
    assert timeline.ends[-1] == n_samples / RATE
    assert (timeline.starts[1:] == timeline.ends[:-1]).all()
    step = FRAMES.frame_seconds(FRAMES_MEL)
    assert timeline.starts[1:] == pytest.approx((np.arange(1, len(timeline.starts)) - 0.5) * step)
    assert (
        timeline.ends[-1] - timeline.starts[-1] <= 1.5 * step + 1e-9
    )  # a rest shorter than half a frame belongs to it


def test_onset_and_offset_are_found_within_a_frame(tagger):
    silence = np.zeros(round(2.0 * RATE), np.float32)
    sound = np.concatenate([silence, tone("low", 1.5), silence, tone("high", 0.8), silence])
    first, second = tagger.segments(sound, RATE)
    step = FRAMES.frame_seconds(FRAMES_MEL)
    assert (first.label, second.label) == ("low", "high")
    assert (first.start_seconds, first.end_seconds) == pytest.approx((2.0, 3.5), abs=2 * step)
    assert (second.start_seconds, second.end_seconds) == pytest.approx((5.5, 6.3), abs=2 * step)


def test_explicit_window_is_used_instead_of_frames(tagger, rng):
    sound = changing_sound(rng, 6.0)
    timeline = tagger.segments(sound, RATE, window=SEGMENT_WINDOW).timeline
    assert timeline.frames is None
    assert timeline.ends[0] == 1.5
    assert tagger.segments(sound, RATE).timeline.frames == FRAMES
    assert tagger.segment_window == SEGMENT_FRAMES


def test_segments_equal_those_of_the_timeline_with_the_settings_of_the_user(tagger, rng):
    sound = changing_sound(rng, 12.0)
    for settings in (None, SegmentConfig(smooth_windows=1, hysteresis=1.0), SegmentConfig(min_duration_seconds=0.5)):
        found = tagger.segments(sound, RATE, settings=settings)
        thresholds = tagger.thresholds_for(SEGMENT_WINDOW)
        expected = find_segments(found.timeline, thresholds, settings or SegmentConfig())
        assert [(each.start_seconds, each.probability) for each in found] == [
            (each.start_seconds, each.probability) for each in expected
        ]


@pytest.mark.parametrize(
    ("n_seconds", "expected"),
    [
        (9.6, [(0.0, 4.76), (4.76, 9.6)]),  # two clips
        (2.0, [(0.0, 2.0)]),
        (11.0, [(0.0, 4.76), (4.76, 9.56), (6.0 - 0.72, 10.28)]),  # the last block begins at 0.72 s
    ],
)
def test_novelty_is_that_of_excerpts_as_long_as_training_clips(n_seconds, expected):
    spans, values = [], []

    def novelty_of(start, end):
        spans.append((start, end))
        return len(spans)

    for block in FrameCutter(RATE, FRAMES_MEL, FRAMES).cut([np.zeros(round(n_seconds * RATE), np.float32)]):
        values.append(novelty_of_frames(block, 5.0, novelty_of))
        assert len(values[-1]) == block.n_frames
    assert [start for start, _ in spans] == pytest.approx([start for start, _ in expected], abs=0.09)
    assert [end for _, end in spans] == pytest.approx([end for _, end in expected], abs=0.09)
    assert sorted(set(np.concatenate(values).tolist())) == list(range(1, len(expected) + 1))


def test_missing_or_other_network_of_frames_is_refused(tmp_path):
    folder = make_frames_bundle(tmp_path / "m", make_frames_info(novelty=NoveltyInfo(n_held_out=3)))
    (folder / "frames.onnx").rename(folder / "away.onnx")
    with pytest.raises(BundleError, match=r"frames\.onnx: file is missing.*copy the whole folder"):
        Tagger(folder)
    (folder / "frames.onnx").write_bytes(b"no network")
    with pytest.raises(BundleError, match=r"frames\.onnx"):
        Tagger(folder).segments(np.zeros(RATE, np.float32), RATE)


def test_segments_of_a_short_sound_come_from_frames_whatever_the_command_takes_as_clips(tagger, rng):
    sound, window = changing_sound(rng, 2.0), windows_to_tag(tagger, TagSettings())
    assert window.longer_than_seconds > 2
    found, expected = tagger.segments(sound, RATE, window=window), tagger.segments(sound, RATE)
    assert found.detections == expected.detections
    np.testing.assert_array_equal(found.timeline.starts, expected.timeline.starts)


def test_frames_of_a_model_without_them_are_refused(tmp_path):
    from helpers.bundles import make_bundle

    tagger = Tagger(make_bundle(tmp_path / "m"))
    with pytest.raises(ConfigError, match="has no frames"):
        tagger.segments(np.zeros(RATE, np.float32), RATE, window=SegmentFrames(window_seconds=1.5))


def test_probabilities_that_are_not_finite_are_refused_with_their_time(tagger, monkeypatch):
    def of_block(self, block, log_mel):
        values = np.zeros((block.n_frames, 3), np.float32)
        values[(block.edges[:-1] >= 15.0) & (block.edges[:-1] < 15.2)] = np.nan
        return values

    monkeypatch.setattr(FrameNetwork, "of_block", of_block)
    with pytest.raises(DataError, match="the probabilities from 15 s on are not finite"):
        tagger.segments(np.zeros(20 * RATE, np.float32), RATE)


def test_frames_have_the_thresholds_of_short_windows(tmp_path):
    assert SEGMENT_FRAMES.window_seconds == SEGMENT_WINDOW.window_seconds
    assert WindowConfig(**SEGMENT_FRAMES.model_dump(exclude={"longer_than_seconds"})) == SEGMENT_WINDOW
