"""What a function returns: `package.module:function`, from the current folder too."""

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from tf_mmloss.data.source import DataError, Source
from tf_mmloss.data.sources._arrays import from_arrays

FORM = "PACKAGE.MODULE:FUNCTION"
HELP = "a function that returns a tf_mmloss.data.Source, (x, y) or ((x_train, y_train), (x_test, y_test))"


def open_function(spec: str, known: str = "") -> Source:
    """Return what the function of a module gives.

    Args:
        spec: `package.module:function`; the function takes no arguments.
        known: What else could be meant, said where there is no such module.

    Raises:
        DataError: There is no such module or function, it raises, or it returns something else.
    """
    return call(spec, lambda: function_of(spec, known))


def call(spec: str, load: Callable[[], Callable[..., Any]], *arguments: Any) -> Source:
    """Load a function of somebody else, call it, and return its source; whatever it raises is a `DataError`."""
    try:
        found = load()(*arguments)
    except DataError:
        raise
    except (Exception, SystemExit) as error:
        raise DataError(raised(spec, error)) from error
    if isinstance(found, Source):
        return found
    parts = _parts(found)
    if parts is None:
        raise DataError(
            f"{spec} must return a tf_mmloss.data.Source, (x, y) or ((x_train, y_train), (x_test, y_test)). "
            f"Received: {type(found).__name__}"
        )
    return from_arrays(spec, {key: (np.asarray(x), y) for key, (x, y) in parts.items()})


def called(argument: str, spec: str, load: Callable[[], Callable[..., Any]]) -> Any:
    """Load a function of somebody else and call it; whatever it raises is a `ValueError` of that argument."""
    try:
        return load()()
    except DataError as error:
        raise ValueError(f"`{argument}`: {error}") from error
    except (Exception, SystemExit) as error:
        raise ValueError(f"`{argument}`: {raised(spec, error)}") from error


def raised(spec: str, error: BaseException) -> str:
    """What somebody else's function raised, in a line."""
    text = " ".join(str(error).split())
    return f"{spec} raised {type(error).__name__}{f': {text}' if text else ''}"


def function_of(spec: str, known: str = "") -> Callable[..., Any]:
    """The function of `package.module:function`, looked for in the current folder too.

    Raises:
        DataError: There is no such module or function.
    """
    module, _, name = spec.partition(":")
    here = os.getcwd()
    added = here not in sys.path and "" not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and (module == error.name or module.startswith(f"{error.name}.")):
            raise DataError(f"there is no module {module!r}, here or installed{known and f'; {known}'}.") from error
        raise
    finally:
        if added:
            sys.path.remove(here)
    function = getattr(found, name, None)
    if not callable(function):
        has = "no" if function is None else "a value, not a function,"
        raise DataError(f"the module {module!r} has {has} {name!r}.")
    return function


def _parts(found: Any) -> dict[str, tuple[Any, Any]] | None:
    if not isinstance(found, tuple) or len(found) != 2:
        return None
    if all(isinstance(part, tuple) and len(part) == 2 for part in found):
        return {"train": found[0], "test": found[1]}
    return {"": found} if all(hasattr(part, "__len__") for part in found) else None
