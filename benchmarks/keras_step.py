"""Training step of the package's ResNet: forward, backward, SGD; cosine head, LDAM loss."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from peer import use_threads

import tf_mmloss

POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}


def prepare(precision: str, depth: int, batch: int, threads: int) -> tuple[Callable[[], Any], dict[str, Any]]:
    """Return the step that `fit` takes, and what it is."""
    use_threads(threads)
    keras.config.set_dtype_policy(POLICIES[precision])
    keras.utils.set_random_seed(0)
    model = tf_mmloss.resnet(depth, num_classes=10)
    loss = tf_mmloss.LDAMLoss(tf_mmloss.imbalance.imbalanced_counts(5000, 10, "longtail", 100))
    model.compile(optimizer=tf_mmloss.SGD(1e-3), loss=loss)
    model.make_train_function()

    rng = np.random.default_rng(0)
    images = rng.standard_normal((batch, 32, 32, 3), np.float32)
    labels = rng.integers(0, 10, batch, dtype=np.int32)
    batches = iter(tf.data.Dataset.from_tensors((images, labels)).repeat())
    facts = {
        "parameters": sum(int(np.prod(v.shape)) for v in model.trainable_variables),
        "versions": {"tensorflow": tf.__version__, "keras": keras.__version__, "tf_mmloss": tf_mmloss.__version__},
    }
    return lambda: model.train_function(batches), facts
