"""tf.data input: augmented training batches epoch after epoch, and plain test batches."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tf_mmloss._validation import flag, function, integer, received
from tf_mmloss.augment import Augmentation, apply
from tf_mmloss.augment import draw as draw_augmentations
from tf_mmloss.datasets.rows import Rows
from tf_mmloss.imbalance import check_labels
from tf_mmloss.mix import Mixing
from tf_mmloss.mix.base import draw_rare_rows, rare_seed
from tf_mmloss.sampling import Resampling, announce, draw_rows, resampling_weights

if TYPE_CHECKING:
    import tensorflow as tf

_PADDED_BYTES = 2**19


def steps_per_epoch(num_examples: int, batch_size: int) -> int:
    """Batches of an epoch: the last partial one counts, unless it has at most an eighth of the others' images.

    So few images, at worst one, are no base for a batch normalisation, and their step is as large as any other. They
    are left out of that epoch; the next one is in another order.

    Args:
        num_examples: N >= 0.
        batch_size: > 0.

    Raises:
        ValueError: a number out of range.

    Example:
        >>> steps_per_epoch(145, 128), steps_per_epoch(144, 128)
        (2, 1)
    """
    steps, rest = divmod(integer("num_examples", num_examples), integer("batch_size", batch_size, at_least=1))
    return steps + bool(rest) if not steps or 8 * rest > batch_size else steps


def images_per_epoch(num_examples: int, batch_size: int) -> int:
    """Images of an epoch: all, but for a last batch that `steps_per_epoch` leaves out.

    Args:
        num_examples, batch_size: see `steps_per_epoch`.

    Raises:
        ValueError: a number out of range.

    Example:
        >>> images_per_epoch(145, 128), images_per_epoch(144, 128)
        (145, 128)
    """
    return min(num_examples, steps_per_epoch(num_examples, batch_size) * batch_size)


def train_dataset(
    images: np.ndarray | Rows,
    labels: np.ndarray,
    *,
    num_classes: int,
    normalize: Callable[[Any], Any],
    batch_size: int = 128,
    seed: int = 0,
    first_epoch: int = 0,
    resampling: Resampling | None = None,
    pad: int = 4,
    flip: bool = True,
    rotate: bool = False,
    augment: Sequence[Augmentation] = (),
    mix: Mixing | None = None,
) -> "tf.data.Dataset":
    """Endless training batches: epoch `first_epoch`, the next one, and so on.

    Each epoch is a pure function of (seed, epoch), see `tf_mmloss.sampling.draw_epoch`: the same seed gives
    the same run, and a run resumed at an epoch sees what the uninterrupted one saw. Images are padded with
    zeros and cropped, mirrored, augmented, then normalised, in batches.

    Args:
        images: uint8 (N, H, W, D), an array or `tf_mmloss.datasets.rows.Rows`, which are read batch by batch.
        labels: (N,) whole numbers in [0, num_classes), checked here.
        num_classes: C.
        normalize: the layer of `tf_mmloss.models.normalization`.
        batch_size: default 128; the last batch of an epoch may be smaller, or left out, see `steps_per_epoch`.
        seed: of the run. Default 0.
        first_epoch: where to start, for resuming. Default 0.
        resampling: from the epoch to class weights (C,) for class-balanced drawing, or to None;
            `DeferredResampling` is one. Default: never.
        pad: zeros on each side before the random crop, at most the larger side. Default 4.
        flip: mirror with probability 1/2. Default True.
        rotate: rotation prediction: rotate each image by a number of quarter turns, shared out evenly in every
            batch, and give that number as the label. Default False.
        augment: what else is done to an image, in this order; see `tf_mmloss.augment.parse`. Default: nothing.
        mix: a `tf_mmloss.mix.Mixing` of the images of a batch, after all else; the labels are then rows (B, C).
            Default: none.

    Returns:
        `tf.data.Dataset` of (float32 images, int32 labels), without end: pass
        `steps_per_epoch(N, batch_size)` to `fit`. With `mix`, of (float32 images, float32 targets (B, C)).

    Raises:
        ValueError: images not uint8 of rank 4, or not square with `rotate`; other labels, numbers out of range;
            `augment` that is none, with `rotate`, or of images that are neither grey nor RGB; `mix` that is none, of
            other classes, or with `rotate`.

    Example:
        >>> data = train_dataset(x, y, num_classes=10, normalize=normalization(mean, std))
        >>> model.fit(data, steps_per_epoch=steps_per_epoch(len(x), 128), epochs=200)
    """
    import tensorflow as tf

    images, labels = _check(images, labels, num_classes)
    batch_size, seed = integer("batch_size", batch_size, at_least=1), integer("seed", seed)
    pad, first_epoch = integer("pad", pad, at_most=max(images.shape[1:3])), integer("first_epoch", first_epoch)
    flip, rotate, normalize = flag("flip", flip), flag("rotate", rotate), _by_rows(function("normalize", normalize))
    height, width, channels = images.shape[1:]
    if rotate and height != width:
        raise ValueError(f"`images` must be square to be rotated. Received: shape={images.shape}")
    augment = _augmentations(augment, channels, rotate)
    mixing: Any = None if mix is None else check_mix(mix, num_classes, rotate)
    steps = steps_per_epoch(len(labels), batch_size)
    announce(resampling, first_epoch, steps, num_classes)

    def rows(epoch: np.int64) -> np.ndarray:
        weights = resampling_weights(resampling, int(epoch), num_classes)
        rotate_batch = batch_size if rotate else None
        drawn = draw_rows(
            labels, seed, int(epoch), class_weights=weights, pad=pad, flip=flip, rotate_batch=rotate_batch
        )
        return np.concatenate([drawn, *draw_augmentations(augment, seed, int(epoch), len(labels))], axis=1)

    width_of = [drawn.shape[1] for drawn in draw_augmentations(augment, seed, first_epoch, 1)]

    def change(x: np.ndarray, table: np.ndarray) -> np.ndarray:
        x = _cropped(x, table[:, 1], table[:, 2], table[:, 3], pad)
        return apply(augment, x, np.split(table[:, 5:], np.cumsum(width_of)[:-1], axis=1)) if augment else x

    def rare_rows(epoch: np.int64) -> np.ndarray:
        drawn = draw_rare_rows(labels, seed, int(epoch), num_classes=num_classes, pad=pad, flip=flip)
        others = draw_augmentations(augment, rare_seed(seed), int(epoch), len(labels))
        return np.concatenate([drawn, *others], axis=1)

    def table_of(draw_table: Callable[[np.int64], np.ndarray], epoch: tf.Tensor) -> tf.data.Dataset:
        table = tf.ensure_shape(tf.numpy_function(draw_table, [epoch], tf.int32), (len(labels), 5 + sum(width_of)))
        return tf.data.Dataset.from_tensor_slices(table[: steps * batch_size]).batch(batch_size)

    def draw(epoch: tf.Tensor) -> tf.data.Dataset:
        if mix is None:
            return table_of(rows, epoch)
        partners = [table_of(rare_rows, epoch)] if mix.draws_rare else []
        tables = tf.data.Dataset.zip((table_of(rows, epoch), *partners))
        return tables.enumerate().map(lambda step, tables: (epoch, step, tables))

    with tf.device("cpu"):
        all_labels = tf.constant(labels)
        all_images = None if isinstance(images, Rows) else tf.constant(images)

    def read(index: tf.Tensor) -> tf.Tensor:
        if all_images is not None:
            return tf.gather(all_images, index)
        read = tf.numpy_function(lambda rows: images[rows], [index], tf.uint8)  # what does not fit in memory
        return tf.ensure_shape(read, (None, height, width, channels))

    def batch(table: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        index, turns = table[:, 0], table[:, 4]
        x = tf.numpy_function(change, [read(index), table], tf.uint8)
        x = tf.ensure_shape(x, (None, height, width, channels))
        if rotate:
            turned = tf.stack([tf.image.rot90(x, k) for k in range(4)], axis=1)
            return normalize(tf.gather(turned, turns, axis=1, batch_dims=1)), turns
        return normalize(x), tf.gather(all_labels, index)

    def mixed(epoch: tf.Tensor, step: tf.Tensor, tables: Sequence[tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        def mix_batch(epoch: Any, step: Any, x: Any, y: Any, *partners: Any) -> tuple[np.ndarray, np.ndarray]:
            return mixing(x, y, seed, int(epoch), int(step), partners or None)

        given = [tensor for table in tables for tensor in batch(table)]
        x, targets = tf.numpy_function(mix_batch, [epoch, step, *given], (given[0].dtype, tf.float32))
        return tf.ensure_shape(x, given[0].shape), tf.ensure_shape(targets, (None, num_classes))

    data = tf.data.Dataset.range(first_epoch, np.iinfo(np.int64).max).flat_map(draw)
    return (
        data.map(batch if mix is None else mixed, num_parallel_calls=2, deterministic=True)
        .prefetch(4)
        .with_options(_options())
    )


def check_mix(mix: Mixing, num_classes: int, rotate: bool) -> Mixing:
    """Return a mixing of so many classes, which goes with no rotation."""
    if not isinstance(mix, Mixing):
        raise ValueError(f"`mix` must be a tf_mmloss.mix.Mixing, or None. {received('mix', mix)}")
    if len(mix.cls_counts) != num_classes:
        raise ValueError(
            f"`mix` must be of the {num_classes} classes. Received: mix of {len(mix.cls_counts)} class counts"
        )
    if rotate:
        raise ValueError("`mix` must be None with `rotate`, whose labels are turns.")
    return mix


def _cropped(x: np.ndarray, top: np.ndarray, left: np.ndarray, mirrored: np.ndarray, pad: int) -> np.ndarray:
    """Images (B, H, W, D) padded with zeros, cropped to their size at `top` and `left`, and mirrored, each (B,)."""
    count, height, width, channels = x.shape
    # A few at a time: what is freed by the megabyte goes back to the system, which clears it anew, page by page.
    step = max(_PADDED_BYTES // ((height + 2 * pad) * (width + 2 * pad) * channels), 1)
    padded = np.zeros((min(step, count), height + 2 * pad, width + 2 * pad, channels), np.uint8)
    # Whole rows of bytes are copied: TensorFlow's gather takes pixel after pixel, in ten times the time.
    flat = padded.reshape(len(padded), height + 2 * pad, -1)
    crops = np.lib.stride_tricks.sliding_window_view(flat, (height, width * channels), axis=(1, 2))
    result = np.empty_like(x)
    for first in range(0, count, step):
        some = slice(first, first + step)
        number = len(x[some])
        padded[:number, pad : pad + height, pad : pad + width] = x[some]
        chosen = crops[np.arange(number), top[some], left[some] * channels]
        result[some] = chosen.reshape(number, height, width, channels)
    turned = np.flatnonzero(mirrored)
    for channel in range(channels):  # an axis of a few bytes is slow to copy
        result[turned, :, :, channel] = result[turned, :, ::-1, channel]
    return result


def _by_rows(normalize: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The same for uint8 images (B, H, W, D), with one number for each byte of a row where it has one a channel.

    TensorFlow takes over four times as long to spread a few numbers over the last axis.
    """
    import keras
    import tensorflow as tf

    layer: Any = normalize
    if type(layer) is not keras.layers.Rescaling or np.ndim(layer.scale) != 1:
        return normalize

    def rescale(x: tf.Tensor) -> tf.Tensor:
        if not x.shape[-1:] == np.shape(layer.scale) == np.shape(layer.offset):
            return normalize(x)
        scale, offset = (np.tile(np.float32(values), x.shape[2]) for values in (layer.scale, layer.offset))
        rows = tf.cast(tf.reshape(x, (-1, len(scale))), tf.float32)
        return tf.reshape(rows * scale + offset, tf.shape(x))

    return rescale


