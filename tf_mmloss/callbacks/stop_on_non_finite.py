"""Stop a run whose loss is no longer a number."""

from typing import Any

import keras
import numpy as np


class NonFiniteLossError(RuntimeError):
    """The training loss became NaN or infinite."""


class StopOnNonFinite(keras.callbacks.Callback):
    """Raise as soon as the training loss is NaN or infinite, naming the epoch and the step.

    The epoch is not completed, so nothing that was saved is overwritten.

    Raises:
        NonFiniteLossError: during `fit`.

    Example:
        >>> model.fit(data, callbacks=[StopOnNonFinite()])
    """

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        loss = float((logs or {}).get("loss", 0.0))
        if not np.isfinite(loss):
            raise NonFiniteLossError(f"The loss became {loss} in epoch {self._epoch}, step {batch} (both from 0).")
