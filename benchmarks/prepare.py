"""Time to compute spectrograms, compared with a loop of librosa and matplotlib: python benchmarks/prepare.py [WAV ...]

The loop is the method of the blog post: the log_mel of librosa, drawn by matplotlib with axes, and saved at 400 dpi.
Its time depends on the size of the figure, so there are two: the default of 6.4 x 4.8 inches, and 14 x 8 inches, which
is close to the measured 539 ms of the blog post. It is compared with the spectrogram cache, and with the cache and its
PNG images, on all cores, including the start of the processes. Every round measures all of them, and the table shows
medians of the ratios, so that other load on the machine affects all equally. The first lines show the peak memory of
all processes, for some clips and for ten times as many.
"""

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from spectag.audio.files import write_audio
from spectag.audio.synthesis import KINDS
from spectag.config.base import ImageConfig, MelConfig
from spectag.data.clips import Clip, Manifest
from spectag.data.labels import LabelSet
from spectag.data.spectrograms.cache import SpectrogramCache
from spectag.data.spectrograms.png_export import export_png
from spectag.system.worker_pool import n_usable_cores

SAMPLE_RATE = 44_100
CLIP_SECONDS = 5
FIGURES = ((6.4, 4.8), (14, 8))  # inches
CONFIG = MelConfig(sample_rate=SAMPLE_RATE, n_fft=2560, hop_length=512, n_mels=128, f_max=22_050, ref="max")


def main() -> None:
    """Print the table."""
    arguments = _parser().parse_args()
    if arguments.prepare_only:
        print(json.dumps(_prepare(arguments.wavs, Path(arguments.prepare_only))))
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        wavs = arguments.wavs or _make_wavs(Path(folder) / "wavs", 40)
        many = _make_copies(arguments.n_clips, wavs, Path(folder) / "many")
        print(f"{len(many)} clips, {n_usable_cores()} cores, {arguments.rounds} rounds")
        _compare_memory(many, Path(folder))  # first: a peak includes the memory of the parent process
        _compare_speed(many, Path(folder), arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wavs", nargs="*", type=Path, metavar="WAV", help="clips at 44.1 kHz; default: synthetic")
    parser.add_argument("--n-clips", type=int, default=2000, help="number of clips; the WAVs are repeated (2000)")
    parser.add_argument("--n-loop-clips", type=int, default=10, help="clips per round for the loop (10)")
    parser.add_argument("--rounds", type=int, default=3, help="(3)")
    parser.add_argument("--folder", type=Path, help="folder for the files; by default, a temporary one")
    parser.add_argument("--prepare-only", metavar="FOLDER", help=argparse.SUPPRESS)
    return parser


def _make_wavs(folder: Path, n_wavs: int) -> list[Path]:
    folder.mkdir()
    rng = np.random.default_rng(0)
    kinds = list(KINDS.values())
    paths = [folder / f"{index}.wav" for index in range(n_wavs)]
    for index, path in enumerate(paths):
        write_audio(path, kinds[index % len(kinds)](rng, CLIP_SECONDS, SAMPLE_RATE), SAMPLE_RATE)
    return paths


def _make_copies(n_clips: int, wavs: list[Path], folder: Path) -> list[Path]:
    """`n_clips` files with different bytes: each has its number after the sound."""
    folder.mkdir()
    copies = [folder / f"{index:06}.wav" for index in range(n_clips)]
    for index, copy in enumerate(copies):
        shutil.copyfile(wavs[index % len(wavs)], copy)
        with copy.open("ab") as file:
            file.write(str(index).encode())
    return copies


def _compare_speed(wavs: list[Path], folder: Path, arguments: argparse.Namespace) -> None:
    sample = wavs[:: max(1, len(wavs) // arguments.n_loop_clips)]
    rounds = []  # seconds per clip: the loop with each figure, the cache, cache and PNG
    for number in range(arguments.rounds):
        loops = [_seconds_per_clip_of_the_loop(sample, folder / "loop.png", figure) for figure in FIGURES]
        measured = _prepare_in_a_fresh_process(wavs, folder / f"round {number}")
        cache, png = (measured[name] / len(wavs) for name in ("cache_seconds", "png_seconds"))
        rounds.append((*loops, cache, cache + png))
    names = [f"loop at {width:g} x {height:g} in" for width, height in FIGURES]
    print(f"{'':24}{'ms a clip':>12}{'clips/s':>12}" + "".join(f"{'x ' + name:>24}" for name in names))
    for column, name in enumerate([*names, "cache", "cache and PNG"]):
        seconds = statistics.median(times[column] for times in rounds)
        ratios = [statistics.median(times[loop] / times[column] for times in rounds) for loop in range(len(names))]
        print(f"{name:24}{1000 * seconds:12.2f}{1 / seconds:12.1f}" + "".join(f"{ratio:24.1f}" for ratio in ratios))


def _compare_memory(wavs: list[Path], folder: Path) -> None:
    for n_clips in (max(1, len(wavs) // 10), len(wavs)):
        measured = _prepare_in_a_fresh_process(wavs[:n_clips], folder / f"memory {n_clips}")
        print(f"peak memory for {n_clips:6} clips: {measured['peak_megabytes']:6.1f} MB in all processes")


def _seconds_per_clip_of_the_loop(wavs: list[Path], png: Path, figure_inches: tuple[float, float]) -> float:
    import matplotlib

    matplotlib.use("Agg")
    import librosa
    from librosa.display import specshow
    from matplotlib import pyplot

    def convert(path: Path) -> None:
        waveform, sample_rate = librosa.load(path, sr=None)
        power = librosa.feature.melspectrogram(
            y=waveform, sr=sample_rate, n_fft=2560, hop_length=512, n_mels=128, fmin=20, fmax=22_050
        )
        log_mel = librosa.power_to_db(power, ref=np.max)
        figure, axes = pyplot.subplots(figsize=figure_inches)
        specshow(log_mel, sr=sample_rate, hop_length=512, fmin=20, fmax=22_050, x_axis="time", y_axis="mel", ax=axes)
        figure.savefig(png, dpi=400)
        pyplot.close(figure)

    convert(wavs[0])  # the first call imports and compiles
    started = time.perf_counter()
    for path in wavs:
        convert(path)
    return (time.perf_counter() - started) / len(wavs)


def _prepare_in_a_fresh_process(wavs: list[Path], folder: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--prepare-only", str(folder), *map(str, wavs)]
    measured: dict[str, float] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return measured  # the folder stays, because ext4 creates files slowly after many deletions


def _prepare(wavs: list[Path], folder: Path) -> dict[str, float]:
    clips = tuple(Clip(path, path.name, ()) for path in wavs)
    cache = SpectrogramCache(folder / "cache", CONFIG)
    report = cache.prepare(clips)
    manifest = Manifest(folder / "clips.csv", clips, LabelSet(()))
    images = export_png(cache, manifest, report.keys, folder / "png", ImageConfig())
    if (report.n_new, images.n_new) != (len(wavs), len(wavs)):
        raise SystemExit(f"some files are not new: {report}, {images}")
    own, child = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))  # kB
    return {
        "cache_seconds": report.seconds,
        "png_seconds": images.seconds,
        "peak_megabytes": (own + n_usable_cores() * child) / 1024,  # the peak of the largest child
    }


if __name__ == "__main__":
    main()
