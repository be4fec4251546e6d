"""Layers of the paper's network, and probabilities from what it returns."""

from tf_mmloss.layers.batch_normalization import BatchNormalization
from tf_mmloss.layers.class_scale import ClassScale
from tf_mmloss.layers.cosine_dense import CosineDense
from tf_mmloss.layers.probabilities import Probabilities, probabilities
from tf_mmloss.layers.strided_shortcut import StridedShortcut

__all__ = [
    "BatchNormalization",
    "ClassScale",
    "CosineDense",
    "Probabilities",
    "StridedShortcut",
    "probabilities",
]
