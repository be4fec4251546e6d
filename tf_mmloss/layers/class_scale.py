"""One learned factor for each class."""

from typing import Any

import keras

from tf_mmloss._validation import received


@keras.saving.register_keras_serializable(package="tf_mmloss")
class ClassScale(keras.layers.Layer):
    """Multiply the logits of each class by a learned factor.

        y_c = s_c u_c,    s_c = 1 at first

    Learnable weight scaling (LWS): trained on class-balanced batches with the rest of the network frozen, it mends the
    lengths of the class vectors, which grow with the number of images. The factor multiplies the bias too, as in the
    published code.

    Args:
        name, dtype, ...: as for any Keras layer. Under mixed precision pass dtype="float32".

    Input: (B, ..., C) logits. Output: the same shape.

    Raises:
        ValueError: logits of rank 1, or of an unknown number of classes.

    Example:
        >>> ClassScale()(np.ones((2, 10), "float32")).shape[-1]
        10

    Reference:
        Kang et al., Decoupling Representation and Classifier for Long-Tailed Recognition, ICLR 2020, section 4.2.
    """

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        if len(input_shape) < 2 or input_shape[-1] is None:
            raise ValueError(
                f"ClassScale takes logits of shape (batch, ..., C). {received('input_shape', input_shape)}"
            )
        self.scale = self.add_weight(shape=(input_shape[-1],), initializer="ones", name="scale", trainable=True)

    def call(self, logits: Any) -> Any:
        return logits * keras.ops.cast(self.scale, logits.dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape
