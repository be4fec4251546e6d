"""A run that survives being killed at any moment."""

import json
import math
import os
import re
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tf_mmloss._validation import path, received
from tf_mmloss.callbacks.base import RunCallback, host_array
from tf_mmloss.callbacks.stop_on_non_finite import check_finite
from tf_mmloss.files import LARGE_BYTES, atomic_path, interrupts_deferred, open_regular, read_json, write_json
from tf_mmloss.losses.base import CLASS_WEIGHTS, INFLUENCE

# The comment of the archives that `Checkpoint` writes: a state that no latest.json names, after a kill, is known by it.
_MARK = b"tf_mmloss.Checkpoint"


class Checkpoint(RunCallback):
    """Save the state of a run after every epoch, atomically, and restore it.

    Model and optimizer variables go to `state-EPOCH.npz`, then `latest.json`, which names that file and holds
    the history, is replaced: the commit point. Whenever the process dies, `latest.json` names a whole state. The state
    before it is deleted then, and nothing else: a file of that name which `Checkpoint` did not write is refused
    before the epoch. NaN and infinite weights are not saved: the last good state stays.
    With batches and callbacks that depend on nothing but the epoch, as this package's do, a resumed run ends
    bit for bit like an uninterrupted one. An interrupt (ctrl-C) waits until a save is complete. On PyTorch a layer
    that draws needs a seed, as in `Dropout(0.5, seed=1)`: Keras draws from PyTorch's global generator otherwise, and
    that is not saved.

    Place it last in the list of callbacks, so that it saves all that the others wrote to `logs`.

    Args:
        folder: where to save; made if missing. What lies there is read as untrusted: regular files alone, no larger
            than the model's state.
        model: what is saved, compiled. Default: the model of `fit`; another one is inside it and has its optimizer.
        config: what the run is, as plain JSON values by name, such as its seed and learning rate. It is saved, and a
            state of another config is not restored. Names that the saved one lacks, as of options that are newer than
            it, are not compared. Default: none, and nothing is compared.

    Raises:
        ValueError: an argument of another kind; at the start of an epoch, and before it is saved, if a file that is not
            of `Checkpoint` has the name of a state to come.
        NonFiniteLossError: at the end of an epoch, if a weight is NaN or infinite.

    Example:
        >>> checkpoint = Checkpoint("run/checkpoint", config={"seed": 0, "learning_rate": 0.1})
        >>> first_epoch = checkpoint.restore(model)
        >>> model.fit(data, initial_epoch=first_epoch, epochs=200, callbacks=[checkpoint])
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        model: keras.Model | None = None,
        *,
        config: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.folder = path("folder", folder)
        if model is not None:
            _check_model(model)
        self._saved_model = model
        self.config = None if config is None else _plain(config)

    def _forget(self) -> None:
        super()._forget()
        self.history: list[dict[str, Any]] = []
        self._states: set[str] | None = None  # what earlier saves wrote here; None: not known yet

    @property
    def _latest(self) -> Path:
        return self.folder / "latest.json"

    def restore(self, model: keras.Model) -> int:
        """Load the last saved state into a compiled model.

        Returns:
            The epoch to start with: 0 where nothing was saved.

        Raises:
            ValueError: the saved state is damaged, or of another model, optimizer or config, or the model is not built
                and compiled; nothing was changed then.
        """
        _check_model(model)
        latest = self._read_latest()
        if latest is None:
            return 0
        if not model.built:
            raise ValueError(f"`model` must be built, by a call or `build`, to be restored. Received: {model.name}")
        if getattr(model, "optimizer", None) is None:
            raise ValueError(f"`model` must be compiled to be restored. Received: {model.name}")
        self._check_config(latest)
        model.optimizer.build(model.trainable_variables)
        variables = _variables(model)
        for key, array in self._read_state(self.folder / latest["state"], variables).items():
            variables[key].assign(array)
        self.history = latest["history"]
        return int(self.history[-1]["epoch"]) + 1

    def set_model(self, model: keras.Model) -> None:
        super().set_model(model)
        saved = self._saved_model or self.model
        _check_model(saved)
        if getattr(saved, "optimizer", None) is None:
            raise ValueError(f"`model` must be compiled to be saved. Received: {saved.name}")

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if not self.folder.is_dir():
            return
        self._refuse_foreign(epoch, max((self.params or {}).get("epochs") or 0, epoch + 1) - 1)

    def _refuse_foreign(self, epoch: int, last: int) -> None:
        """Refuse a file of another origin with the name of a state of these epochs."""
        for found in self.folder.iterdir():
            number = _epoch_of(found.name)
            if number is None or not epoch <= number <= last or _is_ours(found) or self._is_latest(found):
                continue
            raise ValueError(
                f"`folder` must have no file of another origin where a state is saved: move {found.name} away. "
                f"{received('folder', str(self.folder))}"
            )

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        variables = _variables(self._saved_model or self.model)
        arrays: dict[str, Any] = {key: host_array(v) for key, v in variables.items()}
        check_finite(epoch, ((v.path, arrays[key]) for key, v in variables.items()))
        if self.folder.is_dir():
            self._refuse_foreign(epoch, epoch)  # it may be there since the epoch began
        if self._states is None:
            self._states = self._earlier_states(epoch)
        else:
            self._states = {name for name in self._states if _is_ours(self.folder / name)}
        row = {"epoch": epoch, **{name: np.asarray(value, float).tolist() for name, value in (logs or {}).items()}}
        earlier = [row for row in self.history if row["epoch"] < epoch]
        if earlier and earlier[-1]["epoch"] != epoch - 1:  # of another fit, which this one does not continue
            earlier = []
        self.history = [*earlier, row]
        latest = {"state": _state_of(epoch), "history": _without_nan(self.history)}
        with interrupts_deferred():
            self.folder.mkdir(parents=True, exist_ok=True)
            with atomic_path(self.folder / latest["state"]) as temporary, open(temporary, "wb") as file:
                np.savez(file, **arrays)
                file.flush()
                with zipfile.ZipFile(temporary, "a") as archive:
                    archive.comment = _MARK
            write_json(self._latest, latest if self.config is None else {**latest, "config": self.config})
            for old in self._states - {latest["state"]}:
                (self.folder / old).unlink(missing_ok=True)
            self._states = {latest["state"]}

    def remove_earlier(self) -> None:
        """Remove the states before the last one, which a process that was killed between two writes leaves."""
        latest = self._read_latest()
        if latest is not None:
            for name in self._earlier_states(0) - {latest["state"]}:
                (self.folder / name).unlink()

    def _earlier_states(self, epoch: int) -> set[str]:
        """Names of the states that earlier runs saved here, by latest.json; take over its history if `fit` goes on."""
        try:
            latest = self._read_latest()
        except ValueError:
            if epoch and not self.history:
                raise
            return set()  # a damaged one is replaced
        if latest is None:
            return set()
        if epoch and not self.history:  # a fit that goes on, with a callback of its own
            self.history = latest["history"]
        written = {_state_of(row["epoch"]) for row in latest["history"]}
        found = [file for file in self.folder.iterdir() if file.name in written]
        return {file.name for file in found if file.name == latest["state"] or _is_ours(file)}

    def _is_latest(self, file: Path) -> bool:
        """Whether latest.json names a state, as those of earlier versions, which have no mark."""
        try:
            latest = self._read_latest()
        except ValueError:
            return False
        return latest is not None and file.name == latest["state"]

    def _read_latest(self) -> dict[str, Any] | None:
        """Return the checked content of latest.json, or None if there is none."""
        try:
            latest = read_json(self._latest, limit=LARGE_BYTES)
            _check_latest(latest)
        except FileNotFoundError:
            return None
        except Exception as error:
            raise ValueError(f"{self.folder} holds no whole checkpoint: latest.json: {error}") from error
        return {**latest, "history": _with_nan(latest["history"])}

    def _check_config(self, latest: dict[str, Any]) -> None:
        saved = latest.get("config")
        if saved is None or self.config is None:
            return
        for name, theirs in saved.items():
            ours = self.config.get(name)
            if ours != theirs or name not in self.config:
                raise ValueError(
                    f"{self.folder} was saved from a run of another config: `{name}` was {theirs!r}. "
                    f"{received(name, ours)}"
                )

    def _read_state(self, file: Path, variables: dict[str, keras.Variable]) -> dict[str, np.ndarray]:
        """Read what is assigned to the variables, once the headers say that it fits them."""
        largest = sum(8 * math.prod(v.shape) + 1024 for v in variables.values()) + 2**16
        wrong = None
        try:
            with open(open_regular(file), "rb") as opened:
                if os.fstat(opened.fileno()).st_size > largest:
                    wrong = "the size of its state"
                else:
                    with zipfile.ZipFile(opened) as archive:
                        wrong = _first_misfit(archive, variables)
                        arrays = {} if wrong else {key: _read_array(archive, key) for key in variables}
        except Exception as error:
            raise ValueError(f"{self.folder} holds no whole checkpoint: {file.name}: {error!r}.") from error
        if wrong:
            raise ValueError(f"{self.folder} was saved from another model or optimizer: {wrong} does not match.")
        for key, array in arrays.items():
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise ValueError(
                    f"{self.folder} holds no whole checkpoint: {file.name}: {variables[key].path} is NaN or infinite."
                )
        return arrays


def _check_model(model: keras.Model) -> None:
    if not isinstance(model, keras.Model):
        raise ValueError(f"`model` must be a `keras.Model`. {received('model', model)}")


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of a config as it comes back from JSON."""
    try:
        if isinstance(config, dict) and all(isinstance(name, str) for name in config):
            return dict(json.loads(json.dumps(config, allow_nan=False)))
    except (TypeError, ValueError, RecursionError):
        pass
    raise ValueError(f"`config` must be a dictionary of plain JSON values. {received('config', config)}")


