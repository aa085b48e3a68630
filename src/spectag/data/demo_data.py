"""The demo's data set: synthetic sounds on disk, in the layout of FSDKaggle2019."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from spectag.audio.files import write_audio
from spectag.audio.synthesis import KINDS, draw_labels, make_demo_scene
from spectag.errors import DataError
from spectag.system.progress import Progress, silent
from spectag.system.work_folder import abandoned_work, work_folder

_SETTINGS_FILE = "demo_data.json"  # identifies the data set; written first, so that an interrupted run is recognised
_VERSION = 1  # of the sounds that a seed gives
_SAMPLE_RATE = 44_100  # Hz
_WRONG_LABEL_PROBABILITY = 0.4  # in the noisy set


@dataclass(frozen=True)
class DemoData:
    """Paths of the demo's data set."""

    folder: Path
    train_curated: Path
    """CSV: fname, labels. The clips are in the folder of the same name."""
    train_noisy: Path
    """The same, with some wrong labels."""
    test: Path
    """Folder."""
    sample_submission: Path
    """CSV: fname and a column per label, all 0."""
    test_answers: Path
    """The same, with 1 where a label is true."""
    labels: tuple[str, ...]


@dataclass(frozen=True)
class _Clip:
    """A clip to be written."""

    fname: str
    seed: tuple[int, int]
    true_labels: tuple[str, ...]
    table_labels: tuple[str, ...]
    """Labels in the table; some are wrong in the noisy set."""


def make_demo_data(
    folder: str | Path,
    *,
    seed: int = 0,
    n_curated: int = 120,
    n_noisy: int = 40,
    n_test: int = 60,
    progress: Progress = silent,
) -> DemoData:
    """Write clips of 1 to 5 s (wav, 16 bit, 44.1 kHz, mono) with one to three sounds each, and their tables.

    The folder has the layout of FSDKaggle2019: train_curated/, train_noisy/, test/, train_curated.csv, train_noisy.csv
    and sample_submission.csv. It also contains test_answers.csv, which the competition did not publish. Labels of the
    noisy set are wrong with probability 0.4. A complete data set is not written again. An interrupted one is completed,
    with the same result.

    Raises
    ------
    DataError
        If the folder contains anything else, or demo data of another seed or size (they are never overwritten), or it
        can't be written.
    ValueError
        If the seed or a number of clips is negative.
    """
    if min(seed, n_curated, n_noisy, n_test) < 0:
        raise ValueError(f"seed and sizes must be 0 or more, got {seed}, {n_curated}, {n_noisy}, {n_test}")
    folder = Path(folder)
    settings = {"version": _VERSION, "seed": seed, "curated": n_curated, "noisy": n_noisy, "test": n_test}
    try:
        _check_folder(folder, settings)
        _write_missing(folder, _all_files(settings), progress)
    except OSError as error:
        raise DataError(f"{folder}: the demo's sounds can't be written: {error.strerror}") from error
    return DemoData(
        folder=folder,
        train_curated=folder / "train_curated.csv",
        train_noisy=folder / "train_noisy.csv",
        test=folder / "test",
        sample_submission=folder / "sample_submission.csv",
        test_answers=folder / "test_answers.csv",
        labels=tuple(KINDS),
    )


def _check_folder(folder: Path, settings: dict[str, int]) -> None:
    """Raise a DataError unless the folder is missing, empty, or contains demo data with the same settings."""
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: need a folder for the demo's sounds, got a file")
    names = sorted(path.name for path in folder.glob("*") if not path.name.startswith("."))
    if not names:
        return
    advice = "name a new folder, or delete this one"
    if _SETTINGS_FILE not in names:
        raise DataError(f"{folder}: the folder contains {names[0]}, which is not part of the demo; {advice}")
    text = (folder / _SETTINGS_FILE).read_text(encoding="utf-8", errors="replace")
    if text != _json(settings):
        raise DataError(
            f"{folder}: the folder contains other demo data: {text.strip()}, not {_json(settings).strip()}; {advice}"
        )


