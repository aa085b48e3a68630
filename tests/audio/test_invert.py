import numpy as np
import pytest

from spectag.audio.invert import waveform_of_log_mel
from spectag.audio.mel import compute_log_mel
from spectag.config.backbones import AUDIOSET_MEL, IMAGE_MEL
from spectag.config.base import MelConfig

LIBROSA_MEL = MelConfig(sample_rate=16_000, n_fft=1024, hop_length=256, n_mels=64, f_max=8000)
LEVEL_KNOWN = {"kaldi": AUDIOSET_MEL, "librosa": LIBROSA_MEL}
CONFIGS = LEVEL_KNOWN | {
    "below the loudest": IMAGE_MEL,
    "any ref": LIBROSA_MEL.model_copy(update={"ref": 0.01, "mean": -20.0, "std": 7.0}),
}
MELS = pytest.mark.parametrize("mel", CONFIGS.values(), ids=CONFIGS)


def chord(mel, *frequencies, seconds=1.0, loudness=0.1):
    t = np.arange(round(seconds * mel.sample_rate)) / mel.sample_rate
    return (loudness * sum(np.sin(2 * np.pi * frequency * t) for frequency in frequencies)).astype(np.float32)


def inverted(log_mel, mel, **options):
    return waveform_of_log_mel(log_mel, mel, rng=np.random.default_rng(0), **options)[0]


@MELS
@pytest.mark.parametrize("frequency", [400.0, 1500.0, 5000.0])
def test_a_tone_comes_back_in_its_band(mel, frequency):
    log_mel = compute_log_mel(chord(mel, frequency), mel)
    again = compute_log_mel(inverted(log_mel, mel), mel)
    assert again.mean(axis=1).argmax() == log_mel.mean(axis=1).argmax()


@MELS
def test_the_log_mel_of_what_comes_back_is_near_to_the_given_one(mel, rng):
    events = [chord(mel, 500, 1000, 1500, seconds=0.4), chord(mel, 3000, seconds=0.3), np.zeros(mel.sample_rate // 5)]
    waveform = np.concatenate(events).astype(np.float32)
    waveform += 0.03 * rng.standard_normal(len(waveform)).astype(np.float32)
    log_mel = compute_log_mel(waveform, mel)
    again = compute_log_mel(inverted(log_mel, mel), mel)
    n_frames = min(again.shape[1], log_mel.shape[1])
    assert np.corrcoef(again[:, :n_frames].ravel(), log_mel[:, :n_frames].ravel())[0, 1] > 0.94


@pytest.mark.parametrize("mel", LEVEL_KNOWN.values(), ids=LEVEL_KNOWN)
@pytest.mark.parametrize("loudness", [0.01, 0.3])
def test_the_level_comes_back_where_the_log_mel_tells_it(mel, loudness):
    waveform = chord(mel, 1500.0, loudness=loudness)
    again = inverted(compute_log_mel(waveform, mel), mel)
    assert np.std(again) == pytest.approx(np.std(waveform), rel=0.1)


def test_where_the_log_mel_does_not_tell_the_level_the_peak_is_a_half():
    for loudness in (0.01, 0.3):
        again = inverted(compute_log_mel(chord(IMAGE_MEL, 1500.0, loudness=loudness), IMAGE_MEL), IMAGE_MEL)
        assert np.abs(again).max() == pytest.approx(0.5)


@MELS
def test_silence_comes_back_as_silence(mel):
    log_mel = compute_log_mel(np.zeros(mel.sample_rate // 2, np.float32), mel)
    assert not inverted(log_mel, mel).any()


@MELS
@pytest.mark.parametrize("n_frames", [1, 2, 30])
def test_frames_lie_a_hop_apart(mel, n_frames, rng):
    log_mel = rng.standard_normal((mel.n_mels, n_frames)).astype(np.float32)
    waveform, rate = waveform_of_log_mel(log_mel, mel, rng=rng, n_iterations=1)
    assert waveform.shape == ((n_frames - 1) * mel.hop_length + 1,)
    assert waveform.dtype == np.float32
    assert rate == mel.sample_rate
    assert np.isfinite(waveform).all()


def test_windows_that_do_not_overlap_are_no_harm(rng):
    mel = LIBROSA_MEL.model_copy(update={"hop_length": 1500})
    log_mel = compute_log_mel(chord(mel, 1500.0), mel)
    again = compute_log_mel(inverted(log_mel, mel), mel)
    assert again.mean(axis=1).argmax() == log_mel.mean(axis=1).argmax()


def test_more_rounds_come_nearer(rng):
    log_mel = compute_log_mel(0.1 * rng.standard_normal(16_000).astype(np.float32), LIBROSA_MEL)

    def distance(n_iterations):
        again = compute_log_mel(inverted(log_mel, LIBROSA_MEL, n_iterations=n_iterations), LIBROSA_MEL)
        return np.abs(again - log_mel[:, : again.shape[1]]).mean()

    assert distance(32) < 0.7 * distance(2) < 0.7 * distance(0)


def test_the_same_random_numbers_give_the_same_sound():
    log_mel = compute_log_mel(chord(LIBROSA_MEL, 1500.0), LIBROSA_MEL)
    assert np.array_equal(inverted(log_mel, LIBROSA_MEL), inverted(log_mel, LIBROSA_MEL))


@pytest.mark.parametrize(
    ("log_mel", "words"),
    [
        (np.zeros((63, 5)), r"shape \(64, n_frames\), got \(63, 5\)"),
        (np.zeros((64, 0)), r"shape \(64, n_frames\), got \(64, 0\)"),
        (np.zeros(64), r"got \(64,\)"),
        (np.full((64, 5), np.nan), "got NaN or infinity"),
    ],
)
def test_what_is_no_log_mel_of_the_config_is_refused(log_mel, words):
    with pytest.raises(ValueError, match=words):
        inverted(log_mel, LIBROSA_MEL)
