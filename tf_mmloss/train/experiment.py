"""One run: from a `Config` to a folder with everything that it gave.

RUN/
  config.json        the resolved config
  data.json          of images of one's own: what was found in them, and their fingerprint
  environment.json   versions, commit and machine of every start
  history.csv        a row an epoch; tensorboard/ shows the same
  checkpoint/        the last complete epoch, for --resume
  best.keras         the model of the best evaluated epoch
  last.keras         the model of the last epoch
  metrics.json       the result, written at the end
  predictions.npy    label, predicted class and confidence of every evaluated image
  plots/             class distribution, learning curves, per-class error, examples and mistakes
  index.html         the page of the run: all of it at a glance
  failed.json        why it ended without a result: the loss became NaN; removed when it is tried again
  .lock              held by the process that trains here
"""

import contextlib
import csv
import dataclasses
import functools
import io
import os
import platform
import subprocess
import time
import tomllib
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

import tf_mmloss
from tf_mmloss import _validation, backbones, decide
from tf_mmloss.callbacks.base import host_array
from tf_mmloss.datasets import ImageDataset
from tf_mmloss.evaluation import calibrated, softmax
from tf_mmloss.files import atomic_path, interrupts_deferred, write_json
from tf_mmloss.methods import METHODS
from tf_mmloss.metrics import expected_calibration_error, per_class_error, shot_masks
from tf_mmloss.models import add_head, with_features
from tf_mmloss.pipeline import images_per_epoch
from tf_mmloss.runs import page, plots, predictions, saved
from tf_mmloss.runs.folder import (
    FAILED,
    RunFolderError,
    check_own,
    check_same,
    data_label,
    epochs_saved,
    is_finished,
    lengthen,
    locked,
    make_folder,
    note_failure,
    read_config,
    read_json,
    remove_partial,
)
from tf_mmloss.runs.model import check_weights, checksum
from tf_mmloss.train import processor, progress, stages, strategy
from tf_mmloss.train.bar import bar
from tf_mmloss.train.config import HOW, Config
from tf_mmloss.train.inputs import Splits, check_input, has_tensorflow, jit_compile, load, make_feed, split
from tf_mmloss.train.resolve import has_gaps, pretraining, resolve
from tf_mmloss.train.stages import Phase, loss

_MOST_ROWS = 40
POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}


class RunStoppedError(Exception):
    """The run was asked to stop. Every complete epoch is saved."""


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
        for layer in _batch_norms(model):
            layer.synchronized = True
    _begin(config, model, first, its_loss)
    return model


def _begin(config: Config, model: keras.Model, phase: Phase, its_loss: tf_mmloss.LongTailLoss) -> None:
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


