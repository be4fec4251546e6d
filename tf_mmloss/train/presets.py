"""What a method and a data set stand for: every number with its source.

The methods are those of `tf_mmloss.methods`, TABLE_1 names the systems of the paper; RECIPES hold what depends on the
data set alone, `own_recipe` does for images of one's own. `resolve` turns a `Config` with gaps into one without.
"""

import dataclasses
import itertools
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tf_mmloss
from tf_mmloss import _entry_points, augment, methods, mix
from tf_mmloss._validation import choice, flag, integer, number, received, text
from tf_mmloss.data.splits import is_share
from tf_mmloss.imbalance import IMBALANCES, WEIGHT_SCHEMES, Counts
from tf_mmloss.methods import METHODS, Stage
from tf_mmloss.methods.base import FIRST_DROP, HEADS, loss_class
from tf_mmloss.runs.fields import MOST_EPOCHS

if TYPE_CHECKING:
    import keras

    from tf_mmloss.datasets import ImageDataset

PRECISIONS = ("float32", "bfloat16", "float16")
JIT = ("auto", "on", "off")
INPUTS = ("host", "device", "epoch")
STRATEGIES = ("none", "mirrored", "data-parallel")
PRETRAINING = ("none", "rotation")
SCHEDULES = ("step", "cosine", "constant")
OPTIMIZERS = ("sgd", "adamw")

# What `--recipe` fills in where nothing is given. "strong" is what long-tail papers train this network with today, in
# 200 epochs; batch and rate of CIFAR alone, as the digits have their own and those of one's own images follow from
# their number. "record" takes twice the epochs, and SAM.
_POLICY = "autoaugment,cutout"
TRAININGS: dict[str, dict[str, Any]] = {
    "paper": {"schedule": "step", "augment": "none", "sam": 0.0},
    "strong": {"schedule": "cosine", "augment": _POLICY, "sam": 0.0, "batch_size": 64},
    "record": {"schedule": "step", "augment": _POLICY, "sam": 0.1, "sam_late": 0.2},
}
_SEARCHED = "The policy of autoaugment was searched on balanced CIFAR-10, with all of its labels."
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

# No run is deeper, or has larger batches, and none is longer than MOST_EPOCHS: a slip of the finger must not take the
# memory or the day.
MOST_LAYERS, MOST_IMAGES = 2_000, 2**20
MOST_RATIO, MOST_PIXELS, MOST_RHO = 1e6, 4096, 1e6

# The options that say how a run is made and not what it is, with the value that stands for all.
HOW: dict[str, Any] = {"precision": "float32", "eval_every": 1, "jit": "auto", "input": "host", "strategy": "none"}


# The default of what `resolve` always fills: None, in a field whose type is that of the filled value.
_TO_FILL: Any = None


