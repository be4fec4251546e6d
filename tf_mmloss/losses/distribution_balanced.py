"""Distribution-balanced loss, for examples of several classes at once (multi-label)."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tf_mmloss._validation import integer, number, received
from tf_mmloss.imbalance import check_counts
from tf_mmloss.losses.asymmetric import focused
from tf_mmloss.losses.base import as_logits, as_multi_hot, check_counts_of_logits, check_scale, loss_arguments

MOST = 1e6  # of a hyper-parameter: products of several stay in float32


def distribution_balanced(
    y_true: Any,
    y_pred: Any,
    *,
    cls_counts: Sequence[int] | np.ndarray,
    num_examples: int,
    alpha: float = 0.1,
    beta: float = 10.0,
    mu: float = 0.2,
    negative_scale: float = 2.0,
    kappa: float = 0.05,
    gamma: float = 2.0,
    focal_weight: float = 2.0,
    scale: float = 1.0,
) -> Any:
    """Distribution-balanced loss of each example; see `DistributionBalancedLoss`.

    Args:
        y_true: (B, C) multi-hot rows: 1 for each class that an example has, 0 for the others.
        y_pred: (B, C) logits.
        cls_counts: (C,) training examples that have each class.
        num_examples: N training examples in all.
        alpha, beta, mu: of the weights.
        negative_scale, kappa: of the negative-tolerant regularisation.
        gamma, focal_weight: of the focal form.
        scale: s > 0.

    Returns:
        (B,) losses.

    Raises:
        ValueError: bad counts, a hyper-parameter out of range; other shapes; targets outside [0, 1].

    Example:
        >>> counts = {"cls_counts": [50, 50], "num_examples": 100}
        >>> distribution_balanced([[1, 0]], [[0.0, -9.0]], **counts, gamma=0.0)    # 1.0997 log(2) / 2 = 0.3811
    """
    counts, offset = _of_counts(cls_counts, num_examples, kappa, negative_scale)
    given = {"alpha": alpha, "beta": beta, "gamma": gamma, "focal_weight": focal_weight}
    alpha, beta, gamma, focal_weight = (number(name, value, at_least=0, at_most=MOST) for name, value in given.items())
    mu, negative_scale = number("mu", mu, at_least=-MOST, at_most=MOST), float(negative_scale)  # which is checked
    logits = as_logits(y_pred) * check_scale(scale)
    targets = as_multi_hot(y_true, logits)
    check_counts_of_logits(counts, logits)
    rarity = ops.convert_to_tensor(counts.min() / counts, dtype=logits.dtype)
    of_present = ops.sum(targets * rarity, axis=-1, keepdims=True)
    # The sigmoid is 1 without a present class, as it is of infinity.
    share = rarity / ops.where(of_present > 0, of_present, 1)
    weights = alpha + ops.where(of_present > 0, ops.sigmoid(beta * (share - mu)), 1)
    logits = logits + ops.convert_to_tensor(offset, dtype=logits.dtype)
    present = _focal(ops.softplus(-logits), gamma, focal_weight)
    absent = _focal(ops.softplus(negative_scale * logits), gamma, focal_weight) / negative_scale
    return ops.mean(weights * (targets * present + (1 - targets) * absent), axis=-1)


def _focal(log_loss: Any, gamma: float, weight: float) -> Any:
    """w (1 - q)^gamma l of l = -log q; l itself of gamma 0."""
    return weight * focused(log_loss, gamma) if gamma else log_loss


def _of_counts(
    cls_counts: Sequence[int] | np.ndarray, num_examples: int, kappa: float, negative_scale: float
) -> tuple[np.ndarray, np.ndarray]:
    """The counts n_k, and what is added to the logits: -kappa log(N / n_k - 1) / lambda."""
    one = cls_counts.shape == (1,) if isinstance(cls_counts, np.ndarray) else isinstance(cls_counts, (list, tuple))
    if one and len(cls_counts) == 1:
        raise ValueError(
            "`cls_counts` must be of two or more classes, among which an example shares its weight: for one yes-or-no "
            f"question take AsymmetricLoss. {received('cls_counts', cls_counts)}"
        )
    counts = check_counts(cls_counts).astype(np.float64)
    negative_scale = number("negative_scale", negative_scale, at_least=1 / MOST, at_most=MOST)
    kappa = number("kappa", kappa, at_least=0, at_most=MOST)
    num_examples = integer("num_examples", num_examples, at_most=10**15)
    if num_examples <= counts.max():
        raise ValueError(
            f"`num_examples` must be more than the largest of `cls_counts`, {counts.max():.0f}: all training examples. "
            f"{received('num_examples', num_examples)}"
        )
    return counts, -kappa / negative_scale * np.log(num_examples / counts - 1)


@keras.saving.register_keras_serializable(package="tf_mmloss")
class DistributionBalancedLoss(keras.losses.Loss):
    """Distribution-balanced loss of multi-label examples: classes that come together share their weight.

        l = 1/C sum_k r_k ( y_k f(softplus(-z_k)) + (1 - y_k) f(softplus(lambda z_k)) / lambda )
        r_k = alpha + sigmoid(beta (h_k - mu)),   h_k = (1 / n_k) / sum_{j: y_j = 1} (1 / n_j)           (Eq. 3 to 5)
        z_k = s u_k - kappa log(N / n_k - 1) / lambda                                                    (Eq. 6 to 8)
        f(l) = 2 (1 - e^{-l})^gamma l;   f(l) = l of gamma 0

    h is the chance of drawing an example for class k, divided by that of drawing it at all, if classes are drawn alike.
    Absent classes have the slope of a sigmoid lambda times as steep, so that they are pushed away less once they are
    below 0. In an example without a class, r = alpha + 1. A target between 0 and 1 weighs both parts.

    Not a `LongTailLoss`: an example has no one label, so there are no class weights to defer. The division of the
    offset by lambda and the factor 2 are those of the published code and not of the paper; the gradient goes through
    the focal factor.

    Args:
        cls_counts: (C,) training examples that have each class.
        num_examples: N training examples in all, more than the largest count. The counts say it no more than their sum,
            as an example may be in several.
        alpha: least weight, >= 0. Default 0.1, as published.
        beta: slope of the weights, >= 0. Default 10, as published.
        mu: the share h at which the weight is alpha + 1/2. Default 0.2, as published for COCO (VOC: 0.3).
        negative_scale: lambda > 0; 1 is plain. Default 2, as published for COCO (VOC: 5).
        kappa: strength of the offset, >= 0. Default 0.05, as published.
        gamma: focusing exponent, >= 0; 0 is the form without. Default 2, as published.
        focal_weight: the factor 2 of the form with gamma > 0.
        scale: s > 0. Default 1.
        reduction: as in `keras.losses.Loss`. Default "sum_over_batch_size", the mean.
        name: name of the loss.
        dtype: float32 (default) or float64.

    Returns:
        The mean over the batch; (B,) with `reduction=None`.

    Raises:
        ValueError: bad counts, a hyper-parameter out of range; targets or logits of another shape, targets outside
            [0, 1].

    Example:
        >>> loss = DistributionBalancedLoss([900, 300, 20], num_examples=1000)
        >>> model.compile(optimizer="sgd", loss=loss)

    Reference:
        Wu et al., Distribution-Balanced Loss for Multi-Label Classification in Long-Tailed Datasets, ECCV 2020.
    """

    probabilistic, activation = True, "sigmoid"  # as of `LongTailLoss`

    def __init__(
        self,
        cls_counts: Sequence[int] | np.ndarray,
        num_examples: int,
        alpha: float = 0.1,
        beta: float = 10.0,
        mu: float = 0.2,
        negative_scale: float = 2.0,
        kappa: float = 0.05,
        gamma: float = 2.0,
        focal_weight: float = 2.0,
        scale: float = 1.0,
        *,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__(**loss_arguments(reduction, name, dtype))
        _of_counts(cls_counts, num_examples, kappa, negative_scale)
        self.cls_counts, self.num_examples = check_counts(cls_counts).tolist(), int(num_examples)
        self.negative_scale, self.kappa = float(negative_scale), float(kappa)
        self.alpha = number("alpha", alpha, at_least=0, at_most=MOST)
        self.beta = number("beta", beta, at_least=0, at_most=MOST)
        self.mu = number("mu", mu, at_least=-MOST, at_most=MOST)
        self.gamma = number("gamma", gamma, at_least=0, at_most=MOST)
        self.focal_weight = number("focal_weight", focal_weight, at_least=0, at_most=MOST)
        self.scale = check_scale(scale)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return distribution_balanced(y_true, y_pred, **self._own())

    def _own(self) -> dict[str, Any]:
        return {
            "cls_counts": self.cls_counts,
            "num_examples": self.num_examples,
            "alpha": self.alpha,
            "beta": self.beta,
            "mu": self.mu,
            "negative_scale": self.negative_scale,
            "kappa": self.kappa,
            "gamma": self.gamma,
            "focal_weight": self.focal_weight,
            "scale": self.scale,
        }

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self._own(), "dtype": self.dtype}
