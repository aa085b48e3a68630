"""Runs over folders: what they write, how they go on after a stop, and what the requests of the Jobs view refuse."""

import csv
import inspect
import io
import json
import time
import zipfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from helpers.bundles import make_bundle, make_info, tone
from spectag.audio.files import write_audio
from spectag.config.serving import ServeSettings
from spectag.config.tagging import TagSettings
from spectag.errors import ConfigError, DataError
from spectag.models.tagger import Tagger
from spectag.serving import create_app
from spectag.serving.problems import MEDIA_TYPE
from spectag.serving.project import bulk_tagging
from spectag.serving.project.job_kinds import JOB_KINDS, JobContext, imported_function
from spectag.serving.project.project import open_project
from spectag.serving.project.tagging_runs import (
    check_run_name,
    counts_per_label,
    failures,
    free_run_name,
    make_run_folder,
    run_files,
    run_folder,
    write_zip,
)
from spectag.tagging.batch import tag_to_tables
from spectag.tagging.parallel import Chunk

PORT = 8131
N_SOUNDS = 6
JOBS = "/views/jobs"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("models") / "model", make_info(thresholds=(0.5, 0.4, 0.6)))


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recordings")
    labels = ("low", "middle", "high")
    for number in range(N_SOUNDS):
        write_audio(folder / f"site{number}_20240501_053000.wav", tone(labels[number % 3], 4.0), 16_000)
    (folder / "=broken.wav").write_bytes(b"RIFF" + bytes(1_000))
    return folder


@pytest.fixture
def project(tmp_path, model):
    folder = tmp_path / "project"
    with open_project(folder) as project:
        project.versions.add_copy(model)
    return folder


@contextmanager
def client_of(project, *folders):
    app = create_app(None, ServeSettings(folder=list(folders)), project=project, workers=1, port=PORT)
    with TestClient(app, base_url=f"http://127.0.0.1:{PORT}", raise_server_exceptions=False) as client:
        yield client


def context_of(project, *, progress=lambda *_: None, log=lambda _: None):
    """What a job gets; other values are for other kinds of jobs."""
    values = {"folder": project, "progress": progress, "log": log}
    others = [name for name in inspect.signature(JobContext).parameters if name not in values]
    return JobContext(**values, **{name: project / "jobs" if name == "job_folder" else print for name in others})


def query_of(recordings, name="spring", **settings):
    values = {"format": "csv", "segments": True} | settings
    return {"name": name, "version": 1, "recordings": str(recordings), "settings": values, "labels": []}


def ended(client, number, seconds=60):
    """A job, when it has ended."""
    end = time.monotonic() + seconds
    while True:
        job = client.get(f"/project/jobs/{number}").json()
        if job["state"] not in ("waiting", "running"):
            return job
        assert time.monotonic() < end, job
        time.sleep(0.1)


def rows_of(table):
    return list(csv.DictReader(io.StringIO(table.read_text(encoding="utf-8"))))


def assert_problem(answer, status, words):
    assert (answer.status_code, answer.headers["content-type"]) == (status, MEDIA_TYPE), answer.text
    assert words in answer.json()["detail"]


def without_folder(content):
    """A table or settings without the line that names the folder of the model, which the project has copied."""
    return [line for line in content.splitlines() if not line.startswith(b"# model ")]


