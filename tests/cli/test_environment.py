"""Machines with little: no home, no space, no current folder, few files. The right result, or one clear line."""

import os
import shlex
import subprocess
import sys

import pytest

from helpers.bundles import make_bundle, tone
from helpers.command import Done, write_manifest, write_tones
from spectag.audio.files import write_audio

NEEDS_SHELL = pytest.mark.skipif(os.name == "nt", reason="sets limits in a shell")
NOISE = ("Traceback", "Exception ignored", "Matplotlib", "onnxruntime", "OpenBLAS")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, sounds and a manifest."""
    folder = tmp_path_factory.mktemp("environment")
    make_bundle(folder / "model")
    write_tones(folder / "sounds", 6)
    write_manifest(folder)
    return folder


def shell(line, **environment):
    """Run a shell command line in which SPECTAG is the command. An environment value of None unsets a variable."""
    changed = {name: value for name, value in (os.environ | environment).items() if value is not None}
    line = line.replace("SPECTAG", f"{shlex.quote(sys.executable)} -m spectag")
    done = subprocess.run(
        ["bash", "-c", line], env=changed, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert not [word for word in NOISE if word in done.stdout + done.stderr], done.stderr
    return Done(done.returncode, done.stdout, done.stderr)


def error_line(done):
    """The only line that reports an error; it is the last one."""
    [line] = [line for line in done.err.splitlines() if line.startswith("spectag: ")]
    assert line == done.err.splitlines()[-1]
    return line


# ------------------------------------------------------------------------------------------------ home and cache


@NEEDS_SHELL
def test_nothing_but_the_cache_of_spectag_is_written_to_the_home_folder(folder, tmp_path):
    """onnxruntime 1.29 and later would store the ID of the machine there, and send usage data."""
    unset = dict.fromkeys(("CI", "ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME", "SPECTAG_CACHE"))
    done = shell(f"SPECTAG tag {folder}/model {folder}/sounds --top 1", HOME=str(tmp_path), **unset)
    assert done.status == 0
    assert list(tmp_path.rglob("*")) == []


@NEEDS_SHELL
@pytest.mark.parametrize(
    ("home", "command"),
    [
        (None, "inspect FOLDER/clips.csv --workers 1 --json"),
        ("missing", "inspect FOLDER/clips.csv --workers 1 --json"),
        ("file", "show FOLDER/clips.csv -o OUT/a.png"),
    ],
)
def test_commands_work_without_a_home_folder(folder, tmp_path, home, command):
    (tmp_path / "file").write_text("")
    line = f"SPECTAG {command}".replace("FOLDER", str(folder)).replace("OUT", str(tmp_path))
    unset = dict.fromkeys(("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "SPECTAG_CACHE", "MPLCONFIGDIR"))
    done = shell(line, HOME=None if home is None else str(tmp_path / home), **unset)
    assert done.status == 0
    assert not (tmp_path / "missing").exists()


def test_cache_that_cannot_be_written_is_one_warning(folder, tmp_path):
    (tmp_path / "file").write_text("")
    line = f"SPECTAG inspect {folder}/clips.csv --workers 1"
    done = shell(line, SPECTAG_CACHE=str(tmp_path / "file" / "cache"))
    assert done.status == 0
    assert [text for text in done.err.splitlines() if "cache" in text] == [
        f"WARNING: the cache folder {tmp_path}/file/cache cannot be written (Not a directory); "
        "this run uses a temporary one"
    ]


# ------------------------------------------------------------------------------------------------ outputs


@pytest.mark.parametrize(
    "arguments",
    [
        "tag FOLDER/model FOLDER/sounds -o BAD/tags.csv",
        "tag FOLDER/model FOLDER/sounds -o BAD/tags --format csv,raven",
        "split FOLDER/clips.csv --folds 2 -o BAD/folds.csv",
        "prepare FOLDER/clips.csv --backbone scratch --cache BAD",
        "prepare FOLDER/clips.csv --backbone scratch --png BAD/png",
        "show FOLDER/clips.csv -o BAD/grid.png",
        "soundscapes FOLDER/clips.csv -o BAD/scapes --recordings 1 --seconds 2",
        "augment FOLDER/clips.csv -o BAD/page.html --backbone scratch --clips 1",
        "evaluate FOLDER/model FOLDER/clips.csv -o BAD/evaluation",
        "calibrate FOLDER/model FOLDER/clips.csv -o BAD/calibrated",
        "explain FOLDER/model FOLDER/clips/low\\ 00.wav -o BAD/low.png",
        "review FOLDER/model FOLDER/clips.csv -o BAD/review",
        "suggest FOLDER/model FOLDER/sounds -o BAD/next.csv",
        "index FOLDER/sounds -o BAD/index --model FOLDER/model",
    ],
)
def test_output_below_a_file_is_one_line(run, folder, tmp_path, arguments):
    (tmp_path / "file").write_text("old")
    words = [
        word.replace("FOLDER", str(folder)).replace("BAD", str(tmp_path / "file")) for word in shlex.split(arguments)
    ]
    done = run(*words)
    assert (done.status, done.out) == (1, "")
    assert str(tmp_path / "file") in error_line(done)
    assert (tmp_path / "file").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@NEEDS_SHELL
@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ("tag FOLDER/model FOLDER/sounds --window 0.02 --threshold 0 -o OUT/old.csv", "old.csv"),
        ("calibrate FOLDER/model FOLDER/clips.csv -o OUT/old", "old/file"),
    ],
)
def test_full_disk_keeps_the_old_result_and_leaves_no_temporary_file(folder, tmp_path, arguments, name):
    """A limit of the size of files stands for a full disk: writing fails in the middle of a file."""
    out = tmp_path / "out"
    (out / name).parent.mkdir(parents=True)
    (out / name).write_text("old")
    done = shell(f"ulimit -f 3; SPECTAG {arguments}".replace("FOLDER", str(folder)).replace("OUT", str(out)))
    assert done.status == 1
    assert str(out) in error_line(done)
    assert (out / name).read_text() == "old"
    others = {path.name for path in out.iterdir()} - {name.split("/")[0], ".old.csv.journal"}
    assert others == set()


# ------------------------------------------------------------------------------------------------ the process


@NEEDS_SHELL
@pytest.mark.parametrize(
    "before",
    [
        "ulimit -n 32;",
        "export TMPDIR=/nonexistent COLUMNS=x TERM=;",
    ],
)
def test_table_does_not_depend_on_the_process(folder, before):
    done = shell(f"{before} SPECTAG tag {folder}/model {folder}/sounds --top 1 --workers 2")
    assert done.status == 0
    assert len(done.out.splitlines()) == 7


@NEEDS_SHELL
@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() == 0, reason="root may start any number of processes")
def test_too_few_processes_are_one_line(folder):
    done = shell(f"ulimit -u 1; exec SPECTAG tag {folder}/model {folder}/sounds --workers 2")
    assert done.status == 1
    assert "raise the limit" in error_line(done)


@NEEDS_SHELL
def test_deleted_current_folder_is_one_line_where_it_is_needed(folder, tmp_path):
    gone = f"mkdir {tmp_path}/gone; cd {tmp_path}/gone; rmdir ../gone"
    line = f"{gone}; SPECTAG tag {folder}/model {folder}/sounds --top 1 --workers"
    assert shell(f"{line} 1").status == 0
    done = shell(f"{line} 2")
    assert done.status == 1
    assert error_line(done).startswith("spectag: the current folder was deleted; change to another one")


@NEEDS_SHELL
def test_names_of_outputs_may_have_bytes_that_are_not_utf_8(folder, tmp_path):
    out = os.fsencode(tmp_path) + b"/\xff.csv"
    write_audio(tmp_path / "a.wav", tone("low", 0.3), 16_000)
    line = f"SPECTAG tag {folder}/model {tmp_path}/a.wav --top 1 -o {os.fsdecode(out)}"
    assert shell(line).status == 0
    assert os.path.getsize(out) > 0  # noqa: PTH202
