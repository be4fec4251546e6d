"""Images that are lighter or darker at random."""

import numpy as np

from tf_mmloss.augment import Augmentation


class Light(Augmentation):
    """Add one number in -40 .. 40 to all pixels of an image."""

    name = "light"
    help = "lighter or darker"

    def draw(self, rng, n):
        return rng.integers(-40, 41, (n, 1), dtype=np.int32)

    def apply(self, images, drawn):
        lighter = images.astype(np.int32) + drawn[:, :, None, None]
        return np.clip(lighter, 0, 255).astype(np.uint8)
