"""Stochastic gradient descent as the published results used it."""

from typing import Any

import keras
from keras import ops

from tf_mmloss._validation import name as keras_name
from tf_mmloss._validation import number, received
from tf_mmloss.schedules import CosineSchedule, WarmupStepSchedule


@keras.saving.register_keras_serializable(package="tf_mmloss")
class SGD(keras.optimizers.Optimizer):
    """SGD with momentum and coupled weight decay (L2), the learning rate outside the velocity.

        v <- momentum v + g + weight_decay w;    w <- w - learning_rate v

    `keras.optimizers.SGD` decays weights apart from the gradient, about ten times weaker at these
    settings, and folds the rate into the velocity, so that after a drop the old rate lives on for about
    twenty steps. This is the update of PyTorch's `torch.optim.SGD`, which the published results used.

    Args:
        learning_rate: a number >= 0, a Keras schedule, or a function without arguments that returns the rate. Default
            0.1.
        momentum: in [0, 1). Default 0.9.
        weight_decay: times the variable, is added to the gradient; >= 0. Default 2e-4, of every trainable variable
            that `exclude_from_weight_decay` does not leave out.
        name, clipnorm, ...: as for any Keras optimizer.

    Raises:
        ValueError: an argument out of range; a `WarmupStepSchedule` or `CosineSchedule`, which are of epochs.

    Example:
        >>> model.compile(optimizer=SGD(0.1), loss=MaxMarginLoss(cls_counts))
    """

    def __init__(
        self,
        learning_rate: Any = 0.1,
        momentum: float = 0.9,
        weight_decay: float = 2e-4,
        name: str = "sgd",
        **kwargs: Any,
    ) -> None:
        if isinstance(learning_rate, (CosineSchedule, WarmupStepSchedule)):
            raise ValueError(
                "`learning_rate` must be a number or a schedule of steps; pass a schedule of epochs to "
                f"keras.callbacks.LearningRateScheduler. {received('learning_rate', learning_rate)}"
            )
        if not callable(learning_rate):  # a Keras schedule is callable
            learning_rate = number("learning_rate", learning_rate, at_least=0)
        momentum = number("momentum", momentum, at_least=0, below=1)
        weight_decay = number("weight_decay", weight_decay, at_least=0)
        super().__init__(learning_rate=learning_rate, name=keras_name(name, slash=False), **kwargs)
        # Keras' own momentum and decay stay off.
        self.momentum, self.coupled_weight_decay = momentum, weight_decay

    def build(self, variables: list[keras.Variable]) -> None:
        if not self.built:
            super().build(variables)
            self.velocities = self.add_optimizer_variables(variables, "velocity")

    def update_step(self, gradient: Any, variable: keras.Variable, learning_rate: Any) -> None:
        velocity = self.velocities[self._get_variable_index(variable)]
        gradient = ops.cast(gradient, variable.dtype)
        if self._use_weight_decay(variable):
            gradient = gradient + self.coupled_weight_decay * variable
        if self._can_fuse():
            import tensorflow as tf

            tf.raw_ops.ResourceApplyMomentum(
                var=_resource(variable),
                accum=_resource(velocity),
                lr=ops.cast(learning_rate, variable.dtype),
                grad=gradient,
                momentum=ops.convert_to_tensor(self.momentum, variable.dtype),
            )
            return
        new_velocity = velocity * self.momentum + gradient
        self.assign(velocity, new_velocity)
        self.assign_sub(variable, ops.cast(learning_rate, variable.dtype) * new_velocity)

    def _can_fuse(self) -> bool:
        # One operation in place of five: of a small network's step on a CPU it saves a few per cent.
        if keras.backend.backend() != "tensorflow":
            return False
        import tensorflow as tf

        return not tf.distribute.has_strategy()

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "momentum": self.momentum,
            "weight_decay": self.coupled_weight_decay,
        }


class _WarmAverage:
    """With `use_ema`, the average of step t, of 0, 1, ..., decays by min(ema_momentum, t / (9 + t)).

    It covers about the last tenth of the steps until they are many enough for `ema_momentum`, as in TensorFlow's
    `ExponentialMovingAverage` with `num_updates`: Keras' own begins as the weights after the first step and keeps them
    for 1 / (1 - ema_momentum) steps, which a short stage of a training may not have.
    """

    def _update_model_variables_moving_average(self, trainable_variables: list[keras.Variable]) -> None:
        step = ops.cast(self.iterations, "float32")  # type: ignore[attr-defined]
        decay = ops.minimum(self.ema_momentum, step / (9 + step))  # type: ignore[attr-defined]
        averages = self._model_variables_moving_average  # type: ignore[attr-defined]
        for variable, average in zip(trainable_variables, averages, strict=True):
            if average is not None:
                average.assign(decay * average + (1 - decay) * variable)


@keras.saving.register_keras_serializable(package="tf_mmloss", name="AveragedSGD")
class _AveragedSGD(_WarmAverage, SGD):
    """The SGD of a run with `--ema`."""


@keras.saving.register_keras_serializable(package="tf_mmloss", name="AveragedAdamW")
class _AveragedAdamW(_WarmAverage, keras.optimizers.AdamW):
    """The AdamW of a run with `--ema`."""


def averaged(optimizer: keras.optimizers.Optimizer, decay: float) -> keras.optimizers.Optimizer:
    """An optimizer like an `SGD` or an AdamW, with a moving average of the weights that begins fast.

    Raises:
        ValueError: another optimizer, or a decay outside [0, 1).
    """
    decay = number("decay", decay, at_least=0, below=1)
    if not isinstance(optimizer, (SGD, keras.optimizers.AdamW)):
        raise ValueError(f"`optimizer` must be an SGD or an AdamW. {received('optimizer', optimizer)}")
    kind = _AveragedSGD if isinstance(optimizer, SGD) else _AveragedAdamW
    return kind.from_config({**optimizer.get_config(), "use_ema": True, "ema_momentum": decay})


def _resource(variable: Any) -> Any:
    """The handle of a Keras variable, or of the TensorFlow variable that Keras hands over in its place."""
    return (variable.value if isinstance(variable, keras.Variable) else variable).handle
