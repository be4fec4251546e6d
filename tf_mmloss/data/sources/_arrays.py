"""Sources of pictures that are arrays already: in memory, or read as they are needed."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from tf_mmloss.data.images import PIXEL_LIMIT
from tf_mmloss.data.source import DataError, ImageError, Source, check_once, encode, shown

_CHANNELS = (1, 3, 4)


class Pictures(Protocol):
    """An array of pictures, of which some rows can be read."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, height, width) or (N, height, width, channels)."""

    @property
    def dtype(self) -> np.dtype:
        """Of the values."""

    def __getitem__(self, rows: Any) -> np.ndarray: ...


def from_arrays(
    name: str,
    parts: Mapping[str, tuple[Pictures, Any]],
    *,
    class_names: Sequence[str] | None = None,
    licence: str = "not stated",
    stamp: str = "",
    sequential: bool = False,
) -> Source:
    """Return a source of arrays.

    Args:
        name: What to call the data; its images are `name[split][index]`.
        parts: Pictures and labels by "train", "test" and "val", or by "" where the data are not split. Pictures are
            (N, height, width) or (N, height, width, channels) with 1, 3 or 4 channels, or (N, 3, height, width), of
            bool, uint8, uint16, or of numbers in 0 .. 1 or 0 .. 255. Labels are (N,), (N, 1) or one-hot (N, C).
        class_names: The name of each whole-numbered label; default: the labels themselves.
        licence: What the origin says about use.
        stamp: See `Source`.
        sequential: See `Source`.

    Raises:
        DataError: Arrays that do not fit together.
    """
    shapes = {key: _picture_shape(key, x) for key, (x, _) in parts.items()}
    if len(set(shapes.values())) > 1:
        raise DataError(f"{name}: all images must have one shape. Received: {shapes}")
    labels = []
    for key, (x, y) in parts.items():
        labels.append(_label_names(_name("y", key), y))
        if len(labels[-1]) != x.shape[0]:
            raise DataError(
                f"{name}: {_name('x', key)} has {x.shape[0]:,} images but {_name('y', key)} {len(labels[-1]):,} labels."
            )
    every = [label for part in labels for label in part]
    if class_names is not None:
        numbers = all(np.asarray(y).dtype.kind in "buif" for _, y in parts.values())
        every = _given_names(name, every, class_names, numbers)
    found, codes = encode(every, class_names)
    scale = {key: _scale(_name("x", key), x) for key, (x, _) in parts.items()}
    starts = np.cumsum([0, *(len(part) for part in labels)])

    def read(indices: np.ndarray) -> list[bytes | np.ndarray | ImageError]:
        pictures: list[bytes | np.ndarray | ImageError] = [ImageError("it is missing")] * len(indices)
        which = np.searchsorted(starts, indices, side="right") - 1
        for number, (key, (x, _)) in enumerate(parts.items()):
            places = np.flatnonzero(which == number)
            if places.size:
                found = _uint8(_channels_last(x[indices[places] - starts[number]]), scale[key])
                for place, picture in zip(places.tolist(), found, strict=True):
                    pictures[place] = picture
        return pictures

    keys = [f"{_name('x', key)}[{i}]" for key, part in zip(parts, labels, strict=True) for i in range(len(part))]
    return Source(
        name=name,
        class_names=found,
        labels=codes,
        names=keys,
        read=read,
        split=None if set(parts) <= {"", "train"} else np.repeat(list(parts), np.diff(starts)),
        shape=next(iter(shapes.values())),
        sequential=sequential,
        stamp=stamp,
        licence=licence,
    )


def texts(name: str, values: np.ndarray) -> list[str]:
    """The values of an array as text; bytes are UTF-8."""
    try:
        return [str(value) for value in (np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values)]
    except UnicodeDecodeError as error:
        raise DataError(f"{name} must be UTF-8: {error.reason}. Received: {error.object[:40]!r}") from error


def _name(letter: str, key: str) -> str:
    return f"{letter}_{key}" if key else letter