@dataclasses.dataclass(frozen=True, init=False)
class Config:
    """A run. None stands for the value of the method's or the data set's preset.

    Options of the method's loss are given, replaced and read as if they were fields: Config(beta=1.2).beta.

    Args:
        dataset: a key of RECIPES, or images of one's own: whatever `tf_mmloss.data.load_images` takes.
        imbalance: "longtail" or "step": the training set is cut down to it; "none": it stays as it is. Default:
            "longtail" for the data sets of RECIPES, "none" for one's own.
        ratio: largest over smallest class. Default 100; 1, without a meaning, for "none".
        image_size: "64" or "40x24" (height by width), what one's own images are brought to. fit, grey, test_share,
            group_by, skip_broken, accept_odd: how they are read and split, see `tf_mmloss.data.load_images`.
        method: a key of METHODS, or `package.module:function`, which returns a `tf_mmloss.methods.Method`.
        loss_arguments: the options of the method's loss that are set, by name.
        weights: class weights of re-weighting and re-sampling: "effective" or "inverse". Default: the method's.
        pretraining: "none", or "rotation": start from the backbone of the run of method "rotation" beside it.
        start_epoch: first epoch of the method's last stage, where it has several; of the deferred methods by default
            that of the first drop of the learning rate, or the last one where the run ends before.
        epochs, batch_size, learning_rate, momentum, weight_decay: the training.
        backbone: the network under the head, see `tf_mmloss.backbones.open_backbone`. Default "resnet32"; depth says
            the same of a ResNet in a number, and is None of others. pretrained: its weights. Default "none", and
            "preset" of KerasHub's.
        optimizer: "sgd" (the paper's, with coupled weight decay) or "adamw".
        schedule: of the learning rate: "step" (the paper's) or "cosine", both after a linear warm-up and of a length
            that follows from `epochs`, or "constant", with which a run can be made longer.
        pad, flip: augmentation: zeros on each side before a random crop; mirroring.
        augment: what else is done to training images, "autoaugment,cutout", see `tf_mmloss.augment`. Default "none".
        frozen_epochs: first epochs, in which pretrained weights stay as they are and the head alone is trained, the
            batch normalisations in inference mode, at FROZEN_RATE times the learning rate of the whole network.
            Default: a tenth of the epochs; None without pretrained weights. 0: none.
        seed: of initial weights, order and augmentation. subset_seed: of the choice of training images.
        holdout: images of each class taken from the training split, before it is made imbalanced, and evaluated
            in place of the test split (for tuning); 0 evaluates on the test split. Of own images, or with `imbalance`
            none, also a share of each class, as 0.2: at least five images of it, at most half.
        eval_every: evaluate every so many epochs, and after the last one.
        precision: "float32", "bfloat16" or "float16". jit: "auto", "on" or "off" (XLA).
        input: "host" (tf.data), "device" (images lie on the device and are augmented in the compiled step) or "epoch"
            (the same, and an epoch is one compiled program; JAX).
        strategy: "none" (one device), "mirrored" (all devices of the host; TensorFlow) or "data-parallel" (all devices
            of all processes; JAX). The same batches and the same results, but for rounding.
        recipe: "paper", "strong" or "record": what fills in `schedule`, `augment`, `batch_size`, `classifier`,
            `epochs`, `weight_decay` and `sam`, where they are not given; see TRAININGS.
        classifier: the head, "dense" or "cosine", of a method that has both. Default: the method's.
        sam: radius of `tf_mmloss.SAM`; 0 (default) trains without it. sam_late: the radius from the first drop of the
            paper's rate on, 160 of 200 epochs. Default: `sam`.
        mix: "none", or how training images are mixed with one another, see `tf_mmloss.mix`. mix_alpha: of its Beta
            distribution.
        ema: decay of a moving average of the weights, one step after the other; 0 (default) has none. The average is
            what is evaluated and saved as a model, with the batch-norm statistics of the training. In every stage
            with an optimizer of its own it begins anew, and fast: step t of it decays by at most t / (9 + t).
        decide: what is made of the network's outputs, see `tf_mmloss.decide`: "none" (default), "logit-adjustment",
            "tau-normalisation" or "temperature", with a strength behind a colon, or fitted on the images of `holdout`.
    """

    dataset: str = "cifar10"
    imbalance: str = _TO_FILL
    ratio: float = _TO_FILL
    method: str = "mm-drw"
    loss_arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict, hash=False)
    weights: str = _TO_FILL
    pretraining: str | None = None
    start_epoch: int | None = None
    epochs: int | None = None
    batch_size: int = _TO_FILL
    learning_rate: float = _TO_FILL
    momentum: float = 0.9
    weight_decay: float = _TO_FILL
    optimizer: str = "sgd"
    schedule: str = _TO_FILL
    backbone: str = _TO_FILL
    depth: int | None = None
    pretrained: str = _TO_FILL
    pad: int = _TO_FILL
    flip: bool = _TO_FILL
    augment: str = _TO_FILL
    seed: int = 0
    subset_seed: int = 0
    holdout: int | float = 0
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
    recipe: str = "paper"
    classifier: str = _TO_FILL
    sam: float = _TO_FILL
    sam_late: float = _TO_FILL
    mix: str = "none"
    mix_alpha: float = 1.0
    ema: float = 0.0
    decide: str = "none"
    frozen_epochs: int | None = None

    def __init__(self, *values: Any, **named: Any) -> None:
        fields = dataclasses.fields(self)
        if len(values) > len(fields):
            raise TypeError(f"Config has {len(fields)} fields. Received: {len(values)} values")
        given = {field.name: value for field, value in zip(fields, values, strict=False)}
        if twice := sorted(given.keys() & named.keys()):
            raise TypeError(f"Config has two values of {', '.join(twice)}.")
        given |= named
        of_loss = dict(given.pop("loss_arguments", None) or {})
        for field in fields:
            if field.name != "loss_arguments":
                object.__setattr__(self, field.name, given.pop(field.name, field.default))
        of_loss = {name: value for name, value in (of_loss | given).items() if value is not None}
        object.__setattr__(self, "loss_arguments", of_loss)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if not name.startswith("_") and name != "loss_arguments":
                if name in self.loss_arguments:
                    return self.loss_arguments[name]
                if name in methods.loss_options():
                    return None
            raise AttributeError(f"a config has no {name}")

    def values(self) -> dict[str, Any]:
        """All values by name, as config.json has them; the options of losses in a row with the others."""
        values = dict(vars(self))
        names = dict.fromkeys((*methods.loss_options(), *self.loss_arguments))
        before = list(values)[: list(values).index("weights")]
        options = {name: self.loss_arguments.get(name) for name in names}
        del values["loss_arguments"]
        return {name: values[name] for name in before if name in values} | options | values

    @property
    def is_own(self) -> bool:
        """Whether the images are the user's own, and no data set of RECIPES."""
        return not (isinstance(self.dataset, str) and self.dataset in RECIPES)

    @property
    def name(self) -> str:
        """Name of the run's folder, by default."""
        own = re.sub(r"[^\w.-]+", "-", Path(self.dataset).stem).strip("-.") or "images"
        kind = self.imbalance or ("none" if self.is_own else "longtail")  # as `resolve` fills it
        imbalance = "" if kind == "none" and self.is_own else f"-{kind}"
        ratio = "" if kind == "none" else f"{100 if self.ratio is None else self.ratio:g}"
        method = re.sub(r"[^\w.-]+", "-", str(self.method))
        recipe = "" if self.recipe == "paper" else f"-{self.recipe}"
        return f"{own if self.is_own else self.dataset}{imbalance}{ratio}-{method}{recipe}-seed{self.seed}"


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


