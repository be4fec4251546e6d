"""The benchmarks run, and their table is made. Nothing here looks at a time."""

import json
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from helpers import BACKEND

import tf_mmloss.losses
from benchmarks import precision

pytestmark = pytest.mark.skipif(BACKEND != "tensorflow", reason="the benchmarks measure TensorFlow")

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def call(script, *arguments):
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / script), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    path = tmp_path_factory.mktemp("benchmarks") / "results.json"
    call("run.py", "--quick", "--out", path)
    return path


def test_contestants_that_start_together_share_the_images(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    from benchmarks import reading

    with ThreadPoolExecutor(4) as pool:
        (root,) = set(pool.map(reading.folder, [20] * 4))
    assert list(tmp_path.iterdir()) == [root]
    assert len(list(root.glob("*/*.jpg"))) == 20


def test_every_contestant_runs_or_says_what_is_missing(results):
    report = json.loads(results.read_text())
    measured = {f"{of}{backend}" for of in ("loss", "head") for backend in ("", ", JAX", ", PyTorch")}
    others = {"step", "losses", "options of the step", "convolutions", "pipeline", "augmentation", "reading"}
    assert {*others, *measured} == set(report["parts"])
    for part in report["parts"].values():
        for result in part.values():
            if result.get("missing"):
                assert result["backend"] == "torch"
                assert result["missing"] in ("torch", "g++")
            else:
                assert len(result["samples"]) == 2
    assert {"python", "tensorflow", "keras", "tf_mmloss"} <= set(report["versions"])


def test_every_loss_is_timed_and_the_slowest_judged(results):
    report = json.loads(results.read_text())
    losses = {name: one for name, one in report["parts"]["losses"].items() if one["module"] == "losses"}
    exported = [name for name, value in vars(tf_mmloss.losses).items() if isinstance(value, type)]
    assert {f"{name}, {n} classes" for name in exported if name != "LongTailLoss" for n in (10, 100)} == set(losses)
    (goal,) = (goal for goal in report["goals"] if goal["part"] == "losses")
    assert goal["ours"] == max(losses, key=lambda name: losses[name]["median_seconds"])


def test_the_networks_compared_have_as_many_parameters(results):
    step = json.loads(results.read_text())["parts"]["step"]
    counts = {r["facts"]["parameters"] for r in step.values() if "parameters" in r.get("facts", {})}
    assert len(counts) == 1


def test_the_profile_knows_the_operations(results):
    spent = json.loads(results.read_text())["profile"]
    assert all(spent[name] > 0 for name in spent)


def test_goals_are_judged_by_the_median_of_the_rounds(results):
    for goal in json.loads(results.read_text())["goals"]:
        if goal["met"] is None:
            assert not goal["values"]
            continue
        low, high = sorted(goal["values"])
        assert low <= goal["median"] <= high
        assert goal["met"] == (goal["median"] >= goal["bound"] if goal["at_least"] else goal["median"] <= goal["bound"])


def test_the_table_names_every_contestant_and_goal(results, tmp_path):
    call("report.py", "--results", results, "--out", tmp_path / "README.md")
    text, report = (tmp_path / "README.md").read_text(), json.loads(results.read_text())
    assert "QUICK" in text
    for name in [goal["text"] for goal in report["goals"]] + [
        name for part in report["parts"].values() for name in part
    ]:
        assert name in text


def test_precision_trains_each_seed_in_both_and_makes_the_table(tmp_path):
    options = {"dataset": "digits", "ratio": 20.0, "depth": 8, "epochs": 1}
    assert precision.train(tmp_path, None, seeds=(0, 1), **options)
    results = precision.read(tmp_path)
    for name in ("float32", "bfloat16"):
        assert [(row["precision"], row["seed"], row["epochs"]) for row in results[name]] == [(name, 0, 1), (name, 1, 1)]
    a, b = (row["error"] for row in results["bfloat16"])
    table = precision.render(results)
    assert f"| bfloat16 | {50 * (a + b):.2f} ± {100 * abs(a - b) / 2**0.5:.2f} % (n=2) | {a:.2%}"[:-1] in table
