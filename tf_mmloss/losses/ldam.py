"""LDAM: a margin per class that grows as the class gets rarer."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tf_mmloss._validation import number
from tf_mmloss.imbalance import ldam_margins
from tf_mmloss.losses.base import LARGEST, as_labels, as_logits, check_counts_of_logits, check_scale
from tf_mmloss.losses.cross_entropy import CrossEntropyLoss, cross_entropy, soft_cross_entropy
from tf_mmloss.losses.logit_adjusted import raised


def ldam(
    y_true: Any,
    y_pred: Any,
    *,
    cls_counts: Sequence[int] | np.ndarray,
    max_margin: float = 0.5,
    scale: float = 30.0,
    tau: float = 0.0,
) -> Any:
    """LDAM loss of each example; see `LDAMLoss`.

    Args:
        y_true: labels (B,), (B, 1) or one-hot (B, C).
        y_pred: (B, C) cosines.
        cls_counts: (C,) training examples per class.
        max_margin: margin of the rarest class, in cosine units.
        scale: s > 0.
        tau: strength of a logit adjustment beside the margins, >= 0.

    Returns:
        (B,) losses.

    Raises:
        ValueError: bad counts, margin, scale or tau; other shapes; what is no label, soft rows.

    Example:
        >>> round(float(ldam([1], [[0.2, 0.9]], cls_counts=[100, 10])[0]), 4)    # log(1 + e^(30 (0.2 - 0.9 + 0.5)))
        0.0025
    """
    labels = as_labels(y_true, y_pred, of="ldam")
    margins = ldam_margins(cls_counts, number("max_margin", max_margin, above=0, below=LARGEST))
    check_counts_of_logits(margins, y_pred)
    logits = as_logits(y_pred)
    if number("tau", tau, at_least=0, below=LARGEST):
        logits = logits + ops.convert_to_tensor(raised(cls_counts, tau, check_scale(scale)), dtype=logits.dtype)
    return cross_entropy(labels, logits, margin=ops.take(ops.convert_to_tensor(margins), labels), scale=scale)


@keras.saving.register_keras_serializable(package="tf_mmloss")
class LDAMLoss(CrossEntropyLoss):
    """Label-distribution-aware margin loss.

        l = -log softmax(s (cos - m_y 1_y) + tau log pi)_y,   m_c = max_margin * n_c^(-1/4) / max_k n_k^(-1/4)

    With tau = 0 (default) this is LDAM; tau > 0 adds the adjustment of `LogitAdjustedLoss` (LA + LDAM).

    Soft targets t, rows (B, C) that sum to one, give  sum_c t_c l_c,  each with the margin of its class.

    Args:
        cls_counts: (C,) training examples per class.
        max_margin: margin of the rarest class, in cosine units, > 0. Default 0.5, as published.
        scale: s > 0. Default 30, as published.
        tau: strength of the logit adjustment, >= 0. Default 0, none.
        reduction, name, dtype: see `LongTailLoss`.

    Returns:
        The weighted mean over the batch; (B,) with `reduction=None`.

    Raises:
        ValueError: bad counts, margin, scale or tau; labels or logits of another shape.

    Example:
        >>> model.compile(optimizer="sgd", loss=LDAMLoss([5000, 500, 50]))

    Reference:
        Cao et al., Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss, NeurIPS 2019, Eq. 10-13.
        tau: Menon et al., Long-Tail Learning via Logit Adjustment, ICLR 2021, Eq. 10.
    """

    def __init__(
        self,
        cls_counts: Sequence[int] | np.ndarray,
        max_margin: float = 0.5,
        scale: float = 30.0,
        tau: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(cls_counts, scale=scale, **kwargs)
        self.max_margin = number("max_margin", max_margin, above=0, below=LARGEST)
        self.tau = number("tau", tau, at_least=0, below=LARGEST)
        self._margins = ldam_margins(cls_counts, self.max_margin)
        self._raised = raised(cls_counts, self.tau, self.scale)

    @property
    def adjusts_priors(self) -> bool:  # type: ignore[override]
        """Whether the class frequencies are taken out."""
        return self.tau > 0

    def margins(self, labels: Any, logits: Any) -> Any:
        return ops.take(ops.convert_to_tensor(self._margins, dtype=logits.dtype), labels)

    def example_loss(self, labels: Any, logits: Any) -> Any:
        return super().example_loss(labels, self._adjusted(logits))

    def soft_loss(self, targets: Any, logits: Any) -> Any:
        margins = ops.convert_to_tensor(self._margins, dtype=logits.dtype)
        return soft_cross_entropy(targets, self._adjusted(logits), margin=margins, scale=self.scale)

    def _adjusted(self, logits: Any) -> Any:
        return logits + ops.convert_to_tensor(self._raised, dtype=logits.dtype) if self.tau else logits

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "max_margin": self.max_margin, "tau": self.tau}
