"""Tag thousands of damaged files, and check what the commands make of them: python benchmarks/robustness.py

Sounds in 60 formats are cut, flipped, filled, joined, their chunks shuffled and their headers falsified. Other inputs
are no sounds at all: web pages, archives, pipes, devices, link loops, sparse files of 100 GB. They are tagged in
batches by `spectag tag`, with five good files in each batch. A sample of them goes to the other commands. A fault is

- a traceback, a crash, a warning of a library, an exit status that is not 0 or 3;
- an input without a row in status.csv, or a refused one without a reason;
- a probability that is not finite;
- a good file whose probabilities differ from those of a run without the damaged files;
- a file that takes more than 10 s of processor time, two minutes or 1 GB, alone in a process;
- a temporary file that is left.

The numbers of the inputs repeat with --seed. PYTHONPATH=tests is needed.
"""

import argparse
import csv
import json
import math
import os
import re
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from helpers.bundles import LABELS, make_bundle, tone
from helpers.damaged_files import DamagedFile, make_damaged_file
from spectag.audio.files import audio_info, open_stream, read_audio, write_audio
from spectag.errors import SpectagError
from spectag.models.tagger import Tagger
from spectag.system.streams import mute_libraries
from spectag.tagging.parallel import Chunk, tag_chunk

MAX_SECONDS, MAX_MEGABYTES = 10.0, 1000.0
_GIVE_UP_SECONDS = 120.0
_KNOWN_STDERR = re.compile(r"^(tagging|skipped|note|no label|WARNING: the recordings|  |[\d,]+ files? tagged|\s*$)")
_NOISE = re.compile(r"Traceback|Error:|Exception ignored|Warning:|\[\w+ @ 0x|Segmentation|core dumped|leaked")
_SPECTAG = str(Path(sys.executable).parent / "spectag")


@dataclass
class FamilyCounts:
    """What became of the inputs of a family."""

    statuses: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    megabytes: float = 0.0


