"""What a method and a data set stand for: every number with its source.

METHODS are the systems of the paper's Table 1 (TABLE_1) and their relatives; RECIPES hold what depends on the data
set alone, `own_recipe` does for images of one's own. `resolve` turns a `Config` with gaps into one without.
"""

import dataclasses
import inspect
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import tf_mmloss
from tf_mmloss._validation import choice, flag, integer, number, received, text
from tf_mmloss.imbalance import IMBALANCES, WEIGHT_SCHEMES, Counts

if TYPE_CHECKING:
    import keras

    from tf_mmloss.datasets import ImageDataset

PRECISIONS = ("float32", "bfloat16", "float16")
JIT = ("auto", "on", "off")
INPUTS = ("host", "device", "epoch")
STRATEGIES = ("none", "mirrored", "data-parallel")
PRETRAINING = ("none", "rotation")
SCHEDULES = ("step", "cosine")
OPTIMIZERS = ("sgd", "adamw")

# The options that go into a loss, under the loss's own argument names.
LOSS_OPTIONS = (
    "scale",
    "delta_neg",
    "beta",
    "class_margin",
    "margin_space",
    "max_margin",
    "margin",
    "gamma",
    "tau",
)
# The options of single methods, and the method itself: a comparison takes none of them.
OF_A_METHOD = ("method", *LOSS_OPTIONS, "weights", "start_epoch", "pretraining")


# No run is longer, deeper, or has larger batches: a slip of the finger must not take the memory or the day.
MOST_EPOCHS, MOST_LAYERS, MOST_IMAGES = 100_000, 2_000, 2**20
MOST_RATIO, MOST_PIXELS = 1e6, 4096

# The options that say how a run is made and not what it is, with the value that stands for all.
HOW: dict[str, Any] = {"precision": "float32", "eval_every": 1, "jit": "auto", "input": "host", "strategy": "none"}


# The default of what `resolve` always fills: None, in a field whose type is that of the filled value.
_TO_FILL: Any = None


