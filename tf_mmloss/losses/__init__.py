"""Losses, one class a file, each over a pure function of (y_true, y_pred)."""

# First: Keras' import brings in all that Keras saves (`tf_mmloss._registration`), which needs a whole `losses.base`.
import keras  # noqa: F401

from tf_mmloss.losses.asymmetric import AsymmetricLoss, asymmetric
from tf_mmloss.losses.base import LongTailLoss
from tf_mmloss.losses.cdt import CDTLoss, cdt
from tf_mmloss.losses.class_balanced_sigmoid import ClassBalancedSigmoidLoss, class_balanced_sigmoid
from tf_mmloss.losses.cross_entropy import CrossEntropyLoss, cross_entropy
from tf_mmloss.losses.distribution_balanced import DistributionBalancedLoss, distribution_balanced
from tf_mmloss.losses.equalization import EqualizationLoss, equalization
from tf_mmloss.losses.focal import FocalLoss, focal
from tf_mmloss.losses.gcl import GCLLoss, gcl
from tf_mmloss.losses.hinge import HingeLoss, hinge
from tf_mmloss.losses.influence_balanced import InfluenceBalancedLoss, influence_balanced
from tf_mmloss.losses.label_aware_smoothing import LabelAwareSmoothingLoss, label_aware_smoothing
from tf_mmloss.losses.lade import LADELoss, lade
from tf_mmloss.losses.ldam import LDAMLoss, ldam
from tf_mmloss.losses.ldam_hinge import LDAMHingeLoss
from tf_mmloss.losses.logit_adjusted import LogitAdjustedLoss, logit_adjusted
from tf_mmloss.losses.max_margin import MaxMarginLoss, max_margin, maximum_margins
from tf_mmloss.losses.seesaw import SeesawLoss, seesaw
from tf_mmloss.losses.uniform_margin import UniformMarginLoss
from tf_mmloss.losses.vs import VSLoss, vs

__all__ = [
    "AsymmetricLoss",
    "CDTLoss",
    "ClassBalancedSigmoidLoss",
    "CrossEntropyLoss",
    "DistributionBalancedLoss",
    "EqualizationLoss",
    "FocalLoss",
    "GCLLoss",
    "HingeLoss",
    "InfluenceBalancedLoss",
    "LADELoss",
    "LDAMHingeLoss",
    "LDAMLoss",
    "LabelAwareSmoothingLoss",
    "LogitAdjustedLoss",
    "LongTailLoss",
    "MaxMarginLoss",
    "SeesawLoss",
    "UniformMarginLoss",
    "VSLoss",
    "asymmetric",
    "cdt",
    "class_balanced_sigmoid",
    "cross_entropy",
    "distribution_balanced",
    "equalization",
    "focal",
    "gcl",
    "hinge",
    "influence_balanced",
    "label_aware_smoothing",
    "lade",
    "ldam",
    "logit_adjusted",
    "max_margin",
    "maximum_margins",
    "seesaw",
    "vs",
]
