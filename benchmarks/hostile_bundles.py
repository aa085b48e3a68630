"""How spectag survives bundles of strangers: each is opened by the command line in a process of its own.

    python benchmarks/hostile_bundles.py [--seeds 5]

Makes 24 kinds of hostile bundles (tests/helpers/hostile_bundles.py) with several seeds each, and tags a short sound
with each. Good is: a foreseen error of one line with the exit status 1 or 2, or a result where the damage does not
matter; within 10 s of processor time and 1 GB. Printed: a row for each kind, and every bundle for which this is not so.
The exit status is 1 if there is one.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from helpers.bundles import tone
from helpers.hostile_bundles import HARMLESS, KINDS, make_hostile_bundle
from spectag.audio.files import write_audio

MAX_SECONDS = 10.0
MAX_MEGABYTES = 1_000.0
_MAX_WAIT_SECONDS = 120  # for a command that waits for something
_MAX_ADDRESSES = 64 * 2**30  # a limit for the machine's sake
_FORESEEN = (1, 2)


class Outcome(NamedTuple):
    """How the command ended."""

    status: int
    stderr: str
    seconds: float
    """Processor time, because the machine may do other work."""
    megabytes: float
    """The largest memory of the process."""

    def fault(self, kind: str) -> str:
        """What is wrong with this outcome, or nothing."""
        lines = [line for line in self.stderr.strip().splitlines() if not line.startswith("tagging: ")]  # progress
        if self.status == 0:
            return "" if kind in HARMLESS else "opened"
        if self.status not in _FORESEEN or len(lines) != 1 or "Traceback" in self.stderr:
            return f"status {self.status}, {len(lines)} lines: {self.stderr.strip()[-300:]}"
        if self.seconds > MAX_SECONDS or self.megabytes > MAX_MEGABYTES:
            return f"{self.seconds:.1f} s, {self.megabytes:.0f} MB"
        return ""


def tag(bundle: Path, sound: Path) -> Outcome:
    """Tag a sound with a bundle in a process of its own."""
    command = [sys.executable, "-m", "spectag", "tag", str(bundle), str(sound)]
    with tempfile.TemporaryFile() as stderr:
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=stderr, stdin=subprocess.DEVNULL, preexec_fn=_limit_addresses
        )
        killer = threading.Timer(_MAX_WAIT_SECONDS, process.kill)
        killer.start()
        _, status, usage = os.wait4(process.pid, 0)
        killer.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        stderr.seek(0)
        text = stderr.read().decode("utf-8", "replace")
    return Outcome(process.returncode, text, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1_000)


def _limit_addresses() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MAX_ADDRESSES, _MAX_ADDRESSES))


def run(kind: str, seeds: Iterable[int]) -> list[Outcome]:
    """The outcome for each seed."""
    outcomes = []
    for seed in seeds:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_audio(folder / "a.wav", tone("low", 1.0), 16_000)
            outcomes.append(tag(make_hostile_bundle(kind, seed, folder / "model"), folder / "a.wav"))
    return outcomes


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="bundles of each kind")
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), help="only these kinds")
    options = parser.parse_args()
    print(f"{'kind':<20} {'errors':>6} {'results':>7} {'s':>5} {'MB':>5}")
    n_bundles, faults = 0, []
    for kind in options.kinds:
        outcomes = run(kind, range(options.seeds))
        n_results = sum(outcome.status == 0 for outcome in outcomes)
        seconds, megabytes = max(o.seconds for o in outcomes), max(o.megabytes for o in outcomes)
        counts = f"{len(outcomes) - n_results:>6} {n_results:>7}"
        print(f"{kind:<20} {counts} {seconds:>5.1f} {megabytes:>5.0f}", flush=True)
        n_bundles += len(outcomes)
        faults += [f"{kind} {seed}: {fault}" for seed, o in enumerate(outcomes) if (fault := o.fault(kind))]
    print(f"{n_bundles} bundles, {len(faults)} faults", *faults, sep="\n")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
