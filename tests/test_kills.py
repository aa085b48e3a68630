"""Runs that are killed, run twice at once or lose permissions. benchmarks/kills.py is the long form."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from benchmarks.kills import COMMANDS, Campaign, can_lose_permission, make_data, make_sounds

from helpers.bundles import make_bundle
from spectag.curation.sound_index import database
from spectag.curation.sound_index.building import build_index
from spectag.errors import ConfigError
from spectag.models.bundle import INFO_FILE, clean_up_after_kills, replace_when_complete
from spectag.reporting import review_folder
from spectag.system.atomic_files import _machine
from spectag.system.output import open_output

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")

N_MOMENTS = 2


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """Sounds and two models without training."""
    folder = tmp_path_factory.mktemp("kills") / "data"
    make_sounds(folder, seconds=0.3)
    make_bundle(folder / "model")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Sounds and two trained models."""
    folder = tmp_path_factory.mktemp("kills") / "data"
    make_data(folder)
    return folder


def make_campaign(name, data, root):
    root.mkdir()
    return Campaign(COMMANDS[name], data, root)


@pytest.fixture(scope="module")
def split(sounds, tmp_path_factory):
    """The quickest command, and what it leaves."""
    campaign = make_campaign("split", sounds, tmp_path_factory.mktemp("split") / "cases")
    return campaign, campaign.undisturbed()


def test_killed_command_that_is_run_again_gives_the_bytes_of_an_undisturbed_run(split):
    campaign, expected = split
    assert campaign.case("killed", campaign.n_operations, expected, with_old=True) == ([], True)


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_ends_with_the_same_bytes_after_kills_at_random_moments(data, tmp_path, rng, name):
    campaign = make_campaign(name, data, tmp_path / "cases")
    result = campaign.run(N_MOMENTS, rng)
    assert result.n_killed > 0
    assert result.faults + result.other_faults == []


@pytest.mark.skipif(not can_lose_permission(), reason="needs setpriv, because root may write everywhere")
def test_permission_lost_midway_is_one_line_and_old_tables_stay(split):
    campaign, expected = split
    assert campaign.without_permission(1, expected) == []


def test_two_runs_with_one_output_give_the_results_of_one(split):
    campaign, expected = split
    assert campaign.at_once(expected) == []


REPLACED_AND_KILLED = """
import os, shutil, signal, sys
from pathlib import Path
from spectag.models.bundle import clean_up_after_kills, replace_when_complete

root, n_left = Path(sys.argv[1]), 0
operations = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir"}

def die(event, arguments):
    global n_left
    n_left -= event in operations
    if n_left == 0 and event in operations:
        os.kill(os.getpid(), signal.SIGKILL)

def replace(model):
    with replace_when_complete(model) as folder:
        (folder / "a").write_text("new")
        (folder / "b").write_text("new")

step, status = 0, 1
while status != 0:
    step += 1
    model = root / str(step) / "model"
    model.mkdir(parents=True)
    (model / "a").write_text("old")
    (model / "b").write_text("old")
    process = os.fork()
    if process == 0:
        n_left = step
        sys.addaudithook(die)
        replace(model)
        n_left = -1
        os._exit(0)
    status = os.waitpid(process, 0)[1]
    clean_up_after_kills(model)
    assert {(model / name).read_text() for name in "ab"} in ({"old"}, {"new"}), step
    replace(model)
    assert [path.name for path in model.parent.iterdir()] == ["model"], step
    assert {(model / name).read_text() for name in "ab"} == {"new"}
print(step)
"""


def test_model_folder_is_the_old_or_the_new_one_after_a_kill_at_any_operation(tmp_path):
    script = [sys.executable, "-W", "ignore", "-c", REPLACED_AND_KILLED, tmp_path]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 8


def test_unfinished_folder_of_a_bundle_with_a_longer_name_is_not_cleaned_up(tmp_path):
    others = {f".model-2-0123abcd{ending}" for ending in ("", "-replaced", "-lock")}
    for name in others:
        (tmp_path / name).touch() if name.endswith("lock") else (tmp_path / name).mkdir()
    clean_up_after_kills(tmp_path / "model")
    assert {path.name for path in tmp_path.iterdir()} == others
    clean_up_after_kills(tmp_path / "model-2")
    assert {path.name for path in tmp_path.iterdir()} == {"model-2"}


