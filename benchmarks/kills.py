"""Kill commands at random moments, run them again, and compare every byte with an undisturbed run.

    python benchmarks/kills.py [--moments 50] [--seed 0] [COMMAND ...]

The first half of the moments are random times of the run: the whole process group gets SIGKILL. The others are random
operations that change a file or a folder, such as the opening of a file to write: there, the process kills itself, and
its workers are on their own. Every second run starts with the results of an earlier run with other settings, if the
command replaces such results. Then the same command runs again (fine-tuning with --resume).

A case is wrong if the second run fails, unless the results were complete before it; if a file or a folder, hidden ones
included, is not as after an undisturbed run, byte by byte; if a process, a temporary file or shared memory is left; or
if, between the kill and the second run, a result is neither absent, nor the old one, nor complete. Not compared are the
columns clips_per_second and seconds_left of epochs.csv, the times of accepted corrections, and the home folder. The
SQLite database of an index is compared as SQL statements, because its header counts transactions. Prints a Markdown
table. Needs Linux.
"""

import argparse
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from spectag.audio.files import write_audio
from spectag.data.corrections import CORRECTION_COLUMNS

RATE = 8000  # Hz
PITCHES = {"low": 300.0, "middle": 1000.0, "high": 2500.0}  # Hz
N_CLIPS = 12
MEL = "--mel.sample-rate 8000 --mel.n-fft 256 --mel.hop-length 160 --mel.n-mels 16 --mel.f-max 4000"
SMALL = f"--backbone scratch {MEL}"
FINETUNE = f"--mode finetune --folds given --epochs 2 --batch-size 4 {SMALL} --finetune.checkpoint-steps 1"
_MARK = "SPECTAG_KILLS_CASE"  # environment variable by which the processes of a case are found
N_PERMISSION_LOSSES = 3
_SECONDS_TO_END = 15.0  # after which a worker of a killed run counts as left over
AS_OTHERS = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search")
"""Before a command: root without the right to ignore permissions."""
_MASKS = (  # pattern of a path, columns of a CSV that are not compared
    (re.compile(r"(^|/)epochs\.csv$"), ("clips_per_second", "seconds_left")),
    (re.compile(r"(^|/)corrections\.csv$"), ("time",)),
)
_TIME = re.compile(rb"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d[-+:.\d]*")  # of a correction, on the page of a review

RUNNER = """
import atexit, os, signal, sys
operations = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "os.chmod"}
last, case, main, n_done = int(os.environ["KILLS_LAST"]), os.getcwd(), os.getpid(), 0

def changes_a_file(event, arguments):
    if event == "open":
        path, mode, flags = arguments
        is_write = bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        return is_write and isinstance(path, (str, bytes)) and os.path.abspath(os.fsdecode(path)).startswith(case)
    return event in operations and os.path.abspath(os.fsdecode(arguments[0])).startswith(case)

def count(event, arguments):
    global n_done
    if (event == "open" or event in operations) and os.getpid() == main and changes_a_file(event, arguments):
        n_done += 1
        if n_done == last and os.environ["KILLS_HOW"] == "kill":
            os.kill(main, signal.SIGKILL)
        if n_done == last:
            for folder, _, _ in os.walk(os.path.join(case, "out")):
                os.chmod(folder, 0o555)

def report():
    if os.getpid() == main and last == 0:
        print(n_done, file=open(os.environ["KILLS_COUNT"], "w"))

sys.argv[0] = "spectag"
sys.addaudithook(count)
atexit.register(report)
from spectag.cli import main as run_command
sys.exit(run_command(sys.argv[1:]))
"""


@dataclass(frozen=True)
class Command:
    """A command that is killed. {d} is the folder of the data; it runs in the folder of its case."""

    arguments: str
    restart: str = ""
    """Options of the second run."""
    old: str | None = None
    """A run with other settings, whose results are replaced."""
    model: str = ""
    """A model of the data that is copied to out/model first."""
    wholes: tuple[str, ...] = ()
    """Folders that appear as a whole; all other results appear file by file."""
    grows: bool = False
    """Whether results are added to a cache or an index, whose readers know what is complete."""


