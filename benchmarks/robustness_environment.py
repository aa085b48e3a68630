"""Run every command with missing streams, closed pipes, other locales, no home folder, full disks and few resources.

    python benchmarks/robustness_environment.py [--commands tag,train] [--conditions stdin_closed,full_cache] [-j 2]

Prints every case whose outcome is wrong, and a table of the outcomes by condition. A case is wrong if the command
crashes, prints a traceback or noise of a library, hangs, prints anything but results to stdout, leaves a temporary
file, replaces an old result with a part of the new one, or fails without one clear line. Needs Linux; the cases with
small file systems and with another user need root and are left out otherwise.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spectag.audio.files import write_audio

LABELS = {"low": 200.0, "middle": 1500.0, "high": 5000.0}  # Hz
SMALL = "--backbone scratch --mel.sample-rate 16000 --mel.n-fft 512 --mel.n-mels 32 --mel.f-max 8000"
COMMANDS = {  # {d}: the data, {o}: a new output folder. The commands run in the folder of the data.
    "help": "--help",
    "command_help": "tag --help-all",
    "wrong_usage": "tag --no-such-option",
    "models": "models",
    "inspect": "inspect {d}/clips.csv --folds 3",
    "split": "split {d}/clips.csv --folds 3 -o {o}/folds.csv",
    "prepare": "prepare {d}/clips.csv --backbone scratch -j 2",
    "prepare_png": "prepare {d}/clips.csv --backbone scratch --png {o}/png",
    "show": "show {d}/clips.csv -o {o}/grid.png --grid 2x2",
    "augment": "augment {d}/clips.csv -o {o}/page.html --backbone scratch --augment.spec-augment 1 --clips 2",
    "soundscapes": "soundscapes {d}/clips.csv -o {o}/scapes --recordings 1 --seconds 10",
    "train": "train {d}/clips.csv -o {o}/model --folds 2 " + SMALL,
    "finetune": "train {d}/clips.csv -o {o}/model --mode finetune --folds none --epochs 1 " + SMALL,
    "tune": "tune {d}/clips.csv -o {o}/study --trials 1 --over learning_rate --folds 2 --optimizer adam --epochs 3 "
    + SMALL,
    "lr_find": "lr-find {d}/clips.csv -o {o}/curve.png --batch-size 4 " + SMALL,
    "tag": "tag {d}/model {d}/sounds --top 1",
    "tag_to_file": "tag {d}/model {d}/sounds --top 1 -o {o}/tags.csv",
    "tag_to_folder": "tag {d}/model {d}/sounds --window 0.5 -o {o}/tags --format csv,raven,jsonl -j 2",
    "tag_published": "tag audioset-mn04 {d}/sounds --top 1",
    "listen": "listen {d}/model -",
    "evaluate": "evaluate {d}/model {d}/clips.csv -o {o}/evaluation",
    "calibrate": "calibrate {d}/model {d}/clips.csv -o {o}/calibrated",
    "explain": "explain {d}/model {d}/sounds/low-0.wav -o {o}/low.png",
    "review": "review {d}/model {d}/clips.csv -o {o}/review",
    "suggest": "suggest {d}/model {d}/new -o {o}/next.csv -n 3",
    "index": "index {d}/sounds -o {o}/index --model {d}/model",
    "search": "search {d}/index {d}/sounds/low-0.wav -n 3",
}
NEEDS_WEIGHTS = {"tag_published"}
READS_STDIN = {"listen"}
NOISE = re.compile(
    r"Traceback|Exception ignored|Fatal Python|Error in atexit|terminate called|core dumped|Segmentation|OpenBLAS"
    r"|\[W:onnxruntime|\[E:onnxruntime|UserWarning|FutureWarning|ResourceWarning|RuntimeWarning|Matplotlib|mkdtemp"
    r"|leaked|resource_tracker|MPLCONFIGDIR|cannot set up|pthread"
)


@dataclass(frozen=True)
class Condition:
    """How a command is started, and what is expected of it."""

    name: str
    shell: str = '"$@"'
    environment: tuple[tuple[str, str | None], ...] = ()
    expects: str = "success"
    """success; fails: any status but a crash, with one line; any: success or one line."""
    prefix: tuple[str, ...] = ()
    tmpfs: tuple[str, ...] = ()
    """Folders below the case's folder that are file systems of 64 kB."""
    read_only: tuple[str, ...] = ()
    applies: Callable[[str], bool] = lambda command: True
    before: str = ""


