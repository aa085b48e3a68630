"""Size of an evaluation report and time to write it: python benchmarks/report.py [--clips 5000 --labels 80]

Clips, labels and predictions are random. The clips shown contain noise, which no compression makes small. With --model,
attribution maps are computed for each of them, as `spectag evaluate` does.
"""

import argparse
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from helpers.evaluations import make_evaluation, make_model_evaluation, random_predictions
from spectag.audio.files import write_audio
from spectag.models.tagger import Tagger
from spectag.reporting.evaluation_report.clip_selection import surprising_clips, worst_clips
from spectag.reporting.evaluation_report.page import N_CLIPS, write_report

SAMPLE_RATE = 44_100  # Hz


def write_sounds(predictions, seconds: float) -> None:
    """Write noise with a varying level for the clips that will be shown."""
    worst = worst_clips(predictions, N_CLIPS)
    shown = [*worst, *surprising_clips(predictions, N_CLIPS, without={clip.row for clip in worst})]
    rng = np.random.default_rng(0)
    t = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    for clip in shown:
        noise = rng.normal(0, 0.2, t.size) * (1.1 + np.sin(2 * np.pi * t))
        write_audio(predictions.clips[clip.row].path, noise.astype(np.float32), SAMPLE_RATE)


def main() -> None:
    """Print megabytes and seconds."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--clips", type=int, default=5000)
    parser.add_argument("--labels", type=int, default=80)
    parser.add_argument("--seconds", type=float, default=10.0, help="duration of the clips that are shown")
    parser.add_argument("--model", type=Path, help="folder of a model, whose labels are used")
    parser.add_argument("--keep", type=Path, help="folder to keep the report in")
    options = parser.parse_args()
    tagger = None if options.model is None else Tagger(options.model)
    labels = [f"label {i:03}" for i in range(options.labels)] if tagger is None else tagger.labels.names
    with tempfile.TemporaryDirectory() as folder:
        rng = np.random.default_rng(0)
        predictions = random_predictions(rng, n_clips=options.clips, labels=labels, folder=Path(folder))
        predictions = replace(predictions, durations=np.full(options.clips, options.seconds))
        write_sounds(predictions, options.seconds)
        evaluation = make_evaluation(make_model_evaluation(predictions, tagger=tagger))
        start = time.perf_counter()
        path = write_report(evaluation, (options.keep or Path(folder)) / "report.html")
        seconds = time.perf_counter() - start
        print(f"{options.clips:,} clips, {len(labels)} labels: {path.stat().st_size / 1e6:.1f} MB in {seconds:.1f} s")


if __name__ == "__main__":
    main()
