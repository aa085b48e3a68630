"""Files whose end is missing, and the formats that are found in folders."""

import os

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

import spectag
from helpers.bundles import make_bundle
from spectag.audio.file_ends import caf_present_fraction, end_is_missing
from spectag.audio.files import audio_info, find_audio, open_stream, read_audio, read_sound
from spectag.audio.front_end import FrontEnd
from spectag.audio.sound_faults import truncation_warning
from spectag.config.base import MelConfig
from spectag.data.clips import Clip, Manifest
from spectag.data.labels import LabelSet
from spectag.data.spectrograms.cache import SpectrogramCache
from spectag.data.spectrograms.clip_inputs import open_clips
from spectag.system.progress import silent

RATE = 16_000
SMALL_MEL = MelConfig(sample_rate=8000, n_fft=256, hop_length=160, n_mels=16, f_max=4000)


def noise(n_samples=2 * RATE):
    return np.random.default_rng(0).uniform(-0.3, 0.3, n_samples).astype(np.float32)


def encode(path, codec, *, muxer=None, rate=48_000, options=None):
    """Two seconds of noise in a format of PyAV; skips the test where the codec is missing."""
    av = pytest.importorskip("av")
    try:
        av.codec.Codec(codec, "w")
    except av.FFmpegError:
        pytest.skip(f"no encoder {codec}")
    with av.open(str(path), "w", format=muxer, options=options or {}) as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        stream.bit_rate = 12_200 if rate == 8000 else 64_000
        frame = av.AudioFrame.from_ndarray(noise(2 * rate)[None], format="fltp", layout="mono")
        frame.sample_rate = rate
        size = stream.codec_context.frame_size or 1024
        to_encoder = av.AudioResampler(stream.codec_context.format, "mono", rate, frame_size=size)
        for encoder_input in [*to_encoder.resample(frame), *to_encoder.resample(None), None]:
            container.mux(stream.encode(encoder_input))
    return path


def faults_of(path):
    with open_stream(path) as sound:
        seconds = sum(len(block) for block in sound.blocks) / sound.sample_rate
    return seconds, sound.faults


def cut(path, n_bytes):
    os.truncate(path, path.stat().st_size - n_bytes)
    return path


@pytest.mark.parametrize(
    ("name", "codec", "muxer"),
    [("a.ac3", "ac3", "ac3"), ("a.eac3", "eac3", "eac3"), ("a.aac", "aac", "adts")],
)
@pytest.mark.parametrize("n_bytes", [1, 100, 3333])
def test_incomplete_last_frame_is_reported_without_a_length(tmp_path, name, codec, muxer, n_bytes):
    path = encode(tmp_path / name, codec, muxer=muxer)
    assert not faults_of(path)[1].is_truncated
    seconds, faults = faults_of(cut(path, n_bytes))
    assert 1.3 < seconds < 2.1
    assert (faults.is_truncated, faults.expected_seconds) == (True, None)


@pytest.mark.parametrize("trailer", [b"", b"TAG" + bytes(125)])
@pytest.mark.parametrize(("n_bytes", "is_truncated"), [(0, False), (20, False), (200, False), (2000, True)])
def test_mp3_is_truncated_if_more_than_its_last_frames_are_missing(tmp_path, trailer, n_bytes, is_truncated):
    path = encode(tmp_path / "a.mp3", "libmp3lame", rate=44_100, options={"id3v2_version": "0"})
    content = path.read_bytes()
    path.write_bytes(content[: len(content) - n_bytes] + trailer)
    assert end_is_missing(path, "MP3") == (n_bytes > 0)
    _, faults = faults_of(path)
    assert (faults.is_truncated, faults.expected_seconds) == (is_truncated, 2.0 if is_truncated else None)


def test_mp3_without_a_length_is_not_truncated_by_an_estimate(tmp_path):
    pytest.importorskip("av")
    path = encode(tmp_path / "a.mp3", "libmp3lame", rate=44_100, options={"write_xing": "0", "id3v2_version": "0"})
    content = path.read_bytes()
    path.write_bytes(content * 60)  # libsndfile estimates 0.5 % too much, from the size of the first frame
    seconds, faults = faults_of(path)
    assert seconds == pytest.approx(122, abs=1)
    assert audio_info(path).duration_seconds == pytest.approx(seconds, rel=0.01)
    assert not faults.is_truncated
    path.write_bytes(content + b"APETAGEX and other text that is no frame")
    assert not end_is_missing(path, "MP3")


@pytest.mark.parametrize("kind", ["VORBIS", "OPUS"])
@pytest.mark.parametrize("n_bytes", [1, 500, 3000])
def test_ogg_without_its_last_page_is_reported_without_a_length(tmp_path, kind, n_bytes):
    path = tmp_path / "a.ogg"
    soundfile.write(path, noise(5 * 48_000), 48_000, format="OGG", subtype=kind)
    assert not faults_of(path)[1].is_truncated
    _, faults = faults_of(cut(path, n_bytes))
    assert (faults.is_truncated, faults.expected_seconds) == (True, None)


def test_ogg_that_ends_with_a_whole_page_that_is_not_the_last_is_reported(tmp_path):
    path = tmp_path / "a.ogg"
    soundfile.write(path, noise(4 * RATE), RATE, format="OGG", subtype="VORBIS")
    content = path.read_bytes()
    path.write_bytes(content[: content.rindex(b"OggS")])
    assert faults_of(path)[1].is_truncated


