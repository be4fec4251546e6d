"""Value and gradient of a loss at the logits."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from peer import peak

import tf_mmloss


def prepare(loss: str, batch: int, classes: int, threads: int) -> tuple[Callable[[], Any], dict[str, Any]]:
    """Return the computation, and how much memory was in use before it."""
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    if loss == "mm":
        function = tf_mmloss.MaxMarginLoss(np.linspace(1000, 10, classes).astype(int))
    else:
        function = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function(
        input_signature=[tf.TensorSpec((None,), tf.int32), tf.TensorSpec((None, classes), tf.float32)],
        jit_compile=False,
    )
    def value_and_gradient(labels: tf.Tensor, logits: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(logits)
            value = function(labels, logits)
        return value, tape.gradient(value, logits)

    # Traced on one row and drawn by one operation, so that neither hides the memory of the computation.
    value_and_gradient(tf.zeros(1, tf.int32), tf.zeros((1, classes)))
    labels = tf.constant(np.random.default_rng(0).integers(0, classes, batch, dtype=np.int32))
    logits = tf.raw_ops.RandomStandardNormal(shape=(batch, classes), dtype=tf.float32)
    facts = {"peak": peak(), "versions": {"tensorflow": tf.__version__, "keras": keras.__version__}}
    return lambda: value_and_gradient(labels, logits), facts
