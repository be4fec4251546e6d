"""TrivialAugment and RandAugment: operations that are drawn evenly, without a search."""

from typing import ClassVar

import numpy as np

from tf_mmloss.augment import operations as op
from tf_mmloss.augment.policy import Policy, signs

_LEVELS = 31
_DRAWN = (
    *(op.identity, op.shear_x, op.shear_y, op.translate_x, op.translate_y, op.rotate, op.brightness, op.color),
    *(op.contrast, op.sharpness, op.posterize, op.solarize, op.autocontrast, op.equalize),
)


def _values(
    shear: float, translate: float, degrees: float, enhance: float, bits: int
) -> dict[op.Operation, np.ndarray]:
    """What levels 0 .. 30 mean, up to these values."""
    return {
        **dict.fromkeys((op.shear_x, op.shear_y), np.linspace(0, shear, _LEVELS)),
        **dict.fromkeys((op.translate_x, op.translate_y), np.linspace(0, translate, _LEVELS)),
        op.rotate: np.linspace(0, degrees, _LEVELS),
        **dict.fromkeys((op.brightness, op.color, op.contrast, op.sharpness), np.linspace(0, enhance, _LEVELS)),
        op.posterize: 8 - np.round(np.arange(_LEVELS) / ((_LEVELS - 1) / bits)),
        op.solarize: np.linspace(255, 0, _LEVELS),
    }


class _Even(Policy):
    """Operations that are drawn evenly from fourteen."""

    operations: ClassVar[int]
    level: ClassVar[int | None]  # None: drawn, too

    def draw(self, rng: np.random.Generator, n: int) -> np.ndarray:
        shape = (n, self.operations)
        number = np.array([op.OPERATIONS.index(operation) for operation in _DRAWN])[rng.integers(0, len(_DRAWN), shape)]
        level = rng.integers(0, _LEVELS, shape) if self.level is None else np.full(shape, self.level)
        return np.stack([number, level, signs(rng, *shape)], axis=-1).astype(np.int32).reshape(n, -1)


class TrivialAugment(_Even):
    """One operation for each image, at a level drawn from 31; the wide set of levels.

        shear up to 0.99, translate up to 32 pixels of an image of 32, rotate up to 135 degrees, colour, contrast,
        sharpness and brightness 1 +- 0.99, posterize to 2 bits, solarize from 255 to 0

    Fill and resampling are those of `AutoAugment` here, not torchvision's black and nearest.

    Example:
        >>> TrivialAugment().draw(np.random.default_rng(0), 5).shape
        (5, 3)

    Reference:
        Mueller and Hutter, TrivialAugment: Tuning-free Yet State-of-the-Art Data Augmentation, ICCV 2021.
    """

    name = "trivialaugment"
    help = "one operation an image, at any level"
    operations, level = 1, None
    values = _values(0.99, 1.0, 135.0, 0.99, 6)


class RandAugment(_Even):
    """Two operations for each image, at level 9 of 30.

        at level 9: shear 0.09, translate 45/331 of the side, rotate 9 degrees, colour, contrast, sharpness and
        brightness 1 +- 0.27, posterize to 7 bits, solarize from 178.5

    Fill and resampling are those of `AutoAugment` here, not torchvision's black and nearest.

    Example:
        >>> RandAugment().draw(np.random.default_rng(0), 5).shape
        (5, 6)

    Reference:
        Cubuk et al., RandAugment: Practical Automated Data Augmentation with a Reduced Search Space, 2020.
    """

    name = "randaugment"
    help = "two operations an image, at level 9 of 30"
    operations, level = 2, 9
    values = _values(0.3, 150 / 331, 30.0, 0.9, 4)
