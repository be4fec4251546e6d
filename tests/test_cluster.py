"""Sweeps and searches on a Ray cluster: two hosts that are processes of this machine, and what kills them."""

import contextlib
import csv
import dataclasses
import importlib.util
import json
import os
import re
import shlex
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from helpers import in_new_process, interrupts
from test_fit import epochs_done

from reproduction import table
from reproduction.table import Cell
from tf_mmloss.cli import tune
from tf_mmloss.train import cluster
from tf_mmloss.train.config import Config
from tf_mmloss.train.resolve import resolve

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")

SMALL = Config(dataset="digits", ratio=20, depth=8, epochs=12, batch_size=128, learning_rate=0.1, jit="off")
CELLS = [Cell(method, resolve(dataclasses.replace(SMALL, method=method))) for method in ("erm", "mm-drw")]
# For runs that are stopped: so long that they do not end first.
LONG = [Cell(cell.system, resolve(dataclasses.replace(SMALL, method=cell.system, epochs=2000))) for cell in CELLS]
# Train CELLS without Ray.
WHOLE = """
import json, pathlib, sys
sys.path.insert(0, sys.argv[1])
import test_cluster
from reproduction import table
root = pathlib.Path(sys.argv[2])
assert table.work(test_cluster.CELLS, root) == []
print(json.dumps(test_cluster.checksums(root)))
"""


def recipe():
    """The commands of the site's recipe, as lists of words."""
    lines = (Path(__file__).parents[1] / "docs" / "examples" / "cluster.sh").read_text().splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def checksums(results):
    return {path.parent.name: json.loads(path.read_text())["checksum"] for path in results.glob("*/metrics.json")}


def first_epochs(folder):
    return [start["first_epoch"] for start in json.loads((folder / "environment.json").read_text())["starts"]]


