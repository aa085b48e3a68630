"""The journal keeps what a run has tagged."""

import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from helpers.paths import TESTS
from spectag.errors import DataError
from spectag.models.frames_info import FramesInfo
from spectag.models.timeline import Timeline
from spectag.tagging import journal as journal_module
from spectag.tagging.journal import open_journal
from spectag.tagging.parallel import TaggedFile


def make_tagged(file, n_windows=3, seed=0):
    starts = np.arange(n_windows, dtype=np.float64) / 3
    probabilities = np.random.default_rng(seed).random((n_windows, 4), np.float32)
    return TaggedFile(file, Timeline(starts, starts + 1, probabilities))


def with_novelty(tagged):
    novelty = np.linspace(0, 2, len(tagged.timeline.starts), dtype=np.float32)
    return replace(tagged, timeline=replace(tagged.timeline, novelty=novelty))


def is_equal(first, second):
    return (first.file, first.reason) == (second.file, second.reason) and all(
        np.array_equal(getattr(first.timeline, name), getattr(second.timeline, name))
        for name in ("starts", "ends", "probabilities", "novelty")
    )


def test_results_are_read_back_bit_for_bit(tmp_path, monkeypatch):
    monkeypatch.setattr(journal_module, "_BATCH_WINDOWS", 2)
    files = [
        with_novelty(make_tagged("a b.wav", 5)),
        make_tagged("ü.wav", 1, seed=1),
        make_tagged("\udcff.wav", 4, seed=2),
    ]
    with open_journal(tmp_path / "j", key="k") as journal:
        for file in files:
            journal.add(file, "7")
    with open_journal(tmp_path / "j", key="k") as journal:
        assert journal.fingerprints() == {file.file: "7" for file in files}
        names = [file.file for file in reversed(files)]
        assert all(is_equal(*pair) for pair in zip(journal.tagged(names), reversed(files), strict=True))


def test_frames_are_read_back_with_how_they_become_segments(tmp_path):
    edges = np.arange(8) / 12.5
    probabilities = np.random.default_rng(0).random((7, 4)).astype(np.float32)
    tagged = TaggedFile("a.wav", Timeline(edges[:-1], edges[1:], probabilities, frames=FramesInfo(hysteresis=0.4)))
    with open_journal(tmp_path / "j", key="k") as journal:
        journal.add(tagged, "1")
        journal.add(make_tagged("b.wav"), "1")
    with open_journal(tmp_path / "j", key="k") as journal:
        found, other = journal.tagged(["a.wav", "b.wav"])
    assert is_equal(found, tagged)
    assert found.timeline.frames == tagged.timeline.frames
    assert other.timeline.frames is None


def test_skipped_file_keeps_its_reason(tmp_path):
    skipped = TaggedFile("a.wav", None, "a.wav: empty")
    with open_journal(tmp_path / "j", key="k") as journal:
        journal.add(skipped, "1")
        assert list(journal.tagged(["a.wav"])) == [skipped]


def test_file_added_again_replaces_the_first_result(tmp_path):
    with open_journal(tmp_path / "j", key="k") as journal:
        journal.add(make_tagged("a.wav", 5), "1")
        journal.add(make_tagged("a.wav", 2, seed=1), "2")
        assert journal.fingerprints() == {"a.wav": "2"}
        assert is_equal(next(journal.tagged(["a.wav"])), make_tagged("a.wav", 2, seed=1))


def test_end_of_an_image_stays_nan(tmp_path):
    image = TaggedFile("a.png", Timeline(np.zeros(1), np.array([np.nan]), np.ones((1, 4), np.float32)))
    with open_journal(tmp_path / "j", key="k") as journal:
        journal.add(image, "1")
        assert np.isnan(next(journal.tagged(["a.png"])).timeline.ends).all()


def test_each_key_has_its_own_results(tmp_path):
    with open_journal(tmp_path / "j", key="k") as journal:
        journal.add(make_tagged("a.wav"), "1")
    with open_journal(tmp_path / "j", key="other") as journal:
        assert journal.fingerprints() == {}
        journal.add(make_tagged("b.wav"), "1")
    with open_journal(tmp_path / "j", key="k") as journal:
        assert journal.fingerprints() == {"a.wav": "1"}


