"""`hub:PRESET`: the image classifiers of KerasHub, with random weights or those of the preset."""

import difflib
import importlib.util
import os
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tf_mmloss.backbones.base import BackboneError

FORM = "hub:PRESET (an image classifier of KerasHub, or the folder of one)"
PREFIX = "hub:"
DEFAULT_WEIGHTS = "preset"  # a preset is a network and its weights


def matches(spec: str) -> bool:
    """Whether a spec names one of these."""
    return spec.startswith(PREFIX)


def check(spec: str, weights: str) -> None:
    """See `tf_mmloss.backbones.check`."""
    preset = spec.removeprefix(PREFIX)
    if weights not in ("none", "preset"):
        raise BackboneError(f"`pretrained` must be preset or none for {spec}. Received: pretrained={weights!r}")
    known = _keras_hub().models.ImageClassifier.presets
    if preset in known or (Path(preset) / "config.json").is_file():
        return
    near = difflib.get_close_matches(preset, known, n=1, cutoff=0.5)
    hint = f" Did you mean {PREFIX}{near[0]}?" if near else ""
    raise BackboneError(
        f"`backbone` must name a preset of KerasHub's image classifiers, or a folder that `save_to_preset` wrote. "
        f"Received: backbone={spec!r}.{hint}"
    )


def statistics(spec: str, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """See `tf_mmloss.backbones.statistics`."""
    converter = _read(spec, _keras_hub().layers.ImageConverter.from_preset)
    scale = np.broadcast_to(1.0 if converter.scale is None else converter.scale, channels).astype(np.float64)
    offset = np.broadcast_to(0.0 if converter.offset is None else converter.offset, channels)
    std = 1 / (255 * scale)
    return tuple((-offset * std).tolist()), tuple(std.tolist())


def build(spec: str, input_shape: tuple[int, int, int], weights: str) -> keras.Model:
    """See `tf_mmloss.backbones.open_backbone`."""
    check(spec, weights)
    options = {"num_classes": 2, "load_weights": weights == "preset", "image_shape": input_shape}
    classifier = _read(spec, _keras_hub().models.ImageClassifier.from_preset, **options)
    if classifier.input_shape != (None, *input_shape):
        raise BackboneError(
            f"{spec} takes images of {classifier.input_shape[1:]}: give --image-size. Received: images of {input_shape}"
        )
    return keras.Model(classifier.input, classifier.output_dense.input, name=classifier.backbone.name)


def is_part_of_a_network(registered: str) -> bool:
    """Whether a name that Keras keeps for KerasHub is of a backbone or of a layer in one.

    Its tokenizers and preprocessors, which read files that their config names, are not.
    """
    task = _keras_hub().models.Task
    found = keras.saving.get_registered_object(registered)
    return (
        isinstance(found, type)
        and issubclass(found, keras.layers.Layer)
        and not issubclass(found, task)
        and all(base.__name__ != "PreprocessingLayer" for base in found.__mro__)
        and found.__module__.startswith(("keras_hub.src.models.", "keras_hub.src.layers.modeling."))
    )


def _keras_hub() -> Any:
    if importlib.util.find_spec("keras_hub") is None:
        raise BackboneError('`backbone` hub:PRESET needs KerasHub: pip install "tf-mmloss[hub]"')
    import keras_hub  # here: it is an extra, and loads slowly

    return keras_hub


def _read(spec: str, read: Any, **options: Any) -> Any:
    """What KerasHub reads of a preset, which it downloads the first time."""
    preset = spec.removeprefix(PREFIX)
    try:
        return read(preset, **options)
    except Exception as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        if os.path.isdir(preset):
            shape = options.get("image_shape")
            of_images = f" for images of {shape}" if shape else ""
            raise BackboneError(f"{spec} cannot be read{of_images}: {reason}") from error
        raise BackboneError(
            f"{spec} could not be downloaded or read ({reason}). Without a network, give the folder of a preset: "
            f"{PREFIX}FOLDER, written elsewhere by `save_to_preset`."
        ) from error
