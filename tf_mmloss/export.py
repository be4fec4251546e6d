"""Models for TensorFlow, ONNX and LiteRT that take raw images and return class probabilities."""

import contextlib
import importlib.util
import json
import logging
import math
import os
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tf_mmloss._validation import choice, function, path, received, shown
from tf_mmloss.files import sync_folder, sync_tree
from tf_mmloss.runs.folder import RunFolderError, locked

FORMATS = ("savedmodel", "onnx", "litert")
# What a format is written and checked with, beside TensorFlow; the extra of this package has the format's name.
_NEEDS = {"savedmodel": (), "onnx": ("tf2onnx", "onnxruntime"), "litert": ("ai_edge_litert",)}
_FILES = {"onnx": "model.onnx", "litert": "model.tflite"}
# Run by the check in a process of its own, which knows nothing of this package.
_RELOAD = {
    "savedmodel": """
import sys, numpy as np, tensorflow as tf
loaded = tf.saved_model.load(sys.argv[1])
images = np.load(sys.argv[2])
(served,) = loaded.signatures["serving_default"](tf.constant(images)).values()
names = [name.decode() for name in loaded.class_names()["class_names"].numpy()]
np.savez(sys.argv[3], served=served, class_names=names)
""",
    "onnx": """
import json, sys, numpy as np, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1] + "/model.onnx", providers=["CPUExecutionProvider"])
images = np.load(sys.argv[2])
served = np.concatenate([session.run(None, {"images": part})[0] for part in (images[:1], images[1:]) if len(part)])
names = json.loads(session.get_modelmeta().custom_metadata_map["class_names"])
np.savez(sys.argv[3], served=served, class_names=names)
""",
    "litert": """
import json, sys, numpy as np
from ai_edge_litert.interpreter import Interpreter
run = Interpreter(sys.argv[1] + "/model.tflite").get_signature_runner()
images = np.load(sys.argv[2])
parts = [part for part in (images[:1], images[1:]) if len(part)]
served = np.concatenate([value for part in parts for value in run(images=part).values()])
with open(sys.argv[1] + "/metadata.json", encoding="utf-8") as file:
    names = json.load(file)["class_names"]
np.savez(sys.argv[3], served=served, class_names=names)
""",
}
# Half a character, as file names that are no UTF-8 have: cannot be written.
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
# A hidden folder beside the target has this ending, and nothing but these names in it.
_PARTIAL = ".export-partial"
_PARTIAL_NAMES = {".lock", "model", "images.npy", "out.npz"}


class ExportError(RuntimeError):
    """The exported model does not do what the one in memory does."""


