"""Read a run folder, name what is in it, and keep other processes out of it.

Nothing here imports Keras but `read_config`, which fills what an older run lacks as today's presets do.
"""

import contextlib
import csv
import dataclasses
import io
import math
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tf_mmloss import methods
from tf_mmloss.files import JSON_BYTES, LARGE_BYTES, file_lock, read_text, sync_folder, write_json
from tf_mmloss.files import read_json as read_json_file
from tf_mmloss.files import remove_partial as remove_partial_files
from tf_mmloss.runs import fields

if TYPE_CHECKING:
    from tf_mmloss.train.config import Config

# Of a picture of images, so that a page with two of them stays below 2 MB.
PICTURE_BYTES = 600_000
# Why a run ended without a result.
FAILED = "failed.json"
# What a run's own process writes into its folder.
FILES = (
    *("config.json", "data.json", "environment.json", "history.csv", "metrics.json", FAILED),
    *("predictions.npy", "index.html", "best.keras", "last.keras", "checkpoint/latest.json", ".lock"),
)
FOLDERS = ("checkpoint", "plots", "tensorboard")

# Of a config: how many epochs, and what follows from it.
_OF_LENGTH = {"epochs", "start_epoch", "frozen_epochs"}
_DATASETS = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
_IMBALANCES = {"longtail": "long-tailed"}


class RunFolderError(ValueError):
    """The run folder is not what the command needs it to be; nothing in it was changed."""


class RunBusyError(RunFolderError):
    """Another process works in the run folder."""


@contextlib.contextmanager
def locked(folder: Path, patience: float = 1.0) -> Iterator[None]:
    """Keep other processes out of a run folder, made if missing, until the block is done or the process dies.

    The lock is FOLDER/.lock; see `tf_mmloss.files.file_lock`. A folder that was made here and stayed empty is removed.

    Args:
        folder: the run's.
        patience: seconds to try again, as `is_busy` elsewhere holds the lock for a moment.

    Raises:
        RunBusyError: another process holds the folder.
    """
    made = not folder.exists()
    make_folder(folder)
    path = folder / ".lock"
    with contextlib.ExitStack() as stack:
        try:
            held = stack.enter_context(file_lock(path, patience))
        except FileNotFoundError:  # another process had made the folder, and removed it
            held = False
        except ValueError as error:
            raise RunFolderError(str(error)) from error
        if not held:
            raise RunBusyError(f"{folder} is busy: another process is training there. Wait for it, or stop it.")
        try:
            yield
        finally:
            if made and os.listdir(folder) == [path.name]:
                with contextlib.suppress(OSError):  # someone else may have begun there
                    path.unlink()
                    folder.rmdir()


def is_busy(folder: Path) -> bool:
    """Whether a process works in a run folder.

    Raises:
        RunFolderError: its lock is no file.
    """
    if not os.path.lexists(folder / ".lock"):
        return False
    try:
        with locked(folder, patience=0.05):
            return False
    except RunBusyError:
        return True
    except OSError:  # a place that is only read
        with contextlib.suppress(OSError), file_lock(folder / ".lock", 0.05, os.O_RDONLY) as held:
            return not held
        return False


def make_folder(path: Path) -> None:
    """Make a folder if it is missing.

    Raises:
        RunFolderError: something else has that name.
    """
    if path.is_dir():
        return
    try:
        path.mkdir(parents=True)
    except FileExistsError:
        if not path.is_dir():  # else another process made it just now
            raise RunFolderError(f"{path} must be a folder: something else has that name.") from None
    sync_folder(path.parent)


def check_own(folder: Path, files: Iterable[str] = FILES, folders: Iterable[str] = FOLDERS) -> None:
    """Refuse what would lead a writer out of a run folder, or stop it: links, pipes and devices for its own names.

    Raises:
        RunFolderError: naming the first one.
    """
    own_files, own_folders = [folder / name for name in files], [folder / name for name in folders]
    for own in tuple(own_folders):
        for place, inner_folders, inner_files in os.walk(own):
            own_folders += [Path(place, inner) for inner in inner_folders]
            own_files += [Path(place, inner) for inner in inner_files]
    for paths, expected, is_expected in ((own_files, "file", stat.S_ISREG), (own_folders, "folder", stat.S_ISDIR)):
        for path in paths:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                if not is_expected(path.lstat().st_mode):
                    raise RunFolderError(f"{path} must be a {expected} of the run itself, and no link. Remove it.")


def remove_partial(folder: Path) -> None:
    """Remove what a killed process was writing in a run folder, whose lock is held."""
    remove_partial_files(folder, FILES)
    for name in FOLDERS:
        remove_partial_files(folder / name)


