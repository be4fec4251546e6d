"""What all losses share: labels in every form, class weights, scale and the weighted mean."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.src.backend import set_keras_mask  # as Keras' own losses mark what they ignore; it is nowhere public

from tf_mmloss._replicas import num_replicas, sum_over_replicas
from tf_mmloss._validation import choice, float_type, integer, number, received
from tf_mmloss._validation import name as keras_name
from tf_mmloss.imbalance import check_counts

REDUCTIONS = ("none", "sum", "sum_over_batch_size", "mean", "mean_with_sample_weight")

LARGEST_LABEL = 2**24  # up to it float32, to which Keras casts labels, has every integer
LARGEST = 1e18  # the product of two numbers below it is a float32

ONE_LOGIT = ": for one yes-or-no logit take AsymmetricLoss, or a head with two"

# How far a row of targets may be from a sum of one: bfloat16 rounds each entry by up to 0.2 %.
SUM_TOLERANCE = 5e-3


def loss_arguments(reduction: str | None, name: str | None, dtype: str | None) -> dict[str, Any]:
    """Return the arguments of `keras.losses.Loss` if a loss takes them; a dtype below float32 would round labels."""
    if reduction is not None:
        choice("reduction", reduction, REDUCTIONS)
    dtype = "float32" if dtype is None else float_type(dtype)
    if keras.dtype_policies.get(dtype).compute_dtype not in ("float32", "float64"):
        raise ValueError(f"`dtype` must be float32 or float64. {received('dtype', dtype)}")
    return {"name": keras_name(name, slash=False), "reduction": reduction, "dtype": dtype}


def check_scale(scale: float) -> float:
    """Return s as a float if float32 can scale logits with it."""
    return number("scale", scale, at_least=1 / LARGEST, below=LARGEST)


def check_ignore_class(ignore_class: int | None) -> int | None:
    """Return the label of what does not count, None or a whole number that float32 holds."""
    if ignore_class is None:
        return None
    return integer("ignore_class", ignore_class, at_least=-LARGEST_LABEL, at_most=LARGEST_LABEL)


def per_example(argument: str, value: Any, logits: Any) -> Any:
    """Return a hyper-parameter, a number or one for each example (B,), as a tensor of the dtype of `logits`."""
    is_tensor = ops.is_tensor(value)
    if not _rank(argument, value):
        # What has a dtype but is no NumPy scalar may be a tensor without a value yet.
        if not is_tensor:
            value = number(argument, value, above=-LARGEST, below=LARGEST)
        return ops.convert_to_tensor(value, dtype=logits.dtype)
    try:
        value = ops.convert_to_tensor(value, dtype=logits.dtype)
    except Exception as error:
        raise ValueError(f"`{argument}` must be numbers. {received(argument, value)}") from error
    rows = logits.shape[0] if len(logits.shape) else None  # a scalar is refused with its labels
    if len(value.shape) != 1 or (None not in (rows, value.shape[0]) and value.shape[0] != rows):
        raise ValueError(
            f"`{argument}` must be a number or have one for each example, shape ({rows},). "
            f"Received: {argument}.shape={tuple(value.shape)}"
        )
    values = None if is_tensor else seen(value)  # NaN of a tensor may come of NaN logits, and the loss is to be NaN
    if values is not None and not (np.abs(values) < LARGEST).all():
        raise ValueError(f"`{argument}` must be finite numbers < {LARGEST:g}. {received(argument, values)}")
    return value


def _rank(argument: str, value: Any) -> int:
    try:
        return np.ndim(value)
    except Exception as error:
        raise ValueError(f"`{argument}` must be numbers. {received(argument, value)}") from error


def seen(x: Any) -> np.ndarray | None:
    """Return a tensor's values, or None within compiled code and where reading them would wait for the device."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        visible = hasattr(x, "numpy")
    elif backend == "jax":
        import jax

        visible = not isinstance(x, jax.core.Tracer) and x.is_fully_addressable
    else:
        import torch

        # Training on PyTorch is eager: on a GPU a look at the labels would stop it in every step.
        # Without gradients Keras infers shapes, from tensors of ones that are no labels.
        visible = x.device.type == "cpu" and torch.is_grad_enabled() and not torch.compiler.is_compiling()
    return ops.convert_to_numpy(x) if visible else None


