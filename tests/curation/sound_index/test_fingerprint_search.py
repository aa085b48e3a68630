"""Fingerprint search: the recordings that excerpts are from, and where they start in them."""

import shutil
from functools import cache

import numpy as np
import pytest
import soundfile

import spectag
from helpers.bundles import make_bundle
from spectag.audio.files import write_audio
from spectag.audio.synthesis import KINDS
from spectag.curation.sound_index import fingerprint_search
from spectag.errors import AudioError, DataError

RATE = 16_000


@cache
def sound(kind: str, seed: int, seconds: float = 5.0) -> np.ndarray:
    return KINDS[kind](np.random.default_rng([seed, *kind.encode()]), seconds, RATE).astype(np.float32)


def same_level(waveform: np.ndarray) -> np.ndarray:
    return waveform / np.sqrt(np.mean(waveform**2))


@pytest.fixture
def recordings(tmp_path):
    """Four recordings in a folder with umlauts."""
    folder = tmp_path / "Töne, alle"
    for kind in ("Engine", "Rain"):
        for seed in (1, 2):
            (folder / "süd").mkdir(parents=True, exist_ok=True)
            write_audio(folder / "süd" / f"{kind} ä{seed}.wav", sound(kind, seed), RATE)
    return folder


def starts(found):
    return {match.file.rsplit("/", 1)[-1]: match.start_seconds for match in found.matches}


def test_quiet_re_encoded_excerpt_mixed_with_another_sound_is_found_at_its_start(recordings, tmp_path):
    mixture = same_level(sound("Engine", 2)[2 * RATE :]) + same_level(sound("Whistle", 7, 3.0))
    soundfile.write(tmp_path / "Ausschnitt ö.ogg", 0.01 * mixture, RATE, subtype="VORBIS", compression_level=0.9)
    found = spectag.search_fingerprints(recordings, tmp_path / "Ausschnitt ö.ogg")
    assert starts(found) == {"Engine ä2.wav": pytest.approx(2.0, abs=0.05)}
    assert found.skipped == ()
    assert found.matches[0].n_matches > 20
    assert found.matches[0].file == str(recordings / "süd" / "Engine ä2.wav")


def test_excerpt_of_another_recording_is_not_found(recordings, tmp_path):
    write_audio(tmp_path / "other.wav", sound("Engine", 3), RATE)
    assert spectag.search_fingerprints(recordings, tmp_path / "other.wav").matches == ()


def test_index_gives_the_same_as_its_folder_without_its_model(recordings, tmp_path, monkeypatch):
    model = make_bundle(tmp_path / "model")
    spectag.index(recordings, tmp_path / "index", model=model)
    shutil.rmtree(model)
    write_audio(tmp_path / "excerpt.wav", sound("Rain", 1)[RATE : 3 * RATE], RATE)
    of_index, of_folder = (
        spectag.search_fingerprints(place, tmp_path / "excerpt.wav") for place in (tmp_path / "index", recordings)
    )
    assert starts(of_index) == {"Rain ä1.wav": pytest.approx(1.0, abs=0.02)}
    assert of_index == of_folder


def test_the_channel_is_chosen_or_that_of_the_index(tmp_path):
    rain, other = sound("Rain", 1), sound("Engine", 2)
    (tmp_path / "stereo").mkdir()
    soundfile.write(tmp_path / "stereo" / "a.wav", np.stack([rain + 3 * other, -3 * other], axis=1) / 8, RATE)
    excerpt = tmp_path / "excerpt.wav"
    write_audio(excerpt, other[RATE : 4 * RATE], RATE)  # the channels cancel it in their mean
    found = {
        channel: starts(spectag.search_fingerprints(tmp_path / "stereo", excerpt, channel=channel))
        for channel in (None, "mix", 2)
    }
    assert found == {None: {}, "mix": {}, 2: {"a.wav": pytest.approx(1.0, abs=0.02)}}
    spectag.index(tmp_path / "stereo", tmp_path / "index", model=make_bundle(tmp_path / "model"), channel=2)
    assert starts(spectag.search_fingerprints(tmp_path / "index", excerpt)) == found[2]


def test_copies_of_an_excerpt_are_found_and_the_excerpt_itself_is_not(recordings):
    original = recordings / "süd" / "Engine ä1.wav"
    shutil.copy(original, recordings / "copy.wav")
    assert starts(spectag.search_fingerprints(recordings, original)) == {"copy.wav": 0.0}


