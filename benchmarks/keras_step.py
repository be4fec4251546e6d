"""Training step of the package's ResNet: forward, backward, SGD; cosine head, LDAM loss."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from peer import use_threads

import tf_mmloss
from tf_mmloss.augment import parse
from tf_mmloss.pipeline import train_dataset

POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}


def prepare(
    precision: str, depth: int, batch: int, threads: int, sam: float | None = None, augment: str | None = None
) -> tuple[Callable[[], Any], dict[str, Any]]:
    """Return the step that `fit` takes, and what it is.

    With `augment`, "none" or as for `tf_mmloss.augment.parse`, its batches come from the package's pipeline, else one
    batch is repeated.
    """
    use_threads(threads)
    keras.config.set_dtype_policy(POLICIES[precision])
    keras.utils.set_random_seed(0)
    model = tf_mmloss.resnet(depth, num_classes=10)
    if sam is not None:
        model = tf_mmloss.SAM(model, sam)
    loss = tf_mmloss.LDAMLoss(tf_mmloss.imbalance.imbalanced_counts(5000, 10, "longtail", 100))
    model.compile(optimizer=tf_mmloss.SGD(1e-3), loss=loss)
    model.make_train_function()

    rng = np.random.default_rng(0)
    if augment is None:
        images = rng.standard_normal((batch, 32, 32, 3), np.float32)
        labels = rng.integers(0, 10, batch, dtype=np.int32)
        batches = iter(tf.data.Dataset.from_tensors((images, labels)).repeat())
    else:
        shown = rng.integers(0, 256, (50 * batch, 32, 32, 3), dtype=np.uint8)
        labels = rng.integers(0, 10, len(shown), dtype=np.int32)
        normalize = tf_mmloss.normalization((0.5,) * 3, (0.25,) * 3)
        chosen = {"batch_size": batch, "augment": parse(augment)}
        batches = iter(train_dataset(shown, labels, num_classes=10, normalize=normalize, **chosen))
    facts = {
        "parameters": sum(int(np.prod(v.shape)) for v in model.trainable_variables),
        "versions": {"tensorflow": tf.__version__, "keras": keras.__version__, "tf_mmloss": tf_mmloss.__version__},
    }
    return lambda: model.train_function(batches), facts
