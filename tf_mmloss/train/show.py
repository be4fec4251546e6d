"""What is said of a config: the text of --show, and what a command says before it trains or decides.

Look here for a wording; nothing is chosen or checked here.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tf_mmloss.methods import METHODS, Stage
from tf_mmloss.train.config import Config
from tf_mmloss.train.presets import ADAMW_RATE, FROZEN_RATE, TRAINING_SOURCES, own_recipe
from tf_mmloss.train.resolve import mm_constants, training
from tf_mmloss.train.stages import loss, loss_of, schedule, stages

if TYPE_CHECKING:
    from tf_mmloss.datasets import ImageDataset


def why(config: Config, data: "ImageDataset") -> tuple[str, ...]:
    """Lines that say what images of one's own choose for a config, and why: not of what it gives itself."""
    rate = config.learning_rate if config.optimizer == "sgd" else ADAMW_RATE
    chosen = zip((config.epochs, config.batch_size, rate, config.flip), own_recipe(data).why, strict=True)
    return tuple(line for given, line in chosen if given is None)


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


def show(config: Config, why: tuple[str, ...] = ()) -> str:
    """A resolved config as text: the method, where its constants come from, and every value.

    Args:
        config: resolved.
        why: more lines of where values come from, see `Recipe`.
    """
    method = METHODS[config.method]
    its_loss, arguments = loss_of(config, Stage())
    constants = []
    if method.loss == "MaxMarginLoss":
        known, origin = mm_constants(config)
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
    its_loss, arguments = loss_of(config, stage)
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