@pytest.fixture(scope="module")
def environment():
    """Ray's files and its token apart from the user's, and one thread in every process: more change the last bits."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="ray") as folder:
        for name in ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS", "NPROC"):
            patch.setenv(name, "1")
        patch.setenv("RAY_TMPDIR", folder)  # a short path: it holds sockets
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", "0" * 64)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.delenv("RAY_ADDRESS", raising=False)
        yield


@pytest.fixture(scope="module")
def whole(environment, tmp_path_factory):
    """Checksums of the cells, trained without Ray."""
    return in_new_process(WHOLE, Path(__file__).parents[1], tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def hosts(environment):
    """The address of a cluster of two hosts with a CPU each."""
    from ray.cluster_utils import Cluster

    memory = 80 * 2**20
    started = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "object_store_memory": memory, "include_dashboard": False},
    )
    started.add_node(num_cpus=1, object_store_memory=memory)
    yield started.address
    started.shutdown()


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "plan", lambda: CELLS)
    monkeypatch.setitem(table.SIZES, "digits", (124, 10))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "results"


@contextlib.contextmanager
def after_an_epoch(folder, action, epochs=1):
    """Do something once an epoch of a run, or so many, are saved."""
    over, done = threading.Event(), []

    def watch():
        while not done and not over.wait(0.01):
            if epochs_done(folder) >= epochs:
                action()
                done.append(True)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    assert done


def kill_worker(name):
    """Kill -9 the process that trains a cell."""
    import psutil  # Ray's

    (process,) = (
        process
        for process in psutil.process_iter(["cmdline"])
        if process.info["cmdline"] and process.info["cmdline"][0].startswith(f"ray::{name}")
    )
    process.kill()


@needs_ray
def test_two_hosts_do_each_cell_once_and_as_without_ray_though_a_worker_is_killed(hosts, whole, results, capfd):
    steady, killed = (results / cell.name for cell in CELLS)
    program, *command = recipe()[-1]
    assert (program, command[0], command[-1]) == ("python", "training/table.py", "auto")
    with after_an_epoch(killed, lambda: kill_worker(CELLS[1].name)):
        assert table.main([*command[1:-1], hosts]) == 0
    said = capfd.readouterr().out
    assert checksums(results) == whole
    assert first_epochs(steady) == [0]
    begun, continued = first_epochs(killed)
    assert begun == 0 < continued
    began = [said.index(f"{cell.name}: results") for cell in CELLS]
    ended = [said.index(f"{cell.name}: top-1 error ") for cell in CELLS]
    assert began[0] < began[1] < min(ended)  # in the plan's order, and together
    assert "2 cells: 2 done" in said
    assert not list(results.rglob("*partial*"))


@needs_ray
def test_the_recipe_starts_ray_by_options_that_it_has():
    from ray.scripts import scripts

    known = {name for option in scripts.start.params for name in option.opts}
    started = [words for words in recipe() if words[0] == "ray"]
    assert [words[1] for words in started] == ["start", "start"]
    assert {word for words in started for word in words if word.startswith("-")} <= known


@needs_ray
def test_an_interrupt_stops_the_workers_and_says_that_the_same_command_continues(hosts, results, monkeypatch, capfd):
    monkeypatch.setattr(table, "plan", lambda: LONG)
    folder = results / CELLS[0].name
    # Ray shows what a worker prints a moment later: not at once, but while it works.
    with interrupts(), after_an_epoch(folder, lambda: os.kill(os.getpid(), signal.SIGINT), epochs=100):
        assert table.main(["run", "--ray", hosts, "--cells", "1"]) == 130
    printed, errors = capfd.readouterr()
    assert "the same command continues" in printed
    assert re.search(rf"\({CELLS[0].name} pid=.*epoch   1/2000", printed)
    assert "Traceback" not in printed + errors
    assert [progress.state for progress in table.survey(LONG, results)] == ["partial", "missing"]
    assert epochs_done(folder) > 0
    assert not list(folder.rglob("*partial*"))


@needs_ray
def test_a_worker_that_dies_too_often_is_a_failed_cell(environment, results, monkeypatch, capfd):
    monkeypatch.setattr(cluster, "RETRIES", 0)
    monkeypatch.setattr(table, "plan", lambda: LONG)
    folder = results / CELLS[0].name
    with after_an_epoch(folder, lambda: kill_worker(CELLS[0].name)):
        assert table.main(["run", "--ray", "--systems", "erm"]) == 1  # on a cluster of this machine
    assert (
        f"failed: results/{CELLS[0].name}: LostError: The task's process or host died 1 time" in capfd.readouterr().err
    )
    assert [progress.state for progress in table.survey(LONG, results)] == ["failed", "missing"]
    assert epochs_done(folder) > 0


@needs_ray
def test_two_workers_share_a_search(hosts, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    small = ["--dataset", "digits", "--ratio", "20", "--depth", "8", "--epochs", "2"]
    command = [*small, "--over", "beta=1.2,1.8", "--search", "grid", "--workers", "2", "--out", "search"]
    assert tune.main([*command, "--ray", hosts]) == 0
    assert "Held-out error, best first." in capfd.readouterr().out
    with open(tmp_path / "search" / "trials.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["beta"] for row in rows) == ["1.2", "1.8"]
    for row in rows:
        run = tmp_path / "search" / f"trial-{row['trial']}"
        assert json.loads((run / "metrics.json").read_text())["error"] == float(row["error"])
        assert first_epochs(run) == [0]
    states = {path.name for path in (tmp_path / "search" / "tuner").glob("worker*.json")}
    assert states == {"worker0.json", "worker1.json"}


@needs_ray
def test_a_task_starts_in_the_folder_in_which_the_command_was_given(hosts, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with cluster.connect(hosts) as pool:
        assert pool.result(pool.start("where", os.getcwd)) == str(tmp_path)


@needs_ray
def test_what_the_hosts_cannot_give_is_refused(hosts, results, tmp_path, capsys):
    def refused(said, command, *options):
        assert command([*options, "--ray", hosts]) == 2
        assert re.search(said, capsys.readouterr().err)

    refused("No host of the cluster has 2 CPUs and 0 GPUs .* but 1 CPUs, 0 GPUs; 1 ", table.main, "run", "--cpus", "2")
    refused("No host of the cluster has 1 CPUs and 0.5 GPUs", table.main, "run", "--gpus", "0.5")
    refused("`workers` must be at most 2", tune.main, "--dataset", "digits", "--workers", "3")
    assert not list(tmp_path.iterdir())


@needs_ray
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--ray", "head"], "`ray` must be auto or HOST:PORT. Received: ray='head'"),
        (["--ray", "ray://head:10001"], "`ray` must be auto or HOST:PORT"),
        (["--ray", "localhost:1"], "No Ray cluster answers at localhost:1: "),
        (["--ray", "localhost:99999"], "`ray` must be auto or HOST:PORT. Received: ray='localhost:99999'"),
        (["--ray", "auto"], "No Ray cluster answers at localhost:2: "),
        (["--ray", "--cpus", "0"], "`cpus` must be an integer >= 1"),
        (["--ray", "--gpus", "1.5"], "`gpus` above 1 must be a whole number"),
        (["--ray", "--gpus", "-1"], "`gpus` must be a finite number >= 0"),
        (["--ray", "--gpus", "1e-320"], "`gpus` must be 0 or >= 0.0001, Ray's unit"),
    ],
)
@pytest.mark.parametrize("command", ["table", "tune"])
def test_bad_options_are_refused_before_any_work(
    command, options, said, environment, results, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("RAY_ADDRESS", "localhost:2")  # what auto stands for
    main, first = {"table": (table.main, "run"), "tune": (tune.main, "--dataset=digits")}[command]
    began = time.monotonic()
    assert main([first, *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert re.search(said, error), error
    assert not list(tmp_path.iterdir())
    assert time.monotonic() - began < 20  # Ray itself tries for minutes


def test_without_ray_the_extra_is_named(results, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert table.main(["run", "--ray", "auto"]) == 2
    assert capsys.readouterr().err == 'error: `ray` needs Ray: pip install "tf-mmloss[cluster]"\n'
    assert not results.exists()


@pytest.mark.parametrize(
    ("resources", "cpus", "gpus", "tasks"),
    [
        ({"CPU": 16.0}, 1, 0, 16),
        ({"CPU": 16.0}, 5, 0, 3),
        ({"CPU": 16.0, "GPU": 2.0}, 1, 1, 2),
        ({"CPU": 16.0, "GPU": 2.0}, 1, 0.4, 4),  # not 5: a task has one GPU's part
        ({"CPU": 16.0, "GPU": 1.0}, 1, 0.1, 10),
        ({"CPU": 3.0, "GPU": 1.0}, 1, 0.1, 3),
        ({"CPU": 16.0, "GPU": 5.0}, 1, 2, 2),
        ({"CPU": 16.0}, 1, 1, 0),
        ({}, 1, 0, 0),
    ],
)
def test_how_many_tasks_fit_on_a_host(resources, cpus, gpus, tasks):
    assert cluster._fits(resources, cpus, gpus) == tasks
