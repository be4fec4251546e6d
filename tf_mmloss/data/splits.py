"""Which examples are trained on, and which are evaluated: by class, seeded. NumPy only."""

import itertools
import math

import numpy as np

from tf_mmloss import imbalance
from tf_mmloss._validation import choice, integer, number

IMBALANCES = ("none", *imbalance.IMBALANCES)
# Of a class of which a share is held out, so many at least where it has twice as many.
LEAST_HELD = 5


def split_by_class(
    labels: np.ndarray, share: float, seed: int = 0, groups: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Split so that every class with two examples or more is on both sides.

    Of a class of n examples, round(share n) are held out, at least one and at most n - 1; a class of one example stays
    in training. With groups, each goes to one side whole, so that the numbers are met as nearly as whole groups allow,
    and a class whose examples are all one group stays in training.

    Args:
        labels: (N,) whole numbers.
        share: of each class that is held out, in (0, 1).
        seed: >= 0; the same seed always splits alike.
        groups: (N,) keys of examples that belong together; default: each stands alone.

    Returns:
        Sorted positions of the training and of the held-out examples, int64.

    Raises:
        ValueError: An argument out of range.

    Example:
        >>> split_by_class(np.array([0, 0, 0, 0, 1]), 0.25)[1].shape
        (1,)
    """
    labels = np.asarray(labels)
    share = number("share", share, above=0, below=1)
    sizes = np.bincount(labels) if len(labels) else np.zeros(0, np.int64)
    wanted = np.clip(np.round(sizes * share), 1, np.maximum(sizes - 1, 0)).astype(np.int64)
    return _hold_out(labels, wanted, seed, groups)


def hold_out(
    labels: np.ndarray, per_class: int | float, seed: int = 0, groups: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Split off `per_class` examples of every class, or that share of it, at most half of a class.

    Args:
        labels: (N,) whole numbers.
        per_class: examples, >= 1, or a share in (0, 1): of each class, but at least five examples.
        seed: >= 0.
        groups: as in `split_by_class`.

    Returns:
        Sorted positions of the training and of the held-out examples, int64.

    Raises:
        ValueError: An argument out of range.

    Example:
        >>> hold_out(np.array([0, 0, 0, 0, 1]), 2)[1].shape
        (2,)
    """
    labels = np.asarray(labels)
    sizes = np.bincount(labels)
    if is_share(per_class):
        wanted = np.maximum(np.round(sizes * per_class), LEAST_HELD).astype(np.int64)
    else:
        wanted = np.full(len(sizes), integer("per_class", per_class, at_least=1))
    return _hold_out(labels, np.minimum(wanted, sizes // 2), seed, groups)


def is_share(held_out: object) -> bool:
    """Whether what is to be held out is a share of each class, not a number of images."""
    return isinstance(held_out, float) and 0 < held_out < 1


def imbalanced(labels: np.ndarray, kind: str = "none", ratio: float = 1, seed: int = 0) -> np.ndarray:
    """Choose examples so that their classes are imbalanced, from the largest class to the smallest as they are.

    The k-th largest class keeps what `imbalance.imbalanced_counts` gives to the k-th, starting from the largest class'
    own count, or all that it has where that is less.

    Args:
        labels: (N,) whole numbers.
        kind: "none" (all examples, as they are), "longtail" or "step".
        ratio: largest over smallest class, >= 1; unused by "none".
        seed: >= 0.

    Returns:
        Sorted positions of the examples kept, int64.

    Raises:
        ValueError: An argument out of range, or a ratio that would leave a class empty.

    Example:
        >>> kept = imbalanced(np.repeat([0, 1], [10, 8]), "step", 5)
        >>> imbalance.class_counts(np.repeat([0, 1], [10, 8])[kept])
        array([10,  2])
    """
    choice("imbalance", kind, IMBALANCES)
    labels = np.asarray(labels)
    if kind == "none":
        return np.arange(len(labels))
    classes, counts = np.unique(labels, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    targets = imbalance.imbalanced_counts(int(counts.max()), len(classes), kind, ratio)
    wanted = counts.copy()
    wanted[order] = np.minimum(counts[order], targets)
    return imbalance.subset_indices(np.searchsorted(classes, labels), wanted, seed)


def _hold_out(
    labels: np.ndarray, wanted: np.ndarray, seed: int, groups: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Hold out whole groups until every class has what is wanted of it; the rarest class chooses first."""
    rng = np.random.default_rng(integer("seed", seed))
    held = np.zeros(len(labels), bool)
    if groups is None:
        for label, count in enumerate(wanted.tolist()):
            held[rng.permutation(np.flatnonzero(labels == label))[:count]] = True
        return np.flatnonzero(~held), np.flatnonzero(held)
    _, group_of = np.unique(np.asarray(groups), return_inverse=True)
    sizes = np.bincount(group_of)
    by_group, starts = np.argsort(group_of, kind="stable"), np.concatenate([[0], np.cumsum(sizes)])
    left = np.bincount(labels, minlength=len(wanted))
    settled = np.zeros(len(sizes), bool)
    for label in np.argsort(left, kind="stable").tolist():
        own = np.unique(group_of[labels == label])
        own = rng.permutation(own[~settled[own]])
        short = int(wanted[label]) - int(held[labels == label].sum())
        # A second look takes the smallest group, however large, where none fitted and nothing of the class is held.
        by_size = own[np.argsort(sizes[own], kind="stable")]
        for group, fits in itertools.chain(((g, True) for g in own.tolist()), ((g, False) for g in by_size.tolist())):
            if short <= 0 or (not fits and short < wanted[label]):
                break
            members = by_group[starts[group] : starts[group + 1]]
            inside = np.bincount(labels[members], minlength=len(wanted)) if len(members) > 1 else None
            count = 1 if inside is None else int(inside[label])
            empties = left[label] <= 1 if inside is None else np.any((inside > 0) & (left <= inside))
            if empties or settled[group] or (fits and count > math.ceil(short * 1.5)):
                continue
            held[members] = settled[group] = True
            if inside is None:
                left[label] -= 1
            else:
                left = left - inside
            short -= count
        settled[own] = True
    return np.flatnonzero(~held), np.flatnonzero(held)
