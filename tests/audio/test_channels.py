"""From several channels to one: the same in whole files, streams and excerpts."""

import io

import numpy as np
import pytest
import soundfile

from helpers.bundles import tone
from spectag.audio import channels
from spectag.audio.channels import loudest_channel
from spectag.audio.files import open_excerpt, open_stream, read_audio
from spectag.audio.live_stream import read_raw
from spectag.errors import AudioError

RATE = 16_000


@pytest.fixture
def stereo(tmp_path):
    """A low tone in the first channel, and a louder high one in the second."""
    path = tmp_path / "sounds" / "stereo.wav"
    path.parent.mkdir()
    soundfile.write(path, np.stack([0.3 * tone("low", 2), tone("high", 2)], axis=1), RATE)
    return path


@pytest.mark.parametrize(("channel", "expected"), [("mix", [0.5, 1]), (1, [1, 0]), (2, [0, 1]), ("loudest", [0, 1])])
def test_channel_is_the_same_in_whole_files_streams_and_excerpts(stereo, channel, expected):
    weights = np.array(expected) if channel != "mix" else np.array([0.5, 0.5])
    parts = np.stack([0.3 * tone("low", 2), tone("high", 2)])
    whole, _ = read_audio(stereo, channel=channel)
    np.testing.assert_allclose(whole, weights @ parts, atol=1e-4)
    with open_stream(stereo, channel=channel) as sound:
        np.testing.assert_array_equal(np.concatenate(list(sound.blocks)), whole)
    with open_excerpt(stereo, 0.5, 1.0, channel=channel) as sound:
        np.testing.assert_array_equal(next(sound.blocks), whole[RATE // 2 : RATE])


def test_missing_channel_is_an_error_with_the_number_of_channels(stereo, tmp_path):
    with pytest.raises(
        AudioError, match=r"stereo\.wav: there is no channel 3, the file has 2 channels; use channel mix"
    ):
        read_audio(stereo, channel=3)
    soundfile.write(tmp_path / "mono.wav", tone("low", 1), RATE)
    mono = [read_audio(tmp_path / "mono.wav", channel=channel)[0] for channel in (1, "mix", "loudest")]
    np.testing.assert_array_equal(mono[0], mono[1])
    np.testing.assert_array_equal(mono[0], mono[2])
    with pytest.raises(AudioError, match=r"the file has 1 channel;"):
        read_audio(tmp_path / "mono.wav", channel=2)


def test_loudest_channel_has_most_variance_in_the_first_ten_minutes(rng, monkeypatch):
    quiet, loud = rng.normal(0, 0.1, 1000), rng.normal(0, 0.2, 1000)
    assert loudest_channel([np.stack([quiet, loud], axis=1)], 100) == 1
    assert loudest_channel([np.stack([quiet + 5, loud], axis=1)], 100) == 1  # a constant offset is not loud
    assert loudest_channel([np.stack([quiet, quiet], axis=1)], 100) == 0
    assert loudest_channel([np.stack([quiet, np.full(1000, np.nan)], axis=1)], 100) == 0
    assert loudest_channel([], 100) == 0
    later = np.concatenate([np.stack([loud, quiet], axis=1), np.stack([quiet, 9 * loud], axis=1)])
    monkeypatch.setattr(channels, "LOUDEST_SECONDS", 10.0)
    for size in (1, 7, 1000, 2000):  # of the blocks
        assert loudest_channel(np.split(later, range(size, 2000, size)), 100) == 0


def test_excerpts_get_the_loudest_channel_of_the_file(tmp_path):
    begin, end = [1.0, 0.0], [0.0, 0.5]  # the first channel is louder in the file, and silent in its second half
    parts = [np.outer(tone("low", 1), begin), np.outer(tone("low", 1), end)]
    soundfile.write(tmp_path / "a.wav", np.concatenate(parts), RATE)
    assert not read_audio(tmp_path / "a.wav", start_seconds=1.2, channel="loudest")[0].any()


def test_file_that_changes_gets_its_new_loudest_channel(tmp_path):
    path = tmp_path / "a.wav"
    for weights in ([1.0, 0.1], [0.1, 1.0, 0.2]):
        soundfile.write(path, np.outer(tone("low", 1), weights), RATE)
        np.testing.assert_allclose(read_audio(path, channel="loudest")[0], tone("low", 1), atol=1e-4)


@pytest.mark.parametrize(("channel", "expected"), [(None, [0.25, 0.25]), (1, [0.5, -0.5]), (2, [0.0, 1.0])])
def test_live_sound_is_the_mean_or_one_channel(channel, expected):
    samples = np.array([[0.5, 0.0], [-0.5, 1.0]], "<f4")
    stream = read_raw(io.BytesIO(samples.tobytes()), sample_rate=RATE, n_channels=2, channel=channel, encoding="f32le")
    np.testing.assert_array_equal(np.concatenate([block.waveform for block in stream.blocks]), expected)
