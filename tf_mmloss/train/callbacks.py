"""What a run adds to `fit` of its own: one callback for each thing that is done or written an epoch."""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

import tf_mmloss
from tf_mmloss.train import network, progress, stages
from tf_mmloss.train.config import Config
from tf_mmloss.train.history import best_epoch, write_history


class Radius(keras.callbacks.Callback):
    """Give SAM the radius of the epoch."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.model.rho = stages.rho(self.config, epoch)


class Averages(keras.callbacks.Callback):
    """Evaluate the averages of a model's weights. `keras.callbacks.SwapEMAWeights` rounds those that are trained."""

    def __init__(self, averaged: keras.Model) -> None:
        super().__init__()
        self.averaged, self.context = averaged, contextlib.ExitStack()

    def on_test_begin(self, logs: Any = None) -> None:
        self.context.enter_context(network.averaged(self.averaged))

    def on_test_end(self, logs: Any = None) -> None:
        self.context.close()


class Timer(keras.callbacks.Callback):
    """Seconds of each epoch, and the speed of its training part."""

    def __init__(self, num_images: int) -> None:
        super().__init__()
        self.num_images = num_images

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.began = self.trained = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.trained = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs["images_per_second"] = self.num_images / (self.trained - self.began)
        logs["seconds"] = time.perf_counter() - self.began


class BestModel(keras.callbacks.Callback):
    """Save the model when the evaluated accuracy rises above all epochs before."""

    def __init__(self, folder: Path, checkpoint: tf_mmloss.Checkpoint, saved: keras.Model) -> None:
        super().__init__()
        self.path, self.checkpoint, self.saved = folder / "best.keras", checkpoint, saved

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if best_epoch(self.checkpoint.history) == epoch:
            with network.averaged(self.saved):
                network.save(self.saved, self.path)


class History(keras.callbacks.Callback):
    """Write history.csv from the checkpoint's rows, and show the progress."""

    def __init__(self, folder: Path, checkpoint: tf_mmloss.Checkpoint, config: Config) -> None:
        super().__init__()
        self.path, self.checkpoint, self.config = folder / "history.csv", checkpoint, config

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        rows = self.checkpoint.history
        write_history(self.path, rows)
        row = rows[-1]
        epochs, error = self.config.epochs or 0, 1 - row["val_accuracy"] if "val_accuracy" in row else None
        evaluated = "" if error is None else f"  error {error:6.2%}"
        left = float(np.median([r["seconds"] for r in rows[-5:]])) * (epochs - epoch - 1)
        progress.tell(
            f"epoch {epoch + 1:3d}/{epochs}  loss {row['loss']:.4f}  train error {1 - row['accuracy']:6.2%}"
            f"{evaluated}  {row['images_per_second']:,.0f} images/s  {progress.clock(left)} left",
            "epoch",
            run=self.config.name,
            epoch=epoch + 1,
            epochs=epochs,
            loss=row["loss"],
            train_error=1 - row["accuracy"],
            error=error,
            seconds=row["seconds"],
            images_per_second=row["images_per_second"],
            seconds_left=left,
        )


class Stop(keras.callbacks.Callback):
    """Leave training after an epoch when asked to."""

    def __init__(self, stop: Callable[[], bool]) -> None:
        super().__init__()
        self.stop = stop

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self.stop():
            self.model.stop_training = True


class AtEachStep(keras.callbacks.Callback):
    """Call a function after every step, of training and of evaluation, and every epoch."""

    def __init__(self, function: Callable[[], None]) -> None:
        super().__init__()
        self.function = function

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.function()

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        self.function()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.function()
