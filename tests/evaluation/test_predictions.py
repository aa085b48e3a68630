"""A manifest's clips get the answers that tagging gives; clips that were learnt from get what was said before."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit

from helpers.bundles import LABELS, make_bundle, make_info, tone
from spectag.audio.files import read_audio, write_audio
from spectag.data.labels import LabelSet
from spectag.data.manifest import read_manifest
from spectag.data.spectrograms.clip_inputs import clip_key
from spectag.errors import DataError
from spectag.evaluation.predictions import predict, predict_out_of_fold
from spectag.models.out_of_fold import PREDICTIONS_FILE, OutOfFoldPredictions, write_out_of_fold
from spectag.models.tagger import Tagger
from spectag.scoring.calibration import Calibration
from spectag.scoring.calibration_curves import line


@pytest.fixture
def manifest(tmp_path):
    """Nine whole clips, and three stretches of a recording in which all labels are heard in turn."""
    rows = ["fname,labels,fold,start,end"]
    for i in range(9):
        write_audio(tmp_path / f"klang ü {i}.wav", tone(LABELS[i % 3], 0.5 + i / 100), 16_000)
        rows.append(f"klang ü {i}.wav,{LABELS[i % 3]},{i // 3 + 1},,")
    write_audio(tmp_path / "all.wav", np.concatenate([tone(label, 1.0) for label in LABELS]), 16_000)
    rows += [f"all.wav,{label},1,{i},{i + 1}" for i, label in enumerate(LABELS)]
    (tmp_path / "clips.csv").write_text("\n".join(rows), encoding="utf-8")
    return read_manifest(tmp_path / "clips.csv", labels=LabelSet(LABELS))


@pytest.fixture
def tagger(tmp_path):
    return Tagger(make_bundle(tmp_path / "model"))


def remember(tagger, manifest, logits, **changes):
    """Let the tagger have been trained on the first clips of a manifest; NaN where they were not held out."""
    clips = manifest.clips[: len(logits)]
    held_out = OutOfFoldPredictions(
        labels=LabelSet(LABELS),
        fnames=tuple(clip.fname for clip in clips),
        stretches=tuple((clip.start_seconds, clip.end_seconds) for clip in clips),
        folds=tuple("" if np.isnan(row).any() else str(clip.fold) for clip, row in zip(clips, logits, strict=True)),
        groups=tuple(clip.fname for clip in clips),
        keys=tuple(clip_key(clip) for clip in clips),
        y_true=manifest.multi_hot()[: len(logits)],
        logits=np.array(logits, float),
    )
    write_out_of_fold(tagger.folder / PREDICTIONS_FILE, replace(held_out, **changes))


def test_whole_clips_and_stretches_get_what_tagging_gives(tagger, manifest):
    found = predict(tagger, manifest.clips)
    assert found.clips == manifest.clips
    for clip, probabilities in zip(found.clips[:9], found.probabilities[:9], strict=True):
        np.testing.assert_array_equal(probabilities, tagger.tag(clip.path).probabilities)
    for clip, probabilities in zip(found.clips[9:], found.probabilities[9:], strict=True):
        waveform, rate = read_audio(clip.path, start_seconds=clip.start_seconds, end_seconds=clip.end_seconds)
        np.testing.assert_array_equal(probabilities, tagger.probabilities(waveform, rate))
    assert (found.probabilities.argmax(axis=1) == manifest.multi_hot().argmax(axis=1)).all()
    np.testing.assert_allclose(found.durations, [0.5 + i / 100 for i in range(9)] + [1.0] * 3)
    assert set(found.origins) == {"new"}


def test_processes_give_the_same_answers_as_this_one(tagger, manifest):
    here, there = (predict(tagger, manifest.clips, features=True, workers=workers) for workers in (1, 2))
    for name in ("probabilities", "uncalibrated", "features", "durations"):
        np.testing.assert_array_equal(getattr(here, name), getattr(there, name))


def test_features_are_the_networks_own(tagger, manifest):
    assert predict(tagger, manifest.clips).features is None
    features = predict(tagger, manifest.clips, features=True).features
    waveform, rate = read_audio(manifest.clips[4].path)
    np.testing.assert_array_equal(features[4], tagger.answer(waveform, rate).features)
    assert features.shape == (12, 24)


def test_unreadable_clip_is_named_and_left_out(tagger, manifest, tmp_path):
    (tmp_path / "klang ü 3.wav").write_bytes(b"")
    found = predict(tagger, manifest.clips)
    assert len(found.clips) == len(found.probabilities) == len(found.y_true) == 11
    [(clip, reason)] = found.skipped
    assert clip is manifest.clips[3]
    assert "klang ü 3.wav" in reason


def test_nothing_readable_is_an_error_with_the_first_reason(tagger, manifest, tmp_path):
    for clip in manifest.clips:
        clip.path.write_bytes(b"")
    with pytest.raises(DataError, match=r"none of the 12 clips can be read: .*klang ü 0.wav"):
        predict(tagger, manifest.clips)


def test_calibrated_tagger_tells_both_probabilities(manifest, tmp_path):
    calibration = Calibration(method="temperature", curves=(line(0.5, 0.0), line(1.0, 0.0), line(2.0, 0.0)))
    info = make_info(calibration=calibration)
    found = predict(Tagger(make_bundle(tmp_path / "calibrated", info)), manifest.clips)
    plain = predict(Tagger(make_bundle(tmp_path / "plain")), manifest.clips)
    np.testing.assert_allclose(found.uncalibrated, plain.probabilities, atol=1e-6)


def test_tagger_without_a_memory_answers_as_it_is(tagger, manifest):
    found = predict_out_of_fold(tagger, manifest)
    assert set(found.origins) == {"new"}
    np.testing.assert_array_equal(found.probabilities, predict(tagger, manifest.clips).probabilities)


def test_learnt_clips_get_what_was_said_before_and_others_what_is_said_now(tagger, manifest):
    before = np.where(manifest.multi_hot(), 1.0, -1.0)[:9]
    before[0] = np.nan
    remember(tagger, manifest, before)
    said = []
    now, found = predict(tagger, manifest.clips), predict_out_of_fold(tagger, manifest, log=said.append)
    assert found.origins == ("learnt", *["held out"] * 8, *["new"] * 3)
    np.testing.assert_allclose(found.uncalibrated[1:9], expit(before[1:]), atol=1e-6)
    np.testing.assert_array_equal(found.probabilities[[0, 9, 10, 11]], now.probabilities[[0, 9, 10, 11]])
    assert said == [
        "8 clips are judged by networks that were trained without them",
        "1 clips were learnt from and never held out: what the tagger says of them flatters it",
    ]


def test_a_clip_is_known_by_its_content_under_another_name(tagger, manifest, tmp_path):
    remember(tagger, manifest, np.zeros((9, 3)))
    old = manifest.clips[2].path
    old.rename(tmp_path / "renamed.wav")
    (tmp_path / "other.csv").write_text(f"fname,labels\nrenamed.wav,{LABELS[2]}\n", encoding="utf-8")
    assert predict_out_of_fold(tagger, read_manifest(tmp_path / "other.csv")).origins == ("held out",)


def test_thresholds_are_fitted_without_the_clips_part_but_for_those_set_by_hand(tagger, manifest):
    before = np.where(manifest.multi_hot()[:9], 2.0, -2.0)
    remember(tagger, manifest, before)
    found = predict_out_of_fold(tagger, manifest)
    judged = tagger.info.thresholds_fitted
    assert judged == (True, True, False)
    assert (found.thresholds[:, 2] == np.float32(0.6)).all()  # as the bundle says
    assert (found.thresholds[:9, :2] == 0.5).all()  # too few clips for others
    np.testing.assert_array_equal(found.thresholds[9:], np.tile(tagger.thresholds, (3, 1)))


def test_some_of_the_clips_keep_their_rows(tagger, manifest):
    found = predict(tagger, manifest.clips, features=True)
    some = found.of(np.array([11, 2]))
    assert some.clips == (found.clips[11], found.clips[2])
    for name in ("y_true", "probabilities", "uncalibrated", "thresholds", "durations", "features"):
        np.testing.assert_array_equal(getattr(some, name), getattr(found, name)[[11, 2]])
    assert len(found.of(found.y_true[:, 0]).clips) == 4


def test_logits_lie_behind_the_probabilities(tagger, manifest):
    waveform, rate = read_audio(manifest.clips[0].path)
    answer = tagger.answer(waveform, rate)
    np.testing.assert_allclose(answer.probabilities, expit(answer.logits.astype(float)), atol=1e-6)
    inputs = tagger.inputs_of_waveform(waveform, rate)
    np.testing.assert_array_equal(tagger.logits_of_inputs(inputs), answer.logits)


def test_labels_that_are_others_than_those_learnt_by_are_told_of(tagger, manifest):
    remember(tagger, manifest, np.zeros((9, 3)), y_true=np.roll(manifest.multi_hot()[:9], 1, axis=1))
    said = []
    predict_out_of_fold(tagger, manifest, log=said.append)
    assert said[0].startswith("9 clips have other labels here than when the tagger learnt from them; if it learnt with")
    remember(tagger, manifest, np.zeros((9, 3)))
    said.clear()
    predict_out_of_fold(tagger, manifest, log=said.append)
    assert said == ["9 clips are judged by networks that were trained without them"]
