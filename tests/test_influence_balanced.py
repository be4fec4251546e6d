"""The influence-balanced loss, whose features go with the logits."""

import copy
import pickle

import keras
import numpy as np
import oracles
import pytest
from helpers import BACKEND, assert_close, float64, official, to_numpy, value_and_gradient
from keras import ops

import tf_mmloss
from tf_mmloss import DeferredInfluence, InfluenceBalancedLoss, with_features
from tf_mmloss.layers.features import KeepFeatures, feature_norms
from tf_mmloss.losses import influence_balanced
from tf_mmloss.train import experiment
from tf_mmloss.train.config import Config
from tf_mmloss.train.inputs import has_tensorflow

COUNTS = [500, 50, 5]
RNG = np.random.default_rng(0)
LABELS = np.array([0, 1, 2, 0, 1, 0])
LOGITS = RNG.normal(size=(6, 3))
FEATURES = RNG.normal(size=(6, 4))
INPUTS = RNG.normal(size=(6, 5)).astype("float32")


def with_norms(logits, norms):
    """Logits (B, C) that carry ||h||_1."""
    return KeepFeatures(dtype=logits.dtype)([ops.convert_to_tensor(logits), ops.convert_to_tensor(norms[:, None])])


@pytest.mark.parametrize("size", ["c10", "c100"])
def test_published_code(size):
    published = official("published_methods")
    x, y, counts = (published[f"{size}/{name}"] for name in ("x", "y", "counts"))
    norms = published[f"{size}/ib/feature"]
    loss, key = InfluenceBalancedLoss(counts), f"{size}/ib/ib"
    value, gradient = value_and_gradient(lambda u: loss(y, with_norms(u, norms.astype("float32"))), x.astype("float32"))
    assert_close(value, published[f"{key}/loss"], 1e-5)
    rows = published[f"{key}/grad"]
    assert_close(to_numpy(gradient)[: len(rows)], rows, 1e-5)
    np.testing.assert_allclose(loss._weights, published[f"{size}/ib/weights"], rtol=1e-6)


@pytest.mark.parametrize(("alpha", "scale"), [(1000.0, 1.0), (3.0, 7.0)])
def test_value_and_gradients_against_the_oracle(alpha, scale):
    def expected(logits, features):
        return oracles.influence_balanced(LABELS, logits, features, COUNTS, alpha, scale)

    def loss(u, h):
        return influence_balanced(LABELS, u, h, cls_counts=COUNTS, alpha=alpha, scale=scale)

    with float64():
        value, gradient = value_and_gradient(lambda u: loss(u, FEATURES), LOGITS)
        assert_close(value, expected(LOGITS, FEATURES), 1e-10)
        assert_close(gradient, oracles.gradient(lambda u: expected(u, FEATURES), LOGITS), 1e-6)
        through = value_and_gradient(lambda h: loss(LOGITS, h), FEATURES)[1]
        assert_close(through, oracles.gradient(lambda h: expected(LOGITS, h), FEATURES), 1e-6)
    built = InfluenceBalancedLoss(COUNTS, alpha, scale, reduction=None)
    carried = with_norms(LOGITS.astype("float32"), np.abs(FEATURES).sum(axis=1).astype("float32"))
    assert_close(built(LABELS, carried), expected(LOGITS, FEATURES), 1e-4)


def model_of(loss, jit="auto"):
    inputs = keras.Input((5,))
    hidden = keras.layers.Dense(4, activation="relu", name="hidden")(inputs)
    model = with_features(keras.Model(inputs, keras.layers.Dense(3)(hidden)))
    model.compile(keras.optimizers.SGD(0.0), loss, metrics=["accuracy", tf_mmloss.BalancedAccuracy(3)], jit_compile=jit)
    return model


@pytest.mark.parametrize("jit", [False, True])
def test_a_model_is_fitted_evaluated_and_saved(jit, tmp_path):
    """All of Keras' own paths, compiled; metrics and `predict` see (B, C)."""
    if jit and BACKEND == "torch":
        pytest.skip("Keras compiles nothing of torch here")
    model = model_of(InfluenceBalancedLoss(COUNTS), jit)
    hidden = keras.Model(model.inputs, model.get_layer("hidden").output)
    features, logits = to_numpy(hidden(INPUTS)), model.predict(INPUTS, verbose=0)
    assert logits.shape == (6, 3)
    expected = oracles.influence_balanced(LABELS, logits, features, COUNTS).mean()
    history = model.fit(INPUTS, LABELS, batch_size=6, verbose=0).history
    assert history["loss"][0] == pytest.approx(expected, rel=1e-4)
    assert model.evaluate(INPUTS, LABELS, batch_size=6, verbose=0, return_dict=True)["loss"] == pytest.approx(
        expected, rel=1e-4
    )
    assert history["accuracy"][0] == pytest.approx(np.mean(logits.argmax(axis=1) == LABELS))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.evaluate(INPUTS, LABELS, batch_size=6, verbose=0, return_dict=True)["loss"] == pytest.approx(
        expected, rel=1e-4
    )


