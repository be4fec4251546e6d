"""A bar of the epoch on a terminal."""

import contextlib
import importlib.util
import sys
from collections.abc import Iterator
from typing import Any

import keras

from tf_mmloss.train import progress, strategy


@contextlib.contextmanager
def bar(steps: int, first_epoch: int, epochs: int) -> Iterator[list[keras.callbacks.Callback]]:
    """Give a callback that shows a bar; none where there is no terminal, no tqdm, or no lines are wanted.

    Args:
        steps: of an epoch; of 1, the bar is of the epochs.
        first_epoch: complete ones.
        epochs: of the run.
    """
    is_shown = strategy.is_leader() and sys.stderr is not None and sys.stderr.isatty()
    if not is_shown or progress.how() != "lines" or importlib.util.find_spec("tqdm") is None:
        yield []
        return
    from tqdm import tqdm

    total, done, unit = (epochs, first_epoch, "epoch") if steps == 1 else (steps, 0, "step")
    # A look at the clock a step, and five drawings a second at most.
    options = {"mininterval": 0.2, "miniters": 1, "leave": False, "dynamic_ncols": True}
    with tqdm(total=total, initial=done, unit=unit, file=sys.stderr, **options) as shown:
        yield [_Bar(shown, steps, epochs)]


class _Bar(keras.callbacks.Callback):
    """Move a bar, and take it away where a line is printed."""

    def __init__(self, shown: Any, steps: int, epochs: int) -> None:
        super().__init__()
        self.shown, self.steps, self.epochs = shown, steps, epochs

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.shown.set_description_str(f"epoch {epoch + 1}/{self.epochs}", refresh=False)
        if self.steps > 1:
            self.shown.reset()
        self.shown.refresh()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.shown.update()

    def on_test_begin(self, logs: Any = None) -> None:
        self.shown.set_description_str(f"{self.shown.desc}, evaluating")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.shown.clear()
