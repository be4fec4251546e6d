"""Stages that train a part of the network: what is trained and what is frozen, at which rate, resumed inside each."""

import errno
import json
import warnings

import keras
import numpy as np
import pytest
from helpers import to_numpy, use_backbone

from tf_mmloss import BatchNormalization, ClassScale, CosineSchedule, WarmupStepSchedule, losses, resnet
from tf_mmloss.methods import METHODS, Method, Stage
from tf_mmloss.runs import saved
from tf_mmloss.runs.folder import read_config, read_history
from tf_mmloss.train import experiment, inputs, network, stages
from tf_mmloss.train.config import Config
from tf_mmloss.train.inputs import has_tensorflow
from tf_mmloss.train.resolve import resolve
from tf_mmloss.train.show import show
from tf_mmloss.train.stages import mixed_epochs, phases, schedule

SMALL = Config(
    dataset="digits",
    ratio=20,
    depth=8,
    epochs=3,
    batch_size=128,
    learning_rate=0.1,
    seed=3,
    input="host" if has_tensorflow() else "device",
    jit="off",
)
PARTS = {"head": ("head",), "scales": ("scales",), "classifier": ("head", "scales")}


def stopped(config, folder, epochs):
    """Run a config up to an epoch; return the weights then."""
    asked = iter([*[False] * (epochs - 1), True])
    with pytest.raises(experiment.RunStoppedError):
        experiment.run(config, folder, resume=True, stop=lambda: next(asked))
    with np.load(next((folder / "checkpoint").glob("state-*.npz"))) as state:
        return {key: state[key] for key in state}


# Stopped after two of three epochs: where the second stage begins, and inside it.
@pytest.mark.parametrize(("method", "start"), [("crt", 2), ("mislas", 1)])
def test_a_run_resumes_bit_for_bit_before_and_inside_a_stage(method, start, tmp_path):
    config = resolve(Config(**{**SMALL.values(), "method": method, "start_epoch": start}))
    whole = experiment.run(config, tmp_path / "whole")
    stopped(config, tmp_path / "stopped", 2)
    assert experiment.run(config, tmp_path / "stopped", resume=True)["checksum"] == whole["checksum"]
    rows = read_history(tmp_path / "whole")
    assert [row["resampling"] for row in rows] == [float(epoch >= start) for epoch in range(3)]
    rates = {"crt": [0.1, 1e-5, 0.1], "mislas": [0.1, 0.05, 0.025]}[method]
    rates[:start] = [WarmupStepSchedule.published(start, 0.1)(epoch) for epoch in range(start)]
    assert [row["learning_rate"] for row in rows] == pytest.approx(rates)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of an optimizer that does not fit what is trained
        model = saved.load(tmp_path / "whole" / "last.keras")
    assert type(model.loss) is (losses.CrossEntropyLoss if method == "crt" else losses.LabelAwareSmoothingLoss)
    text = (tmp_path / "whole" / "index.html").read_text()
    part = {"crt": "the head alone", "mislas": "head and class factors alone"}[method]
    assert f"{part}, re-sampled from epoch {start + 1} on (shaded)" in text


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    return rng.normal(2, 3, (32, 4, 4, 2)).astype("float32"), rng.integers(0, 3, 32)


@pytest.mark.parametrize("batch_norm", ["inference", "training"])
@pytest.mark.parametrize("trains", ["head", "scales", "classifier"])
def test_what_is_frozen_stays(trains, batch_norm, batch, tmp_path):
    images = keras.Input((4, 4, 2))
    inner = keras.Sequential([keras.Input((4, 4, 2)), keras.layers.Conv2D(3, 3), BatchNormalization(name="inner_bn")])
    x = inner(keras.layers.BatchNormalization(name="outer_bn")(images))
    x = keras.layers.Dense(3, name="head")(keras.layers.GlobalAveragePooling2D()(x))
    model = keras.Model(images, ClassScale(name="scales")(x))
    network.freeze(model, trains, batch_norm)
    model.compile(keras.optimizers.SGD(0.1), losses.CrossEntropyLoss())
    model.save(tmp_path / "model.keras")
    before = {v.path: to_numpy(v) for v in model.variables}
    model.fit(*batch, batch_size=16, epochs=1, verbose=0)
    moved = {path for path, value in before.items() if not np.array_equal(value, to_numpy(variable_of(model, path)))}
    expected = {path for path in before if any(path.startswith(f"{name}/") for name in PARTS[trains])}
    if batch_norm == "training":
        expected |= {path for path in before if "moving" in path}
    assert {path for path in moved if "seed" not in path} == expected