def as_tensor(value: Any) -> Any:
    """Return a tensor: of a TensorFlow variable, which Keras takes for one, its value."""
    tensor = ops.convert_to_tensor(value)
    return tensor.read_value() if hasattr(tensor, "read_value") else tensor


def as_logits(y_pred: Any) -> Any:
    """Return logits as a tensor of float32 or float64.

    float16 ends at 65504 and has no floor of 1e-12; of integers, the margins would be cut to integers too.
    """
    logits = as_tensor(y_pred)
    whole = keras.backend.standardize_dtype(logits.dtype) in ("float32", "float64")
    return logits if whole else ops.cast(logits, "float32")


def as_targets(y_true: Any, y_pred: Any) -> Any:
    """Return what the examples should be: integer labels (B,), or rows (B, C) of which some may be soft.

    What is no label, and a row that is no distribution over the classes, is refused where the values can be seen.
    In compiled code the label becomes -1 and the row NaN, so that the loss is NaN (see `labelled`). What JAX does
    before that cannot be seen: `jax.jit`, and so `fit`, keeps the lower 32 bits of int64 labels. Of the arrays that a
    `fit` is given, `StopOnNonFinite` refuses those.

    Args:
        y_true: labels (B,) or (B, 1) of any numeric type, or one-hot or soft rows (B, C) that sum to one.
        y_pred: (B, C) logits.

    Returns:
        int32 (B,), or (B, C) of the dtype of `as_logits(y_pred)`. One-hot rows that can be seen are returned as labels.

    Raises:
        ValueError: `y_pred` is not (B, C), `y_true` has another shape than those three, a label is not a whole
            number in [0, C), a row is negative or does not sum to one.
    """
    y_true, y_pred = _uncut(y_true), as_logits(y_pred)
    if len(y_pred.shape) != 2 or y_pred.shape[-1] == 1:
        raise ValueError(
            f"`y_pred` must have shape (batch, classes >= 2){ONE_LOGIT}. Received: y_pred.shape={tuple(y_pred.shape)}"
        )
    num_classes = y_pred.shape[-1]
    if len(y_true.shape) and None not in (y_true.shape[0], y_pred.shape[0]) and y_true.shape[0] != y_pred.shape[0]:
        raise ValueError(
            f"`y_true` must be for the {y_pred.shape[0]} examples of `y_pred`. Received: y_true.shape={y_true.shape}"
        )
    if len(y_true.shape) == 2 and y_true.shape[-1] == num_classes:
        return _rows(y_true, y_pred.dtype)
    if len(y_true.shape) == 2 and y_true.shape[-1] == 1:
        y_true = ops.squeeze(y_true, axis=-1)
    if len(y_true.shape) != 1:
        raise ValueError(
            f"`y_true` must have shape (batch,), (batch, 1) or, one-hot, (batch, {num_classes}). "
            f"Received: y_true.shape={y_true.shape}"
        )
    return _labels(y_true, num_classes)


def as_multi_hot(y_true: Any, y_pred: Any) -> Any:
    """Return which classes each example has, rows (B, C) of 0 and 1 in the dtype of `as_logits(y_pred)`.

    What is below 0 or above 1 is refused where it can be seen, and becomes NaN in compiled code.

    Args:
        y_true: rows (B, C) of numbers from 0 to 1; of one logit also (B,).
        y_pred: (B, C) logits, C >= 1.

    Raises:
        ValueError: another shape, a number out of [0, 1].
    """
    y_true, y_pred = _uncut(y_true), as_logits(y_pred)
    if len(y_pred.shape) != 2:
        raise ValueError(f"`y_pred` must have shape (batch, classes). Received: y_pred.shape={tuple(y_pred.shape)}")
    if len(y_true.shape) == 1 and y_pred.shape[-1] == 1:
        y_true = y_true[:, None]
    if len(y_true.shape) != 2 or y_true.shape[-1] != y_pred.shape[-1]:
        raise ValueError(
            f"`y_true` must be multi-hot rows of shape (batch, {y_pred.shape[-1]}): for labels, of which each example "
            "has one, take another loss, such as ClassBalancedSigmoidLoss or LogitAdjustedLoss. "
            f"Received: y_true.shape={tuple(y_true.shape)}"
        )
    if None not in (y_true.shape[0], y_pred.shape[0]) and y_true.shape[0] != y_pred.shape[0]:
        raise ValueError(
            f"`y_true` must have a row for each of {y_pred.shape[0]} rows of `y_pred`. Received: {y_true.shape[0]} rows"
        )
    rows = seen(y_true)
    if rows is not None:
        exact = rows.astype("float64")
        bad = np.flatnonzero(~((exact >= 0) & (exact <= 1)).all(axis=-1))
        if bad.size:
            raise ValueError(
                f"`y_true` must be multi-hot rows of numbers from 0 to 1. Received: y_true[{bad[0]}]={rows[bad[0]]} "
                f"({bad.size} of {len(rows)} are not)"
            )
    targets = ops.cast(y_true, y_pred.dtype)
    return targets if rows is not None else ops.where((targets >= 0) & (targets <= 1), targets, np.nan)


