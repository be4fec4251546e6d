"""What is kept of pictures, decoded here, or in processes beside this one where there are many files.

Pillow and simplejpeg decode without Python's lock, but what lies between has it: with small files two threads are
hardly faster than one.
"""

import contextlib
import hashlib
import math
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tf_mmloss.data.images import decode, fit_array
from tf_mmloss.data.source import DIGEST_SIZE, ImageError, digests
from tf_mmloss.data.sources._files import read_file

# A process begins with half a second of imports.
MANY = 2000
MOMENT = "<i8"
_SUMMED_BYTES = 2**16  # in float32 less than what a process gives back to the system
# As `multiprocessing` starts one, but without the user's script, which would need a guard.
_PROGRAM = "import sys; sys.path[:] = sys.argv[1:]; from tf_mmloss.data.decoders import serve; serve()"

# The arrays of an entry of the cache, and dirt: [row, reason, readable].
Kept = tuple[tuple[np.ndarray, np.ndarray, np.ndarray], list[list[Any]]]


def processors() -> int:
    """The number of processors that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS, nor on Windows
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def keep(
    pictures: Iterable[bytes | np.ndarray | ImageError], suffixes: Sequence[str], size: tuple[int, int, int], fit: str
) -> Kept:
    """Decode pictures.

    Args:
        pictures: n, see `Source.read`; those of an iterator are read one by one.
        suffixes: n extensions, lower case with their dot.
        size: Height, width and channels.
        fit: "crop" or "pad"; see `images.decode`.

    Returns:
        The pixels, uint8 (n, height, width, channels), 0 of what cannot be read; digests of what was read and of the
        pixels, uint8 (n, 2, 16); `sums` of the pixels; and what is wrong, by row.
    """
    height, width, channels = size
    pixels = np.zeros((len(suffixes), *size), np.uint8)
    content = np.zeros((len(suffixes), DIGEST_SIZE), np.uint8)
    dirt: list[list[Any]] = []
    for row, (picture, suffix) in enumerate(zip(pictures, suffixes, strict=True)):
        content[row] = digests([picture], [suffix])
        try:
            if isinstance(picture, ImageError):
                raise picture
            if isinstance(picture, np.ndarray):
                pixels[row] = fit_array(picture, height, width, channels, fit)
                continue
            pixels[row], odd = decode(picture, height, width, channels, fit, suffix)
            if odd:
                dirt.append([row, odd, True])
        except ImageError as error:
            dirt.append([row, str(error), False])
    seen = b"".join(hashlib.sha256(one.data).digest()[:DIGEST_SIZE] for one in pixels)
    seen_rows = np.frombuffer(seen, np.uint8).reshape(-1, DIGEST_SIZE)
    moments = np.ascontiguousarray(sums(pixels), MOMENT)
    return (pixels, np.stack([content, seen_rows], axis=1), moments), dirt


def sums(pixels: np.ndarray) -> np.ndarray:
    """Sums of the pixels of images, and of their squares, by channel: int64 (n, 2, channels)."""
    count, height, width, channels = pixels.shape
    found = np.zeros((count, 2, width * channels))
    step = max(_SUMMED_BYTES // math.prod(pixels.shape[1:]), 1)
    for first in range(0, count, step):
        for top in range(0, height, 256):  # the squares of so many are exact in float32
            part = pixels[first : first + step, top : top + 256]
            rows = part.reshape(len(part), -1, width * channels).astype(np.float32)
            ones = np.ones((1, rows.shape[1]), np.float32)
            found[first : first + step, 0] += (ones @ rows)[:, 0]
            rows *= rows
            found[first : first + step, 1] += (ones @ rows)[:, 0]
    return found.reshape(count, 2, width, channels).sum(axis=2).astype(np.int64)


class Process:
    """A process that decodes files. Where it cannot be had, or dies, they are decoded here."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        if sys.executable and not getattr(sys, "frozen", False):
            command = [sys.executable, "-c", _PROGRAM, *sys.path]
            pipe = subprocess.PIPE
            with contextlib.suppress(OSError):
                self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL)

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def keep(self, paths: list[str], *how: Any) -> Kept:
        """`keep` of files by their paths."""
        if self._process is not None:
            try:
                assert self._process.stdin is not None
                assert self._process.stdout is not None
                pickle.dump((paths, *how), self._process.stdin)
                self._process.stdin.flush()
                return pickle.load(self._process.stdout)
            except (OSError, EOFError, pickle.UnpicklingError):
                self.__exit__()
        return keep(map(read_file, paths), *how)


def serve() -> None:
    """What a `Process` runs, until its input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    while True:
        try:
            paths, *how = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        pickle.dump(keep(map(read_file, paths), *how), answers, 5)
        answers.flush()