def test_run_writes_the_tables_of_spectag_tag(project, recordings, model, tmp_path):
    with client_of(project, recordings) as client:
        asked = {"recordings": str(recordings), "name": "spring", "formats": ["raven"], "min_duration_seconds": 0.5}
        started = client.post(f"{JOBS}/runs", json=asked)
        assert started.status_code == 201, started.text
        job = ended(client, started.json()["number"])
        assert (job["state"], job["problem"], job["title"], job["kind"]) == ("done", "", "spring", "tag")
        found = client.get(f"{JOBS}/runs/spring/files").json()
        assert (Path(found["folder"]) / "tags.csv").is_file()
        settings = TagSettings(format="csv,raven", segments=True, recorded=True, min_duration_seconds=0.5)
        tag_to_tables(Tagger(model), [recordings], settings, output=f"{tmp_path}/expected/")
        for name in ("tags.csv", "status.csv", "parameters.toml"):
            answer = client.get(f"{JOBS}/runs/spring/files/{name}")
            assert without_folder(answer.content) == without_folder((tmp_path / "expected" / name).read_bytes())
            assert "attachment" in answer.headers["content-disposition"]
        assert [file["name"] for file in found["files"]] == ["parameters.toml", "raven", "status.csv", "tags.csv"]
        archive = client.get(f"{JOBS}/runs/spring/files/raven").content
        with zipfile.ZipFile(io.BytesIO(archive)) as opened:
            assert len(opened.namelist()) == N_SOUNDS
            assert all(name.startswith("raven/site") for name in opened.namelist())
        result = job["result"]
        assert (result["n_files"], result["n_tagged"], result["n_skipped"]) == (N_SOUNDS + 1, N_SOUNDS, 1)
        rows = rows_of(project / "runs/spring/tags.csv")
        assert sum(count for _, count, _ in result["labels"]) == len(rows) > 0
        assert {label for label, *_ in result["labels"]} == {row["label"] for row in rows}
        answer = client.get(f"{JOBS}/runs/spring/failures").json()
        assert answer["count"] == 1
        [failure] = answer["failures"]
        assert (failure["file"], failure["status"]) == (str(recordings / "=broken.wav"), "skipped")
        assert failure["reason"]
        listed = client.get(f"{JOBS}/jobs").json()["jobs"]
        assert [(one["number"], one["state"]) for one in listed] == [(job["number"], "done")]
        assert "log" not in listed[0]


def one_by_one(files, _workers):
    return [Chunk(number, (file,)) for number, file in enumerate(files)]


@pytest.fixture
def stopped_run(project, recordings, monkeypatch):
    """A run that was stopped when some of its recordings were tagged."""

    def stop_after_two(step, n_done, _n_total):
        if step == "tagging" and n_done >= 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("spectag.tagging.batch.chunked", one_by_one)
        with pytest.raises(KeyboardInterrupt):
            bulk_tagging.tag_recordings(context_of(project, progress=stop_after_two), query_of(recordings))
    assert not (project / "runs/spring/tags.csv").exists()


@pytest.mark.usefixtures("stopped_run")
def test_stopped_run_goes_on_without_tagging_anything_twice(project, recordings):
    lines, seen = [], []
    context = context_of(project, progress=lambda *now: seen.append(now), log=lines.append)
    result = bulk_tagging.tag_recordings(context, query_of(recordings))
    assert result["n_resumed"] >= 1
    assert result["n_resumed"] + result["n_tagged"] == N_SOUNDS
    assert any("resuming an earlier run" in line for line in lines)
    assert any(line.startswith("skipped: ") and "broken" in line for line in lines)
    [first, *_] = [now for now in seen if now[0] == "tagging"]
    assert first[1] >= 1
    bulk_tagging.tag_recordings(context_of(project), query_of(recordings, "undisturbed"))
    assert (project / "runs/spring/tags.csv").read_bytes() == (project / "runs/undisturbed/tags.csv").read_bytes()


