"""Run folders that are damaged or hostile: named and refused at once, and nothing is written out of them."""

import copy
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_plots import HISTORY
from test_report import write_run

from reproduction import report, table
from tf_mmloss.cli import runs as list_runs
from tf_mmloss.files import JSON_BYTES, write_json
from tf_mmloss.runs import fields, plots
from tf_mmloss.runs import folder as run_folder
from tf_mmloss.runs.folder import RunFolderError
from tf_mmloss.train.config import Config
from tf_mmloss.train.resolve import resolve

RESULTS = Path(__file__).parents[1] / "results"
FILES = ("config.json", "metrics.json", "environment.json", "history.csv", "checkpoint/latest.json")
WRONG = (
    *("text", "", "\ud800", "x" * 100_000, -1, 0, 3, 0.5, True, None, [], {}, [[]], ["a"], [None] * 3, {"a": []}),
    *(
        10**9,
        6_000_002,
        2**64,
        10**400,
        1e308,
        -1e308,
        float("inf"),
        float("nan"),
        "1e-3",
        "0.1",
        "../../x",
        "/dev/zero",
    ),
)


CELLS = [table.Cell("mm-drw", resolve(Config()))]


def make_report(runs):
    return report.results_csv(runs), report.tables(runs, [])


@pytest.fixture
def run(tmp_path):
    """A whole run folder of four epochs."""
    folder = write_run(tmp_path, folder="run", epochs=4, start_epoch=3)
    (folder / "history.csv").write_text(HISTORY)
    (folder / "checkpoint").mkdir()
    rows = [{"epoch": epoch, "loss": 1.0, "val_accuracy": 0.5} for epoch in range(4)]
    (folder / "checkpoint" / "latest.json").write_text(json.dumps({"state": "state-0003.npz", "history": rows}))
    return folder


@pytest.fixture
def quick(monkeypatch):
    """Figures are not drawn: that takes long."""
    for name in ("class_distribution", "learning_curves", "per_class_error"):
        monkeypatch.setattr(plots, name, lambda *_, **__: None)


def read_all(folder):
    """Read a run folder in every way; return what was said against it."""
    said = []
    for read in (
        run_folder.read_config,
        run_folder.read_history,
        run_folder.epochs_saved,
        run_folder.is_busy,
        lambda run: run_folder.read_json(run, "metrics.json"),
        lambda run: run_folder.read_json(run, "environment.json"),
        plots.plot_run,
        lambda run: make_report(report.read_runs(run.parent)[0]),
        lambda run: table.status(table.survey(CELLS, run.parent)),
    ):
        try:
            read(folder)
        except RunFolderError as error:
            said.append(str(error))
    return said


def places(content, path=()):
    """Every place in a JSON value, as keys from its top."""
    yield path
    inner = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in inner:
        yield from places(value, (*path, key))


def damage(draw, folder):
    """Damage one file of a run folder; return its name."""
    name = draw.choice(FILES)
    path = folder / name
    text = path.read_text()
    kind = draw.choice(("field", "field", "field", "gone", "cut", "byte", "missing", "empty", "deep", "large"))
    if kind == "missing":
        path.unlink()
    elif kind == "empty":
        path.write_text("")
    elif kind == "deep":
        path.write_text("[" * (levels := draw.choice((40, 900, 100_000))) + "]" * levels)
    elif kind == "large":
        with open(path, "ab") as file:
            file.truncate(2**31)
    elif kind == "cut":
        path.write_text(text[: draw.randrange(len(text))])
    elif kind == "byte":
        content = bytearray(text.encode())
        content[draw.randrange(len(content))] = draw.randrange(256)
        path.write_bytes(content)
    elif name == "history.csv":
        rows = [line.split(",") for line in text.splitlines()]
        row = draw.choice(rows)
        row[draw.randrange(len(row))] = str(draw.choice(WRONG)).encode("ascii", "replace").decode()
        if kind == "gone":
            rows.remove(draw.choice(rows))
        path.write_text("\n".join(map(",".join, rows)) + "\n")
    else:
        content = json.loads(text)
        *above, last = draw.choice(list(places(content))[1:])
        inner = content
        for key in above:
            inner = inner[key]
        if kind == "gone":
            del inner[last]
        else:
            inner[last] = copy.deepcopy(draw.choice(WRONG))
        path.write_text(json.dumps(content))
    return name


@pytest.mark.parametrize("seed", range(4))
def test_damaged_run_folders_are_refused_or_read_but_never_end_in_an_error_of_others(seed, run, quick, tmp_path):
    assert read_all(run) == []
    draw = random.Random(seed)
    refused = 0
    for number in range(100):
        place = tmp_path / f"damaged-{number}"
        folder = place / "run"
        shutil.copytree(run, folder)
        name = damage(draw, folder)
        said = read_all(folder)
        assert all(len(message) < 1000 for message in said), said
        assert all(str(place) in message for message in said), said
        assert not said or any(Path(name).name in message for message in said), (name, said)
        refused += bool(said)
        shutil.rmtree(place)
    assert refused > 60


