"""Streams: a sound in blocks equals the sound that is read at once."""

import numpy as np
import pytest
import soundfile

from spectag.audio import soundfile_decoder
from spectag.audio.files import open_stream, read_audio, write_audio
from spectag.errors import AudioError


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(soundfile_decoder, "_BLOCK_SAMPLES", 5_000)
    monkeypatch.setattr(soundfile_decoder, "_SALVAGE_SAMPLES", 1_000)


def noise(n_samples, n_channels=1):
    samples = np.random.default_rng(0).uniform(-0.3, 0.3, (n_samples, n_channels)).astype(np.float32)
    return samples[:, 0] if n_channels == 1 else samples


def streamed(path):
    with open_stream(path) as sound:
        return np.concatenate(list(sound.blocks)), sound.sample_rate


@pytest.mark.parametrize("name", ["a.wav", "a b.flac", "ä.ogg", "a.mp3", "a.aiff"])
@pytest.mark.parametrize("n_samples", [1, 4_999, 5_000, 23_456])
def test_all_blocks_equal_the_whole_bit_for_bit(tmp_path, name, n_samples):
    write_audio(tmp_path / name, noise(n_samples), 16_000)
    whole, rate = read_audio(tmp_path / name)
    waveform, stream_rate = streamed(tmp_path / name)
    assert stream_rate == rate
    assert np.array_equal(waveform, whole)


def test_block_at_a_very_low_sample_rate_is_at_most_a_minute(tmp_path, monkeypatch):
    soundfile.write(tmp_path / "a.wav", noise(12_340), 100)
    monkeypatch.setattr(soundfile_decoder, "_BLOCK_SAMPLES", 1 << 17)
    with open_stream(tmp_path / "a.wav") as sound:
        assert [len(block) for block in sound.blocks] == [6_000, 6_000, 340]


@pytest.mark.parametrize("n_channels", [2, 3, 6])
def test_channels_are_averaged(tmp_path, n_channels):
    soundfile.write(tmp_path / "a.wav", noise(12_345, n_channels), 44_100, subtype="FLOAT")
    assert np.array_equal(streamed(tmp_path / "a.wav")[0], read_audio(tmp_path / "a.wav")[0])


def test_av_formats_give_blocks(tmp_path):
    av = pytest.importorskip("av")
    path = tmp_path / "a.m4a"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(noise(30_000)[None], format="fltp", layout="mono")
        frame.sample_rate = 16_000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    with open_stream(path) as sound:
        blocks = list(sound.blocks)
    assert len(blocks) > 10
    assert np.array_equal(np.concatenate(blocks), read_audio(path)[0])


def test_blocks_have_a_limited_size(tmp_path):
    write_audio(tmp_path / "a.wav", noise(50_000), 8_000)
    with open_stream(tmp_path / "a.wav") as sound:
        assert {len(block) for block in sound.blocks} == {5_000}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_raise_an_error_with_the_time(tmp_path, value):
    samples = noise(20_000)
    samples[12_000] = value
    soundfile.write(tmp_path / "a.wav", samples, 8_000, subtype="FLOAT")
    with (
        open_stream(tmp_path / "a.wav") as sound,
        pytest.raises(AudioError, match=rf"a\.wav: the sample at 1\.5 s is {value}; samples are expected in"),
    ):
        list(sound.blocks)


def test_sound_up_to_a_damage_is_read_and_reported_as_truncated(tmp_path):
    path = tmp_path / "a.flac"
    write_audio(path, noise(100_000), 16_000)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    whole = read_audio(path)[0]
    assert 40_000 < len(whole) < 60_000
    with open_stream(path) as sound:
        assert np.array_equal(np.concatenate(list(sound.blocks)), whole)
        assert sound.faults.is_truncated
        assert sound.faults.expected_seconds == 100_000 / 16_000


def test_sound_without_samples_raises_an_error(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.empty(0), 8_000)
    with open_stream(tmp_path / "a.wav") as sound, pytest.raises(AudioError, match="has no samples"):
        list(sound.blocks)


def test_missing_or_invalid_file_raises_an_error_at_once(tmp_path):
    (tmp_path / "text.wav").write_text("text that is long enough to be analysed by the decoder")
    for name, message in [("gone.wav", "can't read"), ("text.wav", "not a sound")]:
        with pytest.raises(AudioError, match=rf"{name}: {message}"), open_stream(tmp_path / name):
            pass
