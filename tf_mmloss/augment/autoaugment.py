"""AutoAugment, with the policy that was searched for CIFAR-10."""

import numpy as np

from tf_mmloss.augment import operations as op
from tf_mmloss.augment.policy import Policy, signs

# (operation, probability, level) twice; one pair is drawn for each image.
POLICY = (
    ((op.invert, 0.1, 7), (op.contrast, 0.2, 6)),
    ((op.rotate, 0.7, 2), (op.translate_x, 0.3, 9)),
    ((op.sharpness, 0.8, 1), (op.sharpness, 0.9, 3)),
    ((op.shear_y, 0.5, 8), (op.translate_y, 0.7, 9)),
    ((op.autocontrast, 0.5, 8), (op.equalize, 0.9, 2)),
    ((op.shear_y, 0.2, 7), (op.posterize, 0.3, 7)),
    ((op.color, 0.4, 3), (op.brightness, 0.6, 7)),
    ((op.sharpness, 0.3, 9), (op.brightness, 0.7, 9)),
    ((op.equalize, 0.6, 5), (op.equalize, 0.5, 1)),
    ((op.contrast, 0.6, 7), (op.sharpness, 0.6, 5)),
    ((op.color, 0.7, 7), (op.translate_x, 0.5, 8)),
    ((op.equalize, 0.3, 7), (op.autocontrast, 0.4, 8)),
    ((op.translate_y, 0.4, 3), (op.sharpness, 0.2, 6)),
    ((op.brightness, 0.9, 6), (op.color, 0.2, 8)),
    ((op.solarize, 0.5, 2), (op.invert, 0.0, 3)),
    ((op.equalize, 0.2, 0), (op.autocontrast, 0.6, 0)),
    ((op.equalize, 0.2, 8), (op.equalize, 0.6, 4)),
    ((op.color, 0.9, 9), (op.equalize, 0.6, 6)),
    ((op.autocontrast, 0.8, 4), (op.solarize, 0.2, 8)),
    ((op.brightness, 0.1, 3), (op.color, 0.7, 0)),
    ((op.solarize, 0.4, 5), (op.autocontrast, 0.9, 3)),
    ((op.translate_y, 0.9, 9), (op.translate_y, 0.7, 9)),
    ((op.autocontrast, 0.9, 2), (op.solarize, 0.8, 3)),
    ((op.equalize, 0.8, 8), (op.invert, 0.1, 3)),
    ((op.translate_y, 0.7, 9), (op.autocontrast, 0.9, 1)),
)


class AutoAugment(Policy):
    """One of 25 pairs of operations for each image, each operation with a probability and a level of its own.

        level 0 .. 9, in equal steps: shear 0 .. 0.3, translate 0 .. 150/331 of the side, rotate 0 .. 30 degrees,
        colour, contrast, sharpness and brightness 1 +- (0 .. 0.9), posterize 8 .. 4 bits, solarize 256 .. 0

    The policy was searched on 4,000 images of balanced CIFAR-10: results with it on long-tailed CIFAR may owe something
    to images that the training set does not have. Fill and resampling are those of the code that the
    long-tail repositories share; signs are drawn, of rotations too.

    Example:
        >>> policy = AutoAugment()
        >>> drawn = policy.draw(np.random.default_rng(0), 20)
        >>> policy.apply(x, drawn).shape
        (20, 8, 8, 3)

    Reference:
        Cubuk et al., AutoAugment: Learning Augmentation Strategies from Data, CVPR 2019, appendix A, table 7.
    """

    name = "autoaugment"
    help = "AutoAugment's policy for CIFAR-10"
    values = {  # noqa: RUF012
        **dict.fromkeys((op.shear_x, op.shear_y), np.linspace(0, 0.3, 10)),
        **dict.fromkeys((op.translate_x, op.translate_y), np.linspace(0, 150 / 331, 10)),
        op.rotate: np.linspace(0, 30, 10),
        **dict.fromkeys((op.color, op.contrast, op.sharpness, op.brightness), np.linspace(0, 0.9, 10)),
        op.posterize: np.round(np.linspace(8, 4, 10)),
        op.solarize: np.linspace(256, 0, 10),
    }

    def draw(self, rng: np.random.Generator, n: int) -> np.ndarray:
        numbers = np.array([[op.OPERATIONS.index(operation) for operation, _, _ in pair] for pair in POLICY])
        probabilities = np.array([[probability for _, probability, _ in pair] for pair in POLICY])
        levels = np.array([[level for _, _, level in pair] for pair in POLICY])
        pair = rng.integers(0, len(POLICY), n)
        done = rng.random((n, 2)) < probabilities[pair]
        number = np.where(done, numbers[pair], op.OPERATIONS.index(op.identity))
        return np.stack([number, levels[pair], signs(rng, n, 2)], axis=-1).astype(np.int32).reshape(n, 6)
