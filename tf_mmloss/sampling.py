"""Which images an epoch shows, in which order and how cropped: a pure function of (seed, epoch). NumPy only.

Every input path draws from here, so a run shows the same images on every backend and after a resume.
"""

import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from tf_mmloss._validation import array, choice, flag, function, integer, numeric, received
from tf_mmloss.imbalance import WEIGHT_SCHEMES, check_labels, class_indices, class_weights

Resampling = Callable[[int], np.ndarray | None]

MAX_PAD = 2**24  # 2 pad + 1 corners, and positions in a padded image, are int32
MAX_IMAGES = 2**31 - 1  # positions are int32
MAX_REPLICAS = 2**16  # a draw is repeated up to so many examples


class Epoch(NamedTuple):
    """One epoch's draw of N images.

    Attributes:
        position: (N,) int32 positions in the training set.
        top, left: (N,) int32 corner of the crop in the padded image.
        flip: (N,) bool, mirrored left to right.
    """

    position: np.ndarray
    top: np.ndarray
    left: np.ndarray
    flip: np.ndarray


def draw_epoch(
    labels: np.ndarray,
    seed: int,
    epoch: int,
    *,
    class_weights: np.ndarray | None = None,
    pad: int = 4,
    flip: bool = True,
) -> Epoch:
    """Draw an epoch: a permutation, or with `class_weights` N images with replacement.

    Args:
        labels: (N,) int labels of the training set.
        seed: of the run, >= 0.
        epoch: from 0.
        class_weights: None for a permutation, else (C,) weights w, finite and >= 0: image i is drawn with
            P(i) ~ w_{y_i}, with replacement, N times.
        pad: crops start anywhere in [0, 2 pad] of the image padded by `pad` on each side. Default 4.
        flip: mirror with probability 1/2. Default True.

    Returns:
        `Epoch` of N images.

    Raises:
        ValueError: a number out of range; labels that are not (N,), or not classes of `class_weights`; weights of
            which none is positive for a label.

    Example:
        >>> draw_epoch(np.zeros(4, int), seed=0, epoch=3).position.shape
        (4,)
    """
    rng = np.random.default_rng([integer("seed", seed), integer("epoch", epoch)])
    pad, flip = integer("pad", pad, at_most=MAX_PAD), flag("flip", flip)
    n = _number_of(labels)
    if class_weights is None:
        position = rng.permutation(n)
    else:
        weights = _checked("class_weights", class_weights)
        cumulative = np.cumsum(weights[check_labels(labels, len(weights))])
        if not cumulative[-1] > 0:
            raise ValueError(
                f"`class_weights` must be positive for a class that `labels` has. "
                f"{received('class_weights', class_weights)}"
            )
        # side="right" never returns an image of weight 0, min() guards the rounding of the last product.
        position = np.minimum(np.searchsorted(cumulative, rng.random(n) * cumulative[-1], side="right"), n - 1)
    top, left = rng.integers(0, 2 * pad + 1, (2, n), dtype=np.int32)
    mirrored = rng.random(n) < 0.5 if flip else np.zeros(n, bool)
    return Epoch(position.astype(np.int32), top, left, mirrored)


