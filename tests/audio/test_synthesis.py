"""Synthetic sounds: their length, level, pitch and tempo, and the scenes made of them."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import find_peaks, medfilt, spectrogram

from spectag.audio.synthesis import KINDS, bell, draw_labels, engine, knock, make_demo_scene, siren, tick

RATE = 44_100


def power_spectrum(waveform, sample_rate=RATE):
    return np.fft.rfftfreq(len(waveform), 1 / sample_rate), np.abs(np.fft.rfft(waveform)) ** 2


def power_fraction_between(waveform, low, high):
    frequencies, power = power_spectrum(waveform)
    return power[(frequencies >= low) & (frequencies <= high)].sum() / power.sum()


def loudest_frequency_by_time(waveform):
    """The pitch in steps of 5 ms, for a sound whose fundamental is its loudest partial."""
    frequencies, _, power = spectrogram(waveform, RATE, nperseg=2048, noverlap=2048 - 220)
    return medfilt(frequencies[power.argmax(axis=0)], 7)


def onsets(waveform):
    """Onsets in seconds: the power of 5 ms is more than five times that of the previous 20 ms."""
    power = (waveform[: len(waveform) // 220 * 220].reshape(-1, 220).astype(float) ** 2).mean(axis=1)
    before = np.array([power[max(0, i - 4) : i].mean() if i else 0 for i in range(len(power))])
    rises = np.flatnonzero((power > 5 * before) & (power > 0.02 * power.max()))
    return np.array([i for i in rises if i - 1 not in rises]) * 220 / RATE


# All kinds


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sample_rate", [16_000, 44_100, 192_000])
def test_every_kind_has_the_requested_length_and_a_peak_of_09(kind, sample_rate, rng):
    waveform = KINDS[kind](rng, 1.3, sample_rate)
    assert (waveform.shape, waveform.dtype) == ((round(1.3 * sample_rate),), np.float32)
    assert np.abs(waveform).max() == pytest.approx(0.9, abs=1e-6)


@given(kind=st.sampled_from(sorted(KINDS)), seed=st.integers(0, 2**32), duration=st.floats(1e-5, 2.0))
@settings(max_examples=60, deadline=None)
def test_very_short_sounds_are_valid_and_not_silent(kind, seed, duration):
    waveform = KINDS[kind](np.random.default_rng(seed), duration, 16_000)
    assert len(waveform) == max(1, round(duration * 16_000))
    assert np.isfinite(waveform).all()
    assert np.abs(waveform).max() <= 0.91
    if duration > 0.01:
        assert np.abs(waveform).max() > 0.89


@pytest.mark.parametrize("kind", KINDS)
def test_equal_seeds_give_equal_bytes_and_other_seeds_other_sounds(kind):
    first, again, other = (KINDS[kind](np.random.default_rng(seed), 1.0, RATE) for seed in (7, 7, 8))
    assert first.tobytes() == again.tobytes()
    assert np.abs(first - other).max() > 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_duration_of_0_and_low_sample_rate_raise_an_error(kind, rng):
    with pytest.raises(ValueError, match=r"above 0 s .* got 0 s and 44100 Hz"):
        KINDS[kind](rng, 0.0, RATE)
    with pytest.raises(ValueError, match="16000 Hz or more, got 1 s and 8000 Hz"):
        KINDS[kind](rng, 1.0, 8000)


def features(waveform):
    """Mean and standard deviation over time of the log power in 24 bands."""
    frequencies, _, power = spectrogram(waveform, RATE, nperseg=1024)
    edges = np.geomspace(60, 16_000, 25)
    bands = [
        power[(frequencies >= low) & (frequencies < high + 43)].mean(axis=0) for low, high in itertools.pairwise(edges)
    ]
    log_bands = 10 * np.log10(np.array(bands) + 1e-9)
    return np.concatenate([log_bands.mean(axis=1), log_bands.std(axis=1)])


def test_nearest_of_six_examples_classifies_the_kinds():
    examples, tests = (
        {
            kind: [features(make(np.random.default_rng(seed), 2.0, RATE)) for seed in seeds]
            for kind, make in KINDS.items()
        }
        for seeds in (range(6), range(6, 10))
    )
    n_right = 0
    for kind, sounds in tests.items():
        for sound in sounds:
            nearest = min(KINDS, key=lambda other: min(np.abs(sound - example).sum() for example in examples[other]))
            n_right += nearest == kind
    assert n_right >= 0.9 * 4 * len(KINDS)


# Physics, kind by kind


@pytest.mark.parametrize("sweeps_per_second", [0.5, 1.0, 2.5])
def test_siren_has_the_requested_tempo(rng, sweeps_per_second):
    pitch = loudest_frequency_by_time(siren(rng, 4.0, RATE, tempo=sweeps_per_second))
    assert pitch.min() < 750
    assert pitch.max() > 1050
    middle = (pitch.min() + pitch.max()) / 2
    n_crossings = np.count_nonzero(np.diff(pitch > middle))
    assert abs(n_crossings - 2 * 4.0 * sweeps_per_second) <= 1


def test_high_partials_of_a_bell_decay_faster(rng):
    waveform = bell(rng, 4.0, RATE, tempo=0.25)
    strike = np.abs(waveform).argmax()
    early, late = (waveform[strike + round(at * RATE) :][: RATE // 2] for at in (0.1, 1.1))
    frequencies, power_early = power_spectrum(early * np.hanning(len(early)))
    power_late = power_spectrum(late * np.hanning(len(late)))[1]
    partials = find_peaks(power_early, height=power_early.max() * 1e-3, distance=20)[0]
    assert len(partials) >= 5
    lost_db = 10 * np.log10(power_early[partials] / power_late[partials])
    assert (lost_db > 3).all()
    assert np.corrcoef(frequencies[partials], lost_db)[0, 1] > 0.9
    ratios = frequencies[partials] / frequencies[partials][0]
    assert np.abs(ratios - ratios.round()).max() > 0.1  # not harmonic


def test_bell_gets_softer_after_the_strike(rng):
    waveform = bell(rng, 3.0, RATE, tempo=0.25)
    strike = np.abs(waveform).argmax()
    rms = [chunk.std() for chunk in np.array_split(waveform[strike:], 6)]
    assert rms == sorted(rms, reverse=True)


@pytest.mark.parametrize("knocks_per_second", [2.5, 4.0, 6.0])
def test_knocks_have_the_requested_tempo_and_pauses_between_groups(rng, knocks_per_second):
    gaps = np.diff(onsets(knock(rng, 20.0, RATE, tempo=knocks_per_second)))
    within = gaps[gaps < 1 / knocks_per_second + 0.2]
    assert np.abs(within - 1 / knocks_per_second).max() < 0.011  # two steps of 5 ms
    pauses = gaps[gaps >= 1 / knocks_per_second + 0.2]
    assert 3 <= len(within) / len(pauses) + 1 <= 6
    assert pauses.max() < 1 / knocks_per_second + 1.02


@pytest.mark.parametrize("ticks_per_second", [1.0, 2.0, 5.0])
def test_clock_has_the_requested_tempo(rng, ticks_per_second):
    times = onsets(tick(rng, 10.0, RATE, tempo=ticks_per_second))
    assert len(times) == pytest.approx(10 * ticks_per_second, abs=1)
    assert np.abs(np.diff(times) - 1 / ticks_per_second).max() < 0.011


def test_ticks_and_tocks_alternate_in_pitch(rng):
    waveform = tick(rng, 8.0, RATE, tempo=2.0)
    pitches = []
    for start in (onsets(waveform) * RATE).astype(int):
        frequencies, power = power_spectrum(waveform[start : start + 2000])
        pitches.append((frequencies * power).sum() / power.sum())
    assert min(pitches[0::2]) > max(pitches[1::2]) or max(pitches[0::2]) < min(pitches[1::2])


@pytest.mark.parametrize("firings_per_second", [30.0, 60.0])
def test_engine_has_the_requested_firing_rate(rng, firings_per_second):
    waveform = engine(rng, 3.0, RATE, tempo=firings_per_second)
    frequencies, power = power_spectrum(waveform)
    low = frequencies < 1.4 * firings_per_second
    assert frequencies[low][power[low].argmax()] == pytest.approx(firings_per_second, rel=0.15)


@pytest.mark.parametrize(
    ("kind", "low", "high", "min_fraction"),
    [
        ("Engine", 20, 1000, 0.9),
        ("Knock", 80, 1000, 0.9),
        ("Bell", 100, 3500, 0.99),
        ("Whistle", 800, 6000, 0.95),
        ("Siren", 400, 7000, 0.99),
        ("Chirp", 2000, 8000, 0.95),
        ("Tick", 1000, 8000, 0.85),
        ("Hiss", 3000, 22_050, 0.95),
        ("Rain", 200, 10_000, 0.9),
        ("Buzz", 100, 10_000, 0.95),
    ],
)
def test_kind_has_its_power_in_its_frequency_range(kind, low, high, min_fraction):
    fractions = [
        power_fraction_between(KINDS[kind](np.random.default_rng(seed), 2.0, RATE), low, high) for seed in range(5)
    ]
    assert min(fractions) > min_fraction


def test_whistle_is_almost_a_pure_tone_with_several_notes(rng):
    waveform = KINDS["Whistle"](rng, 4.0, RATE)
    _, _, power = spectrogram(waveform, RATE, nperseg=2048)
    assert np.median(np.sort(power, axis=0)[-6:].sum(axis=0) / power.sum(axis=0)) > 0.95
    assert np.ptp(loudest_frequency_by_time(waveform)) > 100


def test_only_noisy_kinds_have_a_flat_spectrum():
    def flatness(kind):
        power = power_spectrum(KINDS[kind](np.random.default_rng(3), 2.0, RATE))[1]
        smooth = power[: len(power) // 200 * 200].reshape(-1, 200).mean(axis=1)
        return np.exp(np.log(smooth + 1e-20).mean()) / smooth.mean()

    assert min(flatness("Hiss"), flatness("Rain")) > 10 * max(flatness("Bell"), flatness("Siren"), flatness("Whistle"))


# Scenes


def test_scene_contains_its_events_at_their_times(rng):
    scene = make_demo_scene(rng, labels=["Siren"], duration_seconds=4.0)
    (event,) = scene.events
    assert (event.label, scene.sample_rate, scene.waveform.shape) == ("Siren", 44_100, (4 * 44_100,))
    sound = scene.waveform[round(event.start_seconds * RATE) : round(event.end_seconds * RATE)]
    assert 2.0 <= event.end_seconds - event.start_seconds <= 4.0
    assert np.abs(sound).max() == pytest.approx(10 ** (event.gain_db / 20), rel=0.05)
    silence = np.concatenate(
        [scene.waveform[: round(event.start_seconds * RATE)], scene.waveform[round(event.end_seconds * RATE) :]]
    )
    assert 0 < silence.std() < 0.002


def test_scenes_have_one_to_three_labels_last_1_to_5_seconds_and_do_not_clip():
    scenes = [make_demo_scene(np.random.default_rng(seed), sample_rate=16_000) for seed in range(40)]
    assert max(np.abs(scene.waveform).max() for scene in scenes) < 1
    assert {len(scene.events) for scene in scenes} == {1, 2, 3}
    assert all(16_000 <= len(scene.waveform) <= 5 * 16_000 for scene in scenes)
    assert {event.label for scene in scenes for event in scene.events} == set(KINDS)


def test_loud_scene_stays_within_full_scale(rng):
    scene = make_demo_scene(rng, labels=sorted(KINDS) * 3, duration_seconds=0.5)
    assert np.abs(scene.waveform).max() <= 1


def test_equal_seeds_give_equal_scenes():
    first, again = (make_demo_scene(np.random.default_rng(5)) for _ in range(2))
    assert first.waveform.tobytes() == again.waveform.tobytes()
    assert first.events == again.events


def test_events_are_sorted_by_onset():
    for seed in range(10):
        scene = make_demo_scene(np.random.default_rng(seed), duration_seconds=1.0)
        starts = [event.start_seconds for event in scene.events]
        assert starts == sorted(starts)


def test_drawn_labels_are_different_sorted_and_usually_a_single_one(rng):
    drawn = [draw_labels(rng) for _ in range(500)]
    assert all(labels == tuple(sorted(set(labels))) for labels in drawn)
    counts = np.bincount([len(labels) for labels in drawn], minlength=4)[1:] / 500
    np.testing.assert_allclose(counts, [0.5, 0.35, 0.15], atol=0.07)


def test_unknown_kind_raises_an_error(rng):
    with pytest.raises(ValueError, match="unknown kind of sound: Sirene; the known kinds are Bell, Buzz"):
        make_demo_scene(rng, labels=["Bell", "Sirene"])
