"""Files that appear complete or not at all."""

import errno
import os

import pytest

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


def test_pipe_is_written_directly(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with unfinished_file(path) as unfinished:
        unfinished.write_text("rows")
    assert os.read(reader, 10) == b"rows"
    os.close(reader)
    assert path.is_fifo()
