"""Class-dependent temperatures."""

from tf_mmloss.methods.base import Method

METHODS = (
    Method(
        "cdt",
        "CDTLoss",
        "Ye et al. 2020; gamma as in the BagofTricks code for both CIFAR sets (the paper chose it from 0 to 0.4).",
        arguments={"scale": 1.0, "gamma": 0.2},
    ),
)
