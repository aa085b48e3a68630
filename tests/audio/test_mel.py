"""Log-mel spectrograms, compared with librosa, with reference values of EfficientAT, and with physics."""

import warnings

import librosa
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.paths import SHARED
from spectag.audio.mel import band_centers, compute_log_mel, hz_to_mel, mel_filter_bank, mel_to_hz, n_frames
from spectag.config.backbones import AUDIOSET_MEL, BACKBONES
from spectag.config.base import MelConfig

REFERENCE = SHARED / "reference" / "mn04.npz"
ESC10 = SHARED / "data" / "esc10"

BLOG = MelConfig(sample_rate=44_100, n_fft=2560, hop_length=512, n_mels=128, f_min=20, f_max=22_050, ref="max")
MN04 = AUDIOSET_MEL
GRID = [
    BLOG,
    BLOG.model_copy(update={"top_db": None, "ref": 1.0}),
    MelConfig(mel_scale="htk", mel_norm=None, f_min=0),
    MelConfig(n_fft=1024, win_length=800, hop_length=320, mel_scale="htk", pad_mode="reflect", n_mels=40, ref="max"),
    MelConfig(n_fft=1000, hop_length=333, n_mels=32, mel_norm=None, pad_mode="reflect", top_db=20),
    MelConfig(n_fft=1023, win_length=511, hop_length=250, n_mels=20, f_min=100, f_max=9000, top_db=None, amin=1e-5),
    MelConfig(sample_rate=8000, n_fft=512, win_length=400, hop_length=160, n_mels=26, f_max=4000, ref=0.01),
]


def tone(frequency, *, n_samples=32_000, sample_rate=32_000):
    return np.sin(2 * np.pi * frequency * np.arange(n_samples) / sample_rate).astype(np.float32)


def librosa_log_mel(waveform, config):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="n_fft=.* is too large")
        power = librosa.feature.melspectrogram(
            y=waveform,
            sr=config.sample_rate,
            n_fft=config.n_fft,
            win_length=config.win_length,
            hop_length=config.hop_length,
            pad_mode=config.pad_mode,
            n_mels=config.n_mels,
            fmin=config.f_min,
            fmax=config.f_max,
            htk=config.mel_scale == "htk",
            norm=config.mel_norm,
        )
    ref = np.max if config.ref == "max" else config.ref
    return librosa.power_to_db(power, ref=ref, amin=config.amin, top_db=config.top_db)


@pytest.mark.parametrize("config", GRID)
@pytest.mark.parametrize("n_samples", [20_000, 20_001, 4095, 1025, 960, 300, 2, 1])
def test_log_mel_of_noise_of_any_length_equals_librosa(config, n_samples, rng):
    waveform = (0.1 * rng.standard_normal(n_samples)).astype(np.float32)
    log_mel = compute_log_mel(waveform, config)
    assert log_mel.dtype == np.float32
    np.testing.assert_allclose(log_mel, librosa_log_mel(waveform, config), rtol=0, atol=1e-3)


def difficult_sounds():
    rng = np.random.default_rng(1)
    noise = rng.standard_normal(40_001)
    seconds = np.arange(noise.size) / 32_000
    return {
        "tone": np.sin(2 * np.pi * 1000 * seconds),
        "chirp": librosa.chirp(fmin=20, fmax=15_000, sr=32_000, length=noise.size),
        "brown noise": np.cumsum(noise) / 300,
        "weak noise on an offset": 0.5 + 1e-3 * noise,
        "weak noise on a deep hum": np.sin(2 * np.pi * 30 * seconds) + 1e-4 * noise,
        "click": seconds == seconds[5000],
        "burst, then silence": noise * (seconds < 0.1),
        "silence": np.zeros(noise.size),
    }


@pytest.mark.parametrize("config", GRID[:6])
@pytest.mark.parametrize("name", difficult_sounds())
def test_sounds_with_a_large_dynamic_range_equal_librosa(config, name):
    waveform = difficult_sounds()[name].astype(np.float32)
    expected = librosa_log_mel(waveform, config)
    np.testing.assert_allclose(compute_log_mel(waveform, config), expected, rtol=0, atol=1e-3)


