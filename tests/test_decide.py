"""Decisions after the training, against published codes and by hand."""

from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import assert_close, to_numpy
from keras import ops

from tf_mmloss import CrossEntropyLoss, Probabilities, decide
from tf_mmloss.cli import evaluate
from tf_mmloss.datasets import load
from tf_mmloss.decide.logit_adjustment import logit_adjustment
from tf_mmloss.decide.tau_normalisation import tau_normalisation
from tf_mmloss.models import add_head
from tf_mmloss.runs import model as run_model
from tf_mmloss.runs import predictions
from tf_mmloss.runs.model import RunModel
from tf_mmloss.train import experiment, result
from tf_mmloss.train.config import Config
from tf_mmloss.train.inputs import has_tensorflow
from tf_mmloss.train.resolve import resolve

PUBLISHED = np.load(Path(__file__).parent / "data" / "published_decisions.npz")
INPUT = "host" if has_tensorflow() else "device"
COUNTS = [500, 50, 5]
RNG = np.random.default_rng(0)
LABELS = np.repeat([0, 1, 2], 40)
# Outputs that lean to the frequent classes.
LOGITS = RNG.normal(size=(120, 3)) + 1.5 * np.eye(3)[LABELS] + np.log(COUNTS)
KERNEL, BIAS = RNG.normal(size=(5, 3)), RNG.normal(size=3)
TRAINED = decide.Trained(1.0, COUNTS, KERNEL, BIAS)


def softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("tau", [1.0, 1.5])
def test_logit_adjustment_is_the_published_one(tau):
    """Theirs adds 1e-12 to the priors."""
    logits, counts = PUBLISHED["x"].astype(np.float64), PUBLISHED["counts"]
    found, published = logit_adjustment(logits, counts, tau), PUBLISHED[f"posthoc_{tau}"]
    np.testing.assert_allclose(found, published, rtol=1e-5, atol=1e-5)
    tensor = logit_adjustment(ops.convert_to_tensor(PUBLISHED["x"]), counts, tau)
    assert ops.is_tensor(tensor)
    assert_close(tensor, published, 1e-5)
    trained = decide.Trained(1.0, counts)
    np.testing.assert_allclose(decide.layer(f"logit-adjustment:{tau}", trained).scores(logits), found, rtol=1e-9)


@pytest.mark.parametrize("tau", [0.5, 1.0])
def test_tau_normalisation_is_the_published_one(tau):
    kernel, bias = PUBLISHED["W"].T, PUBLISHED["b"]
    np.testing.assert_allclose(tau_normalisation(kernel, tau).T, PUBLISHED[f"tau_W_{tau}"], rtol=1e-6)
    logits = PUBLISHED["h"] @ kernel + bias
    layer = decide.layer(f"tau-normalisation:{tau}", decide.Trained(1.0, PUBLISHED["counts"], kernel, bias))
    np.testing.assert_allclose(layer.scores(logits), PUBLISHED[f"tau_logits_{tau}"], rtol=1e-6, atol=1e-6)


