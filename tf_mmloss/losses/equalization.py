"""Softmax equalisation: rare classes are spared as rivals, by chance."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tf_mmloss._validation import integer, number
from tf_mmloss.imbalance import check_counts
from tf_mmloss.losses.base import LongTailLoss, as_logits, as_targets, check_counts_of_logits, check_scale, over_targets
from tf_mmloss.losses.draws import given, uniforms

_NOWHERE = -1e30  # a logit whose exponential is 0 and whose product with 0 is not NaN


def equalization(
    y_true: Any,
    y_pred: Any,
    *,
    cls_counts: Sequence[int] | np.ndarray,
    gamma: float = 0.9,
    threshold: float = 0.05,
    scale: float = 1.0,
    seed: int = 0,
    drawn: Any = None,
) -> Any:
    """Softmax equalisation loss of each example; see `EqualizationLoss`.

    Args:
        y_true: labels (B,), (B, 1), or one-hot or soft rows (B, C).
        y_pred: (B, C) logits.
        cls_counts: (C,) training examples per class.
        gamma: chance that a rare class is spared, in [0, 1].
        threshold: share of the training examples below which a class is rare, in [0, 1].
        scale: s > 0.
        seed: of the draw, an integer >= 0.
        drawn: (B, C) booleans b, in place of the seeded draw.

    Returns:
        (B,) losses.

    Raises:
        ValueError: bad counts, a hyper-parameter out of range; other shapes; what is no label.

    Example:
        >>> equalization([0], [[0.0, 0.0]], cls_counts=[99, 1], gamma=1.0)    # the only rival is spared: 0
    """
    targets, logits = as_targets(y_true, y_pred), as_logits(y_pred)
    rare = rare_classes(cls_counts, threshold)
    check_counts_of_logits(rare, logits)
    if drawn is None:
        drawn = uniforms(logits, integer("seed", seed)) < number("gamma", gamma, at_least=0, at_most=1)
    else:
        drawn = given(drawn, logits, "bool")
    return over_targets(targets, _class_losses(logits * check_scale(scale), rare, drawn))


def _class_losses(logits: Any, rare: np.ndarray, drawn: Any) -> Any:
    """What the loss (B, C) would be if the label were each of the classes."""
    spared = ops.logical_and(drawn, ops.convert_to_tensor(rare))
    rivals = ops.logsumexp(ops.where(spared, _NOWHERE, logits), axis=-1, keepdims=True)
    # A spared class is no rival of others, but is in the sum of its own loss.
    return ops.where(spared, ops.softplus(rivals - logits), rivals - logits)


def rare_classes(cls_counts: Sequence[int] | np.ndarray, threshold: float) -> np.ndarray:
    """Return which classes have a share of the training examples below `threshold`, bool (C,)."""
    counts = check_counts(cls_counts)
    return counts / counts.sum() < number("threshold", threshold, at_least=0, at_most=1)


@keras.saving.register_keras_serializable(package="tf_mmloss")
class EqualizationLoss(LongTailLoss):
    """Softmax equalisation loss (SEQL): rare classes do not learn from being a rival, by chance.

        l = -log( e^{s u_y} / sum_k w_k e^{s u_k} ),   w_k = 1 - b_k [pi_k < threshold] [k != y],   pi_k = n_k / sum n

    b_k is 1 with the chance `gamma`, drawn for each example and class. The draw is a hash of the seed and of the
    example's logits (`tf_mmloss.losses.draws`): other logits, as in every step of a training, draw anew. It is drawn in
    the evaluation too, as in the published code, which differs from this where logits exceed 88: its sum overflows.
    Soft targets t, rows (B, C) that sum to one, give  sum_c t_c l_c.

    Args:
        cls_counts: (C,) training examples per class.
        gamma: chance that a rare class is spared, in [0, 1]; 0 is cross-entropy. Default 0.9, as published.
        threshold: share of the training examples below which a class is rare, in [0, 1]. Default 0.05, published for
            CIFAR-10 with 100:1 (CIFAR-100: 0.005).
        scale: s > 0; 1 (default) for a dense head, more for cosines.
        seed: of the draw, an integer >= 0. Default 0.
        reduction, name, dtype: see `LongTailLoss`.

    Returns:
        The weighted mean over the batch; (B,) with `reduction=None`.

    Raises:
        ValueError: bad counts or a hyper-parameter out of range; labels or logits of another shape.

    Example:
        >>> model.compile(optimizer="sgd", loss=EqualizationLoss([5000, 500, 50]))

    Reference:
        Tan et al., Equalization Loss for Long-Tailed Object Recognition, CVPR 2020, section 3.3.
    """

    def __init__(
        self,
        cls_counts: Sequence[int] | np.ndarray,
        gamma: float = 0.9,
        threshold: float = 0.05,
        scale: float = 1.0,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(cls_counts, scale=scale, **kwargs)
        self.gamma = number("gamma", gamma, at_least=0, at_most=1)
        self._rare = rare_classes(cls_counts, threshold)
        self.threshold = float(threshold)
        self.seed = integer("seed", seed)

    def example_loss(self, labels: Any, logits: Any) -> Any:
        drawn = uniforms(logits, self.seed) < self.gamma
        return over_targets(labels, _class_losses(logits * self.scale, self._rare, drawn))

    def soft_loss(self, targets: Any, logits: Any) -> Any:
        return self.example_loss(targets, logits)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "gamma": self.gamma, "threshold": self.threshold, "seed": self.seed}
