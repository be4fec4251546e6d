"""Value and gradient at the logits of every loss of the package, compiled on TensorFlow."""

import inspect
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from loss import FEATURES
from peer import use_threads

import tf_mmloss
from tf_mmloss import losses
from tf_mmloss.layers.features import KeepFeatures


def prepare(classes: int, batch: int, threads: int) -> tuple[dict[str, Callable[[], Any]], dict[str, Any]]:
    """Return a computation for each loss, by its name."""
    use_threads(threads)
    tf.get_logger().setLevel("ERROR")  # a function for each loss is no retracing
    names = [name for name in losses.__all__ if isinstance(getattr(losses, name), type) and name != "LongTailLoss"]
    steps = {name: _step(getattr(losses, name), classes, batch) for name in names}
    return steps, {"versions": {"tensorflow": tf.__version__, "keras": keras.__version__}}


def _step(of: type[keras.losses.Loss], classes: int, batch: int) -> Callable[[], Any]:
    counts = tf_mmloss.imbalance.imbalanced_counts(500, classes, "longtail", 100)
    given = {"cls_counts": counts, "num_examples": int(np.sum(counts))}
    loss = of(**{name: value for name, value in given.items() if name in inspect.signature(of).parameters})
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, batch, dtype=np.int32)
    if not isinstance(loss, losses.LongTailLoss):  # of several classes at once
        labels = np.maximum(np.eye(classes, dtype=np.int32)[labels], rng.random((batch, classes)) < 0.1)
    logits = tf.constant(rng.standard_normal((batch, classes), np.float32))
    features = tf.constant(rng.random((batch, FEATURES), np.float32))
    carry = KeepFeatures() if getattr(loss, "needs_features", False) else lambda inputs: inputs[0]

    @tf.function(jit_compile=False)
    def value_and_gradient(labels: tf.Tensor, logits: tf.Tensor, features: tf.Tensor) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(logits)
            value = loss(labels, carry([logits, features]))
        return value, tape.gradient(value, logits)

    arguments = (tf.constant(labels), logits, features)
    return lambda: value_and_gradient(*arguments)
