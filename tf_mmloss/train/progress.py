"""How a command that trains says how it goes: lines for people, JSON objects for programs, or nothing.

With --json, every line of the standard output is an object. Its `event` says of which kind it is:

- start: a run begins or continues. `run`, `folder`, `method`, `data`, `seed`, `epoch` (how many are complete), `epochs`
- epoch: an epoch is complete and saved. `run`, `epoch` (from 1), `epochs`, `loss`, `train_error`, `error` (null in an
  epoch without evaluation), `seconds`, `images_per_second`, `seconds_left`
- end: a run is finished. `run`, `folder`, `error`, `balanced_accuracy`, `shot_accuracy`, `epochs`, `seconds`
- result: what `compare` or `tune` found, their last line. `folder`; `answer`, `choice` and `left`, or `trials`
- stopped: by ctrl-C. `message`
- error: the command, or one of several runs, failed. `message`
- message: what else is a line. `message`

An error of 25 % is 0.25. A number that is not finite is null. Programs should pass over events and names that they do
not know.
"""

import contextlib
import json
import math
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import numpy as np

HOW = ("lines", "json", "quiet")

_how: ContextVar[str] = ContextVar("how", default="lines")


@contextlib.contextmanager
def shown(how: str) -> Iterator[None]:
    """Within the block, `tell` does so: an element of HOW."""
    token = _how.set(how)
    try:
        yield
    finally:
        _how.reset(token)


def how() -> str:
    """How it is told: an element of HOW."""
    return _how.get()


def tell(text: str | None, event: str | None = "message", **content: Any) -> None:
    """Say something on the standard output.

    Args:
        text: the line, or lines; None: it is for programs alone.
        event: what happened, see the top of this file; None: it is for people alone.
        content: of the event; default: the text as `message`.
    """
    if how() == "lines" and text is not None:
        print(text, flush=True)
    if how() == "json" and event is not None:
        named = content or {"message": (text or "").strip()}
        print(json.dumps({"event": event, **_plain(named)}, allow_nan=False), flush=True)


def _plain(value: Any) -> Any:
    """A value as JSON has it: text for a path, null for what is not finite."""
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, str)):
        return value
    return (value if math.isfinite(value) else None) if isinstance(value, float) else str(value)


def clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest:02d}"
