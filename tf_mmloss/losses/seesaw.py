"""Seesaw loss: rare classes are pushed down less by frequent ones, confused ones more."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tf_mmloss._replicas import num_replicas, sum_over_replicas
from tf_mmloss._validation import number
from tf_mmloss.imbalance import check_counts
from tf_mmloss.losses.base import (
    LARGEST,
    LongTailLoss,
    LossState,
    as_labels,
    as_logits,
    check_counts_of_logits,
    check_scale,
    target_logits,
)
from tf_mmloss.losses.cross_entropy import cross_entropy


def seesaw(
    y_true: Any,
    y_pred: Any,
    *,
    cls_counts: Sequence[int] | np.ndarray,
    p: float = 0.8,
    q: float = 2.0,
    floor: float = 0.01,
    scale: float = 1.0,
) -> Any:
    """Seesaw loss of each example; see `SeesawLoss`.

    Args:
        y_true: labels (B,), (B, 1) or one-hot (B, C).
        y_pred: (B, C) logits.
        cls_counts: (C,) training examples per class.
        p, q: exponents of mitigation and compensation, >= 0.
        floor: least probability of the target that compensation divides by, > 0.
        scale: s > 0.

    Returns:
        (B,) losses.

    Raises:
        ValueError: bad counts, a hyper-parameter out of range; other shapes; what is no label, soft rows.

    Example:
        >>> seesaw([0], [[0.0, 0.0]], cls_counts=[40, 10], p=1.0)    # log(1 + 1 / 4) = 0.2231
    """
    labels, logits = as_labels(y_true, y_pred, of="seesaw"), as_logits(y_pred)
    log_counts = np.log(check_counts(cls_counts))
    check_counts_of_logits(log_counts, logits)
    p, q = number("p", p, at_least=0, below=LARGEST), number("q", q, at_least=0, below=LARGEST)
    floor = number("floor", floor, above=0, at_most=1)
    return _seesaw(labels, logits * check_scale(scale), ops.convert_to_tensor(log_counts), p, q, floor)


def _seesaw(labels: Any, logits: Any, log_counts: Any, p: float, q: float, floor: float) -> Any:
    log_counts = ops.cast(log_counts, logits.dtype)
    log_p = ops.stop_gradient(ops.log_softmax(logits, axis=-1))
    of_target = ops.clip(target_logits(labels, log_p), np.log(floor), 0.0)[:, None]
    # Both are 0 for the target itself.
    mitigation = p * -ops.relu(ops.take(log_counts, ops.maximum(labels, 0))[:, None] - log_counts)
    compensation = q * ops.relu(log_p - of_target)
    return cross_entropy(labels, logits + mitigation + compensation)


@keras.saving.register_keras_serializable(package="tf_mmloss")
class SeenLabels(LossState):
    """How many labels of each class were seen in training: the state that `SeesawCounts` adds to a `SeesawLoss`."""

    def __init__(self, num_classes: int, **kwargs: Any) -> None:
        super().__init__(name="tf_mmloss_seen_labels", trainable=False, dtype="float32", **kwargs)
        self.seen = self.add_weight(shape=(num_classes,), initializer="zeros", trainable=False, name="seen")
        self.counting = self.add_weight(shape=(), initializer="zeros", trainable=False, name="counting")

    def call(self, labels: Any) -> Any:
        """Count labels (B,) if they are those of training, and return the log of all counts, at least 1, (C,)."""
        seen = self.seen + 0  # read by every replica before the sum, and written after it
        counted = self.counting * ops.sum(ops.one_hot(labels, self.seen.shape[0], dtype="float32"), axis=0)
        seen = seen + (counted if num_replicas() == 1 else sum_over_replicas(counted))
        self.seen.assign(seen)
        return ops.log(ops.clip(seen, 1.0, np.inf))

    def get_config(self) -> dict[str, Any]:
        return {"num_classes": self.seen.shape[0]}


@keras.saving.register_keras_serializable(package="tf_mmloss")
class SeesawLoss(LongTailLoss):
    """Seesaw loss.

        l = -log( e^{s u_y} / sum_k M_k C_k e^{s u_k} ),   M_y = C_y = 1
        M_k = min(1, N_k / N_y)^p                          mitigation: a rare class is pushed down less by frequent ones
        C_k = max(1, p_k / max(p_y, floor))^q              compensation: but what is confused is pushed apart

    p are the probabilities, constants in the gradient. N are the counts of the training examples. The published code
    counts the labels that it has seen instead, from zero; that has the ratios of `cls_counts` after every epoch in
    which each image is shown once, and others at the start and with re-sampling. With the callback `SeesawCounts` this
    counts the same.

    Args:
        cls_counts: (C,) training examples per class.
        p: exponent of mitigation, >= 0; 0 is none. Default 0.8, as published.
        q: exponent of compensation, >= 0; 0 is none. Default 2, as published.
        floor: least p_y, in (0, 1]. Default 0.01, as published.
        scale: s > 0; 1 (default) for a dense head, 20 as published for cosines.
        reduction, name, dtype: see `LongTailLoss`.

    Returns:
        The weighted mean over the batch; (B,) with `reduction=None`.

    Raises:
        ValueError: bad counts or a hyper-parameter out of range; labels or logits of another shape.

    Example:
        >>> model.compile(optimizer="sgd", loss=SeesawLoss([5000, 500, 50]))

    Reference:
        Wang et al., Seesaw Loss for Long-Tailed Instance Segmentation, CVPR 2021, Eq. 3 to 7.
    """

    couples_rows = True  # by the labels that are counted

    def __init__(
        self,
        cls_counts: Sequence[int] | np.ndarray,
        p: float = 0.8,
        q: float = 2.0,
        floor: float = 0.01,
        scale: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(cls_counts, scale=scale, **kwargs)
        self.p, self.q = number("p", p, at_least=0, below=LARGEST), number("q", q, at_least=0, below=LARGEST)
        self.floor = number("floor", floor, above=0, at_most=1)
        self._log_counts = np.log(check_counts(cls_counts))
        self.seen_labels: SeenLabels | None = None

    def callbacks(self) -> list[keras.callbacks.Callback]:
        """Return `SeesawCounts`: the published code counts what was seen."""
        from tf_mmloss.callbacks.seesaw_counts import SeesawCounts  # which needs this class

        return [SeesawCounts()]

    def count_labels(self) -> SeenLabels:
        """Take the labels seen in training for N; return their counts, a layer for the model to keep."""
        if self.seen_labels is None:
            self.seen_labels = SeenLabels(len(self._log_counts))
        return self.seen_labels

    @property
    def adjusts_priors(self) -> bool:  # type: ignore[override]
        """Whether the class frequencies are taken out."""
        return self.p > 0

    def example_loss(self, labels: Any, logits: Any) -> Any:
        log_counts = ops.convert_to_tensor(self._log_counts) if self.seen_labels is None else self.seen_labels(labels)
        if self.ignore_class is not None:
            labels = ops.maximum(labels, 0)
        return _seesaw(labels, logits * self.scale, log_counts, self.p, self.q, self.floor)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "p": self.p, "q": self.q, "floor": self.floor}
