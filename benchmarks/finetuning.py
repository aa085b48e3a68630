"""Settings of fine-tuning: speed, and score on new recordings.

    python benchmarks/finetuning.py COMPETITION [COMPETITION ...] [--epochs 12] [--settings NAME ...] [--cache FOLDER]

A competition is a folder with train_curated.csv, test_labels.csv and their sounds, as benchmarks/competition.py makes
it. mn04 is fine-tuned on all training clips with each of the settings, and predicts the test clips, which come from
other recordings. The speed is measured in rounds that alternate between the settings, because other work on the machine
would otherwise favour some of them: the median of the rounds, and of their ratios to the first setting. The difference
of the scores is paired by competition, with a 95 % interval (Student's t) over competitions.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from scipy import stats

from spectag.array_types import FloatArray
from spectag.config.data_options import DataOptions
from spectag.config.recipe import Recipe
from spectag.data.manifest import read_manifest
from spectag.data.spectrograms.clip_inputs import open_clips
from spectag.scoring.metrics import lwlrap
from spectag.system.progress import no_log, silent
from spectag.training.members.clip_logits import ValidationClips, logits_of_clips
from spectag.training.members.finetune_loop import FineTuning
from spectag.training.pipeline import first_fine_tuning
from spectag.training.setup.callbacks import Callbacks

BASE: dict[str, Any] = {
    "mode": "finetune",
    "backbone": "mn04_audioset",
    "folds": "none",
    "find_shared_audio": False,
    "augment": {"mix": 0.7, "gain_db": 6, "warp": 0.5, "spec_augment": 0.5},
}
SETTINGS: dict[str, dict[str, Any]] = {
    "all stages, 4 s": {},
    "all stages, 2.5 s": {"finetune": {"crop_seconds": 2.5}},
    "last 13 stages, 4 s": {"finetune": {"unfreeze": 13}},
    "last 10 stages, 4 s": {"finetune": {"unfreeze": 10}},
    "last 13 stages, 2.5 s": {"finetune": {"unfreeze": 13, "crop_seconds": 2.5}},
    "last 10 stages, 2.5 s": {"finetune": {"unfreeze": 10, "crop_seconds": 2.5}},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("competitions", type=Path, nargs="+")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=5, help="of the speed")
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "spectag-finetuning")
    options = parser.parse_args()
    recipes = {
        name: Recipe.model_validate(BASE | SETTINGS[name] | {"epochs": options.epochs}) for name in options.settings
    }
    print_speed(options.competitions[0], recipes, options.rounds, options.cache)
    scores = np.empty((len(recipes), len(options.competitions)))
    for column, competition in enumerate(options.competitions):
        for row, (name, recipe) in enumerate(recipes.items()):
            started = time.monotonic()
            scores[row, column] = score_on_new_recordings(competition, recipe, options.cache)
            seconds = time.monotonic() - started
            print(f"{competition.name}, {name}: {scores[row, column]:.4f} in {seconds:.0f} s", flush=True)
    print_scores(list(recipes), scores)


def print_speed(competition: Path, recipes: dict[str, Recipe], n_rounds: int, cache: Path) -> None:
    """Print clips per second of each recipe, measured in alternation."""
    rates = np.array(
        [
            [clips_per_second(first_run(competition, recipe, cache)) for recipe in recipes.values()]
            for _ in range(n_rounds)
        ]
    )
    print("| setting | clips/s | ratio |\n|---|---|---|")
    for name, rate, ratio in zip(recipes, np.median(rates, 0), np.median(rates / rates[:, :1], 0), strict=True):
        print(f"| {name} | {rate:.0f} | {ratio:.2f} |", flush=True)


def clips_per_second(run: FineTuning) -> float:
    """Clips per second of training, without validation."""
    return run.batches.n_clips / run.seconds_per_epoch(n_steps=3)


def first_run(competition: Path, recipe: Recipe, cache: Path) -> FineTuning:
    """The fine-tuning run on all training clips of a competition."""
    manifest = read_manifest(competition / "train_curated.csv")
    return first_fine_tuning(manifest, None, recipe, Callbacks(), DataOptions(cache=cache))


def score_on_new_recordings(competition: Path, recipe: Recipe, cache: Path) -> float:
    """lwlrap of the test clips after fine-tuning on the training clips."""
    run = first_run(competition, recipe, cache)
    network = run.run(lambda _: None, silent).network
    labels = read_manifest(competition / "train_curated.csv").labels
    manifest = read_manifest(competition / "test_labels.csv", labels=labels, audio_dir=competition / "test")
    clips = open_clips(manifest, run.front_end, cache, workers=None, progress=silent, log=no_log)
    y_true = manifest.multi_hot()
    inputs = ValidationClips(clips.parts, np.arange(len(y_true)), y_true)
    return lwlrap(y_true, logits_of_clips(network, inputs, Accelerator(cpu=True)))


def print_scores(names: list[str], scores: FloatArray) -> None:
    """Print the mean scores, and their differences to the first setting with intervals over competitions."""
    print("| setting | lwlrap, new recordings | difference to the first (95 %) |\n|---|---|---|")
    for name, row in zip(names, scores, strict=True):
        differences = row - scores[0]
        print(f"| {name} | {row.mean():.4f} | {interval_text(differences)} |")


def interval_text(differences: FloatArray) -> str:
    """Mean of paired differences with its interval; the mean alone if there are fewer than two or all are 0."""
    mean = differences.mean()
    if len(differences) < 2 or not differences.any():
        return f"{mean:+.4f}"
    half = stats.t.ppf(0.975, len(differences) - 1) * stats.sem(differences)
    return f"{mean:+.4f} ({mean - half:+.4f} to {mean + half:+.4f})"


if __name__ == "__main__":
    main()
