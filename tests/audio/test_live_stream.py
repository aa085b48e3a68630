"""Live sound: raw samples from a pipe."""

import io

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from spectag.audio.live_stream import decode_pcm, read_raw
from spectag.errors import AudioError

RATE = 16_000


@pytest.mark.parametrize(
    ("encoding", "subtype"), [("s16le", "PCM_16"), ("s24le", "PCM_24"), ("s32le", "PCM_32"), ("f32le", "FLOAT")]
)
def test_samples_are_decoded_like_libsndfile(rng, encoding, subtype):
    raw = io.BytesIO()
    samples = np.concatenate([rng.uniform(-1, 1, 1000), [-1.0, 0.0, 0.999]])
    soundfile.write(raw, samples, RATE, format="RAW", subtype=subtype, endian="LITTLE")
    raw.seek(0)
    expected = soundfile.read(
        raw, samplerate=RATE, channels=1, format="RAW", subtype=subtype, endian="LITTLE", dtype="float32"
    )[0]
    found = decode_pcm(raw.getvalue(), encoding)
    assert found.dtype == np.float32
    assert np.array_equal(found, expected)


@given(sizes=st.lists(st.integers(1, 700), max_size=30), n_channels=st.integers(1, 3), n_odd=st.integers(0, 1))
def test_samples_do_not_depend_on_the_sizes_of_the_pieces(sizes, n_channels, n_odd):
    values = np.arange(sum(sizes) // 2 // n_channels * n_channels, dtype="<i2")
    lines = []
    if not values.size:
        return
    pipe = Pipe(values.tobytes() + b"x" * n_odd, sizes)
    sound = read_raw(pipe, sample_rate=1000, n_channels=n_channels, log=lines.append)
    found = np.concatenate([block.waveform for block in sound.blocks])
    assert found == pytest.approx(values.reshape(-1, n_channels).mean(axis=1) / 32_768, abs=1e-7)
    assert [line[:21] for line in lines] == ["stdin: left out 1 byt"] * n_odd


class Pipe(io.BytesIO):
    """Bytes that arrive in pieces of these sizes, then all at once; a large `read` would have to wait."""

    def __init__(self, data, sizes):
        super().__init__(data)
        self._sizes = iter(sizes)

    def read(self, size=-1):
        assert 0 <= size <= 4
        return super().read(size)

    def read1(self, size=-1):
        return super().read1(min(size, next(self._sizes, size)))


def test_blocks_are_short_and_have_their_time():
    clock = iter([1.0, 2.0, 3.0])
    sound = read_raw(io.BytesIO(bytes(2 * 2_000)), sample_rate=RATE, clock=lambda: next(clock))
    blocks = list(sound.blocks)
    assert sum(len(block.waveform) for block in blocks) == 2_000
    assert max(len(block.waveform) for block in blocks) <= 0.05 * RATE + 2
    assert [block.captured_at for block in blocks] == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("file_format", ["WAV", "RF64", "FLAC", "OGG"])
def test_file_with_a_header_is_an_error_with_advice(file_format):
    file = io.BytesIO()
    soundfile.write(file, np.zeros(100), RATE, format=file_format)
    file.seek(0)
    message = r"stdin: expected raw samples .*, got an? \w+ file; .*`spectag tag`, .*ffmpeg .* -ar 16000 - \|"
    with pytest.raises(AudioError, match=message):
        next(read_raw(file, sample_rate=RATE).blocks)


def test_empty_pipe_is_an_error():
    for data in (b"", b"x"):
        with pytest.raises(AudioError, match="stdin: no sound came"):
            list(read_raw(io.BytesIO(data), sample_rate=RATE).blocks)


@pytest.mark.parametrize("value", [np.nan, -np.inf, 3e20])
def test_impossible_samples_are_an_error_with_their_time(value):
    samples = np.zeros(RATE, "<f4")
    samples[8_100] = value
    with pytest.raises(AudioError, match=r"stdin: a sample at 0\.50.* s or soon after is .*is the sound f32le\?"):
        list(read_raw(io.BytesIO(samples.tobytes()), sample_rate=RATE, encoding="f32le").blocks)
