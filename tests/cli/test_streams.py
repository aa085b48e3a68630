"""Standard streams that are missing, closed, full or in another encoding: the right result, or one clear line."""

import csv
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.bundles import make_bundle, tone
from helpers.command import Done
from spectag.audio.files import write_audio

pytestmark = pytest.mark.skipif(os.name == "nt", reason="changes streams by their numbers in a shell")
NOISE = ("Traceback", "Exception ignored", "BrokenPipe", "Warning")
NEEDS_FULL_DEVICE = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, which is always full")
TABLE = "tag model sounds --top 1"
FILE = "tag model sounds --top 1 -o tags.csv"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, and three sounds: with a plain name, an umlaut, and a byte that is not UTF-8."""
    folder = tmp_path_factory.mktemp("streams")
    make_bundle(folder / "model")
    (folder / "sounds").mkdir()
    for name in (b"a.wav", "größe ☃.wav".encode(), b"z\xff.wav"):
        write_audio(folder / "new.wav", tone("low", 0.5), 16_000)
        (folder / "new.wav").rename(folder / "sounds" / os.fsdecode(name))
    (folder / "clips.csv").write_text("fname,labels\nsounds/a.wav,low\nsounds/größe ☃.wav,high\n", encoding="utf-8")
    return folder


def shell(folder, line, **environment):
    """Run a shell command line in which `spectag` is the command."""
    spectag = f"{shlex.quote(sys.executable)} -m spectag"
    line = line.replace("spectag", spectag)
    cleared = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "PYTHONIO"))}
    done = subprocess.run(
        ["bash", "-c", line],
        cwd=folder,
        env=cleared | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    out, err = (stream.decode("utf-8", "surrogateescape") for stream in (done.stdout, done.stderr))
    assert not [word for word in NOISE if word in out + err], err
    return Done(done.returncode, out, err)


def names(table):
    return [Path(row[0]).name for row in csv.reader(table.splitlines())]


@pytest.mark.parametrize(
    "streams",
    [
        "<&- 2>&-",
        "0>/dev/null 2</dev/null",
        "2> >(true)",
        pytest.param("2>/dev/full", marks=NEEDS_FULL_DEVICE),
    ],
)
def test_table_does_not_depend_on_stdin_and_stderr(folder, streams):
    done = shell(folder, f"spectag {TABLE} {streams}")
    assert done.status == 0
    assert names(done.out) == ["file", "a.wav", "größe ☃.wav", r"z\udcff.wav"]


@pytest.mark.parametrize("streams", ["<&- >&- 2>&-", pytest.param(">/dev/full", marks=NEEDS_FULL_DEVICE)])
def test_file_does_not_depend_on_stdout(folder, tmp_path, streams):
    assert shell(folder, f"spectag {FILE.replace('tags.csv', str(tmp_path / 'tags.csv'))} {streams}").status == 0
    assert names((tmp_path / "tags.csv").read_text(encoding="utf-8"))[1:3] == ["a.wav", "größe ☃.wav"]


@pytest.mark.parametrize("command", [TABLE, "--help"])
def test_results_that_are_lost_in_a_closed_stdout_are_an_error(folder, command):
    done = shell(folder, f"spectag {command} >&-")
    assert done.status == 1
    lines = [line for line in done.err.splitlines() if line.startswith("spectag: ")]
    assert lines == ["spectag: stdout is closed, so the results are lost; open it, or write them to a file with -o"]


@NEEDS_FULL_DEVICE
@pytest.mark.parametrize("command", [TABLE, "--help"])
def test_results_on_a_full_disk_are_one_line(folder, command):
    done = shell(folder, f"spectag {command} >/dev/full")
    assert done.status == 1
    assert done.err.splitlines()[-1] == "spectag: output: No space left on device"


def test_stdout_that_cannot_be_written_is_one_line(folder):
    done = shell(folder, "spectag --help 1</dev/null")
    assert (done.status, done.err) == (1, "spectag: output: Bad file descriptor\n")


def test_reader_that_ends_early_gets_no_message(folder):
    done = shell(folder, "set -o pipefail; spectag tag --help-all | true")
    assert done.status in (0, 1)
    assert "spectag: " not in done.err


def test_live_sound_from_a_missing_stdin_is_wrong_usage(folder):
    done = shell(folder, "spectag listen model - <&-")
    assert done.status == 2
    assert done.err.splitlines()[-1].startswith("spectag: - reads raw sound that another program writes to stdin")


@pytest.mark.parametrize(
    "environment",
    [
        {"LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"LC_ALL": "xx_YY.UTF-8", "PYTHONUTF8": "0"},
    ],
    ids=["C", "unknown"],
)
def test_names_do_not_depend_on_the_locale(folder, environment):
    done = shell(folder, f"spectag {TABLE}", **environment)
    assert done.status == 0
    assert names(done.out) == ["file", "a.wav", "größe ☃.wav", r"z\udcff.wav"]


def test_names_in_a_manifest_do_not_depend_on_the_locale(folder):
    done = shell(folder, "spectag split clips.csv --folds 2 --json", LC_ALL="C", PYTHONUTF8="0")
    assert done.status == 0
    assert "größe ☃.wav" in done.out


def test_characters_that_the_chosen_encoding_lacks_are_escaped(folder):
    done = shell(folder, f"spectag {TABLE}", LC_ALL="C", PYTHONUTF8="0", PYTHONIOENCODING="ascii")
    assert done.status == 0
    assert names(done.out) == ["file", "a.wav", r"gr\xf6\xdfe \u2603.wav", r"z\udcff.wav"]


def test_child_processes_inherit_the_replacements_of_missing_streams():
    code = (
        "import subprocess, sys; from spectag.system.streams import prepare_streams; prepare_streams()\n"
        "child = 'import os; assert {os.fstat(n).st_rdev for n in (0, 1, 2)} == {os.stat(os.devnull).st_rdev}'\n"
        "sys.exit(subprocess.run([sys.executable, '-c', child]).returncode)"
    )
    line = f"{shlex.quote(sys.executable)} -c {shlex.quote(code)} <&- >&- 2>&-"
    assert subprocess.run(["sh", "-c", line], check=False).returncode == 0


@pytest.mark.parametrize("option", ["-o /dev/stdout", "--output=/dev/stdout", "-o /dev/fd/1", "-o /dev/stderr 2>&1"])
def test_output_can_be_a_stream_of_the_process(folder, option):
    done = shell(folder, f"spectag split clips.csv --validation-fraction 0.5 {option}")
    assert done.status == 0
    assert done.out.count(".wav,") == 2


def test_messages_of_c_libraries_are_dropped():
    # as libmpg123 does on stderr for damaged mp3 files, and libsndfile on stdout for those of a MIDI sampler
    code = (
        "import os, sys; from spectag.system.streams import mute_libraries, prepare_streams\n"
        "mute_libraries(); prepare_streams(); print('result'); print('message', file=sys.stderr)\n"
        "os.system('echo noise; echo noise >&2'); os.write(1, b'noise'); os.write(2, b'noise')"
    )
    for redirections, out, err in (("", b"result\n", b"message\n"), ("<&- >&- 2>&-", b"", b"")):
        line = f"{shlex.quote(sys.executable)} -c {shlex.quote(code)} {redirections}"
        done = subprocess.run(["sh", "-c", line], check=False, capture_output=True)
        assert (done.returncode, done.stdout, done.stderr) == (0, out, err)


@pytest.mark.parametrize(("n_processes", "err"), [("1", b""), ("2", b"NCCL WARN\n")])
def test_messages_of_c_libraries_are_kept_in_training_with_several_processes(n_processes, err):
    code = "import os; from spectag.cli.entry import _quieten_libraries as q; q(); os.write(2, b'NCCL WARN\\n')"
    environment = os.environ | {"WORLD_SIZE": n_processes}
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True)
    assert done.stderr == err


def test_damaged_mp3_makes_no_noise(folder, tmp_path):
    write_audio(tmp_path / "a.mp3", tone("low", 2.0), 16_000)
    content = bytearray((tmp_path / "a.mp3").read_bytes())
    content[2000:3000] = bytes(range(250)) * 4
    (tmp_path / "a.mp3").write_bytes(content)
    done = shell(folder, f"spectag tag model {tmp_path} --top 1 --no-segments")
    assert done.status == 0
    assert all(line.startswith(("tagging: ", "note: ")) for line in done.err.splitlines()), done.err
