"""Losses, one class a file, each over a pure function of (y_true, y_pred)."""

# First: Keras' import brings in all that Keras saves (`tf_mmloss._registration`), which needs a whole `losses.base`.
import keras  # noqa: F401

from tf_mmloss.losses.base import LongTailLoss
from tf_mmloss.losses.cross_entropy import CrossEntropyLoss, cross_entropy
from tf_mmloss.losses.focal import FocalLoss, focal
from tf_mmloss.losses.hinge import HingeLoss, hinge
from tf_mmloss.losses.ldam import LDAMLoss, ldam
from tf_mmloss.losses.ldam_hinge import LDAMHingeLoss
from tf_mmloss.losses.logit_adjusted import LogitAdjustedLoss, logit_adjusted
from tf_mmloss.losses.max_margin import MaxMarginLoss, max_margin, maximum_margins
from tf_mmloss.losses.uniform_margin import UniformMarginLoss

__all__ = [
    "CrossEntropyLoss",
    "FocalLoss",
    "HingeLoss",
    "LDAMHingeLoss",
    "LDAMLoss",
    "LogitAdjustedLoss",
    "LongTailLoss",
    "MaxMarginLoss",
    "UniformMarginLoss",
    "cross_entropy",
    "focal",
    "hinge",
    "ldam",
    "logit_adjusted",
    "max_margin",
    "maximum_margins",
]
