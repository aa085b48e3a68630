"""Self-training and distillation with unlabelled recordings, compared with the default head on new recordings.

    python benchmarks/unlabelled.py esc10.csv [--backbone mn04_audioset] [--second efficientnet_lite0] [--work FOLDER]

esc10.csv has the columns fname, labels (one per clip) and source. In each draw, six random labels are known. Some
recordings are for the test; 1, 2, 4 or 8 recordings per label are labelled; all others are unlabelled, without and with
strangers, which are recordings of the other four labels. The test contains new strangers, too. There are two kinds of
data: the clips, one of each labelled recording; and mixed clips of one to four sounds. A labelled mix is cut from the
recordings of one session, which has one recording per label, and folds keep sessions together.

The targets of unlabelled clips are calibrated probabilities: for a fold, those of its own head; for the final head, the
mean of all folds. Heads and their settings are those of `train`, without windows. Printed: lwlrap or mAP of the
default, and differences to it with 95 % intervals (bootstrap over draws, and within a draw over test recordings).
"""

import argparse
import csv
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from competition import Pool, split_pool, split_sources, write_set
from few_recordings import draw_one_clip_each
from spectag.audio.front_end import FrontEnd
from spectag.config.backbones import resolve_mel
from spectag.config.recipe import Recipe
from spectag.data.clips import Manifest
from spectag.data.labels import LabelSet
from spectag.data.manifest import read_manifest
from spectag.scoring.bootstrap import Resampling
from spectag.scoring.calibration import fit_calibration, probabilities_of
from spectag.scoring.metrics import precision_at_labels
from spectag.system.progress import silent
from spectag.training.heads.logistic import LinearHead
from spectag.training.heads.novelty import fit_novelty
from spectag.training.heads.per_fold import FrozenFeatures, HeadFit, fit_linear_heads
from spectag.training.members.member import open_inputs
from spectag.training.setup.callbacks import Callbacks
from spectag.training.setup.cross_validation import CrossValidation
from spectag.training.setup.held_out import hold_out
from spectag.training.setup.noisy_labels import LabelRates, Relabelled

N_KNOWN, N_RECORDINGS = 6, (1, 2, 4, 8)
TEST_FRACTION = 0.3  # of the recordings of each label
N_SESSION, N_MIXED = 24, {"unlabelled": 80, "strangers": 100, "test": 200, "test strangers": 50}
N_RESAMPLES = 1000
SURE = 0.9  # probability of a hard label; below 1 - SURE it is absent, between them unknown
KEPT = 0.5  # by the limits, of the clips that are expected to have a label
WITHOUT, WITH = "without strangers", "with strangers"
Array = NDArray[np.float64]
Features = NDArray[np.float32]
Rows = NDArray[np.int64]
Made = tuple[Array, Array]  # targets (n_clips, n_labels) and weights (n_clips,) of unlabelled clips
Samples = dict[str, Array]  # lwlrap and mAP (2, 1 + n_resamples) of each method


@dataclass(frozen=True)
class Draw:
    """All clips with their known labels, and which of them are for what, by the number of recordings per label."""

    table: Manifest
    labelled: dict[int, Rows]
    unlabelled: dict[int, Rows]
    strangers: Rows
    test: Rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path)
    parser.add_argument("--backbone", default="mn04_audioset", help="of the head that is scored")
    parser.add_argument("--second", default="efficientnet_lite0", help="in the ensemble that is distilled")
    parser.add_argument("--kinds", nargs="+", default=["clips", "mixed clips"])
    parser.add_argument("--draws", type=int, default=6)
    parser.add_argument("--work", type=Path, default=Path("unlabelled"), help="folder of mixed clips and features")
    options = parser.parse_args()
    recipes = [Recipe(backbone=name, final_model="ensemble") for name in (options.backbone, options.second)]
    for kind in options.kinds:
        samples: dict[tuple[str, int], list[Samples]] = {}
        for seed in range(options.draws):
            draw = (draw_clips if kind == "clips" else draw_mixed_clips)(options.clips, options.work, seed)
            features = [frozen_features(draw.table, recipe, options.work) for recipe in recipes]
            for n in N_RECORDINGS:
                for strangers, logits in compare(draw, features, n, recipes).items():
                    samples.setdefault((strangers, n), []).append(resampled_scores(draw, logits))
        for strangers in (WITHOUT, WITH):
            print_tables(f"{kind}, {strangers}", {n: samples[strangers, n] for n in N_RECORDINGS})


