"""What the callbacks share: copies as before a `fit`, and the epoch from which something is deferred."""

import sys
import warnings
from typing import Any

import keras
import numpy as np

from tf_mmloss._validation import integer


class RunCallback(keras.callbacks.Callback):
    """A callback whose copies, by `copy.deepcopy` or `pickle`, are as before the first `fit`.

    Keras Tuner and scikit-learn's wrappers copy callbacks for every trial, used ones as well. A child sets what a run
    leaves in it in `_forget`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._forget()

    def _forget(self) -> None:
        """Be as before the first `fit`."""
        self.params: dict[str, Any] | None = None
        self._model: Any = None

    def __getstate__(self) -> dict[str, Any]:
        copied = object.__new__(type(self))
        copied.__dict__.update(self.__dict__)
        copied._forget()
        return copied.__dict__


class Deferred(RunCallback):
    """A callback that begins at `start_epoch`, and warns of a `fit` that ends before.

    Args:
        start_epoch: from 0.

    Raises:
        ValueError: `start_epoch` is no integer >= 0.
    """

    def __init__(self, start_epoch: int) -> None:
        super().__init__()
        self.start_epoch = integer("start_epoch", start_epoch)

    def _forget(self) -> None:
        super()._forget()
        self._last_epoch: int | None = None
        self._warned = False

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._last_epoch = None
        epochs = (self.params or {}).get("epochs")
        self._warned = epochs is not None and epochs <= self.start_epoch
        if self._warned:
            self._warn(f"never begins: `fit` has epochs={epochs}.")

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._last_epoch = epoch

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        if self._last_epoch is not None and self._last_epoch < self.start_epoch and not self._warned:
            self._warn(f"never began: `fit` ended after epoch {self._last_epoch} (from 0).")

    def _warn(self, message: str) -> None:
        warnings.warn(f"{type(self).__name__}(start_epoch={self.start_epoch}) {message}", stacklevel=3)


def fit_arguments(model: keras.Model) -> dict[str, Any]:
    """Return what the running `fit` of `model` was called with, or nothing outside of one.

    Keras shows callbacks neither the data nor the weights of a `fit`, so they are read from its frame.
    """
    frame = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == "fit" and frame.f_locals.get("self") is model:
            return dict(frame.f_locals)
        frame = frame.f_back  # type: ignore[assignment]
    return {}


def host_array(variable: keras.Variable) -> np.ndarray:
    """Return a variable's value as NumPy's files know it: bfloat16, which they do not, as float32, which holds it."""
    array = np.asarray(keras.ops.convert_to_numpy(variable))
    return array.astype(np.float32) if keras.backend.standardize_dtype(variable.dtype) == "bfloat16" else array


def attach_states(
    callback: keras.callbacks.Callback, model: keras.Model, states: dict[str, keras.layers.Layer]
) -> None:
    """Make layers that hold a loss's state attributes of a compiled model: a part of what `fit` changes and saves.

    Args:
        callback: whose they are.
        model: compiled; what it was traced to before is traced anew, where the layers are new to it.
        states: the layers by the name of their attribute.

    Raises:
        TypeError: on JAX, if the model does not track layers that are set as attributes, as a `keras.Sequential`.
    """
    attached = [_attach(model, name, layer) for name, layer in states.items()]
    tracked = {id(variable) for variable in model.variables}
    own = {id(variable) for layer in states.values() for variable in layer.variables}
    if keras.backend.backend() == "jax" and not own <= tracked:
        raise TypeError(
            f"{type(callback).__name__} on JAX needs a model that tracks layers set as attributes: functional or "
            f"subclassed. Received: {type(model).__name__}. Use keras.Model(model.inputs, model.outputs)"
        )
    if any(attached) and model.train_function is not None:
        model.make_train_function(force=True)  # an earlier fit traced the loss without these layers


def _attach(model: keras.Model, name: str, layer: keras.layers.Layer) -> bool:
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
