"""Cutout: a black square somewhere in the image."""

import numpy as np

from tf_mmloss.augment.base import Augmentation

_STEPS = 2**16  # of a position


class Cutout(Augmentation):
    """Make a square of half the shorter side black, whose centre lies anywhere in the image.

        16 x 16 of an image of 32 x 32, cut at the border

    It is black before the normalisation, as in the long-tail repositories; the original has grey there.

    Example:
        >>> drawn = Cutout().draw(np.random.default_rng(0), 20)
        >>> Cutout().apply(x, drawn).shape
        (20, 8, 8, 3)

    Reference:
        DeVries and Taylor, Improved Regularization of Convolutional Neural Networks with Cutout, 2017.
    """

    name = "cutout"
    help = "a black square of half the side"

    def draw(self, rng: np.random.Generator, n: int) -> np.ndarray:
        return rng.integers(0, _STEPS, (n, 2), dtype=np.int32)

    def apply(self, images: np.ndarray, drawn: np.ndarray) -> np.ndarray:
        height, width = images.shape[1:3]
        half = min(height, width) // 4
        y, x = drawn[:, 0] * height // _STEPS, drawn[:, 1] * width // _STEPS
        rows, columns = np.arange(height), np.arange(width)
        in_rows = (rows >= (y - half)[:, None]) & (rows < (y + half)[:, None])
        in_columns = (columns >= (x - half)[:, None]) & (columns < (x + half)[:, None])
        hole = in_rows[:, :, None] & in_columns[:, None, :]
        return np.where(hole[..., None], np.uint8(0), images)
