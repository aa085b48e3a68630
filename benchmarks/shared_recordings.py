"""The score that `train` reports, and the score on new recordings, where training clips share recordings.

    python benchmarks/shared_recordings.py CLIPS.csv [--recordings 3 6 12] [--seeds 1 2] [--work FOLDER]

CLIPS.csv is the table of benchmarks/competition.py, which cuts and mixes the training clips from a few recordings for
each label, and the test clips from others. The table of the training clips does not say which clips share a recording.
A model is trained without looking for shared audio and with it. Features are computed once, in FOLDER.
"""

import argparse
import csv
import re
import tempfile
import time
from pathlib import Path

import numpy as np

from competition import split_sources, write_set
from spectag.config.data_options import DataOptions
from spectag.config.recipe import Recipe
from spectag.data.manifest import read_manifest
from spectag.evaluation.evaluation import evaluate
from spectag.training.pipeline import train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path)
    parser.add_argument("--recordings", nargs="+", type=int, default=[3, 6, 12])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--train", type=int, default=600)
    parser.add_argument("--test", type=int, default=400)
    parser.add_argument("--work", type=Path, help="by default a temporary folder")
    options = parser.parse_args()
    print(
        "| recordings per label | seed | shared audio | reported lwlrap | on new recordings | difference | folds | s |"
    )
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        for n_recordings in options.recordings:
            for seed in options.seeds:
                folder = work / f"{n_recordings}-recordings-{seed}"
                if not (folder / "sources.csv").exists():
                    make(folder, options.clips, n_recordings, options.train, options.test, seed)
                for find_shared_audio in (False, True):
                    cells = measure(folder, work / "cache", find_shared_audio=find_shared_audio)
                    print(f"| {n_recordings} | {seed} | {' | '.join(cells)} |", flush=True)


def make(folder: Path, clips: Path, n_recordings: int, n_train: int, n_test: int, seed: int) -> None:
    """Write training and test clips of different recordings, and sources.csv with the recordings of each clip."""
    rng = np.random.default_rng(seed)
    train_pool, test_pool = split_sources(clips, n_recordings, rng)
    contents: list[list[object]] = []
    write_set(folder, "train", train_pool, n_train, rng, contents)
    write_set(folder, "test", test_pool, n_test, rng, contents)
    with (folder / "sources.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["fname", "recording", "source", "start", "end", "position"], *contents])


def measure(folder: Path, cache: Path, *, find_shared_audio: bool) -> list[str]:
    """Train and test; the cells of the table."""
    notes: list[str] = []
    started = time.monotonic()
    result = train(
        read_manifest(folder / "train.csv", audio_dir=folder / "train"),
        folder / "model",
        Recipe(find_shared_audio=find_shared_audio),
        data=DataOptions(cache=cache),
        log=notes.append,
    )
    seconds = time.monotonic() - started
    assert result.scores is not None
    reported = result.scores.overall["lwlrap"]
    new = evaluate(result.bundle, folder / "test.csv", audio_dir=folder / "test").models[0].overall["lwlrap"]
    note = next(note for note in notes if note.startswith("held out: "))
    trained = re.search(r"trained on (\d+) of", note)
    folds = f"{len(result.folds)}" + (f", {trained[1]} clips to train on" if trained else "")
    return [
        "found" if find_shared_audio else "not looked for",
        *(f"{score.value:.3f} ({score.low:.3f} to {score.high:.3f})" for score in (reported, new)),
        f"{reported.value - new.value:+.3f}",
        folds,
        f"{seconds:.0f}",
    ]


if __name__ == "__main__":
    main()
