"""Probabilities at the scale of a loss, against NumPy."""

import keras
import numpy as np
import pytest
from helpers import assert_close, jitted, needs_jit, to_numpy
from keras import ops

import tf_mmloss
import tf_mmloss.evaluation
from tf_mmloss import Probabilities, probabilities

COUNTS = [50, 20, 5]
COSINES = np.random.default_rng(0).uniform(-1, 1, (6, 3))
SOFTMAX = {
    "margin": lambda: tf_mmloss.MaxMarginLoss(COUNTS, scale=10.0),
    "ldam": lambda: tf_mmloss.LDAMLoss(COUNTS, scale=30.0),
    "plain": lambda: tf_mmloss.CrossEntropyLoss(),
}
SIGMOID = {
    "class balanced": lambda: tf_mmloss.ClassBalancedSigmoidLoss(COUNTS, scale=4.0),
    "multi-label": lambda: tf_mmloss.AsymmetricLoss(scale=5.0),
    "multi-label balanced": lambda: tf_mmloss.DistributionBalancedLoss(COUNTS, 70, scale=5.0),
}


def expected(loss):
    """In float64, from the definitions."""
    scaled = loss.scale * COSINES
    if loss.activation == "sigmoid":
        return 1 / (1 + np.exp(-scaled))
    return np.exp(scaled) / np.exp(scaled).sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("build", (SOFTMAX | SIGMOID).values(), ids=SOFTMAX | SIGMOID)
def test_probabilities_of_arrays_tensors_and_models(build):
    loss = build()
    found = probabilities(loss, COSINES)
    assert isinstance(found, np.ndarray)
    np.testing.assert_allclose(found, expected(loss), rtol=1e-12)
    tensor = probabilities(loss, ops.convert_to_tensor(COSINES.astype("float32")))
    assert ops.is_tensor(tensor)
    assert_close(tensor, expected(loss), 1e-5)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Identity()])
    model.compile(loss=loss)
    np.testing.assert_array_equal(probabilities(model, COSINES), found)


def test_half_precision_is_computed_in_float32():
    cosines = ops.cast(ops.convert_to_tensor(COSINES), "bfloat16")
    found = probabilities(tf_mmloss.LDAMLoss(COUNTS, scale=30.0), cosines)
    assert keras.backend.standardize_dtype(found.dtype) == "float32"
    assert_close(ops.sum(found, axis=-1), np.ones(6), 1e-5)


def test_whole_numbers_keep_a_scale_that_is_none():
    logits = np.array([[3, 0, -2]], "int32")
    found = Probabilities(0.5, offset=0.25)(ops.convert_to_tensor(logits))
    assert_close(found, Probabilities(0.5).of_array(logits), 1e-6)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_large_logits_are_finite(activation):
    layer = Probabilities(1e4, activation)
    found = to_numpy(layer(ops.convert_to_tensor(COSINES.astype("float32"))))
    assert np.isfinite(found).all()
    loss = tf_mmloss.AsymmetricLoss(scale=1e4) if activation == "sigmoid" else tf_mmloss.CrossEntropyLoss(scale=1e4)
    np.testing.assert_allclose(probabilities(loss, COSINES), found, atol=1e-6)


@needs_jit
def test_jit_equals_eager():
    layer, x = Probabilities(10.0), ops.convert_to_tensor(COSINES.astype("float32"))
    assert_close(jitted(layer)(x), to_numpy(layer(x)), 1e-6)


def test_a_model_with_the_layer_is_saved_and_loaded(tmp_path):
    model = keras.Sequential([keras.Input((3,)), tf_mmloss.CosineDense(3)])
    model.compile(loss=tf_mmloss.LDAMLoss(COUNTS, scale=30.0))
    served = keras.Sequential([model, Probabilities.of(model, name="p")])
    x = COSINES.astype("float32")
    served.save(tmp_path / "served.keras")
    loaded = keras.models.load_model(tmp_path / "served.keras", compile=False)
    assert loaded.layers[-1].get_config() == served.layers[-1].get_config()
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), served.predict(x, verbose=0))
    np.testing.assert_allclose(served.predict(x, verbose=0), probabilities(model, to_numpy(model(x))), atol=1e-6)


def test_a_temperature_gives_a_hinge_probabilities():
    labels = np.array([0, 1, 2, 0, 1, 0])
    temperature = tf_mmloss.evaluation.fit_temperature(labels, COSINES)
    scaled = COSINES / temperature
    found = to_numpy(Probabilities(1 / temperature)(ops.convert_to_tensor(COSINES.astype("float32"))))
    np.testing.assert_allclose(found, np.exp(scaled) / np.exp(scaled).sum(-1, keepdims=True), atol=1e-5)


@pytest.mark.parametrize(
    ("of", "message"),
    [
        (lambda: tf_mmloss.HingeLoss(), "fit_temperature"),
        (lambda: tf_mmloss.LDAMHingeLoss(COUNTS), "Received: loss='LDAMHingeLoss'"),
        (lambda: keras.losses.CategoricalCrossentropy(), "must be one loss of this package"),
        (lambda: keras.Sequential([keras.layers.Dense(3)]), "not compiled"),
        (lambda: "sparse_categorical_crossentropy", "must be one loss of this package"),
        (lambda: [tf_mmloss.CrossEntropyLoss()] * 2, "must be one loss of this package"),
    ],
    ids=["hinge", "ldam hinge", "of keras", "not compiled", "name", "several"],
)
def test_losses_without_probabilities_are_refused(of, message):
    with pytest.raises(ValueError, match="`model_or_loss`") as error:
        probabilities(of(), COSINES)
    assert message in str(error.value)


@pytest.mark.parametrize("logits", [np.zeros(()), np.zeros((2, 0)), "abc", [[np.nan, 1.0]]], ids=str)
def test_logits_of_other_kinds_are_refused(logits):
    with pytest.raises(ValueError, match="`logits` must"):
        probabilities(tf_mmloss.CrossEntropyLoss(), logits)


def test_other_activations_and_scales_are_refused():
    with pytest.raises(ValueError, match="`activation` must be one of softmax, sigmoid"):
        Probabilities(1.0, "softmx")
    with pytest.raises(ValueError, match="`scale` must"):
        Probabilities(0.0)