def _mm_constants(config: Config) -> tuple[tuple[float, float], str]:
    """(delta_neg, beta) of a method of MM on a training set, and where they come from."""
    setting = config.dataset, config.imbalance, config.ratio
    space = str(config.loss_arguments.get("margin_space") or METHODS[config.method].arguments["margin_space"])
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
_OWN_TYPES = {"fit": str, "grey": bool, "test_share": float, "group_by": str, "skip_broken": bool, "accept_odd": bool}
# What a config of own images must have to be resolved without them.
OF_IMAGES = ("epochs", "pad", "flip", "batch_size", "learning_rate", "image_size")


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
    """The options of a config that name code: a function, `package.module:function`, or a folder that KerasHub reads.

    A config that was read from a folder is somebody's; a command calls what it names only if it was asked to.
    """
    installed = _entry_points.entry_points(_entry_points.SOURCES)
    known = {"backbone": ("keras", "hub"), "dataset": ("tfds", *installed), "method": (), "augment": ()}
    found = {}
    for name, prefixes in known.items():
        value = str(getattr(config, name))
        parts = [part.strip() for part in value.split(",")] if name == "augment" else [value]
        if any(methods.is_function(part) and part.partition(":")[0] not in prefixes for part in parts):
            found[name] = value
    backbone = str(config.backbone)
    if backbone.startswith("hub:") and Path(backbone.removeprefix("hub:")).is_dir():
        found["backbone"] = backbone  # KerasHub imports the modules that the files of the folder name
    return found


def of_a_method() -> set[str]:
    """The options of single methods, and the method itself: a comparison takes none of them."""
    return {"method", "loss_arguments", "weights", "start_epoch", "pretraining", "decide", *methods.loss_options()}


def has_gaps(config: Config) -> bool:
    """Whether a config needs its images to be resolved: images of one's own, whose presets follow from them."""
    text("dataset", config.dataset)
    return config.is_own and any(getattr(config, name) is None for name in OF_IMAGES)


def check_holdout(config: Config, at_least: int = 0) -> None:
    """Refuse a holdout that is no number of images, or a share where the training set is made of equal classes.

    Raises:
        ValueError: it is.
    """
    if is_share(config.holdout) and (config.is_own or config.imbalance == "none"):
        return
    where = ", or a share of each class in (0, 1) of own images or with `imbalance` none"
    try:
        integer("holdout", config.holdout, at_least=at_least, at_most=MOST_IMAGES)
    except ValueError as error:
        raise ValueError(str(error).replace(". Received", f"{where}. Received", 1)) from None


