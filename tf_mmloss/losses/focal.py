"""Focal loss, in log-space."""

from typing import Any

import keras
import numpy as np
from keras import ops

from tf_mmloss._validation import number
from tf_mmloss.losses.base import LARGEST, LongTailLoss, as_logits, as_targets, check_scale
from tf_mmloss.losses.cross_entropy import cross_entropy


def focal(y_true: Any, y_pred: Any, *, gamma: float = 1.0, scale: float = 1.0) -> Any:
    """Focal loss of each example; see `FocalLoss`.

    Args:
        y_true: labels (B,), (B, 1), or one-hot or soft rows (B, C).
        y_pred: (B, C) logits.
        gamma: focusing exponent >= 0.
        scale: s > 0.

    Returns:
        (B,) losses.

    Raises:
        ValueError: other shapes; what is no label; gamma or scale out of range.

    Example:
        >>> round(float(focal([0], [[2.0, 0.0]], gamma=1.0)[0]), 4)    # 0.1192 * 0.1269
        0.0151
    """
    logits, scale = as_logits(y_pred), check_scale(scale)
    gamma = number("gamma", gamma, at_least=0, below=LARGEST)
    targets = as_targets(y_true, logits)
    if len(targets.shape) == 2:
        return ops.sum(targets * _focal(-ops.log_softmax(logits * scale, axis=-1), gamma), axis=-1)
    return _focal(cross_entropy(targets, logits, scale=scale), gamma)


def _focal(log_loss: Any, gamma: float) -> Any:
    """(1 - p)^gamma l of l = -log p."""
    # 1 - p_y = -expm1(-l) keeps its precision at p_y -> 1; the floor keeps gamma < 1 differentiable there.
    # clip and not maximum, which Keras on PyTorch computes in float32 also for float64.
    miss = ops.clip(-ops.expm1(-log_loss), 1e-12, np.inf)
    return ops.power(miss, gamma) * log_loss


@keras.saving.register_keras_serializable(package="tf_mmloss")
class FocalLoss(LongTailLoss):
    """Focal loss of a softmax.

        l = (1 - p_y)^gamma (-log p_y),   p = softmax(s u)

    Soft targets t, rows (B, C) that sum to one, give  sum_c t_c l_c.
    Class weights multiply l (the published code of CB-Focal lets them into p; this is the paper's form).

    Args:
        gamma: focusing exponent >= 0; 0 is cross-entropy. Default 1, as in the experiments of LDAM and MM.
        scale: s > 0. Default 1.
        reduction, name, dtype: see `LongTailLoss`.

    Returns:
        The weighted mean over the batch; (B,) with `reduction=None`.

    Raises:
        ValueError: gamma negative, scale not positive; labels or logits of another shape.

    Example:
        >>> model.compile(optimizer="sgd", loss=FocalLoss(gamma=1.0))

    Reference:
        Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, Eq. 4.
    """

    def __init__(self, gamma: float = 1.0, scale: float = 1.0, **kwargs: Any) -> None:
        super().__init__(scale=scale, **kwargs)
        self.gamma = number("gamma", gamma, at_least=0, below=LARGEST)

    def example_loss(self, labels: Any, logits: Any) -> Any:
        return focal(labels, logits, gamma=self.gamma, scale=self.scale)

    def soft_loss(self, targets: Any, logits: Any) -> Any:
        return focal(targets, logits, gamma=self.gamma, scale=self.scale)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "gamma": self.gamma}
