"""The callbacks, mostly in running fits, whose losses are compared with the oracle's weighted mean."""

import contextlib
import copy
import json
import os
import pickle
import random
import re
import signal
import warnings
import zipfile

import keras
import numpy as np
import oracles
import pytest
from helpers import BACKEND, in_new_process, interrupts, needs_jit, to_numpy

import tf_mmloss
from tf_mmloss import (
    SGD,
    Checkpoint,
    CrossEntropyLoss,
    DeferredInfluence,
    DeferredResampling,
    DeferredReweighting,
    MaxMarginLoss,
    SeesawCounts,
    SeesawLoss,
    StopOnNonFinite,
)
from tf_mmloss.callbacks import NonFiniteLossError
from tf_mmloss.callbacks.deferred_reweighting import _weigh_by_class
from tf_mmloss.device_input import EpochRows
from tf_mmloss.files import interrupts_deferred

COUNTS = [60, 25, 8, 2]
BATCH = 6
LABELLED = np.array([0, 1, 2, 3, 0, 1] * 4)
START = 2
WEIGHTS = {
    "effective": oracles.effective_number_weights(COUNTS),
    "inverse": oracles.inverse_frequency_weights(COUNTS),
}


def data(seed=0):
    """24 examples, all classes in every batch of 6."""
    x = np.random.default_rng(seed).normal(size=(24, 5)).astype("float32")
    return x, LABELLED


def functional():
    inputs = keras.Input((5,))
    return keras.Model(inputs, keras.layers.Dense(len(COUNTS), name="head")(inputs))


def compiled(model=None, loss=None, rate=0.0, **arguments):
    """A model that a fit at rate 0 leaves as it is, so that its losses can be told in advance."""
    model = model or functional()
    model.compile(SGD(rate), loss or MaxMarginLoss(COUNTS), **arguments)
    return model


def fit(model, epochs=4, callbacks=None, **arguments):
    x, y = data()
    if callbacks is None:
        callbacks = [DeferredReweighting(START, COUNTS)]
    return model.fit(
        x, y, batch_size=BATCH, epochs=epochs, shuffle=False, verbose=0, callbacks=callbacks, **arguments
    ).history


def oracle_loss(model, weights=None, seed=0):
    """Mean over batches of the weighted mean over a batch, as `fit` logs it."""
    x, y = data(seed)
    losses = oracles.max_margin(y, to_numpy(model(x)), COUNTS)
    weights = np.ones(len(COUNTS)) if weights is None else weights
    means = [oracles.weighted_mean(losses[i : i + BATCH], weights[y[i : i + BATCH]]) for i in range(0, len(y), BATCH)]
    return np.mean(means)


def stages(model, epochs=4, start=START, scheme="effective"):
    return [oracle_loss(model, WEIGHTS[scheme] if epoch >= start else None) for epoch in range(epochs)]


def assert_losses(history, expected):
    np.testing.assert_allclose(history["loss"], expected, rtol=1e-5)


def class_weights(model):
    return to_numpy(model.loss.class_weights.weight)


class CountingLoss(MaxMarginLoss):
    """Counts how often Python runs it: once for each trace, or for each step where nothing is traced."""

    calls = 0

    def call(self, y_true, y_pred):
        type(self).calls += 1
        return super().call(y_true, y_pred)


def test_weighting_changes_the_loss_enough_to_be_seen():
    model = compiled()
    plain, *weighted = oracle_loss(model), *(oracle_loss(model, w) for w in WEIGHTS.values())
    assert all(abs(value / plain - 1) > 0.01 for value in weighted)


@pytest.mark.parametrize("scheme", sorted(WEIGHTS))
def test_each_stage_has_its_loss(scheme):
    model = compiled()
    history = fit(model, callbacks=[DeferredReweighting(START, COUNTS, scheme)])
    assert_losses(history, stages(model, scheme=scheme))
    assert history["reweighting"] == [0, 0, 1, 1]
    np.testing.assert_array_equal(class_weights(model), np.ones(len(COUNTS)))


@needs_jit
@pytest.mark.parametrize("jit_compile", [True, False])
def test_weights_change_without_a_new_trace(jit_compile):
    CountingLoss.calls = 0
    calls = []
    model = compiled(loss=CountingLoss(COUNTS), jit_compile=jit_compile)
    count = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: calls.append(CountingLoss.calls))
    history = fit(model, callbacks=[DeferredReweighting(START, COUNTS), count])
    assert_losses(history, stages(model))
    assert calls[0] > 0
    if BACKEND == "tensorflow" or jit_compile:
        assert calls == calls[:1] * 4


@pytest.mark.skipif(BACKEND == "torch", reason="Keras refuses steps_per_execution on PyTorch")
def test_steps_per_execution():
    model = compiled(steps_per_execution=4)
    assert_losses(fit(model), stages(model))


def test_right_after_a_resume():
    model = compiled()
    history = fit(model, epochs=5, initial_epoch=3)
    assert_losses(history, stages(model, epochs=5)[3:])
    assert history["reweighting"] == [1, 1]


def test_from_the_first_epoch():
    model = compiled()
    history = fit(model, epochs=2, callbacks=[DeferredReweighting(0, COUNTS)])
    assert_losses(history, stages(model, epochs=2, start=0))


def test_after_a_fit_without_it():
    model = compiled()
    assert_losses(fit(model, epochs=1, callbacks=[]), [oracle_loss(model)])
    assert_losses(fit(model), stages(model))


def test_fits_without_and_with_it_again():
    """The weights that one fit leaves must not show in the next."""
    model = compiled()
    fit(model)
    assert_losses(fit(model, epochs=2, callbacks=[]), [oracle_loss(model)] * 2)
    assert_losses(fit(model, callbacks=[DeferredReweighting(1, COUNTS, "inverse")]), stages(model, 4, 1, "inverse"))


def test_with_sample_weight():
    model, (x, y) = compiled(), data()
    sample_weight = np.random.default_rng(1).uniform(0.5, 2, len(y)).astype("float32")
    callback = DeferredReweighting(1, COUNTS)
    history = model.fit(x, y, sample_weight=sample_weight, batch_size=24, epochs=2, verbose=0, callbacks=[callback])
    losses = oracles.max_margin(y, to_numpy(model(x)), COUNTS)
    expected = [oracles.weighted_mean(losses, sample_weight * w) for w in (np.ones(24), WEIGHTS["effective"][y])]
    assert_losses(history.history, expected)


def test_val_loss_stays_unweighted():
    model = compiled()
    history = fit(model, validation_data=data(seed=1), validation_batch_size=BATCH)
    assert_losses(history, stages(model))
    np.testing.assert_allclose(history["val_loss"], [oracle_loss(model, seed=1)] * 4, rtol=1e-5)


def test_evaluate_after_fit_is_unweighted():
    model = compiled()
    fit(model)
    x, y = data()
    assert model.evaluate(x, y, batch_size=BATCH, verbose=0) == pytest.approx(oracle_loss(model), rel=1e-5)


def test_weights_act_on_the_gradient():
    """One step at rate 1 equals the step of a model that is given the weights as sample weights."""
    kernels, (x, y) = [], data()
    for reweighted in (True, False):
        keras.utils.set_random_seed(0)
        model = compiled(rate=1.0)
        if reweighted:
            model.fit(x, y, batch_size=24, verbose=0, callbacks=[DeferredReweighting(0, COUNTS)])
        else:
            model.fit(x, y, sample_weight=WEIGHTS["effective"][y].astype("float32"), batch_size=24, verbose=0)
        kernels.append(to_numpy(model.trainable_variables[0]))
    np.testing.assert_allclose(kernels[0], kernels[1], rtol=1e-5, atol=1e-6)


