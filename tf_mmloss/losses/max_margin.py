"""The paper's Maximum Margin loss: a margin per example that depends on how it is classified."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tf_mmloss._validation import choice, flag, number
from tf_mmloss.imbalance import check_counts, ldam_margins
from tf_mmloss.losses.base import (
    LARGEST,
    as_labels,
    as_logits,
    check_scale,
    per_example,
    rival_logits,
    rivals_of_each,
    target_logits,
)
from tf_mmloss.losses.cross_entropy import CrossEntropyLoss, cross_entropy, soft_cross_entropy

MARGIN_SPACES = ("cosine", "logit")


def maximum_margins(
    labels: Any,
    logits: Any,
    *,
    delta_neg: Any = 0.6,
    beta: float = 1.5,
    scale: float = 10.0,
    margin_space: str = "logit",
    stop_margin_gradient: bool = True,
) -> Any:
    """The maximum margin Delta_y of each example (paper, Eq. 1-3 and 5), in the unit of `logits`.

        g = u_y - max_{j != y} u_j
        Delta = exp(-g - beta delta_neg)  if g >= 0,   exp(g - delta_neg)  if g < 0

    Args:
        labels: int (B,).
        logits: (B, C) cosines; u is `scale * logits` ("logit") or `logits` ("cosine").
        delta_neg: delta^-, a number or one for each example (B,).
        beta: delta^+ / delta^-.
        scale: s; used by "logit" only, where Delta is a margin on s cos and is divided by s here.
        margin_space: "logit" (default) or "cosine".
        stop_margin_gradient: treat Delta as a constant in the gradient.

    Returns:
        (B,) margins.

    Raises:
        ValueError: what is no label, soft rows; a hyper-parameter out of range.

    Example:
        >>> round(float(maximum_margins([0], [[0.3, 0.2]])[0]), 5)    # e^(-1 - 0.9) / 10
        0.01496
    """
    choice("margin_space", margin_space, MARGIN_SPACES)
    flag("stop_margin_gradient", stop_margin_gradient)
    logits, scale, beta = (
        as_logits(logits),
        check_scale(scale),
        number("beta", beta, above=0, below=LARGEST),
    )
    labels = as_labels(labels, logits, of="maximum_margins")
    if stop_margin_gradient:
        logits = ops.stop_gradient(logits)
    unit = scale if margin_space == "logit" else 1.0
    gap = (target_logits(labels, logits) - rival_logits(labels, logits)) * unit
    return _of_gap(gap, per_example("delta_neg", delta_neg, logits), beta) / unit


def _of_gap(gap: Any, delta_neg: Any, beta: float) -> Any:
    """The maximum margins of gaps, in their unit."""
    beta = ops.convert_to_tensor(beta, dtype=gap.dtype)
    return ops.exp(-ops.abs(gap) - delta_neg * ops.where(gap >= 0, beta, ops.ones_like(gap)))


def max_margin(
    y_true: Any,
    y_pred: Any,
    *,
    delta_neg: Any = 0.6,
    beta: float = 1.5,
    scale: float = 10.0,
    margin_space: str = "logit",
    stop_margin_gradient: bool = True,
) -> Any:
    """Maximum Margin loss of each example (paper, Eq. 4); see `MaxMarginLoss`.

    Args:
        y_true: labels (B,), (B, 1) or one-hot (B, C).
        y_pred: (B, C) cosines.
        delta_neg: delta^-, a number, or one for each example (B,) as MM-LDAM has them.
        beta, scale, margin_space, stop_margin_gradient: see `MaxMarginLoss`.

    Returns:
        (B,) losses.

    Raises:
        ValueError: shapes other than those; what is no label, soft rows; a hyper-parameter out of range.

    Example:
        >>> round(float(max_margin([0], [[0.3, 0.2]])[0]), 4)    # log(1 + e^(-1 + 0.1496))
        0.3557
    """
    labels = as_labels(y_true, y_pred, of="max_margin")
    margin = maximum_margins(
        labels,
        y_pred,
        delta_neg=delta_neg,
        beta=beta,
        scale=scale,
        margin_space=margin_space,
        stop_margin_gradient=stop_margin_gradient,
    )
    return cross_entropy(labels, y_pred, margin=margin, scale=scale)


@keras.saving.register_keras_serializable(package="tf_mmloss")
class MaxMarginLoss(CrossEntropyLoss):
    """Maximum Margin (MM) loss; with `class_margin`, MM-LDAM.

        l = -log softmax(s (cos - Delta_y 1_y))_y                                     (Eq. 4)
        Delta = exp(-g - delta^+)  if g = u_y - max_{j != y} u_j >= 0                 (Eq. 2)
                exp( g - delta^-)  if g < 0                                           (Eq. 3)
        delta^+ = beta delta^-                                                        (Eq. 5)
        with class margins gamma_c = C_m n_c^(-1/4):  delta^-_c = delta^- - gamma_c   (Eq. 6, 7)

    Two readings of the paper differ and both are here. `margin_space="logit"` takes Eq. 2-4 literally on
    u = s cos, so that the margin is Delta / s in cosine units; on held-out images it learned faster.
    "cosine" takes u = cos and trains on s (cos - Delta), as LDAM and the published code scale their margins.
    A tie counts as correct.

    The published code computes something else: it takes the logit of the batch's first label as u_y for
    every row, lets 0 take part in the rival maximum, and gives ties no margin. This follows the equations.

    Args:
        cls_counts: (C,) training examples per class.
        delta_neg: delta^- >= 0, in the unit of u. Default 0.6 (paper: 0.6 to 2.4, Tables 2 and 3).
        beta: delta^+ / delta^-, > 0. Default 1.5 (paper: 1.0 to 1.9, Tables 2 and 3).
        class_margin: None (default: MM), or the largest gamma_c, 0 < class_margin <= delta_neg
            (MM-LDAM; 0.5 as in LDAM).
        scale: s > 0. Default 10 (paper, section 3.1).
        margin_space: the unit of the margin, "logit" (default) or "cosine".
        stop_margin_gradient: whether Delta is a constant in the gradient. Default True, as in the
            published code; the paper is silent.
        reduction, name, dtype: see `LongTailLoss`.

    Returns:
        The weighted mean over the batch; (B,) with `reduction=None`.

    Raises:
        ValueError: bad counts or a hyper-parameter out of range; labels or logits of another shape.

    Example:
        >>> cls_counts = [5000, 500, 50]
        >>> model.compile(optimizer="sgd", loss=MaxMarginLoss(cls_counts))

    Reference:
        Kang, Vu and Yoo, Learning Imbalanced Datasets with Maximum Margin Loss, 2022.
    """

    def __init__(
        self,
        cls_counts: Sequence[int] | np.ndarray,
        delta_neg: float = 0.6,
        beta: float = 1.5,
        class_margin: float | None = None,
        scale: float = 10.0,
        margin_space: str = "logit",
        stop_margin_gradient: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(check_counts(cls_counts), scale=scale, **kwargs)
        self.delta_neg = number("delta_neg", delta_neg, at_least=0, below=LARGEST)
        self.beta = number("beta", beta, above=0, below=LARGEST)
        self.class_margin = None if class_margin is None else number("class_margin", class_margin, above=0)
        self.margin_space = choice("margin_space", margin_space, MARGIN_SPACES)
        self.stop_margin_gradient = flag("stop_margin_gradient", stop_margin_gradient)
        if self.class_margin is not None and self.class_margin > self.delta_neg:
            raise ValueError(
                f"`class_margin` must not exceed `delta_neg`, or Eq. 6 and 7 turn negative and correct examples "
                f"get the larger margin. Received: class_margin={class_margin}, delta_neg={delta_neg}"
            )
        self._delta_neg = None
        if self.class_margin is not None:
            self._delta_neg = self.delta_neg - ldam_margins(cls_counts, self.class_margin)

    def margins(self, labels: Any, logits: Any) -> Any:
        delta_neg: Any = self.delta_neg
        if self._delta_neg is not None:
            delta_neg = ops.take(ops.convert_to_tensor(self._delta_neg, dtype=logits.dtype), labels)
        return maximum_margins(
            labels,
            logits,
            delta_neg=delta_neg,
            beta=self.beta,
            scale=self.scale,
            margin_space=self.margin_space,
            stop_margin_gradient=self.stop_margin_gradient,
        )

    def soft_loss(self, targets: Any, logits: Any) -> Any:
        unit = self.scale if self.margin_space == "logit" else 1.0
        fixed = ops.stop_gradient(logits) if self.stop_margin_gradient else logits
        delta_neg = self.delta_neg if self._delta_neg is None else self._delta_neg
        delta_neg = ops.convert_to_tensor(delta_neg, dtype=logits.dtype)
        margins = _of_gap((fixed - rivals_of_each(fixed)) * unit, delta_neg, self.beta) / unit
        return soft_cross_entropy(targets, logits, margin=margins, scale=self.scale)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "delta_neg": self.delta_neg,
            "beta": self.beta,
            "class_margin": self.class_margin,
            "margin_space": self.margin_space,
            "stop_margin_gradient": self.stop_margin_gradient,
        }
