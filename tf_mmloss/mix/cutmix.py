"""CutMix: a box of another image."""

from typing import Any

import numpy as np

from tf_mmloss.mix.base import Box, Mixing, draw_box


class CutMix(Mixing):
    """A box of another image of the batch in each image; the labels by what is seen of either.

        box of area 1 - lambda, lambda ~ Beta(alpha, alpha), its centre anywhere, cut at the border
        t = s y_a + (1 - s) y_b,   s the part of the image outside the box as it was cut

    Half of the batches are mixed, as in the published settings for CIFAR.

    Example:
        >>> images, targets = CutMix([12, 8])(x.astype("float32"), y % 2, seed=0, epoch=0, batch=0)
        >>> targets.shape
        (20, 2)

    Reference:
        Yun et al., CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features, ICCV 2019.
    """

    name = "cutmix"
    help = "a box of another image"
    share = 0.5

    def mix(
        self,
        rng: np.random.Generator,
        size: tuple[int, int],
        labels: np.ndarray,
        their_labels: np.ndarray,
        share: float,
    ) -> tuple[float, Box, Any]:
        return 1.0, *draw_box(rng, size, share)
