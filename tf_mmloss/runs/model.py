"""The model of a finished run: images in, classes and probabilities out."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import keras
import numpy as np

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
        scale: multiplies the logits before the softmax.
        probabilistic: whether the softmax is a probability; of a hinge loss it is a score, whose order alone says
            something.
    """

    config: Config
    network: keras.Model
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float
    probabilistic: bool

    @classmethod
    def load(cls, run: str | os.PathLike[str]) -> "RunModel":
        """Load the last epoch of a finished run.

        Raises:
            RunFolderError: no finished run, one without its model, or a model that is refused.
        """
        folder = Path(run).expanduser()
        config = read_config(folder)
        metrics = read_json(folder, "metrics.json", ["class_names", "mean", "std"])
        network = saved.load(folder / "last.keras")
        if not isinstance(network.loss, LongTailLoss):
            raise RunFolderError(f"{folder / 'last.keras'} is refused: its loss is none of this package.")
        return cls(
            config=config,
            network=network,
            class_names=tuple(metrics["class_names"]),
            mean=tuple(metrics["mean"]),
            std=tuple(metrics["std"]),
            scale=network.loss.scale,
            probabilistic=network.loss.probabilistic,
        )

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
        """Probabilities (N, C), float64: the softmax at the scale of the loss; see `probabilistic`."""
        from tf_mmloss.train.experiment import softmax

        return softmax(self.scale * self.logits(images))


def decode_options(config: Config) -> dict[str, Any]:
    """How a run's images were fitted to its network, for `tf_mmloss.data.images.decode`."""
    return {"fit": config.fit or "crop"}