def export(
    model: keras.Model,
    folder: str | os.PathLike[str],
    *,
    format: str = "savedmodel",
    probabilities: keras.layers.Layer | None,
    class_names: Sequence[str | int] | np.ndarray,
    normalize: Callable[[Any], Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
    card: str | None = None,
    images: np.ndarray | None = None,
) -> float:
    """Write a model from raw inputs to class probabilities, and check it in a new process.

        p = probabilities(model(normalize(images)))

    It takes `images` and returns `probabilities`, float32 (B, C), of any number B of images; of none, LiteRT cannot.
    Images (B, height, width, channels) that are normalised inside are uint8; every other input is of the model's own
    type. The folder appears only after the check; what a killed export left beside it is removed by the next one. In
    it are metadata.json, with the class names, and

    - savedmodel: a SavedModel, whose `serving_default` refuses other types, and whose signature `class_names` takes
      nothing and returns the C names;
    - onnx: model.onnx, with the names as JSON in its metadata, `class_names`;
    - litert: model.tflite, of LiteRT's own operations alone.

    Args:
        model: from one (normalised) input to (B, C) cosines or logits.
        folder: where to write; must not exist.
        format: savedmodel (default); onnx and litert need Keras on TensorFlow and the extra of that name.
        probabilities: the layer `tf_mmloss.Probabilities` of the training loss. None for a hinge, or for a model that
            is to return what it returns: its outputs are then named `scores`.
        class_names: C names; whole numbers are names too.
        normalize: the layer of `tf_mmloss.normalization` that the model was trained with. Default None: the inputs go
            into the model as they are.
        metadata: anything else than class_names and scale for metadata.json, also NumPy's; what JSON has no number for
            becomes null.
        card: the model card, Markdown for README.md in the folder. Default: none is written.
        images: inputs for the check. Default: 16 random ones.

    Returns:
        The largest difference between an output of the reloaded model and of the one in memory.

    Raises:
        ValueError: a bad argument; a format that the backend has not; another process exports to the folder.
        ImportError: the packages of the format are not installed.
        FileExistsError: the folder is there already.
        ExportError: the model cannot be converted, or the reloaded one differs by more than 1e-5, of the largest
            output where that is above 1, or lost its names.

    Example:
        >>> export(model, "mine", format="onnx", probabilities=Probabilities.of(model), class_names=names)
    """
    folder = path("folder", folder)
    check_format(format)
    if probabilities is not None and not isinstance(probabilities, keras.layers.Layer):
        raise ValueError(
            "`probabilities` must be a layer, tf_mmloss.Probabilities.of(loss), or None. "
            f"{received('probabilities', probabilities)}"
        )
    if normalize is not None:
        function("normalize", normalize)
    shape, own_type, num_outputs = _signature(model)
    names = _names(class_names, num_outputs)
    if metadata is not None and not isinstance(metadata, Mapping):
        raise ValueError(f"`metadata` must be a dictionary. Received: metadata={shown(metadata)}")
    own = {"class_names": names, "scale": getattr(probabilities, "scale", None)}
    more = _plain("metadata", metadata or {})
    if taken := [name for name in own if name in more]:
        raise ValueError(f"`metadata` must leave class_names and scale to the export. Received: {', '.join(taken)}")
    description = own | more
    if card is not None and (not isinstance(card, str) or _LONE_SURROGATE.search(card)):
        raise ValueError(f"`card` must be a text. Received: card={shown(card)}")
    check_free(folder)
    dtype = "uint8" if normalize is not None and len(shape) == 3 else own_type
    images = _examples(images, shape, dtype)
    with _partial_folder(folder) as partial:
        served = _served_model(model, normalize, probabilities, dtype)
        (expected,) = served.predict(images, verbose=0).values()
        written = partial / "model"
        if format == "savedmodel":
            _write_saved_model(served, written, names)
        else:
            written.mkdir()
            _convert(served, written / _FILES[format], format, names)
        (written / "metadata.json").write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")
        if card is not None:
            (written / "README.md").write_text(card, encoding="utf-8")
        difference = _check(format, written, partial, images, expected, names)
        sync_tree(written)
        os.rename(written, folder)
        sync_folder(folder.parent)
    return difference


def check_free(folder: str | os.PathLike[str]) -> None:
    """Remove what killed exports left beside a folder, and refuse it if it is there.

    Raises:
        ValueError: what is no path.
        FileExistsError: it is.
    """
    folder = path("folder", folder)
    for left in folder.parent.glob(f".*{_PARTIAL}"):
        _remove_left(left)
    if os.path.lexists(folder):
        raise FileExistsError(f"{folder} is there already: remove it or choose another folder.")


def check_format(format: str) -> None:
    """Refuse a format that is unknown, that the backend has not, or whose packages are not installed.

    Raises:
        ValueError, ImportError: it is.
    """
    choice("format", format, FORMATS)
    if format != "savedmodel" and keras.backend.backend() != "tensorflow":
        raise ValueError(
            f"`format` must be savedmodel on {keras.backend.backend()}; models of every backend are exported with "
            f"KERAS_BACKEND=tensorflow. Received: format={format!r}"
        )
    for package in ("tensorflow", *_NEEDS[format]):
        if importlib.util.find_spec(package) is None:
            extra = "tensorflow" if package == "tensorflow" else format
            raise ImportError(f'`format` {format} needs {package}: pip install "tf-mmloss[{extra}]"')


def _write_saved_model(served: keras.Model, written: Path, names: list[str]) -> None:
    import tensorflow as tf

    archive = keras.export.ExportArchive()
    # On TensorFlow an endpoint's variables are tracked, and would be stored twice.
    if keras.backend.backend() != "tensorflow":
        archive.track(served)
    (images,) = served.inputs
    archive.add_endpoint(
        "serve",
        lambda images: served(images, training=False),
        input_signature=[tf.TensorSpec(images.shape, images.dtype, name="images")],
    )
    # Strings are TensorFlow's alone: traced here, as Keras would trace it with JAX where that is the backend.
    named = tf.function(lambda: {"class_names": tf.constant(names)}, input_signature=[])
    named.get_concrete_function()
    archive.add_endpoint("class_names", named)
    try:
        archive.write_out(str(written), verbose=False)
    except tf.errors.OpError as error:  # the disk is full
        raise OSError(f"{written} cannot be written: {error.message}") from error


def _convert(served: keras.Model, file: Path, format: str, names: list[str]) -> None:
    import tensorflow as tf

    (images,) = served.inputs
    signature = [keras.InputSpec(shape=images.shape, dtype=images.dtype, name="images")]
    # TensorFlow's own operations would need TensorFlow where the model is used.
    own = {"target_spec": {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]}} if format == "litert" else {}
    # tf2onnx logs, with tracebacks, which of its optimizations it went on without; the check sees what came of it.
    logger = logging.getLogger("tf2onnx")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with _constant_statistics(served), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the converters, about NumPy's and TensorFlow's older names
            served.export(str(file), format=format, verbose=False, input_signature=signature, **own)
    except Exception as error:
        raise ExportError(f"The model cannot be converted to {format}: {' '.join(str(error).split())[:500]}") from error
    finally:
        logger.setLevel(level)
    if format == "onnx":
        import onnx

        written = onnx.load(str(file))
        onnx.helper.set_model_props(written, {"class_names": json.dumps(names)})
        onnx.save(written, str(file))


