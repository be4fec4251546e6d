"""Vector scaling: logits divided and raised by class."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tf_mmloss._validation import number
from tf_mmloss.imbalance import check_counts
from tf_mmloss.losses.base import LARGEST, LongTailLoss, as_logits, check_counts_of_logits, check_scale
from tf_mmloss.losses.cross_entropy import cross_entropy


def vs(
    y_true: Any,
    y_pred: Any,
    *,
    cls_counts: Sequence[int] | np.ndarray,
    gamma: float = 0.15,
    tau: float = 1.25,
    scale: float = 1.0,
) -> Any:
    """Vector-scaling loss of each example; see `VSLoss`.

    Args:
        y_true: labels (B,), (B, 1), or one-hot or soft rows (B, C).
        y_pred: (B, C) logits.
        cls_counts: (C,) training examples per class.
        gamma: exponent of the factors, >= 0.
        tau: strength of the adjustment, >= 0.
        scale: s > 0.

    Returns:
        (B,) losses.

    Raises:
        ValueError: bad counts, a hyper-parameter out of range; other shapes; what is no label.

    Example:
        >>> vs([0], [[0.0, 0.0]], cls_counts=[30, 10], tau=1.0)    # log(4 / 3) = 0.2877
    """
    logits, scale = as_logits(y_pred), check_scale(scale)
    check_counts_of_logits(check_counts(cls_counts), logits)
    gamma, tau = number("gamma", gamma, at_least=0, below=LARGEST), number("tau", tau, at_least=0, below=LARGEST)
    return cross_entropy(y_true, scaled_by_class(logits, *vector_scaling(cls_counts, gamma, tau, scale)))


def vector_scaling(cls_counts: Sequence[int] | np.ndarray, gamma: float, tau: float, scale: float) -> tuple[Any, Any]:
    """Return the factors s (n_c / n_max)^gamma and the terms tau log pi_c, float64 (C,) each."""
    counts = check_counts(cls_counts)
    return scale * (counts / counts.max()) ** gamma, tau * np.log(counts / counts.sum())


def scaled_by_class(logits: Any, factors: np.ndarray, terms: np.ndarray) -> Any:
    """Return logits (B, C) times factors (C,) plus terms (C,)."""
    scaled = logits * ops.convert_to_tensor(factors, dtype=logits.dtype)
    return scaled + ops.convert_to_tensor(terms, dtype=logits.dtype) if np.any(terms) else scaled


@keras.saving.register_keras_serializable(package="tf_mmloss")
class VSLoss(LongTailLoss):
    """Vector-scaling (VS) loss: cross-entropy of logits divided and raised by class.

        l = -log softmax(s u / D + tau log pi)_y,   D_c = (n_max / n_c)^gamma,   pi_c = n_c / sum_k n_k

    With gamma = 0 it is logit adjustment, with tau = 0 class-dependent temperatures (`CDTLoss`), with both
    cross-entropy. The model's largest u is the decision: nothing is divided or raised after the training.
    Soft targets t, rows (B, C) that sum to one, give  sum_c t_c l_c.

    Args:
        cls_counts: (C,) training examples per class.
        gamma: exponent of the factors, >= 0. Default 0.15, published for CIFAR-10 with 100:1 (CIFAR-100: 0.05).
        tau: strength of the adjustment, >= 0. Default 1.25, published for CIFAR-10 with 100:1 (CIFAR-100: 0.75).
        scale: s > 0; 1 (default) for a dense head, 30 as published for cosines.
        reduction, name, dtype: see `LongTailLoss`.

    Returns:
        The weighted mean over the batch; (B,) with `reduction=None`.

    Raises:
        ValueError: bad counts, gamma or tau negative, scale not positive; labels or logits of another shape.

    Example:
        >>> model.compile(optimizer="sgd", loss=VSLoss([5000, 500, 50]))

    Reference:
        Kini et al., Label-Imbalanced and Group-Sensitive Classification under Overparameterization, NeurIPS 2021.
    """

    def __init__(
        self,
        cls_counts: Sequence[int] | np.ndarray,
        gamma: float = 0.15,
        tau: float = 1.25,
        scale: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(cls_counts, scale=scale, **kwargs)
        self.gamma = number("gamma", gamma, at_least=0, below=LARGEST)
        self.tau = number("tau", tau, at_least=0, below=LARGEST)
        self._scaling = vector_scaling(cls_counts, self.gamma, self.tau, self.scale)

    @property
    def adjusts_priors(self) -> bool:  # type: ignore[override]
        """Whether the class frequencies are taken out."""
        return self.tau > 0

    def example_loss(self, labels: Any, logits: Any) -> Any:
        return cross_entropy(labels, scaled_by_class(logits, *self._scaling))

    def soft_loss(self, targets: Any, logits: Any) -> Any:
        return self.example_loss(targets, logits)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "gamma": self.gamma, "tau": self.tau}
