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
from spectag.evaluation.evaluation import evaluate
from spectag.evaluation.predictions import predict, predict_out_of_fold
from spectag.models.novelty import NoveltyInfo
from spectag.models.out_of_fold import OUT_OF_FOLD_FILE, OutOfFoldPredictions, write_out_of_fold
from spectag.models.tagger import Tagger
from spectag.reporting.evaluation_report.page import write_report
from spectag.scoring.calibration import Calibration
from spectag.scoring.calibration_curves import linear_curve


@pytest.fixture
def manifest(tmp_path):
    """Nine whole clips, and three excerpts of a recording with a different label in each."""
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


def store_training_clips(tagger, manifest, logits, **changes):
    """Make the first clips of a manifest training clips of the tagger; NaN if they were not held out."""
    clips = manifest.clips[: len(logits)]
    held_out = OutOfFoldPredictions(
        labels=LabelSet(LABELS),
        fnames=tuple(clip.fname for clip in clips),
        spans=tuple((clip.start_seconds, clip.end_seconds) for clip in clips),
        folds=tuple("" if np.isnan(row).any() else str(clip.fold) for clip, row in zip(clips, logits, strict=True)),
        groups=tuple(clip.fname for clip in clips),
        keys=tuple(clip_key(clip) for clip in clips),
        y_true=manifest.multi_hot()[: len(logits)],
        logits=np.array(logits, float),
    )
    write_out_of_fold(tagger.folder / OUT_OF_FOLD_FILE, replace(held_out, **changes))


def test_clips_have_the_novelty_of_tagging(tmp_path, tagger, manifest):
    assert predict(tagger, manifest.clips).novelty is None
    tagger = Tagger(make_bundle(tmp_path / "with novelty", make_info(novelty=NoveltyInfo(n_held_out=3))))
    predictions = predict_out_of_fold(tagger, manifest)
    expected = [tagger.tag(clip.path).novelty for clip in manifest.clips[:9]]
    np.testing.assert_allclose(predictions.novelty[:9], expected, rtol=1e-5)
    np.testing.assert_array_equal(predictions.select(np.array([3, 1])).novelty, predictions.novelty[[3, 1]])


def test_clips_and_excerpts_get_the_probabilities_of_tagging(tagger, manifest):
    predictions = predict(tagger, manifest.clips)
    assert predictions.clips == manifest.clips
    for clip, probabilities in zip(predictions.clips[:9], predictions.probabilities[:9], strict=True):
        np.testing.assert_array_equal(probabilities, tagger.tag(clip.path).probabilities)
    for clip, probabilities in zip(predictions.clips[9:], predictions.probabilities[9:], strict=True):
        waveform, rate = read_audio(clip.path, start_seconds=clip.start_seconds, end_seconds=clip.end_seconds)
        np.testing.assert_array_equal(probabilities, tagger.probabilities(waveform, rate))
    assert (predictions.probabilities.argmax(axis=1) == manifest.multi_hot().argmax(axis=1)).all()
    np.testing.assert_allclose(predictions.durations, [0.5 + i / 100 for i in range(9)] + [1.0] * 3)
    assert set(predictions.origins) == {"unseen"}


def test_worker_processes_give_the_same_predictions(tagger, manifest):
    first, other = (predict(tagger, manifest.clips, features=True, workers=workers) for workers in (1, 2))
    for name in ("probabilities", "uncalibrated", "features", "durations"):
        np.testing.assert_array_equal(getattr(first, name), getattr(other, name))


def test_features_are_those_of_the_network(tagger, manifest):
    assert predict(tagger, manifest.clips).features is None
    features = predict(tagger, manifest.clips, features=True).features
    waveform, rate = read_audio(manifest.clips[4].path)
    np.testing.assert_array_equal(features[4], tagger.outputs(waveform, rate).features)
    assert features.shape == (12, 24)


def test_unreadable_clip_is_skipped_with_the_reason(tagger, manifest, tmp_path):
    (tmp_path / "klang ü 3.wav").write_bytes(b"")
    predictions = predict(tagger, manifest.clips)
    assert len(predictions.clips) == len(predictions.probabilities) == len(predictions.y_true) == 11
    [(clip, reason)] = predictions.skipped
    assert clip is manifest.clips[3]
    assert "klang ü 3.wav" in reason


def test_no_readable_clip_is_an_error_with_the_first_reason(tagger, manifest, tmp_path):
    for clip in manifest.clips:
        clip.path.write_bytes(b"")
    with pytest.raises(DataError, match=r"none of the 12 clips can be read: .*klang ü 0.wav"):
        predict(tagger, manifest.clips)


def test_calibrated_tagger_gives_calibrated_and_uncalibrated_probabilities(manifest, tmp_path):
    calibration = Calibration(
        method="temperature", curves=(linear_curve(0.5, 0.0), linear_curve(1.0, 0.0), linear_curve(2.0, 0.0))
    )
    info = make_info(calibration=calibration)
    predictions = predict(Tagger(make_bundle(tmp_path / "calibrated", info)), manifest.clips)
    plain = predict(Tagger(make_bundle(tmp_path / "plain")), manifest.clips)
    np.testing.assert_allclose(predictions.uncalibrated, plain.probabilities, atol=1e-6)


