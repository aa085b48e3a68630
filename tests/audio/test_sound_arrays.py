"""Arrays of samples give what a file with the same samples gives."""

import io

import numpy as np
import pytest
import soundfile

from spectag.audio.files import open_stream, read_audio
from spectag.audio.sound_arrays import SoundArray
from spectag.errors import AudioError, EndOfSoundError

RATE = 16_000
SUBTYPES = {"int16": "PCM_16", "int32": "PCM_32", "uint8": "PCM_U8", "float32": "FLOAT", "float64": "DOUBLE"}


def samples_of_type(rng, dtype, n_channels, n_samples=200_000):
    """Noise, louder in the last channel."""
    noise = rng.uniform(-0.4, 0.4, (n_samples, n_channels)) * np.linspace(0.5, 1, n_channels)
    if dtype.startswith("float"):
        return noise.astype(dtype)
    if dtype == "uint8":
        return (128 + 127 * noise).astype(np.uint8)
    return (noise * np.iinfo(dtype).max).astype(dtype)


def waveform(array, *args, **options):
    return np.concatenate(list(SoundArray.of(array, RATE).open(*args, **options).blocks))


@pytest.mark.parametrize("channel", ["mix", "loudest", 1])
@pytest.mark.parametrize("n_channels", [1, 2, 5])
@pytest.mark.parametrize("dtype", SUBTYPES)
def test_array_equals_the_file_with_the_same_samples(tmp_path, rng, dtype, n_channels, channel):
    """Facts of libsndfile: how it scales integers, and mixes nothing."""
    array = samples_of_type(rng, dtype, n_channels)
    stored = array if dtype != "uint8" else (array.astype(np.int16) - 128) << 8  # soundfile writes no uint8
    soundfile.write(tmp_path / "a.wav", stored, RATE, subtype=SUBTYPES[dtype])
    with open_stream(tmp_path / "a.wav", channel=channel) as sound:
        expected = np.concatenate(list(sound.blocks))
    found = waveform(array, channel=channel)
    assert found.dtype == np.float32
    assert np.array_equal(found, expected)


@pytest.mark.parametrize(("start", "end"), [(0.5, 1.25), (0.0, 0.1), (3.0, None), (1.0, 99.0)])
def test_excerpt_equals_that_of_the_file(tmp_path, rng, start, end):
    array = samples_of_type(rng, "int16", 2)
    soundfile.write(tmp_path / "a.wav", array, RATE)
    expected, _ = read_audio(tmp_path / "a.wav", start_seconds=start, end_seconds=end)
    assert np.array_equal(waveform(array, start, end), expected)


class Tensor:
    """Something that NumPy can read, such as a tensor of PyTorch."""

    def __array__(self, dtype=None, copy=None):
        return np.ones(100, dtype or np.float32) / 2


@pytest.mark.parametrize("samples", [[0.5] * 100, Tensor(), np.full((100, 1), 0.5), np.full(100, 0.5, np.float16)])
def test_lists_tensors_and_columns_are_accepted(samples):
    assert np.array_equal(waveform(samples), np.full(100, 0.5, np.float32))


def test_order_in_memory_does_not_matter(rng):
    array = samples_of_type(rng, "float32", 2)
    assert np.array_equal(waveform(np.asfortranarray(array)), waveform(array))
    assert np.array_equal(waveform(array[::2]), waveform(array[::2].copy()))


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros((2, 48_000), np.float32), r"\(2, 48000\) looks like \(n_channels, n_samples\).*array\.T"),
        (np.zeros((1, 48_000), np.float32), r"transpose it: array\.T"),
        (np.zeros((2, 3, 4), np.float32), r"\(n_samples,\) or \(n_samples, n_channels\), got \(2, 3, 4\)"),
        (np.zeros(0, np.float32), r"there are no samples: the shape is \(0,\)"),
        ([1, 2, 3], r"got int64 of shape \(3,\).*astype\('int16'\)"),
        (np.zeros(9, bool), "need a path, or samples as floats.* got bool"),
        (np.zeros(9, complex), "need a path, or samples as floats.* got complex128"),
        ([[0.5, 0.5], [0.5]], "cannot be read as an array of samples"),
        (np.array([[0.5], "x"], object), "list of several sounds"),
        (None, "need a path, or samples as floats.* got None"),
        (7.5, r"\(n_samples,\) or \(n_samples, n_channels\), got \(\)"),
        (["a.wav", "b.wav"], r"got <U5 of shape \(2,\); is it a list of several files\? Then use tag_many"),
        (b"RIFF", r"got the bytes of a file; decode them: samples, sample_rate = soundfile\.read"),
        (io.BytesIO(b"RIFF"), r"got the bytes of a file; decode them"),
        (np.zeros((3_000, 2_000), np.float32), "2,000 channels, need 1 to 1,024"),
    ],
)
def test_wrong_samples_are_an_error_with_a_way_out(samples, message):
    with pytest.raises(AudioError, match=rf"(?s)^mine: .*{message}"):
        SoundArray.of(samples, RATE, name="mine")


@pytest.mark.parametrize("rate", [99, 2_000_001, 44_100.5, 0, -1, np.nan, np.inf, "48000", True, [48_000]])
def test_wrong_sample_rate_is_an_error(rate):
    with pytest.raises(AudioError, match="sample_rate must be a whole number of Hz from 100 to 2,000,000, got"):
        SoundArray.of([0.5], rate)


@pytest.mark.parametrize("rate", [100, 2_000_000, 44_100.0, np.int64(8_000)])
def test_whole_sample_rates_of_any_type_are_accepted(rate):
    assert SoundArray.of([0.5], rate).sample_rate == rate


def test_missing_sample_rate_is_an_error_with_an_example():
    with pytest.raises(AudioError, match=r"no sample rate of its own; add it, such as sample_rate=48_000"):
        SoundArray.of([0.5], None)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_sample_that_is_not_a_number_is_named_with_its_time(value):
    array = np.zeros(10 * RATE)
    array[9 * RATE] = value
    with pytest.raises(AudioError, match=r"array: the sample at 9 s is"):
        waveform(array)


def test_missing_channel_and_empty_excerpt_are_errors():
    with pytest.raises(AudioError, match="no channel 3, it has 2 channels; use channel mix or loudest"):
        waveform(np.zeros((100, 2)), channel=3)
    with pytest.raises(EndOfSoundError, match="no samples from 5 s on"):
        waveform(np.zeros(RATE), 5.0)
    with pytest.raises(AudioError, match="need 0 <= start < end, got 2 s and 1 s"):
        waveform(np.zeros(RATE), 2.0, 1.0)