def run(
    config: Config,
    folder: str | os.PathLike[str],
    *,
    data_dir: str | None = None,
    resume: bool = False,
    stop: Callable[[], bool] | None = None,
    held: bool = False,
    data: ImageDataset | None = None,
) -> dict[str, Any]:
    """Train and evaluate a config, and leave a run folder.

    Args:
        config: what to run; gaps are filled from the presets.
        folder: the run's folder. Without `resume` it must not hold a run.
        data_dir: where CIFAR is; see `tf_mmloss.datasets.load`.
        resume: continue the run in `folder`, which must have the same config; start it if there is none. A finished
            run is not trained or evaluated again. With more `epochs` it is made longer, where its first epochs are
            those that a longer run has: with `schedule` "constant".
        stop: asked after every epoch but the last; True leaves the run there, to be resumed.
        held: the caller holds the folder's lock.
        data: the images, if they are loaded already.

    Returns:
        The content of metrics.json.

    Raises:
        ValueError: a config that cannot be run, or processes that were not given the same one.
        RunFolderError: a folder that holds a run (without `resume`) or one of another config.
        RunBusyError: another process works in the folder.
        RunStoppedError: `stop` said so.
        NonFiniteLossError: the loss became NaN; the last complete epoch is kept, and failed.json says so.
        FileNotFoundError: the data set is nowhere to be found.
    """
    if not isinstance(config, Config):
        raise ValueError(f"`config` must be a tf_mmloss.train.Config. {_validation.received('config', config)}")
    folder = _validation.path("folder", folder)
    if data is None and has_gaps(config):
        data = load(config, data_dir)
    config = resolve(config, data)
    _set_keras(config)
    strategy.join(config)
    leader = strategy.is_leader()
    if stop is not None and strategy.num_processes() > 1:
        raise ValueError("`stop` must be None with several processes, which might not agree. Received: a function")
    with contextlib.ExitStack() as locks:
        with strategy.together(config, is_finished(folder), epochs_saved(folder)):
            check_input(config)
            strategy.check(config)
            if leader:
                if not held:
                    locks.enter_context(locked(folder))
                _check_folder(config, folder, resume)
                remove_partial(folder)
                (folder / FAILED).unlink(missing_ok=True)
                _backbone(config, folder.parent)
            finished = is_finished(folder) and read_config(folder).epochs == config.epochs  # else it is made longer
            if not finished:
                data = load(config, data_dir) if data is None else data
                check_data(folder, data)
                splits = split(data, config)
                strategy.check_images(config, len(splits.train_labels))
        if not finished and data is not None:
            if not strategy.accelerators() and processor.emulates(config.precision):
                progress.tell(
                    f"{config.precision} is computed in software here, as this processor lacks instructions for it, "
                    "and takes several times as long as float32"
                )
            if leader:  # now, so that a stop in the pre-training leaves a run that can be resumed
                make_folder(folder)
                lengthen(folder, config)
                write_json(folder / "config.json", config.values())
                if data.fingerprint:
                    found = {"fingerprint": data.fingerprint, "origin": data.origin, "report": data.report}
                    write_json(folder / "data.json", found)
            try:
                backbone = None if epochs_saved(folder) else _pretrain(config, folder.parent, data_dir, stop)
                with strategy.scope(config):
                    _train(config, folder, data, splits, backbone, stop)
            except tf_mmloss.NonFiniteLossError as error:
                if leader:
                    note_failure(folder, error)
                raise
            except (ValueError, ImportError, OSError):
                # A network that cannot be built: there is no run to resume, and its folder is free for another.
                if leader and not os.path.lexists(folder / "environment.json"):
                    for name in ("config.json", "data.json"):
                        (folder / name).unlink(missing_ok=True)
                raise
        if leader:
            _draw(folder, functools.cache(lambda: _splits(config, folder, data, data_dir) if finished else splits))
            page.write(folder)
        strategy.wait()
        metrics = read_json(folder, "metrics.json")
        if leader:
            told = ("error", "balanced_accuracy", "shot_accuracy", "epochs", "seconds")
            progress.tell(None, "end", run=config.name, folder=folder, **{name: metrics[name] for name in told})
        return metrics


