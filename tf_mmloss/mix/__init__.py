"""Mixing of training images with one another, a file each: soft targets, which the losses compute.

What is drawn is a pure function of (seed, epoch, batch), so that a run that is resumed sees the same images.
"""

import functools
import importlib
import inspect
import pkgutil

from tf_mmloss._validation import choice
from tf_mmloss.mix.base import Mixing

__all__ = ["Mixing", "find", "mixings"]


@functools.cache
def mixings() -> dict[str, type[Mixing]]:
    """The mixings by their names."""
    found = {}
    for module in sorted(module.name for module in pkgutil.iter_modules(__path__)):
        for _, value in inspect.getmembers(importlib.import_module(f"{__name__}.{module}"), inspect.isclass):
            if issubclass(value, Mixing) and not inspect.isabstract(value):
                found[value.name] = value
    return found


def find(name: str) -> type[Mixing] | None:
    """Return the mixing of a name; None for "none".

    Raises:
        ValueError: an unknown name; the message has the nearest.

    Example:
        >>> find("cutmix").share
        0.5
    """
    return mixings().get(choice("mix", name, ("none", *mixings())))
