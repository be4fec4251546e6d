"""SavedModels that take raw images and return class probabilities."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tf_mmloss._validation import number

# Run by the check in a process of its own, which knows nothing of this package.
_RELOAD = """
import sys, numpy as np, tensorflow as tf
loaded = tf.saved_model.load(sys.argv[1])
images = np.load(sys.argv[2])
served = loaded.signatures["serving_default"](tf.constant(images))
names = [name.decode() for name in loaded.class_names()["class_names"].numpy()]
np.savez(sys.argv[3], probabilities=served["probabilities"], class_names=names)
"""


class ExportError(RuntimeError):
    """The exported model does not do what the one in memory does."""


def export_saved_model(
    model: keras.Model,
    folder: str | os.PathLike[str],
    *,
    normalize: Callable[[Any], Any],
    scale: float,
    class_names: Sequence[str],
    metadata: dict[str, Any] | None = None,
    card: str | None = None,
    images: np.ndarray | None = None,
) -> float:
    """Write a SavedModel from uint8 images to class probabilities, and check it in a new process.

        p = softmax(scale * model(normalize(images)))

    The signature `serving_default` takes `images`, uint8 (B, height, width, channels), and returns
    `probabilities`, float32 (B, C); it refuses other types. `class_names` takes nothing and returns the C names.
    Names and metadata also stand in metadata.json. The folder appears only after the check.

    Args:
        model: from normalised images to (B, C) cosines or logits.
        folder: where to write; must not exist.
        normalize: the layer of `tf_mmloss.normalization` that the model was trained with.
        scale: s of the training loss, > 0; 1 for plain logits.
        class_names: C names.
        metadata: anything else for metadata.json.
        card: the model card, Markdown for README.md in the folder. Default: none is written.
        images: uint8 images for the check. Default: 16 random ones.

    Returns:
        The largest difference between a probability of the reloaded model and of the one in memory.

    Raises:
        ValueError: scale out of range, or not C names.
        FileExistsError: the folder is there already.
        ExportError: the reloaded model differs by more than 1e-5, or lost its names.

    Example:
        >>> export_saved_model(model, "saved_models/mine", normalize=normalize, scale=10.0, class_names=names)
    """
    import tensorflow as tf

    folder, scale = Path(folder), number("scale", scale, above=0)
    if len(class_names) != model.output_shape[-1]:
        raise ValueError(
            f"`class_names` must have {model.output_shape[-1]} names, one for each output. "
            f"Received: {len(class_names)} names"
        )
    if folder.exists():
        raise FileExistsError(f"{folder} is there already: remove it or choose another folder.")
    shape = model.input_shape[1:]
    served = _served_model(model, normalize, scale)
    if images is None:
        images = np.random.default_rng(0).integers(0, 256, (16, *shape), dtype=np.uint8)
    expected = served.predict(images, verbose=0)

    archive = keras.export.ExportArchive()
    if keras.backend.backend() != "tensorflow":  # there an endpoint's variables are tracked, and would be stored twice
        archive.track(served)
    archive.add_endpoint(
        "serve",
        lambda images: {"probabilities": served(images, training=False)},
        input_signature=[tf.TensorSpec((None, *shape), tf.uint8, name="images")],
    )
    # Strings are TensorFlow's alone: traced here, as Keras would trace it with JAX where that is the backend.
    names = tf.function(lambda: {"class_names": tf.constant(list(class_names))}, input_signature=[])
    names.get_concrete_function()
    archive.add_endpoint("class_names", names)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
        written = Path(temporary) / "model"
        archive.write_out(str(written), verbose=False)
        description = {"class_names": list(class_names), "scale": scale, **(metadata or {})}
        (written / "metadata.json").write_text(json.dumps(description, indent=1) + "\n")
        if card is not None:
            (written / "README.md").write_text(card, encoding="utf-8")
        difference = _check(written, Path(temporary), images, expected, list(class_names))
        os.rename(written, folder)
    return difference


def _served_model(model: keras.Model, normalize: Callable[[Any], Any], scale: float) -> keras.Model:
    images = keras.Input(model.input_shape[1:], dtype="uint8", name="images")
    logits = keras.layers.Rescaling(scale, dtype="float32", name="scale")(model(normalize(images)))
    return keras.Model(images, keras.layers.Softmax(dtype="float32", name="probabilities")(logits))


def _check(written: Path, temporary: Path, images: np.ndarray, expected: np.ndarray, class_names: list[str]) -> float:
    np.save(temporary / "images.npy", images)
    command = [sys.executable, "-c", _RELOAD, str(written), str(temporary / "images.npy"), str(temporary / "out.npz")]
    child = subprocess.run(command, capture_output=True, text=True)
    if child.returncode:
        raise ExportError(f"The exported model does not load in a new process:\n{child.stderr}")
    with np.load(temporary / "out.npz") as out:
        difference = float(np.abs(out["probabilities"] - expected).max())
        names = out["class_names"].tolist()
    if not difference <= 1e-5 or names != class_names:
        raise ExportError(f"The reloaded model differs: by {difference} in a probability, class names {names}.")
    return difference
