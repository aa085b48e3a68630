"""The start page of a server without a model: what it offers, opens and refuses."""

import asyncio
import threading

import pytest
from starlette.requests import Request
from starlette.testclient import TestClient

from helpers.bundles import make_bundle, make_info
from spectag.config.serving import ServeSettings
from spectag.errors import WeightsError
from spectag.serving import create_app
from spectag.serving.json_body import read_body
from spectag.serving.problems import ProblemError
from spectag.serving.project import recent
from spectag.serving.project.project import open_project
from spectag.serving.project.recent import recent_projects, remember_project
from spectag.serving.views import start

PORT = 8136
TOKEN = "a secret of many characters"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("models") / "model", make_info())


@pytest.fixture
def folder(tmp_path, model, monkeypatch):
    """A folder that the page may read, with a model in it."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("SPECTAG_CACHE", str(tmp_path / "cache"))  # other tests build published models in theirs
    folder = tmp_path / "home"
    folder.mkdir()
    make_bundle(folder / "my-model", make_info())
    return folder.resolve()


@pytest.fixture
def client(folder):
    with client_of(ServeSettings(folder=(folder,))) as client:
        yield client


def client_of(settings):
    app = create_app(None, settings, workers=1, port=PORT)
    return TestClient(app, base_url=f"http://127.0.0.1:{PORT}", raise_server_exceptions=False)


def open_(client, **wanted):
    """The views of the server when it has opened something, or why it has not."""
    answer = client.post("/views/start/open", json={name: str(value) for name, value in wanted.items()})
    if answer.status_code != 202:
        return answer.json()
    for _ in range(600):
        answer = client.get("/views/start/opening")
        if answer.status_code == 404:
            return client.get("/views").json()
        if answer.json()["state"] not in ("opening", "open"):
            return answer.json()
        threading.Event().wait(0.02)
    raise TimeoutError


def make_project(folder, model=None):
    with open_project(folder) as project:
        if model is not None:
            project.versions.add_copy(model)
    return folder


def test_server_without_a_model_has_the_start_view_only(client):
    info = client.get("/views").json()
    assert (info["views"], info["model"], info["project"]) == (["start"], None, None)
    assert client.get("/").status_code == 200
    assert client.get("/v1/labels").status_code == 404


def test_choices_have_the_published_models_and_the_folder_for_projects(client, folder):
    choices = client.get("/views/start/choices").json()
    assert choices["recent"] == []
    assert choices["folder"] == str(folder)
    names = [found["name"] for found in choices["models"]]
    assert names[0] == "audioset-mn04"
    assert all(found["bytes"] > 1e6 and found["ready"] is False for found in choices["models"])


def test_created_project_is_open_and_has_the_first_model(client, folder):
    info = open_(client, project=folder, name=" Frogs 2026 ", model=folder / "my-model")
    assert info["project"] == {"name": "Frogs 2026", "folder": str(folder / "Frogs 2026")}
    assert (info["version"], "start" in info["views"]) == (1, False)
    assert [found.folder for found in recent_projects()] == [str(folder / "Frogs 2026")]


def test_first_folder_to_choose_from_is_not_the_project_which_has_no_recordings(client, folder):
    open_(client, project=folder, name="Frogs", model=folder / "my-model")
    listed = client.get("/folders").json()
    assert [place["path"] for place in listed["places"]] == [str(folder / "Frogs"), str(folder)]
    assert listed["path"] == str(folder)


def test_project_with_a_model_is_opened(client, folder, model):
    make_project(folder / "project", model)
    assert open_(client, project=folder / "project")["project"]["name"] == "project"


def test_model_is_opened_without_a_project(client, folder):
    info = open_(client, model=folder / "my-model")
    assert (info["project"], info["model"]["name"]) == (None, "my-model")
    assert recent_projects() == []


def test_project_without_a_model_gets_one(client, folder):
    make_project(folder / "project")
    answer = open_(client, project=folder / "project")
    assert (answer["state"], answer["needs_model"]) == ("failed", True)
    assert "no model yet" in answer["problem"]
    assert open_(client, project=folder / "project", model=folder / "my-model")["version"] == 1


def test_project_that_is_open_elsewhere_is_told(client, folder, model):
    make_project(folder / "project", model)
    with open_project(folder / "project"):
        answer = open_(client, project=folder / "project")
    assert answer["state"] == "failed"
    assert "another spectag serve has this project open" in answer["problem"]
    assert open_(client, project=folder / "project")["version"] == 1


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "..",
        ".hidden",
        "a/b",
        "a\\b",
        "../x",
        "C:",
        "a\0b",
        "a\nb",
        "x.",
        "a*",
        "x" * 200 + "é" * 40,
        "é" * 150,
    ],
)
def test_names_that_no_folder_may_have_are_refused(client, folder, name):
    before = sorted(folder.iterdir())
    answer = open_(client, project=folder, name=name, model=folder / "my-model")
    assert answer["status"] == 422
    assert sorted(folder.iterdir()) == before


def test_names_in_use_are_refused_with_what_to_do(client, folder, model):
    make_project(folder / "project", model)
    (folder / "file").write_text("x")
    answers = [
        open_(client, project=folder, name=name, model=folder / "my-model") for name in ("project", "file", "my-model")
    ]
    assert "open it, or choose another name" in answers[0]["detail"]
    assert all("choose another name" in answer["detail"] for answer in answers[1:])


@pytest.mark.parametrize(
    ("wanted", "status"),
    [
        ({}, 422),
        ({"project": "{0}"}, 422),
        ({"project": "{0}", "name": "new"}, 422),
        ({"project": "/", "name": "new", "model": "audioset-mn04"}, 403),
        ({"project": "{0}/../data", "name": "new", "model": "audioset-mn04"}, 403),
        ({"project": "/etc"}, 403),
        ({"project": "{0}/no"}, 404),
        ({"project": "{0}\0"}, 422),
        ({"model": "audioset-no"}, 422),
        ({"model": "hf:user/name"}, 422),
        ({"model": "/etc"}, 403),
        ({"model": "{0}"}, 422),
        ({"model": "{0}/no"}, 404),
        ({"model": "x" * 5_000}, 422),
    ],
)
def test_what_may_not_be_opened_is_refused_at_once(client, folder, wanted, status):
    answer = open_(client, **{name: value.format(folder) for name, value in wanted.items()})
    assert answer["status"] == status
    assert answer["detail"]
    assert client.get("/views").json()["views"] == ["start"]


def test_failed_download_is_told_and_leaves_the_start_page(client, folder, monkeypatch):
    def fail(*_, **__):
        raise WeightsError("no connection; connect, and try again")

    monkeypatch.setattr(start, "tagger_folder", fail)
    answer = open_(client, project=folder, name="new", model="audioset-mn04")
    assert (answer["state"], answer["needs_model"]) == ("failed", False)
    assert "no connection" in answer["problem"]
    assert not (folder / "new").exists()


def test_server_that_ends_does_not_wait_for_a_download(folder, monkeypatch):
    begun, ended = threading.Event(), []

    def download(_model, *, progress):
        begun.set()
        try:
            for n_done in range(500):
                progress("audioset-mn04", n_done, 500)
                threading.Event().wait(0.01)
        except Exception:
            ended.append(True)
            raise

    monkeypatch.setattr(start, "tagger_folder", download)
    with client_of(ServeSettings(folder=(folder,))) as client:
        body = {"project": str(folder), "name": "birds", "model": "audioset-mn04"}
        assert client.post("/views/start/open", json=body).status_code == 202
        begun.wait()
    assert ended == [True]


def test_request_that_comes_too_slowly_is_ended(monkeypatch):
    monkeypatch.setattr("spectag.serving.json_body._MAX_SECONDS", 0.05)

    async def receive():
        await asyncio.sleep(0.3)
        return {"type": "http.request", "body": b"{}", "more_body": False}

    headers = [(b"content-type", b"application/json")]
    request = Request({"type": "http", "method": "POST", "headers": headers}, receive)
    with pytest.raises(ProblemError, match="the request took longer than"):
        asyncio.run(read_body(request, start.OpenRequest))


def test_download_is_shown_and_can_be_stopped(client, folder, monkeypatch):
    begun, asked = threading.Event(), threading.Event()

    def download(_, *, progress):
        progress("downloading mn04.pt, kB", 10, 40)
        begun.set()
        asked.wait(10)
        progress("downloading mn04.pt, kB", 20, 40)
        raise AssertionError("not stopped")

    monkeypatch.setattr(start, "tagger_folder", download)
    body = {"project": str(folder), "name": "new", "model": "audioset-mn04"}
    assert client.post("/views/start/open", json=body).status_code == 202
    begun.wait(10)
    opening = client.get("/views/start/opening").json()
    assert (opening["state"], opening["n_done"], opening["n_total"]) == ("opening", 10, 40)
    assert client.post("/views/start/open", json=body).status_code == 409
    assert client.post("/views/start/stop").status_code == 204
    asked.set()
    for _ in range(500):
        if client.get("/views/start/opening").json()["state"] == "stopped":
            break
        threading.Event().wait(0.02)
    assert client.get("/views/start/opening").json()["state"] == "stopped"
    assert not (folder / "new").exists()


def test_recent_projects_elsewhere_are_for_this_computer_only(tmp_path, folder, model):
    elsewhere, inside = make_project(tmp_path / "elsewhere", model), make_project(folder / "inside", model)
    remember_project(elsewhere)
    remember_project(inside)
    with client_of(ServeSettings(folder=(folder,))) as client:
        shown = [found["name"] for found in client.get("/views/start/choices").json()["recent"]]
        assert shown == ["inside", "elsewhere"]
        assert open_(client, project=elsewhere.resolve())["project"]["name"] == "elsewhere"
    with client_of(ServeSettings(folder=(folder,), host="0.0.0.0", token=TOKEN)) as client:
        client.headers["authorization"] = f"Bearer {TOKEN}"
        shown = [found["name"] for found in client.get("/views/start/choices").json()["recent"]]
        assert shown == ["inside"]
        assert open_(client, project=elsewhere.resolve())["status"] == 403


def test_wrong_folder_of_weights_is_told(client, monkeypatch, tmp_path):
    monkeypatch.setenv("SPECTAG_WEIGHTS", str(tmp_path / "nothing"))
    answer = client.get("/views/start/choices")
    assert (answer.status_code, "correct or unset the variable" in answer.json()["detail"]) == (503, True)


def test_list_of_recent_projects_has_the_newest_first_without_vanished_ones(folder, monkeypatch):
    monkeypatch.setattr(recent, "MAX_RECENT", 3)
    for name in "abcde":
        remember_project(make_project(folder / name))
    remember_project(folder / "d")
    assert [found.folder[-1] for found in recent_projects()] == ["d", "e", "c"]
    (folder / "e" / "project.sqlite").unlink()
    assert [found.folder[-1] for found in recent_projects()] == ["d", "c"]


@pytest.mark.parametrize(
    "content", ["", "{", "[1]", '[{"folder": 1, "opened": 2}]', '[{"folder": "a\\u0000", "opened": ""}]', "[" * 9_999]
)
def test_damaged_list_is_empty_and_is_written_again(folder, content):
    path = recent._file()
    path.parent.mkdir(parents=True)
    path.write_text(content)
    assert recent_projects() == []
    remember_project(make_project(folder / "project"))
    assert len(recent_projects()) == 1


def test_list_that_can_not_be_written_does_no_harm(folder):
    recent._file().parent.parent.mkdir(parents=True)
    recent._file().parent.write_text("a file in the way")
    remember_project(make_project(folder / "project"))
    assert recent_projects() == []
