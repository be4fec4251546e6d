"""The training step of SAM: the published optimizers' steps, and what it composes with.

`tests/data/published_sam.npz` has three steps of softmax regression by the code of davda54 (plain and adaptive) and of
Rangwani et al., computed in float64: SGD, rate 0.1, momentum 0.9, coupled weight decay 5e-4, rho 0.05.
"""

import inspect

import keras
import numpy as np
import pytest
from helpers import BACKEND, assert_close, official, to_numpy, value_and_gradient
from keras import ops

import tf_mmloss
from tf_mmloss import (
    SAM,
    SGD,
    BatchNormalization,
    CrossEntropyLoss,
    DeferredReweighting,
    LDAMLoss,
    SeesawCounts,
    SeesawLoss,
)
from tf_mmloss.layers.features import KeepFeatures
from tf_mmloss.models import with_features

COUNTS = [60, 20, 4]
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(48, 6)).astype("float32"), RNG.integers(0, 3, 48)


def network(dropout=0.0, dtype=None):
    """With batch norm, and with a dropout that is seeded."""
    keras.utils.set_random_seed(1)
    x = inputs = keras.Input((6,))
    x = BatchNormalization(dtype=dtype)(keras.layers.Dense(8, "relu", dtype=dtype)(x))
    x = keras.layers.Dropout(dropout, seed=3, dtype=dtype)(x)
    return keras.Model(inputs, keras.layers.Dense(3, dtype="float32")(x))


def fitted(model, loss=None, callbacks=(), epochs=2, optimizer=None, **compiled):
    model.compile(optimizer or SGD(0.1), loss or CrossEntropyLoss(), metrics=["accuracy"], **compiled)
    return model.fit(X, Y, batch_size=16, epochs=epochs, shuffle=False, verbose=0, callbacks=list(callbacks)).history


def values(model):
    return [to_numpy(variable) for variable in model.weights]


@pytest.mark.parametrize(("code", "adaptive"), [("davda54", False), ("davda54_adaptive", True), ("saddle", False)])
def test_steps_are_those_of_the_published_optimizers(code, adaptive):
    published = official("published_sam")
    inputs = keras.Input((5,))
    dense = keras.layers.Dense(3)
    model = SAM(keras.Model(inputs, dense(inputs)), 0.05, adaptive=adaptive)
    dense.set_weights([published["W0"], published["b0"]])
    model.compile(SGD(0.1, 0.9, 5e-4), CrossEntropyLoss())
    for step in (1, 2, 3):
        key = f"{code}/logistic/step{step}"
        loss = model.train_on_batch(published["X"].astype("float32"), published["y"])
        assert_close(np.asarray(loss), published[f"{key}/loss"], 1e-5)  # at w, before the step
        for name, found in zip("Wb", dense.get_weights(), strict=True):
            np.testing.assert_allclose(found, published[f"{key}/{name}"], rtol=1e-4, atol=2e-6)


LOSSES = [
    getattr(tf_mmloss, name) for name in sorted(tf_mmloss.__all__) if name.endswith("Loss") and name != "LongTailLoss"
]


@pytest.mark.parametrize("of", LOSSES)
def test_a_step_of_every_loss_is_that_of_the_gradient_where_the_loss_is_larger(of):
    given = {"cls_counts": COUNTS, "num_examples": 90, "scale": 3.0, "noise": 0.5, "alpha": 2.0}
    loss = of(**{name: value for name, value in given.items() if name in inspect.signature(of).parameters})
    labels = np.eye(3)[Y] if of in (tf_mmloss.AsymmetricLoss, tf_mmloss.DistributionBalancedLoss) else Y
    start = RNG.normal(size=(6, 3)).astype("float32")
    norms = ops.convert_to_tensor(np.abs(X).sum(axis=1, keepdims=True))

    def step():
        inputs = keras.Input((6,))
        model = keras.Model(inputs, keras.layers.Dense(3, use_bias=False)(inputs))
        model = SAM(with_features(model) if of is tf_mmloss.InfluenceBalancedLoss else model, 0.3)
        model.set_weights([start, *model.get_weights()[1:]])
        model.compile(SGD(0.1, 0.0, 0.0), loss, run_eagerly=True)
        return model.train_on_batch(X, labels), to_numpy(model.trainable_variables[0])

    def of_weights(w):
        logits = ops.matmul(X, w)
        return loss(labels, KeepFeatures()([logits, norms]) if of is tf_mmloss.InfluenceBalancedLoss else logits)

    value, moved = step()
    assert np.abs(moved - start).max() > 1e-6
    if of in (tf_mmloss.EqualizationLoss, tf_mmloss.GCLLoss):  # they draw by the bits of the logits
        np.testing.assert_array_equal(step()[1], moved)
        return
    expected, gradient = value_and_gradient(of_weights, start)
    gradient = to_numpy(gradient)
    _, climbed = value_and_gradient(of_weights, start + 0.3 * gradient / np.linalg.norm(gradient))
    assert_close(np.float64(value), to_numpy(expected), 1e-5)
    assert_close(start - moved, 0.1 * to_numpy(climbed), 1e-3)


