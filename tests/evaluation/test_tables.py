"""Evaluations from DataFrames and as DataFrames."""

import numpy as np
import pandas
import pytest

from helpers.bundles import make_bundle, tone
from spectag.audio.files import write_audio
from spectag.data.manifest import read_manifest
from spectag.errors import ConfigError, DataError
from spectag.evaluation.evaluation import evaluate
from spectag.evaluation.output import write_evaluation
from spectag.scoring.scores import score_predictions

LABELS = ("high", "low", "middle")


@pytest.fixture
def tagger(tmp_path):
    return make_bundle(tmp_path / "model")


@pytest.fixture
def frame(tmp_path, monkeypatch):
    """Four clips of each label, in the working directory."""
    monkeypatch.chdir(tmp_path)
    rows = [(f"{label} {number}.wav", label, f"site {number % 2}") for number in range(4) for label in LABELS]
    for number, (name, label, _) in enumerate(rows):
        write_audio(tmp_path / name, tone(label, 0.2 + number / 1000), 16_000)
    return pandas.DataFrame(rows, columns=["fname", "labels", "site"])


def test_dataframe_gives_the_scores_of_the_csv(tagger, frame):
    frame.to_csv("clips.csv", index=False)
    of_frame, of_csv = evaluate(tagger, frame, by=["site"]), evaluate(tagger, "clips.csv", by=["site"])
    assert of_frame.models[0].to_dict()["overall"] == of_csv.models[0].to_dict()["overall"]
    assert [(part.by, part.value, part.n_clips) for part in of_frame.slices] == [
        (part.by, part.value, part.n_clips) for part in of_csv.slices
    ]
    assert ("site", "site 0", 6) in {(part.by, part.value, part.n_clips) for part in of_frame.slices}
    with pytest.raises(DataError, match=r"'sites'.*did you mean 'site'"):
        evaluate(tagger, frame, by=["sites"])


@pytest.mark.parametrize("name", ["per_label", "slices", "comparisons"])
def test_dataframe_equals_the_file(tagger, frame, tmp_path, name):
    evaluation = evaluate(tagger, frame, compare=[tagger])
    write_evaluation(evaluation, tmp_path / "out")
    written = pandas.read_csv(tmp_path / "out" / f"{name}.csv")
    pandas.testing.assert_frame_equal(
        evaluation.to_dataframe(name), written, check_dtype=False, rtol=1e-5, check_column_type=False
    )


def test_predictions_equal_the_file(tagger, frame, tmp_path):
    evaluation = evaluate(tagger, frame)
    write_evaluation(evaluation, tmp_path / "out")
    written = pandas.read_parquet(tmp_path / "out" / "predictions.parquet")
    table = evaluation.to_dataframe("predictions")
    assert list(table.columns) == list(written.columns)
    assert np.array_equal(table[list(LABELS)], written[list(LABELS)])
    assert table.fname.tolist() == written.fname.tolist() == frame.fname.tolist()


def test_scores_have_a_row_for_each_score_of_each_model(tagger, frame):
    evaluation = evaluate(tagger, frame, compare=[tagger])
    table = evaluation.to_dataframe().set_index(["model", "metric"])
    first = evaluation.models[0]
    row = table.loc[(first.name, "lwlrap")]
    assert tuple(row) == (first.overall["lwlrap"].value, first.overall["lwlrap"].low, first.overall["lwlrap"].high)
    assert table.loc[(first.name, "calibration_error")].value == first.calibration.reliability_after.error
    assert {name for name, _ in table.index} == {model.name for model in evaluation.models}


def test_unknown_table_is_an_error_that_lists_all(tagger, frame):
    with pytest.raises(
        ConfigError, match=r"no table 'label'; did you mean 'per_label'\? Choose one of scores, per_label"
    ):
        evaluate(tagger, frame).to_dataframe("label")


def test_texts_fit_a_line(tagger, frame):
    evaluation = evaluate(tagger, frame)
    assert repr(evaluation) == "Evaluation(model lwlrap 1.000 (0.758 to 1.000); 12 clips of DataFrame)"
    assert repr(read_manifest(frame)) == "Manifest(DataFrame: 12 clips, 3 labels)"
    scores = score_predictions(np.eye(3, dtype=bool), np.eye(3), "abc")
    assert repr(scores).startswith("Scores(lwlrap 1.000")
    assert repr(scores).endswith("mean_average_precision 1.000, f1_macro 1.000, top1_accuracy 1.000; 3 clips)")
