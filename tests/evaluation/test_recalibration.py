import json
import re
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from scipy.special import expit, logit

import spectag
from helpers.bundles import LABELS, MEL, make_bundle, make_ensemble, make_ensemble_info, make_info, tone
from spectag.audio.files import write_audio
from spectag.audio.front_end import FrontEnd
from spectag.data.labels import LabelSet
from spectag.data.manifest import read_manifest
from spectag.data.spectrograms.clip_inputs import clip_key
from spectag.errors import BundleError, ConfigError, DataError, MissingExtraError
from spectag.evaluation.predictions import predict, predict_out_of_fold
from spectag.evaluation.recalibration import calibrate
from spectag.models.bundle import CARD_FILE, DataInfo, WindowThresholds, read_info, write_info
from spectag.models.frames_info import FRAMES_FILE, FRAMES_OFFSET, FramesInfo
from spectag.models.network_session import open_session
from spectag.models.out_of_fold import CALIBRATION_FILE, OUT_OF_FOLD_FILE, OutOfFoldPredictions, write_out_of_fold
from spectag.scoring.calibration import cross_fit, fit_calibration
from spectag.scoring.reliability_diagram import calibration_errors, expected_calibration_error
from spectag.scoring.scores import score_predictions
from spectag.scoring.thresholds import ThresholdGoal, fit_thresholds
from spectag.training.bundle_writer import check_output

N_CLIPS = 240
FILES = ("spectag.json", "model.onnx", CARD_FILE, OUT_OF_FOLD_FILE)


def make_clips(labels=LABELS) -> OutOfFoldPredictions:
    """Clips with underconfident logits: the true logits are three times as high, plus 1."""
    rng = np.random.default_rng(3)
    logits = rng.normal(-0.5, 1, (N_CLIPS, 3))
    return OutOfFoldPredictions(
        labels=LabelSet(labels),
        fnames=tuple(f"{i}.wav" for i in range(N_CLIPS)),
        spans=((0.0, None),) * N_CLIPS,
        folds=tuple(str(i % 4) for i in range(N_CLIPS)),
        groups=tuple(f"{i}" for i in range(N_CLIPS)),
        keys=tuple(f"{i:032x}" for i in range(N_CLIPS)),
        y_true=rng.random(logits.shape) < expit(3 * logits + 1),
        logits=logits,
    )


def store(bundle, clips=None):
    write_out_of_fold(bundle / OUT_OF_FOLD_FILE, clips or make_clips())
    return bundle


@pytest.fixture
def model(tmp_path):
    return store(make_bundle(tmp_path / "model"))


def read_files(bundle):
    return {path.name: path.read_bytes() for path in bundle.iterdir() if path.is_file()}


def sound(label="low"):
    return tone(label, 1.0), 16_000


def test_tagger_is_calibrated_on_its_stored_clips(model):
    before = spectag.load(model).outputs(*sound())
    result = calibrate(model, in_place=True)
    clips, folds = make_clips(), np.arange(N_CLIPS) % 4
    expected = fit_calibration(clips.logits, clips.y_true, folds=folds)
    tagger = spectag.load(model)
    after = tagger.outputs(*sound())
    np.testing.assert_array_equal(before.logits, after.logits)
    np.testing.assert_allclose(after.probabilities, expected(before.logits), atol=1e-5)
    assert tagger.info.calibration_method == "auto"
    assert tagger.info.calibration == result.info.calibration
    thresholds = fit_thresholds(clips.y_true, expected(clips.logits))
    np.testing.assert_allclose(tagger.thresholds, thresholds, atol=1e-5)


