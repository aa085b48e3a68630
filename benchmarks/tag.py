"""How fast recordings are tagged, and how long each stage takes: python benchmarks/tag.py

Five tables:

speed         a 44.1 kHz recording in windows of 5 s, end to end: read, resample, tag, write; and the time of each stage
alternatives  the same windows, with other implementations of each stage
growth        folders of 1,000 to 100,000 one-second clips, some of them damaged: time and memory per clip
memory        peak memory for a recording of 24 hours
start         time from the start of the command to the first tag
"""

import argparse
import os
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import scipy.fft
import soundfile
import soxr

from spectag.audio.files import find_audio, open_stream, read_audio, write_audio
from spectag.audio.mel import compute_log_mel
from spectag.audio.synthesis import KINDS
from spectag.audio.windows import WindowCutter
from spectag.config.base import WindowConfig
from spectag.models.pretrained import tagger_folder
from spectag.models.tagger import Tagger
from spectag.system.worker_pool import n_usable_cores
from spectag.tagging.parallel import Chunk, chunked, tag_chunk, tag_chunks

RATE = 44_100
WINDOW = WindowConfig(window_seconds=5.0)
TABLES = ("speed", "alternatives", "growth", "memory", "start")


def main() -> None:
    """Print the tables."""
    arguments = _parser().parse_args()
    tagger = Tagger(tagger_folder(arguments.model))
    print(f"{arguments.model}, {n_usable_cores()} cores")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for name in arguments.tables or TABLES:
            print(f"\n## {name}\n", flush=True)
            PRINT[name](tagger, Path(folder), arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=f"of {', '.join(TABLES)}; all by default")
    parser.add_argument("--model", default="audioset-mn04", help="(audioset-mn04)")
    parser.add_argument("--minutes", type=float, default=30, help="length of the timed recording (30)")
    parser.add_argument("--hours", type=float, default=24, help="length of the recording for memory (24)")
    parser.add_argument("--n-clips", type=int, nargs="+", default=[1_000, 10_000, 100_000], help="(1000 10000 100000)")
    parser.add_argument(
        "--sounds", type=Path, help="folder of sounds to join into the timed recording; synthetic by default"
    )
    parser.add_argument("--rounds", type=int, default=5, help="(5)")
    parser.add_argument("--folder", type=Path, help="working folder; the system's temporary folder by default")
    return parser


def speed(tagger: Tagger, folder: Path, arguments: argparse.Namespace) -> None:
    """The command end to end, and parts of the work alone, in turn."""
    seconds = arguments.minutes * 60
    path = _recording(folder / "long.wav", seconds, arguments.sounds)
    functions: dict[str, Callable[[], object]] = {
        "the whole command": lambda: _command(tagger, path, "-o", folder / "out", "--window", "5"),
        "tagging in Python, all cores": lambda: _tag(tagger, [path], n_usable_cores()),
        "tagging window by window, one core": lambda: _serial(tagger, path),
        "only reading": lambda: _read(path),
        "only reading and resampling": lambda: _windows(tagger, path),
    }
    times = _in_turn(functions, arguments.rounds)
    print("| part | times real time (median of rounds, best) |\n|---|---|")
    for name, durations in times.items():
        print(f"| {name} | {seconds / statistics.median(durations):,.0f} ({seconds / min(durations):,.0f}) |")
    tagger.clock.read_and_reset()
    _serial(tagger, path)
    stages = tagger.clock.read_and_reset()
    print("\n| stage, on one core | ms per window of 5 s | fraction |\n|---|---|---|")
    for stage, spent in sorted(stages.items(), key=lambda item: -item[1]):
        print(f"| {stage} | {spent / seconds * 5_000:.2f} | {spent / sum(stages.values()):.0%} |")


