"""Made-up sounds in recordings, and detections of them, which overlap less the lower their probability is."""

import numpy as np

from spectag.scoring.event_scores import SoundEvents


def made_events(n_recordings=12, n_labels=3, seed=3):
    """True sounds, a function that returns the detections at a threshold, and the lengths of the recordings."""
    rng = np.random.default_rng(seed)
    n_true = 20 * n_recordings
    starts = rng.uniform(0, 55, n_true).round(3)
    truth = SoundEvents(
        rng.integers(0, n_recordings, n_true),
        starts,
        starts + rng.uniform(0.3, 5, n_true).round(3),
        rng.integers(0, n_labels, n_true),
    ).merged()
    n_false = 60
    error = rng.normal(0, 0.4, (2, len(truth)))
    false_starts = rng.uniform(0, 57, n_false)
    recordings = np.r_[truth.recordings, rng.integers(0, n_recordings, n_false)]
    labels = np.r_[
        np.where(rng.random(len(truth)) < 0.1, rng.integers(0, n_labels, len(truth)), truth.labels),
        rng.integers(0, n_labels, n_false),
    ]
    begin = np.r_[np.maximum(truth.starts + error[0], 0), false_starts]
    end = np.maximum(np.r_[truth.ends + error[1], false_starts + rng.uniform(0.5, 3, n_false)], begin + 0.1)
    probabilities = np.r_[np.clip(rng.normal(0.6, 0.2, len(truth)), 0, 1), rng.uniform(0, 0.8, n_false)]

    def detected(threshold):
        rows = probabilities >= threshold
        return SoundEvents(recordings[rows], begin[rows].round(3), end[rows].round(3), labels[rows]).merged()

    return truth, detected, np.full(n_recordings, 60.0)
