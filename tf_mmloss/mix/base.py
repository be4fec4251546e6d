"""What a mixing of images is: a batch, its partners and numbers drawn for it, to images and soft targets."""

import abc
import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from tf_mmloss._validation import integer, number, received
from tf_mmloss.imbalance import check_counts, check_labels
from tf_mmloss.sampling import draw_rows

Box = tuple[int, int, int, int]  # top, bottom, left, right
NO_BOX: Box = (0, 0, 0, 0)
BLEND_ONE = 2**30  # what stands for a weight of 1 among integers


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
    begins: ClassVar[int] = 0  # the first epoch that is mixed
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

        Raises:
            ValueError: images of whole numbers, which have no mean; labels of no class, or not one for each image.
        """
        for argument, given in (("images", images), *(() if partners is None else (("partners", partners[0]),))):
            if not isinstance(given, np.ndarray) or given.ndim != 4 or given.dtype.kind in "biu":
                raise ValueError(
                    f"`{argument}` must be float (B, height, width, channels). {received(argument, given)}"
                )
            if len(given) != len(labels):
                raise ValueError(f"`{argument}` must be as many as `labels`, {len(labels)}. Received: {len(given)}")
        mixed = self.draw(labels, images.shape[1:3], seed, epoch, batch, None if partners is None else partners[1])
        return mixed.images(images, images[mixed.order] if partners is None else partners[0]), mixed.targets

    def draw(
        self,
        labels: np.ndarray,
        size: tuple[int, int],
        seed: int,
        epoch: int,
        batch: int,
        their_labels: np.ndarray | None = None,
    ) -> "Mixed":
        """Draw how a batch is mixed, without its images.

        Args:
            labels, seed, epoch, batch: as when called.
            size: height and width of the images.
            their_labels: (B,) of the partners. Default: those of the batch, in another order.

        Raises:
            ValueError: labels of no class, or not as many of the partners.
        """
        labels = check_labels(labels, len(self.cls_counts))
        if their_labels is not None:
            their_labels = check_labels(their_labels, len(self.cls_counts), "their_labels")
            if len(their_labels) != len(labels):
                raise ValueError(
                    f"`their_labels` must be as many as `labels`, {len(labels)}. Received: {len(their_labels)}"
                )
        # Four numbers keep these draws apart from those of `tf_mmloss.sampling` and `tf_mmloss.augment`.
        rng = np.random.default_rng([seed, epoch, batch, 1])
        left_out = epoch < self.begins or (self.epochs is not None and epoch >= self.epochs - self.spared)
        targets = np.eye(len(self.cls_counts), dtype=np.float32)
        if rng.random() >= self.share or left_out:
            return Mixed(np.arange(len(labels)), np.float32(1), NO_BOX, targets[labels])
        order = rng.permutation(len(labels))
        theirs = labels[order] if their_labels is None else their_labels
        blend, box, shares = self.mix(rng, size, labels, theirs, rng.beta(self.alpha, self.alpha))
        shares = np.broadcast_to(np.asarray(shares, np.float32), labels.shape)[:, None]
        return Mixed(order, np.float32(blend), box, shares * targets[labels] + (1 - shares) * targets[theirs])

    @abc.abstractmethod
    def mix(
        self,
        rng: np.random.Generator,
        size: tuple[int, int],
        labels: np.ndarray,
        their_labels: np.ndarray,
        share: float,
    ) -> tuple[float, Box, Any]:
        """How a batch is mixed.

        Args:
            rng: to draw from.
            size: height and width of the images.
            labels, their_labels: (B,) of the images and of their partners.
            share: lambda.

        Returns:
            The weight of the own image, the box in which the partner is seen instead, and the weight of the own label:
            a number, or one for each image (B,).
        """


@dataclasses.dataclass(frozen=True)
class Mixed:
    """What was drawn for a batch.

    Args:
        order: (B,) which image of the batch is each one's partner, where it has no other.
        blend: weight of the own image, float32; the partner has the rest.
        box: where the partner is seen alone.
        targets: float32 (B, C).
    """

    order: np.ndarray
    blend: np.float32
    box: Box
    targets: np.ndarray

    def images(self, images: np.ndarray, others: np.ndarray) -> np.ndarray:
        """lambda a + (1 - lambda) b in the dtype of the images, and b in the box."""
        top, bottom, left, right = self.box
        if self.blend < 1:
            share = images.dtype.type(self.blend)
            images = share * images + (1 - share) * others
        if self.box != NO_BOX:
            images = images.copy()
            images[:, top:bottom, left:right] = others[:, top:bottom, left:right]
        return images

    @property
    def numbers(self) -> list[int]:
        """Blend in 2^-30 and box, for an input of integers."""
        return [round(float(self.blend) * BLEND_ONE), *self.box]


def draw_box(rng: np.random.Generator, size: tuple[int, int], share: float) -> tuple[Box, float]:
    """A box of area 1 - lambda, its centre anywhere, cut at the border; and what is left, as a part."""
    height, width = size
    cut = np.sqrt(1 - share)
    half_height, half_width = int(height * cut) // 2, int(width * cut) // 2
    y, x = int(rng.integers(0, height)), int(rng.integers(0, width))
    top, bottom = max(y - half_height, 0), min(y + half_height, height)
    left, right = max(x - half_width, 0), min(x + half_width, width)
    return (top, bottom, left, right), 1 - (bottom - top) * (right - left) / (height * width)


def rare_seed(seed: int) -> int:
    """Of the draws of partners by inverse class frequency: another stream than the epoch's own."""
    return (seed + 2**31) % 2**32


def draw_rare_rows(labels: np.ndarray, seed: int, epoch: int, *, num_classes: int, pad: int, flip: bool) -> np.ndarray:
    """Rows (N, 5) of `tf_mmloss.sampling.draw_rows` of an epoch's partners, drawn by inverse class frequency."""
    weights = 1 / np.maximum(np.bincount(labels, minlength=num_classes), 1)
    return draw_rows(labels, rare_seed(seed), epoch, class_weights=weights, pad=pad, flip=flip)