@pytest.mark.parametrize(
    ("name", "field", "value", "said"),
    [
        ("config.json", "epochs", 10**9, "config.json .* `epochs` must be an integer >= 1 and <= 100000"),
        ("config.json", "depth", 6_000_002, "config.json .* `depth` must be an integer"),
        ("config.json", "learning_rate", "0.1", "config.json .* `learning_rate` must be a finite number"),
        (
            "config.json",
            "learning_rate",
            10**400,
            "config.json must have numbers that a float can hold.*learning_rate=",
        ),
        ("config.json", "method", ["mm"], "config.json .* `method` must be a text"),
        ("config.json", "seed", "0", "config.json .* `seed` must be a whole number"),
        ("metrics.json", "class_names", [["a"]] * 10, "metrics.json .* `class_names` must be a list of texts"),
        ("metrics.json", "class_names", "abcdefghij", "metrics.json .* `class_names` must be a list of texts"),
        ("metrics.json", "cls_counts", [1, 2], "metrics.json .* 2 cls_counts, another number of errors"),
        ("metrics.json", "error", "low", "metrics.json .* `error` must be a fraction"),
        ("metrics.json", "best_epoch", {"epoch": 1}, "metrics.json .* `best_epoch` must be an object"),
        ("environment.json", "starts", [], "environment.json .* `starts` must be a list of starts"),
        ("environment.json", "starts", [{}], "environment.json .* `starts` must be a list of starts"),
        ("checkpoint/latest.json", "history", [{"epoch": 0}, {"epoch": 2}], "latest.json .* row 1 must be of epoch 1"),
        ("checkpoint/latest.json", "history", [{"epoch": 0, "loss": "1"}], "latest.json .* `loss` must be a number"),
        ("checkpoint/latest.json", "history", 7, "latest.json .* `history` must be a list"),
    ],
)
def test_the_file_and_the_field_are_named(name, field, value, said, run, quick):
    content = json.loads((run / name).read_text())
    (run / name).write_text(json.dumps({**content, field: value}))
    messages = read_all(run)
    assert messages
    with pytest.raises(AssertionError, match=said):
        raise AssertionError("\n".join(messages))


@pytest.mark.parametrize(
    ("history", "said"),
    [
        ("epoch,accuracy\n0,0.5\n2,0.6\n", "row 1 must be of epoch 1. Received: epoch=2"),
        ("epoch,accuracy\n1,0.5\n", "row 0 must be of epoch 0"),
        ("epoch,accuracy\n0,0.5\n0,0.6\n", "row 1 must be of epoch 1"),
        ("epoch,accuracy\nnan,0.5\n", "row 0 must be of epoch 0"),
        ("epoch,accuracy\n0,1e400\n", "`accuracy` must be a fraction in row 0"),
        ("epoch,accuracy\n0,7\n", "`accuracy` must be a fraction in row 0"),
        ("epoch,accuracy\n0,half\n", "in row 0, could not convert"),
        ("epoch,loss\n0,1\n1,1,1\n", "in row 1, "),
        ("epoch,loss\n0," + 200_000 * "1" + "\n", "field larger than"),
    ],
)
def test_a_history_with_gaps_or_wrong_types_is_refused(history, said, tmp_path):
    (tmp_path / "history.csv").write_text(history)
    with pytest.raises(RunFolderError, match=rf"history\.csv is no history of epochs: .*{said}"):
        run_folder.read_history(tmp_path)


def test_a_value_of_a_history_that_is_no_number_is_a_blank(tmp_path):
    (tmp_path / "history.csv").write_text("epoch,loss,val_loss\n0,1,nan\n1,inf,2\n")
    assert run_folder.read_history(tmp_path) == [{"epoch": 0, "loss": 1}, {"epoch": 1, "val_loss": 2}]


def test_more_epochs_than_any_run_has_are_refused():
    rows = [{"epoch": epoch} for epoch in range(fields.MOST_EPOCHS + 1)]
    assert fields.fault_of_history(rows[:-1]) is None
    assert "more than 100,000 epochs" in fields.fault_of_history(rows)


@pytest.mark.parametrize("kind", ["pipe", "zeros", "folder", "outside"])
@pytest.mark.parametrize("name", [*FILES, ".lock"])
def test_files_that_are_none_are_refused(name, kind, run, quick, tmp_path):
    path, outside = run / name, tmp_path / "outside"
    outside.write_text("mine")
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero" if kind == "zeros" else outside)
    said = read_all(run)
    assert any(str(path) in message for message in said), said
    assert outside.read_text() == "mine"
    with pytest.raises(RunFolderError, match=path.name):
        run_folder.check_own(run)


