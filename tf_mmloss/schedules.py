"""Learning-rate schedules, functions of the epoch."""

import dataclasses
import math

from tf_mmloss._validation import LARGEST_NUMBER, integer, number, received, sequence


@dataclasses.dataclass(frozen=True)
class WarmupStepSchedule:
    """Linear warm-up, then a constant rate that is multiplied by `factor` at each milestone.

        rate(e) = learning_rate (e + 1) / warmup_epochs         for e < warmup_epochs
                  learning_rate factor^(milestones <= e)        after

    The defaults are the paper's run: 0.02, 0.04, ... 0.1, then 0.1, 1e-3 from epoch 160, 1e-5 from 180.
    Epochs count from 0. The rate depends on nothing but the epoch, so a resumed run continues it.

    Args:
        learning_rate: > 0. Default 0.1.
        warmup_epochs: >= 0. Default 5.
        milestones: epochs, rising. Default (160, 180).
        factor: > 0. Default 0.01.

    Raises:
        ValueError: an argument out of range, milestones that do not rise, or a factor that takes the rate out of
            float32.

    Example:
        >>> WarmupStepSchedule()(0)
        0.02
        >>> callbacks = [keras.callbacks.LearningRateScheduler(WarmupStepSchedule())]

    Reference:
        The paper, section 4, implementation details; values as in LDAM's published code.
    """

    learning_rate: float = 0.1
    warmup_epochs: int = 5
    milestones: tuple[int, ...] = (160, 180)
    factor: float = 0.01

    def __post_init__(self) -> None:
        number("learning_rate", self.learning_rate, above=0)
        number("factor", self.factor, above=0)
        integer("warmup_epochs", self.warmup_epochs)
        milestones = [integer("milestones", milestone) for milestone in sequence("milestones", self.milestones)]
        if milestones != sorted(milestones):
            raise ValueError(f"`milestones` must rise. {received('milestones', self.milestones)}")
        if math.log(self.learning_rate) + len(milestones) * math.log(self.factor) > math.log(LARGEST_NUMBER):
            raise ValueError(
                f"`factor` must leave the rate finite at every milestone. {received('factor', self.factor)}"
            )

    @classmethod
    def published(cls, epochs: int = 200, learning_rate: float = 0.1) -> "WarmupStepSchedule":
        """The paper's schedule, its warm-up and milestones scaled from 200 epochs to `epochs`.

        Raises:
            ValueError: an argument out of range.
        """
        epochs = integer("epochs", epochs, at_least=1)
        return cls(
            learning_rate,
            warmup_epochs=round(epochs * 5 / 200),
            milestones=(round(epochs * 160 / 200), round(epochs * 180 / 200)),
        )

    def __call__(self, epoch: int, _current_rate: float | None = None) -> float:
        epoch = integer("epoch", epoch)
        if epoch < self.warmup_epochs:
            return self.learning_rate * (epoch + 1) / self.warmup_epochs
        return self.learning_rate * self.factor ** sum(epoch >= milestone for milestone in self.milestones)


@dataclasses.dataclass(frozen=True)
class CosineSchedule:
    """Linear warm-up, then half a cosine down to almost zero, without restarts.

        rate(e) = learning_rate (e + 1) / W                                 for e < W = warmup_epochs
                  learning_rate (1 + cos(pi (e - W) / (epochs - W))) / 2    after

    Epochs count from 0. The rate depends on nothing but the epoch, so a resumed run continues it.

    Args:
        learning_rate: > 0. Default 0.1.
        epochs: of the run, > warmup_epochs. Default 200.
        warmup_epochs: W >= 0. Default 5.

    Raises:
        ValueError: an argument out of range.

    Example:
        >>> CosineSchedule()(5), CosineSchedule(epochs=205)(105)
        (0.1, 0.05)

    Reference:
        Loshchilov and Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts, ICLR 2017, Eq. 5, one period.
    """

    learning_rate: float = 0.1
    epochs: int = 200
    warmup_epochs: int = 5

    def __post_init__(self) -> None:
        number("learning_rate", self.learning_rate, above=0)
        integer("warmup_epochs", self.warmup_epochs)
        if integer("epochs", self.epochs, at_least=1) <= self.warmup_epochs:
            raise ValueError(
                f"`epochs` must be more than the {self.warmup_epochs} of the warm-up. {received('epochs', self.epochs)}"
            )

    @classmethod
    def scaled(cls, epochs: int = 200, learning_rate: float = 0.1) -> "CosineSchedule":
        """The schedule of a run of `epochs`, with the warm-up of 5 epochs of 200 scaled to it.

        Raises:
            ValueError: an argument out of range.
        """
        epochs = integer("epochs", epochs, at_least=1)
        return cls(learning_rate, epochs, round(epochs * 5 / 200))

    def __call__(self, epoch: int, _current_rate: float | None = None) -> float:
        epoch = integer("epoch", epoch)
        if epoch < self.warmup_epochs:
            return self.learning_rate * (epoch + 1) / self.warmup_epochs
        done = min((epoch - self.warmup_epochs) / (self.epochs - self.warmup_epochs), 1)
        return self.learning_rate * (1 + math.cos(math.pi * done)) / 2
