"""Cross-entropy (ERM), and with deferred re-weighting."""

from tf_mmloss.methods.base import Method

ERM = Method("erm", "CrossEntropyLoss", "Cross-entropy.", arguments={"scale": 1.0})
METHODS = (ERM, ERM.reweighted())
