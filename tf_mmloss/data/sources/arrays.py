"""Arrays in an `.npz`: `x_train, y_train[, x_test, y_test][, x_val, y_val]`, or `x, y`. Nothing in it is run.

The images are read as they are needed, so that they may be larger than memory.
"""

import math
import os
import threading
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from tf_mmloss.data.source import DataError, Source, named, shown
from tf_mmloss.data.sources._arrays import from_arrays, texts
from tf_mmloss.data.sources._files import Stamp

FORM = "FILE.npz"
HELP = "arrays x_train, y_train (and x_test, y_test) or x, y"

LABELS_LIMIT = 2**30
# No photograph compresses so far; a bomb of zeros reaches 1,000.
RATIO_LIMIT, RATIO_FREE = 200, 2**28
_IMAGES, _LABELS = ("x", "images"), ("y", "labels")


def matches(path: Path) -> bool:
    """Whether this reads what lies at a path."""
    return path.is_file() and path.suffix.lower() == ".npz"


def open_path(path: Path) -> Source:
    """Return the arrays in a file; `train_images`, `train_labels` and so on are taken too.

    Raises:
        DataError: Arrays missing, pickled objects, sizes that are not what the headers say, or a bomb.
    """
    where = shown(str(path))
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise DataError(f"{where} is damaged, or no .npz: {error}") from error
    parts: dict[str, tuple[Any, np.ndarray]] = {}
    for key in ("train", "test", "val", ""):
        x, y = _find(members, _IMAGES, key), _find(members, _LABELS, key)
        if (x is None) != (y is None):
            raise DataError(f"{where} has {x or y!r} but not its {'labels' if y is None else 'images'}.")
        if x is not None and y is not None and (key or not parts):
            parts[key] = _Member(path, members[x]), _Member(path, members[y]).whole(LABELS_LIMIT)
    if not set(parts) & {"train", ""}:
        raise DataError(
            f"{where} must hold x_train and y_train, or x and y. Received: {named(members) if members else 'nothing'}"
        )
    stamp = Stamp()
    stamp.add(path.name, os.stat(path))
    names = members.get("class_names")
    class_names = None if names is None else texts("class_names", _Member(path, names).whole(LABELS_LIMIT))
    return from_arrays(path.name, parts, class_names=class_names, stamp=str(stamp), sequential=True)


def _find(members: dict[str, zipfile.ZipInfo], kinds: tuple[str, ...], key: str) -> str | None:
    names = [f"{kind}_{key}" if key else kind for kind in kinds] + [f"{key}_{kind}" for kind in kinds if key]
    return next((member for member in members if member.lower() in names), None)


class _Member:
    """An array in the file, of which ascending rows are read as in one pass."""

    def __init__(self, path: Path, info: zipfile.ZipInfo) -> None:
        self._path, self._info = path, info
        self._where = f"{shown(str(path))}: {shown(info.filename)}"
        self._file: Any = None
        self._archive: Any = None
        self._row = 0
        self._lock = threading.Lock()
        if info.file_size > max(RATIO_FREE, RATIO_LIMIT * info.compress_size):
            raise DataError(
                f"{self._where}: refused, it unpacks to {info.file_size:,} bytes from {info.compress_size:,}"
            )
        try:
            self._open()
        except DataError:
            self._close()
            raise
        self._row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize

    def _open(self) -> None:
        self._close()
        try:
            self._archive = zipfile.ZipFile(self._path)
            self._file = self._archive.open(self._info)
            version = np.lib.format.read_magic(self._file)
            read_header = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            self.shape, fortran, self.dtype = read_header(self._file)
            there = self._info.file_size - self._file.tell()
        except Exception as error:  # a damaged header may fail in any way
            raise DataError(f"{self._where} is damaged, or no array: {error}") from error
        if self.dtype.hasobject:
            raise DataError(f"{self._where}: refused, it holds pickled objects; save numbers, or names as text.")
        if not self.shape or any(side < 0 for side in self.shape):
            raise DataError(f"{self._where} is a single value, not an array.")
        expected = math.prod(self.shape) * self.dtype.itemsize
        if expected != there:
            raise DataError(f"{self._where}: its header says {expected:,} bytes and {there:,} are there")
        if fortran and len(self.shape) > 1:
            raise DataError(f"{self._where} is stored by columns: save `np.ascontiguousarray` of it.")
        self._row = 0

    def _close(self) -> None:
        for file in (self._file, self._archive):
            if file is not None:
                file.close()
        self._file = self._archive = None

    def whole(self, limit: int) -> np.ndarray:
        """The array in memory."""
        if self._info.file_size > limit:
            raise DataError(f"{self._where}: refused, its {self._info.file_size:,} bytes are more than {limit:,}")
        whole = self[np.arange(self.shape[0])]
        self._close()
        return whole

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        with self._lock:
            runs = np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1)
            return np.concatenate([self._run(int(run[0]), len(run)) for run in runs if run.size] or [self._empty()])

    def _empty(self) -> np.ndarray:
        return np.empty((0, *self.shape[1:]), self.dtype)

    def _run(self, first: int, count: int) -> np.ndarray:
        if self._file is None or first < self._row:
            self._open()
        try:
            skip = (first - self._row) * self._row_bytes
            while skip:
                skip -= len(self._read(min(skip, 2**20)))
            content = self._read(count * self._row_bytes)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError) as error:
            raise DataError(f"{self._where} is damaged: {error}") from error
        self._row = first + count
        if self._row == self.shape[0]:
            self._close()
        return np.frombuffer(content, self.dtype).reshape(count, *self.shape[1:])

    def _read(self, size: int) -> bytes:
        content = self._file.read(size)
        if len(content) != size:
            raise EOFError("it is cut short")
        return content
