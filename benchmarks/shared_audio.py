"""How many pairs of clips that share a recording are found by their fingerprints, and how many others by mistake.

    python benchmarks/shared_audio.py OUT/train_curated.csv --sources OUT/sources.csv [--speeds 1]
    python benchmarks/shared_audio.py esc10.csv [--copies 100]

The first form needs a folder from benchmarks/competition.py. Printed: the fraction of the pairs with at least 1 s of a
recording in common that is found, for all clips and for those of one sound; the fraction of the pairs without a common
source that is found; time and memory. The second form needs a table with a column `source`. Printed: the pairs of
different sources that are found, to be checked by ear; for each kind of copy of some clips, the fraction whose original
is found among all clips, and the number of others that are found; then pairs among made-up noises and tones.
"""

import argparse
import csv
import io
import resource
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from spectag.audio.files import read_audio, resample
from spectag.audio.fingerprints import compute_fingerprint
from spectag.data.fingerprint_cache import clip_fingerprints
from spectag.data.manifest import read_manifest
from spectag.data.shared_audio import SPEEDS, FingerprintIndex, SharedAudio, find_matches, find_shared_audio

Waveform = NDArray[np.float32]
BoolArray = NDArray[np.bool_]

RATE = 16_000
MIN_SECONDS = 1.0  # in common
USAGES = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--sources", type=Path)
    parser.add_argument("--speeds", nargs="+", type=float, default=list(SPEEDS))
    parser.add_argument("--copies", type=int, default=100)
    options = parser.parse_args()
    clips = read_manifest(options.manifest).clips
    with tempfile.TemporaryDirectory() as cache:
        started = time.perf_counter(), core_seconds()
        prints = clip_fingerprints(clips, cache)
        n_bytes = sum(path.stat().st_size for path in Path(cache).iterdir())
    print(f"{len(clips)} clips: fingerprints {passed(*started)}, {n_bytes / 1e6:.1f} MB on disk")
    started = time.perf_counter(), core_seconds()
    shared = find_shared_audio(prints, speeds=options.speeds)
    peak = max(resource.getrusage(who).ru_maxrss for who in USAGES) / 1024
    print(f"comparison at {len(options.speeds)} speeds {passed(*started)}, {peak:.0f} MB in the largest process")
    names = [clip.fname for clip in clips]
    if options.sources:
        print_recall(names, shared, options.sources)
    else:
        print_pairs_of_different_sources(names, shared, options.manifest)
        index = FingerprintIndex(prints)
        print_copies([clip.path for clip in clips], index, options.copies)
        print_stationary()


def core_seconds() -> float:
    """Time that all cores have worked for this process and its ended worker processes."""
    return sum(resource.getrusage(who).ru_utime + resource.getrusage(who).ru_stime for who in USAGES)


def passed(started: float, started_core: float) -> str:
    return f"{time.perf_counter() - started:.0f} s ({core_seconds() - started_core:.0f} s of one core)"


def print_recall(names: list[str], shared: SharedAudio, sources: Path) -> None:
    rows = {name: row for row, name in enumerate(names)}
    excerpts = defaultdict(list)
    with sources.open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            if line["fname"] in rows:
                times = [float(line[f"{name}_seconds"]) for name in ("start", "end", "position")]
                excerpts[rows[line["fname"]]].append((line["recording"], line["source"], *times))
    seconds, offsets = np.zeros((2, len(names), len(names)), np.float32)
    same_source = np.zeros((len(names), len(names)), bool)
    clips_of_recording, clips_of_source = defaultdict(list), defaultdict(set)
    for clip, contents in excerpts.items():
        for recording, source, *times in contents:
            clips_of_recording[recording].append((clip, *times))
            clips_of_source[source].add(clip)
    for contents in clips_of_recording.values():
        for clip, start, end, position in contents:
            for other, other_start, other_end, other_position in contents:
                common = min(end, other_end) - max(start, other_start)
                if common > seconds[clip, other]:
                    seconds[clip, other] = common
                    offsets[clip, other] = (position - start) - (other_position - other_start)
    for clips in clips_of_source.values():
        same_source[np.ix_(list(clips), list(clips))] = True
    upper = np.triu_indices(len(names), 1)
    found = np.zeros_like(same_source)
    found[tuple(shared.pairs.T)] = True
    sharing = seconds >= MIN_SECONDS
    unmixed = np.array([len(excerpts[clip]) == 1 for clip in range(len(names))])
    for kind, pairs in (("all", sharing), ("both of one sound", sharing & unmixed & unmixed[:, None])):
        print(f"recall, {kind}: {found[upper][pairs[upper]].mean():.3f} of {pairs[upper].sum()} pairs")
    others = ~same_source[upper]
    print(f"found without a common source: {found[upper][others].mean():.1e} of {others.sum()} pairs")
    true = sharing[tuple(shared.pairs.T)]
    errors = np.abs(shared.offsets_seconds - offsets[tuple(shared.pairs.T)])[true]
    print(f"offset within 0.02 s: {(errors < 0.02).mean():.3f} of the pairs that are found")


def print_pairs_of_different_sources(names: list[str], shared: SharedAudio, table: Path) -> None:
    with table.open(encoding="utf-8", newline="") as file:
        sources = {line["fname"]: line["source"] for line in csv.DictReader(file)}
    different = 0
    for (first, second), n_matches in zip(shared.pairs.tolist(), shared.n_matches.tolist(), strict=True):
        if sources[names[first]] != sources[names[second]]:
            different += 1
            print(f"  {names[first]}  {names[second]}: {n_matches} equal landmarks")
    print(f"{len(shared.pairs)} pairs share audio, {different} of them from different sources")


