"""CIFAR as a folder that TensorFlow Datasets (TFDS) has prepared."""

import os
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from tf_mmloss.datasets.base import ImageDataset, missing_package
from tf_mmloss.datasets.cifar import NAME_LIMIT, SIDE, CifarSpec
from tf_mmloss.files import read_bytes, read_json, read_text

_Content = TypeVar("_Content")

MARKER = "dataset_info.json"
TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
FEATURES = tuple(
    f"tensorflow_datasets.core.features.{name}"
    for name in (
        "features_dict.FeaturesDict",
        "image_feature.Image",
        "class_label_feature.ClassLabel",
        "text_feature.Text",
        "tensor_feature.Tensor",
    )
)
TEXT_LIMIT = 2**20
# TFDS writes CIFAR's training images into one file of 132 MB, in records of at most 3.4 kB.
SHARD_LIMIT = 512 * 2**20
RECORD_LIMIT = 16 * 2**10
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_START = PNG_SIGNATURE + struct.pack(">I4sIIBB", 13, b"IHDR", SIDE, SIDE, 8, 2)


def tfds_cache() -> Path:
    """Return the folder in which TFDS keeps prepared data sets."""
    return Path(os.path.expanduser(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"))


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

    TFDS imports whatever module `features.json` names and decodes images of any size, so it is not given the folder:
    the files are checked and read here, and TFDS takes the records apart by features that are stated here.

    Args:
        folder: The folder of one version.
        spec: Which CIFAR is expected.

    Raises:
        ModuleNotFoundError: TFDS or a package that it needs is not installed.
        ValueError: A file is damaged or not to be trusted, or the folder's content is not that of `spec`.
    """
    try:
        import tensorflow_datasets  # noqa: F401
    except ImportError as error:
        raise missing_package(f"Reading {folder}", error) from error
    lengths = _shard_lengths(folder, spec)
    check_classes(_read(read_json, folder / "features.json", TEXT_LIMIT), folder / "features.json")
    names = _label_names(folder, spec)
    splits = {}
    for split in ("train", "test"):
        spec.check_count(split, sum(lengths[split]), str(folder))
        shards = []
        for k, length in enumerate(lengths[split]):
            path = folder / f"{spec.name}-{split}.tfrecord-{k:05d}-of-{len(lengths[split]):05d}"
            if length:
                shards.append(_read_shard(path, length, spec))
        images, labels = zip(*shards, strict=True)
        splits[split] = np.concatenate(images), np.concatenate(labels)
    return spec.dataset(str(folder), splits["train"], splits["test"], names)


def _read(reader: Callable[..., _Content], path: Path, limit: int) -> _Content:
    """What a function of `tf_mmloss.files` reads of a file of the folder."""
    try:
        return reader(path, limit=limit, within=path.parent)
    except FileNotFoundError:
        raise ValueError(f"{path}: damaged, the file is missing") from None


def _shard_lengths(folder: Path, spec: CifarSpec) -> dict[str, list[int]]:
    """Return the numbers of examples of the files of each split."""
    path = folder / MARKER
    info = _read(read_json, path, TEXT_LIMIT)
    if not isinstance(info, dict):
        raise ValueError(f"{path}: damaged, expected a JSON object")
    for key, expected in (("name", spec.name), ("fileFormat", "tfrecord")):
        if info.get(key, expected) != expected:
            raise ValueError(f"{path}: expected {expected!r} as `{key}`. Received: {str(info[key])[:50]!r}")
    lengths: dict[str, list[int]] = {"train": [], "test": []}
    try:
        for split in info.get("splits", []):
            template = split.get("filepathTemplate", TEMPLATE)
            if split["name"] in lengths and template != TEMPLATE:
                raise ValueError(f"{path}: expected files named {TEMPLATE}. Received: {str(template)[:50]!r}")
            if split["name"] in lengths:
                texts = [str(length) for length in split["shardLengths"]]
                if not all(re.fullmatch("[0-9]{1,9}", text) for text in texts):
                    raise TypeError
                lengths[split["name"]] = [int(text) for text in texts]
    except (AttributeError, KeyError, TypeError):
        raise ValueError(f"{path}: damaged, its splits are not those that TFDS writes") from None
    return lengths


def check_classes(features: Any, path: Path, known: Callable[[Any], bool] = FEATURES.__contains__) -> None:
    """Raise a `ValueError` if `features.json` names a class that is not known: TFDS imports what is named.

    Args:
        features: the content of the file.
        path: of it, for the message.
        known: whether a name may stay; default: those of the features that CIFAR has.
    """
    left = [features]
    while left:
        value = left.pop()
        if isinstance(value, list):
            left += value
        elif isinstance(value, dict):
            left += value.values()
            for key in ("pythonClassName", "python_class_name", "type"):  # the last before TFDS 4.6
                if key in value and not known(value[key]):
                    raise ValueError(f"{path}: refused, it names the class {str(value[key])[:100]!r}")


def _label_names(folder: Path, spec: CifarSpec) -> tuple[str, ...]:
    path = folder / "label.labels.txt"
    if not path.exists():  # TFDS writes none where no names were given
        return tuple(str(k) for k in range(spec.num_classes))
    names = tuple(line.strip() for line in _read(read_text, path, TEXT_LIMIT).split("\n") if line.strip())
    spec.check_names(len(names), str(path))
    if max(map(len, names)) > NAME_LIMIT:
        raise ValueError(f"{path}: expected names of at most {NAME_LIMIT} characters")
    return names


def _read_shard(path: Path, length: int, spec: CifarSpec) -> tuple[np.ndarray, np.ndarray]:
    """Return the images and labels of one file of records."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    _check_records(_read(read_bytes, path, SHARD_LIMIT), length, path)
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(SIDE, SIDE, 3)),
            "label": tfds.features.ClassLabel(num_classes=spec.num_classes),
        }
    )
    undecoded = {"image": tfds.decode.SkipDecoding()}
    try:
        with tf.device("CPU"):
            records = tf.data.TFRecordDataset(os.fsencode(path))
            examples = records.map(
                lambda record: features.deserialize_example(record, decoders=undecoded), tf.data.AUTOTUNE
            )
            (whole,) = examples.batch(length).as_numpy_iterator()
            for png in whole["image"]:
                _check_png(png, path)
            pngs = tf.data.Dataset.from_tensor_slices(whole["image"])
            (images,) = pngs.map(_decode, tf.data.AUTOTUNE).batch(length).as_numpy_iterator()
    except (tf.errors.OpError, TypeError) as error:
        reason = str(error).split("\n", maxsplit=1)[0].replace("{{function_node", " ")[:200]
        raise ValueError(f"{path}: damaged: {reason}") from None
    labels = whole["label"].astype(np.int64)
    if len(labels) != length or labels.min() < 0 or labels.max() >= spec.num_classes:
        raise ValueError(f"{path}: expected {length} labels in 0 .. {spec.num_classes - 1}")
    return images, labels


