"""The network of a run: built, compiled for each phase, averaged, saved."""

import contextlib
import random
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import keras

import tf_mmloss
from tf_mmloss import backbones
from tf_mmloss.callbacks.base import host_array
from tf_mmloss.files import atomic_path
from tf_mmloss.methods import METHODS
from tf_mmloss.models import add_head, with_features
from tf_mmloss.runs import saved
from tf_mmloss.runs.folder import RunFolderError
from tf_mmloss.train import stages, strategy
from tf_mmloss.train.config import Config
from tf_mmloss.train.inputs import Splits, jit_compile
from tf_mmloss.train.stages import Phase, loss


def build(config: Config, splits: Splits) -> keras.Model:
    """The network of a resolved config, compiled for its first phase."""
    method, shape, classes = METHODS[config.method], splits.train_images.shape[1:], len(splits.class_names)
    head, bias = config.classifier, stages.first_bias(config, len(splits.class_names))
    if config.depth is not None:
        model = tf_mmloss.resnet(config.depth, classes, head, shape)
        if method.has_scales or bias:
            outputs = add_head(model.get_layer("head").input, classes, head, scales=method.has_scales, bias=bias)
            model = keras.Model(model.input, outputs, name=model.name)
    else:
        backbone = backbones.open_backbone(config.backbone, shape, config.pretrained)
        images = keras.Input(shape, name="images")
        model = keras.Model(images, add_head(backbone(images), classes, head, scales=method.has_scales, bias=bias))
    first = stages.phases(config)[0]
    its_loss = loss(config, splits.cls_counts, first.stage)
    if its_loss.needs_features:
        model = with_features(model)
    if config.strategy == "mirrored":  # the statistics of Keras' own layers are those of the global batch, too
        for layer in batch_norms(model):
            layer.synchronized = True
    begin(config, model, first, its_loss)
    return model


def check_loads(config: Config, model: keras.Model) -> None:
    """Refuse a network or a loss of somebody else that could be trained, and not be loaded afterwards.

    Raises:
        ValueError: it could not.
    """
    if not backbones.is_function(config.backbone) and not any(":" in name for name in METHODS[config.method].losses):
        return
    state = random.getstate()  # of which Keras takes the seeds of what it makes
    try:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the optimizer, which has no variables yet
            save(model, Path(folder) / "model.keras")
            saved.load(Path(folder) / "model.keras")
    except Exception as error:
        reason = error.__cause__ if isinstance(error, RunFolderError) and error.__cause__ else error
        raise ValueError(
            "the network or the loss, which are of a function, could not be loaded after the training: "
            f"{' '.join(str(reason).split())[:500]}. Each class of a layer and the loss must be registered with Keras, "
            "and its `get_config` have all arguments of its constructor."
        ) from error
    finally:
        random.setstate(state)


def begin(config: Config, model: keras.Model, phase: Phase, its_loss: tf_mmloss.LongTailLoss) -> None:
    """Compile a network for a phase: what is trained, with which loss, and a new optimizer."""
    if phase.start and phase.start == config.frozen_epochs:
        for layer in model.layers:
            layer.trainable = True
    freeze(model, phase.stage.trains, phase.stage.batch_norm)
    if phase.stage.anew:
        keras.utils.set_random_seed((config.seed + phase.start) % 2**32)  # whether the run was resumed or not
        head = model.get_layer("head")
        with strategy.alone():
            fresh = type(head).from_config(head.get_config())
            fresh.build((None, head.kernel.shape[0]))
            head.set_weights(fresh.get_weights())
    model.compile(
        optimizer=stages.optimizer(config),
        loss=its_loss,
        metrics=["accuracy"],
        jit_compile=jit_compile(config),
    )


def freeze(model: keras.Model, trains: str = "all", batch_norm: str = "inference") -> None:
    """Say what of a network is trained.

    Args:
        model: with layers named "head" and, where they are trained, "scales".
        trains, batch_norm: see `tf_mmloss.methods.Stage`. "all" leaves frozen what is so already.
    """
    of_part = {"all": (), "head": ("head",), "scales": ("scales",), "classifier": ("head", "scales")}[trains]
    for layer in model.layers:
        if layer.name in of_part:
            layer.trainable = True
        elif trains != "all" or layer.name == "scales":
            layer.trainable = False
    if trains != "all" and batch_norm == "training":
        for layer in batch_norms(model):
            _freeze_in_training_mode(layer)


def carry_backbone(source: keras.Model, target: keras.Model) -> None:
    """Give a network the weights of another, batch-norm statistics included, all but the classifier's."""
    # In their order: Keras numbers the models that have no name, and goes on from those that a process made before.
    layers = (
        [layer for layer in model.layers if layer.name not in ("head", "scales") and layer.weights]
        for model in (source, target)
    )
    for theirs, own in zip(*layers, strict=True):
        own.set_weights(theirs.get_weights())


def take_averages(model: keras.Model) -> None:
    """Give a model the averages of its weights, if its optimizer keeps them."""
    model.optimizer.finalize_variable_values(model.trainable_variables)
    if getattr(model.optimizer, "inner_optimizer", model.optimizer).use_ema:
        for variable in model.trainable_variables:
            # A copy, as JAX gives away the arrays of a step.
            variable.assign(keras.ops.copy(variable.value))


@contextlib.contextmanager
def averaged(model: keras.Model) -> Iterator[None]:
    """Within the block, the model has the averages of its weights, if its optimizer keeps them."""
    if not getattr(model.optimizer, "inner_optimizer", model.optimizer).use_ema:
        yield
        return
    trained = [host_array(variable) for variable in model.trainable_variables]
    take_averages(model)
    try:
        yield
    finally:
        for variable, value in zip(model.trainable_variables, trained, strict=True):
            variable.assign(value)


def save(model: keras.Model, path: Path) -> None:
    # A layer's config says whether it is trained, and nothing of its variables: a frozen batch normalisation in
    # training mode would come back as one that is trained.
    frozen = [layer for layer in batch_norms(model) if layer.trainable and not layer.trainable_variables]
    synchronized = [layer for layer in batch_norms(model) if layer.synchronized]  # which other backends refuse
    try:
        for layer in frozen:
            layer.trainable = False
        for layer in synchronized:
            layer.synchronized = False
        with strategy.alone(), atomic_path(path) as temporary:
            model.save(temporary)
    finally:
        for layer in frozen:
            _freeze_in_training_mode(layer)
        for layer in synchronized:
            layer.synchronized = True


def batch_norms(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    return [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]


def _freeze_in_training_mode(layer: keras.layers.BatchNormalization) -> None:
    layer.trainable = True  # else it is in inference mode, whatever the model is called with
    for variable in layer.trainable_variables:
        variable.trainable = False
