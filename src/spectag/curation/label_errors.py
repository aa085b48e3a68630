"""How likely each label is true: by what networks say of a clip that they did not learn from, and by who labelled it.

Networks are surer of some labels than of others. So the logits of each label are first put on a scale of its own, on
which the typical clip without the label lies at -1 and the typical clip with it at 1; that is what confident learning
does with probabilities. Then a logistic curve, the same for all labels, and how often a label is missing or wrong are
fitted together to the labels that were given. Bayes' rule makes of both the probability that a label is true.

The curve alone would not do: fitted to labels that are partly wrong, it is never sure of anything.

References
----------
Northcutt, Jiang and Chuang, "Confident learning: estimating uncertainty in dataset labels", JAIR 70, 2021.
Bootkrajang and Kabán, "Label-noise robust logistic regression and its applications", ECML PKDD 2012.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, log_expit, logsumexp

from spectag.array_types import BoolArray, FloatArray

_FEW_CLIPS = 3
"""As many clips of a label as its own level counts as much as that of all labels."""
_USUAL_GAP = 4.0  # between a label's logits where it is true and where not, if nothing is known
_LEAST_GAP_SHARE = 0.25  # of that of all labels: of a label that isn't told apart, small differences say nothing
_FARTHEST = 4.0  # levels beyond count as this: there is no sureness without limit
_BINS = 1_000  # of levels, in which they are counted to fit the curve
_SURE = 35.0  # greatest log-odds


@dataclass(frozen=True)
class LabelNoise:
    """What was fitted: the curve expit(scale * level + offset), and how often who labelled was wrong.

    `missed` is the probability that a true label was not given, `false` that one was given that is not true.
    """

    scale: float
    offset: float
    missed: float
    false: float


@dataclass(frozen=True, eq=False)
class LabelPosterior:
    """The log-odds (n_clips, n_labels) that each label is true, and the label noise that they rest on."""

    log_odds: FloatArray
    noise: LabelNoise
    one_each: bool
    """Whether each clip has exactly one label, so that labels exclude each other."""

    @property
    def probabilities(self) -> FloatArray:
        """The probability that each label is true, of shape (n_clips, n_labels)."""
        result: FloatArray = expit(self.log_odds)
        return result

    def doubts(self, given: BoolArray) -> FloatArray:
        """Log-odds (n_clips,) against the given labels: of the label in doubt, that it is otherwise than given."""
        result: FloatArray = -np.where(given, self.log_odds, -self.log_odds).min(axis=1, initial=_SURE)
        return result

    @property
    def likeliest(self) -> BoolArray:
        """The labels that are most likely true, of shape (n_clips, n_labels)."""
        if not self.one_each:
            return self.log_odds > 0
        best = np.zeros(self.log_odds.shape, np.bool_)
        best[np.arange(len(best)), self.log_odds.argmax(axis=1)] = True
        return best

    @property
    def certainty(self) -> FloatArray:
        """The probability (n_clips,) that the likeliest labels are right, all of them."""
        result: FloatArray = (
            self.probabilities.max(axis=1) if self.one_each else np.exp(log_expit(np.abs(self.log_odds)).sum(axis=1))
        )
        return result


def label_posterior(logits: FloatArray, given: BoolArray, judged: BoolArray | None = None) -> LabelPosterior:
    """What is to be believed of each label of each clip.

    Parameters
    ----------
    logits : float array of shape (n_clips, n_labels)
        What networks say of clips that they did not learn from. Of each label only their order and relative distances
        matter, so they need no calibration.
    given : bool array of shape (n_clips, n_labels)
        The labels that may be wrong. Where every clip has exactly one of two or more, one is taken to be true of each.
    judged : bool array of shape (n_labels,), optional
        Labels of which the networks can know something; by default all. Of the others the given labels are believed.

    Raises
    ------
    ValueError
        If the shapes differ, there is no clip or no label, or a logit is not finite.
    """
    if logits.shape != given.shape or logits.ndim != 2 or not logits.size:
        raise ValueError(f"need logits and labels of one shape (n_clips, n_labels), got {logits.shape}, {given.shape}")
    if not np.isfinite(logits).all():
        raise ValueError("logits must be finite")
    levels = label_levels(logits, given)
    if judged is not None:
        levels = np.where(judged, levels, np.where(given, 1.0, -1.0))
    noise = fit_label_noise(levels, given)
    log_odds = noise.scale * levels + noise.offset
    log_odds += np.where(
        given,
        np.log1p(-noise.missed) - np.log(noise.false),
        np.log(noise.missed) - np.log1p(-noise.false),
    )
    one_each = given.shape[1] > 1 and bool((given.sum(axis=1) == 1).all())
    if one_each:
        log_odds = _exclusive(log_odds)
    return LabelPosterior(np.clip(log_odds, -_SURE, _SURE), noise, one_each)


def label_levels(logits: FloatArray, given: BoolArray) -> FloatArray:
    """Logits (n_clips, n_labels) on a scale for each label: -1 the typical clip without it, 1 the typical with it.

    Typical is the median. A label with few clips leans on all the others: where its clips with and without it lie is
    then told by where they lie in general. Of a label whose logits are clearly lower where it was given the networks
    know nothing, and all its clips are typical.
    """
    absent_anywhere = _median(logits[~given], default=_median(logits[given], default=0.0) - _USUAL_GAP)
    n_given, n_absent = given.sum(axis=0), (~given).sum(axis=0)
    columns = list(zip(logits.T, given.T, strict=True))
    without = np.array([_median(column[~has_label], default=absent_anywhere) for column, has_label in columns])
    having = np.array([_median(column[has_label], default=np.nan) for column, has_label in columns])
    absent = _leaning(without, absent_anywhere, n_absent)
    own_gap = np.where(n_given > 0, having - without, 0.0)
    gap_anywhere = (n_given @ own_gap + _FEW_CLIPS * _USUAL_GAP) / (n_given.sum() + _FEW_CLIPS)
    gap_anywhere = max(float(gap_anywhere), _LEAST_GAP_SHARE)
    gap, least_gap = _leaning(own_gap, gap_anywhere, n_given), _LEAST_GAP_SHARE * gap_anywhere
    levels = np.clip(2 * (logits - absent) / np.maximum(gap, least_gap) - 1, -_FARTHEST, _FARTHEST)
    return np.where(gap > -least_gap, levels, np.where(given, 1.0, -1.0))


def _median(values: FloatArray, *, default: float) -> float:
    return float(np.median(values)) if values.size else default


def _leaning(own: FloatArray, general: float, n: NDArray[np.int_]) -> FloatArray:
    """Each label's own value, drawn the more to the general one the fewer clips it has."""
    result: FloatArray = (n * own + _FEW_CLIPS * general) / (n + _FEW_CLIPS)
    return result


