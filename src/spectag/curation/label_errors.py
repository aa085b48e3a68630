"""Confident learning: the probability that each label of each clip is true, given out-of-fold logits and the labels.

Networks are more certain of some labels than of others. So the logits of each label are first scaled such that the
typical clip without the label is at -1, and the typical clip with the label at 1; confident learning does the same with
probabilities. Then a logistic curve, common to all labels, and the rates of missing and false labels are fitted to the
given labels together. Bayes' rule combines both to the probability that a label is true.

The curve alone is not enough: a curve fitted to labels with errors is never certain.

References
----------
Northcutt, Jiang and Chuang, "Confident learning: estimating uncertainty in dataset labels", JAIR 70, 2021.
Bootkrajang and Kabán, "Label-noise robust logistic regression and its applications", ECML PKDD 2012.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, log_expit, logsumexp

from spectag.array_types import BoolArray, FloatArray, IntArray

_PRIOR_CLIPS = 3
"""The weight of the average of all labels in the estimates for one label, as a number of clips."""
_PRIOR_GAP = 4.0  # between the logits with and without a label, if nothing is known
_MIN_GAP_FRACTION = 0.25  # of the average gap; below it, differences between logits are not significant
_MAX_LEVEL = 4.0  # scaled logits are clipped, which bounds the certainty
_N_BINS = 1_000  # of scaled logits, to fit the curve
_MAX_LOG_ODDS = 35.0


@dataclass(frozen=True)
class LabelNoise:
    """The fitted model: the curve expit(scale * scaled_logit + offset), and the error rates of the given labels.

    `missed` is the probability that a true label is not given, `false` the probability that a label that is not true is
    given.
    """

    scale: float
    offset: float
    missed: float
    false: float


@dataclass(frozen=True, eq=False)
class LabelPosterior:
    """The log-odds (n_clips, n_labels) that each label is true, and the label noise that they are based on."""

    log_odds: FloatArray
    noise: LabelNoise
    single_label: bool
    """Whether no clip has more than one label, so that labels exclude each other."""

    @property
    def probabilities(self) -> FloatArray:
        """The probability that each label is true, of shape (n_clips, n_labels)."""
        return np.asarray(expit(self.log_odds))

    def error_log_odds(self, given: BoolArray) -> FloatArray:
        """Log-odds (n_clips,) that the given labels are wrong: those of the clip's most doubtful label."""
        return np.asarray(-np.where(given, self.log_odds, -self.log_odds).min(axis=1, initial=_MAX_LOG_ODDS))

    @property
    def most_likely(self) -> BoolArray:
        """The most likely labels, of shape (n_clips, n_labels)."""
        if not self.single_label:
            return self.log_odds > 0
        is_first = np.eye(self.log_odds.shape[1], dtype=np.bool_)[self.log_odds.argmax(axis=1)]
        return np.asarray(is_first & (self.probabilities > self._no_label[:, None]))

    @property
    def certainty(self) -> FloatArray:
        """The probability (n_clips,) that all the most likely labels are right."""
        if self.single_label:
            return np.asarray(np.maximum(self.probabilities.max(axis=1), self._no_label))
        return np.asarray(np.exp(log_expit(np.abs(self.log_odds)).sum(axis=1)))

    @property
    def _no_label(self) -> FloatArray:
        """The probability (n_clips,) that no label is true, if labels exclude each other."""
        return np.asarray(1 - self.probabilities.sum(axis=1))


def label_posterior(
    logits: FloatArray, given: BoolArray | FloatArray, reliable: BoolArray | None = None
) -> LabelPosterior:
    """The probability that each label of each clip is true.

    Parameters
    ----------
    logits : float array of shape (n_clips, n_labels)
        Predictions of networks that were not trained on the clip. Only the order and the relative distances within each
        label matter, so no calibration is needed.
    given : bool array of shape (n_clips, n_labels)
        The labels to check. If there are at least two and no clip has more than one of them, exactly one label is true
        of each clip that has one, and at most one of each other clip. It may also be 1, 0, and NaN for an unknown
        label: nothing is fitted to it, and it counts as surely absent, so that it is no error.
    reliable : bool array of shape (n_labels,), optional
        Labels that the networks can predict; by default all. Of the other labels, the given values are trusted.

    Raises
    ------
    ValueError
        If the shapes differ, there is no clip or no label, or a logit is not finite.
    """
    if logits.shape != given.shape or logits.ndim != 2 or not logits.size:
        raise ValueError(f"need logits and labels of one shape (n_clips, n_labels), got {logits.shape}, {given.shape}")
    if not np.isfinite(logits).all():
        raise ValueError("logits must be finite")
    levels, has_label = scaled_logits(logits, given), np.asarray(given == 1)
    if reliable is not None:
        levels = np.where(reliable, levels, np.where(has_label, 1.0, -1.0))
    noise = fit_label_noise(levels, given)
    likelihood_ratio = np.where(has_label, (1 - noise.missed) / noise.false, noise.missed / (1 - noise.false))
    log_odds = noise.scale * levels + noise.offset + np.log(likelihood_ratio)
    log_odds = np.where(np.isnan(given), -_MAX_LOG_ODDS, log_odds)
    n_given = has_label.sum(axis=1)
    single_label = given.shape[1] > 1 and int(n_given.max()) == 1
    if single_label:
        log_odds = _exclusive_log_odds(log_odds, may_lack_label=n_given == 0)
    return LabelPosterior(np.clip(log_odds, -_MAX_LOG_ODDS, _MAX_LOG_ODDS), noise, single_label)


