"""Soundscapes: sounds are audible exactly during their events, at the configured level."""

import csv
import itertools
import tracemalloc
from collections import Counter

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from spectag.audio.files import read_audio, write_audio
from spectag.audio.synthesis import fade_ends
from spectag.config.scenes import SceneConfig
from spectag.data import soundscapes as scenes
from spectag.data.manifest import read_manifest
from spectag.data.soundscapes import active_frames, active_intervals, find_sounds, make_soundscape, write_soundscapes
from spectag.errors import AudioError, DataError

RATE = 8000
PITCHES = {"low": 400, "middle": 1000, "high": 2500}  # Hz


def tone(pitch, seconds, *, amplitude=0.5, silence=(0.0, 0.0)):
    """A tone with silence before and after it."""
    waveform = amplitude * np.sin(2 * np.pi * pitch * np.arange(round(seconds * RATE)) / RATE)
    return np.pad(waveform, [round(pause * RATE) for pause in silence]).astype(np.float32)


@pytest.fixture
def manifest_of(tmp_path):
    """Write sounds, and a manifest of their labels."""

    def make(*clips):
        for number, (_, waveform) in enumerate(clips):
            write_audio(tmp_path / f"{number}.wav", waveform, RATE)
        rows = "".join(f'{number}.wav,"{labels}"\n' for number, (labels, _) in enumerate(clips))
        (tmp_path / "clips.csv").write_text(f"fname,labels\n{rows}")
        return read_manifest(tmp_path / "clips.csv")

    return make


@pytest.fixture
def sounds(manifest_of):
    """Three clips with three labels: tones of 1.5 to 4 s between silence."""
    silences = [(0.5, 1.0), (0.0, 0.7), (1.3, 0.0)]
    clips = [
        (label, tone(pitch, seconds, silence=silence))
        for (label, pitch), seconds, silence in zip(PITCHES.items(), (1.5, 3.0, 4.0), silences, strict=True)
    ]
    return find_sounds(manifest_of(*clips), sample_rate=RATE)


def test_the_chosen_channel_is_mixed(tmp_path):
    pair = np.stack([tone(400, 2.0), -tone(400, 2.0, amplitude=0.4)], axis=1)
    soundfile.write(tmp_path / "0.wav", pair, RATE, subtype="FLOAT")
    (tmp_path / "clips.csv").write_text("fname,labels\n0.wav,low\n")
    manifest = read_manifest(tmp_path / "clips.csv")
    peaks = {}
    for channel in ("mix", "loudest", 1, 2):
        (sound,) = find_sounds(manifest, sample_rate=RATE, channel=channel)
        peaks[channel] = sound.peak
        scene = make_soundscape([sound], np.random.default_rng(0), duration_seconds=10)
        assert scene.events
    assert peaks == pytest.approx({"mix": 0.05, "loudest": 0.5, 1: 0.5, 2: 0.4}, abs=1e-3)


def scene_of(sounds, *, seed=0, seconds=60, background=None, **config):
    return make_soundscape(
        sounds,
        np.random.default_rng(seed),
        duration_seconds=seconds,
        config=SceneConfig(**config),
        background=background,
    )


