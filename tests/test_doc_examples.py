"""The recipes of the site run: the scripts of docs/examples, in a folder of their own."""

import csv
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
import threading
import urllib.error
import urllib.request
import warnings
from http.server import HTTPServer
from pathlib import Path

import numpy as np
import pytest
from helpers import BACKEND
from PIL import Image

from tf_mmloss import cli

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "docs" / "examples"
only_tensorflow = pytest.mark.skipif(BACKEND != "tensorflow", reason="its input or its export is TensorFlow's")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """One folder for all of them, as they build on each other."""
    folder = tmp_path_factory.mktemp("recipes")
    return folder


# What the commands of the recipes are given to be over in seconds.
SHORT = {"fit": ["--epochs", "1", "--depth", "8"], "tune": ["--epochs", "1", "--depth", "8"]}
SHORT["compare"] = [*SHORT["fit"], "--seeds", "1"]


@pytest.fixture(scope="module")
def photos(place):
    """A folder of class folders, and new pictures beside it."""
    rng = np.random.default_rng(0)
    for label, (name, count) in enumerate({"cat": 30, "dog": 15, "owl": 8}.items()):
        for i in range(count + 1):
            file = place / (f"my_photos/{name}/{i}.png" if i < count else f"new/{name}.png")
            file.parent.mkdir(parents=True, exist_ok=True)
            width = 12 if i < count else 20  # what is new is to be cropped, as in training
            Image.fromarray((80 * label + rng.integers(0, 80, (12, width, 3))).astype("uint8")).save(file)


def commands(name):
    """Run the commands of a recipe."""
    lines = [shlex.split(line, comments=True) for line in (EXAMPLES / f"{name}.sh").read_text().splitlines()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for program, command, *options in filter(None, lines):
            assert program == "tf-mmloss"
            assert cli.main([command, *options, *SHORT.get(command, [])]) == 0


@pytest.fixture(autouse=True)
def here(place, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setenv("TF_MMLOSS_CACHE", str(place / "cache"))


def script(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what other packages say
        return runpy.run_path(str(EXAMPLES / f"{name}.py"))


def child(name, before="", **environment):
    code = f"{before}\nimport runpy\nrunpy.run_path({str(EXAMPLES / f'{name}.py')!r})"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}
    )
    assert found.returncode == 0, found.stderr
    return found.stdout.strip()


def test_text():
    assert script("text")["accuracy"] > 0.9


def test_a_frozen_backbone():
    names = script("frozen_backbone")["trained"]
    assert len(names) == 1
    assert "cosine_dense" in names[0]


def test_two_outputs():
    history = script("two_outputs")["history"]
    assert (history["kind_reweighting"], history["age_reweighting"]) == ([0, 0, 1], [0, 1, 1])


@only_tensorflow
def test_a_loop_of_ones_own():
    found = script("own_loop")
    assert found["losses"][7] < found["losses"][0]
    assert found["step"].experimental_get_tracing_count() <= 2  # two sizes of a batch
    weights = np.asarray(found["loss"].class_weights.weight)
    assert weights[2] > weights[0]


def test_the_backend_of_ones_choice():
    pytest.importorskip("jax" if BACKEND == "tensorflow" else BACKEND)
    chosen = "jax" if BACKEND == "tensorflow" else BACKEND
    assert child("backends", KERAS_BACKEND=chosen) == f"{chosen} [0.0, 1.0]"


@only_tensorflow
def test_several_devices():
    two = (
        "import tensorflow as tf\n"
        "tf.config.set_logical_device_configuration(\n"
        "    tf.config.list_physical_devices('CPU')[0], [tf.config.LogicalDeviceConfiguration()] * 2)"
    )
    assert child("several_gpus", two, CUDA_VISIBLE_DEVICES="").endswith("2 [0.0, 1.0]")


@only_tensorflow
def test_arrays_and_then_calibration():
    found = script("arrays")
    assert 0 <= found["metrics"]["error"] <= 1
    found = script("calibrate")
    assert found["temperature"] > 0
    np.testing.assert_allclose(found["probabilities"].sum(axis=1), 1, rtol=1e-6)


@only_tensorflow
def test_a_folder_of_ones_own_and_serving_it(photos):
    commands("own_folder")
    with open("predictions.csv", newline="") as file:
        predicted = {Path(row["file"]).stem: row for row in csv.DictReader(file)}
    assert sorted(predicted) == ["cat", "dog", "owl"]
    assert "</html>" in Path("runs/mine/index.html").read_text()

    for package in ("onnx", "onnxruntime", "tf2onnx"):
        pytest.importorskip(package)
    export = next(line for line in (EXAMPLES / "exporting.sh").read_text().splitlines() if "onnx" in line)
    assert cli.main(shlex.split(export)[1:]) == 0
    server = HTTPServer(("127.0.0.1", 0), script("serve")["Handler"])
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        address = f"http://127.0.0.1:{server.server_port}"
        for name, row in predicted.items():
            with urllib.request.urlopen(address, Path(f"new/{name}.png").read_bytes()) as answered:
                answer = json.load(answered)
            assert max(answer, key=answer.get) == row["class"]
            assert answer[row["class"]] == pytest.approx(float(row["probability"]), abs=1e-4)
        with pytest.raises(urllib.error.HTTPError, match="no picture"):
            urllib.request.urlopen(address, b"text")
    finally:
        server.shutdown()
        server.server_close()


@only_tensorflow
def test_comparing(photos):
    commands("comparing")
    assert "Balanced Softmax" in Path("runs/which/comparison.md").read_text()


@only_tensorflow
def test_tuning(photos):
    pytest.importorskip("keras_tuner")
    commands("tuning")
    assert Path("runs/margins").is_dir()


def test_every_recipe_is_tested_and_on_the_page():
    page = (ROOT / "docs" / "recipes.md").read_text()
    shown = re.findall(r'--8<-- "([^"]+)"', page)
    files = sorted(path.name for path in EXAMPLES.iterdir() if path.is_file())
    assert sorted(shown) == files
    own = Path(__file__).read_text()
    assert all(f'("{name.split(".")[0]}"' in own for name in files if name not in ("exporting.sh", "cluster.sh"))
    assert '"cluster.sh"' in (ROOT / "tests" / "test_cluster.py").read_text()
