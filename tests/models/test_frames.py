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
from spectag.config.tagging import SEGMENT_FRAMES, SEGMENT_WINDOW
from spectag.errors import BundleError, ConfigError, DataError
from spectag.models.frames import FrameCutter, FrameNetwork, novelty_of_frames
from spectag.models.frames_info import FramesInfo
from spectag.models.novelty import NoveltyInfo
from spectag.models.tagger import Tagger
from spectag.models.timeline import find_segments

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


def blocks_of(waveform, sample_rate, mel, n_samples):
    pieces = [waveform[begin : begin + n_samples] for begin in range(0, len(waveform), n_samples)]
    return list(FrameCutter(sample_rate, mel, FRAMES).cut(pieces))


@pytest.mark.parametrize("mel", [FRAMES_MEL, AUDIOSET_MEL, MelConfig(n_fft=1_023, top_db=None)])
@pytest.mark.parametrize("sample_rate", [16_000, 22_050, 44_100])
def test_log_mels_of_blocks_are_those_of_the_whole_sound(rng, mel, sample_rate):
    sound = changing_sound(rng, 3.2 * SMALL.block * mel.hop_length / mel.sample_rate, sample_rate)
    whole = compute_log_mel(resample(sound, sample_rate, mel.sample_rate), mel)
    end = 0
    for block in FrameCutter(sample_rate, mel, SMALL).cut(np.array_split(sound, 7)):
        begin, own = end, block.n_own_log_mel
        log_mel = block.log_mel(FrontEnd(mel=mel))[0]
        assert log_mel.shape[1] == block.n_log_mel
        first = begin - block.n_context
        assert log_mel == pytest.approx(whole[:, first : first + log_mel.shape[1]], abs=1e-4)
        end += own
    assert end == whole.shape[1]


@pytest.mark.parametrize("seconds", [0.03, 3.0, 35.0, 47.3])
def test_probabilities_of_blocks_are_those_of_one_pass_over_the_whole_sound(tagger, rng, seconds):
    sound = changing_sound(rng, seconds)
    found = tagger.segments(sound, RATE).timeline
    network = FrameNetwork(tagger.folder, tagger.info, FRAMES, 1, "cpu")
    whole = network.probabilities(compute_log_mel(sound, FRAMES_MEL)[None])
    assert found.probabilities.shape == whole.shape
    assert found.probabilities.astype(np.float64) == pytest.approx(whole, abs=1e-4 + 2**-12)  # float16
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


def test_block_is_never_short_unless_the_sound_is(rng):
    step = FRAMES.block - 2 * FRAMES.context
    for n_frames in rng.integers(step, 5 * step, 10):
        sound = np.zeros(n_frames * FRAMES_MEL.hop_length, np.float32)
        lengths = [block.n_own_log_mel for block in blocks_of(sound, RATE, FRAMES_MEL, 16_000)]
        assert all(length == step for length in lengths[:-1])
        assert step / 2 <= lengths[-1] <= 1.6 * step


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


def test_novelty_is_that_of_excerpts_as_long_as_training_clips():
    spans = []

    def novelty_of(begin, end):
        spans.append((begin, end))
        return len(spans)

    assert novelty_of_frames(5, 2, novelty_of).tolist() == [1, 1, 2, 2, 2]
    assert spans == [(0.0, 0.4), (0.4, 1.0)]
    assert novelty_of_frames(2, 5, novelty_of).tolist() == [3, 4]


def test_missing_or_other_network_of_frames_is_refused(tmp_path):
    folder = make_frames_bundle(tmp_path / "m", make_frames_info(novelty=NoveltyInfo(n_held_out=3)))
    (folder / "frames.onnx").rename(folder / "away.onnx")
    with pytest.raises(BundleError, match=r"frames\.onnx: file is missing.*copy the whole folder"):
        Tagger(folder)
    (folder / "frames.onnx").write_bytes(b"no network")
    with pytest.raises(BundleError, match=r"frames\.onnx"):
        Tagger(folder).segments(np.zeros(RATE, np.float32), RATE)


def test_frames_of_a_model_without_them_are_refused(tmp_path):
    from helpers.bundles import make_bundle

    tagger = Tagger(make_bundle(tmp_path / "m"))
    with pytest.raises(ConfigError, match="has no frames"):
        tagger.segments(np.zeros(RATE, np.float32), RATE, window=SegmentFrames(window_seconds=1.5))


def test_probabilities_that_are_not_finite_are_refused_with_their_time(tagger, monkeypatch):
    def of_block(self, block, log_mel):
        values = np.zeros((len(block.edges) - 1, 3), np.float16)
        values[(block.edges[:-1] >= 15.0) & (block.edges[:-1] < 15.2)] = np.nan
        return values

    monkeypatch.setattr(FrameNetwork, "of_block", of_block)
    with pytest.raises(DataError, match="the probabilities from 15 s on are not finite"):
        tagger.segments(np.zeros(20 * RATE, np.float32), RATE)


def test_frames_have_the_thresholds_of_short_windows(tmp_path):
    assert SEGMENT_FRAMES.window_seconds == SEGMENT_WINDOW.window_seconds
    assert WindowConfig(**SEGMENT_FRAMES.model_dump(exclude={"longer_than_seconds"})) == SEGMENT_WINDOW
