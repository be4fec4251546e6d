"""Sharpness-aware minimisation as the training step of a model."""

from typing import Any

import keras
from keras import ops

from tf_mmloss._replicas import num_replicas, sum_over_replicas
from tf_mmloss._validation import flag, number, received
from tf_mmloss.losses.base import LossState

LARGEST_RHO = 1e6
_TINY = 1e-12  # as in the published codes


@keras.saving.register_keras_serializable(package="tf_mmloss")
class SAM(keras.Model):
    """A network whose training step is that of sharpness-aware minimisation (SAM).

        e = rho g / |g|,   g the gradient of the batch loss at w, |g| over all variables      (Foret et al., Eq. 2)
        w <- the optimizer's step at w, with the gradient of the batch loss at w + e

    It takes two passes, about twice the time of a step. The optimizer, its weight decay included, sees the second
    gradient alone; with rho = 0 the step is the plain one. Everything but the weights is in both passes what it was
    before the step (dropout masks, class weights, counts of `SeesawLoss`), and after it what the first pass made it:
    batch-norm running statistics are those at w, updated once. davda54's code and its example do the same; the codes
    of Rangwani et al. and of Wang et al. update them in both passes. Logged loss and metrics are those at w.

    It shares its layers and weights with `network`, which is what to save: a plain model, loadable without this class.
    Keras' `clone_model` of it is a plain model too, with the usual step: clone `network`, and make a `SAM` of that.

    Args:
        network: a functional or built `keras.Sequential` model; compile the `SAM`, not the network.
        rho: radius, >= 0. Default 0.05, the paper's. `rho` can be set at any time, in a callback for example.
        adaptive: scale the neighbourhood by the weights (ASAM): e = rho w^2 g / ||w| g|; rho is then about ten times
            larger. Default False.
        name, trainable: as for any Keras model.

    Raises:
        TypeError: a network without known inputs and outputs.
        ValueError: rho out of range.

    Example:
        >>> model = SAM(network, rho=0.05)
        >>> model.compile(SGD(0.1), LDAMLoss(cls_counts), metrics=["accuracy"])
        >>> history = model.fit(x, y, epochs=200, callbacks=[DeferredReweighting(160)], verbose=0)
        >>> network.save("network.keras")

    Reference:
        Foret et al., Sharpness-Aware Minimization for Efficiently Improving Generalization, ICLR 2021; Kwon et al.,
        ASAM, ICML 2021. With long tails: Rangwani et al., Escaping Saddle Points for Effective Generalization on
        Class-Imbalanced Data, NeurIPS 2022.
    """

    def __init__(self, network: keras.Model, rho: float = 0.05, *, adaptive: bool = False, **kwargs: Any) -> None:
        if not isinstance(network, keras.Model) or not getattr(network, "inputs", None):
            raise TypeError(
                "`network` must be a functional or built Sequential model of Keras 3, whose inputs are known. "
                f"{received('network', network)}"
            )
        rho, adaptive = _check_rho(rho), flag("adaptive", adaptive)
        if isinstance(network, keras.Sequential):  # its own `input` is that of a call
            network = keras.Model(network.inputs[0], network.outputs[0])
        super().__init__(network.input, network.output, **kwargs)
        self.adaptive = adaptive
        self._radius = _Radius(rho)

    @property
    def rho(self) -> float:
        """The radius."""
        return float(ops.convert_to_numpy(self._radius.rho))

    @rho.setter
    def rho(self, rho: float) -> None:
        self._radius.rho.assign(_check_rho(rho))

    def get_config(self) -> dict[str, Any]:
        network = keras.saving.serialize_keras_object(keras.Model(self.input, self.output, name="network"))
        own = {"rho": self.rho, "adaptive": self.adaptive, "name": self.name, "trainable": self.trainable}
        return {"network": network, **own}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "SAM":
        network = keras.saving.deserialize_keras_object(config["network"], custom_objects)
        return cls(**{**config, "network": network})

    def _climbed(self, values: list[Any], gradients: list[Any], rho: Any) -> list[Any]:
        """w + e of every variable, from values w and gradients of any scale; a gradient of None moves nothing."""
        pairs = [(w, None if g is None else ops.cast(g, w.dtype)) for w, g in zip(values, gradients, strict=True)]
        scaled = [(ops.abs(w) if self.adaptive else 1) * g for w, g in pairs if g is not None]
        if not scaled:
            return values
        squares = ops.sum(ops.stack([ops.sum(ops.square(ops.cast(g, "float32"))) for g in scaled]))
        radius = rho / (ops.sqrt(squares) + _TINY)
        return [
            w if g is None else w + ops.cast(radius, w.dtype) * ((ops.square(w) if self.adaptive else 1) * g)
            for w, g in pairs
        ]

    def compute_loss_and_updates(
        self, trainable_variables: Any, non_trainable_variables: Any, *args: Any, **kwargs: Any
    ) -> Any:
        """The step on JAX: a loss whose gradient is that at w + e; all else of it is at w."""
        compute = super().compute_loss_and_updates
        if not kwargs.get("training"):
            return compute(trainable_variables, non_trainable_variables, *args, **kwargs)
        import jax

        def at(values: Any) -> Any:
            return compute(values, non_trainable_variables, *args, **kwargs)

        here = jax.lax.stop_gradient(trainable_variables)
        (_, updates), gradients = jax.value_and_grad(at, has_aux=True)(here)
        is_rho = [variable is self._radius.rho for variable in self.non_trainable_variables]
        rho = non_trainable_variables[is_rho.index(True)]
        climbed = self._climbed(here, gradients, rho)
        # w + e with e constant, so that the gradient of w is that of w + e.
        loss, _ = at([v + (c - h) for v, c, h in zip(trainable_variables, climbed, here, strict=True)])
        return loss, updates

    def train_step(self, *arguments: Any) -> Any:
        """One step on a batch; Keras calls it."""
        if keras.backend.backend() == "jax" or not self.trainable_variables:
            return super().train_step(*arguments)
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(arguments[0])
        differentiate = _by_tensorflow if keras.backend.backend() == "tensorflow" else _by_torch
        made: list[Any] = []

        def loss_at(variables: list[Any], values: list[Any]) -> Any:
            # Nothing is assigned within the scope: it collects what the pass would have changed.
            with keras.StatelessScope(list(zip(variables, values, strict=True)), collect_losses=True) as scope:
                y_pred = self(x, training=True) if self._call_has_training_arg else self(x)
                loss = self._compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=True)
                made.append((scope, y_pred, loss))
                return self.optimizer.scale_loss(loss)

        variables = list(self.trainable_variables)
        values, gradients = differentiate(loss_at, variables, [v.value for v in variables])
        scope, y_pred, loss = made[0]
        whole = _summed(gradients) if num_replicas() > 1 else gradients
        _, gradients = differentiate(loss_at, variables, self._climbed(values, whole, self._radius.rho.value))
        for variable in [*self.non_trainable_variables, *self.metrics_variables]:
            value = scope.get_current_value(variable)
            if value is not None:
                variable.assign(value)
        rows = ops.shape(next(leaf for leaf in keras.tree.flatten(x) if leaf is not None))[0]
        # Keras divides the loss of a replica by their number.
        self._loss_tracker.update_state(loss * num_replicas(), sample_weight=rows)
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return self.compute_metrics(x, y, y_pred, sample_weight=sample_weight)


