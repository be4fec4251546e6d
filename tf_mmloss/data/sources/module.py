"""What a function returns: `package.module:function`, from the current folder too."""

from collections.abc import Callable
from typing import Any

import numpy as np

from tf_mmloss.data.source import DataError, Source
from tf_mmloss.data.sources._arrays import from_arrays
from tf_mmloss.functions import FunctionError, function_of, raised

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
    except FunctionError as error:
        raise DataError(str(error)) from error
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


def _parts(found: Any) -> dict[str, tuple[Any, Any]] | None:
    if not isinstance(found, tuple) or len(found) != 2:
        return None
    if all(isinstance(part, tuple) and len(part) == 2 for part in found):
        return {"train": found[0], "test": found[1]}
    return {"": found} if all(hasattr(part, "__len__") for part in found) else None
