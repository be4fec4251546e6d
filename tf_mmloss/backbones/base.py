"""What every kind of backbone gives."""

from dataclasses import dataclass

import keras


class BackboneError(ValueError):
    """The network cannot be built as it was asked for."""


@dataclass(frozen=True)
class Backbone:
    """A network from images to features.

    Args:
        model: normalised images (B, height, width, channels) to features (B, F).
        mean, std: of pixels divided by 255, by channel, with which the images are normalised for it; None: those of the
            training images.
    """

    model: keras.Model
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


def refuse_weights(spec: str, weights: str) -> None:
    """Raise if weights are asked for of a network that comes without."""
    if weights != "none":
        raise BackboneError(f"`pretrained` must be none for {spec}. Received: pretrained={weights!r}")
