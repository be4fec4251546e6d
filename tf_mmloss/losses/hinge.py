"""Multi-class hinge loss."""

from typing import Any

import keras
from keras import ops

from tf_mmloss._validation import number
from tf_mmloss.losses.base import (
    LARGEST,
    LongTailLoss,
    as_labels,
    as_logits,
    check_scale,
    labelled,
    over_targets,
    per_example,
    rival_logits,
    rivals_of_each,
    target_logits,
)


def hinge(y_true: Any, y_pred: Any, *, margin: Any = 0.1, scale: float = 1.0) -> Any:
    """Hinge loss of each example; see `HingeLoss`.

    Args:
        y_true: labels (B,), (B, 1) or one-hot (B, C).
        y_pred: (B, C) logits or cosines.
        margin: m, a number or (B,), in the unit of `y_pred`.
        scale: s > 0.

    Returns:
        (B,) losses.

    Raises:
        ValueError: other shapes; what is no label, soft rows; margin or scale out of range.

    Example:
        >>> round(float(hinge([0], [[0.9, 0.6]], margin=0.5)[0]), 4)    # 0.6 - 0.9 + 0.5
        0.2
    """
    labels, logits, scale = as_labels(y_true, y_pred, of="hinge"), as_logits(y_pred), check_scale(scale)
    margin = per_example("margin", margin, logits)
    losses = scale * ops.relu(rival_logits(labels, logits) - target_logits(labels, logits) + margin)
    return labelled(losses, labels)


def soft_hinge(targets: Any, logits: Any, margin: Any, scale: float) -> Any:
    """Return sum_c t_c l_c (B,) of soft targets (B, C), l_c the hinge loss of class c; margin: a number or (C,)."""
    return over_targets(targets, scale * ops.relu(rivals_of_each(logits) - logits + margin))


@keras.saving.register_keras_serializable(package="tf_mmloss")
class HingeLoss(LongTailLoss):
    """Multi-class hinge loss with one margin (HG of HG-DRS).

        l = s max(max_{j != y} u_j - u_y + m, 0)

    Soft targets t, rows (B, C) that sum to one, give  sum_c t_c l_c.

    Args:
        margin: m >= 0, in the unit of the logits. Default 0.1, chosen on held-out images (presets); never published.
        scale: s > 0. Default 1.
        reduction, name, dtype: see `LongTailLoss`.

    Returns:
        The weighted mean over the batch; (B,) with `reduction=None`.

    Raises:
        ValueError: margin negative, scale not positive; labels or logits of another shape.

    Example:
        >>> model.compile(optimizer="sgd", loss=HingeLoss(margin=0.5))

    Reference:
        Cao et al., Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss, NeurIPS 2019, Eq. 10.
    """

    probabilistic = False

    def __init__(self, margin: float = 0.1, scale: float = 1.0, **kwargs: Any) -> None:
        super().__init__(scale=scale, **kwargs)
        self.margin = number("margin", margin, at_least=0, below=LARGEST)

    def example_loss(self, labels: Any, logits: Any) -> Any:
        return hinge(labels, logits, margin=self.margin, scale=self.scale)

    def soft_loss(self, targets: Any, logits: Any) -> Any:
        return soft_hinge(targets, logits, self.margin, self.scale)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "margin": self.margin}
