"""The wheel as a user installs it: unpacked outside of the checkout, with one backend and no other."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from helpers import BACKEND

ROOT = Path(__file__).parents[1]

USE = """
import sys
from pathlib import Path

others = {"tensorflow", "jax", "torch"} - {sys.argv[1]}


class Without:
    # A finder of modules, for which those of the other backends are not installed.

    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, *rest):
        return None if name.partition(".")[0] in others else self.finder.find_spec(name, *rest)


sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
import tf_mmloss
from tf_mmloss.cli import COMMANDS, main

assert Path(tf_mmloss.__file__).is_relative_to(sys.argv[2]), tf_mmloss.__file__


def status(*words):
    print(">", *words)
    try:
        return main(list(words))
    except SystemExit as end:
        return end.code


for command in COMMANDS:
    print(status(command, "--help"), "help of", command)
short = ["--epochs", "1", "--depth", "8", "--input", "host" if sys.argv[1] == "tensorflow" else "device"]
assert status("fit", "--dataset", "digits", "--ratio", "20", *short, "--out", "run") == 0
from PIL import Image
Image.new("L", (20, 12), 200).save("picture.png")
assert status("predict", "run", "picture.png", "--out", "predictions.csv") == 0
assert status("page", "run") == 0
print(status("export", "run", "--out", "served"), "export")
assert not others & set(sys.modules)
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with what the wheel holds."""
    pytest.importorskip("setuptools", minversion="77")
    place = tmp_path_factory.mktemp("wheel")
    source = place / "source"
    shutil.copytree(ROOT / "tf_mmloss", source / "tf_mmloss", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = "from setuptools import build_meta; build_meta.build_wheel('..')"
    done = subprocess.run([sys.executable, "-c", build], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    (wheel,) = place.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place / "site")
    return place / "site"


def test_the_wheel_trains_predicts_and_exports_with_one_backend(installed, tmp_path):
    entry_points = next(installed.glob("*.dist-info")) / "entry_points.txt"
    assert "tf-mmloss = tf_mmloss.cli:main" in entry_points.read_text()
    environment = {**os.environ, "KERAS_BACKEND": BACKEND, "PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, "-c", USE, BACKEND, str(installed)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-2000:]
    lines = done.stdout.splitlines()
    helped = {line.rpartition(" ")[2]: line.startswith("0 ") for line in lines if " help of " in line}
    assert len(helped) > 5
    unhelped = {command for command, is_there in helped.items() if not is_there}
    assert unhelped <= ({"tune"} if BACKEND == "torch" else set())  # Keras Tuner is not in its environment
    assert (tmp_path / "predictions.csv").read_text().count("picture.png") == 1
    if BACKEND == "tensorflow":
        assert "0 export" in lines
        assert (tmp_path / "served" / "saved_model.pb").exists()
    else:
        assert "2 export" in lines
        assert 'error: `format` savedmodel needs tensorflow: pip install "tf-mmloss[tensorflow]"' in done.stderr
        assert not (tmp_path / "served").exists()
