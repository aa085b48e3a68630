"""Methods from log-mel statistics to an ensemble: test score, training time, memory and model size of each.

    python benchmarks/ladder.py CLIPS.csv
    python benchmarks/ladder.py COMPETITION [COMPETITION ...] [--answers FILE] [--budget 10m] [--methods NUMBER ...]

CLIPS.csv is the table of benchmarks/competition.py. The steps from logistic regression to the default head are measured
on all data sets of benchmarks/heads.py, which are made of it.

A competition is a folder with train_curated.csv, train_noisy.csv, sample_submission.csv and their sounds, as made by
benchmarks/competition.py; the answers are in it or beside it. Each method is a `spectag` command in a separate process
with an empty cache, so that its time includes everything. lwlrap is that of the test clips, with a 95 % interval over
them; for several competitions, a last table has the means, with 95 % intervals over the competitions (Student's t).
"""

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

import heads
from spectag.audio.front_end import FrontEnd
from spectag.config.backbones import AUDIOSET_MEL
from spectag.data.clips import Manifest
from spectag.data.manifest import read_manifest
from spectag.data.spectrograms.clip_inputs import open_clips
from spectag.scoring.scores import score_predictions
from spectag.system.progress import no_log, silent
from spectag.training.heads.logistic import DEFAULT_WEIGHT_DECAY, fit_heads

LITE0 = ["--backbone", "efficientnet_lite0"]
POST = ["--features", "last", "--head", "layer_norm", "--optimizer", "adam", "--epochs", "10", "--folds", "none"]
POST_IMAGE = ["--image.colormap", "magma", "--image.height", "224", "--image.width", "224"]
FINE_TUNED = ["--mode", "finetune", "--folds", "none", "--augment.warp", "0.5", "--augment.spec-augment", "0.5"]
NOISY = ["--noisy", "train_noisy.csv"]
STATISTICS = "log-mel statistics, logistic regression"


@dataclass(frozen=True)
class Method:
    """A method of training, as arguments of `spectag train`."""

    name: str
    arguments: list[str]


@dataclass(frozen=True)
class Result:
    """The result of a method."""

    lwlrap: float
    interval: tuple[float, float]
    minutes: float
    memory_mb: float
    size_mb: float


def methods(budget: str) -> list[Method]:
    """All methods, from the simplest to the best."""
    best = ["--recipe", "best", "--budget", budget]
    return [
        Method(STATISTICS, []),
        Method("small CNN from scratch", [*FINE_TUNED, "--backbone", "scratch", "--epochs", "8"]),
        Method("as in the blog post, lite0", [*LITE0, *POST, *POST_IMAGE]),
        Method("frozen, all stages, ImageNet (lite0)", LITE0),
        Method("frozen, all stages, AudioSet (mn04)", []),
        Method("the same, with the noisy set", NOISY),
        Method("fine-tuned mn04", [*FINE_TUNED, "--epochs", "15"]),
        Method("the same, with the noisy set", [*FINE_TUNED, "--epochs", "15", *NOISY]),
        Method(f"ensemble (best, {budget})", best),
        Method("the same, with the noisy set", [*best, *NOISY]),
    ]


def main() -> None:
    arguments = _parser().parse_args()
    if arguments.competitions[0].suffix == ".csv":
        heads.main([str(arguments.competitions[0])])
        return
    chosen = [
        method
        for number, method in enumerate(methods(arguments.budget), 1)
        if not arguments.methods or number in arguments.methods
    ]
    tables = []
    for competition in arguments.competitions:
        print(f"\n{competition.name}\n", flush=True)
        print(
            "| method | lwlrap (95 % interval) | minutes | peak memory, MB | size, MB |\n|---|---|---|---|---|",
            flush=True,
        )
        results = []
        for method in chosen:
            results.append(measure(method, competition, find_answers(competition, arguments.answers)))
            print(_row(method.name, results[-1]), flush=True)
        tables.append(results)
    if len(tables) > 1:
        print(f"\nmeans of {len(tables)} competitions\n")
        print("| method | lwlrap | gain on the method before |\n|---|---|---|")
        scores = np.array([[result.lwlrap for result in results] for results in tables])
        gains = ["", *map(heads.gain, np.diff(scores, axis=1).T)]
        for method, score, gain in zip(chosen, scores.mean(axis=0), gains, strict=True):
            print(f"| {method.name} | {score:.4f} | {gain} |")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("competitions", nargs="+", type=lambda text: Path(text).resolve(), help="or one CLIPS.csv")
    parser.add_argument("--answers", type=Path, help="relative to the competition")
    parser.add_argument("--budget", default="10m", help="time budget of the ensemble")
    parser.add_argument("--methods", nargs="+", type=int, help="numbers of methods, from 1; by default all")
    return parser


