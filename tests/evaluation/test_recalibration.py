"""A finished tagger's calibration and thresholds, fitted anew or set by hand."""

import json
import re
import sys
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit

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
from spectag.models.bundle import CARD_FILE, DataInfo, read_info
from spectag.models.out_of_fold import CALIBRATION_FILE, PREDICTIONS_FILE, OutOfFoldPredictions, write_out_of_fold
from spectag.scoring.calibration import cross_fitted, fit_calibration
from spectag.scoring.reliability_diagram import calibration_errors, expected_calibration_error
from spectag.scoring.thresholds import ThresholdGoal, fit_thresholds
from spectag.training.bundle_writer import check_output

N_CLIPS = 240
FILES = ("spectag.json", "model.onnx", CARD_FILE, PREDICTIONS_FILE)


def said(labels=LABELS) -> OutOfFoldPredictions:
    """Clips of which a network said too little: the truth comes true with thrice its logits plus 1."""
    rng = np.random.default_rng(3)
    logits = rng.normal(-0.5, 1, (N_CLIPS, 3))
    return OutOfFoldPredictions(
        labels=LabelSet(labels),
        fnames=tuple(f"{i}.wav" for i in range(N_CLIPS)),
        stretches=((0.0, None),) * N_CLIPS,
        folds=tuple(str(i % 4) for i in range(N_CLIPS)),
        groups=tuple(f"{i}" for i in range(N_CLIPS)),
        keys=tuple(f"{i:032x}" for i in range(N_CLIPS)),
        y_true=rng.random(logits.shape) < expit(3 * logits + 1),
        logits=logits,
    )


def keep(bundle, clips=None):
    write_out_of_fold(bundle / PREDICTIONS_FILE, clips or said())
    return bundle


@pytest.fixture
def model(tmp_path):
    return keep(make_bundle(tmp_path / "model"))


def contents(bundle):
    return {path.name: path.read_bytes() for path in bundle.iterdir() if path.is_file()}


def sound(label="low"):
    return tone(label, 1.0), 16_000


def test_a_tagger_is_calibrated_by_the_clips_it_keeps(model):
    before = spectag.load(model).answer(*sound())
    result = calibrate(model)
    clips, parts = said(), np.arange(N_CLIPS) % 4
    expected = fit_calibration(clips.logits, clips.y_true, parts=parts)
    tagger = spectag.load(model)
    after = tagger.answer(*sound())
    np.testing.assert_array_equal(before.logits, after.logits)
    np.testing.assert_allclose(after.probabilities, expected(before.logits), atol=1e-5)
    assert tagger.info.calibration_method == "auto"
    assert tagger.info.calibration == result.info.calibration
    thresholds = fit_thresholds(clips.y_true, expected(clips.logits))
    np.testing.assert_allclose(tagger.thresholds, thresholds, atol=1e-5)


def test_what_is_reported_was_fitted_on_other_clips(model):
    result = calibrate(model, goal=ThresholdGoal(kind="recall", at_least=0.8), method="platt")
    clips, parts = said(), np.arange(N_CLIPS) % 4
    goal = ThresholdGoal(kind="recall", at_least=0.8)
    cross = cross_fitted(clips.logits, clips.y_true, parts, method="platt", goal=goal)
    given = cross.probabilities >= cross.thresholds
    for label, row in enumerate(result.labels):
        truth = clips.y_true[:, label]
        hits = (truth & given[:, label]).sum()
        assert row.n_clips == truth.sum()
        assert row.precision == pytest.approx(hits / given[:, label].sum())
        assert row.recall == pytest.approx(hits / truth.sum())
        assert row.f1 == pytest.approx(2 * hits / (truth.sum() + given[:, label].sum()))
        assert row.ece_before == pytest.approx(expected_calibration_error(truth, expit(clips.logits[:, label])))
        assert row.ece_after == pytest.approx(expected_calibration_error(truth, cross.probabilities[:, label]))
    before, after = result.info.metrics["calibration"]["expected_calibration_error"]
    assert after < before / 2
    assert f"expected calibration error {after:.3f}; {before:.3f} before" in (model / CARD_FILE).read_text("utf-8")


