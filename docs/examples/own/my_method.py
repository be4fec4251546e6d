"""Focal loss, then a new classifier on class-balanced batches."""

from tf_mmloss.methods import Method, Stage

NEW_CLASSIFIER = Stage(
    0.8,  # of the epochs are over
    sampling="inverse",
    trains="head",
    anew=True,
    rate=1.0,
)


def focal_crt() -> Method:
    return Method(
        "focal-crt",
        "FocalLoss",
        "Lin et al. 2017, with the second stage of Kang et al. 2020.",
        arguments={"gamma": 2.0},
        stages=(Stage(), NEW_CLASSIFIER),
    )
