"""Checks of arguments: every message names the argument, what was expected and what was received.

A value may be anything at all: whatever its own methods raise becomes a `ValueError` of ours.
"""

import difflib
import math
import numbers
import operator
import os
import re
import reprlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

LARGEST_INTEGER = 2**63 - 1
# What hyper-parameters become in the end.
_FLOAT32 = np.finfo(np.float32)
LARGEST_NUMBER, SMALLEST_NUMBER = float(_FLOAT32.max), float(_FLOAT32.tiny)

_REPR = reprlib.Repr()
_REPR.maxlist = _REPR.maxtuple = _REPR.maxarray = _REPR.maxdict = _REPR.maxset = 20
_REPR.maxstring = _REPR.maxlong = _REPR.maxother = 100


def shown(value: Any, length: int = 100) -> str:
    """Return the repr of `value` for a message: on one line, at most `length` characters, whatever `value` is."""
    try:
        text = " ".join(_REPR.repr(value).split())
    except Exception:
        text = f"<{type(value).__name__}>"
    return text if len(text) <= length else text[: length - 3] + "..."


def received(argument: str, value: Any) -> str:
    """Return the end of a message: what was received."""
    return f"Received: {argument}={shown(value)}"


def choice(argument: str, value: str, options: Iterable[str]) -> str:
    """Return `value` if it is one of `options`; else raise a `ValueError` that names the nearest one."""
    options = list(options)
    if isinstance(value, str) and value in options:
        return value
    near = difflib.get_close_matches(value[:100], options, n=1, cutoff=0.4) if isinstance(value, str) else []
    hint = f". Did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"`{argument}` must be one of {', '.join(options)}. {received(argument, value)}{hint}")


def number(
    argument: str,
    value: float,
    *,
    above: float = -math.inf,
    at_least: float = -math.inf,
    below: float = math.inf,
    at_most: float = math.inf,
) -> float:
    """Return `value` as a float if it is a number of float32's range with above < value < below, or the like."""
    real = _real(value)
    if (
        real is not None
        and abs(real) <= LARGEST_NUMBER
        and above < real < below
        and at_least <= real <= at_most
        and (above != 0 or real >= SMALLEST_NUMBER)  # less is 0 in float32
    ):
        return real
    bounds = [f"> {above:g}"] * math.isfinite(above) + [f">= {at_least:g}"] * math.isfinite(at_least)
    bounds += [f"< {below:g}"] * math.isfinite(below) + [f"<= {at_most:g}"] * math.isfinite(at_most)
    expected = "a finite number" + (" " + " and ".join(bounds) if bounds else "")
    if real is not None and real and math.isfinite(real) and not SMALLEST_NUMBER <= abs(real) <= LARGEST_NUMBER:
        expected += " that float32 can hold"
    raise ValueError(f"`{argument}` must be {expected}. {received(argument, value)}")


def integer(argument: str, value: float, *, at_least: int = 0, at_most: int = LARGEST_INTEGER) -> int:
    """Return `value` as an int if it is a whole number in [at_least, at_most] (bools and floats are refused)."""
    whole = _whole(value)
    if whole is not None and at_least <= whole <= at_most:
        return whole
    too_large = whole is not None and whole > at_most
    upper = f" and <= {at_most}" if too_large or at_most != LARGEST_INTEGER else ""
    raise ValueError(f"`{argument}` must be an integer >= {at_least}{upper}. {received(argument, value)}")


def flag(argument: str, value: bool) -> bool:
    """Return `value` if it is True or False, also NumPy's."""
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    raise ValueError(f"`{argument}` must be True or False. {received(argument, value)}")


def text(argument: str, value: str) -> str:
    """Return `value` if it is a string of 1 to 1000 characters that can be written as UTF-8."""
    if isinstance(value, str) and 0 < len(value) <= 1000 and not re.search("[\ud800-\udfff\0]", value):
        return str(value)
    raise ValueError(f"`{argument}` must be a string of 1 to 1000 characters. {received(argument, value)}")