def test_thresholds_by_hand_leave_all_else_and_need_neither_onnx_nor_torch(model, monkeypatch):
    calibrate(model, goal=ThresholdGoal(kind="precision", at_least=0.9), method="platt")
    before, info = contents(model), read_info(model)
    for name in ("onnx", "torch", "spectag.models.onnx_calibration"):
        monkeypatch.setitem(sys.modules, name, None)
    calibrate(model, thresholds={"middle": 0.25})
    now = read_info(model)
    assert now.thresholds == (info.thresholds[0], 0.25, info.thresholds[2])
    assert now.thresholds_fitted == (True, False, True)
    assert (now.calibration, now.threshold_goal, now.metrics) == (info.calibration, info.threshold_goal, info.metrics)
    calibrate(model, thresholds={"low": 0.75})  # one after the other
    assert read_info(model).thresholds == (0.75, 0.25, info.thresholds[2])
    assert contents(model)["model.onnx"] == before["model.onnx"]
    assert "| middle | 1 | 0.25 (not fitted) |" in (model / CARD_FILE).read_text("utf-8")


def test_a_goal_alone_leaves_the_calibration_and_needs_no_onnx(model, monkeypatch):
    calibrate(model, method="temperature")
    before = read_info(model)
    monkeypatch.setitem(sys.modules, "onnx", None)
    calibrate(model, goal=ThresholdGoal(kind="recall", at_least=0.95))
    now = read_info(model)
    assert (now.calibration, now.calibration_method) == (before.calibration, "temperature")
    assert all(new < old for new, old in zip(now.thresholds, before.thresholds, strict=True))
    monkeypatch.delitem(sys.modules, "spectag.models.onnx_calibration", raising=False)
    with pytest.raises(MissingExtraError, match=r"calibrating a tagger needs the package onnx.*spectag\[train\]"):
        calibrate(model, method="none")
    assert read_info(model) == now


def test_calibration_can_be_taken_out_again(model):
    plain = spectag.load(model).answer(*sound()).probabilities
    calibrate(model, method="isotonic")
    assert (spectag.load(model).answer(*sound()).probabilities != plain).any()
    calibrate(model, method="none")
    np.testing.assert_array_equal(spectag.load(model).answer(*sound()).probabilities, plain)
    assert read_info(model).calibration is None
    assert "its probabilities are not calibrated" in (model / CARD_FILE).read_text("utf-8")


def test_a_new_place_gets_all_files_and_the_old_one_stays(model, tmp_path):
    before = contents(model)
    (model / "notes.txt").write_text("mine", encoding="utf-8")
    output = tmp_path / "other folder" / "leiser ü"
    result = calibrate(model, output=output)
    assert result.bundle == output
    assert {name: text for name, text in contents(model).items() if name != "notes.txt"} == before
    assert contents(output).keys() == {*FILES, "notes.txt"}
    assert read_info(output).calibration is not None
    assert "# leiser ü" in (output / CARD_FILE).read_text("utf-8")
    with pytest.raises(BundleError, match="is there already"):
        calibrate(model, output=output)
    assert [path.name for path in output.parent.iterdir()] == ["leiser ü"]


def test_the_old_tagger_comes_back_where_the_new_one_cannot_take_its_place(model, monkeypatch):
    before = contents(model)
    rename = type(model).rename

    def fails_once(path, target):
        if target == model and path.name == model.name:
            raise OSError(13, "Permission denied")
        return rename(path, target)

    monkeypatch.setattr(type(model), "rename", fails_once)
    with pytest.raises(BundleError, match="can't be written: Permission denied"):
        calibrate(model, thresholds={"low": 0.75})
    assert contents(model) == before
    assert [path.name for path in model.parent.iterdir() if path.name.startswith(".")] == []


