"""Class-dependent temperatures: logits divided by class."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tf_mmloss._validation import number
from tf_mmloss.losses.base import LARGEST, LongTailLoss
from tf_mmloss.losses.cross_entropy import cross_entropy
from tf_mmloss.losses.vs import scaled_by_class, vector_scaling, vs


def cdt(
    y_true: Any,
    y_pred: Any,
    *,
    cls_counts: Sequence[int] | np.ndarray,
    gamma: float = 0.2,
    scale: float = 1.0,
) -> Any:
    """Cross-entropy of each example with class-dependent temperatures; see `CDTLoss`.

    Args:
        y_true: labels (B,), (B, 1), or one-hot or soft rows (B, C).
        y_pred: (B, C) logits.
        cls_counts: (C,) training examples per class.
        gamma: exponent of the temperatures, >= 0.
        scale: s > 0.

    Returns:
        (B,) losses.

    Raises:
        ValueError: bad counts, a hyper-parameter out of range; other shapes; what is no label.

    Example:
        >>> cdt([1], [[1.0, 4.0]], cls_counts=[40, 10], gamma=1.0)    # log 2 = 0.6931
    """
    return vs(y_true, y_pred, cls_counts=cls_counts, gamma=gamma, tau=0.0, scale=scale)


@keras.saving.register_keras_serializable(package="tf_mmloss")
class CDTLoss(LongTailLoss):
    """Cross-entropy with class-dependent temperatures (CDT).

        l = -log softmax(s u / a)_y,   a_c = (n_max / n_c)^gamma

    The model learns to give the rare classes larger logits; its largest u is the decision. `VSLoss` with tau = 0.
    Soft targets t, rows (B, C) that sum to one, give  sum_c t_c l_c.

    Args:
        cls_counts: (C,) training examples per class.
        gamma: exponent of the temperatures, >= 0; 0 is cross-entropy. Default 0.2 (published: chosen from 0 to 0.4 on
            CIFAR-10, from 0 to 0.2 on CIFAR-100).
        scale: s > 0; 1 (default) for a dense head, more for cosines.
        reduction, name, dtype: see `LongTailLoss`.

    Returns:
        The weighted mean over the batch; (B,) with `reduction=None`.

    Raises:
        ValueError: bad counts, gamma negative, scale not positive; labels or logits of another shape.

    Example:
        >>> model.compile(optimizer="sgd", loss=CDTLoss([5000, 500, 50]))

    Reference:
        Ye et al., Identifying and Compensating for Feature Deviation in Imbalanced Deep Learning, 2020.
    """

    def __init__(
        self,
        cls_counts: Sequence[int] | np.ndarray,
        gamma: float = 0.2,
        scale: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(cls_counts, scale=scale, **kwargs)
        self.gamma = number("gamma", gamma, at_least=0, below=LARGEST)
        self._scaling = vector_scaling(cls_counts, self.gamma, 0.0, self.scale)

    def example_loss(self, labels: Any, logits: Any) -> Any:
        return cross_entropy(labels, scaled_by_class(logits, *self._scaling))

    def soft_loss(self, targets: Any, logits: Any) -> Any:
        return self.example_loss(targets, logits)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "gamma": self.gamma}
