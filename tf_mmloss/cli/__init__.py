"""The commands: `tf-mmloss COMMAND`, `python -m tf_mmloss COMMAND`, or, in a checkout, `python training/COMMAND.py`.

A command is a module of this package with `main(arguments) -> exit status`. It is imported when it is run, after
Keras' backend was chosen.
"""

import argparse
import contextlib
import importlib
import logging
import os
import re
import shlex
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

COMMANDS = {
    "fit": "train a network on an imbalanced data set",
    "compare": "train several methods, and say which one to take",
    "tune": "search the options of a loss on held-out training images",
    "predict": "say what is on pictures, with the model of a run",
    "evaluate": "evaluate the model of a run, with intervals",
    "runs": "list runs, the best first",
    "page": "make a page of a run, or of several side by side",
    "export": "export a run for TensorFlow, ONNX or LiteRT",
    "pretrain": "pre-train a backbone by predicting rotations (SSP)",
}

# The commands of a checkout alone.
SCRIPTS = (*COMMANDS, "plots", "report", "table")

# What a user can mend: one line instead of a traceback.
USER_ERRORS = (ValueError, OSError, ImportError)

# Set beside a log level that the user did not choose, which processes started from here inherit.
_LOG_LEVEL_IS_OURS = "TF_MMLOSS_LOG_LEVEL"
# What absl prints, and the one line that continues another.
_LOG_LINES = re.compile(
    rb"^(WARNING: All log messages before absl::.*|[IWE]\d{4} .*\.(cc|h):\d+\].*|To enable the following instr.*)\n",
    re.M,
)

USAGE = """usage: {program} COMMAND [OPTIONS]

Train and compare methods for imbalanced classes.

{commands}

{program} COMMAND --help tells more. {program} --version prints the version.
"""


def program(command: str | None = None) -> str:
    """What to type for a command, as the user typed this one: for messages that say what to type next."""
    script = Path(sys.argv[0])
    if script.suffix == ".py" and script.stem in SCRIPTS and command:
        return f"python {shlex.quote(str(script.with_name(f'{command}.py')))}"
    if command in SCRIPTS and command not in COMMANDS:
        return f"python training/{command}.py"
    entry = "python -m tf_mmloss" if script.name == "__main__.py" else "tf-mmloss"
    return f"{entry} {command}" if command else entry


def parser(command: str, description: str | None, **options: Any) -> argparse.ArgumentParser:
    """An empty command line whose help names the commands as the user typed this one.

    Args:
        command: its name.
        description: its module's docstring, in which the commands stand as `tf-mmloss NAME`.
        options: of `argparse.ArgumentParser`.
    """
    named = re.sub(rf"tf-mmloss ({'|'.join(SCRIPTS)})\b", lambda found: program(found[1]), description or "")
    return _Parser(
        prog=program(command),
        description=named.replace("%", "%%") if "%(prog)" in named else named,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        **options,
    )


class _Parser(argparse.ArgumentParser):
    """A command line that does not repeat a value without end."""

    def error(self, message: str) -> NoReturn:
        super().error(message if len(message) <= 500 else f"{message[:500]}...")


def path(text: str) -> Path:
    """A path of the command line: `~` is the user's home.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    from tf_mmloss import _validation

    try:
        return _validation.path("path", text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def check_out(folder: Path) -> None:
    """Refuse a folder to write into that is something else, before any work.

    Raises:
        ValueError: it, or what it is in, is there and no folder; or its name has letters that the locale cannot name,
            which TensorFlow does not take.
    """
    if re.search("[\ud800-\udfff]", os.fspath(folder)):
        raise ValueError(
            f"`out` must have letters that this locale can name, or PYTHONUTF8=1 be set. Received: out={str(folder)!r}"
        )
    for place in (folder, *folder.parents):
        if place.is_dir():
            return
        if os.path.lexists(place):
            kind = "a broken link" if place.is_symlink() else "no folder"
            raise ValueError(
                f"`out` must be a folder, or not there yet. Received: out={str(folder)!r}: {place} is {kind}"
            )


def add_decide_option(main: argparse.ArgumentParser) -> None:
    """The decision, for the commands that take a finished run."""
    main.add_argument(
        "--decide",
        metavar="NAME[:X]",
        help=f"none; {said('tf_mmloss.decide')}; of strength X or, without it, fitted on the run's held-out images; "
        "default: the run's own",
    )


def said(package: str) -> str:
    """What the files of a package add, with their help, for --help."""
    from tf_mmloss import methods

    return "; ".join(f"{name}: {text}" for name, text in methods.named(package).items()).replace("%", "%%")


def add_code_options(main: argparse.ArgumentParser) -> None:
    """What of a run is code of one's own, for the commands that take a finished run: for `open_code`."""
    for name, use in (("method", "called"), ("backbone", "imported, for the layers of its module")):
        main.add_argument(
            f"--{name}",
            metavar="MODULE:FUNCTION",
            help=f"the run's own {name}, where it is a function of yours: says that it is to be {use}",
        )