def test_the_scales_of_a_head_are_part_of_its_kernel():
    rng = np.random.default_rng(0)
    features = keras.Input((4,))
    model = keras.Model(features, add_head(features, 3, "dense", scales=True))
    model.compile(loss=CrossEntropyLoss())
    kernel, bias, scales = rng.normal(size=(4, 3)), rng.normal(size=3), np.array([0.5, 1.0, 3.0])
    model.get_layer("head").set_weights([kernel, bias])
    model.get_layer("scales").set_weights([scales])
    x = rng.normal(size=(5, 4)).astype("float32")
    trained = decide.Trained.of(model, [9, 5, 1])
    scores = decide.decided("tau-normalisation:1", trained, np.zeros(5, int), model.predict(x, verbose=0)).scores
    np.testing.assert_allclose(scores, x @ (kernel / np.linalg.norm(kernel, axis=0)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_a_weakest_decision_changes_nothing(scale):
    trained = decide.Trained(scale, COUNTS, KERNEL, np.zeros(3))
    bare = decide.layer("none", trained)
    np.testing.assert_array_equal(bare.scores(LOGITS), scale * LOGITS)
    for spec in ("logit-adjustment:0", "tau-normalisation:0", "temperature:1"):
        np.testing.assert_allclose(decide.layer(spec, trained).scores(LOGITS), scale * LOGITS, rtol=1e-12)
    for spec in ("logit-adjustment:1", "tau-normalisation:1", "temperature:2"):
        assert not np.allclose(decide.layer(spec, trained).scores(LOGITS), scale * LOGITS)


def test_a_scale_may_be_a_whole_number():
    for spec in ("logit-adjustment:1", "tau-normalisation:1", "temperature:2"):
        whole, real = (decide.layer(spec, decide.Trained(scale, COUNTS, KERNEL, BIAS)) for scale in (2, 2.0))
        np.testing.assert_array_equal(whole.scores(LOGITS), real.scores(LOGITS))


@pytest.mark.parametrize("spec", ["logit-adjustment:1.5", "tau-normalisation:0.7", "temperature:3"])
def test_the_layer_gives_the_softmax_of_the_scores(spec):
    layer = decide.layer(spec, TRAINED)
    expected = softmax(layer.scores(LOGITS))
    assert_close(layer(ops.convert_to_tensor(LOGITS.astype("float32"))), expected, 1e-5)
    copy = Probabilities.from_config(layer.get_config())
    np.testing.assert_array_equal(copy.of_array(LOGITS), layer.of_array(LOGITS))
    np.testing.assert_allclose(layer.of_array(LOGITS), expected, rtol=1e-12)


def recall(scores):
    right = scores.argmax(axis=1) == LABELS
    return np.mean([right[c == LABELS].mean() for c in range(3)])


def test_a_strength_is_the_weakest_of_the_best():
    spec = decide.fit("logit-adjustment", TRAINED, LABELS, LOGITS)
    strength = decide.parse(spec)[1]
    recalls = {i / 10: recall(LOGITS - i / 10 * np.log(np.array(COUNTS) / 555)) for i in range(41)}
    assert recalls[strength] == pytest.approx(max(recalls.values()))
    assert all(value < recalls[strength] - 1e-12 for tau, value in recalls.items() if tau < strength)
    assert recalls[strength] > recalls[0.0]
    right = np.eye(3)[LABELS]
    assert decide.fit("logit-adjustment", TRAINED, LABELS, right * 100) == "logit-adjustment:0.0"
    sharp = decide.fit("temperature", TRAINED, LABELS, 7 * (LOGITS - np.log(COUNTS)))
    assert decide.parse(sharp)[1] > 2
    assert decide.fit("temperature:2", TRAINED, LABELS, LOGITS) == "temperature:2"


def test_images_are_decided_by_the_other_half():
    """Of a strength that is fitted on them; one that is given is that of all."""
    found = decide.decided("logit-adjustment", TRAINED, LABELS, LOGITS)
    assert found.fitted
    assert found.probabilistic
    offsets = np.unique((found.scores - LOGITS).round(6), axis=0)
    assert 1 <= len(offsets) <= 2
    given = decide.decided("logit-adjustment:1", TRAINED, LABELS, LOGITS)
    assert not given.fitted
    np.testing.assert_allclose(given.scores, logit_adjustment(LOGITS, COUNTS))
    marked = LABELS.copy()
    odd = np.arange(120) % 2 == 0
    marked[odd] = (marked[odd] + 1) % 3  # an image's own label has no part in its scores

    def pair(labels):
        return decide.decided("temperature", TRAINED, labels, LOGITS).scores

    assert not np.allclose(pair(LABELS), pair(marked))


def test_a_hinge_has_probabilities_at_a_temperature():
    hinge = decide.Trained(1.0, COUNTS, probabilistic=False)
    assert not decide.decided("none", hinge, LABELS, LOGITS).probabilistic
    assert decide.decided("temperature", hinge, LABELS, LOGITS).probabilistic
    with pytest.raises(ValueError, match="Take temperature"):
        decide.layer("logit-adjustment:1", hinge)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("logit-adjustmant", "Did you mean 'logit-adjustment'"),
        ("logit-adjustment:x", "logit-adjustment:NUMBER"),
        ("logit-adjustment:-1", "`decide` must be"),
        ("logit-adjustment:nan", "`decide` must be"),
        ("temperature:0", "`decide` must be"),
        ("none:1", "no strength"),
        ("tau-normalisation:11", "`decide` must be"),
        (3, "decide"),
    ],
)
def test_what_is_no_decision_is_refused(spec, said):
    with pytest.raises(ValueError, match=said):
        decide.parse(spec)


@pytest.mark.parametrize(
    ("spec", "changes", "said"),
    [
        ("logit-adjustment", {}, "none are held out: give a strength"),
        ("tau-normalisation:1", {"head": "cosine"}, "needs a dense head"),
        ("logit-adjustment:1", {"probabilistic": False}, "hinge"),
        ("temperature:1", {"activation": "sigmoid"}, "sigmoid"),
    ],
)
def test_what_a_run_cannot_have_is_refused(spec, changes, said):
    form = {"head": "dense", "probabilistic": True, "activation": "softmax", "holdout": 0}
    decide.check("none", **form | changes)
    with pytest.raises(ValueError, match=said):
        decide.check(spec, **form | changes)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: logit_adjustment(LOGITS, [1, 2]), "one count for each logit"),
        (lambda: logit_adjustment(LOGITS, COUNTS, -1), "`tau` must be"),
        (lambda: tau_normalisation(np.ones(3)), "`kernel` must have shape"),
        (lambda: tau_normalisation(np.ones((3, 3)), np.nan), "`tau` must be"),
        (lambda: decide.layer("temperature", TRAINED), "must have a strength"),
        (lambda: Probabilities(offset=[np.inf, 1.0]), "`offset` must be"),
    ],
)
def test_bad_arguments(call, said):
    with pytest.raises(ValueError, match=said):
        call()


