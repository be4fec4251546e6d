"""The benchmark of one accelerator runs on a CPU, and its table is made. Nothing here looks at a time."""

import json

import pytest
from helpers import BACKEND
from test_benchmarks import call

pytestmark = pytest.mark.skipif(BACKEND == "tensorflow", reason="it measures JAX and PyTorch")

STEP, RUNS, TORCH = (
    "tf_mmloss float32, a program a step",
    "tf_mmloss bfloat16, 2 runs in one program",
    "PyTorch float32",
)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    path = tmp_path_factory.mktemp("accelerator") / "accelerator.json"
    call("accelerator.py", "--quick", "--out", path, *(f"--only={name}" for name in (STEP, RUNS, TORCH)))
    return path


def test_every_contestant_runs_or_says_what_is_missing(results):
    report = json.loads(results.read_text())
    assert report["quick"]
    assert set(report["contestants"]) == {STEP, RUNS, TORCH}
    for name, result in report["contestants"].items():
        if "missing" in result:
            assert result["missing"] == ("torch" if name == TORCH else "jax")
        else:
            assert len(result["samples"]) == 2
            assert result["images_per_second"] > 0
    assert BACKEND in report["versions"]


def test_what_is_compared_has_as_many_parameters(results):
    ran = [r["facts"] for r in json.loads(results.read_text())["contestants"].values() if "facts" in r]
    assert len({facts["parameters"] for facts in ran}) == 1


def test_the_table_says_that_it_is_a_rehearsal(results, tmp_path):
    call("report.py", "--results", results, "--out", tmp_path / "ACCELERATOR.md")
    text = (tmp_path / "ACCELERATOR.md").read_text()
    assert "REHEARSAL" in text
    assert all(f"| {name} |" in text for name in (STEP, RUNS, TORCH))


def test_what_is_measured_is_kept_when_the_time_is_over(tmp_path):
    call("accelerator.py", "--quick", "--minutes", "0", "--out", tmp_path / "accelerator.json")
    report = json.loads((tmp_path / "accelerator.json").read_text())
    assert len(report["contestants"]) > 10
    assert not any(result["samples"] for result in report["contestants"].values())
    call("report.py", "--results", tmp_path / "accelerator.json", "--out", tmp_path / "ACCELERATOR.md")
    assert "not reached" in (tmp_path / "ACCELERATOR.md").read_text()
