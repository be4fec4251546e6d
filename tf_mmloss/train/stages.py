"""What a resolved config trains with, and in which epochs: stages, learning rate, radius of SAM, optimizer and loss.

Look here for what happens when. All of it follows from the config and the number of the epoch.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import tf_mmloss
from tf_mmloss import methods, mix
from tf_mmloss.functions import raised
from tf_mmloss.imbalance import Counts
from tf_mmloss.methods import METHODS, Stage
from tf_mmloss.methods.base import FIRST_DROP, loss_class
from tf_mmloss.train.config import Config
from tf_mmloss.train.presets import FROZEN_RATE

if TYPE_CHECKING:
    import keras


def _first_epoch(stage: Stage, epochs: int, ends: int) -> int:
    """Where a stage begins in so many epochs, one of them; `ends`: where the schedule of the first stages does."""
    if stage.starts == FIRST_DROP:
        start = tf_mmloss.WarmupStepSchedule.published(ends).milestones[0]
    else:
        start = max(round(float(stage.starts) * epochs), int(stage.is_apart))
    return min(start, epochs - 1)


def schedule_ends(config: Config) -> int:
    """The epoch in which a stage with a rate of its own begins, in place of the schedule; else that after the last."""
    epochs = config.epochs or 0
    own = METHODS[config.method].own_stages
    first = next((i for i, stage in enumerate(own) if stage.rate is not None), None)
    if first is None:
        return epochs
    if first == len(own) - 1 and config.start_epoch is not None:
        return config.start_epoch
    return _first_epoch(own[first], epochs, epochs)


def own_stages(config: Config) -> list[Stage]:
    """The stages of a config's method, with what is published for its data set."""
    return [stage.on(config.dataset) for stage in METHODS[config.method].own_stages]


def stages(config: Config) -> list[tuple[int, Stage]]:
    """The stages of a resolved config's own training, each with its first epoch and its class weights."""
    epochs, ends, found = config.epochs or 0, schedule_ends(config), []
    for stage in own_stages(config):
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


def schedule(config: Config) -> Callable[[int], float]:
    """The learning rate of a resolved config, a function of the epoch."""
    epochs, ends, frozen = config.epochs or 0, schedule_ends(config), config.frozen_epochs or 0
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
    if mixing is not None:
        ends, later = ((mixed_epochs(one) or 0) - mixing.spared for one in (config, longer))
        if done > ends != later:
            raise ValueError(f"{config.mix} does not mix the last {mixing.spared} epochs, which they would not be")
    if config.pretraining != "none":
        raise ValueError("it started from a backbone that was trained for as many epochs")


def rho(config: Config, epoch: int) -> float | None:
    """The radius of SAM in an epoch of a resolved config; None: it trains without SAM."""
    if not (config.sam or config.sam_late):
        return None
    late = _first_epoch(Stage(FIRST_DROP), config.epochs or 1, schedule_ends(config))
    return float(config.sam_late if epoch >= late else config.sam)


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
        ValueError: bad counts or an option out of range; whatever a loss of somebody else raises.
    """
    name, arguments = loss_of(config, stage or Stage())
    given: dict[str, Any] = {"cls_counts": cls_counts, "seed": config.seed}
    arguments |= {argument: given[argument] for argument in methods.signature(name).given}
    kind = loss_class(name)
    if ":" not in name:
        return kind(**arguments)
    try:
        return kind(**arguments)
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(f"`loss`: {raised(name, error)}") from error


def first_bias(config: Config, num_classes: int) -> float:
    """The bias that the head of a resolved config begins with: of a yes-or-no question for each class, -log(C - 1) / s.

    Of C questions one is answered with yes (Cui et al. 2019, section 4.2).
    """
    asks = loss_class(METHODS[config.method].loss).activation == "sigmoid" and config.classifier == "dense"
    return -math.log(num_classes - 1) / config.loss_arguments.get("scale", 1.0) if asks else 0.0


def loss_of(config: Config, stage: Stage) -> tuple[str, dict[str, Any]]:
    """The name of the loss of a stage, and its arguments: those of the run, and of what is fixed the stage's."""
    method = METHODS[config.method]
    name = stage.loss or method.loss
    options = methods.signature(name).options
    of_run = {option: value for option, value in config.loss_arguments.items() if option in options}
    return name, of_run | {option: value for option, value in stage.arguments.items() if option in method.fixed}
