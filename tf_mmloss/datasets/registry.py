"""The data sets by name."""

import os
from collections.abc import Callable

from tf_mmloss._validation import choice
from tf_mmloss.datasets.base import ImageDataset
from tf_mmloss.datasets.cifar import CIFAR10, CIFAR100
from tf_mmloss.datasets.cifar_search import load_cifar
from tf_mmloss.datasets.digits import load_digits

_LOADERS: dict[str, Callable[[str | os.PathLike[str] | None, bool], ImageDataset]] = {
    "cifar10": lambda data_dir, download: load_cifar(CIFAR10, data_dir, download),
    "cifar100": lambda data_dir, download: load_cifar(CIFAR100, data_dir, download),
    "digits": lambda data_dir, download: load_digits(),
}
NAMES = tuple(_LOADERS)


def load(name: str, data_dir: str | os.PathLike[str] | None = None, download: bool = True) -> ImageDataset:
    """Return a data set by its name, complete and checked.

    Args:
        name: `cifar10`, `cifar100` or `digits`.
        data_dir: Where CIFAR lies: the public archive (`cifar-10-python.tar.gz` or
            `cifar-100-python.tar.gz`), the folder extracted from it, or a folder that holds either or a
            prepared TFDS data set. Nothing else is tried when it is given. By default the cache of Keras is
            looked at (`$KERAS_HOME/datasets` or `~/.keras/datasets`, and `/tmp/.keras/datasets` where that cannot be
            written), then that of TFDS (`$TFDS_DATA_DIR` or `~/tensorflow_datasets`).
        download: Whether CIFAR may be downloaded if it is in no cache: by Keras into its cache, else by TFDS.

    Returns:
        The images and labels in memory, with class names, mean, standard deviation and licence.

    Raises:
        FileNotFoundError: CIFAR is in none of the places that the message lists, nor could be downloaded.
        ModuleNotFoundError: The package that reads the data set is not installed.
        ValueError: The name is unknown, or a file is damaged, foreign or not to be trusted.

    Example:
        >>> from tf_mmloss.datasets import load
        >>> dataset = load("digits")
        >>> dataset.train_images.shape, dataset.test_images.shape
        ((1297, 8, 8, 1), (500, 8, 8, 1))

    Source: A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009 (CIFAR); E. Alpaydin
    and C. Kaynak, Optical Recognition of Handwritten Digits, 1998 (digits).
    """
    return _LOADERS[choice("dataset", name, NAMES)](data_dir, download)