def draw_positions(
    labels: np.ndarray,
    seed: int,
    epoch: int,
    *,
    class_weights: np.ndarray | None = None,
    num_replicas: int = 1,
    rank: int = 0,
) -> np.ndarray:
    """Draw which examples one of several processes sees in an epoch.

    The epoch is that of `draw_epoch`, in which process r takes every `num_replicas`-th example from the r-th on. If
    their number is no multiple, the first ones of the epoch are repeated at its end, as PyTorch's `DistributedSampler`
    does, so that each process has as many.

    Args:
        labels, seed, epoch, class_weights: see `draw_epoch`; the same in every process.
        num_replicas: processes. Default 1.
        rank: number of this process, 0 to `num_replicas` - 1. Default 0.

    Returns:
        (ceil(N / num_replicas),) int32 positions.

    Raises:
        ValueError: a number out of range; labels and weights that `draw_epoch` refuses.

    Example:
        >>> shares = [draw_positions(np.zeros(5, int), 0, 0, num_replicas=2, rank=rank) for rank in (0, 1)]
        >>> [len(share) for share in shares]
        [3, 3]
    """
    num_replicas, rank = _replica(num_replicas, rank)
    position = draw_epoch(labels, seed, epoch, class_weights=class_weights, pad=0, flip=False).position
    return np.resize(position, -(-len(position) // num_replicas) * num_replicas)[rank::num_replicas]


def as_resampling(resampling: Any, labels: np.ndarray) -> Resampling | None:
    """Return a function from the epoch to class weights, of all that `ClassBalancedSampler` takes as `resampling`."""
    if resampling is None or callable(resampling):
        weights = getattr(resampling, "weights", None)  # a DeferredResampling's, which it may give much later
        if isinstance(weights, np.ndarray):
            check_labels(labels, len(weights))
        return resampling
    if not isinstance(resampling, str):
        weights = _checked("resampling", resampling)
        check_labels(labels, len(weights))
    else:
        counts = np.bincount(labels)
        seen = counts > 0
        choice("resampling", resampling, WEIGHT_SCHEMES)
        if seen.sum() < 2:
            raise ValueError(f"`labels` must be of at least two classes. {received('labels', labels)}")
        weights = np.zeros(len(counts))
        weights[seen] = class_weights(counts[seen], resampling)
    return partial(_always, weights)


class ClassBalancedSampler:
    """Class-balanced sampler for PyTorch's `DataLoader`, on one process or several.

        P(i) ~ w_{y_i},   w_c ~ 1 / n_c by default,   with replacement, N examples an epoch

    What `torch.utils.data.WeightedRandomSampler` and `DistributedSampler` do, at once: the processes share out one
    draw, a function of (seed, epoch), so that no two of them see the same share. Call `set_epoch` before every epoch,
    as for `DistributedSampler`. PyTorch is not needed to make one.

    Args:
        labels: (N,) labels of the training set, in any form that `imbalance.class_indices` takes.
        resampling: "inverse" (default), every class as often as another; "effective", by the effective number, see
            `imbalance.class_weights`; class weights (C,), finite and >= 0; a function from the epoch to class weights
            or None, such as `DeferredResampling`; None for a permutation.
        seed: >= 0, the same in every process. Default 0.
        num_replicas, rank: number of processes, and of this one. Default: those of `torch.distributed` if it is
            initialised, else 1 and 0.

    Raises:
        ValueError: bad labels or weights, fewer than two classes, a number out of range.

    Example:
        >>> sampler = ClassBalancedSampler([0, 0, 0, 1])
        >>> sampler.set_epoch(3)
        >>> len(list(sampler))
        4

    Reference:
        Kang et al., Decoupling Representation and Classifier for Long-Tailed Recognition, ICLR 2020, section 3.
    """

    def __init__(
        self,
        labels: Any,
        resampling: Any = "inverse",
        *,
        seed: int = 0,
        num_replicas: int | None = None,
        rank: int | None = None,
    ) -> None:
        self.labels = class_indices(labels)
        self.resampling = as_resampling(resampling, self.labels)
        self.seed, self.epoch = integer("seed", seed), 0
        replicas, own = _process_group()
        replicas = replicas if num_replicas is None else num_replicas
        self.num_replicas, self.rank = _replica(replicas, own if rank is None else rank)
        _number_of(self.labels)
        resampling_weights(self.resampling, 0)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that is drawn next.

        Args:
            epoch: from 0, the same in every process.

        Raises:
            ValueError: no integer >= 0.
        """
        self.epoch = integer("epoch", epoch)

    def __len__(self) -> int:
        return -(-len(self.labels) // self.num_replicas)

    def __iter__(self) -> Iterator[int]:
        weights = resampling_weights(self.resampling, self.epoch)
        share = {"num_replicas": self.num_replicas, "rank": self.rank}
        return iter(draw_positions(self.labels, self.seed, self.epoch, class_weights=weights, **share).tolist())


def _always(weights: np.ndarray, epoch: int) -> np.ndarray:
    return weights


def _replica(num_replicas: int, rank: int) -> tuple[int, int]:
    num_replicas = integer("num_replicas", num_replicas, at_least=1, at_most=MAX_REPLICAS)
    return num_replicas, integer("rank", rank, at_most=num_replicas - 1)


def _process_group() -> tuple[int, int]:
    """Number of processes and own number in PyTorch's process group; 1 and 0 without one."""
    distributed = getattr(sys.modules.get("torch"), "distributed", None)
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return 1, 0
    return distributed.get_world_size(), distributed.get_rank()


def resampling_weights(resampling: Resampling | None, epoch: int, num_classes: int | None = None) -> np.ndarray | None:
    """Return the class weights (C,) that an epoch is drawn with, or None; refuse what cannot be drawn with."""
    weights = None if resampling is None else function("resampling", resampling)(epoch)
    return None if weights is None else _checked("resampling", weights, num_classes)


def announce(
    resampling: Resampling | None, first_epoch: int, steps_per_epoch: int, num_classes: int | None = None
) -> None:
    """Check `resampling`, and tell a `DeferredResampling` of data that will be drawn with it."""
    if resampling is not None:
        resampling_weights(resampling, first_epoch, num_classes)
        if hasattr(resampling, "made_data"):
            resampling.made_data(first_epoch, steps_per_epoch)


def _checked(argument: str, weights: Any, num_classes: int | None = None) -> np.ndarray:
    """Return class weights as float64 (C,); refuse those that are not finite and >= 0, and not all zero."""
    shape = array(argument, weights).shape
    if num_classes is not None and shape != (num_classes,):
        raise ValueError(
            f"`{argument}` must give one weight for each of {num_classes} classes. Received: shape={shape}"
        )
    values = numeric(argument, weights)
    # From a sum that is 0 or overflows one image would be drawn again and again.
    if values.ndim != 1 or not values.size or values.min() < 0 or not 0 < values.max() < 1e100:
        raise ValueError(
            f"`{argument}` must be weights (C,), finite, >= 0 and not all zero. {received(argument, weights)}"
        )
    return values


def _number_of(labels: Any) -> int:
    """N of labels (N,); at least one."""
    shape = array("labels", labels).shape
    if len(shape) != 1 or not 0 < shape[0] <= MAX_IMAGES:
        raise ValueError(f"`labels` must be of shape (N,), N > 0. Received: shape={shape}")
    return int(shape[0])


def draw_rotations(n: int, batch_size: int, seed: int, epoch: int) -> np.ndarray:
    """Draw by how many quarter turns each image of an epoch is rotated, for rotation prediction.

    The four rotations are shared out evenly in the epoch and, as far as its size allows, in every batch, and shuffled
    within it.

    Args:
        n: images of the epoch.
        batch_size: the last batch may be smaller.
        seed, epoch: as in `draw_epoch`; the two draws are independent of each other.

    Returns:
        (n,) int32 of 0, 1, 2, 3, in the order of the epoch.

    Raises:
        ValueError: a number out of range.

    Example:
        >>> np.bincount(draw_rotations(8, batch_size=4, seed=0, epoch=0))
        array([2, 2, 2, 2])

    Reference:
        Gidaris et al., Unsupervised Representation Learning by Predicting Image Rotations, ICLR 2018.
    """
    n, batch_size = integer("n", n, at_most=MAX_IMAGES), integer("batch_size", batch_size, at_least=1)
    rng = np.random.default_rng([integer("seed", seed), integer("epoch", epoch), 1])
    turns = np.arange(n, dtype=np.int32) % 4
    for start in range(0, n, batch_size):
        rng.shuffle(turns[start : start + batch_size])
    return turns


def draw_rows(
    labels: np.ndarray,
    seed: int,
    epoch: int,
    *,
    class_weights: np.ndarray | None = None,
    pad: int = 4,
    flip: bool = True,
    rotate_batch: int | None = None,
) -> np.ndarray:
    """An epoch as a table, for the input paths: a row an image.

    Args:
        labels, seed, epoch, class_weights, pad, flip: see `draw_epoch`.
        rotate_batch: batch size of `draw_rotations`; None rotates nothing.

    Returns:
        (N, 5) int32: position, top, left, flip and quarter turns.

    Raises:
        ValueError: a number out of range.

    Example:
        >>> draw_rows(np.zeros(4, int), seed=0, epoch=3).shape
        (4, 5)
    """
    drawn = draw_epoch(labels, seed, epoch, class_weights=class_weights, pad=pad, flip=flip)
    turns = np.zeros(len(drawn.position), np.int32)
    if rotate_batch is not None:
        turns = draw_rotations(len(turns), integer("rotate_batch", rotate_batch, at_least=1), seed, epoch)
    return np.stack([*drawn, turns], axis=1).astype(np.int32)
