"""Size of a report and time to write it: python benchmarks/report.py [--clips 5000 --labels 80 --seconds 10]

The clips, their labels and what a tagger says of them are made up; the clips that are shown hold noise, which no
compression makes small. With --model, a tagger is asked where it looked in each of them, as `spectag evaluate` does.
"""

import argparse
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from made_evaluation import made_evaluation, made_model, made_predictions

from spectag.audio.files import write_audio
from spectag.models.tagger import Tagger
from spectag.reporting.evaluation_report.clip_selection import surprises, worst_clips
from spectag.reporting.evaluation_report.page import N_CLIPS, write_report

SAMPLE_RATE = 44_100  # Hz


def write_sounds(predictions, seconds: float) -> None:
    """Noise that comes and goes, for the clips that will be shown."""
    worst = worst_clips(predictions, N_CLIPS)
    shown = [*worst, *surprises(predictions, N_CLIPS, without={clip.row for clip in worst})]
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
    parser.add_argument("--seconds", type=float, default=10.0, help="length of the clips that are shown")
    parser.add_argument("--model", type=Path, help="folder of a tagger; it says how many labels there are")
    parser.add_argument("--final-model", type=Path, help="folder for the report")
    options = parser.parse_args()
    tagger = None if options.model is None else Tagger(options.model)
    labels = [f"label {i:03}" for i in range(options.labels)] if tagger is None else tagger.labels.names
    with tempfile.TemporaryDirectory() as folder:
        rng = np.random.default_rng(0)
        predictions = made_predictions(rng, n_clips=options.clips, labels=labels, folder=Path(folder))
        predictions = replace(predictions, durations=np.full(options.clips, options.seconds))
        write_sounds(predictions, options.seconds)
        evaluation = made_evaluation(made_model(predictions, tagger=tagger))
        start = time.perf_counter()
        path = write_report(evaluation, (options.keep or Path(folder)) / "report.html")
        seconds = time.perf_counter() - start
        print(f"{options.clips:,} clips, {len(labels)} labels: {path.stat().st_size / 1e6:.1f} MB in {seconds:.1f} s")


if __name__ == "__main__":
    main()
