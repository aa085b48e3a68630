"""How fast detections are cut out of long recordings, and in how much memory.

    python benchmarks/clips.py
    python benchmarks/clips.py --hours 1 --clips 1000

Makes a recording of a day as flac and one as wav (16 bits; up to 6 GB at a time, with the clips), a table of
detections at random times in each, and cuts them out with `spectag clips`. Memory is the largest one of a process, with
a tenth of the clips and with all of them. A seek that decoded the rest of the recording would be slower in the day than
in the hour: `--hours` shows it.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

_BLOCK_SECONDS = 60


def main() -> None:
    """Print a table with a row for each format and number of clips."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=24.0, help="length of each recording")
    parser.add_argument("--clips", type=int, default=10_000, help="clips of each recording")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a detection; a clip has 2 s more")
    parser.add_argument("--rate", type=int, default=22_050, help="sample rate in Hz")
    parser.add_argument(
        "--folder", type=Path, help="where the recordings are made; by default that for temporary files"
    )
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    print(f"{arguments.hours:g} h at {arguments.rate:,} Hz, {len(os.sched_getaffinity(0))} cores")
    print("| recording | clips | clips per second, all in all | largest process, MB | seconds of CPU |")
    print("|---|---|---|---|---|")
    for suffix in ("flac", "wav"):
        with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
            folder = Path(name)
            recording = folder / f"site_20240501_000000.{suffix}"
            _make_recording(recording, arguments.hours, arguments.rate, rng)
            for n_clips in (arguments.clips // 10, arguments.clips):
                starts = rng.uniform(0, arguments.hours * 3600 - arguments.seconds, n_clips)
                _write_detections(folder / "tags.csv", recording.name, starts, arguments.seconds)
                print(f"| {suffix} | {n_clips:,} | {_cut(folder, n_clips)} |", flush=True)


def _make_recording(path: Path, hours: float, rate: int, rng: np.random.Generator) -> None:
    """Noise whose level changes every minute, so that no block of a flac is like the one before."""
    with soundfile.SoundFile(path, "w", rate, 1, "PCM_16") as file:
        for _ in range(round(hours * 3600 / _BLOCK_SECONDS)):
            level = 10 ** rng.uniform(1, 3)
            file.write((level * rng.standard_normal(_BLOCK_SECONDS * rate)).clip(-32_768, 32_767).astype(np.int16))


def _write_detections(path: Path, name: str, starts: np.ndarray, seconds: float) -> None:
    lines = (f"{name},{start:.3f},{start + seconds:.3f},sound,0.5\n" for start in starts)
    path.write_text("file,start,end,label,probability\n" + "".join(lines), encoding="utf-8")


def _cut(folder: Path, n_clips: int) -> str:
    """Clips per second of the whole command, the largest process in MB, and seconds of CPU, as cells of a table."""
    output = folder / f"clips-{n_clips}"
    command = [
        sys.executable,
        "-m",
        "spectag",
        "clips",
        str(folder / "tags.csv"),
        "-o",
        str(output),
        "--per-label",
        "none",
    ]
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    process = subprocess.Popen([*command, "-q"], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = status
    seconds = time.perf_counter() - started
    n_written = len(list(output.glob("*/*")))
    if status or n_written != n_clips:
        sys.exit(f"status {status}, {n_written} clips of {n_clips}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return f"{n_clips / seconds:,.0f} | {usage.ru_maxrss / 1024:,.0f} | {cpu:.1f}"


if __name__ == "__main__":
    main()
