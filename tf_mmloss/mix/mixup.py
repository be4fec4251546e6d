"""Mixup: means of two images, and of their labels."""

from typing import Any

import numpy as np

from tf_mmloss.mix.base import NO_BOX, Box, Mixing


class Mixup(Mixing):
    """The mean of two images of a batch, and of their labels.

        x = lambda x_a + (1 - lambda) x_b,   t = lambda y_a + (1 - lambda) y_b,   lambda ~ Beta(alpha, alpha)

    Example:
        >>> images, targets = Mixup([12, 8])(x.astype("float32"), y % 2, seed=0, epoch=0, batch=0)
        >>> targets.shape
        (20, 2)

    Reference:
        Zhang et al., mixup: Beyond Empirical Risk Minimization, ICLR 2018, Eq. 2; alpha 1 for CIFAR.
    """

    name = "mixup"
    help = "means of two images"

    def mix(
        self,
        rng: np.random.Generator,
        size: tuple[int, int],
        labels: np.ndarray,
        their_labels: np.ndarray,
        share: float,
    ) -> tuple[float, Box, Any]:
        return share, NO_BOX, share