def test_tensors_keep_their_type():
    found = logit_adjustment(ops.convert_to_tensor(LOGITS.astype("float32")), COUNTS)
    assert to_numpy(found).dtype == np.float32


def test_tensors_of_whole_numbers_are_adjusted_as_arrays_are():
    logits = np.array([[2, 1, 0]], "int32")
    assert_close(
        logit_adjustment(ops.convert_to_tensor(logits), [80, 15, 5]), logit_adjustment(logits, [80, 15, 5]), 1e-6
    )


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A run of cross-entropy whose adjustment is fitted on its held-out images."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    config = Config(
        dataset="digits", ratio=20, depth=8, epochs=3, method="erm", holdout=6, decide="logit-adjustment", input=INPUT
    )
    return folder, experiment.run(config, folder)


def test_a_run_is_evaluated_as_it_decides(run_folder, capsys):
    folder, metrics = run_folder
    decision = metrics["decision"]
    assert decision["fitted"]
    tau = decide.parse(decision["decide"])[1]
    assert "decided by logit-adjustment" in result.summary(metrics)
    assert decision["decide"] in (folder / "index.html").read_text()
    kept = predictions.read(folder, 10)
    assert np.mean(kept.predicted != kept.labels) == pytest.approx(metrics["error"])
    assert kept.confidence.mean() == pytest.approx(metrics["mean_confidence"], abs=1e-4)

    found = evaluate.evaluate(folder, draws=0)
    assert found["decide"] == decision["decide"]
    assert 1 - found["value"]["top_1_accuracy"] == pytest.approx(metrics["error"])
    bare = evaluate.evaluate(folder, draws=0, decide_by="none")
    assert 1 - bare["value"]["top_1_accuracy"] == pytest.approx(decision["error_without"])
    given = evaluate.evaluate(folder, draws=0, decide_by="logit-adjustment:3")
    assert given["value"] != bare["value"]

    model = RunModel.load(folder)
    images = load("digits").test_images[:20]
    expected = logit_adjustment(model.logits(images), metrics["cls_counts"], tau)
    np.testing.assert_allclose(model.probabilities(images), softmax(expected), rtol=1e-6)
    fitted = RunModel.load(folder, "temperature").decide
    assert fitted.startswith("temperature:")
    assert evaluate.main([str(folder), "--decide", "tau-normalisation", "--draws", "0"]) == 0
    assert "decided by tau-normalisation:" in capsys.readouterr().out
    assert evaluate.main([str(folder), "--decide", "tau-normalization"]) == 2
    assert "Did you mean 'tau-normalisation'" in capsys.readouterr().err


def test_a_strength_is_fitted_once_on_images_that_are_opened_once(run_folder, monkeypatch):
    folder, opened, fitted = run_folder[0], [], []
    own_images, fit = run_model.own_images, decide.fit
    monkeypatch.setattr(run_model, "own_images", lambda *a, **k: opened.append(0) or own_images(*a, **k))
    monkeypatch.setattr(decide, "fit", lambda *a: fitted.append(len(a[2])) or fit(*a))
    found = evaluate.evaluate(folder, draws=0, decide_by="temperature")
    assert found["decide"] == RunModel.load(folder, "temperature").decide
    assert len(opened) == 2  # of each of the two
    assert fitted == [60, 30, 30, 60]  # all of them, and each half for the other


def test_a_run_is_exported_as_it_decides(run_folder, tmp_path):
    tf = pytest.importorskip("tensorflow", reason="a SavedModel is TensorFlow's")
    folder, metrics = run_folder
    from tf_mmloss.cli import export

    export.export(folder, tmp_path / "saved", decide_by="logit-adjustment:2.5")
    served = tf.saved_model.load(str(tmp_path / "saved")).signatures["serving_default"]
    images = load("digits").test_images[:50]
    probabilities = served(tf.constant(images))["probabilities"].numpy()
    np.testing.assert_allclose(
        probabilities, RunModel.load(folder, "logit-adjustment:2.5").probabilities(images), atol=1e-5
    )
    card = (tmp_path / "saved" / "README.md").read_text()
    own = metrics["decision"]["decide"]
    assert f"decision: logit-adjustment:2.5; the results below are of another one, {own}" in card


def test_a_config_names_its_decision():
    config = resolve(Config(dataset="digits", method="erm", decide="temperature:2"))
    assert config.values()["decide"] == "temperature:2"
    for changes, said in (
        ({"decide": "logit-adjustment"}, "none are held out"),
        ({"decide": "tau-normalisation:1", "method": "mm-drw"}, "needs a dense head"),
        ({"decide": "logit-adjustment:1", "method": "hg-drs"}, "hinge"),
    ):
        with pytest.raises(ValueError, match=said):
            resolve(Config(**{"dataset": "digits", "method": "erm", **changes}))
