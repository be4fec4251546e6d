"""Runs with a moving average of the weights: what is evaluated and saved, and what goes on after a stop."""

from dataclasses import replace

import keras
import numpy as np
import pytest
from helpers import BACKEND, to_numpy

from tf_mmloss import SGD
from tf_mmloss.runs.folder import read_history, read_json
from tf_mmloss.train import Config, run
from tf_mmloss.train.experiment import RunStoppedError
from tf_mmloss.train.resolve import resolve
from tf_mmloss.train.stages import optimizer as optimizer_of

CONFIG = Config(dataset="digits", ratio=20, method="ldam-drw", depth=8, epochs=2, sam=0.05, ema=0.9, input="device")


def test_the_average_of_sgd_is_that_of_its_weights():
    variable = keras.Variable(np.ones(3, "float32"))
    optimizer, expected = SGD(0.1, 0.0, 0.0, use_ema=True, ema_momentum=0.75), None
    for step in range(4):
        optimizer.apply([keras.ops.ones(3)], [variable])
        value = 1 - 0.1 * (step + 1)
        expected = value if expected is None else 0.75 * expected + 0.25 * value
    np.testing.assert_allclose(to_numpy(variable), 0.6, rtol=1e-5)
    optimizer.finalize_variable_values([variable])
    np.testing.assert_allclose(to_numpy(variable), expected, rtol=1e-5)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ema") / "run"
    return folder, run(CONFIG, folder)


def test_the_averages_are_evaluated_and_saved_and_the_checkpoint_keeps_both(finished):
    folder, metrics = finished
    last = keras.saving.load_model(folder / "last.keras")
    assert last.optimizer.use_ema
    averages = {v.path: to_numpy(v) for v in last.optimizer.variables if "average" in v.path}
    assert len(averages) == len(last.trainable_variables)
    for variable, average in zip(last.trainable_variables, averages.values(), strict=True):
        np.testing.assert_array_equal(to_numpy(variable), average)
    history = read_json(folder, "checkpoint/latest.json")["history"]
    assert 1 - history[-1]["val_accuracy"] == pytest.approx(metrics["error"], abs=1e-6)
    state = np.load(folder / "checkpoint" / "state-0001.npz")
    trained = [state[name] for name in state.files]
    kernel = to_numpy(last.trainable_variables[0])
    alike = [a for a in trained if a.shape == kernel.shape]
    assert any((a == kernel).all() for a in alike)  # the average
    assert any(0 < np.abs(a - kernel).max() < 0.6 for a in alike)  # what is trained


def test_the_best_model_has_the_averages(finished):
    folder, metrics = finished
    if metrics["best_epoch"]["epoch"] != 1:
        pytest.skip("the best epoch was not the last one")
    best, last = (keras.saving.load_model(folder / f"{name}.keras", compile=False) for name in ("best", "last"))
    for one, other in zip(best.get_weights(), last.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_run_that_is_resumed_ends_with_the_same_averages(finished, tmp_path):
    with pytest.raises(RunStoppedError):
        run(CONFIG, tmp_path / "run", stop=lambda: True)
    assert run(CONFIG, tmp_path / "run", resume=True)["checksum"] == finished[1]["checksum"]


@pytest.mark.skipif(BACKEND != "tensorflow", reason="once is enough")
def test_a_run_killed_before_its_result_evaluates_the_averages(finished, tmp_path):
    import shutil

    shutil.copytree(finished[0], tmp_path / "run")
    (tmp_path / "run" / "metrics.json").unlink()
    (tmp_path / "run" / "last.keras").unlink()
    assert run(CONFIG, tmp_path / "run", resume=True)["checksum"] == finished[1]["checksum"]


@pytest.mark.parametrize("ema", [1.0, -0.1, "a", float("nan")])
def test_a_bad_decay_is_refused(ema):
    with pytest.raises(ValueError, match="`ema`"):
        resolve(Config(ema=ema))


def test_the_average_of_a_run_begins_fast():
    """Step t decays by min(ema, t / (9 + t)); of 18 steps, less than a millionth is the weights after the first."""
    for name in ("sgd", "adamw"):
        optimizer = optimizer_of(resolve(Config(dataset="digits", optimizer=name, ema=0.6)))
        variable, expected = keras.Variable(np.ones(3, "float32")), None
        for step in range(20):
            optimizer.apply([keras.ops.ones(3)], [variable])
            decay = min(0.6, step / (9 + step))
            value = to_numpy(variable)
            expected = value if expected is None else decay * expected + (1 - decay) * value
        optimizer.finalize_variable_values([variable])
        np.testing.assert_allclose(to_numpy(variable), expected, rtol=1e-5)
        again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(optimizer))
        assert type(again) is type(optimizer)
        assert (again.use_ema, again.ema_momentum) == (True, 0.6)
    assert np.prod([step / (9 + step) for step in range(1, 18)]) < 1e-6


@pytest.mark.skipif(BACKEND != "tensorflow", reason="once is enough")
def test_the_average_of_a_short_last_stage_is_not_its_first_weights(tmp_path):
    """Of 18 steps it would be 84 % the head that began anew, with an error near that of chance."""
    config = Config(dataset="digits", ratio=20, method="crt", depth=8, epochs=8, start_epoch=7, ema=0.99)
    run(replace(config, batch_size=16, learning_rate=0.02, jit="off"), tmp_path / "run")
    errors = [1 - row["val_accuracy"] for row in read_history(tmp_path / "run")]
    assert errors[-1] < errors[-2] + 0.2