@pytest.mark.skipif(not ESC10.exists(), reason="needs ../shared/data/esc10")
@pytest.mark.parametrize("top_db", [80.0, None])
def test_real_recordings_equal_librosa(top_db):
    config = BLOG.model_copy(update={"top_db": top_db})
    for path in sorted(ESC10.glob("*/*.ogg"))[::50]:
        waveform, _ = soundfile.read(path, dtype="float32")
        expected = librosa_log_mel(waveform, config)
        np.testing.assert_allclose(compute_log_mel(waveform, config), expected, rtol=0, atol=1e-3, err_msg=str(path))


@pytest.mark.parametrize("scale", ["slaney", "htk"])
@pytest.mark.parametrize("norm", ["slaney", None])
def test_filter_bank_equals_librosas(scale, norm):
    config = MelConfig(n_fft=1024, n_mels=64, f_min=50, mel_scale=scale, mel_norm=norm)
    expected = librosa.filters.mel(
        sr=32_000, n_fft=1024, n_mels=64, fmin=50, fmax=16_000, htk=scale == "htk", norm=norm
    )
    np.testing.assert_allclose(mel_filter_bank(config), expected, atol=1e-6)
    centers = librosa.mel_frequencies(66, fmin=50, fmax=16_000, htk=scale == "htk")[1:-1]
    np.testing.assert_allclose(band_centers(config), centers)


