"""The one shape in which every data set of this package arrives."""

from dataclasses import dataclass, field

import numpy as np

from tf_mmloss.datasets.rows import Rows


def missing_package(what: str, error: ImportError) -> ModuleNotFoundError:
    """Return the error of one line that says what to install for `what`."""
    reason = str(error).strip().split("\n", maxsplit=1)[0][:200]
    return ModuleNotFoundError(f"{what} needs `pip install tf-mmloss[training]`: {reason}", name=error.name)


@dataclass(frozen=True, eq=False)
class ImageDataset:
    """Labelled images in memory, split into training and test.

    Args:
        name: The name `load` knows it by.
        train_images: uint8 array `(N, height, width, channels)`, or `Rows` of one.
        train_labels: int64 array `(N,)`, values in `0 .. num_classes - 1`.
        test_images: uint8 array `(M, height, width, channels)`, or `Rows` of one.
        test_labels: int64 array `(M,)`.
        class_names: One name per class, in label order.
        mean: Mean of the training pixels divided by 255, one per channel.
        std: Standard deviation of the same, one per channel, above 0.
        licence: What the source of the images says about their use.
        origin: Where the images come from, for a model card.
        fingerprint: What changes with the images; "" where they cannot change.
        report: Lines about what was found and chosen.
        train_groups: Integers (N,): training images of one number belong together, and are held out together or not at
            all; None where each stands alone.
        test_groups: The same (M,) of the test images.

    Raises:
        TypeError: An array is not a NumPy array of the stated dtype.
        ValueError: Shapes, label values or the number of names or channels disagree.

    Example:
        >>> from tf_mmloss.datasets import load
        >>> digits = load("digits")
        >>> digits.train_images.shape, digits.num_classes
        ((1297, 8, 8, 1), 10)
    """

    name: str
    train_images: np.ndarray | Rows = field(repr=False)
    train_labels: np.ndarray = field(repr=False)
    test_images: np.ndarray | Rows = field(repr=False)
    test_labels: np.ndarray = field(repr=False)
    class_names: tuple[str, ...] = field(repr=False)
    mean: tuple[float, ...]
    std: tuple[float, ...]
    licence: str
    origin: str = ""
    fingerprint: str = ""
    report: tuple[str, ...] = field(default=(), repr=False)
    train_groups: np.ndarray | None = field(default=None, repr=False)
    test_groups: np.ndarray | None = field(default=None, repr=False)

    @property
    def num_classes(self) -> int:
        """The number of classes, whether or not each has an image."""
        return len(self.class_names)

    def __post_init__(self) -> None:
        if not self.class_names or not all(isinstance(name, str) for name in self.class_names):
            raise ValueError(f"`class_names` must be names. Received: class_names={self.class_names!r}")
        for split in ("train", "test"):
            self._check_split(split)
            groups, labels = getattr(self, f"{split}_groups"), getattr(self, f"{split}_labels")
            if groups is not None and (np.shape(groups) != labels.shape or np.asarray(groups).dtype.kind != "i"):
                raise ValueError(
                    f"`{split}_groups` must be integers of the shape {labels.shape}, one per image. "
                    f"Received: {np.asarray(groups).dtype} of shape {np.shape(groups)}"
                )
        if self.train_images.shape[1:] != self.test_images.shape[1:]:
            raise ValueError(
                "`train_images` and `test_images` must have images of one shape. "
                f"Received: {self.train_images.shape[1:]} and {self.test_images.shape[1:]}"
            )
        channels = self.train_images.shape[-1]
        for argument in ("mean", "std"):
            value = getattr(self, argument)
            if len(value) != channels or not np.all(np.isfinite(value)):
                raise ValueError(
                    f"`{argument}` must be {channels} finite numbers, one per channel. Received: {argument}={value!r}"
                )
        if min(self.std) <= 0:
            raise ValueError(f"`std` must be > 0. Received: std={self.std!r}")

    def _check_split(self, split: str) -> None:
        images, labels = getattr(self, f"{split}_images"), getattr(self, f"{split}_labels")
        for argument, value, dtype in (
            (f"{split}_images", images, "uint8"),
            (f"{split}_labels", labels, "int64"),
        ):
            if not isinstance(value, (np.ndarray, Rows)) or value.dtype != dtype:
                received = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
                raise TypeError(f"`{argument}` must be a NumPy array of {dtype}. Received: {received}")
        if images.ndim != 4 or 0 in images.shape:
            raise ValueError(
                f"`{split}_images` must have the shape (N, height, width, channels), none 0. "
                f"Received: shape {images.shape}"
            )
        if labels.shape != images.shape[:1]:
            raise ValueError(
                f"`{split}_labels` must have the shape {images.shape[:1]}, one per image. "
                f"Received: shape {labels.shape}"
            )
        if labels.min() < 0 or labels.max() >= self.num_classes:
            raise ValueError(
                f"`{split}_labels` must be in 0 .. {self.num_classes - 1}. Received: {labels.min()} .. {labels.max()}"
            )