def fit_label_noise(levels: FloatArray, given: BoolArray) -> LabelNoise:
    """The curve and the label noise under which the given labels are most likely.

    The noise is fitted as if one label more had been missing and one more wrong, so it is never 0.
    """
    edges = np.linspace(-_FARTHEST, _FARTHEST, _BINS + 1)
    x = (edges[:-1] + edges[1:]) / 2
    n_present, n_absent = (np.histogram(levels[rows], edges)[0] for rows in (given, ~given))

    def loss(parameters: FloatArray) -> float:
        noise = _noise(parameters)
        true = expit(noise.scale * x + noise.offset)
        seen = np.clip((1 - noise.missed) * true + noise.false * (1 - true), 1e-12, 1 - 1e-12)
        likelihood = n_present @ np.log(seen) + n_absent @ np.log1p(-seen)
        prior = log_expit(parameters[2:]).sum() - (parameters[0] - np.log(4.0)) ** 2 / 2
        return -float(likelihood + prior)

    bounds = ((-2.0, 3.5), (-20.0, 20.0), (-8.0, 4.0), (-10.0, 4.0))
    return _noise(minimize(loss, np.array([np.log(3.0), 0.0, -3.0, -5.0]), method="L-BFGS-B", bounds=bounds).x)


def _noise(parameters: FloatArray) -> LabelNoise:
    """Neither kind of error is as likely as not: then labels would say nothing, or the opposite."""
    scale, offset, missed, false = map(float, parameters)
    return LabelNoise(float(np.exp(scale)), offset, float(0.5 * expit(missed)), float(0.5 * expit(false)))


def _exclusive(log_odds: FloatArray) -> FloatArray:
    """Log-odds of each label where exactly one is true of a clip."""
    result = np.empty(log_odds.shape)
    for label in range(log_odds.shape[1]):
        result[:, label] = log_odds[:, label] - logsumexp(np.delete(log_odds, label, axis=1), axis=1)
    return result
