"""Distributions of the evaluated clips: their durations, and how many clips each label has."""

from dataclasses import dataclass

import numpy as np

from spectag.array_types import FloatArray, IntArray
from spectag.evaluation.results import ModelEvaluation
from spectag.evaluation.slices import are_nearly_equal

_N_BINS = 24
_MAX_LINEAR_RATIO = 20.0  # longest over shortest duration; above, the axis is logarithmic


@dataclass(frozen=True, eq=False)
class DurationHistogram:
    """Durations of clips in seconds."""

    edges: FloatArray  # (n_bins + 1,)
    counts: IntArray  # (n_bins,)
    shortest: float
    longest: float
    median: float
    is_logarithmic: bool

    @property
    def is_uniform(self) -> bool:
        """Whether the durations are practically equal, so that there are no slices by duration either."""
        return are_nearly_equal(np.array([self.shortest, self.longest]))

    @property
    def bars(self) -> list[tuple[float, float, int]]:
        """Start, end and count of each bin."""
        return list(zip(self.edges.tolist(), self.edges[1:].tolist(), self.counts.tolist(), strict=False))


def duration_histogram(durations: FloatArray) -> DurationHistogram | None:
    """The histogram of the durations that are known; None if none is, as for images."""
    known = durations[np.isfinite(durations)]
    if not known.size:
        return None
    shortest, longest = float(known.min()), float(known.max())
    is_logarithmic = longest > _MAX_LINEAR_RATIO * max(shortest, 1e-3)
    low = max(shortest, 1e-3) if is_logarithmic else 0.0
    edges = (np.geomspace if is_logarithmic else np.linspace)(low, longest, _N_BINS + 1)
    counts = np.histogram(known.clip(low, longest), edges)[0]
    return DurationHistogram(edges, counts, shortest, longest, float(np.median(known)), is_logarithmic)


def labels_by_clips(model: ModelEvaluation) -> list[tuple[int, str, int]]:
    """Each label's index, name and number of clips, most clips first."""
    counts = model.n_clips_per_label
    order = np.argsort(-counts, kind="stable").tolist()
    return [(label, model.labels.names[label], int(counts[label])) for label in order]
