"""Change the class weights of a running `fit`."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tf_mmloss._validation import integer
from tf_mmloss.imbalance import class_weights
from tf_mmloss.losses.base import ClassWeights, LongTailLoss


class DeferredReweighting(keras.callbacks.Callback):
    """Deferred re-weighting (DRW): class weights of one until `start_epoch`, re-balancing weights from then on.

        stage 1, epoch < start_epoch:   w_c = 1
        stage 2:                        w_c ~ 1 / effective number of c, or ~ 1 / n_c,  sum_c w_c = C

    (paper, section 3.3 and Algorithm 1). The model must be compiled with a loss of this package, whose batch
    loss is the weighted mean. Nothing is traced again when the weights change; the callback is a function of the
    epoch number alone, so it is right after a resume; `val_loss` stays un-weighted. `logs["reweighting"]` is 1
    in the epochs that were re-weighted, else 0. Between epochs and after `fit` the loss has weights of one, so place
    the callback before others that evaluate the model; after a `fit` that was interrupted call `on_train_end()`.

    Args:
        start_epoch: first re-weighted epoch, from 0. The published one is the first drop of the learning rate,
            160 of 200; 0 re-weights throughout (CB-RW, CB-Focal).
        cls_counts: (C,) training examples per class.
        scheme: "effective" (default; the published code) or "inverse" (Algorithm 1).
        beta: of the effective number, in [0, 1). Default 0.9999.

    Raises:
        ValueError: an argument out of range.
        TypeError: when `fit` starts, if the model's loss is none of this package's; on JAX, if the model is a
            `keras.Sequential`, which does not track the weights.

    Example:
        >>> model.compile(optimizer=SGD(0.1), loss=MaxMarginLoss(cls_counts))
        >>> model.fit(data, epochs=200, callbacks=[DeferredReweighting(160, cls_counts)])

    Reference:
        Cao et al., Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss, NeurIPS 2019, Algorithm 1.
    """

    # The attribute by which the loss's weights become part of the model's state during `fit`.
    _ATTRIBUTE = "deferred_reweighting"

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
        self._current = np.ones_like(self.weights)
        self._layers: list[ClassWeights] = []

    def set_model(self, model: keras.Model) -> None:
        super().set_model(model)
        losses = [loss for loss in keras.tree.flatten(model.loss) if isinstance(loss, LongTailLoss)]
        if not losses:
            raise TypeError(
                "DeferredReweighting needs a model compiled with a loss of tf_mmloss, whose class weights it can "
                f"change. Received: loss={model.loss!r}"
            )
        for loss in losses:
            loss.enable_class_weights(len(self.weights))
        self._layers = [loss.class_weights for loss in losses if loss.class_weights is not None]
        attached = [_attach(model, f"{self._ATTRIBUTE}_{i}", layer) for i, layer in enumerate(self._layers)]
        tracked = {id(variable) for variable in model.variables}
        if keras.backend.backend() == "jax" and any(id(layer.weight) not in tracked for layer in self._layers):
            raise TypeError(
                "DeferredReweighting on JAX needs a model that tracks layers set as attributes: functional or "
                f"subclassed. Received: {type(model).__name__}. Use keras.Model(model.inputs, model.outputs)"
            )
        if any(attached) and model.train_function is not None:
            model.make_train_function(force=True)  # an earlier fit traced the loss without these class weights

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._current = self.weights if epoch >= self.start_epoch else np.ones_like(self.weights)
        self._assign(self._current)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if logs is not None:
            logs["reweighting"] = float(epoch >= self.start_epoch)
        self._assign(np.ones_like(self.weights))

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._assign(np.ones_like(self.weights))

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        self._assign(self._current)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._current = np.ones_like(self.weights)
        self._assign(self._current)

    def _assign(self, weights: np.ndarray) -> None:
        for layer in self._layers:
            layer.weight.assign(weights)


def _attach(model: keras.Model, name: str, layer: ClassWeights) -> bool:
    """Make the layer the model's attribute; return whether it was not."""
    attached = getattr(model, name, None)
    if attached is layer:
        return False
    # Keras has no public way to forget a layer, nor to add one to a subclassed model that is built, and so locked.
    tracker = model._tracker
    locked = tracker.locked
    tracker.unlock()
    if attached is not None:
        tracker.untrack(attached)
    setattr(model, name, layer)
    if locked:
        model._lock_state()
    return True
