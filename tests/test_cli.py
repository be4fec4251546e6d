"""The commands: how they are found and named, and that asking for help needs no Keras."""

import argparse
import errno
import importlib
import logging
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tf_mmloss import cli, methods
from tf_mmloss.cli import COMMANDS, SCRIPTS, fit, main, program
from tf_mmloss.files import write_json
from tf_mmloss.train import experiment, resolve, stages
from tf_mmloss.train.config import Config

ROOT = Path(__file__).parents[1]


def python(*arguments, cwd=ROOT, **environment):
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, cwd=cwd, env={**os.environ, **environment}
    )


def test_help_names_every_command(capsys):
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in COMMANDS)
    assert main([]) == 0


def test_an_unknown_command_is_refused_with_the_nearest(capsys):
    assert main(["fitt"]) == 2
    assert capsys.readouterr().err == (
        f"error: the command must be one of {', '.join(COMMANDS)}. Received: fitt. Did you mean fit?\n"
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_a_module_and_a_script(command):
    if command == "tune":
        pytest.importorskip("keras_tuner")
    assert (ROOT / "training" / f"{command}.py").exists()
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])


def test_help_needs_no_keras():
    code = """
import sys
from tf_mmloss.cli import COMMANDS, main
main(["--help"])
for command in sorted(COMMANDS.keys() - {"tune"}):  # which is made of Keras Tuner's classes
    try:
        main([command, "--help"])
    except SystemExit:
        pass
print({"keras", "tensorflow", "jax", "torch", "matplotlib"} & set(sys.modules))
"""
    done = python("-c", code)
    assert done.stdout.splitlines()[-1] == "set()", done.stderr
    assert done.stderr == ""


def test_import_needs_no_keras_and_keras_finds_the_classes_whichever_is_first():
    for order in ("import tf_mmloss, keras", "import keras, tf_mmloss", "import tf_mmloss.evaluation, keras"):
        code = f"""
import sys
{order}
found = keras.saving.get_registered_object("tf_mmloss>MaxMarginLoss")
assert found is tf_mmloss.MaxMarginLoss, found
"""
        done = python("-c", code)
        assert done.returncode == 0, done.stderr
    done = python("-c", "import sys, tf_mmloss; print({'keras', 'numpy'} & set(sys.modules))")
    assert done.stdout.strip() == "set()", done.stderr


@pytest.mark.parametrize(
    ("script", "command", "expected"),
    [
        ("training/fit.py", "fit", "python training/fit.py"),
        ("/somewhere/bin/tf-mmloss", "fit", "tf-mmloss fit"),
        ("/somewhere/tf_mmloss/__main__.py", "export", "python -m tf_mmloss export"),
        ("/somewhere/bin/tf-mmloss", None, "tf-mmloss"),
        ("fit.py", "pretrain", "python pretrain.py"),
        ("my checkout/training/table.py", "table", "python 'my checkout/training/table.py'"),
        ("/somewhere/bin/tf-mmloss", "table", "python training/table.py"),
    ],
)
def test_messages_name_what_was_typed(monkeypatch, script, command, expected):
    monkeypatch.setattr(sys, "argv", [script])
    assert program(command) == expected


def test_an_interrupt_while_a_command_is_imported_is_no_traceback(monkeypatch, capsys):
    def interrupted(name):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.importlib, "import_module", interrupted)
    assert main(["fit"]) == 130
    assert capsys.readouterr().err == "\nStopped.\n"


@pytest.mark.parametrize("script", ["training/fit.py", "/somewhere/bin/tf-mmloss"])
def test_help_names_commands_as_they_are_typed(script, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [script])
    with pytest.raises(SystemExit, match="0"):
        main(["pretrain", "--help"])
    printed = capsys.readouterr().out
    for command in ("pretrain", "fit"):
        typed = f"python training/{command}.py" if script.endswith(".py") else f"tf-mmloss {command}"
        assert f"    {typed} --dataset cifar10" in printed
    assert f"usage: {program('pretrain')} " in printed


def test_ctrl_c_during_imports_ends_at_once_and_later_names_what_to_continue(monkeypatch, capsys):
    code = """
import os, signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)
from tf_mmloss import cli
with cli.imports():
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)
    except BaseException:  # as a framework may do
        pass
print("went on")
"""
    for environment in ({}, {"TF_CPP_MIN_LOG_LEVEL": "0"}):
        done = python("-c", code, **environment)
        assert (done.returncode, done.stdout, done.stderr) == (130, "", "\nStopped: nothing was begun.\n")

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    handler = signal.getsignal(signal.SIGINT)
    for module, function in ((experiment, "run"), (resolve, "resolve")):  # while images are read, and before
        monkeypatch.setattr(module, function, interrupted)
        assert fit.main(["--dataset", "digits", "--quiet"]) == 130
        assert signal.getsignal(signal.SIGINT) is handler
        assert capsys.readouterr() == ("", "\nStopped: nothing was begun.\n")


