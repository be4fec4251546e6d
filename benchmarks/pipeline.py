"""Augmented CIFAR-size training batches: the package's pipeline, and others' usual ways."""

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from peer import use_threads
from PIL import Image

import tf_mmloss
from tf_mmloss.augment import autoaugment, operations, parse
from tf_mmloss.pipeline import train_dataset

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


def prepare(kind: str, images: int, batch: int, threads: int) -> tuple[Callable[[], Any], dict[str, Any]]:
    """Return a function that draws one batch.

    Args:
        kind: "package" or "map", crops and mirroring by the package's pipeline or tf.data's map of single images; with
            more: "policy", AutoAugment and Cutout in the package's pipeline, "pillow", the same image by image in a
            loop, as a data set of PyTorch does in each of its workers, "keras", Keras' RandAugment on batches.
        images, batch, threads: sizes.
    """
    use_threads(threads)
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (images, 32, 32, 3), dtype=np.uint8)
    y = rng.integers(0, 10, images, dtype=np.int32)
    normalize = tf_mmloss.normalization(MEAN, STD)
    if kind in ("package", "policy"):
        more = parse("autoaugment,cutout" if kind == "policy" else "none")
        batches = iter(train_dataset(x, y, num_classes=10, normalize=normalize, batch_size=batch, augment=more))
    elif kind == "pillow":
        batches = _by_pillow(x, y, batch)
    else:
        batches = iter((_by_image if kind == "map" else _by_keras)(x, y, normalize, batch, threads))
    return lambda: next(batches), {"versions": {"tensorflow": tf.__version__}}


def _by_image(x: np.ndarray, y: np.ndarray, normalize: Any, batch: int, threads: int) -> tf.data.Dataset:
    def augment(image: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        image = tf.image.random_crop(tf.pad(image, [(4, 4), (4, 4), (0, 0)]), (32, 32, 3))
        return normalize(tf.image.random_flip_left_right(image)), label

    data = tf.data.Dataset.from_tensor_slices((x, y)).repeat().shuffle(len(x))
    return data.map(augment, num_parallel_calls=threads).batch(batch).prefetch(4)


def _by_keras(x: np.ndarray, y: np.ndarray, normalize: Any, batch: int, threads: int) -> tf.data.Dataset:
    policy = keras.layers.RandAugment(value_range=(0, 255), num_ops=2, factor=0.5)

    def augment(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images = tf.pad(images, [(0, 0), (4, 4), (4, 4), (0, 0)])
        images = tf.image.random_flip_left_right(tf.image.random_crop(images, (batch, 32, 32, 3)))
        return normalize(policy(tf.cast(images, tf.float32))), labels

    data = tf.data.Dataset.from_tensor_slices((x, y)).repeat().shuffle(len(x)).batch(batch, drop_remainder=True)
    return data.map(augment, num_parallel_calls=threads).prefetch(4)


def _by_pillow(x: np.ndarray, y: np.ndarray, batch: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    rng, mean, std = np.random.default_rng(0), np.float32(MEAN), np.float32(STD)
    values = autoaugment.AutoAugment.values

    def augment(image: np.ndarray) -> np.ndarray:
        top, left = rng.integers(0, 9, 2)
        changed = Image.fromarray(np.pad(image, [(4, 4), (4, 4), (0, 0)])).crop((left, top, left + 32, top + 32))
        if rng.random() < 0.5:
            changed = changed.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        for operation, probability, level in autoaugment.POLICY[rng.integers(len(autoaugment.POLICY))]:
            if rng.random() < probability:
                value = values[operation][level] if operation in values else 0.0
                sign = -1 if operation in operations.SIGNED and rng.random() < 0.5 else 1
                changed = operation(changed, sign * value)
        out = np.asarray(changed, np.float32) / 255
        row, column = rng.integers(0, 32, 2)
        out[max(row - 8, 0) : row + 8, max(column - 8, 0) : column + 8] = 0
        return (out - mean) / std

    while True:
        chosen = rng.integers(0, len(x), batch)
        yield np.stack([augment(image) for image in x[chosen]]), y[chosen]