def _decode(png: Any) -> Any:
    import tensorflow as tf

    return tf.ensure_shape(tf.io.decode_png(png, channels=3), (SIDE, SIDE, 3))


def _check_records(content: bytes, length: int, path: Path) -> None:
    """Raise a `ValueError` unless a file has that many records: TensorFlow ends the process at a size of 2**60."""
    position = found = 0
    while position + 12 <= len(content):
        size = int.from_bytes(content[position : position + 8], "little")
        if size > RECORD_LIMIT:
            raise ValueError(f"{path}: refused, a record has {size} bytes (at most {RECORD_LIMIT} are read)")
        position += size + 16  # the size, its checksum and that of the record
        found += 1
    if position != len(content):
        raise ValueError(f"{path}: damaged, it is cut short")
    if found != length:
        raise ValueError(f"{path}: damaged, expected {length} records. Received: {found}")


def _check_png(png: bytes, path: Path) -> None:
    """Raise a `ValueError` unless the header tells of an image of CIFAR, before it is decoded at another size."""
    if not png.startswith(PNG_START):
        raise ValueError(f"{path}: expected PNG images of {SIDE}x{SIDE} pixels, 8-bit RGB")
    position = len(PNG_SIGNATURE)
    while position + 8 <= len(png):
        size, kind = struct.unpack_from(">I4s", png, position)
        if kind in (b"zTXt", b"iTXt", b"iCCP"):  # these unpack to a thousand times their size
            raise ValueError(f"{path}: refused, an image has texts or a colour profile")
        position += size + 12


def prepare_tfds(spec: CifarSpec) -> Path:
    """Let TFDS download and prepare the data set in its own cache; return the version's folder."""
    import tensorflow_datasets as tfds

    builder = tfds.builder(spec.name, data_dir=tfds_cache())
    builder.download_and_prepare()
    return Path(builder.data_dir)
