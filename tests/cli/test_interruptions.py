"""The command line with terminals, pipes and full disks, and after Ctrl-C."""

import contextlib
import csv
import os
import pty
import re
import signal
from pathlib import Path

import numpy as np
import pytest

from helpers.bundles import make_bundle, tone
from helpers.command import start, write_tones
from spectag.audio.files import write_audio


@pytest.fixture
def model(tmp_path):
    return make_bundle(tmp_path / "ein Modell")


@pytest.fixture
def sounds(tmp_path):
    write_tones(tmp_path / "sounds", 6, seconds=0.6)
    return tmp_path / "sounds"


@pytest.fixture
def long_sounds(tmp_path):
    """Sounds that take some seconds to tag in windows of 20 ms."""
    write_tones(tmp_path / "long", 30, seconds=10.0)
    return tmp_path / "long"


def test_results_reach_their_file_while_bars_are_shown_on_a_terminal(model, sounds, tmp_path):
    """They once went to the terminal, and the file stayed empty."""
    terminal, terminal_end = pty.openpty()
    with (tmp_path / "tags.csv").open("w") as file:
        process = start("tag", model, sounds, "--top", "1", stdout=file, stderr=terminal_end)
        os.close(terminal_end)
        shown = read_all(terminal)
    assert process.wait() == 0
    assert len((tmp_path / "tags.csv").read_text().splitlines()) == 7
    assert "6/6" in shown
    assert "low 00.wav" not in shown


def test_results_on_a_terminal_are_whole_lines_above_the_bars(model, sounds):
    terminal, terminal_end = pty.openpty()
    process = start("tag", model, sounds, "--top", "1", stdout=terminal_end, stderr=terminal_end)
    os.close(terminal_end)
    shown = read_all(terminal)
    assert process.wait() == 0
    lines = re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown))
    results = [line for line in lines if line.count(",") == 4]
    assert [len(row) for row in csv.reader(results)] == [5] * 7
    assert results[0] == "file,start,end,label,probability"
    assert all(line.startswith(str(sounds)) for line in results[1:])
    assert any(line.startswith("tagging") and line.rstrip().endswith("6/6") for line in lines)
    assert any(line.endswith("elapsed") for line in lines)


def read_all(terminal):
    """Everything that a terminal received, until all writers have closed it."""
    blocks = []
    with contextlib.suppress(OSError):  # how Linux reports the end
        while block := os.read(terminal, 65_536):
            blocks.append(block)
    os.close(terminal)
    return b"".join(blocks).decode()


@pytest.mark.parametrize("options", [("--window", "0.02", "--threshold", "0"), ()])
def test_closed_pipe_ends_the_command_without_a_traceback(model, long_sounds, options):
    process = start("tag", model, long_sounds, *options)
    assert process.stdout.readline() == "file,start,end,label,probability\n" if options else True
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait() == 1
    assert "Traceback" not in err
    assert "Exception ignored" not in err
    assert "BrokenPipe" not in err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a device that is always full")
def test_full_disk_is_reported_in_one_line(model, sounds):
    with Path("/dev/full").open("w") as full:
        process = start("tag", model, sounds, stdout=full)
        _, err = process.communicate()
    assert process.returncode == 1
    assert err.splitlines()[-1] == "spectag: output: No space left on device"
    assert "Traceback" not in err


def interrupt(process, at_line, number=signal.SIGINT):
    """Press Ctrl-C, or send another signal, once a line of progress starts with `at_line`; check the end."""
    for line in process.stderr:
        if line.startswith(at_line):
            break
    os.killpg(process.pid, number)  # a terminal sends it to all processes of the group
    rest = process.stderr.read()
    process.stdout.close()
    process.stderr.close()
    assert process.wait() == 128 + number
    assert "Traceback" not in rest
    assert rest.splitlines()[-1].startswith("spectag: stopped; no half-written file is left")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("at_line", "workers", "number"),
    [
        ("tagging: 3/30", "2", signal.SIGINT),
        ("tagging: 7/30", "1", signal.SIGINT),
        ("tagging: 6/30", "2", signal.SIGINT),
        ("tagging: 6/30", "2", signal.SIGTERM),
        ("tagging: 7/30", "1", signal.SIGHUP),
    ],
)
def test_signal_leaves_no_half_written_tags(model, long_sounds, tmp_path, at_line, workers, number):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "tags.csv").write_text("old")
    options = ("--window", "0.02", "--overlap", "0.015", "-o", tmp_path / "out" / "tags.csv", "-j", workers)
    interrupt(start("tag", model, long_sounds, *options, every_tenth=True), at_line, number)
    assert (tmp_path / "out" / "tags.csv").read_text() == "old"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"tags.csv", ".tags.csv.journal"}


@pytest.mark.slow
@pytest.mark.parametrize(("at_line", "workers"), [("3000 spectrograms to compute", "2"), ("log-mels: 600/3,000", "1")])
def test_prepare_continues_after_ctrl_c(run, tmp_path, at_line, workers):
    write_audio(tmp_path / "a.wav", np.concatenate([tone("low", 10.0), tone("high", 10.0)]), 16_000)
    rows = [f"a.wav,x,{start / 200},{start / 200 + 2}" for start in range(3000)]
    (tmp_path / "a.csv").write_text("\n".join(["fname,labels,start,end", *rows]))
    command = ("prepare", tmp_path / "a.csv", "--cache", tmp_path / "cache", "--backbone", "scratch", "-j", workers)
    interrupt(start(*command, every_tenth=True), at_line)
    assert not [path for path in (tmp_path / "cache").rglob("*") if ".work-" in path.name]
    (tmp_path / "a.csv").write_text("\n".join(["fname,labels,start,end", *rows[:700]]))
    done = run(*command)
    assert done.status == 0
    assert ("were cached" in done.err or "nothing to do" in done.err) == (at_line != "3000 spectrograms to compute")
