"""Files that are whole or not there: atomic writes, and interrupts that wait for them. No Keras."""

import contextlib
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`, and move it there once the block is complete and on the disk."""
    temporary = path.with_name(f"{path.stem}.partial-{os.getpid()}{path.suffix}")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")


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
