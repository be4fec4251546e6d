"""Stop a run whose loss or weights are no longer numbers."""

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

from tf_mmloss.callbacks.base import RunCallback, fit_arguments, host_array
from tf_mmloss.losses.base import beyond_32_bits

# Compiled code cannot say what is wrong with a label.
_LABELS = (
    " If the learning rate is not too high, look at the labels: those outside 0 .. C-1, rows that do not sum to one, "
    "and soft rows where a loss is not defined for them, have a loss of NaN."
)


class NonFiniteLossError(RuntimeError):
    """The training loss, or a weight, became NaN or infinite."""


class StopOnNonFinite(RunCallback):
    """Raise as soon as the training loss is NaN or infinite, naming the epoch and the step.

    A step changes the weights after it has its loss: so that an epoch's last one is seen as well, the model's variables
    are looked at when the epoch ends. Place it before the callbacks that save, so that nothing good is overwritten.

    This package's losses are NaN in compiled code where a label is none. One kind is lost before they could see it: of
    labels beyond 32 bits JAX keeps the lower 32. Those of arrays are refused when `fit` starts.

    Raises:
        NonFiniteLossError: during `fit`.
        ValueError: when `fit` starts on JAX, if its labels are an array with one that 32 bits cannot hold.

    Example:
        >>> model.fit(data, callbacks=[StopOnNonFinite()])
    """

    def _forget(self) -> None:
        super()._forget()
        self._epoch = 0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if keras.backend.backend() == "jax":
            for labels in keras.tree.flatten(fit_arguments(self.model).get("y")):
                if isinstance(labels, np.ndarray) and beyond_32_bits(labels):
                    raise ValueError(
                        "`y` must have labels of 32 bits: JAX keeps the lower 32. "
                        f"Received: labels from {labels.min()} to {labels.max()}"
                    )

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        loss = float((logs or {}).get("loss", 0.0))
        if not np.isfinite(loss):
            hint = _LABELS if np.isnan(loss) else ""
            raise NonFiniteLossError(
                f"The loss became {loss} in epoch {self._epoch}, step {batch} (both from 0).{hint}"
            )

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        floats = (v for v in self.model.variables if "float" in keras.backend.standardize_dtype(v.dtype))
        check_finite(epoch, ((v.path, host_array(v)) for v in floats))


def check_finite(epoch: int, arrays: Iterable[tuple[str, np.ndarray]]) -> None:
    """Refuse weights, by their paths, that are NaN or infinite after an epoch."""
    for path, array in arrays:
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise NonFiniteLossError(f"The weights became NaN or infinite in epoch {epoch} (from 0), first {path}.")
