"""Clips that are cut and mixed from a few made-up recordings."""

import csv

import numpy as np

from spectag.audio.files import write_audio

RATE = 16_000


def recording_of_tones(rng, seconds=4):
    """Random tone bursts, 20 a second."""
    time = np.arange(RATE // 5) / RATE
    waveform = np.zeros(seconds * RATE, np.float32)
    for start in rng.integers(len(waveform) - len(time), size=20 * seconds):
        waveform[start : start + len(time)] += np.sin(2 * np.pi * rng.uniform(200, 7000) * time) * np.hanning(len(time))
    return waveform / np.abs(waveform).max()


def write_clips(folder, rng, *, n_clips, n_recordings, n_sounds, extra_columns=()):
    """Clips of random excerpts of recordings. Each recording has one of two labels by chance: there is nothing to learn
    about new recordings. Returns the table and the recordings of each clip."""
    recordings = [recording_of_tones(rng) for _ in range(n_recordings)]
    contents = [rng.choice(n_recordings, size=rng.choice(n_sounds), replace=False) for _ in range(n_clips)]
    for number, content in enumerate(contents):
        starts = rng.integers(RATE, size=len(content))
        excerpts = [recordings[i][start : start + 3 * RATE] for i, start in zip(content, starts, strict=True)]
        write_audio(folder / f"{number}.wav", 0.3 * np.sum(excerpts, axis=0), RATE)
    with (folder / "clips.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["fname", "labels", *extra_columns])
        for number, content in enumerate(contents):
            labels = sorted({"ab"[i % 2] for i in content})
            writer.writerow([f"{number}.wav", ",".join(labels), *(str(number % 4) for _ in extra_columns)])
    return folder / "clips.csv", contents