def test_a_radius_of_zero_is_the_plain_step():
    plain, sam = network(0.3), network(0.3)
    drw = {"loss": LDAMLoss(COUNTS), "callbacks": [DeferredReweighting(1)]}
    expected = fitted(plain, **drw)
    found = fitted(SAM(sam, 0.0), loss=LDAMLoss(COUNTS), callbacks=[DeferredReweighting(1)])
    for name in ("loss", "accuracy"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5)
    for ours, theirs in zip(values(sam), values(plain), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_the_second_pass_changes_the_weights_alone():
    """Statistics of batch norm, counts of labels and metrics are those of one pass at w."""
    plain, sam = network(), network()
    counted, twice = SeesawCounts(), SeesawCounts()
    for model, counts in ((plain, counted), (SAM(sam, 0.5), twice)):
        model.compile(SGD(0.1), SeesawLoss(COUNTS), metrics=["accuracy"])
        history = model.fit(X[:16], Y[:16], batch_size=16, epochs=1, shuffle=False, verbose=0, callbacks=[counts])
        model.loss_of_step = history.history["loss"][0]
    assert twice._layers[0].seen.shape == (3,)
    np.testing.assert_array_equal(to_numpy(twice._layers[0].seen), to_numpy(counted._layers[0].seen))
    for ours, theirs in zip(sam.non_trainable_weights, plain.non_trainable_weights, strict=True):
        np.testing.assert_allclose(to_numpy(ours), to_numpy(theirs), rtol=1e-5, atol=1e-7)
    moved = [np.abs(to_numpy(a) - to_numpy(b)).max() for a, b in zip(sam.weights, plain.weights, strict=True)]
    assert max(moved) > 1e-4


def test_compiled_and_eager_steps_agree():
    if BACKEND == "torch":
        pytest.skip("training on PyTorch is eager")
    eager, compiled = network(), network()  # XLA draws other masks
    fitted(SAM(eager, 0.2), run_eagerly=True)
    fitted(SAM(compiled, 0.2), jit_compile=True)
    for ours, theirs in zip(values(compiled), values(eager), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_loss_scaling_changes_no_step():
    plain, scaled = network(), network()
    fitted(SAM(plain, 0.2))
    fitted(SAM(scaled, 0.2), optimizer=keras.optimizers.LossScaleOptimizer(SGD(0.1), initial_scale=1024.0))
    for ours, theirs in zip(values(scaled), values(plain), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_trains(dtype):
    model = network(dtype=dtype)
    history = fitted(SAM(model, 0.1, dtype=dtype), optimizer="adam", epochs=12)
    assert history["loss"][-1] < history["loss"][0]
    assert all(np.isfinite(value).all() for value in values(model))


def test_an_overflow_of_half_precision_skips_the_step():
    model = network()
    before = [to_numpy(variable) for variable in model.trainable_weights]
    optimizer = keras.optimizers.LossScaleOptimizer(SGD(0.1), initial_scale=1e38)
    sam = SAM(model, 0.1)
    sam.compile(optimizer, CrossEntropyLoss())
    sam.train_on_batch(1e3 * X, Y)
    assert float(to_numpy(optimizer.dynamic_scale)) < 1e38
    for variable, old in zip(model.trainable_weights, before, strict=True):
        np.testing.assert_array_equal(to_numpy(variable), old)


def test_the_radius_can_change_between_epochs():
    fixed, changed = network(), network()
    fitted(SAM(fixed, 0.0), epochs=3)
    sam = SAM(changed, 0.0)
    set_rho = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: setattr(sam, "rho", 0.5 * (epoch > 1)))
    fitted(sam, epochs=2, callbacks=[set_rho])
    two = values(changed)
    assert sam.rho == 0
    sam.fit(X, Y, batch_size=16, initial_epoch=2, epochs=3, shuffle=False, verbose=0, callbacks=[set_rho])
    assert sam.rho == 0.5
    assert max(np.abs(a - b).max() for a, b in zip(values(changed), values(fixed), strict=True)) > 1e-4
    assert max(np.abs(a - b).max() for a, b in zip(values(changed), two, strict=True)) > 1e-4


def test_what_is_frozen_is_frozen_after_a_save(tmp_path):
    part, whole = SAM(network()), SAM(network(), trainable=False)
    next(layer for layer in part.layers if isinstance(layer, keras.layers.Dense)).trainable = False
    for model, expected in ((part, 4), (whole, 0)):
        model.save(tmp_path / "sam.keras")
        assert len(model.trainable_variables) == expected
        assert len(keras.saving.load_model(tmp_path / "sam.keras").trainable_variables) == expected


def test_the_network_is_saved_without_it_and_it_with_its_radius(tmp_path):
    model = network()
    sam = SAM(model, 0.25, adaptive=True)
    fitted(sam)
    expected = to_numpy(model(X))
    model.save(tmp_path / "plain.keras")
    plain = keras.saving.load_model(tmp_path / "plain.keras")
    assert type(plain) is type(model)
    np.testing.assert_allclose(to_numpy(plain(X)), expected, rtol=1e-6)
    sam.save(tmp_path / "sam.keras")
    again = keras.saving.load_model(tmp_path / "sam.keras")
    assert isinstance(again, SAM)
    assert (again.rho, again.adaptive) == (0.25, True)
    np.testing.assert_allclose(to_numpy(again(X)), expected, rtol=1e-6)
    again.fit(X, Y, epochs=1, verbose=0)


def test_losses_of_layers_are_in_both_passes():
    inputs = keras.Input((6,))
    dense = keras.layers.Dense(3, kernel_regularizer=keras.regularizers.L2(0.5), use_bias=False)
    model = SAM(keras.Model(inputs, dense(inputs)), 0.1)
    model.compile(SGD(1.0, 0.0, 0.0), CrossEntropyLoss())
    w = np.full((6, 3), 0.3, "float32")
    dense.set_weights([w])
    model.train_on_batch(np.zeros((4, 6), "float32"), np.zeros(4, int))  # the gradient is that of 0.5 |w|^2, w
    climbed = w + 0.1 * w / np.linalg.norm(w)
    np.testing.assert_allclose(dense.get_weights()[0], w - climbed, rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        (lambda: (network(), -0.1), ValueError, "`rho` must"),
        (lambda: (network(), float("nan")), ValueError, "`rho`"),
        (lambda: (keras.Sequential([keras.layers.Dense(2)]),), TypeError, "`network` must be"),
        (lambda: ("resnet32",), TypeError, "`network` must be.*Received: network='resnet32'"),
    ],
)
def test_bad_arguments_are_refused(arguments, error, said):
    with pytest.raises(error, match=said):
        SAM(*arguments())


class TestRuns:
    OPTIONS = {"dataset": "digits", "ratio": 20, "method": "ldam-drw", "depth": 8, "epochs": 2, "sam": 0.05}  # noqa: RUF012

    @pytest.fixture(scope="class")
    @classmethod
    def finished(cls, tmp_path_factory):
        from tf_mmloss.train import Config, run

        folder = tmp_path_factory.mktemp("sam") / "run"
        return folder, run(Config(**cls.OPTIONS, sam_late=0.1, input="device"), folder)

    def test_a_run_leaves_a_plain_model(self, finished):
        folder, metrics = finished
        model = keras.saving.load_model(folder / "last.keras", compile=False)
        assert not isinstance(model, SAM)
        assert np.isfinite(metrics["error"])

    def test_a_run_that_is_resumed_ends_with_the_same_weights(self, finished, tmp_path):
        from tf_mmloss.train import Config, run
        from tf_mmloss.train.experiment import RunStoppedError

        config = Config(**self.OPTIONS, sam_late=0.1, input="device")
        with pytest.raises(RunStoppedError):
            run(config, tmp_path / "run", stop=lambda: True)
        assert run(config, tmp_path / "run", resume=True)["checksum"] == finished[1]["checksum"]

    @pytest.mark.skipif(BACKEND != "tensorflow", reason="tf.data")
    def test_the_host_input_trains_as_the_device_does(self, finished, tmp_path):
        from tf_mmloss.train import Config, run

        run(Config(**self.OPTIONS, sam_late=0.1), tmp_path / "run")
        ours, theirs = (
            keras.saving.load_model(folder / "last.keras", compile=False).get_weights()
            for folder in (tmp_path / "run", finished[0])
        )
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(one, other, rtol=2e-3, atol=2e-3)

    def test_the_radius_changes_at_the_first_drop(self):
        from tf_mmloss.train.config import Config
        from tf_mmloss.train.resolve import resolve
        from tf_mmloss.train.stages import rho

        config = resolve(Config(epochs=200, sam=0.1, sam_late=0.2))
        assert [rho(config, epoch) for epoch in (0, 159, 160, 199)] == [0.1, 0.1, 0.2, 0.2]
        assert resolve(Config(sam=0.3)).sam_late == 0.3
        assert rho(resolve(Config()), 0) is None

    @pytest.mark.parametrize(
        ("more", "said"),
        [
            ({"input": "epoch"}, "`sam` needs `input` host or device"),
            ({"sam": -1.0}, "`sam` must"),
            ({"sam_late": "a"}, "`sam_late`"),
        ],
    )
    def test_what_cannot_be_is_refused(self, more, said):
        from tf_mmloss.train.config import Config
        from tf_mmloss.train.resolve import resolve

        with pytest.raises(ValueError, match=said):
            resolve(Config(**{**self.OPTIONS, **more}))
