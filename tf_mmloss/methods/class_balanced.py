"""Class-balanced from the first epoch on, by the effective number of examples: CB-RS, CB-RW and CB-Focal."""

from tf_mmloss.methods.base import Stage
from tf_mmloss.methods.erm import ERM
from tf_mmloss.methods.focal import FOCAL

_SOURCE = "By the effective number of examples from the first epoch on (Cui et al. 2019)."
_WEIGHTED = (Stage(weights="effective"),)

METHODS = (
    ERM.variant("cb-rs", f"Re-sampled. {_SOURCE}", label="CB-RS", stages=(Stage(sampling="effective"),)),
    ERM.variant("cb-rw", f"Re-weighted. {_SOURCE}", label="CB-RW", stages=_WEIGHTED),
    FOCAL.variant("cb-focal", f"Re-weighted. {_SOURCE}", label="CB-Focal", stages=_WEIGHTED),
)
