import csv
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit

from helpers.bundles import LABELS, make_bundle, make_info, tone
from spectag.audio.files import write_audio
from spectag.data.folds import stratified_folds
from spectag.data.labels import LabelSet
from spectag.data.manifest import read_manifest
from spectag.errors import BundleError
from spectag.models.out_of_fold import (
    OUT_OF_FOLD_COLUMNS,
    OUT_OF_FOLD_FILE,
    OutOfFoldPredictions,
    portable_clip_names,
    portable_group_names,
    read_out_of_fold,
    write_out_of_fold,
)
from spectag.scoring.metrics import lwlrap


def make_clips(n_clips=60, *, folds=("1", "2", "3"), labels=LABELS, seed=0):
    """Clips with one of three labels, which most logits predict; every fifth clip was not held out."""
    rng = np.random.default_rng(seed)
    y_true = np.eye(3, dtype=bool)[np.arange(n_clips) % 3]
    logits = rng.normal(size=(n_clips, 3)) + 3 * y_true - 1.5
    logits[::5] = np.nan
    return OutOfFoldPredictions(
        labels=LabelSet(labels),
        fnames=tuple(f"klang ü {i}.wav" for i in range(n_clips)),
        spans=tuple((i / 3, i / 3 + 1) if i % 2 else (0.0, None) for i in range(n_clips)),
        folds=tuple("" if i % 5 == 0 else folds[i // 5 % len(folds)] for i in range(n_clips)),
        groups=tuple(f"recording {i // 2}" for i in range(n_clips)),
        keys=tuple(f"{i:032x}" for i in range(n_clips)),
        y_true=y_true,
        logits=logits,
    )


def write(folder, clips, labels=LABELS):
    bundle = make_bundle(folder, make_info(labels=labels))
    write_out_of_fold(bundle / OUT_OF_FOLD_FILE, clips)
    return bundle


def test_clips_are_read_as_they_were_written(tmp_path):
    labels = ("Rain, heavy", 'Bell "big"', "Größe | weiß")
    clips = make_clips(labels=labels)
    loaded = read_out_of_fold(write(tmp_path / "model", clips, labels))
    assert loaded.labels == clips.labels
    for name in ("fnames", "spans", "folds", "groups", "keys"):
        assert getattr(loaded, name) == getattr(clips, name)
    np.testing.assert_array_equal(loaded.y_true, clips.y_true)
    np.testing.assert_allclose(loaded.logits, clips.logits, rtol=1e-6, atol=1e-8)


def test_table_has_uncalibrated_probabilities_and_empty_fields_for_clips_that_were_not_held_out(tmp_path):
    clips = make_clips()
    with (write(tmp_path / "model", clips) / OUT_OF_FOLD_FILE).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [*OUT_OF_FOLD_COLUMNS, *LABELS]
    assert [rows[0][label] for label in LABELS] == ["", "", ""]
    assert [float(rows[1][label]) for label in LABELS] == pytest.approx(expit(clips.logits[1]), abs=1e-9)
    assert rows[1]["labels"] == '["middle"]'


def test_extreme_logits_are_clipped(tmp_path):
    clips = make_clips(6)
    clips = replace(clips, logits=np.array([[-800.0, 800.0, 0.0]] * 6))
    loaded = read_out_of_fold(write(tmp_path / "model", clips))
    assert np.isfinite(loaded.logits).all()
    assert (loaded.logits[:, 1] > 20).all()
    assert (loaded.logits[:, 0] < -20).all()


def test_tagger_without_the_file_has_no_predictions(tmp_path):
    assert read_out_of_fold(make_bundle(tmp_path / "model")) is None


def test_table_of_another_tagger_is_refused(tmp_path):
    bundle = write(tmp_path / "model", make_clips(labels=("a", "b", "c")))
    with pytest.raises(BundleError, match=r"predictions.csv: the columns do not match the 3 labels"):
        read_out_of_fold(bundle)


@pytest.mark.parametrize(("old", "new"), [("1.3333333333333333", "soon"), ("low", "lwo")])
def test_damaged_table_is_an_error(tmp_path, old, new):
    path = write(tmp_path / "model", make_clips()) / OUT_OF_FOLD_FILE
    header, rows = path.read_text(encoding="utf-8").split("\n", 1)
    path.write_text(header + "\n" + rows.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(BundleError, match=r"predictions.csv: damaged"):
        read_out_of_fold(tmp_path / "model")


def test_labels_with_names_of_columns_and_undecodable_file_names_are_kept(tmp_path):
    labels = ("Fold", "key", "start")
    clips = replace(make_clips(6, labels=labels), fnames=tuple(f"k\udcff{i}.wav" for i in range(6)))
    loaded = read_out_of_fold(write(tmp_path / "model", clips, labels))
    assert loaded.fnames[0] == "k\\udcff0.wav"
    np.testing.assert_array_equal(loaded.y_true, clips.y_true)
    np.testing.assert_allclose(loaded.logits, clips.logits, rtol=1e-6, atol=1e-8)


def test_other_training_clips_are_added_without_predictions_and_without_copies():
    clips, others = make_clips(6), replace(make_clips(9, seed=1), groups=("other",) * 9)
    both = clips.with_training_clips(others)
    assert both.keys == others.keys
    assert both.groups == (*clips.groups, "other", "other", "other")
    assert both.folds == (*clips.folds, "", "", "")
    np.testing.assert_array_equal(both.logits[:6], clips.logits)
    assert not both.has_prediction[6:].any()
    np.testing.assert_array_equal(both.y_true, others.y_true)


def test_table_without_clips_is_an_error(tmp_path):
    path = write(tmp_path / "model", make_clips()) / OUT_OF_FOLD_FILE
    path.write_text(path.read_text(encoding="utf-8").split("\n", 1)[0] + "\n", encoding="utf-8")
    with pytest.raises(BundleError, match=r"predictions.csv: damaged: the file has no clips"):
        read_out_of_fold(tmp_path / "model")


def test_names_do_not_reveal_the_folders_of_the_machine(tmp_path):
    rows = ["fname,labels,group", f"{tmp_path}/x/a.wav,low,", f"{tmp_path}/y/a.wav,low,", "b.wav,high,site"]
    for name in ("x/a.wav", "y/a.wav", "b.wav"):
        write_audio(tmp_path / name, tone("low", 0.1), 16_000)
    (tmp_path / "clips.csv").write_text("\n".join(rows), encoding="utf-8")
    manifest = read_manifest(tmp_path / "clips.csv")
    assert portable_clip_names(manifest) == ("x/a.wav", "y/a.wav", "b.wav")
    assert portable_group_names(manifest) == ("x/a.wav", "y/a.wav", "site")


@pytest.mark.parametrize("folds", [("a", "b", "c"), ("valid",)])
def test_clips_are_dealt_into_five_folds_for_cross_fitting_that_keep_recordings_together(folds):
    clips = make_clips(folds=folds)
    assert set(clips.fold_indices) == {-1, 0, 1, 2, 3, 4}
    assert (clips.fold_indices[~clips.has_prediction] == -1).all()
    fold_of_group = {}
    for group, fold in zip(clips.groups, clips.fold_indices, strict=True):
        if fold >= 0:
            assert fold_of_group.setdefault(group, fold) == fold


def test_folds_for_cross_fitting_do_not_depend_on_labels_or_on_the_folds_of_the_networks(rng):
    clips = make_clips()
    others = replace(clips, y_true=rng.random(clips.y_true.shape) < 0.2, folds=tuple(rng.permutation(clips.folds)))
    np.testing.assert_array_equal(clips.fold_indices, others.fold_indices)


def test_calibrated_noise_scores_no_better_than_noise():
    """Noise of 80 labels tells nothing about new clips, so calibration must not raise its score."""
    gains = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        clips = make_clips(300, folds=("1", "2", "3", "4", "5"))
        y_true = np.eye(80, dtype=bool)[rng.integers(80, size=300)]
        folds = tuple(map(str, stratified_folds(y_true, 5, seed=seed)))
        groups = tuple(map(str, range(300)))
        logits = rng.normal(-3, 1, y_true.shape)
        clips = replace(clips, labels=LabelSet(tuple(map(str, range(80)))), folds=folds, groups=groups, y_true=y_true)
        clips = replace(clips, logits=logits)
        gains.append(lwlrap(y_true, clips.cross_fitted(method="platt").probabilities) - lwlrap(y_true, logits))
    assert np.mean(gains) == pytest.approx(0, abs=0.005)


def test_single_recording_is_one_fold_with_uncalibrated_probabilities():
    clips = make_clips(10, folds=("valid",))
    clips = replace(clips, groups=("one",) * 10)
    assert set(clips.fold_indices) == {-1, 0}
    fitted = clips.cross_fitted()
    np.testing.assert_array_equal(fitted.probabilities, expit(clips.logits))
    assert set(fitted.thresholds[clips.has_prediction].ravel()) == {0.5}


def test_fold_is_fitted_without_its_own_truth():
    clips = make_clips(90)
    in_fold = clips.fold_indices == 1
    changed = replace(clips, y_true=np.where(in_fold[:, None], ~clips.y_true, clips.y_true))
    for name in ("probabilities", "thresholds"):
        before, after = (getattr(each.cross_fitted(method="platt"), name) for each in (clips, changed))
        np.testing.assert_array_equal(before[in_fold], after[in_fold])
        assert not np.array_equal(before[clips.fold_indices == 0], after[clips.fold_indices == 0])
