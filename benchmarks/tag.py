"""How fast recordings are tagged, and what the time goes into: python benchmarks/tag.py

Five questions, one table each:

speed     a recording of 44.1 kHz, windows of 5 s, end to end: read, resampled, tagged, written; and where the time goes
ways      the same windows, side by side, by other ways to do each stage
growth    folders of 1,000 to 100,000 clips of a second, some broken: time and memory for each clip
memory    the greatest memory for a recording of 24 hours
start     from nothing to the first tag
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

from spectag.audio.files import find_audio, read_audio, write_audio
from spectag.audio.mel import compute_log_mel
from spectag.audio.stream import open_stream
from spectag.audio.synthesis import KINDS
from spectag.audio.windows import cut
from spectag.config.base import WindowConfig
from spectag.models.pretrained import tagger_folder
from spectag.models.tagger import Tagger
from spectag.system.worker_pool import n_usable_cores
from spectag.tagging.parallel import Chunk, chunked, tag_chunk, tag_chunks

RATE = 44_100
WINDOW = WindowConfig(window_seconds=5.0)
QUESTIONS = ("speed", "ways", "growth", "memory", "start")


def main() -> None:
    """Print the tables."""
    arguments = _parser().parse_args()
    tagger = Tagger(tagger_folder(arguments.model))
    print(f"{arguments.model}, {n_usable_cores()} cores")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for question in arguments.questions or QUESTIONS:
            print(f"\n## {question}\n", flush=True)
            ASK[question](tagger, Path(folder), arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("questions", nargs="*", metavar="QUESTION", help=f"of {', '.join(QUESTIONS)}; all by default")
    parser.add_argument("--model", default="audioset-mn04", help="(audioset-mn04)")
    parser.add_argument("--minutes", type=float, default=30, help="of the recording that is timed (30)")
    parser.add_argument("--hours", type=float, default=24, help="of the recording whose memory is measured (24)")
    parser.add_argument("--n-clips", type=int, nargs="+", default=[1_000, 10_000, 100_000], help="(1000 10000 100000)")
    parser.add_argument("--sounds", type=Path, help="folder whose sounds the timed recording is made of; else made up")
    parser.add_argument("--rounds", type=int, default=5, help="(5)")
    parser.add_argument("--folder", type=Path, help="where to work; the system's temporary folder by default")
    return parser


def speed(tagger: Tagger, folder: Path, arguments: argparse.Namespace) -> None:
    """End to end, in turn: the command, and each share of the work alone."""
    seconds = arguments.minutes * 60
    path = _recording(folder / "long.wav", seconds, arguments.sounds)
    ways: dict[str, Callable[[], object]] = {
        "the command, all in all": lambda: _command(tagger, path, "-o", folder / "out", "--window", "5"),
        "tag in Python, all cores": lambda: _tag(tagger, [path], n_usable_cores()),
        "one after another, one core": lambda: _serial(tagger, path),
        "reading alone": lambda: _read(path),
        "reading and resampling alone": lambda: _windows(tagger, path),
    }
    times = _in_turn(ways, arguments.rounds)
    print("| what | times real time (median of rounds, best) |\n|---|---|")
    for name, taken in times.items():
        print(f"| {name} | {seconds / statistics.median(taken):,.0f} ({seconds / min(taken):,.0f}) |")
    tagger.clock.taken()
    _serial(tagger, path)
    taken = tagger.clock.taken()
    print("\n| stage, on one core | ms a window of 5 s | share |\n|---|---|---|")
    for stage, spent in sorted(taken.items(), key=lambda item: -item[1]):
        print(f"| {stage} | {spent / seconds * 5_000:.2f} | {spent / sum(taken.values()):.0%} |")


def ways(tagger: Tagger, folder: Path, arguments: argparse.Namespace) -> None:
    """Each stage by the way that is taken and by others, on the same windows, one core."""
    path = _recording(folder / "short.wav", 60)
    with tagger.open_windows(path, WINDOW) as windows:
        waveforms = [window.waveforms[tagger.sample_rates[0]] for window in windows]
    sound = soundfile.read(path, dtype="float32")[0]
    rate, mel = tagger.sample_rates[0], tagger.front_end.mel
    inputs = np.stack([tagger.front_end.input_of_waveform(waveform) for waveform in waveforms])
    session = tagger._networks[0]._session
    frames = np.lib.stride_tricks.sliding_window_view(waveforms[0], mel.n_fft)[:: mel.hop_length]
    wide = frames.astype(np.float64)

    def network(size: int) -> Callable[[], object]:
        return lambda: [session.run(["probabilities"], {"inputs": inputs[i : i + size]}) for i in range(0, 12, size)]

    groups: dict[str, dict[str, Callable[[], object]]] = {
        "resampling": {f"soxr {q}": (lambda q=q: soxr.resample(sound, RATE, rate, quality=q)) for q in _QUALITIES},
        "network": {f"windows at once: {size}": network(size) for size in (1, 2, 4, 12)},
        "Fourier transform": {
            "float32": lambda: [scipy.fft.rfft(frames.T, axis=0) for _ in waveforms],
            "float64": lambda: [scipy.fft.rfft(wide.T, axis=0) for _ in waveforms],
        },
        "log-mel, whole": {"as it is": lambda: [compute_log_mel(waveform, mel) for waveform in waveforms]},
    }
    print("| stage | way | ms a window of 5 s | ratio |\n|---|---|---|---|")
    for stage, of_stage in groups.items():
        times = {name: statistics.median(taken) for name, taken in _in_turn(of_stage, 3 * arguments.rounds).items()}
        first = next(iter(times.values()))
        for name, taken in times.items():
            print(f"| {stage} | {name} | {taken / 12 * 1e3:.2f} | {taken / first:.2f} |")
    paths = [_recording(folder / f"part {number}.wav", 120) for number in range(4)]
    spread = {
        "1 process, 2 threads": lambda: tag_chunk(tagger, WINDOW, 2, Chunk(0, tuple(map(str, paths)))),
        "1 process, 1 thread beside the reader": lambda: tag_chunk(tagger, WINDOW, 1, Chunk(0, tuple(map(str, paths)))),
        "1 process, nothing beside": lambda: [_serial(tagger, path) for path in paths],
        "2 processes, with their start": lambda: _tag(tagger, paths, 2),
    }
    print("\n| four recordings of two minutes | times real time |\n|---|---|")
    for name, taken in _in_turn(spread, arguments.rounds).items():
        print(f"| {name} | {480 / statistics.median(taken):,.0f} |")


_QUALITIES = ("HQ", "VHQ", "MQ", "LQ", "QQ")


def growth(tagger: Tagger, folder: Path, arguments: argparse.Namespace) -> None:
    """Folders of links to a few clips of a second, one in a hundred of them broken."""
    print("| clips | skipped | ms a clip | greatest memory of the command, MB |\n|---|---|---|---|")
    originals = [_recording(folder / f"clip {number}.wav", 1.0) for number in range(50)]
    broken = folder / "broken.wav"
    broken.write_bytes(originals[0].read_bytes()[:20])
    for n_clips in arguments.n_clips:
        clips = folder / f"{n_clips} clips"
        clips.mkdir()
        for number in range(n_clips):
            os.link(broken if number % 100 == 50 else originals[number % 50], clips / f"{number:06}.wav")
        taken, memory, status = _command(tagger, clips, "-o", folder / f"of {n_clips}", "--format", "csv")
        assert status == 3, status
        with (folder / f"of {n_clips}" / "status.csv").open() as file:
            n_skipped = sum(",skipped," in line for line in file)
        print(f"| {n_clips:,} | {n_skipped:,} | {taken / n_clips * 1e3:.2f} | {memory:,.0f} |", flush=True)
        shutil.rmtree(clips)


def memory(tagger: Tagger, folder: Path, arguments: argparse.Namespace) -> None:
    """A long recording, in a format without a limit of 4 GB, which is mostly a hole in the disk: silence."""
    path, n_bytes = folder / "day.au", round(2 * RATE * arguments.hours * 3600)
    with path.open("wb") as file:
        file.write(struct.pack(">4sIIIII", b".snd", 24, 0xFFFFFFFF, 3, RATE, 1))  # 16 bits, of unknown length
        file.write(soundfile.read(_recording(folder / "part.wav", 60), dtype="int16")[0].astype(">i2").tobytes())
        file.truncate(24 + n_bytes)
    print(f"| windows of a recording of {arguments.hours:g} h | minutes | times real time | greatest memory, MB |")
    print("|---|---|---|---|")
    for window, overlap in ((5.0, 0.0), (1.5, 1.0)):
        options = ("--window", window, "--overlap", overlap, "--format", "csv,raven", "--segments")
        taken, peak, _ = _command(tagger, path, "-o", folder / f"day {window}", *options)
        faster = arguments.hours * 3600 / taken
        print(f"| {window:g} s, overlap {overlap:g} s | {taken / 60:.1f} | {faster:,.0f} | {peak:,.0f} |", flush=True)


def start(tagger: Tagger, folder: Path, arguments: argparse.Namespace) -> None:
    """The command for one clip of 5 s, and Python with NumPy alone beside it."""
    path = _recording(folder / "clip.wav", 5)
    ways: dict[str, Callable[[], object]] = {
        "spectag tag, one clip": lambda: _command(tagger, path, "--top", "1"),
        "spectag --help": lambda: _run([sys.executable, "-m", "spectag", "--help"]),
        "python -c 'import numpy'": lambda: _run([sys.executable, "-c", "import numpy"]),
    }
    print("| command | seconds (median) |\n|---|---|")
    for name, taken in _in_turn(ways, arguments.rounds).items():
        print(f"| {name} | {statistics.median(taken):.2f} |")


ASK = {"speed": speed, "ways": ways, "growth": growth, "memory": memory, "start": start}


def _recording(path: Path, seconds: float, sounds: Path | None = None) -> Path:
    """Sounds one after another; made-up ones are of about three seconds, over the noise that every microphone has."""
    if sounds is not None:
        parts = [read_audio(sound, sample_rate=RATE)[0] for sound in find_audio([sounds])]
        waveform = np.concatenate(parts)
        write_audio(path, np.resize(waveform, round(seconds * RATE)), RATE)
        return path
    rng = np.random.default_rng(0)
    kinds = list(KINDS.values())
    n_parts = max(1, round(seconds / 3))
    made = [kinds[number % len(kinds)](rng, seconds / n_parts, RATE) for number in range(n_parts)]
    waveform = np.concatenate(made)
    waveform += rng.normal(0, 1e-3, len(waveform)).astype(np.float32)
    write_audio(path, waveform, RATE)
    return path


def _in_turn(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds that each way takes, round after round, so that whatever else is going on falls on all alike."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            begin = time.perf_counter()
            way()
            times[name].append(time.perf_counter() - begin)
    return times


def _command(tagger: Tagger, path: Path, *options: object) -> tuple[float, float, int]:
    """Seconds, greatest memory in MB and exit status of a command of its own."""
    return _run([sys.executable, "-m", "spectag", "tag", str(tagger.folder), str(path), *map(str, options)])


def _run(command: list[str]) -> tuple[float, float, int]:
    """The same, of any command; its parent is a small process, for a peak counts what the parent held at the start."""
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
        _exhaust(cut(sound.blocks, sound.sample_rate, tagger.sample_rates, window_seconds=5.0))


def _exhaust(items: Iterator[object]) -> None:
    for _ in items:
        pass


if __name__ == "__main__":
    main()
