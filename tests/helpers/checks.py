"""Recordings and a table of detections in them, to check."""

import csv

from helpers.bundles import LABELS, make_bundle, tone
from spectag.audio.files import write_audio

RATE = 16_000


def write_recordings(folder, *, n_days=2, seconds=20):
    """Two sites with a recording on each day, in which the labels take turns every second, and detections of them."""
    folder.mkdir(parents=True)
    rows = []
    for site in ("pond", "ridge"):
        for day in range(1, n_days + 1):
            name = f"{site}_2024050{day}_043000.wav"
            write_audio(folder / name, tone("low", seconds), RATE)
            for second in range(seconds):
                probability = 0.05 + 0.9 * second / seconds
                rows.append((name, second, second + 1, LABELS[second % 3], f"{probability:.3f}"))
    return write_table(folder / "tags.csv", rows)


def write_table(path, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("file", "start", "end", "label", "probability"), *rows])
    return path


def make_checked(folder, **options):
    """A model, and a table of detections in recordings."""
    return make_bundle(folder / "model"), write_recordings(folder / "recordings", **options)