class Campaign:
    """Batches of damaged files, and the faults found so far."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.seed = seed
        self.bundle = make_bundle(folder / "bundle")
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        self.families: dict[str, FamilyCounts] = defaultdict(FamilyCounts)
        self.faults: list[str] = []
        self.meter = Meter(self.bundle)

    def fault(self, text: str) -> None:
        """Report a fault at once, because a long run may be stopped."""
        self.faults.append(text)
        print(f"FAULT {text}", file=sys.stderr, flush=True)

    def spectag(self, *arguments: object) -> subprocess.CompletedProcess[str] | None:
        """Run a command; None if it does not end. Its noise is a fault."""
        environment = os.environ | {"TMPDIR": str(self.temporary), "SPECTAG_CACHE": str(self.folder / "cache")}
        command = [_SPECTAG, *map(str, arguments)]
        name = " ".join(command[1:])[:150]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, errors="backslashreplace", env=environment, timeout=1800,
                check=False, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            self.fault(f"{name}: does not end within 30 minutes")
            return None
        if done.returncode not in (0, 1, 2, 3):
            self.fault(f"{name}: exit status {done.returncode}: {done.stderr[-300:]!r}")
        for line in filter(_NOISE.search, done.stderr.splitlines()):
            if not line.startswith(("spectag: ", "skipped: ", "note: ")):
                self.fault(f"{name}: {line[:300]}")
        if left := list(self.temporary.iterdir()):
            self.fault(f"{name}: left the temporary files {left[:3]}")
            shutil.rmtree(self.temporary)
            self.temporary.mkdir()
        return done

    def run_batch(self, numbers: range) -> None:
        """Write, tag, check, measure and delete a batch of inputs."""
        batch = self.folder / f"batch {numbers.start}"
        good = write_good_files(batch)
        expected = self._probabilities_of(good, batch)
        inputs = [make_damaged_file(batch, number, self.seed) for number in numbers]
        out = self.folder / "out"
        done = self.spectag("tag", self.bundle, batch, "-o", out, "--format", "wide")
        if done is not None:
            self._check_run(done, inputs, good, expected, out)
        shutil.rmtree(out, ignore_errors=True)
        for damaged in inputs:
            self._measure(damaged)
        shutil.rmtree(batch)

    def _probabilities_of(self, good: list[Path], batch: Path) -> dict[str, str]:
        out = self.folder / "good"
        self.spectag("tag", self.bundle, batch, "-o", out, "--format", "wide")
        rows = rows_by_file(table_in(out))
        shutil.rmtree(out)
        assert set(rows) == set(map(str, good))
        return rows

    def _check_run(
        self,
        done: subprocess.CompletedProcess[str],
        inputs: list[DamagedFile],
        good: list[Path],
        expected: dict[str, str],
        out: Path,
    ) -> None:
        """Check the exit status, the messages, the status of each input, and the probabilities."""
        if done.returncode not in (0, 3):
            self.fault(f"tag: exit status {done.returncode}: {done.stderr[-300:]!r}")
            return
        for line in done.stderr.splitlines():
            if not _KNOWN_STDERR.match(line):
                self.fault(f"tag: unknown message {line[:300]!r}")
        with (out / "status.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        statuses = {row["file"]: row for row in rows}
        if len(statuses) != len(rows):
            self.fault("tag: a file has several rows in status.csv")
        for damaged in inputs:
            row = statuses.pop(str(damaged.path), None)
            counts = self.families[damaged.family].statuses
            counts[row["status"] if row else "not listed"] += 1
            for text in faults_of_status(damaged, row):
                self.fault(f"{damaged.path.name} ({damaged.family}, {damaged.damage}): {text}")
        if set(statuses) != set(map(str, good)):
            self.fault(f"tag: status.csv has unknown rows: {sorted(statuses)[:9]}")
        tagged = rows_by_file(table_in(out))
        for name, row in tagged.items():
            if not all(math.isfinite(float(value)) for value in row.rsplit(",", len(LABELS))[1:]):
                self.fault(f"{name}: {row}")
        for name, row in expected.items():
            if tagged.get(name) != row:
                self.fault(f"good file {name}: {tagged.get(name)} instead of {row}")

    def _measure(self, damaged: DamagedFile) -> None:
        """Read and tag a file alone."""
        name = f"{damaged.path.name} ({damaged.family}, {damaged.damage})"
        measured = self.meter.measure(damaged.path)
        counts = self.families[damaged.family]
        for text in measured.faults:
            self.fault(f"{name}: {text}")
        counts.seconds = max(counts.seconds, measured.seconds)
        counts.megabytes = max(counts.megabytes, measured.megabytes)
        if measured.seconds > MAX_SECONDS:
            self.fault(f"{name}: {measured.seconds:.1f} s")
        if measured.megabytes > MAX_MEGABYTES:
            self.fault(f"{name}: {measured.megabytes:.0f} MB")

    def run_other_commands(self, numbers: range) -> None:
        """Give inputs to inspect, prepare, index and show, with good files beside them."""
        batch = self.folder / "others"
        names = write_good_files(batch)
        inputs = [make_damaged_file(batch, number, self.seed) for number in numbers]
        # inspect and prepare read every byte of a file, for its SHA-256: five minutes for 100 GB
        sounds = [damaged.path for damaged in inputs if damaged.path.is_file() and damaged.family != "sparse giants"]
        names += sounds
        rows = [f"{path.name},{LABELS[number % 3]}" for number, path in enumerate(names)]
        (batch / "clips.csv").write_text("\n".join(["fname,labels", *rows]) + "\n", encoding="utf-8")
        commands: dict[str, list[object]] = {
            "inspect": ["inspect", batch / "clips.csv", "--json"],
            "prepare": ["prepare", batch / "clips.csv", "--backbone", "scratch"],
            "index": ["index", batch, "-o", self.folder / "index", "--model", self.bundle],
            "show": ["show", batch / "clips.csv", "-o", self.folder / "grid.png", "--grid", "4x4"],
        }
        print("\n| command | inputs | exit status | seconds | last message |\n|---|---|---|---|---|")
        for name, command in commands.items():
            begin = time.monotonic()
            done = self.spectag(*command)
            if done is not None:
                last = (done.stderr.strip().splitlines() or [""])[-1][:100].replace("|", "/")
                print(f"| {name} | {len(names):,} | {done.returncode} | {time.monotonic() - begin:.0f} | {last} |")
        for damaged in inputs[:10]:
            done = self.spectag("show", damaged.path, "-o", self.folder / "one.png")
            if done is not None and done.returncode == 1 and len(done.stderr.strip().splitlines()) != 1:
                self.fault(f"show {damaged.path.name}: {done.stderr[-300:]!r}")
        shutil.rmtree(batch)

    def print_table(self) -> None:
        """One row for each family."""
        names = ("done", "truncated", "skipped", "not listed")
        print("| family | inputs | read | read in part | refused | not found | longest, s | largest, MB |")
        print("|---|---|---|---|---|---|---|---|")
        total = Counter[str]()
        for family, counts in sorted(self.families.items()):
            cells = " | ".join(f"{counts.statuses[name]:,}" for name in names)
            print(
                f"| {family} | {counts.statuses.total():,} | {cells} | {counts.seconds:.1f} | {counts.megabytes:.0f} |"
            )
            total += counts.statuses
        cells = " | ".join(f"{total[name]:,}" for name in names)
        seconds = max(counts.seconds for counts in self.families.values())
        megabytes = max(counts.megabytes for counts in self.families.values())
        print(f"| all | {total.total():,} | {cells} | {seconds:.1f} | {megabytes:.0f} |")


def faults_of_status(damaged: DamagedFile, row: dict[str, str] | None) -> Iterator[str]:
    """What is wrong with the row of an input in status.csv."""
    if row is None:
        if damaged.damage != "link to a folder":
            yield "no row in status.csv"
        return
    if row["status"] == "skipped" and not row["reason"]:
        yield f"{damaged.path.name} has no reason"
    if "unexpected " in row["reason"] or "died" in row["reason"] or "\n" in row["reason"]:
        yield row["reason"]


def write_good_files(folder: Path) -> list[Path]:
    """Five sounds; their names are between those of the damaged files, so that they are in other chunks each."""
    folder.mkdir()
    paths = [folder / f"{number}5 good.wav" for number in range(5)]
    for number, path in enumerate(paths):
        write_audio(path, tone(LABELS[number % 3], 1.0 + number / 10), 16_000)
    return paths


def table_in(folder: Path) -> Path:
    """The table of probabilities in the output of tag."""
    (path,) = (path for path in folder.iterdir() if path.suffix == ".csv" and path.name != "status.csv")
    return path


def rows_by_file(table: Path) -> dict[str, str]:
    """The lines of a table by the name in the first column."""
    lines = table.read_text(encoding="utf-8", errors="surrogateescape").splitlines()[1:]
    return {line.split(",")[0]: line for line in lines}


# Time and memory of one file


@dataclass(frozen=True)
class Measured:
    """Processor time and peak memory of the slowest way to read a file, and what went wrong."""

    seconds: float
    megabytes: float
    faults: tuple[str, ...] = ()


class Meter:
    """A process that reads and tags one file after another."""

    def __init__(self, bundle: Path) -> None:
        self._bundle = bundle
        self._start()

    def _start(self) -> None:
        command = [sys.executable, __file__, "--measure", str(self._bundle)]
        self._stderr = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 - as long as the process
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr, text=True
        )

    def measure(self, path: Path) -> Measured:
        """Read a file in each way; a process that dies or does not end is started again."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{path}\n")
        self._process.stdin.flush()
        line = ""
        if select.select([self._process.stdout], [], [], _GIVE_UP_SECONDS)[0]:
            line = self._process.stdout.readline()
        if line:
            result = json.loads(line)
            return Measured(result["seconds"], result["megabytes"], (*result["faults"], *self._noise()))
        status = self._process.poll()
        self._process.kill()
        self._process.wait()
        noise = self._noise()
        self._start()
        why = f"more than {_GIVE_UP_SECONDS:.0f} s" if status is None else f"the process died: {status}"
        return Measured(_GIVE_UP_SECONDS, 0.0, (why, *noise))

    def _noise(self) -> list[str]:
        """What was written to stderr since the last call."""
        self._stderr.seek(0)
        lines = self._stderr.read().splitlines()
        self._stderr.seek(0)
        self._stderr.truncate()
        return [f"message: {line[:200]}" for line in lines[:3]]