def test_what_to_continue_is_named_where_there_is_something(tmp_path, monkeypatch, capsys):
    asked = ["--dataset", "digits", "--out", str(tmp_path / "my run")]
    for error, expected in ((KeyboardInterrupt(), 130), (OSError(errno.ENOSPC, "No space left on device"), 2)):

        def fails(*_, error=error, **__):
            raise error

        monkeypatch.setattr(experiment, "run", fails)
        assert fit.main(asked) == expected
        assert "--resume" not in capsys.readouterr().err
        (tmp_path / "my run").mkdir()
        (tmp_path / "my run" / "config.json").touch()
        assert fit.main(asked) == expected
        printed = capsys.readouterr()
        assert f"fit --resume '{tmp_path / 'my run'}'" in printed.out + printed.err
        shutil.rmtree(tmp_path / "my run")


def test_log_lines_of_imports_are_left_out_and_nothing_else(monkeypatch, capfd):
    lines = (
        b"WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n",
        b"I0000 00:00:1795665815.349873   15101 port.cc:153] oneDNN custom operations are on.\n",
        b"E0000 00:00:1795665821.308805   15101 cuda_platform.cc:52] failed call to cuInit\n",
        b"W1126 04:00:00.000000 7 a.h:1] slow\n",
    )
    said = b"UserWarning: W1126 is no date\n"
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    monkeypatch.delenv(cli._LOG_LEVEL_IS_OURS, raising=False)

    def failing():
        with cli.imports():
            os.write(2, b"".join([*lines[:2], said, *lines[2:]]))
            assert capfd.readouterr().err == ""
            raise ImportError

    logger = logging.getLogger("tensorflow")
    monkeypatch.setattr(logger, "level", logging.WARNING)
    with pytest.raises(ImportError):
        failing()
    assert capfd.readouterr().err == said.decode()
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "3"
    assert logger.level == logging.ERROR  # else it warns of the second network of a process
    monkeypatch.setattr(logger, "level", logging.WARNING)
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")  # the user's
    monkeypatch.delenv(cli._LOG_LEVEL_IS_OURS)
    with cli.imports():
        os.write(2, lines[0])
    assert capfd.readouterr().err == lines[0].decode()
    assert logger.level == logging.WARNING