@pytest.mark.usefixtures("stopped_run")
def test_run_of_a_killed_server_is_interrupted_and_can_be_resumed(project, recordings):
    with open_project(project) as opened, opened.database.transaction() as connection:
        values = (json.dumps(query_of(recordings)), "2024-05-01T00:00:00+00:00")
        columns = "kind, title, query, state, created"
        connection.execute(f"INSERT INTO job ({columns}) VALUES ('tag', 'spring', ?, 'running', ?)", values)
    with client_of(project, recordings) as client:
        assert client.get("/project/jobs/1").json()["state"] == "interrupted"
        assert client.post("/project/jobs/1/resume").status_code == 200
        job = ended(client, 1)
    assert (job["state"], job["problem"]) == ("done", "")
    assert job["result"]["n_resumed"] >= 1
    assert any("resuming an earlier run" in line for line in job["log"])


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({"recordings": "/etc"}, 403, "outside the folders"),
        ({"recordings": "sounds"}, 422, "complete path"),
        ({"recordings": "FOLDER/site0_20240501_053000.wav"}, 422, "expected a folder"),
        ({"recordings": "FOLDER/other"}, 404, "does not exist"),
        ({"recordings": "FOLDER/../../../../../etc"}, 403, "outside the folders"),
        ({"name": "../spring"}, 422, "use up to 80 letters"),
        ({"name": "con"}, 422, "use up to 80 letters"),
        ({"labels": ["low", "whale"]}, 422, "does not have the label 'whale'"),
        ({"formats": ["submission"]}, 422, "unknown format 'submission'"),
        ({"formats": ["multi-hot"]}, 422, "multi-hot"),
        ({"site_from": "("}, 422, "not a regular expression"),
        ({"rows": "windows", "window_seconds": 2, "overlap_seconds": 2}, 422, "overlap"),
        ({"min_confidence": 2}, 422, "min_confidence"),
        ({"rows": "songs"}, 422, "rows"),
    ],
)
def test_wrong_runs_are_refused_and_leave_nothing(project, recordings, changes, status, words):
    body = {"recordings": str(recordings), "name": "spring"} | changes
    body["recordings"] = body["recordings"].replace("FOLDER", str(recordings))
    with client_of(project, recordings) as client:
        assert_problem(client.post(f"{JOBS}/runs", json=body), status, words)
        assert client.get(f"{JOBS}/jobs").json()["jobs"] == []
    assert not (project / "runs").exists() or not list((project / "runs").iterdir())


def test_names_of_runs_are_never_used_twice(project, recordings):
    with client_of(project, recordings) as client:
        body = {"recordings": str(recordings), "labels": ["low"], "rows": "windows", "site_from": r"(site\d)|broken"}
        body |= {"min_confidence": 1e-6}
        first = client.post(f"{JOBS}/runs", json=body).json()
        second = client.post(f"{JOBS}/runs", json=body).json()
        assert (first["name"], second["name"]) == (recordings.name, f"{recordings.name}-2")
        assert_problem(client.post(f"{JOBS}/runs", json=body | {"name": first["name"]}), 409, "choose another one")
        assert ended(client, second["number"])["state"] == "done"
    rows = rows_of(project / "runs" / second["name"] / "tags.csv")
    assert {row["label"] for row in rows} == {"low"}
    assert {row["site"] for row in rows} <= {f"site{number}" for number in range(N_SOUNDS)}
    assert "[labels]" not in (project / "runs" / second["name"] / "parameters.toml").read_text()


def test_run_without_sounds_fails_with_the_reason(project, tmp_path):
    (tmp_path / "empty").mkdir()
    with client_of(project, tmp_path) as client:
        number = client.post(f"{JOBS}/runs", json={"recordings": str(tmp_path / "empty")}).json()["number"]
        job = ended(client, number)
    assert (job["state"], str(tmp_path / "empty") in job["problem"]) == ("failed", True)


@pytest.mark.parametrize("path", ["../models", "spring/../../models", "", "..", "nothing"])
def test_only_runs_can_be_asked_for(project, path):
    make_run_folder(project, "spring")
    with client_of(project) as client:
        for what in ("files", "failures", "files/tags.csv"):
            assert client.get(f"{JOBS}/runs/{path.replace('/', '%2F')}/{what}").status_code == 404


def test_only_files_of_the_run_can_be_downloaded(project):
    folder = make_run_folder(project, "spring")
    (folder / ".journal").mkdir()
    (folder / "=ä b.csv").write_text("a")
    with client_of(project) as client:
        (folder / "link.csv").symlink_to(project / "project.sqlite")  # later: a project with links can't be opened
        files = client.get(f"{JOBS}/runs/spring/files").json()
        assert files["files"] == [{"name": "=ä b.csv", "bytes": 1, "folder": False}]
        assert files["tags"] is False
        assert client.get(f"{JOBS}/runs/spring/files/%3D%C3%A4%20b.csv").text == "a"
        for name in (".journal", "link.csv", "..%2F..%2Fproject.sqlite", "none.csv"):
            assert client.get(f"{JOBS}/runs/spring/files/{name}").status_code == 404
        assert_problem(client.get(f"{JOBS}/runs/spring/failures"), 404, "status.csv")
        assert_problem(client.get(f"{JOBS}/runs/spring/failures?first=-1"), 422, "expected a number")


