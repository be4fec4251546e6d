"""What an augmentation is: numbers that are drawn for an epoch, and what they do to a batch of images."""

import abc
from typing import ClassVar

import numpy as np


class Augmentation(abc.ABC):
    """A change of training images, a pure function of what was drawn for them.

    A file of this folder with a child of this class adds `--augment NAME`; one elsewhere is `--augment MODULE:CLASS`.
    """

    name: ClassVar[str]  # of the command line
    help: ClassVar[str]  # one line

    @abc.abstractmethod
    def draw(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """Draw the numbers of an epoch of n images: int32 (n, k)."""

    @abc.abstractmethod
    def apply(self, images: np.ndarray, drawn: np.ndarray) -> np.ndarray:
        """Change a batch.

        Args:
            images: uint8 (B, height, width, 1 or 3).
            drawn: (B, k), its rows of `draw`.

        Returns:
            uint8 of the same shape.
        """
