"""A classification head that returns cosines."""

from typing import Any

import keras
from keras import ops

from tf_mmloss._validation import integer
from tf_mmloss.imbalance import MAX_CLASSES

# Here `@` stands for `ops.matmul`: on PyTorch Keras computes that in float32 also for float64.


def inverse_norm(x: Any, axis: int) -> tuple[Any, Any]:
    """Return (m, r) with 1 / |x| = r / m along `axis` (kept), such that no square of x / m leaves the number range.

    m is the power of two next below the largest |x_i|: dividing by it rounds nothing. A vector of zeros has m = r = 1,
    which keeps value and gradient finite in half precision too.
    """
    # Constant in the gradient: r / m does not depend on m.
    largest = ops.stop_gradient(ops.max(ops.abs(x), axis=axis, keepdims=True, initial=0.0))
    is_zero = largest == 0
    exponent = ops.floor(ops.log2(ops.where(is_zero, ops.ones_like(largest), largest)))
    most = 1020 if keras.backend.standardize_dtype(x.dtype) == "float64" else 126
    power = ops.power(ops.full_like(largest, 2), ops.clip(exponent, -most, most))
    squares = ops.sum(ops.square(x / power), axis=axis, keepdims=True)
    return power, ops.rsqrt(ops.where(is_zero, ops.ones_like(squares), squares))


@keras.saving.register_keras_serializable(package="tf_mmloss")
class CosineDense(keras.layers.Layer):
    """Dense layer on normalised features and normalised class vectors, without a bias.

        y_c = cos(x, w_c) = x . w_c / (|x| |w_c|)            (paper, section 3.1)

    The scale s belongs to the loss. Cosines do not depend on a vector's length, from 1e-37 to 1e37 in
    float32; a zero feature gives cosines of 0 and a finite gradient.

    Args:
        units: number of classes C, 1 to 10 million.
        name, dtype, ...: as for any Keras layer. Under mixed precision pass dtype="float32", as `resnet` does: the
            loss multiplies what half precision rounds off the cosines by its scale.

    Input: (B, D) features, or (B, ..., D) of pixels or words. Output: (B, ..., C) cosines in [-1, 1].

    Raises:
        ValueError: units out of range; features without a last axis of known length.

    Example:
        >>> CosineDense(10)(np.ones((2, 64), "float32")).shape[-1]
        10

    Reference:
        Wang et al., NormFace, ACM Multimedia 2017; the class vectors start as in LDAM's published code:
        uniform on the cube, then normalised.
    """

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = integer("units", units, at_least=1, at_most=MAX_CLASSES)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        if len(input_shape) < 2 or input_shape[-1] is None:
            raise ValueError(
                f"CosineDense takes features of shape (batch, ..., D). Received: input shape={input_shape}"
            )
        self.kernel = self.add_weight(
            shape=(input_shape[-1], self.units), initializer=_unit_columns, name="kernel", trainable=True
        )

    def call(self, features: Any) -> Any:
        # Scaling the product instead of the kernel saves a normalised copy of the kernel.
        # Half precision would round the squares of small features to zero: the cosine is taken in float32.
        dtype = "float32" if self.compute_dtype in ("float16", "bfloat16") else self.compute_dtype
        features, kernel = ops.cast(features, dtype), ops.cast(self.kernel, dtype)
        power, inverse = inverse_norm(features, axis=-1)
        dots = (features / power * inverse) @ kernel
        power, inverse = inverse_norm(kernel, axis=0)
        return ops.cast(ops.clip(dots / power * inverse, -1.0, 1.0), self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (*input_shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}


def _unit_columns(shape: tuple[int, ...], dtype: Any = None) -> Any:
    kernel = keras.initializers.RandomUniform(-1.0, 1.0)(shape, dtype=dtype)
    power, inverse = inverse_norm(kernel, axis=0)
    return kernel / power * inverse