def _state_of(epoch: int) -> str:
    return f"state-{epoch:04d}.npz"


def _epoch_of(name: str) -> int | None:
    match = re.fullmatch(r"state-([0-9]{4,16})\.npz", name)
    return int(match[1]) if match and _state_of(int(match[1])) == name else None


def _is_ours(file: Path) -> bool:
    """Whether `Checkpoint` wrote a state, by the mark at its end."""
    try:
        with open(open_regular(file), "rb") as opened, zipfile.ZipFile(opened) as archive:
            return archive.comment == _MARK
    except Exception:  # a link, a pipe, no archive
        return False


def _check_latest(latest: Any) -> None:
    """Refuse what `Checkpoint` did not write: by its kind, not by its values."""
    if not isinstance(latest, dict):
        raise ValueError("it must be an object.")
    history = latest.get("history")
    if not isinstance(history, list) or not history or not all(isinstance(row, dict) for row in history):
        raise ValueError("`history` must be a list of epochs.")
    epochs = [row.get("epoch") for row in history]
    first = epochs[0]
    if type(first) is not int or not 0 <= first <= 2**53 or epochs != list(range(first, first + len(epochs))):
        raise ValueError("`history` must have one epoch after the other.")
    for row in history:
        for name, value in row.items():
            if not _is_metric(value):
                raise ValueError(f"`history` must have numbers. {received(name, value)}")
    if latest.get("state") != _state_of(epochs[-1]):
        raise ValueError(f"`state` must be {_state_of(epochs[-1])}. {received('state', latest.get('state'))}")
    if not isinstance(latest.get("config", {}), dict):
        raise ValueError(f"`config` must be an object. {received('config', latest['config'])}")


