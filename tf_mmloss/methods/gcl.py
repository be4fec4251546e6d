"""Gaussian clouded logits, the first stage."""

from tf_mmloss.methods.base import Method

GCL = Method(
    "gcl",
    "GCLLoss",
    "Li et al. 2022; noise, margin and scale as in their code for the first stage on CIFAR, which has mixup "
    "(--mix mixup).",
    head="cosine",
    arguments={"scale": 30.0, "noise": 0.5, "margin": 0.0},
)
METHODS = (GCL,)