def test_tagger_without_stored_clips_gives_its_own_predictions(tagger, manifest):
    predictions = predict_out_of_fold(tagger, manifest)
    assert set(predictions.origins) == {"unseen"}
    np.testing.assert_array_equal(predictions.probabilities, predict(tagger, manifest.clips).probabilities)


def test_training_clips_get_out_of_fold_predictions_and_others_those_of_the_tagger(tagger, manifest):
    before = np.where(manifest.multi_hot(), 1.0, -1.0)[:9]
    before[0] = np.nan
    store_training_clips(tagger, manifest, before)
    messages = []
    now, predictions = predict(tagger, manifest.clips), predict_out_of_fold(tagger, manifest, log=messages.append)
    assert predictions.origins == ("train", *["out_of_fold"] * 8, *["unseen"] * 3)
    np.testing.assert_allclose(predictions.uncalibrated[1:9], expit(before[1:]), atol=1e-6)
    np.testing.assert_array_equal(predictions.probabilities[[0, 9, 10, 11]], now.probabilities[[0, 9, 10, 11]])
    assert messages == [
        "8 clips are scored with out-of-fold predictions",
        "1 clips are training clips without out-of-fold predictions: their predictions are too optimistic",
    ]


def test_clip_is_recognised_by_its_content_under_another_name(tagger, manifest, tmp_path):
    store_training_clips(tagger, manifest, np.zeros((9, 3)))
    old = manifest.clips[2].path
    old.rename(tmp_path / "renamed.wav")
    (tmp_path / "other.csv").write_text(f"fname,labels\nrenamed.wav,{LABELS[2]}\n", encoding="utf-8")
    assert predict_out_of_fold(tagger, read_manifest(tmp_path / "other.csv")).origins == ("out_of_fold",)


def test_thresholds_are_fitted_on_other_folds_unless_set_by_hand(tagger, manifest):
    before = np.where(manifest.multi_hot()[:9], 2.0, -2.0)
    store_training_clips(tagger, manifest, before)
    predictions = predict_out_of_fold(tagger, manifest)
    assert tagger.info.thresholds_fitted == (True, True, False)
    assert (predictions.thresholds[:, 2] == np.float32(0.6)).all()  # from the bundle
    assert (predictions.thresholds[:9, :2] == 0.5).all()  # too few clips to fit one
    np.testing.assert_array_equal(predictions.thresholds[9:], np.tile(tagger.thresholds, (3, 1)))


def test_report_shows_the_thresholds_of_the_model_and_says_that_clips_have_others(tagger, manifest, tmp_path):
    """The medians of cross-fitted thresholds once stood there, which are neither the model's nor those of a clip."""
    store_training_clips(tagger, manifest, np.where(manifest.multi_hot()[:9], 2.0, -2.0))
    evaluation = evaluate(tagger, replace(manifest, clips=manifest.clips[:9]), n_resamples=0)
    [model] = evaluation.models
    assert model.thresholds.tolist() == pytest.approx(tagger.thresholds.tolist())
    assert model.predictions.thresholds[0, 1] != pytest.approx(model.thresholds[1])
    page = write_report(evaluation, tmp_path / "report.html", n_clips=0).read_text("utf-8")
    assert "The threshold shown here is the model's own, which new recordings get." in page
    assert "fitted without the clip and its part of the clips" in " ".join(page.split())


def test_selected_clips_keep_their_rows(tagger, manifest):
    predictions = predict(tagger, manifest.clips, features=True)
    selected = predictions.select(np.array([11, 2]))
    assert selected.clips == (predictions.clips[11], predictions.clips[2])
    for name in ("y_true", "probabilities", "uncalibrated", "thresholds", "durations", "features"):
        np.testing.assert_array_equal(getattr(selected, name), getattr(predictions, name)[[11, 2]])
    assert len(predictions.select(predictions.y_true[:, 0]).clips) == 4


def test_uncalibrated_probabilities_are_the_sigmoid_of_the_logits(tagger, manifest):
    waveform, rate = read_audio(manifest.clips[0].path)
    outputs = tagger.outputs(waveform, rate)
    np.testing.assert_allclose(outputs.probabilities, expit(outputs.logits.astype(float)), atol=1e-6)
    inputs = {tagger.front_end: tagger.front_end.input_of_waveform(waveform)}
    np.testing.assert_array_equal(tagger.logits_of_inputs(inputs), outputs.logits)


def test_changed_labels_of_training_clips_are_logged(tagger, manifest):
    store_training_clips(tagger, manifest, np.zeros((9, 3)), y_true=np.roll(manifest.multi_hot()[:9], 1, axis=1))
    messages = []
    predict_out_of_fold(tagger, manifest, log=messages.append)
    assert messages[0].startswith("9 clips have other labels than in training; use the --corrections of the training")
    store_training_clips(tagger, manifest, np.zeros((9, 3)))
    messages.clear()
    predict_out_of_fold(tagger, manifest, log=messages.append)
    assert messages == ["9 clips are scored with out-of-fold predictions"]