def find_answers(competition: Path, given: Path | None) -> Path:
    """The table of the true labels of the test clips."""
    paths = [competition / given] if given else [competition / "answers.csv", competition.parent / "answers.csv"]
    return next(path for path in paths if path.exists())


def measure(method: Method, competition: Path, answers: Path) -> Result:
    """Train and tag in separate processes, and score the submission."""
    with tempfile.TemporaryDirectory() as work:
        model, submission, cache = Path(work, "model"), Path(work, "submission.csv"), Path(work, "cache")
        started = time.monotonic()
        if method.name == STATISTICS:
            command = [sys.executable, __file__, "statistics", str(competition), str(cache), str(submission)]
            memory = _run(command, competition)
            size = 0.0
        else:
            train = ["train", "train_curated.csv", "-o", str(model), "--cache", str(cache), *method.arguments]
            memory = _run([sys.executable, "-m", "spectag", *train], competition)
            template = ["--format", "submission", "--template", "sample_submission.csv", "-o", str(submission)]
            size = sum(path.stat().st_size for path in model.rglob("*") if path.is_file()) / 1e6
        minutes = (time.monotonic() - started) / 60
        if method.name != STATISTICS:
            _run([sys.executable, "-m", "spectag", "tag", str(model), "test", *template], competition)
        y_true, y_score = _table(answers), _table(submission)
    lwlrap = score_predictions(y_true > 0.5, y_score, range(len(y_true))).overall["lwlrap"]
    return Result(lwlrap.value, (lwlrap.low, lwlrap.high), minutes, memory, size)


def _run(command: list[str], folder: Path) -> float:
    """Run a command; return its peak memory in MB."""
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            log.seek(0)
            sys.exit(f"{' '.join(command)} ended with {process.returncode}:\n{log.read()[-2000:]}")
    return usage.ru_maxrss / 1e3


def _table(path: Path) -> NDArray[np.float64]:
    """The numbers of a table like sample_submission.csv, with rows sorted by file name."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = sorted(list(csv.reader(file))[1:])
    return np.array([row[1:] for row in rows], np.float64)


def _row(name: str, result: Result) -> str:
    low, high = result.interval
    return (
        f"| {name} | {result.lwlrap:.4f} ({low:.3f} to {high:.3f}) | {result.minutes:.1f} | {result.memory_mb:,.0f} | "
        f"{result.size_mb:.1f} |"
    )


def statistics(competition: Path, cache: Path, submission: Path) -> None:
    """The simplest method: logistic regression on mean, deviation, minimum and maximum of every mel band."""
    train = read_manifest(competition / "train_curated.csv")
    with (competition / "sample_submission.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    test = [(row[0], competition / "test" / row[0]) for row in rows]
    clips = tuple(type(train.clips[0])(path, fname, ()) for fname, path in test)
    features = _statistics(train, cache)
    head = fit_heads(features, train.multi_hot(), [features.shape[1]], (DEFAULT_WEIGHT_DECAY,))[0]
    probabilities = expit(head.logits(_statistics(Manifest(competition, clips, train.labels), cache)))
    with submission.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows([fname, *row] for (fname, _), row in zip(test, probabilities.tolist(), strict=True))


def _statistics(manifest: Manifest, cache: Path) -> NDArray[np.float32]:
    clips = open_clips(manifest, FrontEnd(mel=AUDIOSET_MEL), cache, workers=None, progress=silent, log=no_log)
    log_mels = (clips.inputs(i)[0] for i in range(len(clips.keys)))
    return np.array([np.concatenate([mel.mean(1), mel.std(1), mel.min(1), mel.max(1)]) for mel in log_mels], np.float32)


if __name__ == "__main__":
    if sys.argv[1:2] == ["statistics"]:
        statistics(*map(Path, sys.argv[2:]))
    else:
        main()
