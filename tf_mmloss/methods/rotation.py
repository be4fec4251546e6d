"""Rotation prediction, which `pretraining` starts from: no method for classes."""

from tf_mmloss.methods.base import Method, Stage

METHODS = (
    Method(
        "rotation",
        "CrossEntropyLoss",
        "Rotation prediction, Gidaris et al. 2018, on the same imbalanced images, as in Yang and Xu 2020.",
        arguments={"scale": 1.0},
        stages=(Stage(task="rotation"),),
    ),
)
