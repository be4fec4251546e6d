"""The options of a run: `Config`, the names and bounds of its values, and what it says without being resolved.

Look here for an option. Its default, if it follows from others, is in `presets.py`; its check in `resolve.py`.
"""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tf_mmloss import _entry_points, methods
from tf_mmloss._validation import integer
from tf_mmloss.runs.folder import images_name
from tf_mmloss.train.presets import RECIPES

PRECISIONS = ("float32", "bfloat16", "float16")
JIT = ("auto", "on", "off")
INPUTS = ("host", "device", "epoch")
STRATEGIES = ("none", "mirrored", "data-parallel")
PRETRAINING = ("none", "rotation")
SCHEDULES = ("step", "cosine", "constant")
OPTIMIZERS = ("sgd", "adamw")

# No run is deeper, or has larger batches, and none is longer than MOST_EPOCHS of `runs/fields.py`: a slip of the finger
# must not take the memory or the day.
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
            `epochs`, `weight_decay` and `sam`, where they are not given; see TRAININGS of `tf_mmloss.train.presets`.
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
        own = re.sub(r"[^\w.-]+", "-", images_name(self.dataset)).strip("-.") or "images"
        kind = self.imbalance or ("none" if self.is_own else "longtail")  # as `resolve` fills it
        imbalance = "" if kind == "none" and self.is_own else f"-{kind}"
        ratio = "" if kind == "none" else f"{100 if self.ratio is None else self.ratio:g}"
        method = re.sub(r"[^\w.-]+", "-", str(self.method))
        recipe = "" if self.recipe == "paper" else f"-{self.recipe}"
        return f"{own if self.is_own else self.dataset}{imbalance}{ratio}-{method}{recipe}-seed{self.seed}"


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