AS_OWNER = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search")
AS_OTHER = (
    "setpriv", "--reuid=54321", "--regid=54321", "--clear-groups",
    "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search",
)  # fmt: skip
ASCII = (
    ("LANG", "C"), ("LC_ALL", "C"), ("PYTHONUTF8", "0"), ("PYTHONCOERCECLOCALE", "0"), ("PYTHONIOENCODING", "ascii"),
)  # fmt: skip


def writes(command: str) -> bool:
    return "{o}" in COMMANDS[command]


CONDITIONS = [
    Condition("plain"),
    Condition("stdin_closed", '"$@" <&-', expects="any"),
    Condition("stdout_closed", '"$@" >&-', expects="any"),
    Condition("stderr_closed", '"$@" 2>&-'),
    Condition("all_closed", '"$@" <&- >&- 2>&-', expects="any"),
    Condition("stdin_write_only", '"$@" 0>/dev/null', expects="any"),
    Condition("stdout_read_only", '"$@" 1</dev/null', expects="any"),
    Condition("stderr_read_only", '"$@" 2</dev/null'),
    Condition("pipe_true", 'set -o pipefail; "$@" | true', expects="any"),
    Condition("pipe_head", 'set -o pipefail; "$@" | head -1', expects="any"),
    Condition("stderr_pipe_true", '"$@" 2> >(true)'),
    Condition("stdout_full", '"$@" >/dev/full', expects="any"),
    Condition("stderr_full", '"$@" 2>/dev/full'),
    Condition("both_full", '"$@" >/dev/full 2>&1', expects="any"),
    Condition("sigpipe_default", 'trap - PIPE; set -o pipefail; "$@" | true', expects="any"),
    Condition("ascii", environment=ASCII),
    Condition("lang_c", environment=(("LANG", "C"), ("LC_ALL", "C"), ("PYTHONUTF8", "0"))),
    Condition("unknown_locale", environment=(("LANG", "xx_YY.UTF-8"), ("LC_ALL", "xx_YY.UTF-8"))),
    Condition("narrow_dumb", environment=(("COLUMNS", "20"), ("LINES", "5"), ("TERM", "dumb"))),
    Condition("odd_columns", environment=(("COLUMNS", "x"), ("TERM", ""))),
    Condition("terminal_narrow", 'script -qec "stty cols 20; $(printf "%q " "$@")" /dev/null',
              environment=(("TERM", "dumb"),),
              applies=lambda command: command not in READS_STDIN),
    Condition("no_home", environment=(("HOME", None), ("SPECTAG_CACHE", None))),
    Condition("home_missing", environment=(("HOME", "/nonexistent"), ("SPECTAG_CACHE", None)), expects="any"),
    Condition("home_is_file", environment=(("HOME", "/etc/passwd"), ("SPECTAG_CACHE", None)), expects="any"),
    Condition("home_empty", environment=(("HOME", ""), ("SPECTAG_CACHE", None))),
    Condition("cache_relative", environment=(("SPECTAG_CACHE", "cache-here"),)),
    Condition("home_read_only", prefix=AS_OWNER, read_only=("home",), environment=(("HOME", "{c}/home"),
              ("SPECTAG_CACHE", None)), expects="any"),
    Condition("other_user", prefix=AS_OTHER, environment=(("HOME", None), ("SPECTAG_CACHE", None)), expects="any",
              before="chmod 777 {o}"),
    Condition("other_user_home", prefix=AS_OTHER, environment=(("HOME", "/root"), ("SPECTAG_CACHE", None)),
              expects="any", before="chmod 777 {o}"),
    Condition("output_read_only", prefix=AS_OWNER, read_only=("out",), expects="fails", applies=writes),
    Condition("output_below_file", before="rmdir {o}; touch {o}", expects="fails", applies=writes),
    Condition("output_full", tmpfs=("out",), expects="any", applies=writes),
    Condition("cache_full", tmpfs=("cache",), expects="any"),
    Condition("cache_below_file", environment=(("SPECTAG_CACHE", "/etc/passwd/x"),), expects="any"),
    Condition("cache_read_only", prefix=AS_OWNER, read_only=("cache",), expects="any"),
    Condition("file_size_limit", 'ulimit -f 16; "$@"', expects="any"),
    Condition("tmp_full", tmpfs=("tmp",), environment=(("TMPDIR", "{c}/tmp"),), before="head -c 9999999 /dev/zero "
              "> {c}/tmp/fill 2>/dev/null || true", expects="any"),
    Condition("tmp_missing", environment=(("TMPDIR", "/nonexistent"), ("TMP", "/nonexistent"))),
    Condition("tmp_read_only", prefix=AS_OWNER, read_only=("tmp",), environment=(("TMPDIR", "{c}/tmp"),)),
    Condition("shm_tiny", prefix=("unshare", "-m"), shell='mount -t tmpfs -o size=64k tmpfs /dev/shm && "$@"',
              expects="any"),
    Condition("shm_absent", prefix=("unshare", "-m"), shell='mount -t tmpfs -o size=0,mode=000,ro tmpfs /dev/shm '
              '&& "$@"', expects="any"),
    Condition("few_files", 'ulimit -n 64; "$@"', expects="any"),
    Condition("very_few_files", 'ulimit -n 24; "$@"', expects="any"),
    Condition("few_processes", 'ulimit -u 12; "$@"', prefix=AS_OTHER, environment=(("HOME", None),
              ("SPECTAG_CACHE", None)), before="chmod 777 {o}", expects="any"),
    Condition("little_memory", 'ulimit -v 1500000; "$@"', expects="any"),
    Condition("folder_deleted", 'mkdir {c}/gone; cd {c}/gone; rmdir {c}/gone; "$@"', expects="any"),
    Condition("daemon", 'setsid "$@" <&- >&- 2>&-', expects="any"),
    *(
        Condition(f"{name}_{seconds:g}", f'timeout --preserve-status -s {name} {seconds:g} "$@"', expects="any")
        for name in ("INT", "TERM", "HUP")
        for seconds in (0.4, 0.8, 1.6, 3.2)
    ),
    Condition("empty_environment", 'env -i PYTHONPATH="$PYTHONPATH" "$@"', expects="any"),
]  # fmt: skip