def variable_of(model, path):
    return next(variable for variable in model.variables if variable.path == path)


def test_a_save_that_fails_leaves_frozen_batch_normalisations_in_training_mode(tmp_path, monkeypatch):
    model = resnet(8, 3, input_shape=(8, 8, 3))
    network.freeze(model, "head", "training")

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(model, "save", full)
    with pytest.raises(OSError, match="No space left"):
        network.save(model, tmp_path / "last.keras")
    norms = network.batch_norms(model)
    assert norms
    assert all(layer.trainable and not layer.trainable_variables for layer in norms)


def test_a_head_that_begins_anew_is_that_of_the_seed():
    config = resolve(Config(**{**SMALL.values(), "method": "crt"}))
    splits = inputs.split(inputs.load(config), config)
    heads = []
    for _ in range(2):
        model = network.build(config, splits)
        first = to_numpy(model.get_layer("head").kernel)
        model.get_layer("head").bias.assign(np.ones(10))
        experiment._next_phase(config, model, phases(config), 1, splits)
        heads.append(to_numpy(model.get_layer("head").kernel))
        assert not np.array_equal(first, heads[-1])
        assert not to_numpy(model.get_layer("head").bias).any()
        assert np.std(heads[-1]) == pytest.approx(np.sqrt(2 / 64), rel=0.2)
    np.testing.assert_array_equal(*heads)


def test_stages_of_the_methods():
    config = resolve(Config(method="crt", epochs=100))
    assert [(phase.start, phase.stop, phase.stage.trains) for phase in phases(config)] == [
        (0, 90, "all"),
        (90, 100, "head"),
    ]
    rate, first, own = schedule(config), WarmupStepSchedule.published(90), CosineSchedule(0.1, 10, 0)
    assert [rate(epoch) for epoch in range(100)] == [*map(first, range(90)), *map(own, range(10))]
    assert resolve(Config(method="crt", epochs=220, start_epoch=200)).start_epoch == 200
    gcl = resolve(Config(method="gcl-crt", epochs=230))
    assert phases(gcl)[1].start == 200
    assert schedule(gcl)(200) == pytest.approx(0.002)
    loss = stages.loss(gcl, [20, 10], phases(gcl)[1].stage)
    assert (loss.margin, loss.scale, loss.gamma, loss.noise) == (0.1, 20, 1, 0.5)
    assert [phase.stop for phase in phases(resolve(Config(method="mm-drw")))] == [200]
    with pytest.raises(ValueError, match="`epochs` must be at least 2 with method crt"):
        resolve(Config(method="crt", epochs=1))
    # As published: mixup in the first stage of MiSLAS alone, and in both of GCL.
    for method, epochs, last in (("mislas", 210, 200), ("gcl-crt", 230, 230), ("erm", 200, 200)):
        assert mixed_epochs(resolve(Config(method=method, epochs=epochs, mix="mixup"))) == last
    with pytest.raises(ValueError, match="`start_epoch` must be an integer >= 1"):
        resolve(Config(method="crt", start_epoch=0))