@pytest.mark.parametrize("n_bytes", [2, 1000, 30_000])
def test_caf_says_how_long_it_should_be(tmp_path, n_bytes):
    pytest.importorskip("av")
    path = tmp_path / "a.caf"
    soundfile.write(path, noise(), RATE, subtype="PCM_16")
    assert caf_present_fraction(path) == 1
    assert not faults_of(path)[1].is_truncated
    seconds, faults = faults_of(cut(path, n_bytes))
    assert seconds == pytest.approx(2 - n_bytes / (2 * RATE), abs=0.15)
    assert faults.is_truncated
    assert faults.expected_seconds == pytest.approx(2, abs=0.01)


@given(content=st.binary(max_size=300), name=st.sampled_from(["ogg", "mp3", "aac", "ac3", "eac3", "caf", "wav"]))
def test_any_bytes_have_an_end(tmp_path_factory, content, name):
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes({"ogg": b"OggS\0", "caf": b"caff\0\1\0\0"}.get(name, b"") + content)
    assert end_is_missing(path, name) in (True, False)


def test_whole_sounds_tell_whether_they_are_truncated_and_excerpts_do_not(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(), RATE)
    assert not read_sound(path).is_truncated
    cut(path, 1000)
    assert read_sound(path).is_truncated
    assert not read_sound(path, end_seconds=1.0).is_truncated


# Warnings


def test_truncation_is_one_line_with_the_number_and_the_first_names():
    assert truncation_warning(["a.wav"]) == "WARNING: 1 file is truncated, so only a part of it is used: a.wav"
    names = [f"{number}.wav" for number in range(1200)]
    assert truncation_warning(names).endswith(
        "1,200 files are truncated, so only a part of each is used: 0.wav, 1.wav, 2.wav and 1,197 more"
    )


def test_cache_remembers_which_clips_are_truncated(tmp_path):
    clips = []
    for name in ("whole.wav", "cut.wav"):
        soundfile.write(tmp_path / name, noise(), RATE)
        clips.append(Clip(tmp_path / name, name, ("x",)))
    cut(tmp_path / "cut.wav", 1000)
    for _ in range(2):  # computed, then cached
        report = SpectrogramCache(tmp_path / "cache", SMALL_MEL).prepare(clips, workers=1)
        assert report.truncated == (clips[1],)


def test_training_warns_of_truncated_clips(tmp_path):
    soundfile.write(tmp_path / "a.wav", noise(), RATE)
    cut(tmp_path / "a.wav", 1000)
    manifest = Manifest(tmp_path, (Clip(tmp_path / "a.wav", "a.wav", ("x",)),), LabelSet(("x",)))
    lines = []
    front_end = FrontEnd(mel=SMALL_MEL)
    open_clips(manifest, front_end, tmp_path / "cache", workers=1, progress=silent, log=lines.append)
    assert lines[-1] == "WARNING: 1 file is truncated, so only a part of it is used: a.wav"


def test_prepare_evaluate_and_index_warn_of_truncated_files(run, tmp_path):
    for number in range(3):
        soundfile.write(tmp_path / f"{number}.wav", noise(), RATE)
    cut(tmp_path / "1.wav", 1000)
    manifest = tmp_path / "clips.csv"
    manifest.write_text("fname,labels\n0.wav,low\n1.wav,middle\n2.wav,high\n", encoding="utf-8")
    model = make_bundle(tmp_path / "model")
    for command in (
        ("prepare", manifest, "--cache", tmp_path / "cache", "--backbone", "scratch"),
        ("evaluate", model, manifest, "-o", tmp_path / "evaluation"),
        ("index", tmp_path / "1.wav", "-o", tmp_path / "index", "--model", model),
    ):
        done = run(*command)
        assert done.status == 0, done.err
        assert done.err.count("WARNING: 1 file is truncated") == 1, command[0]


# Formats


@pytest.mark.parametrize(
    ("name", "codec", "muxer", "rate"),
    [
        ("a.wma", "wmav2", "asf", 44_100),
        ("a.mkv", "aac", "matroska", 48_000),
        ("a.mka", "libopus", "matroska", 48_000),
        ("a.mov", "pcm_s16le", "mov", 48_000),
        ("a.mp2", "mp2", "mp2", 48_000),
        ("a.amr", "libopencore_amrnb", "amr", 8_000),
        ("a.3gp", "aac", "3gp", 48_000),
        ("a.ac3", "ac3", "ac3", 48_000),
    ],
)
def test_sounds_of_pyav_in_a_folder_are_found_and_read(tmp_path, name, codec, muxer, rate):
    path = encode(tmp_path / name.upper(), codec, muxer=muxer, rate=rate)
    assert find_audio([tmp_path]) == [path]
    waveform, found_rate = read_audio(path)
    assert (found_rate, audio_info(path).n_channels) == (rate, 1)
    assert len(waveform) / rate == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize(
    ("name", "container", "kind"),
    [
        ("a.aifc", "AIFF", "ULAW"),
        ("a.snd", "AU", "PCM_16"),
        ("a.rf64", "RF64", "PCM_16"),
        ("a.w64", "W64", "PCM_16"),
        ("a.caf", "CAF", "PCM_16"),
        ("a.bwf", "WAV", "PCM_24"),
        ("a.wave", "WAV", "PCM_16"),
    ],
)
def test_sounds_of_soundfile_in_a_folder_are_found_and_read(tmp_path, name, container, kind):
    soundfile.write(tmp_path / name, noise(), RATE, format=container, subtype=kind)
    assert find_audio([tmp_path]) == [tmp_path / name]
    assert len(spectag.audio.read_audio(tmp_path / name)[0]) == 2 * RATE
