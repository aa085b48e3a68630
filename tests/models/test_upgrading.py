"""Models of format version 1: what `spectag upgrade` makes of them."""

import csv
import json

import numpy as np
import pytest

import spectag
from helpers.bundles import make_bundle, tone
from spectag.audio.files import write_audio
from spectag.config.base import parse_config, read_toml
from spectag.config.recipe import Recipe
from spectag.errors import BundleError, ConfigError
from spectag.models.bundle import INFO_FILE, read_info
from spectag.models.out_of_fold import read_out_of_fold
from spectag.system.atomic_files import sha256_of

OLD_RECIPE = """\
backbone = "mn04_audioset"
valid_share = 0.2
valid_rows = "random"
keep = "folds"
mixes = 300

[augment]
masks = 0.5
off_share = 0.2

[noisy_labels]
own_head = true
"""
PREDICTIONS = """\
fname,start,end,fold,group,labels,key,low,middle,high
=1+1.wav,,,1,@site,"[""low""]",aa,0.9,0.1,0.2
b.wav,0.5,2.0,2,b,"[""high"", ""low""]",bb,,,
"""
NEW_FIELDS = ("sha256", "novelty", "training_sounds", "window_thresholds", "labels_missing_goal")


def make_old(folder, **changes):
    """A model as the last spectag with format version 1 wrote it."""
    make_bundle(folder)
    values = json.loads((folder / INFO_FILE).read_text(encoding="utf-8"))
    for name in NEW_FIELDS:
        values.pop(name)
    del values["front_end"]["channel"], values["backbone"]["clip_windows"]
    values["threshold_goal"] = {"kind": "f1", "at_least": None}
    (folder / INFO_FILE).write_text(json.dumps(values | {"format_version": 1} | changes), encoding="utf-8")
    (folder / "recipe.toml").write_text(OLD_RECIPE, encoding="utf-8")
    (folder / "predictions.csv").write_text(PREDICTIONS, encoding="utf-8")
    (folder / "README.md").write_text("# old\n", encoding="utf-8")
    return folder


@pytest.fixture
def old(tmp_path):
    return make_old(tmp_path / "altes Modell")


def test_old_model_is_one_line_that_names_the_command(run, old, tmp_path):
    done = run("labels", old)
    assert done.status == 1
    assert f"reads version 2; run spectag upgrade {old} --in-place, or train" in done.err


def test_upgraded_model_tags_as_the_network_did(old, tmp_path):
    write_audio(tmp_path / "a.wav", tone("low", 0.5), 16_000)
    twin = spectag.load(make_bundle(tmp_path / "twin")).tag(tmp_path / "a.wav")  # the same network and settings
    network = sha256_of(old / "model.onnx")
    assert spectag.upgrade(old, in_place=True) == old
    tagger = spectag.load(old)
    np.testing.assert_array_equal(tagger.tag(tmp_path / "a.wav").probabilities, twin.probabilities)
    assert tagger.info.format_version == 2
    assert tagger.info.sha256 == {"model.onnx": network}
    assert "upgraded_by" in tagger.info.versions
    assert "upgraded" not in (old / "README.md").read_text()
    assert "spectag tag 'altes Modell' recording.wav" in (old / "README.md").read_text()


def test_new_folder_gets_the_model_and_the_old_one_stays(run, old, tmp_path):
    before = {path.name: path.read_bytes() for path in old.iterdir()}
    done = run("upgrade", old, "-o", tmp_path / "neu")
    assert (done.status, done.out) == (0, f"{tmp_path / 'neu'}\n")
    assert "novelty, frames and thresholds of windows need a new training" in done.err
    assert {path.name: path.read_bytes() for path in old.iterdir()} == before
    assert set(before) == {path.name for path in (tmp_path / "neu").iterdir()}


