"""Load the model of a run folder, which others may have made: what it could do beyond being a network is refused."""

import contextlib
import functools
import json
import math
import os
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tf_mmloss.files import open_regular
from tf_mmloss.runs.folder import RunFolderError

# Where Keras and this package keep what a network is made of.
_MODULES = (
    *("keras", "keras.layers", "keras.initializers", "keras.regularizers", "keras.constraints", "keras.activations"),
    *("keras.optimizers", "keras.optimizers.schedules", "keras.losses", "keras.dtype_policies"),
    *("keras.src.models.functional", "keras.src.models.sequential", "keras.src.ops.numpy", "keras.src.ops.nn"),
    *("keras.src.applications.convnext", "keras.src.applications.inception_resnet_v2"),
    "keras.src.backend.torch.optimizers.torch_adamw",  # AdamW of a run on PyTorch
)
_PACKAGE = "tf_mmloss"
# Layers of Keras that run code or read files of their config's choice.
_REFUSED = (
    *("Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"),
    *("StringLookup", "IntegerLookup", "TextVectorization"),
)
_MEMBERS = {"metadata.json", "config.json", "model.weights.h5"}
_CONFIG_BYTES = 16 * 2**20
# Values of one image in a layer: a 4096 x 4096 image in 16 channels.
_MOST_VALUES = 2**28
_COUNTING = threading.Lock()


def load(path: Path, *, compile: bool = True) -> Any:
    """Load a `.keras` file of a run folder.

    Only classes of Keras, of this package, of KerasHub's networks, and that this process has registered with Keras are
    made; nothing else is imported, and nothing larger than the file itself is read.

    Args:
        path: the file.
        compile: also load the loss and the optimizer.

    Returns:
        The `keras.Model`.

    Raises:
        RunFolderError: it is missing, no regular file, damaged, or has what a run's model does not have.
    """
    import keras

    if not path.exists():
        raise RunFolderError(f"{path.parent} is no finished run folder: it has no {path.name}.")
    try:
        with _at_most(_check(path)):
            model = keras.models.load_model(path, compile=compile)
        _check_outputs(model)
        return model
    except Exception as error:  # whatever Keras makes of it
        reason = " ".join(str(error).split()) or type(error).__name__
        raise RunFolderError(f"{path} is refused, it is no model of a run: {reason[:300]}") from error


def _check(path: Path) -> int:
    """Refuse a file that is more than a network; return how many numbers its weights are."""
    import h5py

    with open(open_regular(path), "rb") as opened, zipfile.ZipFile(opened) as archive:
        size = os.fstat(opened.fileno()).st_size
        members = archive.infolist()
        if {member.filename for member in members} != _MEMBERS or len(members) != len(_MEMBERS):
            raise ValueError(f"its members are not {', '.join(sorted(_MEMBERS))}")
        for member in members:  # Keras compresses nothing
            if member.compress_type != zipfile.ZIP_STORED or member.file_size > size:
                raise ValueError(f"{member.filename} is compressed")
        if archive.getinfo("config.json").file_size > _CONFIG_BYTES:
            raise ValueError("config.json is too large")
        try:
            config = json.loads(archive.read("config.json"))
        except RecursionError:
            raise ValueError("config.json is nested without end") from None
        for thing in _objects(config):
            _check_class(thing)
        with archive.open("model.weights.h5") as weights, h5py.File(weights, "r") as file:
            return _check_weights(file, size)


def _objects(config: Any) -> Iterator[dict[str, Any]]:
    """All objects in a JSON value."""
    values = [config]
    while values:
        value = values.pop()
        if isinstance(value, dict):
            yield value
            values.extend(value.values())
        elif isinstance(value, list):
            values.extend(value)


def _check_class(thing: dict[str, Any]) -> None:
    import keras

    name, module, registered = (thing.get(key) for key in ("class_name", "module", "registered_name"))
    if name is None and module is None:
        return
    ours = isinstance(registered, str) and registered.startswith(f"{_PACKAGE}>")
    own_module = isinstance(module, str) and (module == _PACKAGE or module.startswith(f"{_PACKAGE}."))
    if name in ("__keras_tensor__", "__tuple__", "__numpy__", "__tensor__") and module is None:
        return
    if not isinstance(name, str) or name in _REFUSED or name.startswith("__"):
        raise ValueError(f"config.json has a {str(name)[:60]}")
    known = isinstance(registered, str) and keras.saving.get_registered_object(registered) is not None
    if isinstance(registered, str) and registered.startswith("keras_hub>"):
        from tf_mmloss.backbones import hub  # here: it imports Keras

        known = hub.is_part_of_a_network(registered)
    if not (module in _MODULES or (ours and own_module) or known):
        raise ValueError(
            f"config.json names {str(module)[:60]}.{name[:60]}, which is neither Keras' nor this package's, nor "
            "registered with Keras (keras.saving.register_keras_serializable)"
        )


@contextlib.contextmanager
def _at_most(numbers: int) -> Iterator[None]:
    """Refuse layers that have more weights together, before Keras makes them.

    Keras asks nobody before it makes a weight, so this counts in `Layer.add_weight`: of this thread's layers only, and
    of one model at a time.
    """
    import keras

    layer, left, thread = keras.layers.Layer, numbers, threading.get_ident()

    def counted(self: Any, shape: Any = (), *arguments: Any, **named: Any) -> Any:
        nonlocal left
        if threading.get_ident() == thread:
            left -= math.prod(shape if isinstance(shape, (tuple, list)) else (shape or 1,))
            if left < 0:
                raise MemoryError
        return add_weight(self, shape, *arguments, **named)

    with _COUNTING:
        add_weight = layer.add_weight
        layer.add_weight = functools.wraps(add_weight)(counted)
        try:
            yield
        except Exception as error:
            if left < 0:  # Keras wraps what is raised in a layer
                raise ValueError("config.json has layers of more weights than model.weights.h5") from error
            raise
        finally:
            layer.add_weight = add_weight


def _check_outputs(model: Any) -> None:
    """Refuse layers whose output for one image would fill the memory."""
    import keras

    for operation in getattr(model, "operations", None) or model.layers:
        for output in keras.tree.flatten(getattr(operation, "output", None)):
            values = math.prod(n or 1 for n in output.shape)
            if values > _MOST_VALUES:
                raise ValueError(f"{operation.name} has {values:,} values of one image, and at most {_MOST_VALUES:,}")
        if isinstance(operation, keras.Model):
            _check_outputs(operation)


def _check_weights(group: Any, size: int) -> int:
    """Refuse arrays that lie elsewhere, or are larger than the file; return how many numbers the others hold."""
    import h5py

    groups, total, numbers = [group], 0, 0
    while groups:
        here = groups.pop()
        for name in here:
            if not isinstance(here.get(name, getlink=True), h5py.HardLink):
                raise ValueError("model.weights.h5 has a link")
            item = here[name]
            if isinstance(item, h5py.Group):
                groups.append(item)
                continue
            if item.external or item.is_virtual:
                raise ValueError("model.weights.h5 has an array that lies elsewhere")
            total += item.nbytes
            if total > size:
                raise ValueError("model.weights.h5 declares more than the file holds")
            numbers += item.size or 0
    return numbers