def test_options_of_the_loss_of_a_stage():
    """As published for each data set; what the losses share is passed on, what a stage has beside another is fixed."""

    def last(**given):
        config = resolve(Config(**given))
        assert resolve(config) == config
        phase = phases(config)[-1]
        return stages.loss(config, [20, 10], phase.stage), schedule(config)(phase.start), phase.stage.batch_norm

    loss, rate, batch_norm = last(method="mislas", epochs=210)
    assert (loss.head, loss.tail, loss.scale, rate, batch_norm) == (0.3, 0, 1, pytest.approx(0.05), "inference")
    loss, rate, batch_norm = last(method="mislas", dataset="cifar100", epochs=210)
    assert (loss.head, loss.tail, loss.shape, rate, batch_norm) == (
        0.4,
        0.1,
        "concave",
        pytest.approx(0.02),
        "training",
    )
    loss, *_ = last(method="mislas", dataset="cifar100", head=0.5, shape="linear", scale=2.0)
    assert (loss.head, loss.tail, loss.shape, loss.scale) == (0.5, 0.1, "linear", 2)
    assert stages.loss(resolve(Config(method="mislas", scale=2.0)), [20, 10]).scale == 2
    loss, *_ = last(method="gcl-crt", noise=0.1)
    assert (loss.noise, loss.margin, loss.scale, loss.gamma) == (0.1, 0.1, 20, 1)
    text = show(resolve(Config(method="mislas", head=0.5, scale=2.0)))
    assert text.startswith("mislas: CrossEntropyLoss(scale=2.0), dense head\n")
    assert "LabelAwareSmoothingLoss(scale=2.0, head=0.5, tail=0.0, shape=concave)" in text


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"method": "gcl-crt", "scale": 10.0},
            "`scale` is no option of method gcl-crt, which has a published value of",
        ),
        ({"method": "gcl-crt", "gamma": 1.0}, "`gamma` is no option of method gcl-crt"),
        ({"method": "crt", "head": 0.3}, "`head` is no option of method crt"),
        ({"mix": "cmo", "epochs": 7}, "`epochs` must be more than 7: cmo mixes no image in the first 4 and the last 3"),
        (
            {"method": "mislas", "mix": "cmo", "epochs": 8},
            "`epochs` must be more than 7 before the stage of method misl",
        ),
    ],
)
def test_an_option_without_an_effect_is_refused(given, said):
    with pytest.raises(ValueError, match=said):
        resolve(Config(**given))


def test_cmo_mixes_where_an_epoch_is_left():
    for given in ({"epochs": 8}, {"method": "mislas", "epochs": 9}):
        assert mixed_epochs(resolve(Config(mix="cmo", **given))) == 8
    assert resolve(Config(mix="cmo", epochs=7), made=True).epochs == 7  # an earlier version took it


def test_a_drop_of_the_rate_is_that_of_the_stages_schedule(monkeypatch):
    of_method = (
        Stage(),
        Stage("first-drop", weights="effective"),
        Stage(0.5, weights="effective", trains="head", rate=1.0),
    )
    monkeypatch.setitem(METHODS, "drw-crt", Method("drw-crt", "CrossEntropyLoss", "mine", stages=of_method))
    config = resolve(Config(method="drw-crt", epochs=200))
    assert [start for start, _ in stages.stages(config)] == [0, 80, 100]


def test_stages_that_would_not_follow_one_another_are_refused(pretrained, monkeypatch):
    def of(stages, **options):
        monkeypatch.setitem(METHODS, "mine", Method("mine", "CrossEntropyLoss", "mine", stages=stages))
        return resolve(Config(**{**pretrained.values(), "method": "mine", "epochs": 10, **options}))

    focal = Stage(0.5, loss="FocalLoss")
    three = (Stage(), focal, Stage(0.8, weights="effective"))
    assert [(phase.start, phase.stop) for phase in phases(of(three, start_epoch=5))] == [(0, 1), (1, 5), (5, 10)]
    with pytest.raises(
        ValueError, match=r"`start_epoch` must leave the stages of method mine in their order.* 0, 5, 4\."
    ):
        of(three, start_epoch=4)
    with pytest.raises(ValueError, match=r"in their order, and they begin at epochs 0, 8, 5\."):
        of((Stage(), Stage(0.8, weights="effective"), Stage(0.5, weights="effective", loss="FocalLoss")))
    assert of((Stage(), focal), frozen_epochs=4).frozen_epochs == 4
    with pytest.raises(ValueError, match="`frozen_epochs` must leave epochs for the whole network: at most 4"):
        of((Stage(), focal), frozen_epochs=5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Stage(trains="tail"), "`trains` must be one of"),
        (lambda: Stage(anew=True), "`anew` and `batch_norm` are of a stage with a frozen backbone"),
        (lambda: Stage(trains="head", batch_norm="frozen"), "`batch_norm` must be one of"),
        (lambda: Stage(0.5, trains="head", rate=0.0), "`rate` must be"),
        (lambda: Stage(of_dataset={"a": {"rate": 1.0}}), "`of_dataset` must map data sets to"),
        (lambda: Stage(0.5, rate=1.0, of_dataset={"a": {"trains": "head"}}), "`of_dataset` must map data sets to"),
        (lambda: Stage("first-drop", rate=1.0), "`starts` must be a fraction where a stage has a `rate`"),
        (lambda: Method("a", "b", "c", stages=(Stage(trains="head"),)), "`stages` must begin with one that trains all"),
        (
            lambda: Method("a", "b", "c", stages=(Stage(), Stage(0.4, trains="head"), Stage(0.5))),
            "`stages` must train all before a part",
        ),
    ],
)
def test_a_stage_that_cannot_be_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.fixture
def pretrained(monkeypatch):
    """A tiny network that comes with weights: those of a seed."""

    def build(spec, shape, weights):
        images = keras.Input(shape)
        kernel = keras.initializers.GlorotUniform(seed=5)
        x = BatchNormalization(name="bn")(keras.layers.Conv2D(4, 3, use_bias=False, kernel_initializer=kernel)(images))
        return keras.Model(images, keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(x)), name="tiny")

    use_backbone(build, monkeypatch)
    network = {"depth": None, "backbone": "tiny", "pretrained": "imagenet"}
    return Config(**{**SMALL.values(), **network, "method": "erm-drw", "learning_rate": None})


