"""The command line in other processes, and small sounds and manifests for it."""

import subprocess
import sys
from typing import NamedTuple

from helpers.bundles import LABELS, tone
from spectag.audio.files import write_audio


class Done(NamedTuple):
    """The exit status and the output of a command."""

    status: int
    out: str
    err: str


_EVERY_TENTH = """
import sys
from spectag.cli import main, terminal
terminal._SECONDS_BETWEEN_LINES = 0.0
sys.exit(main())
"""


def start(*arguments, every_tenth=False, **options):
    """Start the command in a new process and process group, as a shell does.

    With `every_tenth`, quick steps print their progress, too.
    """
    program = ["-c", _EVERY_TENTH] if every_tenth else ["-m", "spectag"]
    command = [sys.executable, *program, *map(str, arguments)]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.Popen(command, text=True, start_new_session=True, **streams)


def python(script):
    """Run Python code in a new process."""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    return Done(done.returncode, done.stdout, done.stderr)


def run_without(packages, *arguments):
    """Run the command as if some packages were not installed."""
    return python(f"""
import sys

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {packages}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, NotInstalled())
from spectag.cli import main
sys.exit(main({list(map(str, arguments))}))
""")


def write_tones(folder, n_files, seconds=0.3):
    folder.mkdir(parents=True)
    names = [f"{LABELS[number % 3]} {number:02}.wav" for number in range(n_files)]
    for number, name in enumerate(names):
        write_audio(folder / name, tone(LABELS[number % 3], seconds + number / 1000), 16_000)
    return names


def write_manifest(folder, n_clips=12):
    """A manifest of tones; each label has a third of them."""
    names = write_tones(folder / "clips", n_clips)
    rows = ["fname,labels", *(f"{name},{name.split()[0]}" for name in names)]
    (folder / "clips.csv").write_text("\n".join(rows), encoding="utf-8")
    return folder / "clips.csv"
