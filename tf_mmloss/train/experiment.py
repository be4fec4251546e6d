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
import dataclasses
import functools
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

import tf_mmloss
from tf_mmloss import _validation, backbones, decide
from tf_mmloss.datasets import ImageDataset
from tf_mmloss.files import interrupts_deferred, write_json
from tf_mmloss.pipeline import images_per_epoch
from tf_mmloss.runs import page, saved
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
from tf_mmloss.runs.model import check_weights
from tf_mmloss.train import callbacks, environment, network, processor, progress, result, stages, strategy
from tf_mmloss.train.bar import bar
from tf_mmloss.train.config import HOW, Config
from tf_mmloss.train.history import best_epoch, write_history
from tf_mmloss.train.inputs import Splits, check_input, has_tensorflow, load, make_feed, split
from tf_mmloss.train.resolve import has_gaps, pretraining, resolve
from tf_mmloss.train.stages import Phase, loss

POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}


class RunStoppedError(Exception):
    """The run was asked to stop. Every complete epoch is saved."""


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
        stop: asked after every epoch; True leaves the run there, to be resumed, unless it was the last.
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
                if not (is_finished(folder) or epochs_saved(folder)):
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
                backbone = None if epochs_saved(folder) else _pretrain(config, folder.parent, data, data_dir, stop)
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
            result.draw_figures(
                folder, functools.cache(lambda: _splits(config, folder, data, data_dir) if finished else splits)
            )
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
    model = network.build(config, splits)
    if not epochs_saved(folder):
        network.check_loads(config, model)
    if statistics := backbones.statistics(config.backbone, splits.train_images.shape[-1]):
        data = dataclasses.replace(data, mean=statistics[0], std=statistics[1])
    if backbone is not None:
        network.carry_backbone(_last_model(backbone), model)
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
        environment.record(config, folder, first_epoch, backbone)
        checkpoint.remove_earlier()
        _write_derived(folder, model, checkpoint.history)
        what = {"method": config.method, "data": data_label(config.values()), "seed": config.seed}
        progress.tell(None, "start", run=config.name, folder=folder, **what, epoch=first_epoch, epochs=epochs)

    resampling = _deferred(tf_mmloss.DeferredResampling, "sampling", config, splits)
    reweighting = _deferred(tf_mmloss.DeferredReweighting, "weights", config, splits)
    influence = tf_mmloss.DeferredInfluence(config.start_epoch or 0)  # an epoch of the run's, not of the loss's
    while True:
        if first_epoch == phases[current].stop < epochs:
            network.take_averages(model)  # the averages, as `fit` leaves them
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
            *([callbacks.Radius(config)] if stages.rho(config, 0) is not None else []),
            *([callbacks.Averages(model)] if config.ema else []),
            *([influence] if isinstance(model.loss, tf_mmloss.InfluenceBalancedLoss) else []),
            tf_mmloss.StopOnNonFinite(),
        ]
        # What follows the checkpoint can be made from it: of a process killed in between, `_write_derived` does.
        writing = [
            callbacks.Timer(images_per_epoch(len(splits.train_labels), config.batch_size)),
            checkpoint,
            callbacks.BestModel(folder, checkpoint, model),
            *([keras.callbacks.TensorBoard(folder / "tensorboard", write_graph=False)] if has_tensorflow() else []),
            callbacks.History(folder, checkpoint, config),
            *([callbacks.Stop(stop)] if stop else []),
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
                callbacks=[*moving, *training, *(writing if leader else []), callbacks.AtEachStep(heed_interrupt)],
                verbose=0,
            )
        first_epoch = phases[current].stop
        if feed.model.stop_training or first_epoch == epochs:
            break
    if leader and len(checkpoint.history) < epochs:
        raise RunStoppedError(f"{folder} was stopped after epoch {len(checkpoint.history)} of {epochs}.")
    network.take_averages(model)  # the averages, where it keeps them
    logits = feed.model.predict(feed.eval_images, batch_size=feed.eval_batch, verbose=0)
    if leader:
        network.save(model, folder / "last.keras")
        trained = decide.Trained.of(model, splits.cls_counts)
        decided = decide.decided(config.decide, trained, splits.eval_labels, logits)
        for name in ("mistakes.png", "examples.png"):  # of what was predicted before the run was made longer
            (folder / "plots" / name).unlink(missing_ok=True)
        result.keep_predictions(folder, splits, decided)
        metrics = result.measure(config, data, splits, decided, checkpoint.history, model)
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
        network.begin(config, model, phase, model.loss)
    else:
        network.begin(config, model, phase, loss(config, splits.cls_counts, phase.stage))
    return _callbacks_of_loss(model)


def _make_variables(config: Config, model: keras.Model) -> None:
    """Make what TensorFlow otherwise makes in the first step, whose program it then has to trace a second time."""
    if keras.backend.backend() == "tensorflow" and config.strategy == "none":  # under others, Keras makes them itself
        model.optimizer.build(model.trainable_variables)
        model.compute_metrics(None, np.zeros(1, np.int32), np.zeros((1, *model.output_shape[1:]), np.float32))
        model.reset_metrics()


def _callbacks_of_loss(model: keras.Model) -> list[keras.callbacks.Callback]:
    """What a loss brings to `fit`, with its state made part of the model, so that a checkpoint has it."""
    brought: list[keras.callbacks.Callback] = list(model.loss.callbacks())
    for callback in brought:
        callback.set_model(model)
    return brought


def _set_keras(config: Config) -> None:
    """Take nothing but the config's precision from a user's own configuration of Keras."""
    keras.config.set_floatx("float32")
    keras.config.set_image_data_format("channels_last")
    keras.config.set_dtype_policy(POLICIES[config.precision])


def _write_derived(folder: Path, model: keras.Model, history: Sequence[dict[str, Any]]) -> None:
    """Do what follows the checkpoint of an epoch; `model` is that of the last one."""
    if not history:
        return
    if best_epoch(history) == len(history) - 1:
        with network.averaged(model):
            network.save(model, folder / "best.keras")
    write_history(folder / "history.csv", history)


def _last_model(folder: Path) -> keras.Model:
    """The network of a finished run.

    Raises:
        RunFolderError: last.keras is none, or another than metrics.json is of.
    """
    model: keras.Model = saved.load(folder / "last.keras", compile=False)
    check_weights(folder, model, read_json(folder, "metrics.json", ["checksum"]))
    return model


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


def _pretrain(
    config: Config, beside: Path, data: ImageDataset, data_dir: str | None, stop: Callable[[], bool] | None
) -> Path | None:
    """Run, continue or find the run that a config starts from; return its folder."""
    wanted, folder = _backbone(config, beside)
    if wanted is None:
        return None
    if not is_finished(folder):
        if strategy.is_leader():
            progress.tell(f"pre-training {wanted.name}: {folder}")
        run(wanted, folder, data_dir=data_dir, resume=True, stop=stop, data=data)
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


def _splits(config: Config, folder: Path, data: ImageDataset | None, data_dir: str | None) -> Splits:
    """The images of a finished run."""
    data = load(config, data_dir) if data is None else data
    check_data(folder, data)
    return split(data, config)
