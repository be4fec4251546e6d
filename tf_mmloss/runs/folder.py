"""Read a run folder, name what is in it, and keep other processes out of it, without TensorFlow."""

import contextlib
import csv
import dataclasses
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from tf_mmloss.train.presets import Config

_DATASETS = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
_IMBALANCES = {"longtail": "long-tailed"}


class RunFolderError(ValueError):
    """The run folder is not what the command needs it to be; nothing in it was changed."""


class RunBusyError(RunFolderError):
    """Another process works in the run folder."""


@contextlib.contextmanager
def locked(folder: Path, patience: float = 1.0) -> Iterator[None]:
    """Keep other processes out of a run folder, made if missing, until the block is done or the process dies.

    The lock is the operating system's, on FOLDER/.lock: a killed process leaves none behind, and on a shared file
    system it holds between hosts. Windows has no such lock: nothing is kept out there. A folder that was made here and
    stayed empty is removed.

    Args:
        folder: the run's.
        patience: seconds to try again, as `is_busy` elsewhere holds the lock for a moment.

    Raises:
        RunBusyError: another process holds the folder.
    """
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ".lock"
    with open(path, "a") as file:
        if not _lock(file, patience) or not path.exists() or not os.path.samestat(os.fstat(file.fileno()), path.stat()):
            raise RunBusyError(f"{folder} is busy: another process is training there. Wait for it, or stop it.")
        try:
            yield
        finally:
            if made and os.listdir(folder) == [path.name]:
                with contextlib.suppress(OSError):  # someone else may have begun there
                    path.unlink()
                    folder.rmdir()


def is_busy(folder: Path) -> bool:
    """Whether a process works in a run folder."""
    if not (folder / ".lock").exists():
        return False
    try:
        with locked(folder, patience=0.05):
            return False
    except RunBusyError:
        return True
    except OSError:  # a place that is only read
        with contextlib.suppress(OSError), open(folder / ".lock") as file:
            return not _lock(file, patience=0.05)
        return False


def run_folders(root: Path) -> list[Path]:
    """All run folders below a folder, finished or not, sorted."""
    return sorted({path.parent for name in ("config.json", "metrics.json") for path in root.rglob(name)})


def is_finished(folder: Path) -> bool:
    """Whether the run in a folder has its result."""
    return (folder / "metrics.json").exists()


def epochs_saved(folder: Path) -> int:
    """The number of complete epochs in a run folder's checkpoint.

    Raises:
        RunFolderError: the checkpoint is unreadable.
    """
    path = folder / "checkpoint" / "latest.json"
    if not path.exists():
        return 0
    history = read_json(path.parent, path.name).get("history")
    if not isinstance(history, list):
        raise RunFolderError(f"{path} is no checkpoint of a run: it has no history.")
    return len(history)


def differences(one: "Config", other: "Config") -> dict[str, tuple[Any, Any]]:
    """The values that two configs do not share."""
    a, b = dataclasses.asdict(one), dataclasses.asdict(other)
    return {name: (a[name], b[name]) for name in a if a[name] != b[name]}


def check_same(folder: Path, there: "Config", asked: "Config") -> None:
    """Refuse a config that is not the one of the run in a folder.

    Raises:
        RunFolderError: naming what differs.
    """
    differing = differences(there, asked)
    if differing:
        named = "; ".join(f"{name}: {a!r} there, {b!r} asked for" for name, (a, b) in differing.items())
        raise RunFolderError(
            f"{folder} holds a run of another config ({named}): choose another folder, or remove this one."
        )


def read_json(folder: Path, name: str, needed: Iterable[str] = ()) -> dict[str, Any]:
    """Read a file of a run folder, which must have the `needed` keys.

    Raises:
        RunFolderError: it is missing, not a JSON object, or has not all of them.
    """
    try:
        content = json.loads((folder / name).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise _missing(folder, name) from None
    except ValueError as error:
        raise RunFolderError(f"{folder / name} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise RunFolderError(f"{folder / name} is not a JSON object but a {type(content).__name__}.")
    missing = [key for key in needed if key not in content]
    if missing:
        raise RunFolderError(f"{folder / name} is of another version: it has no {', '.join(missing)}.")
    return content


def read_config(folder: Path) -> "Config":
    """Read the config of a run folder; options that it is too old to have get the presets' values.

    Raises:
        RunFolderError: none there, or one with unknown keys, without a data set and a method, or that cannot be run.
    """
    from tf_mmloss.train.presets import Config, resolve  # here: it imports Keras

    content = read_json(folder, "config.json")
    path = folder / "config.json"
    unknown = sorted(set(content) - set(Config.__dataclass_fields__))
    if unknown:
        raise RunFolderError(f"{path} has unknown keys, of another version: {', '.join(unknown)}.")
    if not {"dataset", "method"} <= set(content):
        raise RunFolderError(f"{path} is no config of a run: it has no dataset or no method.")
    try:
        return resolve(Config(**content))
    except (TypeError, ValueError) as error:
        raise RunFolderError(f"{folder} holds a run of another version: {error}") from error


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
    """Name the training set of a config: "CIFAR-10, long-tailed 100:1", or "birds, as it is"."""
    name = _DATASETS.get(config["dataset"], Path(config["dataset"]).stem)
    if config["imbalance"] == "none":
        return f"{name}, as it is"
    imbalance = _IMBALANCES.get(config["imbalance"], config["imbalance"])
    return f"{name}, {imbalance} {config['ratio']:g}:1"


def method_label(method: str) -> str:
    """Name a method as the paper's Table 1 does: "MM-DRW", "Focal", "LDAM-DRW+SSP"."""
    label = method.upper().replace("FOCAL", "Focal").replace("-SSP", "+SSP")
    return label.replace("BALANCED-SOFTMAX", "Balanced Softmax")


def duration(seconds: float) -> str:
    """Name a time: "1.2 h", "57 min" or "16 s"."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def _missing(folder: Path, name: str) -> RunFolderError:
    return RunFolderError(f"{folder} is no {'' if name == 'config.json' else 'finished '}run folder: it has no {name}.")


def _lock(file: IO[str], patience: float) -> bool:
    if sys.platform == "win32":
        return True
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.05)
