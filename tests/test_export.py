"""Exported models: the command on a run folder, the formats, and what the library refuses."""

import concurrent.futures
import dataclasses
import io
import json
import os
import re
import shutil
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from helpers import copied_at_renames, files_of
from test_report import write_run

import tf_mmloss
from tf_mmloss import export as library
from tf_mmloss.cli import export
from tf_mmloss.datasets import load
from tf_mmloss.methods import METHODS, Method, Stage
from tf_mmloss.runs import folder as run_folder
from tf_mmloss.runs import saved
from tf_mmloss.runs.model import RunModel
from tf_mmloss.runs.saved import load as load_saved
from tf_mmloss.train import experiment, inputs, result
from tf_mmloss.train.config import Config
from tf_mmloss.train.presets import RECIPES

tf = pytest.importorskip("tensorflow", reason="a SavedModel is TensorFlow's")

ROOT = Path(__file__).parents[1]
NAMES = ["a", "b", "c"]
SOFTMAX = tf_mmloss.Probabilities()


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
    if keras.backend.backend() == "tensorflow":
        assert served(tf.constant(data.test_images[:0]))["probabilities"].shape == (0, 10)
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
    assert "MaxMarginLoss(scale=10.0, delta_neg=0.6, beta=1.5, margin_space='logit')" in card
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
    with pytest.raises(run_folder.RunFolderError, match="other weights than those"):  # as predict and evaluate do
        RunModel.load(tmp_path / "run")


@pytest.fixture
def small():
    return tf_mmloss.resnet(8, 3, input_shape=(8, 8, 1)), tf_mmloss.normalization((0.5,), (0.5,))


def test_wrong_names_and_probabilities_are_refused(small, tmp_path):
    model, normalize = small
    with pytest.raises(ValueError, match="`class_names` must have 3 names"):
        library.export(model, tmp_path / "m", normalize=normalize, probabilities=SOFTMAX, class_names=["a", "b"])
    with pytest.raises(ValueError, match="`probabilities` must be a layer"):
        library.export(model, tmp_path / "m", normalize=normalize, probabilities=1.0, class_names=["a", "b", "c"])
    assert not list(tmp_path.iterdir())


def test_a_model_that_differs_after_reload_is_not_kept(small, tmp_path, monkeypatch):
    model, normalize = small
    changed = library._RELOAD["savedmodel"].replace("served=served", "served=served + 0.1")
    monkeypatch.setitem(library._RELOAD, "savedmodel", changed)
    with pytest.raises(library.ExportError, match="differs"):
        library.export(model, tmp_path / "m", normalize=normalize, probabilities=SOFTMAX, class_names=["a", "b", "c"])
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_an_error_that_can_be_shown(small, tmp_path, monkeypatch):
    def full(*_, **__):
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    monkeypatch.setattr(type(keras.export.ExportArchive()), "write_out", full)
    model, normalize = small
    with pytest.raises(OSError, match="cannot be written: No space left on device"):
        library.export(model, tmp_path / "m", normalize=normalize, probabilities=SOFTMAX, class_names=["a", "b", "c"])
    assert not list(tmp_path.iterdir())


