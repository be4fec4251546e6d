"""Value and gradient of a loss or a head, on Keras' backend: compiled on TensorFlow and JAX, eager on PyTorch."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from peer import peak, use_threads

import tf_mmloss

FEATURES = 64


def prepare(of: str, batch: int, classes: int, threads: int) -> tuple[Callable[[], Any], dict[str, Any]]:
    """Return the computation, and how much memory was in use before it.

    Args:
        of: "mm" or "cross_entropy", by the logits; "cosine" or "dense", by features and kernel.
        batch, classes, threads: sizes.
    """
    use_threads(threads)
    if of in ("mm", "cross_entropy"):
        counts = np.linspace(1000, 10, classes).astype(int)
        mm = of == "mm"
        loss = tf_mmloss.MaxMarginLoss(counts) if mm else keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        function, shapes = loss, [(batch, classes)]
    else:
        layer = tf_mmloss.CosineDense(classes) if of == "cosine" else keras.layers.Dense(classes, use_bias=False)
        layer.build((batch, FEATURES))
        shapes = [(batch, FEATURES), (FEATURES, classes)]

        def function(labels: Any, features: Any, kernel: Any) -> Any:
            return keras.ops.mean(layer.stateless_call([kernel], [], features)[0])

    labels = np.random.default_rng(0).integers(0, classes, batch, dtype=np.int32)
    backend = keras.backend.backend()
    step = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}[backend](function, labels, shapes)
    versions = {backend: __import__(backend).__version__, "keras": keras.__version__}
    return step, {"peak": peak(), "versions": versions}


# Each is compiled before the arrays are there, and draws these without arrays on the way, so that neither hides the
# memory of the computation.


def _tensorflow(function: Any, labels: np.ndarray, shapes: list[tuple[int, int]]) -> Callable[[], Any]:
    import tensorflow as tf

    @tf.function(
        input_signature=[tf.TensorSpec(labels.shape, tf.int32), *(tf.TensorSpec(shape) for shape in shapes)],
        jit_compile=False,
    )
    def value_and_gradient(labels: tf.Tensor, *arrays: tf.Tensor) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(arrays)
            value = function(labels, *arrays)
        return value, tape.gradient(value, arrays)

    value_and_gradient.get_concrete_function()
    arguments = [tf.constant(labels), *(tf.raw_ops.RandomStandardNormal(shape=s, dtype=tf.float32) for s in shapes)]
    return lambda: value_and_gradient(*arguments)


def _jax(function: Any, labels: np.ndarray, shapes: list[tuple[int, int]]) -> Callable[[], Any]:
    import jax

    def value(arrays: Any, labels: Any) -> Any:
        return function(labels, *arrays)

    def draw() -> list[Any]:
        return [jax.numpy.sin(jax.lax.iota(np.float32, a * b).reshape(a, b)) for a, b in shapes]

    held = jax.numpy.asarray(labels)
    compiled = jax.jit(jax.value_and_grad(value)).lower(jax.eval_shape(draw), held).compile()
    arrays = jax.block_until_ready(jax.jit(draw)())
    return lambda: jax.block_until_ready(compiled(arrays, held))


def _torch(function: Any, labels: np.ndarray, shapes: list[tuple[int, int]]) -> Callable[[], Any]:
    import torch

    held = torch.from_numpy(labels)
    arrays = [torch.randn(*shape, requires_grad=True) for shape in shapes]

    def step() -> None:
        for array in arrays:
            array.grad = None
        function(held, *arrays).backward()

    return step
