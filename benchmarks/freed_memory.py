"""CPU time of log-mel spectrograms with and without `keep_freed_memory`: python benchmarks/freed_memory.py

Each measurement is a new process, because the setting of the C library lasts as long as the process. The processes
alternate, and the table shows the medians over the rounds.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

import numpy as np

from spectag.audio.files import resample
from spectag.audio.mel import compute_log_mel
from spectag.config.backbones import AUDIOSET_MEL
from spectag.system.worker_pool import keep_freed_memory

FILE_RATE = 44_100  # Hz
CLIP_SECONDS = (2, 5, 10, 30)
N_CLIPS = 40


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="processes per row and column (5)")
    parser.add_argument("--measure", nargs=2, metavar=("SECONDS", "KEEP"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(_measure(float(arguments.measure[0]), keep=arguments.measure[1] == "keep")))
        return
    print(f"{'clip':>6} {'without':>20} {'with':>20} {'saved':>7}")
    for seconds in CLIP_SECONDS:
        rounds = [[_in_new_process(seconds, keep) for keep in ("free", "keep")] for _ in range(arguments.rounds)]
        without, kept = (np.median(column, axis=0) for column in zip(*rounds, strict=True))
        columns = [f"{ms:6.2f} ms {faults:5.0f} faults" for ms, faults in (without, kept)]
        print(f"{seconds:4} s {columns[0]:>20} {columns[1]:>20} {1 - kept[0] / without[0]:7.0%}")


def _in_new_process(seconds: float, keep: str) -> tuple[float, float]:
    command = [sys.executable, __file__, "--measure", str(seconds), keep]
    milliseconds, n_faults = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return milliseconds, n_faults


def _measure(seconds: float, *, keep: bool) -> tuple[float, float]:
    """Median CPU milliseconds per clip to resample it and compute its log_mel, and page faults per clip."""
    if keep:
        keep_freed_memory()
    waveform = (0.1 * np.random.default_rng(0).standard_normal(int(seconds * FILE_RATE))).astype(np.float32)
    times = []
    n_faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(N_CLIPS):
        start = time.process_time()
        compute_log_mel(resample(waveform, FILE_RATE, AUDIOSET_MEL.sample_rate), AUDIOSET_MEL)
        times.append(time.process_time() - start)
    n_faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - n_faults
    return 1000 * statistics.median(times), n_faults / N_CLIPS


if __name__ == "__main__":
    main()