def run_folders(root: Path) -> list[Path]:
    """All run folders below a folder, finished or not, sorted."""
    return sorted({path.parent for name in ("config.json", "metrics.json") for path in root.rglob(name)})


def is_finished(folder: Path) -> bool:
    """Whether the run in a folder has its result."""
    return (folder / "metrics.json").exists()


def is_failed(folder: Path) -> bool:
    """Whether the run in a folder ended without its result, and was not tried again."""
    return (folder / FAILED).exists() and not is_finished(folder)


def note_failure(folder: Path, error: Exception) -> None:
    """Say in a run folder, whose lock is held, why the run ended without its result."""
    write_json(folder / FAILED, {"error": type(error).__name__, "message": str(error)})


def epochs_saved(folder: Path) -> int:
    """The number of complete epochs in a run folder's checkpoint.

    Raises:
        RunFolderError: the checkpoint is unreadable.
    """
    name = "checkpoint/latest.json"
    if not os.path.lexists(folder / name):
        return 0
    content = read_json(folder, name)
    if "history" not in content:
        raise RunFolderError(f"{folder / name} is no checkpoint of a run: it has no history.")
    return len(content["history"])


def differences(one: "Config", other: "Config") -> dict[str, tuple[Any, Any]]:
    """The values that two configs do not share."""
    a, b = one.values(), other.values()
    return {name: (a[name], b[name]) for name in a if a[name] != b.get(name)}


def differences_in_words(differing: Mapping[str, tuple[Any, Any]]) -> str:
    """Values that differ, by name: what is there and what was asked for."""
    return "; ".join(f"{name}: {there!r} there, {asked!r} asked for" for name, (there, asked) in differing.items())


def check_same(folder: Path, there: "Config", asked: "Config", *, or_longer: bool = False) -> None:
    """Refuse a config that is not the one of the run in a folder.

    Args:
        folder: the run's.
        there, asked: resolved.
        or_longer: take that of a run of more epochs too, which goes on from there.

    Raises:
        RunFolderError: naming what differs.
    """
    differing = differences(there, asked)
    if not differing:
        return
    named = differences_in_words(differing)
    longer = ""
    if (
        or_longer
        and "epochs" in differing
        and (asked.epochs or 0) > (there.epochs or 0)
        and set(differing) <= _OF_LENGTH
    ):
        from tf_mmloss.train.stages import check_lengthened

        try:
            done = epochs_saved(folder)
            if is_finished(folder) and not done:
                raise ValueError("its checkpoint is not there")
            check_lengthened(there, asked, done)
            return
        except ValueError as error:
            longer = f" It cannot be made longer, as {error}."
    raise RunFolderError(
        f"{folder} holds a run of another config ({named}): choose another folder, or remove this one.{longer}"
    )


def lengthen(folder: Path, config: "Config") -> None:
    """Make the run in a folder, whose lock is held, that of a config that `check_same` took: it is unfinished then.

    Killed between two of these writes, it is the run that it was, or is made longer by the next call.
    """
    from tf_mmloss.train.stages import check_lengthened

    if os.path.lexists(folder / "config.json") and differences(read_config(folder), config):
        (folder / "metrics.json").unlink(missing_ok=True)
        write_json(folder / "config.json", config.values())
    name = "checkpoint/latest.json"
    if not os.path.lexists(folder / name):
        return
    latest = read_json(folder, name)
    saved = latest.get("config")
    if not isinstance(saved, dict) or saved.get("epochs") == config.epochs:
        return
    with contextlib.suppress(TypeError, ValueError):  # a state of a run that does not go on so: it is not restored
        check_lengthened(
            dataclasses.replace(config, **{n: saved[n] for n in _OF_LENGTH & set(saved)}), config, epochs_saved(folder)
        )
        longer = {n: value for n, value in config.values().items() if n in _OF_LENGTH}
        write_json(folder / name, {**latest, "config": saved | longer})


def read_json(folder: Path, name: str, needed: Iterable[str] = ()) -> dict[str, Any]:
    """Read a file of a run folder, which must have the `needed` keys; values that are known have their types.

    Raises:
        RunFolderError: it is missing, not a JSON object, has not all of the keys, or a value of another type.
    """
    path = folder / name
    try:
        limit = LARGE_BYTES if name in ("checkpoint/latest.json", "metrics.json") else JSON_BYTES
        content = read_json_file(path, limit=limit, within=folder)
    except (FileNotFoundError, NotADirectoryError):
        raise _missing(folder, name) from None
    except (OSError, ValueError) as error:
        raise RunFolderError(str(error)) from error
    if not isinstance(content, dict):
        raise RunFolderError(f"{path} is not a JSON object but a {type(content).__name__}.")
    missing = [key for key in needed if key not in content]
    if missing:
        raise RunFolderError(f"{path} is of another version: it has no {', '.join(missing)}.")
    if fault := fields.fault(name, content):
        raise RunFolderError(f"{path} is of another version: {fault}.")
    return content


