"""Hinge losses with deferred re-sampling: HG-DRS and LDAM-HG-DRS."""

from tf_mmloss.methods.base import DRS, DRS_SOURCE, Method

METHODS = (
    Method(
        "hg-drs",
        "HingeLoss",
        "Hinge, Cao et al. 2019, Eq. 10; head inferred; margin unpublished, the best of 0.1, 0.3 and 0.5 on held-out "
        f"images of CIFAR-10 long-tailed 100:1 after 30 epochs (results/tuning/hg-drs). {DRS_SOURCE}",
        head="cosine",
        arguments={"scale": 1.0, "margin": 0.1},
        stages=DRS,
    ),
    Method(
        "ldam-hg-drs",
        "LDAMHingeLoss",
        "Hinge with LDAM's margins, Cao et al. 2019, Eq. 10-13; head inferred; largest margin unpublished, the best of "
        "0.1, 0.3 and 0.5, all within 0.3 points, on held-out images of CIFAR-10 long-tailed 100:1 after 30 epochs "
        f"(results/tuning/ldam-hg-drs). {DRS_SOURCE}",
        head="cosine",
        arguments={"scale": 1.0, "max_margin": 0.3},
        stages=DRS,
    ),
)
