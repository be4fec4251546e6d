"""CIFAR-10 and CIFAR-100: what they must hold, however they were found and read.

Source: A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, technical report, University of
Toronto, 2009.
"""

from dataclasses import dataclass

import numpy as np

from tf_mmloss.datasets.base import ImageDataset

SIDE = 32
NAME_LIMIT = 100
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2023, 0.1994, 0.2010)
LICENCE = "No explicit licence. Cite: A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009."


@dataclass(frozen=True)
class CifarSpec:
    """What tells one CIFAR from the other, and from the tiny ones of the tests.

    Args:
        name: `ImageDataset.name`, also the name of the TFDS data set.
        archive: File name of the public python version.
        sha256: The archive's hash, the one that Keras pins.
        folder: The folder inside it.
        train_files: The training batches in the folder.
        test_files: The test batch in the folder.
        meta_file: The file of class names in the folder.
        label_key: Key of the labels in a batch.
        names_key: Key of the class names in `meta_file`.
        num_classes: Number of classes.
        train_count: Number of training images.
        test_count: Number of test images.
    """

    name: str
    archive: str
    sha256: str
    folder: str
    train_files: tuple[str, ...]
    test_files: tuple[str, ...]
    meta_file: str
    label_key: bytes
    names_key: bytes
    num_classes: int
    train_count: int = 50_000
    test_count: int = 10_000

    @property
    def files(self) -> tuple[str, ...]:
        """Every file that is read from the folder."""
        return (*self.train_files, *self.test_files, self.meta_file)

    def check_count(self, split: str, found: int, where: str) -> None:
        """Raise a `ValueError` if a split has not the number of images that it must have."""
        expected = self.train_count if split == "train" else self.test_count
        if found != expected:
            raise ValueError(f"{where}: expected {expected} {split} images. Received: {found}")

    def check_names(self, found: int, where: str) -> None:
        """Raise a `ValueError` if there is not one name a class."""
        if found != self.num_classes:
            raise ValueError(f"{where}: expected {self.num_classes} class names. Received: {found}")

    def dataset(
        self,
        where: str,
        train: tuple[np.ndarray, np.ndarray],
        test: tuple[np.ndarray, np.ndarray],
        class_names: tuple[str, ...],
    ) -> ImageDataset:
        """Return the checked data set of two `(images, labels)`; `where` names the source in messages."""
        self.check_count("train", len(train[0]), where)
        self.check_count("test", len(test[0]), where)
        self.check_names(len(class_names), where)
        if train[0].shape[1:] != (SIDE, SIDE, 3):
            raise ValueError(f"{where}: expected {SIDE}x{SIDE} RGB images. Received: {train[0].shape[1:]}")
        return ImageDataset(self.name, *train, *test, class_names, MEAN, STD, LICENCE)


CIFAR10 = CifarSpec(
    name="cifar10",
    archive="cifar-10-python.tar.gz",
    sha256="6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
    folder="cifar-10-batches-py",
    train_files=tuple(f"data_batch_{k}" for k in range(1, 6)),
    test_files=("test_batch",),
    meta_file="batches.meta",
    label_key=b"labels",
    names_key=b"label_names",
    num_classes=10,
)
CIFAR100 = CifarSpec(
    name="cifar100",
    archive="cifar-100-python.tar.gz",
    sha256="85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
    folder="cifar-100-python",
    train_files=("train",),
    test_files=("test",),
    meta_file="meta",
    label_key=b"fine_labels",
    names_key=b"fine_label_names",
    num_classes=100,
)