def _is_metric(value: Any) -> bool:
    if isinstance(value, list):
        return all(_is_metric(inner) for inner in value)
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))


def _without_nan(value: Any) -> Any:
    """Metrics as JSON has them: None where they are no number."""
    if isinstance(value, list):
        return [_without_nan(inner) for inner in value]
    if isinstance(value, dict):
        return {name: _without_nan(inner) for name, inner in value.items()}
    return value if math.isfinite(value) else None


def _with_nan(value: Any) -> Any:
    """Metrics as `_without_nan` got them, infinity apart."""
    if isinstance(value, list):
        return [_with_nan(inner) for inner in value]
    if isinstance(value, dict):
        return {name: _with_nan(inner) for name, inner in value.items()}
    return math.nan if value is None else value


def _variables(model: keras.Model) -> dict[str, keras.Variable]:
    """Variables by position: paths may repeat, and contain counters of the process. Class weights follow the epoch."""
    of_epoch = (f"{CLASS_WEIGHTS}/", f"{INFLUENCE}/")
    kept = [v for v in [*model.variables, *model.optimizer.variables] if not v.path.startswith(of_epoch)]
    return {f"{position:05d}": variable for position, variable in enumerate(kept)}


def _first_misfit(archive: zipfile.ZipFile, variables: dict[str, keras.Variable]) -> str | None:
    """Name the first variable that an archive does not fit, by the headers of its arrays; None: it fits."""
    if sorted(archive.namelist()) != sorted(f"{key}.npy" for key in variables):
        return "the number of variables"
    for key, variable in variables.items():
        if archive.getinfo(f"{key}.npy").compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{key}.npy is compressed")
        with archive.open(f"{key}.npy") as member:
            if np.lib.format.read_magic(member) != (1, 0):
                raise ValueError(f"{key}.npy is of another version")
            shape, _, dtype = np.lib.format.read_array_header_1_0(member)
        if shape != tuple(variable.shape) or _kind(dtype) != _kind(variable.dtype) or dtype.itemsize > 8:
            return str(variable.path)
    return None


def _read_array(archive: zipfile.ZipFile, key: str) -> np.ndarray:
    with archive.open(f"{key}.npy") as member:
        array: np.ndarray = np.lib.format.read_array(member, allow_pickle=False)
    return array


def _kind(dtype: Any) -> str:
    """Float, integer of either sign, or another: backends differ in the widths of counters and seeds."""
    name = dtype.name if isinstance(dtype, np.dtype) else keras.backend.standardize_dtype(dtype)
    return "float" if "float" in name else "integer" if name.startswith(("int", "uint")) else str(name)
