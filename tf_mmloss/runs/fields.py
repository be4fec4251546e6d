"""What the files of a run folder must hold: the types of the values that are read, for clear refusals."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tf_mmloss._validation import received

# More epochs or classes are none of ours.
MOST_EPOCHS, MOST_CLASSES = 100_000, 100_000
# Columns of a history in which NaN is a fault; in the others it is left out.
FINITE = ("epoch", "accuracy", "val_accuracy")


def fault(name: str, content: Mapping[str, Any]) -> str | None:
    """What is wrong with the content of a run folder's file, naming the field; None: nothing.

    Args:
        name: the file's, below the run folder.
        content: what it holds; fields that it lacks are no fault.
    """
    if name == "checkpoint/latest.json" and "history" in content:
        history = content["history"]
        if not isinstance(history, list) or not history:
            return f"`history` must be a list of epochs. {received('history', history)}"
        return fault_of_history(history)
    for field, (is_it, expected) in _FIELDS.get(name, {}).items():
        if field in content and not is_it(content[field]):
            return f"`{field}` must be {expected}. {received(field, content[field])}"
    errors = content.get("per_class_error") if name == "metrics.json" else None
    for field in ("class_names", "cls_counts"):
        if errors is not None and field in content and len(content[field]) != len(errors):
            return f"it has {len(content[field])} {field}, another number of errors"
    return None


def fault_of_history(rows: Sequence[Any]) -> str | None:
    """What is wrong with the rows of a history; None: nothing."""
    for number, row in enumerate(rows[: MOST_EPOCHS + 1]):
        if not isinstance(row, dict):
            return f"row {number} must be an object. {received('row', row)}"
        if row.get("epoch") != number or isinstance(row["epoch"], bool):
            return f"row {number} must be of epoch {number}. {received('epoch', row.get('epoch'))}"
        for name, value in row.items():
            if value is None:
                continue
            if not _is_number(value):
                return f"`{name}` must be a number in row {number}. {received(name, value)}"
            if name in ("accuracy", "val_accuracy") and not _is_fraction(value):
                return f"`{name}` must be a fraction in row {number}. {received(name, value)}"
    return f"it has more than {MOST_EPOCHS:,} epochs" if len(rows) > MOST_EPOCHS else None


def _is_number(value: Any) -> bool:
    """Whether a value read from JSON is a number; those that a float cannot hold are refused before."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def _is_fraction(value: Any) -> bool:
    return _is_number(value) and -1e-6 <= value <= 1 + 1e-6  # as it was rounded


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= 1000


def _or_none(is_it: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or is_it(value)


def _list_of(is_it: Callable[[Any], bool], most: int = MOST_CLASSES) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and 0 < len(value) <= most and all(map(is_it, value))


def _is_best_epoch(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and _is_count(value.get("epoch"))
        and _is_fraction(value.get("error"))
        and _is_count(value.get("evaluated"))
    )


def _is_decision(value: Any) -> bool:
    return isinstance(value, dict) and _is_text(value.get("decide")) and _is_fraction(value.get("error_without"))


def _is_start(value: Any) -> bool:
    """Whether a value is what a start of a run writes into environment.json."""
    if not isinstance(value, dict) or not isinstance(value.get("versions"), dict):
        return False
    texts = [*value["versions"].values(), value.get("backend"), value.get("processor")]
    return (
        all(map(_is_text, texts))
        and _or_none(_is_text)(value.get("commit"))
        and _or_none(_is_count)(value.get("cores"))
        and _or_none(_is_count)(value.get("first_epoch"))
    )


_COUNT = (_is_count, "a whole number")
_NUMBER = (_is_number, "a number")
_TEXT = (_is_text, "a text")
_FRACTION = (_is_fraction, "a fraction")
# By file: what a field that is there must be.
_FIELDS: dict[str, dict[str, tuple[Callable[[Any], bool], str]]] = {
    "config.json": {
        **dict.fromkeys(("dataset", "imbalance", "method", "augment", "decide"), _TEXT),
        "ratio": _NUMBER,
        "seed": _COUNT,
        **dict.fromkeys(("start_epoch", "frozen_epochs"), (_or_none(_is_count), "a whole number or null")),
    },
    "data.json": {"fingerprint": _TEXT},
    "environment.json": {"starts": (_list_of(_is_start), "a list of starts with their versions")},
    "failed.json": {"error": _TEXT, "message": (lambda value: isinstance(value, str), "a text")},
    "metrics.json": {
        **dict.fromkeys(("error", "balanced_accuracy", "mean_confidence", "calibration_error"), _FRACTION),
        "per_class_error": (_list_of(_or_none(_is_fraction)), "a list of fractions"),
        "shot_accuracy": (
            lambda value: isinstance(value, dict) and all(map(_or_none(_is_fraction), value.values())),
            "an object of fractions",
        ),
        "best_epoch": (_is_best_epoch, "an object of an epoch, its error, and how many were evaluated"),
        "cls_counts": (_list_of(_is_count), "a list of whole numbers"),
        "class_names": (_list_of(_is_text), "a list of texts"),
        "mean": (_list_of(_is_number), "a list of numbers"),
        "std": (_list_of(_is_number), "a list of numbers"),
        "epochs": _COUNT,
        "seconds": _NUMBER,
        "images_per_second": _NUMBER,
        "evaluated_on": _TEXT,
        "decision": (_is_decision, "an object of a decision with its strength, and the error without it"),
        "checksum": _TEXT,
    },
}