def _picture_shape(key: str, x: Pictures) -> tuple[int, int, int]:
    shape: tuple[int, ...] = x.shape
    name = _name("x", key)
    if x.dtype.kind not in "buif":
        raise DataError(f"{name} must be numbers. Received: {x.dtype}")
    if len(shape) == 4 and shape[3] not in _CHANNELS and shape[1] in _CHANNELS:
        shape = (shape[0], *shape[2:], shape[1])
    if len(shape) == 3:
        shape = (*shape, 1)
    if len(shape) != 4 or shape[3] not in _CHANNELS or 0 in shape:
        raise DataError(
            f"{name} must have the shape (N, height, width) or (N, height, width, channels) with 1, 3 or 4 channels, "
            f"none 0. Received: {x.shape}"
        )
    if shape[1] * shape[2] > PIXEL_LIMIT:
        raise DataError(f"{name}: refused, its {shape[1]:,} x {shape[2]:,} pixels are more than {PIXEL_LIMIT:,}")
    return shape[1], shape[2], shape[3]


def _channels_last(rows: np.ndarray) -> np.ndarray:
    if rows.ndim == 4 and rows.shape[3] not in _CHANNELS:
        return rows.transpose(0, 2, 3, 1)
    return rows


def _label_names(name: str, labels: Any) -> list[str]:
    y = np.asarray(labels)
    if y.ndim == 2 and y.shape[1] > 1 and y.dtype.kind in "buif":
        if not (np.isin(y, (0, 1)).all() and (y.sum(axis=1) == 1).all()):
            raise DataError(f"{name} of shape {y.shape} must be one-hot: a single 1 in each row.")
        y = y.argmax(axis=1)
    y = y.reshape(-1) if y.ndim == 2 and y.shape[1] == 1 else y
    if y.ndim != 1:
        raise DataError(f"{name} must have the shape (N,), (N, 1) or one-hot (N, C). Received: {y.shape}")
    if y.dtype.kind in "US" or (y.dtype.kind == "O" and all(isinstance(label, str) for label in y)):
        names = texts(name, y)
        if any(not label.strip() for label in names):
            raise DataError(f"{name}: a label is missing (empty).")
        return names
    if y.dtype.kind == "f" and not np.isfinite(y).all():
        first = np.argmin(np.isfinite(y))
        raise DataError(f"{name}: a label is missing, the first is {name}[{first}]={y[first]}.")
    if y.dtype.kind not in "buif" or (y < 0).any() or (y != np.floor(y)).any():
        raise DataError(f"{name} must be whole numbers from 0, or names. Received: {y.dtype}, {y[:3].tolist()} ...")
    return [str(label) for label in y.astype(np.int64).tolist()]


def _given_names(name: str, labels: list[str], class_names: Sequence[str], numbers: bool) -> list[str]:
    """The names of labels: of numbers by their position, also where the class names are numbers themselves."""
    check_once(class_names)
    found = set(labels)
    if not numbers and found <= set(class_names):
        return labels
    positions = {str(position): class_name for position, class_name in enumerate(class_names)}
    if unknown := sorted(found - positions.keys(), key=lambda label: (len(label), label)):
        raise DataError(f"{name} has {len(class_names)} class names and the label {shown(unknown[-1])}.")
    return [positions[label] for label in labels]


def _scale(name: str, x: Pictures) -> float | None:
    """What to multiply values by; None for uint8, as they are."""
    if x.dtype == np.uint8:
        return None
    if x.dtype == bool:
        return 255.0
    if x.dtype == np.uint16:
        return 255 / 65535
    low, high = np.inf, -np.inf
    for start in range(0, x.shape[0], 256):
        rows = x[np.arange(start, min(start + 256, x.shape[0]))]
        low, high = np.minimum(low, rows.min()), np.maximum(high, rows.max())
    if not (low >= 0 and high <= 255):  # NaN too
        raise DataError(f"{name} must have values in 0 .. 1 or 0 .. 255. Received: {x.dtype}, {low:g} .. {high:g}")
    return 255.0 if high <= 1 else 1.0


def _uint8(rows: np.ndarray, scale: float | None) -> np.ndarray:
    return rows if scale is None else np.round(rows * scale).astype(np.uint8)
