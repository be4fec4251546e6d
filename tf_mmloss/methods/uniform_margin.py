"""One margin for all classes (M), and with deferred re-weighting."""

from tf_mmloss.methods.base import Method

M = Method(
    "m",
    "UniformMarginLoss",
    "Wang et al. 2018; LDAM's scale; margin unpublished, the best of 0.05, 0.1, 0.2 and 0.3 on held-out images of "
    "CIFAR-10 long-tailed 100:1 after 30 epochs (results/tuning/m-drw).",
    head="cosine",
    arguments={"scale": 30.0, "margin": 0.1},
)
METHODS = (M, M.reweighted())