class _Radius(LossState):
    """The radius as a variable, which compiled steps read; no part of what is saved as weights."""

    def __init__(self, rho: float) -> None:
        super().__init__(name="radius", trainable=False, dtype="float32")
        self.rho = self.add_weight(shape=(), initializer="zeros", trainable=False, name="rho")
        self.rho.assign(rho)


def _check_rho(rho: float) -> float:
    return number("rho", rho, at_least=0, at_most=LARGEST_RHO)


def _by_tensorflow(loss_at: Any, variables: list[Any], values: list[Any]) -> tuple[list[Any], list[Any]]:
    """The values and the gradient of the loss with respect to them."""
    import tensorflow as tf

    values = [tf.convert_to_tensor(value) for value in values]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(values)
        loss = loss_at(variables, values)
    return values, [None if g is None else tf.convert_to_tensor(g) for g in tape.gradient(loss, values)]


def _by_torch(loss_at: Any, variables: list[Any], values: list[Any]) -> tuple[list[Any], list[Any]]:
    import torch

    values = [value.detach().requires_grad_() for value in values]
    gradients = torch.autograd.grad(loss_at(variables, values), values, allow_unused=True)
    return [value.detach() for value in values], list(gradients)


def _summed(gradients: list[Any]) -> list[Any]:
    """Gradients summed over the replicas of `tf.distribute`, which have their shares of it."""
    return [None if g is None else sum_over_replicas(g) for g in gradients]