@dataclasses.dataclass(frozen=True)
class Config:
    """A run. None stands for the value of the method's or the data set's preset.

    Attributes:
        dataset: a key of RECIPES, or images of one's own: whatever `tf_mmloss.data.load_images` takes.
        imbalance: "longtail" or "step": the training set is cut down to it; "none": it stays as it is. Default:
            "longtail" for the data sets of RECIPES, "none" for one's own.
        ratio: largest over smallest class. Default 100; 1, without a meaning, for "none".
        image_size: "64" or "40x24" (height by width), what one's own images are brought to. fit, grey, test_share,
            group_by, skip_broken, accept_odd: how they are read and split, see `tf_mmloss.data.load_images`.
        method: a key of METHODS.
        scale ... tau: arguments of the method's loss.
        weights: class weights of re-weighting and re-sampling: "effective" or "inverse".
        pretraining: "none", or "rotation": start from the backbone of the run of method "rotation" beside it.
        start_epoch: first re-balanced epoch of the deferred methods; by default that of the first drop of the learning
            rate, or the last one where the run ends before.
        epochs, batch_size, learning_rate, momentum, weight_decay: the training.
        backbone: the network under the head, see `tf_mmloss.backbones.open_backbone`. Default "resnet32"; depth says
            the same of a ResNet in a number, and is None of others. pretrained: its weights.
        optimizer: "sgd" (the paper's, with coupled weight decay) or "adamw".
        schedule: of the learning rate: "step" (the paper's) or "cosine", both after a linear warm-up.
        pad, flip: augmentation: zeros on each side before a random crop; mirroring.
        seed: of initial weights, order and augmentation. subset_seed: of the choice of training images.
        holdout: images of each class taken from the training split, before it is made imbalanced, and evaluated
            in place of the test split (for tuning); 0 evaluates on the test split.
        eval_every: evaluate every so many epochs, and after the last one.
        precision: "float32", "bfloat16" or "float16". jit: "auto", "on" or "off" (XLA).
        input: "host" (tf.data), "device" (images lie on the device and are augmented in the compiled step) or "epoch"
            (the same, and an epoch is one compiled program; JAX).
        strategy: "none" (one device), "mirrored" (all devices of the host; TensorFlow) or "data-parallel" (all devices
            of all processes; JAX). The same batches and the same results, but for rounding.
    """

    dataset: str = "cifar10"
    imbalance: str = _TO_FILL
    ratio: float = _TO_FILL
    method: str = "mm-drw"
    scale: float | None = None
    delta_neg: float | None = None
    beta: float | None = None
    class_margin: float | None = None
    margin_space: str | None = None
    max_margin: float | None = None
    margin: float | None = None
    gamma: float | None = None
    tau: float | None = None
    weights: str = "effective"
    pretraining: str | None = None
    start_epoch: int | None = None
    epochs: int | None = None
    batch_size: int = _TO_FILL
    learning_rate: float = _TO_FILL
    momentum: float = 0.9
    weight_decay: float = _TO_FILL
    optimizer: str = "sgd"
    schedule: str = "step"
    backbone: str = _TO_FILL
    depth: int | None = None
    pretrained: str = "none"
    pad: int = _TO_FILL
    flip: bool = _TO_FILL
    seed: int = 0
    subset_seed: int = 0
    holdout: int = 0
    eval_every: int = 1
    precision: str = "float32"
    jit: str = "auto"
    input: str = "host"
    strategy: str = "none"
    image_size: str | None = None
    fit: str | None = None
    grey: bool | None = None
    test_share: float | None = None
    group_by: str | None = None
    skip_broken: bool | None = None
    accept_odd: bool | None = None

    @property
    def is_own(self) -> bool:
        """Whether the images are the user's own, and no data set of RECIPES."""
        return not (isinstance(self.dataset, str) and self.dataset in RECIPES)

    @property
    def loss_arguments(self) -> dict[str, Any]:
        """The loss options that are set."""
        return {name: getattr(self, name) for name in LOSS_OPTIONS if getattr(self, name) is not None}

    @property
    def name(self) -> str:
        """Name of the run's folder, by default."""
        own = re.sub(r"[^\w.-]+", "-", Path(self.dataset).stem).strip("-.") or "images"
        kind = self.imbalance or ("none" if self.is_own else "longtail")  # as `resolve` fills it
        imbalance = "" if kind == "none" and self.is_own else f"-{kind}"
        ratio = "" if kind == "none" else f"{100 if self.ratio is None else self.ratio:g}"
        return f"{own if self.is_own else self.dataset}{imbalance}{ratio}-{self.method}-seed{self.seed}"


