"""Learning curves: the score that is expected with twice as many recordings, and the score that comes true.

    python benchmarks/learning_curve.py CLIPS.csv [--backbones NAME ...] [--seeds 1 2 3] [--draws 6] [--work FOLDER]

CLIPS.csv is the table of benchmarks/heads.py. Data sets: 3, 4, 6, 8 and 12 recordings per label with all their clips,
and twice as many of them; 150 mixed clips of 3 and 6 recordings per label, and 300 of twice as many recordings; 150
mixed clips and 300 of the same recordings. Scores are the lwlrap of held-out clips. Of the last two columns, the first
is the mean absolute error of what is expected, the second that of expecting no change.
"""

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from heads import Features, competition
from spectag.data.audio_groups import SharingClips
from spectag.data.clips import Manifest
from spectag.data.fingerprint_cache import clip_fingerprints
from spectag.data.manifest import read_manifest
from spectag.data.shared_audio import find_shared_audio
from spectag.system.progress import silent
from spectag.training.heads.learning_curve import LearningCurve, learning_curve
from spectag.training.heads.per_fold import FrozenFeatures, fit_linear_heads
from spectag.training.setup.callbacks import Callbacks
from spectag.training.setup.cross_validation import CrossValidation
from spectag.training.setup.held_out import hold_out

N_RECORDINGS = (3, 4, 6, 8, 12)
N_MIXED = 150
Pair = tuple[LearningCurve, LearningCurve]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path)
    parser.add_argument("--backbones", nargs="+", default=["mn04_audioset", "efficientnet_lite0"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3], help="of mixed clips")
    parser.add_argument("--draws", type=int, default=6, help="of recordings")
    parser.add_argument("--work", type=Path, help="by default a temporary folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        for backbone in options.backbones:
            print(f"\n{backbone}\n\n| data | a quarter | half | all | expected | twice | error | no change |")
            print("|---|---|---|---|---|---|---|---|")
            features = Features(backbone, work)
            for name, pairs in (*recordings(features, options), *mixed(features, work, options)):
                print(row(name, pairs), flush=True)


def recordings(features: Features, options: argparse.Namespace) -> Iterator[tuple[str, list[Pair]]]:
    """Curves of some recordings of each label, and of twice as many."""
    table = read_manifest(options.clips, group_column="source")
    data, y_true, groups = features(table), table.multi_hot(), np.array(table.groups)
    curves = {}
    for draw in range(options.draws):
        rng = np.random.default_rng(draw)
        orders = [rng.permutation(np.unique(groups[has_label])) for has_label in y_true.T]
        for n in {*N_RECORDINGS, *(2 * n for n in N_RECORDINGS)}:
            rows = np.flatnonzero(np.isin(groups, [name for order in orders for name in order[:n]]))
            curves[n, draw] = curve_of(table, data, rows, features, seed=draw)
    for n in N_RECORDINGS:
        yield f"{n} recordings per label", [(curves[n, draw], curves[2 * n, draw]) for draw in range(options.draws)]


def mixed(features: Features, work: Path, options: argparse.Namespace) -> Iterator[tuple[str, list[Pair]]]:
    """Curves of mixed clips, and of twice as many."""
    curves = {}
    for seed in options.seeds:
        for n in (3, 6, 12):
            train, _ = competition(work / f"{n}-{2 * N_MIXED}-{seed}", options.clips, n, 2 * N_MIXED, seed)
            data = features(train)
            for n_clips in (N_MIXED, 2 * N_MIXED):
                curves[n, n_clips, seed] = curve_of(train, data, np.arange(n_clips), features, seed=seed, search=True)
    for n, twice in ((3, 6), (6, 12), (3, 3), (6, 6), (12, 12)):
        pairs = [(curves[n, N_MIXED, seed], curves[twice, 2 * N_MIXED, seed]) for seed in options.seeds]
        yield f"{N_MIXED} mixed clips of {n} recordings per label, {2 * N_MIXED} of {twice}", pairs


def curve_of(
    table: Manifest,
    data: FrozenFeatures,
    rows: NDArray[np.int64],
    features: Features,
    *,
    seed: int,
    search: bool = False,
) -> LearningCurve:
    """The learning curve of some clips, in new folds; with a search for shared audio if wanted."""
    train = replace(table, clips=tuple(replace(table.clips[row], fold=None) for row in rows))
    sharing = None
    if search:
        fingerprints = clip_fingerprints(train.clips, features.cache, workers=None, progress=silent)
        sharing = SharingClips.of(train, find_shared_audio(fingerprints))
    cross_validation = CrossValidation.of(train.multi_hot(), hold_out(train, features.recipe, sharing))
    data = replace(data, clips=data.clips[rows])
    fit = fit_linear_heads(data, cross_validation, features.recipe, Callbacks())
    curve = learning_curve(data, cross_validation, fit, seed=seed)
    assert curve is not None
    return curve


def row(name: str, pairs: list[Pair]) -> str:
    """Means over the draws. With few recordings there may be no quarter."""
    quarters = [curve.scores[-3] for curve, _ in pairs if len(curve.scores) == 3]
    values = np.array([[*curve.scores[-2:], curve.expected, twice.scores[-1]] for curve, twice in pairs])
    _, full, expected, twice = values.T
    cells = [np.mean(quarters) if quarters else np.nan, *values.mean(axis=0)]
    cells += [np.abs(expected - twice).mean(), np.abs(full - twice).mean()]
    return f"| {name} | " + " | ".join("-" if np.isnan(cell) else f"{cell:.3f}" for cell in cells) + " |"


if __name__ == "__main__":
    main()
