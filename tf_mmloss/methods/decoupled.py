"""Decoupled training: a network is trained first, and its classifier again, on class-balanced batches."""

from tf_mmloss.methods.base import Method, Stage
from tf_mmloss.methods.erm import ERM
from tf_mmloss.methods.gcl import GCL

_KANG = (
    "Classifier trained again on class-balanced batches (Kang et al. 2020), for the last tenth of the epochs, the rate "
    "from its first value to 0 by half a cosine. As in their code the backbone's weights are frozen and its batch "
    "normalisations are in training mode: they normalise by the balanced batches and average them."
)


def _stage(starts: float, **options: object) -> tuple[Stage, Stage]:
    return Stage(), Stage(starts, sampling="inverse", **options)  # type: ignore[arg-type]


METHODS = (
    ERM.variant(
        "crt",
        f"cRT: the classifier begins anew. {_KANG}",
        label="cRT",
        stages=_stage(0.9, trains="head", anew=True, batch_norm="training", rate=1.0),
    ),
    ERM.variant(
        "lws",
        f"LWS: one factor for each class is trained. {_KANG}",
        label="LWS",
        stages=_stage(0.9, trains="scales", batch_norm="training", rate=1.0),
    ),
    GCL.variant(
        "gcl-crt",
        "Second stage: the classifier is trained on, class-balanced, with margin 0.1, scale 20, focal gamma 1, and the "
        "rate from 0.02 of its first value to 0 by half a cosine; the backbone is frozen, its batch normalisations in "
        "inference mode. 30 of 230 epochs, as in their code, which has mixup in both stages: --mix mixup.",
        label="GCL, two stages",
        stages=_stage(
            200 / 230,
            trains="head",
            rate=0.02,
            arguments={"margin": 0.1, "scale": 20.0, "gamma": 1.0},
        ),
    ),
    Method(
        "mislas",
        "CrossEntropyLoss",
        "Zhong et al. 2021. Second stage: classifier and one factor for each class, class-balanced, with label-aware "
        "smoothing of 0.3 to 0, and the rate from half of its first value, which is theirs for the classifier alone, "
        "to 0 by half a cosine; the backbone is frozen, its batch normalisations in inference mode: as in their code "
        "for CIFAR-10 long-tailed 100:1; for CIFAR-100, smoothing of 0.4 to 0.1, a fifth of the rate, and batch "
        "normalisations in training mode. 10 of 210 epochs. Their first stage has mixup: --mix mixup, which ends "
        "there.",
        label="MiSLAS",
        arguments={"scale": 1.0},
        stages=_stage(
            200 / 210,
            trains="classifier",
            rate=0.5,
            loss="LabelAwareSmoothingLoss",
            arguments={"head": 0.3, "tail": 0.0, "shape": "concave"},
            mixes=False,
            of_dataset={
                "cifar100": {"arguments": {"head": 0.4, "tail": 0.1}, "rate": 0.2, "batch_norm": "training"},
            },
        ),
    ),
)
