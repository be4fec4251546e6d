"""The paper's Maximum Margin loss (MM), with class margins (MM-LDAM), and both with deferred re-weighting.

delta_neg and beta go with the training set: see MM_CONSTANTS of `tf_mmloss.train.presets`.
"""

from tf_mmloss.methods.base import Method

_ARGUMENTS = {"scale": 10.0, "margin_space": "logit"}

MM = Method("mm", "MaxMarginLoss", "The paper, Eq. 1-5, scale of section 3.1.", head="cosine", arguments=_ARGUMENTS)
MM_LDAM = Method(
    "mm-ldam",
    "MaxMarginLoss",
    "The paper, Eq. 6 and 7; LDAM's largest margin.",
    head="cosine",
    arguments={**_ARGUMENTS, "class_margin": 0.5},
)
METHODS = (MM, MM_LDAM, MM.reweighted(), MM_LDAM.reweighted())