@contextlib.contextmanager
def _constant_statistics(model: keras.Model) -> Iterator[None]:
    """Let `keras.layers.Normalization` hold its statistics as arrays: tf2onnx makes inputs of a function's tensors."""
    held = [
        (layer, name, getattr(layer, name))
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.Normalization)
        for name in ("mean", "variance")
    ]
    try:
        for layer, name, value in held:
            setattr(layer, name, keras.ops.convert_to_numpy(value))
        yield
    finally:
        for layer, name, value in held:
            setattr(layer, name, value)


def _signature(model: keras.Model) -> tuple[tuple[int | None, ...], str, int]:
    """Shape (without the batch) and type of a model's input, and the number of its outputs."""
    inputs, outputs = (getattr(model, name, None) or [] for name in ("inputs", "outputs"))
    if len(inputs) != 1 or len(outputs) != 1 or len(outputs[0].shape) != 2 or outputs[0].shape[-1] is None:
        raise ValueError(
            "`model` must be a built Keras model of one input and one output (B, C). Received: a "
            f"{type(model).__name__} of inputs {[tuple(i.shape) for i in inputs]} and outputs "
            f"{[tuple(o.shape) for o in outputs]}"
        )
    return tuple(inputs[0].shape[1:]), str(inputs[0].dtype), int(outputs[0].shape[-1])


def _names(class_names: Any, num_classes: int) -> list[str]:
    """Class names as strings."""
    try:
        given = None if isinstance(class_names, (str, bytes, Mapping)) else list(class_names)
    except TypeError:
        given = None
    if given is None:
        raise ValueError(f"`class_names` must be a list of names. Received: class_names={shown(class_names)}")
    if len(given) != num_classes:
        raise ValueError(
            f"`class_names` must have {num_classes} names, one for each output. Received: {len(given)} names"
        )
    names = []
    for name in given:
        whole = isinstance(name, (int, np.integer)) and not isinstance(name, bool)
        names.append(str(name) if whole or isinstance(name, str) else "")
        if not names[-1] or _LONE_SURROGATE.search(names[-1]):
            raise ValueError(f"`class_names` must be names or whole numbers. Received: {shown(name)} among them")
    return names