COMMANDS = {
    "prepare": Command(f"prepare {{d}}/clips.csv --cache out/cache {SMALL} -j 2", grows=True),
    "train": Command(
        f"train {{d}}/clips.csv -o out/model --folds 2 {SMALL}",
        old=f"train {{d}}/clips.csv -o out/model --folds 2 --seed 7 {SMALL}",
        wholes=("out/model",),
    ),
    "fine-tune": Command(
        f"train {{d}}/clips.csv -o out/model {FINETUNE}",
        restart="--resume",
        old=f"train {{d}}/clips.csv -o out/model --folds 2 {SMALL}",
        wholes=("out/model",),
    ),
    "tag": Command(
        "tag {d}/model {d}/clips -o out/tags --window 0.3 --format csv,jsonl,parquet,wide,raven,audacity -j 2",
        old="tag {d}/model {d}/clips -o out/tags --window 0.2 --format csv,jsonl,parquet,wide,raven,audacity",
    ),
    "index": Command("index {d}/clips -o out/index --model {d}/model --window 0.3 -j 2", grows=True),
    "evaluate": Command(
        "evaluate {d}/model {d}/clips.csv -o out/evaluation --by fold --compare {d}/other",
        old="evaluate {d}/other {d}/clips.csv -o out/evaluation",
    ),
    "calibrate": Command(
        "calibrate {d}/model {d}/clips.csv --precision 0.9 -o out/calibrated", wholes=("out/calibrated",)
    ),
    "calibrate in place": Command(
        "calibrate out/model {d}/clips.csv --precision 0.9 --in-place", model="model", wholes=("out/model",)
    ),
    "review": Command(
        "review {d}/model {d}/clips.csv -o out/review", old="review {d}/other {d}/clips.csv -o out/review"
    ),
    "corrections": Command(
        "review {d}/model {d}/wrong.csv -o out/review --corrections {d}/corrections.csv --accept-above 0.2 --reviewer A"
    ),
    "split": Command(
        "split {d}/clips.csv --folds 3 -o out/folds.csv", old="split {d}/clips.csv -o out/folds.csv --folds 2"
    ),
}


# ------------------------------------------------------------------------------------------------------------ the data


def make_data(folder: Path, *, seconds: float = 1.0) -> None:
    """Sounds, manifests, and two small models."""
    make_sounds(folder, seconds=seconds)
    for model, seed in (("model", 0), ("other", 1)):
        arguments = f"train {{d}}/clips.csv -o {folder}/{model} --folds 2 --seed {seed} {SMALL}"
        _finish(_start(folder, folder, arguments), log=folder.with_suffix(".log"))


