"""Damaged, unfinished and joined files: an AudioError with the file's name, or finite samples."""

import os
import struct

import numpy as np
import pytest
import soundfile

from spectag.audio import decoding
from spectag.audio.files import AUDIO_SUFFIXES, audio_info, open_stream, read_audio, write_audio
from spectag.errors import AudioError

RATE = 16_000
SOUNDS = [
    *[("WAV", kind) for kind in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ALAW", "ULAW")],
    *[("WAV", kind) for kind in ("IMA_ADPCM", "MS_ADPCM", "GSM610", "G721_32", "NMS_ADPCM_16")],
    *[("AIFF", kind) for kind in ("PCM_16", "FLOAT", "IMA_ADPCM", "GSM610", "ULAW")],
    *[("AU", kind) for kind in ("PCM_16", "G721_32", "ULAW")],
    *[("CAF", kind) for kind in ("PCM_16", "ALAC_16")],
    *[("W64", kind) for kind in ("PCM_16", "GSM610")],
    *[("RF64", "PCM_16"), ("FLAC", "PCM_16"), ("FLAC", "PCM_24")],
    *[("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")],
]
AV_SOUNDS = [
    *[("a.wma", "wmav2"), ("a.mov", "pcm_s16le"), ("a.amr", "libopencore_amrnb"), ("a.m4a", "alac"), ("a.mp4", "aac")],
    *[("a.aac", "aac"), ("a.mp2", "mp2"), ("a.webm", "libopus")],
]
UNSEEKABLE = [("WAV", "GSM610"), ("WAV", "G721_32"), ("AIFF", "GSM610"), ("AU", "G723_24"), ("W64", "GSM610")]


def noise(n_samples=2 * RATE, *, seed=0):
    return np.random.default_rng(seed).uniform(-0.3, 0.3, n_samples).astype(np.float32)


def write_with_av(path, codec):
    """Two seconds of noise in a format of PyAV; skips the test where the codec is missing."""
    av = pytest.importorskip("av")
    try:
        av.codec.Codec(codec, "w")
    except av.FFmpegError:
        pytest.skip(f"no encoder {codec}")
    rate = {"libopencore_amrnb": 8_000, "wmav2": 44_100}.get(codec, RATE)
    muxer = {".aac": "adts", ".m4a": "ipod", ".wma": "asf"}.get(path.suffix, path.suffix[1:])
    with av.open(str(path), "w", format=muxer) as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        stream.bit_rate = 12_200 if codec == "libopencore_amrnb" else 64_000
        frame = av.AudioFrame.from_ndarray(noise(2 * rate)[None], format="fltp", layout="mono")
        frame.sample_rate = rate
        frame_size = stream.codec_context.frame_size or 1024
        to_encoder = av.AudioResampler(stream.codec_context.format, "mono", rate, frame_size=frame_size)
        for encoder_input in [*to_encoder.resample(frame), *to_encoder.resample(None), None]:
            container.mux(stream.encode(encoder_input))
    return path


def streamed(path):
    """The samples of a stream, and the faults."""
    with open_stream(path) as sound:
        return np.concatenate(list(sound.blocks)), sound.faults


def assert_error_or_finite_samples(path):
    for read in (
        lambda: read_audio(path)[0],
        lambda: streamed(path)[0],
        lambda: audio_info(path).duration_seconds,
        lambda: read_audio(path, start_seconds=0.5, end_seconds=1.0)[0],
    ):
        message = str(path)
        try:
            assert np.isfinite(read()).all()
        except AudioError as error:
            message = str(error)
        assert str(path) in message


# Damage


@pytest.mark.parametrize(("container", "kind"), SOUNDS)
def test_cut_file_and_flipped_bits_give_an_audio_error_or_finite_samples(tmp_path, container, kind, rng):
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(), RATE, format=container, subtype=kind)
    content = path.read_bytes()
    for _ in range(6):
        path.write_bytes(content[: rng.integers(1, len(content))])
        assert_error_or_finite_samples(path)
        damaged = bytearray(content)
        header = rng.integers(0, min(len(content), 200), rng.integers(0, 4))
        anywhere = rng.integers(0, len(content), rng.integers(1, 30))
        for position in (*header, *anywhere):
            damaged[position] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        assert_error_or_finite_samples(path)


@pytest.mark.parametrize(("name", "codec"), AV_SOUNDS)
def test_cut_and_damaged_files_of_pyav_give_an_audio_error_or_finite_samples(tmp_path, name, codec, rng):
    path = write_with_av(tmp_path / name, codec)
    content = path.read_bytes()
    for _ in range(6):
        path.write_bytes(content[: rng.integers(1, len(content))])
        assert_error_or_finite_samples(path)
        damaged = bytearray(content)
        for position in rng.integers(0, len(content), rng.integers(1, 30)):
            damaged[position] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        assert_error_or_finite_samples(path)


