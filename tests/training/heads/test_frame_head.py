"""The network of frames learns from mixed clips when a sound starts and ends, and gets the thresholds of windows."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.special import logit

from spectag.audio.files import write_audio
from spectag.audio.front_end import FrontEnd
from spectag.config.backbones import AUDIOSET_MEL
from spectag.data.clips import Clip, Manifest
from spectag.data.labels import LabelSet
from spectag.models.frames_info import FramesInfo
from spectag.training.heads.frame_head import FrameModel
from spectag.training.heads.frame_scenes import Truth, choose_clips, make_frame_scenes
from spectag.training.heads.logistic import PrincipalAxes, fit_heads, fit_logistic_heads


def make_manifest(labels_of_clips, parents=None, **clip_fields):
    names = sorted({label for labels in labels_of_clips for label in labels})
    clips = tuple(
        Clip(Path(f"{number}.wav"), f"{number}.wav", tuple(labels), **clip_fields)
        for number, labels in enumerate(labels_of_clips)
    )
    return Manifest(Path("clips.csv"), clips, LabelSet(tuple(names)), parents=parents or {})


def choose(manifest, parts=None, seconds=5.0):
    n_clips = len(manifest.clips)
    parts = np.arange(n_clips) % 2 if parts is None else np.array(parts)
    return choose_clips(manifest, parts, [seconds] * n_clips, np.random.default_rng(0))


def numbers(chosen):
    return {int(clip.fname.removesuffix(".wav")) for clip in chosen.clips}


def test_clips_with_one_label_are_preferred():
    manifest = make_manifest([["dog"]] * 3 + [["rain"]] * 3 + [["dog", "rain"]] * 3)
    chosen = choose(manifest)
    assert numbers(chosen) == set(range(6))
    assert chosen.truths == {"dog": Truth(("dog",)), "rain": Truth(("rain",))}


def test_other_labels_of_a_clip_are_unknown_while_it_is_heard():
    manifest = make_manifest([["dog"]] * 3 + [["dog", "rain"]] * 3 + [["rain", "wind"]])
    chosen = choose(manifest)
    assert chosen.truths["dog"] == Truth(("dog",))
    assert chosen.truths["rain"] == Truth(("rain",), ("dog", "wind"))
    assert all(clip.labels[0] in chosen.truths for clip in chosen.clips)


def test_label_with_its_parents_counts_as_one():
    parents = {"dog": ("animal",), "cat": ("animal",)}
    manifest = make_manifest([["animal", "dog"]] * 3 + [["animal", "cat"]] * 3, parents)
    chosen = choose(manifest)
    assert chosen.truths == {"dog": Truth(("dog", "animal")), "cat": Truth(("cat", "animal"))}


def test_unknown_labels_are_avoided_where_other_clips_suffice():
    manifest = make_manifest([["dog"]] * 4 + [["cat"]] * 3)
    clips = (replace(manifest.clips[0], unknown=("cat",)), *manifest.clips[1:])
    chosen = choose(replace(manifest, clips=clips))
    assert 0 not in numbers(chosen)
    assert chosen.truths["dog"].unknown == ()


def test_long_clips_and_clips_that_are_not_trained_on_are_not_mixed():
    manifest = make_manifest([["dog"]] * 8)
    assert numbers(choose(manifest, [0, 1, 0, 1, 0, 1, -2, -2])) == set(range(6))
    assert choose(manifest, seconds=60.0) is None
    assert choose(manifest, [-2] * 8) is None


def test_clips_are_cut_to_ten_seconds_within_their_times():
    manifest = make_manifest([["dog"]] * 8, start_seconds=100.0, end_seconds=125.0)
    chosen = choose(manifest, seconds=25.0)
    for clip in chosen.clips:
        assert 100 <= clip.start_seconds < clip.end_seconds <= 125
        assert clip.end_seconds - clip.start_seconds == pytest.approx(10)


def test_number_of_clips_does_not_grow_without_limit_and_all_parts_are_used():
    manifest = make_manifest([["dog"], ["cat"], ["owl"]] * 1_000)
    chosen = choose(manifest, np.arange(3_000) % 5, seconds=10.0)
    assert sum(10.0 for _ in chosen.clips) <= 1_600
    counts = np.bincount(chosen.parts)
    assert len(counts) == 5
    assert counts.max() - counts.min() <= 3


class LoudnessGraph:
    """Stands for a network: the only features are whether low and high bands are loud."""

    info = FramesInfo()

    def features(self, log_mel):
        n_frames = log_mel.shape[-1] // 8
        by_frame = log_mel[0, :, : 8 * n_frames : 8]
        return np.stack([by_frame[:64].mean(axis=0), by_frame[64:].mean(axis=0)], axis=1).astype(np.float32)


@pytest.fixture
def tones(tmp_path):
    """Clips of 2 s with a tone of half a second, low or high, in two parts."""
    seconds, clips = np.arange(64_000) / 32_000, []
    for number in range(8):
        label, pitch = ("low", 400) if number % 2 else ("high", 6_000)
        waveform = np.sin(2 * np.pi * pitch * seconds) * ((seconds > 0.5) & (seconds < 1.0))
        path = tmp_path / f"{number}.wav"
        write_audio(path, waveform.astype(np.float32), 32_000)
        clips.append(Clip(path, path.name, (label,)))
    return Manifest(tmp_path / "clips.csv", tuple(clips), LabelSet(("high", "low")))


def scenes_of(tones, monkeypatch, seed=0):
    for name, value in {"_N_SCENES": 4, "_SCENE_SECONDS": 48.0, "_NOISE_SECONDS": 2}.items():
        monkeypatch.setattr(f"spectag.training.heads.frame_scenes.{name}", value)
    parts = np.arange(8) // 4
    chosen = choose_clips(tones, parts, [2.0] * 8, np.random.default_rng(0))
    front_end = FrontEnd(mel=AUDIOSET_MEL)
    quiet = {"seed": seed, "progress": lambda *_: None}
    return make_frame_scenes(tones, parts, chosen, LoudnessGraph(), front_end, **quiet)


def test_a_frame_has_the_label_whose_sound_is_heard(tones, monkeypatch):
    scenes = scenes_of(tones, monkeypatch)
    assert sorted({scene.part for scene in scenes}) == [0, 1]
    for scene in scenes:
        times = 0.08 * np.arange(len(scene.targets))
        heard = np.zeros(scene.targets.shape)
        for event in scene.events:
            assert event.end_seconds - event.start_seconds == pytest.approx(0.5, abs=0.05)
            heard[(times >= event.start_seconds) & (times < event.end_seconds), ("high", "low").index(event.label)] = 1
        np.testing.assert_array_equal(scene.targets, heard)


def test_clips_of_a_part_are_also_heard_as_they_are_one_after_another(tones, monkeypatch):
    unmixed = scenes_of(tones, monkeypatch)[-2:]
    assert [scene.part for scene in unmixed] == [0, 1]
    for scene in unmixed:
        assert len(scene.features) == pytest.approx(4 * 2 / 0.08, abs=1)  # four clips of 2 s
        starts = sorted(event.start_seconds for event in scene.events)
        np.testing.assert_allclose(starts, [0.5, 2.5, 4.5, 6.5], atol=0.02)
        assert sorted(event.label for event in scene.events) == ["high", "high", "low", "low"]


def test_recordings_depend_only_on_the_seed(tones, monkeypatch):
    first, again, other = (scenes_of(tones, monkeypatch, seed) for seed in (0, 0, 1))
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.features, two.features)
    assert any(len(one.events) != len(two.events) for one, two in zip(first, other, strict=True))


class LogitGraph:
    """Records the scale and the offset that a network of frames gets."""

    info = FramesInfo()

    def with_head(self, head, scale, offset):
        return scale, offset


@pytest.mark.parametrize("of_windows", [0.05, 0.5, 0.95])
def test_frames_get_the_thresholds_of_windows_and_their_segments_stay(of_windows):
    own = np.array([0.3, 0.6])
    scale, offset = FrameModel(LogitGraph(), None, own).onnx(np.full(2, of_windows))
    np.testing.assert_allclose(scale * logit(own) + offset, logit(of_windows))
    np.testing.assert_allclose(scale * logit(0.5 * own) + offset, logit(0.5 * of_windows))  # where a segment ends
    assert (scale > 0).all()


def test_threshold_of_0_or_1_gives_finite_frames():
    scale, offset = FrameModel(LogitGraph(), None, np.array([0.4, 0.4])).onnx(np.array([0.0, 1.0]))
    assert np.isfinite([scale, offset]).all()


def test_largest_axes_give_nearly_the_head_of_all_axes(rng):
    features = (rng.normal(0, 1, (600, 12)) @ np.diag(np.geomspace(3, 0.1, 12))).astype(np.float32)
    y_true = features[:, :2] + rng.normal(0, 0.5, (600, 2)) > 0
    [exact] = fit_heads(features, y_true, [12], [1e-3])
    axes = PrincipalAxes.largest(features, [12], 12)
    [fast] = fit_logistic_heads(axes, y_true, [1e-3])
    np.testing.assert_allclose(fast.logits(features), exact.logits(features), atol=0.2)
    rows = np.arange(600) < 300
    [half] = fit_logistic_heads(axes.of_rows(rows), y_true[rows], [1e-3])
    assert ((half.logits(features) > 0) == y_true).mean() > 0.85
