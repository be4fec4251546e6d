"""Seesaw loss, which counts the labels that it sees."""

from tf_mmloss.methods.base import Method

METHODS = (
    Method(
        "seesaw",
        "SeesawLoss",
        "Wang et al. 2021; p, q and floor as in their code.",
        label="Seesaw",
        arguments={"scale": 1.0, "p": 0.8, "q": 2.0, "floor": 0.01},
    ),
)
