"""The requests of the Model view: the card, precision and recall of thresholds, and new versions."""

import json

import numpy as np
import pytest
from scipy.special import expit
from starlette.testclient import TestClient

from helpers.bundles import LABELS, make_bundle, make_info, tone
from spectag.audio.files import write_audio
from spectag.audio.sound_statistics import SoundStatistics
from spectag.data.labels import LabelSet
from spectag.evaluation.recalibration import calibrate
from spectag.models.bundle import DataInfo, read_info
from spectag.models.novelty import NoveltyInfo
from spectag.models.out_of_fold import OUT_OF_FOLD_FILE, OutOfFoldPredictions, write_out_of_fold
from spectag.models.training_sounds import TrainingSounds
from spectag.serving import create_app
from spectag.serving.model_answers import THRESHOLDS

PORT = 8123
N_CLIPS = 300


def store_predictions(bundle):
    """Clips with predictions of networks that were not trained on them; the truth of some labels is unknown."""
    rng = np.random.default_rng(3)
    logits = rng.normal(-0.5, 1, (N_CLIPS, 3))
    clips = OutOfFoldPredictions(
        labels=LabelSet(LABELS),
        fnames=tuple(f"{i}.wav" for i in range(N_CLIPS)),
        spans=((0.0, None),) * N_CLIPS,
        folds=tuple(str(i % 4) for i in range(N_CLIPS)),
        groups=tuple(f"{i // 2}" for i in range(N_CLIPS)),
        keys=tuple(f"{i:032x}" for i in range(N_CLIPS)),
        y_true=rng.random(logits.shape) < expit(3 * logits + 1),
        logits=logits,
        known=rng.random(logits.shape) < 0.9,
    )
    write_out_of_fold(bundle / OUT_OF_FOLD_FILE, clips)
    return bundle


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    statistics = [SoundStatistics(level_dbfs=-20.0, bandwidth_hz=7_000.0)] * 3
    info = make_info(
        novelty=NoveltyInfo(n_held_out=40),
        training_sounds=TrainingSounds.of(statistics, [1.0, 2.0, 3.0]),
        data=DataInfo(name="field", n_clips=300, n_clips_per_label=(10, 20, 30), fingerprint="0"),
    )
    return store_predictions(make_bundle(tmp_path_factory.mktemp("models") / "my model", info))


def client_of(model, **settings):
    return TestClient(create_app(model, workers=1, port=PORT, **settings), base_url=f"http://127.0.0.1:{PORT}")


@pytest.fixture(scope="module")
def client(model):
    with client_of(model) as client:
        yield client


@pytest.fixture(scope="module")
def scores(client):
    answer = client.get("/views/model/scores")
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_card_tells_what_the_model_is(client, model):
    card = client.get("/views/model/card").json()
    assert card["reference"] == str(model.resolve())
    assert card["shell"] == f"'{model.resolve()}'"  # with a space in it
    assert (card["needs_token"], card["has_project"]) == (False, False)
    assert [label["label"] for label in card["labels"]] == list(LABELS)
    assert [label["n_clips"] for label in card["labels"]] == [10, 20, 30]
    assert card["novelty"] == {"network": 0, "kept_fraction": 0.97, "n_held_out": 40}
    assert card["training_sounds"]["duration_seconds"]["median"] == 2.0
    assert card["networks"][0]["licence"] == "none"
    assert card["card"].startswith("---\nlibrary_name: spectag")


@pytest.mark.parametrize("metrics", [{"lwlrap": "high", "intervals": [1]}, {"lwlrap": float("inf"), "intervals": {}}])
def test_scores_of_a_stranger_that_are_no_numbers_are_left_out(tmp_path, metrics):
    bundle = make_bundle(tmp_path / "model")
    info = json.loads((bundle / "spectag.json").read_text())
    info["metrics"] = {**metrics, "mean_average_precision": 0.5, "intervals": metrics["intervals"]}
    if metrics["lwlrap"] == float("inf"):
        info["metrics"]["lwlrap"] = True
    (bundle / "spectag.json").write_text(json.dumps(info))
    (bundle / "README.md").write_text("# <b>card</b>")
    with client_of(bundle) as client:
        card = client.get("/views/model/card").json()
    assert {name for name, value in card["scores"].items() if value} == {"mean_average_precision"}


