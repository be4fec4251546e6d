"""Augmentations that are operations of Pillow, drawn for each image."""

from typing import ClassVar

import numpy as np
from PIL import Image

from tf_mmloss.augment.base import Augmentation
from tf_mmloss.augment.operations import OPERATIONS, SIGNED, Operation


class Policy(Augmentation):
    """Operations of Pillow, one after another, at levels of which each operation has its own values.

    A child has `values`: for each operation, what its levels mean. What is drawn for an image is three numbers for each
    operation: its position in OPERATIONS, its level, and 1 or -1 for the sign.
    """

    values: ClassVar[dict[Operation, np.ndarray]]

    def apply(self, images: np.ndarray, drawn: np.ndarray) -> np.ndarray:
        out = np.empty_like(images)
        grey = images.shape[-1] == 1
        for i, image in enumerate(images):
            changed = Image.fromarray(image[..., 0] if grey else image)
            for number, level, sign in drawn[i].reshape(-1, 3).tolist():
                operation = OPERATIONS[number]
                value = self.values[operation][level] if operation in self.values else 0.0
                changed = operation(changed, value * sign if operation in SIGNED else value)
            out[i] = np.asarray(changed)[..., None] if grey else np.asarray(changed)
        return out


def signs(rng: np.random.Generator, n: int, operations: int) -> np.ndarray:
    """1 or -1, (n, operations), each with probability 1/2."""
    return 1 - 2 * rng.integers(0, 2, (n, operations), dtype=np.int32)
