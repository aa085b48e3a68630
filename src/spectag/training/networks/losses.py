"""Multi-label losses of logits.

A target is 1 for a true label, 0 for a false one, in between for a label probability, label smoothing or mixup, and, in
`clip_losses`, NaN if unknown. The loss of a target t is t times the loss of a true label plus 1 - t times that of a
false one (LSEP weights its pairs so). Every loss and its gradient are finite for logits of ±100.
"""

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

from spectag.config.training import LossConfig


def bce(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy of each label; all arrays have shape (batch, n_labels)."""
    return binary_cross_entropy_with_logits(logits, targets, reduction="none")


def focal(logits: Tensor, targets: Tensor, *, gamma: float) -> Tensor:
    """Focal loss of each label: cross-entropy times (1 - probability of the true state) ** gamma.

    References
    ----------
    Lin et al., "Focal loss for dense object detection", ICCV 2017; without alpha, which class weights replace.
    """
    return asymmetric(logits, targets, gamma_positive=gamma, gamma_negative=gamma, margin=0.0)


def asymmetric(
    logits: Tensor, targets: Tensor, *, gamma_positive: float, gamma_negative: float, margin: float
) -> Tensor:
    """Asymmetric loss of each label: focal loss with one gamma for true and one for false labels.

    The probability of a false label is reduced by `margin`; below the margin its loss is 0.

    References
    ----------
    Ridnik et al., "Asymmetric loss for multi-label classification", ICCV 2021. As in its equations, the gradient flows
    through the factor with gamma too.
    """
    tiny = torch.finfo(logits.dtype).tiny  # the gradient of a root is infinite at 0
    factor = torch.sigmoid(-logits).clamp(min=tiny) ** gamma_positive
    if_true = -factor * logsigmoid(logits)
    shifted_factor = (torch.sigmoid(logits) - margin).clamp(min=tiny) ** gamma_negative
    log_margin = logits.new_full((), margin).log()  # -inf for a margin of 0
    if_false = -shifted_factor * torch.logaddexp(logsigmoid(-logits), log_margin).clamp(max=0)
    return _interpolated(if_true, if_false, targets)


def bootstrap(logits: Tensor, targets: Tensor, *, beta: float) -> Tensor:
    """Cross-entropy of each label with the target beta * target + (1 - beta) * probability.

    The gradient also flows through the network's probability, as in the paper, which rewards confident predictions. A
    constant probability would only scale the gradient of the cross-entropy by beta.

    References
    ----------
    Reed et al., "Training deep neural networks on noisy labels with bootstrapping", ICLR 2015 workshop (soft version).
    """
    return bce(logits, beta * targets + (1 - beta) * torch.sigmoid(logits))


def lq(logits: Tensor, targets: Tensor, *, q: float) -> Tensor:
    """L_q loss of each label: (1 - probability of the true state ** q) / q, for 0 < q <= 1.

    References
    ----------
    Zhang and Sabuncu, "Generalized cross entropy loss for training deep neural networks with noisy labels",
    NeurIPS 2018; here with two classes for each label.
    """
    if_true, if_false = (-torch.expm1(q * logsigmoid(values)) / q for values in (logits, -logits))
    return _interpolated(if_true, if_false, targets)


def _interpolated(if_true: Tensor, if_false: Tensor, targets: Tensor) -> Tensor:
    return targets * if_true + (1 - targets) * if_false


def lsep(
    logits: Tensor, targets: Tensor, *, known: Tensor | None = None, label_weights: Tensor | None = None
) -> Tensor:
    """Ranking loss of each clip: log(1 + sum over all pairs of exp(logit of false label - logit of true label)).

    Parameters
    ----------
    logits, targets : Tensor of shape (batch, n_labels)
        The weight of a pair of labels v and u is targets_v * (1 - targets_u); a label is not paired with itself.
    known : bool Tensor of shape (batch, n_labels), optional
        Only pairs of known labels count.
    label_weights : Tensor of shape (n_labels,), optional
        Weights of the pairs by their true label.

    Returns
    -------
    Tensor of shape (batch,)
        0, without a gradient, for clips without a pair. Needs memory for batch * n_labels ** 2 numbers.

    References
    ----------
    Li, Song and Luo, "Improving pairwise ranking for multi-label image classification", CVPR 2017.
    """
    positive, negative = targets, 1 - targets
    if label_weights is not None:
        positive = positive * label_weights
    if known is not None:
        positive, negative = positive * known, negative * known
    weights = positive[:, :, None] * negative[:, None, :]  # (batch, true label, false label)
    diagonal = torch.eye(logits.shape[1], dtype=torch.bool, device=logits.device)
    pairs = logits[:, None, :] - logits[:, :, None] + weights.masked_fill(diagonal, 0).log()
    zero = logits.new_zeros(len(logits), 1)  # exp(0) is the 1 in the logarithm
    return torch.cat([zero, pairs.flatten(1)], dim=1).logsumexp(dim=1)


def smoothed(targets: Tensor, amount: float) -> Tensor:
    """Targets scaled to the range from amount / 2 to 1 - amount / 2; NaN stays NaN."""
    return (1 - amount) * targets + amount / 2


def class_weights(n_clips_per_label: Tensor) -> Tensor:
    """Weights (n_labels,) proportional to 1 / sqrt(max(clips, 1)), with mean 1."""
    weights = n_clips_per_label.clamp(min=1).rsqrt()
    return weights / weights.mean()


def clip_losses(logits: Tensor, targets: Tensor, config: LossConfig, *, label_weights: Tensor | None = None) -> Tensor:
    """The loss of each clip according to the settings.

    Parameters
    ----------
    logits : Tensor of shape (batch, n_labels)
        If in half precision, the loss is computed in single precision.
    targets : Tensor of shape (batch, n_labels)
        From 0 to 1; NaN is an unknown label, which adds nothing to the loss or the gradient.
    label_weights : Tensor of shape (n_labels,), optional
        Such as `class_weights`: factors of the losses of the labels; in lsep, of the pairs by their true label.

    Returns
    -------
    Tensor of shape (batch,)
        The sum of the (weighted) losses of the clip's known labels divided by their number, so that the mean over
        clips without unknown labels is torch's `binary_cross_entropy_with_logits`; lsep has one loss for all labels
        together. 0 for a clip without known labels.

    Raises
    ------
    ValueError
        If the shapes do not match.
    """
    if logits.ndim != 2 or logits.shape != targets.shape:
        shapes = f"{tuple(logits.shape)} and {tuple(targets.shape)}"
        raise ValueError(f"need logits and targets of one shape (batch, n_labels), got {shapes}")
    if label_weights is not None and label_weights.shape != logits.shape[1:]:
        shape = tuple(label_weights.shape)
        raise ValueError(f"need a weight for each of {logits.shape[1]} labels, got shape {shape}")
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    targets = smoothed(targets.to(logits.dtype), config.label_smoothing)
    weights = None if label_weights is None else label_weights.to(logits.dtype)
    unknown = targets.isnan()
    logits, targets = logits.masked_fill(unknown, 0), targets.masked_fill(unknown, 0)
    if config.kind == "lsep":
        return lsep(logits, targets, known=~unknown, label_weights=weights)
    losses = _label_losses(logits, targets, config).masked_fill(unknown, 0)
    if weights is not None:
        losses = losses * weights
    return losses.sum(dim=1) / (~unknown).sum(dim=1).clamp(min=1)


def _label_losses(logits: Tensor, targets: Tensor, config: LossConfig) -> Tensor:
    match config.kind:
        case "focal":
            return focal(logits, targets, gamma=config.gamma)
        case "asymmetric":
            gammas = {"gamma_positive": config.gamma_positive, "gamma_negative": config.gamma_negative}
            return asymmetric(logits, targets, **gammas, margin=config.margin)
        case "bootstrap":
            return bootstrap(logits, targets, beta=config.beta)
        case "lq":
            return lq(logits, targets, q=config.q)
        case _:
            return bce(logits, targets)
