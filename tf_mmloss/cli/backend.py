"""Choose Keras' backend on the command line: Keras reads it once, when it is first imported."""

import argparse
import importlib.util
import os
from typing import Any

BACKENDS = ("tensorflow", "jax", "torch")


def add_option(parser: Any) -> None:
    """Add `--backend` to a command."""
    parser.add_argument(
        "--backend", choices=BACKENDS, help="of Keras; default: KERAS_BACKEND, then Keras' own configuration"
    )


def choose(arguments: list[str]) -> None:
    """Set the backend that `--backend` names; call it before anything imports Keras.

    Args:
        arguments: of the command, its other options among them.

    Raises:
        SystemExit: an unknown backend, also of KERAS_BACKEND, or one that is not installed.
    """
    from tf_mmloss.cli import program

    parser = argparse.ArgumentParser(prog=program(), usage=argparse.SUPPRESS, add_help=False, allow_abbrev=False)
    add_option(parser)
    chosen = parser.parse_known_args(arguments)[0].backend
    variable = os.environ.get("KERAS_BACKEND")
    if not chosen and variable and variable not in BACKENDS:
        parser.error(f"KERAS_BACKEND must be one of {', '.join(BACKENDS)}. Received: KERAS_BACKEND={variable!r}")
    wanted = chosen or variable
    if wanted and importlib.util.find_spec(wanted) is None:
        source = "--backend " if chosen else "KERAS_BACKEND="
        parser.error(f"{source}{wanted} needs `pip install tf-mmloss[{wanted}]`")
    if chosen:
        os.environ["KERAS_BACKEND"] = chosen


def check(chosen: str | None) -> None:
    """Refuse a backend that comes too late.

    Raises:
        ValueError: Keras runs on another one already.
    """
    import keras

    if chosen and chosen != keras.backend.backend():
        raise ValueError(
            f"`backend` must be {keras.backend.backend()!r}, on which Keras runs already, or be given in full, as "
            f"--backend, to the command. Received: backend={chosen!r}"
        )