def test_reported_scores_are_cross_fitted(model):
    result = calibrate(model, goal=ThresholdGoal(kind="recall", at_least=0.8), method="platt", in_place=True)
    clips = make_clips()
    folds = clips.fold_indices
    goal = ThresholdGoal(kind="recall", at_least=0.8)
    cross = cross_fit(clips.logits, clips.y_true, folds, method="platt", goal=goal, groups=clips.groups)
    detected = cross.probabilities >= cross.thresholds
    for label, row in enumerate(result.labels):
        truth = clips.y_true[:, label]
        hits = (truth & detected[:, label]).sum()
        assert row.n_clips == truth.sum()
        assert row.precision == pytest.approx(hits / detected[:, label].sum())
        assert row.recall == pytest.approx(hits / truth.sum())
        assert row.f1 == pytest.approx(2 * hits / (truth.sum() + detected[:, label].sum()))
        assert row.ece_before == pytest.approx(expected_calibration_error(truth, expit(clips.logits[:, label])))
        assert row.ece_after == pytest.approx(expected_calibration_error(truth, cross.probabilities[:, label]))
    before, after = result.info.metrics["calibration"]["expected_calibration_error"]
    assert after < before / 2
    assert f"expected calibration error {after:.3f}; {before:.3f} before" in (model / CARD_FILE).read_text("utf-8")


def test_intervals_are_over_recordings_as_in_training(model):
    """30 recordings of eight clips that are alike: intervals over clips would be too narrow."""
    recordings = np.repeat(np.arange(30), 8)
    clips = make_clips()
    clips = replace(
        clips,
        folds=tuple(str(recording % 4) for recording in recordings),
        groups=tuple(f"{recording}" for recording in recordings),
        y_true=clips.y_true[recordings],
        logits=clips.logits[recordings],
    )
    metrics = calibrate(store(model, clips), method="none", in_place=True).info.metrics
    over_recordings, over_clips = (
        score_predictions(clips.y_true, expit(clips.logits), groups).overall["lwlrap"]
        for groups in (clips.groups, range(N_CLIPS))
    )
    assert metrics["intervals"]["lwlrap"] == [over_recordings.low, over_recordings.high]
    assert over_recordings.high - over_recordings.low > 2 * (over_clips.high - over_clips.low)


def test_manual_thresholds_change_nothing_else_and_need_neither_onnx_nor_torch(model, monkeypatch):
    calibrate(model, goal=ThresholdGoal(kind="precision", at_least=0.9), method="platt", in_place=True)
    before, info = read_files(model), read_info(model)
    for name in ("onnx", "torch", "spectag.models.onnx_calibration"):
        monkeypatch.setitem(sys.modules, name, None)
    calibrate(model, thresholds={"middle": 0.25}, in_place=True)
    now = read_info(model)
    assert now.thresholds == (info.thresholds[0], 0.25, info.thresholds[2])
    assert now.thresholds_fitted == (True, False, True)
    assert (now.calibration, now.threshold_goal, now.metrics) == (info.calibration, info.threshold_goal, info.metrics)
    calibrate(model, thresholds={"low": 0.75}, in_place=True)  # one after the other
    assert read_info(model).thresholds == (0.75, 0.25, info.thresholds[2])
    assert read_files(model)["model.onnx"] == before["model.onnx"]
    assert "| middle | 1 | 0.25 (not fitted) |" in (model / CARD_FILE).read_text("utf-8")


def test_goal_alone_does_not_change_the_calibration_and_needs_no_onnx(model, monkeypatch):
    calibrate(model, method="temperature", in_place=True)
    before = read_info(model)
    monkeypatch.setitem(sys.modules, "onnx", None)
    calibrate(model, goal=ThresholdGoal(kind="recall", at_least=0.95), in_place=True)
    now = read_info(model)
    assert (now.calibration, now.calibration_method) == (before.calibration, "temperature")
    assert all(new < old for new, old in zip(now.thresholds, before.thresholds, strict=True))
    monkeypatch.delitem(sys.modules, "spectag.models.onnx_calibration", raising=False)
    with pytest.raises(MissingExtraError, match=r"calibrating a tagger needs the package onnx.*spectag\[train\]"):
        calibrate(model, method="none", in_place=True)
    assert read_info(model) == now


def test_calibration_can_be_removed(model):
    plain = spectag.load(model).outputs(*sound()).probabilities
    calibrate(model, method="isotonic", in_place=True)
    assert (spectag.load(model).outputs(*sound()).probabilities != plain).any()
    calibrate(model, method="none", in_place=True)
    np.testing.assert_array_equal(spectag.load(model).outputs(*sound()).probabilities, plain)
    assert read_info(model).calibration is None
    assert "the probabilities are not calibrated" in (model / CARD_FILE).read_text("utf-8")