@pytest.mark.parametrize("threshold", [0.05, 0.3, 0.62, 0.99])
def test_precision_and_recall_are_those_that_calibrate_prints_for_this_threshold(model, scores, threshold):
    found = {row.label: row for row in calibrate(model, thresholds=dict.fromkeys(LABELS, threshold)).labels}
    at = THRESHOLDS.index(threshold)
    for label, counts in scores["labels"].items():
        right, detected = counts["right"][at], counts["detected"][at]
        precision = right / detected if detected else np.nan
        assert found[label].precision == pytest.approx(precision, nan_ok=True)
        assert found[label].recall == pytest.approx(right / counts["n_clips"])


def test_precision_and_recall_of_the_model_are_those_of_thresholds_fitted_on_other_clips(model, scores):
    rows = {row.label: row for row in calibrate(model, thresholds={"low": 0.5}).labels}
    for label in ("middle", "high"):
        now = scores["labels"][label]["now"]
        assert rows[label].precision == pytest.approx(now["right"] / now["detected"])
        assert rows[label].recall == pytest.approx(now["right"] / scores["labels"][label]["n_clips"])


def test_models_without_predictions_have_no_scores(tmp_path):
    with client_of(make_bundle(tmp_path / "model")) as client:
        assert client.get("/views/model/scores").json() == {"n_clips": 0, "labels": {}}


def test_saved_thresholds_are_a_new_version_that_is_in_use(model, tmp_path):
    write_audio(tmp_path / "a.wav", tone("high", 2.0), 16_000)
    sound = (tmp_path / "a.wav").read_bytes()
    with client_of(model, project=tmp_path / "project") as client:
        body = {"thresholds": {"low": 0.000_001, "high": 0.000_001}}
        answer = client.post("/views/model/thresholds", json=body)
        assert (answer.status_code, answer.json()) == (200, {"version": 2}), answer.text
        labels = {label["label"]: label for label in client.get("/views/model/card").json()["labels"]}
        assert (labels["low"]["threshold"], labels["low"]["is_fitted"]) == (0.000_001, False)
        assert (labels["middle"]["threshold"], labels["middle"]["is_fitted"]) == (0.4, True)
        tags = client.post("/v1/tag", files={"file": ("a.wav", sound)}).json()["results"][0]["tags"]
        assert "high" in {tag["label"] for tag in tags}
        assert client.get("/views").json()["version"] == 2
    assert read_info(model).thresholds == (0.5, 0.4, 0.6)
    assert read_info(tmp_path / "project" / "models" / "0002").thresholds == (0.000_001, 0.4, 0.000_001)


@pytest.mark.parametrize(
    ("thresholds", "words"),
    [
        ({}, "thresholds"),
        ({"low": 1.5}, "less than or equal to 1"),
        ({"low": "x"}, "expected a number"),
        ({"other": 0.5}, "the model has no label 'other'"),
    ],
)
def test_wrong_thresholds_are_refused(model, tmp_path, thresholds, words):
    with client_of(model, project=tmp_path / "project") as client:
        answer = client.post("/views/model/thresholds", json={"thresholds": thresholds})
        assert answer.status_code == 422
        assert words in answer.json()["detail"]
        not_a_number = client.post(
            "/views/model/thresholds",
            content='{"thresholds": {"low": NaN}}',
            headers={"content-type": "application/json"},
        )
        assert not_a_number.status_code == 422
        assert client.get("/views").json()["version"] == 1


def test_without_a_project_nothing_is_saved(client):
    answer = client.post("/views/model/thresholds", json={"thresholds": {"low": 0.5}})
    assert answer.status_code == 409
    assert "--project" in answer.json()["detail"]
