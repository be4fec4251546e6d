"""A data set that TensorFlow Datasets (TFDS) has prepared on this machine; nothing is downloaded."""

import itertools
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tf_mmloss.data.source import SPLIT_NAMES, DataError, ImageError, Source, named, shown
from tf_mmloss.data.sources._files import Stamp
from tf_mmloss.datasets.cifar_tfds import MARKER, check_classes, tfds_cache
from tf_mmloss.files import read_json

_FEATURES_LIMIT = 2**24
_OWN_CLASS = re.compile(r"tensorflow_datasets\.core\.features(\.\w+)+")

PREFIX = "tfds"
FORM = "tfds:NAME"
HELP = "what TensorFlow Datasets has prepared in --data-dir"


def open_prefix(rest: str, data_dir: str | os.PathLike[str] | None = None) -> Source:
    """Return a prepared data set of one image and one label an example.

    Args:
        rest: `NAME`, `NAME/CONFIG` or either with `:VERSION`; the newest version by default.
        data_dir: The TFDS data folder; default: `$TFDS_DATA_DIR` or `~/tensorflow_datasets`.

    Raises:
        DataError: It is not there, or has no image or no label.
        ImportError: TFDS is not installed.
    """
    place = Path(data_dir).expanduser() if data_dir is not None else tfds_cache()
    folder = _find(rest, place)
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ImportError(f"tfds:{rest} needs `pip install tf-mmloss[training]`: {error}") from error
    _check_features(folder)
    try:
        builder = tfds.builder_from_directory(folder)
        features = dict(builder.info.features.items())
    except Exception as error:  # TFDS fails in its own ways on a damaged folder
        raise DataError(f"{shown(str(folder))} is no data set that TFDS can read: {error}") from error
    image = _only(rest, features, tfds.features.Image, "image")
    label = _only(rest, features, tfds.features.ClassLabel, "label")
    counts = {split: info.num_examples for split, info in builder.info.splits.items()}
    splits = {split: SPLIT_NAMES[split] for split, count in counts.items() if count and split in SPLIT_NAMES}
    if "train" not in splits:
        raise DataError(f"tfds:{rest} has no split train. It has {named(builder.info.splits)}.")

    def examples(split: str, only: str) -> Iterator[Any]:
        undecoded = {image: tfds.decode.SkipDecoding()} if only == image else None
        decoders = tfds.decode.PartialDecoding({only: features[only]}, undecoded)
        return (example[only] for example in tfds.as_numpy(builder.as_dataset(split=split, decoders=decoders)))

    parts = {split: np.array(list(examples(split, label)), np.int64) for split in splits}
    # TFDS has the label -1 where there is none, as in the test split of a competition.
    unlabelled = [split for split, part in parts.items() if (part == -1).all()]
    if "train" in unlabelled:
        raise DataError(f"tfds:{rest} has no labels in its split train.")
    parts = {split: part for split, part in parts.items() if split not in unlabelled}
    stamp = Stamp()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        stamp.add(str(path.relative_to(folder)), path.stat())
    read = _Reader({split: len(part) for split, part in parts.items()}, lambda split: examples(split, image))
    return Source(
        name=f"tfds:{rest}",
        class_names=tuple(features[label].names),
        labels=np.concatenate(list(parts.values())),
        names=[f"{split}[{i}]" for split, part in parts.items() for i in range(len(part))],
        read=read,
        split=np.repeat([splits[s] for s in parts], [len(p) for p in parts.values()]) if len(parts) > 1 else None,
        sequential=True,
        stamp=str(stamp),
        licence=builder.info.redistribution_info.license or "not stated",
        notes=tuple(f"left out: the split {split}, which has no labels" for split in unlabelled),
    )


def _check_features(folder: Path) -> None:
    """Raise a `DataError` if TFDS would import a module that is not its own: the folder names the classes."""
    path = folder / "features.json"
    try:
        content = read_json(path, limit=_FEATURES_LIMIT, within=folder)
        check_classes(content, path, lambda name: isinstance(name, str) and bool(_OWN_CLASS.fullmatch(name)))
    except (OSError, ValueError) as error:
        raise DataError(f"{shown(str(folder))} is no data set that TFDS can read: {error}") from error


class _Reader:
    """Reads on from where the last call ended, from the start again where that lies behind."""

    def __init__(self, lengths: dict[str, int], open_split: Any) -> None:
        self._splits = list(lengths)
        self._open_split = open_split
        self._restart()

    def _restart(self) -> None:
        self._examples = itertools.chain.from_iterable(self._open_split(split) for split in self._splits)
        self._position = 0

    def __call__(self, indices: np.ndarray) -> list[bytes | np.ndarray | ImageError]:
        read = []
        for index in indices.tolist():
            if index < self._position:
                self._restart()
            example = next(itertools.islice(self._examples, index - self._position, None), None)
            self._position = index + 1
            read.append(ImageError("it is missing") if example is None else example)
        return read


def _find(rest: str, place: Path) -> Path:
    name, _, version = rest.partition(":")
    if not re.fullmatch(r"\w+(/[\w.-]+)?", name) or ".." in name or not re.fullmatch(r"[\w.*-]*", version):
        raise DataError(f"`dataset` must be tfds:NAME, tfds:NAME/CONFIG or either with :VERSION. Received: tfds:{rest}")
    pattern = f"{version or '*'}/{MARKER}"
    found = sorted((place / name).glob(pattern)) or sorted((place / name).glob(f"*/{pattern}"))
    folders = [marker.parent for marker in found if re.fullmatch(r"\d+\.\d+\.\d+", marker.parent.name)]
    configs = sorted({folder.parent.name for folder in folders})
    if len(configs) > 1:
        raise DataError(f"tfds:{rest} has several configs: say which of {', '.join(f'{name}/{c}' for c in configs)}.")
    if not folders:
        there = sorted(path.parent.parent.name for path in place.glob(f"*/*/{MARKER}"))
        has = f"It has {named(there)}." if there else "It has no prepared data set."
        raise DataError(
            f"tfds:{rest} is not prepared in {shown(str(place))} (`data_dir`); nothing is downloaded. {has}"
        )
    return max(folders, key=lambda folder: [int(part) for part in folder.name.split(".")])


def _only(rest: str, features: dict[str, Any], kind: type, word: str) -> str:
    found = [name for name, feature in features.items() if isinstance(feature, kind)]
    if len(found) != 1:
        has = f"several: {named(found)}" if found else f"none. Its features are {named(features)}"
        raise DataError(f"tfds:{rest} must have one {word} an example. It has {has}.")
    return found[0]