def as_labels(y_true: Any, y_pred: Any, *, of: str = "This function") -> Any:
    """Return integer labels (B,) from labels of shape (B,), (B, 1) or one-hot (B, C); see `as_targets`.

    Soft rows are refused where they can be seen, and become -1 in compiled code.

    Args:
        y_true: labels, of any numeric type.
        y_pred: (B, C) logits, for their width.
        of: what the labels are for, in the message that refuses soft rows.

    Returns:
        int32 tensor (B,).

    Raises:
        ValueError: as for `as_targets`, and for soft rows.
    """
    targets = as_targets(y_true, y_pred)
    if len(targets.shape) == 1:
        return targets
    rows = seen(targets)
    if rows is not None:
        soft = int(np.flatnonzero(rows.max(axis=-1) != 1)[0])
        raise ValueError(
            f"`y_true` must be labels or one-hot rows: {of} is not defined for soft targets, CrossEntropyLoss, "
            f"LogitAdjustedLoss, VSLoss and FocalLoss are, among others. Received: y_true[{soft}]={rows[soft]}"
        )
    hard = ops.max(targets, axis=-1, initial=0.0) == 1
    return ops.where(hard, ops.cast(ops.argmax(targets, axis=-1), "int32"), -1)


def labelled(losses: Any, labels: Any) -> Any:
    """Return the losses (B,), NaN where there is no label."""
    return ops.where(labels >= 0, losses, np.nan)


def _uncut(y_true: Any) -> Any:
    """A tensor of labels: of those beyond 32 bits as floats, as JAX would keep the lower 32 bits of each."""
    _refuse_names(y_true)
    if isinstance(y_true, (int, list, tuple, np.ndarray, np.generic)):
        try:
            values = np.asarray(y_true)
        except ValueError:  # tensors, or rows of several lengths
            return ops.convert_to_tensor(y_true)
        if beyond_32_bits(values):
            y_true = values.astype("float64")
    return ops.convert_to_tensor(y_true)


def _refuse_names(y_true: Any) -> None:
    values = y_true
    if isinstance(y_true, (str, bytes, list, tuple)):
        try:
            values = np.asarray(y_true)
        except Exception:  # tensors, or rows of several lengths
            return
    dtype = getattr(values, "dtype", None)
    kind = getattr(dtype, "kind", "")
    named = kind == "O" and any(isinstance(value, (str, bytes)) for value in np.ravel(values))
    if named or kind in ("U", "S") or getattr(dtype, "name", "") == "string":  # the last is TensorFlow's
        raise ValueError(
            "`y_true` must be numbers: tf_mmloss.imbalance.class_indices makes labels of names. "
            f"{received('y_true', y_true)}"
        )


def beyond_32_bits(values: np.ndarray) -> bool:
    """Whether there are integers that int32 cannot hold."""
    return values.dtype in ("int64", "uint64") and bool(((values >= 2**31) | (values < -(2**31))).any())


