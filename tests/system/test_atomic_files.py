"""Files that appear complete or not at all."""

import errno
import os

import pytest

from spectag.system import atomic_files
from spectag.system.atomic_files import unfinished_file


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("name", ["a.csv", "ä b,c.tar.gz", "no suffix", ".hidden"])
def test_file_appears_when_it_is_complete(tmp_path, name):
    path = tmp_path / name
    with unfinished_file(path) as unfinished:
        unfinished.write_text("new")
        assert not path.exists()
        assert unfinished.suffix == path.suffix or not path.suffix
    assert path.read_text() == "new"
    assert names_in(tmp_path) == [name]


def test_missing_folders_are_created(tmp_path):
    with unfinished_file(tmp_path / "neu" / "tiefer" / "a.csv") as unfinished:
        unfinished.write_text("new")
    assert (tmp_path / "neu" / "tiefer" / "a.csv").read_text() == "new"


def write_half(path, error):
    path.write_text("half")
    raise error


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_old_file_stays_when_writing_fails(tmp_path, error):
    path = tmp_path / "a.csv"
    path.write_text("old")
    with pytest.raises(error), unfinished_file(path) as unfinished:
        write_half(unfinished, error)
    assert path.read_text() == "old"
    assert names_in(tmp_path) == ["a.csv"]


def test_folder_with_the_name_raises_an_error_before_any_work(tmp_path):
    with pytest.raises(IsADirectoryError) as error, unfinished_file(tmp_path):
        pytest.fail("the work has started")
    assert error.value.errno == errno.EISDIR


def test_target_of_a_symbolic_link_is_replaced(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "link.csv").symlink_to(tmp_path / "far" / "target.csv")
    with unfinished_file(tmp_path / "link.csv") as unfinished:
        unfinished.write_text("new")
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "far" / "target.csv").read_text() == "new"


def leave_unfinished(path):
    """The temporary file that a killed process has left for a path."""
    read_end, write_end = os.pipe()
    process = os.fork()
    if process == 0:
        with unfinished_file(path) as unfinished:
            unfinished.write_text("half")
            os.write(write_end, unfinished.name.encode())
            os._exit(1)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        name = pipe.read().decode()
    os.waitpid(process, 0)
    return path.with_name(name)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_temporary_file_of_a_killed_process_is_deleted(tmp_path):
    assert leave_unfinished(tmp_path / "a.csv").read_text() == "half"
    with unfinished_file(tmp_path / "a.csv") as unfinished:
        unfinished.write_text("new")
    assert names_in(tmp_path) == ["a.csv"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_temporary_file_of_another_machine_stays_because_its_process_may_run(tmp_path, monkeypatch):
    left = leave_unfinished(tmp_path / "a.csv")
    atomic_files._machine.cache_clear()
    monkeypatch.setattr(atomic_files.platform, "node", lambda: "another machine")
    with unfinished_file(tmp_path / "a.csv") as unfinished:
        unfinished.write_text("new")
    atomic_files._machine.cache_clear()
    assert names_in(tmp_path) == sorted([left.name, "a.csv"])


def test_pipe_is_written_directly(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with unfinished_file(path) as unfinished:
        unfinished.write_text("rows")
    assert os.read(reader, 10) == b"rows"
    os.close(reader)
    assert path.is_fifo()
