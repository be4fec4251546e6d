"""Augmentations of training images beyond crops and mirroring, a file each: by NumPy and Pillow, on the host.

Another package adds its own by an entry point of the group `tf_mmloss.augmentations`, whose name is that of `--augment`
and which refers to a child of `Augmentation`; `package.module:Class` opens one that is not installed.
What is drawn for an epoch is a pure function of (seed, epoch), so that a run that is resumed sees the same images.
"""

import functools
import importlib
import inspect
import pkgutil
from collections.abc import Sequence

import numpy as np

from tf_mmloss._entry_points import AUGMENTATIONS, entry_points
from tf_mmloss._validation import choice, integer, received, text
from tf_mmloss.augment.base import Augmentation
from tf_mmloss.functions import called, function_of, is_function

__all__ = ["Augmentation", "apply", "augmentations", "check", "draw", "parse"]


@functools.cache
def augmentations() -> dict[str, type[Augmentation]]:
    """The augmentations of this package by their names. Asking for them imports Pillow."""
    found = {}
    for module in sorted(module.name for module in pkgutil.iter_modules(__path__)):
        for _, value in inspect.getmembers(importlib.import_module(f"{__name__}.{module}"), inspect.isclass):
            if issubclass(value, Augmentation) and not inspect.isabstract(value) and hasattr(value, "name"):
                found[value.name] = value
    return found


def check(names: str) -> list[str]:
    """Return the names in a text; nothing of other packages is imported.

    Args:
        names: see `parse`.

    Raises:
        ValueError: an unknown name, or one twice; the message has the nearest.

    Example:
        >>> check("autoaugment,cutout")
        ['autoaugment', 'cutout']
    """
    if text("augment", names) == "none":
        return []
    given = [name.strip() for name in names.split(",")]
    known = (*augmentations(), *entry_points(AUGMENTATIONS))
    for name in given:
        if not is_function(name):
            choice("augment", name, ("none", *known) if len(given) == 1 else known)
    if len(set(given)) < len(given):
        raise ValueError(f"`augment` must name each augmentation once. {received('augment', names)}")
    return given


def parse(names: str) -> tuple[Augmentation, ...]:
    """Return the augmentations that a text names, in their order.

    Args:
        names: "none", or names with commas between them: "autoaugment,cutout", "my_augmentation:Solarized".

    Raises:
        ValueError: as for `check`; a class of another package that is none.

    Example:
        >>> [augmentation.name for augmentation in parse("autoaugment,cutout")]
        ['autoaugment', 'cutout']
    """
    return tuple(_open(name) for name in check(names))


def _open(name: str) -> Augmentation:
    if name in augmentations():
        return augmentations()[name]()
    installed = entry_points(AUGMENTATIONS).get(name)
    opened = called("augment", name, installed.load if installed else lambda: function_of(name))
    if not isinstance(opened, Augmentation):
        raise ValueError(f"{name} must be a child of tf_mmloss.augment.Augmentation. {received('augment', opened)}")
    return opened


def draw(augmentations: Sequence[Augmentation], seed: int, epoch: int, n: int) -> list[np.ndarray]:
    """Draw what happens to the n images of an epoch: an array int32 (n, k) for each augmentation.

    Args:
        augmentations: in their order.
        seed: of the run.
        epoch: from 0.
        n: images.

    Raises:
        ValueError: what is no augmentation, or a number out of range.

    Example:
        >>> [drawn.shape for drawn in draw(parse("autoaugment,cutout"), seed=0, epoch=3, n=10)]
        [(10, 6), (10, 2)]
    """
    augmentations = _checked(augmentations)
    seed, epoch, n = integer("seed", seed), integer("epoch", epoch), integer("n", n)
    # A third number keeps these draws apart from those of `tf_mmloss.sampling`, which has two.
    return [a.draw(np.random.default_rng([seed, epoch, i + 1]), n) for i, a in enumerate(augmentations)]


def apply(augmentations: Sequence[Augmentation], images: np.ndarray, drawn: Sequence[np.ndarray]) -> np.ndarray:
    """Change a batch of images by what was drawn for them.

    Args:
        augmentations: as for `draw`.
        images: uint8 (B, height, width, 1 or 3).
        drawn: the batch's rows of each array of `draw`.

    Returns:
        uint8 of the same shape.

    Raises:
        ValueError: what is no augmentation, other images, or not an array a row an image for each augmentation.

    Example:
        >>> augmentations = parse("cutout")
        >>> apply(augmentations, x, draw(augmentations, seed=0, epoch=0, n=20)).shape
        (20, 8, 8, 3)
    """
    augmentations = _checked(augmentations)
    if not isinstance(images, np.ndarray) or images.ndim != 4 or images.dtype != np.uint8:
        raise ValueError(f"`images` must be uint8 (B, height, width, channels). {received('images', images)}")
    shapes = [np.shape(rows)[:1] for rows in drawn] if isinstance(drawn, (list, tuple)) else None
    if shapes != [(len(images),)] * len(augmentations):
        raise ValueError(f"`drawn` must be an array of {len(images)} rows for each augmentation, as `draw` gives them.")
    for augmentation, numbers in zip(augmentations, drawn, strict=True):
        images = augmentation.apply(images, numbers)
    return images


def _checked(augmentations: Sequence[Augmentation]) -> Sequence[Augmentation]:
    if not isinstance(augmentations, (list, tuple)) or not all(isinstance(a, Augmentation) for a in augmentations):
        raise ValueError(f"`augmentations` must be a list of Augmentation. {received('augmentations', augmentations)}")
    return augmentations
