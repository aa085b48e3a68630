"""Jobs: they run one after another, survive what happens to the server, and say why they failed."""

import json
import os
import signal
import sqlite3
import subprocess
import sys

import pytest

from helpers.project_jobs import KINDS, TESTS, wait_until
from spectag.errors import ConfigError
from spectag.serving.project.database import DATABASE
from spectag.serving.project.job_kinds import JOB_KINDS, imported_function
from spectag.serving.project.jobs import ENDED
from spectag.serving.project.project import open_project
from spectag.serving.project.running_job import RunningJob

SERVER = """
import sys, time
from pathlib import Path
from helpers.project_jobs import KINDS
from spectag.serving.project.job_kinds import JOB_KINDS
from spectag.serving.project.project import open_project
JOB_KINDS.update(KINDS)
with open_project(Path(sys.argv[1])) as project:
    project.jobs.start("wait", {}, "wait")
    project.jobs.start("double", {"number": 21}, "double")
    while project.jobs.get(1).progress is None or not project.jobs.get(1).log:
        time.sleep(0.01)
    print("running", flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def _kinds(monkeypatch):
    """The jobs of the tests, which the processes of jobs import."""
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    for kind, function in KINDS.items():
        monkeypatch.setitem(JOB_KINDS, kind, function)


@pytest.fixture
def project(tmp_path):
    with open_project(tmp_path / "project") as project:
        yield project


def ended(project, number):
    wait_until(lambda: project.jobs.get(number).state in ENDED)
    return project.jobs.get(number)


def go(project):
    (project.folder / "go").touch()


def running(project, number):
    wait_until(lambda: project.jobs.get(number).log)


def test_every_kind_of_job_has_a_function():
    for function in JOB_KINDS.values():
        assert callable(imported_function(function))


def test_job_returns_its_result_and_keeps_its_log(project):
    job = ended(project, project.jobs.start("double", {"number": 21}, "double it"))
    assert (job.state, job.result, job.problem, job.log) == ("done", {"number": 42}, "", ("doubled",))
    assert (job.title, job.query, job.progress) == ("double it", {"number": 21}, None)
    assert job.created <= job.started <= job.ended
    assert project.jobs.last("double") == job
    assert project.jobs.last("wait") is None


def test_events_of_a_running_job_are_taken_over(project):
    number = project.jobs.start("wait", {}, "wait")
    running(project, number)
    wait_until(lambda: project.jobs.get(number).progress.n_done)
    progress = project.jobs.get(number).progress
    assert (progress.step, progress.n_done, progress.n_total, progress.seconds_left) == ("waiting", 1, 3, None)


def test_epochs_and_the_time_that_is_left_are_taken_over(project):
    job = project.jobs._next  # no job: only the events are of interest
    assert job() is None
    followed = RunningJob(1, (), lambda _: None)
    (project.folder / "jobs").mkdir(exist_ok=True)
    assert followed.run(project.folder, "double", {"number": 1}) == {"number": 2}
    assert (followed.progress.seconds_left, followed.progress.epochs[0]["train_loss"]) == (3.5, 0.5)


def test_numbers_that_are_not_finite_reach_the_page_as_none(project):
    followed = RunningJob(1, (), lambda _: None)
    (project.folder / "jobs").mkdir()
    result = {"loss": None, "losses": [None, 0.5]}
    assert followed.run(project.folder, "diverge", {}) == result
    assert (followed.progress.epochs[0]["train_loss"], followed.progress.epochs[0]["valid_loss"]) == (None, None)
    assert ended(project, project.jobs.start("diverge", {}, "diverge")).result == result


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("fail", "clips.csv, line 3: no such file; correct the name"),
        ("crash", "ended with status 7; "),
        ("need_too_much_memory", "not enough memory"),
        ("fill_disk", "model.onnx: No space left on device; see whether the disk is full"),
        pytest.param(
            "half_a_line",
            "was killed, probably because of too little memory",
            marks=pytest.mark.skipif(os.name != "posix", reason="Windows has no SIGKILL"),
        ),
    ],
)
def test_failed_job_has_a_reason_and_the_next_one_runs(project, kind, words):
    failed, next_one = project.jobs.start(kind, {}, kind), project.jobs.start("double", {"number": 1}, "next")
    assert ended(project, failed).state == "failed"
    assert words in project.jobs.get(failed).problem
    assert ended(project, next_one).state == "done"


def test_what_libraries_print_is_no_event(project):
    assert ended(project, project.jobs.start("print_to_stdout", {}, "print")).result == {"is": "mine"}


def test_one_job_runs_at_a_time_and_the_next_one_when_it_has_ended(project):
    first, second = project.jobs.start("wait", {}, "first"), project.jobs.start("double", {"number": 1}, "second")
    running(project, first)
    assert [job.state for job in project.jobs.all()] == ["waiting", "running"]
    go(project)
    assert ended(project, second).state == "done"
    assert project.jobs.get(first).state == "done"


def test_stopped_job_ends_and_can_be_resumed_with_its_log(project):
    number = project.jobs.start("wait", {}, "wait")
    running(project, number)
    project.jobs.stop(number)
    job = ended(project, number)
    assert (job.state, job.problem, job.log) == ("stopped", "", ("run 1",))
    go(project)
    project.jobs.resume(number)
    wait_until(lambda: project.jobs.get(number).state == "done")
    assert project.jobs.get(number).result == {"runs": 2}
    assert project.jobs.get(number).log == ("run 1", "run 2")


def test_waiting_job_can_be_stopped(project):
    first, second = project.jobs.start("wait", {}, "first"), project.jobs.start("double", {"number": 1}, "second")
    running(project, first)
    project.jobs.stop(second)
    assert project.jobs.get(second).state == "stopped"
    go(project)
    assert ended(project, first).state == "done"
    assert project.jobs.get(second).state == "stopped"


def test_only_a_job_that_did_not_succeed_can_be_resumed(project):
    number = project.jobs.start("double", {"number": 1}, "double")
    ended(project, number)
    with pytest.raises(ConfigError, match="stopped, interrupted or has failed"):
        project.jobs.resume(number)


def test_closing_interrupts_the_running_job_and_the_others_run_when_the_project_is_opened_again(tmp_path):
    with open_project(tmp_path) as project:
        first, second = project.jobs.start("wait", {}, "first"), project.jobs.start("double", {"number": 1}, "second")
        running(project, first)
    with open_project(tmp_path) as project:
        job = project.jobs.get(first)
        assert (job.state, job.log) == ("interrupted", ("run 1",))
        assert "resume it" in job.problem
        assert ended(project, second).state == "done"


@pytest.mark.skipif(os.name != "posix", reason="Windows has no SIGKILL")
def test_job_of_a_killed_server_ends_counts_as_interrupted_and_can_be_resumed(tmp_path):
    folder = tmp_path / "project"
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, str(folder)], stdout=subprocess.PIPE, text=True, env=os.environ
    ) as server:
        assert server.stdout.readline() == "running\n"
        job_process = int((folder / "jobs" / "0001" / "pid-0").read_text(encoding="ascii"))
        server.send_signal(signal.SIGKILL)
        server.wait(20)
    wait_until(lambda: not is_alive(job_process))
    with open_project(folder) as project:
        job = project.jobs.get(1)
        assert (job.state, job.log) == ("interrupted", ("run 1",))
        assert ended(project, 2).result == {"number": 42}, "the one that was waiting"
        go(project)
        project.jobs.resume(1)
        wait_until(lambda: project.jobs.get(1).state == "done")
        assert project.jobs.get(1).result == {"runs": 2}


def is_alive(number):
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.skipif(os.name != "posix", reason="Windows has no process groups")
def test_ctrl_c_in_the_terminal_reaches_the_job_only_through_the_server(project):
    number = project.jobs.start("wait", {}, "wait")
    running(project, number)
    job_process = int((project.folder / "jobs" / "0001" / "pid-0").read_text(encoding="ascii"))
    assert os.getpgid(job_process) != os.getpgid(0)


def test_strange_kind_query_and_log_of_a_strangers_project_do_no_harm(tmp_path):
    with open_project(tmp_path):
        pass
    with sqlite3.connect(tmp_path / DATABASE) as connection:
        insert = (
            "INSERT INTO job (kind, title, query, state, created, log, result) VALUES (?, ?, ?, 'waiting', '', ?, ?)"
        )
        connection.execute(insert, ("os:system", b"\xff", '"rm"', "[1]", "[NaN]"))
        connection.execute(insert, ("double", "t", "[" * 10_000, "{", "{}"))
    connection.close()
    with open_project(tmp_path) as project:
        assert "has no jobs of the kind 'os:system'" in ended(project, 1).problem
        assert ended(project, 2).state == "failed"
        assert json.dumps([job.title for job in project.jobs.all()]) == '["t", ""]'
