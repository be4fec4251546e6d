"""Change how the training images are drawn, at an epoch."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tf_mmloss._validation import integer
from tf_mmloss.imbalance import class_weights


class DeferredResampling(keras.callbacks.Callback):
    """Deferred re-sampling (DRS): uniform epochs until `start_epoch`, class-balanced drawing from then on.

        P(i) ~ w_{y_i},   w_c ~ 1 / effective number of c, or ~ 1 / n_c,   with replacement, N images an epoch

    One object in two places: as `resampling=` of `tf_mmloss.pipeline.train_dataset` or
    `tf_mmloss.device_input.EpochRows` it maps an epoch to class weights, a pure function, so that batches drawn ahead
    and resumed runs are right; as a callback it writes `logs["resampling"]`, 1 in the epochs that were re-sampled,
    else 0, and refuses data that was not drawn with it.

    Args:
        start_epoch: first re-sampled epoch, from 0; 0 re-samples throughout (CB-RS).
        cls_counts: (C,) training examples per class.
        scheme: "effective" (default) or "inverse".
        beta: of the effective number, in [0, 1). Default 0.9999.

    Raises:
        ValueError: an argument out of range.
        RuntimeError: at the end of an epoch that should have been re-sampled, if no data was drawn with it.

    Example:
        >>> drs = DeferredResampling(160, cls_counts)
        >>> data = train_dataset(x, y, num_classes=10, normalize=normalize, resampling=drs)
        >>> model.fit(data, steps_per_epoch=97, epochs=200, callbacks=[drs])

    Reference:
        Cao et al., Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss, NeurIPS 2019, section 3.3.
    """

    def __init__(
        self,
        start_epoch: int,
        cls_counts: Sequence[int] | np.ndarray,
        scheme: str = "effective",
        beta: float = 0.9999,
    ) -> None:
        super().__init__()
        self.start_epoch = integer("start_epoch", start_epoch)
        self.weights = class_weights(cls_counts, scheme, beta)
        self._drawn: set[int] = set()

    def __call__(self, epoch: int) -> np.ndarray | None:
        self._drawn.add(epoch)
        return self.weights if epoch >= self.start_epoch else None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if epoch >= self.start_epoch and epoch not in self._drawn:
            raise RuntimeError(
                f"Nothing was re-sampled: no data was drawn for epoch {epoch} with this DeferredResampling. Pass it as "
                "`resampling=` to `train_dataset` or `EpochRows` as well, and the `initial_epoch` of `fit` as their "
                "`first_epoch`."
            )
        if logs is not None:
            logs["resampling"] = float(epoch >= self.start_epoch)
