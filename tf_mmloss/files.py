"""Files that are whole or not there, locks, files of others read with care, and interrupts that wait. No Keras."""

import contextlib
import errno
import json
import math
import os
import re
import secrets
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import Any

if sys.platform != "win32":
    import fcntl

# A JSON file that is larger, or whose values lie deeper, is none of ours.
JSON_BYTES, JSON_DEPTH = 4 * 2**20, 50
# The same of a history of epochs, or of a result, with a value for each of many classes.
LARGE_BYTES = 64 * 2**20
# Flags of `os.open` for what may be a pipe or a device; each is 0 where the system has none: Windows.
WITHOUT_WAITING = sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_CLOEXEC", "O_NOCTTY", "O_BINARY"))
# What a file system says that has no locks.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
# What `atomic_path` leaves when the process is killed: the target's name with a mark before its suffix.
_PARTIAL = re.compile(r"(.+)\.partial-\d+(\.\w+)?")


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`, and move it there once the block is complete and on the disk.

    The temporary name is drawn at random, so that no other process writes there. What is at `path` is replaced and not
    written through: a link loses its place, and not what it leads to.
    """
    temporary = path.with_name(f"{path.stem}.partial-{secrets.randbelow(10**18):018d}{path.suffix}")
    try:
        yield temporary
        _sync_file(temporary)
        os.replace(temporary, path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Bring a folder's list of names to the disk: a name that was moved there survives a power cut then."""
    if os.name == "nt":  # no folder can be opened there
        return
    opened = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # not every file system can
            os.fsync(opened)
    finally:
        os.close(opened)


def sync_tree(folder: Path) -> None:
    """Bring all that is in a folder to the disk, so that it can be moved to its place."""
    for place, _, names in os.walk(folder):
        for name in names:
            _sync_file(Path(place, name))
        sync_folder(Path(place))


def _sync_file(path: Path) -> None:
    with open(path, "r+b") as file:  # Windows brings to the disk what may be written alone
        os.fsync(file.fileno())


def partial_of(path: Path) -> str | None:
    """The name of the file that a killed process was writing at `path`, see `atomic_path`; None: no such path."""
    match = _PARTIAL.fullmatch(path.name)
    return f"{match[1]}{match[2] or ''}" if match else None


def remove_partial(folder: Path, names: Container[str] | None = None) -> None:
    """Remove what killed processes were writing at these names of a folder, of which no other process writes any.

    Args:
        folder: where they are; it may be missing.
        names: of the files as they would have been. Default: all.
    """
    for path in folder.glob("*.partial-*"):
        name = partial_of(path)
        if name is not None and (names is None or name in names) and not path.is_dir():
            path.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically.

    Raises:
        ValueError: a number that JSON has not, NaN or infinity; nothing was written then.
    """
    text = json.dumps(content, indent=1, allow_nan=False) + "\n"
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def open_regular(path: Path, flags: int = os.O_RDONLY, *, links: bool = False, limit: int | None = None) -> int:
    """Open a file and return its descriptor, without waiting for one that is a pipe or a device.

    Args:
        path: the file.
        flags: of `os.open`.
        links: whether `path` may be a link.
        limit: the most bytes that it may have; None for any number.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it is no regular file, or too large.
    """
    flags |= WITHOUT_WAITING | (0 if links else getattr(os, "O_NOFOLLOW", 0))
    try:  # before it is opened: to open a device may already do something
        _check_regular(path, os.stat(path, follow_symlinks=links), limit)
    except FileNotFoundError:
        if not flags & os.O_CREAT:
            raise
    opened = os.open(path, flags, 0o666)
    try:  # what took its place in between
        _check_regular(path, os.fstat(opened), limit)
    except BaseException:
        os.close(opened)
        raise
    return opened


@contextlib.contextmanager
def file_lock(path: Path, patience: float = math.inf, flags: int = os.O_RDWR | os.O_CREAT) -> Iterator[bool]:
    """Hold a lock until the block is done or the process dies; give whether it is held, or another process has it.

    The lock is the operating system's, on a file: a killed process leaves none behind, and on a shared file system it
    holds between hosts. Who holds it may remove the file. Windows and some file systems have no such locks: nothing is
    kept out there.

    Args:
        path: the file, made if missing.
        patience: seconds to try again while another process has the lock.
        flags: of `os.open`.

    Raises:
        FileNotFoundError: its folder is not there.
        ValueError: it is no regular file.
    """
    deadline = time.monotonic() + patience
    while True:
        file = open_regular(path, flags)
        try:
            held = _lock(file, deadline)
            if not held or _is_at(file, path):  # else who held it removed it: those who come now lock another file
                yield held
                return
        finally:
            os.close(file)


def _lock(file: int, deadline: float) -> bool:
    if sys.platform == "win32":
        return True
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.05)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return True
            raise


def _is_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def is_inside(path: str | os.PathLike[str], folder: str) -> bool:
    """Whether a path, its links resolved, is `folder`, which has none, or lies in it."""
    real = os.path.realpath(path)
    return real == folder or real.startswith(folder.rstrip(os.sep) + os.sep)


def read_bytes(path: Path, *, limit: int, within: Path | None = None, links: bool = False) -> bytes:
    """Read a file that others may have made: a regular file of at most `limit` bytes.

    Args:
        path: the file.
        limit: bytes.
        within: the folder out of which no link may lead.
        links: whether any link may be followed: to what a user has named. Default: none but those `within`.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it is something else than a file, a link out of the folder, or too large.
    """
    if within is not None and not is_inside(path, os.path.realpath(within)):
        raise ValueError(f"{path} must not be a link out of {within}. Received: {os.path.realpath(path)}")
    with open(open_regular(path, links=links or within is not None, limit=limit), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        content = file.read(size + 1)
        if len(content) > size:  # it has grown, or is of /proc, where all have the size 0
            content += file.read(limit + 1 - len(content))
    if len(content) > limit:
        raise ValueError(_too_large(path, limit))
    return content


def read_text(path: Path, *, limit: int, within: Path | None = None) -> str:
    """Read a file of UTF-8 as `read_bytes` does.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: as `read_bytes`, or it is no UTF-8.
    """
    try:
        return read_bytes(path, limit=limit, within=within).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8: {error.reason} at byte {error.start}.") from error


def read_json(path: Path, *, limit: int = JSON_BYTES, within: Path | None = None) -> Any:
    """Read a JSON file as `read_bytes` does, and keep out what JSON or its reader has beyond plain values.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: as `read_bytes`; no JSON; nested too deep; a number that a float cannot hold, or a text that is no
            Unicode, naming the field.
    """
    text = read_text(path, limit=limit, within=within)
    try:
        content = json.loads(
            text, parse_int=_integer, parse_float=_float, parse_constant=lambda name: _Unreadable(name)
        )
    except RecursionError:
        raise ValueError(f"{path} is not JSON of ours: it is nested without end.") from None
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    levels: list[tuple[str, Any]] = [("", content)]
    for _ in range(JSON_DEPTH):
        below: list[tuple[str, Any]] = []
        for field, value in levels:
            if isinstance(value, dict):
                for name, inner in value.items():
                    _check_text(path, f"a name in {field or 'it'}", name)
                    below.append((f"{field}.{name}"[-100:].lstrip("."), inner))
            elif isinstance(value, list):
                below.extend((f"{field}[{position}]"[-100:], inner) for position, inner in enumerate(value))
            elif isinstance(value, str):
                _check_text(path, field, value)
            elif isinstance(value, _Unreadable):
                raise ValueError(f"{path} must have numbers that a float can hold. {_received(field, value.text)}")
        if not below:
            return content
        levels = below
    raise ValueError(f"{path} is not JSON of ours: it is nested more than {JSON_DEPTH} deep.")


class _Unreadable:
    """A number that a float cannot hold."""

    def __init__(self, text: str) -> None:
        self.text = text


def _integer(text: str) -> int | _Unreadable:
    return int(text) if len(text) < 300 else _Unreadable(text)


def _float(text: str) -> float | _Unreadable:
    value = float(text) if len(text) < 300 else math.inf
    return value if math.isfinite(value) else _Unreadable(text)


def _check_text(path: Path, field: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{path} must have texts of whole characters. {_received(field, ascii(text))}") from None


def _received(field: str, text: str) -> str:
    return f"Received: {field}={text[:40]}"


def _check_regular(path: Path, status: os.stat_result, limit: int | None) -> None:
    if not stat.S_ISREG(status.st_mode):
        kinds = {stat.S_IFDIR: "folder", stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket", stat.S_IFLNK: "link"}
        kind = kinds.get(stat.S_IFMT(status.st_mode), "device")
        raise ValueError(f"{path} must be a regular file. Received: a {kind}")
    if limit is not None and status.st_size > limit:
        raise ValueError(_too_large(path, limit))


def _too_large(path: Path, limit: int) -> str:
    return f"{path} must have at most {limit:,} bytes."


@contextlib.contextmanager
def interrupts_deferred() -> Iterator[Callable[[], None]]:
    """Hold back ctrl-C until the block is complete, or calls the function that it is given.

    Python raises KeyboardInterrupt wherever it is, and loses it in a callback of garbage collection, of which JAX has
    one. A second ctrl-C is not held back. Outside the main thread none ever arrives, and a process that ignores them
    goes on doing so.
    """
    received: list[int] = []

    def heed() -> None:
        if received:
            received.clear()
            raise KeyboardInterrupt

    previous = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or previous == signal.SIG_IGN:
        yield heed
        return

    def receive(number: int, frame: Any) -> None:
        received.append(number)
        signal.signal(signal.SIGINT, previous)

    signal.signal(signal.SIGINT, receive)
    try:
        yield heed
    finally:
        signal.signal(signal.SIGINT, previous)
    heed()


def keras_home() -> Path:
    """Return the folder that Keras is told to use."""
    return Path(os.path.expanduser(os.environ.get("KERAS_HOME") or "~/.keras"))


def keras_cache(of: str) -> Path:
    """Return where Keras keeps downloaded "datasets" or "models": one under /tmp where its home is only read."""
    import tempfile  # which every command would wait for

    home = keras_home()
    existing = home
    while not os.path.exists(existing):
        existing = existing.parent
    writable = os.access(existing, os.W_OK)
    if not os.environ.get("KERAS_HOME"):
        writable = writable and os.access(os.path.expanduser("~"), os.W_OK)
    if not writable:
        home = Path("/tmp" if os.path.isdir("/tmp") else tempfile.gettempdir()) / ".keras"
    return home / of
