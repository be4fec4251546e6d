"""The methods by their names: every module of this package that has METHODS, and those of other packages.

A method is a `Method` in the METHODS of a file here. Another package adds its own by an entry point of the group
`tf_mmloss.methods`, which names a `Method`, several, or a function that returns them; `package.module:function` in
place of a name opens a function that is not installed. None of this imports Keras, unless an installed package does.
"""

import importlib
import pkgutil
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tf_mmloss import _entry_points
from tf_mmloss._validation import choice, received
from tf_mmloss.functions import called, function_of, is_function
from tf_mmloss.methods.base import DRS, DRW, Method, Stage
from tf_mmloss.methods.options import Option, Signature, named, signature

__all__ = [
    "DRS",
    "DRW",
    "METHODS",
    "Method",
    "Option",
    "Signature",
    "Stage",
    "find",
    "is_function",
    "loss_options",
    "named",
    "of_loss",
    "open_function",
    "register",
    "signature",
]


def register(methods: dict[str, Method], found: Any, origin: str) -> None:
    """Add methods to those that are known.

    Args:
        methods: the known ones, by name.
        found: a `Method`, several, or a function that returns them.
        origin: where they come from, for the message.

    Raises:
        ValueError: another thing, or a name that is taken.
    """
    given = found() if callable(found) else found
    given = (given,) if isinstance(given, Method) else given
    if not isinstance(given, Iterable) or isinstance(given, (str, bytes)):
        raise ValueError(f"{origin} must give a tf_mmloss.methods.Method, or several. {received('methods', given)}")
    for method in given:
        if not isinstance(method, Method):
            raise ValueError(f"{origin} must give a tf_mmloss.methods.Method, or several. {received('method', method)}")
        if method.name in methods:
            raise ValueError(f"{origin} has a method {method.name}, a name that is taken: rename it, or remove one.")
        methods[method.name] = method


# Why entry points were left out: no command ends because of a package that it does not need.
_left_out: list[str] = []


def _all() -> dict[str, Method]:
    methods: dict[str, Method] = {}
    for module in sorted(module.name for module in pkgutil.iter_modules(__path__)):
        name = f"{__name__}.{module}"
        register(methods, getattr(importlib.import_module(name), "METHODS", ()), name)
    for entry in _entry_points.entry_points(_entry_points.METHODS).values():
        origin, theirs = f"the entry point {entry.name} ({entry.value})", dict(methods)
        try:
            register(theirs, entry.load(), origin)
        except (Exception, SystemExit) as error:
            text = " ".join(str(error).split())
            _left_out.append(f"{origin} of {_entry_points.METHODS} is left out: {type(error).__name__}: {text}")
            warnings.warn(_left_out[-1], stacklevel=2)
        else:
            methods = theirs
    return dict(sorted(methods.items()))


# By name; those of functions by `package.module:function`, once they are opened.
METHODS: dict[str, Method] = _all()


def find(name: str) -> Method:
    """Return a method by its name.

    Raises:
        ValueError: there is none; the message has the nearest, and the entry points that were left out. A function that
            nobody opened is none.
    """
    if is_function(name) and name not in METHODS:
        raise ValueError(
            f"`method` {name} is a function that the run would call: give --method {name} again to say that you trust "
            "it, or open it with tf_mmloss.methods.open_function."
        )
    try:
        return METHODS[choice("method", name, METHODS)]
    except ValueError as error:
        raise ValueError(" ".join([f"{error}{'.' * bool(_left_out)}", *_left_out])) from None


def open_function(spec: str) -> Method:
    """Import and call a function that returns a `Method`, which `spec` names from then on.

    Args:
        spec: `package.module:function`, looked for in the current folder too.

    Raises:
        ValueError: there is no such module or function, it raises, or it returns something else.
    """
    if spec in METHODS:
        return METHODS[spec]
    method = called("method", spec, lambda: function_of(spec))
    if not isinstance(method, Method):
        raise ValueError(f"{spec} must return a tf_mmloss.methods.Method. {received('method', method)}")
    signature(method.loss)
    METHODS[spec] = method
    return method


def loss_options() -> Mapping[str, Mapping[str, Option]]:
    """The options of all methods' losses: by name, then by loss."""
    found: dict[str, dict[str, Option]] = {}
    for loss in dict.fromkeys(loss for method in METHODS.values() for loss in method.losses):
        for name, option in signature(loss).options.items():
            found.setdefault(name, {})[loss] = option
    return found


def of_loss(loss: str) -> Iterator[str]:
    """The names of the methods that have a loss, in whatever stage."""
    return (name for name, method in METHODS.items() if loss in method.losses)
