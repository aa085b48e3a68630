"""The requests of the Train view: refit, compare, go back, and what is refused."""

import io
import shutil
import time

import pytest
import soundfile
from starlette.testclient import TestClient

from helpers.bundles import make_bundle, make_info
from helpers.training_project import correct_labels, import_sounds, make_project
from spectag.config.serving import ServeSettings
from spectag.serving import create_app
from spectag.serving.problems import MEDIA_TYPE
from spectag.serving.project.project import open_project

PORT = 8131
VIEW = "/views/train"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECTAG_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        return make_project(tmp_path_factory.mktemp("made"))


@pytest.fixture
def folder(made, tmp_path):
    """A copy of the project, with copies of its sounds beside it."""
    shutil.copytree(made.parent / "sounds", tmp_path / "sounds")
    copy = shutil.copytree(made, tmp_path / "project")
    import_sounds(copy, tmp_path / "sounds" / "clips.csv")
    return copy


@pytest.fixture
def sounds(folder):
    return folder.parent / "sounds"


def client_of(project, *folders):
    """A client of a server that may read the folder of the project, and some others."""
    app = create_app(None, ServeSettings(folder=(project, *folders)), project=project, workers=1, port=PORT)
    return TestClient(app, base_url=f"http://127.0.0.1:{PORT}", raise_server_exceptions=False)


@pytest.fixture
def client(folder, sounds):
    with client_of(folder, sounds) as client:
        yield client


def assert_problem(answer, status, words):
    assert (answer.status_code, answer.headers["content-type"]) == (status, MEDIA_TYPE), answer.text
    assert words in answer.json()["detail"]


@pytest.fixture(scope="module")
def refitted(made, tmp_path_factory):
    """A client of a server whose labels were corrected, and whose model was refitted; the job, and the project."""
    base = tmp_path_factory.mktemp("refitted")
    shutil.copytree(made.parent / "sounds", base / "sounds")
    folder = shutil.copytree(made, base / "project")
    import_sounds(folder, base / "sounds" / "clips.csv")
    correct_labels(folder)
    with pytest.MonkeyPatch.context() as patch, client_of(folder, base / "sounds") as client:
        patch.setenv("SPECTAG_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        yield client, refit(client), folder


def state_of(client):
    answer = client.get(f"{VIEW}/state")
    assert answer.status_code == 200, answer.text
    return answer.json()


def ended(client, number):
    end = time.monotonic() + 120
    while (job := client.get(f"/project/jobs/{number}").json())["state"] in ("waiting", "running"):
        assert time.monotonic() < end, job
        time.sleep(0.05)
    return job


def refit(client):
    answer = client.post(f"{VIEW}/refit", json={})
    assert answer.status_code == 201, answer.text
    return ended(client, answer.json()["number"])


def test_state_has_recipes_versions_and_the_number_of_corrections(client, folder):
    state = state_of(client)
    assert [recipe["name"] for recipe in state["recipes"]] == ["quick", "best", "fsdkaggle2019", "blog"]
    assert [recipe["budget"] for recipe in state["recipes"]] == [False, True, True, False]
    assert [version["number"] for version in state["versions"]] == [1]
    assert (state["current"], state["job"]) == (1, None)
    assert (state["labels"]["fast"], state["labels"]["up_to_date"]) == (True, None)
    assert state["labels"]["has_trained"] is True
    before = state["labels"]["n_changes"]
    correct_labels(folder)
    assert state_of(client)["labels"]["n_changes"] >= before


def test_refit_makes_a_version_that_is_compared_and_can_be_used_and_given_back(refitted):
    client, job, _ = refitted
    assert (job["state"], job["problem"], job["result"]) == ("done", "", {"version": 2})
    version = client.get(f"{VIEW}/versions/2").json()
    assert (version["origin"], version["parent"]) == ("refitted", 1)
    results = version["results"]
    assert results["n_scored"] == 24
    assert results["scores"][results["metric"]]["value"] > 0.9
    comparison = results["comparison"]
    assert comparison["n_clips"] == 24
    gain = comparison["differences"][comparison["metric"]]
    assert gain["score"] >= gain["before"]
    assert gain["low"] <= gain["value"] <= gain["high"]
    corrected = [clip for clip in comparison["changed"] if clip["truth"] != clip["truth_before"]]
    assert len(corrected) == 6
    assert comparison["n_changed"] == len(comparison["changed"]) >= 6
    assert state_of(client)["labels"]["up_to_date"] == 2
    assert client.get("/views").json()["version"] == 1, "a new version is not used without being asked for"
    for number in (2, 1):
        assert client.post(f"{VIEW}/versions/{number}/use").status_code == 204
        assert client.get("/views").json()["version"] == number
        assert state_of(client)["current"] == number


def test_changed_clip_can_be_played_and_others_can_not(refitted):
    client, _, _ = refitted
    answer = client.get(f"{VIEW}/versions/2/clips/0/wav")
    assert answer.headers["content-type"] == "audio/wav"
    waveform, rate = soundfile.read(io.BytesIO(answer.content))
    assert (len(waveform), rate) == (4000, 8000)
    assert_problem(client.get(f"{VIEW}/versions/2/clips/999/wav"), 404, "no such clip")
    assert_problem(client.get(f"{VIEW}/versions/1/clips/0/wav"), 404, "no such clip")
    assert_problem(client.get(f"{VIEW}/versions/9/clips/0/wav"), 404, "no such version")


def test_clip_outside_the_folders_of_the_page_is_not_played(refitted, tmp_path):
    copy = shutil.copytree(refitted[2], tmp_path / "project", ignore=shutil.ignore_patterns(".project.lock"))
    with client_of(copy) as client:
        assert_problem(client.get(f"{VIEW}/versions/2/clips/0/wav"), 403, "outside the folders")


def test_version_that_is_not_in_use_can_be_deleted(folder):
    with open_project(folder) as project, project.versions.new("trained") as (new, _):
        make_bundle(new, make_info())
    with client_of(folder) as client:
        check_deletion(client, folder)


def check_deletion(client, folder):
    assert_problem(client.delete(f"{VIEW}/versions/1"), 409, "version 1 is in use")
    assert client.delete(f"{VIEW}/versions/2").status_code == 204
    assert not (folder / "models" / "0002").exists()
    assert_problem(client.delete(f"{VIEW}/versions/2"), 404, "no such version")


def test_card_is_that_of_the_model(client):
    card = client.get(f"{VIEW}/versions/1/card").json()
    assert "A tagger for 3 kinds of sound" in card["card"]


def test_scores_of_a_model_that_was_trained_elsewhere_are_those_in_its_folder(client):
    [summary] = state_of(client)["versions"]
    results = client.get(f"{VIEW}/versions/1").json()["results"]
    assert summary["scores"] == results["scores"]
    assert results["metric"] == "lwlrap"
    assert results["scores"]["lwlrap"]["low"] <= results["scores"]["lwlrap"]["value"]
    assert len(results["folds"]) == 5
    assert [row["n_clips"] for row in results["labels"]] == [8, 8, 8]


def test_preview_counts_clips_labels_and_folds(client, sounds):
    manifest = sounds / "clips.csv"
    found = client.post(f"{VIEW}/preview", json={"manifest": str(manifest)}).json()
    assert (found["n_clips"], found["n_files"], found["n_labels"], found["n_folds"]) == (24, 24, 3, 2)
    assert sum(count for _, count in found["labels"]) == 24
    assert found["columns"] == ["fname", "labels", "fold"]
    of_project = client.post(f"{VIEW}/preview", json={}).json()
    assert of_project["n_clips"] == 24


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"recipe": "../../secret"}, 422, "no recipe '../../secret'; expected one of quick"),
        ({"recipe": "quick", "manifest": "/etc/passwd"}, 403, "outside the folders"),
        ({"recipe": "quick", "folds": 1}, 422, "folds"),
        ({"recipe": "quick", "budget_minutes": -1}, 422, "budget_minutes"),
        ({"recipe": "quick", "parent": 7}, 422, "parent"),
    ],
)
def test_wrong_settings_are_refused_before_the_training(client, body, status, words):
    assert_problem(client.post(f"{VIEW}/start", json=body), status, words)
    assert state_of(client)["job"] is None