def _augmentations(augment: Sequence[Augmentation], channels: int, rotate: bool) -> tuple[Augmentation, ...]:
    if not isinstance(augment, (tuple, list)) or not all(isinstance(one, Augmentation) for one in augment):
        raise ValueError(
            f"`augment` must be augmentations, see tf_mmloss.augment.parse. {received('augment', augment)}"
        )
    if augment and rotate:
        raise ValueError("`augment` must be empty with `rotate`, as nothing else may turn an image.")
    if augment and channels not in (1, 3):
        raise ValueError(f"`augment` is for grey or RGB images. Received: images of {channels} channels")
    return tuple(augment)


def eval_dataset(
    images: np.ndarray | Rows,
    labels: np.ndarray,
    *,
    num_classes: int,
    normalize: Callable[[Any], Any],
    batch_size: int = 500,
) -> "tf.data.Dataset":
    """Every image once, in order, normalised.

    Args:
        images, labels, num_classes, normalize: as in `train_dataset`.
        batch_size: default 500.

    Returns:
        `tf.data.Dataset` of (float32 images, int32 labels).

    Raises:
        ValueError: as in `train_dataset`.

    Example:
        >>> model.evaluate(eval_dataset(x, y, num_classes=10, normalize=normalization(mean, std)))
    """
    import tensorflow as tf

    images, labels = _check(images, labels, num_classes)
    batch_size, normalize = integer("batch_size", batch_size, at_least=1), _by_rows(function("normalize", normalize))
    if isinstance(images, Rows):
        shape = (None, *images.shape[1:])

        def read(index: tf.Tensor, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return tf.ensure_shape(tf.numpy_function(lambda rows: images[rows], [index], tf.uint8), shape), y

        data = tf.data.Dataset.from_tensor_slices((np.arange(len(labels)), labels)).batch(batch_size).map(read)
    else:
        with tf.device("cpu"):
            data = tf.data.Dataset.from_tensor_slices((images, labels)).batch(batch_size)
    return data.map(lambda x, y: (normalize(x), y)).prefetch(2).with_options(_options())


def check_images(images: np.ndarray | Rows) -> np.ndarray | Rows:
    """Return `images`; refuse what is not a uint8 array (N, height, width, channels) with N > 0."""
    array = isinstance(images, (np.ndarray, Rows))
    if not array or images.dtype != np.uint8 or images.ndim != 4 or not len(images):
        what = f"Received: shape={images.shape}, dtype={images.dtype}" if array else received("images", images)
        raise ValueError(f"`images` must be a uint8 array (N, height, width, channels). {what}")
    return images


def _check(images: np.ndarray | Rows, labels: np.ndarray, num_classes: int) -> tuple[np.ndarray | Rows, np.ndarray]:
    check_images(images)
    labels = check_labels(labels, num_classes)
    if len(labels) != len(images):
        raise ValueError(
            f"`images` and `labels` must have one length. Received: {len(images)} images, {len(labels)} labels"
        )
    return images, labels.astype(np.int32)


def _options() -> "tf.data.Options":
    import tensorflow as tf

    options = tf.data.Options()
    # With autotune, dropping an iterator can block for seconds; two workers and a buffer are enough here.
    options.autotune.enabled = False
    options.threading.private_threadpool_size = 2
    return options
