"""A run that survives being killed at any moment."""

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tf_mmloss.files import atomic_path, interrupts_deferred, write_json
from tf_mmloss.losses.base import CLASS_WEIGHTS


class Checkpoint(keras.callbacks.Callback):
    """Save the state of a run after every epoch, atomically, and restore it.

    Model and optimizer variables go to `state-EPOCH.npz`, then `latest.json`, which names that file and holds
    the history, is replaced: the commit point. Whenever the process dies, `latest.json` names a whole state.
    With batches and callbacks that depend on nothing but the epoch, as this package's do, a resumed run ends
    bit for bit like an uninterrupted one. An interrupt (ctrl-C) waits until a save is complete. On PyTorch a layer
    that draws needs a seed, as in `Dropout(0.5, seed=1)`: Keras draws from PyTorch's global generator otherwise, and
    that is not saved.

    Place it last in the list of callbacks, so that it saves all that the others wrote to `logs`.

    Args:
        folder: where to save; made if missing.
        model: what is saved, compiled. Default: the model of `fit`; another one is inside it and has its optimizer.

    Example:
        >>> checkpoint = Checkpoint("run/checkpoint")
        >>> first_epoch = checkpoint.restore(model)
        >>> model.fit(data, initial_epoch=first_epoch, epochs=200, callbacks=[checkpoint])
    """

    def __init__(self, folder: str | os.PathLike[str], model: keras.Model | None = None) -> None:
        super().__init__()
        self.folder = Path(folder)
        self.history: list[dict[str, Any]] = []
        self._saved_model = model

    @property
    def _latest(self) -> Path:
        return self.folder / "latest.json"

    def restore(self, model: keras.Model) -> int:
        """Load the last saved state into a compiled model.

        Returns:
            The epoch to start with: 0 where nothing was saved.

        Raises:
            ValueError: the saved state is damaged, or of another model or optimizer, or the model is not built;
                nothing was changed then.
        """
        if not self._latest.exists():
            return 0
        if not model.built:
            raise ValueError(f"`model` must be built, by a call or `build`, to be restored. Received: {model.name}")
        try:
            latest = json.loads(self._latest.read_text())
            next_epoch = latest["history"][-1]["epoch"] + 1
            with np.load(self.folder / latest["state"], allow_pickle=False) as state:
                saved = dict(state)
        except (EOFError, KeyError, IndexError, OSError, TypeError, ValueError, zipfile.BadZipFile) as error:
            raise ValueError(f"{self.folder} holds no whole checkpoint: {error!r}.") from error
        model.optimizer.build(model.trainable_variables)
        variables = _variables(model)
        wrong = [v.path for key, v in variables.items() if key not in saved or saved[key].shape != tuple(v.shape)]
        if wrong or len(saved) != len(variables):
            first = wrong[0] if wrong else "the number of variables"
            raise ValueError(f"{self.folder} was saved from another model or optimizer: {first} does not match.")
        for path, variable in variables.items():
            variable.assign(saved[path])
        self.history = latest["history"]
        return int(next_epoch)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        row = {"epoch": epoch, **{name: np.asarray(value, float).tolist() for name, value in (logs or {}).items()}}
        if epoch and not self.history and self._latest.exists():  # a fit that goes on, with a callback of its own
            self.history = json.loads(self._latest.read_text())["history"]
        self.history = [*(earlier for earlier in self.history if earlier["epoch"] < epoch), row]
        with interrupts_deferred():
            self.folder.mkdir(parents=True, exist_ok=True)
            state = self.folder / f"state-{epoch:04d}.npz"
            arrays = {key: _array(v) for key, v in _variables(self._saved_model or self.model).items()}
            with atomic_path(state) as temporary, open(temporary, "wb") as file:
                np.savez(file, **arrays)
            write_json(self._latest, {"state": state.name, "history": self.history})
            for old in self.folder.glob("state-*.npz*"):
                if old != state:
                    old.unlink()


def _variables(model: keras.Model) -> dict[str, keras.Variable]:
    """Variables by position: paths may repeat, and contain counters of the process. Class weights follow the epoch."""
    kept = [v for v in [*model.variables, *model.optimizer.variables] if not v.path.startswith(f"{CLASS_WEIGHTS}/")]
    return {f"{position:05d}": variable for position, variable in enumerate(kept)}


def _array(variable: keras.Variable) -> Any:
    array = keras.ops.convert_to_numpy(variable)
    # NumPy's files know no bfloat16; every one of its numbers is a float32.
    return array.astype(np.float32) if keras.backend.standardize_dtype(variable.dtype) == "bfloat16" else array
