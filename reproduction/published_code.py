"""The MM loss as the published code computes it, fault and all, to see what its published numbers come from.

    python training/fit.py --dataset cifar100 --ratio 100 --method reproduction.published_code:mm_drw

It is not the paper's loss, which is `tf_mmloss.MaxMarginLoss`, and no method of the package.
"""

from typing import Any

import keras
from keras import ops

from tf_mmloss import MaxMarginLoss
from tf_mmloss.methods import DRW, Method

MM_DRW = "reproduction.published_code:mm_drw"


@keras.saving.register_keras_serializable(package="tf_mmloss_reproduction")
class PublishedCodeMaxMarginLoss(MaxMarginLoss):
    """`MaxMarginLoss(margin_space="cosine")` with the margins of the published code.

        g = u_f - max(max_{j != y} u_j, 0),  f the label of the batch's first example
        Delta = exp(-g - beta delta_neg)  if g > 0,   exp(g - delta_neg)  if g < 0,   0  if g = 0

    A row's loss so depends on which row is the first of its batch.

    Args:
        cls_counts, delta_neg, beta, class_margin, scale, reduction, name, dtype: see `MaxMarginLoss`. The published
            command has delta_neg 1.29, beta 1.528 and scale 19, for CIFAR-100, long-tailed 100:1.

    Returns:
        The weighted mean over the batch; (B,) with `reduction=None`.

    Raises:
        ValueError: as `MaxMarginLoss`; `margin_space` or `stop_margin_gradient` other than the published code's.

    Example:
        >>> loss = PublishedCodeMaxMarginLoss([100, 10], reduction=None)
        >>> loss([0, 1], [[0.5, 0.2], [0.5, 0.2]]).shape[0]
        2

    Reference:
        https://github.com/ihaeyong/Maximum-Margin-LDAM, losses.py, HMMLoss.
    """

    def __init__(
        self,
        cls_counts: Any,
        delta_neg: float = 1.29,
        beta: float = 1.528,
        class_margin: float | None = None,
        scale: float = 19.0,
        margin_space: str = "cosine",
        stop_margin_gradient: bool = True,
        **kwargs: Any,
    ) -> None:
        if margin_space != "cosine" or stop_margin_gradient is not True:
            raise ValueError(
                "`margin_space` must be 'cosine' and `stop_margin_gradient` True, as in the published code. Received: "
                f"margin_space={margin_space!r}, stop_margin_gradient={stop_margin_gradient!r}"
            )
        super().__init__(cls_counts, delta_neg, beta, class_margin, scale, margin_space, stop_margin_gradient, **kwargs)

    def margins(self, labels: Any, logits: Any) -> Any:
        cosines = ops.stop_gradient(logits)
        target = ops.one_hot(labels, cosines.shape[-1], dtype=cosines.dtype)
        gap = ops.take(cosines, labels[0], axis=1) - ops.max(cosines * (1 - target), axis=1)
        delta_neg: Any = self.delta_neg
        if self._delta_neg is not None:
            delta_neg = ops.take(ops.convert_to_tensor(self._delta_neg, dtype=cosines.dtype), labels)
        margin = ops.exp(-ops.abs(gap) - delta_neg * ops.where(gap > 0, self.beta, 1.0))
        return ops.where(gap == 0, 0.0, margin)


def mm_drw() -> Method:
    """The method of the published command."""
    return Method(
        "published-code-mm-drw",
        "reproduction.published_code:PublishedCodeMaxMarginLoss",
        "https://github.com/ihaeyong/Maximum-Margin-LDAM, README.md: its CIFAR-100 command.",
        label="MM-DRW as the published code computes it",
        head="cosine",
        arguments={"delta_neg": 1.29, "beta": 1.528, "scale": 19.0, "margin_space": "cosine"},
        stages=DRW,
    )
