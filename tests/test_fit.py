"""The main command, and runs that are killed."""

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import BACKEND, epochs_done, interrupts, wait_for_epoch

from reproduction import table
from tf_mmloss.cli import backend, fit
from tf_mmloss.train import experiment
from tf_mmloss.train.config import Config

pytest.importorskip("tensorflow", reason="runs read their images through tf.data")

from tf_mmloss.cli import tune

SCRIPT = Path(__file__).parents[1] / "training" / "fit.py"
OTHER = "tensorflow" if BACKEND == "jax" else "jax"
DIGITS = ["--dataset", "digits", "--ratio", "20", "--depth", "8"]


def test_command_trains_and_prints_the_result(tmp_path, capsys):
    out = tmp_path / "run"
    assert fit.main([*DIGITS, "--epochs", "2", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "epoch   2/2" in printed
    metrics = json.loads((out / "metrics.json").read_text())
    assert f"top-1 error {metrics['error']:.2%}" in printed
    assert f"balanced accuracy {metrics['balanced_accuracy']:.2%}" in printed
    assert fit.main([*DIGITS, "--epochs", "2", "--out", str(out)]) == 2
    assert "already holds a run" in capsys.readouterr().err
    assert fit.main(["--resume", str(out), "--seed", "7"]) == 2
    assert "seed: 0 there, 7 asked for" in capsys.readouterr().err
    assert fit.main(["--resume", str(out), "--method", "erm"]) == 2
    assert "method: 'mm-drw' there, 'erm' asked for" in capsys.readouterr().err
    assert fit.main(["--resume", str(out), "--out", str(tmp_path / "other")]) == 2
    assert "`out` must not be given with --resume RUN" in capsys.readouterr().err
    assert fit.main([*DIGITS, "--epochs", "2", "--out", str(out), "--resume"]) == 0


def test_show_prints_constants_and_their_source(capsys):
    assert fit.main(["--dataset", "cifar100", "--ratio", "10", "--show"]) == 0
    printed = capsys.readouterr().out
    assert "delta_neg=1.5, beta=1.4" in printed
    assert "published for MM-DRW on this training set (Tables 2 and 3)" in printed
    for options, origin in (
        (["--method", "mm"], "searched on held-out images of this training set (results/tuning/mm-logit)"),
        (["--ratio", "50"], "none known for this training set"),
        (["--beta", "2"], "delta_neg and beta: as given"),
    ):
        assert fit.main([*options, "--show"]) == 0
        assert origin in capsys.readouterr().out


def test_show_prints_an_object_for_programs(capsys):
    assert fit.main(["--dataset", "digits", "--show", "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert "mm-drw: MaxMarginLoss" in json.loads(line)["message"]


def test_mistakes_exit_with_2_and_one_line(tmp_path, capsys):
    assert fit.main(["--method", "mm-drv"]) == 2
    assert "Did you mean 'mm-drw'?" in capsys.readouterr().err
    assert fit.main(["--data-dir", str(tmp_path), "--out", str(tmp_path / "run")]) == 2
    assert str(tmp_path) in capsys.readouterr().err
    assert fit.main(["--resume", str(tmp_path)]) == 2
    assert "config.json" in capsys.readouterr().err


def test_backend_is_chosen_before_keras_starts(tmp_path):
    command = [sys.executable, str(SCRIPT), *DIGITS, "--epochs", "1", "--out", str(tmp_path), "--backend", OTHER]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    start = json.loads((tmp_path / "environment.json").read_text())["starts"][0]
    assert start["backend"] == OTHER
    assert OTHER in start["versions"]


@pytest.mark.parametrize(("command", "wrong"), [("table.py run", "--cells"), ("tune.py", "--trials")])
def test_backend_is_chosen_by_the_other_commands(command, wrong):
    name, *given = [*command.split(), wrong, "0", "--backend", OTHER]
    done = subprocess.run(
        [sys.executable, str(SCRIPT.with_name(name)), *given], capture_output=True, text=True, timeout=300, check=False
    )
    # Past the check of the backend, which comes first.
    assert (done.returncode, f"`{wrong[2:]}` must be" in done.stderr) == (2, True), done.stderr


def test_backends_that_cannot_be_are_refused(monkeypatch, capsys):
    for main, options in ((fit.main, ["--show"]), (table.main, ["run"]), (tune.main, [])):
        assert main([*options, "--backend", OTHER]) == 2
        assert f"`backend` must be '{BACKEND}'" in capsys.readouterr().err
    assert fit.main(["--backend", BACKEND, "--show"]) == 0
    monkeypatch.setitem(sys.modules, OTHER, None)
    with pytest.raises(SystemExit):
        backend.choose(["--seed", "1", "--backend", OTHER])
    assert f"pip install tf-mmloss[{OTHER}]" in capsys.readouterr().err


def test_interrupt_finishes_the_save_and_says_how_to_resume(tmp_path):
    out = tmp_path / "a run"
    command = [sys.executable, str(SCRIPT), *DIGITS, "--epochs", "500", "--eval-every", "500", "--out", str(out)]
    with (
        interrupts(),
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process,
    ):
        wait_for_epoch(out, 2, process)
        process.send_signal(signal.SIGINT)
        printed = process.communicate(timeout=60)[0]
    assert process.returncode == 130, printed
    assert f"--resume '{out}'" in printed
    assert "Traceback" not in printed
    assert epochs_done(out) >= 2
    assert not list(out.rglob("*partial*"))


KILLED = Config(dataset="digits", ratio=20, depth=8, epochs=150, batch_size=128, learning_rate=0.1, eval_every=10)


def resume_in_child(folder):
    experiment.run(KILLED, folder, resume=True)


@pytest.mark.skipif(BACKEND == "jax", reason="every resume compiles anew, 22 times: many minutes")
def test_killed_run_ends_like_an_uninterrupted_one(tmp_path):
    """At least 20 times kill -9 at a random moment after progress, each followed by a resume."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tf_mmloss.train.experiment", "tensorflow"])
    moments = random.Random(0)
    killed, kills = tmp_path / "killed", 0
    while kills < 20:
        child = context.Process(target=resume_in_child, args=(killed,))
        child.start()
        wait_for_epoch(killed, epochs_done(killed) + 1, child)
        time.sleep(moments.uniform(0, 0.1))
        assert child.is_alive(), "too few epochs for so many kills"
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        assert child.exitcode == -signal.SIGKILL
        kills += 1
    after_kills = epochs_done(killed)
    assert 20 <= after_kills < KILLED.epochs
    whole = experiment.run(KILLED, tmp_path / "whole")
    resumed = experiment.run(KILLED, killed, resume=True)
    assert resumed["checksum"] == whole["checksum"]
    timing = ("seconds", "images_per_second")
    assert {k: v for k, v in resumed.items() if k not in timing} == {k: v for k, v in whole.items() if k not in timing}
    assert not list(killed.rglob("*partial*"))
    assert len(json.loads((killed / "environment.json").read_text())["starts"]) == kills + 1