def alternatives(tagger: Tagger, folder: Path, arguments: argparse.Namespace) -> None:
    """Each stage with the chosen implementation and with others, on the same windows and one core."""
    path = _recording(folder / "short.wav", 60)
    with tagger.open_windows(path, WINDOW) as windows:
        waveforms = [window.waveforms[tagger.sample_rates[0]] for window in windows]
    sound = soundfile.read(path, dtype="float32")[0]
    rate, mel = tagger.sample_rates[0], tagger.front_end.mel
    inputs = np.stack([tagger.front_end.input_of_waveform(waveform) for waveform in waveforms])
    session = tagger._networks[0].session
    frames = np.lib.stride_tricks.sliding_window_view(waveforms[0], mel.n_fft)[:: mel.hop_length]
    wide = frames.astype(np.float64)

    def network(size: int) -> Callable[[], object]:
        return lambda: [session.run(["probabilities"], {"inputs": inputs[i : i + size]}) for i in range(0, 12, size)]

    groups: dict[str, dict[str, Callable[[], object]]] = {
        "resampling": {f"soxr {q}": (lambda q=q: soxr.resample(sound, RATE, rate, quality=q)) for q in _QUALITIES},
        "network": {f"batches of {size}": network(size) for size in (1, 2, 4, 12)},
        "Fourier transform": {
            "float32": lambda: [scipy.fft.rfft(frames.T, axis=0) for _ in waveforms],
            "float64": lambda: [scipy.fft.rfft(wide.T, axis=0) for _ in waveforms],
        },
        "log-mel": {"as implemented": lambda: [compute_log_mel(waveform, mel) for waveform in waveforms]},
    }
    print("| stage | implementation | ms per window of 5 s | ratio |\n|---|---|---|---|")
    for stage, functions in groups.items():
        times = {name: statistics.median(each) for name, each in _in_turn(functions, 3 * arguments.rounds).items()}
        first = next(iter(times.values()))
        for name, seconds in times.items():
            print(f"| {stage} | {name} | {seconds / 12 * 1e3:.2f} | {seconds / first:.2f} |")
    paths = [_recording(folder / f"part {number}.wav", 120) for number in range(4)]
    parallel: dict[str, Callable[[], object]] = {
        "1 process, 2 threads": lambda: tag_chunk(tagger, WINDOW, 2, Chunk(0, tuple(map(str, paths)))),
        "1 process, 1 thread and the reading one": lambda: tag_chunk(
            tagger, WINDOW, 1, Chunk(0, tuple(map(str, paths)))
        ),
        "1 process, 1 thread": lambda: [_serial(tagger, path) for path in paths],
        "2 processes, including their start": lambda: _tag(tagger, paths, 2),
    }
    print("\n| four recordings of two minutes | times real time |\n|---|---|")
    for name, durations in _in_turn(parallel, arguments.rounds).items():
        print(f"| {name} | {480 / statistics.median(durations):,.0f} |")


_QUALITIES = ("HQ", "VHQ", "MQ", "LQ", "QQ")


def growth(tagger: Tagger, folder: Path, arguments: argparse.Namespace) -> None:
    """Folders of hard links to a few one-second clips; one in a hundred is damaged."""
    print("| clips | skipped | ms per clip | peak memory of the command, MB |\n|---|---|---|---|")
    originals = [_recording(folder / f"clip {number}.wav", 1.0) for number in range(50)]
    damaged = folder / "damaged.wav"
    damaged.write_bytes(originals[0].read_bytes()[:20])
    for n_clips in arguments.n_clips:
        clips = folder / f"{n_clips} clips"
        clips.mkdir()
        for number in range(n_clips):
            os.link(damaged if number % 100 == 50 else originals[number % 50], clips / f"{number:06}.wav")
        seconds, memory, status = _command(tagger, clips, "-o", folder / f"of {n_clips}", "--format", "csv")
        assert status == 3, status
        with (folder / f"of {n_clips}" / "status.csv").open() as file:
            n_skipped = sum(",skipped," in line for line in file)
        print(f"| {n_clips:,} | {n_skipped:,} | {seconds / n_clips * 1e3:.2f} | {memory:,.0f} |", flush=True)
        shutil.rmtree(clips)


