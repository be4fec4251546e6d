"""Class-balanced from the first epoch on, by the effective number of examples: CB-RS, CB-RW, CB-Focal, CB-Sigmoid."""

from tf_mmloss.methods.base import Method, Stage
from tf_mmloss.methods.erm import ERM
from tf_mmloss.methods.focal import FOCAL

_SOURCE = "By the effective number of examples from the first epoch on (Cui et al. 2019)."
_WEIGHTED = (Stage(weights="effective"),)
_SIGMOID = Method(
    "cb-sigmoid",
    "ClassBalancedSigmoidLoss",
    "Cui et al. 2019, a yes-or-no question for each class; beta, of 0.9 to 0.9999, as in their code for CIFAR. "
    "The head's bias begins at -log(C - 1), as published.",
    label="CB-Sigmoid",
    arguments={"scale": 1.0, "beta": 0.9999, "gamma": 0.0},
)

METHODS = (
    ERM.variant("cb-rs", f"Re-sampled. {_SOURCE}", label="CB-RS", stages=(Stage(sampling="effective"),)),
    ERM.variant("cb-rw", f"Re-weighted. {_SOURCE}", label="CB-RW", stages=_WEIGHTED),
    FOCAL.variant("cb-focal", f"Re-weighted. {_SOURCE}", label="CB-Focal", stages=_WEIGHTED),
    _SIGMOID,
    _SIGMOID.variant(
        "cb-sigmoid-focal",
        "Focal, gamma 1, of 0.5, 1 and 2, from which it was chosen.",
        label="CB-Sigmoid-Focal",
        arguments={**_SIGMOID.arguments, "gamma": 1.0},
    ),
)