def test_lock_that_cannot_be_deleted_while_it_is_held_does_not_matter(tmp_path, monkeypatch):
    def refuse(path, missing_ok=False):  # as Windows does
        raise PermissionError(13, "another process uses the file", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        with replace_when_complete(tmp_path / "model") as folder:
            (folder / INFO_FILE).write_text("new")
    assert (tmp_path / "model" / INFO_FILE).read_text() == "new"


def test_folder_of_a_running_process_is_not_cleaned_up(tmp_path):
    with replace_when_complete(tmp_path / "model") as first:
        (first / INFO_FILE).write_text("first")
        with replace_when_complete(tmp_path / "model") as second:
            (second / INFO_FILE).write_text("second")
    assert (tmp_path / "model" / INFO_FILE).read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_index_that_was_killed_before_its_metadata_were_written_is_continued(sounds, tmp_path):
    folder = tmp_path / "index"
    folder.mkdir()
    for name in ("lock", "index.sqlite", "index.sqlite-journal", ".index.123.json"):
        (folder / name).touch()
    assert build_index([sounds / "clips"], folder, model=sounds / "model", workers=1).n_files == 12
    assert not (folder / ".index.123.json").exists()


def test_folder_with_other_files_than_those_of_a_killed_run_is_refused(sounds, tmp_path):
    for name in ("index.txt", ".index.json", "lock.wav"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / name).touch()
        with pytest.raises(ConfigError, match="the folder contains files, but no index"):
            build_index([sounds / "clips"], folder, model=sounds / "model")


def test_corrections_appear_after_the_page_so_that_a_killed_review_can_be_started_again(
    sounds, tmp_path, run, monkeypatch
):
    def killed(*_, **__):
        raise KeyboardInterrupt

    options = ("--corrections", sounds / "corrections.csv", "--accept-above", "0.01", "--reviewer", "A")
    arguments = ("review", sounds / "model", sounds / "wrong.csv", "-o", tmp_path / "review", "--labels-only", *options)
    with monkeypatch.context() as patch:
        patch.setattr(review_folder, "write_review_page", killed)
        assert run(*arguments).status == 130
    assert run(*arguments).status == 0
    assert (tmp_path / "review" / "corrections.csv").exists()


def test_temporary_file_of_a_killed_process_is_removed_by_the_next_that_writes_the_same_file(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    running, ended = (f"{_machine()}{pid:07}" for pid in (os.getppid(), ended.pid))
    kept = [f".a.{running}.csv", f".ab.{ended}.csv", f".a.{ended}.txt", ".a.old.csv"]
    for name in (*kept, f".a.{ended}.csv"):
        (tmp_path / name).touch()
    with open_output(tmp_path / "a.csv") as out:
        out.write("x")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*kept, "a.csv"])


def test_corrections_of_another_run_in_the_meantime_are_not_written_twice(sounds, tmp_path, run, monkeypatch):
    options = ("--corrections", sounds / "corrections.csv", "--accept-above", "0.01", "--reviewer", "A")
    arguments = ("review", sounds / "model", sounds / "wrong.csv", "-o", tmp_path / "review", "--labels-only", *options)
    write_page = review_folder.write_review_page

    def write_page_while_another_run_ends(*page_arguments, **page_options):
        monkeypatch.setattr(review_folder, "write_review_page", write_page)
        assert run(*arguments).status == 0
        return write_page(*page_arguments, **page_options)

    monkeypatch.setattr(review_folder, "write_review_page", write_page_while_another_run_ends)
    done = run(*arguments)
    assert done.status == 1
    assert "the file contains corrections, which have to be applied first" in done.err
    rows = (tmp_path / "review" / "corrections.csv").read_text().splitlines()
    names = [row.split(",")[2] for row in rows]
    assert len(names) == len(set(names)) > 1


def test_database_of_an_index_has_all_tables_or_none_at_every_statement(tmp_path, monkeypatch):
    """Each statement of its creation is followed by a look at what a kill would leave."""
    contents = set()

    class Connection(sqlite3.Connection):
        def executescript(self, script):
            def look(_):
                with closing(connect(tmp_path / "index.sqlite")) as other:
                    contents.add(other.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])

            self.set_trace_callback(look)
            super().executescript(script)
            self.set_trace_callback(None)

    connect = sqlite3.connect
    monkeypatch.setattr(database.sqlite3, "connect", lambda *a, **options: connect(*a, factory=Connection, **options))
    database.IndexDatabase(tmp_path).close()
    assert contents == {0}
