"""A table of paths and labels (and splits): CSV, or Parquet with PyArrow. Every cell is text, formulas too."""

import csv
import difflib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tf_mmloss.data.source import SPLIT_NAMES, DataError, Dirt, Source, encode, named, shown
from tf_mmloss.data.sources._files import Files, Stamp, unusable
from tf_mmloss.files import is_inside

FORM = "TABLE.csv, .tsv, .parquet"
HELP = "a table with the columns path and label (and split), paths relative to it"

ROWS_LIMIT = 100_000_000
TABLE_LIMIT = 2**33
_ALIASES = {
    "path": (
        "path",
        "file",
        "filename",
        "file_name",
        "filepath",
        "file_path",
        "image",
        "image_path",
        "image_file",
        "img",
        "img_path",
    ),
    "label": ("label", "labels", "class", "class_name", "classname", "category", "target", "y"),
    "split": ("split", "set", "subset", "partition"),
    "group": ("group", "groups", "group_id", "patient", "patient_id"),
}


def matches(path: Path) -> bool:
    """Whether this reads what lies at a path."""
    return path.is_file() and path.suffix.lower() in (".csv", ".tsv", ".txt", ".parquet", ".pq")


def open_path(
    path: Path,
    path_column: str | None = None,
    label_column: str | None = None,
    split_column: str | None = None,
    group_column: str | None = None,
) -> Source:
    """Return the images that a table names.

    Args:
        path: The table. Paths in it are relative to its folder and may not lead outside of it.
        path_column: The column of paths; default: the one called path, file, filename, image or alike.
        label_column: The column of labels; default: the one called label, class, category, target or alike.
        split_column: The column of train, test and val; default: the one called split, set, subset or partition.
        group_column: The column of groups that a split keeps together; default: the one called group or patient.

    Raises:
        DataError: Columns that are not there, labels missing, paths that lead outside, one class.
    """
    where = shown(str(path))
    wanted = {"path": path_column, "label": label_column, "split": split_column, "group": group_column}
    is_parquet = path.suffix.lower() in (".parquet", ".pq")
    header, columns = _read_parquet(path, wanted) if is_parquet else _read_csv(path, wanted)
    notes = []
    unused = [name for name in header if name not in columns["names"]]
    if unused:
        notes.append(f"Columns that are not used: {named(unused)}.")
    rows = len(columns["path"])
    if not rows:
        raise DataError(f"{where} has no rows.")
    for kind in ("path", "label", "split"):
        missing = [str(row + 1) for row, cell in enumerate(columns[kind]) if not cell.strip()]
        if missing:
            raise DataError(f"{where}: {kind} missing in {len(missing):,} of {rows:,} rows: {named(missing)}.")
    split = _splits(where, columns["split"])
    encode(columns["label"])  # two spellings are told from each other before white space goes
    root = os.path.realpath(path.parent)
    files, dirt, outside, kept, stamp = [], [], [], [], Stamp()
    for row, cell in enumerate(columns["path"]):
        file = _relative(cell, root)
        if file is None:
            outside.append(cell)
            continue
        try:
            status = os.stat(os.path.join(root, file))
        except (OSError, ValueError) as error:
            reason = "it is not there" if isinstance(error, FileNotFoundError) else str(error)
            dirt.append(Dirt(cell, reason))
            continue
        if unusable(status):
            dirt.append(Dirt(cell, unusable(status)))
            continue
        kept.append(row)
        files.append(file)
        stamp.add(file, status)
    if outside:
        raise DataError(
            f"{where} names what is outside its folder, or no path, in {len(outside):,} rows: {named(outside)}. "
            "Paths are relative to the table."
        )
    if not kept:
        raise DataError(f"{where}: none of its {rows:,} files can be read, the first is {dirt[0]}.")
    lost = sorted({label.strip() for label in columns["label"]} - {columns["label"][row].strip() for row in kept})
    if lost:
        raise DataError(f"{where}: no file can be read of {named(lost)}, the first that is none is {dirt[0]}.")
    class_names, labels = encode([columns["label"][row].strip() for row in kept])
    groups = [cell.strip() for cell in columns["group"]]
    grouped = sum(bool(groups[row]) for row in kept) if groups else 0
    if groups and grouped < len(kept):
        notes.append(f"{len(kept) - grouped:,} of {len(kept):,} images have no group: each stands alone.")
    return Source(
        name=path.name,
        class_names=class_names,
        labels=labels,
        names=files,
        read=Files(root, files),
        split=np.array([split[row] for row in kept]) if len(set(split)) > 1 else None,
        groups=np.array([groups[row] or f"\0{row}" for row in kept]) if grouped else None,
        stamp=str(stamp),
        notes=tuple(notes),
        dirt=tuple(dirt),
    )


