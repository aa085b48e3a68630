"""What a run has done stays done."""

import signal
import subprocess
import sys

import numpy as np
import pytest

from helpers.paths import TESTS
from spectag.errors import DataError
from spectag.models.timeline import Timeline
from spectag.tagging import journal as journal_module
from spectag.tagging.journal import open_journal
from spectag.tagging.parallel import TaggedFile


def tagged(file, n_windows=3, seed=0):
    starts = np.arange(n_windows, dtype=np.float64) / 3
    probabilities = np.random.default_rng(seed).random((n_windows, 4), np.float32)
    return TaggedFile(file, Timeline(starts, starts + 1, probabilities))


def same(one, other):
    return (one.file, one.reason) == (other.file, other.reason) and all(
        np.array_equal(getattr(one.timeline, name), getattr(other.timeline, name))
        for name in ("starts", "ends", "probabilities")
    )


def test_what_is_noted_is_read_back_bit_for_bit(tmp_path, monkeypatch):
    monkeypatch.setattr(journal_module, "_PIECE", 2)
    files = [tagged("a b.wav", 5), tagged("ü.wav", 1, seed=1), tagged("\udcff.wav", 4, seed=2)]
    with open_journal(tmp_path / "j", key="k") as journal:
        for file in files:
            journal.add(file, "7")
    with open_journal(tmp_path / "j", key="k") as journal:
        assert journal.done() == {file.file: "7" for file in files}
        names = [file.file for file in reversed(files)]
        assert all(same(*pair) for pair in zip(journal.tagged(names), reversed(files), strict=True))


def test_skipped_file_keeps_its_reason(tmp_path):
    skipped = TaggedFile("a.wav", None, "a.wav: empty")
    with open_journal(tmp_path / "j", key="k") as journal:
        journal.add(skipped, "1")
        assert list(journal.tagged(["a.wav"])) == [skipped]


def test_file_that_is_noted_again_is_what_was_noted_last(tmp_path):
    with open_journal(tmp_path / "j", key="k") as journal:
        journal.add(tagged("a.wav", 5), "1")
        journal.add(tagged("a.wav", 2, seed=1), "2")
        assert journal.done() == {"a.wav": "2"}
        assert same(next(journal.tagged(["a.wav"])), tagged("a.wav", 2, seed=1))


def test_image_has_no_end(tmp_path):
    image = TaggedFile("a.png", Timeline(np.zeros(1), np.array([np.nan]), np.ones((1, 4), np.float32)))
    with open_journal(tmp_path / "j", key="k") as journal:
        journal.add(image, "1")
        assert np.isnan(next(journal.tagged(["a.png"])).timeline.ends).all()


def test_each_key_has_what_was_done_with_it(tmp_path):
    with open_journal(tmp_path / "j", key="k") as journal:
        journal.add(tagged("a.wav"), "1")
    with open_journal(tmp_path / "j", key="other") as journal:
        assert journal.done() == {}
        journal.add(tagged("b.wav"), "1")
    with open_journal(tmp_path / "j", key="k") as journal:
        assert journal.done() == {"a.wav": "1"}


def test_skipped_file_is_not_done_for_it_may_be_there_again(tmp_path):
    with open_journal(tmp_path / "j", key="k") as journal:
        journal.add(TaggedFile("a.wav", None, "a.wav: can't read the sound"), "1")
        assert journal.done() == {}


def test_journal_knows_whether_a_run_has_begun_it(tmp_path):
    for is_new in (True, False):
        with open_journal(tmp_path / "j", key="k") as journal:
            assert journal.is_new == is_new


def test_journal_is_there_until_it_is_not_needed(tmp_path):
    with open_journal(tmp_path / "j", key="k"):
        pass
    assert (tmp_path / "j").is_dir()
    with open_journal(tmp_path / "j", key="k") as journal:
        journal.is_needed = False
    assert not (tmp_path / "j").exists()


def test_second_run_is_told_that_there_is_another(tmp_path):
    with open_journal(tmp_path / "j", key="k") as journal:
        journal.add(tagged("a.wav"), "1")
        second = open_journal(tmp_path / "j", key="k")
        with pytest.raises(DataError, match="another run is at work on this output"):
            second.__enter__()


def test_file_that_is_no_journal_is_told(tmp_path):
    (tmp_path / "j").mkdir()
    (tmp_path / "j" / "k.sqlite").write_text("something else, and long enough to be looked at for a database")
    with pytest.raises(DataError, match=r"k\.sqlite: the journal can't be read: file is not a database; delete it"):
        open_journal(tmp_path / "j", key="k").__enter__()


def test_kill_leaves_all_that_was_committed(tmp_path):
    script = f"""
import os, signal, sys
sys.path.insert(0, {str(TESTS / "tagging")!r})
from pathlib import Path
from test_journal import open_journal, tagged
with open_journal(Path({str(tmp_path / "j")!r}), key="k") as journal:
    journal.add(tagged("a.wav"), "1")
    journal.commit()
    journal.add(tagged("b.wav"), "1")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", script]).returncode == -signal.SIGKILL
    with open_journal(tmp_path / "j", key="k") as journal:
        assert journal.done() == {"a.wav": "1"}
        assert same(next(journal.tagged(["a.wav"])), tagged("a.wav"))