def test_the_head_of_pretrained_weights_is_trained_first(pretrained, tmp_path):
    whole = experiment.run(pretrained, tmp_path / "whole")
    config = read_config(tmp_path / "whole")
    assert (config.frozen_epochs, config.learning_rate) == (1, 0.003)
    rows = read_history(tmp_path / "whole")
    assert [row["learning_rate"] for row in rows] == pytest.approx([0.03, *map(schedule(config), (1, 2))])
    assert [row["reweighting"] for row in rows] == [0, 0, 1]
    states = [stopped(config, tmp_path / "stopped", 1), stopped(config, tmp_path / "stopped", 1)]
    assert experiment.run(config, tmp_path / "stopped", resume=True)["checksum"] == whole["checksum"]
    splits = inputs.split(inputs.load(config), config)
    begun = [to_numpy(v) for v in network.build(config, splits).get_layer("tiny").variables]
    assert len(begun) == 5
    for epoch, state in enumerate(states):
        alike = [np.array_equal(value, state[f"{position:05d}"]) for position, value in enumerate(begun)]
        assert alike == [epoch == 0] * 5
    assert "the head alone up to epoch 1 (shaded)" in (tmp_path / "whole" / "index.html").read_text()


def test_frozen_epochs_of_a_config(pretrained, tmp_path):
    def of(**options):
        return resolve(Config(**{**pretrained.values(), **options}))

    assert [of(epochs=epochs).frozen_epochs for epochs in (1, 2, 20, 200)] == [0, 1, 2, 20]
    assert [(phase.start, phase.stop) for phase in phases(of(epochs=20, method="crt"))] == [(0, 2), (2, 18), (18, 20)]
    off = of(frozen_epochs=0)
    assert len(phases(off)) == 1
    assert schedule(off)(0) == WarmupStepSchedule.published(3, 0.003)(0)
    assert resolve(SMALL).frozen_epochs is None
    assert resolve(Config(dataset="digits", ratio=20)).learning_rate == 0.03
    text = show(of(epochs=20))
    assert "from epoch 0: the head alone, at a learning rate of 0.03" in text
    assert "from epoch 2: the whole network, at a learning rate of 0.003" in text
    with pytest.raises(ValueError, match="`frozen_epochs` needs pretrained weights"):
        resolve(Config(frozen_epochs=3))
    with pytest.raises(ValueError, match="`frozen_epochs` must leave epochs for the whole network: at most 2"):
        of(frozen_epochs=3)
    # A run of an earlier version had none, and has none when it goes on.
    old = {name: value for name, value in of().values().items() if name != "frozen_epochs"}
    (tmp_path / "config.json").write_text(json.dumps(old))
    assert read_config(tmp_path).frozen_epochs == 0
    assert resolve(read_config(tmp_path)).frozen_epochs == 0