def _train(
    config: Config,
    folder: Path,
    data: ImageDataset,
    splits: Splits,
    backbone: Path | None,
    stop: Callable[[], bool] | None,
) -> None:
    """Do what is left of a resolved config's run, up to metrics.json."""
    _set_keras(config)  # anew, as the run of the backbone may have had another precision
    keras.utils.set_random_seed(config.seed)
    model = build(config, splits)
    if statistics := backbones.statistics(config.backbone, splits.train_images.shape[-1]):
        data = dataclasses.replace(data, mean=statistics[0], std=statistics[1])
    if backbone is not None:
        carry_backbone(_last_model(backbone), model)
    phases, current = stages.phases(config), 0
    of_loss = _callbacks_of_loss(model)
    while phases[current].stop < epochs_saved(folder):  # the phase in which the last epoch was saved
        current += 1
        of_loss = _next_phase(config, model, phases, current, splits)
    checkpoint = tf_mmloss.Checkpoint(folder / "checkpoint", model, config=config.values())
    try:
        first_epoch = checkpoint.restore(model)
    except ValueError as error:
        raise RunFolderError(str(error)) from error
    epochs = config.epochs or 0

    leader = strategy.is_leader()
    if leader:
        _record_environment(config, folder, first_epoch, backbone)
        checkpoint.remove_earlier()
        _write_derived(folder, model, checkpoint.history)
        what = {"method": config.method, "data": data_label(config.values()), "seed": config.seed}
        progress.tell(None, "start", run=config.name, folder=folder, **what, epoch=first_epoch, epochs=epochs)

    resampling = _deferred(tf_mmloss.DeferredResampling, "sampling", config, splits)
    reweighting = _deferred(tf_mmloss.DeferredReweighting, "weights", config, splits)
    influence = tf_mmloss.DeferredInfluence(config.start_epoch or 0)  # an epoch of the run's, not of the loss's
    while True:
        if first_epoch == phases[current].stop < epochs:
            _take_averages(model)  # the averages, as `fit` leaves them
            current += 1
            of_loss = _next_phase(config, model, phases, current, splits)
        feed = make_feed(config, data, splits, model, first_epoch=first_epoch, resampling=resampling)
        if first_epoch == epochs:
            break
        _make_variables(config, feed.model)
        training = [
            keras.callbacks.LearningRateScheduler(stages.schedule(config)),
            *([reweighting] if reweighting else []),
            *([resampling] if resampling else []),
            *of_loss,
            *([_Radius(config)] if stages.rho(config, 0) is not None else []),
            *([_Averages(model)] if config.ema else []),
            *([influence] if isinstance(model.loss, tf_mmloss.InfluenceBalancedLoss) else []),
            tf_mmloss.StopOnNonFinite(),
        ]
        # What follows the checkpoint can be made from it: of a process killed in between, `_write_derived` does.
        writing = [
            _Timer(images_per_epoch(len(splits.train_labels), config.batch_size)),
            checkpoint,
            _BestModel(folder, checkpoint, model),
            *([keras.callbacks.TensorBoard(folder / "tensorboard", write_graph=False)] if has_tensorflow() else []),
            _History(folder, checkpoint, config),
            *([_Stop(stop)] if stop else []),
        ]
        with (
            warnings.catch_warnings(),
            interrupts_deferred() as heed_interrupt,
            bar(feed.steps, first_epoch, epochs) as moving,
        ):
            # A run that is stopped goes on later, and re-weights then; one of several phases in a later one.
            warnings.filterwarnings("ignore", message="Deferred.* never beg[ai]n")
            feed.model.fit(
                feed.train,
                steps_per_epoch=feed.steps,
                initial_epoch=first_epoch,
                epochs=phases[current].stop,
                shuffle=False,  # tf_mmloss.sampling shuffles
                validation_data=feed.evaluation,
                validation_batch_size=feed.eval_batch,
                validation_freq=[e for e in range(1, epochs + 1) if e % config.eval_every == 0 or e == epochs],
                callbacks=[*moving, *training, *(writing if leader else []), _AtEachStep(heed_interrupt)],
                verbose=0,
            )
        first_epoch = phases[current].stop
        if feed.model.stop_training or first_epoch == epochs:
            break
    if leader and len(checkpoint.history) < epochs:
        raise RunStoppedError(f"{folder} was stopped after epoch {len(checkpoint.history)} of {epochs}.")
    _take_averages(model)  # the averages, where it keeps them
    logits = feed.model.predict(feed.eval_images, batch_size=feed.eval_batch, verbose=0)
    if leader:
        _save(model, folder / "last.keras")
        trained = decide.Trained.of(model, splits.cls_counts)
        decided = decide.decided(config.decide, trained, splits.eval_labels, logits)
        for name in ("mistakes.png", "examples.png"):  # of what was predicted before the run was made longer
            (folder / "plots" / name).unlink(missing_ok=True)
        _keep_predictions(folder, splits, decided)
        metrics = _metrics(config, data, splits, decided, checkpoint.history, model)
        if config.decide != "none":
            without = float(np.mean(logits.argmax(axis=-1) != splits.eval_labels))
            metrics["decision"] = {"decide": decided.spec, "fitted": decided.fitted, "error_without": without}
        write_json(folder / "metrics.json", metrics)


def _next_phase(
    config: Config, model: keras.Model, phases: Sequence[Phase], number: int, splits: Splits
) -> list[keras.callbacks.Callback]:
    """Begin a phase, with the loss of the one before if that is its own; return the callbacks of the loss."""
    phase = phases[number]
    if phase.has_loss_of(phases[number - 1]):
        _begin(config, model, phase, model.loss)
    else:
        _begin(config, model, phase, loss(config, splits.cls_counts, phase.stage))
    return _callbacks_of_loss(model)


def _make_variables(config: Config, model: keras.Model) -> None:
    """Make what TensorFlow otherwise makes in the first step, whose program it then has to trace a second time."""
    if keras.backend.backend() == "tensorflow" and config.strategy == "none":  # under others, Keras makes them itself
        model.optimizer.build(model.trainable_variables)
        model.compute_metrics(None, np.zeros(1, np.int32), np.zeros((1, *model.output_shape[1:]), np.float32))
        model.reset_metrics()


