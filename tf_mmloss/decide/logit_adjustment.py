"""Post-hoc logit adjustment: the priors of the training images are taken out of the answer."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tf_mmloss._validation import number
from tf_mmloss.decide.base import Affine, Decision, Trained
from tf_mmloss.imbalance import check_counts


def logit_adjustment(logits: Any, cls_counts: Sequence[int] | np.ndarray, tau: float = 1.0) -> Any:
    """Return logits without the priors of the classes, for balanced classes.

        z_c = u_c - tau log pi_c,   pi_c = n_c / sum_k n_k

    For a network that was trained with plain cross-entropy. One that was trained with `LogitAdjustedLoss` does without
    the priors already.

    Args:
        logits: (..., C) outputs of the network, times the scale of its loss.
        cls_counts: (C,) training examples of each class.
        tau: strength, >= 0; 0 changes nothing. Default 1.

    Returns:
        (..., C): a tensor of a tensor, an array of an array.

    Raises:
        ValueError: bad counts, other than logits of each; tau out of range.

    Example:
        >>> logit_adjustment(np.array([[2.0, 1.0]]), [90, 10]).argmax(axis=1)
        array([1])

    Reference:
        Menon et al., Long-Tail Learning via Logit Adjustment, ICLR 2021, Eq. 9.
    """
    counts = check_counts(cls_counts)
    lowered = number("tau", tau, at_least=0, at_most=LogitAdjustment.most) * np.log(counts / counts.sum())
    is_tensor = ops.is_tensor(logits)
    logits = logits if is_tensor else np.asarray(logits, np.float64)
    if is_tensor and "float" not in keras.backend.standardize_dtype(logits.dtype):
        logits = ops.cast(logits, "float32")  # of integers, the logs of the priors would be cut to integers
    if not len(logits.shape) or logits.shape[-1] != len(counts):
        raise ValueError(
            f"`cls_counts` must have one count for each logit. Received: {len(counts)} counts, "
            f"logits.shape={tuple(logits.shape)}"
        )
    return logits - (ops.convert_to_tensor(lowered, dtype=logits.dtype) if is_tensor else lowered)


class LogitAdjustment(Decision):
    """`logit_adjustment` of the scaled logits, fitted among tau 0, 0.1, ..., 4."""

    name = "logit-adjustment"
    help = "without the priors of the training images, tau log pi"
    strengths = tuple(i / 10 for i in range(41))

    def affine(self, trained: Trained, strength: float) -> Affine:
        return trained.scale, logit_adjustment(np.zeros(len(trained.cls_counts)), trained.cls_counts, strength)