def _labels(y_true: Any, num_classes: int) -> Any:
    values = seen(y_true)
    if values is not None:
        exact = values.astype("float64")
        bad = np.flatnonzero(~((exact >= 0) & (exact < num_classes) & (exact == np.floor(exact))))
        if bad.size:
            raise ValueError(
                f"`y_true` must be whole numbers in [0, {num_classes}), the classes of `y_pred`. Received: "
                f"y_true[{bad[0]}]={values[bad[0]]} ({bad.size} of {values.size} are not)"
            )
        return ops.cast(y_true, "int32")
    dtype = keras.backend.standardize_dtype(y_true.dtype)
    if dtype in ("bool", "int8", "int16", "uint8", "uint16"):  # they may not hold the number of classes
        y_true = ops.cast(y_true, "int32")
    valid = (y_true >= 0) & (y_true < num_classes)
    if "float" in dtype:
        valid = valid & (y_true == ops.floor(y_true))
        y_true = ops.where(valid, y_true, 0)  # a cast of NaN or infinity is undefined
    return ops.where(valid, ops.cast(y_true, "int32"), -1)


def _rows(y_true: Any, dtype: Any) -> Any:
    rows = seen(y_true)
    if rows is not None:
        exact = rows.astype("float64")
        sums = exact.sum(axis=-1)
        bad = np.flatnonzero(~((np.abs(sums - 1) <= SUM_TOLERANCE) & (exact >= 0).all(axis=-1)))
        if bad.size:
            raise ValueError(
                "`y_true` of shape (batch, classes) must have rows that are not negative and sum to one; for examples "
                "of several classes take AsymmetricLoss or DistributionBalancedLoss. Received: "
                f"y_true[{bad[0]}]={rows[bad[0]]} ({bad.size} of {len(rows)} are not)"
            )
        if (exact.max(axis=-1) == 1).all():
            return ops.cast(ops.argmax(y_true, axis=-1), "int32")
        return ops.cast(y_true, dtype)
    y_true = ops.cast(y_true, dtype)
    valid = (ops.abs(ops.sum(y_true, axis=-1) - 1) <= SUM_TOLERANCE) & (ops.min(y_true, axis=-1, initial=0.0) >= 0)
    return ops.where(valid[:, None], y_true, np.nan)


def check_counts_of_logits(of_classes: np.ndarray, y_pred: Any) -> None:
    """Refuse counts, or what was computed from them for each class, that are not as many as the logits (B, C)."""
    shape = ops.convert_to_tensor(y_pred).shape
    if not len(shape) or shape[-1] != len(of_classes):
        raise ValueError(
            f"`cls_counts` must have one count for each logit of `y_pred`. Received: {len(of_classes)} counts, "
            f"y_pred.shape={shape}"
        )


def target_logits(labels: Any, logits: Any) -> Any:
    """Return u_y, shape (B,)."""
    return ops.take_along_axis(logits, labels[:, None], axis=-1)[:, 0]


def rival_logits(labels: Any, logits: Any) -> Any:
    """Return max_{j != y} u_j, shape (B,)."""
    return ops.max(update_targets(labels, logits, ops.full_like(logits[:, 0], -np.inf)), axis=-1, initial=-np.inf)


def rivals_of_each(logits: Any) -> Any:
    """Return max_{j != c} u_j of every class c, shape (B, C)."""
    largest = ops.argmax(logits, axis=-1)
    is_largest = ops.one_hot(largest, logits.shape[-1], dtype="bool")
    # `initial`, as XLA and Keras refuse the largest of no rows without it.
    second = ops.max(ops.where(is_largest, -np.inf, logits), axis=-1, keepdims=True, initial=-np.inf)
    return ops.where(is_largest, second, ops.max(logits, axis=-1, keepdims=True, initial=-np.inf))


def over_targets(targets: Any, losses: Any) -> Any:
    """Return the losses (B,) of the targets, labels (B,) or rows t (B, C), from those of each class (B, C).

    l_y of a label y, NaN where there is none,   sum_c t_c l_c of a row
    """
    if len(targets.shape) == 1:
        return labelled(target_logits(targets, losses), targets)
    return ops.sum(targets * losses, axis=-1)


def update_targets(labels: Any, logits: Any, values: Any, *, add: bool = False) -> Any:
    """Return logits (B, C) whose target logits are `values` (B,), or are raised by them with `add`."""
    if keras.backend.backend() == "jax":
        # XLA copies what it scatters into; this mask becomes part of the passes that read the result.
        is_target = ops.arange(logits.shape[-1], dtype="int32") == labels[:, None]
        values = values[:, None]
        return logits + ops.where(is_target, values, 0) if add else ops.where(is_target, values, logits)
    # Elsewhere writing at B positions costs one pass, a (B, C) mask two. TensorFlow fails at a position of -1.
    positions = ops.stack([ops.arange(ops.shape(labels)[0], dtype="int32"), ops.maximum(labels, 0)], axis=-1)
    return ops.scatter_update(logits, positions, values, reduction="add" if add else None)