def test_failures_come_in_pages(tmp_path):
    lines = [f"a{number}.wav,{'done' if number % 2 else 'skipped'},broken,,,,notes\n" for number in range(100)]
    lines.append("'=b.wav,truncated,,1,2,,only 1 s of 2 s\n")
    (tmp_path / "status.csv").write_text("file,status,reason,seconds,expected_seconds,labels,notes\n" + "".join(lines))
    page, n_all = failures(tmp_path, first=49, n_most=50)
    assert (n_all, [tuple(row) for row in page]) == (
        51,
        [("a98.wav", "skipped", "broken"), ("=b.wav", "truncated", "only 1 s of 2 s")],
    )


def test_counts_are_per_label_and_recording(tmp_path):
    (tmp_path / "tags.csv").write_text(
        "file,start,end,label,probability\na.wav,0,1,low,1\na.wav,1,2,low,1\na.wav,1,2,'=high,1\nb.wav,0,1,low,1\n"
    )
    counts = counts_per_label(tmp_path)
    assert [(label, one.n_rows, one.n_recordings) for label, one in counts.items()] == [("low", 3, 2), ("=high", 1, 1)]


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\\b", " a", "a.", "-a", "a" * 81, "NUL", "com1.csv", "a\nb"])
def test_names_that_are_no_folders_everywhere_are_refused(tmp_path, name):
    with pytest.raises(ConfigError, match="use up to 80 letters"):
        check_run_name(name)
    assert run_folder(tmp_path, name) is None or name in ("NUL", "com1.csv")


def test_free_names_come_from_the_folder(tmp_path):
    assert free_run_name(tmp_path, tmp_path / "Wald & Wiese (ä)") == "Wald-Wiese-ä"
    assert free_run_name(tmp_path, tmp_path / "nul") == "run-nul"
    make_run_folder(tmp_path, "a")
    assert free_run_name(tmp_path, tmp_path / "a") == "a-2"


def test_zip_and_listing_leave_links_out(tmp_path):
    folder = tmp_path / "raven"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep/a.txt").write_text("a")
    (folder / "b.txt").symlink_to("/etc/hostname")
    write_zip(folder, tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.namelist() == ["raven/deep/a.txt"]
    assert [file.name for file in run_files(tmp_path)] == ["a.zip", "raven"]


def test_formats_say_what_they_need(project):
    with client_of(project) as client:
        formats = {one["name"]: one for one in client.get(f"{JOBS}/formats").json()}
    assert "csv" not in formats
    assert formats["raven"] == {"name": "raven", "missing": "", "segments": True}
    assert formats["multi-hot"]["segments"] is False


def test_view_is_listed_only_with_a_project(project, model):
    with client_of(project) as client:
        assert "jobs" in client.get("/views").json()["views"]
    app = create_app(model, ServeSettings(), workers=1, port=PORT)
    with TestClient(app, base_url=f"http://127.0.0.1:{PORT}") as client:
        assert "jobs" not in client.get("/views").json()["views"]


def test_job_of_a_deleted_version_says_so(project, recordings):
    query = query_of(recordings) | {"version": 7}
    with pytest.raises(DataError, match="no version 7"):
        bulk_tagging.tag_recordings(context_of(project), query)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "../../spring"}, "use up to 80 letters"),
        ({"recordings": "s3://bucket/folder"}, "expected a folder of this computer"),
        ({"settings": {"format": "csv", "prior": "/etc/passwd"}}, "prior"),
    ],
)
def test_jobs_of_a_strangers_project_stay_in_it(project, recordings, changes, words):
    with pytest.raises(ConfigError, match=words):
        bulk_tagging.tag_recordings(context_of(project), query_of(recordings) | changes)


def test_runs_are_not_written_through_links(project, recordings, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (project / "runs").mkdir()
    (project / "runs/spring").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="is a link"):
        bulk_tagging.tag_recordings(context_of(project), query_of(recordings))
    assert not list((tmp_path / "elsewhere").iterdir())


def test_kind_has_its_function():
    assert imported_function(JOB_KINDS[bulk_tagging.KIND]) is bulk_tagging.tag_recordings
