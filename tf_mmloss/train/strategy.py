"""One run on several devices: how they share a batch, what they lack, and how several processes stay one run.

    none           one device
    mirrored       all devices of this host, by TensorFlow: each takes its rows of every batch
    data-parallel  all devices of all processes, by JAX: one program, in which the rows of a batch are split

All give the losses and weights of one device, but for the rounding of sums. For several processes, on one host or
many, start the same command in each with KERAS_DISTRIBUTION_JOB_ADDRESSES, _NUM_PROCESSES and _PROCESS_ID set. Every
process draws the whole batch, which is a pure function of seed and epoch, and its devices compute on their rows of it;
process 0 alone writes the run folder, which all must see.
"""

import contextlib
import dataclasses
import functools
import hashlib
import os
import re
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from tf_mmloss.pipeline import images_per_epoch
from tf_mmloss.train import progress
from tf_mmloss.train.config import Config

NEEDS = {"mirrored": "tensorflow", "data-parallel": "jax"}
VARIABLES = tuple(f"KERAS_DISTRIBUTION_{name}" for name in ("JOB_ADDRESSES", "NUM_PROCESSES", "PROCESS_ID"))


def join(config: Config) -> None:
    """Refuse a strategy that the backend lacks, and meet the other processes if there are any.

    Raises:
        ValueError: another backend's strategy, or only some of the variables that name the processes.
    """
    backend = keras.backend.backend()
    if config.strategy == "none":
        return
    if backend != NEEDS[config.strategy]:
        others = [f"--strategy {name} runs on it" for name, needed in NEEDS.items() if needed == backend]
        raise ValueError(
            f"`strategy` {config.strategy} needs the {NEEDS[config.strategy]} backend. Received: {backend}; "
            f"{others[0] if others else 'it has one device a run, --strategy none'}."
        )
    given = variables_given()
    if config.strategy == "mirrored" or not given or _jax("process_count", 0):
        return
    if len(given) < len(VARIABLES):
        raise ValueError(f"`strategy` data-parallel takes all of {', '.join(VARIABLES)}, or none. Received: {given}")
    keras.utils.set_random_seed(config.seed)  # else Keras makes the processes agree on one
    keras.distribution.initialize()


def check(config: Config) -> None:
    """Refuse a batch that the devices cannot share, and a precision that one of them lacks.

    Raises:
        ValueError: such a config.
    """
    devices = num_devices(config)
    if config.batch_size % devices:
        raise ValueError(
            f"`batch_size` must be a multiple of the {devices} devices of `strategy` {config.strategy}. "
            f"Received: batch_size={config.batch_size}"
        )
    lacking = [found for found in accelerators() if found.capability and found.capability < (8, 0)]
    if config.precision == "bfloat16" and lacking:
        raise ValueError(
            "`precision` bfloat16 needs GPUs of compute capability 8.0 or more; float16 and float32 run on this one. "
            f"Received: {lacking[0].name}, {'.'.join(map(str, lacking[0].capability or ()))}"
        )