def _json(settings: dict[str, int]) -> str:
    return json.dumps(settings) + "\n"


def _all_files(settings: dict[str, int]) -> dict[str, Callable[[Path], object]]:
    """The files by name in the folder, each as the function that writes it."""
    rng = np.random.default_rng(settings["seed"])
    sizes = [settings["curated"], settings["noisy"], settings["test"]]
    fnames = [f"{number:08x}.wav" for number in rng.choice(16**8, sum(sizes), replace=False)]
    clips = [_draw_clip(rng, fname, (settings["seed"], number)) for number, fname in enumerate(fnames)]
    curated, noisy, test = (clips[end - size : end] for size, end in zip(sizes, np.cumsum(sizes), strict=True))
    noisy = [_mislabelled(rng, clip) for clip in noisy]
    sets = {"train_curated": curated, "train_noisy": noisy, "test": test}
    return {
        _SETTINGS_FILE: partial(_write_text, _json(settings)),
        "train_curated.csv": partial(_write_text, _label_table(curated)),
        "train_noisy.csv": partial(_write_text, _label_table(noisy)),
        "sample_submission.csv": partial(_write_text, _multi_hot_table(test, with_answers=False)),
        "test_answers.csv": partial(_write_text, _multi_hot_table(test, with_answers=True)),
        **{f"{name}/{clip.fname}": partial(_write_clip, clip) for name, clips in sets.items() for clip in clips},
    }


def _draw_clip(rng: np.random.Generator, fname: str, seed: tuple[int, int]) -> _Clip:
    labels = draw_labels(rng)
    return _Clip(fname, seed, labels, labels)


def _mislabelled(rng: np.random.Generator, clip: _Clip) -> _Clip:
    """The clip with each label replaced, with probability 0.4, by a label that is not true."""
    labels = list(clip.true_labels)
    for index in np.flatnonzero(rng.random(len(labels)) < _WRONG_LABEL_PROBABILITY):
        labels[index] = rng.choice([label for label in KINDS if label not in (*clip.true_labels, *labels)])
    return replace(clip, table_labels=tuple(sorted(map(str, labels))))


def _label_table(clips: Sequence[_Clip]) -> str:
    return _table([("fname", "labels"), *((clip.fname, ",".join(clip.table_labels)) for clip in clips)])


def _multi_hot_table(clips: Sequence[_Clip], *, with_answers: bool) -> str:
    rows = ((clip.fname, *(int(with_answers and label in clip.true_labels) for label in KINDS)) for clip in clips)
    return _table([("fname", *KINDS), *rows])


def _table(rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _write_missing(folder: Path, files: dict[str, Callable[[Path], object]], progress: Progress) -> None:
    missing = [name for name in files if not (folder / name).exists()]
    n_sounds, n_missing = (sum(name.endswith(".wav") for name in names) for names in (files, missing))
    n_done = n_sounds - n_missing
    try:
        if missing:
            with work_folder(folder) as work:
                for name in missing:
                    progress("making sounds", n_done, n_sounds)
                    unfinished = work / Path(name).name
                    files[name](unfinished)
                    (folder / name).parent.mkdir(exist_ok=True)
                    unfinished.replace(folder / name)
                    n_done += name.endswith(".wav")
    finally:
        with abandoned_work(folder):
            pass  # removes the work folders of this run and of killed runs
    progress("making sounds", n_sounds, n_sounds)


def _write_text(text: str, path: Path) -> None:
    path.write_text(text, encoding="utf-8", newline="")


def _write_clip(clip: _Clip, path: Path) -> None:
    scene = make_demo_scene(np.random.default_rng(clip.seed), labels=clip.true_labels, sample_rate=_SAMPLE_RATE)
    write_audio(path, scene.waveform, _SAMPLE_RATE)