def test_every_loss_of_a_model_is_weighted():
    inputs = keras.Input((5,))
    outputs = {name: keras.layers.Dense(len(COUNTS), name=name)(inputs) for name in ("a", "b")}
    model, (x, y) = keras.Model(inputs, outputs), data()
    model.compile(SGD(0.0), {name: MaxMarginLoss(COUNTS) for name in outputs})
    callback = DeferredReweighting(1, COUNTS)
    history = model.fit(x, {"a": y, "b": y}, batch_size=24, epochs=2, verbose=0, callbacks=[callback]).history
    rows = [oracles.max_margin(y, to_numpy(u), COUNTS) for u in model(x).values()]
    weights = [np.ones(24), WEIGHTS["effective"][y]]
    assert_losses(history, [sum(oracles.weighted_mean(r, w) for r in rows) for w in weights])


def test_a_model_saved_in_mid_training(tmp_path):
    """It loads in a new process, un-weighted, and goes on re-weighted."""
    model = compiled()
    save = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras")
    fit(model, callbacks=[DeferredReweighting(START, COUNTS), save])
    x, y = data()
    np.savez(tmp_path / "data.npz", x=x, y=y)
    code = f"""
import json, sys
import keras, numpy as np, tf_mmloss
folder = sys.argv[1]
data = dict(np.load(folder + "/data.npz"))
model = keras.models.load_model(folder + "/4.keras")
before = float(model.evaluate(**data, batch_size={BATCH}, verbose=0))
drw = tf_mmloss.DeferredReweighting({START}, {COUNTS})
fit = model.fit(**data, batch_size={BATCH}, shuffle=False, epochs=5, initial_epoch=4, verbose=0, callbacks=[drw])
print(json.dumps([before, fit.history["loss"][0]]))
"""
    expected = [oracle_loss(model), oracle_loss(model, WEIGHTS["effective"])]
    np.testing.assert_allclose(in_new_process(code, tmp_path), expected, rtol=1e-5)


@pytest.mark.parametrize("reweighted_first", [True, False])
def test_weight_files_go_between_fits_with_and_without_it(tmp_path, reweighted_first):
    plain, reweighted = compiled(), compiled()
    fit(reweighted)
    fit(plain, callbacks=[])
    source, target = (reweighted, plain) if reweighted_first else (plain, reweighted)
    source.save_weights(tmp_path / "model.weights.h5")
    target.load_weights(tmp_path / "model.weights.h5")
    for saved, loaded in zip(source.trainable_variables, target.trainable_variables, strict=True):
        np.testing.assert_array_equal(to_numpy(saved), to_numpy(loaded))


def test_sequential():
    model = compiled(keras.Sequential([keras.Input((5,)), keras.layers.Dense(len(COUNTS))]))
    if BACKEND == "jax":
        with pytest.raises(TypeError, match="Sequential"):
            fit(model)
    else:
        assert_losses(fit(model), stages(model))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.head = keras.layers.Dense(len(COUNTS))

    def call(self, x):
        return self.head(x)


class OwnStepOnJAX(keras.Model):
    """The train step of Keras' guide, with the loss inside or outside of the scope of the model's state."""

    scoped = True

    def step_loss(self, trainable, others, x, y):
        y_pred, others = self.stateless_call(trainable, others, x, training=True)
        pairs = zip([*self.trainable_variables, *self.non_trainable_variables], [*trainable, *others], strict=True)
        with keras.StatelessScope(list(pairs)) if self.scoped else contextlib.nullcontext():
            return self.compute_loss(x, y, y_pred), others

    def train_step(self, state, batch):
        import jax

        trainable, others, optimizer, metrics = state
        differentiate = jax.value_and_grad(self.step_loss, has_aux=True)
        (loss, others), gradients = differentiate(trainable, others, *batch)
        trainable, optimizer = self.optimizer.stateless_apply(optimizer, gradients, trainable)
        return {"own_loss": loss}, (trainable, others, optimizer, metrics)


@pytest.mark.skipif(BACKEND != "jax", reason="elsewhere a train step reads the variables themselves")
@pytest.mark.parametrize("scoped", [True, False])
def test_a_train_step_of_ones_own_on_jax(scoped):
    plain = functional()
    model = compiled(OwnStepOnJAX(plain.input, plain.output))
    model.scoped, (x, y) = scoped, data()
    callbacks = [DeferredReweighting(1, COUNTS)]
    if not scoped:
        with pytest.raises(RuntimeError, match=r"within a `keras\.StatelessScope`"):
            model.fit(x, y, epochs=2, verbose=0, callbacks=callbacks)
        return
    history = model.fit(x, y, batch_size=24, epochs=2, verbose=0, callbacks=callbacks).history
    losses = oracles.max_margin(y, to_numpy(model(x)), COUNTS)
    expected = [oracles.weighted_mean(losses, w) for w in (np.ones(24), WEIGHTS["effective"][y])]
    np.testing.assert_allclose(history["own_loss"], expected, rtol=1e-5)


@pytest.mark.parametrize("built", [False, True])
def test_subclassed(built):
    """Keras locks it once it is built; twice, with a loss of its own each time."""
    model = compiled(Subclassed())
    if built:
        model(data()[0])
    assert_losses(fit(model), stages(model))
    state_size = len(model.variables)
    assert_losses(fit(compiled(model), callbacks=[DeferredReweighting(1, COUNTS)]), stages(model, start=1))
    assert len(model.variables) == state_size


def test_the_weights_of_the_model_stay_what_they_are():
    """`get_weights` and what Keras' callbacks do with it."""
    model, shapes = compiled(), [w.shape for w in functional().get_weights()]
    stopping = keras.callbacks.EarlyStopping("val_loss", patience=9, restore_best_weights=True)
    fit(model, callbacks=[DeferredReweighting(START, COUNTS), stopping], validation_data=data(seed=1))
    np.testing.assert_array_equal(class_weights(model), np.ones(len(COUNTS)))
    assert [w.shape for w in model.get_weights()] == shapes
    keras.models.clone_model(model).set_weights(model.get_weights())


def test_other_callbacks_evaluate_unweighted():
    model, found = compiled(), []
    x, y = data(seed=1)
    evaluate = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: found.append(model.evaluate(x, y, batch_size=BATCH, verbose=0))
    )
    history = fit(model, callbacks=[DeferredReweighting(START, COUNTS), evaluate])
    assert_losses(history, stages(model))
    np.testing.assert_allclose(found, [oracle_loss(model, seed=1)] * 4, rtol=1e-5)


def test_models_that_share_a_loss():
    """The second was traced before the first gave the loss its weights."""
    loss = MaxMarginLoss(COUNTS)
    first, second = compiled(loss=loss), compiled(loss=loss)
    fit(second, epochs=1, callbacks=[])
    for model in (first, second):
        assert_losses(fit(model), stages(model))


@pytest.mark.parametrize("loss", ["sparse_categorical_crossentropy", keras.losses.SparseCategoricalCrossentropy()])
def test_foreign_losses_are_refused(loss):
    with pytest.raises(TypeError, match="tf_mmloss"):
        fit(compiled(loss=loss))


