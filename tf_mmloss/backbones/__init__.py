"""Networks under a head: the CIFAR ResNets, those of `keras.applications` and of KerasHub, and one's own.

A kind of backbone is a file here with `FORM`, `matches(spec)`, `check(spec, weights)`, `statistics(spec, channels)`
and `build(spec, input_shape, weights)`, and with `DEFAULT_WEIGHTS` where they are not "none". Another package adds one
by an entry point of the group `tf_mmloss.backbones`: its name is that of `--backbone`, and it refers to a function as
`package.module:function` names one.
"""

from types import ModuleType

import keras

from tf_mmloss._entry_points import BACKBONES, entry_points
from tf_mmloss._validation import received, text
from tf_mmloss.backbones import applications, function, hub, resnet
from tf_mmloss.backbones.base import BackboneError

_KINDS = (resnet, applications, hub, function)
FORMS = ", ".join(kind.FORM for kind in _KINDS)

__all__ = [
    "FORMS",
    "BackboneError",
    "check",
    "default_weights",
    "import_installed",
    "is_function",
    "open_backbone",
    "statistics",
]


def open_backbone(spec: str, input_shape: tuple[int, int, int], weights: str = "none") -> keras.Model:
    """Build the network under a head.

    Args:
        spec: `resnet32` (any depth 6n+2), `keras:NAME` of `keras.applications`, `hub:PRESET` of KerasHub's image
            classifiers (an extra), or `package.module:function`, which is called with the input shape and returns a
            `keras.Model` from images to features (B, F).
        input_shape: (height, width, channels) of the images.
        weights: "none" (default, random); of `keras.applications`, "imagenet" or the path of a weights file of that
            network; of KerasHub, "preset".

    Returns:
        From images, normalised by `statistics`, to features (B, F).

    Raises:
        BackboneError: an unknown network, an image size or weights that it does not take.

    Example:
        >>> open_backbone("resnet8", (32, 32, 3)).output_shape
        (None, 64)
    """
    model: keras.Model = _kind(spec).build(spec, input_shape, weights)
    if len(model.output_shape) != 2:
        raise BackboneError(
            f"`backbone` must return features of shape (batch, features). Received: {spec} with {model.output_shape}"
        )
    return model


def statistics(spec: str, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """With what images are normalised for a network: mean and standard deviation by channel of pixels divided by 255.

    Args:
        spec: see `open_backbone`.
        channels: of the images.

    Returns:
        The two, or None: those of the training images.
    """
    found: tuple[tuple[float, ...], tuple[float, ...]] | None = _kind(spec).statistics(spec, channels)
    return found


def default_weights(spec: str) -> str:
    """The weights that a network comes with if none are named: "none", and "preset" of KerasHub's.

    Args:
        spec: see `open_backbone`.
    """
    weights: str = getattr(_kind(spec), "DEFAULT_WEIGHTS", "none")
    return weights


def import_installed(spec: str) -> None:
    """Import the function of an installed package that a name refers to, so that Keras knows the layers beside it.

    Args:
        spec: see `open_backbone`; nothing is done for another kind.

    Raises:
        BackboneError: it cannot be imported.
        ValueError: it is no text.
    """
    if text("backbone", spec) in entry_points(BACKBONES):
        function.load(spec)


def is_function(spec: str) -> bool:
    """Whether a network is made by a function of somebody else, see `open_backbone`."""
    return _kind(spec) is function


def check(spec: str, weights: str = "none") -> None:
    """Refuse a network that is none of those, or that does not come with such weights; nothing is built.

    Args:
        spec, weights: see `open_backbone`.

    Raises:
        BackboneError: such a network.
    """
    _kind(spec).check(spec, weights)


def _kind(spec: str) -> ModuleType:
    for kind in _KINDS:
        if isinstance(spec, str) and kind.matches(spec):
            return kind
    raise BackboneError(f"`backbone` must be one of {FORMS}. {received('backbone', spec)}")
