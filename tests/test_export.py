"""SavedModels: the command on a run folder, and what the library refuses."""

import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

import tf_mmloss
from tf_mmloss import export as library
from tf_mmloss.cli import export
from tf_mmloss.datasets import load
from tf_mmloss.runs import folder as run_folder
from tf_mmloss.train import experiment
from tf_mmloss.train.presets import Config

tf = pytest.importorskip("tensorflow", reason="a SavedModel is TensorFlow's")

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def exported(request, tmp_path_factory):
    root = tmp_path_factory.mktemp("export")
    config = Config(dataset="digits", ratio=20, depth=8, epochs=3, precision=request.param)
    metrics = experiment.run(config, root / "run")
    assert export.main([str(root / "run"), "--out", str(root / "saved")]) == 0
    return root, metrics


def test_saved_model_takes_raw_images_and_returns_probabilities(exported):
    root, metrics = exported
    data = load("digits")
    served = tf.saved_model.load(str(root / "saved")).signatures["serving_default"]
    probabilities = served(tf.constant(data.test_images))["probabilities"].numpy()
    assert probabilities.shape == (500, 10)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(-1), 1, rtol=1e-5)
    trained = keras.models.load_model(root / "run" / "last.keras")
    cosines = trained.predict(tf_mmloss.normalization(data.mean, data.std)(data.test_images), verbose=0)
    exponent = np.exp(10.0 * cosines)  # MM's scale
    tolerance = 1e-5 if trained.get_layer("stem_conv").compute_dtype == "float32" else 0.1
    np.testing.assert_allclose(probabilities, exponent / exponent.sum(-1, keepdims=True), atol=tolerance)
    error = np.mean(probabilities.argmax(-1) != data.test_labels)
    assert error == pytest.approx(metrics["error"], abs=0.0 if tolerance < 0.1 else 0.02)


def test_saved_model_names_its_classes_and_refuses_floats(exported):
    root, _ = exported
    loaded = tf.saved_model.load(str(root / "saved"))
    assert [name.decode() for name in loaded.class_names()["class_names"].numpy()] == [str(d) for d in range(10)]
    metadata = json.loads((root / "saved" / "metadata.json").read_text())
    assert metadata["class_names"] == [str(digit) for digit in range(10)]
    assert metadata["scale"] == 10.0
    assert metadata["method"] == "mm-drw"
    with pytest.raises((TypeError, ValueError, tf.errors.InvalidArgumentError)):
        loaded.signatures["serving_default"](tf.zeros((1, 8, 8, 1), tf.float32))


def test_model_card_tells_what_the_run_folder_does(exported):
    root, metrics = exported
    card = (root / "saved" / "README.md").read_text()
    assert card.startswith("# MM-DRW on digits, long-tailed 20:1\n")
    assert "MaxMarginLoss(scale=10.0, delta_neg=0.6, beta=1.5, margin_space='cosine')" in card
    assert f"error of the last epoch {metrics['error']:.2%}" in card
    assert f"calibration error {metrics['calibration_error']:.2%}" in card
    assert f"| 9 | 6 | {metrics['per_class_error'][9]:.2%} |" in card
    assert metrics["checksum"] in card
    assert "CC BY 4.0" in card
    data = load("digits")
    served = tf.saved_model.load(str(root / "saved")).signatures["serving_default"]
    probabilities = served(tf.constant(data.test_images))["probabilities"].numpy()
    tolerance = 1e-4 if "trained in float32" in card else 0.03
    assert tf_mmloss.metrics.expected_calibration_error(data.test_labels, probabilities) == pytest.approx(
        metrics["calibration_error"], abs=tolerance
    )


def test_export_overwrites_nothing(exported, capsys):
    root, _ = exported
    before = (root / "saved" / "saved_model.pb").read_bytes()
    assert export.main([str(root / "run"), "--out", str(root / "saved")]) == 2
    assert "is there already" in capsys.readouterr().err
    assert (root / "saved" / "saved_model.pb").read_bytes() == before


def test_export_of_no_run_names_the_folder(tmp_path, capsys):
    assert export.main([str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err


def test_a_run_of_another_version_says_what_it_lacks(exported, tmp_path, capsys):
    root, metrics = exported
    (tmp_path / "config.json").write_text((root / "run" / "config.json").read_text())
    older = {name: value for name, value in metrics.items() if name not in ("calibration_error", "mean_confidence")}
    (tmp_path / "metrics.json").write_text(json.dumps(older))
    assert export.main([str(tmp_path), "--out", str(tmp_path / "saved")]) == 2
    assert "another version: it has no calibration_error, mean_confidence." in capsys.readouterr().err
    assert not (tmp_path / "saved").exists()


def test_weights_that_the_metrics_are_not_of_are_refused(exported, tmp_path, capsys):
    root, metrics = exported
    shutil.copytree(root / "run", tmp_path / "run")
    (tmp_path / "run" / "metrics.json").write_text(json.dumps({**metrics, "checksum": "0" * 64}))
    assert export.main([str(tmp_path / "run"), "--out", str(tmp_path / "saved")]) == 2
    assert "other weights than those that metrics.json is of" in capsys.readouterr().err
    assert not (tmp_path / "saved").exists()


@pytest.fixture
def small():
    return tf_mmloss.resnet(8, 3, input_shape=(8, 8, 1)), tf_mmloss.normalization((0.5,), (0.5,))


def test_wrong_names_and_scale_are_refused(small, tmp_path):
    model, normalize = small
    with pytest.raises(ValueError, match="`class_names` must have 3 names"):
        library.export_saved_model(model, tmp_path / "m", normalize=normalize, scale=1.0, class_names=["a", "b"])
    with pytest.raises(ValueError, match="`scale` must be"):
        library.export_saved_model(model, tmp_path / "m", normalize=normalize, scale=0.0, class_names=["a", "b", "c"])
    assert not list(tmp_path.iterdir())


def test_a_model_that_differs_after_reload_is_not_kept(small, tmp_path, monkeypatch):
    model, normalize = small
    monkeypatch.setattr(
        library, "_RELOAD", library._RELOAD.replace('served["probabilities"]', 'served["probabilities"] + 0.1')
    )
    with pytest.raises(library.ExportError, match="differs"):
        library.export_saved_model(model, tmp_path / "m", normalize=normalize, scale=1.0, class_names=["a", "b", "c"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("saved", sorted((ROOT / "saved_models").iterdir()), ids=lambda path: path.name)
def test_models_in_the_repository_are_of_their_run_folders(saved):
    run = ROOT / "results" / saved.name
    config, metrics = run_folder.read_config(run), run_folder.read_json(run, "metrics.json")
    environment = run_folder.read_json(run, "environment.json")
    assert (saved / "README.md").read_text() == export.card(config, metrics, environment)
    metadata = json.loads((saved / "metadata.json").read_text())
    for name in ("cls_counts", "class_names", "per_class_error", "checksum"):
        assert metadata[name] == metrics[name], name
    served = tf.saved_model.load(str(saved)).signatures["serving_default"]
    if config.dataset != "digits":
        noise = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
        assert served(tf.constant(noise))["probabilities"].shape == (2, len(metrics["class_names"]))
        return
    data = load("digits")
    predictions = served(tf.constant(data.test_images))["probabilities"].numpy().argmax(-1)
    assert np.mean(predictions != data.test_labels) == pytest.approx(metrics["error"])
