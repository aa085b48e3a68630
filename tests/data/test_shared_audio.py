"""Clips that contain the same part of a recording are found, and other clips are not."""

import gc
from functools import cache

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from spectag.audio.files import read_audio, resample
from spectag.audio.fingerprints import Fingerprint, compute_fingerprint
from spectag.audio.synthesis import KINDS
from spectag.data.shared_audio import (
    FingerprintIndex,
    Match,
    SharedAudio,
    communities,
    find_matches,
    find_shared_audio,
    find_shared_between,
)

RATE = 16_000


def sound(kind: str, seed: int, seconds: float = 5.0) -> np.ndarray:
    return KINDS[kind](np.random.default_rng([seed, *kind.encode()]), seconds, RATE)


def prints(*waveforms: np.ndarray) -> list[Fingerprint]:
    return [compute_fingerprint(waveform.astype(np.float32), RATE) for waveform in waveforms]


def same_level(waveform: np.ndarray) -> np.ndarray:
    return waveform / np.sqrt(np.mean(waveform**2))


@cache
def recordings() -> tuple[Fingerprint, ...]:
    """Two recordings of each kind of sound."""
    return tuple(prints(*(sound(kind, seed) for kind in KINDS for seed in (1, 2))))


def test_different_recordings_of_a_kind_of_sound_share_nothing():
    assert find_shared_audio(recordings()).pairs.tolist() == []


@pytest.mark.parametrize("level_db", [-20, 0])
def test_excerpt_mixed_with_another_sound_is_found_at_its_offset(level_db):
    recording = sound("Engine", 1, 8.0)
    excerpt = same_level(recording[3 * RATE : 6 * RATE])
    mixture = 10 ** (level_db / 20) * 0.1 * (excerpt + same_level(sound("Rain", 3, 3.0)))
    shared = find_shared_audio(prints(recording, sound("Engine", 2), mixture))
    assert shared.pairs.tolist() == [[0, 2]]
    assert shared.offsets_seconds == pytest.approx([3.0], abs=0.02)  # 3 s later in the recording


@pytest.mark.parametrize("speed", [0.98, 1.01, 1.02])
def test_recording_at_another_speed_is_found(speed):
    recording = sound("Engine", 1)
    faster = resample(recording, round(RATE * speed), RATE)
    shared = find_shared_audio(prints(recording, sound("Engine", 2), faster))
    assert shared.pairs.tolist() == [[0, 2]]
    assert shared.offsets_seconds == pytest.approx([0.0], abs=0.05)


@pytest.mark.parametrize(("suffix", "subtype"), [("mp3", "MPEG_LAYER_III"), ("ogg", "VORBIS")])
def test_re_encoded_excerpt_is_found(tmp_path, suffix, subtype):
    recording = sound("Whistle", 1)
    path = tmp_path / f"excerpt.{suffix}"
    soundfile.write(path, recording[RATE : 4 * RATE] / 3, RATE, subtype=subtype, compression_level=0.9)
    encoded, _ = read_audio(path)
    shared = find_shared_audio(prints(recording, sound("Whistle", 2), encoded))
    assert shared.pairs.tolist() == [[0, 2]]
    assert shared.offsets_seconds == pytest.approx([1.0], abs=0.1)  # encoders add a delay


STATIONARY = {
    "white noise": lambda rng, time: rng.normal(0, 0.1, len(time)),
    "hum": lambda rng, time: 0.1 * sum(np.sin(2 * np.pi * (50 * k * time + rng.random())) for k in range(1, 20)),
    "tone": lambda rng, time: 0.5 * np.sin(2 * np.pi * (1000 * time + rng.random())) + rng.normal(0, 1e-4, len(time)),
    "dither": lambda rng, time: rng.integers(-1, 2, len(time)) / 32768,
    "clicks": lambda rng, time: (rng.random(len(time)) < 1e-4) * 0.5 + rng.normal(0, 1e-3, len(time)),
}


@pytest.mark.parametrize("kind", STATIONARY)
def test_stationary_sounds_share_nothing(kind, rng):
    time = np.arange(5 * RATE) / RATE
    assert find_shared_audio(prints(*(STATIONARY[kind](rng, time) for _ in range(8)))).pairs.tolist() == []


