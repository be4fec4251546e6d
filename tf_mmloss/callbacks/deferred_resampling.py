"""Change how the training images are drawn, at an epoch."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tf_mmloss._validation import integer
from tf_mmloss.callbacks.base import Deferred, fit_arguments
from tf_mmloss.imbalance import class_weights

_HOW = (
    "Pass it as `resampling=` to `ResampledDataset` (arrays of any kind), `train_dataset` or `EpochRows` as well, and "
    "their batches to `fit`; `ResampledDataset.of_batches` takes a `tf.data` set or `PyDataset`. A pipeline that draws "
    "by class itself must call its `made_data(first_epoch, steps_per_epoch)`."
)


class DeferredResampling(Deferred):
    """Deferred re-sampling (DRS): uniform epochs until `start_epoch`, class-balanced drawing from then on.

        P(i) ~ w_{y_i},   w_c ~ 1 / effective number of c, or ~ 1 / n_c,   with replacement, N images an epoch

    One object in two places: as `resampling=` of `ResampledDataset`, `tf_mmloss.pipeline.train_dataset` or
    `tf_mmloss.device_input.EpochRows` it maps an epoch to class weights, a pure function, so that batches drawn ahead
    and resumed runs are right; as a callback it writes what was drawn to `logs["resampling"]`, 1 in the epochs whose
    images were re-sampled, else 0, and refuses data that was not drawn with it, or not in the epochs of the `fit`. A
    copy knows of no data. `fit` warns if it never reaches `start_epoch`.

    Args:
        start_epoch: first re-sampled epoch, from 0; 0 re-samples throughout (CB-RS).
        cls_counts: (C,) training examples per class.
        scheme: "effective" (default) or "inverse".
        beta: of the effective number, in [0, 1). Default 0.9999.

    Raises:
        ValueError: an argument out of range.
        RuntimeError: when `fit` starts, if no data was made with it, or its data begins at another epoch than `fit` or
            has another number of steps in one; at the end of an epoch that was not drawn with it.

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
        super().__init__(start_epoch)
        self.weights = class_weights(cls_counts, scheme, beta)

    def _forget(self) -> None:
        super()._forget()
        self._drawn: dict[int, bool] = {}  # epoch -> whether it was re-sampled
        self._made: set[tuple[int, int]] = set()

    def __call__(self, epoch: int) -> np.ndarray | None:
        resampled = epoch >= self.start_epoch
        self._drawn[epoch] = resampled
        return self.weights if resampled else None

    def made_data(self, first_epoch: int, steps_per_epoch: int) -> None:
        """Be told of data that will be drawn with it, as `train_dataset` and `EpochRows` do.

        Args:
            first_epoch: of the data; the `initial_epoch` of `fit` must be that.
            steps_per_epoch: batches of an epoch; those of `fit` must be as many.

        Raises:
            ValueError: a number out of range.
        """
        steps = integer("steps_per_epoch", steps_per_epoch, at_least=1)
        self._made.add((integer("first_epoch", first_epoch), steps))

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        super().on_train_begin(logs)
        arguments = fit_arguments(self.model)
        arrays = arguments.get("y") is not None  # which a user may have drawn with it, but not what made batches
        batches = arguments.get("x")
        of_another = isinstance(batches, keras.utils.PyDataset) and getattr(batches, "resampling", self) is not self
        if not (self._made or self._drawn) or (arrays and self._made) or of_another:
            raise RuntimeError(f"Nothing is re-sampled: the data of `fit` was not made with DeferredResampling. {_HOW}")

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        steps = (self.params or {}).get("steps")
        begins = self._last_epoch is None
        super().on_epoch_begin(epoch, logs)
        if begins and self._made and not any(epoch == at and steps in (None, per) for at, per in self._made):
            made = " or ".join(f"first_epoch={at} and {per} steps an epoch" for at, per in sorted(self._made))
            raise RuntimeError(
                f"The data of DeferredResampling has {made}; `fit` must have that `initial_epoch` and "
                f"`steps_per_epoch`. Received: initial_epoch={epoch}, steps_per_epoch={steps}"
            )

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if epoch not in self._drawn:
            raise RuntimeError(f"No data was drawn for epoch {epoch} with DeferredResampling. {_HOW}")
        if logs is not None:
            logs["resampling"] = float(self._drawn[epoch])