def test_losses_of_several_classes_an_example_are_refused():
    model = compiled(loss=tf_mmloss.AsymmetricLoss())
    x, y = data()
    with pytest.raises(TypeError, match=r"LongTailLoss of tf_mmloss.* as AsymmetricLoss, have none"):
        model.fit(x, np.eye(len(COUNTS))[y], callbacks=[DeferredReweighting(START, COUNTS)], verbose=0)


@pytest.mark.parametrize("counts", [COUNTS[:3], [*COUNTS, 2]], ids=["fewer", "more"])
@pytest.mark.parametrize("loss", [MaxMarginLoss, CrossEntropyLoss])
def test_counts_of_another_number_are_refused(loss, counts):
    model = compiled(loss=loss(COUNTS) if loss is MaxMarginLoss else loss())
    with pytest.raises(ValueError, match="cls_counts"):
        fit(model, callbacks=[DeferredReweighting(0, counts)])


@pytest.mark.parametrize("callback", [DeferredReweighting, DeferredResampling])
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("start_epoch", {"start_epoch": -1}),
        ("start_epoch", {"start_epoch": 1.5}),
        ("cls_counts", {"cls_counts": [3, 0]}),
        ("scheme", {"scheme": "efective"}),
        ("beta", {"beta": 1.0}),
        ("beta", {"beta": -0.1}),
    ],
)
def test_bad_arguments_are_refused(callback, name, arguments):
    with pytest.raises(ValueError, match=name):
        callback(**{"start_epoch": 1, "cls_counts": COUNTS, **arguments})


def test_callbacks_can_be_copied():
    """As Keras Tuner does for every trial."""
    model = compiled()
    assert_losses(fit(model, callbacks=copy.deepcopy([DeferredReweighting(START, COUNTS)])), stages(model))


def two_outputs(losses, widths=(4, 4)):
    inputs = keras.Input((5,))
    outputs = {name: keras.layers.Dense(n, name=name)(inputs) for name, n in zip("ab", widths, strict=True)}
    model = keras.Model(inputs, outputs)
    model.compile(SGD(0.0), losses)
    return model


def reweighted_fit(model, labels, callbacks, epochs=2, **arguments):
    return model.fit(
        data()[0], labels, batch_size=24, epochs=epochs, shuffle=False, verbose=0, callbacks=callbacks, **arguments
    ).history


def test_a_callback_for_each_output():
    """Losses with counts, left out of the callbacks; each output has its own weights from an epoch of its own."""
    counts = {"a": COUNTS, "b": COUNTS[::-1]}
    model = two_outputs({name: MaxMarginLoss(c) for name, c in counts.items()})
    x, y = data()
    labels = {"a": y, "b": 3 - y}
    callbacks = [DeferredReweighting(1, output="a"), DeferredReweighting(2, counts["b"], "inverse", output="b")]
    history = reweighted_fit(model, labels, callbacks, epochs=3)
    weights = {"a": oracles.effective_number_weights(COUNTS), "b": oracles.inverse_frequency_weights(COUNTS[::-1])}
    for name, logits in model(x).items():
        losses = oracles.max_margin(labels[name], to_numpy(logits), counts[name])
        plain, weighted = (oracles.weighted_mean(losses, w[labels[name]]) for w in (np.ones(4), weights[name]))
        begun = [0, 1, 1] if name == "a" else [0, 0, 1]
        np.testing.assert_allclose(history[f"{name}_loss"], [(plain, weighted)[i] for i in begun], rtol=1e-5)
        assert history[f"{name}_reweighting"] == begun


def test_outputs_of_six_and_two_classes():
    model = two_outputs({"a": CrossEntropyLoss(), "b": CrossEntropyLoss()}, (6, 2))
    x, y = data()
    labels = {"a": np.arange(24) % 6, "b": np.arange(24) % 2}
    counts = {"a": [60, 50, 40, 30, 20, 10], "b": [90, 10]}
    callbacks = [DeferredReweighting(1, c, output=name) for name, c in counts.items()]
    history = reweighted_fit(model, labels, callbacks)
    for name, logits in model(x).items():
        logits, y = to_numpy(logits).astype(float), labels[name]
        losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(24), y]
        weights = oracles.effective_number_weights(counts[name])
        expected = [losses.mean(), oracles.weighted_mean(losses, weights[y])]
        np.testing.assert_allclose(history[f"{name}_loss"], expected, rtol=1e-5)


def aim(model, *callbacks):
    """What happens when `fit` starts."""
    for callback in callbacks:
        callback.set_model(model)
        callback.set_params({"epochs": 9, "steps": 1})
    for callback in callbacks:
        callback.on_train_begin()


AB = {"a": COUNTS, "b": COUNTS[::-1]}


@pytest.mark.parametrize(
    ("losses", "callbacks", "message"),
    [
        (
            AB,
            [DeferredReweighting(0)],
            r"`output` must name the output .* Write DeferredReweighting\(\.\.\., output='a'",
        ),
        (AB, [DeferredReweighting(0, COUNTS)], r"Write DeferredReweighting\(\.\.\., output='a'\)"),
        ({"a": COUNTS, "b": None}, [DeferredReweighting(0, COUNTS)], r"output='b' for CrossEntropyLoss without counts"),
        ({"a": None, "b": None}, [DeferredReweighting(0, COUNTS)], r"Write DeferredReweighting\(\.\.\., output='a'\)"),
        (
            AB,
            [DeferredReweighting(0, output="c")],
            r"`output` must be one of the outputs .*: 'a', 'b'\. Received: .*'c'",
        ),
        (
            AB,
            [DeferredReweighting(0, COUNTS, output="b")],
            r"those of the loss, \[2, 8, 25, 60\].* Received: cls_counts=",
        ),
        ({"a": None, "b": COUNTS}, [DeferredReweighting(0, output="a")], "`cls_counts` must be given, as CrossEntropy"),
        (AB, [DeferredReweighting(0, output="a"), DeferredReweighting(1, output="a")], "Two DeferredReweighting"),
    ],
)
def test_what_does_not_fit_an_output_is_refused(losses, callbacks, message):
    losses = {name: CrossEntropyLoss() if c is None else MaxMarginLoss(c) for name, c in losses.items()}
    with pytest.raises(ValueError, match=message):
        aim(two_outputs(losses), *copy.deepcopy(callbacks))


def test_two_callbacks_without_an_aim_are_refused():
    with pytest.raises(ValueError, match="Two DeferredReweighting re-weight one loss"):
        aim(compiled(), DeferredReweighting(0), DeferredReweighting(1))


def test_a_loss_object_of_two_outputs_cannot_be_aimed_at():
    loss = MaxMarginLoss(COUNTS)
    aim(two_outputs({"a": loss, "b": loss}), DeferredReweighting(0))
    for losses in ({"a": loss, "b": loss}, loss):
        with pytest.raises(ValueError, match="`output` 'a' has one loss object with 'b'"):
            aim(two_outputs(losses), DeferredReweighting(0, output="a"))


@pytest.mark.parametrize("output", [0, b"a", MaxMarginLoss(COUNTS)], ids=["number", "bytes", "loss"])
def test_an_output_is_a_name(output):
    with pytest.raises(ValueError, match="`output` must be"):
        DeferredReweighting(0, COUNTS, output=output)


def test_counts_in_another_order_are_refused():
    with pytest.raises(
        ValueError, match=r"`cls_counts` must .* \[60, 25, 8, 2\].* Received: cls_counts=\[2, 8, 25, 60\]"
    ):
        aim(compiled(), DeferredReweighting(0, COUNTS[::-1]))