def _callbacks_of_loss(model: keras.Model) -> list[keras.callbacks.Callback]:
    """What a loss brings to `fit`, with its state made part of the model, so that a checkpoint has it."""
    callbacks: list[keras.callbacks.Callback] = list(model.loss.callbacks())
    for callback in callbacks:
        callback.set_model(model)
    return callbacks


def _set_keras(config: Config) -> None:
    """Take nothing but the config's precision from a user's own configuration of Keras."""
    keras.config.set_floatx("float32")
    keras.config.set_image_data_format("channels_last")
    keras.config.set_dtype_policy(POLICIES[config.precision])


def _write_derived(folder: Path, model: keras.Model, history: Sequence[dict[str, Any]]) -> None:
    """Do what follows the checkpoint of an epoch; `model` is that of the last one."""
    if not history:
        return
    if _best(history) == len(history) - 1:
        with _averaged(model):
            _save(model, folder / "best.keras")
    _write_history(folder / "history.csv", history)


def _take_averages(model: keras.Model) -> None:
    """Give a model the averages of its weights, if its optimizer keeps them."""
    model.optimizer.finalize_variable_values(model.trainable_variables)
    if getattr(model.optimizer, "inner_optimizer", model.optimizer).use_ema:
        for variable in model.trainable_variables:
            # A copy, as JAX gives away the arrays of a step.
            variable.assign(keras.ops.copy(variable.value))


@contextlib.contextmanager
def _averaged(model: keras.Model) -> Iterator[None]:
    """Within the block, the model has the averages of its weights, if its optimizer keeps them."""
    if not getattr(model.optimizer, "inner_optimizer", model.optimizer).use_ema:
        yield
        return
    trained = [host_array(variable) for variable in model.trainable_variables]
    _take_averages(model)
    try:
        yield
    finally:
        for variable, value in zip(model.trainable_variables, trained, strict=True):
            variable.assign(value)


def _best(history: Sequence[dict[str, Any]]) -> int | None:
    """The first of the epochs with the highest evaluated accuracy; None: none was evaluated."""
    evaluated = _evaluated(history)
    return max(evaluated, key=lambda row: row["val_accuracy"])["epoch"] if evaluated else None