def _plain(argument: str, value: Any, depth: int = 50) -> Any:
    """A value as JSON has it: NumPy's as Python's own, a number that is none as None."""
    if not depth:
        raise ValueError("`metadata` must not be nested more than 50 deep.")
    if isinstance(value, (np.ndarray, np.generic)):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(f"{argument}[{shown(key)}]", inner, depth - 1) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(f"{argument}[{position}]", inner, depth - 1) for position, inner in enumerate(value)]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise ValueError(f"`{argument}` must be what JSON can hold. Received: {argument}={shown(value)}")


def _examples(images: Any, shape: tuple[int | None, ...], dtype: str) -> np.ndarray:
    """Inputs for the check, the given or random ones."""
    if images is None:
        rng, size = np.random.default_rng(0), (16, *(32 if length is None else length for length in shape))
        if dtype == "uint8":
            return rng.integers(0, 256, size, dtype=np.uint8)
        if np.dtype(dtype).kind in "iub":  # of any vocabulary
            return rng.integers(0, 2, size).astype(dtype)
        return rng.normal(size=size).astype(dtype)
    given = np.asarray(images)
    fits = given.ndim == len(shape) + 1 and all(
        n in (None, length) for n, length in zip(shape, given.shape[1:], strict=True)
    )
    if not fits or not len(given) or not np.can_cast(given.dtype, dtype, "same_kind"):
        raise ValueError(
            f"`images` must be {dtype} of shape {(None, *shape)}. Received: {given.dtype} of shape {given.shape}"
        )
    return given.astype(dtype)


@contextlib.contextmanager
def _partial_folder(folder: Path) -> Iterator[Path]:
    """Give a hidden folder beside `folder` to write in, removed in the end."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}{_PARTIAL}")
    if os.path.lexists(partial):
        raise ValueError(f"{partial} must not be there: another process exports to {folder}, or it is no export's.")
    with locked(partial):
        try:
            yield partial
        finally:
            for name in _PARTIAL_NAMES - {".lock"}:
                if (partial / name).is_dir():
                    shutil.rmtree(partial / name)
                else:
                    (partial / name).unlink(missing_ok=True)


def _remove_left(partial: Path) -> None:
    """Remove the folder of an export that was killed; leave everything else as it is."""
    with contextlib.suppress(RunFolderError, OSError):
        if partial.is_symlink() or not partial.is_dir():
            return
        names = set(os.listdir(partial))
        if not names:
            partial.rmdir()
        elif ".lock" in names and names <= _PARTIAL_NAMES:
            with locked(partial, patience=0):
                shutil.rmtree(partial)


def _served_model(
    model: keras.Model, normalize: Callable[[Any], Any] | None, probabilities: keras.layers.Layer | None, dtype: str
) -> keras.Model:
    images = keras.Input(model.inputs[0].shape[1:], dtype=dtype, name="images")
    outputs = model(images if normalize is None else normalize(images))
    if probabilities is None:
        return keras.Model(images, {"scores": keras.layers.Activation("linear", dtype="float32")(outputs)})
    return keras.Model(images, {"probabilities": probabilities(outputs)})


def _check(
    format: str, written: Path, partial: Path, images: np.ndarray, expected: np.ndarray, class_names: list[str]
) -> float:
    np.save(partial / "images.npy", images)
    # -P: nothing of the current folder is imported.
    files = [str(written), str(partial / "images.npy"), str(partial / "out.npz")]
    command = [sys.executable, "-P", "-c", _RELOAD[format], *files]
    child = subprocess.run(command, capture_output=True, text=True, errors="backslashreplace")
    if child.returncode:
        raise ExportError(f"The exported model does not load in a new process:\n{child.stderr}")
    with np.load(partial / "out.npz") as out:
        served, names = out["served"], out["class_names"].tolist()
    difference = float(np.abs(served - expected).max()) if served.shape == expected.shape else math.inf
    if not difference <= 1e-5 * max(1.0, float(np.abs(expected).max())) or names != class_names:
        raise ExportError(f"The reloaded model differs: by {difference} in an output, class names {names}.")
    return difference