@pytest.mark.skipif(not REFERENCE.exists(), reason="needs ../shared/reference/mn04.npz")
def test_kaldi_log_mel_equals_the_reference():
    reference = np.load(REFERENCE)
    np.testing.assert_allclose(mel_filter_bank(MN04), reference["mel_bank"], rtol=0, atol=1e-4)
    log_mel = compute_log_mel(reference["waveform"], MN04)
    np.testing.assert_allclose(log_mel, reference["log_mel"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("backbone", ["mn04", "mn10_hop5", "mn10_hop25", "mn10_mels40", "mn10_mels256"])
def test_kaldi_log_mel_equals_its_definition_in_double_precision(backbone, rng):
    config = BACKBONES[f"{backbone}_audioset"].mel
    hop_length, n_mels = config.hop_length, config.n_mels
    waveform = (0.1 * rng.standard_normal(9601)).astype(np.float32)
    emphasised = waveform[1:].astype(float) - 0.97 * waveform[:-1]
    spectra = librosa.stft(
        emphasised, n_fft=1024, win_length=800, hop_length=hop_length, window=np.hanning(800), pad_mode="reflect"
    )
    mel = 1127 * np.log(1 + np.fft.rfftfreq(1024, 1 / 32_000) / 700)
    edges = np.linspace(0, 1127 * np.log(1 + 15_000 / 700), n_mels + 2)
    triangles = np.array([np.interp(mel, edges[i : i + 3], [0, 1, 0]) for i in range(n_mels)])
    expected = (np.log(triangles @ np.abs(spectra) ** 2 + 1e-5) + 4.5) / 5
    np.testing.assert_allclose(compute_log_mel(waveform, config), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("frequency", [100.0, 1000.0, 15_500.0])
def test_kaldi_log_mel_of_a_loud_tone_and_quiet_noise_equals_that_in_double_precision(frequency, rng):
    waveform = (0.9 * tone(frequency) + 1e-4 * rng.standard_normal(32_000)).astype(np.float32)
    expected = compute_log_mel(waveform.astype(np.float64), MN04)
    np.testing.assert_allclose(compute_log_mel(waveform, MN04), expected, rtol=0, atol=2e-4)


def test_ref_and_top_db_mean_the_same_for_both_logarithms(rng):
    waveform = (0.1 * rng.standard_normal(9600) * np.linspace(0, 1, 9600) ** 4).astype(np.float32)
    decibels = compute_log_mel(waveform, MelConfig(ref="max", top_db=30))
    logarithms = compute_log_mel(waveform, MelConfig(ref="max", top_db=30, log="ln"))
    np.testing.assert_allclose(logarithms * 10 / np.log(10), decibels, atol=1e-3)
    assert decibels.max() == 0
    assert decibels.min() == -30


@pytest.mark.parametrize("frequency", [220.0, 1000.0, 6000.0])
@pytest.mark.parametrize("config", [MelConfig(), MN04])
def test_tone_is_in_the_mel_band_closest_to_its_frequency(frequency, config):
    loudest = compute_log_mel(tone(frequency), config).mean(axis=1).argmax()
    assert abs(loudest - np.abs(band_centers(config) - frequency).argmin()) <= 1


def test_ten_times_the_amplitude_is_twenty_decibels():
    quiet, loud = (compute_log_mel(amplitude * tone(1000), MelConfig(top_db=None)) for amplitude in (0.01, 0.1))
    audible = quiet > -60
    np.testing.assert_allclose((loud - quiet)[audible], 20, atol=1e-3)


def test_click_is_loudest_in_the_frame_centred_on_it():
    waveform = np.zeros(32_000, np.float32)
    waveform[20 * 512] = 1
    assert compute_log_mel(waveform, MelConfig()).sum(axis=0).argmax() == 20


@given(n_samples=st.integers(1, 4000), config=st.sampled_from([*GRID, MN04]))
@settings(deadline=None, max_examples=60)
def test_n_frames_equals_the_number_of_frames(n_samples, config):
    log_mel = compute_log_mel(np.zeros(n_samples, np.float32), config)
    assert log_mel.shape == (config.n_mels, n_frames(n_samples, config))
    assert np.isfinite(log_mel).all()


def test_long_clip_equals_its_excerpts_except_for_frames_across_the_cut(rng):
    waveform = (0.1 * rng.standard_normal(32_000 * 20)).astype(np.float32)  # several blocks of frames
    config = MelConfig(top_db=None)
    whole, start = compute_log_mel(waveform, config), 512 * 600
    excerpt = compute_log_mel(waveform[start : start + 512 * 100], config)
    np.testing.assert_allclose(excerpt[:, 3:-4], whole[:, 603:697], atol=1e-3)


@pytest.mark.parametrize("config", [MelConfig(), MelConfig(mel_scale="htk")])
def test_hz_to_mel_and_back_is_the_identity(config):
    frequencies = np.geomspace(1, 16_000, 50)
    np.testing.assert_allclose(mel_to_hz(hz_to_mel(frequencies, config), config), frequencies)


def test_empty_bands_give_a_warning_every_time_as_in_librosa():
    config = MelConfig(n_fft=256, n_mels=128, hop_length=128)
    for _ in range(2):
        with pytest.warns(UserWarning, match=r"\d+ of 128 mel bands are empty.*Raise n_fft or f_max, or lower n_mels"):
            compute_log_mel(tone(440), config)
    with pytest.warns(UserWarning, match="Empty filters"):
        librosa.filters.mel(sr=32_000, n_fft=256, n_mels=128, fmin=20, fmax=16_000)


def test_float64_waveform_keeps_its_precision():
    waveform = np.sin(2 * np.pi * 1000 * np.arange(20_000) / 32_000)
    config = MelConfig(top_db=None)
    np.testing.assert_allclose(compute_log_mel(waveform, config), librosa_log_mel(waveform, config), rtol=0, atol=1e-3)


def test_filter_bank_is_read_only():
    with pytest.raises(ValueError, match="read-only"):
        mel_filter_bank(MelConfig())[0, 0] = 1


@pytest.mark.parametrize(
    ("waveform", "message"),
    [
        (np.zeros(0, np.float32), r"at least 1 sample, got shape \(0,\)"),
        (np.zeros((2, 100), np.float32), r"expected a waveform \(n_samples,\) .*, got shape \(2, 100\)"),
        (np.zeros(100, np.int16), "floats in \\[-1, 1\\], got int16"),
        (np.array([0, np.nan, 1], np.float32), "finite samples, got nan at sample 1"),
        (np.array([0, 0, -np.inf], np.float32), "finite samples, got -inf at sample 2"),
    ],
)
def test_invalid_waveform_raises_an_error(waveform, message):
    with pytest.raises(ValueError, match=message):
        compute_log_mel(waveform, MelConfig())


def test_n_frames_of_no_samples_raises_an_error():
    with pytest.raises(ValueError, match="at least 1 sample, got 0"):
        n_frames(0, MelConfig())
