"""Influence-balanced loss: examples that would pull the most at the head weigh less."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.src.backend.common.symbolic_scope import in_symbolic_scope

from tf_mmloss._validation import number, numeric
from tf_mmloss.imbalance import inverse_frequency_weights
from tf_mmloss.layers.features import feature_norms
from tf_mmloss.losses.base import (
    INFLUENCE,
    LARGEST,
    LongTailLoss,
    LossState,
    as_labels,
    as_logits,
    check_counts_of_logits,
    check_scale,
)
from tf_mmloss.losses.cross_entropy import cross_entropy

_FLOOR = 1e-3  # as published


def influence_balanced(
    y_true: Any,
    y_pred: Any,
    features: Any,
    *,
    cls_counts: Sequence[int] | np.ndarray,
    alpha: float = 1000.0,
    scale: float = 1.0,
) -> Any:
    """Influence-balanced loss of each example; see `InfluenceBalancedLoss`.

    Args:
        y_true: labels (B,), (B, 1) or one-hot (B, C).
        y_pred: (B, C) logits.
        features: (B, F), what the head takes.
        cls_counts: (C,) training examples per class.
        alpha: factor of the whole, > 0.
        scale: s > 0.

    Returns:
        (B,) losses.

    Raises:
        ValueError: bad counts, a hyper-parameter out of range; other shapes; what is no label, soft rows.

    Example:
        >>> influence_balanced([0], [[0.0, 0.0]], [[3.0, -1.0]], cls_counts=[10, 10], alpha=4.0)    # log 2 = 0.6931
    """
    labels, logits = as_labels(y_true, y_pred, of="influence_balanced"), as_logits(y_pred)
    weights = inverse_frequency_weights(cls_counts)
    check_counts_of_logits(weights, logits)
    if not ops.is_tensor(features):
        features = numeric("features", features)
    if len(features.shape) != 2 or len({features.shape[0], logits.shape[0]} - {None}) > 1:
        raise ValueError(
            "`features` must have shape (B, F), with the rows of `y_pred`. Received: features.shape="
            f"{tuple(features.shape)} with y_pred.shape={tuple(logits.shape)}"
        )
    features = ops.convert_to_tensor(features, dtype=logits.dtype)
    losses, norms = cross_entropy(labels, logits, scale=check_scale(scale)), ops.sum(ops.abs(features), axis=-1)
    return losses * _factor(losses, labels, norms, weights, number("alpha", alpha, above=0, below=LARGEST))


def _factor(losses: Any, labels: Any, norms: Any, weights: np.ndarray, alpha: float) -> Any:
    """w_y alpha / (|p - t|_1 |h|_1 + 1e-3) of cross-entropies; |p - t|_1 = 2 (1 - p_y)."""
    of_class = ops.take(ops.convert_to_tensor(weights, dtype=losses.dtype), ops.maximum(labels, 0))
    return alpha * of_class / (-2 * ops.expm1(-losses) * norms + _FLOOR)


@keras.saving.register_keras_serializable(package="tf_mmloss")
class Influence(LossState):
    """Whether the influence counts, 1 or 0: the state that `DeferredInfluence` changes during training."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(name=INFLUENCE, trainable=False, dtype="float32", **kwargs)
        self.on = self.add_weight(shape=(), initializer="ones", trainable=False, name="on")

    def call(self, factor: Any) -> Any:
        """The factor where the influence counts, else 1."""
        return ops.where(ops.cast(self.on, factor.dtype) > 0, factor, 1.0)

    def get_config(self) -> dict[str, Any]:
        return {}


@keras.saving.register_keras_serializable(package="tf_mmloss")
class InfluenceBalancedLoss(LongTailLoss):
    """Influence-balanced (IB) loss.

        l = w_y alpha / (|p - t|_1 |h|_1 + 1e-3) * -log p_y,   p = softmax(s u),   w_c ~ 1 / n_c,  sum_c w_c = C

    t is the one-hot label, h are the features that the head takes. They go with the logits, see `with_features`; logits
    without them are refused. The factor is part of the gradient, also with respect to h, as in the published code. The
    class weights are part of the loss, whose batch mean is over the examples (sum_i l_i / B): do not re-weight by class
    a second time. Train with plain cross-entropy first, by the callback `DeferredInfluence`.

    Args:
        cls_counts: (C,) training examples per class.
        alpha: factor of the whole, > 0. Default 1000, as in the published script.
        scale: s > 0; 1 (default) for a dense head, more for cosines.
        reduction: see `LongTailLoss`. Default "sum_over_batch_size".
        name, dtype: see `LongTailLoss`.

    Returns:
        The mean over the batch; (B,) with `reduction=None`.

    Raises:
        ValueError: bad counts or a hyper-parameter out of range; labels or logits of another shape; logits without
            features.

    Example:
        >>> model = with_features(resnet(8, num_classes=3, head="dense"))
        >>> model.compile(optimizer="sgd", loss=InfluenceBalancedLoss([5000, 500, 50]))

    Reference:
        Park et al., Influence-Balanced Loss for Imbalanced Visual Classification, ICCV 2021, Eq. 11; floor, factor and
        gradient as in their code.
    """

    needs_features = True

    def __init__(
        self,
        cls_counts: Sequence[int] | np.ndarray,
        alpha: float = 1000.0,
        scale: float = 1.0,
        *,
        reduction: str | None = "sum_over_batch_size",
        **kwargs: Any,
    ) -> None:
        super().__init__(cls_counts, scale=scale, reduction=reduction, **kwargs)
        self.alpha = number("alpha", alpha, above=0, below=LARGEST)
        self._weights = inverse_frequency_weights(cls_counts)
        self.influence: Influence | None = None
        self._norms: Any = None  # of the batch that is computed

    def switch(self) -> Influence:
        """Return the state that says whether the influence counts, a layer for the model to keep."""
        if self.influence is None:
            self.influence = Influence()
        return self.influence

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        self._norms = feature_norms(y_pred)  # before Keras converts the logits
        try:
            return super().__call__(y_true, y_pred, sample_weight)
        finally:
            self._norms = None

    def example_loss(self, labels: Any, logits: Any) -> Any:
        norms = self._norms
        if norms is None and in_symbolic_scope():  # Keras infers shapes, from stand-ins that carry nothing
            norms = ops.ones_like(logits[:, 0])
        if norms is None:
            raise ValueError(
                "`y_pred` must carry the features of the model for an InfluenceBalancedLoss: compile "
                "tf_mmloss.with_features(model), or use tf_mmloss.losses.influence_balanced(y_true, y_pred, features). "
                f"Received: y_pred.shape={tuple(logits.shape)} without them"
            )
        losses = cross_entropy(labels, logits, scale=self.scale)
        norms = ops.reshape(ops.cast(norms, losses.dtype), (-1,))
        factor = _factor(losses, labels, norms, self._weights, self.alpha)
        return losses * (factor if self.influence is None else self.influence(factor))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "alpha": self.alpha}