def test_what_fails_leaves_the_tagger_as_it_was(model, monkeypatch):
    before = contents(model)

    def fails(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("spectag.evaluation.recalibration.write_info", fails)
    with pytest.raises(BundleError, match="can't be written: No space left"):
        calibrate(model)
    assert contents(model) == before
    assert {path.name for path in model.iterdir()} == before.keys()


def test_a_damaged_network_is_named(model):
    (model / "model.onnx").write_bytes(b"no network")
    with pytest.raises(BundleError, match=r"model\.onnx: can't be read"):
        calibrate(model)


def test_several_networks_are_calibrated_together(tmp_path):
    front_ends = [FrontEnd(mel=MEL)] * 2
    model = keep(make_ensemble(tmp_path / "model", make_ensemble_info(front_ends, [0.5, 0.25], bias=0.5)))
    networks = [path.read_bytes() for path in sorted(model.glob("members/*/model.onnx"))]
    before = spectag.load(model).answer(*sound())
    calibrate(model)
    after = spectag.load(model).answer(*sound())
    assert [path.read_bytes() for path in sorted(model.glob("members/*/model.onnx"))] == networks
    np.testing.assert_allclose(after.probabilities, read_info(model).calibration(before.logits), atol=1e-5)


def test_labels_of_too_few_clips_get_the_default(model):
    clips = said()
    clips.y_true[2:, 1] = False
    result = calibrate(keep(model, clips))
    assert [row.origin for row in result.labels] == ["fitted", "default", "fitted"]
    assert read_info(model).thresholds[1] == 0.5
    assert read_info(model).thresholds_fitted == (True, False, True)


def test_a_goal_out_of_reach_is_told(model):
    clips = said()
    best = clips.logits[:, 0].argsort()[-20:]
    clips.y_true[best, 0] = False  # the surest are wrong
    result = calibrate(keep(model, clips), goal=ThresholdGoal(kind="precision", at_least=0.99))
    assert [row.misses_goal for row in result.labels] == [True, False, False]


def test_a_tagger_that_keeps_no_clips_asks_for_a_manifest(tmp_path):
    bundle = make_bundle(tmp_path / "model")
    with pytest.raises(BundleError, match=r"keeps no clips that were held out.*spectag calibrate .*model MANIFEST"):
        calibrate(bundle)
    result = calibrate(bundle, thresholds={"high": 0.125})
    assert [(row.label, row.threshold, row.origin) for row in result.labels] == [("high", 0.125, "set")]
    assert read_info(bundle).thresholds == (0.5, 0.4, 0.125)


def test_clips_of_one_recording_calibrate_nothing_and_are_not_judged(model):
    clips = replace(said(), folds=("1",) * N_CLIPS, groups=("one",) * N_CLIPS)
    result = calibrate(keep(model, clips))
    assert result.info.calibration is None
    assert np.isnan([row.f1 for row in result.labels]).all()
    assert "calibration" not in result.info.metrics


def test_a_threshold_of_no_label_or_no_probability_is_refused(model):
    with pytest.raises(ConfigError, match=r"no label 'hihg'; did you mean 'high'\? It knows low, middle, high"):
        calibrate(model, thresholds={"hihg": 0.3})
    for threshold in (1.5, float("nan")):
        with pytest.raises(ConfigError, match="from 0 to 1"):
            calibrate(model, thresholds={"high": threshold})


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


def test_clips_of_a_manifest_tell_of_their_labels_alone(tmp_path, manifest):
    bundle = make_bundle(tmp_path / "model", make_info(thresholds_fitted=(False,) * 3))
    before = spectag.load(bundle).answer(*sound("middle"))
    result = calibrate(bundle, manifest=read_manifest(manifest), method="platt")
    after = spectag.load(bundle).answer(*sound("middle"))
    assert [row.label for row in result.labels] == ["low", "high"]
    assert result.n_clips == 12
    assert [clip.fname for clip, _ in result.skipped] == ["leer.wav"]
    assert after.probabilities[1] == pytest.approx(before.probabilities[1])
    assert (after.probabilities[[0, 2]] != before.probabilities[[0, 2]]).all()
    assert read_info(bundle).thresholds[1] == 0.4
    assert read_info(bundle).metrics["calibration"]["on"] == "new.csv"
    calibrate(bundle, manifest=read_manifest(manifest), method="platt")  # by the logits, not twice over
    again = spectag.load(bundle).answer(*sound("middle"))
    np.testing.assert_allclose(again.probabilities, after.probabilities, atol=1e-3)


def test_clips_that_calibrated_are_judged_by_what_the_other_clips_call_for(tmp_path, manifest):
    bundle, clips = make_bundle(tmp_path / "model"), read_manifest(manifest)
    result = calibrate(bundle, manifest=clips, method="platt", thresholds={"high": 0.25})
    tagger, told = spectag.load(bundle), [0, 2]
    now, found = predict(tagger, clips.clips), predict_out_of_fold(tagger, clips)
    assert set(found.origins) == {"new"}
    assert (found.probabilities[:, told] != now.probabilities[:, told]).any(axis=1).all()
    np.testing.assert_array_equal(found.probabilities[:, 1], now.probabilities[:, 1])  # no clip has the label
    assert calibration_errors(found.y_true, found.probabilities)[told] == pytest.approx(
        [row.ece_after for row in result.labels], abs=1e-6
    )
    assert (found.thresholds[:, 1:] == np.float32([0.4, 0.25])).all()  # the bundle's, and by hand


def test_a_clip_that_calibrated_has_no_say_in_how_it_is_judged(tmp_path, manifest):
    header, *rows = manifest.read_text(encoding="utf-8").splitlines()[:-1]
    manifest.write_text(
        "\n".join([f"{header},fold", *(f"{row},{i % 3}" for i, row in enumerate(rows))]), encoding="utf-8"
    )
    lies = manifest.with_name("lies.csv")
    lies.write_text(manifest.read_text(encoding="utf-8").replace("tön 4.wav,low", "tön 4.wav,high"), encoding="utf-8")
    judged = []
    for name, path in (("honest", manifest), ("lied", lies)):
        bundle = make_bundle(tmp_path / name)
        calibrate(bundle, manifest=read_manifest(path), method="platt")
        judged.append(predict_out_of_fold(spectag.load(bundle), read_manifest(manifest)))
    for values in ("probabilities", "thresholds"):
        honest, lied = (getattr(each, values) for each in judged)
        np.testing.assert_array_equal(honest[1::3], lied[1::3])
    assert (judged[0].probabilities[0] != judged[1].probabilities[0]).any()


def test_labels_that_a_manifest_tells_nothing_of_are_judged_as_before(tmp_path, manifest):
    """A training clip: of `middle`, curve and threshold stay those that its likes in training call for."""
    clips = read_manifest(manifest, labels=LabelSet(LABELS))
    keys = tuple(clip_key(clip) or f"{i}" for i, clip in enumerate(clips.clips)) + tuple(map(str, range(13, N_CLIPS)))
    other = manifest.with_name("other.csv")
    other.write_text("\n".join(manifest.read_text(encoding="utf-8").splitlines()[:7]), encoding="utf-8")
    bundle = keep(make_bundle(tmp_path / "model"), replace(said(), keys=(*keys[6:], *keys[:6])))
    calibrate(bundle, method="platt")
    before = predict_out_of_fold(spectag.load(bundle), clips)
    keep(bundle, replace(said(), keys=(*keys[6:], *(f"-{i}" for i in range(6)))))  # the first six are new to it
    calibrate(bundle, manifest=read_manifest(other), method="platt")
    tagger = spectag.load(bundle)
    after = predict_out_of_fold(tagger, clips)
    assert after.origins == ("new",) * 6 + ("held out",) * 6
    np.testing.assert_array_equal(after.probabilities[6:, 1], before.probabilities[6:, 1])
    np.testing.assert_array_equal(after.thresholds[6:, 1], before.thresholds[6:, 1])
    assert len(set(after.thresholds[6:, 1])) > 1
    for label in (0, 2):  # as it says now, for it was fitted on other clips
        assert set(after.thresholds[6:, label]) == {tagger.thresholds[label]}
        assert (after.probabilities[6:, label] != before.probabilities[6:, label]).all()


def test_the_training_clips_take_the_place_of_a_manifest_that_calibrated(tmp_path, manifest):
    bundle, clips = keep(make_bundle(tmp_path / "model")), read_manifest(manifest)
    calibrate(bundle, manifest=clips, method="platt")
    calibrate(bundle, goal=ThresholdGoal(kind="recall", at_least=0.9))
    assert CALIBRATION_FILE in contents(bundle)  # whose curves stayed
    check_output(bundle)  # is a tagger still, whose place another may take
    calibrate(bundle, method="platt", output=tmp_path / "new")
    calibrate(bundle, method="platt")
    for folder in (bundle, tmp_path / "new"):
        assert CALIBRATION_FILE not in contents(folder)
    tagger = spectag.load(bundle)
    found, now = predict_out_of_fold(tagger, clips), predict(tagger, clips.clips)
    np.testing.assert_array_equal(found.probabilities, now.probabilities)


def test_a_manifest_that_tells_nothing_is_refused(tmp_path, manifest):
    bundle = make_bundle(tmp_path / "model")
    before = contents(bundle)
    strange = manifest.with_name("strange.csv")
    strange.write_text("fname,labels\ntön 0.wav,Zebra\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"strange\.csv: the tagger knows none of its 1 labels \(Zebra\)"):
        calibrate(bundle, manifest=read_manifest(strange))
    few = manifest.with_name("few.csv")
    few.write_text("fname,labels\ntön 0.wav,low\ntön 2.wav,low\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"few\.csv: no label of the tagger's has 3 clips"):
        calibrate(bundle, manifest=read_manifest(few))
    assert contents(bundle) == before


def test_a_published_tagger_keeps_its_card(tmp_path, manifest):
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
    calibrate(bundle, manifest=read_manifest(manifest), method="platt")
    card = (bundle / CARD_FILE).read_text(encoding="utf-8")
    assert "To be cited as: Schmid et al." in card
    assert "on 12 clips of new.csv" in card
    assert "2 of them were fitted to reach the best F1" in card


def test_command_prints_a_row_for_each_label_and_json_for_programs(run, model, tmp_path):
    status, out, _ = run("calibrate", model, "--precision", "0.9", "--set", "middle=0.25", "-o", tmp_path / "new")
    assert re.search(r"a precision of at least 0.9; reached by \d of \d labels on clips that it was not fitted on", out)
    assert status == 0
    rows = {
        line.split()[0]: line.split()[1:] for line in out.splitlines() if line.split()[:1] and line.split()[0] in LABELS
    }
    assert rows["middle"][1:3] == ["0.250", "set"]
    assert "thresholds: a precision of at least 0.9" in out
    status, out, _ = run("calibrate", model, "--json")
    found = json.loads(out)
    assert [row["label"] for row in found["labels"]] == list(LABELS)
    assert found["calibration"] in ("temperature", "platt", "isotonic")
    assert found["goal"] == {"kind": "f1", "at_least": None}


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--f1", "--recall", "0.9"], 2, "--f1, --precision and --recall are three goals; give one of them"),
        (["--set", "low"], 2, "--set low: give a label and its threshold, such as --set Dog=0.3"),
        (["--set", "lwo=0.3"], 1, "did you mean 'low'?"),
        (["--precision", "1.5"], 2, "Must be <= 1"),
    ],
)
def test_wrong_usage_is_told_in_a_line(run, model, arguments, status, words):
    before = contents(model)
    found, _, err = run("calibrate", model, *arguments)
    assert (found, contents(model)) == (status, before)
    assert words in err


def test_a_published_tagger_is_not_changed_in_its_place(run):
    status, _, err = run("calibrate", "audioset-mn04", "--set", "Dog=0.3")
    assert status == 2
    assert "say by -o where yours is to go" in err


def test_skipped_clips_are_named_and_in_the_status(run, tmp_path, manifest):
    bundle = make_bundle(tmp_path / "model")
    status, _, err = run("calibrate", bundle, manifest)
    assert status == 3
    assert "leer.wav" in err
