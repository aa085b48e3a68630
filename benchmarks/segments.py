"""How fast the default segments of a model are found: from its frames, and from windows of 1.5 s every 0.5 s.

    python -m benchmarks.segments MODEL RECORDING... [--rounds 3]

MODEL has frames. `spectag tag --segments` runs on one core, with both kinds in turn, so that the ratio is right also on
a machine that does other work. Times are CPU time of the command, with its start.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from spectag.audio.files import audio_info

KINDS = {"frames": (), "windows of 1.5 s every 0.5 s": ("--window", "1.5", "--overlap", "1")}


def main() -> None:
    """Print the table of docs/benchmarks.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("recordings", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    n_seconds = sum(audio_info(path).duration_seconds for path in arguments.recordings)
    times: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for _ in range(arguments.rounds):
        for kind, options in KINDS.items():
            times[kind].append(cpu_seconds(arguments.model, arguments.recordings, options))
    print("| segments from | CPU seconds (median) | times real time on one core | times faster |\n|---|---|---|---|")
    slowest = max(statistics.median(values) for values in times.values())
    for kind, values in times.items():
        median = statistics.median(values)
        print(f"| {kind} | {median:.1f} | {n_seconds / median:.0f} | {slowest / median:.1f} |")


def cpu_seconds(model: str, recordings: Sequence[Path], options: Sequence[str]) -> float:
    """The CPU time in seconds of a run of the command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "spectag", "tag", model, *map(str, recordings), "--segments", *options]
        command += ["--workers", "1", "-o", str(Path(folder, "tags.csv"))]
        subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)


if __name__ == "__main__":
    main()