def measure_forever(bundle: Path) -> None:
    """Measure the files whose names come from stdin; one line of JSON for each."""
    mute_libraries()
    tagger = Tagger(bundle)
    for line in sys.stdin:
        Path("/proc/self/clear_refs").write_text("5")  # start to measure the peak again
        seconds, faults = 0.0, []
        path = Path(line.rstrip("\n"))
        is_giant = path.is_file() and path.stat().st_size > 1 << 30  # all at once would fill the memory
        for read in (_tag, _info) if is_giant else (_tag, _stream, _info, _excerpt, _whole):
            begin = time.process_time()
            try:
                read(tagger, str(path))
            except SpectagError as error:
                if str(path) not in str(error):
                    faults.append(f"{read.__name__}: the error does not name the file: {error}")
            except Exception as error:
                faults.append(f"{read.__name__}: {type(error).__name__}: {error}")
            seconds = max(seconds, time.process_time() - begin)
        peak = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
        megabytes = int(peak.group(1)) / 1024 if peak else math.nan
        print(json.dumps({"seconds": seconds, "megabytes": megabytes, "faults": faults}), flush=True)


def _tag(tagger: Tagger, name: str) -> None:
    (tagged,) = tag_chunk(tagger, None, 1, Chunk(0, (name,))).files
    if tagged.timeline is not None:
        assert np.isfinite(tagged.timeline.probabilities).all()