@dataclasses.dataclass(frozen=True)
class Method:
    """A system of Table 1.

    Attributes:
        loss: name of the loss, a class of `tf_mmloss`.
        head: head of the network.
        arguments: of the loss; not those of MM that go with the setting, see MM_CONSTANTS.
        of_dataset: what is published otherwise for a data set.
        source: where the definition and its numbers stand.
        reweighting, resampling: "never", "deferred" (from the first drop of the learning rate) or "always".
        pretraining: see `Config`.
        predicts: "class", or "rotation": by how many quarter turns an image was rotated.
    """

    loss: str
    head: str
    arguments: Mapping[str, Any]
    source: str
    reweighting: str = "never"
    resampling: str = "never"
    pretraining: str = "none"
    predicts: str = "class"
    of_dataset: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)

    @property
    def loss_class(self) -> "type[tf_mmloss.LongTailLoss]":
        """The class of the loss. Asking for it imports Keras."""
        return getattr(tf_mmloss, self.loss)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What depends on the data set alone.

    Attributes:
        epochs: length of the run.
        pad, flip: augmentation.
        holdout: images of each class that tuning holds out, a tenth of the training split.
        origin: where the images come from, and their licence.
        batch_size, learning_rate: of a step.
        why: lines that say what was chosen for the data, and why.
    """

    epochs: int
    pad: int
    flip: bool
    holdout: int
    origin: str
    batch_size: int = 128
    learning_rate: float = 0.1
    why: tuple[str, ...] = ()


_CIFAR = "Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009; published without a licence"

# Section 4, implementation details; digits are no paper's: small enough for minutes on two cores.
RECIPES = {
    "cifar10": Recipe(epochs=200, pad=4, flip=True, holdout=500, origin=f"CIFAR-10: {_CIFAR}"),
    "cifar100": Recipe(epochs=200, pad=4, flip=True, holdout=50, origin=f"CIFAR-100: {_CIFAR}"),
    "digits": Recipe(
        epochs=60,
        pad=1,
        flip=False,
        holdout=12,
        origin="Optical Recognition of Handwritten Digits: Alpaydin and Kaynak, UCI, 1998; CC BY 4.0",
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

_MM = {"scale": 10.0, "margin_space": "cosine"}
_LDAM = {"scale": 30.0, "max_margin": 0.5}
_M = {"scale": 30.0, "margin": 0.1}
_DRW = " Re-weighted from the first drop of the learning rate (Cao et al. 2019, Algorithm 1)."
_DRS = " Re-sampled from the first drop of the learning rate (Cao et al. 2019, section 3.3)."
_CB = " By the effective number of examples from the first epoch on (Cui et al. 2019)."

_PLAIN = {
    "erm": Method("CrossEntropyLoss", "dense", {"scale": 1.0}, "Cross-entropy."),
    "focal": Method("FocalLoss", "dense", {"scale": 1.0, "gamma": 1.0}, "Lin et al. 2017, gamma as in LDAM's code."),
    "ldam": Method("LDAMLoss", "cosine", _LDAM, "Cao et al. 2019; scale and margin as in their code."),
    "m": Method(
        "UniformMarginLoss",
        "cosine",
        _M,
        "Wang et al. 2018; LDAM's scale; margin unpublished, the best of 0.05, 0.1, 0.2 and 0.3 on held-out images of "
        "CIFAR-10 long-tailed 100:1 after 30 epochs (results/tuning/m-drw).",
    ),
    "mm": Method(
        "MaxMarginLoss",
        "cosine",
        _MM,
        "The paper, Eq. 1-5, scale of section 3.1.",
    ),
    "mm-ldam": Method(
        "MaxMarginLoss",
        "cosine",
        {**_MM, "class_margin": 0.5},
        "The paper, Eq. 6 and 7; LDAM's largest margin.",
    ),
}


def _variant(method: Method, source: str, **changes: Any) -> Method:
    return dataclasses.replace(method, source=method.source + source, **changes)


METHODS = _PLAIN | {f"{name}-drw": _variant(method, _DRW, reweighting="deferred") for name, method in _PLAIN.items()}
METHODS |= {
    "cb-rs": _variant(METHODS["erm"], " Re-sampled." + _CB, resampling="always"),
    "cb-rw": _variant(METHODS["erm"], " Re-weighted." + _CB, reweighting="always"),
    "cb-focal": _variant(METHODS["focal"], " Re-weighted." + _CB, reweighting="always"),
    "hg-drs": Method(
        "HingeLoss",
        "cosine",
        {"scale": 1.0, "margin": 0.1},
        "Hinge, Cao et al. 2019, Eq. 10; head inferred; margin unpublished, the best of 0.1, 0.3 and 0.5 on held-out "
        "images of CIFAR-10 long-tailed 100:1 after 30 epochs (results/tuning/hg-drs)." + _DRS,
        resampling="deferred",
    ),
    "ldam-hg-drs": Method(
        "LDAMHingeLoss",
        "cosine",
        {"scale": 1.0, "max_margin": 0.3},
        "Hinge with LDAM's margins, Cao et al. 2019, Eq. 10-13; head inferred; largest margin unpublished, the best of "
        "0.1, 0.3 and 0.5, all within 0.3 points, on held-out images of CIFAR-10 long-tailed 100:1 after 30 epochs "
        "(results/tuning/ldam-hg-drs)." + _DRS,
        resampling="deferred",
    ),
    "ldam-drw-ssp": _variant(
        METHODS["ldam-drw"],
        " The backbone starts from rotation prediction (Yang and Xu 2020).",
        pretraining="rotation",
    ),
    # No system of the paper, but what a claim must be compared with, too.
    "balanced-softmax": Method(
        "LogitAdjustedLoss", "dense", {"scale": 1.0, "tau": 1.0}, "Ren et al. 2020; Menon et al. 2021, tau = 1."
    ),
    "vs": Method(
        "VSLoss",
        "dense",
        {"scale": 1.0, "gamma": 0.15, "tau": 1.25},
        "Kini et al. 2021; gamma and tau as published for CIFAR-10 long-tailed 100:1; for CIFAR-100, 0.05 and 0.75.",
        of_dataset={"cifar100": {"gamma": 0.05, "tau": 0.75}},
    ),
    "cdt": Method(
        "CDTLoss",
        "dense",
        {"scale": 1.0, "gamma": 0.2},
        "Ye et al. 2020; gamma as in the BagofTricks code for both CIFAR sets (the paper chose it from 0 to 0.4).",
    ),
    # No system: what `pretraining` starts from.
    "rotation": Method(
        "CrossEntropyLoss",
        "dense",
        {"scale": 1.0},
        "Rotation prediction, Gidaris et al. 2018, on the same imbalanced images, as in Yang and Xu 2020.",
        predicts="rotation",
    ),
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


def _mm_constants(config: Config) -> tuple[tuple[float, float], str]:
    """(delta_neg, beta) of a method of MM on a training set, and where they come from."""
    setting = config.dataset, config.imbalance, config.ratio
    space = str(config.margin_space) if config.margin_space else METHODS[config.method].arguments["margin_space"]
    if found := SEARCHED_CONSTANTS.get((config.method, space, *setting)):
        searched, folder = found
        return searched, f"searched on held-out images of this training set (results/tuning/{folder})"
    elsewhere = any(key[0] == config.method and key[2:] == setting for key in SEARCHED_CONSTANTS)
    unsearched = f"not searched for margin space {space}; " if elsewhere else ""
    if published := MM_CONSTANTS.get(setting):
        return published, f"{unsearched}published for MM-DRW on this training set (Tables 2 and 3)"
    return MM_CONSTANTS["cifar10", "longtail", 100], "none known for this training set: CIFAR-10's, long-tailed 100:1"


# Images that an own run sees in all, and the bounds of its epochs: as much as two cores train in about an hour.
OWN_PASSES, OWN_EPOCHS = 400_000, (20, 200)
ADAMW_RATE = 1e-3  # a tenth of it for weights that are trained already
OWN_OPTIONS = {
    "fit": "crop",
    "grey": None,
    "test_share": 0.2,
    "group_by": None,
    "skip_broken": False,
    "accept_odd": False,
}
_OWN_TYPES = {"fit": str, "grey": bool, "test_share": float, "group_by": str, "skip_broken": bool, "accept_odd": bool}
# What a config of own images must have to be resolved without them.
_FROM_IMAGES = ("epochs", "pad", "flip", "batch_size", "learning_rate", "image_size")


def image_size(config: Config) -> tuple[int, int] | None:
    """Height and width of a config's own images; None for a size that follows from them.

    Raises:
        ValueError: neither a side nor HEIGHTxWIDTH.
    """
    if config.image_size is None:
        return None
    sides = re.fullmatch(r"([1-9]\d{0,4})(?:x([1-9]\d{0,4}))?", str(config.image_size))
    if sides is None:
        raise ValueError(
            f"`image_size` must be a side or HEIGHTxWIDTH, in pixels. Received: image_size={config.image_size!r}"
        )
    height, width = int(sides[1]), int(sides[2] or sides[1])
    integer("image_size", max(height, width), at_least=1, at_most=MOST_PIXELS)
    return height, width


def code_named(config: Config) -> dict[str, str]:
    """The options of a config that name functions, `package.module:function`, which are imported and called.

    A config that was read from a folder is somebody's; a command calls what it names only if it was asked to.
    """
    named = {name: str(getattr(config, name)) for name in ("dataset", "backbone")}
    known = {"backbone": ("keras:",), "dataset": ("tfds:",)}
    return {
        name: value
        for name, value in named.items()
        if re.fullmatch(r"[\w.]+:\w+", value) and not value.startswith(known[name])
    }


def has_gaps(config: Config) -> bool:
    """Whether a config needs its images to be resolved: images of one's own, whose presets follow from them."""
    text("dataset", config.dataset)
    return config.is_own and any(getattr(config, name) is None for name in _FROM_IMAGES)


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
    rarest = int(min(count for count in np.bincount(data.train_labels) if count))
    return Recipe(
        epochs=epochs,
        pad=side // 8,
        flip=True,
        holdout=max(1, rarest // 5),
        origin=data.origin,
        batch_size=batch_size,
        learning_rate=0.1 * batch_size / 128,
        why=(
            f"{epochs} epochs: {OWN_PASSES:,} images in all, in {OWN_EPOCHS[0]} to {OWN_EPOCHS[1]} epochs (--epochs)",
            f"batches of {batch_size}: about 40 an epoch, in 16 to 128; the learning rate in proportion (--batch-size)",
            "images are mirrored at random; where left and right mean something, say --no-flip",
        ),
    )


def why(config: Config, data: "ImageDataset") -> tuple[str, ...]:
    """Lines that say what images of one's own choose for a config, and why: not of what it gives itself."""
    chosen = zip((config.epochs, config.batch_size, config.flip), own_recipe(data).why, strict=True)
    return tuple(line for given, line in chosen if given is None)


def resolve(config: Config, data: "ImageDataset | None" = None, *, made: bool = False) -> Config:
    """Fill the gaps of a config from its presets, and check every value.

    Args:
        config: with or without gaps.
        data: the images, if they are one's own: their presets follow from them. A config without gaps needs none.
        made: whether it is of a run that is there: earlier versions let re-balancing begin after the last epoch.

    Raises:
        ValueError: an unknown name, a number out of range, a loss option that the method does not have.
    """
    from tf_mmloss import backbones
    from tf_mmloss.models import check_depth  # here: it imports Keras, which --help does not need

    text("dataset", config.dataset)
    config = dataclasses.replace(config, **_resolved_data(config, data))
    choice("imbalance", config.imbalance, (*IMBALANCES, "none"))
    choice("method", config.method, METHODS)
    choice("weights", config.weights, WEIGHT_SCHEMES)
    choice("precision", config.precision, PRECISIONS)
    choice("jit", config.jit, JIT)
    choice("input", config.input, INPUTS)
    choice("strategy", config.strategy, STRATEGIES)
    choice("schedule", config.schedule, SCHEDULES)
    choice("optimizer", config.optimizer, OPTIMIZERS)
    backbones.check(config.backbone, text("pretrained", config.pretrained))
    if config.pretraining is not None:
        choice("pretraining", config.pretraining, PRETRAINING)
    number("learning_rate", config.learning_rate, above=0)
    number("momentum", config.momentum, at_least=0, below=1)
    number("weight_decay", config.weight_decay, at_least=0, at_most=1e3)
    integer("batch_size", config.batch_size, at_least=1, at_most=MOST_IMAGES)
    integer("eval_every", config.eval_every, at_least=1, at_most=MOST_EPOCHS)
    integer("holdout", config.holdout, at_most=MOST_IMAGES)
    integer("pad", config.pad, at_most=1000)
    flag("flip", config.flip)
    for name in ("seed", "subset_seed"):  # NumPy and Keras take 32 bits
        if integer(name, getattr(config, name)) >= 2**32:
            raise ValueError(f"`{name}` must be below 2^32. {received(name, getattr(config, name))}")

    method = METHODS[config.method]
    defaults: dict[str, Any] = {**method.arguments, **method.of_dataset.get(config.dataset, {})}
    if method.loss == "MaxMarginLoss":
        (defaults["delta_neg"], defaults["beta"]), _ = _mm_constants(config)
    for name in config.loss_arguments:
        takes_class_margin = name == "class_margin" and method.loss == "MaxMarginLoss"
        if name not in defaults and not takes_class_margin:
            raise ValueError(
                f"`{name}` is no option of method {config.method}, whose loss takes {', '.join(defaults)}. "
                f"Received: {name}={getattr(config, name)!r}"
            )
    defaults["pretraining"] = method.pretraining
    given = {key: value for key, value in dataclasses.asdict(config).items() if value is not None}
    resolved = dataclasses.replace(config, **{**defaults, **given})
    if method.predicts == "rotation" and resolved.pretraining != "none":
        raise ValueError(
            f"`pretraining` is no option of method {config.method}, which is one. "
            f"Received: pretraining={config.pretraining!r}"
        )
    epochs = integer("epochs", resolved.epochs or 0, at_least=1, at_most=MOST_EPOCHS)
    if resolved.depth is not None:
        check_depth(resolved.depth)
    if (method.reweighting, method.resampling) == ("never", "never") and config.weights != Config.weights:
        raise ValueError(
            f"`weights` is no option of method {config.method}, which re-balances nothing. "
            f"Received: weights={config.weights!r}"
        )
    loss(resolved, cls_counts=[2, 1])  # refuses options out of range
    if "deferred" in (method.reweighting, method.resampling):
        first_drop = tf_mmloss.WarmupStepSchedule.published(epochs).milestones[0]
        start = config.start_epoch
        start = min(first_drop, epochs - 1) if start is None else integer("start_epoch", start)
        if start >= epochs and not (made and start == epochs):
            raise ValueError(
                f"`start_epoch` must be one of the {epochs} epochs, from 0 to {epochs - 1}: later ones never begin. "
                f"{received('start_epoch', start)}"
            )
        return dataclasses.replace(resolved, start_epoch=start)
    if config.start_epoch is not None:
        raise ValueError(
            f"`start_epoch` is no option of method {config.method}, which defers nothing. "
            f"Received: start_epoch={config.start_epoch}"
        )
    return resolved


def _resolved_data(config: Config, data: "ImageDataset | None") -> dict[str, Any]:
    """What the presets of a data set give to a config: the training set, and what is trained how long."""
    own = config.is_own
    for name in ("image_size", *OWN_OPTIONS):
        if not own and getattr(config, name) is not None:
            raise ValueError(
                f"`{name}` is for images of your own. Received: {name}={getattr(config, name)!r} with {config.dataset}"
            )
    image_size(config)
    checks: dict[type, Any] = {bool: flag, str: text, float: number}
    for name, kind in _OWN_TYPES.items():
        if getattr(config, name) is not None:
            checks[kind](name, getattr(config, name))
    if not own:
        recipe = RECIPES[config.dataset]
    elif data is not None:
        recipe = own_recipe(data)
    elif not has_gaps(config):
        recipe = None
    else:
        raise ValueError(
            f"`data` must be the images of {config.dataset}, as the presets follow from them. Received: None"
        )
    filled: dict[str, Any] = {"imbalance": "none" if own else "longtail"}
    if own:
        filled |= OWN_OPTIONS
        if data is not None:
            height, width = data.train_images.shape[1:3]
            filled["image_size"] = f"{height}" if height == width else f"{height}x{width}"
    filled |= _resolved_network(config)
    if recipe is not None:
        filled |= {name: getattr(recipe, name) for name in _FROM_IMAGES if hasattr(recipe, name)}
    if config.optimizer == "adamw":
        filled["learning_rate"] = ADAMW_RATE if config.pretrained == "none" else ADAMW_RATE / 10
    filled |= {name: getattr(config, name) for name in filled if getattr(config, name) is not None}
    if filled["imbalance"] == "none" and config.ratio not in (None, 1):
        raise ValueError(f"`ratio` is for an imbalance of longtail or step. Received: ratio={config.ratio!r} with none")
    ratio = config.ratio if config.ratio is not None else 1.0 if filled["imbalance"] == "none" else 100.0
    return {**filled, "ratio": float(number("ratio", ratio, at_least=1, at_most=MOST_RATIO))}


def schedule(config: Config) -> "tf_mmloss.WarmupStepSchedule | tf_mmloss.CosineSchedule":
    """The learning rate of a resolved config, a function of the epoch."""
    epochs = config.epochs or 0
    if config.schedule == "cosine":
        return tf_mmloss.CosineSchedule.scaled(epochs, config.learning_rate)
    return tf_mmloss.WarmupStepSchedule.published(epochs, config.learning_rate)


def _resolved_network(config: Config) -> dict[str, Any]:
    """The network by its name and, of our ResNets, by its depth; the weight decay that goes with an optimizer.

    Raises:
        ValueError: a depth that the name contradicts.
    """
    if config.depth is not None:
        integer("depth", config.depth, at_most=MOST_LAYERS)
    name = config.backbone or f"resnet{32 if config.depth is None else config.depth}"
    depth = re.fullmatch(r"resnet(\d{1,5})", name) if isinstance(name, str) else None
    if config.depth is not None and (depth is None or int(depth[1]) != config.depth):
        raise ValueError(f"`depth` must be that of backbone {name}, or left out. {received('depth', config.depth)}")
    return {
        "backbone": name,
        "depth": int(depth[1]) if depth else None,
        "weight_decay": 2e-4 if config.optimizer == "sgd" else 0.05,
    }


def optimizer(config: Config) -> "keras.optimizers.Optimizer":
    """The optimizer of a resolved config."""
    if config.optimizer == "adamw":
        import keras  # here: --help needs none

        return keras.optimizers.AdamW(config.learning_rate, config.weight_decay)
    return tf_mmloss.SGD(config.learning_rate, config.momentum, config.weight_decay)


def loss(config: Config, cls_counts: Counts) -> "tf_mmloss.LongTailLoss":
    """The loss of a resolved config.

    Raises:
        ValueError: bad counts or an option out of range.
    """
    loss_class, arguments = METHODS[config.method].loss_class, config.loss_arguments
    if "cls_counts" in inspect.signature(loss_class).parameters:
        arguments["cls_counts"] = cls_counts
    return loss_class(**arguments)


def pretraining(config: Config) -> Config | None:
    """The run whose backbone a resolved config starts from: the same images, length and network; None for none."""
    if config.pretraining == "none":
        return None
    unset: dict[str, Any] = dict.fromkeys((*LOSS_OPTIONS, "pretraining", "start_epoch"))
    return resolve(dataclasses.replace(config, method="rotation", weights="effective", **unset))


def show(config: Config, why: tuple[str, ...] = ()) -> str:
    """A resolved config as text: the method, where its constants come from, and every value.

    Args:
        config: resolved.
        why: more lines of where values come from, see `Recipe`.
    """
    method = METHODS[config.method]
    arguments = ", ".join(f"{name}={value}" for name, value in config.loss_arguments.items())
    constants = []
    if method.loss == "MaxMarginLoss":
        known, origin = _mm_constants(config)
        constants = [f"delta_neg and beta: {origin if (config.delta_neg, config.beta) == known else 'as given'}"]
    return "\n".join(
        [
            f"{config.method}: {method.loss}({arguments}), {method.head} head",
            f"re-weighting {method.reweighting}, re-sampling {method.resampling}"
            + (f", from epoch {config.start_epoch}" if config.start_epoch is not None else ""),
            f"pre-training {config.pretraining}",
            f"source: {method.source}",
            *constants,
            *why,
            *(f"  {name} = {value}" for name, value in dataclasses.asdict(config).items() if value is not None),
        ]
    )
