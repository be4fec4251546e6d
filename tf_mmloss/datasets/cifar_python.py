"""CIFAR as its public "python version": an archive, or the folder extracted from it."""

from pathlib import Path
from typing import Any

import numpy as np

from tf_mmloss.datasets.archives import read_members, unpickle
from tf_mmloss.datasets.base import ImageDataset
from tf_mmloss.datasets.cifar import NAME_LIMIT, SIDE, CifarSpec


def find_python_version(place: Path, spec: CifarSpec, looked: list[str]) -> Path | None:
    """Return the archive or extracted folder that is `place` or lies in it, the quickest to read first.

    Args:
        place: A folder, or an archive of any name.
        spec: Which CIFAR to look for.
        looked: Gets a line for every path that was tried in vain.
    """
    if place.is_file():
        return place
    keras_target = f"{spec.folder}-target"  # Keras calls its cached copies so
    for folder in (place, place / spec.folder, place / keras_target / spec.folder):
        missing = [file for file in spec.files if not (folder / file).is_file()]
        if not missing:
            return folder
        partial = len(missing) < len(spec.files)
        looked.append(f"{folder} (lacks {', '.join(missing)})" if partial else str(folder))
    for archive in (spec.archive, f"{keras_target}_archive", f"{spec.folder}.tar.gz"):
        if (place / archive).is_file():
            return place / archive
        looked.append(str(place / archive))
    return None


def read_python_version(source: Path, spec: CifarSpec) -> ImageDataset:
    """Return the data set in a public archive or in the folder extracted from it.

    Args:
        source: The `.tar.gz` archive or the extracted folder.
        spec: Which CIFAR is expected.

    Raises:
        ValueError: A file is damaged, foreign or not to be trusted, or the counts are not those of `spec`.
    """
    batches: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    class_names: tuple[str, ...] = ()
    for file, (where, content) in zip(spec.files, read_members(source, spec.folder, spec.files), strict=True):
        record = unpickle(content, where)
        if file == spec.meta_file:
            class_names = _class_names(record, where, spec)
        else:
            batches[file] = _pixels_and_labels(record, where, spec)

    def split(files: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
        # A row is the red plane, then the green one, then the blue one.
        pixels = np.concatenate([batches[file][0] for file in files]).reshape(-1, 3, SIDE, SIDE)
        labels = np.concatenate([batches[file][1] for file in files])
        return np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)), labels

    return spec.dataset(str(source), split(spec.train_files), split(spec.test_files), class_names)


def _pixels_and_labels(record: dict[Any, Any], where: str, spec: CifarSpec) -> tuple[np.ndarray, np.ndarray]:
    pixels, labels = _value(record, b"data", where), _value(record, spec.label_key, where)
    if not isinstance(pixels, np.ndarray) or pixels.ndim != 2 or pixels.shape[1] != 3 * SIDE**2:
        received = f"shape {pixels.shape}" if isinstance(pixels, np.ndarray) else type(pixels).__name__
        raise ValueError(f"{where}: b'data' must be a uint8 array (N, {3 * SIDE**2}). Received: {received}")
    if type(labels) is not list or not all(type(label) is int for label in labels):
        raise ValueError(f"{where}: {spec.label_key!r} must be a list of integers")
    if len(labels) != len(pixels):
        raise ValueError(f"{where}: {len(pixels)} images but {len(labels)} labels")
    low, high = min(labels, default=0), max(labels, default=0)
    if low < 0 or high >= spec.num_classes:
        raise ValueError(f"{where}: labels must be in 0 .. {spec.num_classes - 1}. Received: {low} .. {high}")
    return pixels, np.asarray(labels, np.int64)


def _class_names(record: dict[Any, Any], where: str, spec: CifarSpec) -> tuple[str, ...]:
    names = _value(record, spec.names_key, where)
    if type(names) is not list or not all(type(name) in (bytes, str) and len(name) <= NAME_LIMIT for name in names):
        raise ValueError(f"{where}: {spec.names_key!r} must be a list of names of at most {NAME_LIMIT} characters")
    spec.check_names(len(names), where)
    return tuple(name if type(name) is str else name.decode("utf-8", "replace") for name in names)


def _value(record: dict[Any, Any], key: bytes, where: str) -> Any:
    # Read with `encoding="latin1"` and saved again, the keys are text.
    for known in (key, key.decode()):
        if known in record:
            return record[known]
    raise ValueError(f"{where}: not a file of the public python version, the key {key!r} is missing")
