"""An epoch of the package on JAX with the images on the device: batch by batch, as one program, several runs at once.

The network, loss and optimizer of `keras_step`; the rows of an epoch are drawn on the host, as in training.
"""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import keras
import numpy as np

import tf_mmloss
from tf_mmloss.device_input import DeviceImages, EpochModel, EpochRows, SeveralRuns

POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}


def prepare(
    way: str, precision: str, depth: int, batch: int, largest_class: int, runs: int = 1
) -> tuple[Callable[[], Any], dict[str, Any]]:
    """Return an epoch, and what it is.

    Args:
        way: "device" (a compiled step a batch), "epoch" (a program an epoch) or "runs" (one for so many `runs`).
        precision, depth, batch: of the training.
        largest_class: images of the largest class of a long tail of 100:1.
        runs: how many.
    """
    keras.config.set_dtype_policy(POLICIES[precision])
    keras.utils.set_random_seed(0)
    cls_counts = tf_mmloss.imbalance.imbalanced_counts(largest_class, 10, "longtail", min(100, largest_class))
    labels = np.repeat(np.arange(10), cls_counts)
    images = np.random.default_rng(0).integers(0, 256, (len(labels), 32, 32, 3), dtype=np.uint8)
    rows = keras.Input((5,), dtype="int32")
    network = tf_mmloss.resnet(depth, num_classes=10)
    normalize = tf_mmloss.normalization((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    outputs = network(DeviceImages(images, normalize)(rows))
    whole = way != "device"
    model = EpochModel(rows, outputs, scan_batch_size=batch) if whole else keras.Model(rows, outputs)
    model.compile(tf_mmloss.SGD(1e-3), tf_mmloss.LDAMLoss(cls_counts), metrics=["accuracy"])
    batch_size = len(labels) if whole else batch
    feeds = [EpochRows(labels, num_classes=10, batch_size=batch_size, seed=seed) for seed in range(runs)]
    facts = {
        "device": jax.devices()[0].device_kind,
        "parameters": sum(int(np.prod(v.shape)) for v in model.trainable_variables),
        "images": runs * len(labels),
        "versions": {"jax": jax.__version__, "keras": keras.__version__, "tf_mmloss": tf_mmloss.__version__},
    }
    return (_one if runs == 1 else _several)(model, network, feeds, depth), facts


def device_memory() -> int | None:
    """Peak bytes in use on the device, where it tells."""
    return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


def _one(model: keras.Model, network: keras.Model, feeds: list[EpochRows], depth: int) -> Callable[[], Any]:
    (feed,) = feeds
    model.optimizer.build(model.trainable_variables)
    model.test_on_batch(np.zeros((1, 5), np.int32), np.zeros(1, np.int32))  # builds the metrics
    model.make_train_function()
    groups = (
        model.trainable_variables,
        model.non_trainable_variables,
        model.optimizer.variables,
        model.metrics_variables,
    )
    state: Any = tuple([v.value for v in group] for group in groups)
    batches = (feed[i] for i in itertools.count())

    def epoch() -> None:
        nonlocal state
        for _ in range(feed.steps_per_epoch):
            _, state = model.train_function(state, batches)
        jax.block_until_ready(state)

    return epoch


def _several(model: keras.Model, network: keras.Model, feeds: list[EpochRows], depth: int) -> Callable[[], Any]:
    several, states = SeveralRuns(model), []
    for seed in range(len(feeds)):
        keras.utils.set_random_seed(seed)
        network.set_weights(tf_mmloss.resnet(depth, num_classes=10).get_weights())
        states.append(several.state())
    state = several.stack(states)
    counter = itertools.count()

    def epoch() -> None:
        nonlocal state
        i = next(counter)
        rows, labels = (np.stack(part) for part in zip(*(feed[i] for feed in feeds), strict=True))
        _, state = several.train_epoch(state, (rows, labels))
        jax.block_until_ready(state)

    return epoch
