"""Random numbers that are a function of the logits: no state to attach, to save or to share between devices.

A row's numbers are a hash of the bits of its logits as float32, of the column and of a seed. Logits differ from
example to example and from step to step, so the numbers do too; the same logits get the same numbers on every backend,
compiled or not, and a resumed training draws what it would have drawn. Two rows of equal logits share theirs.
"""

import math
from typing import Any

import numpy as np
from keras import ops

from tf_mmloss._validation import numeric

_MASK = 0xFFFFFFFF
_BITS = 23  # of a float32's fraction: (k + 1/2) / 2^23 is exact


def uniforms(logits: Any, seed: int) -> Any:
    """Return numbers (B, C) in (0, 1), float32, for logits (B, C).

    Args:
        logits: (B, C), of any float type.
        seed: an integer >= 0.

    Returns:
        float32 (B, C), constant in the gradient.
    """
    logits = ops.stop_gradient(ops.convert_to_tensor(logits))
    bits = ops.view(ops.cast(logits, "float32"), "int32")
    # PyTorch has uint32 as int64, whose products keep the lower 32 bits that the mask leaves.
    columns = _column_keys(logits.shape[-1], seed)
    rows = _mixed(_word(ops.cast(bits, "uint32")) ^ ops.convert_to_tensor(columns[0], dtype="uint32"))
    row_keys = ops.sum(rows, axis=-1, keepdims=True)
    hashed = _mixed(_word(row_keys + ops.convert_to_tensor(columns[1], dtype="uint32")))
    return (ops.cast(ops.right_shift(hashed, 32 - _BITS), "float32") + 0.5) * 2.0**-_BITS


def normals(logits: Any, seed: int) -> Any:
    """Return standard normal numbers (B, C) for logits (B, C), of their dtype; see `uniforms`."""
    return math.sqrt(2) * ops.erfinv(2 * ops.cast(uniforms(logits, seed), logits.dtype) - 1)


def given(drawn: Any, logits: Any, dtype: str) -> Any:
    """Return numbers that somebody gives in place of a draw as a tensor of the shape of the logits.

    Raises:
        ValueError: no numbers, or of another shape.
    """
    if not ops.is_tensor(drawn):
        drawn = numeric("drawn", drawn)
    if tuple(drawn.shape) != tuple(logits.shape):
        raise ValueError(f"`drawn` must have the shape {tuple(logits.shape)}. Received: {tuple(drawn.shape)}")
    return ops.cast(ops.convert_to_tensor(drawn), dtype)


def _word(x: Any) -> Any:
    return ops.bitwise_and(x, ops.convert_to_tensor(_MASK, dtype="uint32"))


def _mixed(x: Any) -> Any:
    """A bijection of 32-bit words that changes half of the bits when one changes (Wellons' lowbias32)."""
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = ops.bitwise_xor(x, ops.right_shift(x, shift))
        x = _word(x * ops.convert_to_tensor(factor, dtype="uint32"))
    return ops.bitwise_xor(x, ops.right_shift(x, 16))


def _column_keys(num_classes: int, seed: int) -> np.ndarray:
    """Words (2, C): one for each column to hash its logit with, one to spread the row's key with."""
    return np.random.SeedSequence(seed).generate_state(2 * num_classes).reshape(2, num_classes)
