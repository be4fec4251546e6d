"""Logit-adjusted cross-entropy, of which Balanced Softmax is the plain member."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tf_mmloss._validation import number
from tf_mmloss.imbalance import check_counts
from tf_mmloss.losses.base import LARGEST, LongTailLoss, as_logits, check_counts_of_logits, check_scale
from tf_mmloss.losses.cross_entropy import cross_entropy, soft_cross_entropy


def logit_adjusted(
    y_true: Any,
    y_pred: Any,
    *,
    cls_counts: Sequence[int] | np.ndarray,
    tau: float = 1.0,
    scale: float = 1.0,
) -> Any:
    """Logit-adjusted cross-entropy of each example; see `LogitAdjustedLoss`.

    Args:
        y_true: labels (B,), (B, 1), or one-hot or soft rows (B, C).
        y_pred: (B, C) logits.
        cls_counts: (C,) training examples per class.
        tau: strength of the adjustment, >= 0.
        scale: s > 0.

    Returns:
        (B,) losses.

    Raises:
        ValueError: bad counts, tau negative, scale out of range; other shapes; what is no label.

    Example:
        >>> round(float(logit_adjusted([0], [[0.0, 0.0]], cls_counts=[30, 10])[0]), 4)    # log(4 / 3)
        0.2877
    """
    logits = as_logits(y_pred)
    added = raised(cls_counts, number("tau", tau, at_least=0, below=LARGEST), check_scale(scale))
    check_counts_of_logits(added, logits)
    return cross_entropy(y_true, logits + ops.convert_to_tensor(added, dtype=logits.dtype), scale=scale)


@keras.saving.register_keras_serializable(package="tf_mmloss")
class LogitAdjustedLoss(LongTailLoss):
    """Cross-entropy of logits raised by the log of the class priors; with tau = 1, Balanced Softmax.

        l = -log softmax(s u + tau log pi)_y,   pi_c = n_c / sum_k n_k

    The model learns to do without the priors, so that the largest u is the decision for balanced classes: nothing
    is adjusted after the training. Soft targets t, rows (B, C) that sum to one, give  sum_c t_c l_c.

    Args:
        cls_counts: (C,) training examples per class.
        tau: strength of the adjustment, >= 0; 0 is cross-entropy. Default 1.
        scale: s > 0; 1 (default) for a dense head, more for cosines.
        reduction, name, dtype: see `LongTailLoss`.

    Returns:
        The weighted mean over the batch; (B,) with `reduction=None`.

    Raises:
        ValueError: bad counts, tau negative, scale not positive; labels or logits of another shape.

    Example:
        >>> model.compile(optimizer="sgd", loss=LogitAdjustedLoss([5000, 500, 50]))

    Reference:
        Menon et al., Long-Tail Learning via Logit Adjustment, ICLR 2021, Eq. 10. Ren et al., Balanced Meta-Softmax
        for Long-Tailed Visual Recognition, NeurIPS 2020, Eq. 3.
    """

    def __init__(
        self,
        cls_counts: Sequence[int] | np.ndarray,
        tau: float = 1.0,
        scale: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(cls_counts, scale=scale, **kwargs)
        self.tau = number("tau", tau, at_least=0, below=LARGEST)
        self._raised = raised(cls_counts, self.tau, self.scale)

    @property
    def adjusts_priors(self) -> bool:  # type: ignore[override]
        """Whether the class frequencies are taken out."""
        return self.tau > 0

    def example_loss(self, labels: Any, logits: Any) -> Any:
        return cross_entropy(labels, logits + ops.convert_to_tensor(self._raised, dtype=logits.dtype), scale=self.scale)

    def soft_loss(self, targets: Any, logits: Any) -> Any:
        added = ops.convert_to_tensor(self._raised, dtype=logits.dtype)
        return soft_cross_entropy(targets, logits + added, scale=self.scale)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "tau": self.tau}


def raised(cls_counts: Sequence[int] | np.ndarray, tau: float, scale: float) -> np.ndarray:
    """tau log pi / s: what is added to the logits before the scale."""
    counts = check_counts(cls_counts)
    return tau / scale * np.log(counts / counts.sum())
