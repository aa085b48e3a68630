"""What a backbone's own classifier says about labels of the same name, as a head on the frozen features."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from spectag.array_types import BoolArray, Float32Array, FloatArray
from spectag.data.label_matching import match_labels
from spectag.data.labels import LabelSet
from spectag.data.readers.delimited_text import abbreviate
from spectag.errors import ConfigError, did_you_mean
from spectag.system.output import quote_commas
from spectag.training.heads.logistic import LinearHead, PrincipalAxes, mean_and_deviation, split_weights

PRIOR_WEIGHTS = (0.35, 0.2, 0.5, 0.1, 0.0)
"""Weights of the classifier's logits, compared by cross-validation. Of equally good ones, the first is used."""

MIN_SEPARATION = 0.5
"""How much higher the classifier's logits must be for the training clips of a label than for the others, in standard
deviations of all its logits."""


@dataclass(frozen=True)
class Classifier:
    """The linear classifier that a backbone was published with.

    Its logits are `features @ weights + bias`, with weights (n_features, n_names), for the sounds `names`. `synonyms`
    are its names for further labels.
    """

    names: Sequence[str]
    weights: FloatArray
    bias: FloatArray
    synonyms: Mapping[str, Sequence[str]]

    @classmethod
    def of_last_features(
        cls,
        weight: Float32Array,
        bias: Float32Array,
        n_features: int,
        names: Sequence[str],
        synonyms: Mapping[str, Sequence[str]],
    ) -> "Classifier":
        """A layer with weight (n_names, n_inputs) and bias (n_names,), whose inputs are the last of the features."""
        weights = np.zeros((n_features, len(weight)))
        weights[-weight.shape[1] :] = weight.T
        return cls(names, weights, bias.astype(np.float64), synonyms)


@dataclass(frozen=True)
class NamePrior:
    """Logits of a backbone's own classifier for the labels: the mean over the names that mean the same.

    Attributes
    ----------
    names : mapping of str to strings
        The classifier's names for each label that has any.
    weights : float array of shape (n_features, n_labels)
    bias : float array of shape (n_labels,)
    has_name : bool array of shape (n_labels,)
    """

    names: Mapping[str, tuple[str, ...]]
    weights: FloatArray
    bias: FloatArray
    has_name: BoolArray

    def head(self, training: PrincipalAxes, targets: BoolArray | FloatArray, like: LinearHead) -> LinearHead:
        """Its logits for a sum with those of other heads.

        Over the training clips and the labels that have a name, they have mean 0 and the standard deviation of all
        logits of the head `like`. They are 0 for labels without a name, and for those whose training clips do not have
        clearly higher logits than the others: then the name means something else.
        """
        center, scale = training.standardization.center, training.standardization.scale
        used = scale > 0
        weights = np.where(used, 1 / np.where(used, scale, 1), 0)[:, None] * self.weights
        head = LinearHead(training.standardization, weights, center @ self.weights + self.bias)
        logits = training.logits(head)
        mean, deviation = mean_and_deviation(logits[:, self.has_name], training.clip_weights)
        factor = mean_and_deviation(training.logits(like), training.clip_weights)[1] / max(deviation, 1e-9)
        separates = self.separates(logits, targets, training.clip_weights)
        bias = np.where(separates, factor * (head.bias - mean), 0)
        return LinearHead(training.standardization, factor * weights * separates, bias)

    def separates(
        self, logits: FloatArray, targets: BoolArray | FloatArray, clip_weights: FloatArray | None = None
    ) -> BoolArray:
        """For which labels (n_labels,) the clips with the label have clearly higher logits than the others.

        `logits` and `targets` have shape (n_clips, n_labels), `clip_weights` (n_clips,). Clips whose label is unknown
        (NaN) do not count for it.
        """
        clip_weights = np.ones(len(logits)) if clip_weights is None else clip_weights
        shares = split_weights(clip_weights, targets)
        with_label, without = ((part * logits).sum(axis=0) / np.maximum(part.sum(axis=0), 1e-9) for part in shares)
        _, deviation = mean_and_deviation(logits[:, self.has_name], clip_weights)
        return np.asarray(self.has_name & (with_label - without > MIN_SEPARATION * deviation))

    def __str__(self) -> str:
        return "; ".join(f"{label} ← {' + '.join(map(quote_commas, names))}" for label, names in self.names.items())


def name_prior(
    classifier: Classifier, labels: LabelSet, label_map: Mapping[str, Sequence[str]] | None = None
) -> NamePrior | None:
    """The prior for the labels whose names the classifier knows; None if it knows none.

    Parameters
    ----------
    classifier : Classifier
    labels : LabelSet
    label_map : mapping of str to sequences of str, optional
        The classifier's names for some labels, instead of those that are found; an empty sequence means none.

    Raises
    ------
    ConfigError
        If `label_map` has an unknown label, or a name that the classifier does not know.
    """
    label_map = label_map or {}
    _check_known("label", label_map, labels.names)
    _check_known("name", [name for names in label_map.values() for name in names], classifier.names)
    found = match_labels(labels.names, classifier.names, classifier.synonyms) | {
        label: tuple(names) for label, names in label_map.items()
    }
    found = {label: found[label] for label in labels.names if found.get(label)}
    if not found:
        return None
    indices = {name: index for index, name in enumerate(classifier.names)}
    shares = np.zeros((len(classifier.names), len(labels)))
    for label, names in found.items():
        shares[[indices[name] for name in names], labels.index(label)] = 1 / len(names)
    return NamePrior(found, classifier.weights @ shares, classifier.bias @ shares, np.asarray(shares.any(axis=0)))


def _check_known(what: str, given: Sequence[str] | Mapping[str, object], known: Sequence[str]) -> None:
    if unknown := [name for name in given if name not in known]:
        suggestion = did_you_mean(unknown[0], known) or "."
        raise ConfigError(f"label_map: unknown {what} {abbreviate(unknown)}{suggestion}")
