"""Reading files that nobody vouches for: a tar without extracting it, a pickle without running it.

A plain `pickle.load` runs whatever the file says, and even `numpy.dtype` is not safe to hand to a pickle:
its state can claim that raw bytes are Python objects. So no NumPy object is built while unpickling; small
stand-ins note shape, type and bytes, and the array is made from those afterwards.
"""

import gzip
import io
import math
import pickle
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

# The public CIFAR archives hold 9 members of at most 155 MB, 186 MB in total.
MEMBER_LIMIT = 256 * 2**20
ARCHIVE_LIMIT = 512 * 2**20
MEMBER_COUNT_LIMIT = 100


def read_members(source: Path, folder: str, files: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Yield `(where, content)` of each of `files`.

    Args:
        source: A `.tar.gz` archive that holds `folder`, or that folder extracted.
        folder: The folder's name inside the archive.
        files: File names in the folder.

    Raises:
        FileNotFoundError: `source` is a folder and lacks a file.
        ValueError: The archive is damaged, foreign or not to be trusted, or a file is too large.
    """
    if source.is_dir():
        for file in files:
            path = source / file
            _check_size(path.stat().st_size, str(path))
            yield str(path), path.read_bytes()
        return
    members = _read_archive(source, [f"{folder}/{file}" for file in files])
    for file in files:
        yield f"{source}: {folder}/{file}", members.pop(f"{folder}/{file}")


def _read_archive(path: Path, names: Sequence[str]) -> dict[str, bytes]:
    try:
        with gzip.open(path) as file:
            content = file.read(ARCHIVE_LIMIT + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path}: damaged, or not a .tar.gz archive: {error}") from error
    if len(content) > ARCHIVE_LIMIT:
        raise ValueError(f"{path}: refused, it unpacks to more than {ARCHIVE_LIMIT} bytes")
    members: dict[str, tarfile.TarInfo] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as tar:
            for member in tar:
                where = f"{path}: {member.name}"
                if member.issparse() or not (member.isreg() or member.isdir()):
                    raise ValueError(f"{where}: refused, neither a plain file nor a folder")
                _check_size(member.size, where)
                if len(members) == MEMBER_COUNT_LIMIT:
                    raise ValueError(f"{path}: refused, more than {MEMBER_COUNT_LIMIT} members")
                members[member.name.removeprefix("./")] = member
    except tarfile.TarError as error:
        raise ValueError(f"{path}: damaged, or not a .tar.gz archive: {error}") from error
    missing = [name for name in names if name not in members or not members[name].isreg()]
    if missing:
        raise ValueError(f"{path}: not the public archive, it lacks {', '.join(missing)}")
    # Slices of what was unpacked: a header that claims more than there is cannot make anything grow.
    found = {n: content[members[n].offset_data : members[n].offset_data + members[n].size] for n in names}
    short = [name for name in names if len(found[name]) != members[name].size]
    if short:
        raise ValueError(f"{path}: damaged, {', '.join(short)} is cut short")
    return found


def _check_size(size: int, where: str) -> None:
    if not 0 <= size <= MEMBER_LIMIT:
        raise ValueError(f"{where}: refused, its size is {size} bytes (at most {MEMBER_LIMIT} are read)")


def unpickle(content: bytes, where: str) -> dict[Any, Any]:
    """Return the dict in a pickled batch: bytes, numbers, lists and uint8 arrays, nothing else.

    Args:
        content: The pickle.
        where: The file's name, for messages.

    Raises:
        ValueError: It is no such pickle, or it asks for anything but a uint8 array.
    """
    try:
        record = _Unpickler(io.BytesIO(content), encoding="bytes").load()
        if not isinstance(record, dict):
            raise pickle.UnpicklingError(f"it holds a {type(record).__name__}, not a dict")
        return {key: v.to_numpy() if isinstance(v, _Array) else v for key, v in record.items()}
    except Exception as error:  # a damaged pickle may fail in any way
        raise ValueError(f"{where}: not a batch of the public python version: {error}") from error


class _Dtype:
    """Stands for `numpy.dtype`: only uint8 is one. Its byte order and flags are of no consequence."""

    def __init__(self, code: object, *_: object) -> None:
        if code not in (b"u1", "u1"):
            raise pickle.UnpicklingError(f"its array is of the type {code!r}, only uint8 ('u1') is read")

    def __setstate__(self, state: object) -> None:
        pass


class _Array:
    """Stands for `numpy.ndarray`: what its state says, checked when the array is made."""

    def __init__(self, *_: object) -> None:
        self.state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state

    def to_numpy(self) -> np.ndarray:
        _, shape, dtype, fortran_order, content = self.state
        plain = isinstance(dtype, _Dtype) and type(content) is bytes and type(shape) is tuple
        if not plain or not all(type(n) is int and n >= 0 for n in shape) or math.prod(shape) != len(content):
            raise pickle.UnpicklingError("the shape, type and bytes of its array disagree")
        return np.frombuffer(content, np.uint8).reshape(shape, order="F" if fortran_order else "C")


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in for a global of a public batch; refuse every other global."""
        # Nothing returned here can be altered by the pickle for the next one: the classes have a
        # `__setstate__`, text cannot be set, and the function is a new one each time.
        if (module, name) in (
            ("numpy.core.multiarray", "_reconstruct"),  # NumPy 1
            ("numpy._core.multiarray", "_reconstruct"),  # NumPy 2
        ):
            return _Array
        if (module, name) == ("numpy", "dtype"):
            return _Dtype
        if (module, name) == ("numpy", "ndarray"):
            return "ndarray"  # only ever an argument of `_reconstruct`
        if (module, name) == ("_codecs", "encode"):  # how Python 3 writes bytes in protocol 2

            def encode(text: str, encoding: str) -> bytes:
                if encoding not in ("latin1", b"latin1"):
                    raise pickle.UnpicklingError(f"it asks for the encoding {encoding!r}")
                return str.encode(text, "latin1")

            return encode
        raise pickle.UnpicklingError(f"refused, it asks for the global {module}.{name}")