def frozen_features(table: Manifest, recipe: Recipe, work: Path) -> FrozenFeatures:
    front_end = FrontEnd(mel=resolve_mel(recipe.backbone, None))
    inputs = open_inputs(table, None, recipe, front_end, work / "cache", Callbacks(), workers=None)
    return inputs.frozen_features(table.multi_hot(), progress=silent)


def with_known_labels(table: Manifest, rng: np.random.Generator) -> Manifest:
    names = sorted(rng.permutation(table.labels.names)[:N_KNOWN].tolist())
    clips = [replace(clip, fold=None, labels=tuple({*clip.labels} & {*names})) for clip in table.clips]
    return replace(table, clips=tuple(clips), labels=LabelSet(tuple(names)))


def draw_clips(clips: Path, work: Path, seed: int) -> Draw:
    """A draw of the clips as they are."""
    table, rng = read_manifest(clips, group_column="source"), np.random.default_rng(seed)
    groups, is_test = np.array(table.groups), np.zeros(len(table.clips), bool)
    for has_label in table.multi_hot().T:
        recordings = rng.permutation(np.unique(groups[has_label]))
        is_test |= np.isin(groups, recordings[: round(TEST_FRACTION * len(recordings))])
    table = with_known_labels(table, rng)
    y_true = table.multi_hot()
    is_known = y_true.any(axis=1)
    may_be_unlabelled = is_known & ~is_test
    labelled = {n: draw_one_clip_each(y_true & ~is_test[:, None], groups, n, rng) for n in N_RECORDINGS}
    unlabelled = {n: np.flatnonzero(may_be_unlabelled & ~np.isin(groups, groups[rows])) for n, rows in labelled.items()}
    return Draw(table, labelled, unlabelled, np.flatnonzero(~is_known & ~is_test), np.flatnonzero(is_test))


def draw_mixed_clips(clips: Path, work: Path, seed: int) -> Draw:
    """A draw of mixed clips."""
    folder = work / f"mixed-{seed}"
    if not (folder / "all.csv").exists():
        write_mixed_clips(folder, clips, np.random.default_rng(seed))
    table = with_known_labels(read_manifest(folder / "all.csv", group_column="group"), np.random.default_rng(seed))
    sets = np.array([clip.fname.split("/")[0] for clip in table.clips])
    sessions = np.array([int(name.split()[1]) if name.startswith("session") else -1 for name in sets])
    labelled = {n: np.flatnonzero((sessions >= 0) & (sessions < n)) for n in N_RECORDINGS}
    unlabelled = {n: np.flatnonzero((sessions >= n) | (sets == "unlabelled")) for n in N_RECORDINGS}
    is_test = np.isin(sets, ["test", "test strangers"])
    return Draw(table, labelled, unlabelled, np.flatnonzero(sets == "strangers"), np.flatnonzero(is_test))


