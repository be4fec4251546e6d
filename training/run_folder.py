"""Read a run folder and name what is in it, without TensorFlow."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from presets import Config

_DATASETS = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
_IMBALANCES = {"longtail": "long-tailed"}


class RunFolderError(ValueError):
    """The run folder is not what the command needs it to be; nothing in it was changed."""


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """Read a file of a run folder.

    Raises:
        RunFolderError: it is missing or not a JSON object.
    """
    try:
        content = json.loads((folder / name).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise _missing(folder, name) from None
    except ValueError as error:
        raise RunFolderError(f"{folder / name} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise RunFolderError(f"{folder / name} is not a JSON object but a {type(content).__name__}.")
    return content


def read_config(folder: Path) -> "Config":
    """Read the config of a run folder.

    Raises:
        RunFolderError: none there, or one with unknown keys or without a data set and a method.
    """
    from presets import Config  # here: it imports Keras

    content = read_json(folder, "config.json")
    path = folder / "config.json"
    unknown = sorted(set(content) - set(Config.__dataclass_fields__))
    if unknown:
        raise RunFolderError(f"{path} has unknown keys, of another version: {', '.join(unknown)}.")
    if not {"dataset", "method"} <= set(content):
        raise RunFolderError(f"{path} is no config of a run: it has no dataset or no method.")
    return Config(**content)


def read_history(folder: Path) -> list[dict[str, float]]:
    """Read history.csv: a row an epoch; a blank, as in epochs without evaluation, leaves its name out.

    Raises:
        RunFolderError: it is missing, empty, or has something else than numbers.
    """
    path = folder / "history.csv"
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
    except (FileNotFoundError, NotADirectoryError):
        raise _missing(folder, path.name) from None
    except (TypeError, ValueError) as error:
        raise RunFolderError(f"{path} is no history of epochs: {error}") from error
    if not rows or not all("epoch" in row for row in rows):
        raise RunFolderError(f"{path} is no history of epochs: it has no rows, or rows without an epoch.")
    return rows


def data_label(config: Mapping[str, Any]) -> str:
    """Name the training set of a config: "CIFAR-10, long-tailed 100:1"."""
    imbalance = _IMBALANCES.get(config["imbalance"], config["imbalance"])
    return f"{_DATASETS.get(config['dataset'], config['dataset'])}, {imbalance} {config['ratio']:g}:1"


def method_label(method: str) -> str:
    """Name a method as the paper's Table 1 does: "MM-DRW", "Focal"."""
    return method.upper().replace("FOCAL", "Focal")


def _missing(folder: Path, name: str) -> RunFolderError:
    return RunFolderError(f"{folder} is no finished run folder: it has no {name}.")
