"""Projects: who may open one, and what is refused."""

import os
import re
import sqlite3
import threading

import pytest

from helpers.bundles import make_bundle, make_info, tone
from spectag.audio.files import write_audio
from spectag.config.serving import ServeSettings
from spectag.errors import ConfigError, DataError
from spectag.serving import create_app
from spectag.serving.project.database import DATABASE, ProjectDatabase
from spectag.serving.project.label_clips import ClipState
from spectag.serving.project.label_rows import FoundClip
from spectag.serving.project.project import open_project


def changed(folder, *statements):
    with open_project(folder):
        pass
    connection = sqlite3.connect(folder / DATABASE)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def test_settings_are_kept(tmp_path):
    with open_project(tmp_path / "new" / "project") as project:
        assert project.name == "project"
        assert project.setting("reviewer") is None
        project.store_setting("reviewer", "Ann")
        project.store_setting("reviewer", "Bea")
    with open_project(tmp_path / "new" / "project") as project:
        assert project.setting("reviewer") == "Bea"


def test_only_one_server_has_a_project_open(tmp_path):
    with open_project(tmp_path), pytest.raises(ConfigError, match="another spectag serve has this project open"):
        open_project(tmp_path).__enter__()
    with open_project(tmp_path):
        pass


def test_second_server_of_a_project_says_so(tmp_path):
    model = make_bundle(tmp_path / "model", make_info())
    with open_project(tmp_path / "project"), pytest.raises(ConfigError, match="another spectag serve"):
        create_app(model, ServeSettings(), project=tmp_path / "project", workers=1)


def test_folder_with_other_files_is_no_project(tmp_path):
    (tmp_path / "thesis.doc").touch()
    with pytest.raises(ConfigError, match="has files, but no project; choose an empty folder"):
        open_project(tmp_path).__enter__()
    assert not (tmp_path / DATABASE).exists()


def test_project_of_a_later_version_is_refused_and_not_changed(tmp_path):
    changed(tmp_path, "PRAGMA user_version = 99")
    content = (tmp_path / DATABASE).read_bytes()
    with pytest.raises(DataError, match="made by a later version of spectag; install it"):
        open_project(tmp_path).__enter__()
    assert (tmp_path / DATABASE).read_bytes() == content


@pytest.mark.parametrize(
    "content", [b"not a database, but long enough to look like one" * 100, b"SQLite format 3\0" * 99]
)
def test_damaged_database_is_refused_in_one_line(tmp_path, content):
    (tmp_path / DATABASE).write_bytes(content)
    with pytest.raises(DataError, match=r"project\.sqlite: .*; see whether the disk is full, or restore a copy"):
        open_project(tmp_path).__enter__()


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("CREATE TRIGGER harm AFTER INSERT ON job BEGIN DELETE FROM version; END", "unknown trigger 'harm'"),
        ("CREATE VIEW harm AS SELECT 1", "unknown view 'harm'"),
        ("CREATE VIRTUAL TABLE harm USING fts5(text)", "unknown table 'harm'"),
        ("ALTER TABLE job ADD COLUMN harm", "unknown table 'job'"),
    ],
)
def test_database_of_a_stranger_has_no_other_schema(tmp_path, statement, words):
    changed(tmp_path, statement)
    with pytest.raises(DataError, match=words):
        open_project(tmp_path).__enter__()


def insert(database, *names):
    with database.transaction() as connection:
        for name in names:
            connection.execute("INSERT INTO thing VALUES (?)", (name,))


def insert_and_fail(database):
    with database.transaction() as connection:
        connection.execute("INSERT INTO thing VALUES ('lost')")
        raise ZeroDivisionError


def test_failed_transaction_changes_nothing_and_others_still_work(tmp_path):
    database = ProjectDatabase(tmp_path, ["CREATE TABLE IF NOT EXISTS thing (name TEXT NOT NULL)"])
    with pytest.raises(ZeroDivisionError):
        insert_and_fail(database)
    with pytest.raises(DataError, match="NOT NULL"):
        insert(database, "lost", None)
    insert(database, "kept")
    assert [row["name"] for row in database.rows("SELECT * FROM thing")] == ["kept"]
    database.close()


def test_commit_that_fails_leaves_the_database_usable(tmp_path):
    with open_project(tmp_path / "project") as project:
        connection = project.database._connection
        is_commit = lambda action, name, *_: action == sqlite3.SQLITE_TRANSACTION and name == "COMMIT"  # noqa: E731
        connection.set_authorizer(lambda *given: sqlite3.SQLITE_DENY if is_commit(*given) else sqlite3.SQLITE_OK)
        with pytest.raises(DataError):
            project.store_setting("a", "1")
        connection.set_authorizer(None)
        assert project.setting("a") is None
        project.store_setting("a", "2")
        assert project.setting("a") == "2"


@pytest.mark.skipif(os.name != "posix", reason="links need rights on Windows")
@pytest.mark.parametrize(
    "name", ["project.sqlite", "labels.csv", "models", "runs/spring/tags.csv", "checks/x", "jobs/0001/errors.log"]
)
def test_project_of_a_stranger_does_not_lead_to_files_elsewhere(tmp_path, name):
    with open_project(tmp_path / "project") as project:
        path = project.folder / name
    victim = tmp_path / "mine"
    victim.write_text("mine")
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    for make, words in ((lambda: path.symlink_to(victim), "is a link"), (lambda: os.mkfifo(path), "is a pipe")):
        make()
        with (
            pytest.raises(DataError, match=rf"{re.escape(name)}: {words}.*replace it by the file or folder"),
            open_project(tmp_path / "project"),
        ):
            pass
        path.unlink()
    assert victim.read_text() == "mine"


@pytest.mark.skipif(os.name != "posix", reason="links need rights on Windows")
def test_recordings_in_a_project_may_be_links(tmp_path):
    with open_project(tmp_path / "project") as project:
        (project.folder / "recordings").symlink_to(tmp_path)
    with open_project(tmp_path / "project"):
        pass


def test_recordings_are_found_after_the_project_was_moved(tmp_path):
    outside = tmp_path / "outside.wav"
    with open_project(tmp_path / "old") as project:
        inside, gone = (project.folder / name for name in ("inside.wav", "gone.wav"))
        for path in (outside, inside):
            write_audio(path, tone("low", 1.0), 16_000)
        paths = (inside, outside, gone)
        found = [FoundClip(str(path), path.name, 0.0, None, ClipState(labels=("Dog",))) for path in paths]
        project.labels.add_clips(found, [], reviewer="Anna")
    for before, now in (("old", "new"), ("new", "old2"), ("old2", "old2")):
        (tmp_path / before).rename(tmp_path / now)
        with open_project(tmp_path / now) as project:
            clips = [clip.path for clip in project.labels.all_clips()]
            assert clips == [tmp_path / now / "inside.wav", outside, gone]
            assert "\ninside.wav,Dog" in (project.folder / "labels.csv").read_text("utf-8")


def test_no_version_and_no_job_has_a_number_that_sqlite_does_not_know(tmp_path):
    with open_project(tmp_path) as project:
        assert project.versions.get(10**30) is None
        assert project.jobs.get(10**30) is None


def test_many_threads_share_a_database(tmp_path):
    database = ProjectDatabase(tmp_path, ["CREATE TABLE IF NOT EXISTS thing (name TEXT)"])

    def add():
        for _ in range(20):
            with database.transaction() as connection:
                connection.execute("INSERT INTO thing VALUES ('x')")

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert database.rows("SELECT count(*) AS n FROM thing")[0]["n"] == 80
    database.close()
