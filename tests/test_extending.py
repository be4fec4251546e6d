"""What others add, as the page of the site prints it: files outside the package, in --help and in training."""

import configparser
import json
import re
import shlex
import tomllib
from pathlib import Path

import numpy as np
import pytest
from helpers import BACKEND, in_new_process

ROOT = Path(__file__).parents[1]
FILES = ROOT / "docs" / "examples" / "own"

RUNS = """
import contextlib, io, json, sys
from pathlib import Path
from tf_mmloss.cli import main
from tf_mmloss.runs.folder import read_json

said = io.StringIO()
with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
    main(["fit", "--help"])
found = {}
for number, command in enumerate(json.loads(sys.argv[1])):
    with contextlib.redirect_stdout(sys.stderr):
        assert main([*command[1:], "--epochs", "5", "--out", f"run{number}"]) == 0, command
    found[number] = read_json(Path(f"run{number}"), "metrics.json")["error"]
with contextlib.redirect_stdout(sys.stderr):
    assert main(["evaluate", f"run{number}"]) == 0
evaluated = io.StringIO()
with contextlib.redirect_stdout(evaluated):  # the function that the run is of gives its test images, not all
    assert main(["evaluate", "run0", "--dataset", "my_source:pictures"]) == 0
print(json.dumps([said.getvalue(), list(found.values()), evaluated.getvalue()]))
"""


@pytest.fixture
def page(tmp_path, monkeypatch):
    """The page's text; its files in the current folder, and a package of them, installed."""
    text = (ROOT / "docs" / "extending.md").read_text()
    shown = re.findall(r'--8<-- "own/([^"]+)"', text)
    assert sorted(shown) == sorted(path.name for path in FILES.glob("*.py"))
    for name in shown:
        (tmp_path / name).write_bytes((FILES / name).read_bytes())
    entries = tomllib.loads(re.search(r"```toml\n(.*?)```", text, re.S)[1])["project"]["entry-points"]
    installed = configparser.ConfigParser()
    installed.read_dict(entries)
    (tmp_path / "mine-1.0.dist-info").mkdir()
    (tmp_path / "mine-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    with (tmp_path / "mine-1.0.dist-info" / "entry_points.txt").open("w") as file:
        installed.write(file)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("TF_MMLOSS_CACHE", str(tmp_path / "cache"))
    Path("pictures").mkdir()
    rng = np.random.default_rng(0)
    for label, (name, count) in enumerate({"cat": 30, "dog": 15, "owl": 6}.items()):
        np.save(f"pictures/{name}.npy", (80 * label + rng.integers(0, 80, (count, 12, 12, 3))).astype("uint8"))
    return text


@pytest.mark.skipif(BACKEND != "tensorflow", reason="augmentations are for tf.data")
def test_files_outside_the_package_are_in_help_and_train(page):
    blocks = re.findall(r"```sh\n(.*?)```", page, re.S)
    commands = [shlex.split(line) for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    assert [command[:2] for command in commands] == [["tf-mmloss", "fit"]] * 2
    named = set(" ".join(map(" ".join, commands)).replace(",", " ").split())
    assert {"my_source:pictures", "my_backbone:network", "my_loss:poly", "my_augmentation:Light"} <= named
    said, errors, evaluated = in_new_process(RUNS, json.dumps(commands))
    said = re.sub(r"\s+", " ", said)
    for name in (
        "npy:..., package.module:function",
        "three, or package.module:function",
        "light, package.module:Class",
    ):
        assert name in said
    assert "poly: more weight of 1 - p_y" in said
    assert re.search(r"--method METHOD .*\bfocal-crt, ", said)
    assert evaluated.startswith("pictures, test split: 10 images")
    assert len(errors) == 2
    assert all(0 <= error <= 1 for error in errors)
