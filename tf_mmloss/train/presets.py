"""The numbers that fill the gaps of a config, each with its source: of recipes, data sets and images of one's own.

Look here for a value and where it is from; `resolve.py` says which one a config gets.
"""

import dataclasses
import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tf_mmloss.datasets import ImageDataset

# What `--recipe` fills in where nothing is given. "strong" is what long-tail papers train this network with today, in
# 200 epochs; batch and rate of CIFAR alone, as the digits have their own and those of one's own images follow from
# their number. "record" takes twice the epochs, and SAM.
_POLICY = "autoaugment,cutout"
TRAININGS: dict[str, dict[str, Any]] = {
    "paper": {"schedule": "step", "augment": "none", "sam": 0.0},
    "strong": {"schedule": "cosine", "augment": _POLICY, "sam": 0.0, "batch_size": 64},
    "record": {"schedule": "step", "augment": _POLICY, "sam": 0.1, "sam_late": 0.2},
}
_SEARCHED = "The policy of autoaugment was searched on balanced CIFAR-10, on 4,000 images of it."
TRAINING_SOURCES = {
    "strong": f"Son et al., AAAI 2025, their code: CIFAR's batch, rate, heads and scale of a cosine head. {_SEARCHED}",
    "record": "Wang et al., NeurIPS 2023, their scripts of 400 epochs: radii, and weight decay of the first stage; for "
    "another training set those of CIFAR-10, long-tailed 100:1. Their losses (VS, and ADRW with TLA from 4/5 of the "
    "epochs on) are no part of it: without them their errors, as 13.2 % there, are not to be expected. "
    f"{_SEARCHED}",
}
# (weight decay, sam, sam_late) of "record".
RECORD_CONSTANTS: dict[tuple[str, str, float], tuple[float, float, float]] = {
    ("cifar10", "longtail", 100): (2e-4, 0.1, 0.2),
    ("cifar10", "longtail", 10): (1e-4, 0.1, 0.1),
    ("cifar10", "step", 100): (1e-4, 0.1, 0.2),
    ("cifar10", "step", 10): (1e-4, 0.1, 0.1),
    ("cifar100", "longtail", 100): (2e-4, 0.2, 0.4),
    ("cifar100", "longtail", 10): (1e-4, 0.1, 0.5),
    ("cifar100", "step", 100): (1e-4, 0.2, 0.2),
    ("cifar100", "step", 10): (1e-4, 0.1, 0.3),
}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What depends on the data set alone.

    Attributes:
        epochs: length of the run.
        pad, flip: augmentation.
        holdout: what tuning and comparing hold out: images of each class, a tenth of the training split, or a share.
        origin: where the images come from, and their licence.
        batch_size, learning_rate: of a step.
        why: lines that say what was chosen for the data, and why.
    """

    epochs: int
    pad: int
    flip: bool
    holdout: int | float
    origin: str
    batch_size: int = 128
    learning_rate: float = 0.1
    why: tuple[str, ...] = ()


_CIFAR = "Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009; published without a licence"

# Section 4, implementation details; digits are no paper's: small enough for minutes on two cores. Their batch and rate
# are, of seven pairs and schedules, those of the lowest error on 120 held-out images (5.7 %; 10.0 with the paper's 128
# and 0.1; five seeds of ERM, long-tailed 20:1), with which rounding alone changes the fewest predictions but one.
RECIPES = {
    "cifar10": Recipe(epochs=200, pad=4, flip=True, holdout=500, origin=f"CIFAR-10: {_CIFAR}"),
    "cifar100": Recipe(epochs=200, pad=4, flip=True, holdout=50, origin=f"CIFAR-100: {_CIFAR}"),
    "digits": Recipe(
        epochs=60,
        pad=1,
        flip=False,
        holdout=12,
        origin="Optical Recognition of Handwritten Digits: Alpaydin and Kaynak, UCI, 1998; CC BY 4.0",
        batch_size=16,
        learning_rate=0.03,
    ),
}

# (delta_neg, beta) of MM-DRW, Tables 2 and 3. None were published for its relatives: these, where nothing was searched.
MM_CONSTANTS: dict[tuple[str, str, float], tuple[float, float]] = {
    ("cifar10", "longtail", 100): (0.6, 1.5),
    ("cifar10", "step", 100): (0.6, 1.3),
    ("cifar10", "longtail", 10): (0.7, 1.2),
    ("cifar10", "step", 10): (2.1, 1.0),
    ("cifar100", "longtail", 100): (1.2, 1.3),
    ("cifar100", "step", 100): (1.8, 1.8),
    ("cifar100", "longtail", 10): (1.5, 1.4),
    ("cifar100", "step", 10): (2.4, 1.1),
}

# The same for its relatives, by method and margin space: the best of delta_neg 0.6 and 1.2 by beta 1.0 and 1.5 on
# held-out images after 30 epochs, one seed, and the folder of the search in results/tuning.
SEARCHED_CONSTANTS: dict[tuple[str, str, str, str, float], tuple[tuple[float, float], str]] = {
    ("mm", "cosine", "cifar10", "longtail", 100): ((1.2, 1.5), "mm"),
    ("mm", "logit", "cifar10", "longtail", 100): ((0.6, 1.5), "mm-logit"),
    ("mm-ldam-drw", "cosine", "cifar10", "longtail", 100): ((1.2, 1.5), "mm-ldam-drw"),
}

# The three beta of each setting that Tables 2 and 3 compare, at that setting's delta_neg.
ABLATION_BETAS: dict[tuple[str, str, float], tuple[float, float, float]] = {
    ("cifar10", "longtail", 100): (1.4, 1.5, 1.6),
    ("cifar10", "step", 100): (1.2, 1.3, 1.4),
    ("cifar10", "longtail", 10): (1.1, 1.2, 1.3),
    ("cifar10", "step", 10): (1.0, 1.1, 1.2),
    ("cifar100", "longtail", 100): (1.2, 1.3, 1.4),
    ("cifar100", "step", 100): (1.7, 1.8, 1.9),
    ("cifar100", "longtail", 10): (1.3, 1.4, 1.5),
    ("cifar100", "step", 10): (1.0, 1.1, 1.2),
}

# The systems of the paper's Table 1, in its order.
TABLE_1 = (
    "erm",
    "focal",
    "ldam",
    "mm",
    "cb-rs",
    "cb-rw",
    "cb-focal",
    "hg-drs",
    "ldam-hg-drs",
    "m-drw",
    "ldam-drw",
    "ldam-drw-ssp",
    "mm-drw",
    "mm-ldam-drw",
)

# Images that an own run sees in all, and the bounds of its epochs: as much as two cores train in about an hour.
OWN_PASSES, OWN_EPOCHS = 400_000, (20, 200)
ADAMW_RATE = 1e-3
# Pretrained weights: the whole network is trained at a tenth of the rate of random ones, the head alone before at this
# multiple of that, for this share of the epochs.
FROZEN_RATE, FROZEN_SHARE = 10, 0.1
OWN_OPTIONS = {
    "fit": "crop",
    "grey": None,
    "test_share": 0.2,
    "group_by": None,
    "skip_broken": False,
    "accept_odd": False,
}


def own_recipe(data: "ImageDataset") -> Recipe:
    """What images of one's own are trained with by default.

        epochs = 400,000 / N, in [20, 200];   batch: the power of two nearest to N / 40, in [16, 128]
        learning rate = 0.1 * batch / 128     (Goyal et al. 2017, the linear rule)

    The network and the augmentation are those of CIFAR, the crop in proportion to the image. None of it was searched.

    Args:
        data: for its N training images and their size.
    """
    number_of_images, side = len(data.train_labels), min(data.train_images.shape[1:3])
    epochs = int(min(max(OWN_PASSES // number_of_images, OWN_EPOCHS[0]), OWN_EPOCHS[1]))
    batch_size = 2 ** round(math.log2(min(max(number_of_images / 40, 16), 128)))
    learning_rate = 0.1 * batch_size / 128
    return Recipe(
        epochs=epochs,
        pad=side // 8,
        flip=True,
        holdout=0.2,
        origin=data.origin,
        batch_size=batch_size,
        learning_rate=learning_rate,
        why=(
            f"{epochs} epochs: as many as see {OWN_PASSES:,} images, but {OWN_EPOCHS[0]} to {OWN_EPOCHS[1]} (--epochs)",
            f"batches of {batch_size}: for about 40 an epoch, but 16 to 128 images (--batch-size)",
            f"a learning rate of {learning_rate:g}: 0.1 by {batch_size} / 128, of pretrained weights a tenth "
            "(--learning-rate)",
            "images are mirrored at random; where left and right mean something, say --no-flip",
        ),
    )