@pytest.mark.parametrize(
    "error",
    [
        AttributeError("'NoneType' object has no attribute 'sample_rate'"),
        struct.error("unpack requires a buffer of 4 bytes"),
        OverflowError("int too large to convert"),
        RuntimeError("seek failed\nin a second line"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
        MemoryError(),
        ZeroDivisionError(),
        soundfile.LibsndfileError(7),
    ],
)
@pytest.mark.parametrize("method", ["info", "read", "blocks"])
def test_whatever_a_decoder_raises_is_an_audio_error_with_the_file_name(tmp_path, monkeypatch, error, method):
    def fail(*_):
        raise error

    path = tmp_path / "a.wav"
    write_audio(path, noise(), RATE)
    use = {"info": audio_info, "read": read_audio, "blocks": streamed}[method]
    monkeypatch.setattr(f"spectag.audio.soundfile_decoder.SoundfileDecoder.{method}", fail)
    with pytest.raises(AudioError, match=r"^[^\n]*a\.wav: [^\n]+$") as caught:
        use(path)
    assert caught.value.__cause__ is error


def test_error_while_opening_is_an_audio_error(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise KeyError("codec")

    write_audio(tmp_path / "a.wav", noise(), RATE)
    monkeypatch.setattr(decoding, "open_with_soundfile", fail)
    with pytest.raises(AudioError, match=r"a\.wav: the sound is damaged: KeyError: 'codec'"):
        read_audio(tmp_path / "a.wav")


def test_error_of_the_caller_is_not_blamed_on_the_file(tmp_path):
    write_audio(tmp_path / "a.wav", noise(), RATE)
    with pytest.raises(ZeroDivisionError), open_stream(tmp_path / "a.wav"):
        _ = 1 / 0


def test_wav_of_an_unknown_codec_is_an_audio_error(tmp_path):
    pytest.importorskip("av")
    unfinished_wav(tmp_path / "a.wav", noise(), codec=0)
    with pytest.raises(AudioError, match=r"a\.wav: the file has a codec that is not known"):
        read_audio(tmp_path / "a.wav")


# Other formats


@pytest.mark.parametrize(("name", "codec"), AV_SOUNDS)
def test_format_is_read_whole_in_blocks_and_in_excerpts(tmp_path, name, codec):
    path = write_with_av(tmp_path / name, codec)
    waveform, rate = read_audio(path)
    assert len(waveform) == pytest.approx(2 * rate, abs=2_100)
    stream, faults = streamed(path)
    assert np.array_equal(stream, waveform)
    assert not faults.is_truncated
    assert path.suffix in AUDIO_SUFFIXES
    assert len(read_audio(path, start_seconds=0.5, end_seconds=1.0)[0]) == rate // 2


@pytest.mark.parametrize("n_channels", [2, 9, 33, 64])
def test_file_that_pyav_reads_may_have_many_channels(tmp_path, n_channels):
    pytest.importorskip("av")
    samples = np.stack([noise(1000, seed=seed) for seed in range(n_channels)], axis=1)
    soundfile.write(tmp_path / "a.caf", samples, RATE, subtype="PCM_16")
    content = bytearray((tmp_path / "a.caf").read_bytes())
    position = content.index(b"data") + 4
    content[position : position + 8] = bytes([255] * 8)  # unknown, which libsndfile does not read
    (tmp_path / "a.caf").write_bytes(content)
    assert audio_info(tmp_path / "a.caf").format == "PCM_S16BE"
    np.testing.assert_allclose(read_audio(tmp_path / "a.caf")[0], samples.mean(axis=1), atol=2**-15)


@pytest.mark.parametrize(("name", "codec"), [("a.wma", "wmav2"), ("a.aac", "aac"), ("a.webm", "libopus")])
def test_truncated_file_of_pyav_is_reported(tmp_path, name, codec):
    path = write_with_av(tmp_path / name, codec)
    os.truncate(path, path.stat().st_size * 6 // 10)
    waveform, faults = streamed(path)
    assert 0.4 < len(waveform) / read_audio(path)[1] < 1.4
    assert faults.is_truncated


# Codecs that cannot seek


@pytest.mark.parametrize(("container", "kind"), UNSEEKABLE)
def test_codec_that_cannot_seek_is_read_whole_in_blocks_and_in_excerpts(tmp_path, container, kind):
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(20 * RATE), RATE, format=container, subtype=kind)
    whole = read_audio(path)[0]
    assert len(whole) == pytest.approx(20 * RATE, abs=400)
    assert np.array_equal(streamed(path)[0], whole)
    excerpt = read_audio(path, start_seconds=9.5, end_seconds=11.0)[0]
    assert np.array_equal(excerpt, whole[round(9.5 * RATE) : 11 * RATE])


# Joined files


@pytest.mark.parametrize("kind", ["VORBIS", "OPUS"])
def test_all_links_of_a_chained_ogg_are_read(tmp_path, kind):
    parts = []
    for seed, seconds in enumerate((2, 3, 1)):
        soundfile.write(tmp_path / "a.ogg", noise(seconds * RATE, seed=seed), RATE, format="OGG", subtype=kind)
        parts.append(((tmp_path / "a.ogg").read_bytes(), read_audio(tmp_path / "a.ogg")[0]))
    path = tmp_path / "joined.ogg"
    path.write_bytes(b"".join(content for content, _ in parts))
    whole = read_audio(path)[0]
    np.testing.assert_allclose(whole, np.concatenate([waveform for _, waveform in parts]), atol=1e-6)
    assert audio_info(path).n_samples == len(whole) == 6 * RATE
    assert np.array_equal(streamed(path)[0], whole)
    excerpt = read_audio(path, start_seconds=1.5, end_seconds=5.5)[0]
    assert np.array_equal(excerpt, whole[round(1.5 * RATE) : round(5.5 * RATE)])


@pytest.mark.parametrize("tag", [b"", b"ID3\4\0\0\0\0\0\x10" + bytes(16)])
def test_joined_mp3_files_are_read_to_the_end(tmp_path, tag):
    pytest.importorskip("av")
    write_audio(tmp_path / "a.mp3", noise(), RATE)
    path = tmp_path / "joined.mp3"
    part = tag + (tmp_path / "a.mp3").read_bytes()
    path.write_bytes(3 * part)
    assert len(read_audio(path)[0]) == pytest.approx(6 * RATE, abs=4 * 1152)
    assert audio_info(path).duration_seconds == pytest.approx(6, abs=0.3)
    assert not streamed(path)[1].is_truncated
    path.write_bytes(part + b"TAG" + bytes(125))  # an ID3v1 tag at the end is no sound
    assert len(read_audio(path)[0]) == 2 * RATE


def test_links_of_another_rate_and_number_of_channels_are_converted(tmp_path):
    soundfile.write(tmp_path / "a.ogg", noise(), RATE)
    soundfile.write(tmp_path / "b.ogg", np.stack([noise(4 * RATE)] * 2, axis=1), 2 * RATE)
    path = tmp_path / "joined.ogg"
    path.write_bytes((tmp_path / "a.ogg").read_bytes() + (tmp_path / "b.ogg").read_bytes())
    assert len(read_audio(path)[0]) == pytest.approx(4 * RATE, abs=2)
    assert audio_info(path).duration_seconds == 4
    assert not streamed(path)[1].channels_cancel


# Sizes in the header


def unfinished_wav(path, waveform, *, size=None, riff_size=0xFFFFFFFF, codec=1, after=b""):
    """A wav of 16 bits with the given sizes in its header."""
    samples = (waveform * 32767).astype("<i2").tobytes()
    fmt = struct.pack("<4sIHHIIHH", b"fmt ", 16, codec, 1, RATE, 2 * RATE, 2, 16)
    data = struct.pack("<4sI", b"data", len(samples) if size is None else size)
    path.write_bytes(struct.pack("<4sI4s", b"RIFF", riff_size, b"WAVE") + fmt + data + samples + after)
    return path


@pytest.mark.parametrize(
    ("size", "riff_size"), [(0, 0), (0, 36), (0xFFFFFFFF, 0xFFFFFFFF), (0x7FFFFFFF, 0x7FFFFFFF), (8_000, 0)]
)
def test_wav_that_a_recorder_did_not_finish_is_read_to_the_end_of_the_file(tmp_path, size, riff_size):
    path = unfinished_wav(tmp_path / "a.wav", noise(), size=size, riff_size=riff_size)
    assert len(read_audio(path)[0]) == audio_info(path).n_samples == 2 * RATE
    waveform, faults = streamed(path)
    assert np.abs(waveform - noise()).max() <= 2**-14
    assert not faults.is_truncated


def test_unfinished_rf64_is_read_to_the_end_of_the_file(tmp_path):
    soundfile.write(tmp_path / "a.wav", noise(), RATE, format="RF64")
    with (tmp_path / "a.wav").open("r+b") as file:
        file.seek(20)
        file.write(bytes(16))
        content = (tmp_path / "a.wav").read_bytes()
        file.seek(content.index(b"data") + 4)
        file.write(b"\xff\xff\xff\xff")
    assert len(read_audio(tmp_path / "a.wav")[0]) == 2 * RATE


@pytest.mark.parametrize("size", [0, 0x7F000020, 0x7FFFFFFF, 0xFFFFFFFF])
@pytest.mark.parametrize(("container", "position"), [("AIFF", 4), ("AU", 8)])
def test_size_of_a_file_that_was_written_to_a_pipe_is_not_expected(tmp_path, container, position, size):
    soundfile.write(tmp_path / "a.wav", noise(), RATE, format=container)
    with (tmp_path / "a.wav").open("r+b") as file:
        file.seek(position)
        file.write(struct.pack(">I", size))
    waveform, faults = streamed(tmp_path / "a.wav")
    assert len(waveform) == 2 * RATE
    assert not faults.is_truncated


def test_chunks_and_other_bytes_after_the_samples_are_not_read_as_samples(tmp_path):
    chunk = struct.pack("<4sI8s", b"LIST", 8, b"INFOabcd")
    path = unfinished_wav(tmp_path / "a.wav", noise(), riff_size=0, after=chunk)
    assert len(read_audio(path)[0]) == 2 * RATE
    empty = unfinished_wav(tmp_path / "b.wav", noise(0), riff_size=36 + len(chunk), after=chunk)
    with pytest.raises(AudioError, match="the file has no samples"):
        read_audio(empty)
    n_bytes = 36 + 4 * RATE
    path = unfinished_wav(tmp_path / "c.wav", noise(), riff_size=n_bytes, after=bytes(1000))
    assert len(read_audio(path)[0]) == 2 * RATE


@pytest.mark.parametrize(
    ("container", "tolerance"), [("WAV", 0), ("RF64", 0), ("AIFF", 0.01), ("AU", 0.01), ("W64", 0.01), ("FLAC", 0)]
)
def test_truncated_file_is_reported_with_the_expected_seconds(tmp_path, container, tolerance):
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(), RATE, format=container)
    assert not streamed(path)[1].is_truncated
    os.truncate(path, path.stat().st_size * 6 // 10)
    waveform, faults = streamed(path)
    assert 0.5 < len(waveform) / (2 * RATE) < 0.7
    assert faults.is_truncated
    assert faults.expected_seconds == pytest.approx(2, abs=tolerance)
    assert audio_info(path).expected_samples == pytest.approx(2 * RATE, abs=tolerance * RATE)


@pytest.mark.parametrize(("container", "kind"), SOUNDS)
def test_complete_file_is_not_reported_as_truncated(tmp_path, container, kind):
    soundfile.write(tmp_path / "a.wav", noise(), RATE, format=container, subtype=kind)
    assert not streamed(tmp_path / "a.wav")[1].is_truncated


@pytest.mark.parametrize("rate", [1, 99, 2_000_001, 2**31 - 1])
def test_impossible_sample_rate_is_refused(tmp_path, rate):
    soundfile.write(tmp_path / "a.wav", noise(1000), rate)
    for read in (audio_info, read_audio, streamed):
        with pytest.raises(AudioError, match=rf"a\.wav: its header says {rate:,} samples per second, need 100 to"):
            read(tmp_path / "a.wav")


def test_more_than_1024_channels_are_refused(tmp_path):
    path = unfinished_wav(tmp_path / "a.wav", noise())
    content = bytearray(path.read_bytes())
    content[22:24] = struct.pack("<H", 1025)
    path.write_bytes(content)
    with pytest.raises(AudioError, match=r"a\.wav: "):
        read_audio(path)
    soundfile.write(tmp_path / "b.wav", np.zeros((100, 1024), np.float32), RATE, subtype="FLOAT")
    assert len(read_audio(tmp_path / "b.wav")[0]) == 100


# What a person should know


def test_silence_clipping_and_channels_that_cancel_are_reported(tmp_path):
    stereo = np.stack([noise(), -noise()], axis=1)
    soundfile.write(tmp_path / "inverse.wav", stereo, RATE, subtype="FLOAT")
    assert streamed(tmp_path / "inverse.wav")[1].descriptions() == [
        "the channels cancel each other in their mean; use --channel loudest"
    ]
    soundfile.write(tmp_path / "silent.wav", np.zeros((100, 2)), RATE)
    assert streamed(tmp_path / "silent.wav")[1].descriptions() == ["silent (peak below -60 dBFS)"]
    write_audio(tmp_path / "loud.wav", 10 * noise(), RATE)
    [clipped] = streamed(tmp_path / "loud.wav")[1].descriptions()
    assert clipped.startswith("clipped (6")
    different = np.stack([noise(seed=1), noise(seed=2)], axis=1)
    soundfile.write(tmp_path / "stereo.wav", different, RATE)
    assert streamed(tmp_path / "stereo.wav")[1].descriptions() == []