def test_manifest_that_is_wrong_is_explained(client, folder):
    (folder / "wrong.csv").write_text("fname,labels\nnothing.wav,a\n", encoding="utf-8")
    assert_problem(client.post(f"{VIEW}/preview", json={"manifest": str(folder / "wrong.csv")}), 422, "nothing.wav")


def test_only_one_training_at_a_time(client):
    first = client.post(f"{VIEW}/refit", json={}).json()["number"]
    assert_problem(client.post(f"{VIEW}/refit", json={}), 409, "a training runs already")
    client.post(f"/project/jobs/{first}/stop")
    assert ended(client, first)["state"] in ("stopped", "done")


@pytest.mark.slow
def test_stopped_training_is_resumed_and_leaves_no_half_version(client, folder):
    number = client.post(f"{VIEW}/refit", json={}).json()["number"]
    client.post(f"/project/jobs/{number}/stop")
    assert ended(client, number)["state"] == "stopped"
    assert [version["number"] for version in state_of(client)["versions"]] == [1]
    client.post(f"/project/jobs/{number}/resume")
    assert ended(client, number)["state"] == "done"
    assert len(state_of(client)["versions"]) == 2
    assert not list((folder / "models").glob(".*"))


@pytest.mark.slow
def test_clip_that_cannot_be_read_is_listed_and_without_any_clip_the_training_fails_with_the_reason(
    client, folder, sounds
):
    first, *others = sorted(sounds.glob("clips/*.wav"))
    first.write_bytes(b"RIFF" + bytes(100))
    refit(client)
    results = client.get(f"{VIEW}/versions/2").json()["results"]
    assert (results["n_skipped"], results["skipped"][0][0][-6:]) == (1, "00.wav")
    assert results["n_clips"] == 23
    for path in others:
        path.write_bytes(b"RIFF" + bytes(100))
    job = refit(client)
    assert job["state"] == "failed"
    assert "00.wav" in job["problem"]


def test_published_model_is_no_training_before(sounds, tmp_path):
    with open_project(tmp_path / "project") as project:
        project.versions.add_copy(make_bundle(tmp_path / "published", make_info()))
    import_sounds(tmp_path / "project", sounds / "clips.csv")
    with client_of(tmp_path / "project", sounds) as client:
        assert state_of(client)["labels"]["has_trained"] is False


def test_project_without_labels_says_what_to_do(tmp_path):
    model = make_bundle(tmp_path / "model", make_info())
    with open_project(tmp_path / "project") as project:
        project.versions.add_copy(model)
    with client_of(tmp_path / "project") as client:
        labels = state_of(client)["labels"]
        assert (labels["path"], labels["n_changes"], labels["problem"]) == (None, 0, "")
        assert_problem(client.post(f"{VIEW}/refit", json={}), 409, "label clips first")
        assert client.get(f"{VIEW}/versions/1").json()["results"] == {}
