"""Heads on frozen features, scored on new recordings: logistic regression, LDA, the name prior, and windows.

    python benchmarks/heads.py CLIPS.csv [--backbones NAME ...] [--seeds 1 2 3] [--work FOLDER]

CLIPS.csv is the table of benchmarks/competition.py: fname, labels (one per clip), source, and fold. Data sets: the
given folds; 1, 2, 4 and 8 recordings per label, one clip of each; mixed clips cut from 3, 6 and 12 recordings per
label, without and with 20 % wrong labels; and many mixed clips per label. Settings of heads are chosen as `train`
chooses them. The score is accuracy for clips with one label, else lwlrap. The last columns are the mean differences to
the column before over the seeds, with 95 % intervals (Student's t).
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student_t

from competition import split_sources, write_set
from few_recordings import draw_one_clip_each
from spectag.audio.front_end import FrontEnd
from spectag.config.backbones import resolve_mel
from spectag.config.recipe import Recipe
from spectag.data.audio_groups import SharingClips
from spectag.data.clips import Manifest
from spectag.data.fingerprint_cache import clip_fingerprints
from spectag.data.manifest import read_manifest
from spectag.data.shared_audio import find_shared_audio
from spectag.scoring.metrics import lwlrap, top1_accuracy
from spectag.system.progress import silent
from spectag.training.heads.per_fold import FrozenFeatures, fit_linear_heads
from spectag.training.members.member import open_inputs
from spectag.training.setup.callbacks import Callbacks
from spectag.training.setup.cross_validation import CrossValidation
from spectag.training.setup.held_out import hold_out

KINDS = ("logistic", "lda", "lda and names", "and windows")  # each has what the one before has
N_TRAIN, N_MANY, N_TEST = 300, 2500, 400
WRONG = 0.2
Score = dict[str, float]


def main(arguments: Sequence[str] | None = None) -> None:
    """All tables; the arguments are those of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path)
    parser.add_argument("--backbones", nargs="+", default=["mn04_audioset", "efficientnet_lite0"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--draws", type=int, default=10, help="of few recordings")
    parser.add_argument("--work", type=Path, help="by default a temporary folder")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        for backbone in options.backbones:
            print(f"\n{backbone}\n\n| data | {' | '.join(KINDS)} | gain by LDA | gain by names | gain by windows |")
            print("|---|---|---|---|---|---|---|---|")
            for name, scores in data_sets(Features(backbone, work), work, options):
                print(row(name, scores), flush=True)


class Features:
    """Features of clips by a frozen network, kept in a folder."""

    def __init__(self, backbone: str, work: Path) -> None:
        self.recipe, self.cache = Recipe(backbone=backbone), work / "cache"
        self.front_end = FrontEnd(mel=resolve_mel(backbone, None))

    def __call__(self, manifest: Manifest) -> FrozenFeatures:
        inputs = open_inputs(manifest, None, self.recipe, self.front_end, self.cache, Callbacks(), workers=None)
        return inputs.frozen_features(manifest.multi_hot(), progress=silent, with_windows=True)


def data_sets(features: Features, work: Path, options: argparse.Namespace) -> Iterator[tuple[str, list[Score]]]:
    """The name of each data set, and the scores of each seed."""
    table = read_manifest(options.clips, group_column="source")
    data, y_true = features(table), table.multi_hot()
    folds = np.array(table.folds)
    yield "given folds", [compare(table, data, folds != fold, features.recipe) for fold in np.unique(folds)]
    for n_recordings in (1, 2, 4, 8):
        draws = []
        for seed in range(options.draws):
            rows = draw_one_clip_each(y_true, np.array(table.groups), n_recordings, np.random.default_rng(seed))
            draws.append(compare(table, data, np.isin(np.arange(len(folds)), rows), features.recipe))
        yield f"clips per label: {n_recordings}, of as many recordings", draws
    for n_recordings, n_train in ((3, N_TRAIN), (6, N_TRAIN), (12, N_TRAIN), (12, N_MANY)):
        clean, noisy = [], []
        for seed in options.seeds if n_train == N_TRAIN else options.seeds[:1]:
            folder = work / f"{n_recordings}-{n_train}-{seed}"
            train, test = competition(folder, options.clips, n_recordings, n_train, seed)
            sets = train, features(train), test, features(test)
            clean.append(compare_sets(*sets, features, wrong=0, seed=seed))
            noisy.append(compare_sets(*sets, features, wrong=WRONG, seed=seed))
        name = f"{n_train} mixed clips of {n_recordings} recordings per label"
        yield name, clean
        yield f"{name}, {WRONG:.0%} wrong labels", noisy


def competition(folder: Path, clips: Path, n_recordings: int, n_train: int, seed: int) -> tuple[Manifest, Manifest]:
    """Training and test clips cut and mixed from different recordings."""
    if not (folder / "test.csv").exists():
        rng = np.random.default_rng(seed)
        train_pool, test_pool = split_sources(clips, n_recordings, rng)
        write_set(folder, "train", train_pool, n_train, rng, [])
        write_set(folder, "test", test_pool, N_TEST, rng, [])
    train, test = (read_manifest(folder / f"{name}.csv", audio_dir=folder / name) for name in ("train", "test"))
    return train, test


def compare(
    table: Manifest,
    data: FrozenFeatures,
    is_train: NDArray[np.bool_],
    recipe: Recipe,
    kinds: Sequence[str] = KINDS,
) -> Score:
    """Scores on the clips of recordings that are not trained on."""
    rows = np.flatnonzero(is_train)
    groups = np.array(table.groups)
    is_test = ~np.isin(groups, groups[rows])
    train = replace(table, clips=tuple(replace(table.clips[row], fold=None) for row in rows))
    of_train, of_test = rows_of(data, rows), rows_of(data, np.flatnonzero(is_test))
    return scores(train, train.multi_hot(), of_train, table.multi_hot()[is_test], of_test, recipe, None, kinds)


def rows_of(data: FrozenFeatures, rows: NDArray[np.intp]) -> FrozenFeatures:
    """The features of some clips."""
    windows, of_clip = data.windows, None if data.windows is None else data.windows.of_clip
    if windows is not None and of_clip is not None:
        windows = replace(windows, of_clip=lambda row: of_clip(int(rows[row])))
    return replace(data, clips=data.clips[rows], windows=windows)


def compare_sets(
    train: Manifest,
    data: FrozenFeatures,
    test: Manifest,
    test_data: FrozenFeatures,
    features: Features,
    *,
    wrong: float,
    seed: int,
    kinds: Sequence[str] = KINDS,
) -> Score:
    """Scores on the test clips after training with some wrong labels."""
    fingerprints = clip_fingerprints(train.clips, features.cache, workers=None, progress=silent)
    sharing = SharingClips.of(train, find_shared_audio(fingerprints))
    y_true = with_wrong_labels(train.multi_hot(), wrong, np.random.default_rng(seed))
    return scores(train, y_true, data, test.multi_hot(), test_data, features.recipe, sharing, kinds)


def with_wrong_labels(y_true: NDArray[np.bool_], wrong: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Labels in which a fraction of the clips has another label in place of one of its own."""
    y_true = y_true.copy()
    for clip in np.flatnonzero((rng.random(len(y_true)) < wrong) & y_true.any(axis=1)):
        y_true[clip, rng.choice(np.flatnonzero(y_true[clip]))] = False
        y_true[clip, rng.integers(y_true.shape[1])] = True
    return y_true


def scores(
    train: Manifest,
    y_true: NDArray[np.bool_],
    data: FrozenFeatures,
    test_y_true: NDArray[np.bool_],
    test_data: FrozenFeatures,
    recipe: Recipe,
    sharing: SharingClips | None,
    kinds: Sequence[str],
) -> Score:
    """The score of each kind of head on the test clips."""
    is_single_label = bool((test_y_true.sum(axis=1) == 1).all())
    score: Callable[..., float] = top1_accuracy if is_single_label else lwlrap
    cross_validation = CrossValidation.of(y_true, hold_out(train, recipe, sharing))
    result = {}
    for kind in kinds:
        place = KINDS.index(kind)
        heads = replace(data, prior=data.prior if place >= 2 else None, windows=data.windows if place == 3 else None)
        settings = recipe.model_copy(update={"classifier": "lda" if place else "logistic"})
        head = fit_linear_heads(heads, cross_validation, settings, Callbacks()).heads[-1]
        everything = np.ones(len(test_y_true), bool)
        result[kind] = float(score(test_y_true, test_data.logits(head.logits, everything, head.windows)))
    return result


def row(name: str, scores: list[Score]) -> str:
    table = np.array([[score[kind] for kind in KINDS] for score in scores])
    gains = [gain(differences) for differences in np.diff(table, axis=1).T]
    return f"| {name} | " + " | ".join([f"{value:.4f}" for value in table.mean(axis=0)] + gains) + " |"


def gain(differences: NDArray[np.float64]) -> str:
    """The mean of some differences, with its 95 % interval."""
    mean, n = differences.mean(), len(differences)
    if n < 2:
        return f"{mean:+.4f}"
    error = half_interval(differences)
    return f"{mean:+.4f} ({mean - error:+.4f} to {mean + error:+.4f})"


def half_interval(values: NDArray[np.float64]) -> float:
    """Half of the 95 % interval of a mean."""
    return float(student_t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))


if __name__ == "__main__":
    main()
