"""From a config with gaps to one without: `resolve` fills them from the presets, and checks every value.

Look here for what is filled in, and for what is refused. A longer run and the pre-training of a run are resolved too.
"""

import dataclasses
import re
from typing import TYPE_CHECKING, Any

from tf_mmloss import augment, methods, mix
from tf_mmloss._validation import choice, flag, integer, number, received, text
from tf_mmloss.data.splits import is_share
from tf_mmloss.imbalance import IMBALANCES, WEIGHT_SCHEMES
from tf_mmloss.methods import METHODS
from tf_mmloss.methods.base import HEADS
from tf_mmloss.runs.fields import MOST_EPOCHS
from tf_mmloss.train.config import (
    HOW,
    INPUTS,
    JIT,
    MOST_IMAGES,
    MOST_LAYERS,
    MOST_RATIO,
    MOST_RHO,
    OPTIMIZERS,
    PRECISIONS,
    PRETRAINING,
    SCHEDULES,
    STRATEGIES,
    Config,
    image_size,
)
from tf_mmloss.train.presets import (
    ADAMW_RATE,
    FROZEN_RATE,
    FROZEN_SHARE,
    MM_CONSTANTS,
    OWN_EPOCHS,
    OWN_OPTIONS,
    RECIPES,
    RECORD_CONSTANTS,
    SEARCHED_CONSTANTS,
    TRAININGS,
    Recipe,
    own_recipe,
)
from tf_mmloss.train.stages import loss, mixed_epochs, own_stages, stages

if TYPE_CHECKING:
    from tf_mmloss import LongTailLoss
    from tf_mmloss.datasets import ImageDataset


def mm_constants(config: Config) -> tuple[tuple[float, float], str]:
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


_OWN_TYPES = {"fit": str, "grey": bool, "test_share": float, "group_by": str, "skip_broken": bool, "accept_odd": bool}
# What a config of own images must have to be resolved without them.
OF_IMAGES = ("epochs", "pad", "flip", "batch_size", "learning_rate", "image_size")


def has_gaps(config: Config) -> bool:
    """Whether a config needs its images to be resolved: images of one's own, whose presets follow from them."""
    text("dataset", config.dataset)
    return config.is_own and any(getattr(config, name) is None for name in OF_IMAGES)


def check_before_data(config: Config) -> None:
    """Refuse what can be refused of a config with gaps before its images are read, which may take long.

    Raises:
        ValueError: see `resolve`.
    """
    # As loose as the presets of any images: of no more epochs, as later stages and freezing must fit into them.
    loose: dict[str, Any] = {
        "epochs": OWN_EPOCHS[1],
        "pad": 0,
        "flip": True,
        "batch_size": 16,
        "learning_rate": 0.1,
        "image_size": "32",
    }
    resolve(dataclasses.replace(config, **{name: loose[name] for name in OF_IMAGES if getattr(config, name) is None}))


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
    if (config.sam or config.sam_late) and config.input == "epoch":
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
        (arguments["delta_neg"], arguments["beta"]), _ = mm_constants(config)
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
    for stage in own_stages(resolved):
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
        if config.start_epoch is not None:
            integer("start_epoch", config.start_epoch, at_least=int(method.own_stages[-1].is_apart))
        starts = [first for first, _ in stages(resolved)]
        start = starts[-1]
        if starts != sorted(starts):
            raise ValueError(
                f"`start_epoch` must leave the stages of method {config.method} in their order, and they begin at "
                f"epochs {', '.join(map(str, starts))}. {received('start_epoch', config.start_epoch)}"
            )
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


def _check_mix(config: Config, loss: "LongTailLoss") -> None:
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
        imbalance = choice("imbalance", config.imbalance or "longtail", (*IMBALANCES, "none"))
        ratio = number("ratio", 100 if config.ratio is None else config.ratio, at_least=1, at_most=MOST_RATIO)
        setting = config.dataset, imbalance, ratio
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
    apart = (start for start, stage in stages(config) if stage.is_apart)
    given, most = config.frozen_epochs, next(apart, config.epochs or 0) - 1
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
