"""A network of one's own: `package.module:function`, or the name of an entry point of `tf_mmloss.backbones`."""

import keras

from tf_mmloss._entry_points import BACKBONES, entry_points
from tf_mmloss.backbones.base import BackboneError, refuse_weights
from tf_mmloss.functions import FunctionError, function_of, is_function, raised

FORM = "package.module:function"


def matches(spec: str) -> bool:
    """Whether a spec names one of these."""
    return is_function(spec) or spec in entry_points(BACKBONES)


def check(spec: str, weights: str) -> None:
    """See `tf_mmloss.backbones.check`."""
    refuse_weights(spec, weights)


def statistics(spec: str, channels: int) -> None:
    """None: images are normalised by the training images' own mean and standard deviation."""


def build(spec: str, input_shape: tuple[int, int, int], weights: str) -> keras.Model:
    """See `tf_mmloss.backbones.open_backbone`."""
    check(spec, weights)
    try:
        installed = entry_points(BACKBONES).get(spec)
        function = installed.load() if installed else function_of(spec)
    except FunctionError as error:
        raise BackboneError(f"`backbone`: {error}") from error
    except (Exception, SystemExit) as error:  # of its module
        raise BackboneError(raised(spec, error)) from error
    try:
        model = function(input_shape)
    except BackboneError:
        raise
    except (Exception, SystemExit) as error:
        raise BackboneError(raised(spec, error)) from error
    if not isinstance(model, keras.Model) or model.input_shape != (None, *input_shape):
        raise BackboneError(
            f"{spec} must return a keras.Model of images {input_shape}. Received: "
            f"{f'input shape {model.input_shape}' if isinstance(model, keras.Model) else type(model).__name__}"
        )
    return model