def test_metadata_and_names_of_numpy_beside_traps(small, tmp_path, monkeypatch):
    """Also: `~` is the user's home, and the check imports nothing of the current folder."""
    model, normalize = small
    for name in ("numpy", "random", "tensorflow", "sitecustomize", "json"):
        (tmp_path / f"{name}.py").write_text("import pathlib; pathlib.Path(__file__).with_suffix('.ran').touch()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    metadata = {"counts": np.array([3, 2, 1]), "error": np.float32(0.5), "none": np.nan, 1: (np.int64(2), Path("x"))}
    library.export(
        model,
        "~/m",
        normalize=normalize,
        probabilities=SOFTMAX,
        class_names=np.arange(3),
        metadata=metadata,
        card="# é",
    )
    assert json.loads((tmp_path / "m" / "metadata.json").read_text()) == {
        "class_names": ["0", "1", "2"],
        "scale": 1.0,
        "counts": [3, 2, 1],
        "error": 0.5,
        "none": None,
        "1": [2, "x"],
    }
    assert not list(tmp_path.glob("*.ran"))
    assert not list(tmp_path.glob(".*.export-partial"))


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow's convolution of no images is wrong")
def test_no_images(tmp_path):
    model, normalize = tf_mmloss.resnet(8, 3, input_shape=(8, 8, 3)), tf_mmloss.normalization((0.5,) * 3, (0.5,) * 3)
    library.export(model, tmp_path / "m", normalize=normalize, probabilities=SOFTMAX, class_names=NAMES)
    served = tf.saved_model.load(str(tmp_path / "m")).signatures["serving_default"]
    assert served(tf.zeros((0, 8, 8, 3), tf.uint8))["probabilities"].shape == (0, 3)


def test_a_model_of_floats_keeps_its_input_and_a_hinge_has_scores(tmp_path):
    rows = keras.Input((5,))
    model = keras.Model(rows, keras.layers.Dense(3)(rows))
    library.export(model, tmp_path / "m", probabilities=None, class_names=NAMES)
    served = tf.saved_model.load(str(tmp_path / "m")).signatures["serving_default"]
    x = np.random.default_rng(1).normal(size=(4, 5)).astype("float32")
    (name,) = served(tf.constant(x))
    assert name == "scores"
    np.testing.assert_allclose(served(tf.constant(x))["scores"], model.predict(x, verbose=0), rtol=1e-5, atol=1e-6)
    assert json.loads((tmp_path / "m" / "metadata.json").read_text())["scale"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"class_names": "abc"}, "`class_names` must be a list of names"),
        ({"class_names": ["a", "b", None]}, "`class_names` must be names or whole numbers. Received: None among them"),
        ({"class_names": ["a", "b", "\ud800"]}, "`class_names` must be names"),
        ({"metadata": {"model": object()}}, "`metadata['model']` must be what JSON can hold"),
        ({"metadata": {"deep": {1, b"x"}}}, "`metadata"),
        ({"metadata": [1]}, "`metadata` must be a dictionary"),
        ({"metadata": {"class_names": ["c", "b", "a"]}}, "`metadata` must leave class_names and scale to the export"),
        ({"normalize": 1}, "`normalize` must be a function"),
        ({"card": "\ud800"}, "`card` must be"),
        ({"images": np.zeros((4, 9, 9, 1), np.uint8)}, "`images` must be uint8 of shape (None, 8, 8, 1)"),
        ({"images": np.zeros((4, 8, 8, 1))}, "`images` must be uint8"),
        ({"folder": ""}, "`folder` must be a path"),
        ({"format": "onxx"}, "`format` must be one of savedmodel, onnx, litert"),
        ({"model": keras.Sequential([keras.layers.Dense(3)])}, "`model` must be a built Keras model"),
    ],
)
def test_mistakes_are_refused_before_anything_is_written(arguments, message, small, tmp_path, monkeypatch):
    model, normalize = small
    given = {
        "model": model,
        "folder": tmp_path / "m",
        "normalize": normalize,
        "probabilities": SOFTMAX,
        "class_names": NAMES,
    }
    with pytest.raises(ValueError, match=re.escape(message)):
        library.export(**given | arguments)
    assert not list(tmp_path.iterdir())


