"""Images decoded once, kept as pixels on the disk, and mapped into memory: they may be larger than it.

An entry is a folder with `images.npy`, uint8 (N, height, width, channels), `digests.npy`, uint8 (N, 2, 16): of what was
read and of the pixels, `moments.npy`: see `Cached`, in bytes, and `entry.json`: what is wrong with which image. It is
named by the content of the images and by how they were fitted, so that a copy of the data finds it and changed data do
not. It appears whole or not at all; an interrupted reading continues where it was, for a week at least.
"""

import contextlib
import dataclasses
import hashlib
import io
import json
import math
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any

import numpy as np

from tf_mmloss.data import decoders
from tf_mmloss.data.source import DIGEST_SIZE, DataError, Dirt, ImageError, Source
from tf_mmloss.data.sources._files import Files
from tf_mmloss.files import atomic_path, file_lock, write_json

# To be raised when `images.decode` gives other pixels.
VERSION = 1
_CHUNK, _CHUNK_BYTES = 128, 2**23
_SAVE_EVERY = 5.0
_WEEK = 7 * 24 * 3600.0
_DIGEST = (2, DIGEST_SIZE)

_Shape = tuple[int, int, int, int]
Progress = Callable[[int, int, float], None]


@dataclass(frozen=True, eq=False)
class Cached:
    """Images in the cache.

    Args:
        folder: The entry.
        images: uint8 (N, height, width, channels), mapped from the disk; rows of what cannot be read are 0.
        content: uint8 (N, 16), digests of what was read.
        pixels: uint8 (N, 16), digests of the pixels.
        moments: int64 (N, 2, channels), sums of the pixels of an image and of their squares; None in an older entry.
        dirt: What is wrong, by position.
        seconds: What reading took; 0 where the entry was there.
    """

    folder: Path
    images: np.ndarray
    content: np.ndarray
    pixels: np.ndarray
    moments: np.ndarray | None
    dirt: dict[int, Dirt]
    seconds: float


def default_cache_dir() -> Path:
    """`$TF_MMLOSS_CACHE`, else `tf_mmloss` in `$XDG_CACHE_HOME` or `~/.cache`."""
    given = os.environ.get("TF_MMLOSS_CACHE")
    if given:
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "tf_mmloss"