def flat_labels(y_true: Any, positions: tuple[int | None, ...], num_classes: int) -> Any:
    """Return labels of positions (B, ...) as labels (N,), and rows (B, ..., C) as rows (N, C).

    Args:
        y_true: labels (B, ...) or (B, ..., 1), or one-hot or soft rows (B, ..., C).
        positions: the shape (B, ...), None where it is unknown.
        num_classes: C.

    Returns:
        A tensor (N,) or (N, C) of the same type, N the number of positions.

    Raises:
        ValueError: another shape than those three.
    """
    y_true = _uncut(y_true)
    shape, last = tuple(y_true.shape), {num_classes: (num_classes,), 1: ()}
    is_label = len(shape) == len(positions)
    if not fits(shape if is_label else shape[:-1], positions) or not (is_label or shape[-1] in last):
        raise ValueError(
            f"`y_true` must have shape {positions}, {(*positions, 1)} or, one-hot, {(*positions, num_classes)}, as "
            f"`y_pred` has it. Received: y_true.shape={shape}"
        )
    return ops.reshape(y_true, (-1, *(() if is_label else last[shape[-1]])))


def without_ignored(y_true: Any, y_pred: Any, ignore_class: int | None, dtype: Any) -> tuple[Any, Any]:
    """Give the examples of `ignore_class` the label 0, and say which count; see `LongTailLoss`.

    Args:
        y_true: labels (N,) or (N, 1), or one-hot or soft rows (N, C).
        y_pred: (N, C) logits.
        ignore_class: a label, or None for no such class.
        dtype: the float type in which labels are compared.

    Returns:
        y_true, and whether each example counts, (N,) of bool: None if no class is ignored, or `y_pred` has another
        shape, which is refused with the labels.
    """
    if ignore_class is None or len(y_pred.shape) != 2:
        return y_true, None
    y_true = ops.cast(_uncut(y_true), dtype)
    if len(y_true.shape) == 2 and y_true.shape[-1] == y_pred.shape[-1]:
        classes = np.arange(y_pred.shape[-1])
        ignored, first = (ops.cast(classes == c, dtype) for c in (ignore_class, 0))
        counts = ops.any(y_true != ignored, axis=-1)
        return ops.where(counts[:, None], y_true, first), counts
    counts = y_true != ignore_class
    return ops.where(counts, y_true, 0), ops.reshape(counts, (-1,))


def fits(shape: tuple[int | None, ...], positions: tuple[int | None, ...]) -> bool:
    """Return whether two shapes may be the same one; None is any number."""
    return len(shape) == len(positions) and all(
        a is None or b is None or a == b for a, b in zip(shape, positions, strict=True)
    )


def weights_of_positions(sample_weight: Any, y_pred: Any) -> Any:
    """Return sample weights of logits (B, ..., C) as one for each position, (B, ...).

    Args:
        sample_weight: one for each position, (B, ...) or (B, ..., 1); or for each example, (B,), or along the axes
            between, as (B, H) for positions (B, H, W), or (B, 1, W); or one for all.
        y_pred: (B, ..., C) logits.

    Returns:
        A tensor (B, ...).

    Raises:
        ValueError: another shape.
    """
    weights, positions = ops.convert_to_tensor(sample_weight), tuple(y_pred.shape[:-1])
    shape = tuple(weights.shape)
    if len(shape) == len(positions) + 1 and shape[-1] == 1:
        shape = shape[:-1]
    ones = (1,) * (len(positions) - len(shape))
    if not fits(tuple(None if n == 1 else n for n in (*shape, *ones)), positions):
        dense = len(positions) > 1
        raise ValueError(
            f"`sample_weight` must have one weight for each {'position or ' * dense}example of `y_pred`, shape "
            f"{positions}{f' or ({positions[0]},)' * dense}. Received: sample_weight.shape={tuple(weights.shape)}"
        )
    whole = ops.shape(weights)[: len(shape)]
    return ops.broadcast_to(ops.reshape(weights, (*whole, *ones)), ops.shape(y_pred)[:-1])