def test_what_a_killed_export_left_is_removed_and_nothing_else(small, tmp_path, monkeypatch):
    model, normalize = small
    for name in ("m", "dead"):  # of this folder, and of another one
        (tmp_path / f".{name}.export-partial" / "model").mkdir(parents=True)
        (tmp_path / f".{name}.export-partial" / ".lock").touch()
    kept = [tmp_path / f".{name}.export-partial" for name in ("foreign", "unlocked", "link", "file", "alive")]
    foreign, unlocked, link, file, alive = kept
    elsewhere = tmp_path / "elsewhere"
    for folder in (foreign, unlocked, elsewhere, alive):
        (folder / "model").mkdir(parents=True)
    for folder in (foreign, elsewhere):
        (folder / ".lock").touch()
    (foreign / "thesis.tex").touch()
    link.symlink_to(elsewhere)
    file.touch()
    monkeypatch.setattr(library, "_check", lambda *_: 0.0)
    with run_folder.locked(alive):
        library.export(model, tmp_path / "m", normalize=normalize, probabilities=SOFTMAX, class_names=NAMES)
        assert sorted(tmp_path.iterdir()) == sorted([*kept, elsewhere, tmp_path / "m"])
        with pytest.raises(ValueError, match="another process exports"):
            library.export(model, tmp_path / "alive", normalize=normalize, probabilities=SOFTMAX, class_names=NAMES)
    assert (elsewhere / "model").is_dir()
    assert (foreign / "thesis.tex").exists()


def test_an_export_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    rows = keras.Input((5,))
    model = keras.Model(rows, keras.layers.Dense(3)(rows))
    synced, moved, fsync, rename_files = set(), set(), os.fsync, os.rename

    def record(file):
        synced.add(os.fstat(file).st_ino)
        fsync(file)

    def rename(source, target):
        moved.update(path for path in (source, *source.rglob("*")) if path.stat().st_ino not in synced)
        rename_files(source, target)

    monkeypatch.setattr(library, "_check", lambda *_: 0.0)
    monkeypatch.setattr(os, "fsync", record)
    monkeypatch.setattr(os, "rename", rename)
    library.export(model, tmp_path / "m", probabilities=None, class_names=NAMES, card="# m")
    assert (tmp_path / "m" / "saved_model.pb").exists()
    assert moved == set()


def test_a_killed_export_leaves_nothing_hidden_and_a_repeat_gives_the_same_files(tmp_path, monkeypatch):
    rows = keras.Input((5,))
    model = keras.Model(rows, keras.layers.Dense(3)(rows))
    monkeypatch.setattr(library, "_check", lambda *_: 0.0)

    def export_to(folder):
        library.export(model, folder / "m", probabilities=None, class_names=NAMES, card="# m")

    with copied_at_renames(tmp_path / "whole", tmp_path, monkeypatch) as killed:
        export_to(tmp_path / "whole")
    before, after = killed
    assert [path.name for path in before.iterdir()] == [".m.export-partial"]
    assert {path.name for path in after.iterdir()} == {".m.export-partial", "m"}
    export_to(before)
    with pytest.raises(FileExistsError, match="is there already"):
        export_to(after)
    expected = files_of(tmp_path / "whole")
    assert files_of(after) == expected
    assert [path.name for path in before.iterdir()] == [path.name for path in after.iterdir()] == ["m"]
    found = files_of(before)
    assert list(found) == list(expected)
    # TensorFlow draws names for the graph's functions, and the fingerprint is of the graph.
    assert {name for name in found if found[name] != expected[name]} <= {"m/saved_model.pb", "m/fingerprint.pb"}
    assert "m/variables/variables.data-00000-of-00001" in found
    loaded = [tf.saved_model.load(str(place / "m")) for place in (after, before)]
    first, again = (model.signatures["serving_default"](tf.ones((2, 5)))["scores"].numpy() for model in loaded)
    assert (first == again).all()


def test_the_card_states_no_licence_and_takes_no_markup_of_names(exported):
    root, metrics = exported
    run = root / "run"
    config, environment = run_folder.read_config(run), run_folder.read_json(run, "environment.json")
    names = ["a|b", "a\nb", "<b>x</b>", "**bold**", "[x](y)", "snake_case", "_x_", "é", "`c`", "\\|"]
    card = export.card(
        config, {**metrics, "class_names": names, "per_class_error": [None] * 10}, environment, "a\n# <i>"
    )
    assert r"- a # \<i\>" in card
    assert "No licence of the weights is stated." in card
    assert "augment" not in card
    strong = dataclasses.replace(config, schedule="cosine", augment="autoaugment,cutout")
    strong_card = export.card(strong, metrics, environment, "")
    assert "in float32\n- schedule: cosine\n- augment: autoaugment,cutout\n- commit" in strong_card
    assert "MIT" not in card
    cells = [line.split(" | ")[0] for line in card.splitlines() if line.endswith("| – |")]
    assert cells == [
        r"| a\|b",
        "| a b",
        r"| \<b\>x\</b\>",
        r"| \*\*bold\*\*",
        r"| \[x\](y)",
        "| snake_case",
        r"| \_x\_",
        "| é",
        r"| \`c\`",
        r"| \\\|",
    ]


