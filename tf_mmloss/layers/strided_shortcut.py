"""The parameter-free shortcut of the CIFAR ResNets."""

from typing import Any

import keras
from keras import ops

from tf_mmloss._validation import integer


@keras.saving.register_keras_serializable(package="tf_mmloss")
class StridedShortcut(keras.layers.Layer):
    """Option-A shortcut: every second pixel, and zero channels added, half before and half behind.

    Args:
        filters: channels of the output, at least those of the input, at most 65,536.
        strides: 1 to 65,536. Default 2.

    Input: (B, H, W, D). Output: (B, ceil(H / strides), ceil(W / strides), filters).

    Raises:
        ValueError: filters or strides out of range; fewer filters than input channels.

    Example:
        >>> StridedShortcut(32)(keras.Input((32, 32, 16))).shape
        (None, 16, 16, 32)

    Reference:
        He et al., Deep Residual Learning for Image Recognition, CVPR 2016, section 4.2.
    """

    def __init__(self, filters: int, strides: int = 2, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.filters = integer("filters", filters, at_least=1, at_most=2**16)
        self.strides = integer("strides", strides, at_least=1, at_most=2**16)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        if input_shape[-1] is None or input_shape[-1] > self.filters:
            raise ValueError(
                f"`filters` must be at least the {input_shape[-1]} channels of the input. "
                f"Received: filters={self.filters}"
            )

    def call(self, x: Any) -> Any:
        added = self.filters - x.shape[-1]
        # A mean over one pixel: TensorFlow's strided slice and its gradient take ten times as long on a CPU.
        x = ops.average_pool(x, 1, self.strides, "valid", data_format="channels_last")
        return ops.pad(x, [(0, 0), (0, 0), (0, 0), (added // 2, added - added // 2)])

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        sides = (None if side is None else -(-side // self.strides) for side in input_shape[1:3])
        return (input_shape[0], *sides, self.filters)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "filters": self.filters, "strides": self.strides}
