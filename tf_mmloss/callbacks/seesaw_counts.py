"""Count the labels that a Seesaw loss has seen."""

from typing import Any

import keras

from tf_mmloss.callbacks.base import RunCallback, attach_states
from tf_mmloss.losses.seesaw import SeenLabels, SeesawLoss


class SeesawCounts(RunCallback):
    """Let the `SeesawLoss` of a model count the labels of its training, as the published code does.

    The counts become part of the model's state, so that `Checkpoint` saves and restores them; the evaluation uses them
    and adds nothing, where it is that of `fit`, or of callbacks placed after this one at the end of an epoch: what a
    callback evaluates between two batches is counted. A saved `.keras` model does not have them. To resume, `attach`
    them before `Checkpoint.restore`.

    Raises:
        TypeError: if no loss of the model is a `SeesawLoss`; on JAX, if the model is a `keras.Sequential`, which does
            not track them.

    Example:
        >>> model.compile(SGD(0.1), SeesawLoss(cls_counts))
        >>> counts, checkpoint = SeesawCounts(), Checkpoint("run/checkpoint")
        >>> counts.attach(model)
        >>> first_epoch = checkpoint.restore(model)
        >>> model.fit(data, initial_epoch=first_epoch, epochs=200, callbacks=[counts, checkpoint])
    """

    def _forget(self) -> None:
        super()._forget()
        self._layers: list[SeenLabels] = []

    def attach(self, model: keras.Model) -> None:
        """Make the counts, zeros at first, part of a compiled model; again does nothing."""
        losses = {id(loss): loss for loss in keras.tree.flatten(model.loss) if isinstance(loss, SeesawLoss)}
        if not losses:
            raise TypeError(f"SeesawCounts needs a model compiled with a SeesawLoss. Received: loss={model.loss!r}")
        self._layers = [loss.count_labels() for loss in losses.values()]
        attach_states(self, model, {f"seesaw_counts_{i}": layer for i, layer in enumerate(self._layers)})

    def set_model(self, model: keras.Model) -> None:
        super().set_model(model)
        self.attach(model)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._count(True)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._count(False)

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._count(False)

    def _count(self, counting: bool) -> None:
        for layer in self._layers:
            layer.counting.assign(float(counting))
