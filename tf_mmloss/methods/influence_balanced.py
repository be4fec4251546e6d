"""Influence-balanced loss, from the first drop of the learning rate on."""

from tf_mmloss.methods.base import FIRST_DROP, Method, Stage

METHODS = (
    Method(
        "ib",
        "InfluenceBalancedLoss",
        "Park et al. 2021; alpha as in their script. Cross-entropy until the first drop of the learning rate; theirs "
        "drops at half of the epochs for it.",
        arguments={"scale": 1.0, "alpha": 1000.0},
        stages=(Stage(), Stage(FIRST_DROP)),
    ),
)
