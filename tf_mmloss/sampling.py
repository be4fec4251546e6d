"""Which images an epoch shows, in which order and how cropped: a pure function of (seed, epoch). NumPy only.

Every input path draws from here, so a run shows the same images on every backend and after a resume.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tf_mmloss._validation import array, flag, function, integer, numeric, received
from tf_mmloss.imbalance import check_labels

Resampling = Callable[[int], np.ndarray | None]

MAX_PAD = 2**24  # 2 pad + 1 corners, and positions in a padded image, are int32
MAX_IMAGES = 2**31 - 1  # positions are int32


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


def resampling_weights(resampling: Resampling | None, epoch: int, num_classes: int) -> np.ndarray | None:
    """Return the class weights (C,) that an epoch is drawn with, or None; refuse what cannot be drawn with."""
    weights = None if resampling is None else function("resampling", resampling)(epoch)
    return None if weights is None else _checked("resampling", weights, num_classes)


def announce(resampling: Resampling | None, first_epoch: int, steps_per_epoch: int, num_classes: int) -> None:
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

    The four rotations are shared out evenly in every batch, and shuffled within it.

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
    batch_size = min(batch_size, max(n, 1))
    rng = np.random.default_rng([integer("seed", seed), integer("epoch", epoch), 1])
    turns = np.arange(n, dtype=np.int32) % batch_size % 4
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