def test_counts_are_those_of_the_loss_if_left_out():
    model = compiled()
    callback = DeferredReweighting(START)
    aim(model, callback)
    callback.on_epoch_begin(START)
    np.testing.assert_allclose(class_weights(model), WEIGHTS["effective"], rtol=1e-6)


@contextlib.contextmanager
def no_warning():
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*Deferred")
        yield


def resampling():
    """One that knows of data."""
    callback = DeferredResampling(START, COUNTS)
    callback.made_data(0, 1)
    return callback


@pytest.mark.parametrize("make", [lambda: DeferredReweighting(START), resampling])
def test_what_never_begins_is_said_when_fit_starts(make):
    callback, model = make(), compiled()
    callback.set_model(model)
    callback.set_params({"epochs": START, "steps": 1})
    with pytest.warns(UserWarning, match=rf"\(start_epoch={START}\) never begins: `fit` has epochs={START}"):
        callback.on_train_begin()
    callback.on_epoch_begin(0)
    with no_warning():
        callback.on_train_end()  # once is enough


@pytest.mark.parametrize("make", [lambda: DeferredReweighting(START), resampling])
def test_what_never_began_is_said_when_fit_ends(make):
    callback = make()
    aim(compiled(), callback)
    callback.on_epoch_begin(0)
    with pytest.warns(UserWarning, match=rf"\(start_epoch={START}\) never began: `fit` ended after epoch 0"):
        callback.on_train_end()


def test_early_stopping_before_it_begins():
    stopping = keras.callbacks.EarlyStopping("loss", patience=0)
    with pytest.warns(UserWarning, match="DeferredReweighting.* never began: `fit` ended after epoch 1"):
        reweighted_fit(compiled(), data()[1], [DeferredReweighting(3), stopping], epochs=5)


def test_class_weight_as_well_is_said():
    with pytest.warns(UserWarning, match="`class_weight` of `fit` weighs by class, and DeferredReweighting"):
        reweighted_fit(compiled(), data()[1], [DeferredReweighting(0)], 1, class_weight={0: 0.1, 1: 1, 2: 2, 3: 9})


@pytest.mark.parametrize("form", ["labels", "column", "one-hot"])
def test_sample_weight_by_class_as_well_is_said(form):
    y = data()[1]
    labels = {"labels": y, "column": y[:, None], "one-hot": np.eye(4)[y]}[form]
    with pytest.warns(UserWarning, match="`sample_weight` of `fit` weighs by class, and DeferredReweighting"):
        reweighted_fit(compiled(), labels, [DeferredReweighting(0)], 1, sample_weight=WEIGHTS["effective"][y])


@pytest.mark.parametrize("weights", [np.ones(24), np.linspace(1, 2, 24)], ids=["ones", "by-example"])
def test_other_sample_weights_are_not_spoken_of(weights):
    with no_warning():
        reweighted_fit(compiled(), data()[1], [DeferredReweighting(0)], 1, sample_weight=weights)


@pytest.mark.parametrize("kind", ["dataset", "sequence"])
@pytest.mark.parametrize("by_class", [True, False])
def test_weights_by_class_in_a_data_set_are_said(kind, by_class):
    x, y = data()
    weights = (WEIGHTS["effective"][y] if by_class else np.random.default_rng(0).uniform(1, 2, len(y))).astype(
        "float32"
    )
    if kind == "dataset":
        batches = pytest.importorskip("tensorflow").data.Dataset.from_tensor_slices((x, y, weights)).batch(24)
    else:

        class Batches(keras.utils.PyDataset):
            def __len__(self):
                return 1

            def __getitem__(self, index):
                return x, y, weights

        batches = Batches()
    model = compiled()
    said = (
        pytest.warns(UserWarning, match="The data set's `sample_weight` of `fit` weighs by class")
        if by_class
        else contextlib.nullcontext()
    )
    with said:
        model.fit(batches, epochs=1, shuffle=False, verbose=0, callbacks=[DeferredReweighting(0)])


@pytest.mark.skipif(BACKEND != "tensorflow", reason="the sets of tf.distribute")
def test_a_distributed_data_set_with_weights():
    """It cannot be looked into, and is trained with."""
    import tensorflow as tf

    x, y = data()
    batches = tf.data.Dataset.from_tensor_slices((x, y, np.ones(24, "float32"))).batch(24)
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        model = compiled()
    callbacks = [DeferredReweighting(1, COUNTS)]
    batches = strategy.experimental_distribute_dataset(batches)
    history = model.fit(batches, epochs=2, shuffle=False, verbose=0, callbacks=callbacks)
    assert history.history["reweighting"] == [0, 1]


def test_weights_by_class_of_the_labels_of_positions():
    labels = np.random.default_rng(0).integers(0, 2, (6, 2))
    of_class = np.array([0.5, 1.5])
    assert _weigh_by_class(labels, of_class[labels])
    assert _weigh_by_class(labels[..., None], of_class[labels])
    assert _weigh_by_class(np.eye(2)[labels], of_class[labels])
    assert not _weigh_by_class(labels, np.arange(12).reshape(6, 2))
    assert not _weigh_by_class(labels, np.arange(6))  # of examples
    assert not _weigh_by_class(labels, of_class[labels][:, :1].repeat(3, axis=1))


def test_sample_weight_of_one_output():
    model, y = two_outputs({"a": MaxMarginLoss(COUNTS), "b": MaxMarginLoss(COUNTS)}), data()[1]
    arguments = {"sample_weight": {"a": WEIGHTS["effective"][y], "b": np.ones(24)}}
    with no_warning():
        reweighted_fit(model, {"a": y, "b": y}, [DeferredReweighting(0, output="b")], 1, **arguments)
    with pytest.warns(UserWarning, match="`sample_weight`"):
        reweighted_fit(model, {"a": y, "b": y}, [DeferredReweighting(0, output="a")], 1, **arguments)


class LegacyModel:
    """What `tf_keras.Model` has in common with Keras 3's, as far as the callback looks."""

    loss = MaxMarginLoss(COUNTS)
    variables = ()
    train_function = None


def test_a_legacy_model_is_refused():
    with pytest.raises(TypeError, match=r"needs a model of Keras 3, a `keras\.Model`\. Received: .*LegacyModel"):
        DeferredReweighting(0, COUNTS).set_model(LegacyModel())


def pickled(callback):
    return pickle.loads(pickle.dumps(callback))


@pytest.mark.parametrize("copied", [copy.deepcopy, pickled])
def test_copies_are_as_before_the_fit(tmp_path, copied):
    """Of every public callback, used and unused."""
    rows = EpochRows(LABELLED, num_classes=len(COUNTS), batch_size=24, resampling=DeferredResampling(0, COUNTS))
    callbacks = [DeferredReweighting(0), rows.resampling, StopOnNonFinite(), Checkpoint(tmp_path)]
    assert {type(callback) for callback in callbacks} == {
        value
        for value in map(vars(tf_mmloss.callbacks).get, tf_mmloss.callbacks.__all__)
        if issubclass(value, keras.callbacks.Callback)
    } - {SeesawCounts, DeferredInfluence}  # of one loss
    unused = [vars(copied(callback)) for callback in callbacks]
    batches = ((np.eye(5, dtype="float32")[y], y) for _, y in (rows[i] for i in range(9)))
    model = compiled()
    model.fit(batches, steps_per_epoch=1, epochs=2, shuffle=False, verbose=0, callbacks=callbacks)
    used = copied(callbacks)
    assert [str(vars(callback)) for callback in used] == list(map(str, unused))
    assert_losses(fit(model, epochs=1, callbacks=[used[0]]), [oracle_loss(model, WEIGHTS["effective"])])


