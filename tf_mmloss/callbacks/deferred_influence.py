"""Begin with the influence of an influence-balanced loss in a later epoch."""

from typing import Any

import keras

from tf_mmloss.callbacks.base import Deferred, attach_states
from tf_mmloss.losses.influence_balanced import Influence, InfluenceBalancedLoss


class DeferredInfluence(Deferred):
    """Train with plain cross-entropy until `start_epoch`, and influence-balanced from then on.

        epoch < start_epoch:  l = -log p_y,      then:  l = w_y a / (|p - t|_1 |h|_1 + 1e-3) * -log p_y

    A function of the epoch number alone, so it is right after a resume. After `fit` the loss is influence-balanced.

    Args:
        start_epoch: first influence-balanced epoch, from 0. Published: 100 of 200, where the learning rate falls to a
            hundredth at once, as it should: the loss becomes many times larger.

    Raises:
        ValueError: `start_epoch` is no integer >= 0.
        TypeError: when `fit` starts, if no loss of the model is an `InfluenceBalancedLoss`; on JAX, if the model is a
            `keras.Sequential`, which does not track the loss's state.

    Example:
        >>> model = with_features(model)
        >>> model.compile(SGD(0.1), InfluenceBalancedLoss(cls_counts, scale=10))
        >>> history = model.fit(data, epochs=200, callbacks=[DeferredInfluence(160)], verbose=0)

    Reference:
        Park et al., Influence-Balanced Loss for Imbalanced Visual Classification, ICCV 2021, section 3.4.
    """

    def _forget(self) -> None:
        super()._forget()
        self._layers: list[Influence] = []

    def set_model(self, model: keras.Model) -> None:
        super().set_model(model)
        losses = {id(loss): loss for loss in keras.tree.flatten(model.loss) if isinstance(loss, InfluenceBalancedLoss)}
        if not losses:
            raise TypeError(
                f"DeferredInfluence needs a model compiled with an InfluenceBalancedLoss. Received: loss={model.loss!r}"
            )
        self._layers = [loss.switch() for loss in losses.values()]
        attach_states(self, model, {f"deferred_influence_{i}": layer for i, layer in enumerate(self._layers)})

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_epoch_begin(epoch, logs)
        self._assign(epoch >= self.start_epoch)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        super().on_train_end(logs)
        self._assign(True)

    def _assign(self, on: bool) -> None:
        for layer in self._layers:
            layer.on.assign(float(on))