def make_data(folder: Path) -> None:
    """Sounds with umlauts and an undecodable byte in their names, a manifest, a model and a search index."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    (folder / "sounds").mkdir()
    (folder / "new").mkdir()
    for number in range(4):
        write_audio(folder / "new" / f"neü {number}.wav", rng.normal(0, 0.1, 16_000).astype(np.float32), 16_000)
    rows = ["fname,labels"]
    for label, pitch in LABELS.items():
        for number in range(8):
            t = np.arange(16_000 + 800 * number) / 16_000
            sound = 0.3 * np.sin(2 * np.pi * pitch * (1 + 0.02 * number) * t) + rng.normal(0, 0.02, len(t))
            name = f"{label}-{number}.wav" if number else f"{label}-0.wav"
            name = f"größe {label} ☃.wav" if number == 1 else name
            write_audio(folder / "sounds" / name, sound.astype(np.float32), 16_000)
            rows.append(f"{name},{label}")
    shutil.copy(folder / "sounds" / "low-0.wav", os.fsencode(folder) + b"/sounds/low \xff.wav")
    (folder / "clips.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (folder / "sound.raw").write_bytes((rng.normal(0, 3000, 48_000)).astype("<i2").tobytes())
    for name in ("train", "index"):
        arguments = COMMANDS[name].format(d=folder, o=folder).split()
        if name == "train":
            arguments += ["--audio-dir", str(folder / "sounds")]
        subprocess.run([*spectag(), *arguments], check=True, capture_output=True)


def spectag() -> list[str]:
    return [str(Path(sys.executable).parent / "spectag")]


@dataclass(frozen=True)
class Outcome:
    """What a case ended with."""

    command: str
    condition: str
    status: int
    out: str
    err: str
    faults: tuple[str, ...]


def run_case(data: Path, command: str, condition: Condition) -> Outcome:
    """Run a command in its own folder under a condition."""
    case = Path(tempfile.mkdtemp(prefix="case-", dir=data.parent))
    folders = {name: case / name for name in ("out", "cache", "home", "tmp")}
    mounted = []
    for name, folder in folders.items():
        folder.mkdir()
        if name in condition.tmpfs:
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], check=True)
            mounted.append(folder)
    case.chmod(0o755)
    names = {"d": str(data), "o": str(folders["out"]), "c": str(case)}
    if condition.before:
        subprocess.run(["bash", "-c", condition.before.format(**names)], check=True)
    for name in condition.read_only:
        folders[name].chmod(0o555)
    environment = dict(os.environ) | {"SPECTAG_CACHE": str(folders["cache"]), "OMP_NUM_THREADS": "1"}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    for variable, value in condition.environment:
        if value is None:
            environment.pop(variable, None)
        else:
            environment[variable] = value.format(**names)
    arguments = COMMANDS[command].format(**names).split()
    if "clips.csv" in COMMANDS[command]:
        arguments += ["--audio-dir", str(data / "sounds")]
    shell = condition.shell.replace("{c}", str(case))
    out, err = case / "stdout.txt", case / "stderr.txt"
    stdin = data / "sound.raw" if command in READS_STDIN else Path(os.devnull)
    with stdin.open() as source, out.open("wb") as out_file, err.open("wb") as err_file:
        line = [*condition.prefix, "bash", "-c", shell, "bash", *spectag(), *arguments]
        try:
            status = subprocess.run(
                line, stdin=source, stdout=out_file, stderr=err_file, env=environment, cwd=case, timeout=300,
                start_new_session=True, check=False,
            ).returncode  # fmt: skip
        except subprocess.TimeoutExpired:
            status = -999
    texts = [path.read_bytes().decode(errors="backslashreplace") for path in (out, err)]
    left = [str(path.relative_to(case)) for path in case.rglob("*")]
    faults = tuple(find_faults(command, condition, status, *texts, left))
    for folder in mounted:
        subprocess.run(["umount", "-l", folder], check=False)
    shutil.rmtree(case, ignore_errors=True)
    return Outcome(command, condition.name, status, *texts, faults)


def find_faults(command: str, condition: Condition, status: int, out: str, err: str, left: list[str]) -> list[str]:
    """What is wrong with the end of a case."""
    faults = []
    if status == -999:
        return ["hangs"]
    if status < 0 or (status >= 126 and "timeout" not in condition.shell):
        faults.append(f"status {status}")
    if NOISE.search(err) or NOISE.search(out):
        faults.append("noise")
    expected = {"wrong_usage": 2}.get(command, 0)
    if condition.expects == "success" and status != expected:
        faults.append(f"status {status}")
    if condition.expects == "fails" and status != 1 and command != "wrong_usage":
        faults.append(f"status {status} instead of an error")
    stderr_is_there = "2>" not in condition.shell and "2<" not in condition.shell
    if status not in (0, 3) and stderr_is_there and condition.name not in ("pipe_true", "pipe_head", "sigpipe_default"):
        lines = [line for line in err.splitlines() if line.startswith("spectag: ")]
        has_not_started = condition.name.endswith("_0.4") and not err  # the signal came before Python ran
        if len(lines) != 1 and "terminal" not in condition.name and not has_not_started:
            faults.append(f"{len(lines)} error lines")
        elif len(lines) == 1 and len(lines[0]) > 400:
            faults.append("long error line")
    temporary = [name for name in left if re.search(r"(^|/)(\.[^/]*\.\d+\.\w+|\.work-|spectag-\w+|pymp-)", name)]
    if temporary:
        faults.append(f"left {temporary[0]}")
    if any(line.startswith(("tagging:", "spectag:", "WARNING", "skipped:")) for line in out.splitlines()) and (
        "terminal" not in condition.name
    ):
        faults.append("messages on stdout")
    if any("Microsoft" in name for name in left):
        faults.append("telemetry")
    return faults


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--commands", default=",".join(COMMANDS))
    parser.add_argument("--conditions", default=",".join(condition.name for condition in CONDITIONS))
    parser.add_argument("--data", type=Path, help="folder of an earlier run")
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("-j", type=int, default=2)
    options = parser.parse_args()
    names = [
        name for name in options.commands.split(",") if name not in NEEDS_WEIGHTS or "SPECTAG_WEIGHTS" in os.environ
    ]
    conditions = [condition for condition in CONDITIONS if condition.name in options.conditions.split(",")]
    root = options.data or Path(tempfile.mkdtemp(prefix="robustness-"))
    root.chmod(0o755)
    if not (root / "data" / "index").exists():
        make_data(root / "data")
    cases = [(name, condition) for condition in conditions for name in names if condition.applies(name)]
    counts: dict[str, Counter[str]] = {condition.name: Counter() for condition in conditions}
    with ThreadPoolExecutor(options.j) as pool:
        for outcome in pool.map(lambda case: run_case(root / "data", *case), cases):
            counts[outcome.condition][f"status {outcome.status}"] += 1
            counts[outcome.condition]["wrong"] += bool(outcome.faults)
            if outcome.faults or options.verbose:
                err = "\n    ".join(outcome.err.splitlines()[-12:])
                print(f"{outcome.condition} {outcome.command}: {', '.join(outcome.faults)}\n    {err}", flush=True)
                if options.verbose:
                    print("    >", "\n    > ".join(outcome.out.splitlines()[:4]))
    for name, count in counts.items():
        print(f"{name:20} {dict(count)}")


if __name__ == "__main__":
    main()