@pytest.mark.parametrize("copied", [copy.deepcopy, pickled])
def test_a_copy_of_seesaws_counts_is_as_before_the_fit(copied):
    """The counts belong to the loss of one model."""
    model = compiled(loss=SeesawLoss(COUNTS))
    counts = SeesawCounts()
    fit(model, epochs=1, callbacks=[counts])
    assert vars(copied(counts)) == vars(SeesawCounts())


@pytest.mark.parametrize("copied", [copy.deepcopy, pickled])
def test_a_used_loss_can_be_copied(copied):
    model = compiled()
    fit(model, epochs=1, callbacks=[DeferredReweighting(0)])
    assert copied(model.loss).get_config() == model.loss.get_config()
    assert copied(model.loss).class_weights is None


@pytest.mark.parametrize("scheme", sorted(WEIGHTS))
def test_resampling_is_a_function_of_the_epoch(scheme):
    resampling = DeferredResampling(START, COUNTS, scheme)
    for epoch in (3, 0, 2, 1):  # in any order
        weights = resampling(epoch)
        if epoch < START:
            assert weights is None
        else:
            np.testing.assert_allclose(weights, WEIGHTS[scheme], rtol=1e-10)


def resampled_fit(callback, drawn_with, first_epoch=1, steps_per_epoch=4, epochs=4):
    """A fit from epoch 1 to 4 on rows of `EpochRows`, of which it sees the labels."""
    rows = EpochRows(
        LABELLED, num_classes=len(COUNTS), batch_size=BATCH, first_epoch=first_epoch, resampling=drawn_with
    )
    batches = ((np.eye(5, dtype="float32")[y], y) for _, y in (rows[i] for i in range(99)))
    return compiled().fit(
        batches,
        steps_per_epoch=steps_per_epoch,
        initial_epoch=1,
        epochs=epochs,
        shuffle=False,
        verbose=0,
        callbacks=[callback],
    )


def test_resampling_logs_what_was_drawn():
    resampling = DeferredResampling(START, COUNTS)
    assert resampled_fit(resampling, resampling).history["resampling"] == [0, 1, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"drawn_with": None}, "was not made with DeferredResampling"),
        ({"first_epoch": 0}, "first_epoch=0 and 4 steps an epoch; .* initial_epoch=1, steps_per_epoch=4"),
        ({"steps_per_epoch": 8}, "first_epoch=1 and 4 steps an epoch; .* initial_epoch=1, steps_per_epoch=8"),
    ],
    ids=["made-without-it", "begins-late", "begins-early"],
)
def test_data_that_is_not_resampled_as_it_says_is_refused_before_a_step(arguments, message):
    steps, resampling = [], DeferredResampling(START, COUNTS)
    resampling.on_train_batch_begin = lambda batch, logs=None: steps.append(batch)
    with pytest.raises(RuntimeError, match=message):
        resampled_fit(resampling, **{"drawn_with": resampling, **arguments})
    assert not steps


def test_arrays_are_not_resampled():
    resampling = DeferredResampling(START, COUNTS)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="was not made with DeferredResampling"):
            fit(compiled(), callbacks=[resampling])
        EpochRows(LABELLED, num_classes=len(COUNTS), batch_size=BATCH, resampling=resampling)  # made, but not given


def test_another_data_set_in_a_later_epoch_is_an_error():
    resampling = DeferredResampling(START, COUNTS)
    resampling.made_data(1, 4)
    with pytest.raises(RuntimeError, match="No data was drawn for epoch 1"):
        resampled_fit(resampling, None)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_non_finite_loss_stops_the_run(bad):
    """In epoch 1, step 2; the epoch is not completed."""
    model, (x, y) = compiled(), data()
    ended = []

    def batches():
        for step in range(12):
            rows = slice(BATCH * (step % 4), BATCH * (step % 4) + BATCH)
            yield (x[rows] * bad if step == 6 else x[rows]), y[rows]

    callbacks = [
        StopOnNonFinite(),
        keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: ended.append(epoch)),
    ]
    with pytest.raises(NonFiniteLossError, match=r"epoch 1, step 2\b"):
        model.fit(batches(), steps_per_epoch=4, epochs=3, shuffle=False, verbose=0, callbacks=callbacks)
    assert ended == [0]


@pytest.mark.parametrize("label", [-1, len(COUNTS), 2**31, 2**32 + 1, 1 - 2**32])
def test_a_label_that_is_none_stops_a_fit(label):
    """Of the last two, the lower 32 bits are a class."""
    x, y = data()
    y = np.where(np.arange(len(y)) == 8, label, y)
    with pytest.raises((NonFiniteLossError, ValueError), match=r"labels|`y_true` must be whole numbers"):
        compiled().fit(x, y, batch_size=BATCH, epochs=1, verbose=0, callbacks=[StopOnNonFinite()])


def test_multi_hot_rows_stop_a_fit_with_a_word_on_labels():
    x, y = data()
    rows = np.eye(len(COUNTS), dtype="float32")[y]
    rows[:, 0] = 1
    with pytest.raises((NonFiniteLossError, ValueError), match="sum to one"):
        compiled().fit(x, rows, batch_size=BATCH, epochs=1, verbose=0, callbacks=[StopOnNonFinite()])


def test_a_fit_of_positions_is_that_of_their_examples():
    head, row, rows = keras.layers.Dense(len(COUNTS)), keras.Input((5,)), keras.Input((BATCH, 5))
    by_row, model = keras.Model(row, head(row)), compiled(keras.Model(rows, head(rows)))
    x, y = data()
    history = model.fit(
        x.reshape(-1, BATCH, 5),
        y.reshape(-1, BATCH),
        batch_size=1,
        epochs=3,
        shuffle=False,
        verbose=0,
        callbacks=[DeferredReweighting(START, COUNTS)],
    ).history
    assert_losses(history, stages(by_row, epochs=3))


def state(model):
    return [to_numpy(v).copy() for v in [*model.variables, *model.optimizer.variables]]


def assert_same_state(actual, expected):
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(a, e)


def with_everything():
    """A model whose state has running statistics and a random seed."""
    inputs = keras.Input((5,))
    x = keras.layers.BatchNormalization(name="bn")(keras.layers.Dense(7, name="hidden")(inputs))
    # Without a seed of its own it draws, on PyTorch, from the process's generator, which no model holds.
    x = keras.layers.Dropout(0.5, seed=random.randrange(1000), name="dropout")(x)
    return keras.Model(inputs, keras.layers.Dense(len(COUNTS), name="head")(x))


def nested():
    """Two sub-models whose layers have the same names, and so do their variables."""

    def part(name):
        inputs = keras.Input((5,))
        return keras.Model(inputs, keras.layers.Dense(5, name="dense")(inputs), name=name)

    inputs = keras.Input((5,))
    x = part("second")(part("first")(inputs))
    return keras.Model(inputs, keras.layers.Dense(len(COUNTS), name="head")(x))


@pytest.mark.parametrize("build", [with_everything, nested])
def test_a_checkpoint_gives_back_every_bit(tmp_path, build):
    model = compiled(build(), rate=0.01)
    fit(model, epochs=3, callbacks=[Checkpoint(tmp_path)])
    restored = compiled(build(), rate=0.01)
    assert Checkpoint(tmp_path).restore(restored) == 3
    assert_same_state(state(restored), state(model))


