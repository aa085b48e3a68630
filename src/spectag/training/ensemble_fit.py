"""The trained members of an ensemble, their scores, and the weights of their logits."""

from dataclasses import dataclass

import numpy as np

from spectag.array_types import FloatArray
from spectag.scoring.blending import EnsembleWeights
from spectag.system.epoch_log import Epoch
from spectag.training.heads.per_fold import WindowLogits
from spectag.training.members.bundle_member import BundleMember
from spectag.training.members.member import MemberFit, MemberInputs


@dataclass(frozen=True)
class MemberScore:
    """Held-out score of a member and of the ensemble up to this member; None if no labelled clip is held out.

    `metric` is lwlrap, or mAP where lwlrap is not defined.
    """

    name: str
    metric: str
    score: float | None
    ensemble_score: float | None
    weight: float
    seconds: float

    def __str__(self) -> str:
        minutes, seconds = divmod(round(self.seconds), 60)
        duration = f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
        if self.score is None or self.ensemble_score is None:
            return f"{self.name}: {duration}"
        scores = f"held-out {self.metric} {self.score:.4f}, ensemble so far {self.ensemble_score:.4f}"
        return f"{self.name}: {scores}, {duration}"


@dataclass(frozen=True)
class EnsembleFit:
    """The trained members, their inputs and scores, and the weights of their logits.

    `logits` (n_clips, n_labels) are held-out logits of the ensemble, with all settings and weights chosen without the
    part of the clip; NaN for clips that were never held out.
    """

    inputs: tuple[MemberInputs, ...]
    fits: tuple[MemberFit, ...]
    weights: EnsembleWeights
    logits: FloatArray
    scores: tuple[MemberScore, ...]

    @property
    def epochs(self) -> tuple[Epoch, ...]:
        """The epochs of all members."""
        return tuple(epoch for fit in self.fits for epoch in fit.epochs)

    @property
    def window_logits(self) -> WindowLogits | None:
        """Held-out logits of windows; None if one of the networks does not have them, or has other windows."""
        weights = self.weights.weights
        used = [fit.window_logits for fit, weight in zip(self.fits, weights, strict=True) if weight]
        known = [windows for windows in used if windows is not None]
        if len(known) < len(used) or any(not np.array_equal(windows.clips, known[0].clips) for windows in known):
            return None
        combined = EnsembleWeights(tuple(weight for weight in weights if weight), self.weights.bias)
        return WindowLogits(known[0].clips, combined([windows.logits for windows in known]))

    @property
    def member_with_frames(self) -> MemberInputs | None:
        """The first network of the ensemble that gives frames of the input of the first one; None if none does."""
        used = [inputs for inputs, weight in zip(self.inputs, self.weights.weights, strict=True) if weight]
        fitting = (inputs for inputs in used if inputs.front_end == used[0].front_end and inputs.gives_frames)
        return next(fitting, None)

    def bundle_members(self) -> tuple[list[BundleMember], EnsembleWeights]:
        """All networks and their weights. The networks of one member share its weight equally."""
        members, weights = [], []
        for inputs, fit, weight in zip(self.inputs, self.fits, self.weights.weights, strict=True):
            for network in fit.networks:
                members.append(
                    BundleMember(
                        recipe=inputs.recipe,
                        front_end=inputs.front_end,
                        network=network,
                        clips=inputs.clips,
                        store=inputs.store,
                        weights_sha256=inputs.store.weights_sha256,
                        other_weights=fit.other_weights,
                        novelty=fit.novelty,
                    )
                )
                weights.append(weight / len(fit.networks))
        return members, EnsembleWeights(tuple(weights), self.weights.bias)
