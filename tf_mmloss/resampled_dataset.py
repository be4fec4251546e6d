"""Batches of a person's own arrays, shuffled or class-balanced, for `fit` on every backend."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tf_mmloss._validation import array, function, integer, received
from tf_mmloss.datasets.rows import Rows
from tf_mmloss.imbalance import class_indices
from tf_mmloss.pipeline import steps_per_epoch
from tf_mmloss.sampling import announce, as_resampling, draw_positions, resampling_weights


class ResampledDataset(keras.utils.PyDataset):
    """Endless class-balanced or shuffled batches of arrays of any kind: epoch `first_epoch`, the next one, and so on.

    Images, numbers, tables; text, too: strings reach a model of the TensorFlow backend as string tensors, on the others
    `transform` makes numbers of them. Batch i is a pure function of i and the seed: a run that is resumed at an epoch,
    with `first_epoch` and the `initial_epoch` of `fit`, sees what the uninterrupted one saw. As it has no end, pass
    `steps_per_epoch` to `fit`; with `shuffle=False` Keras does not warn that it shuffles nothing itself.

    Args:
        x: inputs: an array (N, ...) or a list like one, or a dict or tuple of such. A mixed table is a dict of its
            columns, `dict(frame)` of a pandas one. Memory-mapped arrays are read batch by batch.
        y: targets, in the same forms; they reach the model as they are.
        labels: (N,) classes by which is drawn, in any form that `imbalance.class_indices` takes. Default: `y`.
        sample_weight: (N,) weights for `fit`, if any.
        batch_size: of all processes together, a multiple of `num_replicas`; the last batch of an epoch may be smaller,
            or left out, see `tf_mmloss.pipeline.steps_per_epoch`. Default 128.
        seed: >= 0. Default 0.
        first_epoch: where to start, for resuming. Default 0.
        resampling: "inverse" (default), "effective", class weights (C,), a function of the epoch such as
            `DeferredResampling`, or None for shuffling alone; see `ClassBalancedSampler`.
        transform: function from inputs of a batch and a `np.random.Generator`, a function of (seed, epoch, step, rank),
            to inputs: augmentation, tokens of text. Default: none.
        num_replicas, rank: number of processes that share out each batch, and of this one. Default 1 and 0.

    Attributes:
        steps_per_epoch: batches of an epoch, see `tf_mmloss.pipeline.steps_per_epoch`.

    Raises:
        ValueError: arrays of different lengths, labels of no class, a number out of range.

    Example:
        >>> drs = DeferredResampling(160, cls_counts)
        >>> batches = ResampledDataset(x.astype("float32"), y, resampling=drs)
        >>> steps = batches.steps_per_epoch
        >>> model.fit(batches, steps_per_epoch=steps, epochs=200, shuffle=False, callbacks=[drs])
    """

    def __init__(
        self,
        x: Any,
        y: Any,
        *,
        labels: Any = None,
        sample_weight: Any = None,
        batch_size: int = 128,
        seed: int = 0,
        first_epoch: int = 0,
        resampling: Any = "inverse",
        transform: Callable[[Any, np.random.Generator], Any] | None = None,
        num_replicas: int = 1,
        rank: int = 0,
    ) -> None:
        super().__init__()
        if labels is None and isinstance(y, (Mapping, tuple)):
            raise ValueError("`labels` must be given where `y` is a dict or tuple: by which of them is drawn.")
        self.labels = class_indices(y if labels is None else labels)
        self.x, self.y = _arrays("x", x, len(self.labels)), _arrays("y", y, len(self.labels))
        self.sample_weight = None
        if sample_weight is not None:
            self.sample_weight = _arrays("sample_weight", sample_weight, len(self.labels))
        self.seed, self.first_epoch = integer("seed", seed), integer("first_epoch", first_epoch)
        draw_positions(self.labels, 0, 0, num_replicas=num_replicas, rank=rank)  # refuses what is out of range
        self.num_replicas, self.rank = int(num_replicas), int(rank)
        self.batch_size = integer("batch_size", batch_size, at_least=1)
        if self.batch_size % self.num_replicas:
            raise ValueError(
                f"`batch_size` must be a multiple of num_replicas={num_replicas}. {received('batch_size', batch_size)}"
            )
        self.transform = None if transform is None else function("transform", transform)
        self.steps_per_epoch = steps_per_epoch(len(self.labels), self.batch_size)
        self.resampling = as_resampling(resampling, self.labels)
        announce(self.resampling, self.first_epoch, self.steps_per_epoch)
        self._drawn = self._draw(self.first_epoch)

    @classmethod
    def of_batches(cls, data: Any, **options: Any) -> "ResampledDataset":
        """The rows of a `tf.data` set or a `PyDataset`, neither of which can be drawn from by class: read into memory.

        Args:
            data: batches of (x, y) or (x, y, sample_weight) that come to an end.
            **options: as of the class: `labels`, `batch_size`, `resampling`, ...

        Raises:
            ValueError: another kind of data, without end, or whose batches do not fit together.

        Example:
            >>> batches = ResampledDataset.of_batches(data, batch_size=64)
        """
        parts = list(_batches(data))
        if not parts or not all(isinstance(part, (tuple, list)) and 2 <= len(part) <= 3 for part in parts):
            raise ValueError(f"`data` must be batches of (x, y) or (x, y, sample_weight). {received('data', data)}")
        try:
            x, y, *weight = (_joined(column) for column in zip(*parts, strict=True))
        except Exception as error:  # of what NumPy, or a tensor of any framework, says
            raise ValueError(f"`data` must have batches of one structure: {error}. {received('data', data)}") from error
        return cls(x, y, sample_weight=weight[0] if weight else None, **options)

    @property
    def num_batches(self) -> None:
        """None: without end."""

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        epoch, step = divmod(index, self.steps_per_epoch)
        epoch, drawn = epoch + self.first_epoch, self._drawn
        if drawn[0] != epoch:
            drawn = self._drawn = self._draw(epoch)
        share = self.batch_size // self.num_replicas
        rows = drawn[1][step * share : (step + 1) * share]
        x = _taken(self.x, rows)
        if self.transform is not None:
            # NumPy leaves out zeros at the end: without the 1, the first batch would have the draws of its epoch.
            x = self.transform(x, np.random.default_rng([self.seed, epoch, step, self.rank, 1]))
        more = () if self.sample_weight is None else (_taken(self.sample_weight, rows),)
        return _with_text((x, _taken(self.y, rows), *more))

    def _draw(self, epoch: int) -> tuple[int, np.ndarray]:
        return epoch, draw_positions(
            self.labels,
            self.seed,
            epoch,
            class_weights=resampling_weights(self.resampling, epoch),
            num_replicas=self.num_replicas,
            rank=self.rank,
        )


def _batches(data: Any) -> Iterator[Any]:
    """The batches of a set that ends."""
    if isinstance(data, keras.utils.PyDataset):
        if data.num_batches is None:
            raise ValueError(f"`data` must come to an end. {received('data', data)}")
        return (data[index] for index in range(data.num_batches))
    if not callable(getattr(data, "as_numpy_iterator", None)):
        raise ValueError(f"`data` must be a `tf.data` set or a `PyDataset`. {received('data', data)}")
    if int(data.cardinality()) == -1:
        raise ValueError(f"`data` must come to an end: take one epoch of it. {received('data', data)}")
    return iter(data.as_numpy_iterator())


def _joined(parts: Sequence[Any]) -> Any:
    """Arrays, or dicts or tuples of them, one after the other."""
    if isinstance(parts[0], Mapping):
        return {key: _joined([part[key] for part in parts]) for key in parts[0]}
    if isinstance(parts[0], tuple):
        return tuple(_joined(column) for column in zip(*parts, strict=True))
    return np.concatenate(
        [part if isinstance(part, np.ndarray) else keras.ops.convert_to_numpy(part) for part in parts]
    )


def _arrays(argument: str, value: Any, n: int) -> Any:
    """`value` with arrays of n rows at its leaves."""
    if isinstance(value, Mapping):
        try:
            items = dict(value)
        except Exception as error:
            raise ValueError(f"`{argument}` must be readable. {received(argument, value)}") from error
        return {key: _arrays(argument, part, n) for key, part in items.items()}
    if isinstance(value, tuple):
        return tuple(_arrays(argument, part, n) for part in value)
    leaf = value if isinstance(value, (np.ndarray, Rows)) else array(argument, value)
    if not leaf.ndim or len(leaf) != n:
        raise ValueError(
            f"`{argument}` must have a row for each of {n} labels. Received: {argument} of shape {leaf.shape}"
        )
    return leaf


def _taken(value: Any, rows: np.ndarray) -> Any:
    if isinstance(value, dict):
        return {key: _taken(part, rows) for key, part in value.items()}
    if isinstance(value, tuple):
        return tuple(_taken(part, rows) for part in value)
    return value[rows]


def _with_text(value: Any) -> Any:
    """`value` with strings as tensors where the backend is TensorFlow, as Keras takes no arrays of them."""
    if keras.backend.backend() != "tensorflow":
        return value
    if isinstance(value, dict):
        return {key: _with_text(part) for key, part in value.items()}
    if isinstance(value, tuple):
        return tuple(_with_text(part) for part in value)
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "USO":
        return value
    import tensorflow as tf

    return tf.constant(value)
