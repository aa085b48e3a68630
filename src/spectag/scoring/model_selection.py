"""Choices made on held-out clips, and logits for a score that such a choice does not make too good.

The best of several candidates on some clips is partly the luckiest on these clips, so its score on them is too high.
The score is right if the choice for each part of the clips is made on the other parts only.

References
----------
Varma and Simon, "Bias in error estimation when using cross-validation for model selection", BMC Bioinformatics 2006.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from spectag.array_types import BoolArray, FloatArray, IntArray

Score = Callable[[BoolArray | FloatArray, FloatArray], float | None]
"""A score of y_true and logits, both (n_clips, n_labels), higher is better; None if it says nothing."""


@dataclass(frozen=True, eq=False)
class HeldOutLogits:
    """Held-out logits of the chosen settings, and of the settings that are chosen without one part of the clips.

    Attributes
    ----------
    chosen : float array of shape (n_clips, n_labels)
        By the settings of the final model. NaN for clips that were not held out.
    without : sequence of float arrays of shape (n_clips, n_labels)
        One for each part: by the settings that are chosen without the clips of this part. Empty if nothing was chosen.
    """

    chosen: FloatArray
    without: tuple[FloatArray, ...] = ()

    def without_part(self, part: int) -> FloatArray:
        """The logits of all clips by the settings that are chosen without the clips of a part."""
        return self.without[part] if self.without else self.chosen

    def cross_fitted(self, parts: IntArray) -> FloatArray:
        """The logits of each clip by the settings that are chosen without its part.

        Where other settings than the final ones are chosen, the logits are shifted and scaled to the mean and standard
        deviation of the final ones. So one calibration fits all of them, and the order of a clip's labels stays.

        Parameters
        ----------
        parts : int array of shape (n_clips,)
            The part of each clip, from 0; -1 for clips that were not held out.
        """
        result = self.chosen.copy()
        for part, logits in enumerate(self.without):
            result[parts == part] = rescaled(logits, self.chosen)[parts == part]
        return result


def rescaled(logits: FloatArray, reference: FloatArray) -> FloatArray:
    """Logits with the mean and the standard deviation of the reference, over the cells that both have."""
    if logits is reference:
        return logits
    both = ~np.isnan(logits) & ~np.isnan(reference)
    z, target = logits[both], reference[both]
    return np.asarray((logits - z.mean()) * (target.std() / max(z.std(), 1e-12)) + target.mean())


@dataclass(frozen=True, eq=False)
class Choice:
    """The best of some candidates.

    Attributes
    ----------
    best : int
        The candidate with the best score on all clips, for the final model.
    best_without : sequence of int
        For each part, the candidate with the best score on the clips of the other parts.
    is_clear : bool
        Whether the best score on all clips is higher than that of every other candidate.
    """

    best: int
    best_without: tuple[int, ...]
    is_clear: bool

    def logits_of(self, candidates: Sequence[FloatArray]) -> HeldOutLogits:
        """The held-out logits of the choice; `candidates` are those of every candidate, (n_clips, n_labels) each."""
        return HeldOutLogits(candidates[self.best], tuple(candidates[index] for index in self.best_without))


def choose(candidates: Sequence[FloatArray], y_true: BoolArray | FloatArray, parts: IntArray, score: Score) -> Choice:
    """The candidate with the best score on held-out clips, also without each part of them. The first one of equals.

    Parameters
    ----------
    candidates : sequence of float arrays of shape (n_clips, n_labels)
        Held-out logits of every candidate. Clips that have NaN in any of them are ignored.
    y_true : bool array of shape (n_clips, n_labels)
    parts : int array of shape (n_clips,)
        The part of each clip, from 0. Clips with -1 are ignored. All clips of a recording must be in one part.
    score : callable

    Returns
    -------
    Choice
        The first candidate if the score says nothing on all clips, and the choice on all clips if it says nothing
        without a part. With fewer than two parts, there is only the choice on all clips.
    """
    is_usable = (parts >= 0) & ~np.isnan(candidates).any(axis=(0, 2))

    def scores_on(rows: BoolArray) -> FloatArray | None:
        scores = [score(y_true[rows], logits[rows]) for logits in candidates]
        return None if None in scores else np.array(scores, np.float64)

    scores = scores_on(is_usable)
    if scores is None:
        scores = np.zeros(len(candidates))
    best, n_parts = int(scores.argmax()), int(parts.max(initial=-1)) + 1
    without = [scores_on(is_usable & (parts != part)) for part in range(n_parts if n_parts > 1 else 0)]
    return Choice(
        best,
        tuple(best if scores_of_part is None else int(scores_of_part.argmax()) for scores_of_part in without),
        is_clear=(scores == scores[best]).sum() == 1,
    )
