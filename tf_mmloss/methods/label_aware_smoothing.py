"""Label-aware smoothing, in one stage."""

from tf_mmloss.methods.base import Method

METHODS = (
    Method(
        "label-aware-smoothing",
        "LabelAwareSmoothingLoss",
        "Zhong et al. 2021; head and tail as in their code for CIFAR-10 long-tailed 100:1; for CIFAR-100, 0.4 and 0.1. "
        "Published for a second stage (MiSLAS), after mixup; here it is the loss of the whole training.",
        label="Label-aware smoothing",
        arguments={"scale": 1.0, "head": 0.3, "tail": 0.0, "shape": "concave"},
        of_dataset={"cifar100": {"head": 0.4, "tail": 0.1}},
    ),
)
