"""`keras:NAME`: the networks of `keras.applications`, with random or ImageNet weights."""

import difflib
import inspect
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tf_mmloss.backbones.base import BackboneError
from tf_mmloss.files import keras_cache

FORM = "keras:NAME (a network of keras.applications)"
_PREFIX = "keras:"


def names() -> list[str]:
    """The networks of `keras.applications`."""
    return sorted(name for name, value in vars(keras.applications).items() if inspect.isfunction(value))


def matches(spec: str) -> bool:
    """Whether a spec names one of these."""
    return spec.startswith(_PREFIX)


def check(spec: str, weights: str) -> None:
    """See `tf_mmloss.backbones.check`."""
    name = spec.removeprefix(_PREFIX)
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=1, cutoff=0.5)
        hint = f" Did you mean keras:{near[0]}?" if near else ""
        raise BackboneError(f"`backbone` must name a network of keras.applications. Received: backbone={spec!r}.{hint}")
    if weights not in ("none", "imagenet") and not Path(weights).is_file():
        raise BackboneError(f"`pretrained` must be none, imagenet or a weights file. Received: pretrained={weights!r}")


def statistics(spec: str, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """See `tf_mmloss.backbones.statistics`."""
    scale, offset, _ = _preprocessing(getattr(keras.applications, spec.removeprefix(_PREFIX)), channels)
    std = 1 / (255 * scale)
    return tuple((-offset * std).tolist()), tuple(std.tolist())


def build(spec: str, input_shape: tuple[int, int, int], weights: str) -> keras.Model:
    """See `tf_mmloss.backbones.open_backbone`."""
    check(spec, weights)
    name = spec.removeprefix(_PREFIX)
    make = getattr(keras.applications, name)
    loaded: str | None = {"none": None, "imagenet": "imagenet"}.get(weights, weights)
    options = {"include_top": False, "weights": loaded, "input_shape": input_shape, "pooling": "avg"}
    try:
        with warnings.catch_warnings():
            # Keras says so of MobileNets: any size takes the weights that it loads.
            warnings.filterwarnings("ignore", "`input_shape` is undefined or non-square", UserWarning)
            model = make(**options)
    except ValueError as error:
        raise BackboneError(f"{spec} does not take images of {input_shape} with these weights: {error}") from error
    except Exception as error:
        if weights != "imagenet":
            raise BackboneError(f"{spec} does not take the weights {weights}: {error}") from error
        raise BackboneError(
            f"the ImageNet weights of {name} could not be downloaded ({_first_line(error)}). Put their file, fetched "
            f"elsewhere, into {keras_cache('models')}, or pass its path as `pretrained`."
        ) from error
    if _preprocessing(make, input_shape[-1])[2]:
        inputs = keras.Input(input_shape, name="images")
        model = keras.Model(inputs, model(keras.ops.flip(inputs, axis=-1)), name=model.name)
    return model


def _preprocessing(make: Callable[..., Any], channels: int) -> tuple[np.ndarray, np.ndarray, bool]:
    """The network's own preprocessing, of pixels in 0 to 255: scale and offset by channel, and whether it wants BGR.

    Every one of Keras' is affine, so black and one full channel after the other show it.
    """
    if channels != 3:
        return np.full(channels, 1 / 127.5), np.full(channels, -1.0), False
    preprocess = sys.modules[make.__module__].preprocess_input
    pixels = np.zeros((4, 1, 1, 3), np.float32)
    pixels[1:, 0, 0] = 255 * np.eye(3)
    black, *full = np.asarray(preprocess(pixels.copy(), data_format="channels_last"), np.float64).reshape(4, 3)
    gains = (np.array(full) - black) / 255  # [input channel, output channel]
    flipped = bool(gains[0, 2])
    if flipped:
        return np.diag(gains[:, ::-1]), black[::-1], True
    return np.diag(gains), black, False


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