def test_a_resumed_run_ends_like_an_uninterrupted_one(tmp_path):
    def run(epochs, folder, seed=0):
        keras.utils.clear_session()  # names as in a new process
        keras.utils.set_random_seed(seed)
        model = compiled(with_everything(), rate=0.01)
        checkpoint = Checkpoint(folder)
        first = checkpoint.restore(model)
        fit(model, epochs=epochs, initial_epoch=first, callbacks=[DeferredReweighting(START, COUNTS), checkpoint])
        return state(model), checkpoint.history

    whole, history = run(4, tmp_path / "whole")
    run(3, tmp_path / "parts")
    resumed, resumed_history = run(4, tmp_path / "parts", seed=1)
    assert_same_state(resumed, whole)
    assert resumed_history == history
    assert [row["epoch"] for row in history] == [0, 1, 2, 3]
    assert [row["reweighting"] for row in history] == [0, 0, 1, 1]


def test_a_fit_that_goes_on_with_a_new_checkpoint(tmp_path):
    model = compiled(rate=0.01)
    for first, last in ((2, 4), (4, 5)):
        fit(model, epochs=last, initial_epoch=first, callbacks=[Checkpoint(tmp_path)])
        restored, checkpoint = compiled(rate=0.01), Checkpoint(tmp_path)
        assert checkpoint.restore(restored) == last
        assert [row["epoch"] for row in checkpoint.history] == list(range(2, last))
        assert_same_state(state(restored), state(model))


def test_a_checkpoint_of_bfloat16(tmp_path):
    keras.config.set_dtype_policy("bfloat16")
    model = compiled(with_everything(), rate=0.01)
    fit(model, epochs=1, callbacks=[Checkpoint(tmp_path)])
    restored = compiled(with_everything(), rate=0.01)
    assert Checkpoint(tmp_path).restore(restored) == 1
    for a, b in zip(model.variables, restored.variables, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(to_numpy(keras.ops.cast(a, "float32")), to_numpy(keras.ops.cast(b, "float32")))


def test_a_checkpoint_has_metrics_of_each_class(tmp_path):
    class Shares(keras.metrics.Metric):
        def update_state(self, y_true, y_pred, sample_weight=None):
            pass

        def result(self):
            return keras.ops.arange(3, dtype="float32") / 2

    checkpoint = Checkpoint(tmp_path)
    fit(compiled(metrics=[Shares(name="shares")]), epochs=1, callbacks=[checkpoint])
    assert json.loads((tmp_path / "latest.json").read_text())["history"] == checkpoint.history
    assert checkpoint.history[0]["shares"] == [0, 0.5, 1]


def test_a_layer_of_the_user_is_saved_whatever_its_name(tmp_path):
    def build():
        inputs = keras.Input((5,))
        return keras.Model(inputs, keras.layers.Dense(len(COUNTS), name="class_weights")(inputs))

    model, restored = compiled(build(), rate=0.01), compiled(build(), rate=0.01)
    fit(model, epochs=1, callbacks=[Checkpoint(tmp_path)])
    Checkpoint(tmp_path).restore(restored)
    assert_same_state(state(restored), state(model))


@pytest.mark.parametrize("name", ["latest.json", "state-0000.npz"])
@pytest.mark.parametrize("content", ["", "{}", "PK"])
def test_a_damaged_checkpoint_is_named(tmp_path, name, content):
    fit(compiled(rate=0.01), epochs=1, callbacks=[Checkpoint(tmp_path)])
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=f"{re.escape(str(tmp_path))} holds no whole checkpoint"):
        Checkpoint(tmp_path).restore(compiled(rate=0.01))


def test_a_model_that_is_not_built_is_not_restored(tmp_path):
    fit(compiled(Subclassed(), rate=0.01), epochs=1, callbacks=[Checkpoint(tmp_path)])
    other = compiled(Subclassed(), rate=0.01)
    with pytest.raises(ValueError, match="built"):
        Checkpoint(tmp_path).restore(other)
    fit(other, epochs=1, callbacks=[])


def test_nothing_to_restore(tmp_path):
    model = compiled()
    before = state(model)
    assert Checkpoint(tmp_path / "missing").restore(model) == 0
    assert_same_state(state(model)[: len(before)], before)


def saved_twice(folder, fail):
    """Save epoch 0, then epoch 1 with `fail` in its way; return the model's state at epoch 0."""
    model = compiled(rate=0.01)
    checkpoint = Checkpoint(folder)
    fit(model, epochs=1, callbacks=[checkpoint])
    first = state(model)
    fit(model, epochs=1, callbacks=[])
    fail()
    return model, checkpoint, first


@pytest.mark.parametrize("replaced", [0, 1], ids=["before-the-state", "between-state-and-commit"])
def test_a_killed_write_leaves_the_previous_state(tmp_path, monkeypatch, replaced):
    class Killed(BaseException):
        pass

    replace, calls = os.replace, []

    def killed(source, target):
        calls.append(target)
        if len(calls) > replaced:
            raise Killed
        replace(source, target)

    model, checkpoint, first = saved_twice(tmp_path, lambda: monkeypatch.setattr(os, "replace", killed))
    # What a process that dies at once cannot clean up.
    (tmp_path / "state-0001.partial-1.npz").write_bytes(b"PK truncated")
    (tmp_path / "latest.partial-1.json").write_text("{")
    with pytest.raises(Killed):
        checkpoint.on_epoch_end(1, {"loss": 0.5})
    monkeypatch.undo()
    restored = compiled(rate=0.01)
    again = Checkpoint(tmp_path)
    assert again.restore(restored) == 1
    assert_same_state(state(restored), first)
    again.set_model(model)
    again.on_epoch_end(1, {"loss": 0.5})
    assert Checkpoint(tmp_path).restore(restored) == 2
    assert_same_state(state(restored), state(model))


def test_a_process_that_ignores_interrupts_goes_on_doing_so():
    with interrupts(signal.SIG_IGN), interrupts_deferred() as heed:
        signal.raise_signal(signal.SIGINT)
        heed()


def test_a_second_interrupt_is_not_held_back():
    reached = []

    def interrupted_twice():
        with interrupts_deferred():
            for time in range(2):
                signal.raise_signal(signal.SIGINT)
                reached.append(time)

    with interrupts(), pytest.raises(KeyboardInterrupt):
        interrupted_twice()
    assert reached == [0]


def test_an_interrupt_waits_for_the_save(tmp_path, monkeypatch):
    savez = np.savez

    def interrupted(*arguments, **arrays):
        signal.raise_signal(signal.SIGINT)
        savez(*arguments, **arrays)

    model, checkpoint, _ = saved_twice(tmp_path, lambda: monkeypatch.setattr(np, "savez", interrupted))
    with interrupts(), pytest.raises(KeyboardInterrupt):
        checkpoint.on_epoch_end(1, {"loss": 0.5})
    restored = compiled(rate=0.01)
    assert Checkpoint(tmp_path).restore(restored) == 2
    assert_same_state(state(restored), state(model))


