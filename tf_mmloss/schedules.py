"""The published learning-rate schedule, a function of the epoch."""

import dataclasses

from tf_mmloss._validation import integer, number


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
        ValueError: an argument out of range, or milestones that do not rise.

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
        for milestone in self.milestones:
            integer("milestones", milestone)
        if list(self.milestones) != sorted(self.milestones):
            raise ValueError(f"`milestones` must rise. Received: milestones={self.milestones}")

    @classmethod
    def published(cls, epochs: int = 200, learning_rate: float = 0.1) -> "WarmupStepSchedule":
        """The paper's schedule, its warm-up and milestones scaled from 200 epochs to `epochs`."""
        integer("epochs", epochs, at_least=1)
        return cls(
            learning_rate,
            warmup_epochs=round(epochs * 5 / 200),
            milestones=(round(epochs * 160 / 200), round(epochs * 180 / 200)),
        )

    def __call__(self, epoch: int, _current_rate: float | None = None) -> float:
        if epoch < self.warmup_epochs:
            return self.learning_rate * (epoch + 1) / self.warmup_epochs
        return self.learning_rate * self.factor ** sum(epoch >= milestone for milestone in self.milestones)