def open_code(run: Path, method: str | None, backbone: str | None) -> None:
    """Call the function of a run's method, and import that of its backbone, which is done only if it was asked for.

    Raises:
        ValueError: it is no function, not the run's, or none that makes a method.
    """
    from tf_mmloss import functions, methods
    from tf_mmloss.runs import folder
    from tf_mmloss.train.config import Config, code_named

    given = {name: spec for name, spec in (("method", method), ("backbone", backbone)) if spec is not None}
    for name, spec in given.items():
        own = folder.read_json(run, "config.json", [name])[name]
        is_code = methods.is_function(spec) and name in code_named(Config(**{name: spec}))
        if not is_code or spec != own:
            raise ValueError(
                f"`{name}` must be the run's package.module:function, or left out; its {name} is {own}. "
                f"Received: {name}={spec!r}"
            )
    if method is not None:
        methods.open_function(method)
    if backbone is not None:
        functions.imported("backbone", backbone)


def resuming(command: str, folder: Path, **given: Any) -> str:
    """The command line that continues what is in a folder, with the options that it does not say itself.

    Args:
        command: its name.
        folder: of the run or the comparison.
        given: more options by name; None: left out.
    """
    options = {"resume": folder, **given}
    words = [word for name, value in options.items() if value for word in (f"--{name.replace('_', '-')}", str(value))]
    return f"{program(command)} {shlex.join(words)}"


def add_progress_options(main: argparse.ArgumentParser) -> None:
    """How it is said how it goes, for the commands that train: `how`, for `tf_mmloss.train.progress.shown`."""
    either = main.add_mutually_exclusive_group()
    for how, what in (
        ("quiet", "say nothing but errors"),
        ("json", "print an object a line, for programs: start, epoch, end, error"),
    ):
        either.add_argument(
            f"--{how}", dest="how", action="store_const", const=how, default=argparse.SUPPRESS, help=what
        )


def check_out_file(file: Path) -> None:
    """Refuse a file to write that is a folder, or in something else than one, before any work.

    Raises:
        ValueError: it is.
    """
    check_out(file.parent)
    if file.is_dir():
        raise ValueError(f"`out` must be a file, or not there yet. Received: out={str(file)!r}, a folder")


@contextlib.contextmanager
def imports() -> Iterator[None]:
    """Import frameworks without their log lines, and let ctrl-C end the process at once.

    TensorFlow's C++ prints before its log level counts, straight to the process's standard error; what Python and
    others print there is shown when the imports are over. The exception that Python raises for ctrl-C can be lost in
    an import, where nothing was begun yet.
    """
    from tf_mmloss.train import processor

    processor.use_onednn()
    quiet = "TF_CPP_MIN_LOG_LEVEL" not in os.environ or os.environ.get(_LOG_LEVEL_IS_OURS)
    if quiet:
        os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", _LOG_LEVEL_IS_OURS: "1"}  # of the lines that come later
        logging.getLogger("tensorflow").setLevel(logging.ERROR)  # which warns of every second network of a process
    with contextlib.ExitStack() as stack:
        terminal = stack.enter_context(_without_log_lines()) if quiet else 2

        def leave(number: int, frame: Any) -> None:
            os.write(terminal, b"\nStopped: nothing was begun.\n")
            os._exit(128 + number)

        if (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        ):
            stack.callback(signal.signal, signal.SIGINT, signal.signal(signal.SIGINT, leave))
        yield


@contextlib.contextmanager
def _without_log_lines() -> Iterator[int]:
    """Give a descriptor of the terminal, while standard error is kept back, and in the end its log lines left out."""
    try:
        terminal = os.dup(2)
    except OSError:  # there is none
        yield 2
        return
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield terminal
        finally:
            if sys.stderr is not None:
                sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)
            kept.seek(0)
            sys.stdout.flush()
            os.write(2, _LOG_LINES.sub(b"", kept.read()))


def main(arguments: list[str] | None = None) -> int:
    """Run a command; return its exit status.

    Args:
        arguments: the command's name and its options; default: those of the process.
    """
    _print_everything()
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
    """Choose Keras' backend, then import a command and run it; an interrupt or a closed output is no traceback.

    Args:
        module: full name of the command's module.
        arguments: of the command; default: those of the process.
    """
    from tf_mmloss.cli import backend

    _print_everything()
    given = sys.argv[1:] if arguments is None else arguments
    try:
        backend.choose(given)
        try:
            with imports():
                command = importlib.import_module(module)
        except USER_ERRORS as error:
            return failed(error)
        status: int = command.main(given)
        if sys.stdout is not None:
            sys.stdout.flush()
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # What reads the output has ended, as `head` does. Python writes what is left when it ends, to nowhere then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # as of a program that SIGPIPE ended
    return status


def failed(error: Exception) -> int:
    """Print what went wrong, as one line where it can be; return the exit status."""
    missing = isinstance(error, ModuleNotFoundError) and error.name and f"No module named {error.name!r}" == str(error)
    hint = ': pip install "tf-mmloss[training]" has what every command needs' if missing else ""
    from tf_mmloss.train import progress

    print(f"error: {error}{hint}", file=sys.stderr)
    if progress.how() == "json":
        progress.tell(f"{error}{hint}", "error")
    return 2


def _print_everything() -> None:
    """Print what the terminal cannot show as escapes: a name must not end a command."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
