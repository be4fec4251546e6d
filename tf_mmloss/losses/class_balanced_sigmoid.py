"""Class-balanced sigmoid and sigmoid focal loss: one yes-or-no question for each class."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tf_mmloss._validation import number
from tf_mmloss.imbalance import effective_number_weights
from tf_mmloss.losses.base import (
    LARGEST,
    ONE_LOGIT,
    LongTailLoss,
    as_logits,
    as_targets,
    check_counts_of_logits,
    check_scale,
    labelled,
)


def class_balanced_sigmoid(
    y_true: Any,
    y_pred: Any,
    *,
    cls_counts: Sequence[int] | np.ndarray,
    beta: float = 0.9999,
    gamma: float = 0.0,
    scale: float = 1.0,
) -> Any:
    """Class-balanced sigmoid or sigmoid focal loss of each example; see `ClassBalancedSigmoidLoss`.

    Args:
        y_true: labels (B,), (B, 1), or one-hot or soft rows (B, C).
        y_pred: (B, C) logits.
        cls_counts: (C,) training examples per class.
        beta: of the effective number, in [0, 1).
        gamma: focusing exponent, >= 0.
        scale: s > 0.

    Returns:
        (B,) losses, which the class weights multiply.

    Raises:
        ValueError: bad counts, a hyper-parameter out of range; other shapes; what is no label.

    Example:
        >>> class_balanced_sigmoid([0], [[0.0, 0.0]], cls_counts=[10, 10])    # 2 log 2 = 1.3863
    """
    _check_questions(y_pred)
    targets, logits = as_targets(y_true, y_pred), as_logits(y_pred)
    weights = effective_number_weights(cls_counts, beta)
    check_counts_of_logits(weights, logits)
    return _sigmoid(targets, logits, weights, number("gamma", gamma, at_least=0, below=LARGEST), check_scale(scale))


def _check_questions(y_pred: Any) -> None:
    """Refuse one logit: the published loss asks a question for each class, and weighs an example by its class."""
    shape = tuple(as_logits(y_pred).shape)
    if shape[-1:] == (1,):
        raise ValueError(
            "`y_pred` must have a logit for each of two or more classes, as this loss asks a question of each "
            f"and weighs an example by its class{ONE_LOGIT}. Received: y_pred.shape={shape}"
        )


def _sigmoid(targets: Any, logits: Any, weights: np.ndarray, gamma: float, scale: float) -> Any:
    logits, labels = logits * scale, targets
    if len(labels.shape) == 1:
        targets = ops.one_hot(targets, len(weights), dtype=logits.dtype)
    weighted = targets * ops.convert_to_tensor(weights, dtype=logits.dtype)
    yes, no = ops.softplus(-logits), ops.softplus(logits)  # -log p and -log(1 - p)
    if gamma:
        yes, no = yes * ops.exp(-gamma * no), no * ops.exp(-gamma * yes)
    losses = ops.sum(weighted * yes + (ops.sum(weighted, axis=-1, keepdims=True) - weighted) * no, axis=-1)
    return labelled(losses, labels) if len(labels.shape) == 1 else losses


@keras.saving.register_keras_serializable(package="tf_mmloss")
class ClassBalancedSigmoidLoss(LongTailLoss):
    """Class-balanced sigmoid cross-entropy and, with gamma > 0, sigmoid focal loss.

        l = w_y sum_c m_c BCE(s u_c, [c = y]),   m_y = (1 - p_y)^gamma,   m_c = p_c^gamma for c != y,   p = sigmoid(s u)
        w_c = (1 - beta) / (1 - beta^{n_c}),     normalised to sum to C

    The weights are part of the loss, whose batch mean is over the examples (sum_i l_i / B) and not over the weights:
    do not re-weight by class a second time. Every class starts at p = 1/2, so that C - 1 of C questions are far off
    in the first steps: start the head's bias at -log(C - 1), as published.
    Soft targets t, rows (B, C) that sum to one, give  sum_c t_c l_c. A head with one output is refused: the published
    loss has none, as it weighs an example by its class.

    Args:
        cls_counts: (C,) training examples per class.
        beta: of the effective number, in [0, 1); 0 weighs all classes alike. Default 0.9999 (published: chosen from
            0.9, 0.99, 0.999 and 0.9999).
        gamma: focusing exponent, >= 0; 0 (default) is the sigmoid cross-entropy (published: chosen from 0.5, 1, 2).
        scale: s > 0; 1 (default) for a dense head, more for cosines.
        reduction, name, dtype: see `LongTailLoss`.

    Returns:
        The mean over the batch; (B,) with `reduction=None`.

    Raises:
        ValueError: bad counts or a hyper-parameter out of range; labels or logits of another shape.

    Example:
        >>> model.compile(optimizer="sgd", loss=ClassBalancedSigmoidLoss([5000, 500, 50], gamma=1.0))

    Reference:
        Cui et al., Class-Balanced Loss Based on Effective Number of Samples, CVPR 2019, section 4.
    """

    activation = "sigmoid"

    def __init__(
        self,
        cls_counts: Sequence[int] | np.ndarray,
        beta: float = 0.9999,
        gamma: float = 0.0,
        scale: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(cls_counts, scale=scale, **kwargs)
        self._weights = effective_number_weights(cls_counts, beta)
        self.beta, self.gamma = float(beta), number("gamma", gamma, at_least=0, below=LARGEST)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        _check_questions(y_pred)
        return super().call(y_true, y_pred)

    def example_loss(self, labels: Any, logits: Any) -> Any:
        return _sigmoid(labels, logits, self._weights, self.gamma, self.scale)

    def soft_loss(self, targets: Any, logits: Any) -> Any:
        return self.example_loss(targets, logits)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "beta": self.beta, "gamma": self.gamma}
