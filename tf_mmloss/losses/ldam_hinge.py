"""Multi-class hinge loss with LDAM's class margins."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tf_mmloss._validation import number
from tf_mmloss.imbalance import ldam_margins
from tf_mmloss.losses.base import LARGEST, LongTailLoss
from tf_mmloss.losses.hinge import hinge, soft_hinge


@keras.saving.register_keras_serializable(package="tf_mmloss")
class LDAMHingeLoss(LongTailLoss):
    """Multi-class hinge loss with LDAM's margins (LDAM-HG of LDAM-HG-DRS).

        l = s max(max_{j != y} u_j - u_y + m_y, 0),   m_c = max_margin * n_c^(-1/4) / max_k n_k^(-1/4)

    Its function is `hinge(y_true, y_pred, margin=m_y, scale=s)`.

    Args:
        cls_counts: (C,) training examples per class.
        max_margin: margin of the rarest class, > 0. Default 0.3, chosen on held-out images (presets); never
            published.
        scale: s > 0. Default 1.
        reduction, name, dtype: see `LongTailLoss`.

    Returns:
        The weighted mean over the batch; (B,) with `reduction=None`.

    Raises:
        ValueError: bad counts, margin or scale; labels or logits of another shape.

    Example:
        >>> model.compile(optimizer="sgd", loss=LDAMHingeLoss([5000, 500, 50]))

    Reference:
        Cao et al., Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss, NeurIPS 2019, Eq. 10-13.
    """

    probabilistic = False

    def __init__(
        self,
        cls_counts: Sequence[int] | np.ndarray,
        max_margin: float = 0.3,
        scale: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(cls_counts, scale=scale, **kwargs)
        self.max_margin = number("max_margin", max_margin, above=0, below=LARGEST)
        self._margins = ldam_margins(cls_counts, self.max_margin)

    def example_loss(self, labels: Any, logits: Any) -> Any:
        margin = ops.take(ops.convert_to_tensor(self._margins, dtype=logits.dtype), labels)
        return hinge(labels, logits, margin=margin, scale=self.scale)

    def soft_loss(self, targets: Any, logits: Any) -> Any:
        margins = ops.convert_to_tensor(self._margins, dtype=logits.dtype)
        return soft_hinge(targets, logits, margins, self.scale)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "max_margin": self.max_margin}
