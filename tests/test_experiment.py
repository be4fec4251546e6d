"""Runs at small size: what a run folder holds, and what is refused."""

import dataclasses
import inspect
import json
import re
import shutil
import signal
import subprocess
import zipfile
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from helpers import BACKEND, copied_at_renames, interrupts, once, use_backbone

import tf_mmloss
from tf_mmloss import decide, pipeline
from tf_mmloss.cli import fit
from tf_mmloss.datasets import load
from tf_mmloss.files import write_json
from tf_mmloss.methods import METHODS
from tf_mmloss.methods.base import loss_class
from tf_mmloss.runs import folder as run_folder
from tf_mmloss.runs import plots
from tf_mmloss.runs.folder import RunFolderError, epochs_saved, read_config, read_history, read_json
from tf_mmloss.train import callbacks, environment, experiment, inputs, network, progress, result
from tf_mmloss.train.config import Config
from tf_mmloss.train.presets import RECIPES, SEARCHED_CONSTANTS, TABLE_1
from tf_mmloss.train.resolve import WITH_PRETRAINING, pretraining, resolve
from tf_mmloss.train.show import show
from tf_mmloss.train.strategy import Accelerator

pytest.importorskip("tensorflow", reason="runs read their images through tf.data")

RESULTS = Path(__file__).parents[1] / "results"
SMALL = Config(dataset="digits", ratio=20, depth=8, epochs=2, batch_size=128, learning_rate=0.1)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "finished"
    return folder, experiment.run(SMALL, folder)


def test_run_folder_explains_itself(finished):
    folder, metrics = finished
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    figures = {f"plots/{stem}.{kind}" for stem in ("class_distribution", "learning_curves", "per_class_error")
             for kind in ("svg", "png")}  # fmt: skip
    files = {"config.json", "environment.json", "history.csv", "metrics.json", "best.keras", "last.keras"}
    assert names >= files | figures
    assert any(name.startswith("tensorboard/") for name in names)
    assert not any("partial" in name for name in names)
    assert read_config(folder) == resolve(SMALL)
    start = json.loads((folder / "environment.json").read_text())["starts"][0]
    assert start["versions"]["keras"] == keras.__version__
    assert [row["epoch"] for row in read_history(folder)] == [0, 1]
    assert metrics == json.loads((folder / "metrics.json").read_text())


def test_metrics_agree_with_the_saved_model(finished):
    folder, metrics = finished
    data = load("digits")
    model = keras.models.load_model(folder / "last.keras")
    images = tf_mmloss.normalization(data.mean, data.std)(data.test_images)
    wrong = model.predict(images, verbose=0).argmax(-1) != data.test_labels
    assert metrics["error"] == pytest.approx(wrong.mean())
    assert metrics["per_class_error"] == pytest.approx([wrong[data.test_labels == c].mean() for c in range(10)])
    assert metrics["error"] == pytest.approx(1 - read_history(folder)[-1]["val_accuracy"], abs=1e-6)
    assert metrics["cls_counts"] == [124, 88, 63, 45, 32, 23, 16, 12, 8, 6]


def test_same_seed_same_run_other_seed_other_run(finished, tmp_path):
    _, metrics = finished
    assert experiment.run(SMALL, tmp_path / "again")["checksum"] == metrics["checksum"]
    other = dataclasses.replace(SMALL, seed=1)
    assert experiment.run(other, tmp_path / "other")["checksum"] != metrics["checksum"]


@once
def test_the_speed_counts_the_images_that_were_shown(tmp_path, monkeypatch):
    """Of 417 images, batches of 52 leave one over."""
    monkeypatch.setattr(callbacks, "time", SimpleNamespace(perf_counter=iter(range(10**6)).__next__))
    use_backbone(
        lambda spec, shape, weights: keras.Sequential([keras.Input(shape), keras.layers.Flatten()]), monkeypatch
    )
    metrics = experiment.run(
        Config(dataset="digits", ratio=20, method="erm", backbone="tiny", epochs=1, batch_size=52), tmp_path / "run"
    )
    assert metrics["images_per_second"] == 416 / 8


def test_finished_run_resumes_to_itself(finished):
    folder, metrics = finished
    assert experiment.run(SMALL, folder, resume=True)["checksum"] == metrics["checksum"]


