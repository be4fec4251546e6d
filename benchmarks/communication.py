"""Count what the devices of one training step tell each other: ResNet-32, MM loss, ten classes.

    KERAS_BACKEND=jax python benchmarks/communication.py --devices 8
    KERAS_BACKEND=tensorflow python benchmarks/communication.py --devices 2

The devices are virtual ones of the processor. On JAX the all-reduces are read from the compiled program, after XLA has
merged what it can; on TensorFlow they are counted while the step is traced. Nothing is timed.
"""

import argparse
import math
import os
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
BYTES = {"f32": 4, "f64": 8, "bf16": 2, "f16": 2, "s32": 4, "pred": 1}


def program(devices: int, batch_size: int) -> str:
    """The compiled step of `--strategy data-parallel`, as XLA's text."""
    import jax
    import keras
    import numpy as np

    import tf_mmloss
    from tf_mmloss.train import strategy
    from tf_mmloss.train.config import Config

    with strategy.scope(Config(strategy="data-parallel")):
        network, images = tf_mmloss.resnet32(10), keras.Input((32, 32, 3))
        model = keras.Model(images, strategy.spread(network, images))
        model.compile(tf_mmloss.SGD(), tf_mmloss.MaxMarginLoss([100] * 10))
        batch = np.zeros((batch_size, 32, 32, 3), "float32"), np.zeros(batch_size, "int32")
        model.fit(*batch, batch_size=batch_size, verbose=0)  # builds the optimizer and the metrics
        lists = model.trainable_variables, model.non_trainable_variables, model.optimizer.variables
        state = tuple([v.value for v in variables] for variables in (*lists, model.metrics_variables))
        whole = jax.sharding.NamedSharding(state[0][0].sharding.mesh, jax.sharding.PartitionSpec())
        shardings = None, jax.tree.map(lambda _: whole, state)
        step = jax.jit(model.train_step, out_shardings=shardings)
        return step.lower(state, jax.device_put(batch, whole)).compile().as_text()


def in_program(text: str) -> Iterator[tuple[str, int, int]]:
    """Operation, tensors and bytes of every collective of a program."""
    for line in text.splitlines():
        found = re.search(
            r"= (.*?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\(", line
        )
        if found:
            shapes = re.findall(r"(\w+)\[([\d,]*)\]", found[1])
            sizes = [BYTES[kind] * math.prod(map(int, filter(None, shape.split(",")))) for kind, shape in shapes]
            yield found[2], len(sizes), sum(sizes)


def in_replicas(devices: int, batch_size: int) -> Iterator[tuple[str, int, int]]:
    """The same of `--strategy mirrored`, as the replicas ask for them."""
    import numpy as np
    import tensorflow as tf
    from tensorflow.python.ops import collective_ops

    import tf_mmloss

    asked: list[tuple[str, int, int]] = []
    real = collective_ops.all_reduce_v2

    def all_reduce(tensor: Any, *arguments: Any, **options: Any) -> Any:
        if tensor.device.endswith(":0"):
            asked.append(("all-reduce", 1, tensor.shape.num_elements() * tensor.dtype.size))
        return real(tensor, *arguments, **options)

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * devices)
    collective_ops.all_reduce_v2 = all_reduce
    with tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(devices)]).scope():
        model = tf_mmloss.resnet32(10)
        model.compile(tf_mmloss.SGD(), tf_mmloss.MaxMarginLoss([100] * 10))
    model.fit(np.zeros((batch_size, 32, 32, 3), "float32"), np.zeros(batch_size, "int32"), batch_size, verbose=0)
    return iter(asked)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=128)
    options = parser.parse_args()
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={options.devices}"
    import keras

    on_jax = keras.backend.backend() == "jax"
    arguments = options.devices, options.batch_size
    found = list(in_program(program(*arguments)) if on_jax else in_replicas(*arguments))
    for (operation, tensors, size), count in sorted(Counter(found).items(), key=lambda item: -item[0][2]):
        print(f"{count:4d} x {operation} of {tensors} tensor(s), {size:,} bytes")
    print(f"{len(found)} in all, {sum(size for *_, size in found):,} bytes a step")


if __name__ == "__main__":
    main()