def read_images(
    source: Source,
    height: int,
    width: int,
    channels: int,
    fit: str = "crop",
    cache_dir: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Cached:
    """Return all images of a source at one size, from the cache where they are in it.

    Args:
        source: The images.
        height: In pixels.
        width: In pixels.
        channels: 1 or 3.
        fit: "crop" or "pad"; see `images.decode`.
        cache_dir: Default: `default_cache_dir()`.
        workers: Threads, or processes where files are many, that decode; default: one for each processor.
        progress: Called with how many are done, how many there are, and the seconds taken.

    Raises:
        DataError: The cache cannot be written, or the disk is full.
    """
    cache = Path(cache_dir).expanduser() if cache_dir is not None else default_cache_dir()
    kind = f"{len(source)}-{height}x{width}x{channels}-{fit}-v{VERSION}"
    shape = (len(source), height, width, channels)
    stamp = hashlib.blake2b(f"{kind} {source.stamp}".encode(), digest_size=16).hexdigest() if source.stamp else ""
    started = time.monotonic()
    memo = cache / "stamps" / stamp
    found = _remembered(memo, shape, source) if stamp else None
    if found is None and any(cache.glob(f"{kind}-*")):
        # Cheaper than decoding: the same images may be there under other names or times.
        found = _open(cache / _entry_name(kind, source.digests()), shape, source)
    if found is not None:
        if stamp and not memo.is_file():
            _remember(memo, found.folder.name)
        return found
    try:
        folder = _build(source, shape, fit, cache, kind, stamp, workers, progress)
    except OSError as error:
        raise DataError(
            f"the cache of images {cache} (`cache_dir`, or what TF_MMLOSS_CACHE names) cannot be written: {error}"
        ) from error
    built = _open(folder, shape, source)
    if built is None:
        raise DataError(f"the cache of images {folder} was changed while it was written.")
    return dataclasses.replace(built, seconds=time.monotonic() - started)


def _entry_name(kind: str, content: np.ndarray) -> str:
    return f"{kind}-{hashlib.blake2b(content.tobytes(), digest_size=16).hexdigest()}"


def _remembered(memo: Path, shape: _Shape, source: Source) -> Cached | None:
    """The entry that is noted for a stamp."""
    return _open(memo.parent.parent / memo.read_text(), shape, source) if memo.is_file() else None


def _remember(memo: Path, entry: str) -> None:
    with contextlib.suppress(OSError):  # a cache that is only read
        memo.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(memo) as temporary:
            temporary.write_text(entry)


def _open(folder: Path, shape: _Shape, source: Source) -> Cached | None:
    """The entry in a folder; None if there is none, or it is damaged."""
    try:
        dirt = json.loads((folder / "entry.json").read_text())["dirt"]
        images = np.load(folder / "images.npy", mmap_mode="r")
        kept = np.load(folder / "digests.npy")
        if images.shape != shape or images.dtype != np.uint8 or kept.shape != (shape[0], *_DIGEST):
            return None
        named = {int(i): Dirt(source.names[int(i)], reason, readable) for i, reason, readable in dirt}
    except (OSError, EOFError, ValueError, KeyError, TypeError, IndexError):  # NumPy's of an empty file is an EOFError
        return None
    return Cached(folder, images, kept[:, 0], kept[:, 1], _moments(folder, shape), named, 0.0)


def _moments(folder: Path, shape: _Shape) -> np.ndarray | None:
    """Those of an entry."""
    try:
        found = np.load(folder / "moments.npy")
    except (OSError, EOFError, ValueError):
        return None
    whole = found.dtype == np.uint8 and found.shape == _rows_of(shape)["moments.npy"]
    return found.view(decoders.MOMENT)[..., 0] if whole else None


def _rows_of(shape: _Shape) -> dict[str, tuple[int, ...]]:
    """The arrays of an entry, uint8, and their shapes."""
    moments = (shape[0], 2, shape[-1], np.dtype(decoders.MOMENT).itemsize)
    return {"images.npy": shape, "digests.npy": (shape[0], *_DIGEST), "moments.npy": moments}


def _build(
    source: Source,
    shape: _Shape,
    fit: str,
    cache: Path,
    kind: str,
    stamp: str,
    workers: int | None,
    progress: Progress | None,
) -> Path:
    building = cache / f"building-{stamp or f'{kind}-{os.getpid()}'}"
    cache.mkdir(parents=True, exist_ok=True)
    with _alone(building):
        _remove_old(cache)
        memo = cache / "stamps" / stamp
        meanwhile = _remembered(memo, shape, source) if stamp else None
        if meanwhile is not None:  # by another process
            return meanwhile.folder
        building.mkdir(exist_ok=True)
        try:
            _check_space(cache, building, math.prod(shape))
            _read_all(source, shape, fit, building, workers, progress)
            entry = cache / _entry_name(kind, np.load(building / "digests.npy")[:, 0])
            if entry.exists():
                shutil.rmtree(entry)  # the same content, or damaged
            os.replace(building, entry)
        except BaseException:
            if not stamp:  # no reading would continue it
                shutil.rmtree(building, ignore_errors=True)
            raise
        (entry / "progress.json").unlink(missing_ok=True)
        if stamp:
            _remember(memo, entry.name)
    return entry


@contextlib.contextmanager
def _alone(building: Path, patience: float = math.inf) -> Iterator[bool]:
    """Keep other processes out of what one builds; give whether that is so, or another builds it."""
    path = building.with_suffix(".lock")
    with file_lock(path, patience) as held:
        try:
            yield held
        finally:
            if held:
                with contextlib.suppress(OSError):  # Windows, where it is open
                    path.unlink()


def _remove_old(cache: Path) -> None:
    """Remove what readings left that were interrupted a week ago."""
    for building in cache.glob("building-*"):
        if building.suffix != ".lock" and _is_old(building):
            with contextlib.suppress(OSError, ValueError), _alone(building, patience=0) as held:  # of another user
                if held and _is_old(building):
                    shutil.rmtree(building, ignore_errors=True)


def _is_old(building: Path) -> bool:
    try:  # the time when the progress was written last
        return time.time() - building.stat().st_mtime > _WEEK
    except OSError:
        return False


def _check_space(cache: Path, building: Path, needed: int) -> None:
    there = (building / "images.npy").stat().st_size if (building / "images.npy").exists() else 0
    free = shutil.disk_usage(cache).free
    if needed - there > free:
        raise DataError(
            f"the cache of images {cache} (`cache_dir`) needs {needed / 1e6:,.1f} MB and the disk has "
            f"{free / 1e6:,.1f} MB: choose a smaller `image_size`, or a folder of another disk by TF_MMLOSS_CACHE."
        )


def _read_all(
    source: Source, shape: _Shape, fit: str, building: Path, workers: int | None, progress: Progress | None
) -> None:
    """Write images and digests in order; what is done survives an interruption."""
    row = math.prod(shape[1:])
    done, dirt = _continue(building, shape) if source.stamp else (0, [])
    started = saved = time.monotonic()
    first = done
    with contextlib.ExitStack() as stack:
        files = [
            stack.enter_context(_array_file(building / name, rows, done)) for name, rows in _rows_of(shape).items()
        ]

        def save() -> None:
            for file in files:
                file.flush()
                os.fsync(file.fileno())
            write_json(building / "progress.json", {"done": done, "dirt": dirt})

        try:
            for chunk, arrays, found in _decoded(source, done, shape, fit, workers):
                for file, array in zip(files, arrays, strict=True):
                    file.write(array.data)
                dirt.extend(found)
                done = int(chunk[-1]) + 1
                now = time.monotonic()
                if now - saved > _SAVE_EVERY:
                    save()
                    saved = now
                if progress is not None:
                    progress(done - first, shape[0] - first, now - started)
        finally:
            save()
    if (building / "images.npy").stat().st_size - done * row != _header_size(shape):
        raise OSError(f"{building} was changed while it was written")
    write_json(building / "entry.json", {"version": VERSION, "dirt": dirt})


def _continue(building: Path, shape: _Shape) -> tuple[int, list[list[Any]]]:
    try:
        progress = json.loads((building / "progress.json").read_text())
        done, dirt = int(progress["done"]), list(progress["dirt"])
        enough = all(
            (building / file).stat().st_size >= _header_size(whole) + done * math.prod(whole[1:])
            for file, whole in _rows_of(shape).items()
        )
    except (OSError, ValueError, KeyError, TypeError):
        return 0, []
    return (done, dirt) if enough and 0 <= done <= shape[0] else (0, [])


def _header(shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def _header_size(shape: tuple[int, ...]) -> int:
    return len(_header(shape))


@contextlib.contextmanager
def _array_file(path: Path, shape: tuple[int, ...], done: int) -> Iterator[IO[bytes]]:
    """An `.npy` of uint8, open to append rows after the first `done`."""
    with open(path, "r+b" if done else "wb") as file:
        if not done:
            file.write(_header(shape))
        file.truncate(_header_size(shape) + done * math.prod(shape[1:]))
        file.seek(0, os.SEEK_END)
        yield file


_Chunk = tuple[np.ndarray, tuple[np.ndarray, ...], list[list[Any]]]


def _decoded(source: Source, start: int, shape: _Shape, fit: str, workers: int | None) -> Iterator[_Chunk]:
    """Chunks in order: positions, the arrays of an entry and dirt."""
    workers = workers or decoders.processors()
    of_array = math.prod(source.shape or ())
    size = min(max(_CHUNK_BYTES // max(math.prod(shape[1:]), of_array), 1), _CHUNK)
    how = shape[1:], fit
    files = source.read if isinstance(source.read, Files) and len(source) - start >= decoders.MANY else None
    idle: SimpleQueue[decoders.Process | None] = SimpleQueue()  # None: this process

    def work(chunk: np.ndarray, read: list[bytes | np.ndarray | ImageError] | None) -> _Chunk:
        suffixes = source.suffixes(chunk)
        process = idle.get()
        try:
            if process is not None and files is not None:
                arrays, dirt = process.keep(files.paths(chunk), suffixes, *how)
            else:
                one_by_one = (source.read(chunk[row : row + 1])[0] for row in range(len(chunk)))
                arrays, dirt = decoders.keep(one_by_one if read is None else read, suffixes, *how)
        finally:
            idle.put(process)
        return chunk, arrays, [[int(chunk[row]), *what] for row, *what in dirt]

    with contextlib.ExitStack() as stack:
        for number in range(workers):
            idle.put(stack.enter_context(decoders.Process()) if number and files is not None else None)
        pool = stack.enter_context(ThreadPoolExecutor(workers))
        waiting: deque[Future[_Chunk]] = deque()
        try:
            for chunk in source.chunks(start, size):
                waiting.append(pool.submit(work, chunk, source.read(chunk) if source.sequential else None))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