def holdout(config: Config, data: "ImageDataset | None") -> int | float:
    """What tuning and comparing hold out of a data set: images of each class, or a share.

    Args:
        config: for its data set.
        data: the images, if they are one's own.
    """
    return (own_recipe(data) if config.is_own and data is not None else RECIPES[config.dataset]).holdout


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
    return Recipe(
        epochs=epochs,
        pad=side // 8,
        flip=True,
        holdout=0.2,
        origin=data.origin,
        batch_size=batch_size,
        learning_rate=0.1 * batch_size / 128,
        why=(
            f"{epochs} epochs: as many as see {OWN_PASSES:,} images, but {OWN_EPOCHS[0]} to {OWN_EPOCHS[1]} (--epochs)",
            f"batches of {batch_size}: for about 40 an epoch, but 16 to 128 images; the learning rate in proportion "
            "(--batch-size)",
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
    from tf_mmloss import backbones, decide  # here: they import Keras, which --help does not need
    from tf_mmloss.models import check_depth

    text("dataset", config.dataset)
    if methods.is_function(config.method) and not made:
        methods.open_function(config.method)
    method = methods.find(config.method)
    given = {name: value for name, value in vars(config).items() if value is not None}
    filled = {"classifier": method.head, **training(config), **given}
    if "sam_late" not in (given if "sam" in given else filled):
        filled["sam_late"] = filled["sam"]
    config = dataclasses.replace(config, **filled)
    config = dataclasses.replace(config, **_resolved_data(config, data))
    choice("imbalance", config.imbalance, (*IMBALANCES, "none"))
    if config.weights is not None:
        choice("weights", config.weights, WEIGHT_SCHEMES)
    choice("precision", config.precision, PRECISIONS)
    choice("jit", config.jit, JIT)
    choice("input", config.input, INPUTS)
    choice("strategy", config.strategy, STRATEGIES)
    choice("schedule", config.schedule, SCHEDULES)
    choice("optimizer", config.optimizer, OPTIMIZERS)
    text("pretrained", config.pretrained)
    if not made:  # a run that is there has its network, whatever became of the file of its first weights
        backbones.check(config.backbone, config.pretrained)
    if config.pretraining is not None:
        choice("pretraining", config.pretraining, PRETRAINING)
    number("learning_rate", config.learning_rate, above=0)
    number("momentum", config.momentum, at_least=0, below=1)
    number("weight_decay", config.weight_decay, at_least=0, at_most=1e3)
    integer("batch_size", config.batch_size, at_least=1, at_most=MOST_IMAGES)
    integer("eval_every", config.eval_every, at_least=1, at_most=MOST_EPOCHS)
    check_holdout(config)
    integer("pad", config.pad, at_most=1000)
    flag("flip", config.flip)
    augment.check(config.augment)
    number("ema", config.ema, at_least=0, below=1)
    for name in ("sam", "sam_late"):
        number(name, getattr(config, name), at_least=0, at_most=MOST_RHO)
    if rho(config, 0) is not None and config.input == "epoch":
        raise ValueError(
            "`sam` needs `input` host or device: its two passes are no part of an epoch that is one program. "
            f"Received: sam={config.sam!r} with input='epoch'"
        )
    for name in ("seed", "subset_seed"):  # NumPy and Keras take 32 bits
        if integer(name, getattr(config, name)) >= 2**32:
            raise ValueError(f"`{name}` must be below 2^32. {received(name, getattr(config, name))}")

    if not made:  # earlier versions took these, without an effect
        if config.mix == "none" and config.mix_alpha != 1:
            raise ValueError(f"`mix_alpha` needs a `mix`. {received('mix_alpha', config.mix_alpha)}")
        if config.optimizer != "sgd" and config.momentum != 0.9:
            raise ValueError(
                f"`momentum` is of the optimizer sgd. {received('momentum', config.momentum)} with {config.optimizer}"
            )

    options: dict[str, methods.Option] = {}
    for its_loss in method.losses:
        options = {**methods.signature(its_loss).options, **options}
    arguments = method.defaults(config.dataset)
    for name, value in config.loss_arguments.items():
        if name not in options:
            raise ValueError(
                f"`{name}` is no option of method {config.method}, whose loss takes {', '.join(options)}. "
                f"{received(name, value)}"
            )
        if name in method.fixed and value != arguments.get(name, options[name].default) and not made:
            raise ValueError(
                f"`{name}` is no option of method {config.method}, which has a published value of it for each of its "
                f"stages: --show says which. {received(name, value)}"
            )
    if method.loss == "MaxMarginLoss":
        (arguments["delta_neg"], arguments["beta"]), _ = _mm_constants(config)
    if _classifier(config) != method.head:
        arguments |= method.cosine or {}
    arguments |= config.loss_arguments
    order = ("scale", *options)  # of texts that show them
    schemes = [stage.scheme for stage in method.own_stages if stage.scheme]
    resolved = dataclasses.replace(
        config,
        loss_arguments={name: arguments[name] for name in order if name in arguments},
        pretraining=method.pretraining if config.pretraining is None else config.pretraining,
        weights=(schemes[-1] if schemes else "effective") if config.weights is None else config.weights,
    )
    if method.task == "rotation" and config.augment != "none":
        raise ValueError(
            f"`augment` is no option of method {config.method}: nothing else may turn an image. "
            f"Received: augment={config.augment!r}"
        )
    if method.task == "rotation" and resolved.pretraining != "none":
        raise ValueError(
            f"`pretraining` is no option of method {config.method}, which is one. "
            f"Received: pretraining={config.pretraining!r}"
        )
    epochs = integer("epochs", resolved.epochs or 0, at_least=1, at_most=MOST_EPOCHS)
    if resolved.depth is not None:
        check_depth(resolved.depth)
    if not schemes and resolved.weights != "effective":
        raise ValueError(
            f"`weights` is no option of method {config.method}, which re-balances nothing. "
            f"Received: weights={config.weights!r}"
        )
    for stage in _own_stages(resolved):
        built = loss(resolved, [2, 1], stage)  # refuses options out of range
        _check_mix(resolved, built)
    form: dict[str, Any] = {"probabilistic": built.probabilistic, "activation": built.activation}
    decide.check(config.decide, head=config.classifier, holdout=config.holdout, **form)
    if any(stage.is_apart for stage in method.own_stages) and epochs < 2:
        raise ValueError(
            f"`epochs` must be at least 2 with method {config.method}, whose stages are trained one after the other. "
            f"Received: epochs={epochs}"
        )
    if len(method.own_stages) > 1:
        start = stages(resolved)[-1][0]
        if config.start_epoch is not None:
            start = integer("start_epoch", config.start_epoch, at_least=int(method.own_stages[-1].is_apart))
        if start >= epochs and not (made and start == epochs):
            raise ValueError(
                f"`start_epoch` must be one of the {epochs} epochs, from 0 to {epochs - 1}: later ones never begin. "
                f"{received('start_epoch', start)}"
            )
        resolved = dataclasses.replace(resolved, start_epoch=start)
    elif config.start_epoch is not None:
        raise ValueError(
            f"`start_epoch` is no option of method {config.method}, which has one stage. "
            f"Received: start_epoch={config.start_epoch}"
        )
    if not made:
        _check_mixed_epochs(resolved)
    return dataclasses.replace(resolved, frozen_epochs=_frozen_epochs(resolved, made))


def _check_mixed_epochs(config: Config) -> None:
    """Refuse a mixing that no epoch of a config, resolved but for `frozen_epochs`, has."""
    mixing, epochs = mix.find(config.mix), mixed_epochs(config) or 0
    if mixing is not None and epochs <= mixing.begins + mixing.spared:
        of = "" if epochs == config.epochs else f" before the stage of method {config.method} that mixes none"
        raise ValueError(
            f"`epochs` must be more than {mixing.begins + mixing.spared}{of}: {config.mix} mixes no image in the first "
            f"{mixing.begins} and the last {mixing.spared}. Received: {epochs}"
        )


def _check_mix(config: Config, loss: "tf_mmloss.LongTailLoss") -> None:
    """Refuse a mixing whose targets the loss has no form for."""
    if mix.find(config.mix) is None:
        return
    number("mix_alpha", config.mix_alpha, above=0, at_most=1e6)
    if METHODS[config.method].task == "rotation":
        raise ValueError(f"`mix` is no option of method {config.method}. Received: mix={config.mix!r}")
    if loss.soft_loss is None:
        raise ValueError(
            f"`mix` makes soft targets, for which {type(loss).__name__} of method {config.method} is not defined. "
            f"Received: mix={config.mix!r}"
        )


def training(config: Config) -> dict[str, Any]:
    """What the recipe of a config fills in where nothing is given; the method is known.

    Raises:
        ValueError: an unknown recipe.
    """
    method, filled = METHODS[config.method], dict(TRAININGS[choice("recipe", config.recipe, TRAININGS)])
    if config.is_own or RECIPES[config.dataset].batch_size != Recipe.batch_size:
        filled.pop("batch_size", None)
    if config.recipe == "record":
        setting = config.dataset, config.imbalance or "longtail", 100 if config.ratio is None else config.ratio
        decay, filled["sam"], filled["sam_late"] = RECORD_CONSTANTS.get(setting, (2e-4, 0.1, 0.2))
        if config.optimizer == "sgd":
            filled["weight_decay"] = decay
        if not config.is_own:
            filled["epochs"] = 2 * RECIPES[config.dataset].epochs
    if method.task == "rotation":  # nothing else may turn an image
        filled["augment"] = "none"
    if config.recipe != "paper" and method.cosine is not None:
        filled["classifier"] = method.recipe_head or "cosine"
    return filled


def _classifier(config: Config) -> str:
    """The head of a config, which its method must have.

    Raises:
        ValueError: another one.
    """
    method = METHODS[config.method]
    known = ("dense", "cosine") if method.cosine is not None else (method.head,)
    if choice("classifier", config.classifier, HEADS) not in known:
        raise ValueError(
            f"`classifier` of method {config.method} must be {' or '.join(known)}. "
            f"{received('classifier', config.classifier)}"
        )
    return config.classifier


def _frozen_epochs(config: Config, made: bool) -> int | None:
    """How long pretrained weights are frozen, of a config that is resolved but for it; None without such weights."""
    given, most = config.frozen_epochs, _schedule_ends(config) - 1
    if config.pretrained == "none":
        if given is not None and integer("frozen_epochs", given):
            raise ValueError(f"`frozen_epochs` needs pretrained weights, --pretrained. Received: frozen_epochs={given}")
        return None
    if given is None:  # a run of an earlier version had none
        return 0 if made else min(_frozen_by_default(config), most)
    if integer("frozen_epochs", given) > most:
        raise ValueError(
            f"`frozen_epochs` must leave epochs for the whole network: at most {most}. Received: frozen_epochs={given}"
        )
    return given


def _frozen_by_default(config: Config) -> int:
    return max(1, round(FROZEN_SHARE * (config.epochs or 0)))


def _first_epoch(stage: Stage, epochs: int, ends: int) -> int:
    """Where a stage begins in so many epochs, one of them; `ends`: where the schedule of the first stages does."""
    if stage.starts == FIRST_DROP:
        start = tf_mmloss.WarmupStepSchedule.published(ends).milestones[0]
    else:
        start = max(round(float(stage.starts) * epochs), int(stage.is_apart))
    return min(start, epochs - 1)


def _schedule_ends(config: Config) -> int:
    """The epoch in which a stage with a rate of its own begins, in place of the schedule; else that after the last."""
    epochs = config.epochs or 0
    own = METHODS[config.method].own_stages
    first = next((i for i, stage in enumerate(own) if stage.rate is not None), None)
    if first is None:
        return epochs
    if first == len(own) - 1 and config.start_epoch is not None:
        return config.start_epoch
    return _first_epoch(own[first], epochs, epochs)


def _own_stages(config: Config) -> list[Stage]:
    """The stages of a config's method, with what is published for its data set."""
    return [stage.on(config.dataset) for stage in METHODS[config.method].own_stages]


def stages(config: Config) -> list[tuple[int, Stage]]:
    """The stages of a resolved config's own training, each with its first epoch and its class weights."""
    epochs, ends, found = config.epochs or 0, _schedule_ends(config), []
    for stage in _own_stages(config):
        chosen: dict[str, Any] = {name: config.weights for name in ("weights", "sampling") if getattr(stage, name)}
        found.append((_first_epoch(stage, epochs, ends), dataclasses.replace(stage, **chosen)))
    if config.start_epoch is not None:
        found[-1] = config.start_epoch, found[-1][1]
    return found


def mixed_epochs(config: Config) -> int | None:
    """The epochs of a resolved config before the first stage that mixes no images; all, where there is none."""
    return next((start for start, stage in stages(config) if not stage.mixes), config.epochs)


@dataclasses.dataclass(frozen=True)
class Phase:
    """Epochs, from `start` up to `stop`, that are trained with one optimizer: what of the network, and the loss."""

    start: int
    stop: int
    stage: Stage

    def has_loss_of(self, other: "Phase") -> bool:
        """Whether another phase has the same loss."""
        return (self.stage.loss, self.stage.arguments) == (other.stage.loss, other.stage.arguments)


def phases(config: Config) -> list[Phase]:
    """The phases of a resolved config's own training, in their order: most have one."""
    begun = [(start, stage) for start, stage in stages(config) if not start or stage.is_apart]
    if config.frozen_epochs:
        begun = [(0, Stage(trains="head")), (config.frozen_epochs, begun[0][1]), *begun[1:]]
    ends = (config.epochs or 0, Stage())
    return [Phase(start, stop, stage) for (start, stage), (stop, _) in itertools.pairwise([*begun, ends])]


def begins(config: Config, name: str) -> int | None:
    """The first epoch of a resolved config that has "weights" or "sampling"; None: there is none."""
    return next((start for start, stage in stages(config) if getattr(stage, name)), None)


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
        filled |= {name: getattr(recipe, name) for name in OF_IMAGES if hasattr(recipe, name)}
    if config.optimizer == "adamw":
        filled["learning_rate"] = ADAMW_RATE
    if (config.pretrained or filled["pretrained"]) != "none" and "learning_rate" in filled:
        filled["learning_rate"] /= FROZEN_RATE
    filled |= {name: getattr(config, name) for name in filled if getattr(config, name) is not None}
    if filled["imbalance"] == "none" and config.ratio not in (None, 1):
        raise ValueError(f"`ratio` is for an imbalance of longtail or step. Received: ratio={config.ratio!r} with none")
    ratio = config.ratio if config.ratio is not None else 1.0 if filled["imbalance"] == "none" else 100.0
    return {**filled, "ratio": float(number("ratio", ratio, at_least=1, at_most=MOST_RATIO))}


def schedule(config: Config) -> Callable[[int], float]:
    """The learning rate of a resolved config, a function of the epoch."""
    epochs, ends, frozen = config.epochs or 0, _schedule_ends(config), config.frozen_epochs or 0
    whole: Callable[[int], float]
    if config.schedule == "constant":
        whole = tf_mmloss.WarmupStepSchedule(config.learning_rate, warmup_epochs=0, milestones=())
    elif config.schedule == "cosine":
        whole = tf_mmloss.CosineSchedule.scaled(ends, config.learning_rate)
    else:
        whole = tf_mmloss.WarmupStepSchedule.published(ends, config.learning_rate)
    begun = [(start, stage.rate) for start, stage in stages(config) if stage.rate is not None]
    own = [
        (start, tf_mmloss.CosineSchedule(rate * config.learning_rate, stop - start, warmup_epochs=0))
        for (start, rate), (stop, _) in itertools.pairwise([*begun, (epochs, 0.0)])
    ]

    def rate_of(epoch: int, _current_rate: float | None = None) -> float:
        if epoch < frozen:
            return FROZEN_RATE * config.learning_rate
        start, rate = next(((start, rate) for start, rate in reversed(own) if epoch >= start), (0, whole))
        return rate(epoch - start)

    return rate_of


def lengthened(config: Config, epochs: int, **given: Any) -> Config:
    """The config of a run like a resolved one, of more epochs: what follows from their number does so anew.

    Args:
        config: resolved.
        epochs: of the longer run.
        given: values of other fields.

    Raises:
        ValueError: see `resolve`.
    """
    derived: dict[str, Any] = {}
    if config.start_epoch == stages(dataclasses.replace(config, start_epoch=None))[-1][0]:
        derived["start_epoch"] = None
    if config.frozen_epochs and config.frozen_epochs == _frozen_by_default(config):
        derived["frozen_epochs"] = None
    return resolve(dataclasses.replace(config, **{**derived, **given, "epochs": epochs}))


def check_lengthened(config: Config, longer: Config, done: int) -> None:
    """Refuse a longer run whose first epochs would have been others than those that were trained.

    Args:
        config, longer: resolved, alike but for `epochs` and what follows from it.
        done: epochs that were trained.

    Raises:
        ValueError: naming what would have been another.
    """
    rates: list[tuple[str, Callable[[Config, int], float | None]]] = [
        ("learning rate", lambda config, epoch: schedule(config)(epoch)),
        ("radius of SAM", rho),
    ]
    for what, of in rates:
        for epoch in range(done):
            before, after = of(config, epoch), of(longer, epoch)
            if before != after:
                raise ValueError(
                    f"its {what} follows from `epochs`: in epoch {epoch} it was {before:.3g}, and in a run of "
                    f"{longer.epochs} epochs it is {after:.3g}; a run with --schedule constant and no SAM can be"
                )
    begun: list[tuple[str, Callable[[Config], list[int]], str]] = [
        ("the last stage of its method", lambda config: [start for start, _ in stages(config)], "start-epoch"),
        ("training of the whole network", lambda config: [phase.start for phase in phases(config)], "frozen-epochs"),
    ]
    for what, starts, option in begun:
        there, asked = ([start for start in starts(one) if start < done] for one in (config, longer))
        if there != asked:
            raise ValueError(
                f"{what} began at epoch {there[-1]}, which follows from `epochs`; --{option} keeps it there"
            )
    mixing = mix.find(config.mix)
    if mixing is not None and mixing.spared and done > (config.epochs or 0) - mixing.spared:
        raise ValueError(f"{config.mix} does not mix the last {mixing.spared} epochs, which they would not be")
    if config.pretraining != "none":
        raise ValueError("it started from a backbone that was trained for as many epochs")


def rho(config: Config, epoch: int) -> float | None:
    """The radius of SAM in an epoch of a resolved config; None: it trains without SAM."""
    if not (config.sam or config.sam_late):
        return None
    late = _first_epoch(Stage(FIRST_DROP), config.epochs or 1, _schedule_ends(config))
    return float(config.sam_late if epoch >= late else config.sam)


def _resolved_network(config: Config) -> dict[str, Any]:
    """The network by its name and, of our ResNets, by its depth; the weight decay that goes with an optimizer.

    Raises:
        ValueError: a depth that the name contradicts.
    """
    from tf_mmloss import backbones  # here: they import Keras, which --help does not need

    if config.depth is not None:
        integer("depth", config.depth, at_most=MOST_LAYERS)
    name = config.backbone or f"resnet{32 if config.depth is None else config.depth}"
    depth = re.fullmatch(r"resnet(\d{1,5})", name) if isinstance(name, str) else None
    if config.depth is not None and (depth is None or int(depth[1]) != config.depth):
        raise ValueError(f"`depth` must be that of backbone {name}, or left out. {received('depth', config.depth)}")
    return {
        "backbone": name,
        "depth": int(depth[1]) if depth else None,
        "pretrained": backbones.default_weights(name),
        "weight_decay": 2e-4 if config.optimizer == "sgd" else 0.05,
    }


def optimizer(config: Config) -> "keras.optimizers.Optimizer":
    """The optimizer of a resolved config."""
    import keras  # here: --help needs none

    from tf_mmloss.optimizers import averaged

    if config.optimizer == "adamw":
        plain = keras.optimizers.AdamW(config.learning_rate, config.weight_decay)
    else:
        plain = tf_mmloss.SGD(config.learning_rate, config.momentum, config.weight_decay)
    return averaged(plain, config.ema) if config.ema else plain


def loss(config: Config, cls_counts: Counts, stage: Stage | None = None) -> "tf_mmloss.LongTailLoss":
    """The loss of a resolved config, or that of one of its stages.

    Raises:
        ValueError: bad counts or an option out of range.
    """
    name, arguments = _loss_of(config, stage or Stage())
    given: dict[str, Any] = {"cls_counts": cls_counts, "seed": config.seed}
    return loss_class(name)(**arguments, **{name: given[name] for name in methods.signature(name).given})


def first_bias(config: Config, num_classes: int) -> float:
    """The bias that the head of a resolved config begins with: of a yes-or-no question for each class, -log(C - 1) / s.

    Of C questions one is answered with yes (Cui et al. 2019, section 4.2).
    """
    asks = loss_class(METHODS[config.method].loss).activation == "sigmoid" and config.classifier == "dense"
    return -math.log(num_classes - 1) / config.loss_arguments.get("scale", 1.0) if asks else 0.0


def _loss_of(config: Config, stage: Stage) -> tuple[str, dict[str, Any]]:
    """The name of the loss of a stage, and its arguments: those of the run, and of what is fixed the stage's."""
    method = METHODS[config.method]
    name = stage.loss or method.loss
    options = methods.signature(name).options
    of_run = {option: value for option, value in config.loss_arguments.items() if option in options}
    return name, of_run | {option: value for option, value in stage.arguments.items() if option in method.fixed}


def adjusted_twice(config: Config, spec: str) -> str | None:
    """What to say of a decision with a strength that was given, if the training of a resolved config has its effect."""
    from tf_mmloss import decide  # here: it imports Keras, which --help does not need

    decision, strength = decide.parse(spec)
    if decision is None or decision.name != "logit-adjustment" or not strength:
        return None
    begun = stages(config)
    if loss(config, [2, 1], begun[-1][1]).adjusts_priors:
        said = "the loss takes the class frequencies out already"
    elif any(stage.scheme for _, stage in begun):
        said = "the training balances the classes already"
    else:
        return None
    return f"{said}; --decide {spec} does so once more, where one without a number is fitted on the images of --holdout"


# What a run shares with the one that its backbone comes from: images, length and network, and how they are made.
WITH_PRETRAINING = (
    *("dataset", "imbalance", "ratio", "subset_seed", "holdout"),
    *("image_size", "fit", "grey", "test_share", "group_by", "skip_broken", "accept_odd"),
    *("epochs", "batch_size", "learning_rate", "momentum", "weight_decay", "optimizer", "schedule", "recipe"),
    *("backbone", "depth", "pretrained", "frozen_epochs", "pad", "flip", "seed"),
    *HOW,
)
# Of the latter, what its recipe would fill in for other methods.
_ROTATION: dict[str, Any] = {"augment": "none", "classifier": "dense", "sam": 0.0, "sam_late": 0.0}


def pretraining(config: Config) -> Config | None:
    """The run whose backbone a resolved config starts from: the same images, length and network; None for none."""
    if config.pretraining == "none":
        return None
    shared = {name: getattr(config, name) for name in WITH_PRETRAINING}
    return resolve(Config(**shared, **_ROTATION, method="rotation"))


def show(config: Config, why: tuple[str, ...] = ()) -> str:
    """A resolved config as text: the method, where its constants come from, and every value.

    Args:
        config: resolved.
        why: more lines of where values come from, see `Recipe`.
    """
    method = METHODS[config.method]
    its_loss, arguments = _loss_of(config, Stage())
    constants = []
    if method.loss == "MaxMarginLoss":
        known, origin = _mm_constants(config)
        chosen = tuple(config.loss_arguments[name] for name in ("delta_neg", "beta"))
        constants = [f"delta_neg and beta: {origin if chosen == known else 'as given'}"]
    return "\n".join(
        [
            f"{config.method}: {its_loss}({_listed(arguments)}), {config.classifier} head",
            *_shown_recipe(config),
            *_shown_stages(config),
            *filter(None, [_shown_influence(config), adjusted_twice(config, config.decide)]),
            f"pre-training {config.pretraining}",
            f"source: {method.source}",
            *constants,
            *why,
            *(f"  {name} = {value}" for name, value in config.values().items() if value is not None),
        ]
    )


def _shown_recipe(config: Config) -> list[str]:
    """What of a resolved config its recipe says, and what was given in its place."""
    if config.recipe == "paper":
        return []
    said = training(config)
    taken = [f"{name} = {value}" for name, value in said.items() if getattr(config, name) == value]
    given = [f"{name} = {getattr(config, name)}" for name, value in said.items() if getattr(config, name) != value]
    return [
        f"recipe {config.recipe}: {', '.join(taken) or 'nothing'}{'; as given: ' * bool(given)}{', '.join(given)}",
        f"source of the recipe: {TRAINING_SOURCES[config.recipe]}",
    ]


def _shown_influence(config: Config) -> str | None:
    """What to say of an influence-balanced stage that begins at more than a hundredth of the rate."""
    begun = stages(config)[-1][0]
    rate = schedule(config)(begun)
    if METHODS[config.method].loss != "InfluenceBalancedLoss" or rate <= 0.0101 * config.learning_rate:
        return None
    return (
        f"the influence counts from epoch {begun} on, at a learning rate of {rate:.3g}, where a hundredth of the first "
        f"one, {config.learning_rate / 100:g}, is published: a later --start-epoch, or --schedule step, begins lower"
    )


def _shown_stages(config: Config) -> list[str]:
    """A line for each stage, with its first epoch."""
    frozen, rate, lines = config.frozen_epochs, config.learning_rate, []
    if frozen:
        lines = [
            f"from epoch 0: the head alone, at a learning rate of {FROZEN_RATE * rate:g}; the pretrained weights are "
            "frozen, batch normalisation in inference mode",
            f"from epoch {frozen}: the whole network, at a learning rate of {rate:g}",
        ]
    return lines + [f"from epoch {start}: {_described(stage, config)}" for start, stage in stages(config)]


def _listed(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in arguments.items())


def _described(stage: Stage, config: Config) -> str:
    """A stage in words."""
    its_loss, arguments = _loss_of(config, stage)
    done: list[Any] = [
        stage.part
        and f"{stage.part}{', begun anew' if stage.anew else ''}, the backbone frozen with batch "
        f"normalisation in {stage.batch_norm} mode",
        (stage.loss or stage.arguments) and f"{its_loss}({_listed(arguments)})",
        stage.rate and f"a learning rate of {stage.rate * config.learning_rate:g} to 0 by half a cosine",
        stage.weights and f"re-weighted, {stage.weights}",
        stage.sampling and f"re-sampled, {stage.sampling}",
        config.mix != "none" and not stage.mixes and "images not mixed",
    ]
    return "; ".join(filter(None, done)) or "images as they are"