def test_the_influence_begins_at_its_epoch():
    model = model_of(InfluenceBalancedLoss(COUNTS, alpha=100.0))
    logits = model.predict(INPUTS, verbose=0)
    losses = model.fit(INPUTS, LABELS, batch_size=6, epochs=3, verbose=0, callbacks=[DeferredInfluence(2)]).history
    plain = oracles.cross_entropy(LABELS, logits).mean()
    assert losses["loss"][:2] == pytest.approx([plain, plain], rel=1e-4)
    assert losses["loss"][2] > 2 * plain
    resumed = model.fit(
        INPUTS, LABELS, batch_size=6, initial_epoch=2, epochs=3, verbose=0, callbacks=[DeferredInfluence(2)]
    )
    assert resumed.history["loss"][0] == pytest.approx(losses["loss"][2], rel=1e-6)
    assert len(model.get_weights()) == 4


@pytest.mark.parametrize("way", [copy.deepcopy, lambda loss: pickle.loads(pickle.dumps(loss))])
def test_copies(way):
    loss = InfluenceBalancedLoss(COUNTS, 7.0, 2.0, reduction=None, name="mine")
    carried = with_norms(LOGITS.astype("float32"), np.ones(6, "float32"))
    before = to_numpy(loss(LABELS, carried))
    assert way(loss).get_config() == loss.get_config()
    np.testing.assert_array_equal(to_numpy(way(loss)(LABELS, carried)), before)


def test_positions_and_what_is_ignored():
    logits = RNG.normal(size=(2, 3, 3)).astype("float32")
    features = RNG.normal(size=(2, 3, 4)).astype("float32")
    labels = np.array([[0, 1, 2], [1, 255, 0]])
    carried = KeepFeatures()([ops.convert_to_tensor(logits), ops.convert_to_tensor(features)])
    found = to_numpy(InfluenceBalancedLoss(COUNTS, reduction=None, ignore_class=255)(labels, carried))
    kept = labels != 255
    expected = oracles.influence_balanced(labels[kept], logits[kept], features[kept], COUNTS)
    assert_close(found[kept], expected, 1e-4)
    assert found[1, 1] == 0


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: InfluenceBalancedLoss(COUNTS)(LABELS, LOGITS), r"carry the features.*with_features"),
        (lambda: InfluenceBalancedLoss(COUNTS, alpha=0.0), "`alpha` must be"),
        (lambda: InfluenceBalancedLoss(None), "cls_counts"),
        (lambda: influence_balanced(LABELS, LOGITS, FEATURES[:, 0], cls_counts=COUNTS), "`features` must have shape"),
        (lambda: influence_balanced(LABELS, LOGITS, FEATURES, cls_counts=[1, 2]), "one count for each logit"),
        (lambda: with_features(keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])), "functional Keras model"),
        (lambda: DeferredInfluence(-1), "`start_epoch` must be"),
    ],
)
def test_bad_arguments(call, said):
    with pytest.raises(ValueError, match=said):
        call()


@pytest.mark.parametrize(
    "last",
    [
        keras.layers.Activation("linear", dtype="float32"),
        tf_mmloss.layers.ClassScale(),
        lambda logits: logits * 2.0,
        keras.Sequential([keras.Input((3,)), keras.layers.Dense(3)]),
    ],
)
def test_features_are_not_logits(last):
    """Of what follows the head, the input is the logits."""
    inputs = keras.Input((5,))
    model = keras.Model(inputs, last(keras.layers.Dense(3)(inputs)))
    with pytest.raises(ValueError, match=r"`model` must (end in the layer|be a functional)"):
        with_features(model)


def test_features_of_a_head_that_two_models_share():
    head, models = keras.layers.Dense(3), []
    for _ in range(2):
        inputs = keras.Input((5,))
        models.append(keras.Model(inputs, head(keras.layers.Dense(4, activation="relu", name="hidden")(inputs))))
    for model in models:
        carried = with_features(model)(INPUTS)
        hidden = keras.Model(model.input, model.get_layer("hidden").output)(INPUTS)
        assert_close(feature_norms(carried), np.abs(to_numpy(hidden)).sum(axis=1), 1e-5)


def test_a_model_without_features_is_refused_in_fit():
    for loss, error, said, callbacks in (
        (InfluenceBalancedLoss(COUNTS), ValueError, "with_features", []),
        (tf_mmloss.CrossEntropyLoss(), TypeError, "compiled with an InfluenceBalancedLoss", [DeferredInfluence(0)]),
    ):
        model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)])
        model.compile("sgd", loss)
        with pytest.raises(error, match=said):
            model.fit(INPUTS, LABELS, verbose=0, callbacks=callbacks)


def test_a_run_of_the_method(tmp_path):
    config = Config(
        dataset="digits",
        ratio=20,
        depth=8,
        epochs=2,
        method="ib",
        start_epoch=1,
        learning_rate=0.01,
        input="host" if has_tensorflow() else "device",
    )
    metrics = experiment.run(config, tmp_path / "run")
    assert 0 < metrics["error"] < 1
    rows = (tmp_path / "run" / "history.csv").read_text().splitlines()
    losses = [float(row.split(",")[rows[0].split(",").index("loss")]) for row in rows[1:]]
    assert losses[0] < 5 < losses[1]  # alpha is 1000
