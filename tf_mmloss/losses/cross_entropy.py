"""Cross-entropy, and with a margin taken from the target logit: the core of the margin losses."""

from typing import Any

import keras
from keras import ops

from tf_mmloss.losses.base import LongTailLoss, as_labels, update_targets


def cross_entropy(y_true: Any, y_pred: Any, *, margin: Any = None, scale: float = 1.0) -> Any:
    """Cross-entropy of scaled logits, the target lowered by a margin (paper, Eq. 4).

        l = -log( e^{s(u_y - m)} / (e^{s(u_y - m)} + sum_{j != y} e^{s u_j}) )

    Args:
        y_true: labels (B,), (B, 1) or one-hot (B, C).
        y_pred: (B, C) logits u.
        margin: m, None (no margin), a number or (B,), in the unit of `y_pred`.
        scale: s > 0. Default 1.

    Returns:
        (B,) losses.

    Raises:
        ValueError: shapes other than those.

    Example:
        >>> cross_entropy([0], [[2.0, 0.0]], margin=1.0)    # log(1 + e^-1) = 0.3133
    """
    labels, logits = as_labels(y_true, y_pred), ops.convert_to_tensor(y_pred)
    if margin is not None:
        lowered = ops.broadcast_to(-ops.convert_to_tensor(margin, dtype=logits.dtype), ops.shape(labels))
        # Before the scale: what the margin was computed with is freed by then, and the product takes this copy's place.
        logits = update_targets(labels, logits, lowered, add=True)
    if scale != 1:
        logits = logits * scale
    return ops.sparse_categorical_crossentropy(labels, logits, from_logits=True)


@keras.saving.register_keras_serializable(package="tf_mmloss")
class CrossEntropyLoss(LongTailLoss):
    """Cross-entropy of logits, the family's member without a margin (ERM).

        l = -log softmax(s u)_y

    A margin loss is a child that overrides `margins`.

    Args:
        scale: s > 0; 1 (default) for a dense head, more for cosines.
        reduction, name, dtype: see `LongTailLoss`.

    Returns:
        The weighted mean over the batch; (B,) with `reduction=None`.

    Raises:
        ValueError: scale not positive; labels or logits of another shape.

    Example:
        >>> model.compile(optimizer="sgd", loss=CrossEntropyLoss())
    """

    def margins(self, labels: Any, logits: Any) -> Any:
        """Return the margins by which the target logits are lowered: None, a number or (B,)."""
        return None

    def example_loss(self, labels: Any, logits: Any) -> Any:
        return cross_entropy(labels, logits, margin=self.margins(labels, logits), scale=self.scale)
