"""CIFAR as a folder that TensorFlow Datasets (TFDS) has prepared."""

import os
import re
from pathlib import Path

from tf_mmloss.datasets.base import ImageDataset
from tf_mmloss.datasets.cifar import CifarSpec

MARKER = "dataset_info.json"


def tfds_cache() -> Path:
    """Return the folder in which TFDS keeps prepared data sets."""
    return Path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def find_tfds(place: Path, spec: CifarSpec, looked: list[str]) -> Path | None:
    """Return the folder of the newest version in the TFDS data folder `place`, such as `cifar10/3.0.2`.

    Args:
        place: A TFDS data folder.
        spec: Which CIFAR to look for.
        looked: Gets a line if there is none.
    """
    folders = [marker.parent for marker in (place / spec.name).glob(f"*/{MARKER}")]
    versions = [folder for folder in folders if re.fullmatch(r"\d+\.\d+\.\d+", folder.name)]
    if not versions:
        looked.append(str(place / spec.name / "VERSION" / MARKER))
        return None
    return max(versions, key=lambda folder: [int(part) for part in folder.name.split(".")])


def read_tfds(folder: Path, spec: CifarSpec) -> ImageDataset:
    """Return the data set in a folder that TFDS prepared, without any download.

    Args:
        folder: The folder of one version.
        spec: Which CIFAR is expected.

    Raises:
        ImportError: TFDS or a package that it needs is not installed.
        ValueError: The folder's content is not that of `spec`.
    """
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ImportError(f"Reading {folder} needs `pip install tf-mmloss[training]`: {error}") from error
    builder = tfds.builder_from_directory(folder)
    splits = {}
    for split in ("train", "test"):
        found = builder.info.splits[split].num_examples if split in builder.info.splits else 0
        spec.check_count(split, found, str(folder))
        (whole,) = tfds.as_numpy([builder.as_dataset(split=split, batch_size=-1)])
        splits[split] = whole["image"], whole["label"]
    names = tuple(builder.info.features["label"].names)
    return spec.dataset(str(folder), splits["train"], splits["test"], names)


def prepare_tfds(spec: CifarSpec) -> Path:
    """Let TFDS download and prepare the data set in its own cache; return the version's folder."""
    import tensorflow_datasets as tfds

    builder = tfds.builder(spec.name, data_dir=tfds_cache())
    builder.download_and_prepare()
    return Path(builder.data_dir)
