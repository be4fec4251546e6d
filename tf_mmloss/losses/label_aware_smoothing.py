"""Label-aware smoothing: labels of frequent classes are smoothed more."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tf_mmloss._validation import choice, number
from tf_mmloss.imbalance import check_counts
from tf_mmloss.losses.base import LongTailLoss, as_logits, as_targets, check_counts_of_logits, check_scale, over_targets

SHAPES = ("concave", "linear", "convex")


def label_aware_smoothing(
    y_true: Any,
    y_pred: Any,
    *,
    cls_counts: Sequence[int] | np.ndarray,
    head: float = 0.3,
    tail: float = 0.0,
    shape: str = "concave",
    scale: float = 1.0,
) -> Any:
    """Cross-entropy of each example with label-aware smoothing; see `LabelAwareSmoothingLoss`.

    Args:
        y_true: labels (B,), (B, 1), or one-hot or soft rows (B, C).
        y_pred: (B, C) logits.
        cls_counts: (C,) training examples per class.
        head, tail: smoothing of the largest and of the smallest class, in [0, 1].
        shape: "concave", "linear" or "convex".
        scale: s > 0.

    Returns:
        (B,) losses.

    Raises:
        ValueError: bad counts, a hyper-parameter out of range; other shapes; what is no label.

    Example:
        >>> label_aware_smoothing([0], [[2.0, 0.0]], cls_counts=[30, 10], head=0.5)    # 0.1269 + 0.25 * 2 = 0.6269
    """
    targets, logits = as_targets(y_true, y_pred), as_logits(y_pred)
    smoothing = smoothing_by_class(cls_counts, head, tail, shape)
    check_counts_of_logits(smoothing, logits)
    return _smoothed(targets, logits, smoothing, check_scale(scale))


def smoothing_by_class(
    cls_counts: Sequence[int] | np.ndarray, head: float = 0.3, tail: float = 0.0, shape: str = "concave"
) -> np.ndarray:
    """Return the share of the label that is spread over all classes, float64 (C,); see `LabelAwareSmoothingLoss`."""
    counts = check_counts(cls_counts)
    head, tail = number("head", head, at_least=0, at_most=1), number("tail", tail, at_least=0, at_most=1)
    # Equal counts leave u undefined: all classes are then smoothed as the smallest one.
    u = (counts - counts.min()) / max(counts.max() - counts.min(), 1)
    risen = {"concave": np.sin(np.pi * u / 2), "linear": u, "convex": 1 - np.cos(np.pi * u / 2)}
    return tail + (head - tail) * risen[choice("shape", shape, SHAPES)]


def _smoothed(targets: Any, logits: Any, smoothing: np.ndarray, scale: float) -> Any:
    share = ops.convert_to_tensor(smoothing, dtype=logits.dtype)
    losses = -ops.log_softmax(logits * scale, axis=-1)
    # Not ops.mean, which computes in float32 on JAX and PyTorch also for float64.
    mean = ops.sum(losses, axis=-1, keepdims=True) / len(smoothing)
    return over_targets(targets, losses + share * (mean - losses))


@keras.saving.register_keras_serializable(package="tf_mmloss")
class LabelAwareSmoothingLoss(LongTailLoss):
    """Cross-entropy of labels that are smoothed by class: frequent classes, which a network trusts too much, more.

        l = (1 - e_y) (-log p_y) + e_y mean_c (-log p_c),   p = softmax(s u)
        e_c = tail + (head - tail) f(u_c),                  u_c = (n_c - n_min) / (n_max - n_min)
        f(u) = sin(pi u / 2) ("concave"),   u ("linear"),   1 + sin(3 pi / 2 + pi u / 2) ("convex")

    It is made for the second stage of MiSLAS, which trains a scale for each class on balanced batches. With
    head = tail it is label smoothing; with equal counts every class is smoothed by `tail`.
    Soft targets t, rows (B, C) that sum to one, give  sum_c t_c l_c.

    Args:
        cls_counts: (C,) training examples per class.
        head: smoothing of the largest class, in [0, 1]. Default 0.3, published for CIFAR-10, 100:1 (CIFAR-100: 0.4).
        tail: smoothing of the smallest class, in [0, 1]. Default 0, published for CIFAR-10, 100:1 (CIFAR-100: 0.1).
        shape: "concave" (default, as published), "linear" or "convex".
        scale: s > 0; 1 (default) for a dense head, more for cosines.
        reduction, name, dtype: see `LongTailLoss`.

    Returns:
        The weighted mean over the batch; (B,) with `reduction=None`.

    Raises:
        ValueError: bad counts or a hyper-parameter out of range; labels or logits of another shape.

    Example:
        >>> model.compile(optimizer="sgd", loss=LabelAwareSmoothingLoss([5000, 500, 50]))

    Reference:
        Zhong et al., Improving Calibration for Long-Tailed Recognition, CVPR 2021, section 3.3.
    """

    def __init__(
        self,
        cls_counts: Sequence[int] | np.ndarray,
        head: float = 0.3,
        tail: float = 0.0,
        shape: str = "concave",
        scale: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(cls_counts, scale=scale, **kwargs)
        self._smoothing = smoothing_by_class(cls_counts, head, tail, shape)
        self.head, self.tail, self.shape = float(head), float(tail), shape

    def example_loss(self, labels: Any, logits: Any) -> Any:
        return _smoothed(labels, logits, self._smoothing, self.scale)

    def soft_loss(self, targets: Any, logits: Any) -> Any:
        return self.example_loss(targets, logits)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "head": self.head, "tail": self.tail, "shape": self.shape}
