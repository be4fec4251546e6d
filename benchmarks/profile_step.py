"""Where the time of a training step goes: the operations that TensorFlow's profiler saw, by kind.

python benchmarks/profile_step.py --precision bfloat16
"""

import argparse
import json
import os
import tempfile
from collections import Counter
from pathlib import Path

KINDS = {
    "convolution, gradient of the kernel": ("Conv2DBackpropFilter",),
    "convolution, gradient of the input": ("Conv2DBackpropInput",),
    "convolution": ("Conv2D",),
    "batch normalisation, gradient": ("BatchNormGrad",),
    "batch normalisation (half of them with ReLU)": ("BatchNorm",),
    "ReLU, gradient": ("ReluGrad",),
    "additions of the shortcuts, their gradients, weight decay": ("AddN", "AddV2"),
    "ReLU": ("Relu",),
    "SGD": ("ResourceApplyMomentum", "AssignVariable", "AssignSubVariable"),
}
REST = "everything else"


def kind(operation: str) -> str:
    """The first of KINDS whose words the operation's name has."""
    return next((name for name, words in KINDS.items() if any(word in operation for word in words)), REST)


def profile(precision: str, depth: int, batch: int, threads: int, steps: int) -> dict[str, float]:
    """Milliseconds of the operations of a step, by kind. Operations run side by side: the sum is more than a step."""
    import tensorflow as tf
    from keras_step import prepare
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    step, _ = prepare(precision, depth, batch, threads)
    for _ in range(5):
        step()
    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder):
            for _ in range(steps):
                step()
        space = xplane_pb2.XSpace.FromString(next(Path(folder).rglob("*.xplane.pb")).read_bytes())
    spent: Counter[str] = Counter()
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                name = plane.event_metadata[event.metadata_id].name
                if "/" in name and ":" in name and "::" not in name:  # an operation: "its/name:Type"
                    spent[kind(name.rpartition(":")[2])] += event.duration_ps / 1e9 / steps
    return {name: spent[name] for name in (*KINDS, REST)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precision", default="bfloat16", choices=("float32", "bfloat16"))
    parser.add_argument("--depth", type=int, default=32)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--steps", type=int, default=20)
    print(json.dumps(profile(**vars(parser.parse_args())), indent=1))


if __name__ == "__main__":
    main()