def test_output_folder_gets_all_files_and_the_old_tagger_does_not_change(model, tmp_path):
    before = read_files(model)
    (model / "notes.txt").write_text("mine", encoding="utf-8")
    output = tmp_path / "other folder" / "leiser ü"
    result = calibrate(model, output=output)
    assert (result.bundle, result.written_to) == (model, output)
    assert {name: text for name, text in read_files(model).items() if name != "notes.txt"} == before
    assert read_files(output).keys() == {*FILES, "notes.txt"}
    assert read_info(output).calibration is not None
    assert "# leiser ü" in (output / CARD_FILE).read_text("utf-8")
    with pytest.raises(BundleError, match="already exists"):
        calibrate(model, output=output)
    assert [path.name for path in output.parent.iterdir()] == ["leiser ü"]


@pytest.mark.parametrize("changes", [{}, {"thresholds": {"low": 0.9}}, {"goal": ThresholdGoal()}, {"method": "none"}])
def test_nothing_is_written_without_output_or_in_place(model, changes):
    before, info = read_files(model), read_info(model)
    result = calibrate(model, **changes)
    assert (result.written_to, read_files(model)) == (None, before)
    assert [path.name for path in model.parent.iterdir()] == ["model"]
    assert tuple(row.old_threshold for row in result.labels) == info.thresholds
    assert result.info.thresholds != info.thresholds


def test_output_and_in_place_exclude_each_other(model, tmp_path):
    with pytest.raises(ConfigError, match="give either output"):
        calibrate(model, output=tmp_path / "new", in_place=True)


def test_clips_of_a_recording_count_as_one_for_a_precision(model):
    """Thirty recordings with the label show a precision; the same clips of six recordings do not."""
    clips = make_clips()
    clips.logits[:30, 0], clips.logits[30:, 0], clips.y_true[:, 0] = 3, -3, np.arange(N_CLIPS) < 30
    few = replace(clips, groups=tuple(f"{i // 5}" for i in range(N_CLIPS)))
    goal = ThresholdGoal(kind="precision", at_least=0.9)
    for stored, misses_goal in ((clips, False), (few, True)):
        assert calibrate(store(model, stored), goal=goal, method="none").labels[0].misses_goal == misses_goal


def with_frames(bundle, logits):
    """A bundle with a network of frames, whose logits are these plus the mean of the input."""
    info = read_info(bundle)
    info = info.model_copy(update={"frames": FramesInfo()})
    nodes = [
        helper.make_node("AveragePool", ["inputs"], ["means"], kernel_shape=[MEL.n_mels, 8], strides=[1, 8]),
        helper.make_node("Add", ["means", FRAMES_OFFSET], ["logits"]),
        helper.make_node("Squeeze", ["logits", "height"], ["by_label"]),
        helper.make_node("Transpose", ["by_label"], ["by_frame"], perm=[0, 2, 1]),
        helper.make_node("Sigmoid", ["by_frame"], ["probabilities"]),
    ]
    constants = {FRAMES_OFFSET: np.float32(logits)[None, :, None, None], "height": np.array([2])}
    tensors = [numpy_helper.from_array(values, name) for name, values in constants.items()]
    inputs = helper.make_tensor_value_info("inputs", TensorProto.FLOAT, [1, 1, MEL.n_mels, "n"])
    outputs = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [1, "frames", 3])
    graph = helper.make_graph(nodes, "frames", [inputs], [outputs], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, bundle / FRAMES_FILE)
    write_info(bundle, info)


def probabilities_of_frames(bundle):
    session = open_session(bundle / FRAMES_FILE, n_threads=1)
    return session.run(["probabilities"], {"inputs": np.zeros((1, 1, MEL.n_mels, 16), np.float32)})[0][0]


