"""What all losses share: labels in every form, class weights, scale and the weighted mean."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tf_mmloss._replicas import num_replicas, sum_over_replicas
from tf_mmloss._validation import number
from tf_mmloss.imbalance import check_counts


def as_labels(y_true: Any, y_pred: Any) -> Any:
    """Return integer labels (B,) from labels of shape (B,), (B, 1) or one-hot (B, C).

    Args:
        y_true: labels, of any numeric type. Of soft labels (B, C), such as mixed ones, the largest counts.
        y_pred: (B, C) logits, for their width.

    Returns:
        int32 tensor (B,).

    Raises:
        ValueError: `y_pred` is not (B, C), or `y_true` has another shape than those three.
    """
    y_true, y_pred = ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred)
    if len(y_pred.shape) != 2 or y_pred.shape[-1] == 1:
        raise ValueError(f"`y_pred` must have shape (batch, classes >= 2). Received: y_pred.shape={y_pred.shape}")
    if len(y_true.shape) == 2 and y_true.shape[-1] == y_pred.shape[-1]:
        return ops.cast(ops.argmax(y_true, axis=-1), "int32")
    if len(y_true.shape) == 2 and y_true.shape[-1] == 1:
        y_true = ops.squeeze(y_true, axis=-1)
    if len(y_true.shape) != 1:
        raise ValueError(
            f"`y_true` must have shape (batch,), (batch, 1) or, one-hot, (batch, {y_pred.shape[-1]}). "
            f"Received: y_true.shape={y_true.shape}"
        )
    return ops.cast(y_true, "int32")


def check_counts_of_logits(of_classes: np.ndarray, y_pred: Any) -> None:
    """Refuse counts, or what was computed from them for each class, that are not as many as the logits (B, C)."""
    if ops.convert_to_tensor(y_pred).shape[-1] != len(of_classes):
        raise ValueError(f"`cls_counts` must have one count for each logit. Received: {len(of_classes)} counts")


def target_logits(labels: Any, logits: Any) -> Any:
    """Return u_y, shape (B,)."""
    return ops.take_along_axis(logits, labels[:, None], axis=-1)[:, 0]


def rival_logits(labels: Any, logits: Any) -> Any:
    """Return max_{j != y} u_j, shape (B,)."""
    return ops.max(update_targets(labels, logits, ops.full_like(logits[:, 0], -np.inf)), axis=-1)


def update_targets(labels: Any, logits: Any, values: Any, *, add: bool = False) -> Any:
    """Return logits (B, C) whose target logits are `values` (B,), or are raised by them with `add`."""
    if keras.backend.backend() == "jax":
        # XLA copies what it scatters into; this mask becomes part of the passes that read the result.
        is_target = ops.arange(logits.shape[-1], dtype="int32") == labels[:, None]
        values = values[:, None]
        return logits + ops.where(is_target, values, 0) if add else ops.where(is_target, values, logits)
    # Elsewhere writing at B positions costs one pass, a (B, C) mask two.
    positions = ops.stack([ops.arange(ops.shape(labels)[0], dtype="int32"), labels], axis=-1)
    return ops.scatter_update(logits, positions, values, reduction="add" if add else None)


def share_of_global_mean(mean: Any, divisor: Any, replicas: int) -> Any:
    """Return a replica's share of the mean over the global batch, from the mean over its own rows.

        sum_r share_r = sum_i w_i l_i / sum_i w_i    over the rows i of all replicas

    Keras sums the replicas' gradients, and logs the mean of R share_r weighted by their rows. So a share has the
    gradient of its own rows' part, and 1/R of the whole as its value, however unevenly the rows are split.

    Args:
        mean: the replica's weighted mean divided by R, as Keras scales it; 0 without rows.
        divisor: the replica's sum of weights.
        replicas: R, see `tf_mmloss._replicas.num_replicas`.

    Returns:
        A number.
    """
    weighted_sum = ops.sum(mean) * replicas * divisor  # without rows, Keras may leave a `mean` of shape (0,)
    whole, divisor = ops.unstack(sum_over_replicas(ops.stop_gradient(ops.stack([weighted_sum, divisor]))), 2)
    share = ops.divide_no_nan(weighted_sum, divisor)
    return share + ops.stop_gradient(ops.divide_no_nan(whole, divisor) / replicas - share)


CLASS_WEIGHTS = "tf_mmloss_class_weights"  # what the paths of their variables begin with


class ClassWeights(keras.layers.Layer):
    """One weight per class, ones until assigned: the state that re-weighting changes during training.

    A layer, so that attaching it to a model makes its variable part of the model's state on every
    backend (JAX would otherwise compile the value in as a constant).
    """

    def __init__(self, num_classes: int, **kwargs: Any) -> None:
        super().__init__(name=CLASS_WEIGHTS, trainable=False, dtype="float32", **kwargs)
        self.weight = self.add_weight(shape=(num_classes,), initializer="ones", trainable=False, name="weight")
        self.held_by: int | None = None  # the `id` of the callback that assigns them

    def call(self, labels: Any) -> Any:
        return ops.take(self.weight, labels, axis=0)

    @property
    def weights(self) -> list[Any]:
        """None: `variables` has them for Keras to train with, `get_weights` of a model does not change."""
        return []

    def save_own_variables(self, store: Any) -> None:
        """Save nothing: the weights follow from the epoch, and a model is loadable with and without them."""

    def load_own_variables(self, store: Any) -> None:
        """Load nothing, see `save_own_variables`."""


class LongTailLoss(keras.losses.Loss):
    """Base of the losses: a child overrides `example_loss(labels, logits) -> (B,)`.

    The batch loss is the weighted mean  sum_i w_{y_i} l_i / sum_i w_{y_i},  so that weights are 1 on
    average in the batch (paper, section 4, baseline 2). Class weights w are ones unless
    `DeferredReweighting` changes them. The batch is the global one, also under `tf.distribute`, where Keras
    alone would divide by the weights of each replica.

    Args:
        cls_counts: (C,) training examples per class, for the losses that use them; else None.
        scale: s > 0, multiplies the logits inside the loss. Default 1.
        reduction: as in `keras.losses.Loss`. Default "mean_with_sample_weight", the weighted mean above.
        name: name of the loss.
        dtype: float32 (default) or float64. Less would round labels and is refused.
    """

    def __init__(
        self,
        cls_counts: Sequence[int] | np.ndarray | None = None,
        *,
        scale: float = 1.0,
        reduction: str | None = "mean_with_sample_weight",
        name: str | None = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype or "float32")
        if self.dtype not in ("float32", "float64"):
            raise ValueError(f"`dtype` must be float32 or float64. Received: dtype={dtype!r}")
        self.scale = number("scale", scale, above=0)
        # A plain list: an array would come back from a saved model as a dictionary.
        self.cls_counts = None if cls_counts is None else check_counts(cls_counts).tolist()
        self.class_weights: ClassWeights | None = None

    def enable_class_weights(self, num_classes: int) -> bool:
        """Give the loss class weights, ones at first; return whether they are new."""
        expected = num_classes if self.cls_counts is None else len(self.cls_counts)
        if self.class_weights is not None:
            expected = self.class_weights.weight.shape[0]
        if num_classes != expected:
            raise ValueError(
                f"`cls_counts` must have one count for each of the loss's {expected} classes. "
                f"Received: {num_classes} counts"
            )
        if self.class_weights is not None:
            return False
        self.class_weights = ClassWeights(num_classes)
        return True

    def example_loss(self, labels: Any, logits: Any) -> Any:
        """Return the losses (B,) of int32 labels (B,) and logits (B, C). The hook of every child."""
        raise NotImplementedError

    def call(self, y_true: Any, y_pred: Any) -> Any:
        labels = as_labels(y_true, y_pred)
        if self.cls_counts is not None and y_pred.shape[-1] != len(self.cls_counts):
            raise ValueError(
                f"`y_pred` must have a logit for each of the {len(self.cls_counts)} classes of `cls_counts`. "
                f"Received: y_pred.shape={tuple(y_pred.shape)}"
            )
        return self.example_loss(labels, y_pred)

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        y_pred = ops.convert_to_tensor(y_pred)
        if self.class_weights is not None:
            if self.class_weights.weight.shape[0] != y_pred.shape[-1]:
                raise ValueError(
                    f"`cls_counts` must have one count for each of the {y_pred.shape[-1]} outputs of the model. "
                    f"Received: {self.class_weights.weight.shape[0]} counts"
                )
            weights = self.class_weights(as_labels(y_true, y_pred))
            if sample_weight is not None:
                weights = weights * ops.reshape(ops.cast(sample_weight, weights.dtype), (-1,))
            sample_weight = weights
        loss, replicas = super().__call__(y_true, y_pred, sample_weight), num_replicas()
        if replicas == 1 or self.reduction in (None, "none", "sum"):
            return loss
        weighted = self.reduction == "mean_with_sample_weight" and sample_weight is not None
        weights = ops.cast(sample_weight, self.dtype) if weighted else ops.ones_like(y_pred[:, 0], self.dtype)
        return share_of_global_mean(loss, ops.sum(weights), replicas)

    def get_config(self) -> dict[str, Any]:
        config = {**super().get_config(), "scale": self.scale, "dtype": self.dtype}
        return config if self.cls_counts is None else {"cls_counts": self.cls_counts, **config}
