"""Remix: mixup whose label leans to the rarer class."""

from typing import Any

import numpy as np

from tf_mmloss.mix.base import NO_BOX, Box, Mixing

KAPPA, TAU = 3.0, 0.5


class Remix(Mixing):
    """The images of mixup; the label of a pair of very different frequencies is that of the rarer class alone.

        weight of y_a = 0         if n_a / n_b >= kappa and lambda < tau
                        1         if n_a / n_b <= 1 / kappa and 1 - lambda < tau
                        lambda    otherwise,           kappa = 3, tau = 1/2

    The rule is the paper's, for each pair of images. The published code passes a loss that is the mean of the batch,
    and so trains with the mean of the weights.

    Example:
        >>> images, targets = Remix([400, 20])(x.astype("float32"), y % 2, seed=0, epoch=0, batch=0)
        >>> targets.shape
        (20, 2)

    Reference:
        Chou et al., Remix: Rebalanced Mixup, ECCV Workshops 2020, Eq. 5 to 7.
    """

    name = "remix"
    help = "mixup whose label leans to the rarer class"

    def mix(
        self,
        rng: np.random.Generator,
        size: tuple[int, int],
        labels: np.ndarray,
        their_labels: np.ndarray,
        share: float,
    ) -> tuple[float, Box, Any]:
        return share, NO_BOX, self.weights(labels, their_labels, share)

    def weights(self, labels: np.ndarray, their_labels: np.ndarray, share: float) -> np.ndarray:
        """The weights (B,) of the own labels."""
        own, other = self.cls_counts[labels], self.cls_counts[their_labels]
        weights = np.full(len(labels), share)
        if share < TAU:
            weights[own >= KAPPA * other] = 0
        if 1 - share < TAU:
            weights[KAPPA * own <= other] = 1
        return weights