def test_clips_that_cannot_be_read_or_are_empty_share_nothing():
    empty = compute_fingerprint(np.zeros(RATE, np.float32), RATE)
    shared = find_shared_audio([None, recordings()[0], empty, recordings()[0], None, empty])
    assert shared.pairs.tolist() == [[1, 3]]
    assert shared.offsets_seconds.tolist() == [0.0]
    assert find_shared_audio([]).pairs.shape == (0, 2)


def test_pairs_are_kept_in_arrays_because_their_number_grows_with_the_square_of_the_excerpts():
    n_objects = []

    def count_matches(_: str, n_done: int, n_clips: int) -> None:
        if n_done == n_clips:
            n_objects.append(sum(type(item) is Match for item in gc.get_objects()))

    shared = find_shared_audio([recordings()[0]] * 20, speeds=(1.0,), progress=count_matches)
    assert len(shared.pairs) == 20 * 19 / 2
    assert n_objects == [0]


@settings(max_examples=5)
@given(order=st.permutations(range(5)))
def test_order_of_clips_does_not_matter(order):
    clips = _five_clips()
    shared = find_shared_audio([clips[index] for index in order])
    pairs = {frozenset(order[clip] for clip in pair) for pair in shared.pairs.tolist()}
    assert pairs == {frozenset({0, 1}), frozenset({2, 3})}


@cache
def _five_clips() -> list[Fingerprint]:
    rain, engine = sound("Rain", 1), sound("Engine", 1)
    return prints(rain, rain[RATE : 3 * RATE], engine, engine[2 * RATE :], sound("Whistle", 1))


def test_two_sets_are_compared_with_each_other_only():
    rain, engine = sound("Rain", 1), sound("Engine", 1)
    first, second = prints(rain, rain[RATE:], engine), prints(sound("Hiss", 1), engine[2 * RATE :])
    shared = find_shared_between(first, second)
    assert shared.pairs.tolist() == [[2, 1]]
    assert shared.offsets_seconds == pytest.approx([2.0], abs=0.02)


def test_number_of_workers_does_not_change_what_is_found():
    clips = [*_five_clips(), None, *recordings()]
    alone, together = (find_shared_audio(clips, workers=workers) for workers in (1, 2))
    assert alone.pairs.tolist() == together.pairs.tolist() == [[0, 1], *alone.pairs[1:].tolist()]
    assert alone.n_matches.tolist() == together.n_matches.tolist()
    assert alone.offsets_seconds.tolist() == together.offsets_seconds.tolist()


def test_one_process_needs_no_temporary_folder(monkeypatch):
    monkeypatch.delattr("spectag.data.shared_audio.TemporaryDirectory")
    assert len(find_shared_audio(_five_clips(), workers=1).pairs) > 0


def test_query_is_found_in_a_long_recording_and_a_long_query_contains_a_clip():
    long = np.concatenate([sound(kind, 7, 14.0) for kind in KINDS])  # 140 s
    at = round(86.4 * RATE)
    (excerpt,), (whole,) = prints(long[at : at + 3 * RATE]), prints(long)
    others = prints(sound("Engine", 1), sound("Rain", 1), sound("Whistle", 1))
    (match,) = find_matches(excerpt, FingerprintIndex([*others, whole]))
    assert (match.clip, match.offset_seconds) == (len(others), pytest.approx(86.4, abs=0.02))
    (match,) = find_matches(whole, FingerprintIndex([*others, excerpt]))
    assert (match.clip, match.offset_seconds) == (len(others), pytest.approx(-86.4, abs=0.02))


def test_communities_cut_a_chain_between_two_groups():
    groups = [(a, b) for group in (range(5), range(5, 10)) for a in group for b in group if a < b]
    pairs = np.array([*groups, (4, 5)])
    shared = SharedAudio(pairs, np.full(len(pairs), 50), np.zeros(len(pairs)))
    assert communities(12, shared, resolution=1.0).tolist() == [0] * 5 + [1] * 5 + [2, 3]
    assert communities(12, shared, seed=4).tolist() == communities(12, shared, seed=4).tolist()
