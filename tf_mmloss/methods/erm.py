"""Cross-entropy (ERM), and with deferred re-weighting.

The scale of a cosine head is that of `balanced-softmax`; a recipe leaves the head dense, as in earlier versions.
"""

from tf_mmloss.methods.base import Method

ERM = Method(
    "erm",
    "CrossEntropyLoss",
    "Cross-entropy.",
    arguments={"scale": 1.0},
    cosine={"scale": 32.0},
    recipe_head="dense",
)
METHODS = (ERM, ERM.reweighted())
