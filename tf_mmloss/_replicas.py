"""Sums over the replicas of `tf.distribute`, so that a batch is the global batch there too."""

from typing import Any

import keras


def num_replicas() -> int:
    """Replicas of the model that step together, seen from within one of them: 1 but under `tf.distribute`."""
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    return 1 if context is None else int(context.num_replicas_in_sync)


def sum_over_replicas(x: Any) -> Any:
    """Return the sum of all replicas' tensors `x`, in each of them; its gradient is the sum of theirs."""
    import tensorflow as tf

    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, x)
