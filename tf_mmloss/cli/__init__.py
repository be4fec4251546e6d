"""The commands: `tf-mmloss COMMAND`, `python -m tf_mmloss COMMAND`, or, in a checkout, `python training/COMMAND.py`.

A command is a module of this package with `main(arguments) -> exit status`. It is imported when it is run, after
Keras' backend was chosen.
"""

import importlib
import sys
from pathlib import Path

COMMANDS = {
    "fit": "train a network on an imbalanced data set",
    "tune": "search the options of a loss on held-out training images",
    "predict": "say what is on pictures, with the model of a run",
    "runs": "list runs, the best first",
    "export": "export a run as a SavedModel",
    "pretrain": "pre-train a backbone by predicting rotations (SSP)",
}

USAGE = """usage: {program} COMMAND [OPTIONS]

Train and compare methods for imbalanced classes.

{commands}

{program} COMMAND --help tells more. {program} --version prints the version.
"""


def program(command: str | None = None) -> str:
    """What the user typed to get here, for messages that say what to type next."""
    script = Path(sys.argv[0])
    if script.name == f"{command}.py":
        return f"python {script}"
    entry = "python -m tf_mmloss" if script.name == "__main__.py" else "tf-mmloss"
    return f"{entry} {command}" if command else entry


def main(arguments: list[str] | None = None) -> int:
    """Run a command; return its exit status.

    Args:
        arguments: the command's name and its options; default: those of the process.
    """
    given = sys.argv[1:] if arguments is None else arguments
    name, options = (given[0], given[1:]) if given else ("--help", [])
    if name in ("-h", "--help"):
        width = max(map(len, COMMANDS))
        lines = "\n".join(f"  {command:{width}}  {what}" for command, what in COMMANDS.items())
        print(USAGE.format(program=program(), commands=lines), end="")
        return 0
    if name == "--version":
        from tf_mmloss import __version__

        print(__version__)
        return 0
    if name not in COMMANDS:
        import difflib

        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        print(f"error: the command must be one of {', '.join(COMMANDS)}. Received: {name}.{hint}", file=sys.stderr)
        return 2
    return run(f"tf_mmloss.cli.{name}", options)


def run(module: str, arguments: list[str] | None = None) -> int:
    """Choose Keras' backend, then import a command and run it; an interrupt in between is no traceback.

    Args:
        module: full name of the command's module.
        arguments: of the command; default: those of the process.
    """
    from tf_mmloss.cli import backend

    given = sys.argv[1:] if arguments is None else arguments
    try:
        backend.choose(given)
        status: int = importlib.import_module(module).main(given)
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130
    return status