def level_at(waveform, pitch):
    """Amplitude of a tone at this frequency in each frame of 20 ms."""
    frames = waveform[: len(waveform) // 160 * 160].reshape(-1, 160)
    return 2 * np.abs(frames @ np.exp(-2j * np.pi * pitch * np.arange(160) / RATE)) / 160


def rms_db(waveform):
    return 10 * np.log10(np.mean(np.square(waveform, dtype=np.float64)))


# Active frames


def test_tone_between_silence_is_active():
    active = active_frames(tone(1000, 0.5, silence=(0.3, 0.2)), RATE)
    assert active.tolist() == [False] * 15 + [True] * 25 + [False] * 10


@pytest.mark.parametrize(("below_db", "is_active"), [(29, True), (31, False)])
def test_frames_30_db_below_the_loudest_are_not_active(below_db, is_active):
    faint = tone(1000, 1, amplitude=0.5 * 10 ** (-below_db / 20))
    active = active_frames(np.concatenate([tone(1000, 1), faint]), RATE)
    assert active[:50].all()
    assert (active[50:] == is_active).all()


def test_silence_is_not_active_and_a_short_sound_is_one_frame():
    assert not active_frames(np.zeros(RATE, np.float32), RATE).any()
    assert active_frames(np.array([0.5], np.float32), RATE).tolist() == [True]
    assert active_frames(np.zeros(0, np.float32), RATE).tolist() == []


def test_pause_of_a_second_is_part_of_an_interval_and_a_longer_one_is_not():
    burst, pause = np.ones(10, bool), np.zeros(50, bool)
    assert active_intervals(np.concatenate([pause, burst, pause, burst])) == [(50, 120)]
    assert active_intervals(np.concatenate([pause, burst, pause, [False], burst])) == [(50, 60), (111, 121)]
    assert active_intervals(pause) == []


@given(arrays(bool, st.integers(0, 400), elements=st.sampled_from([False] * 30 + [True])))
def test_active_intervals_begin_and_end_with_active_frames_and_contain_all(active):
    found = active_intervals(active)
    inside = np.zeros(len(active), bool)
    for start, end in found:
        inside[start:end] = True
        assert active[start]
        assert active[end - 1]
        assert np.diff(np.flatnonzero(active[start:end])).max(initial=0) <= 51
    assert not (active & ~inside).any()
    assert all(later[0] - earlier[1] > 50 for earlier, later in itertools.pairwise(found))


# Soundscapes


@pytest.mark.parametrize("seed", range(3))
def test_sounds_are_audible_exactly_during_their_events(sounds, seed):
    scene = scene_of(sounds, seed=seed, background_db=-80, snr_low_db=50, snr_high_db=60)
    assert {event.label for event in scene.events} == set(PITCHES)
    for label, pitch in PITCHES.items():
        middles = (np.arange(60 * 50) + 0.5) / 50
        ours = [event for event in scene.events if event.label == label]
        clear = np.all([abs(middles - t) > 0.04 for e in ours for t in (e.start_seconds, e.end_seconds)], axis=0)
        on = np.any([(e.start_seconds < middles) & (middles < e.end_seconds) for e in ours], axis=0)
        level = level_at(scene.waveform, pitch)
        assert level[on & clear].min() > 0.02
        assert level[~on & clear].max() < 0.005  # of the others that begin and end


def test_soundscape_is_the_sum_of_its_sounds_and_the_background(sounds):
    """Without the sounds, the soundscape is noise at the configured level."""
    scene = scene_of(sounds, shortest_seconds=None, background_db=-40)
    left = scene.waveform.copy()
    for event in scene.events:
        sound = next(sound for sound in sounds if event.label in sound.clip.labels)
        waveform, _ = read_audio(sound.clip.path)
        whole = waveform[slice(*(frame * 160 for frame in active_intervals(sound.active)[0]))]
        start = round(event.start_seconds * RATE)
        assert event.end_seconds - event.start_seconds == pytest.approx(len(whole) / RATE)
        left[start : start + len(whole)] -= 10 ** (event.gain_db / 20) / np.abs(waveform).max() * fade_ends(whole, RATE)
    assert scene.events
    assert rms_db(left) == pytest.approx(-40, abs=0.2)
    assert max(level_at(left, pitch).mean() for pitch in PITCHES.values()) < 0.002


@pytest.mark.parametrize("snr_db", [-5.0, 15.0])
def test_sounds_have_the_configured_signal_to_noise_ratio(manifest_of, snr_db):
    """The RMS without pauses: for a tone, 3 dB below its peak."""
    silence = np.zeros(RATE // 2, np.float32)
    sounds = find_sounds(manifest_of(("a", np.concatenate([tone(1000, 1), silence, tone(1000, 1)]))), sample_rate=RATE)
    scene = scene_of(sounds, background_db=-40, snr_low_db=snr_db, snr_high_db=snr_db)
    assert scene.events
    for event in scene.events:
        assert event.gain_db - 3.01 == pytest.approx(-40 + snr_db, abs=0.05)


def test_overlapping_sounds_stay_below_full_scale(sounds):
    scene = scene_of(sounds, max_at_once=3, sounds_per_minute=60, background_db=-60, snr_low_db=90, snr_high_db=90)
    assert 0.5 < np.abs(scene.waveform).max() < 1


def test_samples_beyond_full_scale_are_clipped(sounds, rng):
    noise = rng.normal(size=RATE).astype(np.float32)
    assert np.abs(scene_of(sounds, background=noise, background_db=0).waveform).max() == 1


@pytest.mark.parametrize("max_at_once", [1, 2])
@pytest.mark.parametrize("seed", range(3))
def test_overlap_is_limited_and_sounds_of_a_label_are_a_second_apart(sounds, seed, max_at_once):
    scene = scene_of(sounds, seed=seed, sounds_per_minute=40, max_at_once=max_at_once)
    events = scene.events
    assert all(0 <= event.start_seconds < event.end_seconds <= 60 for event in events)
    assert list(events) == sorted(events, key=lambda event: event.start_seconds)
    n_on = [sum(e.start_seconds <= event.start_seconds < e.end_seconds for e in events) for event in events]
    assert max(n_on) == max_at_once
    for label in PITCHES:
        ours = [event for event in events if event.label == label]
        assert all(b.start_seconds - a.end_seconds >= 1 - 1e-9 for a, b in itertools.pairwise(ours))


def test_sounds_have_the_configured_rate_and_labels_are_equally_frequent(manifest_of):
    clips = [("a", tone(400, 0.1))] * 5 + [("b", tone(400, 0.1))]
    sounds = find_sounds(manifest_of(*clips), sample_rate=RATE)
    events = scene_of(sounds, seconds=3600, sounds_per_minute=6, max_at_once=9).events
    counts = Counter(event.label for event in events)
    assert 300 < counts.total() < 400  # 360, with a deviation of 19, less those within a second of their like
    assert counts["a"] == pytest.approx(counts["b"], rel=0.25)


def test_long_sounds_are_cut_and_short_ones_are_not(manifest_of):
    sounds = find_sounds(manifest_of(("long", tone(400, 6)), ("short", tone(400, 1.5))), sample_rate=RATE)
    lengths = {"long": [], "short": []}
    for event in scene_of(sounds, seconds=600, shortest_seconds=2.0).events:
        lengths[event.label].append(round(event.end_seconds - event.start_seconds, 6))
    assert set(lengths["short"]) == {1.5}
    assert 2.0 <= min(lengths["long"]) < 3.0
    assert 5.0 < max(lengths["long"]) <= 6.0


def test_excerpt_comes_from_any_position_of_the_clip(manifest_of):
    clip = np.concatenate([tone(400, 3), tone(2500, 3)])
    scene = scene_of(find_sounds(manifest_of(("a", clip)), sample_rate=RATE), seconds=600, background_db=-70)
    begins = [round(event.start_seconds * 50) + 2 for event in scene.events]
    low, high = (level_at(scene.waveform, pitch)[begins] for pitch in (400, 2500))
    assert (low > 10 * high).sum() >= 3
    assert (high > 10 * low).sum() >= 3


def test_long_pause_in_a_clip_gives_two_events(manifest_of):
    two = np.concatenate([tone(400, 0.5, silence=(0.4, 1.5)), tone(400, 1.0, silence=(0.0, 0.4))])
    sounds = find_sounds(manifest_of(("a", two)), sample_rate=RATE)
    first, second = scene_of(sounds, seconds=60, sounds_per_minute=3, shortest_seconds=None).events[:2]
    assert first.end_seconds - first.start_seconds == pytest.approx(0.5)
    assert second.start_seconds - first.end_seconds == pytest.approx(1.5)
    assert second.end_seconds - second.start_seconds == pytest.approx(1.0)


def test_all_labels_of_a_clip_have_the_same_events(manifest_of):
    sounds = find_sounds(manifest_of(("a,b", tone(400, 1)), ("b", tone(400, 1))), sample_rate=RATE)
    events = scene_of(sounds).events
    both = {event.start_seconds for event in events if event.label == "a"}
    assert both
    assert both < {event.start_seconds for event in events if event.label == "b"}


def test_clip_shorter_than_its_fades_is_audible(manifest_of):
    sounds = find_sounds(manifest_of(("click", tone(1000, 0.005))), sample_rate=RATE)
    scene = scene_of(sounds, seconds=20, background_db=-60, snr_low_db=40, snr_high_db=40, sounds_per_minute=30)
    for event in scene.events:
        start, end = round(event.start_seconds * RATE), round(event.end_seconds * RATE)
        assert end - start == 40
        assert np.abs(scene.waveform[start:end]).max() > 0.01


def test_part_of_a_recording_can_be_a_clip(tmp_path):
    write_audio(tmp_path / "long.wav", np.concatenate([tone(400, 2), tone(2500, 2)]), RATE)
    (tmp_path / "clips.csv").write_text("fname,labels,start,end\nlong.wav,high,2,4\n")
    sounds = find_sounds(read_manifest(tmp_path / "clips.csv"), sample_rate=RATE)
    scene = scene_of(sounds, background_db=-80, snr_low_db=60, snr_high_db=60)
    assert level_at(scene.waveform, 2500).max() > 0.1
    assert level_at(scene.waveform, 400)[5:].max() < 0.05  # but for the moments at which the other begins and ends


def test_clips_are_resampled_to_the_given_rate(manifest_of):
    sounds = find_sounds(manifest_of(("a", tone(400, 1.5, silence=(0.5, 0.5)))), sample_rate=16_000)
    scene = scene_of(sounds, shortest_seconds=None)
    assert (scene.sample_rate, len(scene.waveform)) == (16_000, 60 * 16_000)
    assert scene.events[0].end_seconds - scene.events[0].start_seconds == pytest.approx(1.5, abs=0.041)


# Background


def test_background_recording_is_looped_at_its_level_without_clicks(sounds):
    """A looped sine would jump at its end; the sample differences of the soundscape stay those of the sine."""
    background = tone(100, 1.0025)
    scene = scene_of(sounds, seconds=20, background=background, background_db=-30, sounds_per_minute=1e-9)
    assert not scene.events
    assert rms_db(scene.waveform) == pytest.approx(-30, abs=0.5)
    amplitude = 10 ** (-30 / 20) * np.sqrt(2)
    assert np.abs(np.diff(scene.waveform)).max() < 1.3 * amplitude * 2 * np.pi * 100 / RATE


def test_background_begins_at_a_random_position_and_the_array_is_not_changed(sounds, rng):
    background = rng.normal(size=RATE).astype(np.float32)
    before = background.copy()
    first, second = (scene_of(sounds, seed=seed, background=background, sounds_per_minute=1e-9) for seed in (1, 2))
    np.testing.assert_array_equal(background, before)
    assert np.abs(first.waveform - second.waveform).max() > 0


def test_synthetic_background_is_louder_at_low_frequencies(sounds):
    waveform = scene_of(sounds, sounds_per_minute=1e-9).waveform.astype(np.float64)
    power = np.abs(np.fft.rfft(waveform)) ** 2
    octaves = [power[60 * low : 120 * low].sum() for low in (50, 100, 200, 400, 800)]  # a bin is 1/60 Hz
    np.testing.assert_allclose(10 * np.log10(np.divide(octaves[:-1], octaves[1:])), 3, atol=0.5)


# Reproducibility


def test_seed_determines_the_soundscape(sounds):
    first, again, other = (scene_of(sounds, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.waveform, again.waveform)
    assert first.events == again.events
    assert first.events != other.events


def test_soundscape_does_not_depend_on_the_block_size(sounds, monkeypatch):
    whole = scene_of(sounds, sounds_per_minute=30)
    monkeypatch.setattr(scenes, "_BLOCK", 777)
    np.testing.assert_array_equal(scene_of(sounds, sounds_per_minute=30).waveform, whole.waveform)


# Files


def read_truth(folder):
    with (folder / "truth.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_soundscapes_are_written_with_their_truth(sounds, tmp_path):
    paths = write_soundscapes(tmp_path / "scenes", sounds, n_scenes=2, duration_seconds=30, seed=5)
    assert [path.name for path in paths] == ["scene_0001.wav", "scene_0002.wav"]
    rows = read_truth(tmp_path / "scenes")
    assert list(rows[0]) == ["file", "start", "end", "label"]
    for number, path in enumerate(paths):
        info = soundfile.info(path)
        assert (info.samplerate, info.frames, info.channels, info.subtype) == (RATE, 30 * RATE, 1, "PCM_16")
        scene = make_soundscape(sounds, np.random.default_rng((5, number)), duration_seconds=30)
        np.testing.assert_allclose(read_audio(path)[0], scene.waveform, atol=1 / 2**15)
        events = [(row["start"], row["end"], row["label"]) for row in rows if row["file"] == path.name]
        assert events == [(f"{e.start_seconds:.3f}", f"{e.end_seconds:.3f}", e.label) for e in scene.events]


def test_first_soundscapes_do_not_depend_on_their_number(sounds, tmp_path):
    single = write_soundscapes(tmp_path / "one", sounds, n_scenes=1, duration_seconds=10)
    three = write_soundscapes(tmp_path / "three", sounds, n_scenes=3, duration_seconds=10)
    assert single[0].read_bytes() == three[0].read_bytes()
    assert len({path.read_bytes() for path in three}) == 3


def test_label_with_umlauts_is_written(manifest_of, tmp_path):
    sounds = find_sounds(manifest_of(("Glöckchen", tone(400, 1))), sample_rate=RATE)
    write_soundscapes(tmp_path / "scenes", sounds, n_scenes=1, duration_seconds=60)
    assert {row["label"] for row in read_truth(tmp_path / "scenes")} == {"Glöckchen"}


def test_memory_does_not_grow_with_the_length(sounds, tmp_path):
    tracemalloc.start()
    write_soundscapes(tmp_path, sounds, n_scenes=1, duration_seconds=3600)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert soundfile.info(tmp_path / "scene_0001.wav").frames == 3600 * RATE  # 115 MB in float32
    assert peak < 40e6


# Errors


def test_unlabelled_and_silent_clips_are_left_out_and_counted(manifest_of):
    manifest = manifest_of(("a", tone(400, 1)), ("", tone(400, 1)), ("b", np.zeros(RATE, np.float32)))
    lines = []
    sounds = find_sounds(manifest, sample_rate=RATE, log=lines.append)
    assert [sound.clip.labels for sound in sounds] == [("a",)]
    assert lines == ["2 clips without a label or without sound are left out"]


def test_nothing_to_mix_is_an_error(manifest_of):
    with pytest.raises(DataError, match=r"clips.csv: no clip has a label and is audible"):
        find_sounds(manifest_of(("a", np.zeros(RATE, np.float32))), sample_rate=RATE)


def test_unreadable_clip_is_an_error(manifest_of, tmp_path):
    manifest = manifest_of(("a", tone(400, 1)))
    (tmp_path / "0.wav").write_text("no sound")
    with pytest.raises(AudioError, match=r"0\.wav"):
        find_sounds(manifest, sample_rate=RATE)


def test_sounds_with_different_sample_rates_are_an_error(manifest_of):
    manifest = manifest_of(("a", tone(400, 1)))
    mixed = find_sounds(manifest, sample_rate=RATE) + find_sounds(manifest, sample_rate=16_000)
    with pytest.raises(ValueError, match=r"one sample rate, got 2 sounds with rates \[8000, 16000\]"):
        scene_of(mixed)
    with pytest.raises(ValueError, match="got 0 sounds"):
        scene_of([])


@pytest.mark.parametrize("background", [np.zeros(100, np.float32), np.ones((2, 50), np.float32), np.ones(0)], ids=str)
def test_silent_background_is_an_error(sounds, background):
    with pytest.raises(ValueError, match="background"):
        scene_of(sounds, background=background)


def test_empty_or_too_long_soundscape_is_an_error(sounds, tmp_path):
    with pytest.raises(ValueError, match="at least 1 sample"):
        scene_of(sounds, seconds=0)
    with pytest.raises(DataError, match=r"1e\+06 s at 8000 Hz are too long for a WAV file; make several"):
        write_soundscapes(tmp_path, sounds, n_scenes=1, duration_seconds=1e6)


def test_unwritable_folder_is_an_error(sounds, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="file: the recordings can't be written"):
        write_soundscapes(tmp_path / "file", sounds, n_scenes=1, duration_seconds=5)


def test_inverted_range_of_levels_is_an_error():
    with pytest.raises(ValueError, match=r"snr_low_db <= snr_high_db, got 30 and 20 dB"):
        SceneConfig(snr_low_db=30, snr_high_db=20)
