"""Focal loss, and with deferred re-weighting."""

from tf_mmloss.methods.base import Method

FOCAL = Method(
    "focal",
    "FocalLoss",
    "Lin et al. 2017, gamma as in LDAM's code.",
    label="Focal",
    arguments={"scale": 1.0, "gamma": 1.0},
)
METHODS = (FOCAL, FOCAL.reweighted())
