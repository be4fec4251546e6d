"""The model of a finished run: images in, classes and probabilities out."""

import dataclasses
import hashlib
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from tf_mmloss import backbones, decide
from tf_mmloss._validation import path
from tf_mmloss.data.source import DataError
from tf_mmloss.datasets.rows import Rows
from tf_mmloss.evaluation import softmax
from tf_mmloss.layers import Probabilities
from tf_mmloss.losses import LongTailLoss
from tf_mmloss.models import normalization
from tf_mmloss.runs import saved
from tf_mmloss.runs.folder import RunFolderError, read_config, read_json
from tf_mmloss.train.config import Config, code_named

_BATCH, _BATCH_BYTES = 256, 2**23  # of uint8 pixels


@dataclasses.dataclass(frozen=True)
class RunModel:
    """What a run learned.

    Args:
        config: of the run.
        network: normalised images to logits, float32.
        class_names: C names, in label order.
        mean, std: of the pixels, for the normalisation.
        trained: what a decision is made from.
        decide: the run's decision with its strength, or another one; see `tf_mmloss.decide`.
    """

    config: Config
    network: keras.Model
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    trained: decide.Trained
    decide: str = "none"

    @classmethod
    def load(
        cls,
        run: str | os.PathLike[str],
        decide_by: str | None = None,
        data_dir: str | None = None,
        *,
        called: bool = False,
        fit: bool = True,
    ) -> "RunModel":
        """Load the last epoch of a finished run.

        Args:
            run: its folder.
            decide_by: another decision than the run's; without a strength it is fitted on the run's held-out images.
            data_dir: where these are, if they are CIFAR or `tfds:NAME`.
            called: call the function that gives them, if one does.
            fit: whether it is fitted now; else `fitted` does it.

        Raises:
            RunFolderError: no finished run, one without its model, or a model that is refused or another run's.
            ValueError: a decision that the run cannot have.
        """
        folder = path("run", run)
        config = read_config(folder)
        metrics = read_json(folder, "metrics.json", ["class_names", "mean", "std", "cls_counts"])
        chosen = str(metrics.get("decision", {}).get("decide", "none"))
        if decide_by is not None:
            decide.parse(decide_by)  # before anything is loaded
            chosen = decide_by
        file = folder / "last.keras"
        if not file.exists():
            raise RunFolderError(f"{folder} has no model, it has no last.keras: train it here, or copy the file there.")
        backbones.import_installed(config.backbone)
        try:
            network = saved.load(file)
        except RunFolderError as error:
            if backbone := code_named(config).get("backbone"):
                raise RunFolderError(
                    f"{error}. Its network is of a function, whose layers are known once its module is imported: give "
                    f"--backbone {backbone} to say that you trust it, or import it."
                ) from error
            raise
        if not isinstance(network.loss, LongTailLoss):
            raise RunFolderError(f"{file} is refused: its loss is none of this package.")
        check_weights(folder, network, metrics)
        names, mean, std = (tuple(metrics[name]) for name in ("class_names", "mean", "std"))
        trained = decide.Trained.of(network, metrics["cls_counts"])
        form: dict[str, Any] = {"probabilistic": trained.probabilistic, "activation": trained.activation}
        head = "cosine" if trained.kernel is None else "dense"
        decide.check(chosen, head=head, holdout=config.holdout, **form)
        model = cls(config, network, names, mean, std, trained, chosen)
        return model.fitted(folder, data_dir, called=called) if fit else model

    def fitted(self, run: str | os.PathLike[str], data_dir: str | None = None, *, called: bool = False) -> "RunModel":
        """This model with the strength of its decision, fitted on the run's held-out images where it has none.

        Args:
            run, data_dir, called: see `load`.
        """
        decision, strength = decide.parse(self.decide)
        if decision is None or strength is not None:
            return self
        own = own_images(run, self, data_dir, called=called)
        decided = decide.fit(self.decide, self.trained, own.labels, self.logits(own.images))
        return dataclasses.replace(self, decide=decided)

    @property
    def probabilistic(self) -> bool:
        """Whether there are probabilities: a hinge has none, unless its temperature was fitted."""
        return decide.is_probabilistic(self.decide, self.trained)

    @property
    def layer(self) -> Probabilities:
        """From logits to probabilities, as the decision has it."""
        return decide.layer(self.decide, self.trained)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of the images."""
        height, width, channels = self.network.input_shape[1:]
        return height, width, channels

    def logits(self, images: np.ndarray | Rows) -> np.ndarray:
        """Logits (N, C) of uint8 images (N, height, width, channels), of which a batch is read at a time."""
        normalize = normalization(self.mean, self.std)
        batch = max(min(_BATCH, _BATCH_BYTES // math.prod(self.image_shape)), 1)
        parts = [
            keras.ops.convert_to_numpy(self.network(normalize(images[i : i + batch]), training=False))
            for i in range(0, len(images), batch)
        ]
        return np.concatenate(parts).astype(np.float64) if parts else np.zeros((0, len(self.class_names)))

    def scores(self, images: np.ndarray | Rows) -> np.ndarray:
        """Scores (N, C), float64, whose largest is the answer."""
        return self.layer.scores(self.logits(images))

    def probabilities(self, images: np.ndarray | Rows) -> np.ndarray:
        """Probabilities (N, C), float64: the softmax of the scores.

        Raises:
            ValueError: the loss has none.
        """
        if not self.probabilistic:
            raise ValueError(f"A run of method {self.config.method} has no probabilities: use its scores.")
        return softmax(self.scores(images))


def checksum(model: keras.Model) -> str:
    """SHA-256 of a model's weights."""
    digest = hashlib.sha256()
    for variable in sorted(model.weights, key=lambda v: v.path):
        digest.update(np.ascontiguousarray(keras.ops.convert_to_numpy(variable)).tobytes())
    return digest.hexdigest()


