"""Value and gradient of a loss at the logits, on Keras' backend: compiled on TensorFlow and JAX, eager on PyTorch."""

import os
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from peer import peak

import tf_mmloss


def prepare(loss: str, batch: int, classes: int, threads: int) -> tuple[Callable[[], Any], dict[str, Any]]:
    """Return the computation, and how much memory was in use before it."""
    if loss == "mm":
        function = tf_mmloss.MaxMarginLoss(np.linspace(1000, 10, classes).astype(int))
    else:
        function = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    labels = np.random.default_rng(0).integers(0, classes, batch, dtype=np.int32)
    backend = keras.backend.backend()
    step = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}[backend](function, labels, classes, threads)
    versions = {backend: __import__(backend).__version__, "keras": keras.__version__}
    return step, {"peak": peak(), "versions": versions}


# Each is compiled before the logits are there, and draws these by one operation, so that neither hides the memory of
# the computation.


def _tensorflow(function: Any, labels: np.ndarray, classes: int, threads: int) -> Callable[[], Any]:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)

    @tf.function(
        input_signature=[tf.TensorSpec((None,), tf.int32), tf.TensorSpec((None, classes), tf.float32)],
        jit_compile=False,
    )
    def value_and_gradient(labels: tf.Tensor, logits: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(logits)
            value = function(labels, logits)
        return value, tape.gradient(value, logits)

    value_and_gradient(tf.zeros(1, tf.int32), tf.zeros((1, classes)))
    held = tf.constant(labels)
    logits = tf.raw_ops.RandomStandardNormal(shape=(len(labels), classes), dtype=tf.float32)
    return lambda: value_and_gradient(held, logits)


def _jax(function: Any, labels: np.ndarray, classes: int, threads: int) -> Callable[[], Any]:
    os.environ["NPROC"] = str(threads)  # of XLA's pool
    import jax

    batch = len(labels)
    shape = jax.ShapeDtypeStruct((batch, classes), np.float32)
    held = jax.numpy.asarray(labels)
    gradient = jax.jit(jax.value_and_grad(lambda logits, labels: function(labels, logits)))
    compiled = gradient.lower(shape, held).compile()
    # Not `jax.random`, which holds arrays of its own on the way.
    drawn = jax.jit(lambda: jax.numpy.sin(jax.lax.iota(np.float32, batch * classes).reshape(batch, classes)))
    logits = jax.block_until_ready(drawn())
    return lambda: jax.block_until_ready(compiled(logits, held))


def _torch(function: Any, labels: np.ndarray, classes: int, threads: int) -> Callable[[], Any]:
    import torch

    torch.set_num_threads(threads)
    held = torch.from_numpy(labels)
    logits = torch.randn(len(labels), classes, requires_grad=True)

    def step() -> None:
        logits.grad = None
        function(held, logits).backward()

    return step