def test_the_recording_with_the_most_equal_landmarks_is_first_and_n_counts_for_each_excerpt(recordings, tmp_path):
    write_audio(recordings / "half.wav", sound("Engine", 1)[: 2 * RATE], RATE)
    excerpts = [tmp_path / "engine.wav", tmp_path / "rain.wav"]
    for path, kind in zip(excerpts, ("Engine", "Rain"), strict=True):
        write_audio(path, sound(kind, 1), RATE)
    all_matches = spectag.search_fingerprints(recordings, excerpts).matches
    assert [match.file.rsplit("/", 1)[-1] for match in all_matches] == ["Engine ä1.wav", "half.wav", "Rain ä1.wav"]
    assert [match.excerpt for match in all_matches] == [str(excerpts[0]), str(excerpts[0]), str(excerpts[1])]
    assert spectag.search_fingerprints(recordings, excerpts, n=1).matches == (all_matches[0], all_matches[2])


def test_excerpt_is_found_in_a_long_recording_and_a_short_recording_in_a_long_excerpt(tmp_path):
    long = np.concatenate([sound(kind, 5, 14.0) for kind in KINDS])  # 140 s
    at = round(86.4 * RATE)
    for folder, waveform in (("long", long), ("short", long[at : at + 3 * RATE])):
        (tmp_path / folder).mkdir()
        write_audio(tmp_path / folder / "sound.wav", waveform, RATE)
    in_long = spectag.search_fingerprints(tmp_path / "long", tmp_path / "short" / "sound.wav")
    in_short = spectag.search_fingerprints(tmp_path / "short", tmp_path / "long" / "sound.wav")
    assert starts(in_long) == {"sound.wav": pytest.approx(86.4, abs=0.02)}
    assert starts(in_short) == {"sound.wav": pytest.approx(-86.4, abs=0.02)}


def test_unreadable_recordings_are_skipped_by_name_and_an_unreadable_excerpt_is_an_error(recordings, tmp_path):
    (recordings / "leer ß.wav").write_bytes(b"")
    write_audio(tmp_path / "excerpt.wav", sound("Rain", 1), RATE)
    found = spectag.search_fingerprints(recordings, tmp_path / "excerpt.wav")
    assert starts(found) == {"Rain ä1.wav": 0.0}
    (reason,) = found.skipped
    assert reason.startswith(f"{recordings / 'leer ß.wav'}: the file is empty")
    with pytest.raises(AudioError, match=r"leer ß\.wav: the file is empty"):
        spectag.search_fingerprints(recordings, recordings / "leer ß.wav")


def test_recording_that_is_gone_since_it_was_indexed_is_skipped_by_name(recordings, tmp_path):
    spectag.index(recordings, tmp_path / "index", model=make_bundle(tmp_path / "model"))
    write_audio(tmp_path / "excerpt.wav", sound("Rain", 1), RATE)
    (recordings / "süd" / "Rain ä1.wav").unlink()
    found = spectag.search_fingerprints(tmp_path / "index", tmp_path / "excerpt.wav")
    assert found.matches == ()
    assert len(found.skipped) == 1
    assert "Rain ä1.wav" in found.skipped[0]


def test_silent_excerpt_is_reported_and_finds_nothing(recordings, tmp_path):
    write_audio(tmp_path / "silence.wav", np.zeros(RATE, np.float32), RATE)
    lines = []
    assert spectag.search_fingerprints(recordings, tmp_path / "silence.wav", log=lines.append).matches == ()
    assert "silence.wav: the sound has no fingerprint" in lines[0]


@pytest.mark.parametrize("workers", [1, 2])
def test_archive_that_is_searched_in_parts_gives_the_same(recordings, tmp_path, monkeypatch, workers):
    excerpt = tmp_path / "excerpt.wav"
    write_audio(excerpt, np.concatenate([sound("Rain", 2), sound("Engine", 1)]), RATE)
    whole = spectag.search_fingerprints(recordings, excerpt)
    assert len(whole.matches) == 2
    monkeypatch.setattr(fingerprint_search, "_MAX_PEAKS", 1000)  # less than two recordings
    assert spectag.search_fingerprints(recordings, excerpt, workers=workers) == whole


def test_missing_recordings_and_n_below_one_are_errors(recordings, tmp_path):
    excerpt = recordings / "süd" / "Rain ä1.wav"
    with pytest.raises(AudioError, match="nowhere: no such file or folder"):
        spectag.search_fingerprints(tmp_path / "nowhere", excerpt)
    with pytest.raises(ValueError, match="need n >= 1, got 0"):
        spectag.search_fingerprints(recordings, excerpt, n=0)
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "index.json").write_text('{"format_version": 1}', encoding="utf-8")
    with pytest.raises(DataError, match="index the recordings again"):
        spectag.search_fingerprints(tmp_path / "old", excerpt)
