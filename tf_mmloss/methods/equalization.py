"""Softmax equalisation."""

from tf_mmloss.methods.base import Method

METHODS = (
    Method(
        "equalization",
        "EqualizationLoss",
        "Tan et al. 2020, softmax form; gamma and threshold as in the BagofTricks code for CIFAR-10 with 100:1; "
        "for CIFAR-100, threshold 0.005.",
        label="Equalization",
        arguments={"scale": 1.0, "gamma": 0.9, "threshold": 0.05},
        of_dataset={"cifar100": {"threshold": 0.005}},
    ),
)