def share_of_global_mean(mean: Any, divisor: Any, replicas: int) -> Any:
    """Return a replica's share of the mean over the global batch, from the mean over its own rows.

        sum_r share_r = sum_i w_i l_i / sum_i w_i    over the rows i of all replicas

    Keras sums the replicas' gradients, and logs the mean of R share_r weighted by their rows. So a share has the
    gradient of its own rows' part, and 1/R of the whole as its value, however unevenly the rows are split.

    Args:
        mean: the replica's weighted mean divided by R, as Keras scales it; 0 without rows.
        divisor: the replica's sum of weights.
        replicas: R, see `tf_mmloss._replicas.num_replicas`.

    Returns:
        A number.
    """
    weighted_sum = ops.sum(mean) * replicas * divisor  # without rows, Keras may leave a `mean` of shape (0,)
    whole, divisor = ops.unstack(sum_over_replicas(ops.stop_gradient(ops.stack([weighted_sum, divisor]))), 2)
    share = ops.divide_no_nan(weighted_sum, divisor)
    return share + ops.stop_gradient(ops.divide_no_nan(whole, divisor) / replicas - share)


CLASS_WEIGHTS = "tf_mmloss_class_weights"  # what the paths of their variables begin with
INFLUENCE = "tf_mmloss_influence"  # of the variable that `DeferredInfluence` sets