def test_a_hinge_of_the_last_stage_has_scores(tmp_path, monkeypatch):
    """Whatever the loss of the stages before."""
    stages = (Stage(), Stage(0.5, trains="head", loss="HingeLoss"))
    monkeypatch.setitem(METHODS, "ending", Method("ending", "CrossEntropyLoss", "a test", stages=stages))
    run = write_run(
        tmp_path, method="ending", metrics={"checksum": "0", "evaluated_on": "test split", "mean": [0.5], "std": [0.2]}
    )
    content = (run_folder.read_json(run, name) for name in ("metrics.json", "environment.json"))
    assert "A hinge loss has no\nprobabilities" in export.card(run_folder.read_config(run), *content, "")
    with pytest.raises(
        run_folder.RunFolderError, match=r"has no model, it has no last.keras"
    ):  # and not: no calibration_error
        export.export(run, tmp_path / "out")


def test_a_hinge_run_is_exported_without_probabilities(tmp_path, capsys):
    config = Config(dataset="digits", ratio=20, depth=8, epochs=1, method="hg-drs")
    metrics = experiment.run(config, tmp_path / "run")
    assert "mean_confidence" not in metrics
    assert "mean confidence" not in result.summary(metrics)
    assert export.main([str(tmp_path / "run"), "--out", str(tmp_path / "saved"), "--licence", "CC0"]) == 0
    served = tf.saved_model.load(str(tmp_path / "saved")).signatures["serving_default"]
    data = load("digits")
    scores = served(tf.constant(data.test_images))["scores"].numpy()
    assert np.mean(scores.argmax(-1) != data.test_labels) == pytest.approx(metrics["error"])
    assert np.abs(scores).max() <= 1 + 1e-6  # cosines
    card = (tmp_path / "saved" / "README.md").read_text()
    assert '["scores"]' in card
    assert "A hinge loss has no\nprobabilities" in card
    assert "The weights are under CC0." in card
    model = RunModel.load(tmp_path / "run")
    np.testing.assert_allclose(model.logits(data.test_images), scores, atol=1e-5)
    with pytest.raises(ValueError, match="method hg-drs has no probabilities"):
        model.probabilities(data.test_images)


def rewritten(path, member, change):
    """Change a member of a `.keras` file."""
    with zipfile.ZipFile(path) as archive:
        contents = {info.filename: archive.read(info) for info in archive.infolist()}
    contents[member] = change(contents[member])
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)


def huge_weights(content):
    with io.BytesIO() as stored:
        with h5py.File(stored, "w") as file:
            file.create_dataset("kernel", (10**6, 10**4), "float32")  # 40 GB, none of it stored
        return stored.getvalue()


def linked_weights(content):
    with io.BytesIO() as stored:
        with h5py.File(stored, "w") as file:
            file["layers"] = h5py.ExternalLink("/etc/passwd", "/")
        return stored.getvalue()


def fifo(path):
    path.unlink()
    os.mkfifo(path)


def link(path):
    path.rename(path.with_name("elsewhere.keras"))
    path.symlink_to("elsewhere.keras")


