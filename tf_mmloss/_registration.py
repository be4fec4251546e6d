"""Let Keras find this package's classes in saved models, without importing Keras for it.

`keras.models.load_model` knows a class of another package only once its module was imported. `import tf_mmloss` alone
imports none, so that it is fast; they are imported as soon as Keras is there as well, whichever comes first.
"""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

MODULES = ("callbacks", "layers", "losses", "metrics", "optimizers", "schedules")


def register() -> None:
    """Import the modules whose classes Keras saves, now if Keras is imported, else right after it is."""
    if "keras" in sys.modules:
        _import_all()
    else:
        sys.meta_path.insert(0, _AfterKeras())


def _import_all() -> None:
    for name in MODULES:
        importlib.import_module(f"tf_mmloss.{name}")


class _AfterKeras(importlib.abc.MetaPathFinder):
    """Finds `keras` as the other finders do, and adds to its loading what `register` promises."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != "keras":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_register(module: ModuleType) -> Any:
                execute(module)
                _import_all()

            spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec
