"""SGD, against a NumPy oracle."""

import keras
import numpy as np
import pytest
from helpers import assert_close, float64, to_numpy

from tf_mmloss import SGD, CosineSchedule, WarmupStepSchedule

RATES = [0.1] * 6 + [0.01] * 6


def gradients():
    rng = np.random.default_rng(0)
    return [(rng.normal(size=(3, 2)), rng.normal(size=4)) for _ in RATES]


def start():
    return np.linspace(-1, 1, 6).reshape(3, 2), np.array([1.0, -2.0, 0.5, 0.0])


def oracle(momentum, decay, rates=RATES):
    """v <- momentum v + g + decay w;  w <- w - rate v."""
    weights, velocities = [w.copy() for w in start()], [np.zeros_like(w) for w in start()]
    for rate, step in zip(rates, gradients(), strict=True):
        for w, v, g in zip(weights, velocities, step, strict=True):
            v[...] = momentum * v + g + decay * w
            w[...] = w - rate * v
    return weights


def run(optimizer, rates=RATES):
    variables = [keras.Variable(w) for w in start()]
    for rate, step in zip(rates, gradients(), strict=True):
        if rate is not None:
            optimizer.learning_rate = rate
        optimizer.apply([keras.ops.convert_to_tensor(g) for g in step], variables)
    return variables


@pytest.mark.parametrize("momentum", [0.9, 0.0])
@pytest.mark.parametrize("decay", [2e-4, 0.3, 0.0])
def test_against_the_oracle_across_a_tenfold_drop_of_the_rate(momentum, decay):
    with float64():
        for variable, expected in zip(run(SGD(0.1, momentum, decay)), oracle(momentum, decay), strict=True):
            assert to_numpy(variable).dtype == np.float64
            assert_close(variable, expected, 1e-12)


def test_in_float32():
    with_cast = [[g.astype("float32") for g in step] for step in gradients()]
    variables = [keras.Variable(w.astype("float32")) for w in start()]
    optimizer = SGD()
    for rate, step in zip(RATES, with_cast, strict=True):
        optimizer.learning_rate = rate
        optimizer.apply([keras.ops.convert_to_tensor(g) for g in step], variables)
    for variable, expected in zip(variables, oracle(0.9, 2e-4), strict=True):
        assert_close(variable, expected, 1e-6)


def test_the_rate_is_not_in_the_velocity():
    """With the rate at 0 the variables rest at once, where Keras' SGD coasts on."""
    rates = [0.1] * 3 + [0.0] * 9
    with float64():
        rested, early = run(SGD(0.1), rates), oracle(0.9, 2e-4, rates)
        coasted = run(keras.optimizers.SGD(0.1, momentum=0.9), rates)
        for variable, keras_variable, expected in zip(rested, coasted, early, strict=True):
            assert_close(variable, expected, 1e-12)
            assert np.abs(to_numpy(keras_variable) - expected).max() > 1e-2


def test_a_keras_schedule():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([5], [0.1, 0.01])
    with float64():
        variables = run(SGD(schedule), [None] * len(RATES))
        for variable, expected in zip(variables, oracle(0.9, 2e-4), strict=True):
            assert_close(variable, expected, 1e-7)  # schedules compute in float32


def test_in_a_fit():
    """Two epochs of one batch, the rate dropped by the callback that sets it for an epoch."""
    x, y = np.eye(3, dtype="float32"), np.array([[1.0], [-1.0], [2.0]], "float32")
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")])
    model.compile(SGD(0.1, 0.9, 0.5), "mse")
    rates = [0.3, 0.03]
    scheduler = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rates[epoch])
    model.fit(x, y, batch_size=3, epochs=2, verbose=0, callbacks=[scheduler])
    w, v = np.ones((3, 1)), np.zeros((3, 1))
    for rate in rates:
        v = 0.9 * v + 2 * (w - y) / 3 + 0.5 * w
        w = w - rate * v
    assert_close(model.trainable_variables[0], w, 1e-6)


def test_config_round_trip(tmp_path):
    optimizer = SGD(0.05, momentum=0.8, weight_decay=1e-3, name="mine", clipnorm=3.0)
    for restored in (
        SGD.from_config(optimizer.get_config()),
        keras.optimizers.deserialize(keras.optimizers.serialize(optimizer)),
    ):
        assert type(restored) is SGD
        assert restored.get_config() == optimizer.get_config()
        assert restored.momentum == 0.8
        assert restored.coupled_weight_decay == 1e-3
        assert restored.clipnorm == 3.0
    assert optimizer.get_config()["weight_decay"] == 1e-3


def test_a_saved_model_goes_on_as_if_nothing_had_happened(tmp_path):
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    model.compile(SGD(0.1, weight_decay=0.01), "mse")
    x, y = np.random.default_rng(0).normal(size=(2, 4, 3)).astype("float32")
    y = y[:, :2]
    model.train_on_batch(x, y)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for each in (model, loaded):
        each.train_on_batch(x, y)
    for a, b in zip(model.variables, loaded.variables, strict=True):
        np.testing.assert_array_equal(to_numpy(a), to_numpy(b))


def test_variables_left_out_of_the_decay():
    optimizer = SGD(0.1, momentum=0.0, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    kernel, bias = (keras.Variable(np.ones(2, "float32"), name=name) for name in ("kernel", "bias"))
    optimizer.apply([np.zeros(2, "float32")] * 2, [kernel, bias])
    np.testing.assert_allclose(to_numpy(kernel), 0.95)
    np.testing.assert_array_equal(to_numpy(bias), 1)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("momentum", -0.1),
        ("momentum", 1.0),
        ("momentum", np.nan),
        ("momentum", "0.9"),
        ("learning_rate", WarmupStepSchedule()),
        ("learning_rate", CosineSchedule()),
        ("learning_rate", -0.1),
        ("learning_rate", np.nan),
        ("learning_rate", "0.1"),
        ("learning_rate", None),
        ("name", 3),
        ("name", "a/b"),
        ("weight_decay", -1e-4),
        ("weight_decay", np.inf),
        ("weight_decay", None),
    ],
)
def test_bad_arguments_are_refused(argument, value):
    with pytest.raises(ValueError, match=argument):
        SGD(**{argument: value})


def test_the_moving_average_of_keras():
    """`use_ema` is Keras' own: the first step sets the average, and `finalize_variable_values` puts it in place."""
    variable = keras.Variable(np.array([1.0, -2.0], "float32"))
    optimizer = SGD(0.5, momentum=0.0, weight_decay=0.0, use_ema=True, ema_momentum=0.75)
    values = []
    for gradient in ([1.0, 2.0], [4.0, -2.0]):
        optimizer.apply([keras.ops.convert_to_tensor(np.array(gradient, "float32"))], [variable])
        values.append(keras.ops.convert_to_numpy(variable))
    optimizer.finalize_variable_values([variable])
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), 0.75 * values[0] + 0.25 * values[1])
    assert SGD.from_config(optimizer.get_config()).ema_momentum == 0.75