class LossState(keras.layers.Layer):
    """Variables of a loss, a layer so that a model can keep them: part of its state, but not of its saved weights."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            for variable in self.variables:
                variable.value  # noqa: B018
        except TypeError as error:  # Keras on JAX hands them to the step and leaves nothing in the variables
            raise RuntimeError(
                "A train step of your own on JAX must compute the loss within a `keras.StatelessScope` of the model's "
                f"variables, as that of Keras does: the loss has state among them. {received('state', self.name)}"
            ) from error
        return super().__call__(*args, **kwargs)

    @property
    def weights(self) -> list[Any]:
        """None: `variables` has them for Keras to train with, `get_weights` of a model does not change."""
        return []

    def save_own_variables(self, store: Any) -> None:
        """Save nothing: a model is loadable with and without them."""

    def load_own_variables(self, store: Any) -> None:
        """Load nothing, see `save_own_variables`."""


@keras.saving.register_keras_serializable(package="tf_mmloss")
class ClassWeights(LossState):
    """One weight per class, ones until assigned: the state that re-weighting changes during training.

    A layer, so that attaching it to a model makes its variable part of the model's state on every
    backend (JAX would otherwise compile the value in as a constant).
    """

    def __init__(self, num_classes: int, **kwargs: Any) -> None:
        super().__init__(name=CLASS_WEIGHTS, trainable=False, dtype="float32", **kwargs)
        self.weight = self.add_weight(shape=(num_classes,), initializer="ones", trainable=False, name="weight")
        self.held_by: int | None = None  # the `id` of the callback that assigns them

    def call(self, targets: Any) -> Any:
        """Return the weights (B,) of labels (B,), or of rows (B, C): sum_c t_c w_c."""
        if len(targets.shape) == 2:
            return ops.matmul(ops.cast(targets, self.weight.dtype), self.weight)
        return ops.take(self.weight, targets, axis=0)

    def get_config(self) -> dict[str, Any]:
        return {"num_classes": self.weight.shape[0]}


@keras.saving.register_keras_serializable(package="tf_mmloss")
class LongTailLoss(keras.losses.Loss):
    """Base of the losses: a child overrides `example_loss(labels, logits) -> (B,)`.

    A loss that is defined for soft targets (B, C), rows that sum to one, has `soft_loss(targets, logits) -> (B,)` too.
    The others refuse them. What is no label is refused where it can be seen; in compiled code its loss is NaN.

    Logits may be (B, ..., C), of pixels or of the words of a sequence, with labels (B, ...) or rows (B, ..., C): each
    position is then an example, here and wherever a loss speaks of the batch. Sample weights are (B, ...), or (B,) for
    all positions of an example; `reduction=None` gives (B, ...).

    The batch loss is the weighted mean  sum_i w_{y_i} l_i / sum_i w_{y_i},  so that weights are 1 on
    average in the batch (paper, section 4, baseline 2). Class weights w are ones unless
    `DeferredReweighting` changes them. The batch is the global one, also under `tf.distribute`, where Keras
    alone would divide by the weights of each replica. A mask of Keras, as `Masking` makes it, is a weight of 0 or 1.

    A pitfall of weighted means: `evaluate(sample_weight=...)` averages those of the batches by their sizes, so it
    depends on the batch size, and in batches of one the weights do nothing. Keras' own losses with this reduction do
    the same. For one number over all examples evaluate without weights and `reduction=None`, and average yourself.

    Args:
        cls_counts: (C,) training examples per class, for the losses that use them; else None.
        scale: s > 0, multiplies the logits inside the loss; from 1e-18 to 1e18, for float32. Default 1.
        reduction: as in `keras.losses.Loss`. Default "mean_with_sample_weight", the weighted mean above.
        name: name of the loss, a string.
        dtype: float32 (default) or float64. Less would round labels and is refused.
        ignore_class: the label of what does not count, such as 255 or -1 of pixels without a class: loss and weight are
            0, and the mean is over the others. A one-hot row is ignored if it is that of `ignore_class`, which is all
            zeros where `ignore_class` is none of the C classes. Default None.

    Attributes:
        probabilistic: whether the loss fits probabilities; a hinge does not, and a softmax of its bare cosines would be
            nearly uniform.
        activation: "softmax" or "sigmoid", what gives those probabilities of s * logits; see `Probabilities`.
        adjusts_priors: whether the logits of a network that was trained with it have the class frequencies taken out.
    """

    probabilistic = True
    activation = "softmax"
    adjusts_priors = False

    # Whether the loss is of features beside the logits: the model must be `tf_mmloss.models.with_features`.
    needs_features = False

    # Whether a row's loss depends on the batch's others: `example_loss` then has -1 as the label of what is ignored,
    # otherwise 0.
    couples_rows = False

    # The losses (B,) of soft targets (B, C) and logits (B, C), for a loss that is defined for them.
    soft_loss: Callable[..., Any] | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if {"example_loss", "margins"} & set(vars(cls)) and "soft_loss" not in vars(cls):
            cls.soft_loss = None  # a parent's is that of another loss

    def __init__(
        self,
        cls_counts: Sequence[int] | np.ndarray | None = None,
        *,
        scale: float = 1.0,
        reduction: str | None = "mean_with_sample_weight",
        name: str | None = None,
        dtype: str | None = None,
        ignore_class: int | None = None,
    ) -> None:
        super().__init__(**loss_arguments(reduction, name, dtype))
        self.scale = check_scale(scale)
        self.ignore_class = check_ignore_class(ignore_class)
        # A plain list: an array would come back from a saved model as a dictionary.
        self.cls_counts = None if cls_counts is None else check_counts(cls_counts).tolist()
        self.class_weights: ClassWeights | None = None

    def enable_class_weights(self, num_classes: int) -> bool:
        """Give the loss class weights, ones at first; return whether they are new."""
        expected = num_classes if self.cls_counts is None else len(self.cls_counts)
        if self.class_weights is not None:
            expected = self.class_weights.weight.shape[0]
        if num_classes != expected:
            raise ValueError(
                f"`cls_counts` must have one count for each of the loss's {expected} classes. "
                f"Received: {num_classes} counts"
            )
        if self.class_weights is not None:
            return False
        self.class_weights = ClassWeights(num_classes)
        return True

    def callbacks(self) -> list[keras.callbacks.Callback]:
        """Return the callbacks that the loss needs in training; none by default.

        The trainer calls their `set_model` before it restores a checkpoint: one that makes the loss's state, such as a
        `LossState`, part of the model does so there. In a `fit` of your own, pass them in `callbacks=`.
        """
        return []

    def example_loss(self, labels: Any, logits: Any) -> Any:
        """Return the losses (B,) of int32 labels (B,) and logits (B, C). The hook of every child.

        In compiled code a label may be -1, which is none: what is returned there is replaced by NaN.
        """
        raise NotImplementedError

    def _targets(self, y_true: Any, y_pred: Any) -> Any:
        """Labels (N,), or rows (N, C) where the loss is defined for them."""
        return (
            as_labels(y_true, y_pred, of=type(self).__name__) if self.soft_loss is None else as_targets(y_true, y_pred)
        )

    def _examples(self, y_true: Any, y_pred: Any) -> tuple[Any, Any, Any]:
        """One row for each position: targets (N,) or (N, C), logits (N, C), and whether it counts (N,), None for all.

        Of what does not count, the label is 0, and so are the logits, whatever they were.
        """
        y_pred = as_tensor(y_pred)
        if len(y_pred.shape) > 2:
            num_classes = y_pred.shape[-1]
            if num_classes == 1:
                raise ValueError(
                    f"`y_pred` must have shape (batch, ..., classes >= 2){ONE_LOGIT}. "
                    f"Received: y_pred.shape={tuple(y_pred.shape)}"
                )
            y_true = flat_labels(y_true, tuple(y_pred.shape[:-1]), num_classes)
            y_pred = ops.reshape(y_pred, (-1, num_classes))
        y_true, counts = without_ignored(y_true, y_pred, self.ignore_class, self.dtype)
        targets = self._targets(y_true, y_pred)
        if counts is not None:
            y_pred = ops.where(counts[:, None], y_pred, 0)
        return targets, y_pred, counts

    def call(self, y_true: Any, y_pred: Any) -> Any:
        targets, logits, counts = self._examples(y_true, y_pred)
        if self.cls_counts is not None and logits.shape[-1] != len(self.cls_counts):
            raise ValueError(
                f"`y_pred` must have a logit for each of the {len(self.cls_counts)} classes of `cls_counts`. "
                f"Received: y_pred.shape={tuple(y_pred.shape)}"
            )
        if self.soft_loss is not None and len(targets.shape) == 2:
            losses = self.soft_loss(targets, logits)
        else:
            seen_by = ops.where(counts, targets, -1) if self.couples_rows and counts is not None else targets
            losses = labelled(self.example_loss(seen_by, logits), targets)
        dense = len(y_pred.shape) > 2
        if dense:
            losses = ops.reshape(losses, ops.shape(y_pred)[:-1])
        if counts is not None:
            counts = ops.reshape(counts, ops.shape(losses)) if dense else counts
            losses = ops.where(counts, losses, 0)
            set_keras_mask(losses, counts)
        return losses

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        _refuse_names(y_true)  # before Keras casts them
        y_pred = ops.convert_to_tensor(y_pred)
        dense = len(y_pred.shape) > 2
        if len(y_pred.shape) > 1 and sample_weight is not None:
            sample_weight = weights_of_positions(sample_weight, y_pred)
        if self.class_weights is not None:
            if self.class_weights.weight.shape[0] != y_pred.shape[-1]:
                raise ValueError(
                    f"`cls_counts` must have one count for each of the {y_pred.shape[-1]} outputs of the model. "
                    f"Received: {self.class_weights.weight.shape[0]} counts"
                )
            weights = self.class_weights(self._examples(y_true, y_pred)[0])
            if sample_weight is not None:
                weights = weights * ops.reshape(ops.cast(sample_weight, weights.dtype), (-1,))
            sample_weight = ops.reshape(weights, ops.shape(y_pred)[:-1]) if dense else weights
        loss, replicas = super().__call__(y_true, y_pred, sample_weight), num_replicas()
        if replicas == 1 or self.reduction in (None, "none", "sum"):
            return loss
        weighted = self.reduction == "mean_with_sample_weight" and sample_weight is not None
        weights = ops.cast(sample_weight, self.dtype) if weighted else ops.ones_like(y_pred[..., 0], self.dtype)
        counts = None if self.ignore_class is None else self._examples(y_true, y_pred)[2]
        for mask in (getattr(y_pred, "_keras_mask", None), counts):  # on TensorFlow, the mask is an attribute
            if mask is not None:
                weights = ops.reshape(weights, (-1,)) * ops.reshape(ops.cast(mask, self.dtype), (-1,))
        return share_of_global_mean(loss, ops.sum(weights), replicas)

    def get_config(self) -> dict[str, Any]:
        config = {**super().get_config(), "scale": self.scale, "dtype": self.dtype, "ignore_class": self.ignore_class}
        return config if self.cls_counts is None else {"cls_counts": self.cls_counts, **config}