def test_skipped_file_is_tried_again(tmp_path):
    with open_journal(tmp_path / "j", key="k") as journal:
        journal.add(TaggedFile("a.wav", None, "a.wav: cannot read the sound"), "1")
        assert journal.fingerprints() == {}


def test_journal_knows_whether_it_is_new(tmp_path):
    for is_new in (True, False):
        with open_journal(tmp_path / "j", key="k") as journal:
            assert journal.is_new == is_new


def test_journal_is_removed_when_the_run_is_complete(tmp_path):
    with open_journal(tmp_path / "j", key="k"):
        pass
    assert (tmp_path / "j").is_dir()
    with open_journal(tmp_path / "j", key="k") as journal:
        journal.is_complete = True
    assert not (tmp_path / "j").exists()


def test_second_run_on_the_same_output_is_an_error(tmp_path):
    with open_journal(tmp_path / "j", key="k") as journal:
        journal.add(make_tagged("a.wav"), "1")
        second = open_journal(tmp_path / "j", key="k")
        with pytest.raises(DataError, match="another run writes to this output"):
            second.__enter__()


def test_file_that_is_no_database_is_an_error(tmp_path):
    (tmp_path / "j").mkdir()
    (tmp_path / "j" / "k.sqlite").write_text("no database, but long enough to be mistaken for one by its size")
    with pytest.raises(DataError, match=r"k\.sqlite: the journal cannot be read: file is not a database; delete it"):
        open_journal(tmp_path / "j", key="k").__enter__()


def test_committed_results_survive_a_kill(tmp_path):
    script = f"""
import os, signal, sys
sys.path[:0] = [{str(TESTS)!r}, {str(TESTS / "tagging")!r}]
from pathlib import Path
from test_journal import make_tagged, open_journal
with open_journal(Path({str(tmp_path / "j")!r}), key="k") as journal:
    journal.add(make_tagged("a.wav"), "1")
    journal.commit()
    journal.add(make_tagged("b.wav"), "1")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", script]).returncode == -signal.SIGKILL
    with open_journal(tmp_path / "j", key="k") as journal:
        assert journal.fingerprints() == {"a.wav": "1"}
        assert is_equal(next(journal.tagged(["a.wav"])), make_tagged("a.wav"))


def test_journal_damaged_in_any_region_gives_the_right_results_or_a_foreseen_error(tmp_path, rng):
    files = [make_tagged(f"{number}.wav", 40, seed=number) for number in range(8)]
    files.append(TaggedFile("broken.wav", None, "broken.wav: empty"))
    with open_journal(tmp_path / "j", key="k") as journal:
        for file in files:
            journal.add(file, "7")
    (path,) = (tmp_path / "j").glob("*.sqlite")
    content, n_errors = path.read_bytes(), 0
    for part in range(50):
        start, end = len(content) * part // 50, len(content) * (part + 1) // 50
        changed = bytearray(content)
        for position in rng.integers(start, end, size=3):
            changed[position] ^= 1 << int(rng.integers(8))
        for damaged in (content[:start], bytes(changed)):
            path.write_bytes(damaged)
            try:
                check_results(tmp_path / "j", files)
            except DataError:
                n_errors += 1
    assert n_errors > 50


def check_results(folder, files):
    """The known results are the right ones, as after a resumed run; a damaged name or fingerprint is not known."""
    with open_journal(folder, key="k") as journal:
        known = journal.fingerprints()
        for file in files:
            if known.get(file.file) == "7":
                (found,) = journal.tagged([file.file])
                if file.timeline is None:
                    assert found == file
                else:
                    assert is_equal(found, file)


def test_journal_of_an_earlier_version_is_started_again(tmp_path):
    with open_journal(tmp_path / "j", key="k"):
        pass
    (path,) = (tmp_path / "j").glob("*.sqlite")
    path.unlink()
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE tagged_file (name BLOB PRIMARY KEY, fingerprint TEXT)")
        database.execute("INSERT INTO tagged_file VALUES (?, '7')", (b"a.wav",))
    database.close()
    with open_journal(tmp_path / "j", key="k") as journal:
        assert journal.fingerprints() == {}
        journal.add(make_tagged("a.wav"), "7")
        assert is_equal(next(journal.tagged(["a.wav"])), make_tagged("a.wav"))
