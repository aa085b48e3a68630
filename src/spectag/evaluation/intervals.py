"""Scores with their intervals, from one set of resamples for all that is compared."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from spectag.array_types import FloatArray
from spectag.evaluation.predictions import Predictions
from spectag.evaluation.results import Estimate
from spectag.scoring.bootstrap import CountArray, SampledScores, draw_groups, percentile_interval, sampled_scores


@dataclass(frozen=True)
class Resampling:
    """How intervals are made."""

    n_resamples: int
    confidence: float
    seed: int

    def counts(self, groups: Sequence[Hashable]) -> CountArray:
        """How often each clip counts, (n_clips, 1 + n_resamples): once as it is, then on each resample.

        There are no resamples of a single group: it tells nothing of others.
        """
        n_resamples = self.n_resamples if len(set(groups)) > 1 else 0
        drawn = draw_groups(groups, n_resamples=n_resamples, rng=np.random.default_rng(self.seed))
        return np.concatenate([np.ones((len(groups), 1), np.uint16), drawn], axis=1)

    def estimates(self, samples: FloatArray) -> list[Estimate]:
        """The estimate of each column of samples (1 + n_resamples, n), the value as it is first."""
        lows, highs = [np.full(samples.shape[1], np.nan)] * 2
        if len(samples) > 1:
            lows, highs = percentile_interval(samples[1:], self.confidence)
        undefined = np.isnan(samples[0])  # on the clips as they are: then on resamples, too
        columns = zip(samples[0].tolist(), lows.tolist(), highs.tolist(), undefined, strict=True)
        return [
            Estimate(value) if is_undefined else Estimate(value, low, high)
            for value, low, high, is_undefined in columns
        ]

    def estimate(self, samples: FloatArray) -> Estimate:
        """The estimate of samples (1 + n_resamples,)."""
        return self.estimates(samples[:, None])[0]


def scores_on(predictions: Predictions, counts: CountArray) -> SampledScores:
    """Every score of some predictions, where each clip counts so often."""
    given = predictions.probabilities >= predictions.thresholds
    return sampled_scores(predictions.y_true, predictions.probabilities, given, counts)
