"""The model of a finished run: images in, classes and probabilities out."""

import dataclasses
import os
from typing import Any

import keras
import numpy as np

from tf_mmloss._validation import path
from tf_mmloss.layers import probabilities
from tf_mmloss.losses import LongTailLoss
from tf_mmloss.models import normalization
from tf_mmloss.runs import saved
from tf_mmloss.runs.folder import RunFolderError, read_config, read_json
from tf_mmloss.train.presets import Config

_BATCH = 256


@dataclasses.dataclass(frozen=True)
class RunModel:
    """What a run learned.

    Args:
        config: of the run.
        network: normalised images to logits, float32.
        class_names: C names, in label order.
        mean, std: of the pixels, for the normalisation.
        scale: of the loss.
        probabilistic: whether there are probabilities, see `LongTailLoss`.
    """

    config: Config
    network: keras.Model
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float
    probabilistic: bool = True

    @classmethod
    def load(cls, run: str | os.PathLike[str]) -> "RunModel":
        """Load the last epoch of a finished run.

        Raises:
            RunFolderError: no finished run, one without its model, or a model that is refused.
        """
        folder = path("run", run)
        config = read_config(folder)
        metrics = read_json(folder, "metrics.json", ["class_names", "mean", "std"])
        file = folder / "last.keras"
        if not file.exists():
            raise RunFolderError(f"{folder} has no model, last.keras: train it here, or copy the file there.")
        network = saved.load(file)
        if not isinstance(network.loss, LongTailLoss):
            raise RunFolderError(f"{file} is refused: its loss is none of this package.")
        names, mean, std = (tuple(metrics[name]) for name in ("class_names", "mean", "std"))
        return cls(config, network, names, mean, std, network.loss.scale, network.loss.probabilistic)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of the images."""
        height, width, channels = self.network.input_shape[1:]
        return height, width, channels

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Logits (N, C) of uint8 images (N, height, width, channels)."""
        normalize = normalization(self.mean, self.std)
        parts = [
            keras.ops.convert_to_numpy(self.network(normalize(images[i : i + _BATCH]), training=False))
            for i in range(0, len(images), _BATCH)
        ]
        return np.concatenate(parts).astype(np.float64) if parts else np.zeros((0, len(self.class_names)))

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Probabilities (N, C), float64, see `tf_mmloss.probabilities`.

        Raises:
            ValueError: the loss has none.
        """
        if not self.probabilistic:
            raise ValueError(f"A run of method {self.config.method} has no probabilities: use its logits.")
        return probabilities(self.network, self.logits(images))


def decode_options(config: Config) -> dict[str, Any]:
    """How a run's images were fitted to its network, for `tf_mmloss.data.images.decode`."""
    return {"fit": config.fit or "crop"}
