"""Cross-entropy, and with a margin taken from the target logit: the core of the margin losses."""

from typing import Any

import keras
import numpy as np
from keras import ops

from tf_mmloss.losses.base import (
    LongTailLoss,
    as_labels,
    as_logits,
    as_targets,
    check_scale,
    labelled,
    per_example,
    update_targets,
)


def cross_entropy(y_true: Any, y_pred: Any, *, margin: Any = None, scale: float = 1.0) -> Any:
    """Cross-entropy of scaled logits, the target lowered by a margin (paper, Eq. 4).

        l = -log( e^{s(u_y - m)} / (e^{s(u_y - m)} + sum_{j != y} e^{s u_j}) )

    Args:
        y_true: labels (B,), (B, 1) or one-hot (B, C). Soft rows (B, C) with a `margin` that is None or a number: the
            loss is the mean over the classes, sum_c t_c l_c.
        y_pred: (B, C) logits u.
        margin: m, None (no margin), a number or (B,), in the unit of `y_pred`.
        scale: s > 0. Default 1.

    Returns:
        (B,) losses.

    Raises:
        ValueError: shapes other than those; what is no label; margin or scale not finite.

    Example:
        >>> round(float(cross_entropy([0], [[2.0, 0.0]], margin=1.0)[0]), 4)    # log(1 + e^-1)
        0.3133
    """
    logits, scale = as_logits(y_pred), check_scale(scale)
    if margin is not None:
        margin = per_example("margin", margin, logits)
        labels = (
            as_labels(y_true, y_pred, of="a margin for each example")
            if len(margin.shape)
            else as_targets(y_true, y_pred)
        )
    else:
        labels = as_targets(y_true, y_pred)
    if len(labels.shape) == 2:
        return soft_cross_entropy(labels, logits, margin=margin, scale=scale)
    if margin is not None:
        lowered = ops.broadcast_to(-margin, ops.shape(labels))
        # Before the scale: what the margin was computed with is freed by then, and the product takes this copy's place.
        logits = update_targets(labels, logits, lowered, add=True)
    if scale != 1:
        logits = logits * scale
    losses = ops.sparse_categorical_crossentropy(ops.maximum(labels, 0), logits, from_logits=True)
    return labelled(losses, labels)


def soft_cross_entropy(targets: Any, logits: Any, *, margin: Any = None, scale: float = 1.0) -> Any:
    """Return sum_c t_c l_c of soft targets (B, C), l_c the cross-entropy with the margin taken from logit c.

        l_c = log(1 + e^{s m} sum_{j != c} e^{s (u_j - u_c)})

    Args:
        targets: (B, C) rows that sum to one.
        logits: (B, C).
        margin: None (no margin), a number, or one for each class (C,).
        scale: s > 0.

    Returns:
        (B,) losses.
    """
    if margin is None:
        return ops.categorical_crossentropy(targets, logits * scale if scale != 1 else logits, from_logits=True)
    return ops.sum(targets * losses_of_classes(logits, margin=margin, scale=scale), axis=-1)


def losses_of_classes(logits: Any, *, margin: Any, scale: float = 1.0) -> Any:
    """Return the loss l_c of each class (B, C), as the target; see `soft_cross_entropy`."""
    if scale != 1:
        logits = logits * scale
    # Losses are of differences. Where logits are large, those from the largest are what rounding leaves.
    logits = logits - ops.stop_gradient(ops.max(logits, axis=-1, keepdims=True, initial=-np.inf))
    # The rivals' sum is the whole less e^{s u_c}, but for the largest logit, where that would cancel.
    is_largest = ops.one_hot(ops.argmax(logits, axis=-1), logits.shape[-1], dtype="bool")
    behind = ops.logsumexp(ops.where(is_largest, -np.inf, logits), axis=-1, keepdims=True)
    whole = ops.logsumexp(logits, axis=-1, keepdims=True)
    share = ops.where(is_largest, 0.0, ops.exp(logits - whole))
    rivals = ops.where(is_largest, behind, whole + ops.log1p(-share))
    return ops.softplus(rivals - logits + scale * margin)


@keras.saving.register_keras_serializable(package="tf_mmloss")
class CrossEntropyLoss(LongTailLoss):
    """Cross-entropy of logits, the family's member without a margin (ERM).

        l = -log softmax(s u)_y

    Soft targets t, rows (B, C) that sum to one, give  sum_c t_c l_c  =  -sum_c t_c log softmax(s u)_c.
    A margin loss is a child that overrides `margins`.

    Args:
        scale: s > 0; 1 (default) for a dense head, more for cosines.
        reduction, name, dtype: see `LongTailLoss`.

    Returns:
        The weighted mean over the batch; (B,) with `reduction=None`.

    Raises:
        ValueError: scale not positive; labels or logits of another shape.

    Example:
        >>> model.compile(optimizer="sgd", loss=CrossEntropyLoss())
    """

    def margins(self, labels: Any, logits: Any) -> Any:
        """Return the margins by which the target logits are lowered: None, a number or (B,)."""
        return None

    def example_loss(self, labels: Any, logits: Any) -> Any:
        return cross_entropy(labels, logits, margin=self.margins(labels, logits), scale=self.scale)

    def soft_loss(self, targets: Any, logits: Any) -> Any:
        return soft_cross_entropy(targets, logits, scale=self.scale)