@pytest.mark.parametrize(
    "name", ["plots", "tensorboard", "checkpoint", "tensorboard/train", "checkpoint/state-0003.npz"]
)
@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_folders_that_lead_out_of_the_run_are_refused(name, kind, run, tmp_path):
    path, outside = run / name, tmp_path / "outside"
    outside.mkdir()
    if path.is_dir():
        shutil.rmtree(path)
    path.parent.mkdir(exist_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(outside)
    with pytest.raises(RunFolderError, match=f"{path} must be"):
        run_folder.check_own(run)
    if name == "plots":
        with pytest.raises(RunFolderError, match=f"{path} must be a folder of the run itself"):
            plots.plot_run(run)
    assert not list(outside.iterdir())


def test_figures_replace_links_and_do_not_follow_them(run, tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("mine")
    target = tmp_path / "out" / "per_class_error.svg"
    target.parent.mkdir()
    target.symlink_to(outside)
    assert plots.main([str(run), "--out", str(target.parent)]) == 0
    assert outside.read_text() == "mine"
    assert not target.is_symlink()


def test_the_lock_of_another_is_no_reason_to_write_elsewhere(tmp_path):
    outside = tmp_path / "outside"
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(outside)
    with pytest.raises(RunFolderError, match=r"\.lock must be a regular file"), run_folder.locked(tmp_path / "run"):
        pass
    assert not outside.exists()
    (tmp_path / "file").touch()
    with pytest.raises(RunFolderError, match="must be a folder"), run_folder.locked(tmp_path / "file"):
        pass


def test_every_run_of_the_results_is_read():
    folders = run_folder.run_folders(RESULTS)
    assert len(folders) > 40
    for folder in folders:
        config = run_folder.read_config(folder)
        assert len(run_folder.read_history(folder)) == config.epochs
        assert run_folder.read_json(folder, "metrics.json")["epochs"] == config.epochs
        assert run_folder.read_json(folder, "environment.json")["starts"]
        assert run_folder.is_finished(folder)
        run_folder.check_own(folder)
        run_folder.check_same(folder, config, config)


def test_a_result_of_many_classes_is_read(run):
    """More than the limit of other files."""
    path, count = run / "metrics.json", 60_000
    metrics = json.loads(path.read_text()) | {
        "class_names": [f"{'a long name of a species ' * 3}{c}" for c in range(count)],
        "cls_counts": [7] * count,
        "per_class_error": [1 / 3] * count,
    }
    write_json(path, metrics)
    assert path.stat().st_size > JSON_BYTES
    assert run_folder.read_json(run, "metrics.json") == metrics


def test_runs_that_failed_are_named_and_rotations_stand_apart(tmp_path, capsys):
    write_run(tmp_path, method="erm", error=0.4)
    write_run(tmp_path, method="rotation", error=0.1)
    (failed := write_run(tmp_path, method="mm-drw")).joinpath("metrics.json").unlink()
    (failed / "failed.json").write_text("{}")
    (damaged := write_run(tmp_path, method="ldam")).joinpath("metrics.json").write_text("{}")
    assert list_runs.main([str(tmp_path)]) == 0
    label, _, erm, rotations, _, rotation, unfinished, last, *unreadable = capsys.readouterr().out.splitlines()
    assert (label, rotations, unfinished) == (
        "CIFAR-10, long-tailed 100:1",
        "CIFAR-10, long-tailed 100:1, rotations",
        "not finished",
    )
    assert (" erm " in erm, " rotation " in rotation) == (True, True)
    assert last == f"  {failed}: epoch 0 of 200, failed"
    said = f"  {damaged / 'metrics.json'} is of another version: it has no error, balanced_accuracy, seconds."
    assert unreadable == ["cannot be read", said]


def test_runs_are_listed_in_a_moment_and_whatever_todays_rules_are(tmp_path):
    path = write_run(tmp_path, error=0.4) / "config.json"
    path.write_text(path.read_text().replace('"start_epoch": 160', '"start_epoch": 300'))  # it never begins
    with pytest.raises(RunFolderError, match="`start_epoch` must be"):
        run_folder.read_config(path.parent)
    code = """
import sys
from tf_mmloss.cli import run
run("tf_mmloss.cli.runs", sys.argv[1:])
print({"keras", "tensorflow", "jax", "torch"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    *_, row, modules = done.stdout.splitlines()
    assert row.split()[0] == "40.00%"
    assert (modules, done.stderr) == ("set()", "")
