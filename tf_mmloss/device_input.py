"""Input that keeps the images where the network is: the host sends a row of five integers an image.

What `tf_mmloss.pipeline` does on the host with tf.data happens inside the compiled step here, on every backend, and
needs no TensorFlow. Both draw from `tf_mmloss.sampling`, so that a run sees the same images either way.
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tf_mmloss._validation import array, flag, function, integer, received, sequence
from tf_mmloss.imbalance import check_labels
from tf_mmloss.mix import Mixing
from tf_mmloss.mix.base import BLEND_ONE, NO_BOX, draw_rare_rows
from tf_mmloss.pipeline import check_images, check_mix, steps_per_epoch
from tf_mmloss.sampling import MAX_IMAGES, MAX_PAD, Resampling, announce, draw_rows, resampling_weights


class DeviceImages(keras.layers.Layer):
    """Crop, mirror, rotate and normalise images that lie on the device, by rows of integers.

    The images are no part of what a model saves.

    Args:
        images: uint8 (N, H, W, D).
        normalize: the layer of `tf_mmloss.normalization`.
        pad: zeros on each side before the crop, at most the larger side. Default 4.

    Returns:
        Called on int32 rows (B, 5) of `tf_mmloss.sampling.draw_rows`: float32 images (B, H, W, D). An image that is
        not square has no rotation by a quarter turn: it is NaN then, and so is the loss. Rows (B, 15) have those of a
        partner and how the two are mixed as well, see `EpochRows`.

    Raises:
        ValueError: images not uint8 of rank 4, `pad` out of range, `normalize` no function.

    Example:
        >>> rows = keras.Input((5,), dtype="int32")
        >>> model = keras.Model(rows, network(DeviceImages(x, normalize)(rows)))
        >>> model.compile(SGD(0.1), MaxMarginLoss(cls_counts))
        >>> batches = EpochRows(y, num_classes=10)
        >>> model.fit(batches, steps_per_epoch=batches.steps_per_epoch, epochs=2, shuffle=False, verbose=0)
    """

    def __init__(self, images: np.ndarray, normalize: Callable[[Any], Any], pad: int = 4, **kwargs: Any) -> None:
        super().__init__(name="device_images", trainable=False, dtype="float32", **kwargs)
        check_images(images)
        self.pad, self.normalize = integer("pad", pad), function("normalize", normalize)
        self.height, self.width = images.shape[1:3]
        integer("pad", pad, at_most=max(self.height, self.width))
        self.pixels = self.add_weight(
            shape=images.shape, initializer="zeros", dtype="uint8", trainable=False, name="pixels"
        )
        self.pixels.assign(images)

    def call(self, rows: Any) -> Any:
        if rows.shape[-1] == 5:
            return self._shown(rows)
        numbers = rows[:, 10:, None, None]
        top, bottom, left, right = (numbers[:, i] for i in range(1, 5))
        i = ops.arange(self.height, dtype="int32")[None, :, None]
        j = ops.arange(self.width, dtype="int32")[None, None, :]
        in_box = (i >= top) & (i < bottom) & (j >= left) & (j < right)
        own = ops.where(in_box, 0.0, ops.cast(numbers[:, 0], "float32") / BLEND_ONE)[..., None]
        return own * self._shown(rows[:, :5]) + (1 - own) * self._shown(rows[:, 5:10])

    def _shown(self, rows: Any) -> Any:
        index, inside = pixel_index(rows, self.height, self.width, self.pad)
        shown = ops.reshape(ops.take(self.pixels, rows[:, 0], axis=0), (-1, self.pixels.shape[-1]))
        images = ops.cast(ops.take(shown, index, axis=0), "float32") * ops.cast(inside[..., None], "float32")
        if self.height != self.width:
            images = ops.where(rows[:, 4, None, None, None] % 2 == 1, np.nan, images)
        return self.normalize(images)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (input_shape[0], self.height, self.width, self.pixels.shape[-1])

    def save_own_variables(self, store: Any) -> None:
        """Save nothing: the images are data."""

    def load_own_variables(self, store: Any) -> None:
        """Load nothing, see `save_own_variables`."""


class EpochRows(keras.utils.PyDataset):
    """Endless batches of rows for `DeviceImages`, and their labels: epoch `first_epoch`, the next one, and so on.

    Batch i is a pure function of i: Keras may look ahead, or begin again. Pass `steps_per_epoch` to `fit`.

    Args:
        labels: (N,) whole numbers in [0, num_classes).
        num_classes: C.
        batch_size, seed, first_epoch, resampling, pad, flip: see `tf_mmloss.pipeline.train_dataset`.
        rotate_batch: rotation prediction with so many images a step, see `tf_mmloss.sampling.draw_rotations`: the
            labels are the quarter turns. Default: None.
        mix: a `tf_mmloss.mix.Mixing`: rows are (B, 15) and labels targets (B, C). Default: none.
        image_size: (H, W) of the images, with `mix`.
        mix_batch: images of a mixed batch, where `batch_size` is the epoch's. Default: `batch_size`.

    Attributes:
        steps_per_epoch: batches of an epoch, see `tf_mmloss.pipeline.steps_per_epoch`.

    Raises:
        ValueError: other labels, numbers out of range.

    Example:
        >>> rows, labels = EpochRows(y, num_classes=10, batch_size=128)[0]
    """

    def __init__(
        self,
        labels: np.ndarray,
        *,
        num_classes: int,
        batch_size: int = 128,
        seed: int = 0,
        first_epoch: int = 0,
        resampling: Resampling | None = None,
        pad: int = 4,
        flip: bool = True,
        rotate_batch: int | None = None,
        mix: Mixing | None = None,
        image_size: tuple[int, int] | None = None,
        mix_batch: int | None = None,
    ) -> None:
        super().__init__()
        self.labels, self.num_classes = check_labels(labels, num_classes).astype(np.int32), num_classes
        self.batch_size = integer("batch_size", batch_size, at_least=1)
        self.steps_per_epoch = steps_per_epoch(len(self.labels), self.batch_size)
        self.seed, self.first_epoch = integer("seed", seed), integer("first_epoch", first_epoch)
        self.pad, self.flip = integer("pad", pad, at_most=MAX_PAD), flag("flip", flip)
        self.rotate_batch = None if rotate_batch is None else integer("rotate_batch", rotate_batch, at_least=1)
        self.mix = None if mix is None else check_mix(mix, num_classes, rotate_batch is not None)
        self.mix_batch = self.batch_size if mix_batch is None else integer("mix_batch", mix_batch, at_least=1)
        self.image_size = None
        if mix is not None:
            sides = sequence("image_size", image_size)
            self.image_size = tuple(integer("image_size", side, at_least=1, at_most=MAX_PAD) for side in sides)
            if len(self.image_size) != 2:
                raise ValueError(f"`image_size` must be (height, width). {received('image_size', image_size)}")
        self.resampling = resampling
        announce(resampling, self.first_epoch, self.steps_per_epoch, num_classes)
        self._drawn = self._draw(self.first_epoch)

    @property
    def num_batches(self) -> None:
        """None: without end."""

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        epoch, step = divmod(index, self.steps_per_epoch)
        if self._drawn[0] != self.first_epoch + epoch:
            self._drawn = self._draw(self.first_epoch + epoch)
        part = slice(step * self.batch_size, (step + 1) * self.batch_size)
        rows, targets = self._drawn[1][part], self._drawn[2]
        if targets is not None:
            return rows, targets[part]
        return rows, self.labels[rows[:, 0]] if self.rotate_batch is None else rows[:, 4]

    def _draw(self, epoch: int) -> tuple[int, np.ndarray, np.ndarray | None]:
        rows = draw_rows(
            self.labels,
            self.seed,
            epoch,
            class_weights=resampling_weights(self.resampling, epoch, self.num_classes),
            pad=self.pad,
            flip=self.flip,
            rotate_batch=self.rotate_batch,
        )
        return (epoch, rows, None) if self.mix is None else (epoch, *self._mixed(rows, epoch))

    def _mixed(self, rows: np.ndarray, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows (N, 15) and targets (N, C) of an epoch's rows, batch by batch."""
        mixing: Any = self.mix
        partners, shown, targets = None, [], []
        if mixing.draws_rare:
            partners = draw_rare_rows(
                self.labels, self.seed, epoch, num_classes=self.num_classes, pad=self.pad, flip=self.flip
            )
        for batch, start in enumerate(range(0, len(rows), self.mix_batch)):
            part = slice(start, start + self.mix_batch)
            own, theirs = rows[part], None if partners is None else partners[part]
            their_labels = None if theirs is None else self.labels[theirs[:, 0]]
            mixed = mixing.draw(self.labels[own[:, 0]], self.image_size, self.seed, epoch, batch, their_labels)
            theirs = own[mixed.order] if theirs is None else theirs
            shown.append(
                np.concatenate([own, theirs, np.tile(np.array(mixed.numbers, np.int32), (len(own), 1))], axis=1)
            )
            targets.append(mixed.targets)
        return np.concatenate(shown), np.concatenate(targets)


