"""The convolutions of the bfloat16 step alone, in TensorFlow and in PyTorch: forward, gradients of input and kernel.

One after the other, those of 3x3 with as many channels before as behind: all but the stem and the two of stride 2.
"""

from collections.abc import Callable
from typing import Any

import keras
from peer import use_threads


def shapes(depth: int) -> list[tuple[int, int]]:
    """(Channels, height and width) of each."""
    blocks = (depth - 2) // 6
    return [
        *[(16, 32)] * (2 * blocks),
        *[(32, 16)] * (2 * blocks - 1),
        *[(64, 8)] * (2 * blocks - 1),
    ]


def prepare(depth: int, batch: int, threads: int) -> tuple[Callable[[], Any], dict[str, Any]]:
    """Return a turn of all convolutions, by the library under Keras, and what it is."""
    use_threads(threads)
    backend = keras.backend.backend()
    step = {"tensorflow": _tensorflow, "torch": _torch}[backend](depth, batch)
    return step, {"versions": {backend: __import__(backend).__version__}}


def _tensorflow(depth: int, batch: int) -> Callable[[], Any]:
    import tensorflow as tf

    tensors = {}
    for channels, side in set(shapes(depth)):
        sizes = [(batch, side, side, channels), (batch, side, side, channels), (3, 3, channels, channels)]
        tensors[channels] = [tf.cast(tf.random.normal(size), tf.bfloat16) for size in sizes]
    same = {"strides": [1, 1, 1, 1], "padding": "SAME"}

    @tf.function(autograph=False)
    def step() -> Any:
        done: list[Any] = []
        for channels, _ in shapes(depth):
            x, dy, kernel = tensors[channels]
            with tf.control_dependencies(done[-1:]):
                done.append(tf.raw_ops.Conv2D(input=x, filter=kernel, **same))
            with tf.control_dependencies(done[-1:]):
                done.append(tf.raw_ops.Conv2DBackpropInput(input_sizes=x.shape, filter=kernel, out_backprop=dy, **same))
            with tf.control_dependencies(done[-1:]):
                done.append(
                    tf.raw_ops.Conv2DBackpropFilter(input=x, filter_sizes=kernel.shape, out_backprop=dy, **same)
                )
        return tf.add_n([tf.reshape(result, [-1])[0] for result in done])  # or TensorFlow leaves them out

    return lambda: step().numpy()


def _torch(depth: int, batch: int) -> Callable[[], Any]:
    import torch

    tensors = {}
    for channels, side in set(shapes(depth)):
        sizes = [(batch, channels, side, side), (batch, channels, side, side), (channels, channels, 3, 3)]
        tensors[channels] = [torch.randn(size).bfloat16().to(memory_format=torch.channels_last) for size in sizes]

    def step() -> None:
        with torch.no_grad():
            for channels, _ in shapes(depth):
                x, dy, kernel = tensors[channels]
                torch.nn.functional.conv2d(x, kernel, padding=1)
                torch.ops.aten.convolution_backward(
                    dy, x, kernel, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [True, True, False]
                )

    return step