def read_config(folder: Path) -> "Config":
    """Read the config of a run folder; options that it is too old to have get the presets' values.

    Raises:
        RunFolderError: none there, or one with unknown keys, without a data set and a method, or that cannot be run.
    """
    from tf_mmloss.train.config import Config
    from tf_mmloss.train.resolve import resolve

    content = read_json(folder, "config.json")
    path = folder / "config.json"
    if methods.is_function(content.get("method")):
        try:
            methods.find(content["method"])
        except ValueError as error:
            raise RunFolderError(f"{path}: {error}") from error
    unknown = sorted(set(content) - set(Config.__dataclass_fields__) - set(methods.loss_options()))
    if unknown:
        raise RunFolderError(f"{path} has unknown keys, of another version: {', '.join(unknown)[:200]}.")
    if not {"dataset", "method"} <= set(content):
        raise RunFolderError(f"{path} is no config of a run: it has no dataset or no method.")
    try:
        return resolve(Config(**content), made=True)
    except (TypeError, ValueError) as error:
        raise RunFolderError(f"{path} is of a run of another version: {error}") from error


def read_history(folder: Path) -> list[dict[str, float]]:
    """Read history.csv: a row an epoch, from 0 on; a blank, as in epochs without evaluation, leaves its name out.

    Raises:
        RunFolderError: it is missing, empty, lacks an epoch, or has something else than numbers.
    """
    path = folder / "history.csv"
    try:
        text = read_text(path, limit=LARGE_BYTES, within=folder)
    except (FileNotFoundError, NotADirectoryError):
        raise _missing(folder, path.name) from None
    except (OSError, ValueError) as error:
        raise RunFolderError(str(error)) from error
    rows: list[dict[str, float]] = []
    try:
        for line in csv.DictReader(io.StringIO(text, newline="")):
            row = {name: float(value) for name, value in line.items() if value}
            rows.append({name: value for name, value in row.items() if math.isfinite(value) or name in fields.FINITE})
    except (TypeError, ValueError, csv.Error) as error:
        raise RunFolderError(f"{path} is no history of epochs: in row {len(rows)}, {str(error)[:100]}") from error
    if not rows or not all("epoch" in row for row in rows):
        raise RunFolderError(f"{path} is no history of epochs: it has no rows, or rows without an epoch.")
    if fault := fields.fault_of_history(rows):
        raise RunFolderError(f"{path} is no history of epochs: {fault}.")
    return rows


def images_name(dataset: str) -> str:
    """Name what `--dataset` names, without the folders it is in and a file's suffix: "birds" of "photos/birds.csv"."""
    return re.sub(r"(?i)\.(csv|tsv|txt|parquet|pq|npz)$", "", Path(dataset).name).strip(".") or "images"


def data_label(config: Mapping[str, Any]) -> str:
    """Name the training set of a config: "CIFAR-10, long-tailed 100:1", or "birds, as it is"."""
    name = _DATASETS.get(config["dataset"], images_name(config["dataset"]))
    if config["imbalance"] == "none":
        return f"{name}, as it is"
    imbalance = _IMBALANCES.get(config["imbalance"], config["imbalance"])
    return f"{name}, {imbalance} {config['ratio']:g}:1"


def method_label(method: str) -> str:
    """Name a method as the paper's Table 1 does: "MM-DRW", "LDAM-DRW+SSP"; with a decision, "ERM + temperature"."""
    trained, plus, decision = method.partition("+")
    known = methods.METHODS.get(trained)
    return (known.label if known else trained.upper()) + (f" + {decision}" if plus else "")


def last_stage(method: str) -> str:
    """What a method's last stage does, in a few words: "re-weighted", "the head alone, re-sampled"."""
    known = methods.METHODS.get(method)
    return (known.own_stages[-1].summary if known else "") or "the last stage"


def duration(seconds: float) -> str:
    """Name a time: "1.2 h", "57 min" or "16 s"."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def _missing(folder: Path, name: str) -> RunFolderError:
    return RunFolderError(f"{folder} is no {'' if name == 'config.json' else 'finished '}run folder: it has no {name}.")