@once
def test_a_longer_run_is_that_of_as_many_epochs_whenever_it_is_killed(tmp_path, monkeypatch):
    config = dataclasses.replace(SMALL, method="erm", schedule="constant", jit="off", epochs=1)
    longer = dataclasses.replace(config, epochs=2)
    whole = experiment.run(longer, tmp_path / "whole")
    experiment.run(config, tmp_path / "run")
    monkeypatch.setattr(run_folder, "write_json", lambda path, content: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        experiment.run(longer, tmp_path / "run", resume=True)
    monkeypatch.undo()
    assert read_config(tmp_path / "run").epochs == 1  # the run that it was, and unfinished
    assert not (tmp_path / "run" / "metrics.json").exists()
    write_json(tmp_path / "run" / "config.json", resolve(longer).values())  # killed after this file
    assert fit.main(["--resume", str(tmp_path / "run")]) == 0
    metrics = read_json(tmp_path / "run", "metrics.json")
    assert (metrics["checksum"], metrics["error"], metrics["epochs"]) == (whole["checksum"], whole["error"], 2)
    assert [row["loss"] for row in read_history(tmp_path / "run")] == [
        row["loss"] for row in read_history(tmp_path / "whole")
    ]


def test_a_finished_run_without_its_checkpoint_is_not_made_longer(tmp_path):
    """As one that was copied or committed: it would begin anew, and its result would be gone."""
    config, longer = (resolve(dataclasses.replace(SMALL, schedule="constant", epochs=epochs)) for epochs in (2, 3))
    write_json(tmp_path / "config.json", config.values())
    run_folder.check_same(tmp_path, config, longer, or_longer=True)  # it has only just begun
    write_json(tmp_path / "metrics.json", {"error": 0.1})
    with pytest.raises(RunFolderError, match=r"It cannot be made longer, as its checkpoint is not there\."):
        experiment.run(longer, tmp_path, resume=True)
    assert (tmp_path / "metrics.json").exists()


def test_folder_of_a_run_is_not_overwritten(finished):
    folder, _ = finished
    before = (folder / "metrics.json").read_bytes()
    with pytest.raises(RunFolderError, match="already holds a run"):
        experiment.run(SMALL, folder)
    with pytest.raises(RunFolderError, match=r"another config \(beta: 1.5 there, 1.7 asked for\)"):
        experiment.run(dataclasses.replace(SMALL, beta=1.7), folder, resume=True)
    assert (folder / "metrics.json").read_bytes() == before


# Table 1 and the definitions of its systems: loss, head, scale, re-weighting, re-sampling.
SYSTEMS = {
    "erm": (tf_mmloss.CrossEntropyLoss, "dense", 1, None, None),
    "focal": (tf_mmloss.FocalLoss, "dense", 1, None, None),
    "ldam": (tf_mmloss.LDAMLoss, "cosine", 30, None, None),
    "mm": (tf_mmloss.MaxMarginLoss, "cosine", 10, None, None),
    "cb-rs": (tf_mmloss.CrossEntropyLoss, "dense", 1, None, 0),
    "cb-rw": (tf_mmloss.CrossEntropyLoss, "dense", 1, 0, None),
    "cb-focal": (tf_mmloss.FocalLoss, "dense", 1, 0, None),
    "hg-drs": (tf_mmloss.HingeLoss, "cosine", 1, None, 8),
    "ldam-hg-drs": (tf_mmloss.LDAMHingeLoss, "cosine", 1, None, 8),
    "m-drw": (tf_mmloss.UniformMarginLoss, "cosine", 30, 8, None),
    "ldam-drw": (tf_mmloss.LDAMLoss, "cosine", 30, 8, None),
    "ldam-drw-ssp": (tf_mmloss.LDAMLoss, "cosine", 30, 8, None),
    "mm-drw": (tf_mmloss.MaxMarginLoss, "cosine", 10, 8, None),
    "mm-ldam-drw": (tf_mmloss.MaxMarginLoss, "cosine", 10, 8, None),
}


def test_table_1_has_its_fourteen_systems():
    assert tuple(SYSTEMS) == TABLE_1
    assert set(TABLE_1) < set(METHODS)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_builds_its_loss_and_head(method):
    config = resolve(dataclasses.replace(SMALL, method=method, pretraining="none"))
    splits = inputs.split(load("digits"), config)
    model = network.build(config, splits)
    assert type(model.loss) is loss_class(METHODS[method].loss)
    for name, value in METHODS[method].arguments.items():
        assert getattr(model.loss, name) == value
    if model.loss.cls_counts is not None:
        assert model.loss.cls_counts == splits.cls_counts.tolist()
    head = model.get_layer("head")
    assert isinstance(head, tf_mmloss.CosineDense if METHODS[method].head == "cosine" else keras.layers.Dense)
    assert model.output_shape == (None, 4 if method == "rotation" else 10)


@pytest.mark.parametrize(
    ("method", "scheme"),
    [(m, s) for m in TABLE_1 for s in ("effective", "inverse") if s == "effective" or SYSTEMS[m][3:] != (None, None)],
)
def test_systems_weights_and_drawing(method, scheme, monkeypatch, tmp_path):
    """Loss, head, scale; which class gets which weight in which epoch; how each epoch is drawn."""
    loss, head, scale, reweighted_from, resampled_from = SYSTEMS[method]
    of_method = METHODS[method]
    assert (loss_class(of_method.loss), of_method.head, of_method.arguments["scale"]) == (loss, head, scale)

    drawn = {}
    real = pipeline.draw_rows
    monkeypatch.setattr(
        pipeline, "draw_rows", lambda labels, seed, epoch, **k: drawn.setdefault(epoch, real(labels, seed, epoch, **k))
    )
    seen = []

    def fit(self, data, callbacks, epochs, steps_per_epoch, **_):
        batches = iter(data)
        reweighting = [c for c in callbacks if isinstance(c, tf_mmloss.DeferredReweighting)]
        for callback in reweighting:
            callback.set_model(self)
        for epoch in range(epochs):
            for callback in reweighting:
                callback.on_epoch_begin(epoch)
            for _ in range(steps_per_epoch):
                next(batches)
            weights = self.loss.class_weights
            seen.append(np.ones(10) if weights is None else keras.ops.convert_to_numpy(weights.weight).copy())
        raise KeyboardInterrupt

    monkeypatch.setattr(keras.Model, "fit", fit)
    config = dataclasses.replace(SMALL, method=method, epochs=10, weights=scheme, pretraining="none")
    with pytest.raises(KeyboardInterrupt):
        experiment.run(config, tmp_path / "run")

    labels = inputs.split(load("digits"), resolve(config)).train_labels
    counts = np.bincount(labels)
    n = {"effective": (1 - 0.9999**counts) / (1 - 0.9999), "inverse": counts}[scheme]
    balancing = 10 / n / np.sum(1 / n)
    for epoch in range(10):
        reweighted = reweighted_from is not None and epoch >= reweighted_from
        np.testing.assert_allclose(seen[epoch], balancing if reweighted else 1, rtol=1e-5)
        shown = np.bincount(labels[drawn[epoch][:, 0]], minlength=10)
        if resampled_from is not None and epoch >= resampled_from:
            expected = counts / n / np.sum(counts / n) * len(labels)
            assert np.all(np.abs(shown - expected) < 5 * np.sqrt(expected))
            assert abs(shown[0] - counts[0]) > 5 * np.sqrt(expected[0])
        else:
            assert sorted(drawn[epoch][:, 0]) == list(range(len(labels)))


@once
def test_ssp_starts_from_the_rotation_run_beside_it_and_makes_it_once(tmp_path, monkeypatch):
    config = dataclasses.replace(SMALL, method="ldam-drw-ssp")
    started = []
    real = network.build

    def build(config, splits):
        model = real(config, splits)
        started.append((config.method, model))
        return model

    monkeypatch.setattr(network, "build", build)
    carried = []
    carry = network.carry_backbone

    def carrying(source, target):
        head = [w.copy() for w in target.get_layer("head").get_weights()]
        carry(source, target)
        for mine, theirs in zip(target.get_layer("head").get_weights(), head, strict=True):
            np.testing.assert_array_equal(mine, theirs)
        carried.append([layer.name for layer in target.layers if layer.name != "head" and layer.weights])
        for name in carried[-1]:
            for mine, theirs in zip(
                target.get_layer(name).get_weights(), source.get_layer(name).get_weights(), strict=True
            ):
                np.testing.assert_array_equal(mine, theirs)

    monkeypatch.setattr(network, "carry_backbone", carrying)
    experiment.run(config, tmp_path / "ssp")
    assert [method for method, _ in started] == ["rotation", "ldam-drw-ssp"]
    assert {"stem_conv", "stem_bn", "stage3_block1_2_bn"} <= set(carried[0])

    backbone = tmp_path / "digits-longtail20-rotation-seed0"
    metrics = json.loads((backbone / "metrics.json").read_text())
    assert metrics["class_names"] == ["0 degrees", "90 degrees", "180 degrees", "270 degrees"]
    start = json.loads((tmp_path / "ssp" / "environment.json").read_text())["starts"][0]
    assert start["backbone"] == [backbone.name, metrics["checksum"]]

    experiment.run(dataclasses.replace(SMALL, method="erm", pretraining="rotation"), tmp_path / "erm")
    assert [method for method, _ in started] == ["rotation", "ldam-drw-ssp", "erm"]
    experiment.run(config, tmp_path / "ssp", resume=True)
    assert len(carried) == 2

    with pytest.raises(RunFolderError, match="digits-longtail20-rotation-seed0 holds a run of another config"):
        experiment.run(dataclasses.replace(config, epochs=3), tmp_path / "other")
    assert not (tmp_path / "other").exists()
    # However it is made, it is the same backbone.
    experiment.run(dataclasses.replace(config, eval_every=2), tmp_path / "every-2")
    assert [method for method, _ in started].count("rotation") == 1


def test_a_backbone_without_names_is_carried():
    """Keras numbers models that have none by what a process made before."""

    def network_of(seed):
        images = keras.Input((4, 4, 1))
        kernel = keras.initializers.GlorotUniform(seed=seed)
        features = keras.layers.Flatten()(keras.layers.Conv2D(2, 3, kernel_initializer=kernel)(images))
        inputs_ = keras.Input((4, 4, 1), name="images")
        outputs = tf_mmloss.models.add_head(keras.Model(images, features)(inputs_), 3)
        return keras.Model(inputs_, outputs)

    source, target = network_of(0), network_of(1)
    head = [np.array(v) for v in target.get_layer("head").get_weights()]
    network.carry_backbone(source, target)
    for own, theirs in zip(target.layers[1].get_weights(), source.layers[1].get_weights(), strict=True):
        np.testing.assert_array_equal(own, theirs)
    for own, before in zip(target.get_layer("head").get_weights(), head, strict=True):
        np.testing.assert_array_equal(own, before)


def test_the_pretraining_takes_the_images_that_are_there(tmp_path, monkeypatch):
    given = []

    def stopped(config, folder, data, *_):
        given.append((config.method, data))
        raise KeyboardInterrupt

    data = load("digits")
    monkeypatch.setattr(experiment, "_train", stopped)
    monkeypatch.setattr(experiment, "load", lambda *_: pytest.fail("the images were loaded again"))
    with pytest.raises(KeyboardInterrupt):
        experiment.run(dataclasses.replace(SMALL, method="ldam-drw-ssp"), tmp_path / "run", data=data)
    assert given[0][0] == "rotation"
    assert given[0][1] is data


def test_a_run_that_has_its_backbone_does_not_ask_for_the_run_of_it(finished, tmp_path):
    folder, metrics = finished
    config = resolve(dataclasses.replace(SMALL, pretraining="rotation"))
    shutil.copytree(folder, tmp_path / "run")
    write_json(tmp_path / "run" / "config.json", config.values())
    another = pretraining(resolve(dataclasses.replace(config, epochs=3, start_epoch=None)))
    (tmp_path / another.name).mkdir()
    write_json(tmp_path / another.name / "config.json", another.values())
    assert experiment.run(config, tmp_path / "run", resume=True)["checksum"] == metrics["checksum"]


# What the run of a backbone does not share with those that start from it: a new field of Config is in one of the two.
WITHOUT_PRETRAINING = {
    *("method", "loss_arguments", "weights", "pretraining", "start_epoch", "classifier", "augment"),
    *("sam", "sam_late", "mix", "mix_alpha", "ema", "decide"),
}


@pytest.mark.parametrize("recipe", ["paper", "strong", "record"])
def test_every_field_is_shared_with_the_pretraining_or_is_not(recipe):
    fields = [field.name for field in dataclasses.fields(Config)]
    assert sorted([*WITH_PRETRAINING, *WITHOUT_PRETRAINING]) == sorted(fields)
    given = {"weights": "inverse", "holdout": 7, "ema": 0.5, "mix": "mixup", "mix_alpha": 0.4, "augment": "cutout"}
    config = resolve(Config(method="ldam-drw-ssp", recipe=recipe, sam=0.1, **given))
    backbone = pretraining(config)
    assert backbone == resolve(Config(method="rotation", recipe=recipe, holdout=7, sam=0.0, classifier="dense"))
    assert {name for name in fields if getattr(backbone, name) != getattr(config, name)} <= WITHOUT_PRETRAINING


def test_a_stop_in_the_pretraining_leaves_a_run_that_can_be_resumed(tmp_path, monkeypatch):
    config = resolve(dataclasses.replace(SMALL, method="ldam-drw-ssp"))

    def stopped(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(experiment, "_train", stopped)
        with pytest.raises(KeyboardInterrupt):
            experiment.run(config, tmp_path / "run")
    assert read_config(tmp_path / "run") == config
    assert read_config(tmp_path / "digits-longtail20-rotation-seed0").method == "rotation"


def test_only_what_a_killed_run_was_writing_is_removed(tmp_path):
    ours = ["best.partial-12.keras", "history.partial-3.csv", "checkpoint/state-0001.partial-4.npz"]
    others = ["measured.partial-2024.csv", "best.partial-mine.keras", "below/best.partial-12.keras"]
    for name in (*ours, *others):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    experiment.run(dataclasses.replace(SMALL, epochs=1), tmp_path)
    assert {name for name in (*ours, *others) if (tmp_path / name).exists()} == set(others)


def contents(folder):
    """What a run folder holds, by file, but times and the events for TensorBoard."""
    found = {}
    for path in sorted(folder.rglob("*.*")):
        name = path.relative_to(folder).as_posix()
        if name.startswith("tensorboard/") or name == ".lock":
            continue
        if path.suffix == ".keras":
            with zipfile.ZipFile(path) as archive:
                found[name] = archive.read("model.weights.h5")
        elif path.suffix == ".npz":
            with np.load(path) as arrays:
                found[name] = {key: array.tolist() for key, array in arrays.items()}
        elif name == "index.html":  # made of the others, and says when they were
            found[name] = path.stat().st_size > 1000
        elif name == "history.csv":
            found[name] = [without_times(row) for row in read_history(folder)]
        elif name == "checkpoint/latest.json":
            latest = json.loads(path.read_text())
            found[name] = {**latest, "history": [without_times(row) for row in latest["history"]]}
        elif name == "metrics.json":
            found[name] = without_times(json.loads(path.read_text()))
        else:
            found[name] = path.read_bytes() if name != "environment.json" else None
    return found


def without_times(row):
    return {name: value for name, value in row.items() if name not in ("seconds", "images_per_second")}


@pytest.fixture(scope="module")
def compiled():
    """A network of SMALL for plain cross-entropy, compiled by the first run, and its variables at the beginning."""
    return {}


@pytest.fixture
def compiled_once(compiled, monkeypatch):
    """Every run trains the same network, from its initial weights: those of seed 0."""
    build_anew = network.build

    def build(config, splits):
        if not compiled:
            compiled["model"] = model = build_anew(config, splits)
            model.optimizer.build(model.trainable_variables)
            compiled["begin"] = [np.array(v) for v in (*model.variables, *model.optimizer.variables)]
        model = compiled["model"]
        for variable, value in zip((*model.variables, *model.optimizer.variables), compiled["begin"], strict=True):
            variable.assign(value)
        return model

    monkeypatch.setattr(network, "build", build)


def test_a_checkpoint_is_continued_by_the_config_that_it_was_written_with(tmp_path, compiled_once):
    def stopped(folder, **options):
        with pytest.raises(experiment.RunStoppedError):
            experiment.run(config, folder, stop=lambda: True, **options)

    def rewrite(name, **changes):
        content = json.loads((tmp_path / name).read_text())
        (tmp_path / name).write_text(json.dumps({**content, **changes}))

    config = resolve(dataclasses.replace(SMALL, method="erm", learning_rate=0.01))
    stopped(tmp_path)
    latest = (tmp_path / "checkpoint" / "latest.json").read_bytes()
    for changed in ({"seed": 1}, {"learning_rate": 0.02}):
        rewrite("config.json", **changed)
        (name,) = changed
        with pytest.raises(RunFolderError, match=f"{tmp_path}/checkpoint was saved .* another config: `{name}` was"):
            experiment.run(dataclasses.replace(config, **changed), tmp_path, resume=True)
        rewrite("config.json", **{name: getattr(config, name)})
    (tmp_path / "config.json").rename(tmp_path / "moved.json")
    for options in ({"resume": True}, {}):
        with pytest.raises(RunFolderError, match=r"no config\.json that says|already holds a run"):
            experiment.run(dataclasses.replace(config, seed=1), tmp_path, **options)
    assert not (tmp_path / "config.json").exists()
    (tmp_path / "moved.json").rename(tmp_path / "config.json")
    assert (tmp_path / "checkpoint" / "latest.json").read_bytes() == latest
    # A folder of before checkpoints knew their config.
    content = json.loads(latest)
    del content["config"]
    (tmp_path / "checkpoint" / "latest.json").write_text(json.dumps(content))
    assert experiment.run(config, tmp_path, resume=True)["epochs"] == 2


def test_a_program_reads_how_a_run_goes(tmp_path, compiled_once, capsys):
    options = ["--dataset", "digits", "--ratio", "20", "--depth", "8", "--epochs", "2", "--eval-every", "2"]
    command = [*options, "--method", "erm", "--learning-rate", "0.01", "--out", str(tmp_path), "--resume", "--json"]
    assert fit.main(command) == 0
    start, *epochs, end = map(json.loads, capsys.readouterr().out.splitlines())
    assert start.items() >= {"event": "start", "folder": str(tmp_path), "seed": 0, "epoch": 0, "epochs": 2}.items()
    rows = read_history(tmp_path)
    for said, row in zip(epochs, rows, strict=True):
        assert (said["event"], said["epoch"]) == ("epoch", row["epoch"] + 1)
        np.testing.assert_allclose([said["loss"], said["train_error"]], [row["loss"], 1 - row["accuracy"]])
    assert (epochs[0]["error"], epochs[1]["error"]) == (None, pytest.approx(1 - rows[1]["val_accuracy"]))
    assert end.items() >= {"event": "end", "error": read_json(tmp_path, "metrics.json")["error"]}.items()
    assert fit.main(command) == 0  # finished
    assert json.loads(capsys.readouterr().out) == end
    assert fit.main([*command[:-1], "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.skipif(BACKEND != "tensorflow", reason="only TensorFlow traces a step anew when it made variables")
@pytest.mark.parametrize("mixing", ["none", "mixup"])
def test_a_step_of_training_is_traced_once(mixing, tmp_path, monkeypatch):
    loss = tf_mmloss.CrossEntropyLoss
    call, traced = loss.call, []
    monkeypatch.setattr(loss, "call", lambda self, *args: traced.append(1) or call(self, *args))
    experiment.run(dataclasses.replace(SMALL, method="erm", epochs=1, mix=mixing), tmp_path)
    assert len(traced) == 2  # in training and in evaluation


def test_a_figure_that_cannot_be_drawn_is_named_and_drawn_by_a_resume(tmp_path, monkeypatch, compiled_once, capsys):
    config = dataclasses.replace(SMALL, method="erm", learning_rate=0.01)

    def broken(*_, **__):
        raise OSError("cannot open resource")  # a font, of Pillow

    monkeypatch.setattr(plots, "mistakes", broken)
    monkeypatch.setattr(plots, "per_class_error", broken)
    metrics = experiment.run(config, tmp_path)
    assert metrics == read_json(tmp_path, "metrics.json")
    drawn = {"class_distribution.png", "learning_curves.png", "examples.png"}
    names = {*drawn, "mistakes.png", "per_class_error.png"}
    assert {path.name for path in (tmp_path / "plots").glob("*.png")} == drawn
    printed = capsys.readouterr().out
    for name in ("mistakes", "per_class_error"):
        assert f"warning: plots/{name} of {tmp_path} cannot be drawn (OSError: cannot open resource)" in printed
    there = (tmp_path / "environment.json").read_bytes()
    monkeypatch.undo()
    assert experiment.run(config, tmp_path, resume=True) == metrics
    assert {path.name for path in (tmp_path / "plots").glob("*.png")} == names
    assert (tmp_path / "environment.json").read_bytes() == there  # nothing was trained again
    assert "warning" not in capsys.readouterr().out


def test_a_run_that_diverges_in_the_last_step_of_an_epoch_saves_nothing_of_it(tmp_path, compiled_once, capsys):
    options = ["--dataset", "digits", "--ratio", "20", "--depth", "8", "--learning-rate", "1e30", "--epochs", "3"]
    command = [*options, "--method", "erm", "--batch-size", "1000", "--out", str(tmp_path / "run")]
    said = []
    for resume in ([], ["--resume"]):
        assert fit.main([*command, *resume]) == 1
        said.append(capsys.readouterr().err)
        assert re.match(r"error: The .* in epoch \d", said[-1])
        assert not list((tmp_path / "run").glob("last.keras"))
        for path in (tmp_path / "run").rglob("*.npz"):
            with np.load(path) as state:
                assert all(np.isfinite(array).all() for array in state.values())
        for path in (tmp_path / "run").rglob("*.keras"):
            weights = keras.models.load_model(path, compile=False).get_weights()
            assert all(np.isfinite(array).all() for array in weights)
    assert said[0] == said[1]


@once
def test_killed_at_any_write_a_run_ends_with_the_same_files(tmp_path, monkeypatch, compiled_once):
    """The folder as a kill before each rename would leave it, and after it where something follows that is no write."""
    config = dataclasses.replace(SMALL, method="erm", learning_rate=0.01)

    whole = tmp_path / "whole"
    followed = ("latest.json", "per_class_error.png")
    with copied_at_renames(whole, tmp_path, monkeypatch, after=lambda name: name in followed) as killed:
        experiment.run(config, whole)
    expected = contents(whole)
    assert len(killed) >= 20
    for folder in killed:
        experiment.run(config, folder, resume=True)
        assert not list(folder.rglob("*partial*"))
        found = contents(folder)
        assert list(found) == list(expected)
        for name, content in expected.items():
            assert found[name] == content, (folder, name)


@pytest.mark.parametrize("change", [{}, {"imbalance": "step", "ratio": 10}, {"imbalance": "none"}, {"method": "erm"}])
def test_a_config_with_gaps_has_the_name_that_it_has_without(change):
    assert Config(**change).name == resolve(Config(**change)).name


def test_times_beyond_a_day():
    assert progress.clock(27 * 3600 + 62) == "27:01:02"


def test_another_backend_is_told(tmp_path, capsys):
    config = dataclasses.replace(SMALL, epochs=2)
    with pytest.raises(experiment.RunStoppedError):
        experiment.run(config, tmp_path, stop=lambda: True)
    path = tmp_path / "environment.json"
    path.write_text(path.read_text().replace(f'"backend": "{BACKEND}"', '"backend": "theano"'))
    experiment.run(config, tmp_path, resume=True)
    assert f"begun on theano, continued on {BACKEND}" in capsys.readouterr().out


class InterruptedWhenDeleted:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)  # what is raised here is lost, as in a callback of garbage collection


def test_an_interrupt_that_python_would_lose_stops_the_run(tmp_path):
    with interrupts(), pytest.raises(KeyboardInterrupt):
        experiment.run(SMALL, tmp_path, stop=lambda: InterruptedWhenDeleted() is None)
    assert epochs_saved(tmp_path) == 1


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_lower_precision_trains_and_is_seen_in_the_model(precision, tmp_path):
    experiment.run(dataclasses.replace(SMALL, method="mm", precision=precision), tmp_path / "run")
    model = keras.models.load_model(tmp_path / "run" / "last.keras")
    assert model.get_layer("stem_conv").compute_dtype == precision
    assert model.get_layer("head").compute_dtype == "float32"
    rows = read_history(tmp_path / "run")
    assert rows[-1]["loss"] < rows[0]["loss"]


def test_reweighting_starts_at_the_first_drop_of_the_rate(tmp_path):
    experiment.run(dataclasses.replace(SMALL, epochs=10), tmp_path / "run")
    rows = read_history(tmp_path / "run")
    assert [row["reweighting"] for row in rows] == [0] * 8 + [1, 1]
    assert [row["learning_rate"] for row in rows] == pytest.approx([0.1] * 8 + [1e-3, 1e-5])


def test_holdout_leaves_the_test_split_alone():
    data = load("digits")
    splits = inputs.split(data, resolve(dataclasses.replace(SMALL, holdout=12)))
    assert np.bincount(splits.eval_labels).tolist() == [12] * 10
    assert splits.cls_counts[0] == 112
    seen = {image.tobytes() for image in splits.train_images}
    assert not seen & {image.tobytes() for image in splits.eval_images}


def test_nan_loss_stops_naming_the_step_and_keeps_the_checkpoint(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    config = dataclasses.replace(SMALL, method="erm", epochs=4)
    real = tf_mmloss.WarmupStepSchedule.__call__
    monkeypatch.setattr(
        tf_mmloss.WarmupStepSchedule, "__call__", lambda self, e, r=None: 1e30 if e == 2 else real(self, e)
    )
    with pytest.raises(tf_mmloss.NonFiniteLossError, match=r"epoch 2, step \d"):
        experiment.run(config, folder)
    assert not (folder / "metrics.json").exists()
    assert run_folder.is_failed(folder)
    assert read_json(folder, "failed.json")["error"] == "NonFiniteLossError"
    monkeypatch.undo()
    metrics = experiment.run(config, folder, resume=True)
    assert not (folder / "failed.json").exists()
    assert metrics["checksum"] == experiment.run(config, tmp_path / "whole")["checksum"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dataset": "cifar"}, "cifar is not there. Did you mean cifar10?"),
        ({"method": "ldm"}, "`method` must be one of .* Did you mean 'ldam'"),
        ({"imbalance": "longtails"}, "Did you mean 'longtail'"),
        ({"weights": "inverted"}, "`weights` .* Did you mean 'inverse'"),
        ({"precision": "half"}, "`precision` must be one of"),
        ({"jit": "yes"}, "`jit` must be one of"),
        ({"ratio": 0.5}, "`ratio` must be a finite number >= 1"),
        ({"epochs": 0}, "`epochs` must be an integer >= 1"),
        ({"batch_size": 0}, "`batch_size` must be an integer >= 1"),
        ({"seed": -1}, "`seed` must be an integer >= 0"),
        ({"seed": 2**32}, "`seed` must be below"),
        ({"depth": 9}, "`depth` must be 6n[+]2"),
        ({"epochs": 10**9}, "`epochs` must be an integer >= 1 and <= 100000"),
        ({"depth": 6_000_002}, "`depth` must be an integer >= 0 and <= 2000"),
        ({"batch_size": 10**20}, "`batch_size` must be an integer >= 1 and <= 1048576"),
        ({"holdout": 10**10}, "`holdout` must be an integer >= 0 and <= 1048576"),
        ({"eval_every": 10**10}, "`eval_every` must be an integer >= 1 and <= 100000"),
        ({"ratio": 1e30}, "`ratio` must be a finite number >= 1 and <= 1e[+]06"),
        ({"ratio": 10**400}, "`ratio` must be a finite number"),
        ({"weight_decay": 1e30}, "`weight_decay` must be a finite number >= 0 and <= 1000"),
        ({"learning_rate": 1e300}, "`learning_rate` must be a finite number"),
        ({"learning_rate": "0.1"}, "`learning_rate` must be a finite number"),
        ({"subset_seed": 2**32}, "`subset_seed` must be below"),
        ({"epochs": 2.0}, "`epochs` must be an integer"),
        ({"seed": True}, "`seed` must be an integer"),
        ({"batch_size": "128"}, "`batch_size` must be an integer"),
        ({"depth": [8]}, "`depth` must be an integer"),
        ({"method": ["mm"]}, "`method` must be one of"),
        ({"dataset": {}}, "`dataset` must be a string"),
        ({"margin_space": ["logit"]}, "`margin_space` must be one of"),
        ({"start_epoch": 2}, "`start_epoch` must be one of the 2 epochs"),
        ({"start_epoch": 1.5}, "`start_epoch` must be an integer"),
        ({"start_epoch": 500}, "`start_epoch` must be one of the"),
        ({"method": "crt", "start_epoch": 0, "sam": 0.1}, "`start_epoch` must be an integer >= 1"),
        ({"method": "erm", "weights": "inverse"}, "`weights` is no option of method erm"),
        ({"learning_rate": 0.0}, "`learning_rate` must be"),
        ({"momentum": 1.0}, "`momentum` must be"),
        ({"momentum": 0.5, "optimizer": "adamw"}, "`momentum` is of the optimizer sgd"),
        ({"mix_alpha": 0.2}, "`mix_alpha` needs a `mix`"),
        ({"method": "ldam", "beta": 1.5}, "`beta` is no option of method ldam"),
        ({"pretraining": "rotations"}, "`pretraining` .* Did you mean 'rotation'"),
        ({"method": "rotation", "pretraining": "rotation"}, "`pretraining` is no option of method rotation"),
        ({"method": "hg-drs", "gamma": 1.0}, "`gamma` is no option of method hg-drs"),
        ({"method": "cb-rs", "start_epoch": 3}, "`start_epoch` is no option of method cb-rs"),
        ({"method": "mm", "start_epoch": 3}, "`start_epoch` is no option of method mm"),
    ],
)
def test_bad_config_is_refused_before_any_work(change, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        experiment.run(dataclasses.replace(SMALL, **change), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ratio": 200}, "`ratio` must leave an example in every class: at most 124"),
        ({"holdout": 200}, "`holdout` must leave training images of every class: at most 123"),
        ({"method": "mm-ldam", "class_margin": 0.9}, "`class_margin` must not exceed `delta_neg`"),
    ],
)
def test_what_only_the_data_shows_is_refused_before_the_folder_is_made(change, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        experiment.run(dataclasses.replace(SMALL, **change), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_constants_of_the_paper():
    assert resolve(Config(dataset="cifar10", ratio=100)).loss_arguments == {
        "scale": 10.0, "delta_neg": 0.6, "beta": 1.5, "margin_space": "logit"
    }  # fmt: skip
    resolved = resolve(Config(dataset="cifar100", imbalance="step", ratio=10, method="mm-ldam-drw"))
    assert (resolved.delta_neg, resolved.beta, resolved.class_margin) == (2.4, 1.1, 0.5)
    assert (resolve(Config(method="mm", ratio=10)).delta_neg, resolve(Config(method="mm")).delta_neg) == (0.7, 0.6)
    assert (resolved.epochs, resolved.start_epoch, resolved.depth) == (200, 160, 32)
    assert {recipe.epochs for name, recipe in RECIPES.items() if name.startswith("cifar")} == {200}


SEARCHES = {folder: (key[0], key[1]) for key, (_, folder) in SEARCHED_CONSTANTS.items()}
SEARCHES |= {method: (method, None) for method in ("m-drw", "hg-drs", "ldam-hg-drs")}


@pytest.mark.parametrize("folder", SEARCHES)
def test_searched_constants_are_the_best_of_their_search(folder):
    method, space = SEARCHES[folder]
    folders = [path.parent for path in (RESULTS / "tuning" / folder).glob("*/metrics.json")]
    best = read_config(min(folders, key=lambda folder: read_json(folder, "metrics.json")["error"]))
    assert (best.method, best.margin_space) == (method, space)
    preset = resolve(Config(best.dataset, best.imbalance, best.ratio, method, margin_space=space))
    assert preset.loss_arguments == best.loss_arguments


def test_constants_go_with_the_margin_space():
    def constants(**options):
        config = resolve(Config(**options))
        (origin,) = [line for line in show(config).splitlines() if line.startswith("delta_neg and beta: ")]
        return config.delta_neg, config.beta, origin.removeprefix("delta_neg and beta: ")

    searched = "searched on held-out images of this training set (results/tuning/{})"
    published = "published for MM-DRW on this training set (Tables 2 and 3)"
    assert constants(method="mm") == (0.6, 1.5, searched.format("mm-logit"))
    assert constants(method="mm", margin_space="cosine") == (1.2, 1.5, searched.format("mm"))
    assert constants(method="mm", margin_space="logit") == (0.6, 1.5, searched.format("mm-logit"))
    assert constants(method="mm-ldam-drw", margin_space="cosine") == (1.2, 1.5, searched.format("mm-ldam-drw"))
    unsearched = f"not searched for margin space logit; {published}"
    assert constants(method="mm-ldam-drw") == (0.6, 1.5, unsearched)
    assert constants(method="mm-drw") == (0.6, 1.5, published)
    assert constants(method="mm", margin_space="logit", ratio=10) == (0.7, 1.2, published)


@pytest.mark.parametrize(("epochs", "start"), [(1, 0), (2, 1), (3, 2), (10, 8), (200, 160)])
def test_the_default_start_of_rebalancing_is_an_epoch_of_the_run(epochs, start):
    for method in ("mm-drw", "hg-drs"):
        assert resolve(Config(method=method, epochs=epochs)).start_epoch == start


def test_a_run_that_never_began_to_rebalance_is_read_and_not_begun(tmp_path):
    never = {**resolve(SMALL).values(), "start_epoch": 2}
    (tmp_path / "config.json").write_text(json.dumps(never))
    assert read_config(tmp_path).start_epoch == 2
    with pytest.raises(ValueError, match="`start_epoch` must be one of the 2 epochs, from 0 to 1: later ones never"):
        experiment.run(Config(**never), tmp_path, resume=True)


@pytest.mark.parametrize("method", METHODS)
def test_methods_take_the_defaults_of_their_loss(method):
    loss, arguments = loss_class(METHODS[method].loss), METHODS[method].arguments
    defaults = {name: inspect.signature(loss).parameters[name].default for name in arguments}
    if method.startswith("mm-ldam"):
        defaults["class_margin"] = 0.5
    if method == "la-ldam":
        defaults["tau"] = 1.0
    if method == "cb-sigmoid-focal":
        defaults["gamma"] = 1.0
    assert arguments == defaults


def test_constants_of_vs_are_those_of_the_data_set():
    found = {}
    for dataset in ("cifar10", "cifar100"):
        config = resolve(Config(dataset=dataset, method="vs"))
        found[dataset] = (config.gamma, config.tau)
    assert found == {"cifar10": (0.15, 1.25), "cifar100": (0.05, 0.75)}
    assert resolve(Config(dataset="cifar100", method="vs", gamma=0.3)).loss_arguments["gamma"] == 0.3


@pytest.mark.parametrize("method", ["mm-drw", "cb-rs", "rotation"])
def test_device_input_trains_as_the_host_does(method, tmp_path):
    """The same images in the same order: equal but for the rounding of the augmentation's arithmetic."""
    config = dataclasses.replace(SMALL, method=method, epochs=5, learning_rate=0.01)
    ways = ["host", "device", *(["epoch"] if keras.backend.backend() == "jax" else [])]
    runs = {way: experiment.run(dataclasses.replace(config, input=way), tmp_path / way) for way in ways}
    rows = {way: read_history(tmp_path / way) for way in ways}
    for way in ways[1:]:
        for name in ("loss", "val_loss"):
            theirs = [row[name] for row in rows["host"]]
            assert [row[name] for row in rows[way]] == pytest.approx(theirs, rel=1e-2)
        for name in ("reweighting", "resampling", "learning_rate"):
            assert [row.get(name) for row in rows[way]] == [row.get(name) for row in rows["host"]]
        assert runs[way]["error"] == pytest.approx(runs["host"]["error"], abs=0.03)
    if "epoch" in ways:
        assert runs["epoch"]["error"] == pytest.approx(runs["device"]["error"], abs=0.005)


def test_device_input_resumes_bit_for_bit(tmp_path):
    config = dataclasses.replace(SMALL, input="device", epochs=3)
    whole = experiment.run(config, tmp_path / "whole")["checksum"]
    asked = iter([False, True])
    with pytest.raises(experiment.RunStoppedError):
        experiment.run(config, tmp_path / "stopped", stop=lambda: next(asked))
    assert experiment.run(config, tmp_path / "stopped", resume=True)["checksum"] == whole
    saved = keras.models.load_model(tmp_path / "stopped" / "last.keras")
    assert saved.input_shape == (None, 8, 8, 1)
    assert (tmp_path / "stopped" / "last.keras").stat().st_size < 2_000_000


def test_an_input_that_the_backend_lacks_is_refused(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"`input` must be one of .* Did you mean 'device'"):
        experiment.run(dataclasses.replace(SMALL, input="devices"), tmp_path / "run")
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    with pytest.raises(ValueError, match=r"`input` epoch needs the JAX backend\. Received: torch"):
        experiment.run(dataclasses.replace(SMALL, input="epoch"), tmp_path / "run")
    monkeypatch.setattr("tf_mmloss.train.inputs.has_tensorflow", lambda: False)
    with pytest.raises(ValueError, match="`input` host needs TensorFlow"):
        experiment.run(SMALL, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_epoch_that_is_one_program_is_compiled(tmp_path, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ValueError, match="`jit` must be auto or on with `input` epoch"):
        experiment.run(dataclasses.replace(SMALL, input="epoch", jit="off"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


STATEFUL = """
import keras
from keras import ops
from tf_mmloss import CrossEntropyLoss
from tf_mmloss.callbacks.base import RunCallback, attach_states
from tf_mmloss.losses.base import LossState
from tf_mmloss.methods import Method


class Epochs(LossState):
    def __init__(self):
        super().__init__(name="epochs", trainable=False)
        self.epochs = self.add_weight(shape=(), initializer="zeros", trainable=False, name="epochs")


class Attach(RunCallback):
    def set_model(self, model):
        super().set_model(model)
        attach_states(self, model, {"epochs": model.loss.state})

    def on_epoch_begin(self, epoch, logs=None):
        self.model.loss.state.epochs.assign_add(1.0)


@keras.saving.register_keras_serializable(package="mine")
class Stateful(CrossEntropyLoss):
    needs_features = True

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.state = Epochs()

    def callbacks(self):
        return [Attach()]

    def example_loss(self, labels, logits):
        return super().example_loss(labels, logits) * (1 + self.state.epochs)


def stateful():
    return Method("stateful", "stateful_loss:Stateful", "mine")
"""


@pytest.mark.skipif(BACKEND == "torch", reason="the same code, and runs are slow there")
def test_the_state_of_a_users_loss_survives_a_resume(tmp_path, monkeypatch, request):
    """A loss of features too, which is not the influence-balanced one."""
    (tmp_path / "stateful_loss.py").write_text(STATEFUL)
    monkeypatch.chdir(tmp_path)
    request.addfinalizer(lambda: METHODS.pop("stateful_loss:stateful", None))
    config = dataclasses.replace(SMALL, method="stateful_loss:stateful")
    whole = experiment.run(config, tmp_path / "whole")
    with pytest.raises(experiment.RunStoppedError):
        experiment.run(config, tmp_path / "stopped", stop=lambda: True)
    assert experiment.run(config, tmp_path / "stopped", resume=True)["checksum"] == whole["checksum"]
    losses = [row["loss"] for row in read_history(tmp_path / "whole")]
    assert losses[0] > 4  # twice the cross-entropy of ten classes


def test_a_users_configuration_of_keras_changes_no_run(tmp_path, monkeypatch):
    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(experiment, "_train", stopped)
    keras.config.set_floatx("float16")
    keras.config.set_dtype_policy("float16")
    keras.config.set_image_data_format("channels_first")
    with pytest.raises(KeyboardInterrupt):
        experiment.run(SMALL, tmp_path)
    assert (keras.config.floatx(), keras.config.image_data_format()) == ("float32", "channels_last")
    model = network.build(resolve(SMALL), inputs.split(load("digits"), resolve(SMALL)))
    assert {variable.dtype for variable in model.variables} == {"float32"}
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}


def test_a_class_without_test_images_is_left_out_of_the_means(tmp_path):
    data = load("digits")
    splits = inputs.split(data, resolve(SMALL))
    kept = np.flatnonzero(splits.eval_labels != 9)
    splits = dataclasses.replace(splits, eval_images=splits.eval_images[kept], eval_labels=splits.eval_labels[kept])
    logits = np.eye(10)[np.where(splits.eval_labels == 0, 1, splits.eval_labels)]  # every 0 is taken for a 1
    row = {"epoch": 0, "val_accuracy": 0.9, "seconds": 1.0, "images_per_second": 1.0}
    model = SimpleNamespace(loss=tf_mmloss.CrossEntropyLoss(), weights=[])
    decided = decide.decided("none", decide.Trained(1.0, splits.cls_counts), splits.eval_labels, logits)
    metrics = result.measure(resolve(SMALL), data, splits, decided, [row], model)
    assert metrics["per_class_error"] == [1.0, *[0.0] * 8, None]
    assert metrics["balanced_accuracy"] == pytest.approx(8 / 9)
    assert metrics["shot_accuracy"] == {"many": 0.0, "medium": 1.0, "few": 1.0}
    write_json(tmp_path / "metrics.json", metrics)
    assert read_json(tmp_path, "metrics.json") == metrics
    assert re.search(r"^9 +6  none evaluated$", result.summary(metrics), re.MULTILINE)


def test_of_many_classes_the_worst_are_printed():
    count = 300
    metrics = {
        "class_names": [f"class {c}" for c in range(count)],
        "cls_counts": [3] * count,
        "per_class_error": [None, *(c / count for c in range(1, count))],
        "shot_accuracy": {"few": 0.5},
        "evaluated_on": "test split",
        "error": 0.5,
        "balanced_accuracy": 0.5,
        "epochs": 1,
        "seconds": 1.0,
    }
    printed = result.summary(metrics)
    assert re.findall(r"^class (\d+)", printed, re.MULTILINE) == [str(c) for c in range(299, 259, -1)]
    assert "the 40 of 300 classes with the highest error" in printed


def test_the_commit_is_that_of_the_packages_own_checkout(tmp_path, monkeypatch):
    def git(*arguments):
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True)

    module = tmp_path / "lib" / "tf_mmloss" / "train" / "environment.py"
    module.parent.mkdir(parents=True)
    module.touch()
    monkeypatch.setattr(environment, "__file__", str(module))
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'theirs'\n")
    git("init", "-q")
    git("add", "pyproject.toml")
    git("commit", "-qm", "theirs")
    assert environment._commit() is None
    git("add", ".")
    git("commit", "-qm", "vendored")
    assert environment._commit() is None
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'tf-mmloss'\n")
    assert re.fullmatch("[0-9a-f]{12}-dirty", environment._commit())
    git("rm", "-q", "--cached", str(module))
    assert environment._commit() is None


def test_the_processor_of_a_run_is_its_accelerator_where_it_has_one(monkeypatch):
    name = environment._processor()
    monkeypatch.setattr("tf_mmloss.train.strategy.accelerators", lambda: 2 * [Accelerator("A GPU")])
    assert environment._processor() == f"A GPU, {name}"
