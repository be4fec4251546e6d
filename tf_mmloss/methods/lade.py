"""LADE: Balanced Softmax with a regulariser of each class's logits."""

from tf_mmloss.methods.base import Method

METHODS = (
    Method(
        "lade",
        "LADELoss",
        "Hong et al. 2021; alpha, penalty as in their code for CIFAR-100, with batches of 256 and another network.",
        arguments={"scale": 1.0, "alpha": 0.1, "penalty": 0.1},
    ),
)