def check_images(config: Config, images: int) -> None:
    """Refuse batches that Keras or TensorFlow fails on when it splits them for `mirrored`.

    Raises:
        ValueError: a first batch that is not whole; on CPUs, a last one of which a device gets nothing.
    """
    if config.strategy != "mirrored":
        return
    devices, batch = num_devices(config), config.batch_size
    if batch > images:
        raise ValueError(
            f"`batch_size` must not exceed the {images} training images with `strategy` mirrored. "
            f"Received: batch_size={batch}"
        )
    rest = images_per_epoch(images, batch) % batch
    share = -(-rest // devices)  # the last devices get what is left
    # oneDNN gives the convolution of no images a wrong shape.
    fails = "CPU" in _local_devices()[-1] and os.environ.get("TF_ENABLE_ONEDNN_OPTS") != "0"
    if rest and share * (devices - 1) >= rest and fails:
        raise ValueError(
            f"`batch_size` must leave every device an image of the last batch of {images}: convolutions on CPUs fail "
            f"without one, unless TF_ENABLE_ONEDNN_OPTS=0. Received: batch_size={batch}"
        )


def num_devices(config: Config) -> int:
    """Devices that share the batches of a run."""
    if config.strategy == "none":
        return 1
    return len(_local_devices()) if config.strategy == "mirrored" else len(keras.distribution.list_devices())


@dataclasses.dataclass(frozen=True)
class Accelerator:
    """A device of the backend that is no CPU. `capability` is an NVIDIA GPU's compute capability."""

    name: str
    capability: tuple[int, int] | None = None


def accelerators() -> list[Accelerator]:
    """Those of this process."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return [
            # Other makers' devices have none, or a name.
            Accelerator(device.device_kind, _version(str(getattr(device, "compute_capability", ""))))
            for device in jax.local_devices()
            if device.platform != "cpu"
        ]
    if backend == "torch":
        from torch import cuda

        return [Accelerator(cuda.get_device_name(i), cuda.get_device_capability(i)) for i in range(cuda.device_count())]
    import tensorflow as tf

    details = map(tf.config.experimental.get_device_details, tf.config.list_physical_devices("GPU"))
    return [Accelerator(found.get("device_name", "GPU"), found.get("compute_capability")) for found in details]


def _version(text: str) -> tuple[int, int] | None:
    match = re.fullmatch(r"(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else None


@contextlib.contextmanager
def scope(config: Config) -> Iterator[None]:
    """Where a run makes its models and trains them, so that they lie on all its devices."""
    if config.strategy == "none":
        yield
        return
    if is_leader():
        progress.tell(f"{config.strategy}: {num_devices(config)} device(s), {num_processes()} process(es)")
    if config.strategy == "mirrored":
        with _mirrored().scope():
            yield
    else:
        with _WholeBatches(auto_shard_dataset=False).scope():
            yield


def spread(network: Callable[[Any], Any], inputs: Any) -> Any:
    """Apply a network to inputs whose rows are split over the devices of `data-parallel`; elsewhere, just apply it.

    Args:
        network: from (B, ...) to (B, C).
        inputs: the whole batch, on every device. B need not be a multiple of the devices: XLA pads the rows and leaves
            the padding out of every sum.

    Returns:
        (B, C), whole on every device.
    """
    distribution = keras.distribution.distribution()
    if distribution is None:
        return network(inputs)
    rows, whole = (_Lay(axis, distribution.device_mesh) for axis in (distribution.batch_dim_name, None))
    return whole(network(rows(inputs)))


def variables_given() -> list[str]:
    """Which of the VARIABLES that make this process one of several are set."""
    return [name for name in VARIABLES if os.environ.get(name)]


def num_processes() -> int:
    """Processes of this run."""
    return _jax("process_count", 1)


def is_leader() -> bool:
    """Whether this process writes the run folder."""
    return _jax("process_index", 0) == 0


@contextlib.contextmanager
def together(*facts: Any) -> Iterator[None]:
    """Do the block in every process, and go on only if it was done in all of them, from the same facts.

    Args:
        facts: what must be equal, as their texts.

    Raises:
        ValueError: in every process that did not fail itself, another failed or has other facts.
    """
    failure = None
    try:
        yield
    except Exception as error:
        failure = error
    if num_processes() > 1:
        from jax.experimental import multihost_utils

        own = bytes([failure is not None]) + hashlib.sha256(repr(facts).encode()).digest()
        found = np.asarray(multihost_utils.process_allgather(np.frombuffer(own, np.uint8)))
        failed, other = found[:, 0].nonzero()[0].tolist(), (found[:, 1:] != found[0, 1:]).any(axis=1).nonzero()[0]
        if failure is None and failed:
            raise ValueError(f"All processes must be able to begin. Received: an error in {failed}, see its output")
        if failure is None and len(other):
            raise ValueError(
                "All processes must be given the same options and see the same run folder. "
                f"Received: others than process 0's in {other.tolist()}"
            )
    if failure is not None:
        raise failure


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Do the block in one process of several: what saves makes variables, which Keras would lay on all devices."""
    distribution = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(distribution)


def wait() -> None:
    """Wait until every process is here."""
    if num_processes() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices("tf_mmloss")


class _WholeBatches(keras.distribution.DataParallel):
    """Every device gets the whole batch; `spread` gives it its rows inside the compiled step.

    Keras would cut the batch on the host, where one that does not divide is an error and where each process would have
    to be fed other rows.
    """

    def get_data_layout(self, data_shape: Any) -> keras.distribution.TensorLayout:
        return keras.distribution.TensorLayout([None] * len(data_shape), self.device_mesh)


class _Lay(keras.layers.Layer):
    """Lay the rows of a tensor along an axis of the devices; None lays all rows on each."""

    def __init__(self, axis: str | None, device_mesh: keras.distribution.DeviceMesh) -> None:
        super().__init__(dtype="float32")
        self.axis, self.device_mesh = axis, device_mesh

    def call(self, x: Any) -> Any:
        axes = [self.axis, *[None] * (len(x.shape) - 1)]
        return keras.distribution.distribute_tensor(x, keras.distribution.TensorLayout(axes, self.device_mesh))

    def compute_output_spec(self, x: Any) -> keras.KerasTensor:
        return keras.KerasTensor(x.shape, x.dtype)


@functools.cache
def _mirrored() -> Any:
    """One for the process: a second one would give the keys of the first one's sums to other tensors, which fails."""
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(_local_devices())


def _local_devices() -> list[str]:
    """Names of TensorFlow's GPUs, or of its processors where there are none."""
    import tensorflow as tf

    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return [device.name for device in devices]


def _jax(function: str, otherwise: int) -> int:
    if keras.backend.backend() != "jax":
        return otherwise
    import jax

    return int(getattr(jax, function)()) if jax.distributed.is_initialized() else otherwise