def bomb(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("config.json", "metadata.json", "model.weights.h5"):
            archive.writestr(name, bytes(10**7))


def config(old, new):
    return lambda path: rewritten(path, "config.json", lambda content: replaced(content, old, new))


def replaced(content, old, new):
    assert old in content
    return content.replace(old, new)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (fifo, "must be a regular file. Received: a pipe"),
        (link, "Received: a link"),
        (lambda path: path.write_bytes(path.read_bytes()[:1000]), "not a zip file"),
        (lambda path: path.write_bytes(b""), "not a zip file"),
        (lambda path: path.unlink(), "it has no last.keras"),
        (bomb, "is compressed"),
        (
            config(b'"module": "keras.layers", "class_name": "ReLU"', b'"module": "os", "class_name": "system"'),
            "os.sys",
        ),
        (config(b'"class_name": "ReLU"', b'"class_name": "Lambda"'), "config.json has a Lambda"),
        (config(b'"registered_name": "tf_mmloss>SGD"', b'"registered_name": "evil>SGD"'), "tf_mmloss.optimizers.SGD"),
        (config(b'"filters": 16', b'"filters": 1000000000'), "more weights than model.weights.h5"),
        (config(b'"filters": 16', b'"filters": 1000000000.0'), "is refused"),
        (config(b'"units": ', b'"units": 1000'), "more weights than model.weights.h5"),
        (config(b"{", b"[" * 10**5 + b"{"), "is refused"),
        (lambda path: rewritten(path, "config.json", lambda content: b"{}"), "is refused"),
        (lambda path: rewritten(path, "model.weights.h5", huge_weights), "more than the file holds"),
        (lambda path: rewritten(path, "model.weights.h5", linked_weights), "has a link"),
        (lambda path: rewritten(path, "model.weights.h5", lambda content: content[: len(content) // 2]), "is refused"),
    ],
)
def test_a_hostile_or_damaged_model_is_refused_in_one_line(damage, message, exported, tmp_path, capsys):
    root, _ = exported
    shutil.copytree(root / "run", tmp_path / "run")
    damage(tmp_path / "run" / "last.keras")
    assert export.main([str(tmp_path / "run"), "--out", str(tmp_path / "saved")]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert "last.keras" in said
    assert said.count("\n") == 1
    assert not (tmp_path / "saved").exists()


def test_sizes_that_are_large_in_their_product_alone_are_refused(tmp_path):
    layers = [keras.layers.Dense(2000, name="wide"), keras.layers.Dense(3, name="head")]
    keras.Sequential([keras.Input((4,)), *layers]).save(tmp_path / "last.keras")
    assert load_saved(tmp_path / "last.keras").count_params() == 4 * 2000 + 2000 + 2000 * 3 + 3
    config(b'"units": 3', b'"units": 2000')(tmp_path / "last.keras")
    with pytest.raises(run_folder.RunFolderError, match=r"more weights than model\.weights\.h5"):
        load_saved(tmp_path / "last.keras")
    assert keras.layers.Dense(2000)(np.zeros((1, 2000), "float32")).shape == (1, 2000)  # Keras is as it was


def test_layers_of_another_thread_are_not_counted():
    def build(units):
        return keras.layers.Dense(units)(np.zeros((1, 2), "float32")).shape

    with concurrent.futures.ThreadPoolExecutor(1) as other, saved._at_most(9):
        assert build(3) == (1, 3)  # 2 x 3 + 3
        assert other.submit(build, 5).result() == (1, 5)
    with pytest.raises(ValueError, match="more weights"), saved._at_most(8):
        build(3)


def test_outputs_that_would_fill_the_memory_are_refused(tmp_path):
    images = keras.Input((8, 8, 1))
    grown = keras.layers.UpSampling2D(7, name="grown")(images)
    keras.Model(images, keras.layers.GlobalAveragePooling2D()(grown)).save(tmp_path / "last.keras")
    load_saved(tmp_path / "last.keras")
    config(b'"size": [7, 7]', b'"size": [100000, 100000]')(tmp_path / "last.keras")
    with pytest.raises(run_folder.RunFolderError, match="grown has 640,000,000,000 values of one image"):
        load_saved(tmp_path / "last.keras")


def test_a_run_of_a_yes_or_no_question_for_each_class_is_exported(tmp_path):
    """Its probabilities do not sum to 1, so its result has no calibration error."""
    run, out = tmp_path / "run", tmp_path / "saved"
    experiment.run(Config(dataset="digits", ratio=20, depth=8, epochs=1, method="cb-sigmoid"), run)
    assert export.main([str(run), "--out", str(out)]) == 0
    images = load("digits").test_images[:20]
    served = tf.saved_model.load(str(out)).signatures["serving_default"](tf.constant(images))["probabilities"].numpy()
    np.testing.assert_allclose(served, 1 / (1 + np.exp(-RunModel.load(run).scores(images))), atol=1e-5)
    assert "they do not sum to 1" in (out / "README.md").read_text()


@pytest.mark.parametrize("saved", sorted((ROOT / "saved_models").iterdir()), ids=lambda path: path.name)
def test_models_in_the_repository_are_of_their_run_folders(saved):
    run = ROOT / "results" / saved.name
    config, metrics = run_folder.read_config(run), run_folder.read_json(run, "metrics.json")
    environment = run_folder.read_json(run, "environment.json")
    origin, licence = RECIPES[config.dataset].origin, "this project's licence (MIT)"
    assert (saved / "README.md").read_text() == export.card(config, metrics, environment, origin, licence)
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


@pytest.mark.parametrize("file", sorted((ROOT / "results").glob("*/last.keras")), ids=lambda path: path.parent.name)
def test_networks_in_the_repository_are_of_their_run_folders(file):
    model = RunModel.load(file.parent)  # which compares the weights with the checksum of the run
    assert file.stat().st_size < 2**21  # without the state of the optimizer
    noise = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    assert model.logits(noise).shape == (2, len(model.class_names))


needs_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="ONNX and LiteRT are converted from TensorFlow"
)
FILES = {"onnx": "model.onnx", "litert": "model.tflite"}


def runner(file):
    """An exported file as a function of `images`, by name of its output."""
    if file.suffix == ".onnx":
        session = pytest.importorskip("onnxruntime").InferenceSession(str(file), providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        return lambda images: dict(zip(names, session.run(None, {"images": images}), strict=True))
    interpreter = pytest.importorskip("ai_edge_litert.interpreter").Interpreter(str(file))
    return lambda images: interpreter.get_signature_runner()(images=images)


def skip_without(format):
    for package in library._NEEDS[format]:
        pytest.importorskip(package, reason=f"export to {format} needs it")


@needs_tensorflow
@pytest.mark.parametrize("exported", ["float32"], indirect=True)
@pytest.mark.parametrize("format", FILES)
def test_a_run_in_other_formats_answers_as_its_model(format, exported, tmp_path, capsys):
    skip_without(format)
    root, _ = exported
    out = tmp_path / "saved"
    assert export.main([str(root / "run"), "--out", str(out), "--format", format]) == 0
    assert "on 64 images of the run's evaluation" in capsys.readouterr().out
    assert {p.name for p in out.iterdir()} == {FILES[format], "metadata.json", "README.md"}
    data = load("digits")
    run = runner(out / FILES[format])
    for images in (data.test_images, data.test_images[:1], *([data.test_images[:0]] if format == "onnx" else [])):
        (answers,) = run(images).items()
        assert answers[0] == "probabilities"
        assert answers[1].shape == (len(images), 10)
        assert answers[1].dtype == np.float32
    probabilities = run(data.test_images)["probabilities"]
    served = tf.saved_model.load(str(root / "saved")).signatures["serving_default"]
    expected = served(tf.constant(data.test_images))["probabilities"].numpy()
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    metadata = json.loads((out / "metadata.json").read_text())
    assert metadata["class_names"] == [str(digit) for digit in range(10)]
    assert FILES[format] in (out / "README.md").read_text()
    if format == "onnx":
        stored = pytest.importorskip("onnx").load(str(out / "model.onnx")).metadata_props
        assert json.loads({entry.key: entry.value for entry in stored}["class_names"]) == metadata["class_names"]


@needs_tensorflow
@pytest.mark.parametrize("format", FILES)
def test_tabular_floats_and_several_labels_in_other_formats(format, tmp_path):
    skip_without(format)
    rows = keras.Input((5,), name="a:b")
    normalized = keras.layers.Normalization(mean=np.arange(5.0), variance=np.arange(1.0, 6.0))(rows)
    model = keras.Model(rows, keras.layers.Dense(3)(normalized))
    layer = tf_mmloss.Probabilities.of(tf_mmloss.AsymmetricLoss(scale=2.0))
    library.export(model, tmp_path / "m", format=format, probabilities=layer, class_names=["é", "b c", "0"])
    x = np.random.default_rng(1).normal(size=(4, 5)).astype("float32")
    found = runner(tmp_path / "m" / FILES[format])(x)["probabilities"]
    expected = 1 / (1 + np.exp(-2 * model.predict(x, verbose=0).astype("float64")))
    np.testing.assert_allclose(found, expected, atol=1e-6)


@needs_tensorflow
def test_a_changed_or_unloadable_file_is_not_kept(tmp_path, monkeypatch):
    skip_without("onnx")
    rows = keras.Input((5,))
    model = keras.Model(rows, keras.layers.Dense(3)(rows))
    good = library._RELOAD["onnx"]
    for changed, message in (
        (good.replace("served=served", "served=served + 0.1"), "differs"),
        (good.replace("class_names=names", "class_names=names[::-1]"), "differs"),
        (good.replace("np.savez", "np.savezz"), "does not load in a new process"),
    ):
        assert changed != good
        monkeypatch.setitem(library._RELOAD, "onnx", changed)
        with pytest.raises(library.ExportError, match=message):
            library.export(model, tmp_path / "m", format="onnx", probabilities=None, class_names=NAMES)
    assert not list(tmp_path.iterdir())


@needs_tensorflow
def test_what_litert_does_not_have_is_refused(tmp_path):
    skip_without("litert")
    rows = keras.Input((5,))
    model = keras.Model(rows, keras.layers.Dense(3)(keras.ops.erfinv(rows)))
    with pytest.raises(library.ExportError, match="cannot be converted to litert"):
        library.export(model, tmp_path / "m", format="litert", probabilities=SOFTMAX, class_names=NAMES)
    assert not list(tmp_path.iterdir())


@needs_tensorflow
@pytest.mark.parametrize(("format", "package"), [("onnx", "tf2onnx"), ("litert", "ai_edge_litert")])
def test_a_missing_package_is_named_with_its_extra(format, package, tmp_path, capsys, monkeypatch):
    found = library.importlib.util.find_spec
    monkeypatch.setattr(library.importlib.util, "find_spec", lambda name: None if name == package else found(name))
    assert export.main([str(tmp_path), "--format", format]) == 2
    said = capsys.readouterr().err
    assert said == f'error: `format` {format} needs {package}: pip install "tf-mmloss[{format}]"\n'


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="TensorFlow has every format")
@pytest.mark.parametrize("format", FILES)
def test_other_backends_name_what_exports(format, tmp_path, capsys):
    assert export.main([str(tmp_path), "--format", format]) == 2
    assert "KERAS_BACKEND=tensorflow" in capsys.readouterr().err


@pytest.mark.parametrize("exported", ["float32"], indirect=True)
def test_the_check_is_on_images_of_the_run_where_they_are_at_hand(exported, tmp_path, monkeypatch):
    run = exported[0] / "run"
    config = run_folder.read_config(run)
    np.testing.assert_array_equal(export._images(run, config, None), load("digits").test_images[:64])
    own = dataclasses.replace(config, dataset=str(tmp_path / "gone"))
    assert export._images(run, own, None) is None
    called = dataclasses.replace(config, dataset="os:getcwd")
    monkeypatch.setattr(inputs, "load", lambda *_: pytest.fail("a function that a run names was called"))
    assert export._images(run, called, None) is None