def test_settings_of_the_recipe_have_the_names_of_today(old):
    spectag.upgrade(old, in_place=True)
    recipe = parse_config(read_toml(old / "recipe.toml"), Recipe, source="recipe.toml")
    assert (recipe.validation_fraction, recipe.validation_split, recipe.final_model) == (0.2, "random", "ensemble")
    assert (recipe.n_mixed_clips, recipe.noisy_labels.separate_head) == (300, True)
    assert (recipe.augment.spec_augment, recipe.augment.disable_last_fraction) == (0.5, 0.2)
    assert (recipe.classifier, recipe.name_prior, recipe.clip_windows) == ("logistic", False, False)
    assert not recipe.find_shared_audio


def test_recipe_that_cannot_be_read_stays_as_it_was_and_this_is_said(old):
    (old / "recipe.toml").write_text("surprise = 1\n", encoding="utf-8")
    lines = []
    spectag.upgrade(old, in_place=True, log=lines.append)
    assert (old / "recipe.toml").read_text() == "surprise = 1\n"
    assert any(line.startswith("recipe.toml stays as it was") and "surprise" in line for line in lines)


def test_predictions_are_those_of_before_with_formulas_as_text(old):
    spectag.upgrade(old, in_place=True)
    clips = read_out_of_fold(old)
    assert clips.spans == ((0.0, None), (0.5, 2.0))
    assert clips.y_true.tolist() == [[True, False, False], [True, False, True]]
    assert clips.has_prediction.tolist() == [True, False]
    with (old / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert [row[0] for row in rows[1:]] == ["'=1+1.wav", "b.wav"]
    assert [row[4] for row in rows[1:]] == ["'@site", "b"]


def test_thresholds_for_a_precision_are_not_shown_to_reach_it(tmp_path):
    goal = {"kind": "precision", "at_least": 0.9}
    old, lines = make_old(tmp_path / "old", threshold_goal=goal), []
    spectag.upgrade(old, in_place=True, log=lines.append)
    info = read_info(old)
    assert info.thresholds == (0.5, 0.4, 0.6)
    assert info.labels_missing_goal == ("low", "middle")  # the threshold of the third is not fitted
    assert any("fitted without confidence; fit them again: spectag calibrate" in line for line in lines)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 2}, "has format version 2 already; there is nothing to upgrade"),
        ({"format_version": 3}, "reads version 2; update spectag"),
        ({"format_version": 0}, "spectag.json: format version 0 cannot be upgraded; train the model again: spectag"),
        ({"format_version": "1"}, "format version '1' cannot be upgraded; train the model again"),
        ({"format_version": None}, "a model without a format version cannot be upgraded; train the model again"),
        (
            {"labels": ["low", "low", "high"]},
            "cannot be upgraded: damaged: need unique labels, .*; train the model",
        ),
        ({"surprise": 1}, "cannot be upgraded: damaged at surprise: .*; train the model again: spectag train"),
    ],
)
def test_model_that_cannot_be_upgraded_does_not_change(tmp_path, changes, message):
    old = make_old(tmp_path / "old", **changes)
    before = {path.name: path.read_bytes() for path in old.iterdir()}
    with pytest.raises(BundleError, match=message):
        spectag.upgrade(old, in_place=True)
    assert {path.name: path.read_bytes() for path in old.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_network_of_another_kind_is_refused_and_nothing_is_left(old, tmp_path):
    (old / "model.onnx").write_bytes(b"not a network")
    with pytest.raises(BundleError, match=r"model\.onnx: not an ONNX file, or damaged"):
        spectag.upgrade(old, in_place=True)
    assert json.loads((old / INFO_FILE).read_text())["format_version"] == 1
    assert [path.name for path in tmp_path.iterdir()] == [old.name]


def test_missing_model_and_missing_output_are_one_line(run, old, tmp_path):
    with pytest.raises(ConfigError, match="give either output"):
        spectag.upgrade(old)
    with pytest.raises(BundleError, match="already exists; choose another folder"):
        spectag.upgrade(old, output=tmp_path)
    done = run("upgrade", tmp_path / "gone", "--in-place")
    assert (done.status, done.out) == (1, "")
    assert "not a tagger: no file spectag.json" in done.err
