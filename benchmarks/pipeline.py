"""Augmented CIFAR-size training batches: the package's pipeline, and tf.data's usual map of single images."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from peer import use_threads

import tf_mmloss
from tf_mmloss.pipeline import train_dataset

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


def prepare(kind: str, images: int, batch: int, threads: int) -> tuple[Callable[[], Any], dict[str, Any]]:
    """Return a function that draws one batch."""
    use_threads(threads)
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (images, 32, 32, 3), dtype=np.uint8)
    y = rng.integers(0, 10, images, dtype=np.int32)
    normalize = tf_mmloss.normalization(MEAN, STD)
    if kind == "package":
        data = train_dataset(x, y, num_classes=10, normalize=normalize, batch_size=batch)
    else:
        data = _by_image(x, y, normalize, batch, threads)
    batches = iter(data)
    return lambda: next(batches), {"versions": {"tensorflow": tf.__version__}}


def _by_image(x: np.ndarray, y: np.ndarray, normalize: Any, batch: int, threads: int) -> tf.data.Dataset:
    def augment(image: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        image = tf.image.random_crop(tf.pad(image, [(4, 4), (4, 4), (0, 0)]), (32, 32, 3))
        return normalize(tf.image.random_flip_left_right(image)), label

    data = tf.data.Dataset.from_tensor_slices((x, y)).repeat().shuffle(len(x))
    return data.map(augment, num_parallel_calls=threads).batch(batch).prefetch(4)
