"""The options of a loss, read from its source: Keras, which the source imports, is not imported."""

import ast
import dataclasses
import functools
import importlib.util
import inspect
import os
import re
import sys
import textwrap
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

# What the trainer gives to a loss itself, and what is no option of a run: every image has a label there.
_GIVEN = ("self", "cls_counts", "seed", "reduction", "name", "dtype", "ignore_class")
_TYPES = {"float": float, "int": int, "bool": bool, "str": str}


@dataclasses.dataclass(frozen=True)
class Option:
    """An argument of a loss: float, int, bool or str, its default, and what the docstring says of it."""

    name: str
    type: type
    default: Any
    help: str


@dataclasses.dataclass(frozen=True)
class Signature:
    """The options of a loss by their names, and what of the rest the trainer gives: cls_counts, seed."""

    options: dict[str, Option]
    given: tuple[str, ...]


@functools.cache
def signature(loss: str) -> Signature:
    """Read the signature of a loss.

    Args:
        loss: a class of `tf_mmloss`, or `package.module:Class`.

    Raises:
        ValueError: there is no such class.

    Example:
        >>> signature("MaxMarginLoss").options["beta"].type
        <class 'float'>
    """
    constructor, said = _found(loss)
    described = _described(said)
    options, given = {}, []
    positional = [*constructor.args.posonlyargs, *constructor.args.args]
    missing = [None] * (len(positional) - len(constructor.args.defaults))
    defaults = [*missing, *constructor.args.defaults, *constructor.args.kw_defaults]
    for argument, default in zip([*positional, *constructor.args.kwonlyargs], defaults, strict=True):
        if argument.arg in _GIVEN:
            given.append(argument.arg)
            continue
        annotation = ast.unparse(argument.annotation) if argument.annotation else "float"
        kind = next((kind for name, kind in _TYPES.items() if re.search(rf"\b{name}\b", annotation)), None)
        if kind is not None:  # other types have no form on a command line
            value = default.value if isinstance(default, ast.Constant) else None
            options[argument.arg] = Option(argument.arg, kind, value, described.get(argument.arg, ""))
    return Signature(options, tuple(name for name in given if name in ("cls_counts", "seed")))


@functools.cache
def named(package: str) -> dict[str, str]:
    """What the files of a package add to a command line: the `name` and the `help` of every class that has both.

    Example:
        >>> named("tf_mmloss.mix")["cutmix"]
        'a box of another image'
    """
    found = {}
    folder = _file(package)
    for file in sorted(folder.parent.glob("*.py")) if folder else ():
        for node in ast.parse(file.read_bytes()).body:
            values = {
                inner.targets[0].id: inner.value.value
                for inner in (node.body if isinstance(node, ast.ClassDef) else ())
                if isinstance(inner, ast.Assign)
                and isinstance(inner.targets[0], ast.Name)
                and isinstance(inner.value, ast.Constant)
            }
            if {"name", "help"} <= values.keys():
                found[str(values["name"])] = str(values["help"])
    return dict(sorted(found.items()))


def docstring(loss: str) -> str:
    """What the docstring of a loss says: its own, or of a class that has none, its parent's.

    Args:
        loss: as for `signature`.

    Raises:
        ValueError: there is no such class.

    Example:
        >>> docstring("LDAMLoss").splitlines()[0]
        'Label-distribution-aware margin loss.'
    """
    return _found(loss)[1]


def _found(loss: str) -> tuple[ast.FunctionDef, str]:
    module, _, name = loss.rpartition(":")
    found = _constructor(module or "tf_mmloss.losses", name)
    if found is None:
        raise ValueError(f"`loss` must be a class of tf_mmloss, or package.module:Class. Received: loss={loss!r}")
    return found


def _constructor(module: str, name: str) -> tuple[ast.FunctionDef, str] | None:
    """The constructor of a class, or of the parent that it has it from, and the docstring of its arguments."""
    for node in _statements(module):
        if isinstance(node, ast.ClassDef) and node.name == name:
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef) and inner.name == "__init__":
                    return inner, ast.get_docstring(node) or ""
            for base in node.bases:
                parent = _parent(module, base)
                found = _constructor(*parent) if parent else None
                if found is not None:
                    return found[0], ast.get_docstring(node) or found[1]
        if isinstance(node, ast.ImportFrom) and node.module and name in {a.asname or a.name for a in node.names}:
            original = next(a.name for a in node.names if (a.asname or a.name) == name)
            return _constructor(_absolute(node, module), original)
    return None


def _statements(module: str) -> list[ast.stmt]:
    """The statements of a module, those within `if` too, as of `if TYPE_CHECKING`."""
    tree = _tree(module)
    found: list[ast.stmt] = []
    for node in tree.body if tree else ():
        found += [*node.body, *node.orelse] if isinstance(node, ast.If) else [node]
    return found


def _parent(module: str, base: ast.expr) -> tuple[str, str] | None:
    """The module and the name of a class that a class of a module is a child of; None: it is no plain name."""
    if isinstance(base, ast.Name):
        return module, base.id
    top, *rest = ast.unparse(base).split(".")
    for node in _statements(module) if isinstance(base, ast.Attribute) else ():
        if isinstance(node, ast.Import):
            named = {a.asname or a.name.split(".")[0]: a.name if a.asname else a.name.split(".")[0] for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            named = {a.asname or a.name: f"{_absolute(node, module)}.{a.name}" for a in node.names}
        else:
            continue
        if top in named:
            return ".".join([named[top], *rest[:-1]]), rest[-1]
    return None


def _absolute(node: ast.ImportFrom, module: str) -> str:
    """The module that an import in another one names."""
    file = _file(module)
    is_package = file is not None and file.name == "__init__.py"
    package = module if is_package else module.rpartition(".")[0]
    return importlib.util.resolve_name("." * node.level + (node.module or ""), package)


@functools.cache
def _file(module: str) -> Path | None:
    """The file of a module, looked for in the current folder too; neither it nor its packages are imported."""
    top, *rest = module.split(".")
    here = os.getcwd()
    places = sys.path if {here, ""} & set(sys.path) else [here, *sys.path]
    # A package that is imported is known; one that is installed for editing may be on no path.
    spec = (None if top in sys.modules else PathFinder.find_spec(top, places)) or importlib.util.find_spec(top)
    if spec is None or not spec.origin:
        return None
    file = Path(spec.origin)
    for part in rest:
        inner = file.parent / part
        file = inner / "__init__.py" if inner.is_dir() else inner.with_suffix(".py")
    return file if file.suffix == ".py" and file.is_file() else None


@functools.cache
def _tree(module: str) -> ast.Module | None:
    file = _file(module)
    return None if file is None else ast.parse(file.read_bytes())


def _described(docstring: str) -> dict[str, str]:
    """What the lines of `Args:` say, by argument."""
    section = re.search(r"^Args:\n((?:[ ]+.*\n|\n)*)", inspect.cleandoc(docstring) + "\n", re.MULTILINE)
    if section is None:
        return {}
    lines: list[str] = []
    for line in textwrap.dedent(section[1]).splitlines():
        if line.startswith(" ") and lines:
            lines[-1] += f" {line.strip()}"
        elif line:
            lines.append(line)
    named = (line.partition(": ") for line in lines)
    return {name: said for names, _, said in named for name in names.split(", ")}
