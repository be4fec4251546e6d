"""Balanced Softmax, which is the logit-adjusted loss of strength one."""

from tf_mmloss.methods.base import Method

METHODS = (
    Method(
        "balanced-softmax",
        "LogitAdjustedLoss",
        "Ren et al. 2020; Menon et al. 2021, tau = 1; scale of a cosine head as in the code of Son et al. 2025.",
        label="Balanced Softmax",
        arguments={"scale": 1.0, "tau": 1.0},
        cosine={"scale": 32.0},
    ),
)
