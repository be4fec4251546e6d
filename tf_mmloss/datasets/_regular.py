"""Opening files that nobody vouches for: a FIFO or a device must not hang, a file without end not fill the memory."""

import os
import stat
from pathlib import Path
from typing import BinaryIO


def open_regular(path: str | os.PathLike[str], limit: int | None = None) -> BinaryIO:
    """Open a regular file for reading in binary.

    Args:
        path: The file, or a link to it.
        limit: The most bytes that it may have; None for any number.

    Raises:
        FileNotFoundError: There is no such file.
        OSError: The system does not let it be read.
        ValueError: It is a folder, FIFO, socket or device, or larger than `limit`.
    """
    _check(os.stat(path), path, limit)  # before it is opened: to open a device may already do something
    # Should a FIFO take its place in between, opening it does not wait for a writer.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
    try:
        _check(os.fstat(descriptor), path, limit)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: str | os.PathLike[str], limit: int) -> bytes:
    """Return the content of a regular file of at most `limit` bytes; raises as `open_regular` does."""
    with open_regular(path, limit) as file:
        content = file.read(limit + 1)  # it may have grown, and files of /proc have the size 0
    _check_size(len(content), path, limit)
    return content


def check_inside(path: Path, folder: Path) -> None:
    """Raise a `ValueError` if `path` leads out of `folder` by a link; `folder` itself may be one."""
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
        raise ValueError(f"{path}: refused, a link that leads out of its folder; put a copy of the file there")


def _check(status: os.stat_result, path: str | os.PathLike[str], limit: int | None) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{os.fspath(path)}: refused, not a regular file")
    _check_size(status.st_size, path, limit)


def _check_size(size: int, path: str | os.PathLike[str], limit: int | None) -> None:
    if limit is not None and size > limit:
        raise ValueError(f"{os.fspath(path)}: refused, its size is {size} bytes (at most {limit} are read)")
