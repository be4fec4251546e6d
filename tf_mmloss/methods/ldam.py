"""LDAM, with a logit adjustment (LA+LDAM), re-weighted (LDAM-DRW), and from a pre-trained backbone (LDAM-DRW+SSP)."""

from tf_mmloss.methods.base import DRW, Method, Stage

LDAM = Method(
    "ldam",
    "LDAMLoss",
    "Cao et al. 2019; scale and margin as in their code.",
    head="cosine",
    arguments={"scale": 30.0, "max_margin": 0.5},
)
LA_LDAM = LDAM.variant(
    "la-ldam",
    "With a logit adjustment of tau 1 beside the margins (Menon et al. 2021, Eq. 10).",
    label="LA+LDAM",
    arguments={**LDAM.arguments, "tau": 1.0},
)
LDAM_DRW = LDAM.reweighted()
METHODS = (
    LDAM,
    LA_LDAM,
    LDAM_DRW,
    LDAM_DRW.variant(
        "ldam-drw-ssp",
        "The backbone starts from rotation prediction (Yang and Xu 2020).",
        label="LDAM-DRW+SSP",
        stages=(Stage(task="rotation"), *DRW),
    ),
)