def print_copies(paths: list[Path], index: FingerprintIndex, n_copies: int) -> None:
    rng = np.random.default_rng(1)
    chosen = rng.choice(len(paths), n_copies + 1, replace=False)
    waveforms = [read_audio(paths[row], sample_rate=RATE)[0] for row in chosen]
    related = [set(find_clips(waveform, index)) for waveform in waveforms]
    print(f"{'copy':32}{'found':>8}{'others':>8}")
    for kind, change in COPIES.items():
        found = others = 0
        for number, row in enumerate(chosen[:-1]):
            other = waveforms[number + 1]
            clips = find_clips(change(waveforms[number], other, rng), index)
            found += row in clips
            others += len(clips - related[number] - related[number + 1] - {row, chosen[number + 1]})
        print(f"{kind:32}{found / n_copies:8.2f}{others:8}", flush=True)


def find_clips(waveform: Waveform, index: FingerprintIndex) -> set[int]:
    query = compute_fingerprint(waveform.astype(np.float32), RATE)
    return {match.clip for match in find_matches(query, index)}


def mixed(waveform: Waveform, other: Waveform, level_db: float) -> Waveform:
    """The waveform with another one added, at this level relative to it."""
    n_samples = min(len(waveform), len(other))
    waveform, other = waveform[:n_samples], other[:n_samples]
    gain = 10 ** (level_db / 20) * np.sqrt(np.mean(waveform**2) / (np.mean(other**2) + 1e-12))
    return np.asarray(waveform + gain * other)


def encoded(waveform: Waveform, container: str, subtype: str) -> Waveform:
    """The waveform after encoding with the lowest quality but one tenth."""
    file = io.BytesIO()
    soundfile.write(file, np.clip(waveform, -1, 1), RATE, format=container, subtype=subtype, compression_level=0.9)
    file.seek(0)
    return np.asarray(soundfile.read(file, dtype="float32")[0])


def speeded(waveform: Waveform, speed: float) -> Waveform:
    return resample(waveform, round(RATE * speed), RATE)


def loudest(waveform: Waveform, seconds: float) -> Waveform:
    """The excerpt with the most energy."""
    n_samples = min(round(seconds * RATE), len(waveform))
    energy = np.cumsum(np.append(0, waveform.astype(np.float64) ** 2))
    start = int(np.argmax(energy[n_samples:] - energy[:-n_samples]))
    return waveform[start : start + n_samples]


COPIES: dict[str, Callable[[Waveform, Waveform, np.random.Generator], Waveform]] = {
    "30 dB softer, 16 bits": lambda wave, other, rng: np.round(wave * 10 ** (-30 / 20) * 32768) / 32768,
    "12 dB louder, clipped": lambda wave, other, rng: np.clip(4 * wave, -1, 1),
    "excerpt of 2 s": lambda wave, other, rng: loudest(wave, 2.0),
    "excerpt of 1 s": lambda wave, other, rng: loudest(wave, 1.0),
    "mp3, compression 0.9": lambda wave, other, rng: encoded(wave, "MP3", "MPEG_LAYER_III"),
    "ogg, compression 0.9": lambda wave, other, rng: encoded(wave, "OGG", "VORBIS"),
    "2 % faster": lambda wave, other, rng: speeded(wave, 1.02),
    "1.5 % slower": lambda wave, other, rng: speeded(wave, 0.985),
    "another clip at equal level": lambda wave, other, rng: mixed(wave, other, 0.0),
    "another clip 6 dB above": lambda wave, other, rng: mixed(wave, other, 6.0),
    "the same, 2 s, 2 % faster, mp3": lambda wave, other, rng: encoded(
        speeded(loudest(mixed(wave, other, 0.0), 2.0), 1.02), "MP3", "MPEG_LAYER_III"
    ),
}


def print_stationary(n_clips: int = 60) -> None:
    rng = np.random.default_rng(1)
    seconds = np.arange(5 * RATE) / RATE
    sounds: dict[str, Callable[[], Waveform]] = {
        "white noise": lambda: rng.normal(0, 0.1, len(seconds)),
        "brown noise": lambda: 0.003 * np.cumsum(rng.normal(0, 0.1, len(seconds))),
        "hum of 50 Hz": lambda: (
            np.sum([np.sin(2 * np.pi * (50 * n * seconds + rng.random())) / n for n in range(1, 30)], 0)
            + rng.normal(0, 1e-3, len(seconds))
        ),
        "tone and faint noise": lambda: (
            np.sin(2 * np.pi * rng.uniform(200, 4000) * seconds) + rng.normal(0, 1e-3, len(seconds))
        ),
        "clicks over faint noise": lambda: (rng.random(len(seconds)) < 1e-4) * 0.5 + rng.normal(0, 1e-3, len(seconds)),
        "silence": lambda: np.zeros(len(seconds)),
    }
    for name, sound in sounds.items():
        prints = [compute_fingerprint(sound().astype(np.float32), RATE) for _ in range(n_clips)]
        print(f"{name}: {len(find_shared_audio(prints).pairs)} of {n_clips * (n_clips - 1) // 2} pairs found")


if __name__ == "__main__":
    main()
