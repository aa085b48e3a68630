"""Losses of several labels at once, from logits.

A target is 1 where the label is true, 0 where it is not, in between where it is partly so or was smoothed or blended,
and for `clip_losses` NaN where nobody knows. A target t costs t times what a true label costs and 1 - t times what a
false one does (LSEP: its pairs weigh so much). Every loss and its gradient stay finite for logits of ±100.
"""

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

from spectag.config.training import LossConfig


def bce(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy of each label: (batch, n_labels) as both arguments."""
    return binary_cross_entropy_with_logits(logits, targets, reduction="none")


def focal(logits: Tensor, targets: Tensor, *, gamma: float) -> Tensor:
    """Focal loss of each label: cross-entropy times (1 - probability of the truth) ** gamma.

    References
    ----------
    Lin et al., "Focal loss for dense object detection", ICCV 2017; without its alpha, for which class weights stand.
    """
    return asymmetric(logits, targets, gamma_positive=gamma, gamma_negative=gamma, margin=0.0)


def asymmetric(
    logits: Tensor, targets: Tensor, *, gamma_positive: float, gamma_negative: float, margin: float
) -> Tensor:
    """Asymmetric loss of each label: focal, with a gamma for the true and one for the false labels.

    A false label counts as less probable by `margin`, and no longer at all from there down.

    References
    ----------
    Ridnik et al., "Asymmetric loss for multi-label classification", ICCV 2021. As in its equations, the gradient flows
    through the factor of gamma too.
    """
    tiny = torch.finfo(logits.dtype).tiny  # the gradient of a root is infinite at 0
    factor = torch.sigmoid(-logits).clamp(min=tiny) ** gamma_positive
    if_true = -factor * logsigmoid(logits)
    shifted_factor = (torch.sigmoid(logits) - margin).clamp(min=tiny) ** gamma_negative
    log_margin = logits.new_full((), margin).log()  # -inf for none
    if_false = -shifted_factor * torch.logaddexp(logsigmoid(-logits), log_margin).clamp(max=0)
    return _blend(if_true, if_false, targets)


def bootstrap(logits: Tensor, targets: Tensor, *, beta: float) -> Tensor:
    """Cross-entropy of each label with the target beta * target + (1 - beta) * probability.

    The gradient flows through the network's own probability as well, as in the paper: that rewards being sure. Held
    constant, it would do nothing but scale the gradient of cross-entropy by beta.

    References
    ----------
    Reed et al., "Training deep neural networks on noisy labels with bootstrapping", ICLR 2015 workshop; the soft one.
    """
    return bce(logits, beta * targets + (1 - beta) * torch.sigmoid(logits))


def lq(logits: Tensor, targets: Tensor, *, q: float) -> Tensor:
    """L_q loss of each label: (1 - probability of the truth ** q) / q, for q above 0 up to 1.

    References
    ----------
    Zhang and Sabuncu, "Generalized cross entropy loss for training deep neural networks with noisy labels",
    NeurIPS 2018; here each label is a choice between two classes.
    """
    if_true, if_false = (-torch.expm1(q * logsigmoid(side)) / q for side in (logits, -logits))
    return _blend(if_true, if_false, targets)


def _blend(if_true: Tensor, if_false: Tensor, targets: Tensor) -> Tensor:
    return targets * if_true + (1 - targets) * if_false


def lsep(
    logits: Tensor, targets: Tensor, *, known: Tensor | None = None, label_weights: Tensor | None = None
) -> Tensor:
    """Rank loss of each clip: log(1 + sum of exp(logit of false label - logit of true label) over all such pairs).

    Parameters
    ----------
    logits, targets : Tensor of shape (batch, n_labels)
        The pair of labels v and u weighs targets_v * (1 - targets_u); no label makes a pair with itself.
    known : bool Tensor of shape (batch, n_labels), optional
        Only pairs of two known labels count.
    label_weights : Tensor of shape (n_labels,), optional
        Weigh the pairs by their true label.

    Returns
    -------
    Tensor of shape (batch,)
        0, without a gradient, for clips that have no pair. It takes memory for batch * n_labels ** 2 numbers.

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
    itself = torch.eye(logits.shape[1], dtype=torch.bool, device=logits.device)
    pairs = logits[:, None, :] - logits[:, :, None] + weights.masked_fill(itself, 0).log()
    one = logits.new_zeros(len(logits), 1)  # exp(0): the 1 in the logarithm
    return torch.cat([one, pairs.flatten(1)], dim=1).logsumexp(dim=1)


def smoothed(targets: Tensor, amount: float) -> Tensor:
    """Targets from amount / 2 to 1 - amount / 2; NaN stays NaN."""
    return (1 - amount) * targets + amount / 2


def class_weights(n_clips_per_label: Tensor) -> Tensor:
    """Balanced weights (n_labels,): as 1 / sqrt(clips), with mean 1; a label without a clip counts as having one."""
    weights = n_clips_per_label.clamp(min=1).rsqrt()
    return weights / weights.mean()


def clip_losses(logits: Tensor, targets: Tensor, config: LossConfig, *, label_weights: Tensor | None = None) -> Tensor:
    """The loss of each clip, as the settings want it.

    Parameters
    ----------
    logits : Tensor of shape (batch, n_labels)
        In half precision too; the loss is then computed in single.
    targets : Tensor of shape (batch, n_labels)
        In [0, 1]; NaN is an unknown label, which adds nothing to the loss or the gradient.
    label_weights : Tensor of shape (n_labels,), optional
        Such as `class_weights`. They multiply the losses of the labels; in lsep, the pairs of the true labels.

    Returns
    -------
    Tensor of shape (batch,)
        The mean over the clip's known labels (a sum of weighted losses is also divided by their number), so that the
        mean over clips without unknown labels is that of torch's `binary_cross_entropy_with_logits`. lsep has one
        loss for all labels together. 0 for a clip of which nothing is known.

    Raises
    ------
    ValueError
        If the shapes do not fit.
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
