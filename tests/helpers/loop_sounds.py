"""What a person has who begins with spectag: labelled clips with some wrong labels, a first model, and recordings."""

import csv
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from helpers.bundles import PITCHES, tone
from helpers.paths import SHARED
from helpers.training_project import RECIPE
from spectag.audio.files import write_audio
from spectag.config.recipe import Recipe
from spectag.training.pipeline import train

ESC10 = SHARED / "data" / "esc10"
WEIGHTS = SHARED / "weights"
N_CLIPS, N_WRONG, N_FOLDS, N_RECORDINGS = 32, 10, 4, 120
_ESC10_LABELS = ("Dog_bark", "Rain", "Rooster", "Clock_tick")


@dataclass(frozen=True)
class LoopSounds:
    """The files, below one folder."""

    folder: Path
    labels: tuple[str, ...]
    truth: dict[str, str]
    """The true label of each clip, by the name of its file; these are in the folder clips."""
    wrong: dict[str, str]
    """The labels of some clips in clips/clips.csv."""

    @property
    def a_clip(self) -> Path:
        return self.folder / "clips" / next(name for name in self.truth if name not in self.wrong)


def write_loop_sounds(folder: Path) -> LoopSounds:
    """Real clips of ESC-10 if they are there, else made tones; the model `first` is trained on the wrong labels.

    Most of the recordings are the same ones under other names: so many that a server can be killed meanwhile.
    """
    is_real = ESC10.is_dir() and WEIGHTS.is_dir()
    labels = _ESC10_LABELS if is_real else tuple(PITCHES)
    (folder / "clips").mkdir()
    (folder / "recordings").mkdir()
    write = _esc10_writer() if is_real else _write_tone
    truth = {}
    for number in range(N_CLIPS):
        label = labels[number % len(labels)]
        truth[write(folder / "clips" / f"{label}-{number:02}", label, number)] = label
    for number in range(2 * len(labels)):
        label = labels[number % len(labels)]
        write(folder / "recordings" / f"{label}-{number:03}", label, N_CLIPS + number)
    _copy_recordings(folder / "recordings")
    (folder / "recordings" / "broken.wav").write_bytes(b"RIFF" + bytes(100))
    wrong = {name: labels[(labels.index(label) + 1) % len(labels)] for name, label in list(truth.items())[:N_WRONG]}
    rows = [(name, wrong.get(name, label), number % N_FOLDS) for number, (name, label) in enumerate(truth.items())]
    with (folder / "clips" / "clips.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("fname", "labels", "fold"), *rows])
    train(folder / "clips" / "clips.csv", folder / "first", Recipe() if is_real else RECIPE)
    return LoopSounds(folder, labels, truth, wrong)


def _copy_recordings(folder: Path) -> None:
    first = sorted(folder.iterdir())
    for number in range(len(first), N_RECORDINGS):
        path = first[number % len(first)]
        label = path.stem.rpartition("-")[0]
        os.link(path, folder / f"{label}-{number:03}{path.suffix}")


def _esc10_writer():
    with (ESC10 / "esc10.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))

    def write(path: Path, label: str, number: int) -> str:
        own = [row["fname"] for row in rows if row["labels"] == label]
        name = f"{path.name}.ogg"
        shutil.copy(ESC10 / own[number // len(_ESC10_LABELS)], path.with_name(name))
        return name

    return write


def _write_tone(path: Path, label: str, number: int) -> str:
    rng = np.random.default_rng(number)
    waveform = tone(label, 4.0) * np.float32(rng.uniform(0.5, 0.9)) + np.float32(0.01) * rng.standard_normal(64_000)
    name = f"{path.name}.wav"
    write_audio(path.with_name(name), waveform.astype(np.float32), 16_000)
    return name
