"""Tiles of a spectrogram: side by side they equal the spectrogram of the whole sound."""

import numpy as np
import pytest

from spectag.audio.files import write_audio
from spectag.audio.mel import compute_log_mel
from spectag.audio.spectrogram_tiles import DB_PER_STEP, LOWEST_DB, TILE_COLUMNS, TileScheme, draw_tile

RATE = 16_000


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    rng = np.random.default_rng(0)
    seconds = np.arange(20 * RATE) / RATE
    waveform = 0.3 * np.sin(2 * np.pi * (200 + 150 * seconds) * seconds) * (seconds % 3 < 1.7)
    waveform = np.float32(np.round((waveform + 0.01 * rng.standard_normal(len(seconds))) * 32767) / 32768)
    path = tmp_path_factory.mktemp("sounds") / "sweep.wav"
    write_audio(path, waveform, RATE)
    return path


def tiles_of(path, level, n):
    return np.concatenate([draw_tile(path, TileScheme(RATE), level, index) for index in range(n)], axis=1)


@pytest.mark.parametrize(("level", "n"), [(0, 17), (1, 9), (2, 5), (3, 3), (5, 1)])
def test_tiles_equal_the_log_mel_of_the_whole_sound(sound, level, n):
    from spectag.audio.files import read_audio

    scheme = TileScheme(RATE)
    whole = compute_log_mel(read_audio(sound)[0], scheme.mel(level))
    frames = scheme.frames_per_column(level)
    expected = np.stack(
        [whole[:, start : start + frames].max(axis=1) for start in range(0, whole.shape[1], frames)], axis=1
    )
    drawn = LOWEST_DB + DB_PER_STEP * tiles_of(sound, level, n).astype(np.float64)
    assert drawn.shape == expected.shape
    assert np.abs(drawn - np.maximum(expected, LOWEST_DB)).max() <= DB_PER_STEP / 2 + 0.01


def test_reading_in_small_blocks_changes_nothing(sound, monkeypatch):
    whole = draw_tile(sound, TileScheme(RATE), 4, 0)
    monkeypatch.setattr("spectag.audio.spectrogram_tiles._BLOCK_SAMPLES", 20_000)
    np.testing.assert_array_equal(draw_tile(sound, TileScheme(RATE), 4, 0), whole)


def test_a_tile_after_the_end_of_the_sound_has_no_columns(sound):
    assert draw_tile(sound, TileScheme(RATE), 0, 1_000).shape == (128, 0)


@pytest.mark.parametrize(("rate", "hours"), [(8_000, 0.0001), (44_100, 1.0), (192_000, 2.0)])
def test_the_last_level_shows_a_sound_in_few_tiles(rate, hours):
    scheme, seconds = TileScheme(rate), 3600 * hours
    last = scheme.n_levels(seconds) - 1
    assert seconds / scheme.column_seconds(last) / TILE_COLUMNS < 12
    assert last == 0 or scheme.column_seconds(last) == pytest.approx(2 * scheme.column_seconds(last - 1))
    assert scheme.mel(last).hop_length <= scheme.mel(last).n_fft / 2  # no sound falls between two frames


def test_band_edges_lie_around_the_centres_of_the_bands():
    from spectag.audio.mel import band_centers

    scheme = TileScheme(32_000)
    edges, centers = scheme.band_edges, band_centers(scheme.mel(0))
    assert (edges[:-1] < centers).all()
    assert (centers < edges[1:]).all()
