"""Where images come from: a source a file, found by being here, or by an entry point of the group `tf_mmloss.sources`.

A module here has `HELP`, one line for `--help`, and `open_path(path, **options)` for what lies on the disk, with
`matches(path)`, or `open_prefix(rest, data_dir, **options)` for `PREFIX:rest`. An entry point's name is its prefix; it
refers to a function `(rest, data_dir)` that returns a `Source`, or arrays as a `package.module:function` does.
"""

import difflib
import functools
import importlib
import os
import pkgutil
import re
from pathlib import Path
from types import ModuleType
from typing import Any

from tf_mmloss._entry_points import SOURCES, entry_points
from tf_mmloss._validation import received
from tf_mmloss.data.source import DataError, Source, shown
from tf_mmloss.functions import is_function


@functools.cache
def _modules() -> tuple[ModuleType, ...]:
    names = sorted(info.name for info in pkgutil.iter_modules(__path__) if not info.name.startswith("_"))
    return tuple(importlib.import_module(f"{__name__}.{name}") for name in names)


def _prefixes() -> dict[str, Any]:
    """What opens `PREFIX:rest`, by prefix."""
    return entry_points(SOURCES) | {module.PREFIX: module for module in _modules() if hasattr(module, "PREFIX")}


def source_help() -> dict[str, str]:
    """A line about every kind of source, by how it is named, for `--help`."""
    own = {module.FORM: module.HELP for module in _modules()}
    others = {
        f"{entry.name}:...": f"from {entry.dist.name if entry.dist else entry.value}"
        for entry in entry_points(SOURCES).values()
    }
    return own | others


def open_source(spec: str | os.PathLike[str], data_dir: str | os.PathLike[str] | None = None, **options: Any) -> Source:
    """Return the source that a path, a prefix or the name of a function stands for; no picture is read.

    Args:
        spec: A folder of class folders, or one with `train/` and `test/` or `val/` of class folders; a table (`.csv`,
            `.tsv`, `.parquet`); arrays (`.npz`); `tfds:NAME`; `package.module:function`; `cifar10`, `cifar100` or
            `digits`; or `PREFIX:...` of an installed package.
        data_dir: Where `tfds:NAME` and CIFAR lie.
        **options: What the kind of source takes: `path_column`, `label_column`, `split_column` and `group_column` of
            a table.

    Raises:
        DataError: There is no such source, or it is not to be used as it is; one line says why.
        ImportError: A package that it needs is not installed.

    Example:
        >>> from tf_mmloss.data import open_source
        >>> len(open_source("digits"))
        1797
    """
    try:
        text: Any = os.fspath(spec)
    except Exception:  # of an object that is no path, or fails
        text = None
    if not isinstance(text, str):
        raise DataError(f"`dataset` must be a path or a name. {received('dataset', spec)}")
    if re.match(r"[A-Za-z][\w+.-]*://", text):
        raise DataError(f"`dataset` must be on this machine, nothing is downloaded. Received: {shown(text)}")
    if not text or "\0" in text:
        raise DataError(f"`dataset` must name a folder, a file or a source. Received: dataset={text!r}")
    options = {name: value for name, value in options.items() if value is not None}
    path = Path(os.path.expanduser(text))  # as it is where there is no such user, of which `Path` makes an error
    if os.path.lexists(path):
        return _open_path(path, options)
    prefix, colon, rest = text.partition(":")
    found = _prefixes().get(prefix) if colon else None
    if isinstance(found, ModuleType):
        return found.open_prefix(rest, data_dir, **_known(found.open_prefix, options))
    if found is not None:
        from tf_mmloss.data.sources.module import call

        return call(text, found.load, rest, data_dir)
    for module in _modules():
        if hasattr(module, "NAMES") and text in module.NAMES:
            return module.open_name(text, data_dir)
    if is_function(text):
        from tf_mmloss.data.sources.module import open_function

        return open_function(text, known=f"the sources with a prefix are {', '.join(sorted(_prefixes()))}")
    raise DataError(_not_there(text, path))


def _open_path(path: Path, options: dict[str, Any]) -> Source:
    if not path.exists():
        raise DataError(f"{shown(str(path))} is a link to what is not there.")
    if not (path.is_dir() or path.is_file()):
        raise DataError(f"{shown(str(path))} is neither a folder nor a plain file.")
    for module in _modules():
        if hasattr(module, "matches") and module.matches(path):
            return module.open_path(path, **_known(module.open_path, options))
    raise DataError(
        f"{shown(str(path))} is no data set: a folder of class folders, a table (.csv, .tsv, .parquet) of paths and "
        "labels, or arrays (.npz) are read."
    )


def _known(function: Any, options: dict[str, Any]) -> dict[str, Any]:
    import inspect

    takes = inspect.signature(function).parameters
    unknown = [name for name in options if name not in takes]
    if unknown:
        raise DataError(f"`{unknown[0]}` is an option of tables only. Received: {unknown[0]}={options[unknown[0]]!r}")
    return options


def _not_there(text: str, path: Path) -> str:
    """What to say of a name that stands for nothing, with the nearest one that does."""
    looks_like_path = len(path.parts) > 1 or bool(path.suffix)
    prefix, colon, _ = text.partition(":")
    if colon and not looks_like_path:
        near = difflib.get_close_matches(prefix, _prefixes(), n=1)
        hint = f" Did you mean {near[0]}:...?" if near else ""
        return f"there is no source {shown(prefix)!r} and no file {shown(text)}.{hint}"
    names = [] if looks_like_path else [n for m in _modules() if hasattr(m, "NAMES") for n in m.NAMES]
    parent = path.parent
    if not parent.is_dir():
        while not parent.is_dir():
            parent = parent.parent
        return f"{shown(text)} is not there: {shown(str(parent))} has no {shown(path.relative_to(parent).parts[0])!r}."
    siblings = [entry for entry in os.listdir(parent) if not entry.startswith(".")]
    wanted = {name.casefold(): str(parent / name) for name in siblings} | {name: name for name in names}
    near = difflib.get_close_matches(path.name.casefold(), wanted, n=1, cutoff=0.6)
    hint = f" Did you mean {shown(wanted[near[0]])}?" if near else ""
    return f"{shown(text)} is not there.{hint}"