def memory(tagger: Tagger, folder: Path, arguments: argparse.Namespace) -> None:
    """A long recording in a format without a limit of 4 GB. Most of the file is a hole: silence."""
    path, n_bytes = folder / "day.au", round(2 * RATE * arguments.hours * 3600)
    with path.open("wb") as file:
        file.write(struct.pack(">4sIIIII", b".snd", 24, 0xFFFFFFFF, 3, RATE, 1))  # 16 bits, unknown length
        file.write(soundfile.read(_recording(folder / "part.wav", 60), dtype="int16")[0].astype(">i2").tobytes())
        file.truncate(24 + n_bytes)
    print(f"| windows of a recording of {arguments.hours:g} h | minutes | times real time | peak memory, MB |")
    print("|---|---|---|---|")
    for window, overlap in ((5.0, 0.0), (1.5, 1.0)):
        options = ("--window", window, "--overlap", overlap, "--format", "csv,raven", "--segments")
        seconds, peak, _ = _command(tagger, path, "-o", folder / f"day {window}", *options)
        faster = arguments.hours * 3600 / seconds
        print(f"| {window:g} s, overlap {overlap:g} s | {seconds / 60:.1f} | {faster:,.0f} | {peak:,.0f} |", flush=True)


def start(tagger: Tagger, folder: Path, arguments: argparse.Namespace) -> None:
    """The command for one clip of 5 s, and for comparison Python with NumPy."""
    path = _recording(folder / "clip.wav", 5)
    functions: dict[str, Callable[[], object]] = {
        "spectag tag, one clip": lambda: _command(tagger, path, "--top", "1"),
        "spectag --help": lambda: _run([sys.executable, "-m", "spectag", "--help"]),
        "python -c 'import numpy'": lambda: _run([sys.executable, "-c", "import numpy"]),
    }
    print("| command | seconds (median) |\n|---|---|")
    for name, durations in _in_turn(functions, arguments.rounds).items():
        print(f"| {name} | {statistics.median(durations):.2f} |")


PRINT = {"speed": speed, "alternatives": alternatives, "growth": growth, "memory": memory, "start": start}


def _recording(path: Path, seconds: float, sounds: Path | None = None) -> Path:
    """Sounds one after another; synthetic ones last about three seconds, with the noise of a microphone."""
    if sounds is not None:
        parts = [read_audio(sound, sample_rate=RATE)[0] for sound in find_audio([sounds])]
        waveform = np.concatenate(parts)
        write_audio(path, np.resize(waveform, round(seconds * RATE)), RATE)
        return path
    rng = np.random.default_rng(0)
    kinds = list(KINDS.values())
    n_parts = max(1, round(seconds / 3))
    sounds_in_turn = [kinds[number % len(kinds)](rng, seconds / n_parts, RATE) for number in range(n_parts)]
    waveform = np.concatenate(sounds_in_turn)
    waveform += rng.normal(0, 1e-3, len(waveform)).astype(np.float32)
    write_audio(path, waveform, RATE)
    return path


def _in_turn(functions: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds that each function takes in each round; rounds spread the load of other programs evenly."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            begin = time.perf_counter()
            function()
            times[name].append(time.perf_counter() - begin)
    return times


def _command(tagger: Tagger, path: Path, *options: object) -> tuple[float, float, int]:
    """Seconds, peak memory in MB and exit status of `spectag tag` in its own process."""
    return _run([sys.executable, "-m", "spectag", "tag", str(tagger.folder), str(path), *map(str, options)])


def _run(command: list[str]) -> tuple[float, float, int]:
    """The same for any command, started by a small process, because a peak includes the memory of the parent."""
    begin = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", _SMALL_PARENT, *command], capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - begin
    status, kilobytes = done.stdout.split()
    return seconds, int(kilobytes) / 1e3, int(status)


_SMALL_PARENT = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print(done.returncode, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def _tag(tagger: Tagger, paths: list[Path], workers: int) -> list[object]:
    files = [str(path) for path in paths]
    return list(tag_chunks(tagger, chunked(files, workers), WINDOW, workers=workers))


def _serial(tagger: Tagger, path: Path) -> None:
    with tagger.open_windows(path, WINDOW) as windows:
        for window in windows:
            tagger.probabilities_of_window(window)


def _read(path: Path) -> None:
    with open_stream(path) as sound:
        _exhaust(sound.blocks)


def _windows(tagger: Tagger, path: Path) -> None:
    with open_stream(path) as sound:
        _exhaust(WindowCutter(sound.sample_rate, tagger.sample_rates, window_seconds=5.0).cut(sound.blocks))


def _exhaust(items: Iterator[object]) -> None:
    for _ in items:
        pass


if __name__ == "__main__":
    main()