@pytest.mark.parametrize("foreign", ["model", "optimizer"])
def test_a_foreign_checkpoint_is_refused(tmp_path, foreign):
    fit(compiled(rate=0.01), epochs=1, callbacks=[Checkpoint(tmp_path)])
    if foreign == "model":
        other = compiled(with_everything(), rate=0.01)
    else:
        other = functional()
        other.compile("adam", MaxMarginLoss(COUNTS))
        other.optimizer.build(other.trainable_variables)
    before = state(other)
    with pytest.raises(ValueError, match="another model or optimizer"):
        Checkpoint(tmp_path).restore(other)
    assert_same_state(state(other)[: len(before)], before)


def test_only_the_last_state_is_kept(tmp_path):
    fit(compiled(), epochs=3, callbacks=[Checkpoint(tmp_path)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest.json", "state-0002.npz"]
    latest = json.loads((tmp_path / "latest.json").read_text())
    assert latest["state"] == "state-0002.npz"
    assert [row["epoch"] for row in latest["history"]] == [0, 1, 2]


@pytest.fixture
def saved(tmp_path):
    """A checkpoint of epochs 0 and 1, and its folder."""
    checkpoint = Checkpoint(tmp_path / "run", config={"seed": 0, "rates": [0.1, 0.2]})
    model = compiled(rate=0.01)
    model.optimizer.build(model.trainable_variables)
    checkpoint.set_model(model)
    for epoch in range(2):
        checkpoint.on_epoch_end(epoch, {"loss": 1.0})
    return checkpoint


def assert_not_restored(folder, message, config=None):
    """Refused at once, and nothing is changed."""
    model = compiled(rate=0.01)
    before = state(model)
    with pytest.raises(ValueError, match=message):
        Checkpoint(folder, config=config).restore(model)
    assert_same_state(state(model)[: len(before)], before)


def test_only_what_a_checkpoint_wrote_is_deleted(saved):
    others = ["state-final.npz", "state-0001.npz.bak", "state-7.npz", "state-0007.npz", "state-0001.partial-1.npz"]
    for name in others:
        (saved.folder / name).write_bytes(b"theirs")
    again = Checkpoint(saved.folder)
    for epoch in (2, 3):
        again.set_model(saved.model)
        again.on_epoch_end(epoch, {})
    assert sorted(p.name for p in saved.folder.iterdir()) == sorted([*others, "latest.json", "state-0003.npz"])
    assert {(saved.folder / name).read_bytes() for name in others} == {b"theirs"}
    Checkpoint(saved.folder).restore(saved.model)


def test_a_state_that_a_killed_run_left_is_deleted(saved):
    """Killed between the commit and the deletion of the state before."""
    (saved.folder / "state-0000.npz").write_bytes((saved.folder / "state-0001.npz").read_bytes())
    for epoch in (2, 0):  # a run that goes on, and one that begins anew
        again = Checkpoint(saved.folder)
        again.set_model(saved.model)
        again.on_epoch_end(epoch, {})
        assert sorted(p.name for p in saved.folder.iterdir()) == ["latest.json", f"state-{epoch:04d}.npz"]


def test_states_before_the_last_are_removed_when_asked_for(saved):
    """What a killed run left, and no file of another origin."""
    (saved.folder / "state-0000.npz").write_bytes((saved.folder / "state-0001.npz").read_bytes())
    checkpoint = Checkpoint(saved.folder)
    checkpoint.remove_earlier()
    assert sorted(p.name for p in saved.folder.iterdir()) == ["latest.json", "state-0001.npz"]
    np.savez(saved.folder / "state-0000.npz", theirs=np.zeros(3))
    checkpoint.remove_earlier()
    assert (saved.folder / "state-0000.npz").exists()
    Checkpoint(saved.folder / "none").remove_earlier()


def test_a_file_of_others_with_the_name_of_a_state_is_kept(saved):
    """Refused before an epoch is trained if it stands where a state goes, and never deleted."""
    theirs = [saved.folder / f"state-000{epoch}.npz" for epoch in (0, 4)]
    for file in theirs:
        np.savez(file, theirs=np.zeros(3))
    before = [file.read_bytes() for file in theirs]
    again = Checkpoint(saved.folder)
    again.set_model(saved.model)
    again.set_params({"epochs": 5})
    with pytest.raises(ValueError, match=r"`folder` must have no file of another origin .* move state-0004\.npz away"):
        again.on_epoch_begin(2)
    again.set_params({"epochs": 4})
    again.on_epoch_begin(2)
    again.on_epoch_end(2, {})
    assert [file.read_bytes() for file in theirs] == before
    with pytest.raises(ValueError, match=r"move state-0000\.npz away"):
        again.on_epoch_begin(0)


@pytest.mark.parametrize("name", ["state-0002.npz", "state-0003.npz"])
def test_a_file_of_others_that_appears_in_an_epoch_is_neither_replaced_nor_deleted_nor_followed(saved, name):
    """In the place of the last state, and of that which is to be written."""
    again = Checkpoint(saved.folder)
    again.set_model(saved.model)
    again.set_params({"epochs": 4})
    again.on_epoch_begin(2)
    again.on_epoch_end(2, {})
    again.on_epoch_begin(3)
    theirs, elsewhere = saved.folder / name, saved.folder / "theirs"
    elsewhere.write_bytes(b"theirs")
    theirs.unlink(missing_ok=True)
    theirs.symlink_to(elsewhere)
    if name == "state-0003.npz":
        with pytest.raises(ValueError, match=r"move state-0003\.npz away"):
            again.on_epoch_end(3, {})
    else:
        again.on_epoch_end(3, {})
        assert Checkpoint(saved.folder).restore(compiled(rate=0.01)) == 4
    assert theirs.is_symlink()
    assert elsewhere.read_bytes() == b"theirs"


def test_a_state_of_a_run_killed_before_its_commit_is_written_again(saved):
    left = saved.folder / "state-0002.npz"
    left.write_bytes((saved.folder / "state-0001.npz").read_bytes())
    again = Checkpoint(saved.folder)
    again.set_model(saved.model)
    for epoch in (2, 1):  # a state of its own that latest.json names, too
        again.on_epoch_begin(epoch)
    again.on_epoch_end(2, {})
    assert sorted(p.name for p in saved.folder.iterdir()) == ["latest.json", left.name]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_not_saved(saved, bad):
    """The loss of an epoch's last step is that of the weights before it."""
    good = state(saved.model)
    saved.model.trainable_variables[0].assign(np.full((5, len(COUNTS)), bad))
    stopping = StopOnNonFinite()
    stopping.set_model(saved.model)
    for callback in (saved, stopping):
        with pytest.raises(
            NonFiniteLossError, match=r"weights became NaN or infinite in epoch 2 \(from 0\), first head/"
        ):
            callback.on_epoch_end(2, {"loss": 1.0})
    restored = compiled(rate=0.01)
    assert Checkpoint(saved.folder).restore(restored) == 2
    assert_same_state(state(restored), good)


def test_bfloat16_weights_that_are_not_finite_are_seen():
    keras.config.set_dtype_policy("bfloat16")
    stopping, model = StopOnNonFinite(), compiled()
    stopping.set_model(model)
    stopping.on_epoch_end(0)
    model.trainable_variables[0].assign(np.full((5, len(COUNTS)), np.nan))
    with pytest.raises(NonFiniteLossError, match="epoch 0"):
        stopping.on_epoch_end(0)


def test_a_metric_that_is_not_finite_is_kept_as_nan(saved):
    saved.on_epoch_end(2, {"shares": [0.5, np.nan]})
    assert "NaN" not in (saved.folder / "latest.json").read_text()
    again = Checkpoint(saved.folder)
    assert again.restore(saved.model) == 3
    np.testing.assert_array_equal(again.history[2]["shares"], [0.5, np.nan])


def arrays_of(checkpoint):
    with np.load(checkpoint.folder / "state-0001.npz") as arrays:
        return dict(arrays)


def zeros_of_10_gb(path, arrays):
    with open(path, "ab") as file:
        file.truncate(10 * 2**30)


def written(path, arrays, **changed):
    np.savez(path, **{**arrays, **changed})


def header_of_10_gb(path, arrays):
    """A member whose header promises more than there is."""
    np.savez(path, **arrays)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["00000.npy"] = members["00000.npy"].replace(b"'shape': (5, 4)", b"'shape': (5<<29,)")
    members["00001.npy"] = members["00001.npy"].replace(b"(4,), }          ", b"(2500000000,), }")
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def missing_one(path, arrays):
    np.savez(path, **{key: array for key, array in arrays.items() if key != "00001"})


def piped(path, arrays):
    path.unlink()
    os.mkfifo(path)


def device(path, arrays):
    path.unlink()
    path.symlink_to("/dev/zero")


def linked(path, arrays):
    elsewhere = path.parent.parent / "elsewhere.npz"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (zeros_of_10_gb, "another model or optimizer: the size"),
        (header_of_10_gb, "holds no whole checkpoint"),
        (missing_one, "another model or optimizer: the number of variables"),
        (
            lambda p, a: written(p, a, **{"00000": np.zeros((5, 5), "float32")}),
            "or optimizer: head/kernel does not match",
        ),
        (lambda p, a: written(p, a, **{"00000": np.full((5, 4), "a")}), "or optimizer: head/kernel does not match"),
        (lambda p, a: written(p, a, **{"00000": np.full((5, 4), None)}), "or optimizer: head/kernel does not match"),
        (lambda p, a: written(p, a, **{"00000": np.zeros((5, 4), "c8")}), "or optimizer: head/kernel does not match"),
        (lambda p, a: written(p, a, **{"00000": np.zeros((5, 4), "i4")}), "or optimizer: head/kernel does not match"),
        (lambda p, a: written(p, a, **{"00000": np.full((5, 4), np.nan, "f4")}), "head/kernel is NaN or infinite"),
        (lambda p, a: np.savez_compressed(p, **a), "holds no whole checkpoint: state-0001.npz: .*compressed"),
        (lambda p, a: p.unlink(), "holds no whole checkpoint: state-0001.npz"),
        (piped, r"state-0001\.npz must be a regular file\. Received: a pipe"),
        (device, r"state-0001\.npz must be a regular file\. Received: a link"),
        (linked, r"state-0001\.npz must be a regular file\. Received: a link"),
    ],
)
def test_a_hostile_state_is_refused(saved, harm, message):
    harm(saved.folder / "state-0001.npz", arrays_of(saved))
    assert_not_restored(saved.folder, message)


