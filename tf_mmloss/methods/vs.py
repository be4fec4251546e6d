"""Vector scaling."""

from tf_mmloss.methods.base import Method

METHODS = (
    Method(
        "vs",
        "VSLoss",
        "Kini et al. 2021; gamma and tau as published for CIFAR-10 long-tailed 100:1; for CIFAR-100, 0.05 and 0.75.",
        arguments={"scale": 1.0, "gamma": 0.15, "tau": 1.25},
        of_dataset={"cifar100": {"gamma": 0.05, "tau": 0.75}},
        cosine={"scale": 30.0},
    ),
)
