"""Tag and listen for a long time, and see whether anything grows: python benchmarks/soak.py --minutes 30

Two processes work all the time: one tags a folder of good and damaged files again and again, and one is `spectag
listen`, which gets sound through a pipe. Every few seconds their memory, open files, threads and temporary files are
counted. The table has the values after a warm-up of a fifth of the time and at the end, and the slope between.

PYTHONPATH=tests is needed; Linux only.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import BinaryIO

import numpy as np

from helpers.bundles import LABELS, make_bundle, tone
from helpers.damaged_files import make_damaged_file
from spectag.audio.files import write_audio
from spectag.config.tagging import TagSettings
from spectag.models.tagger import Tagger
from spectag.tagging.batch import tag_to_tables

_WARM_UP = 0.2  # of the time
_PERIOD_SECONDS = 5.0
_N_DAMAGED = 120  # without sparse giants, the last of each 64
_QUANTITIES = ("memory, MB", "open files", "threads", "temporary files")


def tag_forever(folder: Path) -> None:
    """Tag the sounds of a folder into tables, with one tagger; each number on stdout is a finished run."""
    tagger = Tagger(folder / "bundle")
    settings = TagSettings(window=0.5, format="wide,jsonl")
    for number in range(sys.maxsize):
        report = tag_to_tables(tagger, [folder / "sounds"], settings, output=str(folder / "out"), workers=1)
        assert report.n_files > _N_DAMAGED / 2
        print(number + 1, flush=True)


def feed(pipe: BinaryIO, counts: list[int]) -> None:
    """Write sound to the listener as fast as it listens: tones and silence in turn."""
    sounds = [tone(label, 2.0) for label in LABELS]
    block = np.concatenate([part for sound in sounds for part in (sound, np.zeros(16_000))])
    data = (32767 * block).astype("<i2").tobytes()
    try:
        while True:
            pipe.write(data)
            counts[0] += len(data) // 2
    except (BrokenPipeError, ValueError):
        return


def measure(process: int, temporary: Path) -> tuple[float, ...]:
    """Memory in MB, open files, threads and temporary files of a process."""
    status = Path(f"/proc/{process}/status").read_text()
    values = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    n_files = len(os.listdir(f"/proc/{process}/fd"))  # noqa: PTH208 - faster
    n_temporary = sum(1 for _ in temporary.rglob("*"))
    return int(values["VmRSS"].split()[0]) / 1024, n_files, int(values["Threads"]), n_temporary


def soak(folder: Path, minutes: float) -> None:
    """Start both processes, measure them, and print the tables."""
    make_bundle(folder / "bundle")
    (folder / "sounds").mkdir()
    for number in range(20):
        write_audio(folder / "sounds" / f"good {number}.wav", tone(LABELS[number % 3], 2.0), 16_000)
    for number in range(_N_DAMAGED):
        if make_damaged_file(folder / "sounds", number).family == "sparse giants":
            next((folder / "sounds").glob(f"{number:05}.*")).unlink()
    commands = {
        "tag": [sys.executable, __file__, "--tag", str(folder)],
        "listen": [str(Path(sys.executable).parent / "spectag"), "listen", str(folder / "bundle"), "-", "--json"],
    }
    processes, temporaries = {}, {}
    for name, command in commands.items():
        temporaries[name] = folder / f"tmp {name}"
        temporaries[name].mkdir()
        with (folder / f"{name}.txt").open("wb") as out:
            processes[name] = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=out, stderr=subprocess.DEVNULL,
                env=os.environ | {"TMPDIR": str(temporaries[name])},
            )  # fmt: skip
    pipe, n_samples = processes["listen"].stdin, [0]
    assert pipe is not None
    threading.Thread(target=feed, args=(pipe, n_samples), daemon=True).start()
    rows: dict[str, list[tuple[float, ...]]] = {name: [] for name in commands}
    begin = time.monotonic()
    while (seconds := time.monotonic() - begin) < 60 * minutes:
        time.sleep(_PERIOD_SECONDS)
        for name, process in processes.items():
            if process.poll() is not None:
                raise SystemExit(f"{name} ended with status {process.returncode}")
            rows[name].append((seconds, *measure(process.pid, temporaries[name])))
    for process in processes.values():
        process.terminate()
        process.wait()
    n_runs = len((folder / "tag.txt").read_text().splitlines())
    n_events = len((folder / "listen.txt").read_text().splitlines())
    hours = n_samples[0] / 16_000 / 3600
    print(f"{minutes:g} minutes: {n_runs:,} runs of tag over {_N_DAMAGED + 20} files,", end=" ")
    print(f"{hours:,.1f} hours of sound and {n_events:,} events in listen\n")
    print_table(rows)


def print_table(rows: dict[str, list[tuple[float, ...]]]) -> None:
    """The values after the warm-up and at the end, the greatest, and the slope."""
    print(
        "| process | quantity | after the warm-up | greatest | at the end | slope per hour |\n|---|---|---|---|---|---|"
    )
    for name, values in rows.items():
        table = np.array(values)
        table = table[table[:, 0] >= _WARM_UP * table[-1, 0]]
        for number, quantity in enumerate(_QUANTITIES, start=1):
            column = table[:, number]
            slope = 3600 * np.polyfit(table[:, 0], column, 1)[0]
            print(f"| {name} | {quantity} | {column[0]:.0f} | {column.max():.0f} | {column[-1]:.0f} | {slope:+.1f} |")


def main() -> None:
    """Soak, or tag in a process of the soak."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30, help="(30)")
    parser.add_argument("--folder", type=Path, help="working folder; the system's temporary folder by default")
    parser.add_argument("--tag", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.tag:
        tag_forever(arguments.tag)
    with tempfile.TemporaryDirectory(prefix="soak-", dir=arguments.folder) as folder:
        soak(Path(folder), arguments.minutes)


if __name__ == "__main__":
    main()
