"""Every backbone whose weights are at hand: scores on new recordings, speed, memory, size, licence.

    python benchmarks/backbones.py CLIPS.csv [--backbones NAME ...] [--seeds 1 2 3] [--work FOLDER] [--write FILE]

CLIPS.csv is the table of benchmarks/competition.py. The scores are those of frozen features with the default head, on
recordings that were not trained on, as in benchmarks/heads.py: accuracy in the given folds; accuracy with two and four
recordings per label; and lwlrap on mixed clips after training on 300 mixed clips of three recordings per label. Each is
a mean over folds, draws or seeds, with a 95 % interval (Student's t). Speed and memory are those of a process of its
own that tags five minutes of noise in windows of 5 s on one core, without the start. --write keeps the figures for
`spectag models`. A backbone is a name of docs/reference/backbones.md, or a network card.
"""

import argparse
import dataclasses
import json
import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import heads
from few_recordings import draw_one_clip_each
from spectag.config.backbones import BACKBONES, backbone_spec
from spectag.config.recipe import Recipe
from spectag.data.manifest import read_manifest
from spectag.errors import SpectagError, first_line
from spectag.models.backbone_figures import BackboneFigures
from spectag.models.card_run import peak_memory
from spectag.models.tagger import Tagger
from spectag.training.pipeline import train

KIND = heads.KINDS[-1]
"""The default head of `spectag train`."""
SECONDS, WINDOW = 300, 5.0


def main() -> None:
    arguments = _parser().parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        rows = list(measured(arguments, arguments.work or Path(temporary)))
    if arguments.write is not None:
        rows_json = json.dumps([dataclasses.asdict(figures) for figures in rows], indent=1)
        arguments.write.write_text(rows_json + "\n", encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path)
    parser.add_argument("--backbones", nargs="+", default=list(BACKBONES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--draws", type=int, default=10, help="of few recordings")
    parser.add_argument("--work", type=Path, help="by default a temporary folder")
    parser.add_argument("--write", type=Path, metavar="FILE", help="JSON file of the figures")
    return parser


def measured(options: argparse.Namespace, work: Path) -> Iterator[BackboneFigures]:
    """The figures of each backbone that can be opened; prints a row of the table for each."""
    names = ["folds", "2 recordings", "4 recordings", "mixed clips"]
    print(f"| backbone | {' | '.join(names)} | times real time | memory, MB | model, MB | licence |\n|{'---|' * 9}")
    for backbone in options.backbones:
        try:
            found = dict(zip(names, of_data_sets(heads.Features(backbone, work), work, options), strict=True))
            speed, memory, size = cost(backbone, options.clips, work)
        except SpectagError as error:
            print(f"{backbone}: {first_line(error)}", flush=True)
            continue
        figures = BackboneFigures(backbone, found, speed, memory, size, backbone_spec(backbone).licence)
        cells = [f"{mean:.3f} ({low:.3f} to {high:.3f})" for mean, low, high in figures.scores.values()]
        numbers = f"{speed:,.0f} | {memory:,.0f} | {size:.1f}"
        print(f"| `{backbone}` | {' | '.join(cells)} | {numbers} | {figures.licence} |", flush=True)
        yield figures


def of_data_sets(
    features: heads.Features, work: Path, options: argparse.Namespace
) -> Iterator[tuple[float, float, float]]:
    """Mean score and interval on each of the data sets."""
    table = read_manifest(options.clips, group_column="source")
    data, y_true, folds = features(table), table.multi_hot(), np.array(table.folds)
    yield interval(
        [heads.compare(table, data, folds != fold, features.recipe, [KIND])[KIND] for fold in np.unique(folds)]
    )
    for n_recordings in (2, 4):
        draws = []
        for seed in range(options.draws):
            rows = draw_one_clip_each(y_true, np.array(table.groups), n_recordings, np.random.default_rng(seed))
            is_train = np.isin(np.arange(len(folds)), rows)
            draws.append(heads.compare(table, data, is_train, features.recipe, [KIND])[KIND])
        yield interval(draws)
    mixed = []
    for seed in options.seeds:
        train_set, test_set = heads.competition(work / f"mixed-{seed}", options.clips, 3, heads.N_TRAIN, seed)
        sets = train_set, features(train_set), test_set, features(test_set)
        mixed.append(heads.compare_sets(*sets, features, wrong=0, seed=seed, kinds=[KIND])[KIND])
    yield interval(mixed)


def interval(values: list[float]) -> tuple[float, float, float]:
    """The mean of some scores, and its 95 % interval."""
    sample: NDArray[np.float64] = np.array(values)
    error = heads.half_interval(sample)
    return float(sample.mean()), float(sample.mean() - error), float(min(sample.mean() + error, 1))


def cost(backbone: str, clips: Path, work: Path) -> tuple[float, float, float]:
    """Times real time on one core, peak memory in MB, and the size of a model with this backbone in MB."""
    model = work / backbone.replace("/", "-")
    manifest = read_manifest(clips, group_column="source")
    train(manifest, model, Recipe(backbone=backbone, folds="none"))
    size = sum(path.stat().st_size for path in model.rglob("*") if path.is_file()) / 1e6
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        speed, memory = pool.apply(tag_noise, (model,))
    return speed, memory, size


def tag_noise(model: Path) -> tuple[float, float]:
    """Times real time, and the peak memory of this process in MB."""
    tagger = Tagger(model, n_threads=1)
    waveform = np.random.default_rng(0).normal(0, 0.1, SECONDS * 32_000).astype(np.float32)
    tagger.tag(waveform[: 32_000 * int(WINDOW)], 32_000)  # opens the network
    start = time.process_time()
    for _ in tagger.tag_windows(waveform, WINDOW, sample_rate=32_000):
        pass
    seconds = time.process_time() - start
    return SECONDS / seconds, (peak_memory() or 0) / 1e6


if __name__ == "__main__":
    main()
