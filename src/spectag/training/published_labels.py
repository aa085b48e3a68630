"""Labels of a published model that a trained one has as well: one network computes the features of both."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from spectag.array_types import BoolArray, FloatArray, IntArray
from spectag.config.backbones import PUBLISHED
from spectag.data.labels import LabelSet, spelling_of
from spectag.data.readers.delimited_text import abbreviate
from spectag.errors import ConfigError
from spectag.models.bundle import ExtensionInfo
from spectag.models.pretrained import AUDIOSET, THRESHOLD, audioset_labels
from spectag.scoring.calibration import Calibration
from spectag.scoring.calibration_curves import linear_curve
from spectag.training.heads.head_weights import HeadWeights
from spectag.training.members.bundle_member import BundleMember
from spectag.training.members.bundle_network import FrozenNetwork
from spectag.training.networks.feature_network import LinearClassifier


@dataclass(frozen=True, eq=False)
class PublishedLabels:
    """Labels of a published model that come after the own labels of a training."""

    model: str
    """Its name, such as audioset-mn04."""
    names: tuple[str, ...]
    columns: IntArray
    """Their indices among all labels of the published model, (n_names,)."""
    replaced: tuple[str, ...]
    """Its labels that own labels replace, because they have the same name."""

    @classmethod
    def beside(cls, own: LabelSet, model: str) -> Self:
        """The labels of a published model that none of the own labels replaces.

        Names are the same if they differ only by case, spaces, hyphens, underscores or Unicode form.

        Raises
        ------
        ConfigError
            If no label is left.
        """
        names, spellings = audioset_labels(), {spelling_of(label) for label in own.names}
        kept = [column for column, name in enumerate(names) if spelling_of(name) not in spellings]
        if not kept:
            raise ConfigError(f"extend = {model}: the own labels replace all of its labels; leave it out")
        replaced = tuple(name for column, name in enumerate(names) if column not in set(kept))
        return cls(model, tuple(names[column] for column in kept), np.array(kept), replaced)

    def __str__(self) -> str:
        """For the log."""
        without = f", without {abbreviate(self.replaced)}, which own labels replace" if self.replaced else ""
        return (
            f"the model also has {len(self.names)} labels of {self.model}{without}; they keep their thresholds of "
            f"{THRESHOLD:g}, and have no out-of-fold predictions, so the scores are those of the own labels"
        )

    @property
    def info(self) -> ExtensionInfo:
        """For spectag.json."""
        citation = PUBLISHED[self.model].citation
        return ExtensionInfo(model=self.model, n_labels=len(self.names), data=AUDIOSET, source=citation)

    def with_thresholds(
        self, thresholds: FloatArray, is_fitted: BoolArray, of_windows: FloatArray | None
    ) -> tuple[FloatArray, BoolArray, FloatArray | None]:
        """The thresholds of all labels: those of the published model are not fitted, and hold for windows, too."""
        added = np.full(len(self.names), THRESHOLD)
        return (
            np.concatenate([thresholds, added]),
            np.append(is_fitted, [False] * len(added)),
            None if of_windows is None else np.concatenate([of_windows, added]),
        )

    def calibration_with(self, own: Calibration | None) -> Calibration | None:
        """The calibration of all labels: those of the published model have the plain sigmoid."""
        if own is None:
            return None
        return Calibration(method=own.method, curves=(*own.curves, *[linear_curve(1.0, 0.0)] * len(self.names)))

    def added_to(self, members: Sequence[BundleMember]) -> list[BundleMember]:
        """The networks, which must be a single frozen one, with the logits of these labels after those of its own.

        They have no novelty, because it says whether a sound is like the own training clips, but not whether the
        published model knows it.
        """
        [member] = members
        network = member.network
        assert isinstance(network, FrozenNetwork)
        classifier = network.store.network.classifier()
        assert classifier is not None  # recipes with other networks are refused
        n_own, windows = len(network.head.bias), network.windows
        extended = replace(
            network,
            head=with_classifier(network.head, classifier, self.columns),
            windows=None if windows is None else replace(windows, n_labels=n_own),
        )
        return [replace(member, network=extended, novelty=None)]


def with_classifier(head: HeadWeights, classifier: LinearClassifier, columns: IntArray) -> HeadWeights:
    """A linear head with further logits: those of a layer on the last features that are not standardised.

    Parameters
    ----------
    head : HeadWeights
        Of n_features standardised features. Its logits stay the same.
    classifier : LinearClassifier
        Of fewer inputs, which are the last features.
    columns : int array of shape (n_added,)
        The outputs of the classifier to add.
    """
    center, scale = (head.arrays[name].astype(np.float64) for name in ("center", "scale"))
    is_ignored = scale == 0  # by the head, but not by the classifier
    own, scale = np.where(is_ignored, 0, head.weight), np.where(is_ignored, 1, scale)
    weight, n_inputs = classifier.weight[columns].astype(np.float64), classifier.weight.shape[1]
    added = np.zeros((len(columns), len(scale)))
    added[:, -n_inputs:] = weight / scale[-n_inputs:]
    bias = classifier.bias[columns] + weight @ center[-n_inputs:]
    arrays = {
        "center": center,
        "scale": scale,
        "linear.weight": np.concatenate([own, added]),
        "linear.bias": np.concatenate([head.bias, bias]),
    }
    return HeadWeights(head.kind, {name: values.astype(np.float32) for name, values in arrays.items()})