class EpochModel(keras.Model):
    """A functional model whose training epoch is one compiled program: a scan over its batches. JAX only.

    Small networks on a GPU wait for the host between steps; here the host is asked once an epoch. `fit` must be given
    whole epochs as batches, such as those of `EpochRows(..., batch_size=N)`; the model cuts them. Callbacks see one
    batch an epoch. The steps are those of the usual `fit`, of `steps_per_epoch` batches.

    Args:
        inputs, outputs: as for `keras.Model`.
        scan_batch_size: images of a step.

    Raises:
        RuntimeError: when `fit` starts, if the backend is not JAX.

    Example:
        >>> model = EpochModel(rows, network(DeviceImages(x, normalize)(rows)), scan_batch_size=128)
        >>> model.compile(SGD(0.1), MaxMarginLoss(cls_counts))
        >>> model.fit(EpochRows(y, num_classes=10, batch_size=len(y)), steps_per_epoch=1, epochs=200)
    """

    def __init__(self, *args: Any, scan_batch_size: int = 128, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.scan_batch_size = integer("scan_batch_size", scan_batch_size, at_least=1)

    def make_train_function(self, force: bool = False) -> None:
        if self.train_function is not None and not force:
            return
        if keras.backend.backend() != "jax":
            raise RuntimeError(f"EpochModel needs the JAX backend. Received: {keras.backend.backend()}")
        import jax

        compiled = jax.jit(self.train_epoch, donate_argnums=0)
        self.train_function: Any = lambda state, iterator: compiled(state, next(iterator))

    def train_epoch(self, state: Any, data: Any) -> tuple[Any, Any]:
        """An epoch as a pure function: `train_step` of Keras' JAX backend for every batch of `data` in turn."""
        import jax

        size = self.scan_batch_size

        def step(state: Any, batch: Any) -> tuple[Any, None]:
            return self.train_step(state, batch)[1], None

        steps = steps_per_epoch(jax.tree.leaves(data)[0].shape[0], size)
        scanned = steps - 1
        batches = jax.tree.map(lambda a: a[: scanned * size].reshape(scanned, size, *a.shape[1:]), data)
        state, _ = jax.lax.scan(step, state, batches)
        return self.train_step(state, jax.tree.map(lambda a: a[scanned * size : steps * size], data))


class SeveralRuns:
    """Runs of one network, such as its seeds, trained by one program on images that are held once. JAX only.

    A small network leaves a GPU idle; several at once leave it less so. Each run has its own weights, optimizer, class
    weights and order of images, and gets what it would get alone, to float rounding.

    Args:
        model: a compiled `EpochModel`.

    Raises:
        ValueError: another model.

    Example:
        >>> runs = SeveralRuns(model)
        >>> for seed in range(4):
        ...     network.set_weights(make_network(seed).get_weights())
        ...     states.append(runs.state())
        >>> state = runs.stack(states)
        >>> for epoch in range(200):
        ...     logs, state = runs.train_epoch(state, (rows, labels))  # of all four
        >>> runs.assign(state, 2)    # the model is run 2 now
    """

    def __init__(self, model: EpochModel) -> None:
        if not isinstance(model, EpochModel) or not model.compiled:
            raise ValueError(f"`model` must be a compiled `EpochModel`. {received('model', model)}")
        import jax

        self.model = model
        model.optimizer.build(model.trainable_variables)
        model.test_on_batch(np.zeros((1, 5), np.int32), np.zeros(1, np.int32))  # builds the metrics
        model.reset_metrics()
        metrics = [np.asarray(v) for v in model.metrics_variables]
        images = {id(layer.pixels) for layer in model.layers if isinstance(layer, DeviceImages)}
        self._is_shared = [id(v) in images for v in model.non_trainable_variables]

        def epoch(state: Any, shared: Any, data: Any) -> tuple[Any, Any]:
            trainable, others, optimizer = state
            others = [theirs if own is None else own for own, theirs in zip(others, shared, strict=True)]
            logs, state = model.train_epoch((trainable, others, optimizer, metrics), data)
            return logs, (state[0], self._own(state[1]), state[2])

        self._compiled = jax.jit(jax.vmap(epoch, in_axes=(0, None, 0)), donate_argnums=0)

    def state(self) -> Any:
        """The model's variables as they are: a run."""
        return tuple([v if v is None else v.value for v in group] for group in self._variables())

    def stack(self, states: Sequence[Any]) -> Any:
        """What `train_epoch` takes, of some runs."""
        import jax

        return jax.tree.map(lambda *values: jax.numpy.stack(values), *states)

    def train_epoch(self, state: Any, data: Any) -> tuple[dict[str, Any], Any]:
        """Train every run for an epoch.

        Args:
            state: of `stack`; it is used up.
            data: rows (runs, N, 5) and labels (runs, N), as of an `EpochRows(..., batch_size=N)` for each run.

        Returns:
            The epoch's metrics (runs,), and the state after it.
        """
        variables = self.model.non_trainable_variables
        shared = [v.value if is_shared else None for v, is_shared in zip(variables, self._is_shared, strict=True)]
        return self._compiled(state, shared, data)

    def assign(self, state: Any, run: int) -> None:
        """Give the model the variables of a run."""
        for group, values in zip(self._variables(), state, strict=True):
            for variable, value in zip(group, values, strict=True):
                if variable is not None:
                    variable.assign(value[run])

    def _variables(self) -> tuple[list[Any], ...]:
        model = self.model
        return model.trainable_variables, self._own(model.non_trainable_variables), model.optimizer.variables

    def _own(self, values: Sequence[Any]) -> list[Any]:
        """None in place of what the runs share."""
        return [None if is_shared else value for value, is_shared in zip(values, self._is_shared, strict=True)]


def pixel_index(rows: Any, height: int, width: int, pad: int) -> tuple[Any, Any]:
    """Where the pixels of crops lie among those of their batch, which are fewer than int32 can count.

    Args:
        rows: int32 (B, 5), of `tf_mmloss.sampling.draw_rows`.
        height, width: H, W of the images.
        pad: that of `DeviceImages`.

    Returns:
        int32 (B, H, W), in [0, B H W), and whether each is inside its image, else a zero of the padding.

    Example:
        >>> index, inside = pixel_index(plain_rows(np.arange(2), pad=1), 2, 2, pad=1)
    """
    top, left, mirrored, turns = (rows[:, i, None, None] for i in range(1, 5))
    i = ops.arange(height, dtype="int32")[None, :, None]
    j = ops.arange(width, dtype="int32")[None, None, :]
    # The pixel of the upright crop that a rotation by quarter turns to the left puts at (i, j).
    odd, half = turns % 2 == 1, turns >= 2
    a = ops.where(odd, j, i)
    b = ops.where(odd, height - 1 - i, j)
    a, b = ops.where(half, height - 1 - a, a), ops.where(half, width - 1 - b, b)
    y = a + top - pad
    x = ops.where(mirrored > 0, width - 1 - b, b) + left - pad
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    image = ops.arange(ops.shape(rows)[0], dtype="int32")[:, None, None]
    return (image * height + ops.clip(y, 0, height - 1)) * width + ops.clip(x, 0, width - 1), inside


def plain_rows(positions: np.ndarray, pad: int, mixed: bool = False) -> np.ndarray:
    """Rows (N, 5) that show images as they are, for evaluation.

    Args:
        positions: (N,) of the images in `DeviceImages`.
        pad: that of `DeviceImages`.
        mixed: as rows of mixed images, (N, 15), of which each shows one image alone. Default False.

    Returns:
        (N, 5) or (N, 15) int32.

    Raises:
        ValueError: positions that are not whole numbers (N,) of int32, `pad` out of range.

    Example:
        >>> plain_rows(np.arange(2), pad=4)
        array([[0, 4, 4, 0, 0],
               [1, 4, 4, 0, 0]], dtype=int32)
    """
    positions = array("positions", positions)
    if positions.ndim != 1 or (positions.size and positions.dtype.kind not in "iu"):
        raise ValueError(
            f"`positions` must be whole numbers (N,). Received: shape={positions.shape}, dtype={positions.dtype}"
        )
    if positions.size and not 0 <= positions.min() <= positions.max() < MAX_IMAGES:
        raise ValueError(f"`positions` must lie in [0, {MAX_IMAGES}). {received('positions', positions)}")
    rows = np.zeros((len(positions), 5), np.int32)
    rows[:, 0], rows[:, 1:3] = positions, integer("pad", pad, at_most=MAX_PAD)
    if not flag("mixed", mixed):
        return rows
    alone = np.array([BLEND_ONE, *NO_BOX], np.int32)
    return np.concatenate([rows, rows, np.tile(alone, (len(rows), 1))], axis=1)
