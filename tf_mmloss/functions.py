"""Functions of others, which are named `package.module:function`, and what they raise. No Keras."""

import contextlib
import importlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any


class FunctionError(ValueError):
    """There is no such module or function."""


def is_function(name: Any) -> bool:
    """Whether a name is that of a function, `package.module:function`."""
    if not isinstance(name, str):
        return False
    module, colon, function = name.partition(":")
    return bool(colon) and all(part.isidentifier() for part in (*module.split("."), function))


def called(argument: str, spec: str, load: Callable[[], Callable[..., Any]]) -> Any:
    """Load a function of somebody else and call it; whatever it raises is a `ValueError` of that argument."""
    with _refused(argument, spec):
        return load()()


def imported(argument: str, spec: str) -> Any:
    """What `package.module:name` names; whatever its module raises is a `ValueError` of that argument."""
    with _refused(argument, spec):
        return function_of(spec)


@contextlib.contextmanager
def _refused(argument: str, spec: str) -> Iterator[None]:
    """Within the block, whatever is raised becomes a `ValueError` of an argument."""
    try:
        yield
    except FunctionError as error:
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
        FunctionError: There is no such module or function.
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
            raise FunctionError(f"there is no module {module!r}, here or installed{known and f'; {known}'}.") from error
        raise
    finally:
        if added:
            sys.path.remove(here)
    function = getattr(found, name, None)
    if not callable(function):
        has = "no" if function is None else "a value, not a function,"
        raise FunctionError(f"the module {module!r} has {has} {name!r}.")
    return function