def _read_csv(path: Path, wanted: dict[str, str | None]) -> tuple[list[str], dict[str, list[str]]]:
    where = shown(str(path))
    if path.stat().st_size > TABLE_LIMIT:
        raise DataError(f"{where}: refused, it has more than {TABLE_LIMIT:,} bytes")
    with open(path, "rb") as raw:
        start = raw.read(4)
    encoding = "utf-16" if start[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        with open(path, newline="", encoding=encoding) as file:
            first = file.readline(2**16)
            file.seek(0)
            delimiter = max("\t,;|", key=first.count)
            table = csv.reader(file, delimiter=delimiter)
            header = [name.strip() for name in next(table, [])]
            found = _columns(where, header, wanted)
            cells: dict[str, list[str]] = {kind: [] for kind in _ALIASES}
            for number, row in enumerate(table, start=1):
                if not row:
                    continue
                if len(row) != len(header):
                    raise DataError(f"{where}: row {number} has {len(row)} cells, the header {len(header)}.")
                for kind, column in found.items():
                    cells[kind].append(row[column])
    except (UnicodeError, csv.Error) as error:
        raise DataError(f"{where} is no table of text (UTF-8): {error}") from error
    return header, cells | {"names": [header[column] for column in found.values()]}


def _read_parquet(path: Path, wanted: dict[str, str | None]) -> tuple[list[str], dict[str, list[str]]]:
    where = shown(str(path))
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise ImportError(f"Reading {where} needs `pip install pyarrow`, or save it as .csv: {error}") from error
    try:
        file = parquet.ParquetFile(path)
        header = list(file.schema_arrow.names)
        rows = file.metadata.num_rows
    except Exception as error:  # PyArrow has errors of its own
        raise DataError(f"{where} is damaged, or no Parquet: {error}") from error
    if rows > ROWS_LIMIT:
        raise DataError(f"{where}: refused, it says that it has {rows:,} rows, more than {ROWS_LIMIT:,}")
    found = _columns(where, header, wanted)
    cells: dict[str, list[str]] = {kind: [] for kind in _ALIASES}
    for kind, column in found.items():
        try:
            values = file.read(columns=[header[column]]).column(0).to_pylist()
        except Exception as error:  # as above
            raise DataError(f"{where}: the column {header[column]!r} cannot be read: {error}") from error
        if any(isinstance(value, (bytes, dict, list)) for value in values[:1]):
            raise DataError(
                f"{where}: the column {header[column]!r} must be text or whole numbers, not images or lists."
            )
        cells[kind] = [_cell(value) for value in values]
    return header, cells | {"names": [header[column] for column in found.values()]}


def _cell(value: object) -> str:
    if value is None or value != value:  # NaN
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _columns(where: str, header: Sequence[str], wanted: dict[str, str | None]) -> dict[str, int]:
    """The position of each kind of column."""
    if len(set(header)) < len(header):
        twice = sorted({name for name in header if header.count(name) > 1})
        raise DataError(f"{where} has two columns of one name: {named(twice)}.")
    lower = {name.casefold().replace(" ", "_").replace("-", "_"): index for index, name in enumerate(header)}
    found = {}
    for kind, aliases in _ALIASES.items():
        given = wanted[kind]
        if given is not None:
            if given not in header:
                near = difflib.get_close_matches(given, header, n=1)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise DataError(
                    f"`{kind}_column` must be one of {named(header, 20)}. Received: {kind}_column={given!r}.{hint}"
                )
            found[kind] = list(header).index(given)
            continue
        fitting = [alias for alias in aliases if alias in lower]
        if len(fitting) > 1:
            raise DataError(
                f"{where} has several columns that could be the {kind}: {', '.join(fitting)}. Leave one, "
                f"or, in code, give `{kind}_column`."
            )
        if fitting:
            found[kind] = lower[fitting[0]]
        elif kind in ("path", "label"):
            raise DataError(
                f"{where} has no column {kind!r}. Its columns are {named(header, 20) or 'none'}: rename one, or, "
                f"in code, give `{kind}_column`."
            )
    return found


def _splits(where: str, cells: Sequence[str]) -> list[str]:
    unknown = sorted({cell for cell in cells if cell.strip().casefold() not in SPLIT_NAMES})
    if unknown:
        raise DataError(f"{where}: a split must be train, test or val. Received: {named(unknown)}")
    found = [SPLIT_NAMES[cell.strip().casefold()] for cell in cells]
    if found and "train" not in found:
        raise DataError(f"{where}: no row has the split train.")
    return found


def _relative(cell: str, root: str) -> str | None:
    """A path of the table below its folder; None where it leads outside, by itself or by a link."""
    if "://" in cell or "\0" in cell:
        return None
    path = os.path.join(root, cell)
    if os.sep != "\\" and "\\" in cell and not os.path.lexists(path):
        path = os.path.join(root, cell.replace("\\", "/"))  # written on Windows
    # Not the resolved path: links below the folder keep their names. Checked is what will be read: `link/..` is another
    # place than its shortest form.
    path = os.path.normpath(path)
    return os.path.relpath(path, root) if is_inside(path, root) else None
