"""Balanced Softmax, which is the logit-adjusted loss of strength one."""

from tf_mmloss.methods.base import Method

METHODS = (
    Method(
        "balanced-softmax",
        "LogitAdjustedLoss",
        "Ren et al. 2020; Menon et al. 2021, tau = 1.",
        label="Balanced Softmax",
        arguments={"scale": 1.0, "tau": 1.0},
    ),
)
