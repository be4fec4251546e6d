"""The commands: how they are found and named, and that asking for help needs no Keras."""

import subprocess
import sys
from pathlib import Path

import pytest

from tf_mmloss import cli
from tf_mmloss.cli import COMMANDS, main, program

ROOT = Path(__file__).parents[1]


def python(*arguments, cwd=ROOT):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=cwd)


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
from tf_mmloss.cli import main
main(["--help"])
try:
    main(["fit", "--help"])
except SystemExit:
    pass
print({"keras", "tensorflow", "jax", "torch", "matplotlib"} & set(sys.modules))
"""
    done = python("-c", code)
    assert done.stdout.splitlines()[-1] == "set()", done.stderr
    assert done.stderr == ""


def test_import_needs_no_keras_and_keras_finds_the_classes_whichever_is_first():
    for order in ("import tf_mmloss, keras", "import keras, tf_mmloss"):
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