@pytest.mark.parametrize("of_windows", [None, (0.3, 0.2, 0.7)])
def test_frames_at_the_threshold_of_windows_get_the_new_probability_of_such_windows(model, of_windows):
    info = read_info(model)
    if of_windows is not None:
        windows = WindowThresholds(below_seconds=2.0, thresholds=of_windows)
        write_info(model, info.model_copy(update={"window_thresholds": windows}))
    at_threshold = logit(of_windows or info.thresholds)
    with_frames(model, at_threshold)
    np.testing.assert_allclose(probabilities_of_frames(model)[0], expit(at_threshold), atol=1e-6)
    result = calibrate(model, in_place=True)
    np.testing.assert_allclose(probabilities_of_frames(model)[0], result.info.calibration(at_threshold), atol=1e-5)
    calibrate(model, method="none", in_place=True)
    thresholds = result.info.thresholds_for(1.5)
    expected = logit(result.info.calibration(at_threshold)) + result.info.calibration.raw_logits(logit(thresholds))
    np.testing.assert_allclose(probabilities_of_frames(model)[0], expit(expected - logit(thresholds)), atol=1e-5)
    assert "frames.onnx" in read_info(model).sha256


def test_frames_stay_where_only_thresholds_change(model):
    with_frames(model, [0.0, 1.0, 2.0])
    before = (model / FRAMES_FILE).read_bytes()
    calibrate(model, thresholds={"low": 0.9}, in_place=True)
    assert (model / FRAMES_FILE).read_bytes() == before


def test_old_tagger_is_restored_if_it_cannot_be_replaced(model, monkeypatch):
    before = read_files(model)
    rename = type(model).rename

    def fails_once(path, target):
        if target == model and not path.name.endswith("-replaced"):
            raise OSError(13, "Permission denied")
        return rename(path, target)

    monkeypatch.setattr(type(model), "rename", fails_once)
    with pytest.raises(BundleError, match="cannot write the tagger: Permission denied"):
        calibrate(model, thresholds={"low": 0.75}, in_place=True)
    assert read_files(model) == before
    assert [path.name for path in model.parent.iterdir() if path.name.startswith(".")] == []


