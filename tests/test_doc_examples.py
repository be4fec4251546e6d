"""The recipes of the site run: the scripts of docs/examples, in a folder of their own."""

import os
import re
import runpy
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from helpers import BACKEND

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "docs" / "examples"
only_tensorflow = pytest.mark.skipif(BACKEND != "tensorflow", reason="its input or its export is TensorFlow's")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """One folder for all of them, as they build on each other."""
    folder = tmp_path_factory.mktemp("recipes")
    return folder


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


def test_every_recipe_is_tested_and_on_the_page():
    page = (ROOT / "docs" / "recipes.md").read_text()
    shown = re.findall(r'--8<-- "([^"]+)"', page)
    files = sorted(path.name for path in EXAMPLES.iterdir() if path.suffix == ".py")
    assert sorted(shown) == files
    own = Path(__file__).read_text()
    assert all(f'("{name.split(".")[0]}"' in own for name in files)
