"""Gaussian clouded logits: rare classes are trained with more noise on their logits."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tf_mmloss._validation import integer, number
from tf_mmloss.imbalance import check_counts
from tf_mmloss.losses.base import LARGEST, LongTailLoss, as_logits, as_targets, check_counts_of_logits, check_scale
from tf_mmloss.losses.cross_entropy import cross_entropy, losses_of_classes
from tf_mmloss.losses.draws import given, normals

DEVIATION = 1 / 3  # of the published noise, which is clipped at three times it


def gcl(
    y_true: Any,
    y_pred: Any,
    *,
    cls_counts: Sequence[int] | np.ndarray,
    noise: float = 0.5,
    margin: float = 0.0,
    scale: float = 30.0,
    gamma: float = 0.0,
    seed: int = 0,
    drawn: Any = None,
) -> Any:
    """Gaussian clouded logit loss of each example; see `GCLLoss`.

    Args:
        y_true: labels (B,), (B, 1), or one-hot or soft rows (B, C).
        y_pred: (B, C) cosines.
        cls_counts: (C,) training examples per class.
        noise: k >= 0, in cosine units.
        margin: m >= 0, in cosine units.
        scale: s > 0.
        gamma: focusing exponent >= 0.
        seed: of the draw, an integer >= 0.
        drawn: (B, C) numbers e, in place of the seeded draw.

    Returns:
        (B,) losses.

    Raises:
        ValueError: bad counts, a hyper-parameter out of range; other shapes; what is no label.

    Example:
        >>> gcl([0], [[0.9, 0.1]], cls_counts=[100, 10])
    """
    logits = as_logits(y_pred)
    sizes, margin = cloud_sizes(cls_counts, noise), number("margin", margin, at_least=0, below=LARGEST)
    check_counts_of_logits(sizes, logits)
    logits = _clouded(logits, sizes, integer("seed", seed), drawn)
    return _loss(as_targets(y_true, logits), logits, margin, check_scale(scale), _check_gamma(gamma))


def cloud_sizes(cls_counts: Sequence[int] | np.ndarray, noise: float = 0.5) -> np.ndarray:
    """Return k (log n_max - log n_c) / (log n_max - log n_min), float64 (C,); zeros for equal counts."""
    counts = check_counts(cls_counts)
    sizes = np.log(counts.max() / counts)
    return number("noise", noise, at_least=0, below=LARGEST) * sizes / (sizes.max() or 1.0)


def _clouded(logits: Any, sizes: np.ndarray, seed: int, drawn: Any = None) -> Any:
    drawn = DEVIATION * normals(logits, seed) if drawn is None else given(drawn, logits, logits.dtype)
    clouds = ops.clip(ops.abs(drawn), 0, 1)
    return logits - clouds * ops.convert_to_tensor(sizes, dtype=logits.dtype)


def _check_gamma(gamma: float) -> float:
    return number("gamma", gamma, at_least=0, below=LARGEST)


def _loss(targets: Any, logits: Any, margin: float, scale: float, gamma: float) -> Any:
    """The losses (B,) of clouded logits."""
    if gamma and len(targets.shape) == 2:
        each = losses_of_classes(logits, margin=margin, scale=scale)
        return ops.sum(targets * _focused(each, gamma), axis=-1)
    losses = cross_entropy(targets, logits, margin=margin or None, scale=scale)
    return _focused(losses, gamma) if gamma else losses


def _focused(losses: Any, gamma: float) -> Any:
    """(1 - p)^gamma l of l = -log p, the factor a constant to the gradient."""
    return ops.power(ops.stop_gradient(ops.clip(-ops.expm1(-losses), 0, 1)), gamma) * losses


@keras.saving.register_keras_serializable(package="tf_mmloss")
class GCLLoss(LongTailLoss):
    """Gaussian clouded logit (GCL) loss.

        l = (1 - p_y)^gamma (-log p_y),    p = softmax(s (cos_c - k min(|e_c|, 1) d_c - m [c = y]))
        d_c = (log n_max - log n_c) / (log n_max - log n_min),   e_c ~ N(0, 1/3^2)

    e is drawn for each example and class: a hash of the seed and of the example's logits (`tf_mmloss.losses.draws`),
    so that other logits, as in every step of a training, draw anew. It is drawn in the evaluation too, as in the
    published code; with equal counts, where that divides by zero, there is no noise. The focal factor is a constant to
    the gradient, as there. Published for two stages, both with mixup: the first is the default here; the second trains
    the head on balanced batches with margin 0.1, scale 20 and gamma 1. Soft targets t, rows (B, C) that sum to one,
    give  sum_c t_c l_c  with one draw; the published mixup draws for each of its two labels.

    Args:
        cls_counts: (C,) training examples per class.
        noise: k >= 0, in cosine units. Default 0.5, published for CIFAR (first stage).
        margin: m >= 0, in cosine units. Default 0, published for CIFAR (first stage).
        scale: s > 0. Default 30, as published for the first stage.
        seed: of the draw, an integer >= 0. Default 0.
        gamma: focusing exponent >= 0. Default 0, no focal factor.
        reduction, name, dtype: see `LongTailLoss`.

    Returns:
        The weighted mean over the batch; (B,) with `reduction=None`.

    Raises:
        ValueError: bad counts or a hyper-parameter out of range; labels or logits of another shape.

    Example:
        >>> model.compile(optimizer="sgd", loss=GCLLoss([5000, 500, 50]))

    Reference:
        Li et al., Long-tailed Visual Recognition via Gaussian Clouded Logit Adjustment, CVPR 2022.
    """

    def __init__(
        self,
        cls_counts: Sequence[int] | np.ndarray,
        noise: float = 0.5,
        margin: float = 0.0,
        scale: float = 30.0,
        seed: int = 0,
        gamma: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(cls_counts, scale=scale, **kwargs)
        self._sizes = cloud_sizes(cls_counts, noise)
        self.noise = float(noise)
        self.margin = number("margin", margin, at_least=0, below=LARGEST)
        self.gamma = _check_gamma(gamma)
        self.seed = integer("seed", seed)

    def example_loss(self, labels: Any, logits: Any) -> Any:
        return _loss(labels, _clouded(logits, self._sizes, self.seed), self.margin, self.scale, self.gamma)

    def soft_loss(self, targets: Any, logits: Any) -> Any:
        return self.example_loss(targets, logits)

    def get_config(self) -> dict[str, Any]:
        constants = {"noise": self.noise, "margin": self.margin, "gamma": self.gamma, "seed": self.seed}
        return {**super().get_config(), **constants}
