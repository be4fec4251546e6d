"""The plan of Table 1, and the runner: which cells are done, and what kills, limits, failures and company do to it."""

import csv
import dataclasses
import errno
import json
import multiprocessing
import os
import re
import shutil
import signal

import pytest
from helpers import BACKEND, copied_at_renames, epochs_done, files_of, wait_for_epoch
from test_report import PAGE, write_run

from reproduction import report, table
from reproduction.table import Cell
from tf_mmloss import NonFiniteLossError
from tf_mmloss.cli import fit
from tf_mmloss.files import write_json
from tf_mmloss.runs import folder as run_folder
from tf_mmloss.runs.folder import RunBusyError, RunFolderError, epochs_saved, locked, method_label, remove_partial
from tf_mmloss.train import experiment
from tf_mmloss.train.config import Config
from tf_mmloss.train.inputs import has_tensorflow
from tf_mmloss.train.presets import TABLE_1
from tf_mmloss.train.resolve import resolve

ELSEWHERE = "mirrored" if BACKEND == "jax" else "data-parallel"  # a strategy that this backend lacks
INPUT = "host" if has_tensorflow() else "device"
RUN = ("run", "--input", INPUT)
SMALL = Config(dataset="digits", ratio=20, depth=8, epochs=4, batch_size=128, learning_rate=0.1, jit="off", input=INPUT)
CELLS = [Cell(method, resolve(dataclasses.replace(SMALL, method=method))) for method in ("erm", "mm-drw")]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Checksums of the cells, each trained without a stop."""
    root = tmp_path_factory.mktemp("whole")
    return {cell.name: experiment.run(cell.config, root / cell.name)["checksum"] for cell in CELLS}


@pytest.fixture
def results(tmp_path):
    return tmp_path / "results"


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """Runs that take no time: they leave a folder, or raise what is set for their method. Gives the folders run."""
    ran, raises = [], {}

    def run(config, folder, **options):
        ran.append(folder)
        (folder / "failed.json").unlink(missing_ok=True)  # as a run does
        if config.method in raises:
            raise raises[config.method]
        written = write_run(tmp_path / "fake", folder=str(len(ran)), **config.values())
        shutil.copytree(written, folder, dirs_exist_ok=True)
        return {"error": 0.1}

    monkeypatch.setattr(experiment, "run", run)
    return ran, raises


def states(cells, results):
    return [progress.state for progress in table.survey(cells, results)]


def checksums(results):
    return {path.parent.name: json.loads(path.read_text())["checksum"] for path in results.glob("*/metrics.json")}


def starts(folder):
    return len(json.loads((folder / "environment.json").read_text())["starts"])


def test_the_plan_is_table_1_three_times_and_the_variants():
    cells = table.plan()
    assert len(cells) == (14 * 8 - 2 * 4) * 3 + 4 * 8 * 3
    assert len({cell.name for cell in cells}) == len({cell.config for cell in cells}) == len(cells)
    with open(report.PUBLISHED, newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["source"] == report.PAPER]
    published = {(row["method"], row["dataset"], row["imbalance"], float(row["ratio"])) for row in rows}
    for seed in table.SEEDS:
        systems = [cell for cell in cells if cell.system in TABLE_1 and cell.config.seed == seed]
        assert {(method_label(cell.system), *cell.setting) for cell in systems} == published


def test_the_plan_begins_with_what_is_most_wanted():
    names = [cell.name.removeprefix("cifar10-longtail100-") for cell in table.plan()]
    drw = ["ldam-drw", "mm-drw", "mm-drw-margin_space_cosine", "mm-ldam-drw", "m-drw"]
    assert names[:8] == [f"{name}-seed0" for name in ("erm", *drw, "mm", "ldam")]
    assert names[8:18] == [f"{name}-seed{seed}" for seed in (1, 2) for name in drw]
    here, there = len(table.systems()) * 3, (len(table.systems()) - 2) * 3
    assert not any(name.startswith("cifar") for name in names[:here])
    assert all(name.startswith("cifar100-longtail100-") for name in names[here : here + there])


def test_variants_are_cells_with_their_options_in_name_and_config():
    cells = {cell.name: cell.config for cell in table.plan()}
    assert cells["cifar10-longtail100-mm-drw-margin_space_cosine-seed0"].margin_space == "cosine"
    assert cells["cifar100-step10-ldam-drw-weights_inverse-seed2"].weights == "inverse"
    assert cells["cifar10-longtail100-mm-drw-seed0"].weights == "effective"


def test_a_finished_run_is_a_cells_by_its_config(results):
    write_run(results, folder="elsewhere/any", precision="bfloat16", eval_every=5, jit="off")
    write_run(results, folder="w", weights="inverse")
    write_run(results, folder="another", beta=1.2, seed=1)
    write_run(results, folder="trial-0", holdout=500, seed=2)
    old = write_run(results, folder="old", method="erm")
    config = json.loads((old / "config.json").read_text())
    del config["pretraining"]  # as before this option was there
    (old / "config.json").write_text(json.dumps(config))
    done = {p.cell.name: p.folder for p in table.survey(table.plan(), results) if p.state == "done"}
    assert done == {
        "cifar10-longtail100-mm-drw-seed0": results / "elsewhere" / "any",
        "cifar10-longtail100-mm-drw-weights_inverse-seed0": results / "w",
        "cifar10-longtail100-erm-seed0": old,
    }


def test_plan_and_status_print_how_far_the_cells_are(results, capsys):
    write_run(results, seconds=7200.0, precision="bfloat16")
    partial = write_run(results, method="erm")
    (partial / "metrics.json").unlink()
    (partial / "checkpoint").mkdir()
    (partial / "checkpoint" / "latest.json").write_text(json.dumps({"history": [{"epoch": e} for e in range(150)]}))
    options = ["--results", str(results), "--datasets", "cifar10", "--systems", "mm-drw,erm", "--seeds", "0"]
    assert table.main(["plan", *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "  1  partial  cifar10-longtail100-erm-seed0"
    assert lines[1] == "  2  done     cifar10-longtail100-mm-drw-seed0"
    assert len(lines) == 8
    assert table.main(["status", *options]) == 0
    counts, erm, left = capsys.readouterr().out.splitlines()
    assert counts == "8 cells: 1 done, 0 running, 1 partial, 0 failed, 6 missing"
    assert erm == "partial  cifar10-longtail100-erm-seed0  epoch 150 of 200"
    images = 12406 / 4 + 2 * (20431 + 5 * 5000 + 5 * 50 + 5 * 5000 + 5 * 500)  # longtail 100, 10; step 100, 10
    assert left.startswith(f"about {2 * images / 12406:.1f} hours")


def test_report_is_the_report_of_the_same_folder(results, monkeypatch, capsys):
    write_run(results)
    monkeypatch.chdir(results.parent)
    (results.parent / "docs").mkdir()
    for name in ("docs/results.md", "README.md"):
        (results.parent / name).write_text(PAGE)
    assert table.main(["report"]) == 0
    assert "23.00" not in capsys.readouterr().out
    for name in ("docs/results.md", "README.md"):
        assert "MM-DRW" in (results.parent / name).read_text()
    assert (results / "results.csv").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--systems", "mm-drv"], "`systems` must be one of erm, .* Did you mean 'mm-drw'"),
        (["--datasets", "cifar1O"], "`datasets` must be one of cifar10, cifar100"),
        (["--seeds", "0,3"], "`seeds` must be one of 0, 1, 2. Received: seeds='3'"),
        (["--hours", "0"], "`hours` must be a finite number > 0"),
        (["--cells", "0"], "`cells` must be an integer >= 1"),
        (["--precision", "half"], "`precision` must be one of"),
        (["--eval-every", "0"], "`eval_every` must be an integer >= 1"),
        (["--strategy", "mirror"], "`strategy` must be one of .* Did you mean 'mirrored'"),
        (["--strategy", ELSEWHERE], f"`strategy` {ELSEWHERE} needs the"),
        (["--gpus", "0.5"], "`gpus` is an option of a cluster, which needs --ray"),
        *([] if BACKEND == "jax" else [(["--input", "epoch"], "`input` epoch needs the JAX backend")]),
    ],
)
def test_bad_options_are_refused_before_any_work(options, said, results, fake, capsys):
    assert table.main([*RUN, "--results", str(results), *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert re.search(said, error), error
    assert not fake[0]
    assert not results.exists()


def test_a_process_of_a_run_is_no_process_of_a_plan(results, fake, monkeypatch):
    monkeypatch.setenv("KERAS_DISTRIBUTION_NUM_PROCESSES", "2")
    with pytest.raises(ValueError, match="start `run` in each without"):
        table.work(CELLS, results)
    assert not fake[0]


def test_folders_that_are_unclear_are_named_and_left_alone(results, fake, capsys):
    def refused(folder, *said):
        before = {path: path.read_bytes() for path in results.rglob("*") if path.is_file()}
        for command in (RUN, ["plan"], ["status"]):
            assert table.main([*command, "--results", str(results)]) == 2
            error = capsys.readouterr().err
            assert all(text in error for text in (str(folder), *said)), error
        assert before == {path: path.read_bytes() for path in results.rglob("*") if path.is_file()}
        assert not fake[0]

    name = "cifar10-longtail100-mm-drw-seed0"
    folder = write_run(results, folder=name, beta=1.2)
    refused(folder, "another run", "beta: 1.2 there, 1.5 in the plan")
    for changed, said in (({"colour": "red"}, "colour"), ({"method": "none"}, "`method`"), ({"epochs": "1"}, "epochs")):
        config = resolve(Config()).values() | changed
        (folder / "config.json").write_text(json.dumps(config))
        refused(folder, "another version", said)
    (folder / "config.json").write_text("{")
    refused(folder, "config.json is not JSON")
    (folder / "config.json").unlink()
    refused(folder, "it has no config.json")
    (folder / "config.json").write_text(json.dumps(resolve(Config()).values()))
    (folder / "metrics.json").unlink()
    (write_run(results, folder="twin") / "metrics.json").unlink()
    refused(folder, "unfinished runs of the same cell", "twin")
    shutil.rmtree(results / "twin")
    (folder / "checkpoint").mkdir()
    (folder / "checkpoint" / "latest.json").write_text("{}")
    refused(folder, "is no checkpoint of a run")


def test_a_finished_run_of_another_version_is_named_and_left_alone(results, fake, capsys):
    folder = write_run(results)
    (folder / "metrics.json").write_text("{}")
    assert table.main(["status", "--results", str(results)]) == 2
    assert f"{folder} holds a run of another version: KeyError('seconds')" in capsys.readouterr().err
    assert (folder / "metrics.json").read_text() == "{}"


def test_a_failure_is_kept_and_skipped_until_retry(results, fake, capsys):
    ran, raises = fake
    raises["erm"] = NonFiniteLossError("The loss became nan in epoch 3, step 5.")
    erm, mm = (results / cell.name for cell in CELLS)
    assert table.work(CELLS, results) == [erm]
    assert ran == [erm, mm]
    assert json.loads((erm / "failed.json").read_text()) == {
        "error": "NonFiniteLossError",
        "message": "The loss became nan in epoch 3, step 5.",
    }
    assert states(CELLS, results) == ["failed", "done"]
    assert "NonFiniteLossError: The loss became nan" in table.status(table.survey(CELLS[:1], results))
    assert table.work(CELLS, results) == []
    assert ran == [erm, mm]
    assert table.work(CELLS, results, retry=True) == [erm]
    del raises["erm"]
    assert table.work(CELLS, results, retry=True) == []
    assert states(CELLS, results) == ["done", "done"]
    assert not (erm / "failed.json").exists()


def test_killed_at_any_write_a_plan_ends_with_the_same_files(tmp_path, monkeypatch):
    """Of a cell that fails and one that does not; then of another try, in which none does."""
    fails = True

    def run(config, folder, **_):
        remove_partial(folder)  # as a run does
        (folder / "failed.json").unlink(missing_ok=True)
        write_json(folder / "config.json", config.values())
        if fails and config.method == "erm":
            raise ArithmeticError("no such number")
        write_json(folder / "metrics.json", {"error": 0.1})
        return {"error": 0.1}

    monkeypatch.setattr(experiment, "run", run)
    monkeypatch.setattr(table, "load", lambda *_: None)
    whole, states_of = tmp_path / "whole", []
    for retry in (False, True):
        fails = not retry
        with copied_at_renames(whole, tmp_path / f"retry-{retry}", monkeypatch) as killed:
            table.work(CELLS, whole, retry=retry)
        expected = files_of(whole)
        states_of.append(states(CELLS, whole))
        assert len(killed) >= 4
        for folder in killed:
            table.work(CELLS, folder, retry=retry)
            assert files_of(folder) == expected, folder
    assert states_of == [["failed", "done"], ["done", "done"]]


def test_the_command_says_what_failed(results, fake, monkeypatch, capsys):
    monkeypatch.setattr(table, "plan", lambda: CELLS)
    monkeypatch.setitem(table.SIZES, "digits", (124, 10))
    fake[1]["erm"] = ArithmeticError("no such number")
    assert table.main([*RUN, "--results", str(results)]) == 1
    said = capsys.readouterr()
    assert f"failed: {results / CELLS[0].name}: ArithmeticError: no such number" in said.err
    assert "2 cells: 1 done, 0 running, 0 partial, 1 failed, 0 missing" in said.out
    assert table.main([*RUN, "--results", str(results)]) == 0


@pytest.mark.parametrize("error", [OSError("the disk is full"), RunFolderError("it holds another run")])
def test_what_is_no_fault_of_the_cell_stops_the_work(error, results, fake):
    ran, raises = fake
    raises["erm"] = error
    with pytest.raises(type(error), match=str(error)):
        table.work(CELLS, results)
    assert len(ran) == 1
    assert states(CELLS, results) == ["missing", "missing"]


@pytest.mark.skipif(BACKEND == "jax", reason="JAX has every input")
def test_what_the_backend_lacks_is_no_fault_of_the_cell(results, fake):
    """A cell that another backend began."""
    folder = results / CELLS[0].name
    folder.mkdir(parents=True)
    config = dataclasses.replace(CELLS[0].config, input="epoch").values()
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="`input` epoch needs the JAX backend"):
        table.work(CELLS, results)
    assert not fake[0]
    assert states(CELLS, results) == ["partial", "missing"]


def test_a_place_that_is_only_read_can_be_looked_at(results, monkeypatch):
    folder = write_run(results, **CELLS[0].config.values())
    (folder / "metrics.json").unlink()
    with locked(folder):

        def refused(*_, **__):
            raise OSError(errno.EROFS, "Read-only file system")

        monkeypatch.setattr(run_folder, "locked", refused)
        assert states(CELLS, results) == ["running", "missing"]
    assert states(CELLS, results) == ["partial", "missing"]


def test_missing_data_is_no_fault_of_the_cell(results, tmp_path, capsys):
    assert table.main([*RUN, "--results", str(results), "--data-dir", str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err
    assert not results.exists()


def test_data_are_checked_once_a_data_set(results, fake, monkeypatch):
    loaded = []
    monkeypatch.setattr(table, "load", lambda *arguments: loaded.append(arguments))
    table.work(CELLS, results, data_dir="~/data")
    assert loaded == [("digits", os.path.expanduser("~/data"))]
    assert len(fake[0]) == len(CELLS)


def test_a_failure_is_noted_before_another_process_can_take_the_cell(results, fake, monkeypatch):
    fake[1]["erm"] = ArithmeticError("no such number")
    states_then, write = [], table.note_failure

    def noted(folder, error):
        states_then.append(states(CELLS[:1], results))
        write(folder, error)

    monkeypatch.setattr(table, "note_failure", noted)
    folder = results / CELLS[0].name
    assert table.work(CELLS[:1], results) == [folder]
    assert states_then == [["running"]]
    # One that saw the cell before it failed finds the note.
    assert table.train(CELLS[0].config, folder, None, None, False) is None
    assert len(fake[0]) == 1


def test_limit_and_precision(results, fake):
    table.work(CELLS, results, how={"precision": "bfloat16", "eval_every": 2}, limit=1)
    assert states(CELLS, results) == ["done", "missing"]
    config = json.loads((results / CELLS[0].name / "config.json").read_text())
    assert (config["precision"], config["eval_every"]) == ("bfloat16", 2)


def test_interrupt_says_that_the_same_command_continues(results, fake, monkeypatch, capsys):
    monkeypatch.setattr(table, "plan", lambda: CELLS)
    fake[1]["erm"] = KeyboardInterrupt()
    assert table.main([*RUN, "--results", str(results)]) == 130
    assert "the same command continues" in capsys.readouterr().out


def test_a_busy_folder_is_refused_and_left_out(results, capsys):
    busy = results / CELLS[0].name
    with locked(busy):
        assert states(CELLS, results) == ["running", "missing"]
        with pytest.raises(RunBusyError, match="another process"):
            experiment.run(CELLS[0].config, busy, resume=True)
        assert fit.main(["--dataset", "digits", "--ratio", "20", "--input", INPUT, "--out", str(busy), "--resume"]) == 2
        assert f"{busy} is busy" in capsys.readouterr().err
        assert table.work(CELLS[:1], results) == []
        assert not (busy / "config.json").exists()
    assert not busy.exists()  # nothing came of it
    assert states(CELLS, results) == ["missing", "missing"]


def test_a_cell_that_became_busy_is_left_for_others(results, fake):
    ran, raises = fake
    raises["erm"] = RunBusyError("busy")
    assert table.work(CELLS, results) == []
    assert [folder.name for folder in ran] == [cell.name for cell in CELLS]
    assert states(CELLS, results) == ["missing", "done"]


def test_time_limit_stops_after_an_epoch_and_the_next_call_continues(results, whole, capsys):
    folder = results / CELLS[1].name
    for epoch in (1, 2):
        assert table.work(CELLS[1:], results, how={"eval_every": 4 // epoch}, hours=1e-6) == []
        assert "stopped after epoch" in capsys.readouterr().out
        assert epochs_saved(folder) == epoch
        assert not (folder / "metrics.json").exists()
        assert not (folder / "last.keras").exists()
        assert states(CELLS[1:], results) == ["partial"]
    assert json.loads((folder / "config.json").read_text())["eval_every"] == 4  # as it was begun
    table.work(CELLS[1:], results, hours=1)
    assert checksums(results) == {CELLS[1].name: whole[CELLS[1].name]}


def work_in_child(results, meeting=None):
    """Work on the plan; with a meeting, hold the first cell until another process holds one, too."""
    if meeting is not None:
        run = experiment.run

        def run_after_the_meeting(*args, **options):
            experiment.run = run
            meeting.wait(300)
            return run(*args, **options)

        experiment.run = run_after_the_meeting
    table.work(CELLS, results)


@pytest.fixture(scope="module")
def children():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["reproduction.table", "tensorflow"])
    return context


def test_killed_work_ends_like_uninterrupted_work(results, whole, children):
    for cell, epoch in ((CELLS[0], 1), (CELLS[1], 2)):
        child = children.Process(target=work_in_child, args=(results,))
        child.start()
        wait_for_epoch(results / cell.name, epoch, child)
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        assert child.exitcode == -signal.SIGKILL
    assert "running" not in states(CELLS, results)
    table.work(CELLS, results)
    assert checksums(results) == whole
    assert not list(results.rglob("*partial*"))


def test_two_processes_do_each_cell_once(results, whole, children):
    meeting = children.Barrier(2)
    both = [children.Process(target=work_in_child, args=(results, meeting)) for _ in range(2)]
    for child in both:
        child.start()
    for child in both:
        child.join(600)
        assert child.exitcode == 0
    assert checksums(results) == whole
    assert [starts(results / cell.name) for cell in CELLS] == [1, 1]
    assert [epochs_done(results / cell.name) for cell in CELLS] == [4, 4]
