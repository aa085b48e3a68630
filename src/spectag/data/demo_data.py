"""The demo's data set: made-up sounds on disk, in the layout of FSDKaggle2019."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from spectag.audio.files import write_audio
from spectag.audio.synthesis import KINDS, draw_labels, make_scene
from spectag.errors import DataError
from spectag.system.progress import Progress, silent
from spectag.system.work_folder import ended_work, work_folder

_ABOUT = "demo_data.json"  # tells what a folder is made from; written first, so that a stopped run is known again
_VERSION = 1  # of the sounds that a seed gives
_SAMPLE_RATE = 44_100  # Hz
_SHARE_WRONG = 0.4  # of the labels of the noisy set


@dataclass(frozen=True)
class DemoData:
    """Where the demo's data set lies."""

    folder: Path
    train_curated: Path  # CSV: fname, labels; the clips are in the folder of the same name
    train_noisy: Path  # the same, with wrong labels among the right
    test: Path  # folder
    sample_submission: Path  # CSV: fname and a column per label, all 0
    test_answers: Path  # the same, with 1 where a label is true
    labels: tuple[str, ...]


@dataclass(frozen=True)
class _Clip:
    """A clip that is yet to be made."""

    fname: str
    seed: tuple[int, int]
    heard: tuple[str, ...]  # labels
    told: tuple[str, ...]  # labels in the table: some are wrong in the noisy set


def make_demo_data(
    folder: str | Path,
    *,
    seed: int = 0,
    n_curated: int = 300,
    n_noisy: int = 100,
    n_test: int = 100,
    progress: Progress = silent,
) -> DemoData:
    """Write clips of 1 to 5 s (wav, 16 bit, 44.1 kHz, mono) in which one to three sounds are heard, and their tables.

    The folder gets what FSDKaggle2019 has: train_curated/, train_noisy/, test/, train_curated.csv, train_noisy.csv and
    sample_submission.csv; and test_answers.csv, which that competition kept. Labels of the noisy set are wrong with
    probability 0.4. A data set that is there already is left as it is; one that a stopped run has begun is completed,
    and ends with the same files.

    Raises
    ------
    DataError
        If the folder holds anything else, or demo data of another seed or size, none of which is ever overwritten; or
        if it can't be written.
    ValueError
        If the seed or a number of clips is negative.
    """
    if min(seed, n_curated, n_noisy, n_test) < 0:
        raise ValueError(f"need a seed and sizes of 0 or more, got {seed}, {n_curated}, {n_noisy}, {n_test}")
    folder = Path(folder)
    about = {"version": _VERSION, "seed": seed, "curated": n_curated, "noisy": n_noisy, "test": n_test}
    try:
        _check_free(folder, about)
        _write_missing(folder, _all_files(about), progress)
    except OSError as error:
        raise DataError(f"{folder}: can't write the demo's sounds: {error.strerror}") from error
    return DemoData(
        folder=folder,
        train_curated=folder / "train_curated.csv",
        train_noisy=folder / "train_noisy.csv",
        test=folder / "test",
        sample_submission=folder / "sample_submission.csv",
        test_answers=folder / "test_answers.csv",
        labels=tuple(KINDS),
    )


def _check_free(folder: Path, about: dict[str, int]) -> None:
    """Raise unless the folder is missing, empty, or what the same call has made or begun."""
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: need a folder for the demo's sounds, got a file")
    present = sorted(path.name for path in folder.glob("*") if not path.name.startswith("."))
    if not present:
        return
    advice = "name a new folder, or delete this one"
    if _ABOUT not in present:
        raise DataError(f"{folder}: the folder holds {present[0]}, which is not the demo's; {advice}")
    found = (folder / _ABOUT).read_text(encoding="utf-8", errors="replace")
    if found != _json(about):
        raise DataError(
            f"{folder}: the folder holds other demo data: {found.strip()}, not {_json(about).strip()}; {advice}"
        )


def _json(about: dict[str, int]) -> str:
    return json.dumps(about) + "\n"


def _all_files(about: dict[str, int]) -> dict[str, Callable[[Path], object]]:
    """Each file's name in the folder, and the function that writes it."""
    rng = np.random.default_rng(about["seed"])
    sizes = [about["curated"], about["noisy"], about["test"]]
    fnames = [f"{number:08x}.wav" for number in rng.choice(16**8, sum(sizes), replace=False)]
    clips = [_draw_clip(rng, fname, (about["seed"], number)) for number, fname in enumerate(fnames)]
    curated, noisy, test = (clips[end - size : end] for size, end in zip(sizes, np.cumsum(sizes), strict=True))
    noisy = [_mislabelled(rng, clip) for clip in noisy]
    sets = {"train_curated": curated, "train_noisy": noisy, "test": test}
    return {
        _ABOUT: partial(_write_text, _json(about)),
        "train_curated.csv": partial(_write_text, _label_table(curated)),
        "train_noisy.csv": partial(_write_text, _label_table(noisy)),
        "sample_submission.csv": partial(_write_text, _multi_hot_table(test, answered=False)),
        "test_answers.csv": partial(_write_text, _multi_hot_table(test, answered=True)),
        **{f"{name}/{clip.fname}": partial(_write_clip, clip) for name, clips in sets.items() for clip in clips},
    }


def _draw_clip(rng: np.random.Generator, fname: str, seed: tuple[int, int]) -> _Clip:
    labels = draw_labels(rng)
    return _Clip(fname, seed, heard=labels, told=labels)


def _mislabelled(rng: np.random.Generator, clip: _Clip) -> _Clip:
    """The clip with each label wrong with probability 0.4; what is wrong is not heard."""
    told = list(clip.heard)
    for position in np.flatnonzero(rng.random(len(told)) < _SHARE_WRONG):
        told[position] = rng.choice([label for label in KINDS if label not in (*clip.heard, *told)])
    return replace(clip, told=tuple(sorted(map(str, told))))


def _label_table(clips: Sequence[_Clip]) -> str:
    return _table([("fname", "labels"), *((clip.fname, ",".join(clip.told)) for clip in clips)])


def _multi_hot_table(clips: Sequence[_Clip], *, answered: bool) -> str:
    rows = ((clip.fname, *(int(answered and label in clip.heard) for label in KINDS)) for clip in clips)
    return _table([("fname", *KINDS), *rows])


def _table(rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _write_missing(folder: Path, files: dict[str, Callable[[Path], object]], progress: Progress) -> None:
    missing = [name for name in files if not (folder / name).exists()]
    try:
        if missing:
            with work_folder(folder) as work:
                for n_done, name in enumerate(missing, start=len(files) - len(missing)):
                    progress("making sounds", n_done, len(files))
                    unfinished = work / Path(name).name
                    files[name](unfinished)
                    (folder / name).parent.mkdir(exist_ok=True)
                    unfinished.replace(folder / name)
    finally:
        with ended_work(folder):
            pass  # the work folders of this run and of killed ones go
    progress("making sounds", len(files), len(files))


def _write_text(text: str, path: Path) -> None:
    path.write_text(text, encoding="utf-8", newline="")


def _write_clip(clip: _Clip, path: Path) -> None:
    scene = make_scene(np.random.default_rng(clip.seed), labels=clip.heard, sample_rate=_SAMPLE_RATE)
    write_audio(path, scene.waveform, _SAMPLE_RATE)
