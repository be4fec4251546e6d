"""Asymmetric loss, for examples of several classes at once (multi-label)."""

from typing import Any

import keras
from keras import ops

from tf_mmloss._validation import flag, number
from tf_mmloss.losses.base import LARGEST, as_logits, as_multi_hot, check_scale, loss_arguments


def asymmetric(
    y_true: Any,
    y_pred: Any,
    *,
    gamma_negative: float = 4.0,
    gamma_positive: float = 1.0,
    clip: float = 0.05,
    scale: float = 1.0,
    stop_focus_gradient: bool = True,
) -> Any:
    """Asymmetric loss of each example; see `AsymmetricLoss`.

    Args:
        y_true: (B, C) multi-hot rows: 1 for each class that an example has, 0 for the others; (B,) of one question.
        y_pred: (B, C) logits, or (B, 1) of one question.
        gamma_negative, gamma_positive: focusing exponents, >= 0.
        clip: by how much the probability of an absent class is lowered, in [0, 1).
        scale: s > 0.
        stop_focus_gradient: treat the focusing factors as constants in the gradient.

    Returns:
        (B,) losses.

    Raises:
        ValueError: a hyper-parameter out of range; other shapes; targets outside [0, 1].

    Example:
        >>> asymmetric([[1, 0]], [[0.0, -9.0]], gamma_positive=0.0)    # log 2 = 0.6931 (and 0)
    """
    logits = as_logits(y_pred) * check_scale(scale)
    targets = as_multi_hot(y_true, logits)
    flag("stop_focus_gradient", stop_focus_gradient)
    gamma_negative = number("gamma_negative", gamma_negative, at_least=0, below=LARGEST)
    gamma_positive = number("gamma_positive", gamma_positive, at_least=0, below=LARGEST)
    clip = number("clip", clip, at_least=0, below=1)
    present, absent = ops.softplus(-logits), ops.softplus(logits)  # -log p and -log(1 - p)
    if clip:
        # log(1 - p + clip), where that is below 0; 0 and without a gradient elsewhere.
        absent = -ops.log(ops.clip(ops.sigmoid(-logits) + clip, clip, 1.0))
    losses = targets * focused(present, gamma_positive, stop_focus_gradient)
    return ops.sum(losses + (1 - targets) * focused(absent, gamma_negative, stop_focus_gradient), axis=-1)


def focused(log_loss: Any, gamma: float, stop: bool = False) -> Any:
    """(1 - q)^gamma l of l = -log q."""
    if not gamma:
        return log_loss
    # The floor keeps gamma < 1 differentiable at q = 1.
    factor = ops.power(ops.clip(-ops.expm1(-log_loss), 1e-12, 1.0), gamma)
    return (ops.stop_gradient(factor) if stop else factor) * log_loss


@keras.saving.register_keras_serializable(package="tf_mmloss")
class AsymmetricLoss(keras.losses.Loss):
    """Asymmetric loss (ASL) of multi-label examples: classes that an example lacks are most of them, and weigh less.

        l = - sum_{c: y_c = 1} (1 - p_c)^{gamma_positive} log p_c - sum_{c: y_c = 0} q_c^{gamma_negative} log(1 - q_c)
        p = sigmoid(s u),   q_c = max(p_c - clip, 0)

    A head with one output, of one yes-or-no question, takes labels (B,) or (B, 1) of 0 and 1.

    Not a `LongTailLoss`: an example has no one label, so there are no class weights to defer. The published code sums
    over the batch too, where this takes the mean, and cuts -log p at 18, where its gradient is 0.

    Args:
        gamma_negative: exponent for the classes that an example lacks, >= 0. Default 4, as published.
        gamma_positive: exponent for those it has, >= 0. Default 1, as in the published code (its paper: 0).
        clip: by how much the probability of an absent class is lowered, in [0, 1). Default 0.05, as published.
        scale: s > 0. Default 1.
        stop_focus_gradient: treat the factors with the exponents as constants in the gradient. Default True, as in the
            published training.
        reduction: as in `keras.losses.Loss`. Default "sum_over_batch_size", the mean.
        name: name of the loss.
        dtype: float32 (default) or float64.

    Returns:
        The mean over the batch; (B,) with `reduction=None`.

    Raises:
        ValueError: a hyper-parameter out of range; targets or logits of another shape, targets outside [0, 1].

    Example:
        >>> model.compile(optimizer="sgd", loss=AsymmetricLoss())

    Reference:
        Ridnik et al., Asymmetric Loss For Multi-Label Classification, ICCV 2021, Eq. 5 to 7.
    """

    probabilistic, activation = True, "sigmoid"  # as of `LongTailLoss`

    def __init__(
        self,
        gamma_negative: float = 4.0,
        gamma_positive: float = 1.0,
        clip: float = 0.05,
        scale: float = 1.0,
        stop_focus_gradient: bool = True,
        *,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__(**loss_arguments(reduction, name, dtype))
        self.gamma_negative = number("gamma_negative", gamma_negative, at_least=0, below=LARGEST)
        self.gamma_positive = number("gamma_positive", gamma_positive, at_least=0, below=LARGEST)
        self.clip = number("clip", clip, at_least=0, below=1)
        self.scale = check_scale(scale)
        self.stop_focus_gradient = flag("stop_focus_gradient", stop_focus_gradient)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return asymmetric(
            y_true,
            y_pred,
            gamma_negative=self.gamma_negative,
            gamma_positive=self.gamma_positive,
            clip=self.clip,
            scale=self.scale,
            stop_focus_gradient=self.stop_focus_gradient,
        )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "gamma_negative": self.gamma_negative,
            "gamma_positive": self.gamma_positive,
            "clip": self.clip,
            "scale": self.scale,
            "stop_focus_gradient": self.stop_focus_gradient,
            "dtype": self.dtype,
        }
