"""LDAM, with deferred re-weighting (LDAM-DRW), and from a pre-trained backbone (LDAM-DRW+SSP)."""

from tf_mmloss.methods.base import DRW, Method, Stage

LDAM = Method(
    "ldam",
    "LDAMLoss",
    "Cao et al. 2019; scale and margin as in their code.",
    head="cosine",
    arguments={"scale": 30.0, "max_margin": 0.5},
)
LDAM_DRW = LDAM.reweighted()
METHODS = (
    LDAM,
    LDAM_DRW,
    LDAM_DRW.variant(
        "ldam-drw-ssp",
        "The backbone starts from rotation prediction (Yang and Xu 2020).",
        label="LDAM-DRW+SSP",
        stages=(Stage(task="rotation"), *DRW),
    ),
)
