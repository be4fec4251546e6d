"""A part of an array that is larger than it needs to be in memory."""

from collections.abc import Sequence
from typing import Any

import numpy as np


class Rows:
    """Some images of an array, in an order, read when they are asked for.

    It has what the trainer's inputs use of an array: `shape`, `dtype`, `ndim`, `len`, rows by position or slice, and
    `np.asarray`, which reads all.

    Args:
        images: (N, H, W, D), memory-mapped or not.
        positions: (n,) rows of `images`.
        names: N file names or keys of `images`, if they have some.

    Example:
        >>> rows = Rows(np.arange(12).reshape(4, 3), np.array([3, 1]))
        >>> rows[1:], len(rows)
        (array([[3, 4, 5]]), 2)
    """

    def __init__(self, images: np.ndarray, positions: np.ndarray, names: Sequence[str] | None = None) -> None:
        self.images, self.positions, self.names = images, np.asarray(positions, np.int64), names
        self.shape, self.dtype = (len(self.positions), *images.shape[1:]), images.dtype

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, key: Any) -> np.ndarray:
        return np.asarray(self.images[self.positions[key]])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype)

    def take(self, positions: np.ndarray) -> "Rows":
        """Some of the rows, still unread."""
        return Rows(self.images, self.positions[positions], self.names)


def take(images: np.ndarray | Rows, positions: np.ndarray) -> np.ndarray | Rows:
    """Images by their positions: a copy of an array's, or unread `Rows` of `Rows`."""
    return images.take(positions) if isinstance(images, Rows) else images[positions]
