"""The rows of history.csv, one an epoch."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tf_mmloss.files import atomic_path


def best_epoch(history: Sequence[dict[str, Any]]) -> int | None:
    """The first of the epochs with the highest evaluated accuracy; None: none was evaluated."""
    evaluated = evaluated_epochs(history)
    return max(evaluated, key=lambda row: row["val_accuracy"])["epoch"] if evaluated else None


def evaluated_epochs(history: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The epochs that were evaluated."""
    return [row for row in history if row.get("val_accuracy") is not None]


def write_history(path: Path, history: Sequence[dict[str, Any]]) -> None:
    """Write history.csv; a value that is no number is a blank."""
    names = list(dict.fromkeys(name for row in history for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    for row in history:
        writer.writerow({name: value for name, value in row.items() if value is not None and np.isfinite(value)})
    with atomic_path(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")
