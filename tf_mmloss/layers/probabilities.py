"""Probabilities from a model's outputs, bare cosines too: at the scale of the loss that trained them."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tf_mmloss._validation import choice, number, numeric, received, sequence
from tf_mmloss.losses.base import LARGEST, check_scale

ACTIVATIONS = ("softmax", "sigmoid")


def probabilities(model_or_loss: Any, logits: Any) -> Any:
    """Return the probabilities that a loss of this package fits, from a model's outputs u.

        p = softmax(s u),   or sigmoid(s u) where the loss asks one yes-or-no question for each class

    A softmax of the bare outputs is wrong where the scale s is not 1: cosines would give nearly uniform rows.

    Args:
        model_or_loss: a loss of this package, or a model that is compiled with one.
        logits: (..., C) outputs of the model, not multiplied by the scale.

    Returns:
        (..., C): float32 of a tensor, a float64 array of an array. Rows of a softmax sum to 1.

    Raises:
        ValueError: a loss of other packages, several losses, or a hinge, whose outputs are scores: fit a temperature T
            on held-out images by `tf_mmloss.evaluation.fit_temperature` and use `Probabilities(1 / T)`; logits that
            are no numbers.

    Example:
        >>> cosines = np.array([[0.9, 0.1, -0.2]])
        >>> probabilities(MaxMarginLoss([50, 20, 5], scale=10.0), cosines).round(4)
        array([[9.996e-01, 3.000e-04, 0.000e+00]])
    """
    layer = Probabilities.of(model_or_loss)
    is_tensor = ops.is_tensor(logits)
    logits = logits if is_tensor else numeric("logits", logits)
    if not len(logits.shape) or logits.shape[-1] == 0:
        raise ValueError(f"`logits` must have shape (..., C). Received: logits.shape={tuple(logits.shape)}")
    if is_tensor:
        return layer(logits)
    return layer.of_array(logits)


@keras.saving.register_keras_serializable(package="tf_mmloss")
class Probabilities(keras.layers.Layer):
    """Layer from a model's outputs u to probabilities, for serving; see `probabilities`.

        p = softmax(s u + o)   or   p = sigmoid(s u + o)

    Train without it: the losses take the outputs u.

    Args:
        scale: s of the loss, > 0; 1 / T for a temperature T. One number, or one for each class. Default 1.
        activation: "softmax" (default), or "sigmoid" for multi-label examples.
        offset: o, one number (default 0) or one for each class, as of a post-hoc logit adjustment.
        name, dtype, ...: as for any Keras layer; float32 by default, also under mixed precision.

    Input: (..., C) cosines or logits. Output: (..., C) probabilities.

    Raises:
        ValueError: scale or offset out of range, another activation.

    Example:
        >>> served = keras.Sequential([model, Probabilities.of(model)])
    """

    def __init__(
        self,
        scale: float | Sequence[float] = 1.0,
        activation: str = "softmax",
        offset: float | Sequence[float] = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        self.scale = _of_classes("scale", scale, check_scale)
        self.offset = _of_classes("offset", offset, _offset)
        self.activation = choice("activation", activation, ACTIVATIONS)

    @classmethod
    def of(cls, model_or_loss: Any, **kwargs: Any) -> "Probabilities":
        """Make the layer for a loss.

        Args:
            model_or_loss: a loss of this package, or a model that is compiled with one.
            **kwargs: of the layer: name, dtype.

        Raises:
            ValueError: a loss without probabilities, see `probabilities`.
        """
        loss = model_or_loss
        if isinstance(loss, keras.Model):
            loss = getattr(loss, "loss", None)
            if loss is None:
                raise ValueError("`model_or_loss` must be compiled with a loss. Received: a model that is not compiled")
        if not isinstance(loss, keras.losses.Loss) or getattr(loss, "activation", None) not in ACTIVATIONS:
            raise ValueError(
                "`model_or_loss` must be one loss of this package, or a model that is compiled with one. "
                f"{received('loss', loss)}"
            )
        if not loss.probabilistic:
            raise ValueError(
                "`model_or_loss` must have a loss that fits probabilities. A hinge gives scores: fit a temperature T "
                "on held-out images by tf_mmloss.evaluation.fit_temperature, and use Probabilities(1 / T). "
                f"{received('loss', type(loss).__name__)}"
            )
        return cls(loss.scale, loss.activation, **kwargs)

    def scores(self, logits: np.ndarray) -> np.ndarray:
        """The scores s u + o (..., C), float64, of an array of outputs (..., C): the largest is the answer."""
        return np.asarray(self.scale) * logits + np.asarray(self.offset)

    def of_array(self, logits: np.ndarray) -> np.ndarray:
        """The probabilities (..., C), float64, of an array of outputs (..., C)."""
        scores = self.scores(logits)
        from tf_mmloss.evaluation import softmax  # here: it imports this module where it is the first

        return softmax(scores) if self.activation == "softmax" else np.exp(-np.logaddexp(0, -scores))

    def call(self, logits: Any) -> Any:
        logits = ops.cast(logits, self.compute_dtype)  # of integers, which Keras leaves, the scale would be cut to one
        scaled = logits * ops.convert_to_tensor(self.scale, dtype=logits.dtype)
        if self.offset != 0:
            scaled = scaled + ops.convert_to_tensor(self.offset, dtype=logits.dtype)
        return ops.softmax(scaled, axis=-1) if self.activation == "softmax" else ops.sigmoid(scaled)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        own = {"scale": self.scale, "activation": self.activation, "offset": self.offset}
        return {**super().get_config(), **own}


def _of_classes(argument: str, value: Any, check: Callable[[float], float]) -> float | list[float]:
    """A number, or one for each class."""
    if isinstance(value, (list, tuple)) or (isinstance(value, np.ndarray) and value.ndim):
        return [check(each) for each in sequence(argument, value)]
    return check(value)


def _offset(value: float) -> float:
    return number("offset", value, above=-LARGEST, below=LARGEST)
