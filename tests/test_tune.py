"""Searches on held-out images: the table, resuming, and what is refused."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from helpers import copied_at_renames, files_of

pytest.importorskip("tensorflow", reason="runs read their images through tf.data")

from tf_mmloss.cli import tune
from tf_mmloss.cli.tune import Dimension
from tf_mmloss.files import read_json, write_json
from tf_mmloss.runs import plots
from tf_mmloss.runs.folder import RunBusyError, locked, read_config
from tf_mmloss.train import experiment, inputs, presets, progress, resolve
from tf_mmloss.train.config import Config

SMALL = Config(dataset="digits", ratio=20, depth=8, epochs=2, holdout=12)
ARGUMENTS = ["--dataset", "digits", "--ratio", "20", "--depth", "8", "--epochs", "2"]


def test_command_searches_and_leaves_table_plot_and_runs(tmp_path, capsys):
    out = tmp_path / "search"
    command = [*ARGUMENTS, "--over", "beta=1.2,1.8", "--search", "grid", "--trials", "5", "--out", str(out)]
    assert tune.main(command) == 0
    printed = capsys.readouterr().out
    with open(out / "trials.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["beta"] for row in rows} == {"1.2", "1.8"}
    errors = [float(row["error"]) for row in rows]
    assert errors == sorted(errors)
    assert f"{errors[0]:.2%}" in printed
    assert (out / "search.svg").stat().st_size > 0
    assert (out / "search.png").stat().st_size > 0
    for row in rows:
        run = out / f"trial-{row['trial']}"
        metrics = json.loads((run / "metrics.json").read_text())
        assert metrics["error"] == float(row["error"])
        assert metrics["evaluated_on"] == "held-out training images"
        assert read_config(run).beta == float(row["beta"])
        assert read_config(run).holdout == 12


def test_images_of_ones_own_are_searched(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TF_MMLOSS_CACHE", str(tmp_path / "cache"))
    pixels = np.random.default_rng(0).integers(0, 256, (36, 8, 8, 3), np.uint8)
    trials = []

    def run(config, folder, *, data, **_):
        trials.append((resolve.resolve(config, data), inputs.split(data, config)))
        return {"error": 0.5}

    monkeypatch.setattr(experiment, "run", run)
    command = ["--over", "beta=1,2", "--search", "grid", "--epochs", "1", "--out", str(tmp_path / "search")]
    for change in (0, 1):
        np.savez(tmp_path / "birds.npz", x=pixels + np.uint8(change), y=np.repeat([0, 1, 2], [20, 10, 6]))
        status = tune.main(["--dataset", str(tmp_path / "birds.npz"), *command])
        if not change:
            assert status == 0
            assert "36 images of 3 classes" in capsys.readouterr().out
            assert {config.beta for config, _ in trials} == {1.0, 2.0}
            assert [(config.imbalance, config.holdout) for config, _ in trials] == [("none", 0.2)] * 2
            assert np.bincount(trials[0][1].eval_labels).tolist() == [5, 4, 2]
    assert status == 2
    assert "holds another search" in capsys.readouterr().err
    assert len(trials) == 2


def test_a_stopped_search_continues(tmp_path, monkeypatch):
    dimensions = [Dimension("beta", low=1.0, high=2.0), Dimension("scale", values=(5.0, 10.0))]
    whole = tune.search(SMALL, dimensions, tmp_path / "whole", trials=3)
    assert len(whole) == 3

    started, real = [], experiment.run

    def interrupted(config, folder, **options):
        if len(started) == 1:
            raise KeyboardInterrupt
        started.append(folder)
        return real(config, folder, **options)

    monkeypatch.setattr(experiment, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tune.search(SMALL, dimensions, tmp_path / "stopped", trials=3)
    monkeypatch.setattr(experiment, "run", real)
    table = tune.search(SMALL, dimensions, tmp_path / "stopped", trials=3)
    assert table == whole
    starts = json.loads((tmp_path / "stopped" / "trial-0" / "environment.json").read_text())["starts"]
    assert len(starts) == 1
    with pytest.raises(ValueError, match="holds another search"):
        tune.search(SMALL, dimensions[:1], tmp_path / "stopped", trials=3)
    with pytest.raises(ValueError, match="holds another search"):
        tune.search(SMALL, dimensions, tmp_path / "stopped", trials=3, kind="random")
    assert tune.search(SMALL, dimensions, tmp_path / "stopped", trials=2) == whole
    (tmp_path / "stopped" / "search.json").write_text("{")
    with pytest.raises(ValueError, match=r"search\.json is not JSON"):
        tune.search(SMALL, dimensions, tmp_path / "stopped", trials=3)


@pytest.mark.parametrize("finished", [0, 1, 2])
def test_a_stopped_grid_tries_every_combination_once(finished, tmp_path, monkeypatch, capsys):
    """Without `trials`: all of them."""
    dimensions = [Dimension("beta", (1.8, 1.2)), Dimension("scale", (5.0, 10.0))]
    tried = []

    def run(config, folder, **_):
        if stop and len(tried) == finished:
            raise KeyboardInterrupt
        tried.append((config.beta, config.scale, folder.name))
        return {"error": config.beta / config.scale}

    monkeypatch.setattr(experiment, "run", run)
    stop = True
    with pytest.raises(KeyboardInterrupt):
        tune.search(SMALL, dimensions, tmp_path, kind="grid")
    stop = False
    table = tune.search(SMALL, dimensions, tmp_path, kind="grid")
    assert tried == [(1.8, 5, "trial-0"), (1.8, 10, "trial-1"), (1.2, 5, "trial-2"), (1.2, 10, "trial-3")]
    assert [row["trial"] for row in table] == ["3", "1", "2", "0"]
    capsys.readouterr()
    with progress.shown("quiet"):
        assert tune.search(SMALL, dimensions, tmp_path, kind="grid") == table
    assert not capsys.readouterr().out
    assert len(tried) == 4


def test_two_workers_share_a_search(tmp_path, capfd):
    out = tmp_path / "search"
    command = [*ARGUMENTS, "--over", "beta=1.2,1.4,1.6,1.8", "--search", "grid", "--workers", "2", "--out", str(out)]
    assert tune.main(command) == 0
    assert "Held-out error, best first." in capfd.readouterr().out
    with open(out / "trials.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["beta"] for row in rows) == ["1.2", "1.4", "1.6", "1.8"]
    for row in rows:
        run = out / f"trial-{row['trial']}"
        assert json.loads((run / "metrics.json").read_text())["error"] == float(row["error"])
        assert len(json.loads((run / "environment.json").read_text())["starts"]) == 1
    assert {path.name for path in (out / "tuner").glob("worker*.json")} == {"worker0.json", "worker1.json"}


def test_a_trial_that_ends_in_an_error_is_left_out_of_the_table(tmp_path, monkeypatch, capsys):
    def run(config, *_, **__):
        if config.beta == 1.2:
            raise RuntimeError("out of memory")
        return {"error": 0.25}

    monkeypatch.setattr(experiment, "run", run)
    command = [*ARGUMENTS, "--search", "grid", "--out", str(tmp_path / "search")]
    assert tune.main([*command, "--over", "beta=1.2,1.8"]) == 0
    printed = capsys.readouterr()
    assert "trials 0 ended in an error" in printed.out + printed.err
    with open(tmp_path / "search" / "trials.csv", newline="") as file:
        assert [(row["trial"], row["error"]) for row in csv.DictReader(file)] == [("1", "0.25")]
    assert tune.main([*command[:-1], str(tmp_path / "other"), "--over", "beta=1.2"]) == 2
    assert "no trial was finished" in capsys.readouterr().err


def test_a_worker_that_fails_ends_the_search(tmp_path, capfd):
    missing = ["--dataset", "cifar10", "--data-dir", str(tmp_path / "nowhere"), "--workers", "2"]
    assert tune.main([*missing, "--out", str(tmp_path / "search")]) == 2
    assert "nowhere" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("beta=1:2", Dimension("beta", low=1.0, high=2.0)),
        ("delta-neg=0.4,0.6", Dimension("delta_neg", (0.4, 0.6))),
        ("margin_space=cosine,logit", Dimension("margin_space", ("cosine", "logit"))),
    ],
)
def test_dimensions_are_read(text, expected):
    assert Dimension.parse(text) == expected


def test_a_terminated_command_ends_its_processes(tmp_path):
    script = tmp_path / "part.py"
    script.write_text(
        "import os, pathlib, sys, time; pathlib.Path(sys.argv[1], f'{os.getpid()}.pid').touch()\ntime.sleep(300)\n"
    )
    code = (
        f"import sys; from tf_mmloss.cli import tune; tune.COMMAND = (sys.executable, {str(script)!r}); "
        f"tune.share([{str(tmp_path)!r}], 2)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", code], env=environment) as command:
        deadline = time.monotonic() + 120
        while len(parts := list(tmp_path.glob("*.pid"))) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
        command.terminate()
        assert command.wait(timeout=60) == 128 + signal.SIGTERM
    assert len(parts) == 3
    for part in parts:
        with pytest.raises(ProcessLookupError):
            os.kill(int(part.stem), 0)


def test_the_papers_grid_is_that_of_the_default_training_set(tmp_path, capsys):
    assert tune.main(["--over", "tables-2-and-3", "--data-dir", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "cifar10 was not found" in capsys.readouterr().err


def test_the_papers_grid_is_around_its_optimum():
    assert set(presets.ABLATION_BETAS) == set(presets.MM_CONSTANTS)
    for (dataset, imbalance, ratio), (_, beta) in presets.MM_CONSTANTS.items():
        grid = tune.ablation(Config(dataset, imbalance, float(ratio)))
        assert grid.name == "beta"
        assert len(grid.values) == 3
        assert beta in grid.values
        np.testing.assert_allclose(np.diff(grid.values), 0.1)


@pytest.mark.parametrize("text", ["beta", "beta=", "beta=2:1", "beta=a", "beta=1:2:3"])
def test_other_forms_are_refused(text):
    with pytest.raises(ValueError, match="`over` must be NAME=LOW:HIGH or NAME=A,B,C"):
        Dimension.parse(text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--over", "bta=1:2"], "Did you mean 'beta'?"),
        (["--over", "beta=0:2"], "`beta` must be a finite number > 0"),
        (["--over", "tables-2-and-3"], "`over` tables-2-and-3 is for cifar10 longtail 100; .* digits longtail 20"),
        (["--over", "gamma=0:2"], "`gamma` is no option of method mm-drw"),
        (["--over", "beta=1:2", "--search", "grid"], "grid needs values"),
        (["--method", "ldam"], "`over` must be given for method ldam: --over NAME=LOW:HIGH or NAME=A,B,C, of "),
        (["--search", "bayes"], "Did you mean 'bayesian'?"),
        (["--trials", "0"], "`trials` must be an integer >= 1"),
        (["--over", "beta=1:2", "--over", "beta=1,2"], "each once"),
        (["--dataset", "mnist"], "mnist is not there"),
        (["--over", "beta=1:2", "--beta", "1.7"], "`over` must not search what is given. Received: beta=1.7"),
        (["--depth", "9"], "`depth` must be 6n+2"),
        (["--holdout", "0"], "`holdout` must be an integer >= 1"),
        (["--over", "tables-2-and-3", "--search", "random"], "`search` must be grid with --over tables-2-and-3"),
        (["--holdout", "500"], "`holdout` must leave training images of every class"),
        (["--cpus", "2"], "`cpus` is an option of a cluster, which needs --ray"),
    ],
)
def test_mistakes_exit_with_2_before_any_work(arguments, message, tmp_path, capsys):
    assert tune.main([*ARGUMENTS, "--out", str(tmp_path / "search"), *arguments]) == 2
    assert re.search(re.escape(message).replace(r"\.\*", ".*"), capsys.readouterr().err)
    assert not (tmp_path / "search").exists()


def test_plot_of_one_and_two_options(tmp_path):
    rows = [
        {"trial": str(i), "beta": 1 + i / 10, "scale": 10.0 * (1 + i % 2), "error": 0.3 - i / 100} for i in range(4)
    ]
    plots.search(rows, tmp_path / "two", title="CIFAR-10: MM")
    plots.search(
        [{k: v for k, v in row.items() if k != "scale"} for row in rows], tmp_path / "one", title="CIFAR-10: MM"
    )
    assert {path.name for path in tmp_path.iterdir()} == {"one.png", "one.svg", "two.png", "two.svg"}


@pytest.mark.parametrize("kind", ["bayesian", "grid"])
def test_killed_at_any_write_a_search_ends_with_the_same_files(kind, tmp_path, monkeypatch):
    """Also: what a killed process was writing is removed."""
    dimensions = [Dimension("beta", (1.2, 1.4, 1.6)), Dimension("scale", (5.0, 10.0))]

    def run(config, folder, **_):
        folder.mkdir(exist_ok=True)
        write_json(folder / "metrics.json", {"error": 1 / (config.beta * config.scale)})
        return read_json(folder / "metrics.json")

    monkeypatch.setattr(experiment, "run", run)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    whole = tmp_path / "whole"
    with copied_at_renames(whole, tmp_path, monkeypatch) as killed:
        table = tune.search(SMALL, dimensions, whole, kind=kind, trials=2)
    expected = searched(whole)
    assert {"search.json", "trials.csv", "search.svg", "search.png", "tuner/trial_1/trial.json"} <= set(expected)
    assert len(killed) > 2 * 2 * 4  # a trial is written when it begins, has a result, and ends
    for folder in killed:
        # A run removes its own, and this one is none.
        for path in folder.glob("trial-*/*.partial-*"):
            path.unlink()
        assert tune.search(SMALL, dimensions, folder, kind=kind, trials=2) == table
        assert searched(folder) == expected, folder


def searched(folder):
    """What a search leaves. The values that were tried are a set to Keras Tuner, which writes it in any order."""
    files = files_of(folder)
    oracle = json.loads(files["tuner/oracle.json"])
    return files | {"tuner/oracle.json": oracle | {"tried_so_far": sorted(oracle["tried_so_far"])}}


def test_two_commands_do_not_search_in_one_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "run", lambda *_, **__: {"error": 0.5})
    (tmp_path / "oracle.partial-1.json").touch()
    with locked(tmp_path), pytest.raises(RunBusyError, match="is busy"):
        tune.search(SMALL, [Dimension("beta", (1.2, 1.4))], tmp_path, kind="grid")
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "oracle.partial-1.json"}


def begun_search(folder, monkeypatch):
    """A search with a trial done and one begun."""
    tried = []

    def run(config, folder, **_):
        if len(tried) == 1:
            raise KeyboardInterrupt
        tried.append(folder)
        return {"error": 0.5}

    with monkeypatch.context() as patch:
        patch.setattr(experiment, "run", run)
        with pytest.raises(KeyboardInterrupt):
            tune.search(SMALL, [Dimension("beta", (1.2, 1.4))], folder, kind="grid")


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("oracle.json", ""),
        ("oracle.json", "[]"),
        ("oracle.json", "{}"),
        ("oracle.json", ('"start_order": ["0"', '"start_order": ["/../../../esc"')),
        ("oracle.json", ('"start_order": ["0"', '"start_order": ["0", "0"')),
        ("oracle.json", ('"class_name": "Choice"', '"class_name": "Lambda"')),
        ("trial_0/trial.json", ""),
        ("trial_0/trial.json", ('"trial_id": "0"', '"trial_id": "/../../../esc"')),
        ("trial_0/trial.json", ('"status": "COMPLETED"', '"status": "DONE"')),
        ("trial_0/trial.json", ('"score": 0.5', '"score": "0.5"')),
        ("trial_0/trial.json", ('"values": {"beta"', '"values": {"dataset"')),
        ("trial_0/trial.json", ('"metrics": {', '"metrics": {"a": 1, "b": {')),
    ],
)
def test_a_damaged_search_is_named_and_nothing_is_written_elsewhere(file, change, tmp_path, monkeypatch):
    out = tmp_path / "in" / "search"
    begun_search(out, monkeypatch)
    path = out / "tuner" / file
    text = json.dumps(json.loads(path.read_text()))
    if isinstance(change, tuple):
        assert change[0] in text
        change = text.replace(*change)
    path.write_text(change)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=re.escape(file)) as caught:
        tune.search(SMALL, [Dimension("beta", (1.2, 1.4))], out, kind="grid")
    assert "the search begins anew" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["tuner", "tuner/trial_0", "tuner/trial_1", "trial-1"])
@pytest.mark.parametrize("kind", ["link", "file"])
def test_a_search_is_not_led_elsewhere(name, kind, tmp_path, monkeypatch):
    out, elsewhere = tmp_path / "search", tmp_path / "elsewhere"
    begun_search(out, monkeypatch)
    place = out / name
    if place.exists():
        shutil.move(place, elsewhere)
    else:
        elsewhere.mkdir()
    if kind == "link":
        place.symlink_to(elsewhere)
    else:
        place.write_text("")
    before = {path: path.stat().st_mtime_ns for path in elsewhere.rglob("*")}
    monkeypatch.setattr(experiment, "run", lambda config, folder, **_: {"error": 0.5})
    with pytest.raises((ValueError, RuntimeError), match=f"{place.name} is no folder of a search"):
        tune.search(SMALL, [Dimension("beta", (1.2, 1.4))], out, kind="grid")
    assert {path: path.stat().st_mtime_ns for path in elsewhere.rglob("*")} == before


def test_a_search_begun_alone_is_shared_later(tmp_path, monkeypatch):
    """Keras Tuner itself takes it for a new one."""
    begun_search(tmp_path, monkeypatch)
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "tuner1")
    tried = []
    monkeypatch.setattr(experiment, "run", lambda config, folder, **_: tried.append(config.beta) or {"error": 0.4})
    table = tune.search(SMALL, [Dimension("beta", (1.2, 1.4))], tmp_path, kind="grid")
    assert tried == [1.4]
    assert [row["error"] for row in table] == [0.4, 0.5]