def _stream(_tagger: Tagger, name: str) -> None:
    with open_stream(name) as sound:
        for block in sound.blocks:
            assert np.isfinite(block).all()


def _info(_tagger: Tagger, name: str) -> None:
    assert audio_info(name).duration_seconds >= 0


def _excerpt(_tagger: Tagger, name: str) -> None:
    assert np.isfinite(read_audio(name, start_seconds=0.3, end_seconds=0.9, sample_rate=16_000)[0]).all()


def _whole(_tagger: Tagger, name: str) -> None:
    assert np.isfinite(read_audio(name)[0]).all()


def main() -> int:
    """Run the campaign and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=10_000, help="(10000)")
    parser.add_argument("--first", type=int, default=0, help="number of the first input (0)")
    parser.add_argument("--seed", type=int, default=0, help="(0)")
    parser.add_argument("--minutes", type=float, default=math.inf, help="start no batch after this time (no limit)")
    parser.add_argument("--batch", type=int, default=500, help="inputs for one run of tag (500)")
    parser.add_argument("--others", type=int, default=500, help="inputs for inspect, prepare, index and show (500)")
    parser.add_argument("--folder", type=Path, help="working folder; the system's temporary folder by default")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure_forever(arguments.measure)
        return 0
    with tempfile.TemporaryDirectory(prefix="robustness-", dir=arguments.folder) as folder:
        campaign = Campaign(Path(folder), arguments.seed)
        begin, end = time.monotonic(), arguments.first + arguments.inputs
        for start in range(arguments.first, end, arguments.batch):
            campaign.run_batch(range(start, min(end, start + arguments.batch)))
            seconds = time.monotonic() - begin
            print(f"{min(end, start + arguments.batch):,} inputs, {seconds:.0f} s", file=sys.stderr)
            if seconds > 60 * arguments.minutes:
                break
        if campaign.families:
            campaign.print_table()
        if arguments.others:
            campaign.run_other_commands(range(arguments.first, arguments.first + arguments.others))
        print(f"\n{len(campaign.faults):,} faults in {time.monotonic() - begin:.0f} s")
        return 1 if campaign.faults else 0


if __name__ == "__main__":
    sys.exit(main())