ROWS = [{"epoch": 0, "loss": 1.0}, {"epoch": 1, "loss": 1.0}]


@pytest.mark.parametrize(
    "latest",
    [
        "[" * 100_000,
        '{"a":' * 100_000,
        "[]",
        "1",
        '"' + "a" * (65 * 2**20) + '"',
        {"state": "../../state-0001.npz"},
        {"state": "/etc/passwd"},
        {"state": "state-0000.npz"},
        {"state": ["state-0001.npz"]},
        {"state": None},
        {"history": []},
        {"history": {"epoch": 1}},
        {"history": [1, 2]},
        {"history": [ROWS[1]] * 2},
        {"history": [ROWS[0], {"epoch": 2}], "state": "state-0002.npz"},
        {"history": [{"epoch": -1}], "state": "state--001.npz"},
        {"history": [{"epoch": True}]},
        {"history": [{"epoch": 1.0}]},
        {"history": [{"epoch": "1"}]},
        {"history": [{"epoch": 1, "loss": "1"}]},
        {"history": [{"epoch": 1, "loss": {"a": 1}}]},
        {"history": [{"epoch": 1, "loss": True}]},
        {"history": [{"epoch": 1, "\ud800": 1}]},
        {"history": [{"epoch": 1, "loss": 10**400}]},
        {"config": [1]},
    ],
    ids=lambda latest: str(latest)[:40],
)
def test_a_hostile_latest_is_refused(saved, latest):
    if isinstance(latest, dict):
        latest = json.dumps({"state": "state-0001.npz", "history": ROWS, **latest})
    (saved.folder / "latest.json").write_text(latest)
    assert_not_restored(saved.folder, f"^{re.escape(str(saved.folder))} holds no whole checkpoint: latest.json: ")


@pytest.mark.parametrize("harm", [piped, device, linked, lambda path, arrays: (path.unlink(), path.mkdir())])
def test_a_latest_that_is_no_file_is_refused(saved, harm):
    harm(saved.folder / "latest.json", None)
    assert_not_restored(saved.folder, r"latest\.json must be a regular file\. Received: a (pipe|link|folder)")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"seed": 1, "rates": [0.1, 0.2]}, r"another config: `seed` was 0\. Received: seed=1"),
        ({"seed": 0, "rates": [0.1, 0.3]}, r"`rates` was \[0.1, 0.2\]\. Received: rates=\[0.1, 0.3\]"),
        ({"seed": 0}, "`rates` was "),
    ],
)
def test_a_checkpoint_of_another_config_is_refused(saved, config, message):
    assert_not_restored(saved.folder, message, config)


def test_a_checkpoint_knows_its_config(saved):
    newer = {"rates": (0.1, 0.2), "seed": 0, "an option of a later version": 3}
    for config in (saved.config, newer, None):
        assert Checkpoint(saved.folder, config=config).restore(compiled(rate=0.01)) == 2
    latest = json.loads((saved.folder / "latest.json").read_text())
    assert latest.pop("config") == {"seed": 0, "rates": [0.1, 0.2]}
    (saved.folder / "latest.json").write_text(json.dumps(latest))  # as older ones are
    assert Checkpoint(saved.folder, config={"seed": 5}).restore(compiled(rate=0.01)) == 2


def test_a_fit_that_continues_no_earlier_one_has_its_own_history(saved):
    again = Checkpoint(saved.folder)
    again.set_model(saved.model)
    again.on_epoch_end(7, {})
    assert [row["epoch"] for row in again.history] == [7]
    assert Checkpoint(saved.folder).restore(saved.model) == 8


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("folder", 0.5),
        ("folder", None),
        ("folder", b"run"),
        ("folder", "run\0"),
        ("model", 3),
        ("config", [1]),
        ("config", {1: 2}),
        ("config", {"seed": np.ones(2)}),
        ("config", {"rate": np.nan}),
    ],
)
def test_bad_arguments_of_a_checkpoint(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        Checkpoint(**{"folder": "run", name: value})


@pytest.mark.parametrize("model", [None, 3, LegacyModel()], ids=["none", "number", "legacy"])
def test_only_a_keras_model_is_restored(tmp_path, model):
    with pytest.raises(ValueError, match=r"`model` must be a `keras\.Model`"):
        Checkpoint(tmp_path).restore(model)


def test_a_model_that_is_not_compiled(saved):
    with pytest.raises(ValueError, match="`model` must be compiled to be restored"):
        Checkpoint(saved.folder).restore(functional())
    with pytest.raises(ValueError, match="`model` must be compiled to be saved"):
        Checkpoint(saved.folder, functional()).set_model(saved.model)
