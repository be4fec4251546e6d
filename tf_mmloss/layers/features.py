"""Features beside the logits, for a loss that needs both."""

from typing import Any

import keras
from keras import ops
from keras.src.backend.common.tensor_attributes import get_tensor_attr, set_tensor_attr  # as Keras' masks go along

_ATTRIBUTE = "_tf_mmloss_feature_norms"


@keras.saving.register_keras_serializable(package="tf_mmloss")
class KeepFeatures(keras.layers.Layer):
    """Layer that returns the logits, which then carry ||h||_1 of the features h with them, as Keras' masks go along.

    See `with_features`.

    Args:
        name, dtype, ...: as for any Keras layer; float32 by default.

    Input: [(B, C) logits, (B, F) features]. Output: the logits; what follows it, a metric, `predict` or an export, sees
    nothing else.

    Example:
        >>> features = keras.Input((8,))
        >>> outputs = KeepFeatures()([keras.layers.Dense(3)(features), features])
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})

    def call(self, inputs: Any) -> Any:
        logits, features = inputs
        set_tensor_attr(logits, _ATTRIBUTE, ops.sum(ops.abs(features), axis=-1))
        return logits

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape[0]


def feature_norms(logits: Any) -> Any:
    """Return ||h||_1 (B,) of the features that logits carry, None if they carry none."""
    return get_tensor_attr(logits, _ATTRIBUTE)
