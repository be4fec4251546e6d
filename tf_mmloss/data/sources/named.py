"""The data sets that are known by name: CIFAR and scikit-learn's digits."""

import os

from tf_mmloss.data.source import Source
from tf_mmloss.data.sources._arrays import from_arrays
from tf_mmloss.datasets import NAMES, load

FORM = ", ".join(NAMES)
HELP = "by name"


def open_name(name: str, data_dir: str | os.PathLike[str] | None = None) -> Source:
    """Return a data set by its name; see `tf_mmloss.datasets.load`."""

    data = load(name, data_dir)
    parts = {"train": (data.train_images, data.train_labels), "test": (data.test_images, data.test_labels)}
    return from_arrays(name, parts, class_names=data.class_names, licence=data.licence)
