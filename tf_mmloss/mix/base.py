"""What a mixing of images is: a batch, its partners and numbers drawn for it, to images and soft targets."""

import abc
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from tf_mmloss._validation import integer, number
from tf_mmloss.imbalance import check_counts


class Mixing(abc.ABC):
    """A change of a training batch that mixes each image with another, and their labels likewise.

    A file of this folder with a child of this class adds `--mix NAME`. One lambda is drawn for a batch, from
    Beta(alpha, alpha); what is drawn is a pure function of (seed, epoch, batch).

    Args:
        cls_counts: (C,) training images of each class.
        alpha: of the Beta distribution, > 0. Default 1: uniform.
        epochs: of the run, for what ends before it. Default: it never ends.

    Raises:
        ValueError: an argument out of range.
    """

    name: ClassVar[str]  # of the command line
    help: ClassVar[str]  # one line
    share: ClassVar[float] = 1.0  # of the batches, drawn at random, that are mixed
    draws_rare: ClassVar[bool] = False  # partners are drawn by inverse class frequency, else from the batch
    spared: ClassVar[int] = 0  # last epochs that are not mixed

    def __init__(self, cls_counts: Sequence[int] | np.ndarray, alpha: float = 1.0, epochs: int | None = None) -> None:
        self.cls_counts = check_counts(cls_counts)
        self.alpha = number("alpha", alpha, above=0, at_most=1e6)
        self.epochs = None if epochs is None else integer("epochs", epochs, at_least=1)

    def __call__(
        self, images: np.ndarray, labels: np.ndarray, seed: int, epoch: int, batch: int, partners: Any = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mix a batch.

        Args:
            images: float (B, height, width, channels).
            labels: int (B,).
            seed: of the run.
            epoch: from 0.
            batch: its number in the epoch.
            partners: images and labels like these, where `draws_rare`. Default: those of the batch, in another order.

        Returns:
            Images of the same shape, and float32 targets (B, C), rows that sum to one.
        """
        # Four numbers keep these draws apart from those of `tf_mmloss.sampling` and `tf_mmloss.augment`.
        rng = np.random.default_rng([seed, epoch, batch, 1])
        ended = self.epochs is not None and epoch >= self.epochs - self.spared
        targets = np.eye(len(self.cls_counts), dtype=np.float32)
        if rng.random() >= self.share or ended:
            return images, targets[labels]
        order = rng.permutation(len(labels))
        others, their_labels = (images[order], labels[order]) if partners is None else partners
        mixed, shares = self.mix(rng, images, others, labels, their_labels, rng.beta(self.alpha, self.alpha))
        shares = np.broadcast_to(np.asarray(shares, np.float32), labels.shape)[:, None]
        return mixed, shares * targets[labels] + (1 - shares) * targets[their_labels]

    @abc.abstractmethod
    def mix(
        self,
        rng: np.random.Generator,
        images: np.ndarray,
        others: np.ndarray,
        labels: np.ndarray,
        their_labels: np.ndarray,
        share: float,
    ) -> tuple[np.ndarray, Any]:
        """Return the mixed images, and the weight of the own label: a number, or one for each image (B,)."""


def blended(images: np.ndarray, others: np.ndarray, share: float) -> np.ndarray:
    """lambda a + (1 - lambda) b, in the dtype of the images."""
    share = images.dtype.type(share)
    return share * images + (1 - share) * others


def pasted(rng: np.random.Generator, images: np.ndarray, others: np.ndarray, share: float) -> tuple[np.ndarray, float]:
    """A box of area 1 - lambda of the others, its centre anywhere, cut at the border; and what is left, as a part."""
    height, width = images.shape[1:3]
    cut = np.sqrt(1 - share)
    half_height, half_width = int(height * cut) // 2, int(width * cut) // 2
    y, x = rng.integers(0, height), rng.integers(0, width)
    top, bottom = max(y - half_height, 0), min(y + half_height, height)
    left, right = max(x - half_width, 0), min(x + half_width, width)
    mixed = images.copy()
    mixed[:, top:bottom, left:right] = others[:, top:bottom, left:right]
    return mixed, 1 - (bottom - top) * (right - left) / (height * width)