def scaled_logits(logits: FloatArray, given: BoolArray | FloatArray) -> FloatArray:
    """Logits (n_clips, n_labels), scaled per label: the median clip without the label is at -1, with the label at 1.

    Estimates for a label with few clips are drawn towards the average of all labels. If the logits of a label are
    clearly lower where it is given, the networks can't predict it, and all its clips are set to -1 or 1.
    """
    has_label, lacks_label = np.asarray(given == 1), np.asarray(given == 0)
    median_absent = _median(logits[lacks_label], default=_median(logits[has_label], default=0.0) - _PRIOR_GAP)
    n_given, n_absent = has_label.sum(axis=0), lacks_label.sum(axis=0)
    label_absent, label_given = (
        np.array([_median(column[rows], default=default) for column, rows in zip(logits.T, cells.T, strict=True)])
        for cells, default in ((lacks_label, median_absent), (has_label, np.nan))
    )
    absent = _shrunk(label_absent, median_absent, n_absent)
    label_gap = np.where(n_given > 0, label_given - label_absent, 0.0)
    mean_gap = (n_given @ label_gap + _PRIOR_CLIPS * _PRIOR_GAP) / (n_given.sum() + _PRIOR_CLIPS)
    mean_gap = max(float(mean_gap), _MIN_GAP_FRACTION)
    gap, min_gap = _shrunk(label_gap, mean_gap, n_given), _MIN_GAP_FRACTION * mean_gap
    levels = np.clip(2 * (logits - absent) / np.maximum(gap, min_gap) - 1, -_MAX_LEVEL, _MAX_LEVEL)
    return np.where(gap > -min_gap, levels, np.where(has_label, 1.0, -1.0))


def _median(values: FloatArray, *, default: float) -> float:
    return float(np.median(values)) if values.size else default


def _shrunk(values: FloatArray, average: float, n_clips: IntArray) -> FloatArray:
    """The values of labels, drawn towards the average; the fewer clips a label has, the more."""
    return np.asarray((n_clips * values + _PRIOR_CLIPS * average) / (n_clips + _PRIOR_CLIPS))


def fit_label_noise(levels: FloatArray, given: BoolArray | FloatArray) -> LabelNoise:
    """The maximum-likelihood curve and error rates for scaled logits and given labels, both (n_clips, n_labels).

    The prior corresponds to one additional missing and one additional false label, so the error rates are never 0.
    """
    edges = np.linspace(-_MAX_LEVEL, _MAX_LEVEL, _N_BINS + 1)
    centers = (edges[:-1] + edges[1:]) / 2
    n_given, n_absent = (np.histogram(levels[rows], edges)[0] for rows in (given == 1, given == 0))

    def loss(parameters: FloatArray) -> float:
        noise = _label_noise(parameters)
        is_true = expit(noise.scale * centers + noise.offset)
        is_given = np.clip((1 - noise.missed) * is_true + noise.false * (1 - is_true), 1e-12, 1 - 1e-12)
        likelihood = n_given @ np.log(is_given) + n_absent @ np.log1p(-is_given)
        prior = log_expit(parameters[2:]).sum() - (parameters[0] - np.log(4.0)) ** 2 / 2
        return -float(likelihood + prior)

    bounds = ((-2.0, 3.5), (-20.0, 20.0), (-8.0, 4.0), (-10.0, 4.0))
    return _label_noise(minimize(loss, np.array([np.log(3.0), 0.0, -3.0, -5.0]), method="L-BFGS-B", bounds=bounds).x)


def _label_noise(parameters: FloatArray) -> LabelNoise:
    """Error rates are below 0.5: otherwise labels would contain no information, or the opposite."""
    scale, offset, missed, false = map(float, parameters)
    return LabelNoise(float(np.exp(scale)), offset, float(0.5 * expit(missed)), float(0.5 * expit(false)))


def _exclusive_log_odds(log_odds: FloatArray, may_lack_label: BoolArray) -> FloatArray:
    """Log-odds of each label if one label of each clip is true; where `may_lack_label` (n_clips,), one or none."""
    no_label = np.where(may_lack_label, 0.0, -np.inf)[:, None]
    options = np.concatenate([log_odds, no_label], axis=1)
    others = [logsumexp(np.delete(options, label, axis=1), axis=1) for label in range(log_odds.shape[1])]
    return np.asarray(log_odds - np.stack(others, axis=1))
