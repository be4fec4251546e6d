"""What a run is fed: its images, and the way they take to the network."""

import dataclasses
import importlib.util
import math
from typing import Any

import keras
import numpy as np

import tf_mmloss
from tf_mmloss import augment, imbalance, mix
from tf_mmloss.data import load_images
from tf_mmloss.data import splits as by_class
from tf_mmloss.datasets import ImageDataset
from tf_mmloss.datasets import load as load_named
from tf_mmloss.datasets.rows import Rows, take
from tf_mmloss.device_input import DeviceImages, EpochModel, EpochRows, plain_rows
from tf_mmloss.methods import METHODS
from tf_mmloss.pipeline import eval_dataset, steps_per_epoch, train_dataset
from tf_mmloss.train import progress, stages, strategy
from tf_mmloss.train.config import Config, image_size
from tf_mmloss.train.presets import OWN_OPTIONS

EVAL_BATCH, EVAL_BYTES = 500, 2**22  # of uint8 pixels
ROTATIONS = ("0 degrees", "90 degrees", "180 degrees", "270 degrees")


@dataclasses.dataclass(frozen=True)
class Splits:
    """The images of a run: an imbalanced training set, and what it is evaluated on.

    `class_names` and `cls_counts` are those of what is predicted. `eval_groups` are keys of evaluated images that
    belong together; None: each stands alone.
    """

    train_images: np.ndarray | Rows
    train_labels: np.ndarray
    eval_images: np.ndarray | Rows
    eval_labels: np.ndarray
    class_names: tuple[str, ...]
    cls_counts: np.ndarray
    eval_groups: np.ndarray | None = None


def split(data: ImageDataset, config: Config) -> Splits:
    """Hold out, then make imbalanced, as the config says.

    Raises:
        ValueError: a ratio or a holdout that leaves a class empty.
    """
    if config.imbalance == "none" or config.is_own:
        return _split_own(data, config)
    available = imbalance.class_counts(data.train_labels, data.num_classes)
    holdout = int(config.holdout)  # no share, see `resolve.check_holdout`
    n_max = int(available.min()) - holdout
    if n_max < 1:
        raise ValueError(
            f"`holdout` must leave training images of every class: at most {available.min() - 1}. "
            f"Received: holdout={holdout}"
        )
    images, labels = data.train_images, data.train_labels
    evaluated = (data.test_images, data.test_labels)
    if holdout:
        held = imbalance.subset_indices(labels, [holdout] * data.num_classes, config.subset_seed)
        evaluated = (images[held], labels[held])
        images, labels = np.delete(images, held, axis=0), np.delete(labels, held)
    cls_counts = imbalance.imbalanced_counts(n_max, data.num_classes, config.imbalance, config.ratio)
    kept = imbalance.subset_indices(labels, cls_counts, config.subset_seed)
    return _predicted(config, data, take(images, kept), labels[kept], evaluated)


def _split_own(data: ImageDataset, config: Config) -> Splits:
    """The same of classes of any size: of a small class as much is held out as leaves half of it, groups whole."""
    images, labels = data.train_images, data.train_labels
    evaluated, groups = (data.test_images, data.test_labels), data.test_groups
    if config.holdout:
        left, held = by_class.hold_out(labels, config.holdout, config.subset_seed, data.train_groups)
        evaluated = (take(images, held), labels[held])
        groups = None if data.train_groups is None else data.train_groups[held]
        images, labels = take(images, left), labels[left]
    kept = by_class.imbalanced(labels, config.imbalance, config.ratio, config.subset_seed)
    splits = _predicted(config, data, take(images, kept), labels[kept], evaluated)
    return dataclasses.replace(splits, eval_groups=groups)


def _predicted(
    config: Config,
    data: ImageDataset,
    images: np.ndarray | Rows,
    labels: np.ndarray,
    evaluated: tuple[np.ndarray | Rows, np.ndarray],
) -> Splits:
    """The splits of what the method predicts."""
    predicts_rotation = METHODS[config.method].task == "rotation"
    if (predicts_rotation or config.pretraining == "rotation") and images.shape[1] != images.shape[2]:
        height, width = images.shape[1:3]
        raise ValueError(
            "`image_size` must be a square's where rotations are predicted (method rotation, or pretraining rotation). "
            f"Received: image_size='{height}x{width}'"
        )
    if predicts_rotation:
        turns = np.arange(len(evaluated[0])) % 4
        upright = np.asarray(evaluated[0])
        rotated = np.stack([np.rot90(image, k) for image, k in zip(upright, turns.tolist(), strict=True)])
        shares = np.bincount(np.arange(len(labels)) % 4)
        return Splits(images, labels, rotated, turns, ROTATIONS, shares)
    cls_counts = imbalance.class_counts(labels, data.num_classes)
    return Splits(images, labels, *evaluated, data.class_names, cls_counts)


