"""A network of one's own: `package.module:function`, or the name of an entry point of `tf_mmloss.backbones`."""

from collections.abc import Callable
from typing import Any

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


def load(spec: str) -> Callable[..., Any]:
    """Import the function that a spec names.

    Raises:
        BackboneError: there is none, or its module raises.
    """
    try:
        installed = entry_points(BACKBONES).get(spec)
        function: Callable[..., Any] = installed.load() if installed else function_of(spec)
    except FunctionError as error:
        raise BackboneError(f"`backbone`: {error}") from error
    except (Exception, SystemExit) as error:  # of its module
        raise BackboneError(raised(spec, error)) from error
    return function


def build(spec: str, input_shape: tuple[int, int, int], weights: str) -> keras.Model:
    """See `tf_mmloss.backbones.open_backbone`."""
    check(spec, weights)
    function = load(spec)
    try:
        model = function(input_shape)
    except BackboneError:
        raise
    except (Exception, SystemExit) as error:
        raise BackboneError(raised(spec, error)) from error
    try:
        if isinstance(model, keras.Sequential) and not model.built:  # it has no `keras.Input`
            model.build((None, *input_shape))
    except Exception as error:  # of images of this size
        raise BackboneError(raised(spec, error)) from error
    # A model with a `call` of its own has no such shape.
    takes, returns = (getattr(model, name, None) for name in ("input_shape", "output_shape"))
    if not isinstance(model, keras.Model) or takes != (None, *input_shape) or not isinstance(returns, tuple):
        kind = type(model).__name__
        raise BackboneError(
            f"{spec} must return a keras.Model of images {input_shape} with one output: a functional one, as "
            "keras.Model(images, features), or a keras.Sequential. Received: "
            f"{f'a {kind} of input shape {takes}, output shape {returns}' if isinstance(model, keras.Model) else kind}"
        )
    return model
