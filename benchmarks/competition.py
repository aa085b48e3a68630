"""Make a difficult tagging competition: few recordings per label, overlapping sounds, noisy labels.

    python benchmarks/competition.py CLIPS.csv OUT [--recordings 3] [--train 300] [--noisy 600] [--test 400] [--seed 1]

CLIPS.csv has the columns fname, labels (one per clip) and source. For each label, `--recordings` sources are used for
training and all others for the test. A mixed clip contains one to four sounds with different labels, at random levels
and times; one of them is often 12 dB below another. Labels of the noisy set are wrong with probability 0.4. Its sounds
come from the recordings of the training, or from `--noisy-recordings` sources per label of its own. OUT contains the
files of an FSDKaggle2019 competition (train_curated.csv, train_noisy.csv, sample_submission.csv and the folders of
sounds), answers.csv, and sources.csv with the excerpts that each mixed clip contains: the recording and its source, the
start and end in the recording, and the start in the mixed clip.
"""

import argparse
import csv
from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spectag.audio.files import read_audio, write_audio

Waveform = NDArray[np.float32]


@dataclass(frozen=True)
class Recording:
    """A file, and the source that it was cut from."""

    path: Path
    source: str


@dataclass(frozen=True)
class Excerpt:
    """A part of a recording, from `start` on, in samples."""

    recording: Recording
    start: int
    waveform: Waveform


Pool = dict[str, list[Recording]]

SAMPLE_RATE = 32_000
N_SOUNDS = (1, 2, 3, 4)
N_SOUNDS_PROBABILITIES = (0.35, 0.35, 0.2, 0.1)
WRONG_LABEL_PROBABILITY = 0.4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path)
    parser.add_argument("out", type=Path)
    for name, default in (("recordings", 3), ("train", 300), ("noisy", 600), ("test", 400), ("seed", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--noisy-recordings", type=int, default=0, help="of the noisy set alone; 0: those of training")
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    train_pool, test_pool = split_sources(options.clips, options.recordings, rng)
    noisy_pool = train_pool
    if options.noisy_recordings:
        noisy_pool, test_pool = split_pool(test_pool, options.noisy_recordings)
    labels = sorted(train_pool)
    contents: list[list[object]] = []
    write_set(options.out, "train_curated", train_pool, options.train, rng, contents)
    write_set(options.out, "train_noisy", noisy_pool, options.noisy, rng, contents, wrong=WRONG_LABEL_PROBABILITY)
    truth = write_set(options.out, "test", test_pool, options.test, rng, contents)
    header = ["fname", "recording", "source", "start_seconds", "end_seconds", "position_seconds"]
    write_table(options.out / "sources.csv", header, contents)
    (options.out / "test.csv").rename(options.out / "test_labels.csv")
    for name, value in (("sample_submission", lambda *_: 0), ("answers", lambda true, label: int(label in true))):
        rows = [[fname, *(value(true, label) for label in labels)] for fname, true in truth]
        write_table(options.out / f"{name}.csv", ["fname", *labels], rows)


def split_sources(table: Path, n_recordings: int, rng: np.random.Generator) -> tuple[Pool, Pool]:
    """Files by label, for training and for the test. No source is in both."""
    sources: dict[str, dict[str, list[Recording]]] = defaultdict(lambda: defaultdict(list))
    with table.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            sources[row["labels"]][row["source"]].append(Recording(table.parent / row["fname"], row["source"]))
    pool = {
        label: [recording for source in rng.permutation(sorted(files)) for recording in files[source]]
        for label, files in sorted(sources.items())
    }
    return split_pool(pool, n_recordings)


def split_pool(pool: Pool, n_recordings: int) -> tuple[Pool, Pool]:
    """The first sources of each label, and all others."""
    first, others = {}, {}
    for label, recordings in pool.items():
        sources = list(dict.fromkeys(recording.source for recording in recordings))
        chosen = sources[:n_recordings]
        first[label] = [recording for recording in recordings if recording.source in chosen]
        others[label] = [recording for recording in recordings if recording.source not in chosen]
        if not others[label]:
            raise SystemExit(f"{label} has {len(sources)} sources; give fewer recordings, so that some remain")
    return first, others


def write_set(
    out: Path,
    name: str,
    pool: Pool,
    n_clips: int,
    rng: np.random.Generator,
    contents: list[list[object]],
    *,
    wrong: float = 0.0,
) -> list[tuple[str, list[str]]]:
    """Write sounds and their table, and add their excerpts to `contents`; return file names and true labels."""
    (out / name).mkdir(parents=True, exist_ok=True)
    labels = sorted(pool)
    rows = []
    for number in range(n_clips):
        true = list(rng.choice(labels, rng.choice(N_SOUNDS, p=N_SOUNDS_PROBABILITIES), replace=False))
        fname = f"{name}_{number:05d}.wav"
        excerpts = [random_excerpt(pool[label], rng) for label in true]
        mixture, positions = mix_sounds([excerpt.waveform for excerpt in excerpts], rng)
        write_audio(out / name / fname, mixture, SAMPLE_RATE)
        rows.append((fname, sorted({str(rng.choice(labels)) if rng.random() < wrong else label for label in true})))
        for excerpt, position in zip(excerpts, positions, strict=True):
            times = (excerpt.start, excerpt.start + len(excerpt.waveform), position)
            recording = excerpt.recording
            seconds = [f"{samples / SAMPLE_RATE:.4f}" for samples in times]
            contents.append([fname, recording.path.name, recording.source, *seconds])
    write_table(out / f"{name}.csv", ["fname", "labels"], [[fname, ",".join(given)] for fname, given in rows])
    return rows


def random_excerpt(recordings: list[Recording], rng: np.random.Generator) -> Excerpt:
    """A random excerpt of a random recording, without silence at its ends."""
    recording = recordings[rng.integers(len(recordings))]
    waveform = read_recording(recording.path)
    loud = np.flatnonzero(np.abs(waveform) > 1e-4)
    first, end = (int(loud[0]), int(loud[-1]) + 1) if len(loud) else (0, len(waveform))
    n_samples = int((end - first) * rng.uniform(0.4, 1))
    start = first + int(rng.integers(end - first - n_samples + 1))
    return Excerpt(recording, start, waveform[start : start + n_samples])


@lru_cache(maxsize=500)
def read_recording(path: Path) -> Waveform:
    """The waveform of a recording, which is in many clips; 500 of 5 s take 320 MB."""
    waveform, _ = read_audio(path, sample_rate=SAMPLE_RATE)
    return waveform


def mix_sounds(sounds: list[Waveform], rng: np.random.Generator) -> tuple[Waveform, list[int]]:
    """Mix sounds at random levels and times, with some noise; return the mixture and the start of each sound."""
    starts = [int(rng.uniform(0, 2) * SAMPLE_RATE) if len(sounds) > 1 else 0 for _ in sounds]
    mix = np.zeros(max(start + len(sound) for start, sound in zip(starts, sounds, strict=True)), np.float32)
    for start, sound in zip(starts, sounds, strict=True):
        level = 0.05 * 10 ** (rng.uniform(-9, 9) / 20)
        mix[start : start + len(sound)] += level * sound / (np.sqrt(np.mean(sound**2)) + 1e-6)
    mix += rng.normal(0, 10 ** (rng.uniform(-70, -45) / 20), len(mix)).astype(np.float32)
    return mix, starts


def write_table(path: Path, header: list[str], rows: list[list[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


if __name__ == "__main__":
    main()
