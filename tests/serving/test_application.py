"""A server whose model, version or project changes while it runs."""

import asyncio
import errno
import os
import threading

import pytest
from starlette.testclient import TestClient

from helpers.bundles import make_bundle, make_info
from spectag.config.serving import ServeSettings
from spectag.errors import BundleError, ConfigError, DataError, SpectagError
from spectag.serving import create_app, opening, serve
from spectag.serving.application import Application
from spectag.serving.problems import MEDIA_TYPE
from spectag.serving.project.project import open_project

PORT = 8131


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two models that differ in their thresholds."""
    folder = tmp_path_factory.mktemp("models")
    return [
        make_bundle(folder / name, make_info(thresholds=(threshold,) * 3))
        for name, threshold in (("first", 0.25), ("second", 0.75))
    ]


def make_server(model, project=None):
    """The server behind the guard, and a client of it."""
    server = Application(ServeSettings(), 1, PORT)
    server.open_now(model, project)
    return server, TestClient(server.guarded, base_url=f"http://127.0.0.1:{PORT}", raise_server_exceptions=False)


def thresholds(client):
    return {label["threshold"] for label in client.get("/v1/labels").json()}


def open_(client, server, **what):
    """Open something in the loop of the server."""
    client.portal.call(lambda: server.open(**what))


def test_another_model_is_served_without_a_restart(models):
    server, client = make_server(models[0])
    with client:
        assert thresholds(client) == {0.25}
        open_(client, server, model=models[1])
        assert thresholds(client) == {0.75}
        assert client.get("/views").json()["model"]["name"] == "second"


def test_request_that_runs_meanwhile_is_answered_by_the_old_model(models):
    async def run():
        server = Application(ServeSettings(), 1, PORT)
        server.open_now(models[0], None)
        begun, may_end, closed = asyncio.Event(), asyncio.Event(), []
        old = server.opened

        async def slow(*_):
            begun.set()
            await may_end.wait()

        old.app, old.close = slow, lambda: closed.append(True)
        request = asyncio.create_task(server._answer({}, None, None))
        await begun.wait()
        await server.open(model=models[1])
        await asyncio.sleep(0)
        assert closed == []
        may_end.set()
        await request
        await asyncio.gather(*server._tasks)
        assert closed == [True]
        server.opened.close()

    asyncio.run(run())


def test_project_keeps_its_model_and_version(models, tmp_path):
    project = tmp_path / "Projekt ä"
    _, client = make_server(models[0], project)
    with client:
        info = client.get("/views").json()
        assert info["project"] == {"name": "Projekt ä", "folder": str(project)}
        assert info["version"] == 1
        assert client.get("/project/jobs/").json() == []
    _, client = make_server(None, project)
    with client:
        assert thresholds(client) == {0.25}
        assert client.get("/views").json()["version"] == 1


def test_model_given_to_a_project_becomes_a_new_version_once(models, tmp_path):
    for model in (models[0], models[1], models[1]):
        _, client = make_server(model, tmp_path / "project")
        with client:
            assert thresholds(client) == ({0.25} if model == models[0] else {0.75})
    with open_project(tmp_path / "project") as project:
        assert [version.number for version in project.versions] == [1, 2]
        assert project.versions.current.number == 2


def test_version_is_switched_with_the_project_open(models, tmp_path):
    server, client = make_server(models[0], tmp_path / "project")
    with client:
        project = server.opened.project
        with project.versions.new("trained", parent=1) as (folder, results):
            make_bundle(folder, make_info(thresholds=(0.5,) * 3))
            results["map"] = 0.75
        assert thresholds(client) == {0.25}  # it is not used yet
        project.versions.use(2)
        open_(client, server, project=project.folder)
        assert thresholds(client) == {0.5}
        assert server.opened.project is project
        client.portal.call(asyncio.sleep, 0.1)  # the old version is closed
        with pytest.raises(ConfigError, match="another spectag serve has this project open"):
            create_app(None, project=project.folder)
        assert [(version.origin, version.parent, version.results) for version in project.versions] == [
            ("first", None, {}),
            ("trained", 1, {"map": 0.75}),
        ]


@pytest.mark.parametrize("what", [{"model": "nothing-here"}, {"project": "no-model"}])
def test_what_can_not_be_opened_leaves_the_old_model(models, tmp_path, what):
    server, client = make_server(models[0])
    what = {name: tmp_path / value for name, value in what.items()}
    with client:
        with pytest.raises((BundleError, ConfigError)):
            open_(client, server, **what)
        assert thresholds(client) == {0.25}


def test_version_that_can_not_be_opened_is_not_put_into_use(models, tmp_path):
    server, client = make_server(models[0], tmp_path / "project")
    with client:
        with server.opened.project.versions.new("trained", parent=1) as (folder, _):
            make_bundle(folder, make_info(thresholds=(0.5,) * 3))
        (folder / "model.onnx").write_bytes(b"no network")
        answer = client.post("/views/train/versions/2/use")
        assert (answer.status_code, "model.onnx" in answer.json()["detail"]) == (409, True)
        assert thresholds(client) == {0.25}
    with make_server(None, tmp_path / "project")[1] as client:  # the project can still be opened
        assert client.get("/views").json()["version"] == 1
    with pytest.raises(BundleError):  # nor is a damaged model that is given
        make_server(folder, tmp_path / "project")
    with make_server(None, tmp_path / "project")[1] as client:
        assert client.get("/views").json()["version"] == 1


def test_project_is_free_after_another_was_opened(models, tmp_path):
    server, client = make_server(models[0], tmp_path / "one")
    with client:
        open_(client, server, model=models[1], project=tmp_path / "two")
        client.portal.call(asyncio.sleep, 0.1)
        with open_project(tmp_path / "one") as project:
            assert project.versions.current.number == 1
        with pytest.raises(ConfigError, match="another spectag serve has this project open"):
            create_app(None, project=tmp_path / "two")


def test_others_are_answered_while_a_version_waits_for_the_database(models, tmp_path):
    server, client = make_server(models[0], tmp_path / "project")
    is_busy, may_end, answers = threading.Event(), threading.Event(), []

    def keep_busy():
        with server.opened.project.database.transaction():
            is_busy.set()
            may_end.wait(5)

    def save():
        label = server.opened.service._labels[0].label
        answers.append(client.post("/views/model/thresholds", json={"thresholds": {label: 0.5}}))

    with client:
        threads = [threading.Thread(target=work) for work in (keep_busy, save)]
        for thread in threads:
            thread.start()
            is_busy.wait()
        client.portal.call(asyncio.sleep, 0.2)  # the request has begun
        assert client.get("/healthz").status_code == 200
        assert threads[0].is_alive(), "the answer waited for the database"
        may_end.set()
        for thread in threads:
            thread.join()
        assert answers[0].json() == {"version": 2}


def test_what_a_project_can_not_do_is_told_with_its_reason(models, tmp_path, monkeypatch):
    server, client = make_server(models[0], tmp_path / "project")
    full, denied = (OSError(number, os.strerror(number), "/secret/a.csv") for number in (errno.ENOSPC, errno.EACCES))
    with client:
        for error, status, words in (
            (full, 507, "the disk of the server is full"),
            (denied, 500, "a.csv: Permission denied; the log of the server"),
            (DataError("project.sqlite: database is locked; see"), 500, "project.sqlite: database is locked; see"),
            (ConfigError("choose another name"), 422, "choose another name"),
        ):
            monkeypatch.setattr(server.opened.project.jobs, "all", lambda error=error: (_ for _ in ()).throw(error))
            answer = client.get("/project/jobs/")
            assert (answer.status_code, answer.headers["content-type"]) == (status, MEDIA_TYPE)
            assert answer.json()["detail"].startswith(words)


def test_page_of_an_allowed_origin_may_use_the_api_and_not_the_disk_and_the_projects(models, tmp_path):
    server = Application(ServeSettings(allow_origin=("https://lab.example",)), 1, PORT)
    server.open_now(models[0], tmp_path / "project")
    headers = {"origin": "https://lab.example"}
    with TestClient(server.guarded, base_url=f"http://127.0.0.1:{PORT}", headers=headers) as client:
        assert client.get("/v1/labels").status_code == 200
        for method, path in (("GET", "/folders"), ("POST", "/project/close"), ("GET", "/views")):
            answer = client.request(method, path)
            assert (answer.status_code, "only the page of this server" in answer.json()["detail"]) == (403, True)
        assert client.get("/views", headers={"origin": f"http://127.0.0.1:{PORT}"}).json()["project"] is not None


def test_server_without_a_model_shows_the_start_page():
    _, client = make_server(None)
    with client:
        assert client.get("/").status_code == 200
        assert client.get("/views").json()["views"] == ["start"]
        assert client.get("/healthz").json() == {"status": "ok"}
        assert client.post("/v1/tag", content=b"x").status_code == 404


def test_project_is_closed_from_the_page(models, tmp_path):
    with make_server(models[0], tmp_path / "project")[1] as client:
        assert client.post("/project/close").status_code == 204
        assert client.get("/views").json()["views"] == ["start"]
        client.portal.call(asyncio.sleep, 0.1)
        with open_project(tmp_path / "project") as project:  # it is free
            assert project.versions.current.number == 1


def test_others_are_answered_while_a_project_is_closed_and_it_can_be_opened_again_at_once(models, tmp_path):
    server, client = make_server(models[0], tmp_path / "project")
    with client:
        project, may_close = server.opened.project, threading.Event()
        close = project.jobs.close
        project.jobs.close = lambda: (may_close.wait(10), close())  # as a job that takes its time to stop
        assert client.post("/project/close").status_code == 204
        assert client.get("/views").json()["views"] == ["start"]
        threading.Timer(0.2, may_close.set).start()
        open_(client, server, project=tmp_path / "project")
        assert may_close.is_set()
        assert client.get("/views").json()["project"]["name"] == "project"


def test_folder_with_other_files_is_no_project(models, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="has files, but no project; choose an empty folder"):
        create_app(models[0], project=tmp_path)


@pytest.fixture
def later():
    """A server that opens its model when it starts, and what was called if that failed."""
    application, failures = Application(ServeSettings(), 1, PORT), []
    client = TestClient(application.guarded, base_url=f"http://127.0.0.1:{PORT}")

    def open_at_start(model, project=None):
        application.open_at_start(model, project, on_failure=lambda: failures.append(application.problem))
        return client

    return open_at_start, failures


def test_page_is_there_before_the_model_is(models, later, monkeypatch):
    may_open, open_first = threading.Event(), opening.open_first

    def slow(*arguments):
        may_open.wait(20)
        return open_first(*arguments)

    monkeypatch.setattr(opening, "open_first", slow)
    with later[0](models[0]) as client:
        assert "app.js" in client.get("/").text
        assert client.get("/static/app.js").status_code == 200
        refused = client.get("/readyz")
        assert (refused.status_code, refused.json()["detail"]) == (503, "the model is being opened; try again later")
        may_open.set()
        assert thresholds(client) == {0.25}  # waits for the model


def test_server_that_ends_while_it_opens_its_model_closes_it(models, later, tmp_path, monkeypatch):
    has_begun, may_open, open_first = threading.Event(), threading.Event(), opening.open_first

    def slow(*arguments):
        has_begun.set()
        may_open.wait(20)
        return open_first(*arguments)

    monkeypatch.setattr(opening, "open_first", slow)
    with later[0](models[0], tmp_path / "project"):
        has_begun.wait(20)
        threading.Timer(0.2, may_open.set).start()
    with open_project(tmp_path / "project") as project:  # it is free
        assert project.versions.current.number == 1


def test_model_that_can_not_be_opened_ends_the_server_with_the_reason(tmp_path, later):
    open_at_start, failures = later
    with open_at_start(tmp_path / "nothing") as client:
        refused = client.get("/v1/labels")
        assert refused.status_code == 503
        assert "can't be opened" in refused.json()["detail"]
    [error] = failures
    assert isinstance(error, BundleError)
    with pytest.raises(BundleError, match="no such folder"):
        serve(tmp_path / "nothing", ServeSettings(port=0))


@pytest.mark.parametrize(
    ("model", "device", "message"),
    [
        ("nothere", "auto", "nothere: not a tagger"),
        ("clap:dog", "auto", "there is no CLAP in the cache"),
        ("audioset-mn04", "openvino", "device openvino: the installed onnxruntime"),
    ],
)
def test_model_or_device_that_is_not_there_is_an_error_before_the_address_is_announced(
    tmp_path, monkeypatch, model, device, message
):
    monkeypatch.setenv("SPECTAG_CACHE", str(tmp_path))
    lines = []
    with pytest.raises(SpectagError, match=message):
        serve(model, ServeSettings(port=0, device=device), log=lines.append)
    assert lines == []


@pytest.mark.parametrize("method", ["POST", "TRACE"])
def test_page_takes_no_other_method(models, method):
    with make_server(models[0])[1] as client:
        assert client.request(method, "/").status_code == 405