def name(value: str | None, *, slash: bool = True) -> str | None:
    """Return the `name` of a Keras object if it is None or a string; those of layers and optimizers have no slash."""
    if value is not None and "/" in text("name", value) and not slash:
        raise ValueError(f"`name` must not contain a slash. {received('name', value)}")
    return value


def float_type(value: Any) -> Any:
    """Return the `dtype` of a Keras object if it is None or what Keras takes for one, and no integer's."""
    import keras  # what needs NumPy alone does without

    try:
        if "float" in keras.dtype_policies.get(value).compute_dtype:
            return value
    except Exception:
        pass
    raise ValueError(f"`dtype` must be a float type or a dtype policy of Keras. {received('dtype', value)}")


def path(argument: str, value: str | os.PathLike[str]) -> Path:
    """Return `value` as a path, `~` expanded, if it is a string or a path."""
    try:
        plain = os.fspath(value)
        if isinstance(plain, str) and plain and "\0" not in plain:
            return Path(plain).expanduser()
    except Exception:
        pass
    raise ValueError(f"`{argument}` must be a path. {received(argument, value)}")


def function(argument: str, value: Callable[..., Any]) -> Callable[..., Any]:
    """Return `value` if it can be called."""
    if callable(value):
        return value
    raise ValueError(f"`{argument}` must be a function. {received(argument, value)}")


def array(argument: str, value: Any) -> np.ndarray:
    """Return `value` as a NumPy array of any type, if NumPy makes one of it."""
    try:
        return np.asarray(value)
    except Exception as error:
        raise ValueError(f"`{argument}` must be an array, or a list like one. {received(argument, value)}") from error


def group_numbers(groups: Any, count: int) -> np.ndarray:
    """Return the number of each example's group, (count,) from 0 on, from keys of any type; None: each stands alone."""
    if groups is None:
        return np.arange(count)
    groups = array("groups", groups)
    if groups.shape != (count,):
        raise ValueError(f"`groups` must be one of each of {count} images. Received: shape={groups.shape}")
    try:
        return np.unique(groups, return_inverse=True)[1]
    except TypeError as error:
        raise ValueError(f"`groups` must be keys of one type. {received('groups', groups)}") from error


def numeric(argument: str, value: Any) -> np.ndarray:
    """Return `value` as a float64 array if it is one of finite real numbers; bools count as 0 and 1."""
    numbers_ = array(argument, value)
    if numbers_.dtype.kind not in "biuf":
        raise ValueError(f"`{argument}` must be numbers. {received(argument, value)}")
    numbers_ = numbers_.astype(np.float64)
    if not np.isfinite(numbers_).all():
        raise ValueError(f"`{argument}` must be finite numbers. {received(argument, value)}")
    return numbers_


def sequence(argument: str, value: Any) -> list[Any]:
    """Return `value` as a list if it is a list, a tuple or a one-dimensional array."""
    if isinstance(value, (list, tuple)):
        return list(value)
    if isinstance(value, np.ndarray) and value.ndim == 1:
        return value.tolist()
    raise ValueError(f"`{argument}` must be a list or tuple. {received(argument, value)}")


def _real(value: Any) -> float | None:
    """`value` as a float; None where it is no real number, or none that a float can hold."""
    try:
        real = isinstance(value, numbers.Real) and not isinstance(value, bool)
        if not real and (getattr(value, "ndim", 1) != 0 or not re.search("int|float", str(value.dtype))):
            return None
        return float(value)
    except Exception:
        return None


def _whole(value: Any) -> int | None:
    """`value` as an int; None where it is no whole number."""
    try:
        if isinstance(value, bool) or getattr(value, "ndim", 0) != 0 or "bool" in str(getattr(value, "dtype", "")):
            return None
        return operator.index(value)
    except Exception:
        return None