def load(config: Config, data_dir: str | None = None) -> ImageDataset:
    """The images of a config, its gaps filled or not.

    Args:
        config: for its data set and, of images of one's own, how they are read.
        data_dir: see `tf_mmloss.datasets.load`.

    Raises:
        ValueError: images of one's own that cannot be used; the message says which and why.
        FileNotFoundError: the data set is nowhere to be found.
    """
    if not config.is_own:
        return load_named(config.dataset, data_dir)
    given = {name: getattr(config, name) for name in OWN_OPTIONS}
    options: dict[str, Any] = {name: OWN_OPTIONS[name] if value is None else value for name, value in given.items()}
    size = image_size(config)
    if progress.how() == "quiet":
        options["progress"] = lambda *_: None
    images = load_images(config.dataset, data_dir=data_dir, image_size=size, seed=config.subset_seed, **options)
    return images.dataset()


def has_tensorflow() -> bool:
    """Whether TensorFlow is installed."""
    return importlib.util.find_spec("tensorflow") is not None


def check_input(config: Config) -> None:
    """Refuse an input that the backend or the installed packages do not have, or that the config's `jit` excludes.

    Raises:
        ValueError: such an input.
    """
    backend = keras.backend.backend()
    if config.input == "epoch" and backend != "jax":
        raise ValueError(f"`input` epoch needs the JAX backend. Received: {backend}; --input device runs on every one.")
    if config.input == "epoch" and config.jit == "off":
        raise ValueError(
            "`jit` must be auto or on with `input` epoch, which is one compiled program an epoch; --input device runs "
            "without. Received: jit='off'"
        )
    if config.input != "host" and config.augment != "none":
        raise ValueError(
            f"`augment` needs `input` host, where Pillow changes the images. Received: augment={config.augment!r} with "
            f"input={config.input!r}"
        )
    if config.input == "host" and not has_tensorflow():
        raise ValueError("`input` host needs TensorFlow, which is not installed; --input device does not.")


def jit_compile(config: Config) -> bool | str:
    """What `keras.Model.compile` takes for the config's `jit`."""
    compile_options: dict[str, bool | str] = {"auto": "auto", "on": True, "off": False}
    return compile_options[config.jit]


@dataclasses.dataclass(frozen=True)
class Feed:
    """What `fit` takes: a model, training batches, so many an epoch, and what it is evaluated on.

    `eval_images` is what `predict` takes, without the labels where it must be; `eval_batch` so many at a time.
    """

    model: keras.Model
    train: Any
    steps: int
    evaluation: Any
    eval_images: Any
    eval_batch: int


def make_feed(
    config: Config, data: ImageDataset, splits: Splits, model: keras.Model, *, first_epoch: int, resampling: Any
) -> Feed:
    """The way of the config's `input`.

    Args:
        config: resolved.
        data: for its constants of normalisation.
        splits: the images.
        model: the compiled network.
        first_epoch: where to start.
        resampling: see `tf_mmloss.pipeline.train_dataset`.
    """
    make = _host_feed if config.input == "host" else _device_feed
    return make(config, data, splits, model, first_epoch, resampling)