def _evaluated(history: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The epochs that were evaluated."""
    return [row for row in history if row.get("val_accuracy") is not None]


def _write_history(path: Path, history: Sequence[dict[str, Any]]) -> None:
    """Write history.csv; a value that is no number is a blank."""
    names = list(dict.fromkeys(name for row in history for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    for row in history:
        writer.writerow({name: value for name, value in row.items() if value is not None and np.isfinite(value)})
    with atomic_path(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")


def _last_model(folder: Path) -> keras.Model:
    """The network of a finished run.

    Raises:
        RunFolderError: last.keras is none, or another than metrics.json is of.
    """
    model: keras.Model = saved.load(folder / "last.keras", compile=False)
    check_weights(folder, model, read_json(folder, "metrics.json", ["checksum"]))
    return model


def _save(model: keras.Model, path: Path) -> None:
    # A layer's config says whether it is trained, and nothing of its variables: a frozen batch normalisation in
    # training mode would come back as one that is trained.
    frozen = [layer for layer in _batch_norms(model) if layer.trainable and not layer.trainable_variables]
    synchronized = [layer for layer in _batch_norms(model) if layer.synchronized]  # which other backends refuse
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
        for layer in _batch_norms(model):
            _freeze_in_training_mode(layer)


def _batch_norms(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    return [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]


def _freeze_in_training_mode(layer: keras.layers.BatchNormalization) -> None:
    layer.trainable = True  # else it is in inference mode, whatever the model is called with
    for variable in layer.trainable_variables:
        variable.trainable = False


def carry_backbone(source: keras.Model, target: keras.Model) -> None:
    """Give a network the weights of another, batch-norm statistics included, all but the classifier's."""
    for layer in target.layers:
        if layer.name not in ("head", "scales") and layer.weights:
            layer.set_weights(source.get_layer(layer.name).get_weights())


def summary(metrics: dict[str, Any]) -> str:
    """A result as text: error, balanced accuracy and a table by class, of many classes the worst."""
    shots = "  ".join(f"{k}-shot {v:.2%}" for k, v in metrics["shot_accuracy"].items() if v is not None)
    rows = list(zip(metrics["class_names"], metrics["cls_counts"], metrics["per_class_error"], strict=True))
    of = ""
    if len(rows) > _MOST_ROWS:
        of = f"\nthe {_MOST_ROWS} of {len(rows)} classes with the highest error; all are in index.html"
        rows = sorted(rows, key=lambda row: -1 if row[2] is None else row[2], reverse=True)[:_MOST_ROWS]
    width = max(len(name) for name in ("class", *(row[0] for row in rows)))
    return "\n".join(
        [
            f"\nLast epoch, {metrics['evaluated_on']}: top-1 error {metrics['error']:.2%}, "
            f"balanced accuracy {metrics['balanced_accuracy']:.2%}",
            f"accuracy by class size: {shots}",
            *_calibration(metrics),
            *_decision(metrics),
            f"{'class':{width}}  training images   error",
            *(
                f"{name:{width}}  {count:15,}  {'none evaluated' if error is None else f'{error:7.2%}'}"
                for name, count, error in rows
            ),
            f"{metrics['epochs']} epoch{'s' * (metrics['epochs'] != 1)} in {_clock(metrics['seconds'])}{of}",
        ]
    )


def _calibration(metrics: dict[str, Any]) -> list[str]:
    if "calibration_error" not in metrics:  # an older run, or of a loss that has no probabilities
        return []
    return [f"mean confidence {metrics['mean_confidence']:.2%}, calibration error {metrics['calibration_error']:.2%}"]


def _decision(metrics: dict[str, Any]) -> list[str]:
    if "decision" not in metrics:
        return []
    decision = metrics["decision"]
    of = ", fitted on these images: each half by the other" if decision.get("fitted") else ""
    return [f"decided by {decision['decide']}{of}; error without it {decision['error_without']:.2%}"]


def _of_a_run(folder: Path) -> list[str]:
    """Names of the files in a folder that a run leaves."""
    names = ("config.json", "checkpoint/latest.json", "metrics.json")
    return [name for name in names if os.path.lexists(folder / name)]


def check_free(folder: Path) -> None:
    """Refuse a folder that holds a run.

    Raises:
        RunFolderError: it does.
    """
    if _of_a_run(folder):
        raise RunFolderError(f"{folder} already holds a run. Continue it with --resume, or choose another --out.")


def _check_folder(config: Config, folder: Path, resume: bool) -> None:
    check_own(folder)
    if not resume:
        check_free(folder)
    there = _of_a_run(folder)
    if not there:
        return
    if "config.json" not in there:
        raise RunFolderError(
            f"{folder} has {there[0]}, and no config.json that says of which run: choose another folder, or remove it."
        )
    of_run = read_config(folder)
    check_same(folder, of_run, config, or_longer=True)
    if of_run.epochs != config.epochs and strategy.num_processes() > 1:
        raise RunFolderError(f"{folder} is made longer by one process: then several may continue it.")


def check_data(folder: Path, data: ImageDataset) -> None:
    """Refuse to continue a run on other images than it was begun with."""
    if not (folder / "data.json").exists():
        return
    there = read_json(folder, "data.json", ["fingerprint"])["fingerprint"]
    content, _, groups = data.fingerprint.partition("-")
    if there == data.fingerprint or (there == content and groups and read_config(folder).group_by is not None):
        return  # the latter: of a version that did not record the groups of names
    what = "groups of the images" if there.partition("-")[0] == content else "images"
    raise RunFolderError(f"The {what} of {data.name} changed since the run in {folder} began: choose another folder.")


def _pretrain(config: Config, beside: Path, data_dir: str | None, stop: Callable[[], bool] | None) -> Path | None:
    """Run, continue or find the run that a config starts from; return its folder."""
    wanted, folder = _backbone(config, beside)
    if wanted is None:
        return None
    if not is_finished(folder):
        if strategy.is_leader():
            progress.tell(f"pre-training {wanted.name}: {folder}")
        run(wanted, folder, data_dir=data_dir, resume=True, stop=stop)
        keras.backend.clear_session()
    return folder


def _backbone(config: Config, beside: Path) -> tuple[Config | None, Path]:
    """The run that a config starts from, or None, and its folder; refuse another run there."""
    wanted = pretraining(config)
    if wanted is None:
        return None, beside
    folder = beside / wanted.name
    if os.path.lexists(folder / "config.json"):  # however it was made
        there = read_config(folder)
        wanted = dataclasses.replace(wanted, **{name: getattr(there, name) for name in HOW})
        check_same(folder, there, wanted)
    return wanted, folder


def _deferred(callback: Any, kind: str, config: Config, splits: Splits) -> Any:
    """The callback of the stages that have "weights" or "sampling"; None: there are none."""
    start = stages.begins(config, kind)
    return None if start is None else callback(start, splits.cls_counts, config.weights)


def _metrics(
    config: Config,
    data: ImageDataset,
    splits: Splits,
    decided: decide.Decided,
    history: list[dict[str, float]],
    model: keras.Model,
) -> dict[str, Any]:
    predictions = decided.scores.argmax(axis=-1)
    errors = per_class_error(splits.eval_labels, predictions, len(splits.class_names))
    best, evaluated = history[_best(history) or 0], len(_evaluated(history))  # the last epoch always is
    shown = ~np.isnan(errors)  # a class without images has no error, and no part in a mean
    return {
        "error": float(np.mean(predictions != splits.eval_labels)),
        "balanced_accuracy": float(1 - np.mean(errors[shown])),
        "shot_accuracy": {
            shot: float(1 - errors[mask & shown].mean()) if (mask & shown).any() else None
            for shot, mask in shot_masks(splits.cls_counts).items()
        },
        "per_class_error": [None if np.isnan(error) else error for error in errors.tolist()],
        **_confidence(splits.eval_labels, decided),
        "best_epoch": {"epoch": best["epoch"], "error": 1 - best["val_accuracy"], "evaluated": evaluated},
        "evaluated_on": "held-out training images" if config.holdout else "test split",
        "cls_counts": splits.cls_counts.tolist(),
        "class_names": list(splits.class_names),
        "mean": list(data.mean),
        "std": list(data.std),
        "epochs": len(history),
        "seconds": sum(row["seconds"] for row in history),
        "images_per_second": float(np.median([row["images_per_second"] for row in history])),
        "checksum": checksum(model),
    }


def _keep_predictions(folder: Path, splits: Splits, decided: decide.Decided) -> None:
    """Keep what was predicted."""
    labels, predicted = splits.eval_labels, decided.scores.argmax(axis=-1)
    rows = np.arange(len(labels))
    confidence = softmax(decided.scores)[rows, predicted] if decided.probabilistic else None
    scaled = calibrated(labels, decided.scores)[rows, predicted] if len(labels) > 1 else None
    predictions.save(folder, predictions.Predictions(labels, predicted, confidence, scaled))


def _splits(config: Config, folder: Path, data: ImageDataset | None, data_dir: str | None) -> Splits:
    """The images of a finished run."""
    data = load(config, data_dir) if data is None else data
    check_data(folder, data)
    return split(data, config)


def _draw(folder: Path, splits: Callable[[], Splits]) -> None:
    """Draw the figures of a finished run, and what it lacks of those that show images.

    One that cannot be drawn, as there is no font or the images are gone, is named: the run has its result without it.
    """
    figures = plots.figures(folder)
    if (folder / predictions.NAME).exists():  # earlier versions kept nothing to draw them from
        figures |= {
            name: functools.partial(draw, folder / "plots" / f"{name}.png", splits)
            for name, draw in (("mistakes", _draw_mistakes), ("examples", _draw_examples))
            if not os.path.lexists(folder / "plots" / f"{name}.png")
        }
    for name, draw in figures.items():
        try:
            draw()
        except Exception as error:
            progress.tell(
                f"warning: plots/{name} of {folder} cannot be drawn ({type(error).__name__}: {error}). The run is "
                "finished without it; --resume draws it again."
            )


def _draw_mistakes(path: Path, splits: Callable[[], Splits]) -> None:
    names = splits().class_names
    found = predictions.read(path.parents[1], len(names))
    if found is not None:
        plots.mistakes(splits().eval_images, found, names, path)


def _draw_examples(path: Path, splits: Callable[[], Splits]) -> None:
    plots.examples(splits().train_images, splits().train_labels, splits().class_names, path)


def _confidence(labels: np.ndarray, decided: decide.Decided) -> dict[str, float]:
    """How far the probabilities can be trusted; nothing of a loss that has none over the classes together."""
    if not decided.probabilistic:
        return {}
    probabilities = softmax(decided.scores)
    return {
        "calibration_error": expected_calibration_error(labels, probabilities),
        "mean_confidence": float(probabilities.max(axis=-1).mean()),
    }


def _record_environment(config: Config, folder: Path, first_epoch: int, backbone: Path | None) -> None:
    path = folder / "environment.json"
    starts = read_json(folder, path.name, ["starts"])["starts"] if path.exists() else []
    versions = {"python": platform.python_version(), "tf_mmloss": tf_mmloss.__version__, "keras": keras.__version__}
    backend = keras.backend.backend()
    versions[backend] = __import__(backend).__version__
    if first_epoch and starts and starts[-1]["backend"] != backend:
        progress.tell(f"begun on {starts[-1]['backend']}, continued on {backend}: the same run, but for rounding")
    start = {
        "first_epoch": first_epoch,
        **({"backbone": [backbone.name, read_json(backbone, "metrics.json")["checksum"]]} if backbone else {}),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "backend": backend,
        "versions": versions,
        "commit": _commit(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "processor": _processor(),
        "devices": strategy.num_devices(config),
        "processes": strategy.num_processes(),
    }
    write_json(path, {"starts": [*starts, start]})


def _commit() -> str | None:
    """The commit of this package's own checkout; None where it is installed, be it inside another repository."""
    here = Path(__file__).resolve()
    try:
        root = Path(_git(here.parent, "rev-parse", "--show-toplevel"))
        if tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["name"] != "tf-mmloss":
            return None
        _git(here.parent, "ls-files", "--error-unmatch", here.name)
        return _git(here.parent, "describe", "--always", "--dirty", "--abbrev=12")
    except (OSError, KeyError, TypeError, ValueError, subprocess.CalledProcessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    """What git says in a folder."""
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = [f"model name: {platform.processor()}"]
    name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")
    vectors = processor.vectors()
    return ", ".join([*(found.name for found in strategy.accelerators()[:1]), name, *([vectors] if vectors else [])])


class _Radius(keras.callbacks.Callback):
    """Give SAM the radius of the epoch."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.model.rho = stages.rho(self.config, epoch)


class _Averages(keras.callbacks.Callback):
    """Evaluate the averages of a model's weights. `keras.callbacks.SwapEMAWeights` rounds those that are trained."""

    def __init__(self, averaged: keras.Model) -> None:
        super().__init__()
        self.averaged, self.context = averaged, contextlib.ExitStack()

    def on_test_begin(self, logs: Any = None) -> None:
        self.context.enter_context(_averaged(self.averaged))

    def on_test_end(self, logs: Any = None) -> None:
        self.context.close()


class _Timer(keras.callbacks.Callback):
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


class _BestModel(keras.callbacks.Callback):
    """Save the model when the evaluated accuracy rises above all epochs before."""

    def __init__(self, folder: Path, checkpoint: tf_mmloss.Checkpoint, saved: keras.Model) -> None:
        super().__init__()
        self.path, self.checkpoint, self.saved = folder / "best.keras", checkpoint, saved

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if _best(self.checkpoint.history) == epoch:
            with _averaged(self.saved):
                _save(self.saved, self.path)


class _History(keras.callbacks.Callback):
    """Write history.csv from the checkpoint's rows, and show the progress."""

    def __init__(self, folder: Path, checkpoint: tf_mmloss.Checkpoint, config: Config) -> None:
        super().__init__()
        self.path, self.checkpoint, self.config = folder / "history.csv", checkpoint, config

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        rows = self.checkpoint.history
        _write_history(self.path, rows)
        row = rows[-1]
        epochs, error = self.config.epochs or 0, 1 - row["val_accuracy"] if "val_accuracy" in row else None
        evaluated = "" if error is None else f"  error {error:6.2%}"
        left = float(np.median([r["seconds"] for r in rows[-5:]])) * (epochs - epoch - 1)
        progress.tell(
            f"epoch {epoch + 1:3d}/{epochs}  loss {row['loss']:.4f}  train error {1 - row['accuracy']:6.2%}"
            f"{evaluated}  {row['images_per_second']:,.0f} images/s  {_clock(left)} left",
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


class _Stop(keras.callbacks.Callback):
    """Leave training after an epoch when asked to."""

    def __init__(self, stop: Callable[[], bool]) -> None:
        super().__init__()
        self.stop = stop

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self.stop():
            self.model.stop_training = True


class _AtEachStep(keras.callbacks.Callback):
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


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest:02d}"
