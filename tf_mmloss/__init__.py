"""Maximum Margin loss and the long-tailed trainer around it, for Keras.

Importing this needs Keras with any of its backends. TensorFlow itself is imported only when
`tf_mmloss.pipeline` builds a `tf.data` input or `tf_mmloss.export` writes a SavedModel.
"""

from tf_mmloss import imbalance
from tf_mmloss._version import __version__
from tf_mmloss.callbacks import Checkpoint, DeferredResampling, DeferredReweighting, NonFiniteLossError, StopOnNonFinite
from tf_mmloss.layers import BatchNormalization, CosineDense, StridedShortcut
from tf_mmloss.losses import (
    CrossEntropyLoss,
    FocalLoss,
    HingeLoss,
    LDAMHingeLoss,
    LDAMLoss,
    LogitAdjustedLoss,
    LongTailLoss,
    MaxMarginLoss,
    UniformMarginLoss,
)
from tf_mmloss.metrics import BalancedAccuracy, ShotAccuracy
from tf_mmloss.models import normalization, resnet, resnet32
from tf_mmloss.optimizers import SGD
from tf_mmloss.schedules import WarmupStepSchedule

__all__ = [
    "SGD",
    "BalancedAccuracy",
    "BatchNormalization",
    "Checkpoint",
    "CosineDense",
    "CrossEntropyLoss",
    "DeferredResampling",
    "DeferredReweighting",
    "FocalLoss",
    "HingeLoss",
    "LDAMHingeLoss",
    "LDAMLoss",
    "LogitAdjustedLoss",
    "LongTailLoss",
    "MaxMarginLoss",
    "NonFiniteLossError",
    "ShotAccuracy",
    "StopOnNonFinite",
    "StridedShortcut",
    "UniformMarginLoss",
    "WarmupStepSchedule",
    "__version__",
    "imbalance",
    "normalization",
    "resnet",
    "resnet32",
]
