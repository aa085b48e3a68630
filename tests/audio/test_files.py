"""Sound files: reading, resampling, writing and finding them."""

import io
import itertools
import os
import struct
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from spectag.audio.files import audio_info, find_audio, open_stream, read_audio, resample, write_audio
from spectag.errors import AudioError, MissingExtraError

RATE = 44_100
AV_SOUNDS = [("a.m4a", "aac"), ("a.mp4", "aac"), ("a.aac", "aac"), ("a.webm", "libopus")]


def tone(frequency=440.0, *, duration_seconds=1.0, sample_rate=RATE):
    seconds = np.arange(round(duration_seconds * sample_rate)) / sample_rate
    return (0.5 * np.sin(2 * np.pi * frequency * seconds)).astype(np.float32)


def sweep(*, sample_rate=RATE):
    """Four seconds that rise from 200 to 2,200 Hz, so that all excerpts differ."""
    seconds = np.arange(4 * sample_rate) / sample_rate
    return (0.5 * np.sin(2 * np.pi * (200 + 250 * seconds) * seconds)).astype(np.float32)


def loudest_frequency(waveform, sample_rate):
    return np.abs(np.fft.rfft(waveform)).argmax() * sample_rate / len(waveform)


def write_with_av(path, codec, waveform, *, sample_rate=48_000, seekable=True):
    """Write a sound in a format of PyAV. With seekable=False, it has no length, as when a browser records it."""
    av = pytest.importorskip("av")
    target = path.open("wb") if seekable else Unseekable()
    muxer = {".aac": "adts", ".m4a": "ipod"}.get(path.suffix, path.suffix[1:])
    with av.open(target, "w", format=muxer) as container:
        stream = container.add_stream(codec, rate=sample_rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(waveform[None], format="fltp", layout="mono")
        frame.sample_rate = sample_rate
        to_encoder = av.AudioResampler(stream.codec_context.format, "mono", sample_rate, frame_size=960)
        for encoder_input in [*to_encoder.resample(frame), *to_encoder.resample(None), None]:
            container.mux(stream.encode(encoder_input))
    if not seekable:
        path.write_bytes(target.getvalue())
    target.close()
    return path


class Unseekable(io.BytesIO):
    seek = None


@pytest.fixture
def without_av(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)


# Reading


@pytest.mark.parametrize(("subtype", "bits"), [("PCM_U8", 8), ("PCM_16", 16), ("PCM_24", 24), ("PCM_32", 24)])
def test_integer_wav_is_read_within_one_quantization_step(tmp_path, subtype, bits):
    soundfile.write(tmp_path / "a.wav", tone(), RATE, subtype=subtype)
    waveform, sample_rate = read_audio(tmp_path / "a.wav")
    assert (sample_rate, waveform.dtype) == (RATE, np.float32)
    assert np.abs(waveform - tone()).max() <= 2.0 ** (1 - bits)


def test_8_bit_silence_is_zero(tmp_path):
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((1, 1, 8000, 0, "NONE", ""))
        file.writeframes(bytes([128] * 100))
    assert np.array_equal(read_audio(tmp_path / "a.wav")[0], np.zeros(100, np.float32))


def test_float_wav_beyond_full_scale_is_not_clipped(tmp_path):
    soundfile.write(tmp_path / "a.wav", 4 * tone(), RATE, subtype="FLOAT")
    assert np.array_equal(read_audio(tmp_path / "a.wav")[0], 4 * tone())


@pytest.mark.parametrize(("name", "container"), [("a.flac", "FLAC"), ("a.aiff", "AIFF"), ("a.WAV", "WAV")])
def test_lossless_formats_keep_16_bits(tmp_path, name, container):
    write_audio(tmp_path / name, tone(), RATE)
    assert np.abs(read_audio(tmp_path / name)[0] - tone()).max() <= 2**-15
    info = audio_info(tmp_path / name)
    assert (info.sample_rate, info.n_channels, info.n_samples, info.format) == (RATE, 1, RATE, container)
    assert info.duration_seconds == 1.0


@pytest.mark.parametrize("name", ["a.ogg", "a.mp3"])
def test_lossy_formats_keep_the_tone_and_almost_its_length(tmp_path, name):
    write_audio(tmp_path / name, tone(), RATE)
    waveform, sample_rate = read_audio(tmp_path / name)
    assert loudest_frequency(waveform, sample_rate) == pytest.approx(440, abs=2)
    assert abs(len(waveform) - RATE) <= 3 * 1152
    assert abs(audio_info(tmp_path / name).n_samples - len(waveform)) <= 3 * 1152


@pytest.mark.parametrize(("name", "codec"), AV_SOUNDS)
def test_av_formats_keep_the_tone_and_almost_its_length(tmp_path, name, codec):
    path = write_with_av(tmp_path / name, codec, tone(sample_rate=48_000))
    waveform, sample_rate = read_audio(path)
    assert loudest_frequency(waveform, sample_rate) == pytest.approx(440, abs=2)
    assert abs(len(waveform) - 48_000) <= 2 * 1024
    info = audio_info(path)
    assert (info.sample_rate, info.n_channels, info.format) == (48_000, 1, codec.removeprefix("lib").upper())
    assert abs(info.n_samples - len(waveform)) <= 2 * 1024


def test_opus_in_ogg_needs_no_av(tmp_path, without_av):
    soundfile.write(tmp_path / "a.opus", tone(sample_rate=48_000), 48_000, format="OGG", subtype="OPUS")
    assert loudest_frequency(*read_audio(tmp_path / "a.opus")) == pytest.approx(440, abs=2)


def test_format_is_recognised_by_the_content(tmp_path):
    soundfile.write(tmp_path / "really a flac.wav", tone(), RATE, format="FLAC")
    assert np.abs(read_audio(tmp_path / "really a flac.wav")[0] - tone()).max() <= 2**-15
    m4a = write_with_av(tmp_path / "a.m4a", "aac", tone(sample_rate=48_000)).rename(tmp_path / "really an m4a.wav")
    assert loudest_frequency(*read_audio(m4a)) == pytest.approx(440, abs=2)


def test_mono_is_the_mean_of_8_channels(tmp_path, rng):
    channels = rng.uniform(-0.5, 0.5, (1000, 8)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", channels, RATE, subtype="FLOAT")
    assert audio_info(tmp_path / "a.wav").n_channels == 8
    np.testing.assert_allclose(read_audio(tmp_path / "a.wav")[0], channels.mean(axis=1), atol=1e-7)


def test_channels_of_opposite_phase_average_to_silence(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.stack([tone(), -tone()], axis=1), RATE, subtype="FLOAT")
    assert not read_audio(tmp_path / "a.wav")[0].any()


def test_192_khz_keeps_its_rate_and_its_ultrasound(tmp_path):
    write_audio(tmp_path / "bat.wav", tone(45_000, duration_seconds=0.5, sample_rate=192_000), 192_000)
    waveform, sample_rate = read_audio(tmp_path / "bat.wav")
    assert sample_rate == 192_000
    assert loudest_frequency(waveform, sample_rate) == pytest.approx(45_000, abs=5)


def test_clip_of_30_ms_is_read_and_resampled(tmp_path):
    write_audio(tmp_path / "tick.wav", tone(duration_seconds=0.03), RATE)
    assert len(read_audio(tmp_path / "tick.wav")[0]) == 1323
    waveform, sample_rate = read_audio(tmp_path / "tick.wav", sample_rate=32_000)
    assert (len(waveform), sample_rate) == (960, 32_000)


@pytest.mark.parametrize("name", ["mein Hörspiel – Teil 1.wav", "鳥 の 声.wav", "it's 100% #1 [x]*?.wav"])
def test_file_names_can_contain_spaces_umlauts_and_symbols(tmp_path, name):
    write_audio(tmp_path / name, tone(), RATE)
    assert len(read_audio(tmp_path / name)[0]) == RATE
    assert len(read_audio(str(tmp_path / name))[0]) == RATE
    assert find_audio([tmp_path]) == [tmp_path / name]


# Excerpts


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3", "a.aiff"])
@pytest.mark.parametrize("start", [0.2, 1.5, 3.5])
def test_excerpt_equals_the_same_part_of_the_whole(tmp_path, name, start):
    write_audio(tmp_path / name, sweep(), RATE)
    whole = read_audio(tmp_path / name)[0]
    excerpt, sample_rate = read_audio(tmp_path / name, start_seconds=start, end_seconds=start + 0.25)
    assert sample_rate == RATE
    np.testing.assert_allclose(excerpt, whole[round(start * RATE) : round((start + 0.25) * RATE)], atol=1e-5)


def lag(excerpt, whole, start):
    """The shift of an excerpt in the whole, in samples, relative to `start`."""
    differences = {lag: np.abs(excerpt - whole[start + lag :][: len(excerpt)]).max() for lag in range(-1200, 1200)}
    best = min(differences, key=lambda lag: differences[lag])
    assert differences[best] < 0.02
    return best


@pytest.mark.parametrize(("subtype", "start", "max_lag"), [("VORBIS", 1.5, 0), ("VORBIS", 3.5, 1103), ("OPUS", 3.5, 0)])
def test_excerpt_of_an_ogg_is_shifted_by_at_most_25_ms_and_only_near_its_end(tmp_path, subtype, start, max_lag):
    sample_rate = 48_000
    soundfile.write(tmp_path / "a.ogg", sweep(sample_rate=sample_rate), sample_rate, format="OGG", subtype=subtype)
    whole = read_audio(tmp_path / "a.ogg")[0]
    excerpt = read_audio(tmp_path / "a.ogg", start_seconds=start, end_seconds=start + 0.25)[0]
    assert abs(lag(excerpt, whole, round(start * sample_rate))) <= max_lag


@pytest.mark.parametrize(("name", "codec"), AV_SOUNDS)
@pytest.mark.parametrize("start", [0.1, 2.9])
def test_excerpt_of_av_formats_is_shifted_by_at_most_1_ms(tmp_path, name, codec, start):
    path = write_with_av(tmp_path / name, codec, sweep(sample_rate=48_000))
    excerpt = read_audio(path, start_seconds=start, end_seconds=start + 0.5)[0]
    assert len(excerpt) == 24_000
    assert abs(lag(excerpt, read_audio(path)[0], round(start * 48_000))) <= 48


@given(cuts=st.lists(st.floats(0.0001, 0.9999), min_size=1, max_size=5, unique_by=lambda cut: round(cut * 8000)))
@settings(max_examples=25, deadline=None)
def test_adjacent_excerpts_share_no_sample_and_miss_none(tmp_path_factory, cuts):
    path = tmp_path_factory.getbasetemp() / "cuts.wav"
    write_audio(path, tone(sample_rate=8000), 8000)
    edges = [0.0, *sorted(cuts), 1.0]
    excerpts = [
        read_audio(path, start_seconds=start, end_seconds=end)[0]
        for start, end in itertools.pairwise(edges)
        if round(end * 8000) > round(start * 8000)
    ]
    assert np.array_equal(np.concatenate(excerpts), read_audio(path)[0])


def test_end_after_the_end_of_the_file_means_its_end(tmp_path):
    write_audio(tmp_path / "a.wav", tone(), RATE)
    assert len(read_audio(tmp_path / "a.wav", start_seconds=0.5, end_seconds=99)[0]) == RATE // 2


def test_start_after_the_end_raises_an_error_with_the_time(tmp_path):
    write_audio(tmp_path / "a.wav", tone(), RATE)
    for start in (1.0, 60.0):
        with pytest.raises(AudioError, match=rf"a\.wav.*no samples from {start:g} s on"):
            read_audio(tmp_path / "a.wav", start_seconds=start)
    with pytest.raises(AudioError, match=r"a\.wav.*no samples between 2 s and 3 s"):
        read_audio(tmp_path / "a.wav", start_seconds=2, end_seconds=3)
    path = write_with_av(tmp_path / "a.webm", "libopus", tone(sample_rate=48_000))
    with pytest.raises(AudioError, match=r"a\.webm.*no samples from 60 s on"):
        read_audio(path, start_seconds=60)


@pytest.mark.parametrize(("start", "end"), [(-1.0, None), (0.5, 0.5), (0.5, 0.2), (float("nan"), None)])
def test_empty_or_negative_excerpt_raises_an_error(tmp_path, start, end):
    write_audio(tmp_path / "a.wav", tone(), RATE)
    with pytest.raises(AudioError, match=r"a\.wav: need 0 <= start < end"):
        read_audio(tmp_path / "a.wav", start_seconds=start, end_seconds=end)


def test_excerpt_of_a_wav_reads_few_bytes(tmp_path):
    path = tmp_path / "a day.wav"
    write_audio(path, tone(), RATE)
    with path.open("r+b") as file:  # hours of sound in a sparse file
        file.seek(4)
        n_bytes = 2 * RATE * 3600 * 6
        file.write(struct.pack("<I", n_bytes + 36))
        file.seek(40)
        file.write(struct.pack("<I", n_bytes))
        file.truncate(n_bytes + 44)
    assert audio_info(path).duration_seconds == 6 * 3600
    assert len(read_audio(path, start_seconds=5 * 3600, end_seconds=5 * 3600 + 1)[0]) == RATE


def test_header_with_a_length_beyond_the_memory_raises_an_error(tmp_path):
    write_audio(tmp_path / "a.flac", tone(), RATE)
    with (tmp_path / "a.flac").open("r+b") as file:
        file.seek(22)
        file.write(b"\xff\xff\xff\xff")  # 27 hours, but only one second of data
    message = r"a\.flac: its header says 4,294,967,295 samples, but [\d,]+ bytes contain at most"
    assert_audio_error(tmp_path / "a.flac", message)


# Damaged and unusual files


def assert_audio_error(path, message):
    for read in (audio_info, read_audio):
        with pytest.raises(AudioError, match=message) as caught:
            read(path)
        assert str(path) in str(caught.value)


def test_missing_file_raises_an_error(tmp_path):
    assert_audio_error(tmp_path / "gone.wav", "No such file")
    assert_audio_error("\0.wav", "null byte")


def test_folder_raises_an_error(tmp_path):
    (tmp_path / "folder.wav").mkdir()
    assert_audio_error(tmp_path / "folder.wav", "need a sound file, got a folder")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_named_pipe_raises_an_error_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    assert_audio_error(tmp_path / "pipe.wav", "need a sound file, got a special file")


def test_file_of_0_bytes_raises_an_error(tmp_path):
    (tmp_path / "a.wav").touch()
    assert_audio_error(tmp_path / "a.wav", r"empty \(0 bytes\)")


@pytest.mark.parametrize("name", ["notes.wav", "notes.mp3", "notes.m4a", "notes.txt"])
def test_text_raises_an_error_whatever_its_name(tmp_path, name):
    pytest.importorskip("av")
    (tmp_path / name).write_text("No sound at all.\n" * 100)
    assert_audio_error(tmp_path / name, "not a sound")


def test_text_named_wav_raises_an_error_without_av(tmp_path, without_av):
    (tmp_path / "notes.wav").write_text("No sound at all.\n" * 100)
    assert_audio_error(tmp_path / "notes.wav", "not a sound that soundfile can read: Format not recognised")


def test_files_in_a_playlist_are_not_read(tmp_path):
    pytest.importorskip("av")
    write_audio(tmp_path / "secret.wav", tone(), RATE)
    for name in ("list.wav", "list.m3u8"):
        (tmp_path / name).write_text(
            f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{tmp_path}/secret.wav\n#EXT-X-ENDLIST"
        )
        assert_audio_error(tmp_path / name, "not a sound")


def test_picture_raises_an_error(tmp_path):
    image = pytest.importorskip("PIL.Image")
    image.new("L", (32, 32)).save(tmp_path / "a.png")
    assert_audio_error((tmp_path / "a.png").rename(tmp_path / "a.wav"), "not a sound")


def test_file_without_samples_has_0_samples_and_cannot_be_read(tmp_path):
    write_audio(tmp_path / "a.wav", tone()[:0], RATE)
    assert audio_info(tmp_path / "a.wav").n_samples == 0
    with pytest.raises(AudioError, match=r"a\.wav: the file has no samples$"):
        read_audio(tmp_path / "a.wav")


@pytest.mark.parametrize("name", ["a.wav", "a.aiff"])
def test_truncated_wav_and_aiff_give_the_samples_that_are_left(tmp_path, name):
    write_audio(tmp_path / name, tone(), RATE)
    os.truncate(tmp_path / name, 60_001)  # in the middle of a sample
    waveform = read_audio(tmp_path / name)[0]
    assert len(waveform) == audio_info(tmp_path / name).n_samples == pytest.approx(30_000, abs=40)
    assert np.abs(waveform - tone()[: len(waveform)]).max() <= 2**-15


@pytest.mark.parametrize("name", ["a.ogg", "a.mp3"])
def test_truncated_ogg_and_mp3_give_the_samples_that_are_left(tmp_path, name, rng):
    write_audio(tmp_path / name, rng.uniform(-0.5, 0.5, 4 * RATE).astype(np.float32), RATE)
    whole = read_audio(tmp_path / name)[0]
    os.truncate(tmp_path / name, (tmp_path / name).stat().st_size * 6 // 10)
    waveform = read_audio(tmp_path / name)[0]
    assert 0.3 < len(waveform) / len(whole) < 0.8
    n_equal = len(waveform) - 4096  # the last frames miss their overlap
    np.testing.assert_allclose(waveform[:n_equal], whole[:n_equal], atol=1e-5)


def test_truncated_flac_gives_the_samples_before_the_cut(tmp_path):
    write_audio(tmp_path / "a.flac", sweep(), RATE)
    os.truncate(tmp_path / "a.flac", (tmp_path / "a.flac").stat().st_size * 6 // 10)
    waveform = read_audio(tmp_path / "a.flac")[0]
    assert 0.5 < len(waveform) / len(sweep()) < 0.7
    assert np.abs(waveform - sweep()[: len(waveform)]).max() <= 2**-15
    excerpt = read_audio(tmp_path / "a.flac", start_seconds=0.5, end_seconds=1.0)[0]
    assert np.abs(excerpt - sweep()[RATE // 2 : RATE]).max() <= 2**-15


def test_truncated_m4a_raises_an_error_and_truncated_webm_gives_the_samples_that_are_left(tmp_path):
    for name, codec in (("a.m4a", "aac"), ("a.webm", "libopus")):
        path = write_with_av(tmp_path / name, codec, sweep(sample_rate=48_000))
        os.truncate(path, path.stat().st_size * 6 // 10)
    assert_audio_error(tmp_path / "a.m4a", "not a sound, or a damaged one")
    assert 0.3 < len(read_audio(tmp_path / "a.webm")[0]) / (4 * 48_000) < 0.8


def test_wav_of_unknown_length_is_read_to_the_end_of_the_file(tmp_path):
    write_audio(tmp_path / "a.wav", tone(), RATE)
    with (tmp_path / "a.wav").open("r+b") as file:  # as programs write it to a pipe
        for position in (4, 40):
            file.seek(position)
            file.write(b"\xff\xff\xff\xff")
    assert len(read_audio(tmp_path / "a.wav")[0]) == RATE


def flac_of_unknown_length(path):
    write_audio(path, tone(), RATE)
    with path.open("r+b") as file:
        file.seek(21)
        bits_per_sample = file.read(1)[0] & 0xF0
        file.seek(21)
        file.write(bytes([bits_per_sample, 0, 0, 0, 0]))
    return path


def vbr_mp3_without_length(path):
    """Noise, then silence. libsndfile 1.2 would read about half of it."""
    noise = np.random.default_rng(0).uniform(-0.9, 0.9, 2 * RATE).astype(np.float32)
    write_audio(path, np.concatenate([noise, np.zeros(3 * RATE, np.float32)]), RATE)
    data = path.read_bytes()
    second_frame = data.index(data[:2], data.index(b"Xing"))
    path.write_bytes(data[second_frame + 100 :])  # starts in the middle of a frame
    return path


def test_flac_without_length_is_read_with_av(tmp_path):
    pytest.importorskip("av")
    path = flac_of_unknown_length(tmp_path / "piped.flac")
    assert audio_info(path).n_samples == pytest.approx(RATE, abs=4096)
    assert np.abs(read_audio(path)[0] - tone()).max() <= 2**-15


def test_mp3_of_variable_bit_rate_without_length_is_read_with_av(tmp_path):
    pytest.importorskip("av")
    path = vbr_mp3_without_length(tmp_path / "cut.mp3")
    assert len(read_audio(path)[0]) == pytest.approx(5 * RATE, abs=4 * 1152)
    assert audio_info(path).n_samples == pytest.approx(5 * RATE, abs=4 * 1152)
    noise, silence = (read_audio(path, start_seconds=at, end_seconds=at + 0.5)[0] for at in (1.0, 4.0))
    assert noise.std() > 0.3
    assert silence.std() < 1e-3


@pytest.mark.parametrize(("make", "name"), [(flac_of_unknown_length, "a.flac"), (vbr_mp3_without_length, "a.mp3")])
def test_sound_without_length_raises_an_error_with_the_extra_if_av_is_missing(tmp_path, make, name, without_av):
    path = make(tmp_path / name)
    with pytest.raises(MissingExtraError, match=rf"{name}.*not contain its length.*pip install 'spectag\[av\]'"):
        read_audio(path)


def test_length_of_a_webm_from_a_browser_is_computed_from_its_packets(tmp_path):
    path = write_with_av(tmp_path / "a.webm", "libopus", sweep(sample_rate=48_000), seekable=False)
    assert audio_info(path).duration_seconds == pytest.approx(4, abs=0.05)
    assert len(read_audio(path, start_seconds=1.0, end_seconds=1.5)[0]) == 24_000


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_raise_an_error_with_the_time(tmp_path, value):
    waveform = tone()
    waveform[RATE // 2] = value
    soundfile.write(tmp_path / "a.wav", waveform, RATE, subtype="FLOAT")
    assert audio_info(tmp_path / "a.wav").n_samples == RATE
    with pytest.raises(
        AudioError, match=r"a\.wav: the sample at 0\.5 s is (nan|-?inf); samples are expected in \[-1, 1\]"
    ):
        read_audio(tmp_path / "a.wav")
    with pytest.raises(AudioError, match=r"the sample at 0\.5 s"):
        read_audio(tmp_path / "a.wav", start_seconds=0.25)
    assert len(read_audio(tmp_path / "a.wav", end_seconds=0.5)[0]) == RATE // 2


@pytest.mark.parametrize("value", [1e20, -3e38])
def test_absurd_sample_is_refused_with_its_time_and_value(tmp_path, value):
    """Its power is infinite in float32, so that all probabilities would be NaN."""
    waveform = tone()
    waveform[RATE // 4] = value
    soundfile.write(tmp_path / "a.wav", waveform, RATE, subtype="FLOAT")
    message = (
        rf"a\.wav: the sample at 0\.25 s is {value:.0e}".replace("+", r"\+") + r"; samples are expected in \[-1, 1\]"
    )
    with pytest.raises(AudioError, match=message):
        read_audio(tmp_path / "a.wav")
    with pytest.raises(AudioError, match=message), open_stream(tmp_path / "a.wav") as sound:
        list(sound.blocks)
    assert len(read_audio(tmp_path / "a.wav", start_seconds=0.5)[0]) == len(waveform) - RATE // 2


@pytest.mark.parametrize("full_scale", [2**15, 2**31])
def test_float_file_with_integers_can_be_read(tmp_path, full_scale):
    waveform = np.array([-1, 0.5, 0, -0.25], np.float32) * np.float32(full_scale)
    soundfile.write(tmp_path / "a.wav", waveform, RATE, subtype="FLOAT")
    np.testing.assert_array_equal(read_audio(tmp_path / "a.wav")[0], waveform)


def test_opposite_infinities_in_two_channels_raise_an_error_without_a_warning(tmp_path):
    channels = np.zeros((100, 2), np.float32)
    channels[50] = np.inf, -np.inf
    soundfile.write(tmp_path / "a.wav", channels, RATE, subtype="FLOAT")
    with pytest.raises(AudioError, match="is nan; samples are expected"):
        read_audio(tmp_path / "a.wav")


@pytest.mark.parametrize("name", ["a.m4a", "a.mp4", "a.aac", "a.webm"])
def test_missing_av_raises_an_error_with_the_extra(tmp_path, name, without_av):
    (tmp_path / name).write_bytes(b"\0\0\0\x20ftypM4A " + bytes(100))
    for read in (audio_info, read_audio):
        with pytest.raises(MissingExtraError, match=rf"{name}.*needs the package av: pip install 'spectag\[av\]'"):
            read(tmp_path / name)


# Resampling


@pytest.mark.parametrize("to_rate", [16_000, 32_000, 48_000])
def test_resampled_tone_keeps_pitch_loudness_and_duration(to_rate):
    resampled = resample(tone(), RATE, to_rate)
    assert resampled.dtype == np.float32
    assert len(resampled) == to_rate
    assert loudest_frequency(resampled, to_rate) == pytest.approx(440, abs=1)
    assert resampled.std() == pytest.approx(tone().std(), rel=1e-3)


def test_resampling_removes_frequencies_above_the_new_nyquist_frequency():
    assert np.abs(resample(tone(12_000), RATE, 16_000)[500:-500]).max() < 1e-4


def test_resampling_equals_soxr_hq_and_does_nothing_at_an_equal_rate(tmp_path):
    assert np.array_equal(resample(tone(), RATE, 32_000), soxr.resample(tone(), RATE, 32_000, quality="HQ"))
    waveform = tone()
    assert resample(waveform, RATE, RATE) is waveform
    write_audio(tmp_path / "a.wav", tone(), RATE)
    waveform, sample_rate = read_audio(tmp_path / "a.wav", sample_rate=32_000)
    assert sample_rate == 32_000
    assert np.array_equal(waveform, resample(read_audio(tmp_path / "a.wav")[0], RATE, 32_000))


def test_resampling_rejects_rates_of_0_and_stereo():
    with pytest.raises(ValueError, match="above 0 Hz, got 44100 and 0"):
        resample(tone(), RATE, 0)
    with pytest.raises(ValueError, match=r"got \(10, 2\)"):
        resample(np.zeros((10, 2), np.float32), RATE, 32_000)


# Writing


def test_writing_clips_to_full_scale(tmp_path):
    write_audio(tmp_path / "a.wav", 10 * tone(), RATE)
    waveform = read_audio(tmp_path / "a.wav")[0]
    assert np.abs(waveform - np.clip(10 * tone(), -1, 1)).max() <= 2**-15
    assert soundfile.info(tmp_path / "a.wav").subtype == "PCM_16"


def test_minutes_of_ogg_can_be_written(tmp_path):  # libsndfile 1.2 crashes if they are written at once
    write_audio(tmp_path / "a.ogg", np.zeros(60 * RATE, np.float32), RATE)
    assert audio_info(tmp_path / "a.ogg").n_samples == 60 * RATE


def test_writing_rejects_nan_stereo_and_unknown_suffixes_without_leaving_a_file(tmp_path):
    with pytest.raises(ValueError, match="NaN"):
        write_audio(tmp_path / "a.wav", np.full(10, np.nan, np.float32), RATE)
    with pytest.raises(ValueError, match=r"\(10, 2\)"):
        write_audio(tmp_path / "a.wav", np.zeros((10, 2), np.float32), RATE)
    with pytest.raises(AudioError, match=r"a\.m4a: can't write \.m4a; use \.wav"):
        write_audio(tmp_path / "a.m4a", tone(), RATE)
    (tmp_path / "folder.wav").mkdir()
    with pytest.raises(AudioError, match=r"folder\.wav: can't write the sound"):
        write_audio(tmp_path / "folder.wav", tone(), RATE)
    (tmp_path / "folder.wav").rmdir()
    with pytest.raises(AudioError, match=r"a\.mp3: can't write the sound"):
        write_audio(tmp_path / "a.mp3", tone(), 192_000)
    assert not list(tmp_path.iterdir())


# Finding


def make_files(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_folder_and_its_subfolders_give_their_sounds_in_order(tmp_path):
    make_files(
        tmp_path, "b.wav", "a.MP3", "c/x.m4a", "c/d/y.Flac", "readme.txt", ".hidden.wav", ".git/z.wav", "c/._x.m4a"
    )
    found = find_audio([tmp_path])
    assert [path.relative_to(tmp_path).as_posix() for path in found] == ["a.MP3", "b.wav", "c/d/y.Flac", "c/x.m4a"]


def test_single_files_are_found_whatever_their_suffix_without_duplicates(tmp_path):
    make_files(tmp_path, "b.wav", "a.wav", "sound.bin")
    found = find_audio([str(tmp_path / "sound.bin"), tmp_path / "b.wav", tmp_path])
    assert found == [tmp_path / "sound.bin", tmp_path / "b.wav", tmp_path / "a.wav"]


def test_missing_path_raises_an_error(tmp_path):
    make_files(tmp_path, "a.wav")
    with pytest.raises(AudioError, match="sonuds: no such file or folder"):
        find_audio([tmp_path, tmp_path / "sonuds"])


def test_folder_without_sounds_raises_an_error_only_if_nothing_else_is_found(tmp_path):
    make_files(tmp_path, "empty/notes.txt", "full/a.wav")
    assert find_audio([tmp_path / "empty", tmp_path / "full"]) == [tmp_path / "full" / "a.wav"]
    with pytest.raises(AudioError, match=r"empty: no sound found; looked for files that end in \.3gp \.aac"):
        find_audio([tmp_path / "empty"])
    assert find_audio([]) == []


def test_circular_links_are_not_followed(tmp_path):
    make_files(tmp_path, "folder/a.wav")
    (tmp_path / "folder" / "again").symlink_to(tmp_path / "folder", target_is_directory=True)
    assert find_audio([tmp_path]) == [Path(tmp_path, "folder", "a.wav")]