def check_weights(run: Path, network: keras.Model, metrics: Mapping[str, Any]) -> None:
    """Refuse a network whose weights are not those that the metrics of its run are of.

    Args:
        run: its folder.
        network: of last.keras.
        metrics: the content of metrics.json; runs of earlier versions have no checksum there.

    Raises:
        RunFolderError: they are others.
    """
    if "checksum" in metrics and checksum(network) != metrics["checksum"]:
        raise RunFolderError(f"{run} has in last.keras other weights than those that metrics.json is of.")


class Evaluated(NamedTuple):
    """What a model is evaluated on: in words, images, labels, and keys of images that belong together."""

    of: str
    images: Any
    labels: np.ndarray
    groups: np.ndarray | None


def own_images(
    run: str | os.PathLike[str], model: RunModel, data_dir: str | None, *, called: bool = False
) -> Evaluated:
    """What a run was evaluated on.

    Args:
        run: its folder.
        model: of it.
        data_dir: where CIFAR or `tfds:NAME` is.
        called: call the function that gives the images, if one does.

    Raises:
        ValueError: a function that nobody said is to be called, or other images than the run was trained on.
    """
    from tf_mmloss.train import experiment, inputs

    if not called and "dataset" in code_named(model.config):
        raise ValueError(
            f"`dataset` of {run} is a function, which is not called unasked: give `evaluate` --dataset "
            f"{model.config.dataset}, or a decision its strength, as logit-adjustment:1."
        )
    try:
        data = inputs.load(model.config, data_dir)
    except DataError as error:
        if not model.config.is_own or ":" in model.config.dataset or os.path.lexists(model.config.dataset):
            raise
        raise DataError(
            f"{error} {run} names its images as they were given: go to the folder that it was started in, or give "
            "`evaluate` --dataset and where they are now."
        ) from error
    experiment.check_data(Path(run).expanduser(), data)
    splits = inputs.split(data, model.config)
    part = "held-out training images" if model.config.holdout else "test split"
    return Evaluated(f"{data.name}, {part}", splits.eval_images, splits.eval_labels, splits.eval_groups)


def decode_options(config: Config) -> dict[str, Any]:
    """How a run's images were fitted to its network, for `tf_mmloss.data.images.decode`."""
    return {"fit": config.fit or "crop"}
