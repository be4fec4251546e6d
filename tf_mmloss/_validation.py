"""Checks of arguments: every message names the argument, what was expected and what was received."""

import difflib
import math
from collections.abc import Iterable


def choice(argument: str, value: str, options: Iterable[str]) -> str:
    """Return `value` if it is one of `options`; else raise a `ValueError` that names the nearest one."""
    options = list(options)
    if value in options:
        return value
    near = difflib.get_close_matches(str(value), options, n=1, cutoff=0.4)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"`{argument}` must be one of {', '.join(options)}. Received: {argument}={value!r}.{hint}")


def number(
    argument: str,
    value: float,
    *,
    above: float = -math.inf,
    at_least: float = -math.inf,
    below: float = math.inf,
) -> float:
    """Return `value` as a float if it is a finite number with above < value < below and value >= at_least."""
    accepted = (
        isinstance(value, (int, float)) or (hasattr(value, "dtype") and getattr(value, "ndim", 1) == 0)
    ) and not isinstance(value, bool)
    if accepted and math.isfinite(value) and above < value < below and value >= at_least:
        return float(value)
    bounds = [f"> {above:g}"] * math.isfinite(above) + [f">= {at_least:g}"] * math.isfinite(at_least)
    bounds += [f"< {below:g}"] * math.isfinite(below)
    expected = "a finite number" + (" " + " and ".join(bounds) if bounds else "")
    raise ValueError(f"`{argument}` must be {expected}. Received: {argument}={value!r}")


def integer(argument: str, value: int, *, at_least: int = 0) -> int:
    """Return `value` as an int if it is a whole number >= `at_least` (bools and floats are refused)."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or int(value) < at_least:
        raise ValueError(f"`{argument}` must be an integer >= {at_least}. Received: {argument}={value!r}")
    return int(value)