def _host_feed(
    config: Config, data: ImageDataset, splits: Splits, model: keras.Model, first_epoch: int, resampling: Any
) -> Feed:
    normalize = tf_mmloss.normalization(data.mean, data.std)
    eval_batch, mixing = _eval_batch(config, splits), _mixing(config, splits)
    train = train_dataset(
        splits.train_images,
        splits.train_labels,
        num_classes=data.num_classes,
        normalize=normalize,
        batch_size=config.batch_size,
        seed=config.seed,
        first_epoch=first_epoch,
        resampling=resampling,
        pad=config.pad,
        flip=config.flip,
        rotate=METHODS[config.method].task == "rotation",
        augment=augment.parse(config.augment),
        mix=mixing,
    )
    evaluation = eval_dataset(
        splits.eval_images,
        splits.eval_labels,
        num_classes=len(splits.class_names),
        normalize=normalize,
        batch_size=eval_batch,
    )
    fitted = model
    if config.strategy == "data-parallel":
        images = keras.Input(model.input_shape[1:], name="images")
        fitted = _around(config, model, images, strategy.spread(model, images))
    elif stages.rho(config, 0) is not None or mixing:
        fitted = _around(config, model, model.input, model.output)
    steps = steps_per_epoch(len(splits.train_labels), config.batch_size)
    return Feed(fitted, train, steps, evaluation, evaluation, eval_batch)


def _device_feed(
    config: Config, data: ImageDataset, splits: Splits, model: keras.Model, first_epoch: int, resampling: Any
) -> Feed:
    images = np.concatenate([np.asarray(splits.train_images), np.asarray(splits.eval_images)])
    normalize = tf_mmloss.normalization(data.mean, data.std)
    mixing = _mixing(config, splits)
    rows = keras.Input((15 if mixing else 5,), dtype="int32", name="rows")
    on_device = DeviceImages(images, normalize, pad=config.pad)
    fitted = _around(config, model, rows, strategy.spread(lambda split: model(on_device(split)), rows))
    whole = config.input == "epoch"
    train = EpochRows(
        splits.train_labels,
        num_classes=data.num_classes,
        batch_size=len(splits.train_labels) if whole else config.batch_size,
        rotate_batch=config.batch_size if METHODS[config.method].task == "rotation" else None,
        seed=config.seed,
        first_epoch=first_epoch,
        resampling=resampling,
        pad=config.pad,
        flip=config.flip,
        mix=mixing,
        image_size=images.shape[1:3],
        mix_batch=config.batch_size,
    )
    positions = len(splits.train_labels) + np.arange(len(splits.eval_labels))
    rows_shown = plain_rows(positions, config.pad, mixed=mixing is not None)
    evaluation = (rows_shown, splits.eval_labels.astype(np.int32))
    return Feed(fitted, train, train.steps_per_epoch, evaluation, rows_shown, _eval_batch(config, splits))


def _mixing(config: Config, splits: Splits) -> mix.Mixing | None:
    found = mix.find(config.mix)
    return None if found is None else found(splits.cls_counts, config.mix_alpha, stages.mixed_epochs(config))


def _eval_batch(config: Config, splits: Splits) -> int:
    """Images of an evaluation step: a multiple of the devices, not more than there are.

    Keras on TensorFlow wants as many rows on every device in the first batch.
    """
    devices = strategy.num_devices(config)
    most = min(EVAL_BATCH, len(splits.eval_labels), EVAL_BYTES // math.prod(splits.eval_images.shape[1:]))
    return max(most // devices, 1) * devices


def _around(config: Config, model: keras.Model, inputs: Any, outputs: Any) -> keras.Model:
    """A model around the network, with its loss and optimizer: the network can be saved and continued without it."""
    if config.input == "epoch":
        around = EpochModel(inputs, outputs, scan_batch_size=config.batch_size)
    else:
        around = keras.Model(inputs, outputs)
        rho = stages.rho(config, 0)
        around = around if rho is None else tf_mmloss.SAM(around, rho)
    metrics: list[Any] = ["accuracy"]
    if config.mix != "none":  # labels of the evaluation, rows of the training
        metrics = [keras.metrics.MeanMetricWrapper(_accuracy, name="accuracy")]
    around.compile(model.optimizer, model.loss, metrics=metrics, jit_compile=jit_compile(config))
    return around


def _accuracy(y_true: Any, y_pred: Any) -> Any:
    """Whether the prediction is the label (B,), or of soft targets (B, C) a largest one."""
    predicted = keras.ops.argmax(y_pred, axis=-1)
    if len(y_true.shape) == 2 and y_true.shape[-1] == y_pred.shape[-1]:
        return keras.ops.take_along_axis(y_true, predicted[:, None], axis=-1)[:, 0] == keras.ops.max(y_true, axis=-1)
    return keras.ops.cast(keras.ops.reshape(y_true, (-1,)), predicted.dtype) == predicted
