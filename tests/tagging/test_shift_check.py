"""Recordings are compared with the training clips: differences are named, and similar recordings give no warning."""

import numpy as np
import pytest

from spectag.audio.sound_statistics import SoundStatistics
from spectag.models.novelty import NoveltyInfo
from spectag.models.timeline import Timeline
from spectag.models.training_sounds import Spread, TrainingSounds
from spectag.tagging.parallel import TaggedFile
from spectag.tagging.shift_check import ShiftCheck

TRAINING = TrainingSounds(
    n_clips=100,
    level_dbfs=Spread(low=-40, median=-30, high=-20),
    bandwidth_hz=Spread(low=9000, median=15000, high=15900),
    duration_seconds=Spread(low=4, median=5, high=6),
)


def recording(level=-32.0, bandwidth=14_000.0, duration=5.0, novelty=(0.5,)):
    starts = np.linspace(0, duration, len(novelty), endpoint=False)
    timeline = Timeline(
        starts, starts + duration / len(starts), np.zeros((len(starts), 2), np.float32), np.array(novelty, np.float32)
    )
    return TaggedFile("a.wav", timeline, sound=SoundStatistics(level, bandwidth))


def differences(recordings, *, training=TRAINING, compares_duration=True):
    check = ShiftCheck(training, NoveltyInfo(n_held_out=9), compares_duration)
    for tagged in recordings:
        check.add(tagged)
    return check.differences()


def test_recordings_like_the_training_clips_are_no_difference(rng):
    levels, bandwidths = rng.uniform(-42, -18, 20), rng.uniform(8000, 15900, 20)
    novelties = rng.uniform(0.2, 1.1, 20)
    recordings = [
        recording(level, bandwidth, novelty=(novelty,))
        for level, bandwidth, novelty in zip(levels, bandwidths, novelties, strict=True)
    ]
    assert differences(recordings) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"level": -58}, "28 dB quieter than the training clips: median -58 dBFS, training -30 (-40 to -20)"),
        ({"level": -3}, "27 dB louder"),
        ({"bandwidth": 4000}, "no sound above 4 kHz, training clips have it up to 15 kHz (9 to 16 kHz)"),
        ({"duration": 600}, "600 s long, training clips 5 s (4 to 6); --segments reports"),
        ({"duration": 0.5}, "0.5 s long, training clips 5 s (4 to 6)"),
        ({"novelty": (1.5,)}, "100% of them have a novelty above 1, new recordings of the training sounds 3%"),
    ],
)
def test_each_difference_is_named_with_both_values(changes, words):
    [difference] = differences([recording(**changes)] * 10)
    assert words in difference


def test_loudest_window_of_a_long_recording_may_exceed_whole_training_clips():
    windows = (0.5,) * 100
    assert differences([recording(level=-9, duration=300, novelty=windows)], compares_duration=False) == []
    [difference] = differences([recording(level=-58, duration=300, novelty=windows)], compares_duration=False)
    assert "28 dB quieter" in difference


def test_a_few_recordings_say_nothing_but_many_windows_of_one_do():
    assert differences([recording(level=-70)] * 9) == []
    assert differences([recording(level=-70, novelty=(0.5,) * 10)], compares_duration=False)


def test_long_recording_is_familiar_if_one_window_is():
    assert differences([recording(novelty=(3.0, 3.0, 0.9))] * 10) == []


def test_duration_is_not_compared_if_windows_are_tagged():
    assert differences([recording(duration=600)] * 10, compares_duration=False) == []


def test_silence_skipped_files_and_images_are_no_difference_in_bandwidth():
    silence = recording(level=-31, bandwidth=0.0)
    assert differences([silence] * 10) == []
    image = TaggedFile("a.png", Timeline(np.zeros(1), np.array([np.nan]), np.zeros((1, 2), np.float32)))
    assert differences([image] * 20) == []
    assert differences([TaggedFile("a.wav", None, "empty")] * 20) == []


def test_without_a_summary_of_the_training_clips_only_novelty_is_compared():
    assert differences([recording(level=-90)] * 10, training=None) == []
    assert len(differences([recording(level=-90, novelty=(2.0,))] * 10, training=None)) == 1