def test_failure_does_not_change_the_tagger(model, monkeypatch):
    before = read_files(model)

    def fails(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("spectag.evaluation.recalibrated_bundles.write_info", fails)
    with pytest.raises(BundleError, match="cannot write the tagger: No space left"):
        calibrate(model, in_place=True)
    assert read_files(model) == before
    assert {path.name for path in model.iterdir()} == before.keys()


def test_damaged_network_is_an_error(model):
    (model / "model.onnx").write_bytes(b"not a network")
    with pytest.raises(BundleError, match=r"model\.onnx: (cannot be read|not an ONNX file, or damaged)"):
        calibrate(model, in_place=True)


def test_ensemble_is_calibrated_as_a_whole(tmp_path):
    front_ends = [FrontEnd(mel=MEL)] * 2
    model = store(make_ensemble(tmp_path / "model", make_ensemble_info(front_ends, [0.5, 0.25], bias=0.5)))
    networks = [path.read_bytes() for path in sorted(model.glob("members/*/model.onnx"))]
    before = spectag.load(model).outputs(*sound())
    calibrate(model, in_place=True)
    after = spectag.load(model).outputs(*sound())
    assert [path.read_bytes() for path in sorted(model.glob("members/*/model.onnx"))] == networks
    np.testing.assert_allclose(after.probabilities, read_info(model).calibration(before.logits), atol=1e-5)


def test_label_with_too_few_clips_gets_the_default_threshold(model):
    clips = make_clips()
    clips.y_true[2:, 1] = False
    result = calibrate(store(model, clips), in_place=True)
    assert [row.origin for row in result.labels] == ["fitted", "default", "fitted"]
    assert read_info(model).thresholds[1] == 0.5
    assert read_info(model).thresholds_fitted == (True, False, True)


def test_unreachable_goal_is_reported(model):
    clips = make_clips()
    best = clips.logits[:, 0].argsort()[-20:]
    clips.y_true[best, 0] = False  # the most confident predictions are wrong
    result = calibrate(store(model, clips), goal=ThresholdGoal(kind="precision", at_least=0.85))
    assert [row.misses_goal for row in result.labels] == [True, False, False]
    assert result.info.labels_missing_goal == ("low",)
    by_hand = calibrate(model, goal=result.info.threshold_goal, thresholds={"low": 0.5}, in_place=True)
    assert by_hand.info.labels_missing_goal == ()
    calibrate(model, goal=result.info.threshold_goal, in_place=True)
    card = (model / CARD_FILE).read_text("utf-8")
    assert re.search(r"\| low \| 1 \| [0-9.]+ \(misses a precision of at least 0.85 with 90 % confidence\) \|", card)


def test_published_tagger_is_called_by_its_name_not_by_its_folder_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SPECTAG_CACHE", str(tmp_path))
    bundle = make_bundle(tmp_path / "models" / "audioset-mn04")
    with pytest.raises(BundleError, match=r"^audioset-mn04: .*: spectag calibrate audioset-mn04 MANIFEST$"):
        calibrate(bundle)


def test_tagger_without_stored_clips_needs_a_manifest(tmp_path):
    bundle = make_bundle(tmp_path / "model")
    with pytest.raises(BundleError, match=r"has no out-of-fold predictions.*spectag calibrate .*model MANIFEST"):
        calibrate(bundle, in_place=True)
    result = calibrate(bundle, thresholds={"high": 0.125}, in_place=True)
    assert [(row.label, row.threshold, row.origin) for row in result.labels] == [("high", 0.125, "set")]
    assert read_info(bundle).thresholds == (0.5, 0.4, 0.125)


def test_clips_of_a_single_recording_give_no_calibration_and_no_scores(model):
    clips = replace(make_clips(), folds=("1",) * N_CLIPS, groups=("one",) * N_CLIPS)
    result = calibrate(store(model, clips), in_place=True)
    assert result.info.calibration is None
    assert np.isnan([row.f1 for row in result.labels]).all()
    assert "calibration" not in result.info.metrics


def test_invalid_thresholds_are_refused(model):
    with pytest.raises(ConfigError, match=r"no label 'hihg'; did you mean 'high'\? Its labels are low, middle, high"):
        calibrate(model, thresholds={"hihg": 0.3}, in_place=True)
    for threshold in (1.5, float("nan")):
        with pytest.raises(ConfigError, match="from 0 to 1"):
            calibrate(model, thresholds={"high": threshold}, in_place=True)


@pytest.fixture
def manifest(tmp_path):
    """Twelve tones of two of the three labels, and an empty file."""
    rows = ["fname,labels"]
    for i in range(12):
        label = ("low", "high")[i % 2]
        wrong = "middle" if i < 2 else label
        waveform = tone(wrong, 0.3 + i / 50) + np.random.default_rng(i).normal(0, 0.01, round((0.3 + i / 50) * 16_000))
        write_audio(tmp_path / f"tön {i}.wav", waveform.astype(np.float32), 16_000)
        rows.append(f"tön {i}.wav,{label}")
    (tmp_path / "leer.wav").write_bytes(b"")
    (tmp_path / "new.csv").write_text("\n".join([*rows, "leer.wav,low"]), encoding="utf-8")
    return tmp_path / "new.csv"


def test_manifest_changes_only_its_own_labels(tmp_path, manifest):
    bundle = make_bundle(tmp_path / "model", make_info(thresholds_fitted=(False,) * 3))
    before = spectag.load(bundle).outputs(*sound("middle"))
    result = calibrate(bundle, manifest=read_manifest(manifest), method="platt", in_place=True)
    after = spectag.load(bundle).outputs(*sound("middle"))
    assert [row.label for row in result.labels] == ["low", "high"]
    assert result.n_clips == 12
    assert [clip.fname for clip, _ in result.skipped] == ["leer.wav"]
    assert after.probabilities[1] == pytest.approx(before.probabilities[1])
    assert (after.probabilities[[0, 2]] != before.probabilities[[0, 2]]).all()
    assert read_info(bundle).thresholds[1] == 0.4
    assert read_info(bundle).metrics["calibration"]["on"] == "new.csv"
    calibrate(
        bundle, manifest=read_manifest(manifest), method="platt", in_place=True
    )  # again from the logits, not on top of the first
    again = spectag.load(bundle).outputs(*sound("middle"))
    np.testing.assert_allclose(again.probabilities, after.probabilities, atol=1e-3)


def test_calibration_clips_are_scored_with_cross_fitted_probabilities(tmp_path, manifest):
    bundle, clips = make_bundle(tmp_path / "model"), read_manifest(manifest)
    result = calibrate(bundle, manifest=clips, method="platt", thresholds={"high": 0.25}, in_place=True)
    tagger, labels = spectag.load(bundle), [0, 2]
    now, found = predict(tagger, clips.clips), predict_out_of_fold(tagger, clips)
    assert set(found.origins) == {"unseen"}
    assert (found.probabilities[:, labels] != now.probabilities[:, labels]).any(axis=1).all()
    np.testing.assert_array_equal(found.probabilities[:, 1], now.probabilities[:, 1])  # no clip has the label
    assert calibration_errors(found.y_true, found.probabilities)[labels] == pytest.approx(
        [row.ece_after for row in result.labels], abs=1e-6
    )
    assert (found.thresholds[:, 1:] == np.float32([0.4, 0.25])).all()  # the bundle's threshold, and the manual one


def test_truth_of_a_calibration_clip_does_not_change_its_own_prediction(tmp_path, manifest):
    header, *rows = manifest.read_text(encoding="utf-8").splitlines()[:-1]
    manifest.write_text(
        "\n".join([f"{header},group", *(f"{row},{i % 3}" for i, row in enumerate(rows))]), encoding="utf-8"
    )
    wrong = manifest.with_name("wrong.csv")
    wrong.write_text(manifest.read_text(encoding="utf-8").replace("tön 4.wav,low", "tön 4.wav,high"), encoding="utf-8")
    predictions = []
    for name, path in (("right", manifest), ("wrong", wrong)):
        bundle = make_bundle(tmp_path / name)
        calibrate(bundle, manifest=read_manifest(path), method="platt", in_place=True)
        predictions.append(predict_out_of_fold(spectag.load(bundle), read_manifest(manifest)))
    for values in ("probabilities", "thresholds"):
        with_right, with_wrong = (getattr(each, values) for each in predictions)
        np.testing.assert_array_equal(with_right[1::3], with_wrong[1::3])
    assert (predictions[0].probabilities[0] != predictions[1].probabilities[0]).any()


def test_labels_that_are_not_in_the_manifest_are_scored_as_before(tmp_path, manifest):
    """For training clips, curve and threshold of `middle` are still fitted on other training clips."""
    clips = read_manifest(manifest, labels=LabelSet(LABELS))
    keys = tuple(clip_key(clip) or f"{i}" for i, clip in enumerate(clips.clips)) + tuple(map(str, range(13, N_CLIPS)))
    other = manifest.with_name("other.csv")
    other.write_text("\n".join(manifest.read_text(encoding="utf-8").splitlines()[:7]), encoding="utf-8")
    bundle = store(make_bundle(tmp_path / "model"), replace(make_clips(), keys=(*keys[6:], *keys[:6])))
    calibrate(bundle, method="platt", in_place=True)
    before = predict_out_of_fold(spectag.load(bundle), clips)
    store(
        bundle, replace(make_clips(), keys=(*keys[6:], *(f"-{i}" for i in range(6))))
    )  # the first six are not training clips
    calibrate(bundle, manifest=read_manifest(other), method="platt", in_place=True)
    tagger = spectag.load(bundle)
    after = predict_out_of_fold(tagger, clips)
    assert after.origins == ("unseen",) * 6 + ("out_of_fold",) * 6
    np.testing.assert_array_equal(after.probabilities[6:, 1], before.probabilities[6:, 1])
    np.testing.assert_array_equal(after.thresholds[6:, 1], before.thresholds[6:, 1])
    assert len(set(after.thresholds[6:, 1])) > 1
    for label in (0, 2):  # as the tagger predicts now, because it was fitted on other clips
        assert set(after.thresholds[6:, label]) == {tagger.thresholds[label]}
        assert (after.probabilities[6:, label] != before.probabilities[6:, label]).all()


def test_fitting_on_training_clips_removes_the_clips_of_an_earlier_manifest(tmp_path, manifest):
    bundle, clips = store(make_bundle(tmp_path / "model")), read_manifest(manifest)
    calibrate(bundle, manifest=clips, method="platt", in_place=True)
    calibrate(bundle, goal=ThresholdGoal(kind="recall", at_least=0.9), in_place=True)
    assert CALIBRATION_FILE in read_files(bundle)  # the curves have not changed
    check_output(bundle)  # still a tagger, which may be overwritten
    calibrate(bundle, method="platt", output=tmp_path / "new")
    calibrate(bundle, method="platt", in_place=True)
    for folder in (bundle, tmp_path / "new"):
        assert CALIBRATION_FILE not in read_files(folder)
    tagger = spectag.load(bundle)
    found, now = predict_out_of_fold(tagger, clips), predict(tagger, clips.clips)
    np.testing.assert_array_equal(found.probabilities, now.probabilities)


def test_manifest_without_usable_labels_is_refused(tmp_path, manifest):
    bundle = make_bundle(tmp_path / "model")
    before = read_files(bundle)
    unknown = manifest.with_name("unknown.csv")
    unknown.write_text("fname,labels\ntön 0.wav,Zebra\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"unknown\.csv: the tagger knows none of the 1 labels \(Zebra\)"):
        calibrate(bundle, manifest=read_manifest(unknown), in_place=True)
    few = manifest.with_name("few.csv")
    few.write_text("fname,labels\ntön 0.wav,low\ntön 2.wav,low\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"few\.csv: no label of the tagger has 3 clips"):
        calibrate(bundle, manifest=read_manifest(few), in_place=True)
    assert read_files(bundle) == before


def test_published_tagger_keeps_its_card(tmp_path, manifest):
    backbone = make_info().backbone.model_copy(update={"name": "mn04_audioset", "licence": "MIT"})
    info = make_info(
        thresholds=(0.1,) * 3,
        thresholds_fitted=(False,) * 3,
        backbone=backbone,
        data=DataInfo(name="AudioSet", n_clips=None, n_clips_per_label=None, fingerprint=None),
        metrics={"mean_average_precision": 0.432, "on": "AudioSet's clips", "source": "Schmid et al."},
        onnx_difference=None,
    )
    bundle = make_bundle(tmp_path / "model", info)
    calibrate(bundle, manifest=read_manifest(manifest), method="platt", in_place=True)
    card = (bundle / CARD_FILE).read_text(encoding="utf-8")
    assert "Please cite: Schmid et al." in card
    assert "on 12 clips of new.csv" in card
    assert "2 of them are fitted to reach the best F1" in card


def test_command_prints_a_row_for_each_label_and_json_for_programs(run, model, tmp_path):
    status, out, _ = run("calibrate", model, "--precision", "0.9", "--set", "middle=0.25", "-o", tmp_path / "new")
    assert re.search(r"with this confidence, \d of 2 labels reach it\n", out)
    assert re.search(
        r"on clips that the threshold was not fitted on, \d of 2 labels have a precision of 0.9 or more", out
    )
    assert status == 0
    rows = {
        line.split()[0]: line.split()[1:] for line in out.splitlines() if line.split()[:1] and line.split()[0] in LABELS
    }
    assert rows["middle"][1:5] == ["0.400", "→", "0.250", "set"]
    assert "written to" in out
    before = read_files(model)
    status, out, _ = run("calibrate", model, "--json")
    assert read_files(model) == before
    found = json.loads(out)
    assert [row["label"] for row in found["labels"]] == list(LABELS)
    assert [row["old_threshold"] for row in found["labels"]] == list(read_info(model).thresholds)
    assert found["written_to"] is None
    assert found["calibration"] in ("temperature", "platt", "isotonic")
    assert found["goal"] == {"kind": "f1", "at_least": None, "confidence": 0.9, "below_f1": False}


def test_command_says_what_to_do_if_nothing_is_written_and_how_many_recordings_are_needed(run, model):
    before = read_files(model)
    status, out, _ = run("calibrate", model, "--precision", "0.99", "--confidence", "0.95")
    assert status == 0
    assert "with this confidence, 0 of 3 labels reach it" in out
    assert "not enough to show a precision of at least 0.99 with 95 % confidence" in out
    assert "needs at least 299 recordings with right detections" in out
    counts = make_clips().y_true.sum(axis=0)
    assert ", ".join(f"{label} {count}" for label, count in zip(LABELS, counts, strict=True)) in out
    assert "add recordings, or ask for less confidence: --confidence 0.5 needs 69 recordings" in out
    assert "nothing is written; repeat the command with -o FOLDER for a new model, or --in-place" in out
    assert read_files(model) == before
    status, out, _ = run("calibrate", model, "--in-place")
    assert f"written to {model}" in out.replace("\n", "")
    assert read_files(model) != before


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--f1", "--recall", "0.9"], 2, "--f1, --precision and --recall exclude each other; give one of them"),
        (["--set", "low"], 2, "--set low: expected LABEL=THRESHOLD, such as --set Dog=0.3"),
        (["--set", "lwo=0.3"], 1, "did you mean 'low'?"),
        (["--precision", "1"], 2, "must be a fraction between 0 and 1"),
        (["--confidence", "0.95", "--f1"], 2, "--confidence needs --precision, --recall or --false-alarms"),
        (["--below-f1", "--recall", "0.9"], 2, "--below-f1 needs --precision"),
        (["--in-place", "-o", "new"], 2, "-o and --in-place exclude each other; give one of them"),
    ],
)
def test_wrong_usage_is_an_error_of_one_line(run, model, arguments, status, message):
    before = read_files(model)
    found, _, err = run("calibrate", model, *arguments)
    assert (found, read_files(model)) == (status, before)
    assert message in err


def test_published_tagger_is_not_changed_in_the_cache(run):
    status, _, err = run("calibrate", "audioset-mn04", "--set", "Dog=0.3", "--in-place")
    assert status == 2
    assert "audioset-mn04 is a published model and is not changed; give -o" in err


@pytest.mark.parametrize("arguments", [("calibrate", "-o", "new"), ("review",)])
def test_manifest_is_read_before_a_model_is_downloaded(run, tmp_path, arguments):
    command, *options = arguments
    status, _, err = run(command, "audioset-mn04", tmp_path / "typo.csv", *options)
    assert status == 1
    assert "typo.csv: no such file" in err
    assert "download" not in err


def test_skipped_clips_are_listed_and_change_the_status(run, tmp_path, manifest):
    bundle = make_bundle(tmp_path / "model")
    status, _, err = run("calibrate", bundle, manifest)
    assert status == 3
    assert "leer.wav" in err


@pytest.fixture
def model_with_window_thresholds(tmp_path):
    windows = WindowThresholds(below_seconds=2.0, thresholds=(0.1, 0.2, 0.3))
    return store(make_bundle(tmp_path / "windows", make_info(window_thresholds=windows)))


def test_threshold_set_by_hand_also_holds_for_windows(model_with_window_thresholds):
    result = calibrate(model_with_window_thresholds, thresholds={"middle": 0.9}, in_place=True)
    assert read_info(model_with_window_thresholds).window_thresholds.thresholds == (0.1, 0.9, 0.3)
    assert not result.drops_window_thresholds


def test_a_precision_lowers_no_threshold_of_windows(run, tmp_path):
    """A window once got the threshold of clips, which was lower, although more precision was asked for."""
    windows = WindowThresholds(below_seconds=2.0, thresholds=(0.999, 0.001, 0.999))
    model = store(make_bundle(tmp_path / "windows", make_info(window_thresholds=windows)))
    done = run("calibrate", model, "--precision", "0.8", "--in-place")
    info = read_info(model)
    assert info.window_thresholds.thresholds == (0.999, info.thresholds[1], 0.999)
    assert "windows shorter than 2 s" in done.out
    assert "keep their own threshold where it is higher than the new one: 2 of 3 labels" in done.out


def test_command_says_which_thresholds_of_windows_change(run, model_with_window_thresholds):
    done = run("calibrate", model_with_window_thresholds, "--recall", "0.9")
    assert "they now have the new ones: low 0.100 → " in done.out.replace("\n", "")


def test_thresholds_of_windows_are_dropped_where_clips_are_fitted_again(model_with_window_thresholds):
    """They are for the former calibration and goal, and the windows' predictions are not stored."""
    result = calibrate(model_with_window_thresholds, goal=ThresholdGoal(kind="recall", at_least=0.9), in_place=True)
    assert read_info(model_with_window_thresholds).window_thresholds is None
    assert result.drops_window_thresholds
