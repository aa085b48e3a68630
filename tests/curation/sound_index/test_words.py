import numpy as np
import pytest

from helpers.claps import RATE, low_or_high, write_band_clap
from spectag.audio.files import write_audio
from spectag.config.base import WindowConfig
from spectag.curation.sound_index.api import index, search
from spectag.errors import DataError
from spectag.evaluation.recalibration import calibrate
from spectag.models.clap_store import install_clap
from spectag.models.pretrained import tagger_folder

WINDOW = WindowConfig(window_seconds=1.0)


@pytest.fixture
def recordings(tmp_path, monkeypatch):
    """A low, then a high tone in each of two recordings, one second each."""
    monkeypatch.setenv("SPECTAG_CACHE", str(tmp_path / "cache"))
    install_clap(write_band_clap(tmp_path / "clap"))
    tones = [low_or_high("low"), low_or_high("high")]
    for name, waveform in (("a", np.concatenate(tones)), ("b", np.concatenate(tones[::-1]))):
        write_audio(tmp_path / "rec" / f"{name}.wav", waveform, RATE)
    return tmp_path / "rec"


@pytest.mark.parametrize(("words", "starts"), [("low", {"a": 0.0, "b": 1.0}), ("a high sound", {"a": 1.0, "b": 0.0})])
def test_words_find_the_excerpts_that_they_describe(recordings, tmp_path, words, starts):
    index(recordings, tmp_path / "index", model="clap", window=WINDOW)
    found = search(tmp_path / "index", words, n=4)
    assert {result.file[-5]: result.start_seconds for result in found[:2]} == starts
    assert found[1].similarity > found[2].similarity + 0.2


def test_similarity_to_words_does_not_change_when_recordings_are_added(recordings, tmp_path):
    index(recordings / "a.wav", tmp_path / "index", model="clap", window=WINDOW)
    before = search(tmp_path / "index", "low", n=1)[0].similarity
    for number in range(30):
        write_audio(recordings / f"more {number}.wav", low_or_high("high"), RATE)
    index(recordings, tmp_path / "index")
    assert search(tmp_path / "index", "low", n=1)[0].similarity == pytest.approx(before, abs=1e-6)


def test_words_and_a_sound_can_be_one_query(recordings, tmp_path):
    index(recordings, tmp_path / "index", model="clap:low, high", window=WINDOW)
    found = search(tmp_path / "index", ["low", "a.wav"], n=1)
    assert found[0].file.endswith("b.wav")
    assert found[0].start_seconds == 1.0


def test_index_of_a_calibrated_copy_finds_words_too(recordings, tmp_path):
    calibrate(tagger_folder("clap:low, high"), thresholds={"low": 0.2}, output=tmp_path / "model")
    index(recordings, tmp_path / "index", model=tmp_path / "model", window=WINDOW)
    found = search(tmp_path / "index", "high", n=2)
    assert {(result.file[-5], result.start_seconds) for result in found} == {("a", 1.0), ("b", 0.0)}


def test_missing_sound_file_is_not_taken_for_words(recordings, tmp_path):
    index(recordings, tmp_path / "index", model="clap", window=WINDOW)
    with pytest.raises(DataError, match=r"c\.wav: no such file"):
        search(tmp_path / "index", "c.wav")
    with pytest.raises(DataError, match="rec/dog: no such file"):
        search(tmp_path / "index", "rec/dog")


def test_description_has_no_excerpt(recordings, tmp_path):
    index(recordings, tmp_path / "index", model="clap", window=WINDOW)
    with pytest.raises(DataError, match="'low' is a description, which has no excerpt at 1 s"):
        search(tmp_path / "index", "low", start=1.0)


def test_words_after_the_clap_has_changed_are_refused(recordings, tmp_path):
    index(recordings, tmp_path / "index", model="clap", window=WINDOW)
    features = {"sampling_rate": 8_000, "fft_window_size": 512, "hop_length": 80, "feature_size": 16}
    limits = {"frequency_min": 500, "frequency_max": 3_500, "max_length_s": 1, "truncation": "rand_trunc"}
    install_clap(write_band_clap(tmp_path / "other", features=features | limits))
    with pytest.raises(DataError, match="the index was made with the model clap, whose features differ"):
        search(tmp_path / "index", "low")
