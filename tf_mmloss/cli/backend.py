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
        SystemExit: an unknown backend, or one that is not installed.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    add_option(parser)
    chosen = parser.parse_known_args(arguments)[0].backend
    if chosen and importlib.util.find_spec(chosen) is None:
        parser.error(f"--backend {chosen} needs `pip install tf-mmloss[{chosen}]`")
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
