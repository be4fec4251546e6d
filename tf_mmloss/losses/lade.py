"""LADE: logits that are the log of an image's likelihood under each class, whatever the class priors."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tf_mmloss._validation import number
from tf_mmloss.imbalance import check_counts
from tf_mmloss.losses.base import LARGEST, LongTailLoss, as_labels, as_logits, check_counts_of_logits, check_scale
from tf_mmloss.losses.cross_entropy import cross_entropy


def lade(
    y_true: Any,
    y_pred: Any,
    *,
    cls_counts: Sequence[int] | np.ndarray,
    alpha: float = 0.1,
    penalty: float = 0.1,
    scale: float = 1.0,
) -> Any:
    """LADE loss of each example, the batch's regulariser in each; see `LADELoss`.

    Args:
        y_true: labels (B,), (B, 1) or one-hot (B, C).
        y_pred: (B, C) logits.
        cls_counts: (C,) training examples per class.
        alpha: weight of the regulariser, >= 0.
        penalty: weight of the squares in it, >= 0.
        scale: s > 0.

    Returns:
        (B,) losses.

    Raises:
        ValueError: bad counts, a hyper-parameter out of range; other shapes; what is no label, soft rows.

    Example:
        >>> lade([0, 1], [[1.0, 0.0], [0.0, 1.0]], cls_counts=[10, 10], alpha=0.0)    # log(1 + 1 / e) = 0.3133, twice
    """
    labels, logits = as_labels(y_true, y_pred, of="lade"), as_logits(y_pred)
    alpha, penalty = (
        number("alpha", alpha, at_least=0, below=LARGEST),
        number("penalty", penalty, at_least=0, below=LARGEST),
    )
    priors = _priors(cls_counts)
    check_counts_of_logits(priors, logits)
    return _lade(labels, logits * check_scale(scale), priors, alpha, penalty)


def _priors(cls_counts: Sequence[int] | np.ndarray) -> np.ndarray:
    counts = check_counts(cls_counts)
    return counts / counts.sum()


def _lade(
    labels: Any, logits: Any, priors: np.ndarray, alpha: float, penalty: float, *, some_ignored: bool = False
) -> Any:
    adjusted = logits + ops.convert_to_tensor(np.log(priors), dtype=logits.dtype)
    # A label of -1 is no row's where none is ignored: `cross_entropy` refuses it, or gives NaN.
    losses = cross_entropy(ops.maximum(labels, 0) if some_ignored else labels, adjusted)
    return losses + alpha * _regularizer(labels, logits, priors, penalty, some_ignored) if alpha else losses


def _regularizer(labels: Any, logits: Any, priors: np.ndarray, penalty: float, some_ignored: bool) -> Any:
    targets = ops.one_hot(labels, len(priors), dtype=logits.dtype)
    of_class = ops.sum(targets * logits, axis=0) / ops.clip(ops.sum(targets, axis=0), 1, np.inf)
    shifted = logits - ops.convert_to_tensor(np.log(priors * len(priors)), dtype=logits.dtype)
    rows: Any = ops.shape(logits)[0]
    if some_ignored:
        shifted = ops.where(labels[:, None] >= 0, shifted, -1e30)  # of which the exponential is 0
        rows = ops.clip(ops.sum(targets), 1, np.inf)
    of_all = ops.logsumexp(shifted, axis=0) - ops.log(ops.cast(rows, logits.dtype))
    return ops.sum(ops.convert_to_tensor(priors, dtype=logits.dtype) * (of_all + penalty * of_all**2 - of_class))


@keras.saving.register_keras_serializable(package="tf_mmloss")
class LADELoss(LongTailLoss):
    """Label distribution disentangling (LADE) loss: Balanced Softmax and a regulariser of the batch.

        l = -log softmax(s u + log pi)_y + alpha R,   pi_c = n_c / sum_k n_k
        R = -sum_c pi_c ( mean_{i: y_i = c} s u_ic - S_c - penalty S_c^2 )
        S_c = log mean_i exp(s u_ic - log pi_c - log C)

    R couples the rows of a batch: class and sample weights do not enter it, a class that the batch lacks has 0 as
    its mean, and under `tf.distribute` each replica takes its own rows. It estimates the divergence between the images
    of a class and all images, so it wants large batches (published: 256). Computed as the published code does; its
    paper weighs each image of S_c by the prior of the image's own class instead. The published network is no plain
    ResNet-32.
    The model's largest u is the decision.

    Args:
        cls_counts: (C,) training examples per class.
        alpha: weight of R, >= 0; 0 is Balanced Softmax. Default 0.1, published for CIFAR-100.
        penalty: weight of the squares, >= 0. Default 0.1, published for CIFAR-100.
        scale: s > 0; 1 (default) for a dense head, more for cosines.
        reduction, name, dtype: see `LongTailLoss`.

    Returns:
        The weighted mean over the batch; (B,) with `reduction=None`, R in each.

    Raises:
        ValueError: bad counts or a hyper-parameter out of range; labels or logits of another shape.

    Example:
        >>> model.compile(optimizer="sgd", loss=LADELoss([5000, 500, 50]))

    Reference:
        Hong et al., Disentangling Label Distribution for Long-tailed Visual Recognition, CVPR 2021, Eq. 8 to 11.
    """

    couples_rows = True

    adjusts_priors = True

    def __init__(
        self,
        cls_counts: Sequence[int] | np.ndarray,
        alpha: float = 0.1,
        penalty: float = 0.1,
        scale: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(cls_counts, scale=scale, **kwargs)
        self._priors = _priors(cls_counts)
        self.alpha = number("alpha", alpha, at_least=0, below=LARGEST)
        self.penalty = number("penalty", penalty, at_least=0, below=LARGEST)

    def example_loss(self, labels: Any, logits: Any) -> Any:
        some_ignored = self.ignore_class is not None
        return _lade(labels, logits * self.scale, self._priors, self.alpha, self.penalty, some_ignored=some_ignored)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "alpha": self.alpha, "penalty": self.penalty}