def make_sounds(folder: Path, *, seconds: float = 1.0) -> None:
    """Sounds, a manifest, one with two wrong labels, and a table of corrections without rows."""
    rng = np.random.default_rng(0)
    (folder / "clips").mkdir(parents=True)
    rows = []
    for number in range(N_CLIPS):
        label = list(PITCHES)[number % 3]
        times = np.arange(round(RATE * (seconds + number / 100))) / RATE
        tone = 0.3 * np.sin(2 * np.pi * PITCHES[label] * rng.uniform(0.95, 1.05) * times)
        sound = (tone + rng.normal(0, 0.02, len(times))).astype(np.float32)
        write_audio(folder / "clips" / f"{number:02}.wav", sound, RATE)
        rows.append((f"{number:02}.wav", label, number // 3 % 2))
    wrong = [(name, "high" if number in (0, 4) else label, fold) for number, (name, label, fold) in enumerate(rows)]
    for manifest, content in (("clips", rows), ("wrong", wrong)):
        lines = [",".join(map(str, row)) for row in [("fname", "labels", "fold"), *content]]
        (folder / f"{manifest}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "corrections.csv").write_text(",".join(CORRECTION_COLUMNS) + "\n", encoding="utf-8")


# --------------------------------------------------------------------------------------------------------- processes


def _start(
    data: Path, case: Path, arguments: str, *, last_operation: int = 0, how: str = "kill", log_name: str = "log"
) -> subprocess.Popen[bytes]:
    """Start a command in the folder of a case, in a process group of its own.

    At its last operation, it kills itself, or loses the permission to write into the folder out.
    """
    for name in ("cache", "home", "tmp", "out"):
        (case / name).mkdir(parents=True, exist_ok=True)
    environment = dict(os.environ) | {
        _MARK: str(case),
        "SPECTAG_CACHE": str(case / "cache"),
        "HOME": str(case / "home"),
        "TMPDIR": str(case / "tmp"),
        "OMP_NUM_THREADS": "1",
        "KILLS_LAST": str(last_operation),
        "KILLS_COUNT": str(case.with_suffix(".count")),
        "KILLS_HOW": how,
    }
    prefix = AS_OTHERS if how == "permissions" and os.getuid() == 0 else ()
    words = [word.format(d=data) for word in arguments.split()]
    with case.with_suffix(f".{log_name}").open("wb") as log:
        return subprocess.Popen(
            [*prefix, sys.executable, "-c", RUNNER, *words],
            cwd=case, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip


def _finish(process: subprocess.Popen[bytes], *, log: Path | None = None) -> None:
    if process.wait() != 0:
        text = "" if log is None else log.read_text(errors="backslashreplace")[-2000:]
        raise RuntimeError(f"{process.args} ended with status {process.returncode}: {text}")


def processes_of(case: Path) -> list[int]:
    """The running processes of a case."""
    mark = f"{_MARK}={case}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (folder / "environ").read_bytes().split(b"\0") and "Z" not in _state(folder):
                found.append(int(folder.name))
        except OSError:  # ended in the meantime, or of another user
            continue
    return found


def _state(process: Path) -> str:
    return (process / "stat").read_text().rpartition(")")[2].split()[0]


def shared_memory() -> set[str]:
    """Names of shared memory and semaphores of this user."""
    files = [path for path in Path("/dev/shm").glob("*") if path.is_file()]
    return {path.name for path in files if path.stat().st_uid == os.getuid()}


# ------------------------------------------------------------------------------------------------------------- files

Tree = dict[str, bytes | None]
"""The content of each file below a folder, and None for each folder, by relative path."""


def tree(folder: Path) -> Tree:
    """All files and folders below a folder, without what may differ."""
    found: Tree = {}
    for path in sorted(folder.rglob("*")):
        is_of_home = folder / "home" in path.parents  # matplotlib's list of fonts contains times
        with suppress(FileNotFoundError):  # deleted by a worker of a killed process
            if not is_of_home:
                found[path.relative_to(folder).as_posix()] = None if path.is_dir() else _compared(path)
    return found


def _compared(path: Path) -> bytes:
    """The content of a file without what may differ."""
    if path.suffix == ".sqlite" and not list(path.parent.glob(f"{path.name}-*")):  # opening it would use its journal
        with closing(sqlite3.connect(path)) as database:
            return "\n".join(database.iterdump()).encode(errors="backslashreplace")
    name, content = path.as_posix(), path.read_bytes()
    if path.name == "review.html":
        return _TIME.sub(b"masked", content)
    for pattern, columns in _MASKS:
        if pattern.search(name):
            header, *lines = [line.split(b",") for line in content.split(b"\n")]
            masked = [header.index(column.encode()) for column in columns if column.encode() in header]
            for line in lines:
                for index in masked:
                    line[index : index + 1] = [b"masked"] * (len(line) > index)
            return b"\n".join(b",".join(line) for line in [header, *lines])
    return content


def differences(found: Tree, expected: Tree) -> list[str]:
    """What is missing, left over or different, one line for each."""
    missing = [f"{name} is missing" for name in sorted(expected.keys() - found.keys())]
    left = [f"{name} is left" for name in sorted(found.keys() - expected.keys())]
    both = sorted(found.keys() & expected.keys())
    return [*missing, *left, *(f"{name} differs" for name in both if found[name] != expected[name])]


def halfway(found: Tree, states: Sequence[Tree], wholes: Sequence[str]) -> list[str]:
    """The visible results that are neither absent, nor complete, nor those of an earlier run."""
    wrong = [whole for whole in wholes if _below(found, whole) not in [_below(state, whole) for state in ({}, *states)]]
    for name, content in _below(found, "out").items():
        is_hidden = any(part[0] == "." for part in name.split("/"))
        is_file = content is not None and not any(name in _below(found, whole) for whole in wholes)
        if is_file and not is_hidden and content not in [state.get(name) for state in states]:
            wrong.append(name)
    return [f"{name} is neither absent, old nor complete after the kill" for name in wrong]


def _below(files: Tree, folder: str) -> Tree:
    """A folder and what is in it."""
    return {name: content for name, content in files.items() if f"{name}/".startswith(f"{folder}/")}


# ------------------------------------------------------------------------------------------------------------- cases


@dataclass
class Result:
    """What came of the kills of a command."""

    n_moments: int = 0
    n_killed: int = 0
    n_same: int = 0
    seconds: float = 0.0
    """Of the undisturbed run."""
    faults: list[str] = field(default_factory=list)
    other_faults: list[str] = field(default_factory=list)
    """Of two runs at once, and of runs that lost the permission to write."""


@dataclass(frozen=True)
class Campaign:
    """The kills of a command: the folders of its cases, and what undisturbed runs leave."""

    command: Command
    data: Path
    root: Path

    def run(self, n_moments: int, rng: np.random.Generator) -> Result:
        """Run the command undisturbed, then kill it `n_moments` times."""
        result = Result(n_moments)
        start = time.monotonic()
        expected = self.undisturbed()
        result.seconds = time.monotonic() - start
        for number in range(n_moments):
            with_old = self.command.old is not None and number % 2 == 1
            is_timed = number < (n_moments + 1) // 2
            moment = rng.uniform(0, result.seconds) if is_timed else int(rng.integers(1, self.n_operations + 1))
            name = f"{number:03}"
            description = f"{moment:.2f} s" if is_timed else f"operation {moment} of {self.n_operations}"
            faults, was_killed = self.case(name, moment, expected, with_old=with_old)
            result.n_killed += was_killed
            result.n_same += not faults
            result.faults += [f"killed at {description}{', old results' * with_old}: {fault}" for fault in faults]
            if not faults:
                shutil.rmtree(self.root / name)
        result.other_faults = self.at_once(expected)
        n_losses = min(N_PERMISSION_LOSSES, self.n_operations) if can_lose_permission() else 0
        for operation in rng.choice(self.n_operations, size=n_losses, replace=False):
            result.other_faults += self.without_permission(int(operation) + 1, expected)
        return result

    def undisturbed(self) -> Tree:
        """What the command leaves; also runs the one with other settings."""
        if self.command.old is not None:
            self._undisturbed("old", self.command.old)
        return self._undisturbed("expected", self.command.arguments)

    @property
    def n_operations(self) -> int:
        """Number of operations of the undisturbed run."""
        return int((self.root / "expected.count").read_text())

    def _undisturbed(self, name: str, arguments: str) -> Tree:
        case = self._new_case(name)
        _finish(_start(self.data, case, arguments), log=case.with_suffix(".log"))
        return tree(case)

    def _new_case(self, name: str, *, with_old: bool = False) -> Path:
        case = self.root / name
        case.mkdir()
        if with_old:
            shutil.copytree(self.root / "old" / "out", case / "out")
        if self.command.model:
            shutil.copytree(self.data / self.command.model, case / "out" / "model")
        return case

    def case(self, name: str, moment: float | int, expected: Tree, *, with_old: bool) -> tuple[list[str], bool]:
        """Kill a run and run it again; what is wrong, and whether it was killed before it ended."""
        case = self._new_case(name, with_old=with_old)
        before, states = shared_memory(), [expected, tree(case)]
        was_killed = self._kill(case, moment)
        after_kill = tree(case)
        faults = [] if self.command.grows else halfway(after_kill, states, self.command.wholes)
        is_complete = not differences(_below(after_kill, "out"), _below(expected, "out"))
        if was_killed:
            status = _start(self.data, case, f"{self.command.arguments} {self.command.restart}").wait()
            if status and not is_complete:
                faults.append(f"the second run ended with status {status}: {_last_line(case)}")
        faults += self._left_processes(case)
        faults += differences(tree(case), expected)
        faults += self._left_memory(before)
        return faults, was_killed

    def at_once(self, expected: Tree) -> list[str]:
        """Run the command twice at once; what is wrong.

        One of the two runs may say in one line that it cannot write. The results are those of one run alone.
        """
        case = self._new_case("at-once")
        runs = [_start(self.data, case, self.command.arguments, log_name=name) for name in ("first", "second")]
        statuses = [run.wait() for run in runs]
        faults = [*self._left_processes(case), *differences(tree(case), expected)]
        faults += [] if 0 in statuses else ["both runs failed"]
        for name, status in zip(("first", "second"), statuses, strict=True):
            faults += one_line_faults(case.with_suffix(f".{name}")) if status else []
        return [f"two at once: {fault}" for fault in faults]

    def without_permission(self, operation: int, expected: Tree) -> list[str]:
        """Take away the permission to write into the output folder, give it back, and run again; what is wrong."""
        case = self._new_case(f"permissions-{operation}", with_old=self.command.old is not None)
        before = tree(case)
        run = _start(self.data, case, self.command.arguments, last_operation=operation, how="permissions")
        faults = one_line_faults(case.with_suffix(".log")) if run.wait() else []
        for folder, _, _ in os.walk(case):
            Path(folder).chmod(0o755)
        faults += [] if self.command.grows else halfway(tree(case), [before, expected], self.command.wholes)
        needs_run = run.returncode or differences(tree(case), expected)  # what could not be deleted is left
        if needs_run and (status := _start(self.data, case, self.command.arguments).wait()):
            faults.append(f"the second run ended with status {status}: {_last_line(case)}")
        faults += differences(tree(case), expected)
        return [f"no permission from operation {operation} on: {fault}" for fault in faults]

    def _kill(self, case: Path, moment: float | int) -> bool:
        """Run the command until a time in seconds or an operation; whether it was killed."""
        if isinstance(moment, int):
            return _start(self.data, case, self.command.arguments, last_operation=moment).wait() == -signal.SIGKILL
        process = _start(self.data, case, self.command.arguments)
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        return process.wait() == -signal.SIGKILL

    def _left_memory(self, before: set[str]) -> list[str]:
        """New shared memory that stays; other programs may use some for a while."""
        end = time.monotonic() + _SECONDS_TO_END
        while (left := shared_memory() - before) and time.monotonic() < end:
            time.sleep(0.05)
        return [f"/dev/shm/{name} is left" for name in sorted(left)]

    def _left_processes(self, case: Path) -> Iterator[str]:
        end = time.monotonic() + _SECONDS_TO_END
        while (left := processes_of(case)) and time.monotonic() < end:
            time.sleep(0.05)
        for process in left:
            os.kill(process, signal.SIGKILL)
            yield f"process {process} is left"


def one_line_faults(log: Path) -> list[str]:
    """What is wrong with the messages of a command that failed: an error is one line."""
    lines = log.read_text(errors="backslashreplace").splitlines()
    n_errors = sum(line.startswith("spectag: ") for line in lines)
    is_traceback = any("Traceback" in line or "Exception ignored" in line for line in lines)
    return [f"the error is not one line, but: {' / '.join(lines[-6:])}"] if n_errors != 1 or is_traceback else []


def _last_line(case: Path) -> str:
    lines = case.with_suffix(".log").read_text(errors="backslashreplace").splitlines()
    return next((line for line in reversed(lines) if line.strip()), "")


def can_lose_permission() -> bool:
    """Whether a command can be started that obeys the permissions of folders."""
    return os.getuid() != 0 or shutil.which("setpriv") is not None


HEADER = (
    "| command | moments | killed before the end | same bytes, nothing left | at once, no permission | seconds |\n"
    "|---|---|---|---|---|---|"
)


def table_row(name: str, result: Result) -> str:
    """The row of a command in the Markdown table."""
    others = f"{len(result.other_faults)} faults" if result.other_faults else "well"
    counts = f"{result.n_moments} | {result.n_killed} | {result.n_same}"
    return f"| {name} | {counts} | {others} | {result.seconds:.1f} |"


def main() -> int:
    """Run the campaign; the exit status is 1 if a case is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commands", nargs="*", metavar="COMMAND", help=f"one of {', '.join(COMMANDS)}; by default all")
    parser.add_argument("--moments", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="keep the cases in this folder")
    options = parser.parse_args()
    root = options.folder or Path(tempfile.mkdtemp(prefix="kills-"))
    if not (root / "data" / "corrections.csv").exists():
        make_data(root / "data")
    print(HEADER)
    n_wrong = 0
    for name in options.commands or COMMANDS:
        (root / name).mkdir()
        rng = np.random.default_rng([options.seed, *name.encode()])
        result = Campaign(COMMANDS[name], root / "data", root / name).run(options.moments, rng)
        print(table_row(name, result), flush=True)
        faults = result.faults + result.other_faults
        n_wrong += len(faults)
        for fault in faults:
            print(f"{name}: {fault}", file=sys.stderr, flush=True)
    if options.folder is None and not n_wrong:
        shutil.rmtree(root)
    return int(n_wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