def test_nothing_is_printed_before_the_first_word():
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
    done = subprocess.run(
        [sys.executable, "-m", "tf_mmloss", "fit", "--dataset", "digits", "--ratio", "20", "--show"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
    )
    assert done.stderr == ""
    assert done.stdout.startswith("mm-drw: MaxMarginLoss(")


def test_an_unknown_backend_is_refused_in_one_line(monkeypatch, capsys):
    monkeypatch.setenv("KERAS_BACKEND", "xyz")
    with pytest.raises(SystemExit, match="2"):
        main(["fit", "--dataset", "digits"])
    message = "KERAS_BACKEND must be one of tensorflow, jax, torch. Received: KERAS_BACKEND='xyz'\n"
    assert capsys.readouterr().err.endswith(message)


def test_a_missing_package_is_one_line(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    options = ["--dataset", "digits", "--ratio", "20", "--input", "device", "--out", str(tmp_path / "run")]
    assert main(["fit", *options]) == 2
    said = capsys.readouterr().err
    assert "The data set `digits`, which comes with scikit-learn, needs `pip install tf-mmloss[training]`" in said
    assert said.count("\n") == 1
    monkeypatch.setitem(sys.modules, "keras_tuner", None)
    monkeypatch.delitem(sys.modules, "tf_mmloss.cli.tune", raising=False)
    assert main(["tune"]) == 2
    said = capsys.readouterr().err
    assert "keras_tuner" in said
    assert said.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_letters_that_the_locale_cannot_name_are_refused_before_any_work(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "--dataset", "digits", "--ratio", "20", "--out", "\udcc3\udcbc"]) == 2
    said = capsys.readouterr().err
    assert "`out` must have letters that this locale can name, or PYTHONUTF8=1 be set. Received: out=" in said
    assert not list(tmp_path.iterdir())


def test_what_a_terminal_cannot_show_is_escaped(tmp_path):
    (tmp_path / "é").mkdir()
    done = python("-m", "tf_mmloss", "runs", str(tmp_path / "é"), PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"no runs below {tmp_path}/\\xe9\n"
    done = python("-m", "tf_mmloss", "runs", str(tmp_path / "ö"), PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (
        2,
        f"error: `folder` must be a folder. Received: folder='{tmp_path}/\\xf6'\n",
    )


@pytest.mark.parametrize("kind", ["file", "in a file", "pipe", "broken link"])
@pytest.mark.parametrize("command", ["fit", "tune", "export", "plots"])
def test_a_folder_to_write_that_is_something_else_is_refused_first(kind, command, tmp_path, capsys):
    if command == "tune":
        pytest.importorskip("keras_tuner")
    place = tmp_path / "place"
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "broken link":
        place.symlink_to(tmp_path / "nowhere")
    else:
        place.write_text("mine")
    out = place / "run" if kind == "in a file" or command == "export" else place
    data = ["--dataset", "digits", "--ratio", "20"]
    more = {"fit": data, "tune": data, "export": [str(tmp_path)], "plots": [str(tmp_path)]}[command]
    module = "tf_mmloss.runs.plots" if command == "plots" else f"tf_mmloss.cli.{command}"
    assert importlib.import_module(module).main([*more, "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert "`out` must be a folder, or not there yet" in said
    assert said.count("\n") == 1
    assert os.listdir(tmp_path) == ["place"]


@pytest.mark.parametrize("command", ["fit", "tune"])
def test_a_folder_to_write_is_checked_before_own_images_are_read(command, tmp_path, monkeypatch, capsys):
    if command == "tune":
        pytest.importorskip("keras_tuner")
    monkeypatch.setattr("tf_mmloss.train.inputs.load", lambda *_: pytest.fail("the images were read"))
    (tmp_path / "place").write_text("mine")
    options = ["--dataset", str(tmp_path), "--out", str(tmp_path / "place")]
    assert importlib.import_module(f"tf_mmloss.cli.{command}").main(options) == 2
    assert "`out` must be a folder, or not there yet" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_a_file_to_write_that_is_a_folder_is_refused_first(command, tmp_path, capsys):
    more = [str(tmp_path)] if command == "predict" else []
    assert importlib.import_module(f"tf_mmloss.cli.{command}").main([str(tmp_path), *more, "--out", str(tmp_path)]) == 2
    assert "`out` must be a file, or not there yet" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--batch-size", "1" + 20 * "0"], "`batch_size` must be an integer"),
        (["--epochs", "1000000000"], "`epochs` must be an integer"),
        (["--epochs", "1e9"], "argument --epochs: invalid int value: '1e9'"),
        (["--seed", "-1"], "`seed` must be an integer >= 0"),
        (["--seed", "9" * 5000], "argument --seed: invalid int value"),
        (["--learning-rate", "1e400"], "`learning_rate` must be a finite number"),
        (["--out", ""], "argument --out: `path` must be a path. Received: path=''"),
    ],
)
def test_impossible_options_are_one_short_line(options, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    try:
        status = fit.main(["--dataset", "digits", "--ratio", "20", *options])
    except SystemExit as exit:
        status = exit.code
    assert status == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in said
    assert len(said) < 600
    assert not list(tmp_path.iterdir())


def test_a_holdout_that_is_no_number_is_refused_by_its_name(capsys):
    with pytest.raises(SystemExit):
        fit.parser().parse_args(["--holdout", "many"])
    said = "`holdout` must be a number of images, or a share as 0.2. Received: holdout='many'"
    assert said in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="no such pipes")
def test_an_output_that_is_read_no_further_is_no_traceback(tmp_path):
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as closed:
        command = [sys.executable, "-m", "tf_mmloss", "runs", str(tmp_path)]
        done = subprocess.run(command, stdout=closed, stderr=subprocess.PIPE, cwd=ROOT, text=True)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_path_may_begin_at_home(monkeypatch):
    monkeypatch.setenv("HOME", "/somewhere")
    options = fit.parser().parse_args(["--out", "~/run", "--data-dir", "~/data", "--resume", "~/old"])
    assert (options.out, options.data_dir, options.resume) == tuple(
        Path("/somewhere", name) for name in ("run", "data", "old")
    )


DOCUMENTS = ("README.md", "CONTRIBUTING.md", "docs/*.md", "benchmarks/README.md")
# What is no command of this project.
OTHERS = ("export", "pip", "ray", "git", "uv")


def documented():
    """Every command line in the documents' shell blocks."""
    for pattern in DOCUMENTS:
        for path in sorted(ROOT.glob(pattern)):
            for block in re.findall(r"```sh\n(.*?)```", path.read_text(), re.S):
                if script := re.match(r'--8<-- "(.*)"', block):
                    block = (ROOT / "docs" / "examples" / script[1]).read_text()
                for line in block.replace("\\\n", " ").splitlines():
                    words = shlex.split(line, comments=True)
                    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):  # a variable
                        words = words[1:]
                    if words:
                        yield pytest.param(words, id=f"{path.name}: {' '.join(words)}"[:100])


class Parsed(Exception):  # noqa: N818
    """The command line was understood."""


@pytest.mark.parametrize("words", list(documented()))
def test_documented_commands_and_their_options_exist(words, monkeypatch):
    real = argparse.ArgumentParser.parse_args

    def parse(self, *arguments, **options):
        real(self, *arguments, **options)
        raise Parsed

    if words[0] == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
        assert words[1] in targets
        return
    if words[0] in OTHERS:
        return
    if words[:3] == ["python", "-m", "tf_mmloss"]:
        words = ["tf-mmloss", *words[3:]]
    if words[0].endswith("python"):
        script, options = Path(words[1]), words[2:]
        assert (ROOT / script).exists()
        if script.parts[0] != "training":
            written = (ROOT / script).read_text()
            assert all(option in written for option in options if option.startswith("--"))
            return
        command = script.stem
        assert command in SCRIPTS
    else:
        assert words[0] == "tf-mmloss"
        command, options = words[1], words[2:]
        assert command in COMMANDS
    if command == "tune":
        pytest.importorskip("keras_tuner")
    monkeypatch.chdir(ROOT / "docs" / "examples" / "own")  # whose files docs/extending.md names
    monkeypatch.setattr(methods, "METHODS", dict(methods.METHODS))
    module = {"plots": "tf_mmloss.runs", "report": "reproduction", "table": "reproduction"}.get(
        command, "tf_mmloss.cli"
    )
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse)
    with pytest.raises(Parsed):
        importlib.import_module(f"{module}.{command}").main(options)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (
            {},
            "as its learning rate follows from `epochs`: in epoch 0 it was 0.03, and in a run of 80 epochs it is 0.015",
        ),
        ({"schedule": "cosine"}, "as its learning rate follows from `epochs`"),
        ({"schedule": "constant", "sam": 0.1, "sam_late": 0.2}, "as its radius of SAM follows from `epochs`"),
        ({"schedule": "constant", "method": "mm-drw"}, "--start-epoch keeps it there"),
        ({"schedule": "constant", "mix": "cmo"}, "cmo does not mix the last 3 epochs"),
        ({"schedule": "constant", "pretraining": "rotation"}, "it started from a backbone"),
    ],
)
def test_a_run_that_is_to_be_longer_is_told_why_not(tmp_path, capsys, options, reason):
    config = resolve.resolve(Config(**{"dataset": "digits", "epochs": 40, "method": "erm", **options}))
    write_json(tmp_path / "config.json", config.values())
    (tmp_path / "checkpoint").mkdir()
    write_json(tmp_path / "checkpoint" / "latest.json", {"history": [{"epoch": epoch} for epoch in range(40)]})
    before = (tmp_path / "config.json").read_bytes()
    assert fit.main(["--resume", str(tmp_path), "--epochs", "80"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "epochs: 40 there, 80 asked for" in said
    assert "It cannot be made longer, " in said
    assert reason in said
    assert (tmp_path / "config.json").read_bytes() == before


@pytest.mark.parametrize(
    ("options", "done", "given"),
    [
        ({"schedule": "constant"}, 40, {}),
        ({"schedule": "constant", "method": "mm-drw"}, 30, {}),
        ({"schedule": "constant", "method": "mm-drw"}, 40, {"start_epoch": 32}),
        ({"epochs": 200}, 100, {"epochs": 210}),
    ],
)
def test_a_run_can_be_longer_where_its_epochs_are_those_of_the_longer_one(options, done, given):
    config = resolve.resolve(Config(**{"dataset": "digits", "epochs": 40, "method": "erm", **options}))
    given = {"epochs": 80, **given}
    longer = resolve.lengthened(config, **given)
    stages.check_lengthened(config, longer, done)
    assert longer == resolve.resolve(Config(**{"dataset": "digits", "method": "erm", **options, **given}))


def test_a_run_that_cmo_mixed_no_longer_before_its_last_stage_cannot_be_longer():
    """Of 40 epochs, mislas begins its last stage at 38, and cmo mixes from 4 to 34."""
    config = resolve.resolve(Config(dataset="digits", epochs=40, method="mislas", schedule="constant", mix="cmo"))
    longer = resolve.lengthened(config, 80)
    stages.check_lengthened(config, longer, 35)
    for done in (36, 37):
        with pytest.raises(ValueError, match="cmo does not mix the last 3 epochs"):
            stages.check_lengthened(config, longer, done)