def write_mixed_clips(folder: Path, clips: Path, rng: np.random.Generator) -> None:
    """Write mixed clips of sessions, unlabelled ones, strangers and those of the test, and a table of all."""
    names = with_known_labels(read_manifest(clips), rng).labels.names
    pools: dict[str, Pool] = {}
    pools["session 0"], others = split_sources(clips, 1, rng)
    for number in range(1, max(N_RECORDINGS)):
        pools[f"session {number}"], others = split_pool(others, 1)
    pools["unlabelled"], pools["test"] = split_pool(others, 3)
    sets = {name: {label: pool[label] for label in names} for name, pool in pools.items()}
    for of_strangers, name in (("strangers", "unlabelled"), ("test strangers", "test")):
        sets[of_strangers] = {label: pool for label, pool in pools[name].items() if label not in names}
    rows = []
    for name, pool in sets.items():
        for fname, labels in write_set(folder, name, pool, N_MIXED.get(name, N_SESSION), rng, []):
            rows.append([f"{name}/{fname}", ",".join(labels), fname if name in N_MIXED else name])
    with (folder / "all.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["fname", "labels", "group"], *rows])


def compare(draw: Draw, features: list[FrozenFeatures], n: int, recipes: list[Recipe]) -> dict[str, dict[str, Array]]:
    """Logits of the test clips by each method, without and with strangers among the unlabelled clips."""
    rows, others = draw.labelled[n], draw.unlabelled[n]
    table = replace(draw.table, clips=tuple(draw.table.clips[row] for row in rows))
    folds = CrossValidation.of(table.multi_hot(), hold_out(table, recipes[0]))
    labelled = [replace(data, clips=data.clips[rows]) for data in features]
    fits = [fit_linear_heads(*arguments, Callbacks()) for arguments in zip(labelled, [folds] * 2, recipes, strict=True)]
    test = [data.clips[draw.test] for data in features]
    logits = {}
    for name, with_strangers in ((WITHOUT, others), (WITH, np.concatenate([others, draw.strangers]))):
        methods = Methods(labelled, [data.clips[with_strangers] for data in features], folds, fits, recipes[0])
        logits[name] = {method: fit.heads[-1].logits(test[0]) for method, fit in methods.heads()}
        logits[name]["(the ensemble itself)"] = logit(methods.ensemble(test)[-1])
    return logits


@dataclass(frozen=True)
class Methods:
    """Methods for labelled clips and `others`, given the default heads (`fits`) on the features of two networks."""

    labelled: list[FrozenFeatures]
    others: list[Features]
    folds: CrossValidation
    fits: list[HeadFit[LinearHead]]
    recipe: Recipe

    def heads(self) -> Iterator[tuple[str, HeadFit[LinearHead]]]:
        """The default head, and that of each method."""
        first, rates = self.probabilities(self.fits[0], self.others[0]), self.folds.y_true.mean(axis=0)
        novelty = fit_novelty(self.labelled[0], self.folds)  # None with too few recordings
        yield "default", self.fits[0]
        yield "covariance only", self.fit([(np.full(p.shape, np.nan), np.ones(len(p))) for p in first])
        for name, make in (("hard", hard), ("soft", soft), ("limits", limits)):
            targets = [make(p, rates) for p in first]
            once = self.fit(targets, teaches=True)
            yield f"{name}, round 1", once
            yield f"{name}, round 2", self.fit([make(p, rates) for p in self.probabilities(once, self.others[0])])
            if novelty is not None:
                known = novelty(self.others[0]) <= 1
                yield f"{name}, no novel clips", self.fit([(target, weights * known) for target, weights in targets])
        light = min(1.0, len(self.folds.targets) / len(first[0]))
        yield "soft, low weight", self.fit([(p, np.full(len(p), light)) for p in first])
        yield "distilled from the ensemble", self.fit([soft(p, rates) for p in self.ensemble(self.others)])

    def fit(self, targets: list[Made], *, teaches: bool = False) -> HeadFit[LinearHead]:
        """Heads on labelled and unlabelled clips, with the targets for each training; all of them, if it `teaches`."""
        nothing = np.zeros(len(self.others[0]), bool)
        made = [Relabelled(*of_training, nothing, nothing, LabelRates(1.0, 0.0)) for of_training in targets]
        data = replace(self.labelled[0], noisy=self.others[0])
        recipe = self.recipe.model_copy(update={"final_model": "ensemble" if teaches else "refit"})
        return fit_linear_heads(data, self.folds.with_noisy(made), recipe, Callbacks())

    def probabilities(self, fit: HeadFit[LinearHead], features: Features) -> list[Array]:
        """Calibrated probabilities for each training: by its own head, or for that on all clips, the folds' mean."""
        has_folds, calibration = self.folds.all_clips is not None, None
        if has_folds:
            calibration = fit_calibration(fit.logits.chosen, self.folds.targets, folds=self.folds.parts)
        own = [probabilities_of(head.logits(features), calibration).clip(1e-6, 1 - 1e-6) for head in fit.heads]
        return [*own[:-1], np.mean(own[:-1], axis=0)] if has_folds else own

    def ensemble(self, features: list[Features]) -> list[Array]:
        """The same, by the mean logits of both networks."""
        both = [self.probabilities(*arguments) for arguments in zip(self.fits, features, strict=True)]
        return [expit(np.mean(logit(of_training), axis=0)) for of_training in zip(*both, strict=True)]


def hard(probabilities: Array, rates: Array) -> Made:
    """Labels that are surely present or absent; the others are unknown."""
    targets = np.where(probabilities >= SURE, 1.0, np.where(probabilities <= 1 - SURE, 0.0, np.nan))
    return targets, np.ones(len(targets))


def soft(probabilities: Array, rates: Array) -> Made:
    return probabilities, np.ones(len(probabilities))


def limits(probabilities: Array, rates: Array) -> Made:
    """The most probable clips of each label, as many as its frequency among the labelled clips allows."""
    numbers = np.maximum(1, np.round(KEPT * rates * len(probabilities)))
    ranks = (-probabilities).argsort(axis=0).argsort(axis=0)
    chosen = (ranks < numbers) & (probabilities >= 0.5)
    targets, _ = hard(probabilities, rates)
    return np.where(chosen, 1.0, np.where(targets == 0, 0.0, np.nan)), np.where(chosen.any(axis=1), 1.0, 0.0)


def resampled_scores(draw: Draw, logits: dict[str, Array]) -> Samples:
    """The scores of all test clips, then those of each resample of recordings."""
    y_true, groups = draw.table.multi_hot()[draw.test], np.array(draw.table.groups)[draw.test]
    counts = Resampling(N_RESAMPLES).counts(groups.tolist()).T.astype(np.float64)  # of each clip in each resample
    return {name: np.stack(lwlrap_and_map(y_true, y_score, counts)) for name, y_score in logits.items()}


def lwlrap_and_map(y_true: NDArray[np.bool_], y_score: Array, counts: Array) -> tuple[Array, Array]:
    average_precision = []
    for truth, order in zip(y_true.T, (-y_score).argsort(axis=0).T, strict=True):
        positives = counts[:, order] * truth[order]
        precision = positives.cumsum(axis=1) / np.maximum(counts[:, order].cumsum(axis=1), 1)
        average_precision.append((positives * precision).sum(axis=1) / np.maximum(positives.sum(axis=1), 1))
    lwlrap = (counts @ precision_at_labels(y_true, y_score).sum(axis=1)) / (counts @ y_true.sum(axis=1))
    return np.asarray(lwlrap), np.asarray(np.mean(average_precision, axis=0))


def print_tables(title: str, samples: dict[int, list[Samples]]) -> None:
    """A table of lwlrap and one of mAP, with a column for each number of recordings per label."""
    for place, metric in enumerate(("lwlrap", "mAP")):
        print(f"\n{title}: {metric}\n\n| method | {' | '.join(map(str, samples))} |\n|---|{'---|' * len(samples)}")
        for name in samples[max(samples)][0]:
            print(f"| {name} | {' | '.join(cell(draws, name, place) for draws in samples.values())} |", flush=True)


def cell(draws: list[Samples], name: str, place: int) -> str:
    """The score of the default, or the difference to it; with a star if its interval is without 0."""
    if name == "default" or name not in draws[0]:
        return f"{np.mean([scores[name][place, 0] for scores in draws]):.4f}" if name in draws[0] else ""
    differences = np.stack([scores[name][place] - scores["default"][place] for scores in draws])
    rng, size = np.random.default_rng(0), (N_RESAMPLES, len(draws))
    drawn = differences[rng.integers(len(draws), size=size), rng.integers(1, N_RESAMPLES + 1, size=size)]
    low, high = np.quantile(drawn.mean(axis=1), (0.025, 0.975))
    return f"{differences[:, 0].mean():+.4f} ({low:+.4f} to {high:+.4f}){'*' if low > 0 or high < 0 else ''}"


if __name__ == "__main__":
    main()
